import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { LedgerUnavailable } from '../../src/ledger/ledger.ts'
import { DAY_MS, NOON, record, type Scratch, scratch, until } from './records.ts'

const DAY = { fromMs: NOON - DAY_MS / 2, toMs: NOON + DAY_MS / 2, groupBy: [], filter: {} }

/** Whatever happens to the file: records are taken or counted as dropped, nothing throws, and it is told in words. */
describe('a ledger whose file has a fault', () => {
  let place: Scratch
  beforeEach(() => {
    place = scratch()
  })
  afterEach(() => place.clean())

  type Opened = Awaited<ReturnType<Scratch['open']>>
  const fill = async ({ ledger, status }: Opened, rows = 3_000) => {
    const goal = status().written + rows
    for (let row = 0; row < rows; row++) ledger.record(record())
    await until(() => status().written >= goal)
  }
  const problemOf = async ({ status }: Opened): Promise<string> => {
    await until(() => status().state === 'degraded')
    return status().problem ?? ''
  }
  const isWell = ({ status }: Opened) => until(() => status().state === 'ok' && status().queued === 0)
  const asides = () => readdirSync(place.folder).filter(name => /^usage\.db\.corrupt-[0-9TZ]+$/.test(name))

  describe('when it is opened', () => {
    const notOurs: [name: string, content: () => void, words: RegExp][] = [
      [
        'no database',
        () => writeFileSync(place.path, 'aisix: {}\n'.repeat(500)),
        /is not an SQLite database.*move it away, or name another/,
      ],
      ['a few bytes', () => writeFileSync(place.path, 'x'), /is not an SQLite database/],
      [
        'a database of another program',
        () => {
          const db = new Database(place.path)
          db.run('CREATE TABLE theirs (a)')
          db.close()
        },
        /is a database of another kind; name another file in usage\.path/,
      ],
      ['a folder', () => mkdirSync(place.path), /is not a file; name another one in usage\.path/],
    ]
    for (const [name, make, words] of notOurs) {
      test(`${name} is left as it is, told, and taken over from once it is gone`, async () => {
        make()
        const content = statSync(place.path).isFile() ? readFileSync(place.path) : undefined
        const opened = await place.open()
        expect(await problemOf(opened)).toMatch(words)
        expect(opened.ledger.record(record())).toBe(true)
        expect(opened.ledger.usage(DAY)).rejects.toThrow(LedgerUnavailable)
        await Bun.sleep(50)
        if (content) expect(readFileSync(place.path).equals(content)).toBe(true)
        expect(readdirSync(place.folder)).toEqual(['usage.db'])
        rmSync(place.path, { recursive: true })
        await isWell(opened)
        expect(opened.status()).toMatchObject({ written: 1, dropped: 0 })
        expect((await opened.ledger.usage(DAY)).rows).toMatchObject([{ requests: 1 }])
      })
    }

    test('a file of a newer version is not touched, by writing or by reading', async () => {
      const older = await place.open()
      await fill(older)
      await older.ledger.close()
      const db = new Database(place.path)
      db.run('PRAGMA user_version = 2')
      db.run('PRAGMA wal_checkpoint(TRUNCATE)')
      db.close()
      const content = readFileSync(place.path)
      const opened = await place.open()
      expect(await problemOf(opened)).toMatch(/has format 2, this version of the gateway knows 1; start a version that knows it/)
      opened.ledger.record(record())
      expect(opened.ledger.requests({ limit: 1 })).rejects.toThrow(/has format 2/)
      await opened.ledger.close()
      expect(opened.status()).toMatchObject({ written: 0, dropped: 1 })
      expect(readFileSync(place.path).equals(content)).toBe(true)
    })

    test('a folder that is not there is told, and once it is there the ledger is', async () => {
      const opened = await place.open({ path: join(place.folder, 'later', 'usage.db') })
      expect(await problemOf(opened)).toMatch(/cannot be opened; check that its folder exists and may be written.*tried again/)
      opened.ledger.record(record())
      mkdirSync(join(place.folder, 'later'))
      await isWell(opened)
      expect(opened.status().written).toBe(1)
    })

    test('an empty file becomes a ledger', async () => {
      writeFileSync(place.path, '')
      const opened = await place.open()
      await fill(opened)
      expect(opened.status()).toMatchObject({ state: 'ok', written: 3_000 })
    })
  })

  test('a ledger of ours that is damaged is put aside with all it holds, and a new one is begun', async () => {
    const before = await place.open()
    await fill(before, 20_000)
    await before.ledger.close()
    const file = openSync(place.path, 'r+')
    const rest = statSync(place.path).size - 4_096
    writeSync(file, Buffer.alloc(rest, 0x5a), 0, rest, 4_096)
    closeSync(file)
    const content = readFileSync(place.path)
    const opened = await place.open()
    opened.ledger.record(record())
    await until(() => opened.status().written === 1)
    expect(await problemOf(opened)).toMatch(/was damaged and lies at .*usage\.db\.corrupt-.* now, a new one was begun/)
    // Degraded, because somebody has to look at it; nothing is lost any more.
    expect(opened.status()).toMatchObject({ state: 'degraded', isWriting: true })
    const [aside = '', ...others] = asides()
    expect(others).toEqual([])
    expect(readFileSync(join(place.folder, aside)).equals(content)).toBe(true)
    expect((await opened.ledger.usage(DAY)).rows).toMatchObject([{ requests: 1 }])
    expect(opened.lines.join('')).toContain('nothing of it was deleted')
    // Who takes the old file away has seen it.
    rmSync(join(place.folder, aside))
    opened.ledger.record(record())
    await isWell(opened)
  })

  test.each([
    ['to nothing', () => 0],
    ['to a part', (size: number) => Math.floor(size / 8_192) * 4_096],
  ])('a file that is cut short %s under the running gateway is noticed, and records are taken on', async (_, cut) => {
    const opened = await place.open()
    await fill(opened, 20_000)
    const other = new Database(place.path)
    other.query('PRAGMA wal_checkpoint(TRUNCATE)').all()
    other.close()
    truncateSync(place.path, cut(statSync(place.path).size))
    await fill(opened, 3_000)
    await until(() => asides().length > 0)
    await fill(opened, 500)
    expect(opened.status()).toMatchObject({ state: 'degraded', dropped: 0 })
    expect((await opened.ledger.usage(DAY)).rows[0]?.requests).toBeGreaterThanOrEqual(500)
  })

  test('a file that is overwritten under the running gateway does not end it', async () => {
    const opened = await place.open()
    await fill(opened, 20_000)
    writeFileSync(place.path, Buffer.alloc(statSync(place.path).size, 0xff), { flag: 'r+' })
    for (let times = 0; times < 20 && asides().length === 0; times++) {
      opened.clock.ms += 11_000
      await fill(opened, 3_000)
    }
    expect(asides().length).toBe(1)
    await fill(opened, 100)
    expect((await opened.ledger.requests({ limit: 1 })).records.length).toBe(1)
  })

  test('a file that is removed while it is open is begun anew, with sequence numbers that go on', async () => {
    const opened = await place.open()
    await fill(opened)
    await opened.ledger.requests({ limit: 1 })
    for (const suffix of ['', '-wal', '-shm']) rmSync(place.path + suffix, { force: true })
    await fill(opened, 10)
    expect(opened.status()).toMatchObject({ state: 'ok', written: 3_010, dropped: 0 })
    expect(existsSync(place.path)).toBe(true)
    const { records, newest } = await opened.ledger.requests({ after: 3_000, limit: 100 })
    expect(newest).toBe(3_010)
    expect(records.length).toBe(10)
    expect(opened.lines.join('')).toContain('was removed')
  })

  test('a ledger that is put in its place is gone on with', async () => {
    const backup = scratch()
    const other = await backup.open()
    await fill(other, 50)
    await other.ledger.close()
    const opened = await place.open()
    await fill(opened, 20)
    renameSync(backup.path, place.path)
    await fill(opened, 5)
    expect((await opened.ledger.usage(DAY)).rows).toMatchObject([{ requests: 55 }])
    await backup.clean()
  })

  test('tables that another program has dropped come back, and nothing else is lost', async () => {
    const opened = await place.open()
    await fill(opened, 100)
    const db = new Database(place.path)
    db.run('DROP TABLE days')
    db.close()
    await fill(opened, 20_000)
    await isWell(opened)
    expect((await opened.ledger.requests({ limit: 1 })).newest).toBe(20_100)
  })

  const canMount = process.getuid?.() === 0 && process.platform === 'linux'
  test.skipIf(!canMount)('a full disk: records wait, it is told, and once there is room they are written', async () => {
    const disk = join(place.folder, 'disk')
    mkdirSync(disk)
    const mounted = Bun.spawnSync(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', disk])
    if (!mounted.success) return expect(mounted.stderr.toString()).toMatch(/permission|denied|not permitted/i)
    place.closers.unshift(() => Bun.spawnSync(['umount', '-l', disk]))
    const opened = await place.open({ path: join(disk, 'usage.db') })
    await fill(opened, 100)
    const { bavail, bsize } = statfsSync(disk)
    writeFileSync(join(disk, 'filler'), Buffer.alloc(bavail * bsize))
    for (let row = 0; row < 3_000; row++) opened.ledger.record(record())
    expect(await problemOf(opened)).toMatch(/the disk of the ledger .* is full; free space, or lower usage\.max_bytes/)
    expect((await opened.ledger.usage(DAY)).rows).toMatchObject([{ requests: 100 }])
    rmSync(join(disk, 'filler'))
    await isWell(opened)
    expect(opened.status()).toMatchObject({ written: 3_100, dropped: 0 })
    expect((await opened.ledger.usage(DAY)).rows).toMatchObject([{ requests: 3_100 }])
  })

  test('a gateway that stops while the file cannot be written counts what it loses', async () => {
    mkdirSync(place.path)
    const opened = await place.open()
    for (let row = 0; row < 3_000; row++) opened.ledger.record(record())
    await opened.ledger.close()
    expect(opened.status()).toMatchObject({ written: 0, dropped: 3_000, queued: 0 })
    const { value } = opened.registry.series('aisix_usage_event_drops_total', ['sink_closed', 'chat', 'provider-key-1', 'rack-1'])
    expect(value).toBe(3_000)
  })
})
