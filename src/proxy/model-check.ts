import { causeOf, GatewayError, toGatewayError } from '../errors.ts'
import type { Clock } from '../gateway.ts'
import type { Log } from '../lib/log.ts'
import type { ModelHealth } from '../model-health.ts'
import { type BackgroundModelCheck, checkMode } from '../resources/model.ts'
import { type DirectEntry, isDirectEntry, type Snapshot } from '../store/snapshot.ts'
import type { Entry, Store } from '../store/store.ts'
import type { Dial } from './dial.ts'
import { type Probed, probe } from './probe.ts'
import type { Upstream } from './upstream.ts'

/** source: proxy-05 §5 */
const AT_ONCE_MAX = 4
/** From one warning that checks are late to the next. */
const LATE_WARNING_MS = 60_000

export type ModelCheckerOptions = {
  store: Pick<Store, 'snapshot' | 'holds'>
  clock: Clock
  modelHealth: ModelHealth
  log: Log
  /** throws: GatewayError where the provider key is of no use */
  upstreamOf(entry: Entry<'provider_keys'>): Upstream
  dial: Dial
}

export type ModelChecker = {
  /** Starts the checks that are due. To be called about once a second. in: epoch milliseconds */
  tick(nowMs: number): void
  /** Ends what runs and starts nothing more; resolves when all of it is over. What has not come to an end is not recorded. */
  stop(): Promise<void>
}

/** A model that is checked, as it stood when it was last looked at: a change of it, or of its key, makes another one. */
type Checked = {
  readonly entry: DirectEntry
  readonly check: BackgroundModelCheck
  readonly providerKey: Entry<'provider_keys'> | undefined
  /** When its last check began, epoch milliseconds; undefined before the first. */
  startedAt: number | undefined
  /** There while a check runs: ends it. */
  running: AbortController | undefined
  /** What the last check that came to a verdict said. */
  isFailing: boolean
}

/**
 * Background checks of direct models: the first right after a model appears or changes, then one every
 * `interval_seconds`, counted from the start of the last. At most four run at once, never two of one model; those that
 * are due beyond that wait in line. Patterns and groups are not checked.
 * A check counts in no record of requests: neither load, nor usage, nor cooldown.
 */
export function createModelChecker(options: ModelCheckerOptions): ModelChecker {
  const { store, clock, modelHealth, upstreamOf, dial } = options
  const log = options.log.as('health')
  /** By the model's id. */
  const all = new Map<string, Checked>()
  /** Due, in the order in which they became so. */
  const waiting = new Set<Checked>()
  const running = new Set<Promise<void>>()
  let seen: { models: Snapshot['entries']['models']; providerKeys: Snapshot['providerKeys'] } | undefined
  let isStopped = false
  let lateWarnedAt = Number.NEGATIVE_INFINITY

  const drop = (model: Checked) => {
    waiting.delete(model)
    model.running?.abort()
  }

  const reconcile = ({ entries, providerKeys }: Snapshot) => {
    if (seen?.models === entries.models && seen.providerKeys === providerKeys) return
    seen = { models: entries.models, providerKeys }
    const gone = new Set(all.keys())
    for (const entry of entries.models.values()) {
      const check = checkOf(entry)
      if (!check || !isDirectEntry(entry)) continue
      gone.delete(entry.id)
      const providerKey = providerKeys.get(entry.value.provider_key_id)
      const known = all.get(entry.id)
      if (known?.entry === entry && known.providerKey === providerKey) continue
      if (known) drop(known)
      const isFailing = known?.isFailing ?? false
      all.set(entry.id, { entry, check, providerKey, startedAt: undefined, running: undefined, isFailing })
    }
    for (const id of gone) {
      const model = all.get(id)
      if (model) drop(model)
      all.delete(id)
      modelHealth.of(id).unchecked()
    }
    // A row that is stored but not served for a while, because another has its name, keeps its state.
    modelHealth.prune(id => entries.models.has(id) || store.holds('models', id))
  }

  const startWaiting = () => {
    for (const model of waiting) {
      if (running.size >= AT_ONCE_MAX) return
      waiting.delete(model)
      start(model)
    }
  }

  const start = (model: Checked) => {
    const controller = new AbortController()
    model.running = controller
    model.startedAt = clock.now()
    modelHealth.of(model.entry.id).checkStarted(model.startedAt)
    const run = checkOnce(model, controller.signal)
      .then(
        probed => {
          if (!controller.signal.aborted) record(model, probed)
        },
        error => {
          if (!controller.signal.aborted) logMistake(model, error)
        },
      )
      .then(() => {
        model.running = undefined
        running.delete(run)
        startWaiting()
      })
    running.add(run)
  }

  const checkOnce = async ({ entry, check, providerKey }: Checked, signal: AbortSignal): Promise<Probed> => {
    let upstream: Upstream
    try {
      if (!providerKey) {
        throw new GatewayError(
          'invalid_upstream_config',
          `model "${entry.value.display_name}" names a provider key that does not exist`,
        )
      }
      upstream = upstreamOf(providerKey)
    } catch (thrown) {
      // A model that cannot be called fails its check; nothing is asked.
      const error = toGatewayError(thrown)
      if (error.kind === 'internal_error') throw error
      return { result: { outcome: 'failed', status: undefined, reason: 'background_check_failed' }, error }
    }
    return await probe(dial, { entry, check, providerKey, upstream }, signal)
  }

  const record = (model: Checked, { result, error }: Probed) => {
    modelHealth.of(model.entry.id).checked(result, clock.now())
    const { outcome, status, reason } = result
    const fields = {
      model: model.entry.value.display_name,
      provider_key: model.providerKey?.value.display_name,
      mode: checkMode(model.check),
      status,
      reason,
    }
    if (outcome === 'ignored') log.debug('a failed check is ignored', { ...fields, error: error?.message })
    if (outcome === 'ignored' || model.isFailing === (outcome === 'failed')) return
    model.isFailing = outcome === 'failed'
    if (model.isFailing) log.warn('model is unhealthy', { ...fields, error: error?.message, ...causeOf(error) })
    else log.info('model is healthy again', fields)
  }

  /** With many hung servers four checks at once are few: then marks are older than their intervals promise. */
  const warnIfLate = (nowMs: number) => {
    for (const { entry, check, startedAt } of waiting) {
      // In the order in which they became due: the first has waited longest.
      if (startedAt === undefined || nowMs < startedAt + 2 * check.interval_seconds * 1_000) return
      if (nowMs < lateWarnedAt + LATE_WARNING_MS && nowMs >= lateWarnedAt) return
      lateWarnedAt = nowMs
      log.warn('background checks are late: lower timeout_seconds or raise interval_seconds', {
        model: entry.value.display_name,
        waiting: waiting.size,
        since_last_check_secs: Math.round((nowMs - startedAt) / 1_000),
      })
      return
    }
  }

  const logMistake = ({ entry }: Checked, error: unknown) => {
    modelHealth.of(entry.id).checkFellThrough()
    const { message } = toGatewayError(error)
    log.error('a check could not be made', { model: entry.value.display_name, error: message, ...causeOf(error) })
  }

  return {
    tick(nowMs) {
      if (isStopped) return
      reconcile(store.snapshot)
      for (const model of all.values()) {
        if (model.running || waiting.has(model) || !isDue(model, nowMs)) continue
        waiting.add(model)
        modelHealth.of(model.entry.id).checkDue(nowMs)
      }
      startWaiting()
      warnIfLate(nowMs)
    },
    async stop() {
      isStopped = true
      waiting.clear()
      for (const model of all.values()) model.running?.abort()
      await Promise.all(running)
    },
  }
}

/** The settings of a model that is to be checked; undefined where it is not. */
function checkOf(entry: Entry<'models'>): BackgroundModelCheck | undefined {
  // A pattern names no model that could be asked for.
  if (!isDirectEntry(entry) || entry.value.display_name.includes('*')) return undefined
  const { background_model_check: check } = entry.value
  return check?.enabled ? check : undefined
}

/** A clock that was set back must not stop the checks until it has caught up: then one is due at once. */
function isDue({ startedAt, check }: Checked, nowMs: number): boolean {
  return startedAt === undefined || nowMs >= startedAt + check.interval_seconds * 1_000 || nowMs < startedAt
}
