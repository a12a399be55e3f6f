import { type Candidate, isSameTier, type Strategy } from './strategy.ts'

/** What smooth round robin remembers of a tier. */
export type RunningWeights = {
  /** The members that `values` belong to. */
  tier: readonly Candidate[]
  /** Running value of each member by its id. */
  values: Map<string, number>
  /** What the last pick did to the values. */
  last: { candidates: readonly Candidate[]; chosen: string; total: number } | undefined
}

/**
 * Smooth weighted round robin: every pick adds to each candidate's running value its weight, takes the largest (the first of
 * equal ones) and subtracts the total from it. Any run of picks as long as the total of the weights, divided by what they
 * have in common, holds exactly each candidate's share. The others follow the chosen one in the order of declaration.
 * Members that may not serve this request take no part and keep their value.
 * source: proxy-05 §3; the algorithm is nginx's, ngx_http_upstream_get_peer
 */
export const roundRobin: Strategy = {
  cutsFirst: true,
  usesHashKey: false,
  order({ candidates, tier, memory }) {
    let running = memory.roundRobin
    if (running === undefined || !isSameTier(running.tier, tier)) {
      running = { tier, values: new Map(), last: undefined }
      memory.roundRobin = running
    }
    running.tier = tier // next time the arrays are one, and need no comparison
    const { values } = running
    let total = 0
    let largest = Number.NEGATIVE_INFINITY
    let chosen = ''
    let place = 0
    let at = 0
    for (const { id, weight } of candidates) {
      const value = (values.get(id) ?? 0) + weight
      values.set(id, value)
      total += weight
      if (value > largest) {
        largest = value
        chosen = id
        place = at
      }
      at += 1
    }
    // Looked up again: a model that is declared twice has one running value, which may have grown since.
    if (at > 0) values.set(chosen, (values.get(chosen) ?? 0) - total)
    running.last = { candidates, chosen, total }
    return place === 0 ? candidates.slice() : candidates.slice(place).concat(candidates.slice(0, place))
  },
  takeBack({ roundRobin: running }) {
    if (running?.last === undefined) return
    const { values, last } = running
    for (const { id, weight } of last.candidates) values.set(id, (values.get(id) ?? 0) - weight)
    values.set(last.chosen, (values.get(last.chosen) ?? 0) + last.total)
    running.last = undefined
  },
}
