import { GatewayError } from '../errors.ts'
import { toBinary } from '../wire/members.ts'
import { EVENT_BYTES_MAX, SseReader } from '../wire/sse.ts'
import type { AnswerStream, Framer, OpenAttempt, Piece, Reader } from './attempt.ts'
import type { NativeObserver } from './native.ts'

/** An upstream's stream that goes out as it comes, heartbeats aside. What it says of its usage and its end is read on the way. */
export class RelayedStream implements AnswerStream {
  private readonly events = new SseReader()
  private ready = ''
  /** What has come of the event that is not whole yet. */
  private rest = ''
  private failure: GatewayError | undefined
  isDone = false

  constructor(
    private readonly reader: Reader,
    private readonly observer: NativeObserver,
    private readonly open: OpenAttempt,
    private readonly silenceMs: number,
    readonly framer: Framer,
  ) {}

  /** Reads until the first event is whole, which the next `read` gives. throws: what that event says, or that none came */
  async readFirst(): Promise<void> {
    while (this.observer.events === 0 && !this.isDone) {
      if (this.failure) throw this.failure
      this.ready = await this.read()
    }
    if (this.observer.events === 0) {
      throw (
        this.failure ?? new GatewayError('stream_aborted', 'upstream closed the stream before anything arrived', { retry: 'yes' })
      )
    }
  }

  read(): Promise<string> {
    // Before the first event is whole, what has come of it is kept.
    if (this.ready !== '' && this.observer.events > 0) return Promise.resolve(this.take())
    if (this.failure) return Promise.reject(this.failure)
    this.open.arm(this.silenceMs)
    return this.reader.read().then(this.onPiece, this.onBroken)
  }

  private take(): string {
    const text = this.ready
    this.ready = ''
    return text
  }

  private readonly onPiece = ({ done, value }: Piece): string => {
    this.open.disarm()
    try {
      if (value && value.byteLength > 0) {
        this.rest += toBinary(value)
        // Whole events only: the frame of an error behind half an event would be part of it.
        for (let end = endOfEvent(this.rest); end > 0; end = endOfEvent(this.rest)) {
          const event = this.rest.slice(0, end)
          this.rest = this.rest.slice(end)
          this.events.push(event, this.onData)
          this.ready += event
        }
      }
      if (this.rest.length > EVENT_BYTES_MAX) {
        this.rest = ''
        throw new GatewayError('upstream_decode_error', `upstream sent an event of more than ${EVENT_BYTES_MAX} bytes`)
      }
      if (done) {
        if (this.rest !== '') this.events.push(this.rest, this.onData)
        this.events.end(this.onData)
        this.isDone = this.observer.isComplete
        if (this.isDone) this.ready += this.rest
        // Between two events or in one: what ends without its last event was cut, and is never a clean end (spec/README §4).
        if (!this.isDone) {
          this.failure =
            this.open.reason ??
            new GatewayError('stream_aborted', 'upstream ended the stream before its last event', { retry: 'yes' })
        }
      }
    } catch (error) {
      // The event that tells an error is not relayed: its caller gets it in the frame that ends the stream.
      this.failure = this.open.explain(error)
    }
    if (this.failure && this.ready === '') throw this.failure
    return this.take()
  }

  private readonly onBroken = (error: unknown): never => {
    this.open.disarm()
    throw this.open.explain(error)
  }

  private readonly onData = (data: string) => this.observer.event(data)

  abort(reason: GatewayError): void {
    this.open.abort(reason)
    this.reader.cancel().catch(() => {})
  }

  release(): void {
    this.open.release()
  }
}

/** Position behind the first blank line; 0 where there is none. */
function endOfEvent(text: string): number {
  const end = text.indexOf('\n\n')
  if (!text.includes('\r')) return end < 0 ? 0 : end + 2
  const blank = /\r\n\r\n|\n\n|\r\r/.exec(text)
  return blank ? blank.index + blank[0].length : 0
}
