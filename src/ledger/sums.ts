import { LATENCY_BOUNDS_MS, TTFT_BOUNDS_MS } from './ledger.ts'
import { FLAG } from './row.ts'
import { VarintReader, VarintWriter } from './varint.ts'

/** What one attempt adds to sums, as its row has it. Absent times are -1. */
export type Addend = {
  at: number
  labels: number
  flags: number
  status: number
  promptTokens: number
  completionTokens: number
  cachedTokens: number
  reasoningTokens: number
  upstreamTtftMs: number
  downstreamMs: number
  totalMs: number
  costPico: number
}

const LATENCY_BUCKETS = LATENCY_BOUNDS_MS.length + 1
const TTFT_BUCKETS = TTFT_BOUNDS_MS.length + 1
const PICO_PER_MICRO = 1_000_000

/** Counters of `Sums`, cost in two. Later versions add theirs at the end. */
const COUNTERS = 12

/** Sums over attempts. */
export class Sums {
  requests = 0
  attempts = 0
  failedRequests = 0
  promptTokens = 0
  completionTokens = 0
  cachedTokens = 0
  reasoningTokens = 0
  estimatedRequests = 0
  estimatedTokens = 0
  unpricedRequests = 0
  /** Whole microdollars, and the picodollars beyond them: each stays exact where their sum would not. */
  costMicro = 0
  costRest = 0
  /** Buckets of latency, then those of the time to the first token. */
  private readonly times = new Array<number>(LATENCY_BUCKETS + TTFT_BUCKETS).fill(0)

  get costPico(): bigint {
    return BigInt(this.costMicro) * BigInt(PICO_PER_MICRO) + BigInt(this.costRest)
  }
  get latencyCounts(): number[] {
    return this.times.slice(0, LATENCY_BUCKETS)
  }
  get ttftCounts(): number[] {
    return this.times.slice(LATENCY_BUCKETS)
  }

  add(row: Addend): void {
    const { flags, promptTokens, completionTokens, costPico } = row
    const tokens = promptTokens + completionTokens
    this.attempts += 1
    this.promptTokens += promptTokens
    this.completionTokens += completionTokens
    this.cachedTokens += row.cachedTokens
    this.reasoningTokens += row.reasoningTokens
    if (flags & FLAG.estimated) this.estimatedTokens += tokens
    if (costPico > 0) this.addCost(Math.floor(costPico / PICO_PER_MICRO), costPico % PICO_PER_MICRO)
    if (!(flags & FLAG.terminal)) return
    this.requests += 1
    if (row.status >= 400) this.failedRequests += 1
    if (flags & FLAG.estimated) this.estimatedRequests += 1
    // As a record tells `unpriced`: where nothing was used, the cost is known to be 0.
    if (!(flags & FLAG.priced) && tokens > 0) this.unpricedRequests += 1
    if (row.totalMs >= 0) this.count(bucketOf(row.totalMs, LATENCY_BOUNDS_MS))
    // A stream that was refused, or failed before its first event, has a time until its caller knew, and none to a first token.
    if (!(flags & FLAG.stream) || row.upstreamTtftMs < 0) return
    const ttftMs = row.downstreamMs >= 0 ? row.downstreamMs : row.upstreamTtftMs
    this.count(LATENCY_BUCKETS + bucketOf(ttftMs, TTFT_BOUNDS_MS))
  }

  merge(other: Sums): void {
    this.requests += other.requests
    this.attempts += other.attempts
    this.failedRequests += other.failedRequests
    this.promptTokens += other.promptTokens
    this.completionTokens += other.completionTokens
    this.cachedTokens += other.cachedTokens
    this.reasoningTokens += other.reasoningTokens
    this.estimatedRequests += other.estimatedRequests
    this.estimatedTokens += other.estimatedTokens
    this.unpricedRequests += other.unpricedRequests
    this.addCost(other.costMicro, other.costRest)
    const { times } = other
    for (let bucket = 0; bucket < times.length; bucket++) this.count(bucket, times[bucket])
  }

  /** All of it in few bytes: how many counters there are, the counters, and the buckets that are not empty with their counts. */
  pack(): Uint8Array {
    const writer = new VarintWriter()
    writer.add(COUNTERS)
    writer.add(this.requests)
    writer.add(this.attempts)
    writer.add(this.failedRequests)
    writer.add(this.promptTokens)
    writer.add(this.completionTokens)
    writer.add(this.cachedTokens)
    writer.add(this.reasoningTokens)
    writer.add(this.estimatedRequests)
    writer.add(this.estimatedTokens)
    writer.add(this.unpricedRequests)
    writer.add(this.costMicro)
    writer.add(this.costRest)
    for (const [bucket, count] of this.times.entries()) {
      if (count === 0) continue
      writer.add(bucket)
      writer.add(count)
    }
    return writer.take()
  }

  addPacked(packed: unknown): void {
    if (!(packed instanceof Uint8Array)) return
    const reader = new VarintReader(packed)
    const counters = reader.next()
    this.requests += reader.next()
    this.attempts += reader.next()
    this.failedRequests += reader.next()
    this.promptTokens += reader.next()
    this.completionTokens += reader.next()
    this.cachedTokens += reader.next()
    this.reasoningTokens += reader.next()
    this.estimatedRequests += reader.next()
    this.estimatedTokens += reader.next()
    this.unpricedRequests += reader.next()
    this.addCost(reader.next(), reader.next())
    // Counters that a later version has added are not this one's.
    for (let more = COUNTERS; more < counters; more++) reader.next()
    while (!reader.isAtEnd) this.count(reader.next(), reader.next())
  }

  private count(bucket: number, by = 1): void {
    this.times[bucket] = (this.times[bucket] ?? 0) + by
  }

  private addCost(micro: number, rest: number): void {
    const sum = this.costRest + rest
    this.costMicro += micro + Math.floor(sum / PICO_PER_MICRO)
    this.costRest = sum % PICO_PER_MICRO
  }
}

function bucketOf(ms: number, bounds: readonly number[]): number {
  let bucket = 0
  while (bucket < bounds.length && ms > (bounds[bucket] ?? 0)) bucket += 1
  return bucket
}

export const HOUR_MS = 3_600_000
export const DAY_MS = 86_400_000

/** Sums of attempts by hour, labels and status class: of rows that no roll-up has yet. */
export class SumsByHour {
  private readonly groups = new Map<number, { hour: number; labels: number; statusClass: number; sums: Sums }>()
  private lastKey = -1
  private last: Sums | undefined

  add(row: Addend): void {
    const hour = Math.floor(row.at / HOUR_MS)
    const statusClass = Math.floor(row.status / 100)
    const key = (hour * 2 ** 28 + row.labels) * 16 + (statusClass & 15)
    if (key !== this.lastKey || !this.last) {
      let group = this.groups.get(key)
      if (!group) {
        group = { hour, labels: row.labels, statusClass: statusClass & 15, sums: new Sums() }
        this.groups.set(key, group)
      }
      this.lastKey = key
      this.last = group.sums
    }
    this.last.add(row)
  }

  *[Symbol.iterator]() {
    yield* this.groups.values()
  }
}
