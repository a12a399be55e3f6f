import { isAscii, isUtf8 } from 'node:buffer'
import { GatewayError, invalidRequest } from '../errors.ts'
import { DEPTH_MAX, JsonDepthError, type Member, parseBinary, readMembers, toBinary } from '../wire/members.ts'
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
export async function readBody(request: Request, cap: number, stallMs: number = BODY_STALL_MS): Promise<Uint8Array> {
  const declared = declaredLength(request.headers)
  if (declared === undefined && !request.headers.has('transfer-encoding')) return new Uint8Array()
  if (declared !== undefined && declared > cap) throw tooLarge(cap)
  const stalled = Promise.withResolvers<never>()
  const onStall = () =>
    stalled.reject(new GatewayError('request_read_timeout', `request body stalled: nothing came for ${stallMs} ms`))
  let timer = setTimeout(onStall, stallMs)
  try {
    // A body of usual size has come with its head or follows at once: one read, no stream.
    if (declared !== undefined && declared <= 65_536) return await Promise.race([request.bytes(), stalled.promise])
    const reader = request.body?.getReader()
    if (!reader) return new Uint8Array()
    const pieces: Uint8Array[] = []
    let length = 0
    for (;;) {
      const read = reader.read()
      read.catch(() => {})
      const { done, value } = await Promise.race([read, stalled.promise])
      if (done) break
      clearTimeout(timer)
      timer = setTimeout(onStall, stallMs)
      pieces.push(value)
      length += value.byteLength
      if (length > cap) {
        reader.cancel().catch(() => {})
        throw tooLarge(cap)
      }
    }
    return Buffer.concat(pieces, length)
  } catch (error) {
    if (error instanceof GatewayError) throw error
    throw new GatewayError('request_read_failed', 'failed to read request body', { cause: error })
  } finally {
    clearTimeout(timer)
    stalled.promise.catch(() => {})
  }
}

const PARSE_FAILED = 'invalid JSON request body'

/** Text of a body: strict UTF-8, a byte order mark stripped, as binary text. */
function bodyText(bytes: Uint8Array): string {
  if (bytes.byteLength === 0) throw invalidRequest(`${PARSE_FAILED}: the body is empty`)
  if (!isUtf8(bytes)) throw invalidRequest(`${PARSE_FAILED}: not valid UTF-8`)
  const hasMark = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf
  return toBinary(hasMark ? bytes.subarray(3) : bytes)
}

/**
 * Body → typed question. Order of checks: media type, encoding, bytes, JSON, shape.
 * throws: invalid_request, unsupported_encoding, and what `readBody` throws
 */
export async function read(endpoint: Endpoint, request: Request, cap: number): Promise<Question> {
  const encoding = request.headers.get('content-encoding')
  if (encoding !== null && encoding.trim().toLowerCase() !== 'identity') {
    throw new GatewayError(
      'unsupported_encoding',
      'request payload is invalid: `content-encoding` is not supported on requests; send the body uncompressed',
    )
  }
  const bytes = await readBody(request, cap)
  if (!isJson(request.headers.get('content-type'))) {
    throw invalidRequest(`${PARSE_FAILED}: content-type must be application/json`)
  }
  return parseQuestion(endpoint, bytes)
}

export function parseQuestion(endpoint: Endpoint, bytes: Uint8Array): Question {
  const text = bodyText(bytes)
  let members: Member[]
  let value: unknown
  try {
    members = readMembers(text)
    value = isAscii(bytes) ? JSON.parse(text) : parseBinary(text)
  } catch (error) {
    if (error instanceof JsonDepthError) throw invalidRequest(`${PARSE_FAILED}: nested deeper than ${DEPTH_MAX} levels`)
    // An array or a string is JSON too, but no request: the parser's own words may quote the body, so they are not told.
    const isOther = !text.trimStart().startsWith('{') && isParsable(text)
    throw invalidRequest(isOther ? `${PARSE_FAILED}: must be an object` : PARSE_FAILED)
  }
  const seen = new Set<string>()
  for (const { key } of members) {
    if (!endpoint.keys.includes(key)) continue
    if (seen.has(key)) throw invalidRequest(`\`${key}\` occurs twice`, { param: key })
    seen.add(key)
  }
  const { model, stream, stream_options } = check(endpoint, value)
  return {
    members,
    model,
    isStream: stream === true,
    includeUsage: stream_options?.include_usage === true,
    hasStreamOptions: stream_options !== undefined && stream_options !== null,
    bytes: bytes.byteLength,
  }
}

function isParsable(text: string): boolean {
  try {
    parseBinary(text)
    return true
  } catch {
    return false
  }
}

function check(endpoint: Endpoint, value: unknown): EndpointQuestion {
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
