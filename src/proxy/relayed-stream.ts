import { GatewayError } from '../errors.ts'
import { binaryToUtf8, toBinary } from '../wire/members.ts'
import { EVENT_BYTES_MAX, SseReader } from '../wire/sse.ts'
import type { Framer, Piece, Reader } from './answer.ts'
import type { NativeObserver } from './native.ts'
import type { OpenAttempt } from './open-attempt.ts'
import { PulledStream } from './pulled-stream.ts'

/** An upstream's stream that goes out as it comes, heartbeats aside. What it says of its usage and its end is read on the way. */
export class RelayedStream extends PulledStream {
  private readonly events = new SseReader()
  /** What has come of the event that is not whole yet. */
  private rest = ''
  /** `data` of the event that was looked at last, as it came and as it goes out. */
  private data = ''
  private shown = ''

  constructor(
    reader: Reader,
    open: OpenAttempt,
    silenceMs: number,
    framer: Framer,
    private readonly observer: NativeObserver,
  ) {
    super(reader, open, silenceMs, framer)
  }

  override async readFirst(): Promise<void> {
    // Comments may come before the first event: they wait for it.
    let before = ''
    while (this.observer.events === 0 && !this.isDone) before += await this.read()
    this.ready = before + this.ready
    if (this.observer.events === 0) {
      throw new GatewayError('stream_aborted', 'upstream closed the stream before anything arrived', { retry: 'yes' })
    }
  }

  // The event that tells an error is not relayed: its caller gets it in the frame that ends the stream.
  protected accept({ done, value }: Piece): void {
    if (value && value.byteLength > 0) this.push(toBinary(value))
    // What comes behind the last event is not waited for, and how the connection ends is of no account.
    if (this.observer.isComplete) {
      this.isDone = true
      if (!done) this.drain()
      return
    }
    if (!done) return
    if (this.rest !== '') this.events.push(this.rest, this.onData)
    this.events.end(this.onData)
    // Between two events or in one: what ends without its last event was cut, and is never a clean end (spec/README §4).
    if (!this.observer.isComplete) {
      throw (
        this.open.reason ??
        new GatewayError('stream_aborted', 'upstream ended the stream before its last event', { retry: 'yes' })
      )
    }
    this.isDone = true
    this.ready += this.rest
  }

  override errorFrame(error: GatewayError): string {
    return this.framer.error(error, this.data === '' ? undefined : binaryToUtf8(this.data))
  }

  /** Whole events only: the frame of an error behind half an event would be part of it. */
  private push(text: string): void {
    this.rest += text
    // Nothing can end here: a large event that comes in many pieces is not looked at with each.
    if (text.includes('\n') || text.includes('\r')) {
      for (let end = endOfEvent(this.rest); end > 0; end = endOfEvent(this.rest)) {
        const event = this.rest.slice(0, end)
        this.rest = this.rest.slice(end)
        // What stands right behind the last event, such as `[DONE]`, goes out and is not looked at.
        if (!this.observer.isComplete) this.events.push(event, this.onData)
        this.ready += this.shown === this.data ? event : this.replaced(event)
      }
    }
    if (this.rest.length <= EVENT_BYTES_MAX || this.observer.isComplete) return
    this.rest = ''
    throw new GatewayError('upstream_decode_error', `upstream sent an event of more than ${EVENT_BYTES_MAX} bytes`)
  }

  /** The event with what it shows in place of its data, which is on one line of its own or is put on one. */
  private replaced(event: string): string {
    const { data, shown } = this
    this.shown = data
    const at = event.indexOf(data)
    if (at >= 0) return event.slice(0, at) + shown + event.slice(at + data.length)
    const others = event.split(/\r\n|\n|\r/).filter(line => line !== '' && !line.startsWith('data:'))
    return [...others, `data: ${shown.replaceAll('\n', ' ')}`, '', ''].join('\n')
  }

  private readonly onData = (data: string) => {
    this.shown = this.observer.event(data)
    this.data = data
  }
}

/** Position behind the first blank line; 0 where there is none. */
function endOfEvent(text: string): number {
  const end = text.indexOf('\n\n')
  if (!text.includes('\r')) return end < 0 ? 0 : end + 2
  const blank = /\r\n\r\n|\n\n|\r\r/.exec(text)
  return blank ? blank.index + blank[0].length : 0
}
