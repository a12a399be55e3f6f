import { Database, SQLiteError } from 'bun:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { silentLog } from '../../src/lib/log.ts'
import { verifyAudit } from '../../src/store/audit.ts'
import { explain } from '../../src/store/sqlite-file.ts'
import { NameTaken, type Store, StoreUnavailable } from '../../src/store/store.ts'
import { actor, model, providerKey, testClock } from './documents.ts'
import { putRow, type Scratch, scratch } from './scratch.ts'
import { endWriters, writer } from './writer.ts'

const CHILD = join(import.meta.dir, 'writer-child.ts')
const aliases = (store: Store) => [...store.snapshot.models.keys()]
const refusalOf = async (write: Promise<unknown>): Promise<string> => {
  const refused = await write.then(
    () => 'was not refused',
    (error: unknown) => error,
  )
  expect(refused).toBeInstanceOf(StoreUnavailable)
  return refused instanceof Error ? refused.message : ''
}

/** The file while the store is open, as others treat it. */
describe('a live store file', () => {
  let place: Scratch
  beforeEach(() => {
    place = scratch()
  })
  afterEach(async () => {
    await endWriters()
    await place.clean()
  })

  describe('changed by another process', () => {
    test('rows that are added, changed and removed are served after the next look, in the order of their rowids', async () => {
      const clock = testClock()
      const store = place.open({ clock })
      const { id } = await store.create('models', model('ours'), actor)
      const other = place.other()
      putRow(other, 'models', 'm2', model('theirs'))
      putRow(other, 'models', id, model('ours-changed'), 2)
      expect(aliases(store)).toEqual(['ours'])
      clock.ms += 250
      store.refresh()
      expect(aliases(store)).toEqual(['ours-changed', 'theirs'])
      expect(store.get('models', id)?.revision).toBe(2)
      expect(store.status).toMatchObject({ reloads: 2, applySeq: 3, confirmedAt: clock.ms, connected: true })
      other.run("DELETE FROM resources WHERE id = 'm2'")
      store.refresh()
      expect(aliases(store)).toEqual(['ours-changed'])
    })

    test('the store looks by itself', async () => {
      const store = place.open({ pollMs: 5 })
      putRow(place.other(), 'models', 'm1', model('theirs'))
      while (aliases(store).length === 0) await Bun.sleep(1)
      expect(aliases(store)).toEqual(['theirs'])
    })

    test('a change of another process is counted by the store, whoever makes it', async () => {
      const store = place.open()
      const { revision } = store.snapshot
      const other = place.other()
      for (const id of ['a', 'b', 'c']) putRow(other, 'models', id, model(id))
      store.refresh()
      expect(store.snapshot.revision).toBe(revision + 3)
      await store.create('models', model('d'), actor)
      expect(store.snapshot.revision).toBe(revision + 4)
      expect(other.query("SELECT value FROM meta WHERE key = 'revision'").values()).toEqual([[revision + 4]])
    })

    test('a transaction that is still open is not seen', () => {
      const store = place.open()
      const other = place.other()
      other.run('BEGIN IMMEDIATE')
      putRow(other, 'models', 'm1', model('not-yet'))
      store.refresh()
      expect(aliases(store)).toEqual([])
      expect(store.status.connected).toBe(true)
      other.run('COMMIT')
      store.refresh()
      expect(aliases(store)).toEqual(['not-yet'])
    })

    test('a write sees what others have committed before it, without waiting for a look', async () => {
      const store = place.open()
      const other = place.other()
      putRow(other, 'models', 'm1', model('theirs', { timeout: 1 }), 5)
      await expect(store.create('models', model('theirs'), actor)).rejects.toThrow(NameTaken)
      expect(aliases(store)).toEqual(['theirs'])
      putRow(other, 'models', 'm1', model('theirs', { timeout: 6 }), 6)
      const replaced = await store.replace('models', 'm1', now => ({ ...now, timeout: (now.timeout ?? 0) + 1 }), actor)
      expect(replaced).toMatchObject({ revision: 7, value: { timeout: 7 } })
      other.run("DELETE FROM resources WHERE id = 'm1'")
      expect(await store.replace('models', 'm1', now => now, actor)).toBeUndefined()
    })

    test('two gateways on one file share names, rows and revisions', async () => {
      const one = place.open()
      const two = place.open()
      const { id } = await one.create('models', model('shared'), actor)
      await expect(two.create('models', model('shared'), actor)).rejects.toThrow(NameTaken)
      expect((await two.replace('models', id, now => ({ ...now, retries: 2 }), actor))?.revision).toBe(2)
      expect((await one.replace('models', id, now => ({ ...now, stream_timeout: 3 }), actor))?.value).toMatchObject({
        retries: 2,
      })
      two.refresh()
      expect(two.list('models')).toEqual(one.list('models'))
      expect(two.status.configHash).toBe(one.status.configHash)
      expect(two.snapshot.revision).toBe(one.snapshot.revision)
      expect(await two.remove('models', id, actor)).toBe(true)
      one.refresh()
      expect(aliases(one)).toEqual([])
    })

    test('a row that someone broke is reported while its last good version serves; a write to it repairs it', async () => {
      const store = place.open()
      const { id } = await store.create('models', model('m'), actor)
      const other = place.other()
      putRow(other, 'models', id, '{"display_name": "m"', 2)
      store.refresh()
      expect(aliases(store)).toEqual(['m'])
      expect(store.status.rejected).toMatchObject([
        { resource_id: id, last_error_kind: 'non_json', serving_stale_age_seconds: 0 },
      ])
      expect((await store.replace('models', id, now => ({ ...now, retries: 1 }), actor))?.revision).toBe(3)
      expect(store.status.rejected).toEqual([])
    })

    test('a row that was never good is absent to a replacement that needs what is stored, and repaired by one that does not', async () => {
      const store = place.open()
      const other = place.other()
      putRow(other, 'models', 'bad', '{"display_name": 5}', 4)
      store.refresh()
      expect([store.get('models', 'bad'), store.holds('models', 'bad')]).toEqual([undefined, true])
      expect(store.holds('models', 'nothing')).toBe(false)
      const never = (): never => {
        throw new Error('there is nothing to compute from')
      }
      expect(await store.replace('models', 'bad', never, actor)).toBeUndefined()
      expect(await store.replace('models', 'nothing', never, actor, () => model('m'))).toBeUndefined()
      const repaired = await store.replace('models', 'bad', never, actor, () => model('m'))
      expect(repaired).toMatchObject({ id: 'bad', revision: 5, value: { display_name: 'm' } })
      expect(store.status.rejected).toEqual([])
      expect(aliases(store)).toEqual(['m'])
    })

    test('a row that is not served because its name is taken is replaced from what is stored', async () => {
      const store = place.open()
      const other = place.other()
      for (const id of ['first', 'second']) putRow(other, 'provider_keys', id, providerKey('same'))
      const replaced = await store.replace('provider_keys', 'second', now => ({ ...now, display_name: 'other' }), actor)
      expect(replaced).toMatchObject({ revision: 2, value: providerKey('other') })
      expect(store.status.rejected).toEqual([])
    })

    test('a row that was never good can be removed', async () => {
      const store = place.open()
      putRow(place.other(), 'models', 'bad', '{}')
      store.refresh()
      expect(store.get('models', 'bad')).toBeUndefined()
      expect(await store.remove('models', 'bad', actor)).toBe(true)
      expect(store.status.rejected).toEqual([])
      expect(place.other().query('SELECT count(*) FROM resources').values()).toEqual([[0]])
    })

    test('a schema of a newer version stops writes in words, and what was served goes on serving', async () => {
      const store = place.open()
      await store.create('models', model('m'), actor)
      const other = place.other()
      other.run('PRAGMA user_version = 3')
      expect(await refusalOf(store.create('models', model('n'), actor))).toContain('another schema')
      expect(store.status).toMatchObject({ connected: false, problem: expect.stringContaining('newer version') })
      expect(await refusalOf(store.create('models', model('n'), actor))).toContain('newer version')
      expect(aliases(store)).toEqual(['m'])
      other.run('PRAGMA user_version = 2')
      store.refresh()
      expect(store.status).toMatchObject({ connected: true, problem: undefined })
      expect((await store.create('models', model('n'), actor)).revision).toBe(1)
    })

    test('a dropped table stops writes in words, and a restored one is served', async () => {
      const store = place.open()
      const { id } = await store.create('models', model('m'), actor)
      const other = place.other()
      other.run('ALTER TABLE resources RENAME TO hidden')
      expect(await refusalOf(store.create('models', model('n'), actor))).toContain('were changed by another program')
      store.refresh()
      expect(store.status.connected).toBe(false)
      expect(store.get('models', id)).toBeDefined()
      other.run('ALTER TABLE hidden RENAME TO resources')
      store.refresh()
      expect(store.status.connected).toBe(true)
      expect((await store.create('models', model('n'), actor)).revision).toBe(1)
    })
  })

  describe('locked by another process', () => {
    test('a write waits on a timer while the event loop runs, and goes through when the lock is gone', async () => {
      const store = place.open({ busyWaitMs: 60_000 })
      const holder = place.other()
      holder.run('BEGIN IMMEDIATE')
      let turns = 0
      let isAnswered = false
      const write = store.create('models', model('patient'), actor).finally(() => {
        isAnswered = true
      })
      // The lock goes only because this loop gets its turns while the write waits.
      while (turns < 5) {
        await Bun.sleep(5)
        turns += 1
      }
      expect(isAnswered).toBe(false)
      expect(aliases(store)).toEqual([])
      holder.run('COMMIT')
      expect((await write).revision).toBe(1)
      expect(aliases(store)).toEqual(['patient'])
    })

    test('a write that waited in vain fails in words, nothing is changed, and the next one works', async () => {
      const store = place.open({ busyWaitMs: 30 })
      const holder = place.other()
      holder.run('BEGIN IMMEDIATE')
      expect(await refusalOf(store.create('models', model('m'), actor))).toContain('the store is locked by another process')
      expect(store.status).toMatchObject({ connected: true, applySeq: 1 })
      holder.run('ROLLBACK')
      expect((await store.create('models', model('m'), actor)).revision).toBe(1)
      expect(holder.query('SELECT count(*) FROM resources').values()).toEqual([[1]])
    })

    test('time in the queue counts as waiting: writes behind a locked one are tried once and do not wait anew', async () => {
      let elapsedMs = 0
      const clock = { now: Date.now, monotonic: () => elapsedMs }
      const store = place.open({ clock, busyWaitMs: 3_600_000 })
      const holder = place.other()
      holder.run('BEGIN IMMEDIATE')
      const writes = Array.from({ length: 10 }, (_, index) => refusalOf(store.create('models', model(`m${index}`), actor)))
      // An hour passes before the first of them has its turn; another hour of waiting would outlast this test.
      elapsedMs = 3_600_000
      for (const message of await Promise.all(writes)) expect(message).toContain('locked')
      holder.run('ROLLBACK')
      expect(aliases(store)).toEqual([])
    })

    test('a write that was accepted before the store is closed is finished', async () => {
      const store = place.open()
      const holder = place.other()
      holder.run('BEGIN IMMEDIATE')
      const write = store.create('models', model('accepted'), actor)
      const closed = store.close()
      holder.run('ROLLBACK')
      const { id } = await write
      await closed
      expect(place.open().get('models', id)).toBeDefined()
    })
  })

  describe('swapped or removed', () => {
    const backup = async (rows: string[]): Promise<string> => {
      const folder = join(place.folder, 'backup')
      mkdirSync(folder)
      const path = join(folder, 'aisix.db')
      const store = place.open({ path })
      for (const alias of rows) await store.create('models', model(alias), actor)
      await store.close()
      return path
    }

    test('a removed file: the last snapshot serves, writes fail in words, no new file is made, and a restored one is served', async () => {
      const copy = await backup(['restored'])
      const store = place.open()
      await store.create('models', model('m'), actor)
      unlinkSync(place.path)
      expect(await refusalOf(store.create('models', model('n'), actor))).toContain('the store file was replaced or removed')
      for (let look = 0; look < 3; look++) store.refresh()
      expect(existsSync(place.path)).toBe(false)
      expect(aliases(store)).toEqual(['m'])
      expect(store.status).toMatchObject({
        connected: false,
        problem: `there is no store file ${place.path}; put it back, or restore a backup there`,
      })
      expect(store.status).toMatchObject({ reloads: 2, reloadFailures: { fetch: 1 }, lastReload: { successful: false } })
      expect(await refusalOf(store.create('models', model('n'), actor))).toContain('there is no store file')

      copyFileSync(copy, place.path)
      store.refresh()
      expect(aliases(store)).toEqual(['restored'])
      expect(store.status).toMatchObject({ connected: true, problem: undefined, lastReload: { successful: true } })
      expect((await store.create('models', model('n'), actor)).revision).toBe(1)
    })

    test('a file put in its place by rename is served after the next look, and not mixed with the old log', async () => {
      const copy = await backup(['theirs-1', 'theirs-2'])
      const store = place.open()
      // A reader keeps the log from being emptied.
      const reader = place.other()
      reader.run('BEGIN')
      reader.query('SELECT count(*) FROM resources').all()
      for (let index = 0; index < 30; index++) await store.create('models', model(`ours-${index}`), actor)
      expect(statSync(`${place.path}-wal`).size).toBeGreaterThan(0)
      reader.close()
      renameSync(copy, place.path)
      store.refresh()
      expect(aliases(store)).toEqual(['theirs-1', 'theirs-2'])
      expect(store.status.connected).toBe(true)
      await store.create('models', model('new'), actor)
      expect(place.other().query('PRAGMA integrity_check').values()).toEqual([['ok']])
      await store.close()
      expect(aliases(place.open())).toEqual(['theirs-1', 'theirs-2', 'new'])
    })

    test('a write that finds the file replaced is refused, though SQLite would take it, and the next one goes to the new file', async () => {
      const copy = await backup(['theirs'])
      const store = place.open()
      await store.create('models', model('ours'), actor)
      renameSync(copy, place.path)
      expect(await refusalOf(store.create('models', model('lost'), actor))).toContain('the store file was replaced or removed')
      expect(aliases(store)).toEqual(['theirs'])
      await store.create('models', model('kept'), actor)
      await store.close()
      expect(aliases(place.open())).toEqual(['theirs', 'kept'])
    })

    test('a file swapped in the middle of a write: the write is refused and the new file is served', async () => {
      const copy = await backup(['theirs'])
      const store = place.open()
      const { id } = await store.create('models', model('ours'), actor)
      const swap = store.replace(
        'models',
        id,
        now => {
          renameSync(copy, place.path)
          return { ...now, retries: 1 }
        },
        actor,
      )
      expect(await refusalOf(swap)).toContain('the store file was replaced or removed')
      expect(aliases(store)).toEqual(['theirs'])
    })

    test('a file moved away keeps every write that was acknowledged, and is served again when it comes back', async () => {
      const store = place.open()
      for (const alias of ['a', 'b', 'c']) await store.create('models', model(alias), actor)
      const away = join(place.folder, 'moved.db')
      renameSync(place.path, away)
      store.refresh()
      expect(store.status.connected).toBe(false)
      const moved = new Database(away, { readonly: true })
      expect(moved.query('SELECT count(*) FROM resources').values()).toEqual([[3]])
      moved.close()
      renameSync(away, place.path)
      store.refresh()
      expect(store.status.connected).toBe(true)
      await store.create('models', model('d'), actor)
      expect(aliases(store)).toEqual(['a', 'b', 'c', 'd'])
    })

    test('a log of the old file that another process still reads keeps the new file from being opened over it', async () => {
      const copy = await backup(['theirs'])
      const store = place.open()
      await store.create('models', model('ours'), actor)
      const reader = place.other()
      reader.run('BEGIN')
      reader.query('SELECT count(*) FROM resources').all()
      await store.create('models', model('ours-too'), actor)
      renameSync(copy, place.path)
      store.refresh()
      expect(aliases(store)).toEqual(['ours', 'ours-too'])
      expect(store.status).toMatchObject({ connected: false, problem: expect.stringContaining('stop that process first') })
      reader.run('COMMIT')
      store.refresh()
      expect(aliases(store)).toEqual(['theirs'])
      expect(store.status.connected).toBe(true)
    })

    test.each([
      ['an empty file', '', 'is empty'],
      ['something that is no database', 'proxy: {}\n'.repeat(100), 'is not an SQLite database'],
    ])('%s at the path is not served and not written to', async (_what, content, problem) => {
      const store = place.open()
      await store.create('models', model('m'), actor)
      const fake = join(place.folder, 'fake')
      writeFileSync(fake, content)
      renameSync(fake, place.path)
      store.refresh()
      expect(store.status).toMatchObject({ connected: false, problem: expect.stringContaining(problem) })
      expect(aliases(store)).toEqual(['m'])
      expect(await refusalOf(store.create('models', model('n'), actor))).toContain(problem)
      expect(readFileSync(place.path, 'utf8')).toBe(content)
    })

    test('a folder that vanishes with everything in it ends nothing', async () => {
      const inner = join(place.folder, 'inner')
      mkdirSync(inner)
      const store = place.open({ path: join(inner, 'aisix.db') })
      await store.create('models', model('m'), actor)
      rmSync(inner, { recursive: true })
      store.refresh()
      expect(store.status).toMatchObject({ connected: false, problem: expect.stringContaining('does not exist') })
      expect(aliases(store)).toEqual(['m'])
      expect(await refusalOf(store.create('models', model('n'), actor))).toContain('does not exist')
    })

    test('a log that is deleted under the open store: a write is refused once, and nothing that was acknowledged is lost', async () => {
      for (const suffix of ['-wal', '-shm']) {
        const store = place.open()
        const name = suffix.slice(1)
        await store.create('models', model(`${name}-before`), actor)
        unlinkSync(place.path + suffix)
        expect(await refusalOf(store.create('models', model(`${name}-refused`), actor))).toContain(
          `${suffix} of the open store was removed; leave it alone while the gateway runs`,
        )
        expect(store.status).toMatchObject({ connected: true, problem: undefined })
        await store.create('models', model(`${name}-after`), actor)
        await store.close()
        expect(existsSync(place.path + suffix)).toBe(false)
      }
      expect(aliases(place.open())).toEqual(['wal-before', 'wal-after', 'shm-before', 'shm-after'])
    })

    test('a log that is deleted while it holds rows, because another process reads: the rows are saved into the file', async () => {
      const child = await writer(place.path)
      const reader = place.other()
      reader.run('BEGIN')
      reader.query('SELECT count(*) FROM resources').all()
      expect(await child.tell('create a')).toMatchObject({ id: expect.any(String) })
      expect(statSync(`${place.path}-wal`).size).toBeGreaterThan(0)
      unlinkSync(`${place.path}-wal`)
      expect(await child.tell('create b')).toMatchObject({
        refused: expect.stringContaining('-wal of the open store was removed'),
      })
      expect(await child.tell('status')).toMatchObject({
        connected: 'false',
        problem: expect.stringContaining('stop that process first'),
        aliases: 'a',
      })
      reader.close()
      expect(await child.tell('status')).toMatchObject({ connected: 'true', aliases: 'a' })
      await child.kill()
      expect(aliases(place.open())).toEqual(['a'])
    })

    test('a log deleted in the middle of a write: the write is refused, those before it are kept', async () => {
      const store = place.open()
      const { id } = await store.create('models', model('kept'), actor)
      const write = store.replace(
        'models',
        id,
        now => {
          unlinkSync(`${place.path}-wal`)
          return now ?? model('kept')
        },
        actor,
      )
      expect(await refusalOf(write)).toContain('-wal of the open store was removed')
      expect(store.get('models', id)?.revision).toBe(1)
      expect(store.status.connected).toBe(true)
    })

    describe('by programs that know nothing of SQLite, and then kill -9', () => {
      const acts: [string, (backup: string) => void, string[]][] = [
        ['a deleted log', () => unlinkSync(`${place.path}-wal`), ['a', 'b', 'c']],
        ['a deleted index', () => unlinkSync(`${place.path}-shm`), ['a', 'b', 'c']],
        [
          'a backup copied over the file, its log and index deleted',
          copy => {
            writeFileSync(place.path, readFileSync(copy))
            for (const suffix of ['-wal', '-shm']) unlinkSync(place.path + suffix)
          },
          ['a', 'b'],
        ],
        ['a backup copied over the file alone', copy => writeFileSync(place.path, readFileSync(copy)), ['a', 'b']],
      ]
      test.each(acts)('%s: what was answered before and after is all there', async (_what, act, served) => {
        const child = await writer(place.path)
        for (const alias of ['a', 'b']) expect(await child.tell(`create ${alias}`)).toHaveProperty('id')
        const copy = join(place.folder, 'copy.db')
        const taken = new Database(place.path, { readonly: true })
        taken.run(`VACUUM INTO '${copy}'`)
        taken.close()
        expect(await child.tell('create c')).toHaveProperty('id')
        const { ino } = statSync(place.path)
        act(copy)
        expect(statSync(place.path).ino).toBe(ino)
        expect(await child.tell('create refused')).toHaveProperty('refused')
        expect(await child.tell('status')).toMatchObject({ connected: 'true', aliases: served.join() })
        expect(await child.tell('create d')).toHaveProperty('id')
        await child.kill()
        expect(aliases(place.open())).toEqual([...served, 'd'])
        expect(place.other().query('PRAGMA integrity_check').values()).toEqual([['ok']])
      })

      test('a file cut to nothing: the last snapshot serves and no write is taken until a store is there again', async () => {
        const copy = await backup(['theirs'])
        const child = await writer(place.path)
        expect(await child.tell('create a')).toHaveProperty('id')
        truncateSync(place.path)
        expect(await child.tell('create lost')).toMatchObject({ refused: expect.stringContaining('was written over by another') })
        expect(await child.tell('create lost')).toMatchObject({
          refused: expect.stringContaining('is empty; put the store back'),
        })
        expect(await child.tell('status')).toMatchObject({
          connected: 'false',
          problem: `the store file ${place.path} is empty; put the store back, or restore a backup there`,
          aliases: 'a',
        })
        expect(statSync(place.path).size).toBe(0)
        writeFileSync(place.path, readFileSync(copy))
        expect(await child.tell('status')).toMatchObject({ connected: 'true', aliases: 'theirs' })
        expect(await child.tell('create b')).toHaveProperty('id')
        await child.kill()
        expect(aliases(place.open())).toEqual(['theirs', 'b'])
      })

      test('a backup copied over while another process keeps the log full is never mixed with that log', async () => {
        const child = await writer(place.path)
        expect(await child.tell('create a')).toHaveProperty('id')
        const copy = join(place.folder, 'copy.db')
        const reader = place.other()
        reader.run(`VACUUM INTO '${copy}'`)
        reader.run('BEGIN')
        reader.query('SELECT count(*) FROM resources').all()
        expect(await child.tell('create b')).toHaveProperty('id')
        writeFileSync(place.path, readFileSync(copy))
        expect(await child.tell('create c')).toHaveProperty('refused')
        expect(await child.tell('status')).toMatchObject({
          connected: 'false',
          problem: expect.stringContaining('stop the gateway and that process, remove'),
          aliases: 'a,b',
        })
        await child.tell('close')
        await child.kill()
        expect(readFileSync(place.path).equals(readFileSync(copy))).toBe(true)
      })
    })

    test('a file that another gateway has written to is not taken for one that was written over', async () => {
      const warnings: string[] = []
      const log = { ...silentLog, warn: (message: string) => void warnings.push(message), as: () => log }
      const store = place.open({ log })
      const child = await writer(place.path)
      for (let index = 0; index < 20; index++) {
        expect(await child.tell(`create theirs-${index}`)).toHaveProperty('id')
        await store.create('models', model(`ours-${index}`), actor)
        expect(await child.tell('status')).toMatchObject({ connected: 'true' })
      }
      expect(aliases(store)).toHaveLength(40)
      expect(warnings).toEqual([])
      await child.kill()
    })

    test('a second name of the same file is the same file', async () => {
      const store = place.open()
      await store.create('models', model('m'), actor)
      linkSync(place.path, join(place.folder, 'second'))
      renameSync(join(place.folder, 'second'), place.path)
      store.refresh()
      expect(store.status.connected).toBe(true)
    })

    test('a store written over in place by SQLite itself, as a restore does, is served, its revisions still growing', async () => {
      const store = place.open()
      const { id } = await store.create('models', model('m'), actor)
      const backupPath = join(place.folder, 'backup.db')
      place.other().run(`VACUUM INTO '${backupPath}'`)
      for (let index = 0; index < 5; index++) await store.replace('models', id, now => ({ ...now, retries: index }), actor)
      const { revision } = store.snapshot
      const other = place.other()
      other.run(`ATTACH '${backupPath}' AS backup`)
      other.transaction(() => {
        for (const table of ['resources', 'meta']) {
          other.run(`DELETE FROM main.${table}`)
          other.run(`INSERT INTO main.${table} SELECT * FROM backup.${table}`)
        }
      })()
      store.refresh()
      expect(store.get('models', id)).toMatchObject({ revision: 1, value: model('m') })
      expect(store.snapshot.revision).toBeGreaterThan(revision)
      await store.create('models', model('n'), actor)
      expect(other.query("SELECT value FROM main.meta WHERE key = 'revision'").values()).toEqual([[store.snapshot.revision]])
    })
  })

  describe('refusing writes', () => {
    test('a rule in the file that is not ours refuses a write in words; nothing is changed and the next one works', async () => {
      const store = place.open()
      const { id } = await store.create('models', model('m'), actor)
      const before = store.status
      const other = place.other()
      other.run("CREATE TRIGGER foreign_rule BEFORE INSERT ON resources BEGIN SELECT RAISE(ABORT, 'no'); END")
      expect(await refusalOf(store.create('models', model('n'), actor))).toContain('a rule inside the store')
      expect(store.status).toMatchObject({ connected: true, applySeq: before.applySeq, configHash: before.configHash })
      other.run('DROP TRIGGER foreign_rule')
      expect((await store.create('models', model('n'), actor)).revision).toBe(1)
      expect(store.get('models', id)?.revision).toBe(1)
    })

    test('a failure after the row is written, before the commit, leaves neither row nor revision behind', async () => {
      const store = place.open()
      await store.create('models', model('m'), actor)
      const other = place.other()
      other.run("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END")
      const meta = () => other.query('SELECT value FROM meta').values()
      const before = meta()
      await refusalOf(store.create('models', model('n'), actor))
      expect(other.query('SELECT count(*) FROM resources').values()).toEqual([[1]])
      expect(meta()).toEqual(before)
      expect(aliases(store)).toEqual(['m'])
    })

    test('each reason of SQLite is told in words that say what to do', () => {
      const db = new Database(join(place.folder, 'errors.db'), { create: true })
      const errorOf = (run: () => unknown): unknown => {
        try {
          run()
        } catch (error) {
          if (error instanceof SQLiteError) return error
          throw error
        }
        throw new Error('SQLite did not refuse')
      }
      db.run('CREATE TABLE big (text)')
      db.run('PRAGMA max_page_count = 3')
      const full = errorOf(() => db.query('INSERT INTO big VALUES (?)').run('x'.repeat(50_000)))
      db.run('PRAGMA query_only = 1')
      const readOnly = errorOf(() => db.run("INSERT INTO big VALUES ('x')"))
      const missing = errorOf(() => db.run('SELECT * FROM nothing'))
      const cannotOpen = errorOf(() => new Database(join(place.folder, 'none', 'x.db')))
      db.close()
      expect(explain(full, '/s')).toBe('the disk of the store /s is full; free space and try again')
      expect(explain(readOnly, '/s')).toBe('the store /s is read-only; make the file and its folder writable and try again')
      expect(explain(missing, '/s')).toContain('were changed by another program')
      expect(explain(cannotOpen, '/s')).toContain('cannot be opened')
    })

    test('a disk that takes no more: refused writes are told in words and never seen, acknowledged ones are all there', async () => {
      // The signal of the limit is ignored, so that the write itself fails, as on a disk that has reached its quota.
      const command = `trap '' XFSZ; ulimit -f 700; exec "$0" "$@"`
      const child = Bun.spawn(['sh', '-c', command, process.execPath, CHILD, place.path, 'm', '40', '30000'], { stdout: 'pipe' })
      const outcomes = (await new Response(child.stdout).text())
        .trim()
        .split('\n')
        .map((line): Record<string, string> => JSON.parse(line))
      const accepted = outcomes.filter(({ id }) => id !== undefined)
      const refused = outcomes.filter(each => each.refused !== undefined)
      expect(accepted.length).toBeGreaterThan(0)
      expect(refused.length).toBeGreaterThan(0)
      expect(accepted.length + refused.length).toBe(40)
      for (const each of accepted) expect(each.visible).toBe('true')
      for (const each of refused) {
        expect(each.visible).toBe('false')
        expect(each.refused).toMatch(/the disk of the store .* (is full|failed)|cannot be opened/)
      }
      expect(aliases(place.open())).toEqual(accepted.map(({ alias = '' }) => alias))
    })
  })

  test('20 rounds of kill -9 in the middle of writes: nothing that was acknowledged is lost, nothing is half there', async () => {
    const acknowledged: string[] = []
    for (let round = 0; round < 20; round++) {
      const child = Bun.spawn([process.execPath, CHILD, place.path, `r${round}-`, '100000', '0'], { stdout: 'pipe' })
      let text = ''
      const decoder = new TextDecoder()
      for await (const chunk of child.stdout) {
        text += decoder.decode(chunk, { stream: true })
        // Each round ends at another point; what was in the pipe by then was acknowledged too.
        if (text.split('\n').length > round * 3 + 2) child.kill('SIGKILL')
      }
      await child.exited
      for (const line of text.split('\n').slice(0, -1)) {
        const outcome: Record<string, string> = JSON.parse(line)
        expect(outcome).toHaveProperty('id')
        acknowledged.push(outcome.id ?? '')
      }
    }
    const store = place.open()
    const stored = store.list('models').map(({ id }) => id)
    expect(acknowledged.filter(id => !stored.includes(id))).toEqual([])
    expect(acknowledged.length).toBeGreaterThan(20)
    // A write that was cut off may be there, one a round at most: durable and not yet answered.
    expect(stored.length - acknowledged.length).toBeLessThanOrEqual(20)
    expect(store.status.rejected).toEqual([])
    expect(place.other().query('PRAGMA integrity_check').values()).toEqual([['ok']])
    // Each change that is there has its one entry, also those that nobody was told of.
    expect(verifyAudit(place.other())).toMatchObject({ ok: true, entries: stored.length })
    expect(place.other().query('SELECT id FROM audit ORDER BY seq').values().flat()).toEqual(stored)
  }, 60_000)

  test('a write among 10,000 models and 10,000 keys rebuilds its own kind alone', async () => {
    await place.open().close()
    const other = place.other()
    other.transaction(() => {
      for (let index = 0; index < 10_000; index++) {
        putRow(other, 'models', `m${index}`, model(`alias-${index}`))
        const key_hash = index.toString(16).padStart(64, '0')
        putRow(other, 'api_keys', `a${index}`, { key_hash, allowed_models: [`alias-${index}`, 'vllm/*'] })
      }
    })()
    const store = place.open()
    const before = store.snapshot
    await store.create('provider_keys', providerKey('one'), actor)
    expect(store.snapshot.models).toBe(before.models)
    expect(store.snapshot.apiKeys).toBe(before.apiKeys)
    await store.replace('api_keys', 'a5', now => ({ ...now, disabled: true }), actor)
    expect(store.snapshot.models).toBe(before.models)
    expect(store.snapshot.apiKeys).not.toBe(before.apiKeys)
    // The rules of keys that did not change are not compiled anew.
    const hash = '7'.padStart(64, '0')
    expect(store.snapshot.apiKeys.get(hash)).toBe(before.apiKeys.get(hash))
    expect(store.snapshot.apiKeys.size).toBe(10_000)
  })
})
