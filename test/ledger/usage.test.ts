import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import {
  type Grouping,
  LATENCY_BOUNDS_MS,
  QuestionTooWide,
  TTFT_BOUNDS_MS,
  type UsageFilter,
  type UsageRow,
} from '../../src/ledger/ledger.ts'
import type { UsageRecord } from '../../src/telemetry/usage-record.ts'
import { DAY_MS, failure, HOUR_MS, labels, NOON, record, type Scratch, scratch } from './records.ts'

const MIDNIGHT = NOON - 12 * HOUR_MS

/** Callers, models and provider keys that mix, over four days; the numbers differ in every row. */
function mixed(count: number): UsageRecord[] {
  const who = Array.from({ length: 24 }, (_, index) =>
    labels({
      apiKeyId: index % 6 === 5 ? '' : `key-${index % 6}`,
      teamId: `team-${index % 2}`,
      userId: `user-${index % 4}`,
      userName: `User ${index % 4}`,
      modelId: `model-${index % 3}`,
      model: `name-${index % 3}`,
      providerKeyId: `provider-key-${index % 8}`,
      providerKeyName: `rack-${index % 8}`,
    }),
  )
  let seed = 7
  const random = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
    return Math.floor(seed / 65_536) % below
  }
  return Array.from({ length: count }, (_, index) => {
    const isStream = random(2) === 0
    return record({
      labels: who[random(who.length)] ?? labels(),
      occurredAtMs: MIDNIGHT - 3 * DAY_MS + Math.floor((index / count) * 4 * DAY_MS) + random(1_000),
      isStream,
      status: [200, 200, 200, 404, 429, 502][random(6)] ?? 200,
      promptTokens: random(5_000),
      completionTokens: random(900),
      cachedTokens: random(100),
      reasoningTokens: random(50),
      isEstimated: random(5) === 0,
      isPriced: random(4) !== 0,
      isTerminal: random(7) !== 0,
      costPico: random(2_000_000_000) * 4_001,
      totalMs: random(700_000),
      downstreamMs: random(3) === 0 ? undefined : random(400_000),
      upstreamTtftMs: random(3) === 0 ? undefined : random(400_000),
    })
  })
}

const IDS = { api_key: 'apiKeyId', model: 'modelId', provider_key: 'providerKeyId', team: 'teamId', user: 'userId' } as const

/** The same sums, the slow and plain way. */
function summed(records: readonly UsageRecord[], groupBy: readonly Grouping[]): Map<string, UsageRow> {
  const rows = new Map<string, UsageRow>()
  for (const each of records) {
    const key: Partial<UsageRow> = {}
    for (const grouping of groupBy) {
      if (grouping === 'day') key.startMs = Math.floor(each.occurredAtMs / DAY_MS) * DAY_MS
      else if (grouping === 'hour') key.startMs = Math.floor(each.occurredAtMs / HOUR_MS) * HOUR_MS
      else key[IDS[grouping]] = each.labels[IDS[grouping]]
    }
    const name = JSON.stringify(key, Object.keys(key).sort())
    const row = rows.get(name) ?? {
      ...key,
      ...{ requests: 0, attempts: 0, failedRequests: 0, promptTokens: 0, completionTokens: 0, cachedTokens: 0 },
      ...{ reasoningTokens: 0, estimatedRequests: 0, estimatedTokens: 0, costPico: 0n, unpricedRequests: 0 },
      latencyCounts: new Array(LATENCY_BOUNDS_MS.length + 1).fill(0),
      ttftCounts: new Array(TTFT_BOUNDS_MS.length + 1).fill(0),
    }
    rows.set(name, row)
    const tokens = each.promptTokens + each.completionTokens
    row.attempts += 1
    row.promptTokens += each.promptTokens
    row.completionTokens += each.completionTokens
    row.cachedTokens += each.cachedTokens
    row.reasoningTokens += each.reasoningTokens
    row.costPico += BigInt(each.costPico)
    if (each.isEstimated) row.estimatedTokens += tokens
    if (!each.isTerminal) continue
    row.requests += 1
    if (each.status >= 400) row.failedRequests += 1
    if (each.isEstimated) row.estimatedRequests += 1
    if (!each.isPriced && tokens > 0) row.unpricedRequests += 1
    const bucket = (ms: number, bounds: readonly number[]) => {
      const found = bounds.findIndex(bound => ms <= bound)
      return found < 0 ? bounds.length : found
    }
    const latency = bucket(each.totalMs ?? 0, LATENCY_BOUNDS_MS)
    row.latencyCounts[latency] = (row.latencyCounts[latency] ?? 0) + 1
    // A stream without a first event has no time to it.
    if (!each.isStream || each.upstreamTtftMs === undefined) continue
    const ttftMs = each.downstreamMs ?? each.upstreamTtftMs
    const ttft = bucket(ttftMs, TTFT_BOUNDS_MS)
    row.ttftCounts[ttft] = (row.ttftCounts[ttft] ?? 0) + 1
  }
  return rows
}

function byKey(rows: readonly UsageRow[], groupBy: readonly Grouping[]): Map<string, UsageRow> {
  return new Map(
    rows.map(row => {
      const names = groupBy.map(grouping => (grouping === 'day' || grouping === 'hour' ? 'startMs' : IDS[grouping])).sort()
      return [JSON.stringify(row, names), row]
    }),
  )
}

describe('sums over the ledger', () => {
  let place: Scratch
  beforeEach(() => {
    place = scratch()
  })
  afterEach(() => place.clean())

  describe('agree to the token and the picodollar with the records', () => {
    const all = mixed(45_000)
    const questions: { groupBy: Grouping[]; filter: UsageFilter; keeps: (record: UsageRecord) => boolean; name: string }[] = [
      { name: 'in all', groupBy: [], filter: {}, keeps: () => true },
      { name: 'by day', groupBy: ['day'], filter: {}, keeps: () => true },
      { name: 'by hour', groupBy: ['hour'], filter: {}, keeps: () => true },
      { name: 'by key, those without one among them', groupBy: ['api_key'], filter: {}, keeps: () => true },
      { name: 'by model and day', groupBy: ['model', 'day'], filter: {}, keeps: () => true },
      { name: 'by provider key', groupBy: ['provider_key'], filter: {}, keeps: () => true },
      { name: 'by team and user', groupBy: ['team', 'user'], filter: {}, keeps: () => true },
      {
        name: 'by everything at once',
        groupBy: ['day', 'api_key', 'model', 'provider_key', 'team', 'user'],
        filter: {},
        keeps: () => true,
      },
      {
        name: 'of two keys, by hour and model',
        groupBy: ['hour', 'model'],
        filter: { apiKeyIds: ['key-1', 'key-3'] },
        keeps: ({ labels }) => ['key-1', 'key-3'].includes(labels.apiKeyId),
      },
      {
        name: 'of nobody, of one model, by provider key',
        groupBy: ['provider_key'],
        filter: { apiKeyIds: [''], modelIds: ['model-2'] },
        keeps: ({ labels }) => labels.apiKeyId === '' && labels.modelId === 'model-2',
      },
      {
        name: 'of failures, by user',
        groupBy: ['user'],
        filter: { statusClasses: ['4xx', '5xx'], teamIds: ['team-1'] },
        keeps: ({ labels, status }) => status >= 400 && labels.teamId === 'team-1',
      },
    ]
    const spans = [
      ['whole days', MIDNIGHT - 3 * DAY_MS, MIDNIGHT + DAY_MS],
      ['hours of four days', MIDNIGHT - 3 * DAY_MS + 5 * HOUR_MS, MIDNIGHT + 7 * HOUR_MS],
      ['hours of one day', MIDNIGHT - DAY_MS + 2 * HOUR_MS, MIDNIGHT - DAY_MS + 9 * HOUR_MS],
    ] as const

    for (const { name, groupBy, filter, keeps } of questions) {
      test(`${name}, rolled up or not, in all spans`, async () => {
        const ledger = await place.openHere()
        for (let from = 0; from < all.length; from += 3_000) ledger.write(all.slice(from, from + 3_000), MIDNIGHT + DAY_MS)
        for (const [, fromMs, toMs] of spans) {
          const wanted = all.filter(each => keeps(each) && each.occurredAtMs >= fromMs && each.occurredAtMs < toMs)
          const { rows } = ledger.usage({ fromMs, toMs, groupBy, filter })
          const expected = summed(wanted, groupBy)
          expect(wanted.length).toBeGreaterThan(100)
          expect(byKey(rows, groupBy).size).toBe(rows.length)
          expect(byKey(rows, groupBy)).toEqual(expected)
        }
      })
    }

    test('some of the rows are rolled up by then, and some are not', async () => {
      const ledger = await place.openHere()
      for (let from = 0; from < all.length; from += 3_000) ledger.write(all.slice(from, from + 3_000), MIDNIGHT + DAY_MS)
      ledger.close()
      const db = new Database(place.path, { readonly: true })
      const { rolled, last } = db
        .query<{ rolled: number; last: number }, []>(
          "SELECT (SELECT value FROM meta WHERE key = 'rolled_seq') AS rolled, max(seq) AS last FROM attempts",
        )
        .get() ?? { rolled: 0, last: 0 }
      db.close()
      expect(rolled).toBeGreaterThan(0)
      expect(last).toBe(45_000)
      expect(last).toBeGreaterThan(rolled)
    })
  })

  test('money is exact beyond what a number holds', async () => {
    const ledger = await place.openHere()
    const dear = Number.MAX_SAFE_INTEGER
    ledger.write(Array.from({ length: 20_000 }, () => record({ costPico: dear })))
    const { rows } = ledger.usage({ fromMs: MIDNIGHT, toMs: MIDNIGHT + DAY_MS, groupBy: [], filter: {} })
    expect(rows[0]?.costPico).toBe(BigInt(dear) * 20_000n)
  })

  test('names are the newest, and rows of old labels go with their id', async () => {
    const ledger = await place.openHere()
    ledger.write([record({ labels: labels({ model: 'old', userName: 'Ada', teamId: 'team-1' }) })])
    ledger.write([record({ labels: labels({ model: 'new', userName: 'Ada Lovelace', teamId: 'team-2' }) })])
    const { rows, names } = ledger.usage({
      ...{ fromMs: MIDNIGHT, toMs: MIDNIGHT + DAY_MS, filter: {} },
      groupBy: ['model', 'user', 'provider_key'],
    })
    expect(rows).toMatchObject([{ modelId: 'model-1', userId: 'user-1', requests: 2 }])
    expect(names).toMatchObject({
      model: { 'model-1': 'new' },
      user: { 'user-1': 'Ada Lovelace' },
      providerKey: { 'provider-key-1': 'rack-1' },
    })
    // A name that comes back is the newest again.
    ledger.write([record({ labels: labels({ model: 'old', userName: 'Ada', teamId: 'team-1' }) })])
    const again = ledger.usage({ fromMs: MIDNIGHT, toMs: MIDNIGHT + DAY_MS, filter: {}, groupBy: ['model'] })
    expect(again.names.model).toEqual({ 'model-1': 'old' })
  })

  test('an id that nobody has gives no row, and neither does an empty ledger', async () => {
    const ledger = await place.openHere()
    const question = { fromMs: MIDNIGHT, toMs: MIDNIGHT + DAY_MS, groupBy: ['day'] as const }
    expect(ledger.usage({ ...question, filter: {} }).rows).toEqual([])
    ledger.write([record(), failure(502)])
    expect(ledger.usage({ ...question, filter: { modelIds: ['model-9'] } }).rows).toEqual([])
    expect(ledger.usage({ ...question, filter: { modelIds: [] } }).rows).toEqual([])
    expect(ledger.usage({ ...question, filter: {} }).rows).toMatchObject([{ requests: 2, failedRequests: 1 }])
  })

  test('an answer of more than 10,000 groups is refused, and says what to narrow', async () => {
    const ledger = await place.openHere()
    ledger.write(Array.from({ length: 10_001 }, (_, index) => record({ labels: labels({ apiKeyId: `key-${index}` }) })))
    const question = { fromMs: MIDNIGHT, toMs: MIDNIGHT + DAY_MS, filter: {} }
    expect(() => ledger.usage({ ...question, groupBy: ['api_key'] })).toThrow(QuestionTooWide)
    expect(() => ledger.usage({ ...question, groupBy: ['api_key'] })).toThrow(/`from` and `to`.*`group_by=api_key`/)
    expect(ledger.usage({ ...question, groupBy: ['model'] }).rows).toMatchObject([{ requests: 10_001 }])
  })
})
