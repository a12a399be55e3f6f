import type { Lease, Limiter, LimitName, Limits, Refusal, RejectionCount, Standing } from './limit.ts'

const SECOND_MS = 1_000
const MINUTE_MS = 60 * SECOND_MS
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS

/** Combinations of labels that are counted apart: policies come and go, and a time series for each would stay for ever. */
export const REJECTION_LABELS_MAX = 10_000

/**
 * Counters in memory, of this process alone. Windows are fixed ones of the wall clock in UTC; every bucket counts in all of
 * them, whatever is limited now, so that a limit that is added or changed later knows what has passed.
 *
 * Buckets in which nothing is counted any more are forgotten, a few at each reservation: keys, users and policies that are
 * gone leave nothing behind, and no request pays for all of them at once. source: proxy-06 §1, §2, §6, §7
 */
export function createLimiter(): Limiter {
  const buckets = new Map<string, Bucket>()
  const rejections = new Map<string, RejectionCount>()
  const places: Places = { taken: 0 }
  let reservation = 0
  let sweeping = buckets.values()

  /** Looks at one bucket, and at one more for each that was opened: so they are forgotten no slower than they come. */
  function sweep(opened: number, nowMs: number): void {
    for (let step = 0; step <= opened; step++) {
      // A Map's iterator goes on over what was added and removed meanwhile; at its end the next pass begins.
      const next = sweeping.next()
      if (next.done) {
        sweeping = buckets.values()
        return
      }
      if (next.value.isUnused(nowMs)) buckets.delete(next.value.key)
    }
  }

  return {
    reserve(limits, nowMs, counted) {
      reservation++
      const entered: Bucket[] = []
      let opened = 0
      for (const limit of limits) {
        let bucket = buckets.get(limit.key)
        if (!bucket) {
          bucket = new Bucket(limit.key)
          buckets.set(limit.key, bucket)
          opened++
        }
        // The mark tells a bucket that is named twice without looking through those before it.
        if (bucket.reservation !== reservation) {
          bucket.reservation = reservation
          bucket.turn(nowMs)
          entered.push(bucket)
        }
        const exceeded = counted?.has(limit.key) ? bucket.crowded(limit.limits) : bucket.exceeded(limit.limits)
        if (exceeded !== undefined) {
          sweep(opened, nowMs)
          return { scope: SCOPES[exceeded], retryAfterSecs: bucket.secsToEnd(exceeded, nowMs), limit }
        }
      }
      for (const bucket of entered) {
        if (counted?.has(bucket.key)) bucket.inFlight++
        else bucket.enter()
      }
      places.taken += entered.length
      sweep(opened, nowMs)
      return new HeldPlaces(entered, places)
    },

    reject: refusal => countRejection(rejections, refusal),
    standing: (key, nowMs) => (buckets.get(key) ?? new Bucket(key)).standing(nowMs),
    rejections: () => rejections.values(),

    get size() {
      return buckets.size
    },
    get inFlight() {
      return places.taken
    },
  }
}

const SCOPES = {
  concurrency: 'concurrency',
  tpm: 'tokens',
  tpd: 'tokens',
  rps: 'requests',
  rpm: 'requests',
  rph: 'requests',
  rpd: 'requests',
} as const satisfies Record<LimitName, Refusal['scope']>

/** Places taken in all buckets together. */
type Places = { taken: number }

/**
 * What has passed in one bucket. Every count belongs to the window whose start stands beside it, epoch milliseconds; `turn`
 * comes before any use of them. Fields are plain numbers: this is on the path of every request.
 */
class Bucket {
  inFlight = 0
  /** The last reservation that looked at this bucket. */
  reservation = 0
  #secondStart = Number.NEGATIVE_INFINITY
  #rps = 0
  #minuteStart = Number.NEGATIVE_INFINITY
  #rpm = 0
  #tpm = 0
  #hourStart = Number.NEGATIVE_INFINITY
  #rph = 0
  #dayStart = Number.NEGATIVE_INFINITY
  #rpd = 0
  #tpd = 0

  constructor(readonly key: string) {}

  /** Makes the windows those of `nowMs`: counts of windows that are over are dropped. */
  turn(nowMs: number): void {
    // Longer windows are made of whole seconds, so within the second that was seen last they are current, too.
    if (nowMs >= this.#secondStart && nowMs < this.#secondStart + SECOND_MS) return
    if (isOver(this.#secondStart, SECOND_MS, nowMs)) {
      this.#secondStart = startOf(SECOND_MS, nowMs)
      this.#rps = 0
    }
    if (isOver(this.#minuteStart, MINUTE_MS, nowMs)) {
      this.#minuteStart = startOf(MINUTE_MS, nowMs)
      this.#rpm = 0
      this.#tpm = 0
    }
    if (isOver(this.#hourStart, HOUR_MS, nowMs)) {
      this.#hourStart = startOf(HOUR_MS, nowMs)
      this.#rph = 0
    }
    if (isOver(this.#dayStart, DAY_MS, nowMs)) {
      this.#dayStart = startOf(DAY_MS, nowMs)
      this.#rpd = 0
      this.#tpd = 0
    }
  }

  /**
   * The first limit that one more request would break, in the order of `LIMIT_NAMES`. Tokens of this request are not known
   * yet, so the one that crosses their limit passes and the next is refused; but 0 lets nothing pass.
   */
  exceeded({ concurrency, tpm, tpd, rps, rpm, rph, rpd }: Limits): LimitName | undefined {
    if (concurrency !== undefined && this.inFlight >= concurrency) return 'concurrency'
    if (tpm !== undefined && (this.#tpm > tpm || tpm === 0)) return 'tpm'
    if (tpd !== undefined && (this.#tpd > tpd || tpd === 0)) return 'tpd'
    if (rps !== undefined && this.#rps + 1 > rps) return 'rps'
    if (rpm !== undefined && this.#rpm + 1 > rpm) return 'rpm'
    if (rph !== undefined && this.#rph + 1 > rph) return 'rph'
    if (rpd !== undefined && this.#rpd + 1 > rpd) return 'rpd'
    return undefined
  }

  /** As `exceeded`, for a request that is counted here already. */
  crowded({ concurrency }: Limits): LimitName | undefined {
    return concurrency !== undefined && this.inFlight >= concurrency ? 'concurrency' : undefined
  }

  enter(): void {
    this.inFlight++
    this.#rps++
    this.#rpm++
    this.#rph++
    this.#rpd++
  }

  addTokens(tokens: number, nowMs: number): void {
    this.turn(nowMs)
    this.#tpm += tokens
    this.#tpd += tokens
  }

  /** Whole seconds until the window of a limit ends, at least 1; undefined for concurrency, whose end nobody knows. */
  secsToEnd(name: LimitName, nowMs: number): number | undefined {
    switch (name) {
      case 'concurrency':
        return undefined
      case 'rps':
        return secsBetween(nowMs, this.#secondStart + SECOND_MS)
      case 'rpm':
      case 'tpm':
        return secsBetween(nowMs, this.#minuteStart + MINUTE_MS)
      case 'rph':
        return secsBetween(nowMs, this.#hourStart + HOUR_MS)
      case 'rpd':
      case 'tpd':
        return secsBetween(nowMs, this.#dayStart + DAY_MS)
    }
  }

  standing(nowMs: number): Standing {
    this.turn(nowMs)
    return {
      requests: { rps: this.#rps, rpm: this.#rpm, rph: this.#rph, rpd: this.#rpd },
      tokens: { tpm: this.#tpm, tpd: this.#tpd },
      inFlight: this.inFlight,
    }
  }

  /** Whether nothing is counted here any more, so that a new bucket would answer alike. */
  isUnused(nowMs: number): boolean {
    if (this.inFlight > 0) return false
    this.turn(nowMs)
    return this.#rps + this.#rpm + this.#rph + this.#rpd + this.#tpm + this.#tpd === 0
  }
}

function startOf(lengthMs: number, nowMs: number): number {
  return Math.floor(nowMs / lengthMs) * lengthMs
}

/**
 * A clock that was put back a little goes on in the window that it was in: nobody gets a limit twice. One that was put back
 * by more than the window's length starts anew, or the counts would stay until it has caught up.
 */
function isOver(startMs: number, lengthMs: number, nowMs: number): boolean {
  return nowMs >= startMs + lengthMs || nowMs < startMs - lengthMs
}

function secsBetween(fromMs: number, toMs: number): number {
  return Math.max(1, Math.ceil((toMs - fromMs) / 1_000))
}

class HeldPlaces implements Lease {
  #buckets: readonly Bucket[] | undefined
  readonly #places: Places

  constructor(buckets: readonly Bucket[], places: Places) {
    this.#buckets = buckets
    this.#places = places
  }

  commit(tokens: number, nowMs: number): void {
    // Token counts come from upstreams: one that is no number must not spoil the counters of a whole day.
    if (this.#buckets && tokens > 0 && Number.isFinite(tokens)) {
      for (const bucket of this.#buckets) bucket.addTokens(tokens, nowMs)
    }
    this.release()
  }

  keysInto(keys: Set<string>): void {
    for (const { key } of this.#buckets ?? []) keys.add(key)
  }

  release(): void {
    if (!this.#buckets) return
    for (const bucket of this.#buckets) bucket.inFlight--
    this.#places.taken -= this.#buckets.length
    this.#buckets = undefined
  }
}

function countRejection(rejections: Map<string, RejectionCount>, { scope, limit }: Refusal): void {
  const counted = scope === 'tokens' ? 'tokens' : 'requests'
  let policyId = limit.policy?.id ?? ''
  let labels = `${counted} ${limit.layer} ${policyId}`
  let row = rejections.get(labels)
  if (!row && policyId !== '' && rejections.size >= REJECTION_LABELS_MAX) {
    policyId = 'other'
    labels = `${counted} ${limit.layer} other`
    row = rejections.get(labels)
  }
  if (row) row.count++
  else rejections.set(labels, { scope: counted, layer: limit.layer, policyId, count: 1 })
}
