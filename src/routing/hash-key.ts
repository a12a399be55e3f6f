import { isHeaderName } from '../lib/headers.ts'

/** Where a key may come from; `name` belongs to headers and cookies. */
export type HashSource = { type: 'header' | 'cookie' | 'api_key' | 'client_ip'; name?: string | undefined }

/** What of a request can be a key. Functions, so that only what is asked for is looked up. */
export type HashLook = {
  /** Value of a header, several joined by commas; null without one. */
  header(name: string): string | null
  /** Id of the caller's API key. */
  apiKeyId: string
  clientIp(): string
}

/** source: proxy-05 §1 */
const DEFAULT_SOURCES: readonly HashSource[] = [{ type: 'header', name: 'x-aisix-routing-key' }, { type: 'api_key' }]

/**
 * The sources of a key made ready.
 * returns: a function that gives the first trimmed value that is not empty, or `''` where no source has one
 * source: proxy-05 §3
 */
export function compileHashKey(sources: readonly HashSource[] | undefined): (look: HashLook) => string {
  const readers = (sources ?? DEFAULT_SOURCES).map(readerOf)
  return look => {
    for (const read of readers) {
      const value = read(look).trim()
      if (value !== '') return value
    }
    return ''
  }
}

function readerOf({ type, name = '' }: HashSource): (look: HashLook) => string {
  switch (type) {
    case 'header':
      // No request can send such a name, and asking for it throws.
      if (!isHeaderName(name)) return () => ''
      return look => firstValue(look.header(name) ?? '')
    case 'cookie':
      return look => cookieValue(look.header('cookie') ?? '', name)
    case 'api_key':
      return look => look.apiKeyId
    case 'client_ip':
      return look => look.clientIp()
  }
}

/** What stands before the first comma: several lines of one header and one line with commas mean the same (RFC 9110 §5.3). */
function firstValue(value: string): string {
  const comma = value.indexOf(',')
  return comma === -1 ? value : value.slice(0, comma)
}

/**
 * The value of the first cookie of this name, without its quotes; `''` where there is none. Names are compared with case.
 * in: the value of a `Cookie` header
 * source: RFC 6265 §4.1.1, §4.2.1
 */
export function cookieValue(header: string, name: string): string {
  for (let start = 0; start < header.length; ) {
    const semicolon = header.indexOf(';', start)
    const end = semicolon === -1 ? header.length : semicolon
    const equals = header.indexOf('=', start)
    if (equals !== -1 && equals < end && header.slice(start, equals).trim() === name) {
      const value = header.slice(equals + 1, end).trim()
      const isQuoted = value.length >= 2 && value.startsWith('"') && value.endsWith('"')
      return isQuoted ? value.slice(1, -1) : value
    }
    start = end + 1
  }
  return ''
}
