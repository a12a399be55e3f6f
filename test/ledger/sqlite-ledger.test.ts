import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { statSync } from 'node:fs'
import { disabledLedger } from '../../src/ledger/disabled-ledger.ts'
import { LedgerTooBusy, LedgerUnavailable, QuestionTooWide } from '../../src/ledger/ledger.ts'
import type { FromWriter } from '../../src/ledger/messages.ts'
import { type StartThread, startThread } from '../../src/ledger/thread.ts'
import { metricFamilies } from '../../src/telemetry/families.ts'
import { Registry } from '../../src/telemetry/registry.ts'
import { DAY_MS, labels, NOON, record, type Scratch, scratch, until } from './records.ts'

const drops = (registry: Registry, reason: string) =>
  registry.series('aisix_usage_event_drops_total', [reason, 'chat', 'provider-key-1', 'rack-1']).value
const TODAY = { fromMs: NOON - DAY_MS / 2, toMs: NOON + DAY_MS / 2, filter: {} }

describe('the ledger with its threads', () => {
  let place: Scratch
  beforeEach(() => {
    place = scratch()
  })
  afterEach(() => place.clean())

  test('what was recorded before a question is in its answer', async () => {
    const { ledger } = await place.open({ flushMs: 60_000 })
    for (let round = 1; round <= 3; round++) {
      const one = record()
      expect(ledger.record(one)).toBe(true)
      expect((await ledger.requests({ limit: 1 })).records).toEqual([{ seq: round, record: one }])
      expect((await ledger.request(one.requestId)).length).toBe(1)
      expect((await ledger.usage({ ...TODAY, groupBy: ['model'] })).rows).toMatchObject([{ requests: round }])
    }
  })

  test('records reach the file by themselves, and its status tells of it', async () => {
    const { ledger, status } = await place.open()
    expect(status()).toMatchObject({ state: 'ok', problem: undefined, queued: 0, written: 0, dropped: 0, oldestMs: undefined })
    for (let row = 0; row < 5_000; row++) ledger.record(record({ occurredAtMs: NOON + row }))
    expect(status().queued).toBeGreaterThan(0)
    await until(() => status().written === 5_000)
    expect(status()).toMatchObject({ state: 'ok', queued: 0, dropped: 0, oldestMs: NOON })
    expect(status().bytes).toBeGreaterThan(400_000)
    expect(status().bytes).toBeLessThan(2_000_000)
  })

  test('nobody but its owner may read the file', async () => {
    const { ledger } = await place.open()
    ledger.record(record())
    await ledger.requests({ limit: 1 })
    for (const suffix of ['', '-wal', '-shm']) expect(statSync(place.path + suffix).mode & 0o077).toBe(0)
  })

  test('a row takes about a hundred bytes, with ids that are UUIDs, block and roll-ups', async () => {
    const { ledger } = await place.open()
    const rows = 60_000
    for (let row = 0; row < rows; row++) {
      ledger.record(
        record({ occurredAtMs: NOON + row, providerRequestId: `chatcmpl-${crypto.randomUUID().replaceAll('-', '')}` }),
      )
      if (row % 2_048 === 0) await ledger.requests({ limit: 1 })
    }
    await ledger.close()
    expect(statSync(place.path).size / rows).toBeGreaterThan(50)
    expect(statSync(place.path).size / rows).toBeLessThan(130)
  })

  test('its end writes what waits, empties the log and takes nothing more', async () => {
    const { ledger, registry, status } = await place.open({ flushMs: 60_000 })
    for (let row = 0; row < 100; row++) ledger.record(record())
    await ledger.requests({ limit: 1 })
    for (let row = 0; row < 3_000; row++) ledger.record(record())
    await ledger.close()
    await ledger.close()
    expect(status()).toMatchObject({ written: 3_100, dropped: 0, queued: 0 })
    expect(ledger.record(record())).toBe(false)
    expect(drops(registry, 'sink_closed')).toBe(1)
    expect(ledger.usage({ ...TODAY, groupBy: [] })).rejects.toThrow(LedgerUnavailable)
    expect(statSync(`${place.path}-wal`, { throwIfNoEntry: false })?.size ?? 0).toBe(0)
    const db = new Database(place.path, { readonly: true })
    expect(db.query('SELECT count(*) AS rows FROM attempts').get()).toEqual({ rows: 3_100 })
    db.close()
  })

  test('what was written is there after the next start, and sequence numbers go on', async () => {
    const { ledger } = await place.open()
    ledger.record(record())
    await ledger.close()
    const next = await place.open()
    next.ledger.record(record())
    expect((await next.ledger.requests({ limit: 10 })).records.map(({ seq }) => seq)).toEqual([2, 1])
    expect((await next.ledger.usage({ ...TODAY, groupBy: [] })).rows).toMatchObject([{ requests: 2 }])
  })

  test('while the file is locked records wait in a bounded queue, further ones are counted, and nothing is told twice', async () => {
    const { ledger, registry, status, lines } = await place.open()
    ledger.record(record())
    await until(() => status().written === 1)
    const other = new Database(place.path)
    other.run('BEGIN EXCLUSIVE')
    for (let row = 0; row < 70_000; row++) ledger.record(record())
    expect(status().queued).toBe(65_536)
    expect(status().dropped).toBe(70_000 - 65_536)
    expect(drops(registry, 'sink_full')).toBe(70_000 - 65_536)
    await until(() => status().state === 'degraded')
    expect(status().problem).toContain('is locked by another process; find who holds it')
    other.run('ROLLBACK')
    other.close()
    await until(() => status().queued === 0)
    expect(status()).toMatchObject({ state: 'ok', problem: undefined, written: 65_537 })
    expect((await ledger.usage({ ...TODAY, groupBy: [] })).rows).toMatchObject([{ requests: 65_537 }])
    expect(lines.join('')).toMatch(/the usage ledger is degraded.*\n.*the usage ledger is written again/)
  })

  test('a wide answer is refused by its own error', async () => {
    const { ledger } = await place.open()
    for (let row = 0; row < 10_001; row++) ledger.record(record({ labels: labels({ apiKeyId: `key-${row}` }) }))
    expect(ledger.usage({ ...TODAY, groupBy: ['api_key'] })).rejects.toThrow(QuestionTooWide)
    expect((await ledger.usage({ ...TODAY, groupBy: [] })).rows).toMatchObject([{ requests: 10_001 }])
  })

  test('of very many questions at once some are told to come again', async () => {
    const { ledger } = await place.open()
    const outcomes = await Promise.allSettled(Array.from({ length: 200 }, () => ledger.requests({ limit: 1 })))
    const refused = outcomes.filter(({ status }) => status === 'rejected')
    expect(refused.length).toBeGreaterThan(0)
    expect(refused.length).toBeLessThan(200)
    for (const outcome of refused) expect(outcome.status === 'rejected' && outcome.reason).toBeInstanceOf(LedgerTooBusy)
    expect((await ledger.requests({ limit: 1 })).newest).toBe(0)
  })

  test('a process with a ledger ends by itself when nothing else keeps it', async () => {
    const child = Bun.spawn([process.execPath, `${import.meta.dir}/recording-child.ts`, place.path, 'idle'], { stdout: 'pipe' })
    expect(await child.exited).toBe(0)
  })
})

describe('a thread that ends or does not answer', () => {
  let place: Scratch
  beforeEach(() => {
    place = scratch()
  })
  afterEach(() => place.clean())

  /** Starts real threads, and can end the newest one as a fault in it would. */
  const fragile = () => {
    let cut = (_: string) => {}
    const start: StartThread = (onMessage, onEnd) => {
      const thread = startThread(onMessage, onEnd)
      cut = reason => {
        thread.end()
        onEnd(reason)
      }
      return thread
    }
    return { start, cut: (reason: string) => cut(reason) }
  }

  test('the writer is started again; what it had not told of is counted as lost, what comes later is written', async () => {
    const { start, cut } = fragile()
    const { ledger, status, registry } = await place.open({ startWriter: start, flushMs: 1 })
    ledger.record(record())
    await until(() => status().written === 1)
    const other = new Database(place.path)
    other.run('BEGIN EXCLUSIVE')
    for (let row = 0; row < 5_000; row++) ledger.record(record())
    await ledger.requests({ limit: 1 }).catch(() => undefined)
    cut('out of memory')
    expect(status()).toMatchObject({ state: 'degraded', queued: 0, dropped: 5_000 })
    expect(status().problem).toContain('(out of memory); it is started again')
    expect(drops(registry, 'sink_closed')).toBe(5_000)
    other.run('ROLLBACK')
    other.close()
    await until(() => status().state === 'ok')
    ledger.record(record())
    await until(() => status().written === 2)
    expect((await ledger.requests({ limit: 1 })).newest).toBe(2)
  })

  test('the reader is started again by the next question', async () => {
    const { start, cut } = fragile()
    const { ledger } = await place.open({ startReader: start })
    ledger.record(record())
    await ledger.requests({ limit: 1 })
    cut('out of memory')
    expect((await ledger.requests({ limit: 1 })).newest).toBe(1)
  })

  test('a question that is not answered in time is refused, and so are those behind it', async () => {
    const silent: StartThread = () => ({ send() {}, hold() {}, release() {}, end() {} })
    const { ledger } = await place.open({ startReader: silent, deadlineMs: 20 })
    const outcomes = await Promise.allSettled([ledger.requests({ limit: 1 }), ledger.request('x')])
    for (const outcome of outcomes) {
      expect(outcome.status === 'rejected' && outcome.reason).toBeInstanceOf(LedgerUnavailable)
      expect(outcome.status === 'rejected' && outcome.reason.message).toContain('did not answer within 0.02 s')
    }
  })

  test('a writer that does not answer keeps the end of the gateway only so long', async () => {
    const silent: StartThread = onMessage => {
      const report = { problem: undefined, isWriting: true, bytes: 0, oldestMs: undefined }
      const tell = onMessage as (message: FromWriter) => void
      return { send: message => message.kind === 'write' && tell({ kind: 'report', report }), hold() {}, release() {}, end() {} }
    }
    const { ledger, status } = await place.open({ startWriter: silent, closeMs: 20 })
    ledger.record(record())
    await ledger.close()
    expect(status()).toMatchObject({ queued: 0, written: 0, dropped: 1 })
  })
})

describe('a ledger that is not wanted', () => {
  test('counts every record as dropped, refuses questions and says what to set', async () => {
    const registry = new Registry(1_000, metricFamilies({}))
    const ledger = disabledLedger({ registry })
    expect(ledger.record(record())).toBe(false)
    expect(ledger.record(record())).toBe(false)
    expect(drops(registry, 'sink_disabled')).toBe(2)
    expect(ledger.status).toMatchObject({ state: 'disabled', dropped: 2, written: 0 })
    expect(ledger.requests({ limit: 1 })).rejects.toThrow(LedgerUnavailable)
    expect(ledger.request('x')).rejects.toThrow(/usage\.enabled/)
    await ledger.close()
  })
})
