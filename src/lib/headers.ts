/** What a header can be, for any program. Source: RFC 9110 §5.5 and §5.6.2. */

/** Headers that carry a credential or a signature: never copied, logged or set by a list of names. */
export const CREDENTIAL_HEADERS: readonly string[] = [
  'authorization',
  'x-api-key',
  'x-goog-api-key',
  'api-key',
  'x-amz-security-token',
  'x-amz-date',
  'x-amz-content-sha256',
  'proxy-authorization',
  'cookie',
]

export function isHeaderName(name: string): boolean {
  return /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name)
}

/** A value that can stand in a header: visible ASCII, spaces, tabs, and the upper half of Latin-1. */
export function isHeaderValue(value: string): boolean {
  return /^[\t\x20-\x7e\x80-\xff]*$/.test(value)
}
