import { VERSION } from '../version.ts'

/** Who connects, as the runtime knows it; `Bun.serve` passes its server to the handler. */
export type AddressSource = { requestIP(request: Request): { address: string } | null }

/** The address of the peer without the wrapping of IPv4 in IPv6; empty where there is no connection, as in tests. */
export function peerAddress(request: Request, server: AddressSource | undefined): string {
  const address = server?.requestIP(request)?.address ?? ''
  return address.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, '')
}

/**
 * A request that routers can trust to have an absolute URL, or the answer that refuses it. The runtime hands over relative
 * URLs where `Host` is missing or malformed, and CONNECT targets as they came; a router would misread both.
 * HTTP/1.0 needs no `Host`, and probes of load balancers still speak it: such a request is served under `localhost`.
 */
export function frontDoor(request: Request): Request | Response {
  if (request.method === 'CONNECT') return plain(405, 'CONNECT is not supported: this is not a proxy of that kind')
  const host = request.headers.get('host')
  // Two Host headers arrive joined. A comma has no place in a host, so this refuses nothing that is well formed.
  if (host?.includes(',')) return plain(400, 'expected one Host header')
  if (/^https?:\/\//i.test(request.url)) {
    return URL.canParse(request.url) ? request : plain(400, 'expected a request target such as /livez')
  }
  if (host !== null) return plain(400, 'expected a Host header such as 127.0.0.1:3001')
  const url = URL.parse(request.url, 'http://localhost')
  return url?.host === 'localhost' ? new Request(url.href, request) : plain(400, 'expected a request target such as /livez')
}

/** What every response of ours says about itself. Answers with immutable headers are copied. */
export function withStandardHeaders(response: Response): Response {
  const headers = new Headers(response.headers)
  headers.set('server', `AISIX/${VERSION}`)
  headers.set('x-content-type-options', 'nosniff')
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers })
}

/** The answer to HEAD: the head of what GET answers, its length included. Reads the body, so not for streams. */
export async function withoutBody(response: Response): Promise<Response> {
  const { byteLength } = await response.arrayBuffer()
  const headers = new Headers(response.headers)
  headers.set('content-length', String(byteLength))
  return new Response(null, { status: response.status, headers })
}

function plain(status: 400 | 405, message: string): Response {
  const headers = new Headers({ 'content-type': 'text/plain; charset=utf-8' })
  if (status === 405) headers.set('allow', 'GET, HEAD, POST, PUT, DELETE')
  return withStandardHeaders(new Response(`${message}\n`, { status, headers }))
}
