import { Database } from 'bun:sqlite'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { silentLog } from '../../src/lib/log.ts'
import { openSqliteStore, type SqliteStoreOptions } from '../../src/store/sqlite.ts'
import { testClock } from './documents.ts'

/** An hour: polls never come by themselves, tests call `refresh`. */
export const NEVER_MS = 3_600_000

/** A folder of its own for one test, with what was opened in it closed before it is removed. */
export function scratch() {
  const folder = mkdtempSync(join(tmpdir(), 'aisix-store-'))
  const closers: (() => unknown)[] = []
  const path = join(folder, 'aisix.db')
  return {
    folder,
    path,
    open(options: Partial<SqliteStoreOptions> = {}) {
      const store = openSqliteStore({ path, clock: testClock(), log: silentLog, pollMs: NEVER_MS, ...options })
      closers.push(() => store.close())
      return store
    },
    /** Another connection to the file, as an operator's `sqlite3` or a second gateway has one. */
    other(file = path) {
      const db = new Database(file, { readwrite: true, strict: true })
      closers.push(() => db.close())
      return db
    },
    async clean() {
      for (const close of closers.reverse()) await close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
export type Scratch = ReturnType<typeof scratch>

/** Writes a row as another program would. Gives its id. */
export function putRow(db: Database, kind: string, id: string, document: unknown, revision = 1): string {
  const text = typeof document === 'string' ? document : JSON.stringify(document)
  db.query(
    `INSERT INTO resources (kind, id, document, revision, created_at, updated_at) VALUES (?, ?, ?, ?, 1, 'yesterday')
     ON CONFLICT (kind, id) DO UPDATE SET document = excluded.document, revision = excluded.revision`,
  ).run(kind, id, text, revision)
  return id
}
