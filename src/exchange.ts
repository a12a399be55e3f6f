import type { GatewayError } from './errors.ts'

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
