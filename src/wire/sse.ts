import { GatewayError } from '../errors.ts'

export const EVENT_BYTES_MAX = 8 * 1024 * 1024
/** U+FEFF in UTF-8, as binary text. */
const BYTE_ORDER_MARK = '\u00ef\u00bb\u00bf'

/**
 * Server-sent events out of a byte stream, each as soon as it is whole.
 * in: binary text (one character a byte) cut anywhere, inside a character too; out: one `data` string an event
 * throws: upstream_decode_error when one event exceeds EVENT_BYTES_MAX (8 MiB)
 * source: WHATWG HTML, "Server-sent events", interpreting an event stream. `event`, `id` and `retry` lines are not used
 * by OpenAI's dialect and dropped.
 */
export class SseReader {
  /** What has come of the event that is not whole yet, its line ends already `\n`. */
  private rest = ''
  /** The last piece ended in `\r`, which has counted as a line end: a `\n` at the start of the next belongs to it. */
  private afterReturn = false
  /** The first bytes, as long as they may be the beginning of a byte order mark; undefined once that is decided. */
  private start: string | undefined = ''

  /** Hands each event that `piece` completes to `onData`, in order. */
  push(piece: string, onData: (data: string) => void): void {
    let text = piece
    if (this.start !== undefined) {
      text = this.start + text
      if (text.length < BYTE_ORDER_MARK.length && BYTE_ORDER_MARK.startsWith(text)) {
        this.start = text
        return
      }
      this.start = undefined
      // A byte order mark before the first event is not part of it.
      if (text.startsWith(BYTE_ORDER_MARK)) text = text.slice(BYTE_ORDER_MARK.length)
    }
    if (this.afterReturn && text !== '') {
      this.afterReturn = false
      if (text.startsWith('\n')) text = text.slice(1)
    }
    if (text.includes('\r')) {
      this.afterReturn = text.endsWith('\r')
      text = text.replace(/\r\n?/g, '\n')
    }
    if (!text.includes('\n')) {
      // Nothing can end here. Appending is cheap as long as nobody looks at the whole: large events come in many pieces.
      this.rest += text
      this.checkSize()
      return
    }
    // The end of an event may lie across the seam: one character of the old text is enough to see it.
    let searchFrom = this.rest.length === 0 ? 0 : this.rest.length - 1
    if (this.rest.length > 0) text = this.rest + text
    let from = 0
    for (;;) {
      const end = text.indexOf('\n\n', searchFrom)
      if (end < 0) break
      const data = dataOf(text, from, end)
      from = end + 2
      searchFrom = from
      if (data !== undefined) onData(data)
    }
    this.rest = from === 0 ? text : text.slice(from)
    this.checkSize()
  }

  private checkSize(): void {
    if (this.rest.length <= EVENT_BYTES_MAX) return
    this.rest = ''
    throw new GatewayError('upstream_decode_error', `upstream sent an event of more than ${EVENT_BYTES_MAX} bytes`)
  }

  /** The last event, when the stream ended without the blank line behind it. */
  end(onData: (data: string) => void): void {
    const text = this.rest
    this.rest = ''
    const data = dataOf(text, 0, text.endsWith('\n') ? text.length - 1 : text.length)
    if (data !== undefined) onData(data)
  }
}

/** The `data` of the lines between two positions, several joined by `\n`; undefined when there is none. */
function dataOf(text: string, from: number, end: number): string | undefined {
  // One line that starts with `data: ` is what nearly every event is.
  if (text.startsWith('data: ', from)) {
    const line = text.indexOf('\n', from)
    if (line < 0 || line >= end) return text.slice(from + 6, end)
  }
  let data: string | undefined
  for (let at = from; at < end; ) {
    const next = text.indexOf('\n', at)
    const lineEnd = next < 0 || next > end ? end : next
    if (text.startsWith('data:', at) && at + 5 <= lineEnd) {
      const valueFrom = text.charCodeAt(at + 5) === 0x20 && at + 5 < lineEnd ? at + 6 : at + 5
      const value = text.slice(valueFrom, lineEnd)
      data = data === undefined ? value : `${data}\n${value}`
    }
    at = lineEnd + 1
  }
  return data
}
