import { constants, Database, SQLiteError, type SQLQueryBindings, type Statement } from 'bun:sqlite'
import { closeSync, existsSync, constants as modes, openSync, readSync, renameSync, rmSync, statSync } from 'node:fs'
import { basename } from 'node:path'
import { pathToFileURL } from 'node:url'

/** The file cannot be taken for a ledger; it was left as it is. The message says what is wrong and what to do. */
export class LedgerRefused extends Error {}
/** The path leads to another file than the one that is open, or to none. */
export class LedgerMoved extends Error {}
/** The file is one of ours and its content is not what was written. */
export class LedgerDamaged extends Error {}

/** `AISU` in the header of the file: tells our ledgers from other databases. */
export const APPLICATION_ID = 0x41495355
const SQLITE_MAGIC = 'SQLite format 3\0'
/** source: sqlite.org/fileformat2.html, "The Database Header" */
const HEAD_BYTES = 100
const USER_VERSION_AT = 60
const APPLICATION_ID_AT = 68

const ROLLUP = `level INTEGER NOT NULL, start INTEGER NOT NULL, api_key INTEGER NOT NULL, model INTEGER NOT NULL,
  provider_key INTEGER NOT NULL, team INTEGER NOT NULL, user INTEGER NOT NULL, status_class INTEGER NOT NULL, sums BLOB NOT NULL,
  PRIMARY KEY (level, start, api_key, model, provider_key, team, user, status_class)`

/**
 * The schema, one list of statements a version; `user_version` says how many have been run.
 *
 * `attempts` has a row an attempt. Its columns without a type hold the id of a string, or the string itself where there
 * were too many different ones; `request`, `trace`, `provider_request` hold packed ids. `extra` has what few attempts have,
 * as JSON to which versions add members: NULL in most rows. `blocks` tells what is in a run of attempts. `hours` and `days` are sums up to the attempt `rolled_seq`,
 * on four levels; `start` counts hours and days since 1970, `sums` is packed as `sums.ts` says, with room for counters to
 * come: read in one piece, it is several times quicker than columns. Ids of the dictionaries are never given twice.
 */
const MIGRATIONS: readonly (readonly string[])[] = [
  [
    'CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID',
    'CREATE TABLE IF NOT EXISTS writers (id TEXT PRIMARY KEY, last_batch INTEGER NOT NULL, used_day INTEGER NOT NULL) WITHOUT ROWID',
    'CREATE TABLE IF NOT EXISTS strings (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL UNIQUE, used_day INTEGER NOT NULL)',
    `CREATE TABLE IF NOT EXISTS entities (id INTEGER PRIMARY KEY AUTOINCREMENT, kind INTEGER NOT NULL, ref TEXT NOT NULL,
       name TEXT NOT NULL, used_day INTEGER NOT NULL, UNIQUE (kind, ref))`,
    `CREATE TABLE IF NOT EXISTS labels (id INTEGER PRIMARY KEY AUTOINCREMENT, content TEXT NOT NULL UNIQUE,
       api_key INTEGER NOT NULL, model INTEGER NOT NULL, provider_key INTEGER NOT NULL, team INTEGER NOT NULL,
       user INTEGER NOT NULL, used_day INTEGER NOT NULL)`,
    'CREATE INDEX IF NOT EXISTS labels_api_key ON labels (api_key)',
    'CREATE INDEX IF NOT EXISTS labels_model ON labels (model)',
    `CREATE TABLE IF NOT EXISTS attempts (
       seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, request NOT NULL, labels INTEGER NOT NULL, route, flags INTEGER NOT NULL,
       status INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
       cached_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL, upstream_ms INTEGER NOT NULL,
       upstream_ttft_ms INTEGER, downstream_ms INTEGER, total_ms INTEGER, cost_pico INTEGER NOT NULL,
       requested_model, finish_reason, model_version, client_ip, user_agent, trace, provider_request, error_class,
       error_message TEXT, extra TEXT)`,
    'CREATE INDEX IF NOT EXISTS failures ON attempts (seq, status, labels, at) WHERE status >= 400',
    `CREATE TABLE IF NOT EXISTS blocks (first_seq INTEGER PRIMARY KEY, last_seq INTEGER NOT NULL, from_ms INTEGER NOT NULL,
       to_ms INTEGER NOT NULL, rows INTEGER NOT NULL, failed INTEGER NOT NULL, statuses BLOB NOT NULL, labels BLOB NOT NULL)`,
    // Apart from the blocks: questions that are not about one request never read them.
    'CREATE TABLE IF NOT EXISTS filters (first_seq INTEGER PRIMARY KEY, requests BLOB NOT NULL)',
    `CREATE TABLE IF NOT EXISTS hours (${ROLLUP}) WITHOUT ROWID`,
    `CREATE TABLE IF NOT EXISTS days (${ROLLUP}) WITHOUT ROWID`,
  ],
]
export const FORMAT_VERSION = MIGRATIONS.length

/** What entities are, as `entities.kind` numbers them. */
export const ENTITY = { apiKey: 1, model: 2, providerKey: 3, team: 4, user: 5 } as const
export type EntityName = keyof typeof ENTITY

/** Which sums a row of `hours` and `days` is. Ids that a level does not tell apart are 0. */
export const LEVEL = { total: 0, byModel: 1, byCaller: 2, full: 3 } as const

/** `meta` of where things stand; all are sequence numbers of attempts. */
export const META = { last: 'last_seq', sealed: 'sealed_seq', rolled: 'rolled_seq' } as const

/** SQLite's own. */
const PAGE_BYTES = 4_096
/** How long SQLite waits for another process, in a thread that may wait. */
const BUSY_MS = 500

export type OpenLedger = ReturnType<typeof openLedgerFile>

/**
 * Opens the ledger at a path. A missing or empty file becomes a new one if `create` says so.
 * in: `seqFloor`: a new file counts on from there, so that cursors of a live tail stay true; `logBytes`: from
 * there on the log is moved into the file
 * throws: LedgerRefused, LedgerDamaged, SQLiteError, errors of the file system
 */
export function openLedgerFile(
  path: string,
  { create, seqFloor = 0, logBytes = 4 * 1024 * 1024 }: { create: boolean; seqFloor?: number; logBytes?: number },
) {
  const isNew = inspect(path, create)
  // Taken before opening: a file that is swapped in between is noticed at the first look.
  const identity = identify(path)
  const db = create
    ? new Database(path, { readwrite: true, create: false, strict: true })
    : new Database(path, constants.SQLITE_OPEN_READONLY)
  const statements = new Map<string, Statement<unknown, SQLQueryBindings[]>>()
  try {
    db.run(`PRAGMA busy_timeout = ${BUSY_MS}`)
    if (create) {
      // Of no effect later. A start that was killed may have left a file without a page.
      const { page_count } = one<{ page_count: number }>(db, 'PRAGMA page_count')
      if (page_count === 0) db.run('PRAGMA auto_vacuum = INCREMENTAL')
      if (isNew) migrate(db, path, seqFloor)
      const { journal_mode } = one<{ journal_mode: string }>(db, 'PRAGMA journal_mode = WAL')
      if (journal_mode !== 'wal') {
        throw new LedgerRefused(
          `the file system of the ledger ${path} cannot keep a write-ahead log; put usage.path on a local disk`,
        )
      }
      db.run('PRAGMA synchronous = NORMAL')
      db.run(`PRAGMA wal_autocheckpoint = ${Math.ceil(logBytes / PAGE_BYTES)}`)
      db.run(`PRAGMA journal_size_limit = ${logBytes}`)
      if (!isNew) migrate(db, path, seqFloor)
    } else {
      const { application_id } = one<{ application_id: number }>(db, 'PRAGMA application_id')
      if (application_id !== APPLICATION_ID) throw new LedgerRefused(`${path} is no ledger; name another file in usage.path`)
      const { user_version } = one<{ user_version: number }>(db, 'PRAGMA user_version')
      if (user_version !== FORMAT_VERSION) throw new LedgerRefused(otherVersion(path, user_version))
    }
    db.run('PRAGMA temp_store = MEMORY')
  } catch (error) {
    closeQuietly(db)
    throw error
  }
  let dataVersion: number | undefined
  let bytes = fileBytes(path)
  const logIdentity = create ? identify(`${path}-wal`) : undefined

  const statement = (sql: string) => {
    let prepared = statements.get(sql)
    if (!prepared) {
      prepared = db.prepare<unknown, SQLQueryBindings[]>(sql)
      statements.set(sql, prepared)
    }
    return prepared
  }
  const pragma = (name: string): number => {
    const [[value] = []] = statement(`PRAGMA ${name}`).values()
    return typeof value === 'number' ? value : 0
  }

  return {
    path,
    isNew,
    /** A statement that is kept: each text is compiled once. */
    statement,
    values: (sql: string, ...params: SQLQueryBindings[]): unknown[][] => statement(sql).values(...params),
    run: (sql: string, ...params: SQLQueryBindings[]) => statement(sql).run(...params),
    pragma,

    /** throws: what `work` throws, after everything it did was undone */
    transaction<T>(work: () => T): T {
      db.run('BEGIN IMMEDIATE')
      try {
        const result = work()
        db.run('COMMIT')
        return result
      } finally {
        if (db.inTransaction) db.run('ROLLBACK')
        bytes = fileBytes(path)
      }
    },

    /** One moment of the file for several questions. */
    reading<T>(work: () => T): T {
      db.run('BEGIN')
      try {
        return work()
      } finally {
        if (db.inTransaction) db.run('COMMIT')
      }
    },

    meta(key: string): number {
      const [[value] = []] = statement('SELECT value FROM meta WHERE key = ?').values(key)
      return typeof value === 'number' ? value : 0
    },
    setMeta(key: string, value: number): void {
      statement('INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value').run(
        key,
        value,
      )
    },

    /** throws: LedgerMoved, LedgerDamaged; errors of the file system */
    assertInPlace(): void {
      const file = statSync(path, { throwIfNoEntry: false })
      if (!file) throw new LedgerMoved(`the ledger ${path} was removed`)
      if (identify(path) !== identity) throw new LedgerMoved(`the ledger ${path} was replaced by another file`)
      if (!create) return
      const version = pragma('data_version')
      // A file gets smaller when it is vacuumed, by us or by another gateway. By nobody's doing, something cut it off.
      if (file.size === 0 || (file.size < bytes && version === dataVersion && !isSound())) {
        throw new LedgerDamaged(`the ledger ${path} was cut short by another program`)
      }
      dataVersion = version
      bytes = file.size
    },

    /**
     * Looks whether the head on the disk is still that of a ledger: what lies in SQLite's memory would hide for long that
     * another program wrote over the file.
     * throws: LedgerDamaged
     */
    assertHead(): void {
      const head = headThroughSqlite(path)
      if (head && !(head.isDatabase && head.applicationId === APPLICATION_ID)) {
        throw new LedgerDamaged(`the ledger ${path} was written over by another program`)
      }
    },

    /**
     * Lets go of a file that is at its path no more. Its log is moved into it first, wherever it is now: SQLite leaves the
     * log of a file that was moved behind, and would replay it over the one that has taken its place.
     */
    abandon(): void {
      try {
        statement('PRAGMA wal_checkpoint(TRUNCATE)').all()
      } catch (error) {
        // There may be no disk any more to write it to.
        if (!(error instanceof SQLiteError)) throw error
      }
      this.close()
      const log = `${path}-wal`
      if (logIdentity !== undefined && identify(log) === logIdentity) {
        rmSync(log, { force: true })
        rmSync(`${path}-shm`, { force: true })
      }
    },

    /** Bytes: of pages in use, of all pages, of those that could be given back, of the log. */
    sizes() {
      const pageBytes = pragma('page_size')
      const pages = pragma('page_count')
      const free = pragma('freelist_count')
      return {
        used: (pages - free) * pageBytes,
        taken: pages * pageBytes,
        free: free * pageBytes,
        log: fileBytes(`${path}-wal`),
      }
    },

    /** Gives back up to `pages` pages. Only a statement that is stepped to its end does so. */
    vacuum(pages: number): void {
      statement(`PRAGMA incremental_vacuum(${pages})`).all()
      bytes = fileBytes(path)
    },

    /** Moves the log into the file and cuts it off, as far as readers let it. */
    emptyLog(): void {
      statement('PRAGMA wal_checkpoint(TRUNCATE)').all()
      bytes = fileBytes(path)
    },

    close(): void {
      for (const prepared of statements.values()) prepared.finalize()
      statements.clear()
      closeQuietly(db)
    },
  }

  function isSound(): boolean {
    const [[verdict] = []] = db.query('PRAGMA quick_check(1)').values()
    return verdict === 'ok'
  }
}

/**
 * Looks at what is at the path before SQLite does, which would write to it.
 * out: whether it is new
 */
function inspect(path: string, create: boolean): boolean {
  const file = statSync(path, { throwIfNoEntry: false })
  if (!file) {
    if (!create) throw new LedgerRefused(`there is no ledger ${path} yet`)
    closeSync(openSync(path, modes.O_CREAT | modes.O_RDWR, 0o600))
    return true
  }
  if (!file.isFile()) throw new LedgerRefused(`${path} is not a file; name another one in usage.path`)
  if (file.size === 0) {
    if (!create) throw new LedgerRefused(`the ledger ${path} is empty yet`)
    return true
  }
  const head = create ? headOnDisk(path) : headThroughSqlite(path)
  if (!head) return false
  if (!head.isDatabase) {
    throw new LedgerRefused(
      `${path} is not an SQLite database, or its head is destroyed; move it away, or name another file in usage.path`,
    )
  }
  if (head.applicationId !== APPLICATION_ID) {
    throw new LedgerRefused(`${path} is a database of another kind; name another file in usage.path`)
  }
  if (head.userVersion > FORMAT_VERSION) throw new LedgerRefused(otherVersion(path, head.userVersion))
  return false
}

function otherVersion(path: string, version: number): string {
  return `the ledger ${path} has format ${version}, this version of the gateway knows ${FORMAT_VERSION}; start a version that knows it, or name another file in usage.path`
}

function migrate(db: Database, path: string, seqFloor: number): void {
  const version = () => one<{ user_version: number }>(db, 'PRAGMA user_version').user_version
  const tables = () =>
    one<{ count: number }>(
      db,
      "SELECT count(*) AS count FROM sqlite_schema WHERE type = 'table' AND name IN ('attempts', 'days')",
    )
  if (version() === FORMAT_VERSION && tables().count === 2) return
  db.run('BEGIN IMMEDIATE')
  try {
    const from = version()
    if (from > FORMAT_VERSION) throw new LedgerRefused(otherVersion(path, from))
    // The newest list is run even where the version says that it was: it puts back what someone has dropped.
    for (const statements of MIGRATIONS.slice(Math.min(from, FORMAT_VERSION - 1))) {
      for (const statement of statements) db.run(statement)
    }
    for (const key of Object.values(META)) {
      db.run('INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING', [key, seqFloor])
    }
    db.run(`PRAGMA application_id = ${APPLICATION_ID}`)
    db.run(`PRAGMA user_version = ${FORMAT_VERSION}`)
    db.run('COMMIT')
  } finally {
    if (db.inTransaction) db.run('ROLLBACK')
  }
}

/**
 * Puts a damaged ledger beside its place, with its log: nothing of it is deleted.
 * out: where it is now
 */
export function setAside(path: string, nowMs: number): string {
  const time = new Date(nowMs).toISOString().replace(/[-:]|\.\d+/g, '')
  let target = `${path}.corrupt-${time}`
  for (let copy = 2; existsSync(target); copy++) target = `${path}.corrupt-${time}-${copy}`
  renameSync(path, target)
  for (const suffix of ['-wal', '-shm']) if (existsSync(path + suffix)) renameSync(path + suffix, target + suffix)
  return target
}

function one<T>(db: Database, sql: string): T {
  const row = db.query<T, []>(sql).get()
  if (row === null) throw new Error(`no answer to ${sql}`)
  return row
}

/** What is wrong with a file shows before it is closed; here it is only let go of. */
function closeQuietly(db: Database): void {
  try {
    db.close()
  } catch (error) {
    if (!(error instanceof SQLiteError)) throw error
  }
}

/** Device and inode of the file at a path; undefined when there is none. */
export function identify(path: string): string | undefined {
  const file = statSync(path, { bigint: true, throwIfNoEntry: false })
  return file && `${file.dev}:${file.ino}`
}

function fileBytes(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0
}

type Head = { isDatabase: boolean; applicationId: number; userVersion: number }

/**
 * The head of the file as it lies on the disk, for its writer before it opens it. Closing it takes away the locks of every
 * connection that this process has to the file: there is none of the writer's then, and a reader's are not missed.
 */
function headOnDisk(path: string): Head {
  const file = openSync(path, 'r')
  try {
    const head = Buffer.alloc(HEAD_BYTES)
    const isWhole = readSync(file, head, 0, HEAD_BYTES, 0) === HEAD_BYTES
    return {
      isDatabase: isWhole && head.toString('latin1', 0, SQLITE_MAGIC.length) === SQLITE_MAGIC,
      applicationId: head.readUInt32BE(APPLICATION_ID_AT),
      userVersion: head.readUInt32BE(USER_VERSION_AT),
    }
  } finally {
    closeSync(file)
  }
}

/**
 * The same through SQLite, for readers, whose opening must not take the writer's locks away: another process could then
 * delete the log under it. Undefined where the file alone cannot be read, as while a part of it is still in the log.
 */
function headThroughSqlite(path: string): Head | undefined {
  const uri = `${pathToFileURL(path).href}?immutable=1`
  const db = new Database(uri, constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI)
  try {
    return {
      isDatabase: true,
      applicationId: one<{ application_id: number }>(db, 'PRAGMA application_id').application_id,
      userVersion: one<{ user_version: number }>(db, 'PRAGMA user_version').user_version,
    }
  } catch (error) {
    if (!(error instanceof SQLiteError)) throw error
    return error.code === 'SQLITE_NOTADB' ? { isDatabase: false, applicationId: 0, userVersion: 0 } : undefined
  } finally {
    closeQuietly(db)
  }
}

/**
 * What to do about an error. `wait`: try again, the connection is good; `reopen`: try again on a new connection; `moved`:
 * at once; `damaged`: put the file aside and begin a new one; `refused`: leave the file alone, and look at it again later.
 */
export type Remedy = 'wait' | 'reopen' | 'moved' | 'damaged' | 'refused' | 'unknown'

export function remedyFor(error: unknown): Remedy {
  if (error instanceof LedgerRefused) return 'refused'
  if (error instanceof LedgerMoved) return 'moved'
  if (error instanceof LedgerDamaged) return 'damaged'
  const code = codeOf(error) ?? ''
  if (/^SQLITE_(BUSY|LOCKED)/.test(code)) return 'wait'
  if (/^SQLITE_(CORRUPT|NOTADB)/.test(code)) return 'damaged'
  if (/^SQLITE_(FULL|IOERR|READONLY|CANTOPEN|PERM|PROTOCOL|NOMEM|AUTH)/.test(code)) return 'reopen'
  // Of the file system.
  if (error instanceof Error && !(error instanceof SQLiteError) && /^E[A-Z]+$/.test(code)) return 'reopen'
  return 'unknown'
}

/** Why, in words for an operator. source: sqlite.org/rescode.html */
export function explain(error: unknown, path: string): string {
  if (error instanceof LedgerRefused || error instanceof LedgerMoved || error instanceof LedgerDamaged) return error.message
  const code = codeOf(error) ?? ''
  for (const [pattern, words] of REASONS) if (pattern.test(code)) return words(path)
  return `the ledger ${basename(path)} failed with ${code || (error instanceof Error ? error.name : 'an unknown error')}`
}

const REASONS: readonly (readonly [RegExp, (path: string) => string])[] = [
  [/^SQLITE_(BUSY|LOCKED)/, path => `the ledger ${path} is locked by another process; find who holds it`],
  [/^(SQLITE_FULL|ENOSPC|EDQUOT)/, path => `the disk of the ledger ${path} is full; free space, or lower usage.max_bytes`],
  [/^SQLITE_(CORRUPT|NOTADB)/, path => `the ledger ${path} is damaged`],
  [/^(SQLITE_READONLY|EROFS)/, path => `the ledger ${path} is read-only; make the file and its folder writable`],
  [/^SQLITE_IOERR/, path => `the disk of the ledger ${path} failed; check the disk, its space and its quota`],
  [
    /^(SQLITE_CANTOPEN|ENOENT|ENOTDIR)/,
    path => `the ledger ${path} cannot be opened; check that its folder exists and may be written`,
  ],
  [
    /^(SQLITE_PERM|SQLITE_AUTH|EACCES|EPERM)/,
    path => `the ledger ${path} may not be accessed; give the gateway's user access to it`,
  ],
  [/^SQLITE_PROTOCOL/, path => `the lock of the ledger ${path} cannot be had; put usage.path on a local disk`],
  [/^SQLITE_ERROR/, path => `the tables of the ledger ${path} were changed by another program; move the file away`],
]

function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}
