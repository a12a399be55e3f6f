import { constants, Database } from 'bun:sqlite'
import { existsSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

/** Whether a process has the database open, or was killed while it had. */
function isOpenElsewhere(path: string): boolean {
  return existsSync(`${path}-wal`) || existsSync(`${path}-shm`)
}

/**
 * Reads a database of one moment, beside a gateway that may be running on it, and leaves nothing beside the file: a connection
 * that only reads would make a log and an index of it where there are none, and could not take them away again.
 * in: `read`, which may be called a second time; inside one transaction unless `isStatement`, when it is one statement by itself
 * throws: what `read` throws, SQLiteError among it
 */
export function readOnly<T>(path: string, read: (db: Database) => T, { isStatement = false } = {}): T {
  if (!isOpenElsewhere(path)) {
    const url = `${pathToFileURL(path).href}?immutable=1`
    const db = new Database(url, constants.SQLITE_OPEN_READONLY | constants.SQLITE_OPEN_URI)
    try {
      const result = read(db)
      if (!isOpenElsewhere(path)) return result
    } catch (error) {
      if (!isOpenElsewhere(path)) throw error
    } finally {
      db.close()
    }
    // A gateway was started meanwhile: what was read may be of two moments.
  }
  const db = new Database(path, { readonly: true, strict: true })
  try {
    db.run('PRAGMA busy_timeout = 5000')
    if (!isStatement) db.run('BEGIN')
    return read(db)
  } finally {
    db.close()
  }
}
