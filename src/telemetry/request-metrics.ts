import { type Attempt, type Exchange, type Labels, NO_LABELS, type Usage } from '../exchange.ts'
import { createClientType } from './client-type.ts'
import type { EndpointLabels } from './endpoint-labels.ts'
import type { Registry, Series } from './registry.ts'
import type { UsageRecord } from './usage-record.ts'

/** Counts finished requests. */
export type RequestMetrics = {
  /**
   * A request is over. in: what it cost, in picodollars, and how many milliseconds passed until the head of its answer,
   * until the first event of its stream and in all
   */
  finished(exchange: Exchange, costPico: number, headMs: number, firstEventMs: number | undefined, totalMs: number): void
  /** Tokens were used that no request of ours carried. in: picodollars */
  usedLater(exchange: Exchange, costPico: number): void
  /** A health probe was answered. */
  probed(endpoint: EndpointLabels, status: number): void
  /** A record of usage was taken down. */
  recorded(record: UsageRecord): void
  /** A body over the limit was refused, and the rest of it read away. */
  bodyRefused(endpoint: EndpointLabels, outcome: string): void
  /** Somebody's credential was judged. */
  authenticated(method: 'api_key' | 'anonymous' | 'none', reason: string): void
}

/**
 * The series that requests of one kind count in: all that follows from the labels, the endpoint and the status. Made once,
 * so that a request costs a look-up and additions, however many labels its metrics have.
 */
type Handles = {
  epoch: number
  requests: Series
  failed: Series | undefined
  duration: Series
  e2e: Series
  ttft: Series | undefined
  cancelled: Series | undefined
  llm: LlmHandles | undefined
}

type LlmHandles = {
  requests: Series
  duration: Series
  legacyRequests: Series
  legacyDuration: Series
  /** Made when the first tokens come: a refused request leaves no series of tokens behind. */
  tokens: TokenHandles | undefined
  firstToken: Series | undefined
}

type TokenHandles = {
  input: Series
  output: Series
  total: Series
  consumed: Series
  spend: Series | undefined
  clients: Map<string, [input: Series, output: Series, total: Series]>
}

type DeploymentHandles = { epoch: number; requests: Series; succeeded: Series | undefined; failed: Series | undefined }

export function createRequestMetrics(registry: Registry, rules: readonly { pattern: string; client: string }[]): RequestMetrics {
  const clientType = createClientType(rules)
  const byLabels = new WeakMap<Labels, Map<number, Handles>>()
  const deployments = new WeakMap<Labels, DeploymentHandles>()
  const decisions = new Map<string, Series>()
  const anonymous = new Map<string, Series>()
  const emitted = new WeakMap<Labels, { epoch: number; byClass: Map<string, Series> }>()

  const handlesOf = (exchange: Exchange): Handles => {
    const { labels, endpoint, status } = exchange
    const isFallback = exchange.attempt?.kind === 'fallback'
    let byKind = byLabels.get(labels)
    if (!byKind) {
      byKind = new Map()
      byLabels.set(labels, byKind)
    }
    const kind = ((endpoint.index * 2 + (exchange.isStream ? 1 : 0)) * 2 + (isFallback ? 1 : 0)) * 1_000 + status
    let handles = byKind.get(kind)
    if (!handles || handles.epoch !== registry.epoch) {
      handles = makeHandles(exchange, isFallback)
      byKind.set(kind, handles)
    }
    return handles
  }

  const makeHandles = (exchange: Exchange, isFallback: boolean): Handles => {
    const { labels, endpoint, status, isStream } = exchange
    const outcome = outcomeOf(status)
    const stream = String(isStream)
    const usage = usageLabels(labels, endpoint)
    const request = [...usage, stream, String(isFallback), String(status), outcome]
    const duration = [...usage, stream, String(status), outcome]
    const latency = ['', endpoint.endpoint, labels.name, labels.provider, statusClass(status), stream]
    return {
      epoch: registry.epoch,
      requests: registry.series('aisix_proxy_requests_total', request),
      failed: outcome === 'success' ? undefined : registry.series('aisix_proxy_failed_requests_total', request),
      duration: registry.series('aisix_proxy_request_duration_seconds', duration),
      e2e: registry.series('aisix_request_e2e_latency_seconds', latency),
      ttft: undefined,
      cancelled: undefined,
      llm: endpoint.isLlm
        ? {
            requests: registry.series('aisix_llm_requests_total', request),
            duration: registry.series('aisix_llm_request_duration_seconds', duration),
            legacyRequests: registry.series('aisix_requests_total', [labels.provider, labels.name, String(status), outcome]),
            legacyDuration: registry.series('aisix_request_duration_seconds', [labels.provider, labels.name, String(status)]),
            tokens: undefined,
            firstToken: undefined,
          }
        : undefined,
    }
  }

  const countTokens = (exchange: Exchange, llm: Pick<LlmHandles, 'tokens'>, usage: Usage, costPico: number) => {
    const { labels, endpoint } = exchange
    if (!llm.tokens) {
      const names = usageLabels(labels, endpoint)
      llm.tokens = {
        input: registry.series('aisix_llm_input_tokens_total', names),
        output: registry.series('aisix_llm_output_tokens_total', names),
        total: registry.series('aisix_llm_total_tokens_total', names),
        consumed: registry.series('aisix_tokens_consumed_total', [labels.provider, labels.name]),
        spend: undefined,
        clients: new Map(),
      }
    }
    const { tokens } = llm
    tokens.input.value += usage.promptTokens
    tokens.output.value += usage.completionTokens
    tokens.total.value += usage.totalTokens
    tokens.consumed.value += usage.totalTokens
    if (costPico > 0) {
      tokens.spend ??= registry.series('aisix_llm_spend_micro_usd_total', usageLabels(labels, endpoint))
      tokens.spend.value += costPico / 1e6
    }
    const client = clientType(exchange.userAgent)
    let series = tokens.clients.get(client)
    if (!series) {
      const of = (type: string) => registry.series('aisix_llm_tokens_by_client_total', [client, labels.name, type])
      series = [of('input'), of('output'), of('total')]
      tokens.clients.set(client, series)
    }
    series[0].value += usage.promptTokens
    series[1].value += usage.completionTokens
    series[2].value += usage.totalTokens
  }

  const countAttempts = (exchange: Exchange) => {
    for (const attempt of exchange.attempts) {
      if (attempt.isCalled) countDeployment(attempt)
      if (attempt.kind !== 'fallback') continue
      const { name, model } = attempt.labels
      const isGood = attempt.errorKind === undefined && (attempt !== exchange.attempt || exchange.error === undefined)
      const family = isGood ? 'aisix_routing_successful_fallbacks_total' : 'aisix_routing_failed_fallbacks_total'
      registry.series(family, [name, model]).value += 1
    }
  }

  const countDeployment = ({ labels, errorKind }: Attempt) => {
    let handles = deployments.get(labels)
    const names = () => [labels.provider, labels.model, labels.upstreamModel, labels.providerKeyId]
    if (!handles || handles.epoch !== registry.epoch) {
      const requests = registry.series('aisix_deployment_requests_total', names())
      handles = { epoch: registry.epoch, requests, succeeded: undefined, failed: undefined }
      deployments.set(labels, handles)
    }
    handles.requests.value += 1
    // A caller that left says nothing of the upstream.
    if (errorKind === 'client_disconnected') return
    if (errorKind === undefined) {
      handles.succeeded ??= registry.series('aisix_deployment_success_responses_total', names())
      handles.succeeded.value += 1
    } else {
      handles.failed ??= registry.series('aisix_deployment_failure_responses_total', names())
      handles.failed.value += 1
    }
  }

  return {
    finished(exchange, costPico, headMs, firstEventMs, totalMs) {
      const handles = handlesOf(exchange)
      const { llm } = handles
      handles.requests.value += 1
      if (handles.failed) handles.failed.value += 1
      handles.duration.observe(headMs / 1_000)
      handles.e2e.observe(totalMs / 1_000)
      const { labels, endpoint, usage, status } = exchange
      if (firstEventMs !== undefined) {
        handles.ttft ??= registry.series('aisix_request_ttft_seconds', [
          '',
          endpoint.endpoint,
          labels.name,
          labels.provider,
          statusClass(status),
          'true',
        ])
        handles.ttft.observe(firstEventMs / 1_000)
      }
      if (status === 499 && exchange.headAt === undefined) {
        handles.cancelled ??= registry.series('aisix_proxy_client_cancelled_requests_total', [
          endpoint.endpoint,
          labels.name,
          labels.providerKeyId,
          labels.providerKeyName,
        ])
        handles.cancelled.value += 1
      }
      if (!llm) return
      llm.requests.value += 1
      llm.duration.observe(headMs / 1_000)
      llm.legacyRequests.value += 1
      llm.legacyDuration.observe(headMs / 1_000)
      if (firstEventMs !== undefined) {
        llm.firstToken ??= registry.series('aisix_llm_time_to_first_token_seconds', usageLabels(labels, endpoint))
        llm.firstToken.observe(firstEventMs / 1_000)
      }
      if (usage) countTokens(exchange, llm, usage, costPico)
      countAttempts(exchange)
    },

    usedLater(exchange, costPico) {
      if (exchange.usage) countTokens(exchange, { tokens: undefined }, exchange.usage, costPico)
    },

    probed(endpoint, status) {
      const names = [...usageLabels(NO_LABELS, endpoint), 'false', 'false', String(status), outcomeOf(status)]
      registry.series('aisix_proxy_requests_total', names).value += 1
      if (status >= 400) registry.series('aisix_proxy_failed_requests_total', names).value += 1
    },

    recorded({ labels, handler, status, inboundProtocol }) {
      let known = emitted.get(labels)
      if (!known || known.epoch !== registry.epoch) {
        known = { epoch: registry.epoch, byClass: new Map() }
        emitted.set(labels, known)
      }
      // One interned object has one caller and one target, and may be met at several endpoints.
      const kind = handler + statusClass(status)
      let series = known.byClass.get(kind)
      if (!series) {
        const { name, providerKeyId, providerKeyName } = labels
        const names = [handler, statusClass(status), inboundProtocol, name, providerKeyId, providerKeyName]
        series = registry.series('aisix_usage_events_emitted_total', names)
        known.byClass.set(kind, series)
      }
      series.value += 1
    },

    bodyRefused(endpoint, outcome) {
      const names = [endpoint.endpoint, endpoint.inboundProtocol, outcome]
      registry.series('aisix_proxy_request_body_limit_rejections_total', names).value += 1
    },

    authenticated(method, reason) {
      const known = method === 'anonymous' ? anonymous : decisions
      let series = known.get(reason)
      if (!series) {
        const result = reason === 'none' ? 'allowed' : 'denied'
        series = registry.series('aisix_auth_decisions_total', [method, result, reason])
        known.set(reason, series)
      }
      series.value += 1
    },
  }
}

/** source: control-observability §1 */
function outcomeOf(status: number): string {
  if (status < 400) return 'success'
  if (status === 429) return 'rate_limited'
  return status < 500 ? 'client_error' : 'upstream_error'
}

const CLASSES = ['0xx', '1xx', '2xx', '3xx', '4xx', '5xx']

export function statusClass(status: number): string {
  return CLASSES[Math.floor(status / 100)] ?? 'unknown'
}

/** The label set U of the contract. */
function usageLabels(labels: Labels, { endpoint, inboundProtocol }: EndpointLabels): string[] {
  return [
    endpoint,
    inboundProtocol,
    labels.provider,
    labels.name,
    labels.upstreamModel,
    labels.providerKeyId,
    labels.providerKeyName,
    labels.apiKeyId,
    labels.teamId,
    labels.userId,
    labels.userName,
  ]
}
