import { expect, test } from 'bun:test'
import { measuresOf, member, tierOf } from './candidates.ts'

test('the one with the least under way is first, in the order of declaration where loads are equal', () => {
  const order = tierOf(
    'least_busy',
    ['c', 'a', 'b', 'd'].map(alias => member(alias)),
  )
  expect(order({ measures: measuresOf({ c: 2, a: 1, b: 0, d: 1 }) })).toEqual(['b', 'a', 'd', 'c'])
  expect(order()).toEqual(['c', 'a', 'b', 'd'])
})

test('a heavy member takes its weight in requests for each of a light one', () => {
  const order = tierOf('least_busy', [member('light'), member('heavy', { weight: 3 })])
  const first = (light: number, heavy: number) => order({ measures: measuresOf({ light, heavy }) })[0]
  expect(first(0, 0)).toBe('heavy')
  expect(first(0, 1)).toBe('heavy')
  expect(first(0, 2)).toBe('light') // 1/1 and 3/3: equal, so the order of declaration
  expect(first(1, 2)).toBe('heavy')
  expect(first(1, 5)).toBe('light')
})

test('requests that stay under way are shared by weight', () => {
  const tier = [member('a'), member('b', { weight: 2 }), member('c', { weight: 5 })]
  const order = tierOf('least_busy', tier)
  const loads: Record<string, number> = { a: 0, b: 0, c: 0 }
  for (let request = 0; request < 800; request += 1) {
    const [first = ''] = order({ measures: measuresOf(loads) })
    loads[first] = (loads[first] ?? 0) + 1
  }
  expect(loads).toEqual({ a: 100, b: 200, c: 500 })
})
