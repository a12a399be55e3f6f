import { type AuditDraft, type AuditRefusal, storable } from './audit.ts'

/** Refused changes of one admin key that are taken down at once, and then one each so many milliseconds. */
const BURST = 100
const REFILL_MS = 6_000
/** Most entries that wait for a store that takes none. */
const WAITING_MAX = 1_000
/** Bounds of what callers and messages put into an entry. */
const REASON_CHARACTERS_MAX = 512
const ID_CHARACTERS_MAX = 256

type Bucket = { left: number; filledAtMs: number; omitted: number }

/**
 * Refused changes on their way to the audit log. Whoever holds an admin key can have changes refused as fast as he can send
 * them, so that each key has a bound; what is over it is counted, and the key's next entry says how many there were.
 */
export class RefusalQueue {
  private readonly buckets = new Map<string, Bucket>()
  private waiting: AuditDraft[] = []
  /** Refused changes that were not taken down. */
  omitted = 0

  constructor(private readonly clock: { now(): number; monotonic(): number }) {}

  get size(): number {
    return this.waiting.length
  }

  offer(refusal: AuditRefusal): void {
    const bucket = this.bucketOf(refusal.actor)
    if (bucket.left < 1 || this.waiting.length >= WAITING_MAX) {
      bucket.omitted += 1
      this.omitted += 1
      return
    }
    bucket.left -= 1
    this.waiting.push({
      at: new Date(this.clock.now()).toISOString(),
      ...refusal,
      id: storable(refusal.id.slice(0, ID_CHARACTERS_MAX)),
      reason: storable(refusal.reason.slice(0, REASON_CHARACTERS_MAX)),
      name: null,
      outcome: 'refused',
      before: null,
      after: null,
      omitted: bucket.omitted,
    })
    bucket.omitted = 0
  }

  /** Refused changes of an actor that no entry tells of yet. */
  omittedBy(actor: string): number {
    return this.buckets.get(actor)?.omitted ?? 0
  }

  /** in: how many of them an entry tells of that is durable */
  told(actor: string, count: number): void {
    const bucket = this.buckets.get(actor)
    if (bucket) bucket.omitted -= count
  }

  /** What waits now, oldest first. It goes on waiting until `written` says that it is durable. */
  get pending(): readonly AuditDraft[] {
    return this.waiting
  }

  /** in: how many of those that waited first are durable */
  written(count: number): void {
    this.waiting = this.waiting.slice(count)
  }

  private bucketOf(actor: string): Bucket {
    const now = this.clock.monotonic()
    const bucket = this.buckets.get(actor) ?? { left: BURST, filledAtMs: now, omitted: 0 }
    const refills = Math.floor((now - bucket.filledAtMs) / REFILL_MS)
    bucket.left = Math.min(BURST, bucket.left + refills)
    bucket.filledAtMs += refills * REFILL_MS
    // Actors are the admin keys of the configuration: there are no more buckets than those.
    this.buckets.set(actor, bucket)
    return bucket
  }
}
