import { GatewayError, withoutWords } from '../errors.ts'
import { type Exchange, mergeUsage, type Usage } from '../exchange.ts'
import {
  JsonDepthError,
  JsonSyntaxError,
  parseBinary,
  readMembers,
  setMember,
  stringifyBinary,
  toBinary,
  writeMembers,
} from '../wire/members.ts'
import { EVENT_BYTES_MAX } from '../wire/sse.ts'
import type { AnswerStream, Framer, OpenAttempt, Piece, Reader } from './attempt.ts'
import { cutMessage } from './rewrite-answer.ts'

/**
 * A stream of Ollama's own, line by line, with the caller's alias in `model` and all else as it was sent.
 * Source: Ollama, docs/api.md: a JSON object a line, the last one with `done: true`.
 */
export class RelayedLines implements AnswerStream {
  private rest = ''
  private ready = ''
  private failure: GatewayError | undefined
  private lines = 0
  private isComplete = false
  isDone = false
  private readonly rawAlias: string

  constructor(
    private readonly reader: Reader,
    private readonly exchange: Exchange,
    private readonly open: OpenAttempt,
    private readonly silenceMs: number,
    alias: string,
    readonly framer: Framer,
  ) {
    this.rawAlias = stringifyBinary(alias)
  }

  /** Reads until the first line is whole. throws: what it says, or that none came */
  async readFirst(): Promise<void> {
    while (this.ready === '' && !this.isDone) this.ready = await this.read()
  }

  read(): Promise<string> {
    if (this.ready !== '') return Promise.resolve(this.take())
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
      if (value) this.push(toBinary(value))
      if (done && this.rest.trim() !== '') this.line(this.rest)
      if (done) this.isDone = this.isComplete
      if (done && !this.isComplete) {
        throw (
          this.open.reason ??
          new GatewayError('stream_aborted', 'upstream ended the stream before its last line', { retry: 'yes' })
        )
      }
    } catch (error) {
      this.failure = this.open.explain(error)
      if (this.ready === '') throw this.failure
    }
    return this.take()
  }

  private readonly onBroken = (error: unknown): never => {
    this.open.disarm()
    throw this.open.explain(error)
  }

  private push(text: string): void {
    const parts = (this.rest + text).split('\n')
    this.rest = parts.pop() ?? ''
    if (this.rest.length > EVENT_BYTES_MAX) {
      throw new GatewayError('upstream_decode_error', `upstream sent a line of more than ${EVENT_BYTES_MAX} bytes`)
    }
    for (const each of parts) if (each.trim() !== '') this.line(each)
  }

  private line(text: string): void {
    let document: unknown
    try {
      document = parseBinary(text)
      const members = readMembers(text.trim())
      const error = member(document, 'error')
      if (typeof error === 'string') throw this.told(error)
      if (member(document, 'model') !== undefined) setMember(members, 'model', this.rawAlias)
      this.ready += `${writeMembers(members)}\n`
    } catch (error) {
      if (error instanceof GatewayError) throw error
      const isBad = error instanceof SyntaxError || error instanceof JsonSyntaxError || error instanceof JsonDepthError
      if (isBad) throw new GatewayError('upstream_decode_error', 'upstream sent a line that is not whole JSON', { retry: 'yes' })
      throw error
    }
    this.lines += 1
    const { exchange } = this
    const said = member(document, 'response') ?? member(member(document, 'message'), 'content')
    if (typeof said === 'string' && said !== '') {
      exchange.contentEvents += 1
      exchange.contentBytes += said.length
    }
    if (member(document, 'done') === true) {
      this.isComplete = true
      noteOllama(document, exchange)
    }
  }

  private told(words: string): GatewayError {
    const said = this.lines === 0 ? 'upstream reported an error' : 'upstream reported an in-band stream error'
    return new GatewayError(this.lines === 0 ? 'upstream_error' : 'upstream_in_band_error', cutMessage(`${said}: ${words}`), {
      recorded: withoutWords(said, undefined),
      retry: this.lines === 0 ? 'yes' : 'no',
    })
  }

  abort(reason: GatewayError): void {
    this.open.abort(reason)
    this.reader.cancel().catch(() => {})
  }

  release(): void {
    this.open.release()
  }
}

/** What a whole answer, or the last line of a stream, tells of its usage and its end. */
export function noteOllama(document: unknown, exchange: Exchange): void {
  const usage = usageOf(document)
  if (usage) exchange.usage = mergeUsage(exchange.usage, usage)
  const reason = member(document, 'done_reason')
  if (typeof reason === 'string') exchange.finishReason = reason.slice(0, 64)
  const model = member(document, 'model')
  if (exchange.attempt && typeof model === 'string') exchange.attempt.providerModelVersion ??= model
}

/** Undefined where nothing was counted: a model that was only loaded, or a prompt that Ollama had in its cache. */
function usageOf(document: unknown): Usage | undefined {
  const promptTokens = countOf(member(document, 'prompt_eval_count'))
  const completionTokens = countOf(member(document, 'eval_count'))
  if (promptTokens + completionTokens === 0) return undefined
  const totalTokens = promptTokens + completionTokens
  return { promptTokens, completionTokens, totalTokens, cachedTokens: 0, reasoningTokens: 0, isEstimated: false }
}

function countOf(value: unknown): number {
  return typeof value === 'number' && value > 0 && value <= 1_000_000_000 ? Math.round(value) : 0
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}
