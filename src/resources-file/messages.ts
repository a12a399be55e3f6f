/** What the thread that loads a resources file is told, and what it tells. */
import type { Environment } from './check.ts'
import type { Problem } from './problem.ts'

export type ToLoader = { ask: 'load'; path: string; env: Environment } | { ask: 'next' }

export type FromLoader =
  | { tell: 'refused'; problems: Problem[]; count: number; hash: string | undefined }
  | { tell: 'loaded'; hash: string; warnings: string[] }
  /** JSON of an array of entries, in the order of the file; no text behind the last. */
  | { tell: 'slice'; entries: string | undefined }
