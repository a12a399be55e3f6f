/** Whole copies of a database, of one moment, while others read and write it. */
import type { Database } from 'bun:sqlite'
import { closeSync, fsyncSync, openSync, renameSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { readOnly } from './read-only.ts'

/**
 * Copies a database as it is at one moment, what its log holds included, into a file of its own that only its owner may read.
 * Nothing waits for it. The copy appears under its name once it is whole and on the disk; one that was there is replaced.
 * in: `source`, an SQLite database, of which a reader may be open in any process
 * throws: SQLiteError, or an Error with a code of the file system; then there is no new file
 */
export function copyDatabase(source: string, target: string): void {
  const unfinished = `${target}.new`
  try {
    const write = (db: Database) => {
      rmSync(unfinished, { force: true })
      // Created here because SQLite's own would have the mode of the umask; it takes a file that is empty.
      closeSync(openSync(unfinished, 'wx', 0o600))
      db.query('VACUUM INTO ?').run(unfinished)
    }
    readOnly(source, write, { isStatement: true })
    syncFile(unfinished)
    renameSync(unfinished, target)
    syncFile(dirname(target))
  } catch (error) {
    rmSync(unfinished, { force: true })
    throw error
  }
}

/** Waits until a file's content, or the names in a folder, would outlive the power. */
export function syncFile(path: string): void {
  const file = openSync(path, 'r')
  try {
    fsyncSync(file)
  } finally {
    closeSync(file)
  }
}
