import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import type { TierMemory } from '../../src/routing/strategy.ts'
import { countEach, measuresOf, member, tierOf } from './candidates.ts'

const seventy = member('a', { weight: 70 })
const thirty = member('b', { weight: 30 })

/** Aliases that were first in `count` calls. */
function firsts(order: () => string[], count: number): string[] {
  return Array.from({ length: count }, () => order()[0] ?? 'nobody')
}

describe('weights', () => {
  test('of 70 and 30 hold exactly over 100 calls, from any call on', () => {
    const calls = firsts(tierOf('round_robin', [seventy, thirty]), 400)
    for (let start = 0; start <= 300; start += 1) {
      expect(countEach(calls.slice(start, start + 100))).toEqual({ a: 70, b: 30 })
    }
  })

  test('are spread smoothly: 5, 1, 1 never come in one block (the sequence of nginx)', () => {
    const order = tierOf('round_robin', [member('a', { weight: 5 }), member('b'), member('c')])
    expect(firsts(order, 14).join('')).toBe('aabacaa'.repeat(2))
  })

  test('hold exactly over their total, from any call on, whatever they are', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 6 }), weights => {
        const tier = weights.map((weight, at) => member(`m${at}`, { weight }))
        const total = weights.reduce((sum, weight) => sum + weight, 0)
        const calls = firsts(tierOf('round_robin', tier), total * 2)
        const shares = Object.fromEntries(weights.map((weight, at) => [`m${at}`, weight]))
        for (let start = 0; start <= total; start += 1) {
          expect(countEach(calls.slice(start, start + total))).toEqual(shares)
        }
      }),
      { numRuns: 40 },
    )
  })

  test('equal ones take turns in the order of declaration', () => {
    expect(firsts(tierOf('round_robin', [member('c'), member('a'), member('b')]), 6)).toEqual(['c', 'a', 'b', 'c', 'a', 'b'])
  })

  test('at their largest stay exact', () => {
    const weight = 2_147_483_647
    const calls = firsts(tierOf('round_robin', [member('a', { weight }), member('b', { weight })]), 1_001)
    expect(countEach(calls)).toEqual({ a: 501, b: 500 })
  })

  test('of a model that is declared twice add up', () => {
    expect(countEach(firsts(tierOf('round_robin', [member('a'), member('a'), member('b')]), 30))).toEqual({ a: 20, b: 10 })
  })
})

test('the others follow the chosen one in the order of declaration, wrapping', () => {
  const order = tierOf('round_robin', [member('a'), member('b'), member('c')])
  expect(order()).toEqual(['a', 'b', 'c'])
  expect(order()).toEqual(['b', 'c', 'a'])
  expect(order()).toEqual(['c', 'a', 'b'])
})

describe('a member that is left out of a request', () => {
  test('takes no part in the pick and keeps its running value', () => {
    const [a, b, c] = [member('a'), member('b'), member('c')]
    const memory: TierMemory = {}
    const order = tierOf('round_robin', [a, b, c], memory)
    expect(order()).toEqual(['a', 'b', 'c'])
    const values = () => Object.fromEntries(memory.roundRobin?.values ?? [])
    expect(values()).toEqual({ 'id of a': -2, 'id of b': 1, 'id of c': 1 })
    expect(order({ candidates: [a, c] })).toEqual(['c', 'a'])
    expect(values()).toEqual({ 'id of a': -1, 'id of b': 1, 'id of c': 0 })
  })

  test('leaves the rest their shares of one another', () => {
    const [a, b, c] = [member('a', { weight: 2 }), member('b'), member('c', { weight: 7 })]
    const order = tierOf('round_robin', [a, b, c])
    const calls = firsts(() => order({ candidates: [a, b] }), 30)
    expect(countEach(calls)).toEqual({ a: 20, b: 10 })
  })
})

describe('what is remembered', () => {
  test('outlives a change of the configuration that leaves members and weights as they are', () => {
    const memory: TierMemory = {}
    const before = tierOf('round_robin', [member('a'), member('b')], memory)
    expect(before()).toEqual(['a', 'b'])
    const after = tierOf('round_robin', [member('a', { cost: 5 }), member('b', { tags: ['new'] })], memory)
    expect(after()).toEqual(['b', 'a'])
  })

  test.each([
    ['a weight', [member('a', { weight: 2 }), member('b', { weight: 2 })]],
    ['a member', [member('a'), member('c')]],
    ['the number of members', [member('a'), member('b'), member('c')]],
  ])('begins anew when %s changes', (_what, changed) => {
    const memory: TierMemory = {}
    expect(tierOf('round_robin', [member('a'), member('b')], memory)()[0]).toBe('a')
    expect(tierOf('round_robin', changed, memory)()[0]).toBe('a')
  })

  test('belongs to one tier: two of them count apart', () => {
    const [first, second] = [tierOf('round_robin', [member('a'), member('b')]), tierOf('round_robin', [member('a'), member('b')])]
    expect(first()).toEqual(['a', 'b'])
    expect(second({ measures: measuresOf() })).toEqual(['a', 'b'])
    expect(first()).toEqual(['b', 'a'])
  })
})
