/** The places where resources can live. Each runs the same contract suite. */
export { openMemoryStore } from './memory.ts'
export { openSqliteStore, StoreOpenError } from './sqlite.ts'
