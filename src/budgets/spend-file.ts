/**
 * The file in which spending on budgets lies: one row a budget and period, to which every gateway that shares the file adds
 * what it has charged. Synchronous, so it runs in a worker of its own.
 */
import { Database, SQLiteError } from 'bun:sqlite'
import { closeSync, constants as modes, openSync, readSync, renameSync, statSync } from 'node:fs'
import { dirname } from 'node:path'

/** Money as two whole numbers, since SQLite's 64 bits end at nine million dollars: dollars, and picodollars below one. */
export type Money = { usd: number; pico: number }

/** Which budget, and what of it: `measure` names what was counted and when, see `Tally`. */
export type Place = { budgetId: string; measure: string }
export type Spend = Place & Money & { tokens: number; startMs: number; endMs: number }
export type Warning = Place & Money & { tokens: number; percent: number; atMs: number }

export type Exchange = {
  /** The process that asks, and the number of its batch. A batch that was written already is not written again. */
  writer: string
  batch: number
  /** To be added to what is there. */
  charges: Spend[]
  /** Each is kept once, whoever comes first. */
  warnings: Warning[]
  /** The file that the asker has read from, and how far; undefined and 0 at first. */
  fileId: string | undefined
  since: number
  /** Rows to be told whether they have changed or not. */
  wanted: Place[]
  /** What the asker remembers of a file that is gone. A row of a new file becomes no less than this. */
  remembered: { spends: Spend[]; warnings: Warning[] } | undefined
  nowMs: number
}

export type Exchanged =
  /** All is written, and this is how things stand: rows that changed since, and those that were wanted. */
  | { kind: 'done'; fileId: string; until: number; spends: Spend[]; warnings: (Warning & { writer: string })[] }
  /** It is another file, or an older state of it: nothing was done. The asker forgets how far it had read. */
  | { kind: 'stale'; fileId: string }
  /** Nothing was written, or nobody knows: to be sent again. `movedTo`: where a damaged file was put. */
  | { kind: 'failed'; problem: string; movedTo: string | undefined }

/** in: `measure`, what those of all periods begin with */
export type PastQuestion = Place & { nowMs: number; limit: number }
export type PastPeriod = Money & { tokens: number; startMs: number; endMs: number }

/** `AISB` in the header of the file. */
export const APPLICATION_ID = 0x41495342
export const SCHEMA_VERSION = 1
const BUSY_MS = 1_000
const DAY_MS = 86_400_000
/** What is kept of periods that are over, and of budgets that are gone. */
const PAST_MS = 400 * DAY_MS
const GONE_MS = 35 * DAY_MS
/** Rows that are removed in one transaction: others wait meanwhile. */
const PRUNE_ROWS = 2_000

const SCHEMA = [
  `CREATE TABLE spend (
     budget_id TEXT NOT NULL, measure TEXT NOT NULL, usd INTEGER NOT NULL, pico INTEGER NOT NULL, tokens INTEGER NOT NULL,
     starts_at INTEGER, ends_at INTEGER, updated_at INTEGER NOT NULL, changed INTEGER NOT NULL,
     PRIMARY KEY (budget_id, measure)) WITHOUT ROWID`,
  'CREATE INDEX spend_changed ON spend (changed)',
  'CREATE INDEX spend_ends_at ON spend (ends_at)',
  `CREATE TABLE warnings (
     budget_id TEXT NOT NULL, measure TEXT NOT NULL, percent INTEGER NOT NULL, at INTEGER NOT NULL, usd INTEGER NOT NULL,
     pico INTEGER NOT NULL, tokens INTEGER NOT NULL, writer TEXT NOT NULL, changed INTEGER NOT NULL,
     PRIMARY KEY (budget_id, measure, percent)) WITHOUT ROWID`,
  'CREATE INDEX warnings_changed ON warnings (changed)',
  'CREATE TABLE writers (writer TEXT PRIMARY KEY, batch INTEGER NOT NULL, updated_at INTEGER NOT NULL) WITHOUT ROWID',
  'CREATE TABLE meta (file_id TEXT NOT NULL, changes INTEGER NOT NULL)',
]

/** What is wrong with the file, in words for an operator. */
class FileProblem extends Error {}
/** What is at the path is no database, or a broken one. */
class Damaged extends Error {}

export class SpendFile {
  private db: Database | undefined
  private inode: string | undefined
  /** The file that could last be opened as one of ours. */
  private knownInode: string | undefined
  private hasMoved = false

  constructor(private readonly path: string) {}

  /** Adds and reads in one transaction. Never throws: an answer says what went wrong. */
  exchange(exchange: Exchange): Exchanged {
    let movedTo: string | undefined
    try {
      const db = this.open()
      const done = inTransaction(db, () => this.perform(db, exchange))
      this.hasMoved = false
      return done
    } catch (error) {
      if (isDamage(error)) movedTo = this.moveAside()
      this.letGo()
      return { kind: 'failed', problem: this.explain(error, movedTo), movedTo }
    }
  }

  /** The latest periods of a budget that are over, newest first. throws: Error with words for an operator */
  past({ budgetId, measure, nowMs, limit }: PastQuestion): PastPeriod[] {
    try {
      return this.open()
        .query<PastPeriod, [string, string, string, number, number]>(
          `SELECT usd, pico, tokens, starts_at AS startMs, ends_at AS endMs FROM spend
           WHERE budget_id = ? AND substr(measure, 1, length(?)) = ? AND ends_at <= ? ORDER BY ends_at DESC LIMIT ?`,
        )
        .all(budgetId, measure, measure, nowMs, limit)
    } catch (error) {
      this.letGo()
      throw new FileProblem(this.explain(error, undefined))
    }
  }

  /** All that the file holds, for whoever adds it to another. throws: Error with words for an operator */
  everything(): { spends: Spend[]; warnings: Warning[] } {
    try {
      const db = this.open()
      // Changes are counted from 1.
      return { spends: read(db, SPENDS, -1, []), warnings: read(db, WARNINGS, -1, []) }
    } catch (error) {
      this.letGo()
      throw new FileProblem(this.explain(error, undefined))
    }
  }

  /** Removes what is too old to be of use. in: ids of the budgets that there are */
  prune(budgetIds: readonly string[], nowMs: number): void {
    try {
      const db = this.open()
      const statements = [
        // `total` never ends; what has no budget any more goes by when it last changed, so that a restored budget finds it.
        db.query<null, [number, number]>(
          `DELETE FROM spend WHERE (budget_id, measure) IN
             (SELECT budget_id, measure FROM spend WHERE ends_at < ? LIMIT ?)`,
        ),
        db.query<null, [number, string, number]>(
          `DELETE FROM spend WHERE (budget_id, measure) IN
             (SELECT budget_id, measure FROM spend WHERE updated_at < ? AND budget_id NOT IN (SELECT value FROM json_each(?)) LIMIT ?)`,
        ),
      ] as const
      while (statements[0].run(nowMs - PAST_MS, PRUNE_ROWS).changes === PRUNE_ROWS);
      const ids = JSON.stringify(budgetIds)
      while (statements[1].run(nowMs - GONE_MS, ids, PRUNE_ROWS).changes === PRUNE_ROWS);
      db.run(
        `DELETE FROM warnings WHERE NOT EXISTS
           (SELECT 1 FROM spend WHERE spend.budget_id = warnings.budget_id AND spend.measure = warnings.measure)`,
      )
      db.query<null, [number]>('DELETE FROM writers WHERE updated_at < ?').run(nowMs - PAST_MS)
    } catch {
      // What is wrong is told by the next exchange; there is time to prune another day.
      this.letGo()
    }
  }

  close(): void {
    this.letGo()
  }

  private perform(db: Database, exchange: Exchange): Exchanged {
    const { writer, batch, charges, warnings, wanted, remembered, nowMs } = exchange
    const meta = db.query<{ file_id: string; changes: number }, []>('SELECT file_id, changes FROM meta').get()
    if (!meta) throw new Damaged('the table "meta" is empty')
    const { file_id: fileId, changes } = meta
    const isOther = exchange.fileId !== undefined && exchange.fileId !== fileId
    const isOlder = exchange.since > 0 && (this.hasMoved || changes < exchange.since)
    if (isOther || isOlder) return { kind: 'stale', fileId }

    const next = changes + 1
    let hasWritten = false
    if (remembered) {
      for (const spend of remembered.spends) hasWritten = raise(db, spend, nowMs, next) || hasWritten
      for (const warning of remembered.warnings) hasWritten = keep(db, warning, writer, next) || hasWritten
    }
    const last = db.query<{ batch: number }, [string]>('SELECT batch FROM writers WHERE writer = ?').get(writer)?.batch ?? 0
    if (batch > last) {
      for (const charge of charges) add(db, charge, nowMs, next)
      for (const warning of warnings) keep(db, warning, writer, next)
      db.query<null, [string, number, number]>(
        `INSERT INTO writers (writer, batch, updated_at) VALUES (?, ?, ?)
         ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, updated_at = excluded.updated_at`,
      ).run(writer, batch, nowMs)
      hasWritten = true
    }
    if (hasWritten) db.query<null, [number]>('UPDATE meta SET changes = ?').run(next)
    return {
      kind: 'done',
      fileId,
      until: hasWritten ? next : changes,
      spends: read(db, SPENDS, exchange.since, wanted),
      warnings: read(db, WARNINGS, exchange.since, wanted),
    }
  }

  /** The open database: opened anew when the file at the path is another one by now, since writes to the old would be lost. */
  private open(): Database {
    const found = inodeOf(this.path)
    if (this.db && found !== undefined && found === this.inode) return this.db
    const before = this.inode
    this.letGo()
    if (found === undefined) createFile(this.path)
    const inode = inodeOf(this.path)
    this.hasMoved ||= before !== undefined && before !== inode
    this.inode = inode
    this.db = openDatabase(this.path)
    this.knownInode = inode
    return this.db
  }

  private letGo(): void {
    const { db } = this
    this.db = undefined
    if (!db) return
    try {
      // SQLite removes the log by its name when it closes: beside another file that log is not ours.
      if (inodeOf(this.path) !== this.inode) db.fileControl(SQLITE_FCNTL_PERSIST_WAL, 1)
      db.close()
    } catch {
      // A connection that cannot be closed is of no more use either way; its batch was not acknowledged.
    }
  }

  /**
   * Puts a damaged file out of the way, with what lies beside it. A file that was never seen to be ours stays where it is: the
   * path may name a certificate.
   * returns: where it is now; undefined if it was not moved
   */
  private moveAside(): string | undefined {
    const damaged = this.inode
    this.letGo()
    // Another gateway may have done so already: what is there now is sound.
    if (damaged === undefined || inodeOf(this.path) !== damaged) return undefined
    if (damaged !== this.knownInode && !hasOurHead(this.path)) return undefined
    const to = `${this.path}.damaged-${new Date().toISOString().replace(/[:.]/g, '-')}`
    try {
      renameSync(this.path, to)
    } catch {
      return undefined
    }
    for (const suffix of ['-wal', '-shm']) {
      try {
        renameSync(this.path + suffix, to + suffix)
      } catch {
        // It was not there. One that stays is emptied by SQLite, which finds that it belongs to no page of a new file.
      }
    }
    return to
  }

  private explain(error: unknown, movedTo: string | undefined): string {
    const { path } = this
    if (error instanceof FileProblem) return error.message
    if (isDamage(error)) {
      return movedTo === undefined
        ? `${path} is no database, or is damaged; name another file in budgets.path, or move it away`
        : `the file with spending on budgets was damaged and was moved to ${movedTo}`
    }
    const code = error instanceof Error && 'code' in error ? String(error.code) : ''
    if (code === 'SQLITE_FULL' || code === 'ENOSPC') return `the disk of ${path} is full; free space`
    if (code.startsWith('SQLITE_BUSY') || code.startsWith('SQLITE_LOCKED')) {
      return `${path} is locked by another process; find it with \`fuser ${path}\``
    }
    if (code.startsWith('SQLITE_READONLY') || code === 'EACCES' || code === 'EROFS') {
      return `${path} cannot be written; give the gateway's user write access to it and its folder`
    }
    if (code === 'ENOENT') return `the folder ${dirname(path)} does not exist; create it, or change budgets.path`
    if (code.startsWith('SQLITE_CANTOPEN')) return `${path} cannot be opened; look at it and at the rights on its folder`
    return `${path} cannot be used: ${code || 'error'} ${error instanceof Error ? error.message : String(error)}`
  }
}

const SQLITE_FCNTL_PERSIST_WAL = 10

function inodeOf(path: string): string | undefined {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false })
  return found && `${found.dev}:${found.ino}`
}

const HEAD_BYTES = 72
const MAGIC = 'SQLite format 3\0'
const APPLICATION_ID_AT = 68

/** Whether the file begins as one that this module made; the application's number may still lie in the write-ahead log. */
function hasOurHead(path: string): boolean {
  const head = Buffer.alloc(HEAD_BYTES)
  try {
    const file = openSync(path, 'r')
    try {
      readSync(file, head, 0, HEAD_BYTES, 0)
    } finally {
      closeSync(file)
    }
  } catch {
    return false
  }
  const id = head.readUInt32BE(APPLICATION_ID_AT)
  return head.toString('latin1', 0, MAGIC.length) === MAGIC && (id === APPLICATION_ID || id === 0)
}

/** With mode 0600 whatever the umask is; SQLite gives its log and index the mode of the file. */
function createFile(path: string): void {
  try {
    closeSync(openSync(path, modes.O_CREAT | modes.O_EXCL | modes.O_RDWR, 0o600))
  } catch (error) {
    // Another gateway was quicker.
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
  }
}

/** throws: FileProblem, Damaged, SQLiteError */
function openDatabase(path: string): Database {
  const db = new Database(path, { readwrite: true, create: false, strict: true })
  try {
    db.run(`PRAGMA busy_timeout = ${BUSY_MS}`)
    const { application_id } = one<{ application_id: number }>(db, 'PRAGMA application_id')
    const { tables } = one<{ tables: number }>(db, 'SELECT count(*) AS tables FROM sqlite_schema')
    if (application_id !== APPLICATION_ID && (application_id !== 0 || tables > 0)) {
      throw new FileProblem(`${path} is a database of another program; name another file in budgets.path`)
    }
    const { journal_mode } = one<{ journal_mode: string }>(db, 'PRAGMA journal_mode = WAL')
    if (journal_mode !== 'wal') {
      throw new FileProblem(
        `the file system of ${path} cannot keep a write-ahead log; name a file on a local disk in budgets.path`,
      )
    }
    db.run('PRAGMA synchronous = FULL')
    if (versionOf(db) === 0) inTransaction(db, () => createSchema(db))
    const version = versionOf(db)
    if (version > SCHEMA_VERSION) {
      throw new FileProblem(
        `${path} was written by a newer version (schema ${version}, this version knows ${SCHEMA_VERSION}); start that version, or name another file in budgets.path`,
      )
    }
    return db
  } catch (error) {
    db.close()
    throw error
  }
}

function createSchema(db: Database): void {
  // Another gateway may have been quicker.
  if (versionOf(db) !== 0) return
  for (const statement of SCHEMA) db.run(statement)
  db.query<null, [string]>('INSERT INTO meta (file_id, changes) VALUES (?, 0)').run(crypto.randomUUID())
  db.run(`PRAGMA application_id = ${APPLICATION_ID}`)
  db.run(`PRAGMA user_version = ${SCHEMA_VERSION}`)
}

function versionOf(db: Database): number {
  return one<{ user_version: number }>(db, 'PRAGMA user_version').user_version
}

function one<T>(db: Database, sql: string): T {
  // Not cached: what a pragma answers must not be read through a statement of an older schema.
  const statement = db.prepare<T, []>(sql)
  try {
    const row = statement.get()
    if (!row) throw new Damaged(`no answer to ${sql}`)
    return row
  } finally {
    statement.finalize()
  }
}

function inTransaction<T>(db: Database, run: () => T): T {
  db.run('BEGIN IMMEDIATE')
  try {
    const result = run()
    db.run('COMMIT')
    return result
  } catch (error) {
    if (db.inTransaction) db.run('ROLLBACK')
    throw error
  }
}

function isDamage(error: unknown): boolean {
  if (error instanceof Damaged) return true
  if (!(error instanceof SQLiteError)) return false
  const code = error.code ?? ''
  // A file of ours without its tables is as broken as one with bad pages.
  return code.startsWith('SQLITE_CORRUPT') || code === 'SQLITE_NOTADB' || /no such (table|column)/.test(error.message)
}

type SpendRow = [string, string, number, number, number, number | null, number | null, number, number]

function rowOf({ budgetId, measure, usd, pico, tokens, startMs, endMs }: Spend, nowMs: number, changed: number): SpendRow {
  return [budgetId, measure, usd, pico, tokens, finite(startMs), finite(endMs), nowMs, changed]
}

const finite = (ms: number): number | null => (Number.isFinite(ms) ? ms : null)

const INSERT_SPEND = `INSERT INTO spend (budget_id, measure, usd, pico, tokens, starts_at, ends_at, updated_at, changed)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (budget_id, measure) DO UPDATE SET updated_at = excluded.updated_at,
  changed = excluded.changed,`

function add(db: Database, spend: Spend, nowMs: number, changed: number): void {
  db.query<null, SpendRow>(
    `${INSERT_SPEND} tokens = tokens + excluded.tokens,
     usd = usd + excluded.usd + (pico + excluded.pico) / 1000000000000, pico = (pico + excluded.pico) % 1000000000000`,
  ).run(...rowOf(spend, nowMs, changed))
}

/** Money and tokens each become no less than what is remembered. */
function raise(db: Database, spend: Spend, nowMs: number, changed: number): boolean {
  const isMore = '(excluded.usd > usd OR (excluded.usd = usd AND excluded.pico > pico))'
  return (
    db
      .query<null, SpendRow>(
        `${INSERT_SPEND} tokens = max(tokens, excluded.tokens), usd = CASE WHEN ${isMore} THEN excluded.usd ELSE usd END,
         pico = CASE WHEN ${isMore} THEN excluded.pico ELSE pico END WHERE ${isMore} OR excluded.tokens > tokens`,
      )
      .run(...rowOf(spend, nowMs, changed)).changes > 0
  )
}

function keep(db: Database, warning: Warning, writer: string, changed: number): boolean {
  const { budgetId, measure, percent, atMs, usd, pico, tokens } = warning
  return (
    db
      .query<null, [string, string, number, number, number, number, number, string, number]>(
        `INSERT INTO warnings (budget_id, measure, percent, at, usd, pico, tokens, writer, changed)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`,
      )
      .run(budgetId, measure, percent, Math.round(atMs), usd, pico, tokens, writer, changed).changes > 0
  )
}

/** A table, and its columns beside the place of a row, under the names of `T`. */
type Told<T> = { table: string; columns: string; row?: T }
const SPENDS: Told<Spend> = {
  table: 'spend',
  columns: `usd, pico, tokens, coalesce(starts_at, -9e999) AS startMs, coalesce(ends_at, 9e999) AS endMs`,
}
const WARNINGS: Told<Warning & { writer: string }> = {
  table: 'warnings',
  columns: 'percent, at AS atMs, usd, pico, tokens, writer',
}

/** Rows that changed after `since`, and those that are wanted. Who has read nothing yet gets the wanted alone. */
function read<T>(db: Database, { table, columns }: Told<T>, since: number, wanted: readonly Place[]): T[] {
  const named = `t.budget_id AS budgetId, t.measure, ${columns}`
  const changed = since === 0 ? [] : db.query<T, [number]>(`SELECT ${named} FROM ${table} AS t WHERE t.changed > ?`).all(since)
  if (wanted.length === 0) return changed
  const asked = db
    .query<T, [string]>(
      `SELECT ${named} FROM json_each(?) AS w CROSS JOIN ${table} AS t
       ON t.budget_id = w.value ->> 0 AND t.measure = w.value ->> 1`,
    )
    .all(JSON.stringify(wanted.map(({ budgetId, measure }) => [budgetId, measure])))
  return [...changed, ...asked]
}
