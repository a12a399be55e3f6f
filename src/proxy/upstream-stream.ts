import type { ChunkTranslator } from '../adapters/adapter.ts'
import { GatewayError } from '../errors.ts'
import { binaryToUtf8, parseBounded, stringifyBinary, toBinary } from '../wire/members.ts'
import { SseReader } from '../wire/sse.ts'
import type { Framer, Piece, Reader } from './answer.ts'
import type { AttemptInput } from './attempt-input.ts'
import type { OpenAttempt } from './open-attempt.ts'
import { PulledStream } from './pulled-stream.ts'
import { type ChunkRewriter, DONE } from './rewrite-chunks.ts'
import type { Target } from './route.ts'

/**
 * An upstream's stream, rewritten. `read` gives binary text to send, until `isDone`.
 * Ends: `[DONE]`, or a clean end of the body; anything else throws.
 */
export class UpstreamStream extends PulledStream {
  private readonly events = new SseReader()
  /** Where the upstream speaks another dialect than chat. */
  private readonly chunks: ChunkTranslator | undefined
  /** Where the caller does: the end of its stream is made here, of what has come. */
  private readonly isBridged: boolean
  private readonly onData = (data: string, isTerminated = true) => {
    if (this.rewriter.isDone) return
    if (this.chunks) return this.translate(this.chunks, data)
    const rewritten = this.rewriter.rewrite(data, isTerminated)
    if (rewritten !== undefined) this.ready += this.framer.chunk(rewritten)
  }

  constructor(
    reader: Reader,
    private readonly rewriter: ChunkRewriter,
    open: OpenAttempt,
    private readonly target: Target,
    private readonly input: AttemptInput,
    framer: Framer,
  ) {
    super(reader, open, target.streamTimeoutMs, framer)
    this.chunks = target.upstream.adapter.chat?.chunks(input.now())
    this.isBridged = input.endpoint.dialect !== undefined
  }

  /** An event of another dialect, as chunks of chat. */
  private translate(chunks: ChunkTranslator, data: string): void {
    let event: unknown
    try {
      event = parseBounded(binaryToUtf8(data))
    } catch {
      throw new GatewayError('upstream_decode_error', 'upstream sent an unparseable stream event: not whole JSON', {
        retry: 'yes',
      })
    }
    for (const chunk of chunks.event({ ...Object(event) })) {
      const rewritten = this.rewriter.rewrite(stringifyBinary(chunk))
      if (rewritten !== undefined) this.ready += this.framer.chunk(rewritten)
    }
    if (chunks.isDone) this.rewriter.rewrite(DONE)
  }

  override async readFirst(): Promise<void> {
    await super.readFirst()
    if (this.rewriter.events === 0 && !this.rewriter.isDone) {
      throw new GatewayError('stream_aborted', 'upstream closed the stream before anything arrived', { retry: 'yes' })
    }
  }

  protected accept(piece: Piece): void {
    if (piece.value && piece.value.byteLength > 0) this.events.push(toBinary(piece.value), this.onData)
    if (piece.done && !this.rewriter.isDone) this.events.end(data => this.onData(data, false))
    if (piece.done && this.chunks && !this.rewriter.isDone && !this.isWhole) {
      throw (
        this.open.reason ??
        new GatewayError('stream_aborted', 'upstream ended the stream before its last event', { retry: 'yes' })
      )
    }
    if (piece.done && !this.rewriter.isDone) {
      // A body that ends while we end it ourselves is no clean end.
      if (this.open.reason) throw this.open.reason
      if (this.rewriter.events > 0) this.noteMissingEnd()
    }
    if (piece.done || this.rewriter.isDone) {
      if (this.rewriter.events > 0 || this.rewriter.isDone) this.ready += this.framer.end()
      this.isDone = true
      if (!piece.done) this.drain()
    }
  }

  // Callers of chat are relayed what comes, and `[DONE]` is part of it: for them what ends without was cut.
  protected override get isWhole(): boolean {
    return this.isBridged && this.rewriter.isWhole
  }

  protected override conclude(): void {
    this.noteMissingEnd()
    this.ready += this.framer.end()
    this.isDone = true
  }

  private noteMissingEnd(): void {
    if (this.target.upstream.doneMarker !== 'required') return
    this.input.log.as('upstream').warn('stream ended without [DONE]', {
      request_id: this.input.exchange.requestId,
      provider_key: this.target.upstream.name,
    })
  }
}
