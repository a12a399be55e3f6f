import { GatewayError } from '../errors.ts'
import type { AnswerStream, Framer, Piece, Reader } from './answer.ts'
import type { OpenAttempt } from './open-attempt.ts'

/** How long an upstream may take to end what it has sent to its end. */
const END_MS = 1_000

/**
 * An upstream's stream that is read when its caller asks for more: what all dialects of streams share. What a piece of it comes
 * to, `accept` says, by adding to `ready`, or by setting `failure` or `isDone`.
 */
export abstract class PulledStream implements AnswerStream {
  /** Binary text that the next `read` gives. */
  protected ready = ''
  /** Why the stream ended badly, told once everything before it is delivered. */
  protected failure: GatewayError | undefined
  isDone = false

  constructor(
    protected readonly reader: Reader,
    protected readonly open: OpenAttempt,
    /** Milliseconds of silence; 0: none. */
    private readonly silenceMs: number,
    protected readonly framer: Framer,
  ) {}

  protected abstract accept(piece: Piece): void

  /** Nothing is missing but what says that it is over: that is waited for shortly, and not missed where it does not come. */
  protected get isWhole(): boolean {
    return false
  }

  /** Ends a stream that is whole. */
  protected conclude(): void {
    this.isDone = true
  }

  errorFrame(error: GatewayError): string {
    return this.framer.error(error)
  }

  /**
   * What to send next, '' when a piece held nothing for the caller. Every token passes here: plain promises with functions
   * that are there already, since an async function leaves several objects behind for each call.
   */
  read(): Promise<string> {
    if (this.ready !== '') return Promise.resolve(this.take())
    if (this.failure) return Promise.reject(this.failure)
    this.open.arm(this.isWhole ? END_MS : this.silenceMs)
    return this.reader.read().then(this.onPiece, this.onBroken)
  }

  /** Reads until there is something to send, which the next `read` gives. */
  async readFirst(): Promise<void> {
    while (this.ready === '' && !this.isDone) this.ready = await this.read()
  }

  private take(): string {
    const text = this.ready
    this.ready = ''
    return text
  }

  // The silence that counts is the upstream's, not the time that the caller takes to read: the deadline rests between reads.
  private readonly onPiece = (piece: Piece): string => {
    this.open.disarm()
    try {
      this.accept(piece)
    } catch (error) {
      this.failure = this.open.explain(error)
    }
    // What came before a failure is delivered first.
    if (this.failure && this.ready === '') throw this.failure
    return this.take()
  }

  private readonly onBroken = (error: unknown): string => {
    this.open.disarm()
    const known = this.open.explain(error)
    if (!this.isWhole || known.kind === 'client_disconnected') throw known
    this.conclude()
    // It may have kept the connection open.
    this.abort(known)
    return this.take()
  }

  /** After its last event a body ends by itself, as a rule at once: its connection can then serve again. If not, it is cut. */
  protected drain(): void {
    const timer = setTimeout(
      () => this.open.abort(new GatewayError('stream_aborted', 'upstream went on after its last event')),
      END_MS,
    )
    const next = (): Promise<void> => this.reader.read().then(({ done }) => (done ? undefined : next()))
    next()
      .catch(() => {})
      .finally(() => clearTimeout(timer))
  }

  /** The caller left, or an error frame has ended the answer: the upstream's connection closes now. */
  abort(reason: GatewayError): void {
    this.open.abort(reason)
    this.reader.cancel().catch(() => {})
  }

  /** The stream is over: the caller's leaving means nothing any more. */
  release(): void {
    this.open.release()
  }
}
