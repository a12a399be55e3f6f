import { NO_LABELS } from '../src/exchange.ts'
import type { UsageRecord } from '../src/telemetry/usage-record.ts'

/** A request that one attempt answered well and that nobody counted anything in; what a test is about is given. */
export function plainRecord(more: Partial<UsageRecord>): UsageRecord {
  return {
    labels: NO_LABELS,
    handler: 'chat',
    endpoint: '/v1/chat/completions',
    inboundProtocol: 'openai',
    requestId: 'request-1',
    traceId: undefined,
    occurredAtMs: 0,
    requestedModel: undefined,
    isStream: false,
    promptTokens: 0,
    completionTokens: 0,
    cachedTokens: 0,
    reasoningTokens: 0,
    isEstimated: false,
    upstreamMs: 1,
    upstreamTtftMs: undefined,
    downstreamMs: 1,
    totalMs: 1,
    status: 200,
    costPico: 0,
    isPriced: true,
    attemptIndex: 0,
    attemptKind: 'initial',
    isTerminal: true,
    errorClass: undefined,
    errorMessage: undefined,
    finishReason: 'stop',
    providerRequestId: undefined,
    providerModelVersion: undefined,
    clientIp: '127.0.0.1',
    userAgent: undefined,
    extra: undefined,
    ...more,
  }
}
