import { constants, Database, SQLiteError } from 'bun:sqlite'
import {
  accessSync,
  closeSync,
  fstatSync,
  fsyncSync,
  constants as modes,
  openSync,
  readlinkSync,
  readSync,
  realpathSync,
  statSync,
  unlinkSync,
} from 'node:fs'
import { basename, dirname, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { AUDIT_TABLE, type AuditDraft, type AuditEntry, type AuditQuestion, openAuditTable } from './audit.ts'
import { copyDatabase } from './copy.ts'
import { readOnly } from './read-only.ts'
import type { Row } from './rows.ts'

/** The store cannot be opened. The message says what is wrong, where, and what to do; nothing was changed on the disk. */
export class StoreOpenError extends Error {}

/** There is a file, and no store can be read out of it: a restored backup may take its place. */
export class StoreDamaged extends StoreOpenError {}

/**
 * Why an open file is no longer the store. `moved`: another file is at the path, or none. `log`: the file is there, its
 * write-ahead log or the index of that is another one or none. `overwritten`: the file is there and was written to by
 * something that is not SQLite, as `cp` and `truncate` do. `schema`: another program gave it another schema.
 */
export type Displacement = 'moved' | 'log' | 'overwritten' | 'schema'

/** What is open is no longer the store. The message says what happened and what to do. */
export class Displaced extends Error {
  constructor(
    message: string,
    readonly how: Displacement,
    options?: ErrorOptions,
  ) {
    super(message, options)
  }
}

/** What a write does to a row. `row` is what is stored, none for a removal. */
export type Change = {
  isNew: boolean
  kind: string
  id: string
  at: string
  row: { document: string; revision: number } | undefined
}

/** `AISX` in the header of the file: tells our databases from those of others. */
export const APPLICATION_ID = 0x41495358
/** Up to this size a start looks through the whole file, about half a second; of a larger one through the resources alone. */
const WHOLE_CHECK_BYTES_MAX = 256 * 1024 * 1024
const SQLITE_MAGIC = 'SQLite format 3\0'

/**
 * The schema, one list of steps a version; `user_version` says how many have been run. Each can be run again, so that a file
 * restored from a text dump, which knows no version, is taken over as it is, and what someone has dropped is put back.
 *
 * `resources` is the contract with other programs (spec, point 7), ordered by rowid. The triggers count every change to
 * it in `meta`, whoever makes it. They update and never insert, because a conflict clause of the statement that fires a
 * trigger would override the trigger's own.
 */
const MIGRATIONS: readonly (readonly (string | ((db: Database) => void))[])[] = [
  [
    `CREATE TABLE IF NOT EXISTS resources (
       kind TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL, revision INTEGER NOT NULL DEFAULT 1,
       created_at, updated_at, PRIMARY KEY (kind, id))`,
    'CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL)',
    "INSERT INTO meta (key, value) SELECT 'revision', count(*) FROM resources WHERE true ON CONFLICT (key) DO NOTHING",
    `CREATE TABLE IF NOT EXISTS changes (
       seq INTEGER PRIMARY KEY, at TEXT NOT NULL, action TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL,
       actor TEXT NOT NULL, address TEXT NOT NULL)`,
    ...['INSERT', 'UPDATE', 'DELETE'].map(
      event => `CREATE TRIGGER IF NOT EXISTS resources_${event.toLowerCase()} AFTER ${event} ON resources
                BEGIN UPDATE meta SET value = value + 1 WHERE key = 'revision'; END`,
    ),
  ],
  [AUDIT_TABLE, takeOverChanges, 'DROP TABLE IF EXISTS changes'],
]
export const SCHEMA_VERSION = MIGRATIONS.length
const TABLES = ['resources', 'meta', 'changes', 'audit']
const COLUMNS = ['kind', 'id', 'document', 'revision', 'created_at', 'updated_at']

/** A row of the table `resources` as others may have written it, so far as it can be written anew. */
export type StoredRow = {
  kind: string
  id: string
  document: string | Uint8Array
  revision: number
  created_at: string | number | null
  updated_at: string | number | null
}

/** One open connection to the database at a path, and the identity of the file it was opened on. */
export type StoreFile = ReturnType<typeof openStoreFile>

export type OpenOptions = { create: boolean; busyMs: number; wholeCheckBytesMax?: number }

/**
 * Opens the database at `path`.
 * in: `create` lets a missing or empty file become a new store, which only a start may do: at run time it would take the
 * place of a store that someone removed; `wholeCheckBytesMax` is the size from which the resources alone are looked through, and
 * not the audit log; `busyMs` is how long SQLite may block the thread while another process migrates
 * throws: StoreOpenError
 */
export function openStoreFile(path: string, { create, busyMs, wholeCheckBytesMax = WHOLE_CHECK_BYTES_MAX }: OpenOptions) {
  const isNew = prepareFile(path, create)
  let db: Database | undefined
  try {
    if (!isNew) inspect(path, create, busyMs, wholeCheckBytesMax)
    // Taken before opening: a file that is swapped in between is noticed at the first look.
    const identity = identify(path)
    db = new Database(path, { readwrite: true, create: false, strict: true })
    db.run(`PRAGMA busy_timeout = ${Math.trunc(busyMs)}`)
    const { journal_mode } = one<{ journal_mode: string }>(db, 'PRAGMA journal_mode = WAL')
    if (journal_mode !== 'wal') {
      throw new StoreOpenError(
        `the file system of the store ${path} cannot keep a write-ahead log; put the store on a local disk`,
      )
    }
    db.run('PRAGMA synchronous = FULL')
    migrate(db, path)
    proveWritable(db)
    // From here on a locked store is waited for on a timer, never inside SQLite, which would stop the event loop.
    db.run('PRAGMA busy_timeout = 0')
    return connect(db, path, identity)
  } catch (error) {
    db?.close()
    if (isNew) removeNew(path)
    if (error instanceof StoreOpenError) throw error
    const isDamage = /^SQLITE_(CORRUPT|NOTADB)/.test(codeOf(error) ?? '')
    throw new (isDamage ? StoreDamaged : StoreOpenError)(explain(error, path), { cause: error })
  }
}

function connect(db: Database, path: string, identity: string | undefined) {
  const selectRows = db.prepare<Row, []>('SELECT kind, id, document, revision FROM resources ORDER BY rowid')
  const selectRevision = db.prepare<{ value: unknown }, []>("SELECT value FROM meta WHERE key = 'revision'")
  const selectDataVersion = db.prepare<{ data_version: number }, []>('PRAGMA data_version')
  const raiseRevision = db.prepare<null, [number]>(
    "INSERT INTO meta (key, value) VALUES ('revision', ?) ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)",
  )
  const insert = db.prepare<null, [string, string, string | Uint8Array, number, string | number | null, string | number | null]>(
    'INSERT INTO resources (kind, id, document, revision, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)',
  )
  const update = db.prepare<null, [string, number, string, string, string]>(
    'UPDATE resources SET document = ?, revision = ?, updated_at = ? WHERE kind = ? AND id = ?',
  )
  const remove = db.prepare<null, [string, string]>('DELETE FROM resources WHERE kind = ? AND id = ?')
  const audit = openAuditTable(db)
  const statements = [selectRows, selectRevision, selectDataVersion, raiseRevision, insert, update, remove]
  let dataVersion: number | undefined
  const { ownLog, ownIndex } = openLog(realpathSync(path))
  // Of the file as `openStoreFile` left it: from here on every change that SQLite makes is visible in the index.
  let written = writtenState(path, ownIndex.file)

  const revision = () => {
    const value = selectRevision.get()?.value
    return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : 0
  }

  const close = () => {
    for (const statement of statements) statement.finalize()
    audit.close()
    db.close()
    // Not before: closing a file takes away every lock that this process has on it, SQLite's too.
    ownLog.close()
    ownIndex.close()
  }
  const hasLog = () => fstatSync(ownLog.file).size > 0
  const emptyLog = () => {
    if (!hasLog()) return
    try {
      db.run('PRAGMA wal_checkpoint(TRUNCATE)')
    } catch (error) {
      // What stays in the log is as durable as the file itself: whoever opens the file next reads it.
      if (!(error instanceof SQLiteError)) throw error
    }
    // Our own checkpoint must not hide what others do to the file before the next look.
    written = writtenState(path, ownIndex.file)
  }

  return {
    assertInPlace,

    /**
     * Moves what the write-ahead log holds into the file, unless another process is in the way. Done soon after each
     * commit, so that a log which is deleted, or a backup which is copied over the file alone, finds nothing in the log
     * that could be lost or mixed with the backup.
     */
    emptyLog,

    /** Whether another connection has committed since `load`. */
    hasChanged: () => selectDataVersion.get()?.data_version !== dataVersion,
    /** After a write of uncertain outcome: our own commits do not count as changes, so the next look must read anew. */
    distrust: () => {
      dataVersion = undefined
    },

    /** Everything that is stored, of one moment; inside a write, what the write sees. */
    load(): { revision: number; rows: Row[] } {
      const isOwn = !db.inTransaction
      if (isOwn) db.run('BEGIN')
      try {
        // A restore brings the version of the file it came from.
        const { user_version } = one<{ user_version: number }>(db, 'PRAGMA user_version')
        if (user_version !== SCHEMA_VERSION)
          throw new Displaced(`the store ${path} was given another schema by another program`, 'schema')
        const loaded = { revision: revision(), rows: selectRows.all() }
        dataVersion = selectDataVersion.get()?.data_version
        return loaded
      } finally {
        if (isOwn && db.inTransaction) db.run('COMMIT')
      }
    },

    begin: () => void db.run('BEGIN IMMEDIATE'),
    commit: () => void db.run('COMMIT'),
    /** SQLite has already rolled back after some errors, a full disk among them. */
    rollback: () => {
      try {
        if (db.inTransaction) db.run('ROLLBACK')
      } catch (error) {
        // The error that led here is the one to tell; `isSound` says that the connection is of no more use.
        if (!(error instanceof SQLiteError)) throw error
      }
    },
    /** False when a transaction could not be ended. */
    isSound: () => !db.inTransaction,

    /**
     * Writes inside the transaction that is open.
     * in: `shown` is the change counter that readers have seen
     * out: the store's change counter after it
     * throws: SQLiteError
     */
    write({ isNew, kind, id, at, row }: Change, shown: number): number {
      if (revision() < shown) raiseRevision.run(shown)
      if (!row) remove.run(kind, id)
      else if (isNew) insert.run(kind, id, row.document, row.revision, at, at)
      else update.run(row.document, row.revision, at, kind, id)
      return revision()
    },

    /** Takes down changes inside the transaction that is open. throws: SQLiteError */
    record: (drafts: readonly AuditDraft[]) => audit.append(drafts),

    /** Puts rows in the place of all there are, in the order that they come in, inside the transaction that is open. */
    replaceAll(rows: readonly StoredRow[], shown: number): void {
      if (revision() < shown) raiseRevision.run(shown)
      db.run('DELETE FROM resources')
      for (const { kind, id, document, revision: counter, created_at, updated_at } of rows) {
        insert.run(kind, id, document, counter, created_at, updated_at)
      }
    },

    /** Takes over an audit log as it is, where there is none yet, inside the transaction that is open. */
    adoptAudit: (entries: Iterable<AuditEntry>, last: number) => audit.adopt(entries, last),

    /** Changes nothing inside the transaction that is open, by way of the disk: it fails where a write would. */
    touch: () => void raiseRevision.run(0),

    /** Removes old entries of the audit log inside the transaction that is open. out: whether there may be more */
    prune: (olderThan: string, rows: number, now: string) => audit.prune(olderThan, rows, now),

    /** Entries of the audit log out of one slice of it. in: `before`, where the slice ends; undefined for the newest */
    slice: (question: AuditQuestion, before: number | undefined, limit: number) =>
      audit.slice(question, before ?? audit.end(), limit),

    abandon,

    close,

    /** Empties the write-ahead log into the file, as far as other processes let it, and closes. */
    finish(): void {
      try {
        assertInPlace()
        emptyLog()
        close()
      } catch (error) {
        if (!(error instanceof Displaced)) throw error
        // What cannot be let go of safely ends with the process, which writes nothing.
        abandon(error.how)
      }
    },
  }

  /** throws: Displaced when the path leads elsewhere, or when others than SQLite have touched what is there */
  function assertInPlace(): void {
    try {
      const now = identify(path)
      if (now !== identity) {
        const what =
          now === undefined ? `there is no ${path}; put it back, or restore a backup there` : `${path} is another file now`
        throw new Displaced(`the store file was replaced or removed: ${what}`, 'moved')
      }
      const state = writtenState(path, ownIndex.file)
      if (state?.isEmpty || (written && state && state.file !== written.file && state.checkpoint === written.checkpoint)) {
        throw new Displaced(
          `the store file ${path} was written over by another program; restore with the gateway stopped`,
          'overwritten',
        )
      }
      written = state
      for (const { place, id } of [ownLog, ownIndex]) {
        const beside = identify(place)
        if (beside === id) continue
        const what = beside === undefined ? 'removed' : 'replaced'
        throw new Displaced(`the file ${place} of the open store was ${what}; leave it alone while the gateway runs`, 'log')
      }
    } catch (error) {
      if (error instanceof Displaced) throw error
      throw new Displaced(`the store file ${path} cannot be looked at: ${reasonOf(error)}`, 'moved', { cause: error })
    }
  }

  /**
   * Lets go of a displaced file, so that what is at the path now can be opened. What the log holds is moved into the file
   * first where that is the file it belongs to: nothing that was acknowledged is lost, and a log that stays behind would
   * be replayed over whatever is put at the path.
   * out: undefined when it was closed; else why it could not be, and nothing was closed then
   */
  function abandon(how: Displacement): string | undefined {
    const logNow = statSync(ownLog.place, { bigint: true, throwIfNoEntry: false })
    const isOurs = logNow !== undefined && `${logNow.dev}:${logNow.ino}` === ownLog.id
    if (how === 'overwritten' || (how === 'log' && !isOurs && (logNow?.size ?? 0n) > 0n)) {
      // Closing would write our log into what is someone else's content by now.
      if (hasLog()) {
        return `and another process kept its log from being emptied; stop the gateway and that process, remove ${ownLog.place} and ${ownIndex.place}, and restore a backup`
      }
    } else if (how !== 'schema') {
      emptyLog()
      if (hasLog() && (isOurs || how === 'log')) {
        return 'and another process still reads the log of the old one, which lies beside it; stop that process first'
      }
    }
    // SQLite removes the log by its name when it closes: a log that was put there since is not its own.
    if (logNow !== undefined && !isOurs) db.fileControl(constants.SQLITE_FCNTL_PERSIST_WAL, 1)
    close()
    return undefined
  }
}

/** The log of an open database and its index. Both exist by now, and are held to be looked at when their names are gone. */
function openLog(realPath: string) {
  const ownLog = openBeside(`${realPath}-wal`)
  try {
    return { ownLog, ownIndex: openBeside(`${realPath}-shm`) }
  } catch (error) {
    ownLog.close()
    throw error
  }
}

/** A file beside the database, held open for reading. */
function openBeside(place: string) {
  const file = openSync(place, 'r')
  const { dev, ino } = fstatSync(file, { bigint: true })
  return { place, file, id: `${dev}:${ino}`, close: () => closeSync(file) }
}

type WrittenState = { file: string; checkpoint: string; isEmpty: boolean }

/**
 * When and how long the file was last written, and how far SQLite's checkpoints, which alone write to it, have come. A
 * file that changed while its checkpoint did not was written by something else.
 * out: undefined while a checkpoint is under way, when nothing can be told
 * source: sqlite.org/walformat.html, "WAL-Index Header": salts at 32, nBackfill at 96, nBackfillAttempted at 128, which
 * is raised before the file is written
 */
function writtenState(path: string, index: number): WrittenState | undefined {
  const checkpoint = () => {
    const head = Buffer.alloc(132)
    readSync(index, head, 0, head.length, 0)
    const done = head.readUInt32LE(96)
    return done === head.readUInt32LE(128) ? `${head.toString('hex', 32, 40)}:${done}` : undefined
  }
  const before = checkpoint()
  const { size, mtimeNs } = statSync(path, { bigint: true })
  return before !== undefined && before === checkpoint()
    ? { file: `${size}:${mtimeNs}`, checkpoint: before, isEmpty: size === 0n }
    : undefined
}

/** True when the file was created here. The parent directory must exist; the mode does not depend on the umask. */
function prepareFile(path: string, create: boolean): boolean {
  const folder = dirname(resolve(path))
  const place = lookAt(folder)
  if (!place) throw new StoreOpenError(`the folder ${folder} of the store does not exist; create it, or change store.path`)
  if (!place.isDirectory()) throw new StoreOpenError(`${folder}, which should hold the store, is not a folder; change store.path`)
  const file = lookAt(path)
  if (file?.isDirectory()) throw new StoreOpenError(`the store path ${path} is a folder; name a file in store.path`)
  if (file && !file.isFile()) throw new StoreOpenError(`the store path ${path} is not a regular file; name a file in store.path`)
  // SQLite keeps its log and index beside the file.
  if (!mayWrite(folder)) {
    throw new StoreOpenError(`the folder ${folder} of the store cannot be written; give the gateway's user write access to it`)
  }
  if (file) {
    if (mayWrite(path)) return false
    throw new StoreOpenError(`the store ${path} cannot be written; give the gateway's user write access to it`)
  }
  if (!create) throw new StoreOpenError(`there is no store file ${path}; put it back, or restore a backup there`)
  try {
    closeSync(openSync(path, 'wx', 0o600))
    const parent = openSync(folder, 'r')
    try {
      // Without this the name of the new file may be lost with the power, however well its content is kept.
      fsyncSync(parent)
    } finally {
      closeSync(parent)
    }
    return true
  } catch (error) {
    const target = codeOf(error) === 'EEXIST' ? linkTarget(path) : undefined
    if (target !== undefined) {
      throw new StoreOpenError(
        `the store path ${path} is a symbolic link to nothing: there is no ${target}; create that file, or remove the link`,
        { cause: error },
      )
    }
    throw new StoreOpenError(`the store ${path} cannot be created: ${reasonOf(error)}`, { cause: error })
  }
}

/** Where a symbolic link leads; undefined when there is no link at the path. */
function linkTarget(path: string): string | undefined {
  try {
    return resolve(dirname(path), readlinkSync(path))
  } catch {
    return undefined
  }
}

/** Removes what a failed start has created, so that it leaves nothing behind. */
function removeNew(path: string): void {
  for (const suffix of ['', '-wal', '-shm']) {
    try {
      unlinkSync(path + suffix)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') return
    }
  }
}

/**
 * Looks at an existing file without changing it, or leaving anything beside it.
 * throws: StoreOpenError when it is not a sound database of ours, or one of a newer version
 */
function inspect(path: string, mayBeEmpty: boolean, busyMs: number, wholeCheckBytesMax: number): void {
  const head = readHead(path)
  if (head === '') {
    if (mayBeEmpty) return
    throw new StoreDamaged(`the store file ${path} is empty; put the store back, or restore a backup there`)
  }
  if (head !== SQLITE_MAGIC) {
    throw new StoreDamaged(`${path} is not an SQLite database; name another file in store.path, or move this one away`)
  }
  // A plain read-only connection would leave a log and an index behind; where there is a log, it must be read though.
  const hasLog = (lookAt(`${path}-wal`)?.size ?? 0) > 0
  const db = hasLog ? new Database(path, { readonly: true, strict: true }) : openImmutable(path)
  try {
    db.run(`PRAGMA busy_timeout = ${Math.trunc(busyMs)}`)
    const { application_id } = one<{ application_id: number }>(db, 'PRAGMA application_id')
    const { user_version } = one<{ user_version: number }>(db, 'PRAGMA user_version')
    const tables = db
      .query<{ name: string }, []>(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
      )
      .all()
      .map(({ name }) => name)
    const isOurs = application_id === APPLICATION_ID
    // A text dump restored into a new file carries neither id nor version: there the tables must speak for it.
    if (!isOurs && (application_id !== 0 || user_version !== 0 || tables.some(name => !TABLES.includes(name)))) {
      throw new StoreOpenError(`${path} is a database of another program; name another file in store.path`)
    }
    if (user_version > SCHEMA_VERSION) {
      throw new StoreOpenError(
        `the store ${path} was written by a newer version (schema ${user_version}, this version knows ${SCHEMA_VERSION}); start that version, or restore a backup`,
      )
    }
    const isLarge = (lookAt(path)?.size ?? 0) > wholeCheckBytesMax && tables.includes('resources')
    const check = isLarge ? "PRAGMA quick_check('resources')" : 'PRAGMA quick_check(1)'
    const sound = db.query<{ quick_check: string }, []>(check).get()
    if (sound?.quick_check !== 'ok') throw new StoreDamaged(damaged(path))
    if (!tables.includes('resources')) {
      if (tables.length === 0 && mayBeEmpty && user_version === 0) return
      throw new StoreDamaged(`the store ${path} has no table "resources"; restore a backup, or move the file away to start anew`)
    }
    const columns = db.query<{ name: string }, []>("SELECT name FROM pragma_table_info('resources')").all()
    const missing = COLUMNS.filter(column => !columns.some(({ name }) => name === column))
    if (missing.length > 0) {
      throw new StoreDamaged(`the table "resources" of the store ${path} lacks ${missing.join(', ')}; restore a backup`)
    }
  } finally {
    db.close()
  }
}

function openImmutable(path: string): Database {
  return new Database(`${pathToFileURL(path).href}?immutable=1`, constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI)
}

/**
 * The rows of a store, of one moment, for a process that is not its gateway: nothing is written, and nothing left beside it.
 * throws: StoreOpenError
 */
export function readStoreFile(path: string, { busyMs }: { busyMs: number }): Row[] {
  if (!lookAt(path)) throw new StoreOpenError(`there is no store file ${path}; start the gateway once, or name another file`)
  try {
    inspect(path, false, busyMs, WHOLE_CHECK_BYTES_MAX)
    return readOnly(path, db => db.query<Row, []>('SELECT kind, id, document, revision FROM resources ORDER BY rowid').all())
  } catch (error) {
    throw error instanceof StoreOpenError ? error : new StoreOpenError(explain(error, path), { cause: error })
  }
}

/** Brings the schema up to this version, in one transaction that also keeps a second gateway from doing the same. */
function migrate(db: Database, path: string): void {
  const isCurrent = () =>
    one<{ user_version: number }>(db, 'PRAGMA user_version').user_version === SCHEMA_VERSION &&
    one<{ application_id: number }>(db, 'PRAGMA application_id').application_id === APPLICATION_ID &&
    one<{ count: number }>(
      db,
      `SELECT count(*) AS count FROM sqlite_schema WHERE name IN ('meta', 'audit', 'resources_insert', 'resources_update', 'resources_delete')`,
    ).count === 5
  if (isCurrent()) return
  db.run('BEGIN IMMEDIATE')
  try {
    const { user_version } = one<{ user_version: number }>(db, 'PRAGMA user_version')
    if (user_version > SCHEMA_VERSION) {
      throw new StoreOpenError(`the store ${path} has just been taken over by a newer version; start that version`)
    }
    if (user_version > 0 && user_version < SCHEMA_VERSION) copyBefore(path)
    for (const step of MIGRATIONS.flat()) {
      if (typeof step === 'string') db.run(step)
      else step(db)
    }
    db.run(`PRAGMA application_id = ${APPLICATION_ID}`)
    db.run(`PRAGMA user_version = ${SCHEMA_VERSION}`)
    db.run('COMMIT')
  } finally {
    if (db.inTransaction) db.run('ROLLBACK')
  }
}

/** The store as it is before a migration, whose lock is held: nothing can come in between. throws: StoreOpenError */
function copyBefore(path: string): void {
  const copy = `${path}.before-v${SCHEMA_VERSION}`
  try {
    copyDatabase(path, copy)
  } catch (error) {
    const why = /^(SQLITE_FULL|SQLITE_IOERR|ENOSPC)/.test(codeOf(error) ?? '') ? 'the disk has no room for it' : reasonOf(error)
    throw new StoreOpenError(
      `the store ${path} is of an older version, and the copy ${copy}, without which it is not changed, cannot be made: ${why}`,
      { cause: error },
    )
  }
}

/** What the first version of the schema remembered of writes: who, from where and what, without the documents. */
function takeOverChanges(db: Database): void {
  const changes = db
    .query<Pick<AuditDraft, 'at' | 'actor' | 'address' | 'kind' | 'id'> & { action: string }, []>(
      'SELECT at, action, kind, id, actor, address FROM changes ORDER BY seq',
    )
    .all()
  const audit = openAuditTable(db)
  try {
    audit.append(
      changes.map(({ action, ...change }) => ({
        ...change,
        request_id: '',
        action: action === 'create' || action === 'replace' ? action : 'delete',
        name: null,
        outcome: 'applied',
        status: null,
        reason: null,
        before: null,
        after: null,
        omitted: 0,
      })),
    )
  } finally {
    audit.close()
  }
}

/** SQLite opens what it cannot write read-only, in silence: a write that is rolled back tells. */
function proveWritable(db: Database): void {
  try {
    db.run('BEGIN IMMEDIATE')
  } catch (error) {
    // Whoever holds the lock is writing to it.
    if (isBusy(error)) return
    throw error
  }
  try {
    db.run(`PRAGMA user_version = ${SCHEMA_VERSION}`)
  } finally {
    if (db.inTransaction) db.run('ROLLBACK')
  }
}

function one<T>(db: Database, sql: string): T {
  const row = db.query<T, []>(sql).get()
  if (row === null) throw new Error(`no answer to ${sql}`)
  return row
}

/** Device and inode of the file at a path; undefined when there is none. */
function identify(path: string): string | undefined {
  const file = statSync(path, { bigint: true, throwIfNoEntry: false })
  return file && `${file.dev}:${file.ino}`
}

function lookAt(path: string) {
  try {
    return statSync(path, { throwIfNoEntry: false })
  } catch (error) {
    if (codeOf(error) === 'ENOTDIR') return undefined
    throw new StoreOpenError(`${path} cannot be looked at: ${reasonOf(error)}`, { cause: error })
  }
}

/** The mode of the file when others than its owner may read or write it: it holds credentials. */
export function openToOthers(path: string): string | undefined {
  const mode = (lookAt(path)?.mode ?? 0) & 0o777
  return (mode & 0o077) === 0 ? undefined : `0${mode.toString(8)}`
}

function mayWrite(path: string): boolean {
  try {
    accessSync(path, modes.W_OK)
    return true
  } catch {
    return false
  }
}

function readHead(path: string): string {
  const file = openSync(path, 'r')
  try {
    const head = Buffer.alloc(SQLITE_MAGIC.length)
    return head.toString('latin1', 0, readSync(file, head, 0, head.length, 0))
  } finally {
    closeSync(file)
  }
}

function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

function reasonOf(error: unknown): string {
  const code = codeOf(error)
  if (code === 'EACCES' || code === 'EPERM') return "permission denied; give the gateway's user access to it"
  if (code === 'EROFS') return 'the file system is read-only'
  if (code === 'ENOSPC') return 'the disk is full'
  return code ?? 'unknown reason'
}

/** Another connection holds the lock; it will let go. */
export function isBusy(error: unknown): boolean {
  const code = error instanceof SQLiteError ? (error.code ?? '') : ''
  return code.startsWith('SQLITE_BUSY') || code.startsWith('SQLITE_LOCKED')
}

/** After these the connection is as good as before: the file refused, or someone was in the way. */
export function keepsConnection(error: unknown): boolean {
  const code = error instanceof SQLiteError ? (error.code ?? '') : ''
  return isBusy(error) || /^SQLITE_(FULL|READONLY|CONSTRAINT|NOMEM|INTERRUPT|TOOBIG)/.test(code)
}

const damaged = (path: string) => `the store ${path} is damaged; restore a backup, or move the file away to start anew`

/** Why SQLite or the file system refused, in words for an operator, by SQLite's result codes (sqlite.org/rescode.html). */
export function explain(error: unknown, path: string): string {
  if (error instanceof StoreOpenError || error instanceof Displaced) return error.message
  const code = codeOf(error) ?? ''
  if (isBusy(error)) return `the store is locked by another process; find who holds ${path} and try again`
  for (const [prefix, words] of REASONS) if (code.startsWith(prefix)) return words(path)
  if (error instanceof SQLiteError)
    return `the store ${basename(path)} failed with ${code || 'an unknown error'}; see the gateway's log`
  return `the store ${path} cannot be reached: ${reasonOf(error)}`
}

const REASONS: readonly (readonly [string, (path: string) => string])[] = [
  ['SQLITE_FULL', path => `the disk of the store ${path} is full; free space and try again`],
  ['SQLITE_READONLY', path => `the store ${path} is read-only; make the file and its folder writable and try again`],
  ['SQLITE_IOERR', path => `the disk of the store ${path} failed; check the disk, its space and its quota, and try again`],
  ['SQLITE_CORRUPT', damaged],
  ['SQLITE_NOTADB', path => `${path} is not an SQLite database; restore a backup, or name another file in store.path`],
  ['SQLITE_CANTOPEN', path => `the store ${path} cannot be opened; check that it exists and may be read and written`],
  ['SQLITE_PERM', path => `the store ${path} may not be accessed; check the rights of the gateway's user`],
  ['SQLITE_PROTOCOL', path => `the lock of the store ${path} cannot be had; put the store on a local disk`],
  ['SQLITE_CONSTRAINT', path => `a rule inside the store ${path} that is not the gateway's refused the write; remove it`],
  ['SQLITE_ERROR', path => `the tables of the store ${path} were changed by another program; restore a backup`],
]
