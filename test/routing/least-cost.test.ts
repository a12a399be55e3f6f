import { expect, test } from 'bun:test'
import { measuresOf, member, tierOf } from './candidates.ts'

test('the cheapest is first, one that costs nothing before it, those without a price last', () => {
  const tier = [member('unknown'), member('dear', { cost: 0.03 }), member('free', { cost: 0 }), member('cheap', { cost: 0.0002 })]
  expect(tierOf('least_cost', tier)()).toEqual(['free', 'cheap', 'dear', 'unknown'])
})

test('of equal prices, and of none, the order of declaration stays', () => {
  const tier = [member('x'), member('b', { cost: 1 }), member('y'), member('a', { cost: 1 }), member('z')]
  expect(tierOf('least_cost', tier)()).toEqual(['b', 'a', 'x', 'y', 'z'])
  expect(tierOf('least_cost', [member('b'), member('a')])()).toEqual(['b', 'a'])
  expect(tierOf('least_cost', [member('b', { cost: 1 }), member('a', { cost: 1 })])()).toEqual(['b', 'a'])
})

test('of two, the second goes first where it is cheaper', () => {
  expect(tierOf('least_cost', [member('a', { cost: 2 }), member('b', { cost: 1 })])()).toEqual(['b', 'a'])
  expect(tierOf('least_cost', [member('a'), member('b', { cost: 9 })])()).toEqual(['b', 'a'])
})

test('weights and loads do not count', () => {
  const tier = [member('a', { cost: 1 }), member('b', { cost: 2, weight: 100 })]
  expect(tierOf('least_cost', tier)({ measures: measuresOf({ a: 50 }, { a: 9_000, b: 1 }) })).toEqual(['a', 'b'])
})
