import { printable } from '../lib/log.ts'
import { type Kind, kinds, RESOURCES, type Resource } from '../resources/index.ts'
import { type BadReading, type GoodReading, isKind, type Reading, type Row, readDocument, readRevision, sha256 } from './rows.ts'
import { buildSnapshot, type Change, type Snapshot } from './snapshot.ts'
import { type Entry, NameTaken, type Rejection, type StoreStatus } from './store.ts'

/** One row as this process last saw it, and what became of it. */
type Held<K extends Kind> = {
  id: string
  /** As stored: a row whose text did not change is not read again. */
  document: unknown
  revision: number
  reading: Reading<K>
  /** What is served for this row: its own reading, or the last good one. */
  served: GoodReading<K> | undefined
  /** The newest reading that was ever served, kept while the row is bad. */
  lastGood: GoodReading<K> | undefined
  /** Set while the row is not served as it stands. */
  trouble: Trouble | undefined
}
type Trouble = { problem: BadReading; firstSeenAtMs: number; staleSinceMs: number | undefined }
type Stranger = { kind: string; id: string; trouble: Trouble }

/** All rows of one kind, in the order of their creation, and what follows from them. */
type Shelf<K extends Kind> = {
  rows: Map<string, Held<K>>
  entries: Map<string, Entry<K>>
  /** Ids by the name that each one serves under. */
  names: Map<string, string>
  troubled: Held<K>[]
  unknownFields: Map<string, number>
}
type Shelves = { [K in Kind]: Shelf<K> }

/** A document that may be written: it reads back, and its name is free. */
export type Draft<K extends Kind> = {
  kind: K
  id: string
  /** The text to store. */
  document: string
  revision: number
  reading: GoodReading<K>
}

/** What a store knows beside the rows; the table supplies the rest of its status. */
export type Connection = Pick<StoreStatus, 'connected' | 'problem' | 'writeProblem' | 'confirmedAt'>

/** What the table needs of the gateway's clock: epoch milliseconds. */
export type WallClock = { now(): number }

export type Table = ReturnType<typeof createTable>

/**
 * The rows of a store as this process last saw them, with the snapshot that is served from them and the history that
 * `/status/config` tells. Both backends keep one; it does no input or output.
 *
 * A row that does not validate is not served; the last good version of it is, while there is one. Of two rows with one
 * name the first by creation is served (spec, row 27). A version that is only the last good one never takes a name from
 * a row that is good today.
 */
export function createTable(clock: WallClock) {
  const shelves: Shelves = newShelves()
  let strangers: Stranger[] = []
  let snapshot: Snapshot = buildSnapshot(0, entriesOf(shelves))

  let applySeq = 0
  let appliedAtMs: number | undefined
  let observedAtMs: number | undefined
  let seenAtMs = clock.now()
  let reloads = 0
  const reloadFailures: Record<string, number> = {}
  let lastReload: { successful: boolean; atMs: number } | undefined
  let lastReloadSuccessAtMs: number | undefined
  let lastFailure: { atMs: number; kind: string; error: string } | undefined
  let hash: { applySeq: number; hex: string } | undefined

  /** Decides what each row of a kind serves. */
  function settle<K extends Kind>(kind: K, now: number): void {
    const shelf = shelves[kind]
    const { unique } = RESOURCES[kind]
    const names = new Map<string, string>()
    for (const { id, reading } of shelf.rows.values()) {
      if (reading.ok && !names.has(reading.name)) names.set(reading.name, id)
    }
    const entries = new Map<string, Entry<K>>()
    const troubled: Held<K>[] = []
    const unknownFields = new Map<string, number>()
    for (const [id, held] of shelf.rows) {
      const { reading } = held
      if (reading.ok && names.get(reading.name) === id) {
        held.served = reading
        held.lastGood = reading
        held.trouble = undefined
      } else {
        const { lastGood } = held
        const isStale = lastGood !== undefined && !names.has(lastGood.name)
        held.served = isStale ? lastGood : undefined
        if (isStale) names.set(lastGood.name, id)
        held.trouble = {
          problem: reading.ok
            ? { ok: false, kind: 'schema_failed', error: `${unique}: name already in use by an older row` }
            : reading,
          firstSeenAtMs: held.trouble?.firstSeenAtMs ?? now,
          staleSinceMs: isStale ? (held.trouble?.staleSinceMs ?? now) : undefined,
        }
        troubled.push(held)
      }
      if (!held.served) continue
      entries.set(id, held.served.entry)
      for (const field of held.served.unknownFields) unknownFields.set(field, (unknownFields.get(field) ?? 0) + 1)
    }
    Object.assign(shelf, { names, entries, troubled, unknownFields } satisfies Omit<Shelf<K>, 'rows'>)
  }

  /**
   * What `settle` would come to where a few rows are written or removed and every row of their kind is served as it stands: nothing
   * has to be asked of the others. With a hundred thousand keys that is the difference between a write that nobody notices and one
   * that everybody waits for.
   * in: the rows as they are to be served, undefined for one that is gone; new ones are the last of their kind
   * returns: the changes, for the snapshot; undefined where the kind has to be settled as a whole, and nothing has happened
   */
  function settleSome<K extends Kind>(kind: K, rows: ReadonlyMap<string, GoodReading<K> | undefined>): Change[] | undefined {
    const shelf = shelves[kind]
    if (shelf.troubled.length > 0 || shelf.unknownFields.size > 0) return undefined
    // A snapshot keeps the maps that it was made of, and a name that is taken undoes it all.
    const names = rows.size === 1 ? shelf.names : new Map(shelf.names)
    for (const [id, after] of rows) {
      if (after && after.unknownFields.length > 0) return undefined
      const owner = after && names.get(after.name)
      if (owner !== undefined && owner !== id && !rows.has(owner)) return undefined
    }
    for (const id of rows.keys()) {
      const before = shelf.rows.get(id)?.served
      if (before && names.get(before.name) === id) names.delete(before.name)
    }
    const entries = new Map(shelf.entries)
    for (const [id, after] of rows) {
      if (!after) {
        entries.delete(id)
        continue
      }
      if (names.has(after.name)) return undefined
      names.set(after.name, id)
      entries.set(id, after.entry)
    }
    shelf.names = names
    shelf.entries = entries
    return Array.from(rows.keys(), id => ({ kind, id }))
  }

  function publish(revision: number, now: number, changes?: readonly Change[]): void {
    snapshot = buildSnapshot(revision, entriesOf(shelves), snapshot, changes)
    applySeq += 1
    appliedAtMs = now
    observedAtMs = now
  }

  /** Puts a stored row on its shelf, reading it only where it is not the row we know. */
  function hold<K extends Kind>(kind: K, id: string, row: Row, next: Shelf<K>): void {
    const known = shelves[kind].rows.get(id)
    const revision = readRevision(row.revision)
    if (known && known.document === row.document && known.revision === revision) {
      next.rows.set(id, known)
      return
    }
    const reading = readDocument(kind, id, row.document, revision)
    const { lastGood, trouble } = known ?? {}
    next.rows.set(id, { id, document: row.document, revision, reading, served: undefined, lastGood, trouble })
  }

  /**
   * Takes a shelf over from a full load.
   * returns: false when it serves what was served before; the changes where they are few; true where there may be any
   */
  function adopt<K extends Kind>(kind: K, next: Shelf<K>, now: number): readonly Change[] | boolean {
    const shelf = shelves[kind]
    if (isSameSequence(shelf.rows.values(), next.rows.values())) return false
    const before = shelf.entries
    const some = fewChanges(shelf.rows, next.rows)
    const changes = some && settleSome(kind, some)
    if (changes) {
      shelf.rows = next.rows
      for (const held of next.rows.values()) {
        if (!some.has(held.id) || !held.reading.ok) continue
        held.served = held.reading
        held.lastGood = held.reading
        held.trouble = undefined
      }
      return changes
    }
    shelf.rows = next.rows
    settle(kind, now)
    if (!isSameSequence(before.values(), shelf.entries.values())) return true
    // The same map lets the snapshot keep what it has built over it.
    shelf.entries = before
    return false
  }

  function failed(reason: string, kind: string, error: string, now: number): void {
    reloadFailures[reason] = (reloadFailures[reason] ?? 0) + 1
    lastFailure = { atMs: now, kind, error }
  }

  return {
    get snapshot() {
      return snapshot
    },

    list<K extends Kind>(kind: K): Entry<K>[] {
      return [...shelves[kind].entries.values()]
    },

    get<K extends Kind>(kind: K, id: string): Entry<K> | undefined {
      return shelves[kind].entries.get(id)
    },

    /** The newest version of a row that could be read, whether it is served or not: what a replacement starts from. */
    readable<K extends Kind>(kind: K, id: string): Resource[K] | undefined {
      const held = shelves[kind].rows.get(id)
      return (held?.reading.ok ? held.reading : held?.lastGood)?.entry.value
    },

    /** Revision of a row, whether it is served or not; undefined when there is none. */
    revisionOf(kind: Kind, id: string): number | undefined {
      return shelves[kind].rows.get(id)?.revision
    },

    /**
     * A full load: `rows` are all there are, in the order of their creation.
     * in: the store's change counter; one that stands still or went back (a backup was restored) is moved on, so that
     * the snapshot's revision only grows
     */
    load(revision: number, rows: Iterable<Row>): void {
      const now = clock.now()
      const next: Shelves = newShelves()
      const met: Stranger[] = []
      for (const row of rows) {
        const { kind, id } = row
        if (typeof kind === 'string' && isKind(kind) && typeof id === 'string' && id !== '') hold(kind, id, row, next[kind])
        else met.push(meet(row, strangers, now))
      }
      strangers = met
      seenAtMs = now
      observedAtMs = now
      const adopted = kinds.map(kind => adopt(kind, next[kind], now)).filter(each => each !== false)
      // What has changed in any other way than row by row is looked at as a whole.
      const changes = adopted.every(each => each !== true) ? adopted.flat() : undefined
      if (applySeq === 0) publish(revision, now)
      else if (adopted.length > 0) publish(Math.max(revision, snapshot.revision + 1), now, changes)
      else if (revision > snapshot.revision) snapshot = buildSnapshot(revision, entriesOf(shelves), snapshot)

      reloads += 1
      const problems = [...strangers, ...kinds.flatMap((kind): { trouble?: Trouble }[] => shelves[kind].troubled)].flatMap(
        ({ trouble }) => (trouble ? [trouble.problem] : []),
      )
      const reasons = new Set(problems.map(({ kind }) => (kind === 'non_json' ? 'parse' : 'validate')))
      const [first] = problems
      if (first) for (const reason of reasons) failed(reason, first.kind, first.error, now)
      else lastReloadSuccessAtMs = now
      lastReload = { successful: first === undefined, atMs: now }
    },

    /** A full load that could not be made: the source cannot be reached. What was loaded goes on serving. */
    loadFailed(): void {
      const now = clock.now()
      reloads += 1
      failed('fetch', 'fetch', 'configuration source unreachable', now)
      lastReload = { successful: false, atMs: now }
    },

    /**
     * Prepares a write.
     * throws: NameTaken; Error when the value does not read back, which is a fault of the caller, who validates
     */
    draft<K extends Kind>(kind: K, id: string, value: Resource[K], revision: number): Draft<K> {
      const document = JSON.stringify(value)
      const reading = readDocument(kind, id, document, revision)
      if (!reading.ok) throw new Error(`a document of ${kind} would not read back: ${reading.error}`)
      const owner = shelves[kind].names.get(reading.name)
      const { unique } = RESOURCES[kind]
      // A key hash is as good as a credential to whoever reads logs: only the member's name is told.
      if (owner !== undefined && owner !== id) throw new NameTaken(unique === 'key_hash' ? unique : printable(reading.name))
      return { kind, id, document, revision, reading }
    },

    /** Applies a write that is durable by now. */
    put<K extends Kind>({ kind, id, document, revision, reading }: Draft<K>, storeRevision: number): Entry<K> {
      const now = clock.now()
      const changes = settleSome(kind, new Map([[id, reading]]))
      shelves[kind].rows.set(id, { id, document, revision, reading, served: reading, lastGood: reading, trouble: undefined })
      if (!changes) settle(kind, now)
      publish(Math.max(storeRevision, snapshot.revision + 1), now, changes)
      return reading.entry
    },

    /** Applies a removal that is durable by now. */
    remove(kind: Kind, id: string, storeRevision: number): void {
      const now = clock.now()
      const changes = settleSome(kind, new Map([[id, undefined]]))
      shelves[kind].rows.delete(id)
      if (!changes) settle(kind, now)
      publish(Math.max(storeRevision, snapshot.revision + 1), now, changes)
    },

    /** Rows that are not served as they stand. */
    rejected,

    status({ connected, problem, writeProblem, confirmedAt }: Connection): StoreStatus {
      return {
        source: 'sqlite',
        sourceHash: undefined,
        connected,
        problem,
        writeProblem,
        observedRevision: snapshot.revision,
        appliedRevision: snapshot.revision,
        observedAt: observedAtMs === undefined ? undefined : time(observedAtMs),
        applySeq,
        appliedAt: appliedAtMs === undefined ? undefined : time(appliedAtMs),
        configHash: applySeq === 0 ? undefined : configHash(),
        confirmedAt,
        lastReload: lastReload && { successful: lastReload.successful, at: time(lastReload.atMs) },
        lastReloadSuccessAt: lastReloadSuccessAtMs,
        lastFailure: lastFailure
          ? { at: time(lastFailure.atMs), last_error_kind: lastFailure.kind, last_error: lastFailure.error }
          : null,
        rejected: rejected(),
        partiallyCompatible: kinds.flatMap(kind =>
          [...shelves[kind].unknownFields].sort().map(([field, count]) => ({ resource_kind: kind, field, count })),
        ),
        reloads,
        reloadFailures: { ...reloadFailures },
      }
    },
  }

  function rejected(): Rejection[] {
    const now = clock.now()
    const tell = (kind: string, id: string, { problem, firstSeenAtMs, staleSinceMs }: Trouble): Rejection => ({
      resource_kind: kind,
      resource_id: printable(id),
      last_error_kind: problem.kind,
      last_error: problem.error,
      first_seen_at: time(firstSeenAtMs),
      last_seen_at: time(Math.max(seenAtMs, firstSeenAtMs)),
      ...(staleSinceMs !== undefined && {
        serving_stale_since: time(staleSinceMs),
        serving_stale_age_seconds: Math.max(0, Math.floor((now - staleSinceMs) / 1000)),
      }),
    })
    const known = kinds.flatMap(kind =>
      shelves[kind].troubled.flatMap(({ id, trouble }) => (trouble ? [tell(kind, id, trouble)] : [])),
    )
    return [...known, ...strangers.map(({ kind, id, trouble }) => tell(kind, id, trouble))]
  }

  /**
   * SHA-256 over what is served: it changes when content changes, and equal content gives equal hashes. The digests of
   * rows are added up, so that order does not matter and no row is hashed twice.
   * source: control-bootstrap §5.3, "any deterministic equivalent serves"
   */
  function configHash(): string {
    if (hash?.applySeq === applySeq) return hash.hex
    let sum = 0n
    for (const kind of kinds) for (const { served } of shelves[kind].rows.values()) if (served) sum += served.digest
    hash = { applySeq, hex: sha256(BigInt.asUintN(256, sum).toString(16)) }
    return hash.hex
  }
}

/** More are settled as a whole. */
const FEW = 1_000

/**
 * What changed between two loads where that is little: the new readings by id, undefined for rows that are gone.
 * returns: undefined where much changed, where a row cannot be read, or where new rows are not behind all others
 */
function fewChanges<K extends Kind>(
  before: ReadonlyMap<string, Held<K>>,
  after: ReadonlyMap<string, Held<K>>,
): Map<string, GoodReading<K> | undefined> | undefined {
  const changes = new Map<string, GoodReading<K> | undefined>()
  const old = before.keys()
  let expected = old.next()
  for (const [id, held] of after) {
    // Rows that are gone are passed over; the others must come in the order in which they came before.
    while (!expected.done && expected.value !== id && !after.has(expected.value)) {
      changes.set(expected.value, undefined)
      expected = old.next()
    }
    if (expected.done ? before.has(id) : expected.value !== id) return undefined
    if (!expected.done) expected = old.next()
    if (before.get(id) === held) continue
    if (!held.reading.ok) return undefined
    changes.set(id, held.reading)
    if (changes.size > FEW) return undefined
  }
  for (; !expected.done; expected = old.next()) changes.set(expected.value, undefined)
  return changes.size > FEW ? undefined : changes
}

function newShelves(): Shelves {
  return {
    provider_keys: newShelf(),
    models: newShelf(),
    api_keys: newShelf(),
    rate_limit_policies: newShelf(),
    budgets: newShelf(),
    observability_exporters: newShelf(),
    passthrough_routes: newShelf(),
  }
}

function newShelf<K extends Kind>(): Shelf<K> {
  return { rows: new Map(), entries: new Map(), names: new Map(), troubled: [], unknownFields: new Map() }
}

/** Entries of every kind by id. */
export type EntryMaps = { [K in Kind]: Map<string, Entry<K>> }

/** Maps for all kinds, with nothing in them. */
export const emptyEntries = (): EntryMaps => entriesOf(newShelves())

function entriesOf(shelves: Shelves): EntryMaps {
  return {
    provider_keys: shelves.provider_keys.entries,
    models: shelves.models.entries,
    api_keys: shelves.api_keys.entries,
    rate_limit_policies: shelves.rate_limit_policies.entries,
    budgets: shelves.budgets.entries,
    observability_exporters: shelves.observability_exporters.entries,
    passthrough_routes: shelves.passthrough_routes.entries,
  }
}

/** A row that has no place here: of a kind that this version does not know, or without a usable id. */
function meet(row: Row, before: Stranger[], now: number): Stranger {
  const kind = typeof row.kind === 'string' ? printable(row.kind) : ''
  const id = typeof row.id === 'string' ? row.id : ''
  const problem: BadReading =
    typeof row.kind !== 'string' || row.kind === '' || id === ''
      ? { ok: false, kind: 'bad_key', error: 'kind and id must be text that is not empty' }
      : { ok: false, kind: 'unknown_kind', error: 'this version does not know resources of this kind' }
  const known = before.find(each => each.kind === kind && each.id === id)
  return { kind, id, trouble: { problem, firstSeenAtMs: known?.trouble.firstSeenAtMs ?? now, staleSinceMs: undefined } }
}

function isSameSequence<T>(some: Iterator<T>, others: Iterator<T>): boolean {
  for (;;) {
    const one = some.next()
    const other = others.next()
    if (one.done || other.done) return one.done === other.done
    if (one.value !== other.value) return false
  }
}

/** RFC 3339, UTC, whole seconds. */
/** RFC 3339 in UTC, whole seconds. */
export function time(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z')
}
