/** The databases of the gateway, looked at without writing to them or leaving anything beside them. */
import { constants, Database, SQLiteError } from 'bun:sqlite'
import { existsSync, statSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { APPLICATION_ID as BUDGETS_ID, SCHEMA_VERSION as BUDGETS_VERSION } from '../../budgets/spend-file.ts'
import type { Config } from '../../config.ts'
import { APPLICATION_ID as LEDGER_ID, FORMAT_VERSION as LEDGER_VERSION } from '../../ledger/file.ts'
import { errorCode } from '../../lib/transport-cause.ts'
import type { Row } from '../../store/rows.ts'
import { APPLICATION_ID as STORE_ID, SCHEMA_VERSION as STORE_VERSION } from '../../store/sqlite-file.ts'
import { type Finding, Findings, type Verdict } from './finding.ts'

type Kind = { key: 'store' | 'usage' | 'budgets'; applicationId: number; version: number; loss: string }

const KINDS: readonly Kind[] = [
  { key: 'store', applicationId: STORE_ID, version: STORE_VERSION, loss: 'restore a backup' },
  {
    key: 'usage',
    applicationId: LEDGER_ID,
    version: LEDGER_VERSION,
    loss: 'restore a backup, or move it away and lose the records',
  },
  {
    key: 'budgets',
    applicationId: BUDGETS_ID,
    version: BUDGETS_VERSION,
    loss: 'restore a backup, or move it away and begin at nothing spent',
  },
]

/** Larger ones would be read for minutes. */
const CHECK_BYTES_MAX = 512 * 1024 * 1024
/** A gateway that writes at the same moment can make a sound file look damaged. */
const TRIES = 3
const BUSY_MS = 1_000

export function checkDatabases(config: Config): Finding[] {
  const isOpened = { store: config.resources_file === undefined, usage: config.usage.enabled, budgets: true }
  return KINDS.filter(({ key }) => isOpened[key]).flatMap(kind => {
    const path = config[kind.key].path
    const findings = new Findings('database', path)
    try {
      findings.add(...look(path, kind))
    } catch (error) {
      findings.add('error', reasonOf(error), adviceOf(error, kind))
    }
    return findings.all
  })
}

function look(path: string, { key, applicationId, version, loss }: Kind): Verdict {
  const { size } = statSync(path, { throwIfNoEntry: false }) ?? {}
  if (size === undefined) return ['note', `is not there yet: the gateway makes it (${key}.path)`]
  if (size === 0) return ['error', 'is empty', loss]
  // An index would have to be made, a file that the gateway's user may then not be able to open.
  if (lacksIndex(path))
    return ['warning', 'was not checked: its log lies beside it without an index', 'start the gateway, which puts that in order']
  const found = read(path, db => ({ id: pragma(db, 'application_id'), version: pragma(db, 'user_version') }))
  if (found.id === 0 && found.version === 0)
    return [
      'note',
      'bears no mark of the gateway: a dump that was restored, which the next start takes over, or not a file of ours',
    ]
  if (found.id !== applicationId) return ['error', 'is a database of another program', `name another file in ${key}.path`]
  if (found.version > version)
    return [
      'error',
      `has format ${found.version}, of a newer version of the gateway; this one knows ${version}`,
      'start that version, or restore a backup',
    ]
  if (size > CHECK_BYTES_MAX)
    return ['note', `format ${found.version}; with ${Math.round(size / 2 ** 20)} MiB too large to be checked here`]
  for (let tries = 1; ; tries++) {
    const sound = read(path, db => db.query<{ quick_check: string }, []>('PRAGMA quick_check(1)').get()?.quick_check)
    if (sound === 'ok')
      return ['ok', `sound, format ${found.version}${found.version < version ? `; the next start brings it to ${version}` : ''}`]
    if (tries === TRIES) return ['error', 'is damaged', loss]
    Bun.sleepSync(200)
  }
}

/** All rows of the store as they are; undefined where it cannot be read, which `checkDatabases` tells. */
export function readStore(path: string): Row[] | undefined {
  try {
    if (!statSync(path, { throwIfNoEntry: false })?.size || lacksIndex(path)) return undefined
    return read(path, db => db.query<Row, []>('SELECT kind, id, document, revision FROM resources ORDER BY rowid').all())
  } catch (error) {
    if (error instanceof SQLiteError) return undefined
    throw error
  }
}

/** Such a log can only be read by making the index, a file that the gateway's user may then not be able to open. */
function lacksIndex(path: string): boolean {
  return (statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0) > 0 && !existsSync(`${path}-shm`)
}

/** A plain read-only connection would make a log and an index where there are none: then the file is taken as it lies. */
function read<T>(path: string, ask: (db: Database) => T): T {
  const isOpen = existsSync(`${path}-wal`) && existsSync(`${path}-shm`)
  const db = isOpen
    ? new Database(path, { readonly: true, strict: true })
    : new Database(`${pathToFileURL(path).href}?immutable=1`, constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI)
  try {
    db.run(`PRAGMA busy_timeout = ${BUSY_MS}`)
    return ask(db)
  } finally {
    db.close()
  }
}

function pragma(db: Database, name: 'application_id' | 'user_version'): number {
  const row = db.query<Record<string, number>, []>(`PRAGMA ${name}`).get()
  return row?.[name] ?? 0
}

function reasonOf(error: unknown): string {
  const code = errorCode(error)
  if (code.startsWith('SQLITE_NOTADB')) return 'is not an SQLite database'
  if (code.startsWith('SQLITE_CORRUPT')) return 'is damaged'
  if (code.startsWith('SQLITE_BUSY') || code.startsWith('SQLITE_LOCKED')) return 'is locked by another process'
  if (code === 'EACCES' || code === 'EPERM' || code.startsWith('SQLITE_CANTOPEN') || code.startsWith('SQLITE_PERM'))
    return 'may not be read by this user'
  return `cannot be read (${code || 'unknown error'})`
}

function adviceOf(error: unknown, { key, loss }: Kind): string {
  const code = errorCode(error)
  if (code.startsWith('SQLITE_NOTADB')) return `name another file in ${key}.path, or ${loss}`
  if (code.startsWith('SQLITE_BUSY') || code.startsWith('SQLITE_LOCKED')) return 'find who holds it (fuser, lsof), and try again'
  return code.startsWith('SQLITE_CORRUPT') ? loss : "run this as the gateway's user"
}
