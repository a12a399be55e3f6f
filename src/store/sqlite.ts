import { SQLiteError } from 'bun:sqlite'
import { resolve } from 'node:path'
import type { Log } from '../lib/log.ts'
import type { Kind, Resource } from '../resources/index.ts'
import { type AuditAction, type AuditDraft, type AuditLog, type AuditPage, difference } from './audit.ts'
import { RefusalQueue } from './refusal-queue.ts'
import {
  type Change,
  Displaced,
  explain,
  isBusy,
  keepsConnection,
  openStoreFile,
  openToOthers,
  type StoreFile,
  StoreOpenError,
} from './sqlite-file.ts'
import { type Actor, type Store, StoreUnavailable } from './store.ts'
import { createTable, type Draft, type WallClock } from './table.ts'

export { StoreOpenError }

export type SqliteStoreOptions = {
  /** The database file; created when it is missing, in a folder that exists. */
  path: string
  /** `monotonic` is milliseconds that only grow. */
  clock: WallClock & { monotonic(): number }
  log: Log
  /** How often the file is looked at for changes that others made. */
  pollMs?: number
  /** How long a write waits for a lock that another process holds. */
  busyWaitMs?: number
  /** Days after which entries of the audit log go; left out, they are kept for ever. */
  auditRetentionDays?: number
}

/** How often a store that took no writes is tried again. */
const RETRY_MS = 1_000
const FIRST_PAUSE_MS = 10
const LONGEST_PAUSE_MS = 320

/** How often old entries of the audit log are looked for, and how many go in one transaction: others wait meanwhile. */
const PRUNE_EVERY_MS = 3_600_000
const PRUNE_ROWS = 2_000
const DAY_MS = 86_400_000

/** A change to make, its entry in the audit log, and what makes it visible once it is durable. */
type Plan<T> = {
  change: Change
  entry: AuditDraft
  /** in: the store's new change counter */
  apply(revision: number): T
}

/**
 * The store in an SQLite file.
 *
 * SQLite runs on the event loop, so nothing here may wait inside it: a lock is waited for on a timer, and each
 * transaction begins and ends within one turn of the loop. Writes run one after the other. The file may be written by
 * others, swapped or removed at any time: it is looked at every `pollMs`, and around each write, and while it cannot be
 * read the last snapshot goes on serving.
 * throws: StoreOpenError when the file cannot be opened at the start
 * source: spec, point 7; bun-notes, "Storage, logs, signals"
 */
export function openSqliteStore(options: SqliteStoreOptions): Store & { readonly audit: AuditLog } {
  const { path: given, clock, log: parent, pollMs = 250, busyWaitMs = 2000, auditRetentionDays } = options
  // An absolute path survives a change of directory, and is never taken for one of SQLite's own names such as `:memory:`.
  const path = resolve(given)
  const log = parent.as('store')
  const table = createTable(clock)

  // Nothing is served yet, so that this one time SQLite may wait for another gateway that is migrating.
  let file: StoreFile | undefined = openStoreFile(path, { create: true, busyMs: busyWaitMs })
  let problem: string | undefined
  /** Why the last write was refused by the store, until it takes one again. */
  let writeProblem: string | undefined
  let triedAt = 0
  let busySince: number | undefined
  let confirmedAt: number | undefined
  let reported = new Set<string>()
  let closing: Promise<void> | undefined
  let queue: Promise<unknown> = Promise.resolve()
  const refusals = new RefusalQueue(clock)
  const written = { applied: 0, refused: 0 }

  try {
    load(file)
    confirmedAt = clock.now()
  } catch (error) {
    file.close()
    throw new StoreOpenError(explain(error, path), { cause: error })
  }
  checkMode()

  const timer = setInterval(check, pollMs)
  timer.unref()
  const pruneTimer = auditRetentionDays === undefined ? undefined : setInterval(() => prune(auditRetentionDays), PRUNE_EVERY_MS)
  pruneTimer?.unref()
  if (auditRetentionDays !== undefined) prune(auditRetentionDays)

  /** A file of the operator's keeps the mode that it came with, a restored one too, but not in silence. */
  function checkMode(): void {
    const mode = openToOthers(path)
    if (mode) log.warn('the store holds credentials and is open to other users; chmod 600 it', { path, mode })
  }

  /** Reads everything anew, and tells of rows that cannot be served. */
  function load(from: StoreFile): void {
    const { revision, rows } = from.load()
    table.load(revision, rows)
    const now = new Set<string>()
    for (const { resource_kind, resource_id, last_error_kind, last_error, serving_stale_since } of table.rejected()) {
      const fault = `${resource_kind}/${resource_id}: ${last_error}`
      now.add(fault)
      if (reported.has(fault)) continue
      const fields = { kind: resource_kind, id: resource_id, reason: last_error_kind, error: last_error }
      log.warn('a stored row is not served as it stands', { ...fields, last_good_served: serving_stale_since !== undefined })
    }
    reported = now
  }

  /** Looks whether the file is still there and still says what is served. Never throws and never waits. */
  function check(): void {
    if (closing) return
    try {
      if (file) stay(file)
      file ??= reopen()
      busySince = undefined
      confirmedAt = clock.now()
      if (problem !== undefined) log.info('the store can be read again', { path })
      problem = undefined
      const isWaiting = refusals.size > 0 || writeProblem !== undefined
      if (isWaiting && clock.monotonic() - triedAt >= RETRY_MS) recordRefusals()
    } catch (error) {
      miss(error)
    }
  }

  /** Follows the open file. Lets go of it when another one lies at the path, which is then opened in the same look. */
  function stay(open: StoreFile): void {
    try {
      open.assertInPlace()
      if (open.hasChanged()) load(open)
      open.emptyLog()
    } catch (error) {
      if (!(error instanceof Displaced)) throw error
      const obstacle = open.abandon(error.how)
      if (obstacle !== undefined) throw new Displaced(`${error.message}, ${obstacle}`, error.how)
      log.warn(error.message)
      file = undefined
    }
  }

  function reopen(): StoreFile {
    const opened = openStoreFile(path, { create: false, busyMs: 0 })
    try {
      load(opened)
      checkMode()
      return opened
    } catch (error) {
      opened.close()
      throw error
    }
  }

  /** The file could not be read: the last snapshot goes on serving, and the status says why. */
  function miss(error: unknown): void {
    if (isBusy(error)) {
      busySince ??= clock.monotonic()
      if (clock.monotonic() - busySince < busyWaitMs) return
    }
    const words = explain(error, path)
    if (problem === undefined) table.loadFailed()
    if (problem !== words) log.warn('the store cannot be read; what was read last goes on serving', { problem: words })
    problem = words
    if (file && !(error instanceof Displaced)) drop(error, file)
  }

  /** Closes a connection that an error may have left unusable; the next look opens a new one. */
  function drop(error: unknown, open: StoreFile): void {
    if (keepsConnection(error) && open.isSound()) return
    file = undefined
    open.close()
  }

  /**
   * One write: refreshed, checked, durable, and only then visible.
   * in: `prepare` sees the newest state; it gives the change to make, or undefined when there is nothing to do
   * out: what `prepare` makes of the new change counter once the change is durable
   * throws: what `prepare` throws; StoreUnavailable; SQLiteError while the store is locked
   */
  function transact<T>(prepare: () => Plan<T> | undefined): T | undefined {
    if (!file) check()
    const open = file
    if (!open) throw new StoreUnavailable(problem ?? `the store ${path} is not open`)
    let plan: Plan<T> | undefined
    let revision = 0
    open.assertInPlace()
    try {
      open.begin()
      if (open.hasChanged()) load(open)
      plan = prepare()
      if (!plan) return undefined
      revision = open.write(plan.change, table.snapshot.revision)
      // What was refused before it stands before it.
      open.record([...refusals.pending, plan.entry])
      open.assertInPlace()
      open.commit()
    } finally {
      open.rollback()
    }
    hasWritten(refusals.size, 1)
    refusals.told(plan.entry.actor, plan.entry.omitted)
    tookWrite()
    // SQLite writes into a file without a name as gladly as into any other.
    open.assertInPlace()
    open.emptyLog()
    confirmedAt = clock.now()
    return plan.apply(revision)
  }

  function hasWritten(refused: number, applied: number): void {
    refusals.written(refused)
    written.refused += refused
    written.applied += applied
  }

  /** One transaction that touches the audit log alone. throws: as `transact` */
  function amendAudit<T>(amend: (open: StoreFile) => T): T {
    if (!file) check()
    const open = file
    if (!open) throw new StoreUnavailable(problem ?? `the store ${path} is not open`)
    open.assertInPlace()
    try {
      open.begin()
      const amended = amend(open)
      open.assertInPlace()
      open.commit()
      return amended
    } finally {
      open.rollback()
    }
  }

  /**
   * Writes refused changes down after what is queued; those that cannot be written wait for the next try. While the store
   * takes no writes this is also what finds out that it does again.
   */
  function recordRefusals(): void {
    triedAt = clock.monotonic()
    queue = queue.then(() => {
      const { pending } = refusals
      if (pending.length === 0 && writeProblem === undefined) return
      try {
        amendAudit(open => (pending.length > 0 ? open.record(pending) : open.touch()))
        hasWritten(pending.length, 0)
        tookWrite()
        file?.emptyLog()
      } catch (error) {
        if (!isBusy(error)) refusal(error)
      }
    })
  }

  function tookWrite(): void {
    if (writeProblem !== undefined) log.info('the store takes writes again', { path })
    writeProblem = undefined
  }

  /** Removes old entries of the audit log, a piece at a time, with other writes in between. */
  function prune(days: number): void {
    queue = queue.then(() => {
      if (closing) return
      const now = clock.now()
      const time = (ms: number) => new Date(ms).toISOString()
      try {
        if (amendAudit(open => open.prune(time(now - days * DAY_MS), PRUNE_ROWS, time(now)))) setTimeout(prune, 0, days).unref()
      } catch (error) {
        // Tried again in an hour; what is wrong with the store is told by whoever needs it sooner.
        refusal(error)
      }
    })
  }

  /** Runs a write after those before it, and again while another process holds the lock. */
  function write<T>(prepare: () => Plan<T> | undefined): Promise<T | undefined> {
    if (closing) return Promise.reject(new StoreUnavailable('the store is closed because the gateway is stopping'))
    const queuedAt = clock.monotonic()
    const turn = queue.then(async () => {
      // Time in the queue counts, or the writes behind a locked one would each wait in full.
      let budgetMs = busyWaitMs - (clock.monotonic() - queuedAt)
      for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
        try {
          return transact(prepare)
        } catch (error) {
          if (!isBusy(error) || budgetMs <= 0) throw refusal(error)
        }
        await Bun.sleep(Math.min(pauseMs, budgetMs))
        budgetMs -= pauseMs
      }
    })
    queue = turn.catch(() => undefined)
    return turn
  }

  /** What the caller is told, after the store has been put back into a state to go on from. */
  function refusal(error: unknown): unknown {
    if (!(error instanceof Displaced || error instanceof SQLiteError)) return error
    const words = explain(error, path)
    if (words !== writeProblem) log.error('the store refused a write', { problem: words })
    writeProblem = words
    if (!isBusy(error)) file?.distrust()
    if (error instanceof Displaced) check()
    else if (file) drop(error, file)
    return new StoreUnavailable(words, { cause: error })
  }

  /** A change and its entry in the audit log. in: the document before it and after it, where there is one and it can be read */
  function planned<K extends Kind>(
    action: AuditAction,
    kind: K,
    id: string,
    actor: Actor,
    { before, after, row }: { before: Resource[K] | undefined; after: Resource[K] | undefined; row: Change['row'] },
  ): Pick<Plan<unknown>, 'change' | 'entry'> {
    const at = new Date(clock.now()).toISOString()
    return {
      change: { isNew: action === 'create', kind, id, at, row },
      entry: {
        at,
        actor: actor.adminKey,
        address: actor.address,
        request_id: actor.requestId ?? '',
        action,
        kind,
        id,
        ...difference(kind, before, after),
        outcome: 'applied',
        status: null,
        reason: null,
        omitted: refusals.omittedBy(actor.adminKey),
      },
    }
  }
  const putting = <K extends Kind>(action: AuditAction, draft: Draft<K>, before: Resource[K] | undefined, actor: Actor) => ({
    ...planned(action, draft.kind, draft.id, actor, { before, after: draft.reading.entry.value, row: draft }),
    apply: (revision: number) => table.put(draft, revision),
  })

  const audit: AuditLog = {
    get status() {
      return { written: { ...written }, omitted: refusals.omitted }
    },

    refused(each) {
      refusals.offer(each)
      if (!closing && problem === undefined) recordRefusals()
    },

    async read(question) {
      // What was refused before it was asked is in the answer.
      await queue
      const entries: AuditPage['entries'] = []
      let before = question.before
      for (;;) {
        try {
          const open = file
          if (!open) throw new StoreUnavailable(problem ?? `the store ${path} is not open`)
          // One more tells whether there are more.
          const slice = open.slice(question, before, question.limit + 1 - entries.length)
          entries.push(...slice.entries)
          before = slice.next
        } catch (error) {
          if (!(error instanceof SQLiteError)) throw error
          throw new StoreUnavailable(explain(error, path), { cause: error })
        }
        if (entries.length > question.limit) {
          entries.pop()
          return { entries, next: entries.at(-1)?.seq }
        }
        if (before === undefined) return { entries, next: undefined }
        // Requests go first: a long log is no reason to wait.
        await Bun.sleep(0)
      }
    },
  }

  return {
    get snapshot() {
      return table.snapshot
    },
    get status() {
      return table.status({ connected: !closing && problem === undefined, problem, writeProblem, confirmedAt })
    },
    writesRefused: undefined,
    audit,
    list: table.list,
    get: table.get,

    async create(kind, value, actor) {
      const id = crypto.randomUUID()
      const created = await write(() => putting('create', table.draft(kind, id, value, 1), undefined, actor))
      if (!created) throw new Error('a creation without an outcome')
      return created
    },

    holds: (kind, id) => table.revisionOf(kind, id) !== undefined,

    replace(kind, id, compute, actor, repair, action = 'replace') {
      return write(() => {
        const revision = table.revisionOf(kind, id)
        if (revision === undefined) return undefined
        const now = table.readable(kind, id)
        // A copy: the entry is part of snapshots that requests are working on.
        const value = now === undefined ? repair?.() : compute(structuredClone(now))
        if (value === undefined) return undefined
        return putting(action, table.draft(kind, id, value, revision + 1), now, actor)
      })
    },

    async remove(kind, id, actor) {
      const removed = await write(() => {
        if (table.revisionOf(kind, id) === undefined) return undefined
        const before = table.readable(kind, id)
        return {
          ...planned('delete', kind, id, actor, { before, after: undefined, row: undefined }),
          apply: (revision: number) => {
            table.remove(kind, id, revision)
            return true
          },
        }
      })
      return removed ?? false
    },

    refresh: check,

    /** Writes that were accepted are finished first. */
    close() {
      clearInterval(timer)
      clearInterval(pruneTimer)
      closing ??= queue.then(() => {
        file?.finish()
        file = undefined
      })
      return closing
    },
  }
}
