import { causeOf, type GatewayError } from '../errors.ts'
import type { Exchange } from '../exchange.ts'
import type { Gateway } from '../gateway.ts'
import type { Log } from '../lib/log.ts'
import { ACCESS_LINE, CALL_LINE } from './access-lines.ts'
import { account } from './account.ts'

/**
 * Ends an exchange: once, however it ended. Frees what it held and writes what is to be said about it.
 * The access line's fields: control-observability §3; a stream's line comes when the stream is over, with its tokens.
 */
export function settle(gateway: Gateway, exchange: Exchange): void {
  if (exchange.settledAt !== undefined) return
  const settledAt = gateway.clock.monotonic()
  exchange.settledAt = settledAt
  gateway.lifecycle.inFlight.delete(exchange)
  exchange.spool?.close()
  const { attempt } = exchange
  if (attempt) {
    if (exchange.isStream || exchange.hasAnswered) attempt.endedAt = settledAt
    // What became of an answer that had begun.
    if (exchange.error) {
      attempt.errorKind ??= exchange.error.kind
      attempt.errorMessage ??= exchange.error.recorded
    } else if (exchange.status === 499) attempt.errorKind ??= 'client_disconnected'
  }
  // A failed request has no tokens; an answer that was cut has its prompt and what came until then (proxy-01 §11).
  if (exchange.status < 400 || exchange.hasAnswered) exchange.fillUsage()
  else exchange.usage = undefined
  noteHealth(gateway, exchange)
  exchange.release(gateway.clock.now())
  // Rejected credentials are told by `aisix_auth_decisions_total` and one line of the log, and nowhere else.
  if (isRejected(exchange)) return
  exchange.userAgent = exchange.callerHeaders?.get('user-agent') ?? undefined
  account(gateway, exchange, settledAt)
  const log = gateway.log.as('access')
  if (!log.enabled('info')) return
  log.tell(ACCESS_LINE, exchange)
  if (attempt?.providerRequestId !== undefined) log.tell(CALL_LINE, exchange)
}

/** The caller's credential was not accepted. A 401 to a caller that is known speaks of the upstream's credential. */
export function isRejected({ status, labels }: Exchange): boolean {
  return status === 401 && labels.apiKeyId === ''
}

/** What an answer that had begun says of its upstream; tries that failed before it have been noted where they failed. */
function noteHealth({ clock }: Gateway, { member, memberRules, error, status }: Exchange): void {
  // A caller who left says nothing of the server: it may have left because the server hung.
  if (!member || !memberRules || status === 499) return
  if (error === undefined) member.succeeded()
  else member.failed(error, memberRules, clock.now())
}

/** The cause of an error, which callers are never told, under the request id. */
export function logCause(gateway: Gateway, exchange: Exchange): void {
  const { error } = exchange
  if (error?.cause === undefined) return
  const { cause } = error
  const fields = { ...fieldsOf(exchange, error), proxy: proxyHost(gateway.config.upstream.proxy) }
  if (error.kind === 'internal_error') {
    gateway.log.as('proxy').error('internal error', { ...fields, stack: cause instanceof Error ? cause.stack : undefined })
  } else if (error.kind === 'upload_unavailable') {
    gateway.log.as('proxy').warn('an upload could not be kept', { request_id: exchange.requestId, ...causeOf(error) })
  } else if (error.status >= 500) gateway.log.as('upstream').warn('upstream call failed', fields)
  else gateway.log.as('proxy').debug('request failed', fields)
}

/** A try that failed and is followed by another one: of the failure that ends the request `logCause` tells. */
export function logAttempt(
  log: Log,
  level: 'info' | 'debug',
  exchange: Exchange,
  error: GatewayError,
  next: 'retry' | 'fallback',
): void {
  log.as('upstream')[level]('attempt failed, another follows', {
    ...fieldsOf(exchange, error),
    attempt_index: exchange.attempt?.index,
    status: error.upstreamStatus,
    next,
  })
}

function fieldsOf(exchange: Exchange, error: GatewayError) {
  return {
    request_id: exchange.requestId,
    model: exchange.labels.model || undefined,
    provider_key: exchange.labels.providerKeyName || undefined,
    upstream: exchange.upstreamOrigin,
    kind: error.kind,
    ...causeOf(error),
  }
}

/** Where requests go out through a proxy, an error may be the proxy's: its host, without the credential of its URL. */
function proxyHost(url: string | undefined): string | undefined {
  return url === undefined ? undefined : URL.parse(url)?.host
}
