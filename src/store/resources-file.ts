import type { Log } from '../lib/log.ts'
import { type Kind, kinds, type Resource } from '../resources/index.ts'
import type { Environment } from '../resources-file/check.ts'
import { type Loader, type Loading, loadInThread } from '../resources-file/loader.ts'
import { type Problem, renderReport, renderScope } from '../resources-file/problem.ts'
import { addApiKey, buildSnapshot, type CallerKey, type Snapshot } from './snapshot.ts'
import { type Rejection, type Store, type StoreStatus, WritesRefused } from './store.ts'
import { type EntryMaps, emptyEntries, time, type WallClock } from './table.ts'

export type ResourcesFileOptions = {
  /** Absolute, as messages tell it. */
  path: string
  /** Where `${NAME}` and `key_env` are taken from. */
  env: Environment
  clock: WallClock
  log: Log
  load?: Loader
}

/** The store of a resources file: read as a whole, changed by `reload` alone. */
export type ResourcesFileStore = Store & {
  /**
   * Reads the file again: all of it takes the place of what was served, or nothing does. One reload at a time; those that
   * are asked for meanwhile become one more behind it. Never throws: the status and the log tell how it came out.
   */
  reload(): Promise<void>
}

/** The file cannot be used. The message is the report. */
export class ResourcesFileError extends Error {}

/** Warnings about one file that are logged before the rest is counted. */
const WARNINGS_SHOWN = 20
const ERROR_CHARACTERS_MAX = 1024

type Refusal = { problems: Problem[]; count: number; hash: string | undefined }

/**
 * Opens the resources file in place of a store.
 * throws: ResourcesFileError
 * source: control-resources-file §6
 */
export async function openResourcesFile({
  path,
  env,
  clock,
  log: parent,
  load = loadInThread,
}: ResourcesFileOptions): Promise<ResourcesFileStore> {
  const log = parent.as('store')
  let snapshot: Snapshot = buildSnapshot(0, emptyEntries())
  let generation = 0
  let appliedAtMs: number | undefined
  let appliedHash: string | undefined
  let source: { hash: string; atMs: number } | undefined
  let reloads = 0
  const reloadFailures: Record<string, number> = {}
  let lastReload: { successful: boolean; atMs: number } | undefined
  let lastFailure: StoreStatus['lastFailure'] = null
  let rejected: Rejection[] = []
  let problem: string | undefined
  let running: Promise<void> | undefined
  let isWanted = false
  let isClosed = false

  /** out: the report where the file was refused */
  async function loadOnce(): Promise<string | undefined> {
    const startedAtMs = clock.now()
    const refusal = await take()
    const now = clock.now()
    reloads += 1
    lastReload = { successful: refusal === undefined, atMs: now }
    if (refusal === undefined) {
      rejected = []
      problem = undefined
      const resources = kinds.reduce((sum, kind) => sum + snapshot.entries[kind].size, 0)
      log.info('resources file loaded', { path, resources, generation, took_ms: now - startedAtMs })
      return undefined
    }
    const { problems, count, hash } = refusal
    if (hash !== undefined) source = { hash, atMs: now }
    tell(problems, now)
    problem = `the resources file ${path} was refused when it was last read, with ${count} error(s) that /status/config lists; what was loaded before goes on serving`
    return renderReport(path, problems, count)
  }

  /** Reads the file, and puts what it says in the place of what is served. out: what is wrong with it */
  async function take(): Promise<Refusal | undefined> {
    let loading: Loading | undefined
    try {
      loading = await load(path, env)
      if (loading.isRefused) return loading
      const next = generation + 1
      const entries = emptyEntries()
      const apiKeys = new Map<string, CallerKey>()
      for (let slice = await loading.next(); slice !== undefined; slice = await loading.next()) {
        for (const { kind, id, value } of slice) put(entries, kind, id, value, next)
        for (const { id } of slice) {
          const entry = entries.api_keys.get(id)
          if (entry) addApiKey(apiKeys, entry, snapshot.apiKeys)
        }
        // Requests are served in between: the next slice may wait in line already.
        await new Promise(resolve => setImmediate(resolve))
      }
      snapshot = buildSnapshot(next, entries, {
        ...snapshot,
        apiKeys,
        entries: { api_keys: entries.api_keys, models: snapshot.entries.models },
      })
      generation = next
      appliedAtMs = clock.now()
      source = { hash: loading.hash, atMs: appliedAtMs }
      appliedHash = loading.hash
      for (const warning of loading.warnings.slice(0, WARNINGS_SHOWN)) log.warn(warning, { path })
      const more = loading.warnings.length - WARNINGS_SHOWN
      if (more > 0) log.warn(`the resources file has ${more} more warnings; aisix validate lists them`, { path })
      return undefined
    } catch (error) {
      // The thread ended, for want of memory perhaps.
      const message = error instanceof Error ? error.message : String(error)
      return { problems: [{ scope: undefined, message, reason: 'fetch' }], count: 1, hash: undefined }
    } finally {
      if (loading?.isRefused === false) loading.end()
    }
  }

  /** The same document as before stays the same object: what was made of it goes on being used. */
  function put<K extends Kind>(entries: EntryMaps, kind: K, id: string, value: Resource[K], revision: number): void {
    const known = snapshot.entries[kind].get(id)?.value
    entries[kind].set(id, { id, value: known !== undefined && Bun.deepEquals(known, value) ? known : value, revision })
  }

  /** Keeps for the status what a refused file was refused for. */
  function tell(problems: readonly Problem[], now: number): void {
    for (const reason of new Set(problems.map(({ reason }) => REASONS[reason].metric))) {
      reloadFailures[reason] = (reloadFailures[reason] ?? 0) + 1
    }
    const before = new Map(rejected.map(each => [`${each.resource_kind}/${each.resource_id}: ${each.last_error}`, each]))
    rejected = problems.map(({ scope, message, reason }) => {
      const row = {
        resource_kind: scope?.collection ?? '',
        resource_id: scope === undefined ? '' : (scope.identity ?? renderScope(scope)),
        last_error_kind: REASONS[reason].kind,
        last_error: cut(message),
      }
      const known = before.get(`${row.resource_kind}/${row.resource_id}: ${row.last_error}`)
      return { ...row, first_seen_at: known?.first_seen_at ?? time(now), last_seen_at: time(now) }
    })
    const [first] = problems
    if (!first) return
    lastFailure =
      first.reason === 'fetch'
        ? { at: time(now), last_error_kind: 'fetch', last_error: 'configuration source unreachable' }
        : {
            at: time(now),
            last_error_kind: REASONS[first.reason].kind,
            last_error: cut(`${renderScope(first.scope)}: ${first.message}`),
          }
  }

  const writesRefused = `resources are file-managed: this gateway loads its resources from ${path}; edit that file and send SIGHUP to reload instead of using the resource write API`
  const refuse = () => Promise.reject(new WritesRefused(writesRefused))

  const report = await loadOnce()
  if (report !== undefined) throw new ResourcesFileError(report)

  return {
    get snapshot() {
      return snapshot
    },
    get status(): StoreStatus {
      return {
        source: 'file',
        sourceHash: source?.hash,
        connected: true,
        problem,
        observedRevision: generation,
        appliedRevision: generation,
        observedAt: source && time(source.atMs),
        applySeq: generation,
        appliedAt: appliedAtMs === undefined ? undefined : time(appliedAtMs),
        configHash: appliedHash,
        // Nothing changes what is served but a reload.
        confirmedAt: clock.now(),
        lastReload: lastReload && { successful: lastReload.successful, at: time(lastReload.atMs) },
        lastReloadSuccessAt: appliedAtMs,
        lastFailure,
        rejected,
        partiallyCompatible: [],
        reloads,
        reloadFailures: { ...reloadFailures },
      }
    },
    list: kind => [...snapshot.entries[kind].values()],
    get: (kind, id) => snapshot.entries[kind].get(id),
    holds: (kind, id) => snapshot.entries[kind].has(id),
    writesRefused,
    create: refuse,
    replace: refuse,
    remove: refuse,
    refresh: () => undefined,
    reload() {
      isWanted = true
      running ??= (async () => {
        while (isWanted && !isClosed) {
          isWanted = false
          const report = await loadOnce()
          if (report !== undefined) {
            log.warn('the resources file was refused; what was loaded before goes on serving', { report })
          }
        }
        running = undefined
      })()
      return running
    },
    async close() {
      isClosed = true
    },
  }
}

/** How reasons are called by the status and by the metrics. source: control-bootstrap §5.3, control-observability §2 */
const REASONS = {
  fetch: { kind: 'parse_failed', metric: 'fetch' },
  yaml: { kind: 'non_json', metric: 'parse' },
  decode: { kind: 'parse_failed', metric: 'validate' },
  validate: { kind: 'schema_failed', metric: 'validate' },
} as const satisfies Record<Problem['reason'], { kind: Rejection['last_error_kind']; metric: string }>

function cut(text: string): string {
  return text.length > ERROR_CHARACTERS_MAX ? `${text.slice(0, ERROR_CHARACTERS_MAX - 1)}…` : text
}
