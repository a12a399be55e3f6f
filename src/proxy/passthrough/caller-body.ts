import { GatewayError, invalidRequest } from '../../errors.ts'
import { startDeadline } from '../../lib/deadlines.ts'
import { parseBinary, skipSpace, skipString, skipValue, toBinary } from '../../wire/members.ts'
import type { Reader } from '../answer.ts'
import type { OpenAttempt } from '../open-attempt.ts'
import { BODY_STALL_MS, declaredLength, isJson, readBody, readFailed, stalled, tooLarge } from '../read.ts'

/** A body of up to this size is read before it is sent, to see which model it names; of a larger one its beginning. */
export const WHOLE_BYTES_MAX = 1_048_576

/** The caller's body: none, whole, or its beginning and what is still to come. */
export type CallerBody =
  | { kind: 'none' }
  | { kind: 'whole'; bytes: Uint8Array }
  | { kind: 'rest'; head: Uint8Array[]; reader: Reader; length: number | undefined }

/** What a JSON body says that matters on the way: of the first WHOLE_BYTES_MAX bytes. */
export type Named = { model: string | undefined; isStream: boolean }

const NOTHING_NAMED: Named = { model: undefined, isStream: false }

/**
 * Reads what is needed of the body. Only JSON is waited for: anything else that is long or chunked goes on as it comes.
 * in: `cap`, bytes that a body may have; `stallMs`, how long the caller may take over a piece
 * throws: invalid_request, request_too_large, request_read_timeout, request_read_failed
 */
export async function openBody(request: Request, cap: number, stallMs: number = BODY_STALL_MS): Promise<CallerBody> {
  const { headers, method } = request
  const length = declaredLength(headers)
  const isChunked = length === undefined && headers.has('transfer-encoding')
  if (!isChunked && (length === undefined || length === 0)) return { kind: 'none' }
  // The runtime sends none, and to leave it out in silence would ask for something else.
  if (method === 'GET' || method === 'HEAD') throw invalidRequest(`a body with ${method} cannot be passed on`)
  if (length !== undefined && length <= WHOLE_BYTES_MAX) return { kind: 'whole', bytes: await readBody(request, cap, stallMs) }
  const reader = request.body?.getReader()
  if (!reader) return { kind: 'none' }
  const head: Uint8Array[] = []
  let bytes = 0
  for (;;) {
    const { done, value } = await nextPiece(reader, stallMs)
    if (done) return { kind: 'whole', bytes: Buffer.concat(head, bytes) }
    head.push(value)
    bytes += value.byteLength
    if (bytes > cap) {
      reader.cancel().catch(() => {})
      throw tooLarge(cap)
    }
    if (bytes >= WHOLE_BYTES_MAX || !mayBeJson(headers, head[0])) return { kind: 'rest', head, reader, length }
  }
}

/** What the body names, as far as it has been read. */
export function namedIn(body: CallerBody, headers: Headers): Named {
  if (body.kind === 'none') return NOTHING_NAMED
  const pieces = body.kind === 'whole' ? [body.bytes] : body.head
  if (!mayBeJson(headers, pieces[0])) return NOTHING_NAMED
  return readNamed(pieces.map(toBinary).join(''))
}

/**
 * What is sent in place of a body whose end has not come: a piece of the caller's whenever the server takes one, so that nothing
 * piles up between them. What ends it badly ends the attempt.
 * in: `pauseMs`, how long the server may take over a piece, 0 where that is not to be watched here; the time rests while the
 * caller is awaited
 */
export function passOn(
  { head, reader }: Extract<CallerBody, { kind: 'rest' }>,
  cap: number,
  open: OpenAttempt,
  pauseMs: () => number,
  stallMs: number = BODY_STALL_MS,
): ReadableStream<Uint8Array> {
  const pieces = head.slice()
  let bytes = 0
  /** The server has heard enough: its answer stands on its own, and what becomes of the body means nothing any more. */
  let isOver = false
  const watchServer = () => {
    if (pauseMs() > 0 && !open.signal.aborted) open.arm(pauseMs())
  }
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const known = pieces.shift()
        if (known) {
          bytes += known.byteLength
          return controller.enqueue(known)
        }
        try {
          if (pauseMs() > 0) open.disarm()
          const { done, value } = await nextPiece(reader, stallMs)
          if (isOver) return
          watchServer()
          if (done) return controller.close()
          bytes += value.byteLength
          if (bytes > cap) throw tooLarge(cap)
          controller.enqueue(value)
        } catch (error) {
          if (isOver) return
          const reason = error instanceof GatewayError ? error : readFailed(error)
          open.abort(reason)
          reader.cancel().catch(() => {})
          controller.error(reason)
        }
      },
      cancel() {
        isOver = true
        watchServer()
        reader.cancel().catch(() => {})
      },
    },
    { highWaterMark: 0 },
  )
}

/** A piece that is not empty, or the end. throws: request_read_timeout, request_read_failed; then nothing more is read */
async function nextPiece(
  reader: Reader,
  stallMs: number,
): Promise<{ done: false; value: Uint8Array } | { done: true; value?: undefined }> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const deadline = startDeadline(stallMs, { onDeadline: ms => reject(stalled(ms)) })
  try {
    for (;;) {
      const { done, value } = await Promise.race([reader.read(), late])
      if (done) return { done }
      if (value && value.byteLength > 0) return { done, value }
    }
  } catch (error) {
    reader.cancel().catch(() => {})
    throw error instanceof GatewayError ? error : readFailed(error)
  } finally {
    deadline.cancel()
  }
}

/** Types that command-line tools give to JSON when nobody tells them, and what goes by no type at all. */
const UNTOLD = /^(?:|text\/plain|application\/x-www-form-urlencoded)$/i

/** Whether a body that begins like this is worth reading: an object, not encoded, of a type that servers would read as JSON. */
function mayBeJson(headers: Headers, first: Uint8Array | undefined): boolean {
  const encoding = headers.get('content-encoding')
  if (encoding !== null && encoding.trim().toLowerCase() !== 'identity') return false
  const type = headers.get('content-type') ?? ''
  if (!isJson(type) && !UNTOLD.test(type.split(';', 1)[0]?.trim() ?? '')) return false
  if (!first) return false
  const text = toBinary(first.subarray(0, 64))
  const from = skipSpace(text, startOf(text))
  return from >= text.length || text[from] === '{'
}

/** Behind a byte order mark, where there is one. */
function startOf(text: string): number {
  return text.startsWith('\u00ef\u00bb\u00bf') ? 3 : 0
}

/**
 * The members `model` and `stream` at the outermost level, of an object that may break off anywhere; of two the last, as parsers
 * have it. in: binary text
 */
function readNamed(text: string): Named {
  const named = { ...NOTHING_NAMED }
  try {
    let at = skipSpace(text, startOf(text))
    if (text[at] !== '{') return named
    do {
      const keyStart = skipSpace(text, at + 1)
      const keyEnd = skipString(text, keyStart)
      const valueStart = skipSpace(text, skipSpace(text, keyEnd) + 1)
      // However deep it nests: nobody here walks through it.
      const valueEnd = skipValue(text, valueStart, Number.NEGATIVE_INFINITY)
      const key = parseBinary(text.slice(keyStart, keyEnd))
      if (key === 'model' || key === 'stream') {
        const value = parseBinary(text.slice(valueStart, valueEnd))
        if (key === 'stream') named.isStream = value === true
        else named.model = typeof value === 'string' ? value : undefined
      }
      at = skipSpace(text, valueEnd)
    } while (text[at] === ',')
  } catch {
    // It breaks off here, or is no JSON: what the server makes of that is its own affair.
  }
  return named
}
