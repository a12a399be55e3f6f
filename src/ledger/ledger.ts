/** What the ledger of usage does for the rest of the gateway. It lives in a file and threads of its own. */
import type { UsageRecord } from '../telemetry/usage-record.ts'

export interface Ledger {
  /**
   * Takes a record down. Never waits and never throws: what cannot be taken is counted as dropped.
   * returns: whether it was taken
   */
  record(record: UsageRecord): boolean
  /** throws: LedgerUnavailable; LedgerTooBusy when too many questions wait; QuestionTooWide */
  usage(question: UsageQuestion): Promise<UsageAnswer>
  requests(question: RequestsQuestion): Promise<RequestsAnswer>
  /** All attempts of one request, in their order; empty where it is not known. */
  request(requestId: string): Promise<StoredRecord[]>
  readonly status: LedgerStatus
  /** Writes what waits, then lets go of the file. */
  close(): Promise<void>
}

/** Why records are lost. source: control-observability §2, `aisix_usage_event_drops_total` */
export type DropReason = 'sink_full' | 'sink_closed' | 'sink_disabled'

export type LedgerStatus = {
  state: 'ok' | 'degraded' | 'disabled'
  /** Records reach the disk: also of a ledger that is degraded because a damaged one lies beside it. */
  isWriting: boolean
  /** What is wrong, and what to do, in one sentence; no path of a secret in it. Undefined while all is well. */
  problem: string | undefined
  /** Records that wait to be written. */
  queued: number
  written: number
  dropped: number
  /** Bytes of the file with its pages in use, and what it may grow to. */
  bytes: number
  bytesMax: number
  /** Epoch milliseconds of the oldest row; undefined without one. */
  oldestMs: number | undefined
}

/** What a row of an answer is told apart by. */
export const GROUPINGS = ['day', 'hour', 'api_key', 'model', 'provider_key', 'team', 'user'] as const
export type Grouping = (typeof GROUPINGS)[number]

/** Ids that rows must have; several of one kind: any of them. '' stands for rows without one. */
export type UsageFilter = {
  apiKeyIds?: readonly string[]
  modelIds?: readonly string[]
  providerKeyIds?: readonly string[]
  teamIds?: readonly string[]
  userIds?: readonly string[]
  /** `2xx`, `4xx`, `5xx`. */
  statusClasses?: readonly string[]
}

export type UsageQuestion = {
  /** Epoch milliseconds, from the first to before the second; whole hours (the asker has rounded). */
  fromMs: number
  toMs: number
  groupBy: readonly Grouping[]
  filter: UsageFilter
}

/** Sums over one group. Money is exact: decimal digits of picodollars. */
export type UsageRow = {
  /** Start of the day or hour in UTC, epoch milliseconds; only where grouped by one. */
  startMs?: number
  apiKeyId?: string
  modelId?: string
  providerKeyId?: string
  teamId?: string
  userId?: string
  requests: number
  /** Rows, of which a request has one an attempt. */
  attempts: number
  /** Requests that ended with 4xx or 5xx. */
  failedRequests: number
  promptTokens: number
  completionTokens: number
  cachedTokens: number
  reasoningTokens: number
  /** Requests whose counts are estimates, and prompt + completion tokens of those. */
  estimatedRequests: number
  estimatedTokens: number
  costPico: bigint
  /** Requests at models without a price. */
  unpricedRequests: number
  /** Counts by bucket, of whole requests and of the time to the first token of streams; the bounds are LATENCY_BOUNDS_MS, TTFT_BOUNDS_MS. */
  latencyCounts: number[]
  ttftCounts: number[]
}

export type UsageAnswer = {
  rows: UsageRow[]
  /** Newest name of every id in the rows, as of when it was last used: rows outlive what they are about. */
  names: Record<'apiKey' | 'model' | 'providerKey' | 'team' | 'user', Record<string, string>>
}

/** Upper bounds of the buckets; one more bucket counts what is above the last. */
export const LATENCY_BOUNDS_MS = [
  5, 10, 25, 50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000, 420_000, 600_000,
] as const
export const TTFT_BOUNDS_MS = [50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000] as const

export type RequestsQuestion = {
  /** Ids; any of them. */
  apiKeyIds?: readonly string[]
  modelIds?: readonly string[]
  /** Exact status, or a class as `5xx`. */
  status?: number | string
  /** Only attempts with a status of 400 and above. */
  failedOnly?: boolean
  fromMs?: number
  toMs?: number
  limit: number
  /** Rows before it, newest first (paging back); or after it, oldest first (a live tail). A sequence number. */
  before?: number
  after?: number
}

/** A record as it was taken down, with its place. */
export type StoredRecord = { seq: number; record: UsageRecord }

export type RequestsAnswer = {
  records: StoredRecord[]
  /** Where to go on in the same direction; undefined at the end. A page may be short, even empty, and still have one. */
  next: number | undefined
  /** The newest sequence number there is: where a live tail begins. */
  newest: number
}

/** The file cannot be read or written at the moment. The message says why and what to do. */
export class LedgerUnavailable extends Error {}
/** Too many questions wait for an answer already. The message says to ask again. */
export class LedgerTooBusy extends Error {}
/** The question would give more rows than an answer may have. The message names the parameter to narrow. */
export class QuestionTooWide extends Error {}
