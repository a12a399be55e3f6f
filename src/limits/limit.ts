/** Numbers of a limit object; what is undefined is not limited, 0 lets nothing pass. source: proxy-06 §1 */
export type Limits = { [name in LimitName]?: number | undefined }

/** In the order in which one bucket checks them (proxy-06 §2). */
export const LIMIT_NAMES = ['concurrency', 'tpm', 'tpd', 'rps', 'rpm', 'rph', 'rpd'] as const
export type LimitName = (typeof LIMIT_NAMES)[number]

/** Limits of one bucket, with what a refusal says about where they come from. */
export type BucketLimit = {
  /** Name of the bucket: made of ids, so that it outlives renames and changes of its limits. */
  key: string
  limits: Limits
  layer: 'api_key' | 'model' | 'policy'
  policy?: { id: string; name: string }
}

/** Why a request may not pass now. */
export type Refusal = {
  scope: 'requests' | 'tokens' | 'concurrency'
  /** Whole seconds until the window ends, at least 1; undefined for concurrency, whose end nobody knows. */
  retryAfterSecs: number | undefined
  limit: BucketLimit
}

/**
 * What a request holds: its places among those that run at the same time, in every bucket that it was let into. Owned by the
 * exchange, and ended exactly once, whatever becomes of the request.
 */
export interface Lease {
  /**
   * Adds tokens to `tpm` and `tpd` of every bucket, in the windows of `nowMs`, and gives the places back. Does nothing the
   * second time, or after `release`. A count that is no positive number adds nothing.
   */
  commit(tokens: number, nowMs: number): void
  /** Adds the keys of the buckets in which the request is counted. */
  keysInto(keys: Set<string>): void
  /** Gives the places back; requests stay counted. Does nothing the second time, or after `commit`. */
  release(): void
}

/** How far a bucket is used up: `x-ratelimit-*` headers and gauges are made of it. */
export type Standing = {
  /** Counts of the current windows. */
  requests: { rps: number; rpm: number; rph: number; rpd: number }
  tokens: { tpm: number; tpd: number }
  inFlight: number
}

/** How often requests were refused for one reason, since the start. source: proxy-06 §7 */
export type RejectionCount = {
  /** Refusals for `concurrency` are among `requests`. */
  scope: 'requests' | 'tokens'
  layer: BucketLimit['layer']
  /** Empty outside policies; `other` for those that came after too many different ones. */
  policyId: string
  count: number
}

/** The counters of all buckets. */
export interface Limiter {
  /**
   * Lets a request into all of the buckets, or into none: then no counter has changed. Buckets are asked in the given order
   * and the first that refuses is told; one that is named twice must let it pass twice, and counts it once.
   * in: keys of buckets in which this very request is counted already, by a target of a group that failed it: there it takes a
   * place among those that run, and nothing else
   */
  reserve(buckets: readonly BucketLimit[], nowMs: number, counted?: ReadonlySet<string>): Lease | Refusal
  /** Counts a refusal that the caller is told of. */
  reject(refusal: Refusal): void
  /** Of a bucket that nothing was counted in: all zero. */
  standing(key: string, nowMs: number): Standing
  rejections(): Iterable<RejectionCount>
  /** Buckets that are remembered, and places that are taken in all of them together. */
  readonly size: number
  readonly inFlight: number
}

export function isRefusal(outcome: Lease | Refusal): outcome is Refusal {
  return 'scope' in outcome
}
