import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createLog } from '../../src/lib/log.ts'
import { kinds } from '../../src/resources/index.ts'
import { openSqliteStore, StoreOpenError } from '../../src/store/sqlite.ts'
import { openStoreFile } from '../../src/store/sqlite-file.ts'
import {
  actor,
  apiKey,
  budget,
  exporter,
  group,
  model,
  passthroughRoute,
  policy,
  providerKey,
  SECRET,
  testClock,
} from './documents.ts'
import { putRow, type Scratch, scratch } from './scratch.ts'

const CHILD = join(import.meta.dir, 'writer-child.ts')

describe('opening a store file', () => {
  let place: Scratch
  beforeEach(() => {
    place = scratch()
  })
  afterEach(() => place.clean())

  /** What the folder holds, byte for byte. */
  const contents = () =>
    Object.fromEntries(
      readdirSync(place.folder, { withFileTypes: true }).map(each => [
        each.name,
        each.isFile() ? Bun.hash(readFileSync(join(place.folder, each.name))) : 'other',
      ]),
    )
  /** The refusal; the folder must be as it was before. */
  const refusal = (path = place.path): string => {
    const before = contents()
    let message = ''
    try {
      place.open({ path, busyWaitMs: 20 })
    } catch (error) {
      expect(error).toBeInstanceOf(StoreOpenError)
      message = error instanceof Error ? error.message : ''
    }
    expect(contents()).toEqual(before)
    return message
  }

  test('a missing file becomes a new, empty store that only its owner may read, whatever the umask', async () => {
    const umask = process.umask(0o000)
    try {
      const store = place.open()
      await store.create('models', model('m'), actor)
      for (const suffix of ['', '-wal', '-shm']) expect(statSync(place.path + suffix).mode & 0o777).toBe(0o600)
    } finally {
      process.umask(umask)
    }
  })

  test('the table is the one that the contract names, and it can be read by any SQLite', async () => {
    const store = place.open()
    const { id } = await store.create('provider_keys', providerKey('one'), actor)
    const other = place.other()
    expect(other.query('SELECT kind, id, revision FROM resources').all()).toEqual([{ kind: 'provider_keys', id, revision: 1 }])
    const { document, created_at } = other
      .query<{ document: string; created_at: string }, []>('SELECT document, created_at FROM resources')
      .get() ?? { document: '{}', created_at: '' }
    expect(JSON.parse(document)).toMatchObject({ display_name: 'one', secret: SECRET })
    expect(created_at).toBe('2026-03-01T12:00:00.750Z')
    expect(other.query("SELECT name FROM pragma_table_info('resources')").values().flat()).toEqual([
      'kind',
      'id',
      'document',
      'revision',
      'created_at',
      'updated_at',
    ])
    expect(other.query('PRAGMA journal_mode').values()).toEqual([['wal']])
    expect(other.query('PRAGMA user_version').values()).toEqual([[2]])
  })

  test('ids, revisions, order, revision counter and hash are the same after a restart', async () => {
    const first = place.open()
    const { id } = await first.create(
      'provider_keys',
      providerKey('one', { request: { default_headers: { 'x-a': 'b' } } }),
      actor,
    )
    for (const alias of ['c', 'a', 'b']) await first.create('models', model(alias, { provider_key_id: id }), actor)
    await first.create('api_keys', apiKey('sk-one', { expires_at: '2027-01-01T00:00:00+02:00', disabled: true }), actor)
    await first.create('models', group('g', ['a', 'b'], { rate_limit: { rpm: 5 } }), actor)
    const conditions = [{ logic: 'or', children: [{ dimension: 'team', operator: 'in', value: ['t', 'u'] }] }]
    await first.create('rate_limit_policies', policy('p', { limits: { tpm: 9 }, conditions }), actor)
    await first.create('budgets', budget('b', { limit_tokens: 9, warn_at: [50] }), actor)
    await first.create('observability_exporters', exporter('e'), actor)
    await first.create('passthrough_routes', passthroughRoute('r'), actor)
    const [firstModel] = first.list('models')
    await first.replace('models', firstModel?.id ?? '', now => ({ ...now, retries: 4 }), actor)
    const before = kinds.map(kind => first.list(kind))
    for (const entries of before) expect(entries).not.toBeEmpty()
    const { configHash } = first.status
    const { revision } = first.snapshot
    await first.close()
    expect(readdirSync(place.folder)).toEqual(['aisix.db'])

    const second = place.open()
    expect(kinds.map(kind => second.list(kind))).toEqual(before)
    expect(second.status).toMatchObject({ configHash, applySeq: 1, rejected: [] })
    expect(second.snapshot.revision).toBe(revision)
  })

  test('each write is remembered with its actor', async () => {
    const store = place.open()
    const { id } = await store.create('models', model('m'), actor)
    await store.replace('models', id, now => now, { adminKey: 'admin_keys[1]', address: '10.0.0.9' })
    await store.remove('models', id, actor)
    expect(place.other().query('SELECT action, kind, id, actor, address FROM audit ORDER BY seq').values()).toEqual([
      ['create', 'models', id, 'admin_keys[0]', '127.0.0.1'],
      ['replace', 'models', id, 'admin_keys[1]', '10.0.0.9'],
      ['delete', 'models', id, 'admin_keys[0]', '127.0.0.1'],
    ])
  })

  test('a missing folder, and a file in its place, are named', () => {
    expect(refusal(join(place.folder, 'none', 'aisix.db'))).toContain(
      `the folder ${join(place.folder, 'none')} of the store does not exist`,
    )
    writeFileSync(join(place.folder, 'file'), '')
    expect(refusal(join(place.folder, 'file', 'aisix.db'))).toContain('is not a folder')
  })

  test('a folder and a device at the path are refused', () => {
    mkdirSync(place.path)
    expect(refusal()).toContain('is a folder')
    expect(refusal('/dev/null')).toContain('is not a regular file')
  })

  test('a name that SQLite would take for a database in memory is a file like any other', () => {
    const cwd = process.cwd()
    process.chdir(place.folder)
    try {
      place.open({ path: ':memory:' })
      expect(existsSync(join(place.folder, ':memory:'))).toBe(true)
    } finally {
      process.chdir(cwd)
    }
  })

  test('a file that is not SQLite is refused and left alone', () => {
    writeFileSync(place.path, `proxy:\n  addr: 0.0.0.0:3000\n${'# comment\n'.repeat(100)}`)
    expect(refusal()).toContain('is not an SQLite database')
    writeFileSync(place.path, 'x')
    expect(refusal()).toContain('is not an SQLite database')
  })

  test('an empty file, as `touch` makes it, becomes a new store', async () => {
    writeFileSync(place.path, '')
    expect((await place.open().create('models', model('m'), actor)).revision).toBe(1)
  })

  test('a database of another program is refused and left alone, in either journal mode', () => {
    const db = new Database(place.path, { create: true })
    db.run('CREATE TABLE invoices (id INTEGER PRIMARY KEY)')
    db.close()
    expect(refusal()).toContain('is a database of another program')
    const again = new Database(place.path)
    again.run('PRAGMA journal_mode = WAL')
    again.run('PRAGMA application_id = 77')
    again.run('DROP TABLE invoices')
    again.close()
    expect(refusal()).toContain('is a database of another program')
  })

  test('a store of a newer version is refused in words and left alone', async () => {
    await place.open().close()
    const other = place.other()
    other.run('PRAGMA user_version = 9')
    other.close()
    const message = refusal()
    expect(message).toContain('was written by a newer version (schema 9, this version knows 2)')
    expect(message).toContain('restore a backup')
  })

  test('a damaged file is refused in words and left alone', async () => {
    const store = place.open()
    for (let index = 0; index < 50; index++)
      await store.create('models', model(`m${index}`, { model_name: 'x'.repeat(500) }), actor)
    await store.close()
    const bytes = readFileSync(place.path)
    bytes.fill(0xa5, 8192, 24_576)
    writeFileSync(place.path, bytes)
    expect(refusal()).toContain('is damaged; restore a backup')
    writeFileSync(place.path, bytes.subarray(0, 6000))
    expect(refusal()).toContain('is damaged; restore a backup')
  })

  test('of a large file the resources are looked through, and not the audit log', async () => {
    const store = place.open()
    for (let index = 0; index < 50; index++) await store.create('models', model(`m${index}`), actor)
    await store.close()
    const db = place.other()
    const pageOf = (name: string) => Number(db.query('SELECT max(pageno) FROM dbstat WHERE name = ?').values(name).flat()[0])
    const pages = { audit: pageOf('audit'), resources: pageOf('resources') }
    db.close()
    const sound = readFileSync(place.path)
    const openWith = (page: number, wholeCheckBytesMax: number) => {
      const bytes = Buffer.from(sound)
      bytes.fill(0xff, (page - 1) * 4096, page * 4096)
      writeFileSync(place.path, bytes)
      return openStoreFile(place.path, { create: false, busyMs: 0, wholeCheckBytesMax })
    }
    expect(() => openWith(pages.audit, sound.length)).toThrow('is damaged')
    expect(() => openWith(pages.resources, 0)).toThrow('is damaged')
    const open = openWith(pages.audit, 0)
    expect(open.load().rows).toHaveLength(50)
    open.close()
  })

  test('a store without its table, or without a column of it, is refused rather than served empty', async () => {
    await place.open().close()
    const other = place.other()
    other.run('ALTER TABLE resources DROP COLUMN revision')
    expect(() => place.open()).toThrow('lacks revision')
    other.run('DROP TABLE resources')
    other.close()
    expect(refusal()).toContain('has no table "resources"')
  })

  test('a file that holds the table of the contract and nothing else is taken over with its rows', async () => {
    const db = new Database(place.path, { create: true })
    db.run(
      'CREATE TABLE resources (kind TEXT, id TEXT, document TEXT, revision INTEGER, created_at, updated_at, PRIMARY KEY (kind, id))',
    )
    putRow(db, 'models', 'm1', model('from-a-dump'), 6)
    db.close()
    const store = place.open()
    expect(store.get('models', 'm1')).toEqual({ id: 'm1', value: model('from-a-dump'), revision: 6 })
    expect((await store.replace('models', 'm1', now => now, actor))?.revision).toBe(7)
    await store.close()
    expect(place.open().get('models', 'm1')?.revision).toBe(7)
  })

  test('timestamps of other writers, as integers or as text, are no obstacle', async () => {
    await place.open().close()
    const other = place.other()
    putRow(other, 'models', 'm1', model('m'))
    other.run("UPDATE resources SET created_at = 1767225600, updated_at = X'00ff'")
    const store = place.open()
    expect(store.get('models', 'm1')).toBeDefined()
    expect((await store.replace('models', 'm1', now => now, actor))?.revision).toBe(2)
  })

  test('a file in a dead gateway, its log not yet emptied, is opened with everything that was acknowledged', async () => {
    const store = place.open()
    // A reader keeps the log from being emptied.
    const reader = place.other()
    reader.run('BEGIN')
    reader.query('SELECT count(*) FROM resources').all()
    const { id } = await store.create('models', model('in-the-log'), actor)
    expect(statSync(`${place.path}-wal`).size).toBeGreaterThan(0)
    // The copy is what a crash leaves: a file and its log.
    for (const suffix of ['', '-wal']) writeFileSync(`${place.path}.copy${suffix}`, readFileSync(place.path + suffix))
    expect(place.open({ path: `${place.path}.copy` }).get('models', id)?.value.display_name).toBe('in-the-log')
  })

  test('a symbolic link to nothing is told as such, and nothing is made where it leads', () => {
    const link = join(place.folder, 'link.db')
    symlinkSync('gone.db', link)
    expect(refusal(link)).toBe(
      `the store path ${link} is a symbolic link to nothing: there is no ${join(place.folder, 'gone.db')}; create that file, or remove the link`,
    )
  })

  test('a symbolic link is followed', async () => {
    const link = join(place.folder, 'link.db')
    symlinkSync(place.path, link)
    await place.open().close()
    const store = place.open({ path: link })
    await store.create('models', model('m'), actor)
    store.refresh()
    expect(store.status.connected).toBe(true)
  })

  test('a file that others may read gets a warning and keeps its mode', async () => {
    await place.open().close()
    chmodSync(place.path, 0o640)
    const lines: string[] = []
    const sink = {
      isTerminal: false,
      write(text: string, done: () => void) {
        lines.push(text)
        done()
      },
    }
    place.open({ log: createLog({ filter: 'warn', sink }) })
    expect(lines.join('')).toContain('mode="0640"')
    expect(statSync(place.path).mode & 0o777).toBe(0o640)
  })

  test('a second gateway on the same file starts while the first one holds the lock for a write', async () => {
    await place.open().close()
    const holder = place.other()
    holder.run('BEGIN IMMEDIATE')
    expect(place.open({ busyWaitMs: 20 }).status.connected).toBe(true)
    holder.run('ROLLBACK')
  })

  test('a start that must migrate while another process holds the lock fails in words', () => {
    const holder = new Database(place.path, { create: true })
    holder.run('PRAGMA journal_mode = WAL')
    holder.run('BEGIN IMMEDIATE')
    expect(() => place.open({ busyWaitMs: 20 })).toThrow('locked by another process')
    holder.close()
  })

  test('a folder where nothing can be created is named', () => {
    expect(() => openSqliteStore({ path: '/proc/aisix.db', clock: testClock(), log: createLog({ filter: 'off' }) })).toThrow(
      /the (store|folder) \/proc.* cannot be (created|written)/,
    )
  })

  // Root ignores modes as long as it has the capability to.
  const isRoot = process.getuid?.() === 0
  const canDropRights = !isRoot || Bun.which('setpriv') !== null
  const drop = isRoot ? ['setpriv', '--inh-caps=-dac_override', '--bounding-set=-dac_override'] : []

  test.skipIf(!canDropRights)('a file, or a folder, that may not be written is refused in words and left alone', async () => {
    await place.open().close()
    const start = async () => {
      const child = Bun.spawn([...drop, process.execPath, CHILD, place.path, 'm', '1'], { stdout: 'pipe', stderr: 'inherit' })
      const text = await new Response(child.stdout).text()
      await child.exited
      return text
    }
    const before = contents()
    chmodSync(place.path, 0o400)
    expect(await start()).toContain(`the store ${place.path} cannot be written; give the gateway's user write access`)
    chmodSync(place.path, 0o600)
    chmodSync(place.folder, 0o500)
    expect(await start()).toContain(`the folder ${place.folder} of the store cannot be written`)
    chmodSync(place.folder, 0o700)
    expect(contents()).toEqual(before)
    expect(await start()).toContain('"visible":"true"')
  })
})
