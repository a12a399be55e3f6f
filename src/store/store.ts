import type { Kind, Resource } from '../resources/index.ts'
import type { AuditLog } from './audit.ts'
import type { Snapshot } from './snapshot.ts'

/** One stored resource as every reader sees it. `value` is the normalised document, credentials included. */
export type Entry<K extends Kind = Kind> = {
  id: string
  value: Resource[K]
  /** Starts at 1 and grows by 1 with each replacement of this row. */
  revision: number
}

/** Who writes: for the audit that every write carries to the store. */
export type Actor = { adminKey: string; address: string; requestId?: string }

/** A row that is not served as it stands in the store (control-bootstrap §5.3). Times are RFC 3339 UTC, whole seconds. */
export type Rejection = {
  resource_kind: string
  resource_id: string
  last_error_kind: 'bad_key' | 'non_json' | 'schema_failed' | 'parse_failed' | 'unknown_kind'
  last_error: string
  first_seen_at: string
  last_seen_at: string
  serving_stale_since?: string
  serving_stale_age_seconds?: number
}

export type StoreStatus = {
  /** `file`: a resources file, which is taken over as a whole or not at all, and has no revisions. */
  source: 'sqlite' | 'file'
  /** Of a resources file: hexadecimal SHA-256 of the bytes last read, a refused file's too. */
  sourceHash: string | undefined
  /** False while the file cannot be read: locked for long, gone, replaced, corrupt. The last snapshot goes on serving. */
  connected: boolean
  /** Why it is not connected, in words for an operator. */
  problem: string | undefined
  /** Why the store refused the last write, until it takes one again: it can be read and yet be full or locked. */
  writeProblem?: string | undefined
  observedRevision: number
  appliedRevision: number
  observedAt: string | undefined
  /** Changes applied since the start, 1 for the first load. */
  applySeq: number
  appliedAt: string | undefined
  configHash: string | undefined
  /** When the snapshot was last confirmed to be what the store holds, milliseconds of `clock.now()`. */
  confirmedAt: number | undefined
  lastReload: { successful: boolean; at: string } | undefined
  lastReloadSuccessAt: number | undefined
  lastFailure: { at: string; last_error_kind: string; last_error: string } | null
  rejected: Rejection[]
  partiallyCompatible: { resource_kind: string; field: string; count: number }[]
  /** Full loads since the start, and failed ones by reason `fetch`, `parse`, `validate`. */
  reloads: number
  reloadFailures: Record<string, number>
}

/**
 * Where resources live. Reads come from the current snapshot and never wait. A write is validated by the caller, made
 * durable, then visible in `snapshot`, then answered, in this order.
 * throws from writes: NameTaken (409), WritesRefused (409), StoreUnavailable (500) with the reason in words
 */
export interface Store {
  readonly snapshot: Snapshot
  readonly status: StoreStatus
  /** Why no write is ever taken, in words for whoever tries; undefined where writes are taken. */
  readonly writesRefused: string | undefined
  /** What was changed by whom; absent in stores that keep no such log. A write and its entry are durable together. */
  readonly audit?: AuditLog
  list<K extends Kind>(kind: K): Entry<K>[]
  get<K extends Kind>(kind: K, id: string): Entry<K> | undefined
  create<K extends Kind>(kind: K, value: Resource[K], actor: Actor): Promise<Entry<K>>
  /** Whether a row of this id is stored: `get` gives it only while it, or its last good version, is served. */
  holds(kind: Kind, id: string): boolean
  /**
   * `change` computes the new document from the one that is stored now, or from its last good version while that cannot
   * be read. `repair` gives the new document where there is neither; left out, such a row is treated as absent.
   * `action` is what the audit calls it.
   * out: undefined when there is no such id
   */
  replace<K extends Kind>(
    kind: K,
    id: string,
    change: (now: Resource[K]) => Resource[K],
    actor: Actor,
    repair?: () => Resource[K],
    action?: 'replace' | 'rotate',
  ): Promise<Entry<K> | undefined>
  remove(kind: Kind, id: string, actor: Actor): Promise<boolean>
  /** Reads the store anew if another process changed it; called by itself every 500 ms at most. */
  refresh(): void
  close(): Promise<void>
}

/** Another resource of the kind has this name (or key hash). `name` is what may be told: never a hash. */
export class NameTaken extends Error {
  constructor(readonly taken: string) {
    super(`name "${taken}" already in use by another resource`)
  }
}

/** The store cannot take a write now. The message says why and what to do; nothing was changed. */
export class StoreUnavailable extends Error {}

/** This store takes no writes, whatever they are. The message says what to do instead. */
export class WritesRefused extends Error {}
