import type { StrategyName } from './names.ts'

/** A member of a group as strategies see it: plain values, no resource. */
export type Candidate = {
  /** Id of the model: what loads and latencies are kept by. */
  id: string
  alias: string
  /** At least 1. */
  weight: number
  /** Higher ones are tried first; equal ones form a tier. */
  priority: number
  /** USD per 1,000 prompt and 1,000 completion tokens added up; undefined where the model has no price. */
  cost: number | undefined
  tags: readonly string[]
}

/** What strategies may ask about a member. */
export type Measures = {
  /** Attempts under way at the model with this id, open streams included. */
  inFlight(id: string): number
  /** Average milliseconds of its successful attempts, undefined before the first. */
  latencyMs(id: string): number | undefined
}

export type StrategyInput<C extends Candidate> = {
  /** Members of one tier that may serve this request, in the order of declaration. */
  candidates: readonly C[]
  /** All members of the tier as configured, in the order of declaration. */
  tier: readonly Candidate[]
  /** What the strategy remembers of this tier; lives as long as the group keeps its id, changes of its configuration included. */
  memory: TierMemory
  hashKey: string
  measures: Measures
}

/** A place for what a strategy remembers between requests; each strategy uses its own part. */
export type TierMemory = { roundRobin?: unknown; ring?: unknown }

/** One way to order the members of a tier. */
export type Strategy = {
  /** All of `candidates`, the one to try first in front. */
  order<C extends Candidate>(input: StrategyInput<C>): C[]
  /** True where `max_fallbacks` cuts the order before members that are down are taken out (proxy-05 §2). */
  cutsFirst: boolean
  /** True where `hashKey` is looked at: it costs a look into headers. */
  usesHashKey: boolean
}

export type Strategies = Record<StrategyName, Strategy>
