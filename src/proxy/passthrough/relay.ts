import { clientGone, GatewayError } from '../../errors.ts'
import type { Attempt, Exchange } from '../../exchange.ts'
import type { Gateway } from '../../gateway.ts'
import { cutOff } from '../../lib/cut-off.ts'
import type { Piece } from '../answer.ts'
import type { Caller } from '../caller.ts'
import type { OpenAttempt } from '../open-attempt.ts'
import { commonHeaders } from '../reply.ts'
import { logCause, settle } from '../settle.ts'
import { answerHeaders } from './headers.ts'
import { isEventStream, observerOf } from './told-usage.ts'

export type Relayed = {
  gateway: Gateway
  exchange: Exchange
  caller: Caller
  open: OpenAttempt
  record: Attempt
  /** Milliseconds of silence in the answer; 0: none. */
  silenceMs: number
}

/** Statuses that have no body, whatever else they say. Source: Fetch standard, "null body status". */
const WITHOUT_BODY = [204, 205, 304]

/**
 * The server's answer as it is: its status, its headers, and its body piece by piece, as the caller takes them. A body that breaks
 * off breaks off for the caller, too, and never ends as if it were whole.
 * throws: upstream_error where it is no answer that could be passed on
 */
export function relay(relayed: Relayed, response: Response): Response {
  const { gateway, exchange, open, record } = relayed
  const { status } = response
  if (status < 200 || status > 599) {
    throw new GatewayError('upstream_error', `upstream returned ${status}, which is no final status`, { upstreamStatus: status })
  }
  record.status = status
  if (status >= 400) {
    record.errorKind = 'upstream_error'
    record.errorMessage = `upstream returned ${status}`
  }
  exchange.status = status
  exchange.isStream = isEventStream(response.headers)
  exchange.hasAnswered = true
  exchange.headAt = gateway.clock.monotonic()
  // The runtime knows the peer only while its request is at the door.
  exchange.clientIp()
  const headers = answerHeaders(response.headers, commonHeaders(gateway, exchange.requestId))
  const isHead = exchange.method === 'HEAD'
  if (!isHead && !WITHOUT_BODY.includes(status) && response.body) {
    if (exchange.isStream && !headers.has('x-accel-buffering')) headers.set('x-accel-buffering', 'no')
    return new Response(bodyOf(relayed, response, response.body.getReader()), { status, headers })
  }
  open.release()
  settle(gateway, exchange)
  // A head without a length, of an answer that has one nobody knows: the runtime would say 0.
  const isOpen = isHead && !WITHOUT_BODY.includes(status) && !headers.has('content-length')
  return new Response(isOpen ? unsized() : null, { status, headers })
}

/** Nothing, of a length that is not known beforehand. */
function unsized(): ReadableStream<Uint8Array> {
  return new ReadableStream({ pull: controller => controller.close() }, { highWaterMark: 0 })
}

function bodyOf(
  { gateway, exchange, caller, open, record, silenceMs }: Relayed,
  response: Response,
  reader: { read(): Promise<Piece>; cancel(): Promise<void> },
): ReadableStream<Uint8Array> {
  const { clock } = gateway
  const observer = observerOf(response, exchange)
  let isOver = false
  const over = () => {
    isOver = true
    observer?.end()
    settle(gateway, exchange)
  }
  const fail = (controller: ReadableStreamDefaultController<Uint8Array>, error: unknown) => {
    if (isOver) return
    const known = open.explain(error)
    exchange.error = known
    // The head has told another status; what the log and the metrics say is how it went.
    exchange.status = caller.isGone ? 499 : known.status
    open.abort(known)
    if (!caller.isGone) logCause(gateway, exchange)
    over()
    cutOff(controller)
  }
  /** Every piece of every stream passes here: plain promises, no async function. */
  const step = (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
    // The silence that counts is the server's, not the time that the caller takes to read.
    open.arm(silenceMs)
    return reader.read().then(
      piece => pass(controller, piece),
      error => fail(controller, error),
    )
  }
  const pass = (controller: ReadableStreamDefaultController<Uint8Array>, { done, value }: Piece): Promise<void> | undefined => {
    open.disarm()
    if (isOver) return undefined
    if (done) {
      // A body that ends while we end it ourselves is no clean end.
      if (open.reason) fail(controller, open.reason)
      else {
        open.release()
        over()
        controller.close()
      }
      return undefined
    }
    // Who enqueues nothing is not asked again.
    if (!value || value.byteLength === 0) return step(controller)
    if (exchange.isStream && exchange.firstByteAt === undefined) {
      exchange.firstByteAt = clock.monotonic()
      record.firstEventMs = exchange.firstByteAt - record.startedAt
    }
    observer?.see(value)
    controller.enqueue(value)
    return undefined
  }
  return new ReadableStream<Uint8Array>(
    {
      pull: step,
      cancel() {
        if (isOver) return
        exchange.status = 499
        caller.leave()
        open.abort(clientGone())
        reader.cancel().catch(() => {})
        over()
      },
    },
    { highWaterMark: 0 },
  )
}
