import type { GatewayError } from '../errors.ts'
import type { AnswerStream, Framer, Piece, Reader } from './answer.ts'
import type { OpenAttempt } from './open-attempt.ts'

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
    readonly framer: Framer,
  ) {}

  protected abstract accept(piece: Piece): void

  /**
   * What to send next, '' when a piece held nothing for the caller. Every token passes here: plain promises with functions
   * that are there already, since an async function leaves several objects behind for each call.
   */
  read(): Promise<string> {
    if (this.ready !== '') return Promise.resolve(this.take())
    if (this.failure) return Promise.reject(this.failure)
    this.open.arm(this.silenceMs)
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

  private readonly onBroken = (error: unknown): never => {
    this.open.disarm()
    throw this.open.explain(error)
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
