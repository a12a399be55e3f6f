/** Literals that the tests of strategies share. */
import { STRATEGIES } from '../../src/routing/index.ts'
import type { StrategyName } from '../../src/routing/names.ts'
import type { Candidate, Measures, TierMemory } from '../../src/routing/strategy.ts'

/** A member named `alias`, of weight 1, priority 0, without price or tags, unless told otherwise. */
export function member(alias: string, more: Partial<Candidate> = {}): Candidate {
  return { id: `id of ${alias}`, alias, weight: 1, priority: 0, cost: undefined, tags: [], ...more }
}

/** Measures out of tables by alias; nothing under way and nothing measured where a table is silent. */
export function measuresOf(inFlight: Record<string, number> = {}, latencyMs: Record<string, number> = {}): Measures {
  const aliasOf = (id: string) => id.replace('id of ', '')
  return { inFlight: id => inFlight[aliasOf(id)] ?? 0, latencyMs: id => latencyMs[aliasOf(id)] }
}

export const aliases = (candidates: readonly Candidate[]) => candidates.map(({ alias }) => alias)

export type Question = { candidates?: readonly Candidate[]; hashKey?: string; measures?: Measures }

/** One tier whose memory lasts from call to call, as in a group; gives the whole order by alias. */
export function tierOf(name: StrategyName, tier: readonly Candidate[], memory: TierMemory = {}) {
  return ({ candidates = tier, hashKey = '', measures = measuresOf() }: Question = {}): string[] =>
    aliases(STRATEGIES[name].order({ candidates, tier, memory, hashKey, measures }))
}

/** How often each string occurs. */
export function countEach(strings: Iterable<string>): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const string of strings) counts[string] = (counts[string] ?? 0) + 1
  return counts
}
