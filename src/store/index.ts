/** The places where resources can live. Each runs the same contract suite. */
export { openMemoryStore } from './memory.ts'
export { readStore } from './read-store.ts'
export { openResourcesFile, ResourcesFileError, type ResourcesFileStore } from './resources-file.ts'
export { openSqliteStore, StoreOpenError } from './sqlite.ts'
