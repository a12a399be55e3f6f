import { type Candidate, isSameTier, type Strategy } from './strategy.ts'

/** A tier laid out on a circle. */
export type Ring = {
  /** The members that the ring was made of. */
  tier: readonly Candidate[]
  /** Places on the circle, ascending: the upper 53 bits of hashes, which a number holds exactly. */
  points: Float64Array
  /** To each point, the place of its member in `tier`. */
  owners: Uint32Array
  /** Used within one call: to each member, its place among the candidates, or NONE when it is none or has been taken. */
  places: Int32Array
}

const UNITS = 64
const POINTS_PER_UNIT = 160
const NONE = -1

/**
 * A hash ring: the key's hash is a place on a circle of members' points, and the walk from there, clockwise, takes each
 * candidate on first sight. When a member is out, the walk passes over its points, so that its keys alone go elsewhere, spread
 * over the others by weight.
 * Points depend on aliases and weights and on a hash that has a specification, so that every replica and every start sends
 * a key to the same member, whatever the order of declaration.
 * source: proxy-05 §3, README row 14; xxHash64: xxHash fast digest algorithm, version 0.1.1
 */
export const consistentHash: Strategy = {
  cutsFirst: true,
  usesHashKey: true,
  order({ candidates, tier, memory, hashKey }) {
    // One candidate leaves nothing to choose: no ring is laid out for it.
    if (candidates.length < 2) return candidates.slice()
    let ring = memory.ring
    if (ring === undefined || !isSameTier(ring.tier, tier)) {
      ring = layOut(tier)
      memory.ring = ring
    }
    ring.tier = tier // next time the arrays are one, and need no comparison
    const { points, owners, places } = ring
    locate(candidates, tier, places)
    const ordered: (typeof candidates)[number][] = []
    let missing = candidates.length
    let point = firstAtOrAfter(points, pointOf(hashKey, 0n))
    // The last one is known without a walk, which spares looking for the few points of a light member.
    for (let steps = points.length; missing > 1 && steps > 0; steps -= 1) {
      if (point === points.length) point = 0
      const owner = owners[point] ?? 0
      missing -= take(owner, candidates, places, ordered)
      point += 1
    }
    for (let owner = 0; missing > 0 && owner < places.length; owner += 1) missing -= take(owner, candidates, places, ordered)
    return ordered
  },
}

/** Writes down where each member of the tier stands among the candidates, which are in the same order. */
function locate(candidates: readonly Candidate[], tier: readonly Candidate[], places: Int32Array): void {
  let next = 0
  for (let member = 0; member < tier.length; member += 1) {
    const isCandidate = next < candidates.length && tier[member]?.id === candidates[next]?.id
    places[member] = isCandidate ? next : NONE
    if (isCandidate) next += 1
  }
}

/** Moves a member to the end of the order, if it is a candidate that is not there yet; returns how many were moved. */
function take<C>(owner: number, candidates: readonly C[], places: Int32Array, ordered: C[]): 0 | 1 {
  const place = places[owner] ?? NONE
  const candidate = place === NONE ? undefined : candidates[place]
  if (candidate === undefined) return 0
  ordered.push(candidate)
  places[owner] = NONE
  return 1
}

/** A place on the circle, 0 to 2^53 - 1. */
function pointOf(text: string, seed: bigint): number {
  return Number(Bun.hash.xxHash64(text, seed) >> 11n)
}

/**
 * How many points each weight gets: 64 units in the proportion of the weights, each of 160 points. No member has less than
 * one unit, and where that lifts light members the total is more than 64: heavy members must not pay for them, or one of
 * weight 1,000 beside sixty of weight 1 would serve a fifteenth of the keys.
 */
export function pointCounts(weights: readonly number[]): number[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  return weights.map(weight => Math.round(POINTS_PER_UNIT * Math.max(1, (UNITS * weight) / total)))
}

function layOut(tier: readonly Candidate[]): Ring {
  const counts = pointCounts(tier.map(member => member.weight))
  // In the order of aliases, so that where two members have one point the winner does not hang on the declaration.
  const members = [...tier.keys()].sort((a, b) => compareText(tier[a]?.alias ?? '', tier[b]?.alias ?? '') || a - b)
  const owned: { owner: number; points: Float64Array }[] = []
  const seen = new Map<string, number>()
  let size = 0
  for (const owner of members) {
    const alias = tier[owner]?.alias ?? ''
    // An alias that is declared again has points of its own, or the second one would hide behind the first.
    const occurrence = seen.get(alias) ?? 0
    seen.set(alias, occurrence + 1)
    const seed = BigInt(occurrence)
    owned.push({ owner, points: Float64Array.from({ length: counts[owner] ?? 0 }, (_, at) => pointOf(`${alias}#${at}`, seed)) })
    size += counts[owner] ?? 0
  }
  const points = new Float64Array(size)
  let end = 0
  for (const part of owned) {
    points.set(part.points, end)
    end += part.points.length
  }
  points.sort()
  const owners = new Uint32Array(size)
  const isTaken = new Uint8Array(size)
  for (const part of owned) {
    for (const value of part.points) {
      let point = firstAtOrAfter(points, value)
      while (isTaken[point] === 1) point += 1 // another point of the same value
      isTaken[point] = 1
      owners[point] = part.owner
    }
  }
  return { tier, points, owners, places: new Int32Array(tier.length) }
}

/** By code units: the same in every locale. */
function compareText(one: string, other: string): number {
  if (one === other) return 0
  return one < other ? -1 : 1
}

/** Index of the first of the ascending `points` that is `value` or more, or their number where none is. */
function firstAtOrAfter(points: Float64Array, value: number): number {
  let low = 0
  let high = points.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((points[middle] ?? 0) < value) low = middle + 1
    else high = middle
  }
  return low
}
