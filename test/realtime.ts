/** Both ends of realtime sessions: an upstream that does what a test tells it, and callers as programs have them. */
import { type RawCaller, rawCaller } from './proxy/raw-caller.ts'

export type Frame = string | Buffer
export type End = { code: number; reason: string }

/** What the upstream has of one session. */
type Opening = { target: string; headers: Headers; session: UpstreamSession | undefined }

export type UpstreamSession = {
  socket: Bun.ServerWebSocket<Opening>
  /** Path and query as they came. */
  target: string
  headers: Headers
  received: Frame[]
  /** How it ended, as this side saw it. */
  closed: Promise<End>
  /** What a sender that has filled the connection waits for. */
  onDrain: () => void
}

export type RealtimeUpstream = {
  /** The base of its API. */
  url: string
  port: number
  /** Headers of the requests so far, those that were refused included. */
  requests: Headers[]
  /** The session of this place in their order, once it is there. */
  session(index?: number): Promise<UpstreamSession>
  stop(): Promise<void>
}

export type RealtimeUpstreamOptions = {
  tls?: { cert: string; key: string }
  /** What it answers in place of 101. */
  answer?: (request: Request) => Response | Promise<Response>
  /** What it does the moment that a session opens. */
  onOpen?: (session: UpstreamSession) => void
  /** What it does with what comes; otherwise that is kept. */
  onFrame?: (session: UpstreamSession, frame: Frame) => void
}

export function realtimeUpstream({ tls, answer, onOpen, onFrame }: RealtimeUpstreamOptions = {}): RealtimeUpstream {
  const sessions: UpstreamSession[] = []
  const requests: Headers[] = []
  const ends = new WeakMap<UpstreamSession, (end: End) => void>()
  const server = Bun.serve<Opening>({
    hostname: '127.0.0.1',
    port: 0,
    ...(tls ? { tls } : {}),
    fetch(request, upgrader) {
      requests.push(request.headers)
      if (answer) return answer(request)
      const { pathname, search } = new URL(request.url)
      const data = { target: pathname + search, headers: request.headers, session: undefined }
      return upgrader.upgrade(request, { data }) ? undefined : new Response('no handshake', { status: 400 })
    },
    websocket: {
      idleTimeout: 0,
      backpressureLimit: 0,
      open(socket) {
        const { promise: closed, resolve } = Promise.withResolvers<End>()
        const { target, headers } = socket.data
        const session: UpstreamSession = { socket, target, headers, received: [], closed, onDrain: () => {} }
        ends.set(session, resolve)
        socket.data.session = session
        sessions.push(session)
        onOpen?.(session)
      },
      message({ data: { session } }, frame) {
        if (!session) return
        if (onFrame) onFrame(session, frame)
        else session.received.push(frame)
      },
      drain: ({ data: { session } }) => session?.onDrain(),
      close({ data: { session } }, code, reason) {
        if (session) ends.get(session)?.({ code, reason })
      },
    },
  })
  const { port = 0 } = server
  return {
    url: `${tls ? 'https' : 'http'}://127.0.0.1:${port}/v1`,
    port,
    requests,
    async session(index = 0) {
      const giveUpAt = Date.now() + 10_000
      for (;;) {
        const session = sessions[index]
        if (session) return session
        if (Date.now() > giveUpAt) throw new Error(`waited 10 s in vain for session ${index} at the upstream`)
        await Bun.sleep(2)
      }
    },
    stop: () => server.stop(true),
  }
}

/** A caller whose session is open. */
export type RealtimeCaller = {
  socket: WebSocket
  received: Frame[]
  closed: Promise<End>
}

/** Opens a session as a program does that can set headers. throws: Error when it is refused */
export async function openSession(
  url: string,
  { headers = {}, protocols = [] }: { headers?: Record<string, string>; protocols?: string[] } = {},
): Promise<RealtimeCaller> {
  const socket = new WebSocket(url.replace(/^http/, 'ws'), { headers, protocols, perMessageDeflate: false })
  socket.binaryType = 'nodebuffer'
  const received: Frame[] = []
  const { promise: closed, resolve: close } = Promise.withResolvers<End>()
  const { promise: opened, resolve: open, reject } = Promise.withResolvers<void>()
  socket.onmessage = ({ data }) => received.push(data)
  socket.onopen = () => open()
  socket.onclose = ({ code, reason }) => close({ code, reason })
  socket.onerror = ({ message }) => reject(new Error(message))
  await opened
  return { socket, received, closed }
}

/** Headers of an opening handshake, with the key of RFC 6455's own example. */
export const HANDSHAKE = [
  'Connection: Upgrade',
  'Upgrade: websocket',
  'Sec-WebSocket-Version: 13',
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
]

/** A connection on which a handshake has been sent, or something else that stands in its place. */
export async function rawHandshake(port: number, target: string, headers: readonly string[], method = 'GET'): Promise<RawCaller> {
  const caller = await rawCaller(port)
  caller.send(`${[`${method} ${target} HTTP/1.1`, 'Host: gateway.test', ...headers].join('\r\n')}\r\n\r\n`)
  return caller
}

export type Refusal = { status: number; headers: Headers; body: { error: Record<string, unknown> } | undefined }

/** What is answered to a handshake that is refused. */
export async function refusalOf(port: number, target: string, headers: readonly string[], method?: string): Promise<Refusal> {
  const caller = await rawHandshake(port, target, headers, method)
  try {
    const head = (await caller.receives('\r\n\r\n')).split('\r\n\r\n', 1)[0] ?? ''
    const [line = '', ...fields] = head.split('\r\n')
    const told = new Headers(
      fields.map((field): [string, string] => [field.split(': ', 1)[0] ?? '', field.replace(/^[^:]*: /, '')]),
    )
    const length = method === 'HEAD' ? 0 : Number(told.get('content-length'))
    const giveUpAt = Date.now() + 10_000
    while (caller.received().length < head.length + 4 + length && Date.now() < giveUpAt) await Bun.sleep(2)
    const text = caller.received().slice(head.length + 4)
    return { status: Number(line.split(' ')[1]), headers: told, body: text === '' ? undefined : JSON.parse(text) }
  } finally {
    caller.leave()
  }
}
