import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import {
  chmodSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import type { Budgets } from '../../src/budgets/budget.ts'
import { PICO_PER_USD } from '../../src/pricing/price.ts'
import { until } from '../gateway.ts'
import { labelsOf, workbench } from './bench.ts'

const USD = Number(PICO_PER_USD)
const DAY_MS = 86_400_000

let bench: ReturnType<typeof workbench>
beforeEach(() => {
  bench = workbench()
})
afterEach(() => bench.clean())

const degraded = (budgets: Budgets, words: RegExp) => {
  expect(budgets.health.state).toBe('degraded')
  expect(budgets.health.problem).toMatch(words)
  expect(budgets.health.problem).toContain('enforced from memory meanwhile')
}

describe('a start', () => {
  test('knows what was spent before the first request is judged', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 100 })
    const first = await bench.gateway()
    first.charge(labelsOf(key), { pico: 123, tokens: 100 })
    await first.budgets.close()
    const second = await bench.gateway()
    expect(second.refusal(key)?.budget?.spent_tokens).toBe(100)
    second.charge(labelsOf(key), { pico: 1, tokens: 1 })
    await second.budgets.close()
    expect((await bench.gateway()).status(id)).toMatchObject({ spent_usd: 124e-12, spent_tokens: 101 })
  })

  test('in the next period starts at zero', async () => {
    const key = await bench.caller('sk-1')
    await bench.add({ limit_tokens: 1, period: 'day' })
    const first = await bench.gateway()
    first.charge(labelsOf(key), { tokens: 1 })
    await first.budgets.close()
    bench.clock.advance(DAY_MS)
    expect((await bench.gateway()).refusal(key)).toBeUndefined()
  })

  test('does not warn again of what was warned of in this period', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 100, warn_at: [50, 90] })
    const first = await bench.gateway()
    first.charge(labelsOf(key), { tokens: 60 })
    await first.budgets.close()
    expect(first.warnings()).toHaveLength(1)
    bench.clock.advance(3_600_000)
    const second = await bench.gateway()
    second.charge(labelsOf(key), { tokens: 1 })
    await second.budgets.flush()
    expect(second.warnings()).toEqual([])
    expect(second.status(id).warnings).toEqual([
      { at_percent: 50, warned_at: '2026-03-11T12:00:00Z', spent_usd: 0, spent_tokens: 60 },
    ])
    second.charge(labelsOf(key), { tokens: 29 })
    await second.budgets.flush()
    expect(second.warnings()).toHaveLength(1)
  })

  test('finds sums beyond the 64 bits of SQLite', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_usd: 100_000_000, period: 'total' })
    const first = await bench.gateway()
    // Twelve million dollars: as picodollars in one number they would be more than 2^63.
    for (let index = 0; index < 3_000; index += 1) {
      first.charge(labelsOf(key), { pico: 4_000 * USD + 1 })
      if (index % 1_000 === 0) await first.budgets.flush()
    }
    await first.budgets.close()
    const second = await bench.gateway()
    expect(second.status(id).spent_usd).toBeCloseTo(12_000_000, 6)
    expect(bench.connect().query('SELECT usd, pico FROM spend').get()).toEqual({ usd: 12_000_000, pico: 3_000 })
  })
})

describe('several gateways on one file', () => {
  test('see the sum of what all have spent, to the picodollar, and refuse by it', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 1_000 })
    const one = await bench.gateway()
    const two = await bench.gateway()
    one.charge(labelsOf(key), { pico: 1, tokens: 400 })
    two.charge(labelsOf(key), { pico: 2, tokens: 599 })
    expect([one.refusal(key), two.refusal(key)]).toEqual([undefined, undefined])
    await one.budgets.flush()
    await two.budgets.flush()
    await one.budgets.flush()
    for (const each of [one, two]) expect(each.status(id)).toMatchObject({ spent_usd: 3e-12, spent_tokens: 999 })
    two.charge(labelsOf(key), { tokens: 1 })
    await two.budgets.flush()
    await one.budgets.flush()
    expect(one.refusal(key)).toBeDefined()
  })

  test('see it by themselves, without being told to look', async () => {
    const key = await bench.caller('sk-1')
    await bench.add({ limit_tokens: 10 })
    const one = await bench.gateway({ everyMs: 10 })
    const two = await bench.gateway({ everyMs: 10 })
    one.charge(labelsOf(key), { tokens: 10 })
    await until('the other gateway refuses', () => two.refusal(key) !== undefined)
  })

  test('warn of a mark once together, also where neither has reached it alone', async () => {
    const key = await bench.caller('sk-1')
    await bench.add({ limit_tokens: 100, warn_at: [50] })
    const one = await bench.gateway()
    const two = await bench.gateway()
    one.charge(labelsOf(key), { tokens: 30 })
    two.charge(labelsOf(key), { tokens: 30 })
    for (let round = 0; round < 3; round += 1) {
      await Promise.all([one.budgets.flush(), two.budgets.flush()])
    }
    expect(one.warnings().length + two.warnings().length).toBe(1)
    one.charge(labelsOf(key), { tokens: 60 })
    two.charge(labelsOf(key), { tokens: 60 })
    for (let round = 0; round < 3; round += 1) {
      await Promise.all([one.budgets.flush(), two.budgets.flush()])
    }
    expect(one.warnings().length + two.warnings().length).toBe(1)
  })
})

describe('the sum of all charges is what is spent, to the picodollar', () => {
  test('over random amounts, flushes, restarts, failures and two gateways', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_usd: 1_000_000, period: 'total' })
    // Park and Miller's generator: the same run every time.
    let seed = 20_260_311
    const random = (below: number) => {
      seed = (seed * 16_807) % 2_147_483_647
      return seed % below
    }
    let one = await bench.gateway()
    const two = await bench.gateway()
    const blocker = bench.connect()
    let pico = 0n
    let tokens = 0
    for (let step = 0; step < 600; step += 1) {
      const used = { pico: random(2) * random(2_000_000_000) * 1_000_003 + random(1_000), tokens: random(100_000) }
      pico += BigInt(used.pico)
      tokens += used.tokens
      ;(random(2) === 0 ? one : two).charge(labelsOf(key), used)
      if (random(20) === 0) void two.budgets.flush()
      if (random(60) === 0) await one.budgets.flush()
      if (random(150) === 0) {
        await one.budgets.close()
        one = await bench.gateway()
      }
      if (random(300) === 0) {
        blocker.run('BEGIN IMMEDIATE')
        expect(await two.budgets.flush()).toBe(false)
        blocker.run('ROLLBACK')
      }
    }
    await one.budgets.flush()
    await two.budgets.flush()
    await one.budgets.flush()
    const row = blocker
      .query<{ usd: number; pico: number; tokens: number }, [string]>('SELECT usd, pico, tokens FROM spend WHERE budget_id = ?')
      .get(id)
    expect(row).toEqual({ usd: Number(pico / PICO_PER_USD), pico: Number(pico % PICO_PER_USD), tokens })
    for (const each of [one, two]) expect(each.status(id)).toMatchObject({ spent_usd: Number(pico) / 1e12, spent_tokens: tokens })
  }, 60_000)
})

describe('a file that cannot be used: budgets are enforced from memory, and nothing is lost once it can', () => {
  test('locked by another program', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 10, warn_at: [50] })
    const { budgets, charge, refusal, status, warnings, lines } = await bench.gateway()
    const blocker = bench.connect()
    blocker.run('BEGIN EXCLUSIVE')
    charge(labelsOf(key), { tokens: 9 })
    expect(await budgets.flush()).toBe(false)
    degraded(budgets, /is locked by another process; find it with/)
    // Warnings do not wait for the disk.
    expect(warnings()).toHaveLength(1)
    charge(labelsOf(key), { tokens: 1 })
    expect(refusal(key)).toBeDefined()
    blocker.run('ROLLBACK')
    expect(await budgets.flush()).toBe(true)
    expect(await budgets.flush()).toBe(true)
    expect(budgets.health).toEqual({ state: 'ok', problem: undefined })
    expect(status(id).spent_tokens).toBe(10)
    expect(blocker.query('SELECT tokens FROM spend').get()).toEqual({ tokens: 10 })
    expect(warnings()).toHaveLength(1)
    expect(lines.filter(line => line.includes('does not reach the disk'))).toHaveLength(1)
    expect(lines.filter(line => line.includes('reaches the disk again'))).toHaveLength(1)
  })

  test('deleted while it is open: what is known is written to a new one, and a start finds it', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 100, warn_at: [10] })
    const { budgets, charge, status, lines } = await bench.gateway()
    charge(labelsOf(key), { pico: 7, tokens: 20 })
    await budgets.flush()
    rmSync(bench.path)
    charge(labelsOf(key), { pico: 1, tokens: 3 })
    expect(await budgets.flush()).toBe(true)
    expect(status(id).spent_tokens).toBe(23)
    expect(lines.filter(line => line.includes('was replaced or removed'))).toHaveLength(1)
    await budgets.close()
    const next = await bench.gateway()
    expect(next.status(id)).toMatchObject({ spent_usd: 8e-12, spent_tokens: 23, warnings: [{ at_percent: 10 }] })
    next.charge(labelsOf(key), { tokens: 1 })
    await next.budgets.flush()
    expect(next.warnings()).toEqual([])
  })

  test('deleted under two gateways: neither’s memory is counted twice', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 1_000 })
    const one = await bench.gateway()
    const two = await bench.gateway()
    one.charge(labelsOf(key), { tokens: 100 })
    await one.budgets.flush()
    await two.budgets.flush()
    rmSync(bench.path)
    one.charge(labelsOf(key), { tokens: 10 })
    two.charge(labelsOf(key), { tokens: 1 })
    await one.budgets.flush()
    await two.budgets.flush()
    await one.budgets.flush()
    expect([one.status(id).spent_tokens, two.status(id).spent_tokens]).toEqual([111, 111])
  })

  test('an older copy that is put in its place is what counts from then on', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 1_000 })
    const first = await bench.gateway()
    first.charge(labelsOf(key), { tokens: 100 })
    await first.budgets.close()
    cpSync(bench.path, `${bench.path}.backup`)
    const { budgets, charge, status, lines } = await bench.gateway()
    charge(labelsOf(key), { tokens: 50 })
    await budgets.flush()
    renameSync(`${bench.path}.backup`, bench.path)
    for (const suffix of ['-wal', '-shm']) rmSync(bench.path + suffix, { force: true })
    charge(labelsOf(key), { tokens: 1 })
    expect(await budgets.flush()).toBe(true)
    expect(status(id).spent_tokens).toBe(101)
    expect(lines.filter(line => line.includes('went back to an older state'))).toHaveLength(1)
  })

  test('damaged while it is open: it is moved away whole, said loudly, and memory is written to a new one', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 100 })
    const first = await bench.gateway()
    first.charge(labelsOf(key), { tokens: 20 })
    await first.budgets.close()
    const { budgets, charge, status, lines } = await bench.gateway()
    expect(status(id).spent_tokens).toBe(20)
    truncateSync(bench.path, 4_096)
    charge(labelsOf(key), { tokens: 5 })
    expect(await budgets.flush()).toBe(true)
    expect(status(id).spent_tokens).toBe(25)
    expect(budgets.health.state).toBe('ok')
    expect(
      lines.some(line => / ERROR budgets: .*was damaged: spending goes on from what this process remembers/.test(line)),
    ).toBe(true)
    expect(readdirSync(bench.folder).filter(name => name.includes('.damaged-') && !/-(wal|shm)$/.test(name))).toHaveLength(1)
    expect(bench.connect().query('SELECT tokens FROM spend').get()).toEqual({ tokens: 25 })
  })

  test('damaged before the start: it is kept under another name, and spending starts at zero', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 100 })
    const first = await bench.gateway()
    first.charge(labelsOf(key), { tokens: 20 })
    await first.budgets.close()
    truncateSync(bench.path, 4_096)
    const { budgets, charge, status, lines } = await bench.gateway()
    expect(lines.some(line => line.includes('was damaged: spending goes on from zero'))).toBe(true)
    const [moved = ''] = readdirSync(bench.folder).filter(name => name.includes('.damaged-'))
    expect(readFileSync(join(bench.folder, moved)).length).toBe(4_096)
    charge(labelsOf(key), { tokens: 1 })
    expect(await budgets.flush()).toBe(true)
    expect(status(id).spent_tokens).toBe(1)
  })

  test('no database at all at the start: it is left as it is, because the path may name something precious', async () => {
    const precious = 'admin: { admin_keys: [k] } # a file that somebody needs, and long enough to be looked at as a database'
    writeFileSync(bench.path, precious)
    const key = await bench.caller('sk-1')
    await bench.add({ limit_tokens: 10 })
    const { budgets, charge, refusal } = await bench.gateway()
    degraded(budgets, /is no database, or is damaged; name another file in budgets\.path, or move it away/)
    charge(labelsOf(key), { tokens: 10 })
    expect(refusal(key)).toBeDefined()
    expect(await budgets.flush()).toBe(false)
    expect(readFileSync(bench.path, 'utf8')).toBe(precious)
    expect(readdirSync(bench.folder)).toEqual(['budgets.db'])

    rmSync(bench.path)
    expect(await budgets.flush()).toBe(true)
    expect(budgets.health.state).toBe('ok')
  })

  test('of another program or a newer version: it is left as it is', async () => {
    const key = await bench.caller('sk-1')
    await bench.add({ limit_tokens: 10 })
    const other = new Database(bench.path)
    other.run('CREATE TABLE theirs (a)')
    other.close()
    const before = readFileSync(bench.path)
    const { budgets, charge, refusal } = await bench.gateway()
    degraded(budgets, /is a database of another program; name another file in budgets\.path/)
    charge(labelsOf(key), { tokens: 10 })
    expect(refusal(key)).toBeDefined()
    expect(await budgets.flush()).toBe(false)
    expect(readFileSync(bench.path)).toEqual(before)
    expect(readdirSync(bench.folder)).toEqual(['budgets.db'])

    rmSync(bench.path)
    expect(await budgets.flush()).toBe(true)
    const newer = bench.connect()
    newer.run('PRAGMA user_version = 99')
    const second = await bench.gateway()
    degraded(second.budgets, /was written by a newer version \(schema 99, this version knows 1\)/)
    newer.run('PRAGMA user_version = 1')
    expect(await second.budgets.flush()).toBe(true)
    expect(second.refusal(key)).toBeDefined()
  })

  test('in a folder that is not there yet', async () => {
    const key = await bench.caller('sk-1')
    await bench.add({ limit_tokens: 10 })
    const folder = join(bench.folder, 'later')
    const { budgets, charge } = await bench.gateway({ path: join(folder, 'budgets.db') })
    degraded(budgets, /later does not exist; create it, or change budgets\.path/)
    charge(labelsOf(key), { tokens: 1 })
    mkdirSync(folder)
    expect(await budgets.flush()).toBe(true)
    expect(budgets.health.state).toBe('ok')
    expect(statSync(join(folder, 'budgets.db')).mode & 0o777).toBe(0o600)
  })

  test.skipIf(process.getuid?.() === 0)('without the right to write', async () => {
    await bench.add({ limit_tokens: 10 })
    chmodSync(bench.folder, 0o500)
    const { budgets } = await bench.gateway()
    degraded(budgets, /cannot be (written|opened)/)
    chmodSync(bench.folder, 0o700)
    expect(await budgets.flush()).toBe(true)
  })

  test('closing with what could not be written says so', async () => {
    const key = await bench.caller('sk-1')
    await bench.add({ limit_tokens: 10 })
    const { budgets, charge, lines } = await bench.gateway()
    bench.connect().run('BEGIN EXCLUSIVE')
    charge(labelsOf(key), { tokens: 1 })
    await budgets.close()
    expect(lines.some(line => line.includes('the last of what was spent on budgets is lost'))).toBe(true)
  })
})

describe('what is old goes', () => {
  test('periods that ended 400 days ago, and budgets that are gone for 35; a running `total` stays', async () => {
    const key = await bench.caller('sk-1')
    const day = await bench.add({ name: 'day', limit_tokens: 10, period: 'day' })
    const total = await bench.add({ name: 'total', limit_tokens: 10, period: 'total' })
    const gone = await bench.add({ name: 'gone', limit_tokens: 10, period: 'total', warn_at: [1] })
    const first = await bench.gateway()
    first.charge(labelsOf(key), { tokens: 1 })
    await first.budgets.close()
    await bench.store.remove('budgets', gone.id, { adminKey: '', address: '' })
    const db = bench.connect()
    const rows = () =>
      db
        .query<{ id: string }, []>('SELECT budget_id AS id FROM spend')
        .all()
        .map(({ id }) => id)

    bench.clock.advance(34 * DAY_MS)
    await (await bench.gateway()).budgets.close()
    expect(rows().sort()).toEqual([day.id, total.id, gone.id].sort())
    bench.clock.advance(2 * DAY_MS)
    await (await bench.gateway()).budgets.close()
    expect(rows().sort()).toEqual([day.id, total.id].sort())
    expect(db.query('SELECT count(*) AS rows FROM warnings').get()).toEqual({ rows: 0 })
    bench.clock.advance(400 * DAY_MS)
    await (await bench.gateway()).budgets.close()
    expect(rows()).toEqual([total.id])
  })
})
