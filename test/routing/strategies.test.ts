/** What every strategy promises, whichever way it orders. */
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { STRATEGIES } from '../../src/routing/index.ts'
import { STRATEGY_NAMES } from '../../src/routing/names.ts'
import type { Candidate, TierMemory } from '../../src/routing/strategy.ts'
import { measuresOf, member, tierOf } from './candidates.ts'

const tiers = fc
  .uniqueArray(fc.string({ maxLength: 6 }), { maxLength: 12 })
  .chain(names => fc.tuple(...names.map(name => fc.tuple(fc.constant(name), fc.integer({ min: 1, max: 2_147_483_647 })))))
  .map(parts => parts.map(([alias, weight]) => member(alias, { weight, cost: weight % 3 === 0 ? undefined : weight % 5 })))

/** A tier, and requests that may use some of its members each. */
const histories = tiers.chain(tier =>
  fc.tuple(fc.constant(tier), fc.array(fc.tuple(fc.subarray(tier), fc.string()), { maxLength: 8 })),
)

const measures = {
  inFlight: (id: string) => id.length % 4,
  latencyMs: (id: string) => (id.length % 3 === 0 ? undefined : id.length),
}

/** The members by identity, in an order that does not hang on that of the array. */
function sorted(candidates: readonly Candidate[]): Candidate[] {
  return candidates.toSorted((a, b) => (a.id < b.id ? -1 : 1))
}

for (const name of STRATEGY_NAMES) {
  const strategy = STRATEGIES[name]

  describe(name, () => {
    test('gives every candidate exactly once, whichever members are left out', () => {
      fc.assert(
        fc.property(histories, ([tier, requests]) => {
          const memory: TierMemory = {}
          for (const [candidates, hashKey] of requests) {
            const ordered = strategy.order({ candidates, tier, memory, hashKey, measures })
            expect(sorted(ordered)).toEqual(sorted(candidates))
          }
        }),
        { numRuns: 60 },
      )
    })

    test('leaves what it is given as it is, and gives an array of its own', () => {
      const tier = Object.freeze(
        [member('c', { cost: 3 }), member('a', { cost: 1 }), member('b', { cost: 2 })].map(each => Object.freeze(each)),
      )
      const candidates = tier.filter(({ alias }) => alias !== 'b')
      const before = structuredClone(tier)
      for (const asked of [tier, Object.freeze(candidates)]) {
        const ordered = strategy.order({ candidates: asked, tier, memory: {}, hashKey: 'key', measures })
        expect(ordered).not.toBe(asked)
        ordered.length = 0
      }
      expect(tier).toEqual(before)
      expect(candidates).toHaveLength(2)
    })

    test('gives the only candidate, and nothing for none', () => {
      const tier = [member('a'), member('b')]
      const order = tierOf(name, tier)
      expect(order({ candidates: tier.slice(1), hashKey: 'key' })).toEqual(['b'])
      expect(order({ candidates: [], hashKey: 'key' })).toEqual([])
    })

    test('keeps a model that is declared twice in both places', () => {
      const order = tierOf(name, [member('a'), member('b'), member('a')])
      for (let call = 0; call < 10; call += 1) expect(order({ hashKey: `key ${call}` }).toSorted()).toEqual(['a', 'a', 'b'])
    })
  })
}

test('max_fallbacks cuts before members that are down are left out where the order does not hang on measurements', () => {
  expect(STRATEGY_NAMES.filter(name => STRATEGIES[name].cutsFirst)).toEqual(['failover', 'round_robin', 'consistent_hash'])
})

test('only consistent_hash looks for a key', () => {
  expect(STRATEGY_NAMES.filter(name => STRATEGIES[name].usesHashKey)).toEqual(['consistent_hash'])
})

describe('failover', () => {
  test('keeps the order of declaration, whatever weights, prices and measurements say', () => {
    const order = tierOf('failover', [member('c', { cost: 9 }), member('a', { weight: 50, cost: 1 }), member('b')])
    const busy = measuresOf({ c: 100 }, { c: 9_000, a: 1 })
    expect(order({ measures: busy })).toEqual(['c', 'a', 'b'])
    expect(order({ measures: busy })).toEqual(['c', 'a', 'b'])
  })
})
