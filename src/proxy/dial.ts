import { GatewayError } from '../errors.ts'
import { startDeadline } from '../lib/deadlines.ts'
import type { Fetch, FetchInit, TlsOptions } from '../lib/fetch.ts'
import { errorCode, transportCause } from '../lib/transport-cause.ts'

export { errorCode }

export type DialRequest = {
  url: string
  origin: string
  hostname: string
  port: number
  tls: TlsOptions | undefined
  /** Or what gives them, each time that the request is sent. */
  headers: Record<string, string> | (() => Headers)
  /** Left out: POST. */
  method?: string
  /** Text or bytes, or what gives them anew each time that the request is sent. */
  body?: string | Uint8Array | (() => ReadableStream<Uint8Array>)
  /** The body can be given once only: no pooled connection, which may be dead, is tried with it. */
  isOneShot?: boolean
  /** The body of the answer is wanted as it was sent, in whatever encoding. */
  isRaw?: boolean
  isStream: boolean
  signal: AbortSignal
  /** Called when no connection can be had within the time for connecting: aborts `signal`. */
  onUnreachable: (error: GatewayError) => void
}

/** What is known of one scheme, host and port. */
type Origin = {
  /** It closes connections after streams while announcing keep-alive: streams to it get connections of their own. */
  hangsUp: boolean
  /** Monotonic time at which it last answered or took a connection. */
  aliveAt: number
  probe: Promise<boolean> | undefined
}

export type Dial = (request: DialRequest) => Promise<Response>

export type DialerOptions = {
  fetch: Fetch
  proxy: string | undefined
  connectTimeoutMs: number
  monotonic: () => number
}

/** Codes of a connection that broke, as against one that was never had. */
const BROKEN = new Set(['ECONNRESET', 'ConnectionClosed', 'EPIPE', 'ECONNABORTED', 'HTTP2_CONNECTION_CLOSED', 'UND_ERR_SOCKET'])

/**
 * The one way out of the gateway. A connection that breaks before the first byte of an answer is most often one that the
 * upstream closed while it lay in the pool: the request is sent again at once, once, on a fresh connection, outside the
 * retry budget and its back-off.
 * throws: what `fetch` throws; `transportError` puts it into words
 */
export function createDialer({ fetch, proxy, connectTimeoutMs, monotonic }: DialerOptions): Dial {
  const origins = new Map<string, Origin>()
  const through = proxy === undefined ? undefined : proxyEndpoint(proxy)
  const originOf = (name: string): Origin => {
    let origin = origins.get(name)
    if (!origin) {
      // Operators change addresses rarely; a bound all the same, the oldest goes first.
      if (origins.size >= 4096)
        for (const oldest of origins.keys()) {
          origins.delete(oldest)
          break
        }
      origin = { hangsUp: false, aliveAt: Number.NEGATIVE_INFINITY, probe: undefined }
      origins.set(name, origin)
    }
    return origin
  }

  /** `fetch` has no time limit for connecting: when no answer has come, one connection tells a slow answer from no host. */
  const watchConnect = async (request: DialRequest, origin: Origin, startedAt: number, isOver: () => boolean) => {
    if (origin.aliveAt >= startedAt) return
    origin.probe ??= canConnect(through ?? request, connectTimeoutMs).finally(() => {
      origin.probe = undefined
    })
    const isThere = await origin.probe
    // Its answer may have come meanwhile, or that of another request: then the host is there, however busy with connections.
    if (isOver() || origin.aliveAt >= startedAt) return
    if (isThere) origin.aliveAt = monotonic()
    else request.onUnreachable(unreachable(connectTimeoutMs))
  }

  return request => {
    const origin = originOf(request.origin)
    const startedAt = monotonic()
    const watch =
      connectTimeoutMs > 0
        ? startDeadline(connectTimeoutMs, { onDeadline: () => watchConnect(request, origin, startedAt, () => isOver) })
        : undefined
    const init: FetchInit = {
      method: request.method ?? 'POST',
      headers: headersOf(request),
      signal: request.signal,
      redirect: 'manual',
      decompress: !request.isRaw,
      keepalive: !(request.isOneShot || (request.isStream && origin.hangsUp)),
      proxy: proxy ?? false,
      timeout: false,
      verbose: false,
    }
    const { body } = request
    if (body !== undefined) init.body = typeof body === 'function' ? body() : body
    if (request.tls) init.tls = request.tls
    let isOver = false
    const answered = (response: Response) => {
      isOver = true
      watch?.cancel()
      origin.aliveAt = monotonic()
      return response
    }
    const failed = (error: unknown) => {
      isOver = true
      watch?.cancel()
      throw error
    }
    return fetch(request.url, init).then(answered, error => {
      if (!BROKEN.has(errorCode(error)) || request.signal.aborted || request.isOneShot) return failed(error)
      const again = { ...init, headers: headersOf(request), keepalive: false }
      if (typeof body === 'function') again.body = body()
      return fetch(request.url, again).then(response => {
        // The same request went well on a connection of its own: the pooled one was dead.
        origin.hangsUp = true
        return answered(response)
      }, failed)
    })
  }
}

function headersOf({ headers }: DialRequest): Record<string, string> | Headers {
  return typeof headers === 'function' ? headers() : headers
}

/** Where a connection goes, with TLS or without. */
type Endpoint = { hostname: string; port: number; tls: TlsOptions | undefined }

/** Whether a connection can be had in time, the TLS handshake included; whose certificate it is does not matter here. */
export async function canConnect({ hostname, port, tls }: Endpoint, timeoutMs: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const timer = setTimeout(() => resolve(false), timeoutMs)
  const connecting = Bun.connect({
    hostname,
    port,
    ...(tls ? { tls: { rejectUnauthorized: false } } : {}),
    socket: {
      open() {
        if (!tls) resolve(true)
      },
      handshake() {
        resolve(true)
      },
      data() {},
      error() {},
      close() {
        // A server that hangs up in the handshake answers: what is wrong, `fetch` will say.
        resolve(true)
      },
      connectError() {
        // Refused now, and not when the request went out, which `fetch` would have told: the host drains, and may still answer it.
        resolve(true)
      },
    },
  })
  connecting.then(
    socket => promise.then(() => socket.terminate()),
    () => resolve(true),
  )
  try {
    return await promise
  } finally {
    clearTimeout(timer)
  }
}

/** A proxy's own address: that is where connections go where there is one. */
export function proxyEndpoint(text: string): Endpoint {
  const { protocol, hostname, port } = new URL(text)
  const isTls = protocol === 'https:'
  return {
    hostname: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? (isTls ? 443 : 80) : Number(port),
    tls: isTls ? { rejectUnauthorized: true } : undefined,
  }
}

/** No connection could be had within the time for connecting. */
export function unreachable(connectTimeoutMs: number): GatewayError {
  return new GatewayError('transport_error', 'transport error: connection timed out', {
    cause: new Error(`no connection within upstream.connect_timeout_ms (${connectTimeoutMs}), nor on a second try`),
    retry: 'yes',
  })
}

/**
 * The class of a transport error, for callers: they never see a host or an address. The log gets the cause under the
 * request id.
 */
export function transportError(error: unknown): GatewayError {
  return new GatewayError('transport_error', `transport error: ${transportCause(error)}`, {
    cause: error,
    retry: 'yes',
  })
}
