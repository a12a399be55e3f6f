/** Rules for headers, both ways. Source: proxy-01 §6, proxy-04 §2. */
import { CREDENTIAL_HEADERS, isHeaderName, isHeaderValue } from '../lib/headers.ts'

export { isHeaderName, isHeaderValue }

/** A request id that may be taken over: 1 to 256 bytes of visible ASCII. */
export function isUsableRequestId(value: string): boolean {
  return /^[\x21-\x7e]{1,256}$/.test(value)
}

/** Never set or forwarded, whatever an operator's lists say: credentials, and what the transport owns. */
const NEVER = new Set([
  ...CREDENTIAL_HEADERS,
  'host',
  'accept-encoding',
  'connection',
  'content-encoding',
  'content-length',
  'content-type',
  'expect',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  // What a WebSocket's two ends agree on; browsers offer their key in it.
  ...['key', 'version', 'protocol', 'extensions', 'accept'].map(name => `sec-websocket-${name}`),
  'x-aisix-request-id',
])

/** Not forwarded from callers besides. */
const NEVER_FORWARDED = new Set(['accept', 'proxy-authenticate', 'set-cookie', 'traceparent', 'tracestate'])

export function maySet(name: string): boolean {
  return !NEVER.has(name.toLowerCase())
}

export function mayForward(name: string): boolean {
  const lower = name.toLowerCase()
  return !NEVER.has(lower) && !NEVER_FORWARDED.has(lower) && !lower.startsWith('x-aisix-') && !lower.startsWith('x-stainless-')
}

export type HeaderVariables = Record<string, string | undefined>

/**
 * A header template such as `team-${request.api_key.team_id}` made ready.
 * returns: a function that gives the value, or undefined when a variable is unknown or empty or the result is no header
 * value: then that header alone is left out (proxy-04 §2)
 */
export function compileHeaderTemplate(template: string): (variables: HeaderVariables) => string | undefined {
  if (!template.includes('${')) {
    const value = isHeaderValue(template) ? template : undefined
    return () => value
  }
  return variables => {
    let isComplete = true
    const value = template.replace(/\$\{([^}]*)\}/g, (_whole, name: string) => {
      const found = Object.hasOwn(variables, name) ? variables[name] : undefined
      if (found === undefined || found === '') isComplete = false
      return found ?? ''
    })
    return isComplete && isHeaderValue(value) ? value : undefined
  }
}

/**
 * The caller's headers that an operator's list lets through, names in lower case.
 * `patterns` are compared without case and have at most one `*`.
 */
export function compileForwarding(patterns: readonly string[]): (headers: Headers) => [string, string][] {
  const exact: string[] = []
  const globs: { before: string; after: string }[] = []
  for (const pattern of patterns) {
    const parts = pattern.toLowerCase().split('*')
    const [before = '', after = ''] = parts
    if (parts.length === 1) {
      if (isHeaderName(before) && mayForward(before)) exact.push(before)
    } else if (parts.length === 2) globs.push({ before, after })
  }
  return headers => {
    const found: [string, string][] = []
    for (const name of exact) {
      const value = headers.get(name)
      if (value !== null) found.push([name, value])
    }
    if (globs.length > 0) {
      for (const [name, value] of headers) {
        const matches = globs.some(
          ({ before, after }) => name.length >= before.length + after.length && name.startsWith(before) && name.endsWith(after),
        )
        if (matches && mayForward(name) && !exact.includes(name)) found.push([name, value])
      }
    }
    return found
  }
}

/** Names of parameters that hold credentials: they are the caller's, and no upstream ever sees them (proxy-01 §1). */
const CREDENTIAL = /(?:key|token|secret|password|credential|sig|signature|authorization)$/i

export function isCredentialName(name: string): boolean {
  return CREDENTIAL.test(name)
}
