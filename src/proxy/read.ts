import type { Dialect, Json } from '../dialects/dialect.ts'
import { GatewayError, invalidRequest } from '../errors.ts'
import { startDeadline } from '../lib/deadlines.ts'
import { DEPTH_MAX, JsonDepthError, parseBounded, type Span, scanMembers } from '../wire/members.ts'
import type { Endpoint, EndpointQuestion } from './endpoints/endpoint.ts'
import type { Question } from './question.ts'

/** A body that is promised and does not come is given up after this long without a byte. */
export const BODY_STALL_MS = 30_000

/** `application/json` or `application/*+json`, parameters allowed. */
export function isJson(contentType: string | null): boolean {
  return contentType === 'application/json' || /^application\/(?:[\w.!#$&^-]+\+)?json\s*(?:;|$)/i.test(contentType?.trim() ?? '')
}

/** Length that the request declares, or undefined when it is chunked or has no body. */
export function declaredLength(headers: Headers): number | undefined {
  const text = headers.get('content-length')
  return text === null || !/^\d+$/.test(text) ? undefined : Number(text)
}

export function tooLarge(cap: number): GatewayError {
  return new GatewayError('request_too_large', `request body exceeds ${cap}-byte limit`)
}

/**
 * The whole body.
 * throws: request_too_large over `cap` bytes (Infinity: no limit), request_read_timeout after `stallMs` without a byte,
 * request_read_failed when the connection breaks
 */
export function readBody(request: Request, cap: number, stallMs: number = BODY_STALL_MS): Promise<Uint8Array> {
  const declared = declaredLength(request.headers)
  if (declared === undefined) {
    return request.headers.has('transfer-encoding') ? collect(request, cap, stallMs) : Promise.resolve(new Uint8Array())
  }
  if (declared > cap) return Promise.reject(tooLarge(cap))
  if (declared > AT_ONCE_BYTES_MAX) return collect(request, cap, stallMs)
  // A body of usual size has come with its head or follows at once: one read, no stream.
  return new Promise((resolve, reject) => {
    const deadline = startDeadline(stallMs, { onDeadline: ms => reject(stalled(ms)) })
    request.bytes().then(
      bytes => {
        deadline.cancel()
        resolve(bytes)
      },
      error => {
        deadline.cancel()
        reject(readFailed(error))
      },
    )
  })
}

const AT_ONCE_BYTES_MAX = 65_536

export function stalled(stallMs: number): GatewayError {
  return new GatewayError('request_read_timeout', `request body stalled: nothing came for ${stallMs} ms`)
}

export function readFailed(cause: unknown): GatewayError {
  return new GatewayError('request_read_failed', 'failed to read request body', { cause })
}

/** A large or chunked body. */
async function collect(request: Request, cap: number, stallMs: number): Promise<Uint8Array> {
  const pieces: Uint8Array[] = []
  const length = await eachPiece(request, cap, stallMs, piece => void pieces.push(piece))
  return Buffer.concat(pieces, length)
}

/**
 * Hands on a body piece by piece; whoever sends it waits while a piece is being taken. The time limit is for each piece, not
 * for the whole.
 * returns: its length
 * throws: as `readBody`, and what `take` throws
 */
export async function eachPiece(
  request: Request,
  cap: number,
  stallMs: number,
  take: (piece: Uint8Array) => void | Promise<void>,
): Promise<number> {
  const reader = request.body?.getReader()
  if (!reader) return 0
  let length = 0
  try {
    for (;;) {
      const { done, value } = await readPiece(reader, stallMs)
      if (done) return length
      length += value.byteLength
      if (length > cap) throw tooLarge(cap)
      await take(value)
    }
  } catch (error) {
    reader.cancel().catch(() => {})
    throw error
  }
}

async function readPiece(reader: Pick<ReadableStreamDefaultReader<Uint8Array>, 'read'>, stallMs: number) {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const deadline = startDeadline(stallMs, { onDeadline: ms => reject(stalled(ms)) })
  try {
    return await Promise.race([reader.read(), late])
  } catch (error) {
    throw error instanceof GatewayError ? error : readFailed(error)
  } finally {
    deadline.cancel()
  }
}

const PARSE_FAILED = 'invalid JSON request body'

export function invalidBody(why?: string): GatewayError {
  return invalidRequest(why === undefined ? PARSE_FAILED : `${PARSE_FAILED}: ${why}`)
}

/** Fatal: bytes that are no UTF-8 are refused, not replaced. A byte order mark is stripped. */
const decoder = new TextDecoder('utf-8', { fatal: true })

export function bodyText(bytes: Uint8Array): string {
  if (bytes.byteLength === 0) throw invalidBody('the body is empty')
  try {
    return decoder.decode(bytes)
  } catch {
    throw invalidBody('not valid UTF-8')
  }
}

/** throws: unsupported_encoding */
export function assertUnencoded(headers: Headers): void {
  const encoding = headers.get('content-encoding')
  if (encoding === null || encoding.trim().toLowerCase() === 'identity') return
  throw new GatewayError(
    'unsupported_encoding',
    'request payload is invalid: `content-encoding` is not supported on requests; send the body uncompressed',
  )
}

/**
 * Body → typed question. Order of checks: encoding, media type, bytes, JSON, shape.
 * throws: invalid_request, unsupported_encoding
 */
export function readQuestion(endpoint: Endpoint, headers: Headers, bytes: Uint8Array): Question {
  assertUnencoded(headers)
  if (!endpoint.takesAnyType && !isJson(headers.get('content-type')))
    throw invalidRequest(`${PARSE_FAILED}: content-type must be application/json`)
  return parseQuestion(endpoint, bytes)
}

export function parseQuestion(endpoint: Endpoint, bytes: Uint8Array): Question {
  const text = bodyText(bytes)
  let spans: Span[]
  let value: unknown
  try {
    spans = scanMembers(text)
    // What is made into another body keeps its digits; what goes on as it is keeps them anyway.
    value = endpoint.dialect ? parseBounded(text) : JSON.parse(text)
  } catch (error) {
    if (error instanceof JsonDepthError) throw invalidRequest(`${PARSE_FAILED}: nested deeper than ${DEPTH_MAX} levels`)
    // An array or a string is JSON too, but no request: the parser's own words may quote the body, so they are not told.
    const isOther = !text.trimStart().startsWith('{') && isParsable(text)
    throw invalidRequest(isOther ? `${PARSE_FAILED}: must be an object` : PARSE_FAILED)
  }
  for (const key of endpoint.keys) {
    let count = 0
    for (const span of spans) if (span.key === key) count += 1
    if (count > 1) throw invalidRequest(`\`${key}\` occurs twice`, { param: key })
  }
  const { model, stream, stream_options } = check(endpoint, value)
  const { dialect } = endpoint
  if (dialect) {
    const callerBody: Json = { ...Object(value) }
    const translate = once(() => translated(dialect, model, callerBody, bytes.byteLength))
    // What is answered at once may have no translation: there is nothing in it to ask.
    if (!endpoint.native && !endpoint.atOnce) return translate()
    return {
      ...{ text, spans, model, callerBody, translate },
      // Ollama streams unless it is told not to; a count of tokens never is a stream.
      isStream:
        endpoint.count === undefined &&
        endpoint.keys.includes('stream') &&
        (endpoint.atOnce ? stream !== false : stream === true),
      includeUsage: true,
      hasStreamOptions: false,
      bytes: bytes.byteLength,
      upload: undefined,
    }
  }
  return {
    text,
    spans,
    model,
    // An endpoint that does not read `stream` has no streams: the member only passes through.
    isStream: stream === true && endpoint.keys.includes('stream'),
    includeUsage: stream_options?.include_usage === true,
    hasStreamOptions: stream_options !== undefined && stream_options !== null,
    bytes: bytes.byteLength,
    callerBody: undefined,
    translate: undefined,
    upload: undefined,
  }
}

/** The chat request that says what the caller asked in its dialect. in: a body that the endpoint's schema accepts */
function translated(dialect: Dialect, model: string, callerBody: Json, bytes: number): Question {
  const chat = dialect.question(callerBody)
  const text = JSON.stringify(chat)
  return {
    text,
    spans: scanMembers(text),
    model,
    isStream: chat.stream === true,
    // The translator needs the counts, and nobody has said anything about them.
    includeUsage: true,
    hasStreamOptions: false,
    bytes,
    callerBody,
    translate: undefined,
    upload: undefined,
  }
}

/** A function that is run at its first call only. */
function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined
  return () => {
    made ??= { value: make() }
    return made.value
  }
}

function isParsable(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

function check(endpoint: Endpoint, value: unknown): EndpointQuestion {
  if (endpoint.isPlain(value)) return value
  const parsed = endpoint.schema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  const path = issue?.path.map(String).join('.') ?? ''
  const param = path === '' ? undefined : path
  if (path === 'messages' && issue?.code === 'too_small') throw invalidRequest(issue.message, { param })
  const isMissing = issue?.path.length === 1 && !Object.hasOwn(Object(value), String(issue.path[0]))
  if (isMissing) throw invalidRequest(`\`${path}\` field missing`, { param })
  throw invalidRequest(`${PARSE_FAILED}: \`${path}\` ${issue?.message ?? 'is not what it must be'}`, { param })
}
