/**
 * What the gateway knows of the upstream of each direct model, in memory: cooldowns after failures, background checks, and
 * what routing strategies measure.
 * source: proxy-05 §5, control-resources §2.3, control-admin-api §5 and §6
 */
import type { GatewayError } from './errors.ts'
import type { DirectModel } from './resources/model.ts'

/** Settings of one direct model that decide what its failures mean, with the defaults filled in. */
export type HealthRules = {
  cooldown: {
    isEnabled: boolean
    defaultSecs: number
    maxSecs: number
    honorsRetryAfter: boolean
    statuses: ReadonlySet<number>
    onTimeout: boolean
    onTransport: boolean
  }
  /** Milliseconds for which a failed background check counts; undefined where the model is not checked. */
  staleAfterMs: number | undefined
}

/** Whether groups may use a model now. */
export type Availability = 'healthy' | 'cooldown' | 'unhealthy'

/** What a background check came to. */
export type CheckResult = {
  outcome: 'passed' | 'failed' | 'ignored'
  /** HTTP status of the answer; 408 where the deadline passed; undefined where there was none. */
  status: number | undefined
  reason: 'ignored_transient_error' | 'background_check_failed' | 'upstream_auth_failure' | undefined
}

/** Why a failure speaks against the upstream. */
export const FAILURE_REASONS = [
  'upstream_auth_failure',
  'upstream_request_timeout',
  'upstream_rate_limited',
  'upstream_server_error',
  'upstream_status_failure',
  'request_timeout',
  'transport_error',
  'upstream_decode_error',
  'upstream_in_band_error',
] as const
export type FailureReason = (typeof FAILURE_REASONS)[number]

/** Why a model is not healthy, or what its last check was excused for. */
export const STATUS_REASONS = [...FAILURE_REASONS, 'ignored_transient_error', 'background_check_failed'] as const
export type StatusReason = (typeof STATUS_REASONS)[number]

/** What is known of the upstream of one model, in memory; times are epoch milliseconds of the gateway's clock. */
export interface ModelState {
  /** Attempts and streams under way; counted up and down by the lease that the exchange holds. */
  inFlight: number
  /** Consecutive failures; any success resets them. */
  readonly failures: number
  /** Average of successful attempts in milliseconds (EWMA, alpha 0.3); undefined before the first. */
  readonly latencyMs: number | undefined
  /** Times that it went into cooldown. */
  readonly cooldowns: number
  /**
   * What `least_latency` goes by: the average; nothing for a model that was never measured, which is tried first for that; and
   * infinity for one that was tried without success a short while ago, which would otherwise be first for ever.
   */
  latencyForRouting(nowMs: number): number | undefined
  /** A request was answered: clears cooldown, failures and a failed check. */
  succeeded(): void
  /** Milliseconds of a successful attempt: until the whole answer, or the first event of a stream. */
  measured(ms: number): void
  /** An attempt failed: starts or prolongs the cooldown where the rules say so. */
  failed(error: GatewayError, rules: HealthRules, nowMs: number): void
  /** A background check is over. It starts no cooldown and ends none. */
  checked(result: CheckResult, nowMs: number): void
  /** A check is due, and waits for its turn from now on: meanwhile an earlier verdict does not get any older. */
  checkDue(nowMs: number): void
  /** It runs: the earlier verdict holds for `stale_after_seconds` more at the most. */
  checkStarted(nowMs: number): void
  /** It has come to no verdict, by a mistake of ours. */
  checkFellThrough(): void
  /** The model is no longer checked: what checks said means nothing any more. */
  unchecked(): void
  /** For groups: a failed check weighs more than a cooldown, since a group tries models that are merely in cooldown. */
  availability(rules: HealthRules, nowMs: number): Availability
  /** For status views, where a cooldown is shown before a failed check (control-admin-api §6). */
  report(rules: HealthRules, nowMs: number): HealthReport
}

export type HealthReport = {
  availability: Availability
  /** Epoch milliseconds; undefined outside of a cooldown. */
  cooldownUntil: number | undefined
  /** Of the last background check; undefined before the first. */
  lastCheckedAt: number | undefined
  /** Undefined also where the last check got no answer. */
  lastCheckStatus: number | undefined
  /** Of a healthy model only `ignored_transient_error`: its last check failed, with a status that the operator excuses. */
  reason: StatusReason | undefined
}

export interface ModelHealth {
  /** The state of the model with this id, made on first sight. Survives every change of configuration. */
  of(modelId: string): ModelState
  /** The same without making one. */
  known(modelId: string): ModelState | undefined
  /** Consecutive failures, without making a state. */
  failures(modelId: string): number
  /** Forgets models that are gone and have nothing under way. */
  prune(isKnown: (modelId: string) => boolean): void
}

export function createModelHealth(): ModelHealth {
  const states = new Map<string, State>()
  return {
    of(modelId) {
      let state = states.get(modelId)
      if (!state) {
        state = new State()
        states.set(modelId, state)
      }
      return state
    },
    known: modelId => states.get(modelId),
    failures: modelId => states.get(modelId)?.failures ?? 0,
    prune(isKnown) {
      // A state with something under way is held by an exchange: under a second one of the same id counts would be lost.
      for (const [id, state] of states) if (state.inFlight === 0 && !isKnown(id)) states.delete(id)
    },
  }
}

/** Statuses of an upstream that speak against the server and not against the request. source: control-resources §2.3 */
const DEFAULT_STATUSES: ReadonlySet<number> = new Set([401, 408, 429, 500, 502, 503, 504])

const known = new WeakMap<DirectModel, HealthRules>()

/** The rules of a model, made once for each document: documents are never changed in place. */
export function healthRules(model: DirectModel): HealthRules {
  let rules = known.get(model)
  if (!rules) {
    const { cooldown, background_model_check: check } = model
    rules = {
      cooldown: {
        isEnabled: cooldown?.enabled ?? true,
        defaultSecs: cooldown?.default_seconds ?? 30,
        maxSecs: cooldown?.max_seconds ?? 600,
        honorsRetryAfter: cooldown?.honor_retry_after ?? true,
        statuses: cooldown?.trigger_statuses ? new Set(cooldown.trigger_statuses) : DEFAULT_STATUSES,
        onTimeout: cooldown?.trigger_on_timeout ?? true,
        onTransport: cooldown?.trigger_on_transport ?? true,
      },
      staleAfterMs: check?.enabled ? check.stale_after_seconds * 1_000 : undefined,
    }
    known.set(model, rules)
  }
  return rules
}

/** How long a model that was never measured stays behind the others after a failure, milliseconds. */
const TRIED_IN_VAIN_MS = 60_000

/** Statuses that say that the request was wrong, and nothing of the server. */
const CALLERS_MISTAKES: ReadonlySet<number> = new Set([400, 413, 415, 422])

/** Weight of the newest measurement. source: proxy-05 §3, `least_latency` */
const LATENCY_ALPHA = 0.3

class State implements ModelState {
  inFlight = 0
  failures = 0
  latencyMs: number | undefined
  cooldowns = 0
  private cooldownFrom = 0
  private cooldownUntil = 0
  private cooldownReason: StatusReason | undefined
  /** When the check failed that speaks against the model; undefined when none does. */
  private checkFailedAt: number | undefined
  private checkFailedReason: StatusReason | undefined
  /** When the check became due that is not over yet. */
  private checkDueAt: number | undefined
  private checkStartedAt: number | undefined
  private triedInVainAt = Number.NEGATIVE_INFINITY
  private lastCheckedAt: number | undefined
  private lastCheck: CheckResult | undefined

  succeeded(): void {
    this.failures = 0
    this.cooldownUntil = 0
    this.checkFailedAt = undefined
  }

  measured(ms: number): void {
    this.latencyMs = this.latencyMs === undefined ? ms : LATENCY_ALPHA * ms + (1 - LATENCY_ALPHA) * this.latencyMs
  }

  latencyForRouting(nowMs: number): number | undefined {
    if (this.latencyMs !== undefined) return this.latencyMs
    const isRecent = nowMs >= this.triedInVainAt && nowMs - this.triedInVainAt < TRIED_IN_VAIN_MS
    return isRecent ? Number.POSITIVE_INFINITY : undefined
  }

  failed(error: GatewayError, { cooldown }: HealthRules, nowMs: number): void {
    const failure = classify(error)
    if (!failure) return
    const { reason, status } = failure
    if (status === undefined || !CALLERS_MISTAKES.has(status)) this.triedInVainAt = nowMs
    // What an operator excuses from cooldowns still tells `/admin/v1/health` whether the server works.
    if (status === undefined || DEFAULT_STATUSES.has(status)) this.failures += 1
    if (!cooldown.isEnabled) return
    if (status !== undefined) {
      if (!cooldown.statuses.has(status)) return
    } else if (!(reason === 'request_timeout' ? cooldown.onTimeout : cooldown.onTransport)) return
    const { retryAfterSecs } = error
    // A `Retry-After: 0` says that the server may be asked again, not that it is well: it leaves the default as it is.
    const secs =
      cooldown.honorsRetryAfter && retryAfterSecs !== undefined && retryAfterSecs >= 1
        ? Math.min(retryAfterSecs, cooldown.maxSecs)
        : cooldown.defaultSecs
    const until = nowMs + secs * 1_000
    if (secs === 0 || (this.isCooling(nowMs) && until < this.cooldownUntil)) return
    if (!this.isCooling(nowMs)) this.cooldowns += 1
    this.cooldownFrom = nowMs
    this.cooldownUntil = until
    this.cooldownReason = reason
  }

  checkDue(nowMs: number): void {
    this.checkDueAt ??= nowMs
    this.checkStartedAt = undefined
  }

  checkStarted(nowMs: number): void {
    this.checkStartedAt = nowMs
  }

  checkFellThrough(): void {
    this.checkDueAt = undefined
  }

  checked(result: CheckResult, nowMs: number): void {
    this.checkDueAt = undefined
    this.lastCheckedAt = nowMs
    this.lastCheck = result
    if (result.outcome === 'passed') this.checkFailedAt = undefined
    // An excused failure proves nothing either way: an earlier mark stays until it is stale or a check passes.
    if (result.outcome !== 'failed') return
    this.checkFailedAt = nowMs
    this.checkFailedReason = result.reason
  }

  unchecked(): void {
    this.checkDueAt = undefined
    this.checkFailedAt = undefined
    this.lastCheckedAt = undefined
    this.lastCheck = undefined
  }

  availability(rules: HealthRules, nowMs: number): Availability {
    if (this.isUnhealthy(rules, nowMs)) return 'unhealthy'
    return rules.cooldown.isEnabled && this.isCooling(nowMs) ? 'cooldown' : 'healthy'
  }

  report(rules: HealthRules, nowMs: number): HealthReport {
    const isCooling = rules.cooldown.isEnabled && this.isCooling(nowMs)
    const isUnhealthy = this.isUnhealthy(rules, nowMs)
    const isChecked = rules.staleAfterMs !== undefined
    const excuse = isChecked && this.lastCheck?.outcome === 'ignored' ? this.lastCheck.reason : undefined
    return {
      availability: isCooling ? 'cooldown' : isUnhealthy ? 'unhealthy' : 'healthy',
      cooldownUntil: isCooling ? this.cooldownUntil : undefined,
      lastCheckedAt: isChecked ? this.lastCheckedAt : undefined,
      lastCheckStatus: isChecked ? this.lastCheck?.status : undefined,
      reason: isCooling ? this.cooldownReason : isUnhealthy ? this.checkFailedReason : excuse,
    }
  }

  /** A clock that was set back ends the cooldown: it could last for as long as the clock was wrong otherwise. */
  private isCooling(nowMs: number): boolean {
    return nowMs < this.cooldownUntil && nowMs >= this.cooldownFrom
  }

  private isUnhealthy({ staleAfterMs }: HealthRules, nowMs: number): boolean {
    if (staleAfterMs === undefined || this.checkFailedAt === undefined) return false
    if (this.checkDueAt === undefined) return nowMs - this.checkFailedAt <= staleAfterMs
    // Checks may have to wait for one another: a verdict whose successor is under way still holds.
    if (this.checkDueAt - this.checkFailedAt > staleAfterMs) return false
    return this.checkStartedAt === undefined || nowMs - this.checkStartedAt <= staleAfterMs
  }
}

type Failure = { reason: FailureReason /** Of the upstream's answer, or of the error inside one. */; status: number | undefined }

/**
 * What an error says against the upstream.
 * returns: undefined for what is the gateway's, the configuration's or the caller's own fault
 */
function classify({ kind, upstreamStatus }: GatewayError): Failure | undefined {
  switch (kind) {
    case 'timeout':
      return { reason: 'request_timeout', status: undefined }
    case 'upstream_error':
    case 'upstream_in_band_error':
    case 'upstream_decode_error':
    case 'stream_aborted':
    case 'transport_error':
      // A 2xx whose content is the failure has no status that could speak against the server.
      if (upstreamStatus !== undefined && upstreamStatus >= 300) {
        return { reason: reasonOfStatus(upstreamStatus), status: upstreamStatus }
      }
      if (kind === 'upstream_decode_error') return { reason: kind, status: undefined }
      return {
        reason: kind === 'stream_aborted' || kind === 'transport_error' ? 'transport_error' : 'upstream_in_band_error',
        status: undefined,
      }
    default:
      return undefined
  }
}

function reasonOfStatus(status: number): FailureReason {
  if (status === 401) return 'upstream_auth_failure'
  if (status === 408) return 'upstream_request_timeout'
  if (status === 429) return 'upstream_rate_limited'
  return status >= 500 ? 'upstream_server_error' : 'upstream_status_failure'
}
