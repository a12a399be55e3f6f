/**
 * An upstream that does what a test tells it, at the level of TCP: it can answer, stall, cut an answer anywhere, reset the
 * connection or speak no HTTP at all. Everything that reaches it is kept.
 */
import type { Socket } from 'bun'

export type UpstreamRequest = {
  method: string
  /** Target of the request line, query included. */
  path: string
  /** Names in lower case, in the order and number in which they came. */
  headers: [name: string, value: string][]
  /** The first header of this name. */
  header(name: string): string | undefined
  /** The body as UTF-8 text. */
  text: string
  bytes: Uint8Array
  json(): unknown
  /** 1 for the first connection that the upstream took. */
  connection: number
}

export type SseOptions = {
  /** What ends the stream; `null` sends no `[DONE]`. */
  done?: string | null
  /** Milliseconds between events. */
  gapMs?: number
  /** `false`: the end of the connection ends the body. */
  chunked?: boolean
  headers?: Record<string, string>
}

/** One exchange, seen from the upstream. Each call waits until the operating system has taken the bytes. */
export type Connection = {
  json(status: number, value: unknown, headers?: Record<string, string>): Promise<void>
  /** A whole answer with a body of any kind. */
  send(status: number, body: string | Uint8Array, headers?: Record<string, string>): Promise<void>
  /** Bytes as they are, head and framing included. */
  raw(bytes: string | Uint8Array): Promise<void>
  /** The head of an event stream, its body chunked unless told otherwise. */
  streamHead(options?: Pick<SseOptions, 'chunked' | 'headers'>): Promise<void>
  /** One chunk of a chunked body. */
  chunk(bytes: string | Uint8Array): Promise<void>
  /** The last chunk. */
  endChunks(): Promise<void>
  /** A whole stream: strings go out as they are behind `data: `, other values as JSON. */
  sse(events: readonly unknown[], options?: SseOptions): Promise<void>
  /** Ends the connection in good order. */
  close(): void
  /** Ends it with a reset. */
  reset(): void
  /** Does nothing more; resolves when the other side has closed the connection. */
  stall(): Promise<void>
  /** Resolves when the connection is closed, by whichever side. */
  closed: Promise<void>
  isClosed(): boolean
}

export type Handler = (request: UpstreamRequest, connection: Connection) => void | Promise<void>

export type FakeUpstream = {
  /** Base for `api_base`, with `/v1`. */
  url: string
  origin: string
  port: number
  requests: UpstreamRequest[]
  /** The last request; fails when there was none. */
  last(): UpstreamRequest
  /** Resolves when `count` requests have come since the start. */
  arrived(count: number): Promise<void>
  /** What to do with each request from now on. */
  answer(handler: Handler): void
  /** One handler a request, in order; the last one stays. */
  answerInTurn(...handlers: Handler[]): void
  /** Connections that are open now, and that were ever taken. */
  open(): number
  connections: number
  /** Exchanges whose connection the other side closed before the answer was over. */
  cut: number
  /** Resolves when `count` exchanges have been cut since the start. */
  whenCut(count: number): Promise<void>
  stop(): void
}

type State = {
  id: number
  received: Buffer
  outgoing: { bytes: Uint8Array; at: number; written: () => void }[]
  isAnswering: boolean
  isEndedByUs: boolean
  closed: PromiseWithResolvers<void>
  isClosed: boolean
}

const REASONS: Record<number, string> = {
  200: 'OK',
  302: 'Found',
  400: 'Bad Request',
  404: 'Not Found',
  500: 'Internal Server Error',
}

/** A chat answer as vLLM gives it, to be varied. */
export function chatAnswer(content = 'Hello', more: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    id: 'chatcmpl-upstream-1',
    object: 'chat.completion',
    created: 1_700_000_000,
    model: 'upstream-model',
    choices: [{ index: 0, message: { role: 'assistant', content }, finish_reason: 'stop' }],
    usage: { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 },
    ...more,
  }
}

/** One chunk of a chat stream, to be varied. */
export function chatChunk(delta: Record<string, unknown>, more: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    id: 'chatcmpl-upstream-1',
    object: 'chat.completion.chunk',
    created: 1_700_000_000,
    model: 'upstream-model',
    choices: [{ index: 0, delta, finish_reason: null }],
    ...more,
  }
}

export async function fakeUpstream({ tls }: { tls?: { cert: string; key: string } } = {}): Promise<FakeUpstream> {
  let handlers: Handler[] = [(_request, connection) => connection.json(200, chatAnswer())]
  const sockets = new Set<Socket<State>>()
  const waiters: { kind: 'arrived' | 'cut'; count: number; resolve: () => void }[] = []
  const wake = () => {
    for (const waiter of waiters.slice()) {
      const reached = waiter.kind === 'cut' ? upstream.cut : upstream.requests.length
      if (reached < waiter.count) continue
      waiters.splice(waiters.indexOf(waiter), 1)
      waiter.resolve()
    }
  }
  const when = (kind: 'arrived' | 'cut', count: number) => {
    const { promise, resolve } = Promise.withResolvers<void>()
    waiters.push({ kind, count, resolve })
    wake()
    return promise
  }

  const take = (socket: Socket<State>) => {
    const state = socket.data
    if (state.isAnswering) return
    const parsed = parseRequest(state.received)
    if (!parsed) return
    state.received = parsed.rest
    const request: UpstreamRequest = { ...parsed.request, connection: state.id }
    upstream.requests.push(request)
    const handler = handlers.length > 1 ? handlers.shift() : handlers[0]
    state.isAnswering = true
    wake()
    const connection = connectionOf(socket)
    Promise.resolve(handler?.(request, connection))
      .catch(() => socket.terminate())
      .finally(() => {
        state.isAnswering = false
        take(socket)
      })
  }

  const server = Bun.listen<State>({
    hostname: '127.0.0.1',
    port: 0,
    ...(tls ? { tls } : {}),
    socket: {
      open(socket) {
        upstream.connections += 1
        socket.data = {
          id: upstream.connections,
          received: Buffer.alloc(0),
          outgoing: [],
          isAnswering: false,
          isEndedByUs: false,
          closed: Promise.withResolvers<void>(),
          isClosed: false,
        }
        sockets.add(socket)
      },
      data(socket, bytes) {
        socket.data.received = Buffer.concat([socket.data.received, bytes])
        take(socket)
      },
      drain: flush,
      error() {},
      close(socket) {
        const state = socket.data
        if (!sockets.delete(socket)) return
        state.isClosed = true
        if (state.isAnswering && !state.isEndedByUs) upstream.cut += 1
        for (const piece of state.outgoing.splice(0)) piece.written()
        state.closed.resolve()
        wake()
      },
    },
  })
  const origin = `${tls ? 'https' : 'http'}://127.0.0.1:${server.port}`
  const upstream: FakeUpstream = {
    url: `${origin}/v1`,
    origin,
    port: server.port,
    requests: [],
    last() {
      const request = upstream.requests.at(-1)
      if (!request) throw new Error('no request has reached the upstream')
      return request
    },
    arrived: count => when('arrived', count),
    answer(handler) {
      handlers = [handler]
    },
    answerInTurn(...inTurn) {
      handlers = inTurn
    },
    open: () => sockets.size,
    connections: 0,
    cut: 0,
    whenCut: count => when('cut', count),
    stop() {
      server.stop(true)
    },
  }
  return upstream
}

function flush(socket: Socket<State>): void {
  const { outgoing } = socket.data
  for (let piece = outgoing[0]; piece; piece = outgoing[0]) {
    const written = socket.write(piece.bytes.subarray(piece.at))
    if (written < 0) return
    piece.at += written
    if (piece.at < piece.bytes.byteLength) return
    outgoing.shift()
    piece.written()
  }
}

function connectionOf(socket: Socket<State>): Connection {
  const state = socket.data
  const raw: Connection['raw'] = bytes => {
    const { promise, resolve } = Promise.withResolvers<void>()
    if (state.isClosed) return Promise.resolve()
    state.outgoing.push({ bytes: typeof bytes === 'string' ? Buffer.from(bytes) : bytes, at: 0, written: resolve })
    flush(socket)
    return promise
  }
  const connection: Connection = {
    raw,
    json: (status, value, headers = {}) =>
      connection.send(status, JSON.stringify(value), { 'content-type': 'application/json', ...headers }),
    async send(status, body, headers = {}) {
      const bytes = typeof body === 'string' ? Buffer.from(body) : body
      const head = headOf(status, { ...headers, 'content-length': String(bytes.byteLength) })
      await raw(Buffer.concat([Buffer.from(head), bytes]))
    },
    streamHead: ({ chunked = true, headers = {} } = {}) =>
      raw(
        headOf(200, {
          'content-type': 'text/event-stream; charset=utf-8',
          ...headers,
          ...(chunked ? { 'transfer-encoding': 'chunked' } : { connection: 'close' }),
        }),
      ),
    chunk(bytes) {
      const body = typeof bytes === 'string' ? Buffer.from(bytes) : bytes
      return raw(Buffer.concat([Buffer.from(`${body.byteLength.toString(16)}\r\n`), body, Buffer.from('\r\n')]))
    },
    endChunks: () => raw('0\r\n\r\n'),
    async sse(events, { done = '[DONE]', gapMs = 0, chunked = true, headers = {} } = {}) {
      await connection.streamHead({ chunked, headers })
      const all = done === null ? [...events] : [...events, done]
      for (const [index, event] of all.entries()) {
        if (index > 0 && gapMs > 0) await Promise.race([Bun.sleep(gapMs), connection.closed])
        if (state.isClosed) return
        const text = `data: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`
        await (chunked ? connection.chunk(text) : raw(text))
      }
      if (chunked) await connection.endChunks()
      else connection.close()
    },
    close() {
      state.isEndedByUs = true
      socket.end()
    },
    reset() {
      state.isEndedByUs = true
      socket.terminate()
    },
    stall: () => state.closed.promise,
    closed: state.closed.promise,
    isClosed: () => state.isClosed,
  }
  return connection
}

function headOf(status: number, headers: Record<string, string>): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  return `HTTP/1.1 ${status} ${REASONS[status] ?? 'Status'}\r\n${lines.join('')}\r\n`
}

type Parsed = { request: Omit<UpstreamRequest, 'connection'>; rest: Buffer }

/** The first request in what was received, once it is whole. */
function parseRequest(received: Buffer): Parsed | undefined {
  const headEnd = received.indexOf('\r\n\r\n')
  if (headEnd < 0) return undefined
  const [requestLine = '', ...lines] = received.subarray(0, headEnd).toString('latin1').split('\r\n')
  const [method = '', path = ''] = requestLine.split(' ')
  const headers = lines.map((line): [string, string] => {
    const colon = line.indexOf(':')
    return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
  })
  const header = (name: string) => headers.find(each => each[0] === name)?.[1]
  const from = headEnd + 4
  let body: Buffer
  let end: number
  if (header('transfer-encoding') === 'chunked') {
    const pieces: Buffer[] = []
    for (end = from; ; ) {
      const lineEnd = received.indexOf('\r\n', end)
      if (lineEnd < 0) return undefined
      const size = Number.parseInt(received.subarray(end, lineEnd).toString(), 16)
      if (received.byteLength < lineEnd + 4 + size) return undefined
      pieces.push(received.subarray(lineEnd + 2, lineEnd + 2 + size))
      end = lineEnd + 4 + size
      if (size === 0) break
    }
    body = Buffer.concat(pieces)
  } else {
    end = from + Number(header('content-length') ?? 0)
    if (received.byteLength < end) return undefined
    body = received.subarray(from, end)
  }
  const text = body.toString('utf8')
  return {
    request: { method, path, headers, header, text, bytes: Uint8Array.from(body), json: () => JSON.parse(text) },
    rest: Buffer.from(received.subarray(end)),
  }
}
