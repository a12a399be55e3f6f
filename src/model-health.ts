import type { GatewayError } from './errors.ts'

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

/** What is known of the upstream of one model, in memory; times are epoch milliseconds of the gateway's clock. */
export interface ModelState {
  /** Attempts and streams under way; counted up and down by the lease that the exchange holds. */
  inFlight: number
  /** Consecutive failures; any success resets them. */
  readonly failures: number
  /** Average of successful attempts in milliseconds (EWMA, alpha 0.3); undefined before the first. */
  readonly latencyMs: number | undefined
  /** A request was answered: clears cooldown, failures and a failed check. */
  succeeded(): void
  /** Milliseconds of a successful attempt: until the whole answer, or the first event of a stream. */
  measured(ms: number): void
  /** An attempt failed: starts or prolongs the cooldown where the rules say so. */
  failed(error: GatewayError, rules: HealthRules, nowMs: number): void
  checked(result: CheckResult, nowMs: number): void
  /** The model is no longer checked: what checks said means nothing any more. */
  unchecked(): void
  availability(rules: HealthRules, nowMs: number): Availability
  /** For status views. */
  report(rules: HealthRules, nowMs: number): HealthReport
}

export type HealthReport = {
  availability: Availability
  /** Epoch milliseconds. */
  cooldownUntil: number | undefined
  lastCheckedAt: number | undefined
  lastCheckStatus: number | undefined
  reason: string | undefined
}

export interface ModelHealth {
  /** The state of the model with this id, made on first sight. Survives every change of configuration. */
  of(modelId: string): ModelState
  /** Consecutive failures, without making a state. */
  failures(modelId: string): number
  /** Forgets models that are gone and have nothing under way. */
  prune(isKnown: (modelId: string) => boolean): void
}
