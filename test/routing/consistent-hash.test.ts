import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { pointCounts } from '../../src/routing/consistent-hash.ts'
import type { Candidate, TierMemory } from '../../src/routing/strategy.ts'
import { countEach, member, tierOf } from './candidates.ts'

const KEYS = Array.from({ length: 10_000 }, (_, at) => `session-${at}`)
const CIRCLE = 2 ** 53

/** The whole order of each key. */
function ordersOf(tier: readonly Candidate[], keys: readonly string[], candidates?: readonly Candidate[]): string[][] {
  const order = tierOf('consistent_hash', tier)
  return keys.map(hashKey => order({ candidates, hashKey }))
}

const firstOf = (order: readonly string[]) => order[0] ?? 'nobody'

/** Part of the circle that belongs to each member, to the last point. */
function shares(tier: readonly Candidate[]): Record<string, number> {
  const memory: TierMemory = {}
  tierOf('consistent_hash', tier, memory)()
  const { points, owners } = memory.ring ?? { points: new Float64Array(), owners: new Uint32Array() }
  expect(points.length).toBeGreaterThan(0)
  const found: Record<string, number> = {}
  let before = (points.at(-1) ?? 0) - CIRCLE
  points.forEach((point, at) => {
    const alias = tier[owners[at] ?? -1]?.alias ?? 'nobody'
    found[alias] = (found[alias] ?? 0) + (point - before) / CIRCLE
    before = point
  })
  return found
}

describe('the hash', () => {
  // Reference values of the algorithm: a runtime that computed others would send every key elsewhere after an update.
  test.each([
    ['', 0xef46db3751d8e999n],
    ['a', 0xd24ec4f1a98c6e5bn],
    ['abc', 0x44bc2cf5ad770999n],
  ])('of %p is xxHash64', (text, expected) => {
    expect(Bun.hash.xxHash64(text, 0n)).toBe(expected)
  })

  test('is taken over the bytes of UTF-8', () => {
    expect(Bun.hash.xxHash64('é 日本', 0n)).toBe(Bun.hash.xxHash64(new TextEncoder().encode('é 日本'), 0n))
  })
})

describe('a key goes where it has always gone, over starts and versions:', () => {
  const tier = [member('llama-3-a'), member('llama-3-b', { weight: 2 }), member('llama-3-c')]
  const order = tierOf('consistent_hash', tier)

  test.each([
    ['', 'abc'],
    ['alice', 'cba'],
    ['bob', 'abc'],
    ['session-1', 'cba'],
    ['session-2', 'bac'],
    ['é 日本', 'bac'],
  ])('%p to %s', (hashKey, expected) => {
    expect(order({ hashKey })).toEqual([...expected].map(letter => `llama-3-${letter}`))
  })

  test('10,000 more, by the hash of their orders', () => {
    const orders = KEYS.map(hashKey => order({ hashKey }).join())
    expect(Bun.hash.xxHash64(orders.join('\n'), 0n).toString(16)).toBe('b51a4e4bd52a3305')
  })
})

test('an order does not hang on the declaration, nor on what was asked before', () => {
  const tier = [member('a', { weight: 3 }), member('b'), member('c', { weight: 2 }), member('d')]
  const keys = KEYS.slice(0, 300)
  const orders = ordersOf(tier, keys)
  expect(ordersOf(tier.toReversed(), keys)).toEqual(orders)
  expect(ordersOf(tier, keys.toReversed()).toReversed()).toEqual(orders)
})

describe('a member that is out', () => {
  const shapes = fc
    .array(fc.integer({ min: 1, max: 12 }), { minLength: 2, maxLength: 7 })
    .chain(weights => fc.tuple(fc.constant(weights), fc.nat(weights.length - 1), fc.string({ minLength: 1, maxLength: 5 })))

  test('loses its keys, and no other key moves: 10,000 keys, any weights', () => {
    fc.assert(
      fc.property(shapes, ([weights, out, name]) => {
        const tier = weights.map((weight, at) => member(`${name}-${at}`, { weight }))
        const failed = tier[out]?.alias ?? ''
        const whole = ordersOf(tier, KEYS)
        const rest = ordersOf(
          tier,
          KEYS,
          tier.filter(({ alias }) => alias !== failed),
        )
        let moved = 0
        let wasWrong = 0
        for (const [at, before] of whole.entries()) {
          const after = firstOf(rest[at] ?? [])
          if (firstOf(before) === failed) moved += 1
          else if (after !== firstOf(before)) wasWrong += 1
          // Its keys go to whoever came second: what a caller sees in a fail-over and what a filter leaves are one.
          if (firstOf(before) === failed && after !== before[1]) wasWrong += 1
        }
        expect(wasWrong).toBe(0)
        expect(moved).toBeGreaterThan(0)
      }),
      { numRuns: 15 },
    )
  })

  test('hands its keys to all the others, by their weights', () => {
    const tier = [member('a'), member('b'), member('c', { weight: 2 }), member('d')]
    const whole = ordersOf(tier, KEYS)
    const heirs = countEach(whole.filter(order => firstOf(order) === 'a').map(order => order[1] ?? 'nobody'))
    const total = (heirs.b ?? 0) + (heirs.c ?? 0) + (heirs.d ?? 0)
    expect(Math.abs((heirs.b ?? 0) / total - 0.25)).toBeLessThan(0.04)
    expect(Math.abs((heirs.c ?? 0) / total - 0.5)).toBeLessThan(0.04)
    expect(Math.abs((heirs.d ?? 0) / total - 0.25)).toBeLessThan(0.04)
  })

  test('has its keys back when it returns', () => {
    const tier = [member('a'), member('b'), member('c')]
    const order = tierOf('consistent_hash', tier)
    const ask = (candidates: readonly Candidate[]) => KEYS.slice(0, 200).map(hashKey => order({ candidates, hashKey }))
    const before = ask(tier)
    ask(tier.slice(1))
    expect(ask(tier)).toEqual(before)
  })
})

describe('the spread', () => {
  const namings = (at: number) => [`m${at}-a`, `m${at}-b`, `m${at}-c`, `m${at}-d`]
  const others = (at: number) => ['vllm', 'sglang', 'ollama', 'llama.cpp'].map(server => `${server}/llama-3.${at}`)
  const numbers = (at: number) => [1, 2, 3, 4].map(number => `gpu${at * 10 + number}`)
  const SETS = [namings, others, numbers].flatMap(names => Array.from({ length: 20 }, (_, at) => names(at)))

  test('over 4 equal members stays within 10 % for 60 sets of names, of the circle and of 10,000 keys', () => {
    expect(new Set(SETS.map(names => names.join())).size).toBe(60)
    for (const names of SETS) {
      const tier = names.map(name => member(name))
      const circle = shares(tier)
      const keys = countEach(ordersOf(tier, KEYS).map(firstOf))
      for (const name of names) {
        expect(Math.abs((circle[name] ?? 0) * 4 - 1), `circle of ${names}`).toBeLessThan(0.1)
        expect(Math.abs((keys[name] ?? 0) / 2_500 - 1), `keys of ${names}`).toBeLessThan(0.1)
      }
    }
  })

  test.each([
    [
      [70, 30],
      [0.7, 0.3],
    ],
    [
      [1, 1, 1],
      [1 / 3, 1 / 3, 1 / 3],
    ],
    [
      [7_000_000, 2_000_000, 1_000_000],
      [0.7, 0.2, 0.1],
    ],
  ])('follows weights of %p', (weights, expected) => {
    const found = shares(weights.map((weight, at) => member(`m${at}`, { weight })))
    for (const [at, share] of expected.entries()) expect(Math.abs((found[`m${at}`] ?? 0) / share - 1)).toBeLessThan(0.1)
  })
})

describe('points', () => {
  test.each([
    [[1], [10_240]],
    [[5], [10_240]],
    [
      [1, 1, 1, 1],
      [2_560, 2_560, 2_560, 2_560],
    ],
    [
      [1, 1, 1],
      [3_413, 3_413, 3_413],
    ],
    [
      [70, 30],
      [7_168, 3_072],
    ],
    [
      [7, 3],
      [7_168, 3_072],
    ],
    [
      [63, 1],
      [10_080, 160],
    ],
    [
      [700_000, 300_000],
      [7_168, 3_072],
    ],
    // A light member has a unit of its own, and the heavy one does not pay for it.
    [
      [1_000_000, 1, 1],
      [10_240, 160, 160],
    ],
  ])('weights of %p are scaled to 64 units of 160: %p', (weights, expected) => {
    expect(pointCounts(weights)).toEqual(expected)
  })

  test('a hundred members have one unit each, and all get keys', () => {
    const tier = Array.from({ length: 100 }, (_, at) => member(`m${at}`))
    expect(pointCounts(tier.map(({ weight }) => weight))).toEqual(tier.map(() => 160))
    expect(Object.keys(countEach(ordersOf(tier, KEYS.slice(0, 4_000)).map(firstOf)))).toHaveLength(100)
  })

  test('a model that is declared twice has the keys of both', () => {
    const found = shares([member('a'), member('b'), member('a')])
    expect(Math.abs((found.a ?? 0) - 2 / 3)).toBeLessThan(0.05)
  })
})

describe('the ring', () => {
  const tier = () => [member('a'), member('b', { weight: 2 })]

  test('is kept over requests, and over changes that leave aliases and weights as they are', () => {
    const memory: TierMemory = {}
    tierOf('consistent_hash', tier(), memory)({ hashKey: 'one' })
    const { ring } = memory
    expect(ring).toBeDefined()
    tierOf('consistent_hash', tier(), memory)({ hashKey: 'two' })
    expect(memory.ring).toBe(ring)
  })

  test.each([
    ['a weight', [member('a'), member('b')]],
    ['a member', [member('a'), member('c', { weight: 2 })]],
    ['an alias', [member('a'), { ...member('c', { weight: 2 }), id: 'id of b' }]],
    ['the number of members', [...tier(), member('c')]],
  ])('is laid out anew when %s changes', (_what, changed) => {
    const memory: TierMemory = {}
    tierOf('consistent_hash', tier(), memory)({ hashKey: 'one' })
    const { ring } = memory
    const keys = KEYS.slice(0, 200)
    const order = tierOf('consistent_hash', changed, memory)
    const orders = keys.map(hashKey => order({ hashKey }))
    expect(memory.ring).not.toBe(ring)
    expect(orders).toEqual(ordersOf(changed, keys))
  })
})

test('an empty key is a key like any other: all such requests go to one member', () => {
  const order = tierOf('consistent_hash', [member('a'), member('b'), member('c')])
  expect(new Set(Array.from({ length: 20 }, () => order({ hashKey: '' }).join())).size).toBe(1)
})
