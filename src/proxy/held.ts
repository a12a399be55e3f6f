import { startDeadline } from '../lib/deadlines.ts'
import type { Answer } from './answer.ts'
import type { OpenAttempt } from './open-attempt.ts'

/** A larger answer is not held: it is relayed as it is (spec/README, row 2). */
export const HELD_BYTES_MAX = 64 * 1024 * 1024
/** Bytes of a failed answer's body that are read for its message. */
export const ERROR_BYTES_MAX = 64 * 1024

/**
 * Milliseconds that the words of a failed answer may take. Of a 5xx only the log hears them, and another target may be there to
 * answer; of a 4xx the caller does.
 */
const WORDS_MS = { server: 1_000, caller: 10_000 }

/** As `text()` of a response: a byte order mark is stripped, what is no UTF-8 replaced. */
export const decoder = new TextDecoder()

/** A long body, or one of unknown length: its text, or what was read and the rest when it is too large to hold. */
export async function readHeld(response: Response, open: OpenAttempt): Promise<string | Extract<Answer, { kind: 'large' }>> {
  const held = await readHeldBytes(response, open)
  return 'held' in held ? held : decoder.decode(held)
}

export async function readHeldBytes(
  response: Response,
  open: OpenAttempt,
): Promise<Uint8Array<ArrayBuffer> | Extract<Answer, { kind: 'large' }>> {
  const reader = response.body?.getReader()
  if (!reader) return new Uint8Array()
  const pieces: Uint8Array[] = []
  let length = 0
  while (length <= HELD_BYTES_MAX) {
    const { done, value } = await reader.read()
    if (done) return Buffer.concat(pieces, length)
    pieces.push(value)
    length += value.byteLength
  }
  return { kind: 'large', held: pieces, reader, attempt: open }
}

/** The beginning of a body as text; what follows, or does not come in time, is left unread. */
export async function readSome(response: Response, max: number): Promise<string> {
  const reader = response.body?.getReader()
  if (!reader) return ''
  const pieces: Uint8Array[] = []
  let length = 0
  const ms = response.status >= 500 ? WORDS_MS.server : WORDS_MS.caller
  const deadline = startDeadline(ms, { onDeadline: () => reader.cancel().catch(() => {}) })
  try {
    while (length < max) {
      const { done, value } = await reader.read()
      if (done) break
      pieces.push(value)
      length += value.byteLength
    }
    if (length >= max) reader.cancel().catch(() => {})
  } catch {
    // What has come is enough to tell.
  } finally {
    deadline.cancel()
  }
  return Buffer.concat(pieces).subarray(0, max).toString('utf8')
}

export function mediaType(response: Response): string {
  return (response.headers.get('content-type') ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? ''
}
