/**
 * What happens to a running gateway when its store is taken away, and how it comes back: the executable in a process of its own,
 * its files in the hands of another. In every drill callers go on being served, changes are refused in words, and nothing that was
 * acknowledged is lost but what the drill itself destroys.
 */
import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SpendFile } from '../src/budgets/spend-file.ts'
import { verifyAudit } from '../src/store/audit.ts'
import { ADMIN_KEY, EXECUTABLE, type Executable, type ExecutableOptions, startExecutable } from './executable.ts'
import { sha256, until } from './gateway.ts'
import { operatorOf } from './operator.ts'

const CALLER_KEY = 'sk-caller'
const callerKey = { key_hash: sha256(CALLER_KEY), allowed_models: ['*'], display_name: 'caller' }
const extra = (name: string) => ({ key_hash: sha256(name), allowed_models: [], display_name: name })
/** Whether a process may be given a disk of its own. */
const MAY_MOUNT =
  process.platform === 'linux' &&
  Bun.which('unshare') !== null &&
  Bun.spawnSync(['unshare', '-m', 'sh', '-c', 'mount -t tmpfs -o size=1m tmpfs /mnt'], { stderr: 'ignore' }).exitCode === 0
const PRLIMIT = Bun.which('prlimit')

let folder = ''
const gateways: Executable[] = []
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'aisix-recovery-'))
})
afterEach(async () => {
  for (const gateway of gateways.splice(0)) await gateway.dispose()
  rmSync(folder, { recursive: true, force: true })
})

async function start(options: ExecutableOptions = {}) {
  const gateway = await startExecutable({ folder, ...options })
  gateways.push(gateway)
  const { ask, write } = operatorOf(gateway)
  const health = async () => membersOf(await (await ask('GET', 'health')).json())
  const store = async () => (await health()).store
  const self = {
    ...gateway,
    ask,
    write,
    health,
    db: join(folder, 'aisix.db'),
    /** Names of the keys that it serves. */
    async names(): Promise<string[]> {
      const list: unknown = await (await ask('GET', 'apikeys')).json()
      return Array.isArray(list) ? list.map(({ value }) => value.display_name) : []
    },
    /** Status of a caller's request that needs the configuration. */
    async callers(): Promise<number> {
      return (await fetch(`${gateway.proxyUrl}/v1/models`, { headers: { authorization: `Bearer ${CALLER_KEY}` } })).status
    },
    /** A change that is refused: its status and message. */
    async refusal(name: string): Promise<[number, string]> {
      const answer = await ask('POST', 'apikeys', extra(name))
      return [answer.status, String(membersOf(await answer.json()).error_msg)]
    },
    async metric(name: string): Promise<string | undefined> {
      const page = await (await fetch(`${gateway.statusUrl}/metrics`)).text()
      return new RegExp(`^${name} (.*)$`, 'm').exec(page)?.[1]
    },
    async down(problem: RegExp): Promise<void> {
      await eventually(`a store that is down because of ${problem}`, async () => problem.test(JSON.stringify(await store())))
      expect(await health()).toMatchObject({ status: 'degraded', store: { writable: false } })
      expect(await self.metric('aisix_config_source_writable')).toBe('0')
      expect(await self.callers()).toBe(200)
    },
    async up(): Promise<void> {
      await eventually('a store that is up', async () => {
        const now = await store()
        return JSON.stringify(now) === '{"connected":true,"writable":true}'
      })
      expect(await health()).toMatchObject({ status: 'ok' })
      expect(await self.metric('aisix_config_source_connected')).toBe('1')
      expect(await self.metric('aisix_config_source_writable')).toBe('1')
      expect(await self.callers()).toBe(200)
    },
  }
  return self
}

/** Members of an answer, whatever they are. */
const membersOf = (answer: unknown): Record<string, unknown> => ({ ...Object(answer) })

async function eventually(what: string, isTrue: () => Promise<boolean>): Promise<void> {
  let held = false
  let asking: Promise<void> | undefined
  await until(what, () => {
    asking ??= isTrue().then(is => {
      held = is
      asking = undefined
    })
    return held
  })
  await asking
}

async function aisix(...args: string[]) {
  const child = Bun.spawn([EXECUTABLE, ...args], { cwd: folder, stdout: 'pipe', stderr: 'pipe', env: {} })
  const [stdout, stderr, exit] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  return { stdout, stderr, exit }
}

const chainOf = (path: string) => {
  const db = new Database(path, { readonly: true })
  try {
    return verifyAudit(db)
  } finally {
    db.close()
  }
}

describe('the store of a running gateway', () => {
  test('deleted: what was changed since the backup is lost with it, and restored is what the backup has', async () => {
    const gateway = await start()
    await gateway.write('apikeys', callerKey)
    expect(await aisix('backup', 'b.tar', '--db', gateway.db)).toMatchObject({ exit: 0, stderr: '' })
    await gateway.write('apikeys', extra('after the backup'))
    rmSync(gateway.db)
    await gateway.down(/there is no store file/)
    expect(await gateway.refusal('x')).toEqual([500, expect.stringContaining('restore a backup there')])
    expect(await gateway.names()).toEqual(['caller', 'after the backup'])
    expect(existsSync(gateway.db)).toBe(false)
    expect(await aisix('restore', 'b.tar', '--db', gateway.db)).toMatchObject({ exit: 0 })
    await gateway.up()
    expect(await gateway.names()).toEqual(['caller'])
    await gateway.write('apikeys', extra('new'))
    // The log of the backup goes on: what it says was there, the restore, the change, and the refusal while it was away.
    expect(chainOf(gateway.db)).toMatchObject({ ok: true, entries: 4 })
  })

  test('moved away and back: nothing is lost', async () => {
    const gateway = await start()
    await gateway.write('apikeys', callerKey)
    renameSync(gateway.db, join(folder, 'away.db'))
    await gateway.down(/there is no store file/)
    renameSync(join(folder, 'away.db'), gateway.db)
    await gateway.up()
    await gateway.write('apikeys', extra('new'))
    expect(await gateway.names()).toEqual(['caller', 'new'])
  })

  test('replaced by another file: that one is served, and every later change is in it', async () => {
    const gateway = await start()
    await gateway.write('apikeys', callerKey)
    // A copy by hand, put in place by rename as editors and installers do.
    expect(await aisix('backup', 'b.tar', '--db', gateway.db)).toMatchObject({ exit: 0 })
    await gateway.write('apikeys', extra('only in the old file'))
    expect(
      Bun.spawnSync(['tar', 'xf', 'b.tar', 'aisix.db', '-O'], { cwd: folder, stdout: Bun.file(join(folder, 'other.db')) })
        .exitCode,
    ).toBe(0)
    renameSync(join(folder, 'other.db'), gateway.db)
    await eventually('the other file being served', async () => (await gateway.names()).length === 1)
    await gateway.up()
    await gateway.write('apikeys', extra('new'))
    await gateway.kill()
    expect(await (await start()).names()).toEqual(['caller', 'new'])
  })

  for (const [how, cut] of [
    ['cut to nothing', () => 0],
    ['cut in half', (size: number) => Math.floor(size / 2)],
  ] as const) {
    test(`${how}: callers are served, no change is taken, and a restore puts the damaged file aside`, async () => {
      const gateway = await start()
      await gateway.write('apikeys', callerKey)
      for (let index = 0; index < 40; index++) await gateway.write('apikeys', extra(`key ${index}`))
      expect(await aisix('backup', 'b.tar', '--db', gateway.db)).toMatchObject({ exit: 0 })
      truncateSync(gateway.db, cut(statSync(gateway.db).size))
      await gateway.down(/written over|damaged|empty/)
      expect((await gateway.refusal('x'))[0]).toBe(500)
      expect((await gateway.names()).length).toBe(41)
      const restored = await aisix('restore', 'b.tar', '--db', gateway.db)
      expect(restored).toMatchObject({ exit: 0, stderr: expect.stringContaining('was damaged and was moved to') })
      await gateway.up()
      expect((await gateway.names()).length).toBe(41)
      await gateway.write('apikeys', extra('new'))
      expect(readdirSync(folder).filter(name => name.includes('.damaged-')).length).toBeGreaterThan(0)
      expect(chainOf(gateway.db)).toMatchObject({ ok: true })
    })
  }

  test('with a page overwritten by zeros: it is found, told, and restored', async () => {
    const gateway = await start()
    await gateway.write('apikeys', callerKey)
    for (let index = 0; index < 40; index++) await gateway.write('apikeys', extra(`key ${index}`))
    expect(await aisix('backup', 'b.tar', '--db', gateway.db)).toMatchObject({ exit: 0 })
    const file = openSync(gateway.db, 'r+')
    writeSync(file, Buffer.alloc(4096), 0, 4096, 2 * 4096)
    await gateway.down(/damaged|written over/)
    expect((await gateway.refusal('x'))[0]).toBe(500)
    expect(await aisix('backup', 'damaged.tar', '--db', gateway.db)).toMatchObject({
      exit: 1,
      stderr: expect.stringContaining('damaged'),
    })
    expect(existsSync(join(folder, 'damaged.tar'))).toBe(false)
    expect(await aisix('restore', 'b.tar', '--db', gateway.db)).toMatchObject({ exit: 0 })
    await gateway.up()
    expect((await gateway.names()).length).toBe(41)
  })

  test('locked by another process: reads go on, changes wait and are refused in words, and are taken when it lets go', async () => {
    const gateway = await start()
    await gateway.write('apikeys', callerKey)
    expect(await aisix('backup', 'b.tar', '--db', gateway.db)).toMatchObject({ exit: 0 })
    const other = new Database(gateway.db)
    other.run('BEGIN EXCLUSIVE')
    expect(await gateway.refusal('x')).toEqual([500, expect.stringContaining('locked by another process')])
    await gateway.down(/locked by another process/)
    const restored = await aisix('restore', 'b.tar', '--db', gateway.db)
    expect(restored).toMatchObject({ exit: 1, stdout: '', stderr: expect.stringContaining('locked by another process') })
    other.run('COMMIT')
    other.close()
    await gateway.up()
    await gateway.write('apikeys', extra('new'))
    expect(await gateway.names()).toEqual(['caller', 'new'])
  })

  test.skipIf(!PRLIMIT)(
    'on a disk that takes no more: reads go on, changes are refused, and are taken when there is room',
    async () => {
      const limit = (soft: string) => {
        const done = Bun.spawnSync(['prlimit', `--pid=${gateway.pid}`, `--fsize=${soft}:unlimited`])
        expect(done.exitCode).toBe(0)
      }
      // The signal of the limit is ignored, so that the write itself fails, as on a disk that is full.
      const gateway = await start({ through: ['sh', '-c', `trap '' XFSZ; exec "$0" "$@"`] })
      await gateway.write('apikeys', callerKey)
      limit('0')
      expect(await gateway.refusal('x')).toEqual([500, expect.stringMatching(/the disk of the store .* (is full|failed)/)])
      await gateway.down(/disk of the store/)
      expect(await gateway.names()).toEqual(['caller'])
      const answer = await gateway.ask('GET', 'backup')
      expect([answer.status, await answer.json()]).toEqual([503, { error_msg: expect.stringContaining('backup failed: ') }])
      expect(readdirSync(folder).filter(name => name.startsWith('.aisix-work'))).toEqual([])
      limit('unlimited')
      await eventually(
        'writes being taken',
        async () => JSON.stringify((await gateway.health()).store) === '{"connected":true,"writable":true}',
      )
      await gateway.write('apikeys', extra('new'))
      await gateway.kill()
      expect(await (await start()).names()).toEqual(['caller', 'new'])
      expect(chainOf(gateway.db)).toMatchObject({ ok: true })
    },
  )

  test.skipIf(!MAY_MOUNT)(
    'on a disk that is full: likewise, and what was refused meanwhile is in the audit log afterwards',
    async () => {
      // A small disk of its own, which nobody but the gateway sees and which ends with it.
      const mount = 'mkdir disk && mount -t tmpfs -o size=3m tmpfs disk && exec "$0" "$@"'
      const config = { store: { path: 'disk/aisix.db' }, usage: { enabled: false } }
      const gateway = await start({ config, through: ['unshare', '-m', 'sh', '-c', mount] })
      await gateway.write('apikeys', callerKey)
      const filler = `/proc/${gateway.pid}/root${folder}/disk/filler`
      const file = openSync(filler, 'w')
      expect(() => {
        for (;;) writeSync(file, Buffer.alloc(4096))
      }).toThrow('ENOSPC')
      expect(await gateway.refusal('x')).toEqual([500, expect.stringContaining('is full; free space')])
      await gateway.down(/is full/)
      const answer = await gateway.ask('GET', 'backup')
      expect([answer.status, await answer.json()]).toEqual([
        503,
        { error_msg: expect.stringContaining('has no room for the backup') },
      ])
      closeSync(file)
      rmSync(filler)
      await gateway.up()
      await gateway.write('apikeys', extra('new'))
      expect(await gateway.names()).toEqual(['caller', 'new'])
      const audit = membersOf(await (await gateway.ask('GET', 'audit')).json())
      expect(audit.entries).toMatchObject([{ outcome: 'applied' }, { outcome: 'refused', status: 500 }, { outcome: 'applied' }])
    },
  )

  const mayDrop = process.getuid?.() !== 0 || Bun.which('setpriv') !== null
  test.skipIf(!mayDrop)('with its rights taken: an open store goes on, and the next start says what it needs', async () => {
    const isRoot = process.getuid?.() === 0
    if (isRoot) chownSync(folder, 65_534, 65_534)
    const through = isRoot ? ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'] : []
    const gateway = await start({ through })
    await gateway.write('apikeys', callerKey)
    chmodSync(gateway.db, 0o400)
    await gateway.write('apikeys', extra('new'))
    expect(await gateway.names()).toEqual(['caller', 'new'])
    await gateway.stop()
    await expect(start({ through })).rejects.toThrow('cannot be written; give the gateway')
    chmodSync(gateway.db, 0o600)
    expect(await (await start({ through })).names()).toEqual(['caller', 'new'])
  })
})

describe('killed', () => {
  /** Many resources, so that there is time to be killed in. */
  const KEYS = 30_000
  function fill(path: string, prefix: string): void {
    const db = new Database(path)
    const insert = db.query('INSERT INTO resources (kind, id, document, revision) VALUES (?, ?, ?, 1)')
    db.transaction(() => {
      db.run('DELETE FROM resources')
      for (let index = 0; index < KEYS; index++) {
        const document = { key_hash: sha256(`${prefix}${index}`), allowed_models: [], display_name: `${prefix}${index}` }
        insert.run('api_keys', `id-${index}`, JSON.stringify(document))
      }
    })()
    db.close()
  }
  const contents = (path: string) => {
    const db = new Database(path, { readonly: true })
    try {
      const check = db.query<{ integrity_check: string }, []>('PRAGMA integrity_check').get()?.integrity_check
      const names =
        "SELECT count(*) AS rows, min(substr(document ->> 'display_name', 1, 1)) AS first, max(substr(document ->> 'display_name', 1, 1)) AS last FROM resources"
      return { check, ...db.query<{ rows: number; first: string; last: string }, []>(names).get() }
    } finally {
      db.close()
    }
  }

  test('in the middle of a restore, at any moment: the store is as it was, or as the backup has it', async () => {
    const gateway = await start()
    await gateway.stop()
    fill(gateway.db, 'a')
    expect(await aisix('backup', 'a.tar', '--db', gateway.db)).toMatchObject({ exit: 0 })
    fill(gateway.db, 'b')
    const seen = new Set<string>()
    for (let afterMs = 20; seen.size < 2 && afterMs < 20_000; afterMs = Math.ceil(afterMs * 1.5)) {
      const child = Bun.spawn([EXECUTABLE, 'restore', 'a.tar', '--db', gateway.db], {
        cwd: folder,
        stdout: 'ignore',
        stderr: 'ignore',
      })
      const timer = setTimeout(() => child.kill('SIGKILL'), afterMs)
      await child.exited
      clearTimeout(timer)
      const { check, rows, first, last } = contents(gateway.db)
      expect([check, rows, first]).toEqual(['ok', KEYS, last ?? 'none'])
      seen.add(first ?? '')
    }
    // It was killed before, and it came through.
    expect([...seen]).toEqual(['b', 'a'])
    expect(chainOf(gateway.db)).toMatchObject({ ok: true })
    expect((await (await start()).names()).length).toBe(KEYS)
  }, 60_000)

  test('in the middle of a backup: there is no file of that name, and the next one is whole', async () => {
    const gateway = await start()
    await gateway.stop()
    fill(gateway.db, 'a')
    const child = Bun.spawn([EXECUTABLE, 'backup', 'a.tar', '--db', gateway.db], {
      cwd: folder,
      stdout: 'ignore',
      stderr: 'ignore',
    })
    await until('the backup being under way', () => readdirSync(folder).some(name => name.startsWith('.aisix-work-')))
    child.kill('SIGKILL')
    await child.exited
    expect(existsSync(join(folder, 'a.tar'))).toBe(false)
    expect(contents(gateway.db)).toMatchObject({ check: 'ok', rows: KEYS })
    expect(await aisix('backup', 'a.tar', '--db', gateway.db)).toMatchObject({ exit: 0 })
    fill(gateway.db, 'b')
    expect(await aisix('restore', 'a.tar', '--db', gateway.db)).toMatchObject({ exit: 0 })
    expect(contents(gateway.db)).toMatchObject({ rows: KEYS, first: 'a', last: 'a' })
  }, 60_000)

  test('in the middle of a migration, at any moment: it is made in the end, nothing is lost, and the copy is of the old version', async () => {
    const gateway = await start()
    await gateway.stop()
    fill(gateway.db, 'a')
    const old = new Database(gateway.db)
    old.run('DROP TABLE audit')
    old.run(`CREATE TABLE changes (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, action TEXT NOT NULL, kind TEXT NOT NULL,
               id TEXT NOT NULL, actor TEXT NOT NULL, address TEXT NOT NULL)`)
    const change = old.query(`INSERT INTO changes (at, action, kind, id, actor, address)
                                VALUES ('2025-01-01T00:00:00.000Z', 'create', 'api_keys', ?, 'admin_keys[0]', '')`)
    old.transaction(() => {
      for (let index = 0; index < KEYS; index++) change.run(`id-${index}`)
    })()
    old.run('PRAGMA user_version = 1')
    old.close()
    const copy = `${gateway.db}.before-v2`
    for (const sign of [`${copy}.new`, copy]) {
      const child = Bun.spawn([EXECUTABLE, '--config', 'config.yaml'], { cwd: folder, stdout: 'ignore', stderr: 'ignore' })
      await until(`${sign} being there`, () => existsSync(sign))
      child.kill('SIGKILL')
      await child.exited
      expect(contents(gateway.db)).toMatchObject({ check: 'ok', rows: KEYS })
    }
    const migrated = await start()
    expect((await migrated.names()).length).toBe(KEYS)
    expect(chainOf(gateway.db)).toMatchObject({ ok: true, entries: KEYS })
    expect(contents(copy)).toMatchObject({ check: 'ok', rows: KEYS })
    const before = new Database(copy, { readonly: true })
    expect(before.query('PRAGMA user_version').values()).toEqual([[1]])
    before.close()
    expect(statSync(copy).mode & 0o777).toBe(0o600)
    expect(existsSync(`${copy}.new`)).toBe(false)
  }, 60_000)
})

/** What a gateway has charged to a budget. */
const place = { budgetId: 'b', measure: 'total' }
function spend(tokens: number): void {
  const file = new SpendFile(join(folder, 'budgets.db'))
  const charge = { ...place, usd: 0, pico: 0, tokens, startMs: Number.NEGATIVE_INFINITY, endMs: Number.POSITIVE_INFINITY }
  const none = { warnings: [], fileId: undefined, since: 0, wanted: [], remembered: undefined, nowMs: Date.now() }
  expect(file.exchange({ ...none, writer: crypto.randomUUID(), batch: 1, charges: [charge] }).kind).toBe('done')
  file.close()
}
function spent(): number | undefined {
  const file = new SpendFile(join(folder, 'budgets.db'))
  const [first] = file.everything().spends
  file.close()
  return first?.tokens
}

test('a migration whose copy finds no room does not begin: the start is refused in words, and the store is as it was', async () => {
  const gateway = await start()
  await gateway.write('apikeys', callerKey)
  await gateway.stop()
  const old = new Database(gateway.db)
  old.run(`INSERT INTO resources (kind, id, document) VALUES ('models', 'm', '{"padding":"${'x'.repeat(300_000)}"}')`)
  old.run('PRAGMA user_version = 1')
  old.close()
  const before = Bun.hash(readFileSync(gateway.db))
  // In blocks of 512 bytes: less than the store takes.
  const through = ['sh', '-c', `trap '' XFSZ; ulimit -f 100; exec "$0" "$@"`]
  await expect(start({ through })).rejects.toThrow('cannot be made: the disk has no room for it')
  expect(Bun.hash(readFileSync(gateway.db))).toBe(before)
  expect(readdirSync(folder).filter(name => name.includes('before'))).toEqual([])
})

describe('a backup over the admin API', () => {
  test('is whole, carries its checksum and name, and serves a new machine with resources, audit log and budgets', async () => {
    const gateway = await start()
    await gateway.write('apikeys', callerKey)
    const budget = { name: 'all', scope: 'all', limit_usd: 5, period: 'total' }
    await gateway.write('budgets', budget)
    spend(100)
    const answer = await gateway.ask('GET', 'backup?include=usage')
    const bytes = new Uint8Array(await answer.arrayBuffer())
    expect(answer.status).toBe(200)
    expect(answer.headers.get('x-aisix-sha256')).toBe(new Bun.CryptoHasher('sha256').update(bytes).digest('hex'))
    expect(answer.headers.get('content-disposition')).toMatch(/^attachment; filename="aisix-backup-\d{8}T\d{6}Z\.tar"$/)
    expect(readdirSync(folder).filter(name => name.startsWith('.aisix'))).toEqual([])
    await Bun.write(join(folder, 'b.tar'), bytes)
    await gateway.stop()

    const before = folder
    folder = join(before, 'new-machine')
    mkdirSync(folder)
    const restored = await aisix('restore', '../b.tar', '--db', join(folder, 'aisix.db'))
    expect(restored).toMatchObject({ exit: 0, stderr: '' })
    expect(readdirSync(folder).sort()).toEqual(['aisix.db', 'budgets.db', 'usage.db'])
    expect(spent()).toBe(100)
    expect(statSync(join(folder, 'aisix.db')).mode & 0o777).toBe(0o600)
    const machine = await start()
    expect(await machine.callers()).toBe(200)
    const entries = await (await machine.ask('GET', 'audit')).json()
    expect(entries).toMatchObject({ entries: [{ action: 'restore', name: 'b.tar' }, { action: 'create' }, { action: 'create' }] })
    expect(chainOf(machine.db)).toMatchObject({ ok: true, entries: 3 })
    folder = before
  })

  test('is for admins alone, and knows no other parameters', async () => {
    const key_hash = sha256('viewer')
    const gateway = await start({ config: { admin: { keys: [{ name: 'v', key_hash, role: 'viewer' }] } } })
    const as = (key: string, query = '') =>
      fetch(`${gateway.adminUrl}/admin/v1/backup${query}`, { headers: { 'x-api-key': key } })
    expect((await as('viewer')).status).toBe(403)
    expect((await as('nobody')).status).toBe(401)
    expect((await as(ADMIN_KEY, '?include=all')).status).toBe(400)
    expect(await (await as(ADMIN_KEY, '?includes=usage')).text()).toContain('did you mean include?')
  })
})

describe('a restore over a running gateway', () => {
  test('is served within moments, with revisions that grow, and can be undone', async () => {
    const gateway = await start()
    const id = await gateway.write('apikeys', callerKey)
    expect(await aisix('backup', 'b.tar', '--db', gateway.db)).toMatchObject({ exit: 0 })
    await gateway.write('apikeys', extra('second'))
    await gateway.ask('PUT', `apikeys/${id}`, { ...callerKey, disabled: true })
    const revision = async () => Number(await gateway.metric('aisix_config_applied_revision'))
    const before = await revision()
    const restored = await aisix('restore', 'b.tar', '--db', gateway.db)
    expect(restored).toMatchObject({ exit: 0, stderr: '', stdout: expect.stringContaining('0 came, 1 changed, 1 went') })
    await eventually('the backup being served', async () => (await gateway.names()).join() === 'caller')
    expect(await gateway.callers()).toBe(200)
    expect(await revision()).toBeGreaterThan(before)
    await gateway.write('apikeys', extra('third'))
    expect(await aisix('restore', 'aisix.db.before-restore', '--db', gateway.db)).toMatchObject({ exit: 0 })
    await eventually('what was there before being served', async () => (await gateway.names()).join() === 'caller,second')
    expect(await gateway.callers()).toBe(401)
    expect(chainOf(gateway.db)).toMatchObject({ ok: true, entries: 6 })
  })

  test('goes through in the middle of changes, and each change is in what is stored, or in what was kept', async () => {
    const gateway = await start()
    await gateway.write('apikeys', callerKey)
    expect(await aisix('backup', 'b.tar', '--db', gateway.db)).toMatchObject({ exit: 0 })
    let isOver = false
    const written: string[] = []
    const writing = (async () => {
      for (let index = 0; !isOver; index++) {
        await gateway.write('apikeys', extra(`key ${index}`))
        written.push(`key ${index}`)
      }
    })()
    await until('changes being made', () => written.length > 5)
    const restored = await aisix('restore', 'b.tar', '--db', gateway.db)
    isOver = true
    await writing
    expect(restored).toMatchObject({ exit: 0 })
    const kept = new Database(`${gateway.db}.before-restore`, { readonly: true })
    const keptNames = kept.query("SELECT document ->> 'display_name' FROM resources").values().flat()
    kept.close()
    const now = await gateway.names()
    expect(written.filter(name => !keptNames.includes(name) && !now.includes(name))).toEqual([])
    expect(now.length).toBeLessThan(written.length + 1)
    expect(chainOf(gateway.db)).toMatchObject({ ok: true, entries: written.length + 2 })
  })

  test('refuses what is no whole backup of this version in words, and changes nothing', async () => {
    const gateway = await start()
    await gateway.write('apikeys', callerKey)
    expect(await aisix('backup', 'b.tar', '--db', gateway.db)).toMatchObject({ exit: 0 })
    const whole = readFileSync(join(folder, 'b.tar'))
    const newer = new Database(join(folder, 'newer.db'), { create: true })
    newer.run(`PRAGMA application_id = ${0x41495358}`)
    newer.run('PRAGMA user_version = 99')
    newer.close()
    const flipped = Buffer.from(whole)
    flipped[5_000] = (flipped[5_000] ?? 0) ^ 1
    const files: [string, Uint8Array | undefined, string][] = [
      ['none.tar', undefined, 'cannot be read: ENOENT'],
      ['empty.tar', new Uint8Array(), 'it is cut short'],
      ['text.tar', Buffer.from('hello '.repeat(200)), 'it is no backup of a gateway'],
      ['flipped.tar', flipped, 'its aisix.db is not what was written: its checksum differs'],
      [
        'newer.tar',
        Buffer.from(whole.toString('latin1').replace('"version": 1', '"version": 2'), 'latin1'),
        'was made by a newer version',
      ],
      ['half.db', undefined, 'damaged'],
    ]
    copyFileSync(gateway.db, join(folder, 'half.db'))
    truncateSync(join(folder, 'half.db'), 12_288)
    for (const cut of [600, 5_000, whole.length - 1_500, whole.length - 1_024 - 512]) {
      files.push([`cut-${cut}.tar`, whole.subarray(0, cut), 'it is cut short'])
    }
    for (const [name, bytes, words] of files) {
      if (bytes) await Bun.write(join(folder, name), bytes)
      const refused = await aisix('restore', name, '--db', gateway.db)
      expect([name, refused.exit, refused.stdout]).toEqual([name, 1, ''])
      expect(refused.stderr).toContain(words)
    }
    expect(await aisix('restore', 'newer.db', '--db', gateway.db)).toMatchObject({
      exit: 1,
      stderr: expect.stringContaining('newer version'),
    })
    expect(await gateway.names()).toEqual(['caller'])
    expect(chainOf(gateway.db)).toMatchObject({ ok: true, entries: 1 })
    expect(existsSync(`${gateway.db}.before-restore`)).toBe(false)
    expect(readdirSync(folder).filter(name => name.startsWith('.aisix'))).toEqual([])
  })

  test('a backup never takes the place of a file', async () => {
    const gateway = await start()
    expect(await aisix('backup', gateway.db, '--db', gateway.db)).toMatchObject({
      exit: 1,
      stderr: expect.stringContaining('exists already'),
    })
    expect(await aisix('backup', '/no/such/folder/b.tar', '--db', gateway.db)).toMatchObject({
      exit: 1,
      stderr: expect.stringContaining('does not exist'),
    })
    expect(await aisix('backup', 'b.tar', '--db', join(folder, 'none.db'))).toMatchObject({
      exit: 1,
      stderr: expect.stringContaining('there is no store file'),
    })
    expect((await gateway.health()).store).toEqual({ connected: true, writable: true })
  })

  test('spending on budgets is never lowered, and records of usage are never overwritten', async () => {
    const gateway = await start()
    await gateway.stop()
    spend(100)
    expect(await aisix('backup', 'b.tar', '--db', gateway.db, '--include', 'usage')).toMatchObject({ exit: 0 })
    spend(50)
    const usage = readFileSync(join(folder, 'usage.db'))
    const restored = await aisix('restore', 'b.tar', '--db', gateway.db)
    expect(restored).toMatchObject({ exit: 0, stderr: expect.stringContaining('usage.db is there and was left as it is') })
    expect(spent()).toBe(150)
    expect(readFileSync(join(folder, 'usage.db')).equals(usage)).toBe(true)
    rmSync(join(folder, 'budgets.db'))
    rmSync(join(folder, 'usage.db'))
    expect(await aisix('restore', 'b.tar', '--db', gateway.db)).toMatchObject({ exit: 0, stderr: '' })
    expect(spent()).toBe(100)
    expect(existsSync(join(folder, 'usage.db'))).toBe(true)
  })
})
