import type { Extra, Labels } from '../exchange.ts'

export type { Labels }

/** Characters that are kept of what callers write as they like. */
export const TEXT_MAX = 256

/**
 * One attempt at an upstream, or a request that ended without any. The attempts of a request share `requestId`; the last
 * one is terminal. source: control-observability §4, proxy-09 §3
 */
export type UsageRecord = {
  readonly labels: Labels
  /** Name of the endpoint: `chat`, `completions`, `embeddings` … */
  readonly handler: string
  /** Route template, such as `/v1/chat/completions`. */
  readonly endpoint: string
  readonly inboundProtocol: string
  readonly requestId: string
  /** 32 hexadecimal digits, of an inbound `traceparent`. */
  readonly traceId: string | undefined
  /** Epoch milliseconds at which the attempt ended. */
  readonly occurredAtMs: number
  /** As the caller spelt it, 256 characters at most. */
  readonly requestedModel: string | undefined
  readonly isStream: boolean
  /** All of the prompt, with what a cache gave or took. */
  readonly promptTokens: number
  readonly completionTokens: number
  /** Prompt tokens that the upstream had in its cache; part of `promptTokens`. */
  readonly cachedTokens: number
  readonly reasoningTokens: number
  /** The counts are the gateway's, not the upstream's. */
  readonly isEstimated: boolean
  /** Milliseconds of this attempt, to the end of its stream. */
  readonly upstreamMs: number
  /** Milliseconds to the first event of a stream. */
  readonly upstreamTtftMs: number | undefined
  /** Milliseconds from the request to the first thing its caller could use; only of the terminal attempt. */
  readonly downstreamMs: number | undefined
  /** Milliseconds of the whole request; only of the terminal attempt. */
  readonly totalMs: number | undefined
  readonly status: number
  /** Picodollars (10⁻¹² USD): a whole number, exact. */
  readonly costPico: number
  /** False where the model has no price: the cost is 0 because nobody knows it. */
  readonly isPriced: boolean
  readonly attemptIndex: number
  /** Undefined where no upstream was asked. */
  readonly attemptKind: 'initial' | 'retry' | 'fallback' | undefined
  readonly isTerminal: boolean
  /** Stable class of the error, such as `timeout`. */
  readonly errorClass: string | undefined
  /** Its text, 1,024 characters at most; never a prompt, never a credential. */
  readonly errorMessage: string | undefined
  readonly finishReason: string | undefined
  readonly providerRequestId: string | undefined
  readonly providerModelVersion: string | undefined
  readonly clientIp: string
  /** 256 characters at most. */
  readonly userAgent: string | undefined
  /** What few records have, undefined for most. What is counted is of the terminal attempt alone. */
  readonly extra: Extra | undefined
}

/** All that is to be told of one request when it is over: what exporters are handed. */
export type RequestReport = {
  readonly requestId: string
  readonly method: string
  readonly endpoint: string
  readonly status: number
  /** Epoch milliseconds. */
  readonly startedAtMs: number
  readonly endedAtMs: number
  /** The caller's `traceparent`, as W3C Trace Context defines it; undefined where it sent none that is valid. */
  readonly parent: { traceId: string; spanId: string; isSampled: boolean } | undefined
  /** One an attempt, in their order; at least one. */
  readonly records: readonly UsageRecord[]
  /** Texts of the request and its answer; only where an exporter wants content, and never of 401 and 403. */
  readonly content: Content | undefined
}

/** Texts as they came, not yet cut to an exporter's `content_max_bytes`. */
export type Content = { readonly prompt: string; readonly response: string; readonly isTruncated: boolean }

/**
 * A record as it is told outside: the contract's names; what is empty, zero or false is left out where the contract says so.
 * out: `cost_usd` as a number of dollars
 */
export function usageJson(record: UsageRecord): Record<string, unknown> {
  const { labels } = record
  const document: Record<string, unknown> = {
    request_id: record.requestId,
    occurred_at: wholeSeconds(record.occurredAtMs),
    model_id: labels.modelId,
    api_key_id: labels.apiKeyId,
    prompt_tokens: record.promptTokens,
    completion_tokens: record.completionTokens,
    upstream_latency_ms: Math.round(record.upstreamMs),
    status_code: record.status,
    cost_usd: usdOf(record.costPico),
    guardrail_blocked: false,
    attempt_index: record.attemptIndex,
  }
  const more: Record<string, unknown> = {
    trace_id: record.traceId,
    requested_model: record.requestedModel,
    provider_request_id: record.providerRequestId,
    provider_model_version: record.providerModelVersion,
    finish_reason: record.finishReason,
    inbound_protocol: record.inboundProtocol,
    cached_prompt_tokens: record.cachedTokens,
    reasoning_tokens: record.reasoningTokens,
    usage_estimated: record.isEstimated,
    unpriced: !record.isPriced && record.promptTokens + record.completionTokens > 0,
    upstream_ttft_ms: record.upstreamTtftMs === undefined ? undefined : Math.round(record.upstreamTtftMs),
    downstream_latency_ms: record.downstreamMs === undefined ? undefined : Math.round(record.downstreamMs),
    attempt_kind: record.attemptKind,
    attempt_model: labels.isMember ? labels.model : undefined,
    error_class: record.errorClass,
    error_message: record.errorMessage,
    client_source_ip: record.clientIp,
    client_user_agent: record.userAgent,
    // Ours: what the contract's consumers would otherwise have to look up.
    model: labels.model,
    handler: record.handler,
    stream: record.isStream,
    team_id: labels.teamId,
    user_id: labels.userId,
    user_name: labels.userName,
    provider: labels.provider,
    upstream_model: labels.upstreamModel,
    provider_key_id: labels.providerKeyId,
    provider_key_name: labels.providerKeyName,
  }
  for (const name in more) {
    const value = more[name]
    if (value !== undefined && value !== '' && value !== 0 && value !== false) document[name] = value
  }
  if (record.extra !== undefined) addExtra(document, record.extra)
  return document
}

function addExtra(document: Record<string, unknown>, extra: Extra): void {
  const { authType, passthroughRoute, clientIdentity, audioSeconds, cacheReadTokens, cacheCreationTokens } = extra
  if (authType !== undefined) document.auth_type = authType
  if (passthroughRoute !== undefined && passthroughRoute !== '') document.passthrough_route_name = passthroughRoute
  if (clientIdentity !== undefined && clientIdentity !== '') document.client_identity = clientIdentity
  if (audioSeconds !== undefined && audioSeconds > 0) document.audio_duration_seconds = audioSeconds
  if (cacheReadTokens) document.cache_read_tokens = cacheReadTokens
  if (cacheCreationTokens) document.cache_creation_tokens = cacheCreationTokens
}

/** RFC 3339 in UTC, whole seconds. */
export function wholeSeconds(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z')
}

/** Dollars, as near as a number of JSON comes. */
export function usdOf(pico: number | bigint): number {
  return Number(pico) / 1e12
}
