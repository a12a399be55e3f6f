import type { GatewayError } from './errors.ts'
import type { Lease } from './limits/limit.ts'
import type { HealthRules, ModelState } from './model-health.ts'

/** Token counts of one request, as far as they are known. */
export type Usage = {
  promptTokens: number
  completionTokens: number
  totalTokens: number
  cachedTokens: number
  reasoningTokens: number
  /** True when a counter is the gateway's estimate because the upstream did not tell. */
  isEstimated: boolean
}

/** What one try at one target came to. */
export type Attempt = {
  index: number
  /** The direct model that was tried: a member where a group was asked for. */
  modelId: string
  model: string
  kind: 'initial' | 'retry' | 'fallback'
  startedAt: number
  endedAt: number | undefined
  /** Milliseconds from the start of the attempt to the first event of a stream. */
  firstEventMs: number | undefined
  status: number | undefined
  errorKind: string | undefined
  /** The upstream's own id of its answer. */
  providerRequestId: string | undefined
  providerModelVersion: string | undefined
}

/** A new record of a try at a model. */
export function openAttempt(exchange: Exchange, kind: Attempt['kind'], modelId: string, model: string, now: number): Attempt {
  const attempt: Attempt = {
    index: exchange.attempts.length,
    modelId,
    model,
    kind,
    startedAt: now,
    endedAt: undefined,
    firstEventMs: undefined,
    status: undefined,
    errorKind: undefined,
    providerRequestId: undefined,
    providerModelVersion: undefined,
  }
  exchange.attempts.push(attempt)
  return attempt
}

export type Outcome = 'success' | 'error' | 'client_disconnected'

/**
 * The record of one request: opened when it arrives, settled once when it is over, however it ends. Stages add to it;
 * none decides by reading it. Access log, and later metrics, usage records and limits, are written from it.
 */
export class Exchange {
  /** Name of the endpoint: `chat`, `embeddings` …; undefined before one is known. */
  handler: string | undefined
  provider: string | undefined
  /** Alias or pattern of the row that served, never the caller's spelling of a pattern's match. */
  model: string | undefined
  modelId: string | undefined
  requestedModel: string | undefined
  upstreamModel: string | undefined
  providerKeyId: string | undefined
  providerKeyName: string | undefined
  /** Scheme, host and port of the upstream: for the log alone, callers never see it. */
  upstreamOrigin: string | undefined
  apiKeyId: string | undefined
  isStream = false
  status = 0
  error: GatewayError | undefined
  usage: Usage | undefined
  finishReason: string | undefined
  attempts: Attempt[] = []
  requestBytes = 0
  /** Events of a stream that carried text, reasoning or arguments, and how many bytes of those: the base of estimates. */
  contentEvents = 0
  contentBytes = 0
  /** The group that was asked for, where one was; `model` is then the member that was tried last. */
  group: string | undefined
  /** What the request holds of the limits of its key, its model and the policies, from admission until it settles. */
  lease: Lease | undefined
  /** The model that is being tried, or that is answering; undefined between tries and once all have failed. */
  member: ModelState | undefined
  /** What failures of that model mean. */
  memberRules: HealthRules | undefined
  /** Keys of the buckets in which targets that failed the request have counted it: it counts there once. */
  counted: Set<string> | undefined
  /** Part of an answer is on its way, of a stream or of one too large to hold: it is charged, however it ends. */
  hasAnswered = false
  private memberLease: Lease | undefined
  firstByteAt: number | undefined
  settledAt: number | undefined

  constructor(
    readonly requestId: string,
    readonly method: string,
    readonly path: string,
    /** The caller's address; asked of the socket only when somebody wants to know. */
    readonly clientIp: () => string,
    /** `clock.monotonic()` at arrival. */
    readonly startedAt: number,
  ) {}

  get attempt(): Attempt | undefined {
    return this.attempts[this.attempts.length - 1]
  }

  /** A target takes the request: it counts among what is under way there until `leave`. */
  enter(member: ModelState, rules: HealthRules, lease: Lease | undefined): void {
    this.leave()
    if (this.settledAt !== undefined) {
      lease?.release()
      throw new Error('a settled exchange takes up no target: nothing would give it back')
    }
    member.inFlight += 1
    this.member = member
    this.memberRules = rules
    this.memberLease = lease
  }

  /** The target that was tried has failed, and another is to take the request. */
  passOn(): void {
    if (this.memberLease) {
      this.counted ??= new Set()
      this.memberLease.keysInto(this.counted)
    }
    this.leave()
  }

  /** The request is over for the target that was tried. */
  leave(): void {
    if (!this.member) return
    this.member.inFlight -= 1
    this.member = undefined
    this.memberLease?.release()
    this.memberLease = undefined
  }

  /** Gives back all that the request holds, and charges what it used. in: epoch milliseconds, for the windows of tokens */
  release(nowMs: number): void {
    const tokens = this.usage?.totalTokens ?? 0
    if (tokens > 0) {
      this.lease?.commit(tokens, nowMs)
      this.memberLease?.commit(tokens, nowMs)
    }
    this.lease?.release()
    this.leave()
  }

  get outcome(): Outcome {
    if (this.status === 499) return 'client_disconnected'
    return this.error === undefined ? 'success' : 'error'
  }

  /**
   * Counts where the upstream told none: a prompt is a quarter of its bytes, a completion the larger
   * of its events with content and a quarter of their bytes. Nothing delivered counts nothing.
   */
  fillUsage(): void {
    if (this.attempts.length === 0) return
    const told = this.usage
    const promptTokens = told?.promptTokens || Math.ceil(this.requestBytes / 4)
    const completionTokens = told?.completionTokens || Math.max(this.contentEvents, Math.ceil(this.contentBytes / 4))
    this.usage = {
      promptTokens,
      completionTokens,
      totalTokens: Math.max(told?.totalTokens ?? 0, promptTokens + completionTokens),
      cachedTokens: told?.cachedTokens ?? 0,
      reasoningTokens: told?.reasoningTokens ?? 0,
      isEstimated: !told || promptTokens !== told.promptTokens || completionTokens !== told.completionTokens,
    }
  }
}

/** The larger of each counter: streams may tell their usage more than once, and growing. */
export function mergeUsage(before: Usage | undefined, now: Usage): Usage {
  if (!before) return now
  return {
    promptTokens: Math.max(before.promptTokens, now.promptTokens),
    completionTokens: Math.max(before.completionTokens, now.completionTokens),
    totalTokens: Math.max(before.totalTokens, now.totalTokens),
    cachedTokens: Math.max(before.cachedTokens, now.cachedTokens),
    reasoningTokens: Math.max(before.reasoningTokens, now.reasoningTokens),
    isEstimated: before.isEstimated && now.isEstimated,
  }
}
