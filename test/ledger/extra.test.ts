/** What few attempts have: in the file, beside rows that have none of it, and in files from before there was any. */
import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Extra } from '../../src/exchange.ts'
import { createReader } from '../../src/ledger/reader.ts'
import { NOON, record, type Scratch, scratch } from './records.ts'

const ANONYMOUS: Extra = Object.freeze({ authType: 'anonymous' })
const FULL: Extra = {
  authType: 'anonymous',
  passthroughRoute: 'hr "files"',
  clientIdentity: 'ümlaut \u{1f680}',
  audioSeconds: 12.5,
  cacheReadTokens: 20_000,
  cacheCreationTokens: 1_000,
}

let place: Scratch
beforeEach(() => {
  place = scratch()
})
afterEach(() => place.clean())

const inFile = <T>(sql: string): T[] => {
  const db = new Database(place.path, { readonly: true })
  try {
    return db.query<T, []>(sql).all()
  } finally {
    db.close()
  }
}

describe('extras of attempts', () => {
  test('come back at the rows that had them, whichever those are among how many', async () => {
    const ledger = await place.openHere()
    // More than a statement inserts at once, and a rest; in two batches.
    const extras = Array.from({ length: 53 }, (_, row) =>
      row % 7 === 0 ? ANONYMOUS : row % 11 === 0 || row === 52 ? FULL : row % 13 === 0 ? { audioSeconds: row } : undefined,
    )
    const records = extras.map(extra => record({ extra }))
    ledger.write(records.slice(0, 30))
    ledger.write(records.slice(30))
    const stored = ledger.requests({}).records.reverse()
    expect(stored.map(each => each.record.extra)).toEqual(extras)
    expect(stored.map(each => each.record)).toEqual(records)
    const anonymous = records[49]
    expect(ledger.request(anonymous?.requestId ?? '')).toMatchObject([{ record: { extra: ANONYMOUS } }])
  })

  test('take nothing in rows without them, and a short text in the others', async () => {
    const ledger = await place.openHere()
    ledger.write([record(), record({ extra: {} }), record({ extra: ANONYMOUS }), record({ extra: { audioSeconds: undefined } })])
    expect(inFile('SELECT extra FROM attempts ORDER BY seq')).toEqual([
      { extra: null },
      { extra: null },
      { extra: '{"authType":"anonymous"}' },
      { extra: null },
    ])
    expect(ledger.requests({}).records.map(each => each.record.extra)).toEqual([undefined, ANONYMOUS, undefined, undefined])
  })

  test('are cut to their bounds, never in the middle of a character', async () => {
    const ledger = await place.openHere()
    const long = `${'a'.repeat(255)}\u{1f680}`
    ledger.write([record({ extra: { clientIdentity: long, passthroughRoute: long } })])
    const cut = 'a'.repeat(255)
    expect(ledger.requests({}).records[0]?.record.extra).toEqual({ clientIdentity: cut, passthroughRoute: cut })
  })

  test('of a later version are passed over, and what is known of them is read', async () => {
    const ledger = await place.openHere()
    ledger.write([record(), record()])
    const db = new Database(place.path)
    db.run(`UPDATE attempts SET extra = '{"authType":"token","mcpTool":"search","clientIdentity":"ada"}' WHERE seq = 1`)
    db.run(`UPDATE attempts SET extra = '{"mcpTool":"search","audioSeconds":"long"}' WHERE seq = 2`)
    db.close()
    expect(ledger.requests({}).records.map(each => each.record.extra)).toEqual([undefined, { clientIdentity: 'ada' }])
  })
})

describe('a ledger from before there were extras', () => {
  beforeEach(() => {
    const db = new Database(place.path)
    db.run(readFileSync(join(import.meta.dir, '..', 'fixtures', 'ledger', 'format-1.sql'), 'utf8'))
    db.close()
  })

  test('is read as it is', () => {
    const reader = createReader(place.path)
    place.closers.push(() => reader.close())
    const answer = reader.answer({ about: 'requests', question: { limit: 10 } })
    expect(answer).toMatchObject({
      newest: 4,
      records: [
        { seq: 4, record: { requestId: 'given-by-the-caller', status: 200, userAgent: undefined, extra: undefined } },
        { seq: 3, record: { attemptIndex: 1, attemptKind: 'fallback', labels: { model: 'spare' }, extra: undefined } },
        { seq: 2, record: { status: 502, errorMessage: 'the upstream answered 502', extra: undefined } },
        { seq: 1, record: { isStream: true, traceId: '0af7651916cd43dd8448eb211c80319c', costPico: 4_500_000 } },
      ],
    })
  })

  test('is gone on with in place: its rows stay and count, new ones have extras', async () => {
    const ledger = await place.openHere()
    expect(ledger.lastReport()).toMatchObject({ problem: undefined, isWriting: true })
    ledger.write([record({ extra: FULL })])
    const { records } = ledger.requests({})
    expect(records.map(({ seq, record }) => [seq, record.extra])).toEqual([
      [5, FULL],
      ...[4, 3, 2, 1].map((seq): [number, undefined] => [seq, undefined]),
    ])
    const { rows } = ledger.usage({ fromMs: NOON, toMs: NOON + 3_600_000, groupBy: [], filter: {} })
    expect(rows).toMatchObject([{ requests: 4, attempts: 5, promptTokens: 48 }])
    ledger.close()
    expect(inFile('PRAGMA user_version')).toEqual([{ user_version: 1 }])
  })
})
