import { GatewayError, withoutWords } from '../errors.ts'
import { type Exchange, mergeUsage, type Usage } from '../exchange.ts'
import { member } from '../lib/member.ts'
import { countOf } from '../wire/count.ts'
import {
  binaryToUtf8,
  JsonDepthError,
  JsonSyntaxError,
  parseBounded,
  readMembers,
  setMember,
  stringifyBinary,
  toBinary,
  writeMembers,
} from '../wire/members.ts'
import { EVENT_BYTES_MAX } from '../wire/sse.ts'
import type { Framer, Piece, Reader } from './answer.ts'
import type { OpenAttempt } from './open-attempt.ts'
import { PulledStream } from './pulled-stream.ts'
import { cutMessage } from './rewrite-answer.ts'

/**
 * A stream of Ollama's own, line by line, with the caller's alias in `model` and all else as it was sent.
 * Source: Ollama, docs/api.md: a JSON object a line, the last one with `done: true`.
 */
export class RelayedLines extends PulledStream {
  private rest = ''
  private lines = 0
  private isComplete = false
  private readonly rawAlias: string

  constructor(
    reader: Reader,
    open: OpenAttempt,
    silenceMs: number,
    framer: Framer,
    private readonly exchange: Exchange,
    alias: string,
  ) {
    super(reader, open, silenceMs, framer)
    this.rawAlias = stringifyBinary(alias)
  }

  protected accept({ done, value }: Piece): void {
    if (value) this.push(toBinary(value))
    if (this.isComplete) {
      this.isDone = true
      if (!done) this.drain()
    }
    if (!done || this.isDone) return
    if (this.rest.trim() !== '') this.line(this.rest)
    if (!this.isComplete) {
      throw (
        this.open.reason ?? new GatewayError('stream_aborted', 'upstream ended the stream before its last line', { retry: 'yes' })
      )
    }
    this.isDone = true
  }

  private push(text: string): void {
    const parts = text.split('\n')
    const last = parts.pop() ?? ''
    if (parts.length === 0) this.rest += last
    else {
      parts[0] = this.rest + (parts[0] ?? '')
      this.rest = last
    }
    if (this.rest.length > EVENT_BYTES_MAX) {
      throw new GatewayError('upstream_decode_error', `upstream sent a line of more than ${EVENT_BYTES_MAX} bytes`)
    }
    for (const each of parts) {
      if (each.trim() !== '') this.line(each)
      // Behind the last line there is nothing, whatever else may come.
      if (this.isComplete) return
    }
  }

  private line(text: string): void {
    let document: unknown
    try {
      document = parseBounded(binaryToUtf8(text))
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
    noteOllama(document, this.exchange)
    if (member(document, 'done') === true) this.isComplete = true
  }

  private told(words: string): GatewayError {
    const said = this.lines === 0 ? 'upstream reported an error' : 'upstream reported an in-band stream error'
    return new GatewayError(this.lines === 0 ? 'upstream_error' : 'upstream_in_band_error', cutMessage(`${said}: ${words}`), {
      recorded: withoutWords(said, undefined),
      retry: this.lines === 0 ? 'yes' : 'no',
    })
  }
}

/** What a whole answer, or a line of a stream, says, and what the last one tells of its usage and its end. */
export function noteOllama(document: unknown, exchange: Exchange): void {
  const said = member(document, 'response') ?? member(member(document, 'message'), 'content')
  if (typeof said === 'string' && said !== '') {
    exchange.contentEvents += 1
    exchange.contentBytes += Buffer.byteLength(said)
    exchange.capture?.answer(said)
  }
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
