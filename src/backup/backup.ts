/** Copies of what a gateway keeps, each of one moment, in one archive. Synchronous: a gateway makes it in a worker. */
import {
  closeSync,
  existsSync,
  linkSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { copyDatabase, syncFile } from '../store/copy.ts'
import { explain } from '../store/sqlite-file.ts'
import { VERSION } from '../version.ts'
import { type Manifest, type Part, writeArchive } from './archive.ts'

/** Where the databases of a gateway lie. */
export type Databases = { store: string; budgets: string; usage: string }

export type Made = { bytes: number; sha256: string; manifest: Manifest }

/** No backup could be made. The message says why and what to do. */
export class BackupError extends Error {}

/** What a backup or a restore makes beside a database while it is under way: it is as secret as the store. */
export const WORK_PREFIX = '.aisix-work-'
/** What an ended process has left is removed after this time. */
const LEFT_OVER_MS = 3_600_000

/** A folder of its own, which goes when `work` is over. */
export function inWorkFolder<T>(beside: string, work: (folder: string) => T): T {
  removeLeftovers(beside)
  const folder = mkdtempSync(join(beside, WORK_PREFIX))
  try {
    return work(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

function removeLeftovers(beside: string): void {
  for (const name of readdirSync(beside)) {
    if (!name.startsWith(WORK_PREFIX)) continue
    const place = join(beside, name)
    const made = statSync(place, { throwIfNoEntry: false })
    if (made && Date.now() - made.mtimeMs > LEFT_OVER_MS) rmSync(place, { recursive: true, force: true })
  }
}

/**
 * Makes a backup under a name that must be free.
 * in: `includes`, whether the records of usage are wanted, too
 * throws: BackupError
 */
export function makeBackup(from: Databases, target: string, { usage }: { usage: boolean }): Made {
  if (existsSync(target)) throw new BackupError(`${target} exists already; name another file`)
  if (!existsSync(from.store)) throw new BackupError(`there is no store file ${from.store}`)
  const wanted: [Part, string][] = [
    ['aisix.db', from.store],
    ['budgets.db', from.budgets],
    ...(usage ? [['usage.db', from.usage] satisfies [Part, string]] : []),
  ]
  try {
    return inWorkFolder(dirname(target), folder => {
      const archive = join(folder, 'backup.tar')
      const file = openSync(archive, 'wx', 0o600)
      try {
        const made = writeArchive(file, copies(folder, wanted), { made_at: new Date().toISOString(), gateway_version: VERSION })
        giveName(archive, target)
        syncFile(dirname(target))
        return made
      } finally {
        closeSync(file)
      }
    })
  } catch (error) {
    throw new BackupError(reasonOf(error, target), { cause: error })
  }
}

/** A link fails where somebody has taken the name meanwhile; file systems that have none get a rename. */
export function giveName(file: string, target: string): void {
  try {
    linkSync(file, target)
  } catch (error) {
    if (!/^(EPERM|ENOTSUP|EOPNOTSUPP|ENOSYS)$/.test(codeOf(error)) || existsSync(target)) throw error
    renameSync(file, target)
  }
}

/** One copy at a time, so that no more room is taken than the largest needs. */
function* copies(folder: string, wanted: readonly [Part, string][]): Generator<{ name: Part; path: string }> {
  for (const [name, source] of wanted) {
    // There is none before the first budget, or record.
    if (!existsSync(source)) continue
    const path = join(folder, name)
    try {
      copyDatabase(source, path)
    } catch (error) {
      throw new BackupError(isRoom(error) ? reasonOf(error, folder) : explain(error, source), { cause: error })
    }
    yield { name, path }
    unlinkSync(path)
  }
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

const isRoom = (error: unknown) => /^(ENOSPC|EDQUOT|EFBIG|SQLITE_FULL)/.test(codeOf(error))

function reasonOf(error: unknown, target: string): string {
  if (error instanceof BackupError) return error.message
  const folder = dirname(target)
  const code = codeOf(error)
  if (isRoom(error)) return `the disk of ${folder} has no room for the backup; free space, or put it elsewhere`
  if (code === 'EEXIST') return `${target} exists already; name another file`
  if (code === 'ENOENT') return `the folder ${folder} does not exist; create it, or name another file`
  if (code === 'EACCES' || code === 'EPERM' || code === 'EROFS') return `nothing can be written in ${folder}; name another file`
  return `the backup cannot be made: ${code || (error instanceof Error ? error.message : String(error))}`
}
