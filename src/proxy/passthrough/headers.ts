/** What of the headers goes through a passthrough route, both ways. Source: RFC 9110 §7.6.1; proxy-03 §12, proxy-01 §10. */
import type { Snapshot } from '../../store/snapshot.ts'
import { credentialIn, holdsCallerKey } from '../authenticate.ts'
import { USER_AGENT } from '../upstream.ts'
import type { RouteTarget } from './target.ts'

/** Of one connection, and not of the message on it. */
const HOP_BY_HOP: readonly string[] = [
  ...['connection', 'keep-alive', 'proxy-authenticate', 'proxy-authorization', 'proxy-connection'],
  ...['te', 'trailer', 'transfer-encoding', 'upgrade'],
]

/** Of requests besides: what the sender of each message says itself, and what names our own traces. */
const NOT_SENT_ON = new Set([
  ...HOP_BY_HOP,
  ...['host', 'content-length', 'expect', 'traceparent', 'tracestate', 'x-aisix-request-id'],
])
const NOT_ANSWERED = new Set([...HOP_BY_HOP, 'server', 'x-aisix-request-id'])

/** Where callers show keys on any endpoint: one that stands there is kept back, whatever else the request showed. */
const KEY_HEADERS = ['authorization', 'x-api-key'] as const

/** The caller's headers as they go to the server, with the credential of the route's provider key where it has one. */
export function requestHeaders(
  snapshot: Snapshot,
  target: RouteTarget,
  given: Headers,
  requestId: string,
  length: number | undefined,
): Record<string, string> {
  const { auth_header_name, identity_header } = target.route.value
  const dropped = new Set([...namedBy(given.get('connection')), ...target.stripped])
  const keys: string[] = []
  const keepBack = (name: string) => {
    const value = given.get(name)
    if (value === null) return
    dropped.add(name)
    const key = credentialIn(value)
    // A shorter one would be found in other headers by chance.
    if (key.length >= 8) keys.push(key)
  }
  if (auth_header_name !== undefined) keepBack(auth_header_name)
  for (const name of KEY_HEADERS) {
    const value = given.get(name)
    if (value !== null && holdsCallerKey(snapshot, value)) keepBack(name)
  }
  if (identity_header !== undefined) dropped.add(identity_header)
  // Without one the runtime would name itself.
  const headers: Record<string, string> = { 'user-agent': USER_AGENT }
  for (const [name, value] of given) {
    if (NOT_SENT_ON.has(name) || dropped.has(name)) continue
    // A key that its caller repeats elsewhere reaches nobody either.
    if (keys.some(key => value.includes(key))) continue
    headers[name] = value
  }
  if (length !== undefined) headers['content-length'] = String(length)
  headers['x-aisix-request-id'] = requestId
  return Object.assign(headers, target.credential)
}

/** The server's headers as its caller gets them. in: `own`, what the gateway says of itself */
export function answerHeaders(given: Headers, own: Readonly<Record<string, string>>): Headers {
  const dropped = namedBy(given.get('connection'))
  // The server's own id of the request stays where clients look for it; ours stands beside it under our own name.
  const headers = new Headers(own)
  if (given.has('x-request-id')) headers.delete('x-request-id')
  for (const [name, value] of given) {
    if (!NOT_ANSWERED.has(name) && !dropped.includes(name)) headers.append(name, value)
  }
  return headers
}

/** Headers that `Connection` says are of the connection, too. */
function namedBy(connection: string | null): string[] {
  return connection === null ? [] : connection.split(',').map(name => name.trim().toLowerCase())
}
