/** Why a connection failed, in words that name no host and no address: for callers, logs and states alike. */
export function errorCode(error: unknown): string {
  return typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string' ? error.code : ''
}

const CAUSES: readonly [code: RegExp, words: string][] = [
  [/^(?:ECONNREFUSED|ConnectionRefused)$/, 'connection refused'],
  [/^(?:ENOTFOUND|EAI_AGAIN|EAI_NODATA|EAI_NONAME|DNS|DNSError)/, 'name not found'],
  [/^(?:EHOSTUNREACH|ENETUNREACH|EHOSTDOWN|ENETDOWN)$/, 'host unreachable'],
  [/^(?:ETIMEDOUT|ConnectionTimeout)$/, 'connection timed out'],
  [/CERT|SELF_SIGNED|UNABLE_TO|ISSUER|HOSTNAME|ALTNAME|UNTRUSTED/i, 'certificate not trusted'],
  [/SSL|TLS|HANDSHAKE|^EPROTO$/i, 'TLS handshake failed'],
  [/^(?:ECONNRESET|ConnectionClosed|EPIPE|ECONNABORTED)$/, 'connection reset'],
  [/Malformed|InvalidHTTP|HPE_|HTTP(?!s?:)/i, 'the answer is not HTTP'],
]

/** in: what `fetch` threw */
export function transportCause(error: unknown): string {
  const code = errorCode(error)
  const message = error instanceof Error ? error.message : ''
  const known =
    CAUSES.find(([pattern]) => pattern.test(code)) ??
    (code === '' ? CAUSES.find(([pattern]) => pattern.test(message)) : undefined)
  return known?.[1] ?? 'connection failed'
}
