import { STRATEGIES } from './index.ts'
import type { StrategyName } from './names.ts'
import type { Candidate, Measures, Strategy, TierMemory } from './strategy.ts'

/** A group made ready for its requests: made once for each state of its configuration. */
export type Group<C extends Candidate> = {
  strategy: Strategy
  /** In the order of declaration. */
  members: readonly C[]
  /** The members by priority, the highest first, each tier in the order of declaration; none is empty. */
  tiers: readonly (readonly C[])[]
  /** False where tags of requests mean nothing. */
  hasTags: boolean
  /** How many candidates may be tried after the first; undefined: all. */
  maxFallbacks: number | undefined
  whenAllUnavailable: 'fail' | 'try_anyway'
}

/** `unusable`: the configuration does not allow a call at all, which no time mends. */
export type Availability = 'healthy' | 'cooldown' | 'unhealthy' | 'unusable'

/** What a group remembers between requests, by the priority of the tier. Belongs to the group's id, and outlives `Group`. */
export type GroupMemory = Map<number, TierMemory>

export function planGroup<C extends Candidate>(
  strategy: StrategyName,
  members: readonly C[],
  options: Pick<Group<C>, 'maxFallbacks' | 'whenAllUnavailable'>,
): Group<C> {
  const byPriority = [...Map.groupBy(members, member => member.priority)].sort(([a], [b]) => b - a)
  return {
    strategy: STRATEGIES[strategy],
    members,
    tiers: byPriority.map(([, tier]) => tier),
    hasTags: members.some(({ tags }) => tags.length > 0),
    maxFallbacks: options.maxFallbacks,
    whenAllUnavailable: options.whenAllUnavailable,
  }
}

/**
 * The members that this request will be offered to, one after the other.
 * in: `eligible` are those that its tags and the caller's address leave over, at least one, in the order of declaration;
 * `group.members` itself where that is all of them
 * returns: at least one, or undefined when all are unhealthy and the group does not try them then
 * source: proxy-05 §2 (3 to 5), §5 "Filter"
 */
export function orderCandidates<C extends Candidate>(
  group: Group<C>,
  eligible: readonly C[],
  context: {
    memory: GroupMemory
    hashKey: string
    measures: Measures
    availability(candidate: C): Availability
    /** Takes in the memories of the tiers that were ordered, for `takeBack`. */
    ordered?: TierMemory[]
  },
): C[] | undefined {
  const { strategy, maxFallbacks } = group
  const most = maxFallbacks === undefined ? Number.POSITIVE_INFINITY : maxFallbacks + 1
  const ordered = orderTiers(group, eligible, context, strategy.cutsFirst ? most : Number.POSITIVE_INFINITY)
  if (strategy.cutsFirst) cut(ordered, most)
  const available = keepAvailable(ordered, context.availability) ?? (group.whenAllUnavailable === 'fail' ? undefined : ordered)
  if (available !== undefined) cut(available, most)
  return available
}

/** The tiers one after the other, until there are at least `enough`: a tier that is not needed does not use up its turns. */
function orderTiers<C extends Candidate>(
  { strategy, members, tiers }: Group<C>,
  eligible: readonly C[],
  context: { memory: GroupMemory; hashKey: string; measures: Measures; ordered?: TierMemory[] },
  enough: number,
): C[] {
  const { memory, hashKey, measures } = context
  const isWhole = eligible === members
  const eligibleOf = isWhole || tiers.length === 1 ? undefined : Map.groupBy(eligible, member => member.priority)
  let ordered: C[] | undefined
  for (const tier of tiers) {
    const priority = tier[0]?.priority ?? 0
    const candidates = isWhole ? tier : eligibleOf === undefined ? eligible : eligibleOf.get(priority)
    if (candidates === undefined) continue
    const ofTier = memoryOf(memory, priority)
    const part = strategy.order({ candidates, tier, memory: ofTier, hashKey, measures })
    context.ordered?.push(ofTier)
    if (ordered === undefined) ordered = part
    else for (const candidate of part) ordered.push(candidate)
    if (ordered.length >= enough) break
  }
  // Priorities that the group no longer has: what was remembered of them would stay for ever.
  if (memory.size > tiers.length) {
    for (const priority of memory.keys()) if (!tiers.some(tier => tier[0]?.priority === priority)) memory.delete(priority)
  }
  return ordered ?? []
}

function memoryOf(memory: GroupMemory, priority: number): TierMemory {
  let known = memory.get(priority)
  if (known === undefined) {
    known = {}
    memory.set(priority, known)
  }
  return known
}

/**
 * The healthy ones, else those merely in cooldown, else undefined; `ordered` itself where all are healthy, or where none can
 * be called at all: whoever calls them hears why.
 */
function keepAvailable<C extends Candidate>(ordered: C[], availability: (candidate: C) => Availability): C[] | undefined {
  let healthy: C[] | undefined // undefined while all were
  const coolingDown: C[] = []
  let isAnyUnhealthy = false
  for (const [at, candidate] of ordered.entries()) {
    const state = availability(candidate)
    if (state === 'healthy') {
      healthy?.push(candidate)
      continue
    }
    healthy ??= ordered.slice(0, at)
    if (state === 'cooldown') coolingDown.push(candidate)
    else if (state === 'unhealthy') isAnyUnhealthy = true
  }
  if (healthy === undefined) return ordered
  if (healthy.length > 0) return healthy
  if (coolingDown.length > 0) return coolingDown
  return isAnyUnhealthy ? undefined : ordered
}

function cut(candidates: unknown[], most: number): void {
  if (candidates.length > most) candidates.length = most
}
