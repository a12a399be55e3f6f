/** Reports of requests, as the gateway hands them to exporters. */

import { type Labels, NO_LABELS } from '../../src/exchange.ts'
import type { RequestReport, UsageRecord } from '../../src/telemetry/usage-record.ts'
import { plainRecord } from '../plain-record.ts'

export const AT_MS = Date.parse('2030-01-31T23:59:58.250Z')

export const LABELS: Labels = {
  ...NO_LABELS,
  apiKeyId: 'key-1',
  teamId: 'search',
  userId: 'ada',
  name: 'llama-3',
  modelId: 'model-1',
  model: 'llama-3-a',
  isMember: true,
  provider: 'vllm',
  upstreamModel: 'meta-llama/Llama-3.1-8B-Instruct',
  providerKeyId: 'pk-1',
  providerKeyName: 'vllm-private',
}

export function record(more: Partial<UsageRecord> = {}): UsageRecord {
  return plainRecord({
    labels: LABELS,
    occurredAtMs: AT_MS,
    requestedModel: 'llama-3',
    isStream: true,
    promptTokens: 12,
    completionTokens: 34,
    cachedTokens: 4,
    reasoningTokens: 3,
    upstreamMs: 120.5,
    upstreamTtftMs: 20.4,
    downstreamMs: 21.6,
    totalMs: 125,
    costPico: 2_500_000,
    providerRequestId: 'chatcmpl-1',
    providerModelVersion: 'meta-llama/Llama-3.1-8B-Instruct',
    clientIp: '10.0.0.7',
    userAgent: 'OpenAI/Python 1.2',
    ...more,
  })
}

/** A request of one attempt that went well. */
export function report(more: Partial<RequestReport> = {}): RequestReport {
  const { requestId = 'request-1' } = more
  return {
    requestId,
    method: 'POST',
    endpoint: '/v1/chat/completions',
    status: 200,
    startedAtMs: AT_MS - 125,
    endedAtMs: AT_MS,
    parent: undefined,
    records: [record({ requestId })],
    content: undefined,
    ...more,
  }
}

/** A first attempt that failed and a second, of another target, that went well. */
export function failover(more: Partial<RequestReport> = {}): RequestReport {
  const failed = record({
    status: 503,
    occurredAtMs: AT_MS - 121,
    upstreamMs: 4,
    upstreamTtftMs: undefined,
    downstreamMs: undefined,
    totalMs: undefined,
    promptTokens: 0,
    completionTokens: 0,
    cachedTokens: 0,
    reasoningTokens: 0,
    costPico: 0,
    isTerminal: false,
    errorClass: 'upstream_error',
    errorMessage: 'the upstream answered 503',
    finishReason: undefined,
    providerRequestId: undefined,
    providerModelVersion: undefined,
  })
  const labels = { ...LABELS, model: 'llama-3-b', modelId: 'model-2' }
  return report({ records: [failed, record({ labels, attemptIndex: 1, attemptKind: 'fallback' })], ...more })
}

/** A request that was refused before any upstream was asked. */
export function refused(more: Partial<RequestReport> = {}): RequestReport {
  const only = record({
    labels: { ...NO_LABELS, apiKeyId: 'key-1' },
    status: 429,
    attemptKind: undefined,
    upstreamMs: 0,
    upstreamTtftMs: undefined,
    promptTokens: 0,
    completionTokens: 0,
    cachedTokens: 0,
    reasoningTokens: 0,
    costPico: 0,
    errorClass: 'rate_limit_exceeded',
    errorMessage: 'request limit exceeded',
    finishReason: undefined,
    providerRequestId: undefined,
    providerModelVersion: undefined,
  })
  return report({ status: 429, records: [only], ...more })
}
