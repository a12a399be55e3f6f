/**
 * Puts a backup back. The resources are written into the live store in one transaction, so that a gateway that runs on it goes on
 * with them at once, and a restore that is ended half-way has done nothing.
 */
import type { Database } from 'bun:sqlite'
import { closeSync, existsSync, openSync, readSync, renameSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { SpendFile } from '../budgets/spend-file.ts'
import { printable } from '../lib/log.ts'
import { type AuditDraft, auditEntries, lastEntry, storable } from '../store/audit.ts'
import { copyDatabase, syncFile } from '../store/copy.ts'
import { readOnly } from '../store/read-only.ts'
import {
  explain,
  isBusy,
  openStoreFile,
  StoreDamaged,
  type StoredRow,
  type StoreFile,
  StoreOpenError,
} from '../store/sqlite-file.ts'
import { type Archive, ArchiveError, readArchive } from './archive.ts'
import { BackupError, type Databases, giveName, inWorkFolder } from './backup.ts'

/** What was done, a line each, for whoever asked. */
export type Restored = { lines: string[]; warnings: string[] }

const BUSY_MS = 5_000
const BUSY_PAUSE_MS = 5
/** Resources that the entry in the audit log names one by one. */
const NAMED_MAX = 1_000
const SQLITE_MAGIC = 'SQLite format 3\0'

/**
 * in: `file`, a backup, or a copy of a store such as `aisix.db.before-restore`; `who`, for the audit log
 * throws: BackupError with what is wrong and what to do; the store is as it was then
 */
export function restore(file: string, to: Databases, who: Pick<AuditDraft, 'actor' | 'address'>): Restored {
  const name = printable(basename(file))
  let backup: number
  try {
    backup = openSync(file, 'r')
  } catch (error) {
    throw new BackupError(`${file} cannot be read: ${codeOf(error)}`, { cause: error })
  }
  try {
    const beside = dirname(to.store)
    if (!existsSync(beside)) throw new BackupError(`the folder ${beside} of the store does not exist; create it`)
    return inWorkFolder(beside, folder => {
      const archive = takeApart(backup, file, folder)
      const source = join(folder, 'aisix.db')
      const restored = restoreStore(source, to.store, folder, { ...who, name: storable(name), madeAt: archive?.manifest.made_at })
      restoreBudgets(archive, folder, to.budgets, restored)
      restoreUsage(archive, to.usage, restored)
      return restored
    })
  } catch (error) {
    if (error instanceof BackupError) throw error
    if (error instanceof ArchiveError) throw new BackupError(`${file} cannot be restored: ${error.message}`, { cause: error })
    throw new BackupError(explain(error, to.store), { cause: error })
  } finally {
    closeSync(backup)
  }
}

/** Makes sure that the backup is whole, and puts its store into a folder. out: undefined for a copy of a store alone */
function takeApart(backup: number, file: string, folder: string): Archive | undefined {
  const target = join(folder, 'aisix.db')
  if (startsLikeDatabase(backup)) {
    try {
      copyDatabase(file, target)
    } catch (error) {
      throw new BackupError(`${file} cannot be restored: ${explain(error, file)}`, { cause: error })
    }
    return undefined
  }
  const archive = readArchive(backup)
  archive.extract('aisix.db', target)
  return archive
}

function startsLikeDatabase(file: number): boolean {
  const head = Buffer.alloc(SQLITE_MAGIC.length)
  return head.toString('latin1', 0, readSync(file, head, 0, head.length, 0)) === SQLITE_MAGIC
}

type Occasion = Pick<AuditDraft, 'actor' | 'address'> & { name: string; madeAt: string | undefined }

function restoreStore(source: string, path: string, folder: string, occasion: Occasion): Restored {
  const rows = rowsOf(source)
  const warnings: string[] = []
  const live = openLive(path)
  if (live !== 'missing' && live !== 'damaged') {
    try {
      const lines = readOnly(source, from => replaceAll(live, rows, from, occasion, path, warnings))
      return { lines, warnings }
    } finally {
      live.finish()
    }
  }
  // Made whole elsewhere: a gateway that waits for its store must not find one that is still empty.
  const fresh = join(folder, 'fresh.db')
  const made = openStoreFile(fresh, { create: true, busyMs: BUSY_MS })
  let lines: string[]
  try {
    lines = readOnly(source, from => replaceAll(made, rows, from, occasion, undefined, warnings))
  } finally {
    made.finish()
  }
  const aside = `${path}.damaged-${new Date().toISOString().replace(/[:.]/g, '-')}`
  for (const suffix of ['', '-wal', '-shm']) {
    // A log without its file goes as well: it would be replayed over what is put at the path.
    if (existsSync(path + suffix)) renameSync(path + suffix, aside + suffix)
  }
  giveName(fresh, path)
  syncFile(dirname(path))
  if (live === 'damaged') {
    warnings.push(`the store ${path} was damaged and was moved to ${aside}; its audit log is in there as far as it can be read`)
  }
  return { lines, warnings }
}

/** The store that is to be written into, where one can be. throws: BackupError */
function openLive(path: string): StoreFile | 'missing' | 'damaged' {
  if (!existsSync(path)) return 'missing'
  try {
    return openStoreFile(path, { create: false, busyMs: BUSY_MS })
  } catch (error) {
    if (error instanceof StoreDamaged) return 'damaged'
    if (error instanceof StoreOpenError) throw new BackupError(error.message, { cause: error })
    throw error
  }
}

/** throws: BackupError when there is no sound store in it that this version knows */
function rowsOf(source: string): StoredRow[] {
  try {
    // Of an older version it is brought up to date here, in the folder, and not where it came from.
    openStoreFile(source, { create: false, busyMs: BUSY_MS }).finish()
  } catch (error) {
    if (!(error instanceof StoreOpenError)) throw error
    const words = error.message.replaceAll(source, 'in it')
    throw new BackupError(`the backup cannot be restored: ${words}`, { cause: error })
  }
  return readOnly(source, db =>
    db.query<StoredRow, []>('SELECT kind, id, document, revision, created_at, updated_at FROM resources ORDER BY rowid').all(),
  )
}

function replaceAll(
  target: StoreFile,
  rows: readonly StoredRow[],
  source: Database,
  { name, madeAt, actor, address }: Occasion,
  livePath: string | undefined,
  warnings: string[],
): string[] {
  const copy = livePath === undefined ? undefined : `${livePath}.before-restore`
  beginPatiently(target)
  try {
    // With the lock held: what is acknowledged up to now is in the copy.
    if (livePath !== undefined && copy !== undefined) copyDatabase(livePath, copy)
    const { revision, rows: present } = target.load()
    const changes = differences(present, rows)
    target.replaceAll(rows, revision)
    const last = lastEntry(source)
    if (!target.adoptAudit(auditEntries(source), last) && !hasEntry(target, source, last)) {
      warnings.push(`the audit log goes on as it was; the ${last} entries of the backup stay in the backup`)
    }
    const counts = { created: changes.created.length, replaced: changes.replaced.length, deleted: changes.deleted.length }
    const named = [...changes.created, ...changes.replaced, ...changes.deleted].slice(0, NAMED_MAX)
    target.record([
      {
        at: new Date().toISOString(),
        actor,
        address,
        request_id: '',
        action: 'restore',
        kind: 'store',
        id: '',
        name,
        outcome: 'applied',
        status: null,
        reason: null,
        before: copy === undefined ? null : JSON.stringify({ copy: basename(copy) }),
        after: JSON.stringify({ made_at: madeAt, ...counts, changed: named }),
        omitted: 0,
      },
    ])
    target.assertInPlace()
    target.commit()
    const kept = copy === undefined ? '' : `; what was there before is in ${copy}`
    const { created, replaced, deleted } = counts
    return [`${rows.length} resources are in force: ${created} came, ${replaced} changed, ${deleted} went${kept}`]
  } finally {
    target.rollback()
  }
}

/** A gateway that runs on the store holds its lock for moments at a time. throws: SQLiteError where it stays locked */
function beginPatiently(target: StoreFile): void {
  const giveUpAt = Date.now() + BUSY_MS
  for (;;) {
    try {
      target.begin()
      return
    } catch (error) {
      if (!isBusy(error) || Date.now() > giveUpAt) throw error
    }
    Bun.sleepSync(BUSY_PAUSE_MS)
  }
}

/** Whether the log of a store goes on from the one of a backup, as it does where the backup was made of this store. */
function hasEntry(target: StoreFile, source: Database, last: number): boolean {
  if (last === 0) return true
  const theirs = source.query<{ hash: string }, [number]>('SELECT hash FROM audit WHERE seq = ?').get(last)
  const [ours] = target.slice({ limit: 1 }, last + 1, 1).entries
  return theirs !== null && ours?.hash === theirs.hash
}

type Named = { action: 'create' | 'replace' | 'delete'; kind: string; id: string }

function differences(
  before: readonly { kind: unknown; id: unknown; document: unknown }[],
  after: readonly StoredRow[],
): Record<'created' | 'replaced' | 'deleted', Named[]> {
  const key = ({ kind, id }: { kind: unknown; id: unknown }) => JSON.stringify([kind, id])
  const present = new Map(before.map(row => [key(row), row]))
  const found = { created: [] as Named[], replaced: [] as Named[], deleted: [] as Named[] }
  for (const row of after) {
    const was = present.get(key(row))
    present.delete(key(row))
    const { kind, id } = row
    if (!was) found.created.push({ action: 'create', kind, id })
    else if (was.document !== row.document) found.replaced.push({ action: 'replace', kind, id })
  }
  for (const { kind, id } of present.values()) found.deleted.push({ action: 'delete', kind: String(kind), id: String(id) })
  return found
}

/** What was spent is a fact and no setting: it is added where it is missing, and never lowered. */
function restoreBudgets(archive: Archive | undefined, folder: string, path: string, { lines, warnings }: Restored): void {
  if (!archive?.manifest.files.some(({ name }) => name === 'budgets.db')) return
  const extracted = join(folder, 'budgets.db')
  archive.extract('budgets.db', extracted)
  const from = new SpendFile(extracted)
  const to = new SpendFile(path)
  try {
    const remembered = from.everything()
    const done = to.exchange({
      writer: `restore-${crypto.randomUUID()}`,
      batch: 0,
      charges: [],
      warnings: [],
      fileId: undefined,
      since: 0,
      wanted: [],
      remembered,
      nowMs: Date.now(),
    })
    if (done.kind === 'done') lines.push(`what was spent on budgets is no less than the backup says (${path})`)
    else warnings.push(`what was spent on budgets was not restored: ${done.kind === 'failed' ? done.problem : path}`)
  } catch (error) {
    warnings.push(`what was spent on budgets was not restored: ${error instanceof Error ? error.message : String(error)}`)
  } finally {
    from.close()
    to.close()
  }
}

/** Records of usage take the place of none: a gateway may be writing into those that there are. */
function restoreUsage(archive: Archive | undefined, path: string, { lines, warnings }: Restored): void {
  if (!archive?.manifest.files.some(({ name }) => name === 'usage.db')) return
  const isThere = () => statSync(path, { throwIfNoEntry: false }) !== undefined
  const keep = () =>
    warnings.push(
      `${path} is there and was left as it is; to have the records of the backup, stop the gateway, move it away and restore again`,
    )
  if (isThere()) {
    keep()
    return
  }
  // Beside the place where it is to be: a name can only be given within one file system.
  inWorkFolder(dirname(path), beside => {
    const extracted = join(beside, 'usage.db')
    archive.extract('usage.db', extracted)
    try {
      giveName(extracted, path)
      syncFile(dirname(path))
      lines.push(`the records of usage are back (${path})`)
    } catch (error) {
      if (!isThere()) throw error
      keep()
    }
  })
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'unknown reason'
}
