import { JsonError, type JsonObject, type JsonValue, parseJson } from '../lib/json.ts'
import { nameOfType } from '../resources/wording.ts'
import { AdminError } from './error.ts'

/** Largest body of a write. source: control-admin-api §2.2 */
export const BODY_BYTES_MAX = 2 * 1024 * 1024

/** How long a promised body may take to arrive; without a deadline a client that stops keeps its connection for ever. */
export const BODY_TIMEOUT_MS = 30_000

/**
 * The JSON object that a write carries.
 * throws: AdminError 415 for another content type or a content encoding, 413 beyond 2 MiB, 408 when the body does not
 * arrive in time, 400 when it is no JSON object, repeats a member, nests deeper than 128 levels or
 * holds a number that would not be kept as it is
 * source: control-admin-api §2.2
 */
export async function readDocument(request: Request, timeoutMs = BODY_TIMEOUT_MS): Promise<JsonObject> {
  checkContentType(request.headers)
  const text = decode(await readBytes(request, timeoutMs))
  if (text.trim() === '') throw new AdminError(400, 'expected a JSON object in the request body, which is empty')
  const value = parse(text)
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new AdminError(400, `schema validation failed at : must be an object, not ${nameOfType(value)}`)
  }
  return value
}

function checkContentType(headers: Headers) {
  const type = (headers.get('content-type') ?? '').split(';')[0]?.trim().toLowerCase() ?? ''
  if (type !== 'application/json' && !/^[^/]+\/[^/]+\+json$/.test(type)) {
    throw new AdminError(415, 'expected a JSON body: send the header `Content-Type: application/json`')
  }
  const encoding = (headers.get('content-encoding') ?? 'identity').trim().toLowerCase()
  if (encoding !== 'identity') throw new AdminError(415, 'expected a body without `Content-Encoding`: send it uncompressed')
}

async function readBytes(request: Request, timeoutMs: number): Promise<Uint8Array> {
  const tooLarge = () => new AdminError(413, `the request body is larger than ${BODY_BYTES_MAX} bytes (2 MiB)`)
  // A declared length is refused before a byte is read; the runtime drains the rest, so that the client sees the answer.
  if (Number(request.headers.get('content-length') ?? 0) > BODY_BYTES_MAX) throw tooLarge()
  if (request.body === null) return new Uint8Array()
  const reader = request.body.getReader()
  const chunks: Uint8Array[] = []
  let size = 0
  const late = Promise.withResolvers<'late'>()
  const timer = setTimeout(() => late.resolve('late'), timeoutMs)
  try {
    for (;;) {
      const read = await Promise.race([reader.read(), late.promise])
      if (read === 'late') throw new AdminError(408, `the request body did not arrive within ${timeoutMs / 1000} s`)
      if (read.done) return Buffer.concat(chunks)
      size += read.value.byteLength
      if (size > BODY_BYTES_MAX) throw tooLarge()
      chunks.push(read.value)
    }
  } catch (error) {
    // Nobody waits for the rest. That cancelling fails too, because the client is gone, changes nothing.
    reader.cancel().catch(() => undefined)
    if (error instanceof AdminError) throw error
    throw new AdminError(400, 'the request body ended before it was complete')
  } finally {
    clearTimeout(timer)
  }
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new AdminError(400, 'invalid JSON: expected UTF-8 text')
  }
}

function parse(text: string): JsonValue {
  try {
    return parseJson(text, { isExact: true })
  } catch (error) {
    if (error instanceof JsonError) throw new AdminError(400, `invalid JSON: ${error.message}`)
    throw error
  }
}
