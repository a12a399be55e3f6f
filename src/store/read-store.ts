import { kinds } from '../resources/index.ts'
import type { StoredEntry } from '../resources-file/export.ts'
import { readStoreFile } from './sqlite-file.ts'
import type { Rejection } from './store.ts'
import { createTable } from './table.ts'

/** How long another process may hold the store up. */
const BUSY_MS = 5_000

/**
 * What a gateway on this store serves, in the order of creation, and the rows that it would not. The store may be in use.
 * throws: StoreOpenError
 */
export function readStore(path: string): { entries: StoredEntry[]; rejected: Rejection[] } {
  const table = createTable(Date)
  table.load(0, readStoreFile(path, { busyMs: BUSY_MS }))
  const entries = kinds.flatMap(kind => table.list(kind).map(({ id, value }) => ({ kind, id, value })))
  return { entries, rejected: table.rejected() }
}
