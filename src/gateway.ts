import type { Budgets } from './budgets/budget.ts'
import type { Config } from './config.ts'
import type { Exporters } from './exporters/exporter.ts'
import type { InFlight } from './in-flight.ts'
import type { Ledger } from './ledger/ledger.ts'
import type { Fetch } from './lib/fetch.ts'
import type { Log } from './lib/log.ts'
import type { Limiter } from './limits/limit.ts'
import type { RemainingLimits } from './limits/remaining.ts'
import type { ModelHealth } from './model-health.ts'
import type { Store } from './store/store.ts'
import type { Registry } from './telemetry/registry.ts'
import type { RequestMetrics } from './telemetry/request-metrics.ts'

/** Time as the gateway sees it, a field so that tests can pass their own. */
export type Clock = {
  /** Wall clock, epoch milliseconds. */
  now(): number
  /** Milliseconds that only grow, for durations. */
  monotonic(): number
}

export const systemClock: Clock = { now: Date.now, monotonic: () => performance.now() }

/** What every request is handed. */
export type Gateway = {
  config: Config
  store: Store
  /** `fetch` of the runtime, or a test's. Only `proxy/dial.ts` calls it. */
  fetch: Fetch
  clock: Clock
  /** Uniform in [0, 1). */
  random: () => number
  log: Log
  modelHealth: ModelHealth
  /** Counters of rate limits, by the ids of what they limit: they outlive changes of configuration. */
  limiter: Limiter
  /** What keys had left of their limits when they were last answered. */
  remainingLimits: RemainingLimits
  lifecycle: Lifecycle
  /** Every metric that is counted as it happens. */
  registry: Registry
  metrics: RequestMetrics
  /** Where a record of every request goes. */
  ledger: Ledger
  budgets: Budgets
  exporters: Exporters
}

/** Where the process is between its start and its end; what the health endpoints tell. */
export type Lifecycle = {
  /** Set by the first signal to stop. */
  isDraining: boolean
  /** Exchanges that have begun and not settled: requests whose answer, stream included, is not over. */
  inFlight: InFlight
  startedAtMs: number
}
