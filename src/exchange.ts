import { type GatewayError, openAiEnvelope } from './errors.ts'
import type { Lease } from './limits/limit.ts'
import type { HealthRules, ModelState } from './model-health.ts'
import type { Price } from './pricing/price.ts'
import type { EndpointLabels } from './telemetry/endpoint-labels.ts'

/**
 * Who asked and what was asked: the part of records and metrics that repeats from request to request. Interned: the requests
 * of one caller key at one target share one object, which whoever keeps records may use as a key. Absent values are ''.
 */
export type Labels = {
  readonly apiKeyId: string
  readonly teamId: string
  readonly userId: string
  readonly userName: string
  /** Configured name that was asked for: the group's, the model's, or a pattern's; never the caller's own text. */
  readonly name: string
  /** The direct model that was tried, or the row that was asked for where none was. */
  readonly modelId: string
  readonly model: string
  /** The model is a member of the group `name`. */
  readonly isMember: boolean
  readonly provider: string
  /** As the row has it: of a pattern with its `*`. */
  readonly upstreamModel: string
  readonly providerKeyId: string
  readonly providerKeyName: string
}

export const NO_LABELS: Labels = {
  apiKeyId: '',
  teamId: '',
  userId: '',
  userName: '',
  name: '',
  modelId: '',
  model: '',
  isMember: false,
  provider: '',
  upstreamModel: '',
  providerKeyId: '',
  providerKeyName: '',
}

/** Token counts of one request, as far as they are known. */
export type Usage = {
  /** All of the prompt, with what a cache gave or took. */
  promptTokens: number
  completionTokens: number
  totalTokens: number
  /** Prompt tokens that the upstream had in its cache; part of `promptTokens`. */
  cachedTokens: number
  /** The same, and those that its cache took, where the upstream counts as Anthropic does; both are part of `promptTokens`. */
  cacheReadTokens?: number
  cacheCreationTokens?: number
  reasoningTokens: number
  /** True when a counter is the gateway's estimate because the upstream did not tell. */
  isEstimated: boolean
}

/** What is told of few requests, and of most there is nothing to tell. Requests share such an object: it is replaced, never changed. */
export type Extra = {
  /** The caller showed no key and acts as one that the operator named for it. */
  readonly authType?: 'anonymous'
  /** Name of the passthrough route. */
  readonly passthroughRoute?: string
  /** The end user, as the program before us names it. */
  readonly clientIdentity?: string
  /** Length of what was transcribed, where an answer is billed by it. */
  readonly audioSeconds?: number | undefined
  /** Prompt tokens that Anthropic's cache gave and took; of the attempt that ends the request. */
  readonly cacheReadTokens?: number | undefined
  readonly cacheCreationTokens?: number | undefined
}

/** What one try at one target came to. */
export type Attempt = {
  index: number
  /** The caller and the direct model that was tried: a member where a group was asked for. */
  labels: Labels
  /** What its tokens cost; undefined where the model has no price. */
  price: Price | undefined
  /** False for a candidate that was passed over: no upstream was asked. */
  isCalled: boolean
  kind: 'initial' | 'retry' | 'fallback'
  startedAt: number
  endedAt: number | undefined
  /** Milliseconds from the start of the attempt to the first event of a stream. */
  firstEventMs: number | undefined
  status: number | undefined
  errorKind: string | undefined
  errorMessage: string | undefined
  /** The upstream's own id of its answer. */
  providerRequestId: string | undefined
  providerModelVersion: string | undefined
}

/** A new record of a try at the model that the exchange speaks of. */
export function openAttempt(exchange: Exchange, kind: Attempt['kind'], price: Price | undefined, now: number): Attempt {
  const attempt: Attempt = {
    index: exchange.attempts.length,
    labels: exchange.labels,
    price,
    isCalled: true,
    kind,
    startedAt: now,
    endedAt: undefined,
    firstEventMs: undefined,
    status: undefined,
    errorKind: undefined,
    errorMessage: undefined,
    providerRequestId: undefined,
    providerModelVersion: undefined,
  }
  exchange.attempts.push(attempt)
  return attempt
}

export type Outcome = 'success' | 'error' | 'client_disconnected'

/**
 * The record of one request: opened when it arrives, settled once when it is over, however it ends. Stages add to it;
 * none decides by reading it. Access log, metrics, usage records, budgets and limits are written from it.
 */
export class Exchange {
  /** The document that tells an error in the dialect of the path. */
  envelope: (error: GatewayError) => unknown = openAiEnvelope
  /** Its caller is a client of Anthropic's, which look for the id of a request in a header of their own. */
  isAnthropic: boolean
  /** Name of the endpoint: `chat`, `embeddings` …; undefined before one is known. */
  handler: string | undefined
  /** Who asks and for what, as far as it is known by now; in the end the target that was tried last. */
  labels: Labels = NO_LABELS
  requestedModel: string | undefined
  /** Scheme, host and port of the upstream: for the log alone, callers never see it. */
  upstreamOrigin: string | undefined
  /** Headers of the caller, for what is told of its program and its trace. */
  callerHeaders: Headers | undefined
  /** The caller's program, in its own words. */
  userAgent: string | undefined
  isStream = false
  /** Whether it uses up tokens; what only counts or converts them does not. */
  isCounted = true
  status = 0
  error: GatewayError | undefined
  usage: Usage | undefined
  finishReason: string | undefined
  attempts: Attempt[] = []
  requestBytes = 0
  /** Events of a stream that carried text, reasoning or arguments, and how many bytes of those: the base of estimates. */
  contentEvents = 0
  contentBytes = 0
  /** Alias and id of the group that was asked for, where one was; `labels.model` is then the member that was tried last. */
  group: string | undefined
  groupId: string | undefined
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
  /** The target is asked in another dialect than the caller's. */
  isTranslated = false
  private memberLease: Lease | undefined
  /** When the head of the answer went out, and the first thing that its caller could use. `clock.monotonic()` */
  headAt: number | undefined
  firstByteAt: number | undefined
  extra: Extra | undefined
  /** What was uploaded, and is kept while it may have to be sent. */
  spool: { close(): void } | undefined
  /** Texts, where an exporter wants them. */
  capture: Capture | undefined
  settledAt: number | undefined
  /** Its place among what is in flight. */
  slot = -1

  constructor(
    readonly requestId: string,
    readonly method: string,
    readonly path: string,
    readonly endpoint: EndpointLabels,
    /** The caller's address; asked of the socket only when somebody wants to know. */
    readonly clientIp: () => string,
    /** `clock.monotonic()` at arrival. */
    readonly startedAt: number,
  ) {
    this.isAnthropic = endpoint.inboundProtocol === 'anthropic'
  }

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
    if (this.attempts.length === 0 || !this.isCounted) return
    const told = this.usage
    const promptTokens = told?.promptTokens || Math.ceil(this.requestBytes / 4)
    const completionTokens = told?.completionTokens || Math.max(this.contentEvents, Math.ceil(this.contentBytes / 4))
    this.usage = {
      cachedTokens: 0,
      reasoningTokens: 0,
      ...told,
      promptTokens,
      completionTokens,
      totalTokens: Math.max(told?.totalTokens ?? 0, promptTokens + completionTokens),
      isEstimated: !told || promptTokens !== told.promptTokens || completionTokens !== told.completionTokens,
    }
  }
}

/** Text of a request and its answer that is kept for exporters, each up to `unitsMax` UTF-16 units. */
export class Capture {
  prompt = ''
  response = ''
  isTruncated = false

  constructor(private readonly unitsMax: number) {}

  ask(text: string): void {
    this.prompt = this.cut(text)
  }

  answer(text: string): void {
    if (this.response.length < this.unitsMax || text === '') this.response = this.cut(this.response + text)
    else this.isTruncated = true
  }

  private cut(text: string): string {
    if (text.length <= this.unitsMax) return text
    this.isTruncated = true
    return text.slice(0, this.unitsMax)
  }
}

/** The larger of each counter: streams may tell their usage more than once, and growing. */
export function mergeUsage(before: Usage | undefined, now: Usage): Usage {
  if (!before) return now
  const promptTokens = Math.max(before.promptTokens, now.promptTokens)
  const completionTokens = Math.max(before.completionTokens, now.completionTokens)
  const cacheReadTokens = Math.max(before.cacheReadTokens ?? 0, now.cacheReadTokens ?? 0)
  const cacheCreationTokens = Math.max(before.cacheCreationTokens ?? 0, now.cacheCreationTokens ?? 0)
  return {
    promptTokens,
    completionTokens,
    // Anthropic tells the prompt first and the completion last: neither total has both.
    totalTokens: Math.max(before.totalTokens, now.totalTokens, promptTokens + completionTokens),
    cachedTokens: Math.max(before.cachedTokens, now.cachedTokens),
    ...(cacheReadTokens > 0 ? { cacheReadTokens } : {}),
    ...(cacheCreationTokens > 0 ? { cacheCreationTokens } : {}),
    reasoningTokens: Math.max(before.reasoningTokens, now.reasoningTokens),
    isEstimated: before.isEstimated && now.isEstimated,
  }
}
