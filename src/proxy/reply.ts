import { clientGone, type ErrorName, type GatewayError, toGatewayError } from '../errors.ts'
import type { Exchange } from '../exchange.ts'
import type { Gateway } from '../gateway.ts'
import { cutOff } from '../lib/cut-off.ts'
import { VERSION } from '../version.ts'
import { toBytes } from '../wire/members.ts'
import type { Answer, AnswerStream, Framer } from './answer.ts'
import type { Caller } from './caller.ts'
import type { Endpoint } from './endpoints/endpoint.ts'
import { isRejected, logCause, settle } from './settle.ts'

export const SERVER = `AISIX/${VERSION}`

/** Headers that every answer of the listener has. */
export function commonHeaders(gateway: Gateway, requestId: string): Record<string, string> {
  const headers: Record<string, string> = { 'x-aisix-request-id': requestId, 'x-request-id': requestId, server: SERVER }
  if (gateway.lifecycle.isDraining) headers.connection = 'close'
  return headers
}

/** The same, and what else clients of the path's dialect look for. */
function headersFor(gateway: Gateway, { requestId, isAnthropic }: Exchange): Record<string, string> {
  const headers = commonHeaders(gateway, requestId)
  if (isAnthropic) headers['request-id'] = requestId
  return headers
}

/**
 * Adds to the head of an answer what the request's model and limits have to say.
 * in: whether an upstream has begun to answer
 */
export type Mark = (headers: Record<string, string>, isAnswered: boolean) => void

function answerHeaders(
  gateway: Gateway,
  exchange: Exchange,
  endpoint: Endpoint,
  mark: Mark,
  contentType: string,
  isAnswered = true,
): Record<string, string> {
  const headers = headersFor(gateway, exchange)
  headers['content-type'] = contentType
  if (endpoint.hasCallId) headers['x-aisix-call-id'] = exchange.requestId
  mark(headers, isAnswered)
  return headers
}

/** Heads of whole answers that say nothing of their own but the request's id, by whether it stands in `x-aisix-call-id`, too. */
const usual = { withCallId: usualHeaders('x-aisix-call-id'), plain: usualHeaders() }

function usualHeaders(...more: string[]): { names: readonly string[]; headers: Headers } {
  const names = ['x-aisix-request-id', 'x-request-id', ...more]
  return { names, headers: new Headers({ server: SERVER, 'content-type': 'application/json' }) }
}

/**
 * The head of a whole answer. The usual one is taken from headers that all such answers share, and that the runtime copies when
 * the response is made: that costs half of what an object does.
 */
function wholeHeaders(gateway: Gateway, exchange: Exchange, endpoint: Endpoint, mark: Mark): Headers | Record<string, string> {
  const own: Record<string, string> = {}
  mark(own, true)
  let isUsual = !gateway.lifecycle.isDraining && !endpoint.dialect
  for (const _name in own) isUsual = false
  if (!isUsual) return { ...answerHeaders(gateway, exchange, endpoint, () => {}, 'application/json'), ...own }
  const { names, headers } = endpoint.hasCallId ? usual.withCallId : usual.plain
  for (const name of names) headers.set(name, exchange.requestId)
  return headers
}

/** A whole answer, or one too large to hold. */
export function reply(
  gateway: Gateway,
  exchange: Exchange,
  endpoint: Endpoint,
  mark: Mark,
  answer: Exclude<Answer, { kind: 'stream' }>,
): Response {
  const { status = 200 } = answer
  exchange.status = status
  // What is told of the limits is how they stand after this request, so it settles first.
  if (answer.kind === 'whole') settle(gateway, exchange)
  else {
    exchange.headAt = gateway.clock.monotonic()
    exchange.clientIp()
  }
  const headers = answer.head
    ? { ...answerHeaders(gateway, exchange, endpoint, mark, 'application/json'), ...answer.head }
    : wholeHeaders(gateway, exchange, endpoint, mark)
  if (status === 204 && !(headers instanceof Headers)) delete headers['content-type']
  const body = answer.kind === 'whole' ? answer.body : relayLarge(gateway, exchange, endpoint, answer)
  return new Response(status === 204 ? null : body, { status, headers })
}

/** What was held, then the rest as it comes. The runtime asks for more only when the caller has taken what it has. */
function relayLarge(
  gateway: Gateway,
  exchange: Exchange,
  endpoint: Endpoint,
  { held, reader, attempt }: Extract<Answer, { kind: 'large' }>,
): ReadableStream<Uint8Array> {
  const pass = (controller: ReadableStreamDefaultController<Uint8Array>, piece: Uint8Array) => {
    // Nobody reads what is too large to hold, so its bytes are all that an estimate has; of embeddings only the prompt counts.
    if (endpoint.answerMember === 'choices') exchange.contentBytes += piece.byteLength
    controller.enqueue(piece)
  }
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const piece = held.shift()
      if (piece) return pass(controller, piece)
      try {
        const { done, value } = await reader.read()
        if (value) pass(controller, value)
        if (!done) return
        attempt.release()
        settle(gateway, exchange)
        controller.close()
      } catch (error) {
        // The length or the last chunk is missing then: the caller's own client sees that the answer was cut.
        exchange.error = attempt.explain(error)
        exchange.status = exchange.error.status
        // Its deadline would outlive it otherwise.
        attempt.abort(exchange.error)
        logCause(gateway, exchange)
        settle(gateway, exchange)
        cutOff(controller)
      }
    },
    cancel() {
      exchange.status = 499
      attempt.abort(clientGone())
      reader.cancel().catch(() => {})
      settle(gateway, exchange)
    },
  })
}

/** An error as this dialect's callers expect it. Everything but the envelope is settled here, for whoever met it. */
export function replyError(gateway: Gateway, exchange: Exchange, error: unknown): Response {
  const known = toGatewayError(error)
  exchange.error = known
  exchange.status = known.status
  if (isRejected(exchange)) {
    // Rejected credentials show here alone: a class, an address, never the credential.
    const denied = DENIALS[known.kind]
    if (denied) gateway.metrics.authenticated(...denied)
    gateway.log
      .as('auth')
      .info('auth rejected', { reason: known.kind, client_ip: exchange.clientIp(), request_id: exchange.requestId })
  }
  logCause(gateway, exchange)
  settle(gateway, exchange)
  const headers = headersFor(gateway, exchange)
  headers['content-type'] = 'application/json'
  if (known.retryAfterSecs !== undefined && (known.status === 429 || known.status === 503)) {
    headers['retry-after'] = String(known.retryAfterSecs)
  }
  if (known.wasRetried || known.isFinal) headers['x-should-retry'] = 'false'
  return new Response(JSON.stringify(exchange.envelope(known)), { status: known.status, headers })
}

/** source: control-observability §2.3 */
const DENIALS: { readonly [K in ErrorName]?: readonly ['api_key' | 'anonymous' | 'none', string] } = {
  missing_api_key: ['none', 'missing_credentials'],
  invalid_api_key: ['api_key', 'unknown_key'],
  api_key_disabled: ['api_key', 'key_disabled'],
  api_key_expired: ['api_key', 'key_expired'],
  source_not_allowed: ['anonymous', 'source_not_allowed'],
  principal_missing: ['anonymous', 'principal_missing'],
  principal_disabled: ['anonymous', 'principal_disabled'],
  principal_expired: ['anonymous', 'principal_expired'],
}

/** A document of the gateway's own. */
export function replyJson(gateway: Gateway, exchange: Exchange, document: unknown): Response {
  return replyText(gateway, exchange, JSON.stringify(document), 'application/json')
}

/** A text of the gateway's own. */
export function replyText(gateway: Gateway, exchange: Exchange, text: string, type = 'text/plain; charset=utf-8'): Response {
  exchange.status = 200
  settle(gateway, exchange)
  const headers = headersFor(gateway, exchange)
  headers['content-type'] = type
  return new Response(text, { headers })
}

/** An answer that its status says all about. */
export function replyEmpty(gateway: Gateway, exchange: Exchange, status: number, more: Record<string, string> = {}): Response {
  exchange.status = status
  settle(gateway, exchange)
  return new Response(null, { status, headers: { ...headersFor(gateway, exchange), ...more } })
}

const HEARTBEAT = toBytes(':\n\n')

/** How long a stream may be silent; 0 where that is for ever, since the dialect has nothing that could be sent. */
export function heartbeatMsOf({ config }: Gateway, { dialect }: Endpoint): number {
  return dialect?.heartbeat === '' ? 0 : config.downstream.sse_keepalive_interval_secs * 1_000
}

/**
 * A stream to the caller. `source` is the open stream, or the promise of one when the first heartbeat was due before it:
 * then its failure is an event, since the 200 is out. Heartbeats are comments on a silent line; they are no sign of the
 * upstream and do not move its deadline.
 * in: `framer` makes the frame of an error where no stream has begun
 */
export function replyStream(
  gateway: Gateway,
  exchange: Exchange,
  endpoint: Endpoint,
  caller: Caller,
  mark: Mark,
  source: AnswerStream | Promise<AnswerStream>,
  framer: () => Framer,
): Response {
  exchange.status = 200
  exchange.headAt = gateway.clock.monotonic()
  // The runtime knows the peer only while its request is at the door.
  exchange.clientIp()
  gateway.log.as('proxy').debug('proxy stream opened', { request_id: exchange.requestId, model: exchange.labels.model })
  const heartbeat = endpoint.dialect ? toBytes(endpoint.dialect.heartbeat) : HEARTBEAT
  const heartbeatMs = heartbeatMsOf(gateway, endpoint)
  const { clock } = gateway
  let stream = source instanceof Promise ? undefined : source
  let timer: ReturnType<typeof setTimeout> | undefined
  let sentAt = exchange.headAt
  let isOver = false
  let onText: ((text: string) => Promise<void> | undefined) | undefined
  let onError: ((error: unknown) => void) | undefined

  const over = () => {
    isOver = true
    clearTimeout(timer)
    stream?.release()
    settle(gateway, exchange)
  }
  const beat = (controller: ReadableStreamDefaultController<Uint8Array>) => {
    if (isOver) return
    const silentMs = clock.monotonic() - sentAt
    if (silentMs >= heartbeatMs - 1) {
      // A caller that does not read gets no heaps of heartbeats.
      if ((controller.desiredSize ?? 0) > 0) controller.enqueue(heartbeat)
      sentAt = clock.monotonic()
      timer = setTimeout(beat, heartbeatMs, controller)
    } else timer = setTimeout(beat, heartbeatMs - silentMs, controller)
  }
  /** Asks the upstream for more and passes it on. Every token passes here: no async function, and no function made anew. */
  const step = (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
    if (!stream) return open(controller)
    onText ??= text => pass(controller, text)
    onError ??= error => fail(controller, toGatewayError(error))
    return stream.read().then(onText, onError)
  }
  const open = async (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
    try {
      stream = await source
    } catch (error) {
      return fail(controller, toGatewayError(error))
    }
    return step(controller)
  }
  const pass = (controller: ReadableStreamDefaultController<Uint8Array>, text: string): Promise<void> | undefined => {
    if (isOver || !stream) return undefined
    if (text !== '') {
      sentAt = clock.monotonic()
      exchange.firstByteAt ??= sentAt
      controller.enqueue(toBytes(text))
    }
    if (stream.isDone) {
      over()
      controller.close()
      return undefined
    }
    return text === '' ? step(controller) : undefined
  }
  const fail = (controller: ReadableStreamDefaultController<Uint8Array>, error: GatewayError) => {
    if (isOver) return
    exchange.error = error
    if (caller.isGone) exchange.status = 499
    else {
      // The head said 200; what the log and the metrics say is how it went.
      exchange.status = error.status
      logCause(gateway, exchange)
    }
    stream?.abort(error)
    over()
    try {
      if (!caller.isGone) {
        controller.enqueue(toBytes(stream ? stream.errorFrame(error) : framer().error(error)))
      }
      controller.close()
    } catch {
      // The caller's side is closed already: nobody is left to be told.
    }
  }

  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      if (heartbeatMs > 0) timer = setTimeout(beat, heartbeatMs, controller)
      if (source instanceof Promise) {
        controller.enqueue(heartbeat)
        source.catch(() => {})
      }
    },
    pull: step,
    cancel() {
      if (isOver) return
      exchange.status = 499
      caller.leave()
      stream?.abort(clientGone())
      over()
    },
  })
  const headers = answerHeaders(
    gateway,
    exchange,
    endpoint,
    mark,
    endpoint.dialect?.streamType ?? 'text/event-stream',
    !(source instanceof Promise),
  )
  headers['cache-control'] = 'no-cache'
  headers['x-accel-buffering'] = 'no'
  return new Response(body, { headers })
}
