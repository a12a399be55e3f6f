/**
 * The audit log: one row a change and a refused change, each sealed with a hash over its content and the hash before it, so
 * that a row that is changed, removed, added or moved afterwards shows. It lies in the store's file: the entry of a change is
 * written in the transaction of the change, and is there exactly when the change is.
 */
import type { Database } from 'bun:sqlite'
import { type Kind, REGISTRY, type Resource } from '../resources/index.ts'
import { memberOf } from '../resources/judgement.ts'
import { mask } from '../resources/masking.ts'

/** What can be done to a resource over the admin API; `restore` and `prune` are done to the store and to the log itself. */
export const AUDIT_ACTIONS = ['create', 'replace', 'rotate', 'delete', 'restore', 'prune'] as const
export type AuditAction = (typeof AUDIT_ACTIONS)[number]
export const AUDIT_OUTCOMES = ['applied', 'refused'] as const
export type AuditOutcome = (typeof AUDIT_OUTCOMES)[number]

/** An entry before it has its place in the chain. Its members are the columns of the table. */
export type AuditDraft = {
  /** RFC 3339 UTC with milliseconds. */
  at: string
  /** Name of the admin key, or who else did it. */
  actor: string
  address: string
  request_id: string
  action: AuditAction
  /** Kind of the resource, `store` or `audit`. */
  kind: string
  /** Empty where there is none yet, as in a creation that was refused. */
  id: string
  name: string | null
  outcome: AuditOutcome
  /** HTTP status and message of a refusal. */
  status: number | null
  reason: string | null
  /** JSON texts. Of a replacement only the members that differ. */
  before: string | null
  after: string | null
  /** Refused changes of this actor that were not taken down since its last entry. */
  omitted: number
}

/** An entry in its place. */
export type AuditEntry = AuditDraft & { seq: number; hash: string }

/** What the log is asked for; lists name what is wanted, newest entries come first. */
export type AuditQuestion = {
  limit: number
  /** Entries before this one. */
  before?: number
  /** RFC 3339 UTC: first moment that counts, and first that counts no more. */
  from?: string
  to?: string
  actors?: readonly string[]
  kinds?: readonly string[]
  ids?: readonly string[]
  actions?: readonly string[]
  outcome?: AuditOutcome
}
/** `next`: there may be more before this entry. */
export type AuditPage = { entries: AuditEntry[]; next: number | undefined }

/** A change that was refused, as its route tells it. */
export type AuditRefusal = Pick<AuditDraft, 'actor' | 'address' | 'request_id' | 'action' | 'kind' | 'id'> & {
  status: number
  reason: string
}

export type AuditStatus = {
  /** Entries written since the start. */
  written: Record<AuditOutcome, number>
  /** Refused changes that were not taken down, since the start. */
  omitted: number
}

/** The audit log of a store that keeps one. */
export interface AuditLog {
  readonly status: AuditStatus
  /** Takes down a refused change. Written soon; beyond the bounds of `RefusalQueue` only counted. Never throws. */
  refused(refusal: AuditRefusal): void
  /** throws: StoreUnavailable */
  read(question: AuditQuestion): Promise<AuditPage>
}

/** AUTOINCREMENT keeps numbers of rows that are gone from being used again, so that a gap shows at the end as well. */
export const AUDIT_TABLE = `CREATE TABLE IF NOT EXISTS audit (
   seq INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, actor TEXT NOT NULL, address TEXT NOT NULL, request_id TEXT NOT NULL,
   action TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, name TEXT, outcome TEXT NOT NULL, status INTEGER, reason TEXT,
   before TEXT, after TEXT, omitted INTEGER NOT NULL DEFAULT 0, hash TEXT NOT NULL)`

const COLUMNS =
  'seq, at, actor, address, request_id, action, kind, id, name, outcome, status, reason, before, after, omitted, hash'
type Values = [
  number,
  string,
  string,
  string,
  string,
  string,
  string,
  string,
  string | null,
  string,
  number | null,
  string | null,
  string | null,
  string | null,
  number,
  string,
]

/** What the first entry of all builds upon. */
export const GENESIS = '0'.repeat(64)

/**
 * Lower-case hexadecimal SHA-256 over the JSON array of the hash before and all columns but the hash, in their order, without
 * white space: what anybody can compute who has the row.
 */
export function hashOf(previous: string, seq: number, draft: AuditDraft): string {
  const { at, actor, address, request_id, action, kind, id, name, outcome, status, reason, before, after, omitted } = draft
  const content = [previous, seq, at, actor, address, request_id, action, kind, id, name, outcome, status, reason, before, after]
  return new Bun.CryptoHasher('sha256').update(JSON.stringify([...content, omitted])).digest('hex')
}

/** Documents of `before` and `after`: whole where there is one, else the members that differ; credentials masked in either. */
export function difference<K extends Kind>(
  kind: K,
  before: Resource[K] | undefined,
  after: Resource[K] | undefined,
): Pick<AuditDraft, 'name' | 'before' | 'after'> {
  const shown = after ?? before
  const name = shown === undefined ? null : nameOf(kind, shown)
  const was = before && { ...mask(kind, before) }
  const is = after && { ...mask(kind, after) }
  if (before && after && was && is) {
    for (const member of new Set([...Object.keys(was), ...Object.keys(is)])) {
      // The documents as they are: credentials that differ all read alike.
      if (!Bun.deepEquals(memberOf(before, member), memberOf(after, member))) continue
      Reflect.deleteProperty(was, member)
      Reflect.deleteProperty(is, member)
    }
  }
  return { name, before: was === undefined ? null : JSON.stringify(was), after: is === undefined ? null : JSON.stringify(is) }
}

/** A text that reads back as it was written, or the hash over it would not hold: UTF-8 has no half of a surrogate pair. */
export function storable(text: string): string {
  return text.toWellFormed()
}

/** What operators call a resource; nothing where a document has no name, as a caller key may. */
function nameOf<K extends Kind>(kind: K, document: Resource[K]): string | null {
  const { unique } = REGISTRY[kind]
  const name = memberOf(document, unique === 'key_hash' ? 'display_name' : unique)
  return typeof name === 'string' ? storable(name) : null
}

/** Rows of the log that are looked at in one turn of the event loop. */
const SLICE_ROWS = 2_000

/** The table in an open database. Everything but `page` belongs inside a transaction. */
export function openAuditTable(db: Database) {
  const selectLast = db.prepare<{ last: number | null }, []>("SELECT seq AS last FROM sqlite_sequence WHERE name = 'audit'")
  const selectHash = db.prepare<{ seq: number; hash: string }, []>('SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1')
  const insert = db.prepare<null, Values>(`INSERT INTO audit (${COLUMNS}) VALUES (${Array(16).fill('?').join(', ')})`)
  const selectPast = db.prepare<{ seq: number; hash: string; at: string }, [number]>(
    'SELECT seq, hash, at FROM audit ORDER BY seq LIMIT ?',
  )
  const removePast = db.prepare<null, [number]>('DELETE FROM audit WHERE seq <= ?')
  const statements = [selectLast, selectHash, insert, selectPast, removePast]

  /** Puts entries at the end of the chain. */
  const append = (drafts: readonly AuditDraft[]): void => {
    if (drafts.length === 0) return
    const newest = selectHash.get()
    let hash = newest?.hash ?? GENESIS
    // Not the newest row's number: where rows were cut off at the end, that they are missing must go on showing.
    let seq = Math.max(selectLast.get()?.last ?? 0, newest?.seq ?? 0)
    for (const draft of drafts) {
      seq += 1
      hash = hashOf(hash, seq, draft)
      const { at, actor, address, request_id, action, kind, id, name, outcome, status, reason, before, after, omitted } = draft
      const identity = [seq, at, actor, address, request_id, action, kind, id, name] as const
      insert.run(...identity, outcome, status, reason, before, after, omitted, hash)
    }
  }

  return {
    append,

    /** Takes over a log as it is, with the number of its last entry. out: false where there is one already */
    adopt(entries: Iterable<AuditEntry>, last: number): boolean {
      if ((selectLast.get()?.last ?? 0) > 0) return false
      for (const { seq, at, actor, address, request_id, action, kind, id, ...entry } of entries) {
        const { name, outcome, status, reason, before, after, omitted, hash } = entry
        const identity = [seq, at, actor, address, request_id, action, kind, id, name] as const
        insert.run(...identity, outcome, status, reason, before, after, omitted, hash)
      }
      // Entries that are missing at the end of it go on missing.
      db.run("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'audit'", [last])
      return true
    },

    /**
     * Removes entries older than a time from the beginning of the chain, as far as `rows` go, and takes down in the chain
     * which entry the rest builds upon.
     * out: whether there may be more
     */
    prune(olderThan: string, rows: number, now: string): boolean {
      const past = selectPast.all(rows)
      const end = past.findIndex(({ at }) => at >= olderThan)
      const gone = end < 0 ? past : past.slice(0, end)
      const [first] = gone
      const last = gone.at(-1)
      if (!first || !last) return false
      const after = JSON.stringify({ first_seq: first.seq, last_seq: last.seq, last_hash: last.hash })
      append([{ ...BY_ITSELF, at: now, action: 'prune', kind: 'audit', after }])
      removePast.run(last.seq)
      return gone.length === rows
    },

    /** The newest entries that are meant, from a slice of the log. out: `next`, where the slice before begins */
    slice(question: AuditQuestion, before: number, limit: number): { entries: AuditEntry[]; next: number | undefined } {
      const { from, to, actors, kinds, ids, actions, outcome } = question
      const terms = ['seq < ?', 'seq >= ?']
      const values: (string | number)[] = [before, before - SLICE_ROWS]
      const demand = (term: string, ...given: (string | number)[]) => {
        terms.push(term)
        values.push(...given)
      }
      const oneOf = (column: string, wanted: readonly string[] | undefined) => {
        if (wanted) demand(`${column} IN (SELECT value FROM json_each(?))`, JSON.stringify(wanted))
      }
      if (from !== undefined) demand('at >= ?', from)
      if (to !== undefined) demand('at < ?', to)
      oneOf('actor', actors)
      oneOf('kind', kinds)
      oneOf('id', ids)
      oneOf('action', actions)
      if (outcome !== undefined) demand('outcome = ?', outcome)
      const sql = `SELECT ${COLUMNS} FROM audit WHERE ${terms.join(' AND ')} ORDER BY seq DESC LIMIT ?`
      const select = db.prepare<AuditEntry, (string | number)[]>(sql)
      let entries: AuditEntry[]
      try {
        entries = select.all(...values, limit)
      } finally {
        // One that is kept would keep the file open beyond its connection.
        select.finalize()
      }
      const oldest = selectPast.get(1)?.seq ?? Number.POSITIVE_INFINITY
      return { entries, next: before - SLICE_ROWS > oldest ? before - SLICE_ROWS : undefined }
    },

    /** One more than the number of the newest entry. */
    end: () => (selectHash.get()?.seq ?? 0) + 1,

    close(): void {
      for (const statement of statements) statement.finalize()
    },
  }
}

/** What the gateway does to the log unasked. */
const BY_ITSELF = {
  actor: 'gateway',
  address: '',
  request_id: '',
  id: '',
  name: null,
  outcome: 'applied',
  status: null,
  reason: null,
  before: null,
  omitted: 0,
} as const satisfies Partial<AuditDraft>

/** Number of the last entry that was ever written. */
export function lastEntry(db: Database): number {
  return db.query<{ last: number }, []>("SELECT seq AS last FROM sqlite_sequence WHERE name = 'audit'").get()?.last ?? 0
}

/** All entries, oldest first. */
export function auditEntries(db: Database): IterableIterator<AuditEntry> {
  return db.query<AuditEntry, []>(`SELECT ${COLUMNS} FROM audit ORDER BY seq`).iterate()
}

/** Whether the chain holds, or where it breaks first. */
export type AuditVerdict =
  | { ok: true; entries: number; first: number; last: number; from: string; to: string; hash: string }
  | { ok: true; entries: 0; hash: undefined }
  | { ok: false; seq: number; problem: string }

/**
 * Follows the chain from its first entry to its last.
 * in: a connection on which nothing changes meanwhile; `known`, an entry that was there at an earlier time
 */
export function verifyAudit(db: Database, known?: Link): AuditVerdict {
  const last = lastEntry(db)
  let previous: AuditEntry | undefined
  let first: AuditEntry | undefined
  let entries = 0
  const checkpoints = readCheckpoints(db)
  for (const entry of auditEntries(db)) {
    const { seq, hash } = entry
    const before: Link = previous ?? checkpoints.findLast(each => each.seq < seq) ?? { seq: 0, hash: GENESIS }
    if (seq !== before.seq + 1) return { ok: false, seq: before.seq + 1, problem: missing(before.seq + 1, seq - 1) }
    if (hashOf(before.hash, seq, entry) !== hash) {
      return { ok: false, seq, problem: `entry ${seq} is not what was written, or does not follow the entry before it` }
    }
    if (known?.seq === seq && known.hash !== hash) {
      return { ok: false, seq, problem: `entry ${seq} is sound, but is not the one that was there earlier` }
    }
    first ??= entry
    previous = entry
    entries += 1
  }
  const end = previous?.seq ?? 0
  if (last > end) return { ok: false, seq: end + 1, problem: missing(end + 1, last) }
  if (known && known.seq > end) return { ok: false, seq: known.seq, problem: missing(end + 1, known.seq) }
  if (!first || !previous) return { ok: true, entries: 0, hash: undefined }
  return { ok: true, entries, first: first.seq, last: end, from: first.at, to: previous.at, hash: previous.hash }
}

/** An entry that the next one builds upon. */
type Link = { seq: number; hash: string }

/** The last of the entries that were removed by age, each time. What is said here counts only as part of a sound chain. */
function readCheckpoints(db: Database): Link[] {
  return db
    .query<{ after: string | null }, []>("SELECT after FROM audit WHERE action = 'prune' AND kind = 'audit' ORDER BY seq")
    .all()
    .flatMap(({ after }) => readCheckpoint(after) ?? [])
}

function readCheckpoint(text: string | null): Link | undefined {
  let value: unknown
  try {
    value = JSON.parse(text ?? '')
  } catch {
    // Somebody wrote into it: the chain breaks there.
    return undefined
  }
  const seq = memberOf(value, 'last_seq')
  const hash = memberOf(value, 'last_hash')
  return typeof seq === 'number' && typeof hash === 'string' ? { seq, hash } : undefined
}

function missing(from: number, to: number): string {
  return from === to ? `entry ${from} is missing` : `entries ${from} to ${to} are missing`
}
