import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { type BucketLimit, isRefusal, type Lease, type Limiter, type Limits, type Refusal } from '../../src/limits/limit.ts'
import { createLimiter, REJECTION_LABELS_MAX } from '../../src/limits/limiter.ts'

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
/** The first instant of a UTC day, so that every window begins here. */
const MIDNIGHT = Date.parse('2030-03-15T00:00:00Z')

const bucket = (limits: Limits, key = 'key-1'): BucketLimit => ({ key, limits, layer: 'api_key' })

function admitted(limiter: Limiter, buckets: BucketLimit[], nowMs: number): Lease {
  const outcome = limiter.reserve(buckets, nowMs)
  if (isRefusal(outcome)) throw new Error(`refused by ${outcome.limit.key} (${outcome.scope})`)
  return outcome
}

function refused(limiter: Limiter, buckets: BucketLimit[], nowMs: number): Refusal {
  const outcome = limiter.reserve(buckets, nowMs)
  if (!isRefusal(outcome)) throw new Error('was let in')
  return outcome
}

describe('windows of requests', () => {
  const windows = [
    ['rps', SECOND],
    ['rpm', MINUTE],
    ['rph', HOUR],
    ['rpd', DAY],
  ] as const

  for (const [name, length] of windows) {
    test(`${name}: the limit is reached, the next is refused, and the next window is free from its first millisecond`, () => {
      const limiter = createLimiter()
      const limit = bucket({ [name]: 2 })
      admitted(limiter, [limit], MIDNIGHT)
      admitted(limiter, [limit], MIDNIGHT + length - 1)
      expect(refused(limiter, [limit], MIDNIGHT + length - 1)).toEqual({ scope: 'requests', retryAfterSecs: 1, limit })
      admitted(limiter, [limit], MIDNIGHT + length)
      admitted(limiter, [limit], MIDNIGHT + length)
      refused(limiter, [limit], MIDNIGHT + length)
    })

    test(`${name}: a refusal tells the whole seconds to the end of the window`, () => {
      const limiter = createLimiter()
      const limit = bucket({ [name]: 1 })
      admitted(limiter, [limit], MIDNIGHT)
      expect(refused(limiter, [limit], MIDNIGHT).retryAfterSecs).toBe(length / SECOND)
      expect(refused(limiter, [limit], MIDNIGHT + 1).retryAfterSecs).toBe(length / SECOND)
    })
  }

  test('windows are aligned to the clock, not to the first request', () => {
    const limiter = createLimiter()
    const limit = bucket({ rpm: 1 })
    admitted(limiter, [limit], MIDNIGHT + 59_999)
    admitted(limiter, [limit], MIDNIGHT + 60_000)
  })

  test('a day is one of UTC', () => {
    const limiter = createLimiter()
    const limit = bucket({ rpd: 1 })
    admitted(limiter, [limit], Date.parse('2030-03-15T23:59:59.999Z'))
    admitted(limiter, [limit], Date.parse('2030-03-16T00:00:00Z'))
  })

  test('a limit of 0 lets nothing pass, whatever it limits', () => {
    for (const name of ['rps', 'rpm', 'rph', 'rpd', 'tpm', 'tpd', 'concurrency'] as const) {
      refused(createLimiter(), [bucket({ [name]: 0 })], MIDNIGHT)
    }
  })

  test('a limit object without limits restricts nothing and counts all the same', () => {
    const limiter = createLimiter()
    for (let i = 0; i < 5; i++) admitted(limiter, [bucket({})], MIDNIGHT).commit(7, MIDNIGHT)
    expect(limiter.standing('key-1', MIDNIGHT)).toEqual({
      requests: { rps: 5, rpm: 5, rph: 5, rpd: 5 },
      tokens: { tpm: 35, tpd: 35 },
      inFlight: 0,
    })
  })

  test('a limit that is lowered counts what has passed before', () => {
    const limiter = createLimiter()
    for (let i = 0; i < 3; i++) admitted(limiter, [bucket({ rph: 10 })], MIDNIGHT)
    refused(limiter, [bucket({ rpm: 3 })], MIDNIGHT + 1)
    admitted(limiter, [bucket({ rpm: 4 })], MIDNIGHT + 1)
  })
})

describe('windows of tokens', () => {
  for (const [name, length] of [
    ['tpm', MINUTE],
    ['tpd', DAY],
  ] as const) {
    test(`${name}: the request that crosses the limit passes, the next is refused until the window ends`, () => {
      const limiter = createLimiter()
      const limit = bucket({ [name]: 100 })
      admitted(limiter, [limit], MIDNIGHT).commit(100, MIDNIGHT)
      admitted(limiter, [limit], MIDNIGHT + 1).commit(1, MIDNIGHT + 1)
      expect(refused(limiter, [limit], MIDNIGHT + length - 1)).toEqual({ scope: 'tokens', retryAfterSecs: 1, limit })
      admitted(limiter, [limit], MIDNIGHT + length)
    })
  }

  test('tokens go to the windows of their commit, not of their reservation', () => {
    const limiter = createLimiter()
    const limit = bucket({ tpm: 10 })
    const lease = admitted(limiter, [limit], MIDNIGHT)
    lease.commit(50, MIDNIGHT + MINUTE)
    refused(limiter, [limit], MIDNIGHT + MINUTE)
    admitted(limiter, [limit], MIDNIGHT + 2 * MINUTE)
  })

  test('requests under way are not counted as tokens before they end', () => {
    const limiter = createLimiter()
    const limit = bucket({ tpm: 10 })
    for (let i = 0; i < 20; i++) admitted(limiter, [limit], MIDNIGHT)
  })

  test('a token count that is no positive number adds nothing, and the place is given back', () => {
    const limiter = createLimiter()
    for (const tokens of [0, -5, Number.NaN, Number.POSITIVE_INFINITY]) {
      admitted(limiter, [bucket({ tpm: 1 })], MIDNIGHT).commit(tokens, MIDNIGHT)
    }
    expect(limiter.standing('key-1', MIDNIGHT).tokens).toEqual({ tpm: 0, tpd: 0 })
    expect(limiter.inFlight).toBe(0)
  })
})

describe('concurrency and leases', () => {
  test('a place is refused while all are taken, without a time to retry after, and free once one is given back', () => {
    const limiter = createLimiter()
    const limit = bucket({ concurrency: 2 })
    const first = admitted(limiter, [limit], MIDNIGHT)
    admitted(limiter, [limit], MIDNIGHT)
    expect(refused(limiter, [limit], MIDNIGHT)).toEqual({ scope: 'concurrency', retryAfterSecs: undefined, limit })
    first.release()
    admitted(limiter, [limit], MIDNIGHT)
  })

  test('a place is held over the end of every window', () => {
    const limiter = createLimiter()
    const limit = bucket({ concurrency: 1 })
    const lease = admitted(limiter, [limit], MIDNIGHT)
    refused(limiter, [limit], MIDNIGHT + 3 * DAY)
    lease.release()
    admitted(limiter, [limit], MIDNIGHT + 3 * DAY)
  })

  test('release gives places back once and leaves requests counted', () => {
    const limiter = createLimiter()
    const limit = bucket({ rpm: 1 })
    const lease = admitted(limiter, [limit, bucket({}, 'model-1')], MIDNIGHT)
    expect(limiter.inFlight).toBe(2)
    lease.release()
    lease.release()
    expect(limiter.inFlight).toBe(0)
    expect(limiter.standing('key-1', MIDNIGHT).inFlight).toBe(0)
    refused(limiter, [limit], MIDNIGHT)
  })

  test('a second commit, a commit after release and a release after commit change nothing', () => {
    const limiter = createLimiter()
    const committed = admitted(limiter, [bucket({})], MIDNIGHT)
    committed.commit(10, MIDNIGHT)
    committed.commit(10, MIDNIGHT)
    committed.release()
    const released = admitted(limiter, [bucket({})], MIDNIGHT)
    released.release()
    released.commit(10, MIDNIGHT)
    expect(limiter.standing('key-1', MIDNIGHT)).toMatchObject({ tokens: { tpm: 10, tpd: 10 }, inFlight: 0 })
    expect(limiter.inFlight).toBe(0)
  })

  test('a request without buckets is let in and holds nothing', () => {
    const limiter = createLimiter()
    admitted(limiter, [], MIDNIGHT).commit(5, MIDNIGHT)
    expect(limiter.inFlight).toBe(0)
    expect(limiter.size).toBe(0)
  })
})

describe('several limits at once', () => {
  test('inside a bucket the refusal is told in the order concurrency, tpm, tpd, rps, rpm, rph, rpd', () => {
    // Everything is exceeded; the limit that was told is lifted, and the next in the order must be told.
    const order = ['concurrency', 'tpm', 'tpd', 'rps', 'rpm', 'rph', 'rpd'] as const
    const scopes = ['concurrency', 'tokens', 'tokens', 'requests', 'requests', 'requests', 'requests'] as const
    const secs = [undefined, 60, 86_400, 1, 60, 3_600, 86_400]
    const limiter = createLimiter()
    admitted(limiter, [bucket({})], MIDNIGHT)
    admitted(limiter, [bucket({})], MIDNIGHT).commit(100, MIDNIGHT)
    for (const [index, name] of order.entries()) {
      const limits = Object.fromEntries(order.slice(index).map(each => [each, 1]))
      const { scope, retryAfterSecs } = refused(limiter, [bucket(limits)], MIDNIGHT)
      expect([name, scope, retryAfterSecs]).toEqual([name, scopes[index], secs[index]])
    }
  })

  test('the first bucket that refuses is told, and none of them counts the request', () => {
    const limiter = createLimiter()
    const key = bucket({ rpm: 10 }, 'key-1')
    const model = bucket({ rpm: 1 }, 'model-1')
    const policy = bucket({ rpm: 1 }, 'policy-1')
    admitted(limiter, [key, model, policy], MIDNIGHT).release()
    const before = ['key-1', 'model-1', 'policy-1'].map(each => limiter.standing(each, MIDNIGHT))
    for (let i = 0; i < 20; i++) expect(refused(limiter, [key, model, policy], MIDNIGHT).limit).toBe(model)
    expect(['key-1', 'model-1', 'policy-1'].map(each => limiter.standing(each, MIDNIGHT))).toEqual(before)
    expect(limiter.inFlight).toBe(0)
    admitted(limiter, [key], MIDNIGHT)
  })

  test('buckets of different keys are independent', () => {
    const limiter = createLimiter()
    admitted(limiter, [bucket({ rpm: 1 }, 'a')], MIDNIGHT)
    refused(limiter, [bucket({ rpm: 1 }, 'a')], MIDNIGHT)
    admitted(limiter, [bucket({ rpm: 1 }, 'b')], MIDNIGHT)
  })

  test('a bucket that is named twice is counted once, and the stricter limit holds', () => {
    for (const order of [
      [2, 5],
      [5, 2],
    ]) {
      const limiter = createLimiter()
      const twice = order.map(rpm => bucket({ rpm }))
      admitted(limiter, twice, MIDNIGHT).release()
      const second = admitted(limiter, twice, MIDNIGHT)
      expect(limiter.standing('key-1', MIDNIGHT)).toMatchObject({ requests: { rpm: 2 }, inFlight: 1 })
      expect(refused(limiter, twice, MIDNIGHT).limit.limits.rpm).toBe(2)
      second.commit(3, MIDNIGHT)
      expect(limiter.standing('key-1', MIDNIGHT)).toMatchObject({ tokens: { tpm: 3 }, inFlight: 0 })
      expect(limiter.inFlight).toBe(0)
    }
  })
})

describe('a clock that is put back', () => {
  test('by less than a window: the window goes on, and nobody gets its limit twice', () => {
    const limiter = createLimiter()
    const limit = bucket({ rpm: 1 })
    admitted(limiter, [limit], MIDNIGHT)
    expect(refused(limiter, [limit], MIDNIGHT - 5_000).retryAfterSecs).toBe(65)
    refused(limiter, [limit], MIDNIGHT - MINUTE)
    admitted(limiter, [limit], MIDNIGHT + MINUTE)
  })

  test('by more than a window: it starts anew, and counts on from there', () => {
    const limiter = createLimiter()
    for (const [name, length] of [
      ['rps', SECOND],
      ['rpm', MINUTE],
      ['rph', HOUR],
      ['rpd', DAY],
    ] as const) {
      const limit = bucket({ [name]: 1 }, name)
      admitted(limiter, [limit], MIDNIGHT)
      const back = MIDNIGHT - length - 1
      admitted(limiter, [limit], back)
      expect(refused(limiter, [limit], back).retryAfterSecs).toBe(1)
      admitted(limiter, [limit], back + 1)
    }
  })

  test('by days: the bucket is not stuck until the clock has caught up', () => {
    const limiter = createLimiter()
    const limit = bucket({ tpd: 10, rpd: 1 })
    admitted(limiter, [limit], MIDNIGHT).commit(1_000, MIDNIGHT)
    admitted(limiter, [limit], MIDNIGHT - 30 * DAY).commit(1, MIDNIGHT - 30 * DAY)
    expect(refused(limiter, [limit], MIDNIGHT - 30 * DAY).retryAfterSecs).toBe(86_400)
    admitted(limiter, [limit], MIDNIGHT - 29 * DAY)
  })

  test('between reservation and commit: tokens are counted and nothing is negative', () => {
    const limiter = createLimiter()
    const lease = admitted(limiter, [bucket({ tpm: 10 })], MIDNIGHT)
    lease.commit(50, MIDNIGHT - 2 * DAY)
    expect(limiter.standing('key-1', MIDNIGHT - 2 * DAY)).toEqual({
      requests: { rps: 0, rpm: 0, rph: 0, rpd: 0 },
      tokens: { tpm: 50, tpd: 50 },
      inFlight: 0,
    })
  })
})

describe('standing', () => {
  test('counts are those of the current windows', () => {
    const limiter = createLimiter()
    admitted(limiter, [bucket({})], MIDNIGHT).commit(5, MIDNIGHT)
    const lease = admitted(limiter, [bucket({})], MIDNIGHT + MINUTE + 500)
    expect(limiter.standing('key-1', MIDNIGHT + MINUTE + 1_000)).toEqual({
      requests: { rps: 0, rpm: 1, rph: 2, rpd: 2 },
      tokens: { tpm: 0, tpd: 5 },
      inFlight: 1,
    })
    lease.release()
  })

  test('of a bucket that was never used is all zero, and remembers nothing', () => {
    const limiter = createLimiter()
    expect(limiter.standing('nobody', MIDNIGHT + 15_500)).toEqual({
      requests: { rps: 0, rpm: 0, rph: 0, rpd: 0 },
      tokens: { tpm: 0, tpd: 0 },
      inFlight: 0,
    })
    expect(limiter.size).toBe(0)
  })
})

describe('buckets that nobody uses any more', () => {
  test('are forgotten by the reservations of others, once all of their windows are over', () => {
    const limiter = createLimiter()
    for (let i = 0; i < 1_000; i++) admitted(limiter, [bucket({}, `gone-${i}`)], MIDNIGHT).commit(1, MIDNIGHT)
    for (let i = 0; i < 3_000; i++) admitted(limiter, [bucket({}, 'alive')], MIDNIGHT + DAY - 1).release()
    expect(limiter.size).toBe(1_001)
    for (let i = 0; i < 3_000; i++) admitted(limiter, [bucket({}, 'alive')], MIDNIGHT + DAY).release()
    expect(limiter.size).toBe(1)
  })

  test('do not pile up where every request opens a new one', () => {
    const limiter = createLimiter()
    for (let day = 0; day < 20; day++) {
      for (let i = 0; i < 500; i++) admitted(limiter, [bucket({}, `${day}-${i}`)], MIDNIGHT + day * DAY).release()
    }
    expect(limiter.size).toBeLessThanOrEqual(1_500)
  })

  test('are kept while a place is taken, however long that takes', () => {
    const limiter = createLimiter()
    const limit = bucket({ concurrency: 1 }, 'stream')
    const lease = admitted(limiter, [limit], MIDNIGHT)
    for (let i = 0; i < 100; i++) admitted(limiter, [bucket({}, 'other')], MIDNIGHT + 9 * DAY).release()
    refused(limiter, [limit], MIDNIGHT + 9 * DAY)
    lease.release()
    for (let i = 0; i < 100; i++) admitted(limiter, [bucket({}, 'other')], MIDNIGHT + 9 * DAY).release()
    expect(limiter.size).toBe(1)
  })

  test('are forgotten when only refusals opened them', () => {
    const limiter = createLimiter()
    for (let i = 0; i < 1_000; i++) refused(limiter, [bucket({ rpm: 0 }, `closed-${i}`)], MIDNIGHT)
    expect(limiter.size).toBeLessThan(10)
  })
})

describe('a request that a bucket has counted already', () => {
  const limit = bucket({ rpm: 1, tpm: 10, concurrency: 1 })

  test('passes its limits of requests and tokens, and takes a place all the same', () => {
    const limiter = createLimiter()
    const first = admitted(limiter, [limit], MIDNIGHT)
    const counted = new Set<string>()
    first.keysInto(counted)
    expect(counted).toEqual(new Set([limit.key]))
    expect(limiter.reserve([limit], MIDNIGHT, counted)).toMatchObject({ scope: 'concurrency' })
    first.release()
    refused(limiter, [limit], MIDNIGHT)
    const again = limiter.reserve([limit], MIDNIGHT, counted)
    if (isRefusal(again)) throw new Error('was refused')
    expect(limiter.standing(limit.key, MIDNIGHT)).toMatchObject({ requests: { rpm: 1 }, inFlight: 1 })
    again.commit(5, MIDNIGHT)
    expect(limiter.standing(limit.key, MIDNIGHT)).toMatchObject({ tokens: { tpm: 5 }, inFlight: 0 })
  })
})

describe('rejections', () => {
  const policy = { id: 'p-1', name: 'nights' }

  test('that callers are told of are counted by scope, layer and policy, concurrency among requests', () => {
    const limiter = createLimiter()
    refused(limiter, [bucket({ rpm: 0 })], MIDNIGHT)
    expect([...limiter.rejections()]).toEqual([])
    const onKey = bucket({ concurrency: 0 })
    const onModel: BucketLimit = { key: 'm', limits: { tpm: 0 }, layer: 'model' }
    const onPolicy: BucketLimit = { key: 'p', limits: { rps: 0 }, layer: 'policy', policy }
    for (const each of [onKey, onKey, bucket({ rpm: 0 }), onModel, onPolicy, onPolicy]) {
      limiter.reject(refused(limiter, [each], MIDNIGHT))
    }
    admitted(limiter, [bucket({}, 'free')], MIDNIGHT)
    expect([...limiter.rejections()]).toEqual([
      { scope: 'requests', layer: 'api_key', policyId: '', count: 3 },
      { scope: 'tokens', layer: 'model', policyId: '', count: 1 },
      { scope: 'requests', layer: 'policy', policyId: 'p-1', count: 2 },
    ])
  })

  test('of ever more policies end in one row, those of known policies in their own', () => {
    const limiter = createLimiter()
    const reject = (id: string) =>
      limiter.reject(refused(limiter, [{ key: 'p', limits: { rps: 0 }, layer: 'policy', policy: { id, name: id } }], MIDNIGHT))
    for (let i = 0; i < REJECTION_LABELS_MAX + 50; i++) reject(`p-${i}`)
    reject('p-0')
    limiter.reject(refused(limiter, [bucket({ rpm: 0 })], MIDNIGHT))
    const rows = [...limiter.rejections()]
    expect(rows.find(row => row.policyId === 'other')).toEqual({
      scope: 'requests',
      layer: 'policy',
      policyId: 'other',
      count: 50,
    })
    expect(rows.find(row => row.policyId === 'p-0')?.count).toBe(2)
    expect(rows.find(row => row.layer === 'api_key')?.count).toBe(1)
    expect(rows).toHaveLength(REJECTION_LABELS_MAX + 2)
  })
})

/** The rules again, as slow and plain as can be: every event is kept, and counts are taken by looking through all. */
class NaiveLimiter {
  requests: { key: string; atMs: number }[] = []
  tokens: { key: string; atMs: number; tokens: number }[] = []
  held: string[] = []

  reserve(buckets: BucketLimit[], nowMs: number): { scope: string; key: string } | { keys: string[] } {
    for (const { key, limits } of buckets) {
      const { requests, tokens, inFlight } = this.standing(key, nowMs)
      const { concurrency, tpm, tpd, ...ofRequests } = limits
      if (concurrency !== undefined && inFlight >= concurrency) return { scope: 'concurrency', key }
      if (tpm !== undefined && (tpm === 0 || tokens.tpm > tpm)) return { scope: 'tokens', key }
      if (tpd !== undefined && (tpd === 0 || tokens.tpd > tpd)) return { scope: 'tokens', key }
      for (const name of ['rps', 'rpm', 'rph', 'rpd'] as const) {
        const limit = ofRequests[name]
        if (limit !== undefined && requests[name] + 1 > limit) return { scope: 'requests', key }
      }
    }
    const keys = [...new Set(buckets.map(({ key }) => key))]
    for (const key of keys) {
      this.requests.push({ key, atMs: nowMs })
      this.held.push(key)
    }
    return { keys }
  }

  release(keys: string[]): void {
    for (const key of keys) this.held.splice(this.held.indexOf(key), 1)
  }

  standing(key: string, nowMs: number) {
    const inWindow = (length: number) => (event: { key: string; atMs: number }) =>
      event.key === key && Math.floor(event.atMs / length) === Math.floor(nowMs / length)
    const requests = (length: number) => this.requests.filter(inWindow(length)).length
    const tokens = (length: number) => this.tokens.filter(inWindow(length)).reduce((sum, event) => sum + event.tokens, 0)
    return {
      requests: { rps: requests(SECOND), rpm: requests(MINUTE), rph: requests(HOUR), rpd: requests(DAY) },
      tokens: { tpm: tokens(MINUTE), tpd: tokens(DAY) },
      inFlight: this.held.filter(each => each === key).length,
    }
  }
}

describe('any sequence of events', () => {
  const keys = ['a', 'b', 'c']
  const limits = fc.record(
    {
      rps: fc.nat(4),
      rpm: fc.nat(8),
      rph: fc.nat(12),
      rpd: fc.nat(20),
      tpm: fc.nat(50),
      tpd: fc.nat(150),
      concurrency: fc.nat(4),
    },
    { requiredKeys: [] },
  )
  const buckets = fc.array(fc.record({ key: fc.constantFrom(...keys), limits, layer: fc.constant('api_key' as const) }), {
    maxLength: 4,
  })
  const event = fc.record({
    what: fc.constantFrom('reserve', 'reserve', 'reserve', 'commit', 'release'),
    buckets,
    which: fc.nat(),
    tokens: fc.nat(40),
    passedMs: fc.oneof(fc.constant(0), fc.nat(SECOND), fc.nat(MINUTE), fc.nat(HOUR), fc.nat(DAY)),
  })

  test('counts are those of the plain rules, and no place is left at the end', () => {
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), events => {
        const limiter = createLimiter()
        const naive = new NaiveLimiter()
        const open: { lease: Lease; keys: string[] }[] = []
        let nowMs = MIDNIGHT
        for (const { what, buckets, which, tokens, passedMs } of events) {
          nowMs += passedMs
          const [ended] = what !== 'reserve' && open.length > 0 ? open.splice(which % open.length, 1) : []
          if (what === 'reserve') {
            const outcome = limiter.reserve(buckets, nowMs)
            const expected = naive.reserve(buckets, nowMs)
            if (isRefusal(outcome)) expect<unknown>({ scope: outcome.scope, key: outcome.limit.key }).toEqual(expected)
            else if ('keys' in expected) open.push({ lease: outcome, keys: expected.keys })
            else throw new Error(`let in, though ${expected.key} must refuse for ${expected.scope}`)
          } else if (ended && what === 'commit') {
            ended.lease.commit(tokens, nowMs)
            naive.release(ended.keys)
            for (const key of ended.keys) naive.tokens.push({ key, atMs: nowMs, tokens })
          } else if (ended) {
            ended.lease.release()
            naive.release(ended.keys)
          }
          for (const key of keys) expect(limiter.standing(key, nowMs)).toMatchObject(naive.standing(key, nowMs))
          expect(limiter.inFlight).toBe(naive.held.length)
        }
        for (const { lease } of open) lease.release()
        expect(limiter.inFlight).toBe(0)
        for (const key of keys) expect(limiter.standing(key, nowMs).inFlight).toBe(0)
      }),
      { numRuns: 300 },
    )
  })

  test('a clock that jumps to and fro makes no count negative and leaves no place taken', () => {
    const jumping = fc.record({ event, jumpMs: fc.integer({ min: -3 * DAY, max: 3 * DAY }) })
    fc.assert(
      fc.property(fc.array(jumping, { maxLength: 60 }), events => {
        const limiter = createLimiter()
        const open: Lease[] = []
        let nowMs = MIDNIGHT
        for (const { event, jumpMs } of events) {
          nowMs += event.which % 3 === 0 ? jumpMs : event.passedMs
          if (event.what === 'reserve') {
            const outcome = limiter.reserve(event.buckets, nowMs)
            if (!isRefusal(outcome)) open.push(outcome)
            else if (outcome.retryAfterSecs !== undefined) {
              expect(outcome.retryAfterSecs).toBeGreaterThanOrEqual(1)
              expect(outcome.retryAfterSecs).toBeLessThanOrEqual((2 * DAY) / SECOND)
            }
          } else {
            open.splice(event.which % Math.max(1, open.length), 1)[0]?.commit(event.tokens, nowMs)
          }
          for (const key of keys) {
            const { requests, tokens, inFlight } = limiter.standing(key, nowMs)
            for (const count of [...Object.values(requests), ...Object.values(tokens), inFlight]) {
              expect(count).toBeGreaterThanOrEqual(0)
            }
          }
        }
        for (const lease of open) lease.release()
        expect(limiter.inFlight).toBe(0)
      }),
      { numRuns: 200 },
    )
  })
})
