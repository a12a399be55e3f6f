import type { Ring } from './consistent-hash.ts'
import type { StrategyName } from './names.ts'
import type { RunningWeights } from './round-robin.ts'

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
  /** Trimmed, without blanks: what `cleanTags` makes of a target's. */
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
  /** All members of the tier as configured, in the order of declaration; the same array as long as nothing is changed. */
  tier: readonly Candidate[]
  /** What the strategy remembers of this tier; lives as long as the group keeps its id, changes of its configuration included. */
  memory: TierMemory
  hashKey: string
  measures: Measures
}

/** A place for what a strategy remembers between requests; each strategy uses its own part. */
export type TierMemory = { roundRobin?: RunningWeights; ring?: Ring }

/** One way to order the members of a tier. */
export type Strategy = {
  /** All of `candidates`, the one to try first in front, in an array of its own. */
  order<C extends Candidate>(input: StrategyInput<C>): C[]
  /** Undoes the last `order` of a tier, for a request that was refused afterwards: called before any other `order`. */
  takeBack?(memory: TierMemory): void
  /** True where `max_fallbacks` cuts the order before members that are down are taken out (proxy-05 §2). */
  cutsFirst: boolean
  /** True where `hashKey` is looked at: it costs a look into headers. */
  usesHashKey: boolean
}

export type Strategies = Record<StrategyName, Strategy>

/**
 * True where two tiers have the same members with the same weights in the same places, so that what was remembered of one
 * holds for the other: a change elsewhere in the configuration makes new arrays of the same members.
 */
export function isSameTier(one: readonly Candidate[], other: readonly Candidate[]): boolean {
  if (one === other) return true
  if (one.length !== other.length) return false
  return one.every((member, at) => {
    const twin = other[at]
    return twin !== undefined && member.id === twin.id && member.alias === twin.alias && member.weight === twin.weight
  })
}
