import { type Attempt, type Exchange, type Extra, type Labels, openAttempt, type Usage } from '../exchange.ts'
import type { Gateway } from '../gateway.ts'
import { costPico, type Price } from '../pricing/price.ts'
import { type RequestReport, TEXT_MAX, type UsageRecord } from '../telemetry/usage-record.ts'

/**
 * Says to metrics, budgets, ledger and exporters what a request came to. in: an exchange that has settled
 * source: control-observability §2 and §4: one record an attempt, and one for a request that reached no upstream
 */
export function account(gateway: Gateway, exchange: Exchange, settledAt: number): void {
  const { attempts, attempt, startedAt, headAt, firstByteAt } = exchange
  const { metrics, ledger, budgets, exporters, clock } = gateway
  const { usage } = exchange
  const price = attempt?.price
  const cost = usage && price ? costPico(price, usage.promptTokens, usage.completionTokens) : 0
  const firstEventMs = firstByteAt === undefined ? undefined : firstByteAt - startedAt
  metrics.finished(exchange, cost, (headAt ?? settledAt) - startedAt, firstEventMs, settledAt - startedAt)
  // What reaches no model is counted, and leaves no record.
  if (exchange.handler === undefined) return

  const now = clock.now()
  const scope: Scope = { exchange, settledAt, now, cost, parent: traceParent(exchange) }
  const records: UsageRecord[] = []
  if (attempts.length <= 1) records.push(recordOf(scope, attempt))
  else for (const each of attempts) records.push(recordOf(scope, each))
  for (const record of records) {
    budgets.charge(record, exchange.groupId)
    if (ledger.record(record)) metrics.recorded(record)
  }
  if (exporters.isActive && exporters.wants(exchange.requestId)) exporters.offer(reportOf(scope, records))
}

/**
 * What was used where no request of ours passed, as the output of a batch tells it. It counts as no request: there was one
 * already, which asked for the batch. in: who pays, the model and its usage
 */
export function accountLater(gateway: Gateway, exchange: Exchange, price: Price | undefined): void {
  const { metrics, ledger, budgets, exporters, clock } = gateway
  const { usage } = exchange
  if (!usage) return
  const cost = price ? costPico(price, usage.promptTokens, usage.completionTokens) : 0
  const attempt = openAttempt(exchange, 'initial', price, exchange.startedAt)
  attempt.status = exchange.status
  attempt.endedAt = exchange.startedAt
  metrics.usedLater(exchange, cost)
  const scope: Scope = { exchange, settledAt: exchange.startedAt, now: clock.now(), cost, parent: undefined }
  const record = recordOf(scope, attempt)
  budgets.charge(record, undefined)
  if (ledger.record(record)) metrics.recorded(record)
  if (exporters.isActive && exporters.wants(exchange.requestId)) exporters.offer(reportOf(scope, [record]))
}

type Scope = { exchange: Exchange; settledAt: number; now: number; cost: number; parent: RequestReport['parent'] }

function recordOf({ exchange, settledAt, now, cost, parent }: Scope, attempt: Attempt | undefined): UsageRecord {
  const isTerminal = attempt === exchange.attempt
  const { error, endpoint, startedAt, status } = exchange
  const usage = isTerminal ? exchange.usage : undefined
  const endedAt = attempt?.endedAt ?? settledAt
  const labels: Labels = attempt?.labels ?? exchange.labels
  return {
    labels,
    handler: exchange.handler ?? '',
    endpoint: endpoint.endpoint,
    inboundProtocol: endpoint.inboundProtocol,
    requestId: exchange.requestId,
    traceId: parent?.traceId,
    occurredAtMs: now - (settledAt - endedAt),
    requestedModel: exchange.requestedModel?.slice(0, TEXT_MAX),
    isStream: exchange.isStream,
    promptTokens: usage?.promptTokens ?? 0,
    completionTokens: usage?.completionTokens ?? 0,
    cachedTokens: usage?.cachedTokens ?? 0,
    reasoningTokens: usage?.reasoningTokens ?? 0,
    isEstimated: usage?.isEstimated ?? false,
    upstreamMs: attempt?.isCalled ? endedAt - attempt.startedAt : 0,
    upstreamTtftMs: attempt?.firstEventMs,
    downstreamMs: isTerminal ? (usableAt(exchange) ?? settledAt) - startedAt : undefined,
    totalMs: isTerminal ? settledAt - startedAt : undefined,
    status: isTerminal ? status : (attempt?.status ?? 0),
    costPico: isTerminal ? cost : 0,
    isPriced: attempt?.price !== undefined,
    attemptIndex: attempt?.index ?? 0,
    attemptKind: attempt?.kind,
    isTerminal,
    errorClass: attempt?.errorKind ?? (isTerminal ? error?.type : undefined),
    errorMessage: attempt?.errorMessage ?? (isTerminal ? error?.recorded : undefined),
    finishReason: isTerminal ? exchange.finishReason : undefined,
    providerRequestId: attempt?.providerRequestId,
    providerModelVersion: attempt?.providerModelVersion,
    clientIp: exchange.clientIp(),
    userAgent: exchange.userAgent?.slice(0, TEXT_MAX),
    extra: withCache(exchange.extra === undefined ? undefined : extraOf(exchange.extra, isTerminal), usage),
  }
}

/** When the caller had something to use before the end. Of what is passed on piece by piece that is the head: its first piece is there. */
function usableAt({ firstByteAt, headAt, isStream }: Exchange): number | undefined {
  return firstByteAt ?? (isStream ? undefined : headAt)
}

/** Who asked, and by which route, is told of every attempt; how long the audio was, of the one that ends the request. */
function extraOf(extra: Extra, isTerminal: boolean): Extra {
  const told = isTerminal || extra.audioSeconds === undefined ? extra : { ...extra, audioSeconds: undefined }
  const { clientIdentity } = told
  if (clientIdentity === undefined || clientIdentity.length <= TEXT_MAX) return told
  return { ...told, clientIdentity: clientIdentity.slice(0, TEXT_MAX) }
}

/** What a cache gave and took, where an upstream counts that. in: usage of the attempt, if it is the one that has any */
function withCache(extra: Extra | undefined, usage: Usage | undefined): Extra | undefined {
  if (!usage?.cacheReadTokens && !usage?.cacheCreationTokens) return extra
  return { ...extra, cacheReadTokens: usage.cacheReadTokens, cacheCreationTokens: usage.cacheCreationTokens }
}

function reportOf({ exchange, settledAt, now, parent }: Scope, records: readonly UsageRecord[]): RequestReport {
  const { capture, status } = exchange
  return {
    requestId: exchange.requestId,
    method: exchange.method,
    endpoint: exchange.endpoint.endpoint,
    status,
    startedAtMs: now - (settledAt - exchange.startedAt),
    endedAtMs: now,
    parent,
    records,
    content: capture && status !== 401 && status !== 403 ? capture : undefined,
  }
}

/** source: W3C Trace Context, "traceparent Header": version 00, or a later one that begins like it; ids of zeros are invalid */
const TRACEPARENT = /^(?:00(?=.{53}$)|(?!00|ff)[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:$|-)/

function traceParent({ callerHeaders }: Exchange): RequestReport['parent'] {
  const header = callerHeaders?.get('traceparent')
  if (header === null || header === undefined) return undefined
  const [, traceId, spanId, flags] = TRACEPARENT.exec(header.trim()) ?? []
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined
  return { traceId, spanId, isSampled: (Number.parseInt(flags, 16) & 1) === 1 }
}
