import type { Exchange } from '../exchange.ts'
import type { Gateway } from '../gateway.ts'

/**
 * Ends an exchange: once, however it ended. Frees what it held and writes what is to be said about it.
 * The access line's fields: control-observability §3; a stream's line comes when the stream is over, with its tokens.
 */
export function settle(gateway: Gateway, exchange: Exchange): void {
  if (exchange.settledAt !== undefined) return
  exchange.settledAt = gateway.clock.monotonic()
  gateway.lifecycle.inFlight -= 1
  const { attempt } = exchange
  if (attempt && exchange.isStream) attempt.endedAt = exchange.settledAt
  // A failed request has no tokens; one that was cut has those that came until then.
  if (exchange.status < 400 || exchange.status === 499 || exchange.firstByteAt !== undefined) exchange.fillUsage()
  else exchange.usage = undefined
  gateway.modelHealth.note(exchange)
  const log = gateway.log.as('access')
  if (!log.enabled('info') || (exchange.status === 401 && exchange.attempts.length === 0)) return
  const { error, usage } = exchange
  log.info('proxy request completed', {
    method: exchange.method,
    path: exchange.path,
    status: exchange.status,
    latency_ms: Math.round(exchange.settledAt - exchange.startedAt),
    stream: exchange.isStream ? true : undefined,
    provider: exchange.provider,
    model: exchange.model,
    api_key_id: exchange.apiKeyId,
    prompt_tokens: usage?.promptTokens,
    completion_tokens: usage?.completionTokens,
    total_tokens: usage?.totalTokens,
    usage_estimated: usage?.isEstimated ? true : undefined,
    request_id: exchange.requestId,
    provider_request_id: attempt?.providerRequestId,
    attempts: exchange.attempts.length > 1 ? exchange.attempts.length : undefined,
    error_kind: error?.kind,
    error: error?.message,
  })
  if (attempt?.providerRequestId !== undefined) {
    log.info('provider call completed', {
      request_id: exchange.requestId,
      provider_request_id: attempt.providerRequestId,
      attempt_index: attempt.index,
      attempt_kind: attempt.kind,
      handler: exchange.handler,
      status: attempt.status,
      requested_model: exchange.requestedModel,
      provider_model_version: attempt.providerModelVersion,
    })
  }
}

/** The cause of an error, which callers are never told, under the request id. */
export function logCause(gateway: Gateway, exchange: Exchange): void {
  const { error } = exchange
  if (error?.cause === undefined) return
  const { cause } = error
  const fields = {
    request_id: exchange.requestId,
    model: exchange.model,
    provider_key: exchange.providerKeyName,
    upstream: exchange.upstreamOrigin,
    proxy: proxyHost(gateway.config.upstream.proxy),
    kind: error.kind,
    cause: cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause),
    code: typeof cause === 'object' && cause !== null && 'code' in cause ? String(cause.code) : undefined,
  }
  if (error.kind === 'internal_error') {
    gateway.log.as('proxy').error('internal error', { ...fields, stack: cause instanceof Error ? cause.stack : undefined })
  } else if (error.status >= 500) gateway.log.as('upstream').warn('upstream call failed', fields)
  else gateway.log.as('proxy').debug('request failed', fields)
}

/** Where requests go out through a proxy, an error may be the proxy's: its host, without the credential of its URL. */
function proxyHost(url: string | undefined): string | undefined {
  return url === undefined ? undefined : URL.parse(url)?.host
}
