import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { DAY_MS, NOON, record, type Scratch, scratch } from './records.ts'

const DAY = { fromMs: NOON - DAY_MS / 2, toMs: NOON + DAY_MS / 2, groupBy: [], filter: {} }

describe('a ledger whose process ends without a word, or that is shared', () => {
  let place: Scratch
  beforeEach(() => {
    place = scratch()
  })
  afterEach(() => place.clean())

  test('kill -9: all that was said to be written is there, each row once, and sums agree', async () => {
    let told = 0
    for (let round = 0; round < 4; round++) {
      const child = Bun.spawn([process.execPath, `${import.meta.dir}/recording-child.ts`, place.path, 'record'], {
        stdout: 'pipe',
      })
      const rounds = told
      let last = 0
      for await (const piece of child.stdout) {
        for (const line of Buffer.from(piece).toString().split('\n')) if (line !== '') last = Number(line)
        if (last > 12_000 + round * 1_000) break
      }
      child.kill('SIGKILL')
      await child.exited
      told = rounds + last
    }
    const ledger = await place.openHere()
    const [row] = ledger.usage(DAY).rows
    const { newest } = ledger.requests({ limit: 1 })
    expect(newest).toBeGreaterThanOrEqual(told)
    expect(row?.requests).toBe(newest)
    ledger.close()
    const db = new Database(place.path, { readonly: true })
    const counts = db
      .query<{ rows: number; ids: number; tokens: number }, []>(
        'SELECT count(*) AS rows, count(DISTINCT request) AS ids, sum(prompt_tokens) AS tokens FROM attempts',
      )
      .get()
    db.close()
    expect(counts?.rows).toBe(newest)
    expect(counts?.ids).toBe(newest)
    expect(counts?.tokens).toBe(row?.promptTokens ?? -1)
    expect(db.filename).toBe(place.path)
  })

  test('a batch that was committed before its writer could say so is not written again', async () => {
    const ledger = await place.openHere()
    const batch = Array.from({ length: 5_000 }, () => record())
    ledger.write(batch, NOON, 1)
    ledger.write(batch, NOON, 1)
    ledger.write(batch, NOON, 2)
    expect(ledger.told.filter(({ kind }) => kind === 'done')).toHaveLength(3)
    expect(ledger.usage(DAY).rows).toMatchObject([{ requests: 10_000 }])
    expect(ledger.requests({ limit: 1 }).newest).toBe(10_000)
  })

  test('two gateways write to one file: every row of both is there and counted once', async () => {
    const one = await place.openHere({ writerId: 'one' })
    const two = await place.openHere({ writerId: 'two' })
    for (let round = 0; round < 30; round++) {
      one.write(Array.from({ length: 900 }, () => record({ promptTokens: 1 })))
      two.write(Array.from({ length: 700 }, () => record({ promptTokens: 2 })))
    }
    for (const ledger of [one, two]) {
      const [row] = ledger.usage(DAY).rows
      expect(row).toMatchObject({ requests: 48_000, promptTokens: 27_000 + 42_000 })
      expect(ledger.requests({ limit: 1 }).newest).toBe(48_000)
    }
    one.close()
    two.close()
    const db = new Database(place.path, { readonly: true })
    expect(db.query('SELECT count(*) AS count, sum(rows) AS rows FROM blocks').get()).toMatchObject({ rows: expect.any(Number) })
    const gaps = db
      .query('SELECT count(*) AS gaps FROM blocks WHERE first_seq > 1 AND first_seq - 1 NOT IN (SELECT last_seq FROM blocks)')
      .get()
    expect(gaps).toEqual({ gaps: 0 })
    db.close()
  })
})
