import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { statSync } from 'node:fs'
import { DAY_MS, failure, HOUR_MS, labels, NOON, record, type Scratch, scratch, until } from './records.ts'

const MiB = 1024 * 1024
const MIDNIGHT = NOON - DAY_MS / 2

describe('pruning', () => {
  let place: Scratch
  beforeEach(() => {
    place = scratch()
  })
  afterEach(() => place.clean())

  const sizes = () => statSync(place.path).size + (statSync(`${place.path}-wal`, { throwIfNoEntry: false })?.size ?? 0)
  const counts = (db: Database) =>
    db
      .query<Record<string, number>, []>(
        `SELECT (SELECT count(*) FROM attempts) AS attempts, (SELECT count(*) FROM blocks) AS blocks,
         (SELECT count(*) FROM filters) AS filters, (SELECT count(*) FROM strings) AS strings,
         (SELECT count(*) FROM labels) AS labels, (SELECT count(*) FROM entities) AS entities,
         (SELECT count(*) FROM hours) AS hours, (SELECT count(*) FROM days) AS days`,
      )
      .get() ?? {}

  test('rows past their days go, their sums stay, and the file shrinks on the disk', async () => {
    const { ledger, clock, status } = await place.open({ retentionDays: 7, bytesMax: 64 * MiB })
    for (let row = 0; row < 60_000; row++) {
      ledger.record(record({ occurredAtMs: NOON + row }))
      if (row % 20_000 === 19_999) await ledger.requests({ limit: 1 })
    }
    await until(() => status().written === 60_000)
    const before = sizes()
    expect(before).toBeGreaterThan(6 * MiB)
    clock.ms = NOON + 8 * DAY_MS
    const late = record({ occurredAtMs: clock.ms })
    ledger.record(late)
    await until(() => status().oldestMs === clock.ms && sizes() < before / 8)
    expect((await ledger.requests({ limit: 10 })).records).toEqual([{ seq: 60_001, record: late }])
    const all = { fromMs: MIDNIGHT, toMs: MIDNIGHT + 9 * DAY_MS, filter: {} }
    expect((await ledger.usage({ ...all, groupBy: ['day'] })).rows).toMatchObject([
      { startMs: MIDNIGHT, requests: 60_000 },
      { startMs: MIDNIGHT + 8 * DAY_MS, requests: 1 },
    ])
    expect(status().bytes).toBeLessThan(before / 8)
    await ledger.close()
    const db = new Database(place.path, { readonly: true })
    expect(counts(db)).toMatchObject({ attempts: 1, blocks: 1, filters: 1 })
    expect(db.query('PRAGMA quick_check').values()).toEqual([['ok']])
    db.close()
  })

  test('a gateway with little to do prunes as well: a handful of rows is not kept for want of company', async () => {
    const ledger = await place.openHere({ retentionDays: 1 })
    ledger.write([record(), failure(502)])
    ledger.writer.tend(NOON + 2 * DAY_MS)
    await until(() => ledger.requests({}).records.length === 0)
    const question = { fromMs: MIDNIGHT, toMs: MIDNIGHT + DAY_MS, groupBy: [], filter: {} }
    expect(ledger.usage(question).rows).toMatchObject([{ requests: 2, failedRequests: 1 }])
    expect(ledger.requests({ after: 0 })).toEqual({ records: [], next: undefined, newest: 2 })
    ledger.write([record({ occurredAtMs: NOON + 2 * DAY_MS })], NOON + 2 * DAY_MS)
    expect(ledger.requests({}).records).toMatchObject([{ seq: 3 }])
  })

  test('hours are kept 35 days and days 400', async () => {
    const ledger = await place.openHere({ retentionDays: 1 })
    ledger.write([record()])
    const question = { fromMs: MIDNIGHT, toMs: MIDNIGHT + DAY_MS, filter: {} }
    const rows = () => [ledger.usage({ ...question, groupBy: ['hour'] }), ledger.usage({ ...question, groupBy: ['day'] })]
    const has = () => rows().map(answer => answer.rows.length)
    for (const [days, expected] of [
      [30, [1, 1]],
      [36, [0, 1]],
      [399, [0, 1]],
      [402, [0, 0]],
    ] as const) {
      ledger.writer.tend(NOON + days * DAY_MS)
      await until(() => Bun.deepEquals(has(), [...expected]))
      // Once more, with nothing left to do: what is to stay stays.
      ledger.writer.tend(NOON + days * DAY_MS + HOUR_MS)
      expect(has()).toEqual([...expected])
    }
  })

  test('over its bytes the oldest rows go, under load as well, and the file stays below its bound', async () => {
    const bytesMax = 8 * MiB
    const { ledger, status } = await place.open({ bytesMax })
    let largest = 0
    for (let row = 0; row < 200_000; row++) {
      ledger.record(record({ occurredAtMs: NOON + row }))
      if (row % 2_000 !== 0) continue
      await until(() => status().queued < 10_000)
      largest = Math.max(largest, sizes())
    }
    await until(() => status().queued === 0)
    expect(status()).toMatchObject({ state: 'ok', written: 200_000, dropped: 0 })
    expect(largest).toBeLessThan(bytesMax * 1.1)
    expect(largest).toBeGreaterThan(bytesMax / 2)
    expect(status().bytes).toBeLessThan(bytesMax)
    const { records, newest } = await ledger.requests({ after: 0, limit: 1 })
    expect(newest).toBe(200_000)
    expect(records[0]?.seq).toBeGreaterThan(100_000)
    const all = { fromMs: MIDNIGHT, toMs: MIDNIGHT + DAY_MS, filter: {}, groupBy: [] }
    expect((await ledger.usage(all)).rows).toMatchObject([{ requests: 200_000 }])
  })

  test('entries of dictionaries that no row is left of go; those that rows or sums speak of stay', async () => {
    const ledger = await place.openHere({ retentionDays: 2 })
    const old = Array.from({ length: 3_000 }, (_, index) =>
      record({ userAgent: `agent/${index}`, labels: labels({ apiKeyId: `old-${index % 50}` }) }),
    )
    ledger.write(old)
    ledger.writer.tend(NOON + 4 * DAY_MS)
    await until(() => ledger.requests({}).records.length === 0)
    const late = { userAgent: 'new', labels: labels({ apiKeyId: 'new' }), occurredAtMs: NOON + 5 * DAY_MS }
    ledger.write([record(late)], NOON + 5 * DAY_MS)
    const db = new Database(place.path, { readonly: true })
    ledger.writer.tend(NOON + 6 * DAY_MS)
    await until(() => (counts(db).strings ?? 0) < 20)
    expect(counts(db)).toMatchObject({ attempts: 1, labels: 1 })
    expect(ledger.requests({}).records[0]?.record.userAgent).toBe('new')
    // The roll-ups still tell them apart.
    const question = { fromMs: MIDNIGHT, toMs: MIDNIGHT + DAY_MS, filter: {}, groupBy: ['api_key'] as const }
    expect(ledger.usage(question).rows.map(({ apiKeyId }) => apiKeyId)).toContain('old-49')
    ledger.writer.tend(NOON + 410 * DAY_MS)
    await until(() => (counts(db).entities ?? 0) <= 5)
    expect(ledger.usage(question).rows).toEqual([])
    db.close()
  })

  test('a string that was forgotten and comes again is known again, for a writer that remembers it too', async () => {
    const ledger = await place.openHere({ retentionDays: 2 })
    ledger.write([record({ userAgent: 'seldom/1' })])
    for (const days of [4, 6, 8]) ledger.writer.tend(NOON + days * DAY_MS)
    await until(() => ledger.requests({}).records.length === 0)
    const nowMs = NOON + 9 * DAY_MS
    ledger.write([record({ userAgent: 'seldom/1', occurredAtMs: nowMs })], nowMs)
    expect(ledger.requests({}).records[0]?.record).toMatchObject({ userAgent: 'seldom/1', labels: { apiKeyId: 'key-1' } })
  })

  test('a flood of different user agents grows the rows, not the dictionary', async () => {
    const ledger = await place.openHere({ bytesMax: 8 * MiB })
    const flood = Array.from({ length: 4_000 }, (_, index) => record({ userAgent: `agent/${index}` }))
    ledger.write(flood)
    const db = new Database(place.path, { readonly: true })
    expect(counts(db).strings).toBeLessThanOrEqual(512)
    db.close()
    const { records } = ledger.requests({ after: 0, limit: 4_000 })
    expect(records.map(({ record }) => record.userAgent)).toEqual(flood.map(({ userAgent }) => userAgent))
  })
})
