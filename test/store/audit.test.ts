import type { Database } from 'bun:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { runAuditVerify } from '../../src/cli/audit-verify-run.ts'
import { type AuditDraft, type AuditEntry, hashOf, openAuditTable, verifyAudit } from '../../src/store/audit.ts'
import { RefusalQueue } from '../../src/store/refusal-queue.ts'
import { actor, apiKey, model, providerKey, SECRET, testClock } from './documents.ts'
import { putRow, type Scratch, scratch } from './scratch.ts'

const refusal = (id = 'some-id') => ({
  actor: 'alice',
  address: '10.0.0.9',
  request_id: 'r-1',
  action: 'delete' as const,
  kind: 'models',
  id,
  status: 403,
  reason: 'viewers may not',
})

describe('the audit log', () => {
  let place: Scratch
  beforeEach(() => {
    place = scratch()
  })
  afterEach(() => place.clean())

  const all = (db: Database) => db.query<AuditEntry, []>('SELECT * FROM audit ORDER BY seq').all()
  const parsed = (text: string | null): unknown => (text === null ? null : JSON.parse(text))

  test('tells of each change who, from where, when and what: whole documents where there is one, else what differs', async () => {
    const store = place.open()
    const { id } = await store.create('provider_keys', providerKey('gpu-a'), { ...actor, requestId: 'req-1' })
    const change = (now: ReturnType<typeof providerKey>) => ({ ...now, secret: 'another-secret', api_base: 'http://gpu-a/v1' })
    await store.replace('provider_keys', id, change, { adminKey: 'alice', address: '10.0.0.9' })
    const key = await store.create('api_keys', apiKey('sk-1', { display_name: 'search' }), actor)
    await store.replace('api_keys', key.id, now => ({ ...now, key_hash: 'b'.repeat(64) }), actor, undefined, 'rotate')
    await store.remove('provider_keys', id, actor)
    const { entries, next } = await store.audit.read({ limit: 10 })
    expect(next).toBeUndefined()
    const [created, replaced, , rotated, removed] = entries.toReversed()
    expect(created).toMatchObject({ seq: 1, at: '2026-03-01T12:00:00.750Z', actor: 'admin_keys[0]', address: '127.0.0.1' })
    expect(created).toMatchObject({ request_id: 'req-1', action: 'create', kind: 'provider_keys', id, name: 'gpu-a' })
    expect(created).toMatchObject({ outcome: 'applied', status: null, reason: null, before: null, omitted: 0 })
    expect(parsed(created?.after ?? null)).toMatchObject({ display_name: 'gpu-a', provider: 'vllm', secret: '***' })
    expect(replaced).toMatchObject({ actor: 'alice', address: '10.0.0.9', request_id: '', action: 'replace' })
    expect(parsed(replaced?.before ?? null)).toEqual({ secret: '***' })
    expect(parsed(replaced?.after ?? null)).toEqual({ secret: '***', api_base: 'http://gpu-a/v1' })
    expect(rotated).toMatchObject({
      action: 'rotate',
      kind: 'api_keys',
      name: 'search',
      after: `{"key_hash":"${'b'.repeat(64)}"}`,
    })
    expect(removed).toMatchObject({ action: 'delete', name: 'gpu-a', after: null })
    expect(parsed(removed?.before ?? null)).toMatchObject({ api_base: 'http://gpu-a/v1', secret: '***' })
  })

  test('holds no credential, in no form', async () => {
    const store = place.open()
    const { id } = await store.create(
      'provider_keys',
      providerKey('one', { request: { default_headers: { 'x-key': SECRET } } }),
      actor,
    )
    await store.replace('provider_keys', id, now => ({ ...now, secret: `${SECRET}-2` }), actor)
    await store.remove('provider_keys', id, actor)
    expect(JSON.stringify(all(place.other()))).not.toContain(SECRET)
  })

  test('says nothing of a write that was not made', async () => {
    const store = place.open()
    await store.create('models', model('m'), actor)
    await store.create('models', model('m'), actor).catch(() => undefined)
    await store.replace('models', 'none', now => now, actor)
    await store.remove('models', 'none', actor)
    const other = place.other()
    other.run("CREATE TRIGGER no BEFORE INSERT ON resources BEGIN SELECT RAISE(ABORT, 'no'); END")
    await store.create('models', model('n'), actor).catch(() => undefined)
    expect(all(other).map(({ name }) => name)).toEqual(['m'])
  })

  test('a row that could not be read has no document before it', async () => {
    const store = place.open()
    putRow(place.other(), 'models', 'broken', '{"display_name":')
    store.refresh()
    await store.replace(
      'models',
      'broken',
      now => now,
      actor,
      () => model('m'),
    )
    expect(all(place.other())).toMatchObject([{ action: 'replace', before: null, after: expect.stringContaining('"m"') }])
  })

  test('goes on where it was after a restart, and texts of any kind read back as they were hashed', async () => {
    const odd = 'a\u0000b \ud800 \u{1f600} "\\'
    const first = place.open()
    await first.create('models', model(odd), actor)
    first.audit.refused({ ...refusal(odd), reason: odd })
    await first.close()
    const second = place.open()
    await second.create('models', model('n'), actor)
    expect(verifyAudit(place.other())).toMatchObject({ ok: true, entries: 3, first: 1, last: 3 })
  })

  test('the hash is one that anybody can compute from the row', async () => {
    const store = place.open()
    await store.create('models', model('m'), actor)
    await store.create('models', model('n'), actor)
    const columns = 'seq, at, actor, address, request_id, action, kind, id, name, outcome, status, reason, before, after, omitted'
    let previous = '0'.repeat(64)
    for (const row of place.other().query<(string | number | null)[], []>(`SELECT ${columns} FROM audit ORDER BY seq`).values()) {
      previous = new Bun.CryptoHasher('sha256').update(JSON.stringify([previous, ...row])).digest('hex')
    }
    expect(all(place.other()).at(-1)?.hash).toBe(previous)
  })

  test('what the first version of the schema remembered is taken over', async () => {
    await place.open().close()
    const old = place.other()
    old.run('DROP TABLE audit')
    old.run(`CREATE TABLE changes (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, action TEXT NOT NULL, kind TEXT NOT NULL,
               id TEXT NOT NULL, actor TEXT NOT NULL, address TEXT NOT NULL)`)
    const insert = old.query('INSERT INTO changes (at, action, kind, id, actor, address) VALUES (?, ?, ?, ?, ?, ?)')
    insert.run('2025-01-01T00:00:00.000Z', 'create', 'models', 'a', 'admin_keys[0]', '10.0.0.1')
    insert.run('2025-01-02T00:00:00.000Z', 'remove', 'models', 'a', 'admin_keys[1]', '10.0.0.2')
    old.run('PRAGMA user_version = 1')
    const store = place.open()
    expect((await store.audit.read({ limit: 10 })).entries).toMatchObject([
      { seq: 2, at: '2025-01-02T00:00:00.000Z', action: 'delete', actor: 'admin_keys[1]', before: null },
      { seq: 1, at: '2025-01-01T00:00:00.000Z', action: 'create', actor: 'admin_keys[0]', address: '10.0.0.1', after: null },
    ])
    expect(verifyAudit(old)).toMatchObject({ ok: true, entries: 2 })
    expect(old.query("SELECT name FROM sqlite_schema WHERE name = 'changes'").all()).toEqual([])
  })

  describe('asked for entries', () => {
    /** Entries without a store's writing them: many, quickly. */
    const fill = (drafts: Partial<AuditDraft>[]) => {
      const db = place.other()
      const table = openAuditTable(db)
      db.transaction(() => {
        table.append(drafts.map(draft => ({ ...DRAFT, ...draft })))
      })()
      table.close()
    }
    const DRAFT: AuditDraft = {
      at: '2026-01-01T00:00:00.000Z',
      actor: 'alice',
      address: '',
      request_id: '',
      action: 'create',
      kind: 'models',
      id: 'x',
      name: null,
      outcome: 'applied',
      status: null,
      reason: null,
      before: null,
      after: null,
      omitted: 0,
    }

    test('gives pages without a gap or a repetition, over any number of slices', async () => {
      const store = place.open()
      fill(Array.from({ length: 5_000 }, (_, i) => ({ id: String(i + 1), actor: i % 1_000 === 0 ? 'bob' : 'alice' })))
      const seen: number[] = []
      let before: number | undefined
      do {
        const page = await store.audit.read({ limit: 999, ...(before !== undefined && { before }) })
        seen.push(...page.entries.map(({ seq }) => seq))
        before = page.next
      } while (before !== undefined)
      expect(seen).toEqual(Array.from({ length: 5_000 }, (_, i) => 5_000 - i))
      const rare = await store.audit.read({ limit: 3, actors: ['bob'] })
      expect(rare.entries.map(({ seq }) => seq)).toEqual([4_001, 3_001, 2_001])
      const rest = await store.audit.read({ limit: 3, actors: ['bob'], before: rare.next ?? 0 })
      expect(rest).toMatchObject({ entries: [{ seq: 1_001 }, { seq: 1 }], next: undefined })
    })

    test('gives those that all filters mean', async () => {
      const store = place.open()
      fill([
        { at: '2026-01-01T00:00:00.000Z', kind: 'models', id: 'a' },
        { at: '2026-01-02T00:00:00.000Z', kind: 'api_keys', id: 'b', action: 'rotate' },
        { at: '2026-01-03T00:00:00.000Z', kind: 'api_keys', id: 'b', action: 'delete', outcome: 'refused', actor: 'bob' },
      ])
      const seqs = async (question: Parameters<typeof store.audit.read>[0]) =>
        (await store.audit.read(question)).entries.map(({ seq }) => seq)
      expect(await seqs({ limit: 9, kinds: ['api_keys'] })).toEqual([3, 2])
      expect(await seqs({ limit: 9, kinds: ['api_keys', 'models'], actions: ['create', 'rotate'] })).toEqual([2, 1])
      expect(await seqs({ limit: 9, ids: ['a'] })).toEqual([1])
      expect(await seqs({ limit: 9, actors: ['bob'], outcome: 'refused' })).toEqual([3])
      expect(await seqs({ limit: 9, outcome: 'applied', ids: ['b'] })).toEqual([2])
      expect(await seqs({ limit: 9, from: '2026-01-02T00:00:00.000Z', to: '2026-01-03T00:00:00.000Z' })).toEqual([2])
      expect(await seqs({ limit: 9, actors: [] })).toEqual([])
    })
  })

  describe('refused changes', () => {
    test('are taken down with status and reason, before the change that comes after them', async () => {
      const store = place.open()
      store.audit.refused(refusal())
      await store.create('models', model('m'), actor)
      expect(await store.audit.read({ limit: 9 })).toMatchObject({
        entries: [
          { seq: 2, outcome: 'applied' },
          { seq: 1, outcome: 'refused', status: 403, reason: 'viewers may not', actor: 'alice', id: 'some-id', before: null },
        ],
      })
      expect(store.audit.status).toEqual({ written: { applied: 1, refused: 1 }, omitted: 0 })
    })

    test('beyond 100 at once and 10 a minute of one key are counted, and its next entry says how many', () => {
      let nowMs = 0
      const queue = new RefusalQueue({ now: () => 0, monotonic: () => nowMs })
      for (let index = 0; index < 130; index++) queue.offer(refusal(String(index)))
      queue.offer({ ...refusal('other'), actor: 'bob' })
      expect(queue.size).toBe(101)
      expect(queue.omitted).toBe(30)
      nowMs = 5_999
      queue.offer(refusal('early'))
      expect(queue.size).toBe(101)
      nowMs = 6_000
      queue.offer(refusal('late'))
      expect(queue.pending.at(-1)).toMatchObject({ id: 'late', omitted: 31 })
      expect(queue.omittedBy('alice')).toBe(0)
      nowMs = 60_000
      for (let index = 0; index < 20; index++) queue.offer(refusal())
      expect(queue.size).toBe(102 + 9)
      expect(queue.omitted).toBe(31 + 11)
    })

    test('that were too many are told by the next change of the key, whatever it is', async () => {
      const store = place.open()
      for (let index = 0; index < 103; index++) store.audit.refused({ ...refusal(), actor: actor.adminKey })
      await store.create('models', model('m'), { ...actor, adminKey: 'bob' })
      await store.create('models', model('m'), actor).catch(() => undefined)
      await store.create('models', model('n'), actor)
      await store.create('models', model('o'), actor)
      const { entries } = await store.audit.read({ limit: 3 })
      expect(entries.map(({ name, omitted }) => [name, omitted])).toEqual([
        ['o', 0],
        ['n', 3],
        ['m', 0],
      ])
    })

    test('wait for a store that takes no writes, up to a bound, and are there when it does again', async () => {
      const clock = { ...testClock(), ms: 0, monotonic: () => clock.ms }
      const store = place.open({ clock, busyWaitMs: 0 })
      const other = place.other()
      other.run('BEGIN IMMEDIATE')
      store.audit.refused(refusal('waits'))
      expect((await store.audit.read({ limit: 9 })).entries).toEqual([])
      other.run('COMMIT')
      clock.ms = 1_000
      store.refresh()
      expect((await store.audit.read({ limit: 9 })).entries).toMatchObject([{ id: 'waits' }])
    })

    test('carry no more than a bounded part of what a caller sent', async () => {
      const store = place.open()
      store.audit.refused({ ...refusal('x'.repeat(5_000)), reason: 'y'.repeat(5_000) })
      const [entry] = (await store.audit.read({ limit: 1 })).entries
      expect([entry?.id.length, entry?.reason?.length]).toEqual([256, 512])
    })
  })

  describe('pruned by age', () => {
    const DAY_MS = 86_400_000

    test('keeps what is young enough, and a chain that can be followed from there', async () => {
      const clock = testClock()
      const first = place.open({ clock })
      for (const name of ['a', 'b', 'c']) await first.create('models', model(name), actor)
      clock.ms += 10 * DAY_MS
      await first.create('models', model('d'), actor)
      await first.close()
      const second = place.open({ clock, auditRetentionDays: 5 })
      const { entries } = await second.audit.read({ limit: 9 })
      expect(entries.map(({ seq, action, name }) => [seq, action, name])).toEqual([
        [5, 'prune', null],
        [4, 'create', 'd'],
      ])
      expect(entries[0]).toMatchObject({ actor: 'gateway', kind: 'audit' })
      expect(parsed(entries[0]?.after ?? null)).toMatchObject({ first_seq: 1, last_seq: 3 })
      expect(verifyAudit(place.other())).toMatchObject({ ok: true, entries: 2, first: 4, last: 5 })
      await second.close()

      clock.ms += 10 * DAY_MS
      const third = place.open({ clock, auditRetentionDays: 5 })
      expect((await third.audit.read({ limit: 9 })).entries).toMatchObject([{ seq: 6, action: 'prune' }])
      expect(verifyAudit(place.other())).toMatchObject({ ok: true, entries: 1, first: 6 })
    })

    test('an entry that goes beyond what a checkpoint covers is missed', async () => {
      const clock = testClock()
      const store = place.open({ clock })
      await store.create('models', model('a'), actor)
      clock.ms += 10 * DAY_MS
      for (const name of ['b', 'c']) await store.create('models', model(name), actor)
      await store.close()
      await place.open({ clock, auditRetentionDays: 5 }).audit.read({ limit: 1 })
      const other = place.other()
      expect(verifyAudit(other)).toMatchObject({ ok: true, first: 2 })
      other.run('DELETE FROM audit WHERE seq = 2')
      expect(verifyAudit(other)).toEqual({ ok: false, seq: 2, problem: 'entry 2 is missing' })
    })

    test('nothing goes while everything is young', async () => {
      const store = place.open({ auditRetentionDays: 1 })
      await store.create('models', model('a'), actor)
      expect((await store.audit.read({ limit: 9 })).entries).toMatchObject([{ seq: 1, action: 'create' }])
    })
  })

  describe('after somebody tampered with it', () => {
    const tampered = async (how: (db: Database) => void) => {
      const store = place.open()
      for (const name of ['a', 'b', 'c', 'd', 'e']) await store.create('models', model(name), actor)
      const db = place.other()
      expect(verifyAudit(db)).toMatchObject({ ok: true, entries: 5 })
      how(db)
      return verifyAudit(db)
    }
    const columns = ['at', 'actor', 'address', 'request_id', 'action', 'kind', 'id', 'name', 'outcome', 'before', 'after', 'hash']

    test.each(columns)('a changed %s is named', async column => {
      const verdict = await tampered(db => db.run(`UPDATE audit SET ${column} = 'x' WHERE seq = 3`))
      expect(verdict).toMatchObject({ ok: false, seq: 3, problem: expect.stringContaining('entry 3 is not what was written') })
    })
    test.each(['status', 'omitted'])('a changed %s is named', async column => {
      expect(await tampered(db => db.run(`UPDATE audit SET ${column} = 7 WHERE seq = 5`))).toMatchObject({ ok: false, seq: 5 })
    })
    test('a removed entry is named, at the beginning, in the middle and at the end', async () => {
      expect(await tampered(db => db.run('DELETE FROM audit WHERE seq = 1'))).toMatchObject({
        seq: 1,
        problem: 'entry 1 is missing',
      })
      await place.clean()
      place = scratch()
      expect(await tampered(db => db.run('DELETE FROM audit WHERE seq IN (3, 4)'))).toMatchObject({
        seq: 3,
        problem: 'entries 3 to 4 are missing',
      })
      await place.clean()
      place = scratch()
      expect(await tampered(db => db.run('DELETE FROM audit WHERE seq = 5'))).toMatchObject({
        seq: 5,
        problem: 'entry 5 is missing',
      })
    })
    test('an end that was cut off goes on showing when the log goes on', async () => {
      const store = place.open()
      for (const name of ['a', 'b', 'c']) await store.create('models', model(name), actor)
      const db = place.other()
      db.run('DELETE FROM audit WHERE seq = 3')
      await store.create('models', model('d'), actor)
      expect(all(db).map(({ seq }) => seq)).toEqual([1, 2, 4])
      expect(verifyAudit(db)).toMatchObject({ ok: false, seq: 3 })
    })
    test('an entry that was put in is named', async () => {
      const verdict = await tampered(db =>
        db.run(`INSERT INTO audit SELECT 6, at, actor, address, request_id, action, kind, id, name, outcome, status, reason,
                  before, after, omitted, hash FROM audit WHERE seq = 2`),
      )
      expect(verdict).toMatchObject({ ok: false, seq: 6 })
    })
    test('entries that changed places are named', async () => {
      const verdict = await tampered(db => {
        db.run('UPDATE audit SET seq = 99 WHERE seq = 2')
        db.run('UPDATE audit SET seq = 2 WHERE seq = 3')
        db.run('UPDATE audit SET seq = 3 WHERE seq = 99')
      })
      expect(verdict).toMatchObject({ ok: false, seq: 2 })
    })
    test('a checkpoint that somebody made up covers nothing', async () => {
      const verdict = await tampered(db => {
        const last = all(db)[1]
        const after = JSON.stringify({ first_seq: 1, last_seq: 2, last_hash: last?.hash })
        db.run('DELETE FROM audit WHERE seq <= 2')
        db.query("UPDATE audit SET action = 'prune', kind = 'audit', after = ? WHERE seq = 4").run(after)
      })
      expect(verdict).toMatchObject({ ok: false, seq: 4 })
    })
    test('a log that was written anew as a whole is told by an entry that was kept elsewhere', async () => {
      const store = place.open()
      for (const name of ['a', 'b']) await store.create('models', model(name), actor)
      const db = place.other()
      const kept = all(db)[1] ?? { seq: 0, hash: '' }
      expect(verifyAudit(db, kept)).toMatchObject({ ok: true })
      let previous = '0'.repeat(64)
      for (const entry of all(db)) {
        const forged = { ...entry, actor: 'mallory' }
        previous = hashOf(previous, entry.seq, forged)
        db.query('UPDATE audit SET actor = ?, hash = ? WHERE seq = ?').run(forged.actor, previous, entry.seq)
      }
      expect(verifyAudit(db)).toMatchObject({ ok: true })
      expect(verifyAudit(db, kept)).toMatchObject({ ok: false, seq: 2, problem: expect.stringContaining('not the one') })
      expect(verifyAudit(db, { seq: 9, hash: kept.hash })).toMatchObject({ ok: false, problem: 'entries 3 to 9 are missing' })
    })
  })

  describe('`aisix audit verify`', () => {
    const verify = (dbPath: string) => runAuditVerify({ dbPath }, undefined, {})

    test('prints the last entry and ends with 0, beside an open store and without one, and leaves nothing behind', async () => {
      const store = place.open()
      await store.create('models', model('m'), actor)
      const [entry] = all(place.other())
      const open = verify(place.path)
      expect(open).toMatchObject({ exit: 0, stderr: '' })
      expect(open.stdout).toContain(`1 entries, 1 to 1`)
      expect(open.stdout).toContain(`last entry 1:${entry?.hash}`)
      await place.clean()
      place = scratch()
      await place.open().close()
      const before = readdirSync(place.folder).map(name => [name, Bun.hash(readFileSync(join(place.folder, name)))])
      expect(verify(place.path)).toMatchObject({ exit: 0, stdout: `OK: ${place.path}: no entries\n` })
      expect(readdirSync(place.folder).map(name => [name, Bun.hash(readFileSync(join(place.folder, name)))])).toEqual(before)
    })
    test('ends with 1 and names the entry that is broken', async () => {
      const store = place.open()
      await store.create('models', model('m'), actor)
      place.other().run("UPDATE audit SET actor = 'mallory'")
      expect(verify(place.path)).toEqual({
        stdout: '',
        stderr: `BROKEN: ${place.path}: entry 1 is not what was written, or does not follow the entry before it\n`,
        exit: 1,
      })
    })
    test('says what it cannot look at', async () => {
      expect(verify('/no/such.db')).toMatchObject({ exit: 1, stderr: expect.stringContaining('there is no store file') })
      await Bun.write(place.path, 'not a database at all'.repeat(1_000))
      expect(verify(place.path)).toMatchObject({ exit: 1, stderr: expect.stringContaining('is not an SQLite database') })
      await Bun.write(join(place.folder, 'other.db'), '')
      place.other(join(place.folder, 'other.db')).run('CREATE TABLE t (x)')
      expect(verify(join(place.folder, 'other.db')).stderr).toContain('has no audit log')
    })
  })
})
