import type { IncomingMessage } from 'node:http'
import type { WebSocket } from 'ws'
import { clientGone, GatewayError } from '../../errors.ts'
import { type Deadline, type Expiring, startDeadline } from '../../lib/deadlines.ts'
import type { TlsOptions } from '../../lib/fetch.ts'
import type { Caller, Waiting } from '../caller.ts'
import { canConnect, errorCode, proxyEndpoint, transportError, unreachable } from '../dial.ts'

/** Bytes of one message, of either side. OpenAI takes up to 15 MiB. */
export const MESSAGE_BYTES_MAX = 16 * 1024 * 1024
/** How long an upstream may take to answer a Close frame before its connection is cut. */
const CLOSE_MS = 2_000
/** Bytes of an answer in place of 101 that are read for its message, and how long that may take. */
const WORDS_BYTES_MAX = 64 * 1024
const WORDS_MS = 1_000

/** Text as a string, binary as bytes. */
export type Frame = string | Buffer<ArrayBuffer>

export interface LinkListener {
  onFrame(frame: Frame): void
  /** The other side answered a ping. */
  onPong(): void
  /** The connection is over. in: 1006 where there was no Close frame, 1005 where it had no code; what the transport said */
  onClosed(code: number, reason: string, cause: Error | undefined): void
}

/** An open WebSocket of an upstream, from which nothing is read before there is a listener. */
export class UpstreamLink {
  private listener: LinkListener | undefined
  private cause: Error | undefined
  private closed: { code: number; reason: string } | undefined

  /** in: a socket within its `open` event: paused there, it holds back what came with the handshake, too */
  constructor(private readonly socket: WebSocket) {
    socket.pause()
    socket.on('message', (data, isBinary) => this.listener?.onFrame(isBinary ? data : data.toString('utf8')))
    socket.on('pong', () => this.listener?.onPong())
    socket.on('error', error => {
      this.cause ??= error
    })
    socket.on('close', (code, reason) => {
      this.closed = { code, reason: reason.toString('utf8') }
      this.listener?.onClosed(code, this.closed.reason, this.cause)
    })
  }

  listen(listener: LinkListener): void {
    this.listener = listener
    if (this.closed) listener.onClosed(this.closed.code, this.closed.reason, this.cause)
    else this.socket.resume()
  }

  /** returns: false where the upstream is slower than its caller; `onWritten` then tells when it has taken everything */
  send(frame: Frame, onWritten: () => void): boolean {
    this.socket.send(frame, onWritten)
    return this.socket.bufferedAmount === 0
  }

  get isPaused(): boolean {
    return this.socket.isPaused
  }

  pause(): void {
    this.socket.pause()
  }

  resume(): void {
    this.socket.resume()
  }

  ping(): void {
    this.socket.ping()
  }

  /** Ends it in good order. in: a code that may be sent; undefined for none */
  close(code: number | undefined, reason: string): void {
    if (code === undefined) this.socket.close()
    else this.socket.close(code, reason)
    // The answer to the Close frame has to be read.
    this.socket.resume()
  }

  terminate(): void {
    this.socket.terminate()
  }
}

/** What an upstream answered in place of 101. */
export type Unexpected = { status: number; headers: Headers; text: string }

export type LinkRequest = {
  url: string
  hostname: string
  port: number
  headers: Record<string, string>
  tls: TlsOptions | undefined
  proxy: string | undefined
  /** Milliseconds for the whole handshake; 0: none. */
  timeoutMs: number
  /** Milliseconds for the connection alone; 0: none. */
  connectTimeoutMs: number
  caller: Caller
  /** The error of an upstream that answers, and does not switch protocols. */
  refused(answer: Unexpected): GatewayError | Promise<GatewayError>
}

/**
 * The way out for WebSockets, beside `dial.ts`: no variable of the environment sends it elsewhere, and no redirect is followed.
 * throws: GatewayError: transport_error, timeout, client_disconnected, what `refused` makes, upstream_error for a handshake
 * that breaks RFC 6455
 */
export async function openLink(request: LinkRequest): Promise<UpstreamLink> {
  // Loaded with the first session: it costs 2 ms, a fifth of the start.
  const { WebSocket } = await import('ws')
  if (request.caller.isGone) throw clientGone()
  return await new Handshake(request, WebSocket).done
}

class Handshake implements Expiring, Waiting {
  private readonly outcome = Promise.withResolvers<UpstreamLink>()
  readonly done = this.outcome.promise
  private readonly socket: WebSocket
  private readonly deadline: Deadline | undefined
  private readonly connectDeadline: Deadline | undefined
  private isOver = false

  constructor(
    private readonly request: LinkRequest,
    Socket: typeof WebSocket,
  ) {
    const { url, headers, tls, proxy, timeoutMs, connectTimeoutMs, caller } = request
    this.socket = new Socket(url, {
      headers,
      perMessageDeflate: false,
      maxPayload: MESSAGE_BYTES_MAX,
      closeTimeout: CLOSE_MS,
      followRedirects: false,
      ...(tls ? { tls } : {}),
      ...(proxy === undefined ? {} : { proxy }),
    })
    this.socket.once('open', () => {
      if (this.end()) this.outcome.resolve(new UpstreamLink(this.socket))
    })
    this.socket.on('error', error => this.fail(this.explain(error)))
    this.socket.once('unexpected-response', (_request, response) => this.refused(response))
    caller.tell(this)
    if (timeoutMs > 0) this.deadline = startDeadline(timeoutMs, this)
    if (connectTimeoutMs > 0) this.connectDeadline = startDeadline(connectTimeoutMs, { onDeadline: () => this.watchConnect() })
  }

  onCallerGone(): void {
    this.fail(clientGone())
  }

  onDeadline(ms: number): void {
    this.fail(new GatewayError('timeout', `upstream request timed out after ${ms}ms`))
  }

  /** The handshake does not tell when it is connected: one connection beside it tells a slow answer from no host. */
  private async watchConnect(): Promise<void> {
    const { connectTimeoutMs, proxy } = this.request
    const isThere = await canConnect(proxy === undefined ? this.request : proxyEndpoint(proxy), connectTimeoutMs)
    if (!isThere) this.fail(unreachable(connectTimeoutMs))
  }

  private async refused(response: IncomingMessage): Promise<void> {
    const headers = new Headers()
    const retryAfter = response.headers['retry-after']
    if (retryAfter !== undefined) headers.set('retry-after', retryAfter)
    const text = await beginningOf(response)
    this.fail(await this.request.refused({ status: response.statusCode ?? 0, headers, text }))
  }

  /** What the network did has a code; what has none came from an upstream whose handshake is wrong, or from a proxy before it. */
  private explain(error: Error): GatewayError {
    const { url, proxy } = this.request
    // The log gets this cause, and no parameters of the caller's.
    error.message = error.message.replaceAll(url, url.split('?', 1)[0] ?? '')
    if (errorCode(error) !== '' || proxy !== undefined) return transportError(error)
    const message = 'upstream answered the WebSocket handshake wrongly; check api_base'
    return new GatewayError('upstream_error', message, { cause: error })
  }

  private fail(error: GatewayError): void {
    if (!this.end()) return
    this.outcome.reject(error)
    this.socket.terminate()
  }

  /** returns: whether this is the first end */
  private end(): boolean {
    if (this.isOver) return false
    this.isOver = true
    this.deadline?.cancel()
    this.connectDeadline?.cancel()
    this.request.caller.tell(undefined)
    return true
  }
}

/** The beginning of an answer as text; what follows, or does not come in time, is left unread. */
function beginningOf(response: IncomingMessage): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  const pieces: Buffer[] = []
  let length = 0
  const over = () => {
    deadline.cancel()
    resolve(Buffer.concat(pieces).subarray(0, WORDS_BYTES_MAX).toString('utf8'))
  }
  const deadline = startDeadline(WORDS_MS, { onDeadline: over })
  response.on('data', (piece: Buffer) => {
    pieces.push(piece)
    length += piece.byteLength
    if (length >= WORDS_BYTES_MAX) over()
  })
  response.on('end', over)
  response.on('error', over)
  response.on('close', over)
  return promise
}
