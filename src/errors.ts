/**
 * Every error that a caller can be told: one table, one class, one envelope a dialect.
 * Public `type` values and statuses: proxy-01 §1 and §8. A new row is a new public error: it needs a test and a line in
 * docs/troubleshooting.md.
 */
export type ErrorRow = { status: number; type: string; code?: string }

export const ERRORS = {
  missing_api_key: { status: 401, type: 'invalid_api_key' },
  invalid_api_key: { status: 401, type: 'invalid_api_key' },
  api_key_expired: { status: 401, type: 'invalid_api_key', code: 'api_key_expired' },
  api_key_disabled: { status: 401, type: 'invalid_api_key', code: 'api_key_disabled' },
  /** Callers without a key (`proxy.anonymous`): their network, or the key that they act as. */
  source_not_allowed: { status: 401, type: 'invalid_api_key' },
  principal_missing: { status: 401, type: 'invalid_api_key' },
  principal_expired: { status: 401, type: 'invalid_api_key', code: 'api_key_expired' },
  principal_disabled: { status: 401, type: 'invalid_api_key', code: 'api_key_disabled' },
  permission_denied: { status: 403, type: 'permission_denied' },
  ip_restricted: { status: 403, type: 'permission_denied', code: 'ip_restricted' },
  invalid_request: { status: 400, type: 'invalid_request_error' },
  conflicting_lengths: { status: 400, type: 'invalid_request_error' },
  request_read_failed: { status: 400, type: 'invalid_request_error' },
  request_read_timeout: { status: 408, type: 'invalid_request_error' },
  request_too_large: { status: 413, type: 'invalid_request_error' },
  unsupported_encoding: { status: 415, type: 'invalid_request_error' },
  endpoint_removed: { status: 410, type: 'invalid_request_error', code: 'endpoint_removed' },
  /** A request for a WebSocket that is no opening handshake; also 400 and 405. */
  websocket_upgrade_required: { status: 426, type: 'websocket_upgrade_required' },
  model_not_found: { status: 404, type: 'model_not_found' },
  /** A part of a dialect that the gateway does not have. */
  endpoint_not_found: { status: 404, type: 'invalid_request_error' },
  not_implemented: { status: 501, type: 'not_implemented' },
  rate_limited: { status: 429, type: 'rate_limit_exceeded' },
  /** Every target of a group is over a limit of its own (proxy-05 §4). */
  targets_rate_limited: { status: 429, type: 'upstream_error' },
  budget_exceeded: { status: 429, type: 'billing_error', code: 'budget_exceeded' },
  all_candidates_unavailable: { status: 503, type: 'all_candidates_unavailable' },
  provider_unavailable: { status: 503, type: 'provider_unavailable' },
  invalid_upstream_config: { status: 400, type: 'invalid_request_error' },
  invalid_upstream_credentials: { status: 401, type: 'authentication_error' },
  /** The disk that uploads pass over is full or gone. */
  upload_unavailable: { status: 503, type: 'upload_unavailable' },
  upstream_error: { status: 502, type: 'upstream_error' },
  upstream_decode_error: { status: 502, type: 'upstream_decode_error' },
  upstream_in_band_error: { status: 502, type: 'upstream_in_band_error' },
  stream_aborted: { status: 502, type: 'stream_aborted' },
  transport_error: { status: 502, type: 'transport_error' },
  timeout: { status: 504, type: 'timeout' },
  /** The caller went away: nobody reads this answer, the log and the metrics do. */
  client_disconnected: { status: 499, type: 'client_disconnected' },
  internal_error: { status: 500, type: 'internal_error' },
} as const satisfies Record<string, ErrorRow>

export type ErrorName = keyof typeof ERRORS

/** What a caller is told of a budget that is used up, flattened into the envelope: the operator's numbers. */
export type BudgetDetails = {
  scope: string
  /** Absent for `all`. */
  scope_ref?: string
  /** The limits that the budget has, each with what is spent of it. */
  limit_usd?: number
  spent_usd?: number
  limit_tokens?: number
  spent_tokens?: number
  period: string
  /** RFC 3339, UTC; absent where the period has no end. */
  period_resets_at?: string
  retry_after_seconds?: number
}

/** Longest wait that SDKs follow; where it is longer they come back after some seconds (OpenAI's for Python and Node). */
const SDK_WAIT_SECS_MAX = 60

export type ErrorDetails = {
  /** Overrides the row's status: an upstream's 4xx is relayed with its own. */
  status?: number
  code?: string
  param?: string
  /** Seconds, for the `retry-after` header. */
  retryAfterSecs?: number
  /** What logs and records are told in place of the message: where that is an upstream's words, which may repeat the prompt. */
  recorded?: string
  /** What the log is told besides the message: never the caller. */
  cause?: unknown
  /** Whether a further attempt at the same target may help (proxy-02 §7): timeouts only where retries were configured. */
  retry?: 'yes' | 'if-configured' | 'no'
  /** Status that the upstream answered with, where it answered. */
  upstreamStatus?: number
  /** The rate-limit policy that refused the request. */
  policy?: { id: string; name: string }
  budget?: BudgetDetails
}

export class GatewayError extends Error {
  readonly status: number
  readonly type: string
  readonly code: string | undefined
  readonly param: string | undefined
  /** The message as logs, records and exporters may have it: without an upstream's words. */
  readonly recorded: string
  readonly retryAfterSecs: number | undefined
  readonly retry: 'yes' | 'if-configured' | 'no'
  readonly upstreamStatus: number | undefined
  readonly policy: { id: string; name: string } | undefined
  readonly budget: BudgetDetails | undefined
  /** Set by `dispatch` once it has tried again: the caller's own SDK need not (`x-should-retry: false`). */
  wasRetried = false

  constructor(
    readonly kind: ErrorName,
    message: string,
    details: ErrorDetails = {},
  ) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    const row: ErrorRow = ERRORS[kind]
    this.status = details.status ?? row.status
    this.type = row.type
    this.code = details.code ?? row.code
    this.param = details.param
    this.recorded = details.recorded ?? message
    this.retryAfterSecs = details.retryAfterSecs
    this.retry = details.retry ?? 'no'
    this.upstreamStatus = details.upstreamStatus
    this.policy = details.policy
    this.budget = details.budget
  }

  /** To come back at once is of no use: what is used up is not there again for longer than an SDK waits. */
  get isFinal(): boolean {
    return this.budget !== undefined && (this.retryAfterSecs ?? Number.POSITIVE_INFINITY) > SDK_WAIT_SECS_MAX
  }
}

/** An upstream's error for logs and records: what happened, and its code if that is a word, none of its text. */
export function withoutWords(what: string, code: string | undefined): string {
  return code !== undefined && /^[\w.-]{1,64}$/.test(code) ? `${what} (${code})` : what
}

/** A stranger becomes `internal_error`: its message is for the log alone. */
export function toGatewayError(error: unknown): GatewayError {
  if (error instanceof GatewayError) return error
  return new GatewayError('internal_error', "internal error; the gateway's log has the cause under this request id", {
    cause: error,
  })
}

/** What the runtime advises its programmers to do, and operators cannot. */
const RUNTIME_HINT = / For more information, pass `verbose: true`.*$/

/** What the log is told of an error's cause, and callers never are. */
export function causeOf(error: unknown): { cause?: string; code?: string } {
  if (!(error instanceof Error) || error.cause === undefined) return {}
  const { cause } = error
  return {
    cause: cause instanceof Error ? `${cause.name}: ${cause.message.replace(RUNTIME_HINT, '')}` : String(cause),
    ...(typeof cause === 'object' && cause !== null && 'code' in cause ? { code: String(cause.code) } : {}),
  }
}

/** The caller went away before its answer was over. */
export function clientGone(): GatewayError {
  return new GatewayError('client_disconnected', 'the caller disconnected')
}

/** proxy-01 §7: every message about the request itself starts the same way. */
export function invalidRequest(message: string, details?: ErrorDetails): GatewayError {
  return new GatewayError('invalid_request', `request payload is invalid: ${message}`, details)
}

export type OpenAiError = {
  error: {
    message: string
    type: string
    param?: string
    code?: string
    policy?: { id: string; name: string }
  } & Partial<BudgetDetails>
}

/** The envelope of OpenAI's dialect; `param` and `code` are left out when unset, never null (proxy-01 §8). */
export function openAiEnvelope(error: GatewayError): OpenAiError {
  return {
    error: {
      message: error.message,
      type: error.type,
      ...(error.param === undefined ? {} : { param: error.param }),
      ...(error.code === undefined ? {} : { code: error.code }),
      ...error.budget,
      ...(error.policy === undefined ? {} : { policy: error.policy }),
    },
  }
}
