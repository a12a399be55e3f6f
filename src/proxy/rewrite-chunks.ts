import type { Adapter } from '../adapters/adapter.ts'
import { GatewayError, withoutWords } from '../errors.ts'
import { type Exchange, mergeUsage } from '../exchange.ts'
import {
  binaryToUtf8,
  findMember,
  JsonDepthError,
  JsonSyntaxError,
  type Member,
  parseBinary,
  readMembers,
  setMember,
  skipValue,
  stringifyBinary,
  writeMembers,
} from '../wire/members.ts'
import { deltaAt } from './capture.ts'
import { addReasoning, cutMessage, errorInside } from './rewrite-answer.ts'

export type ChunkOptions = {
  adapter: Adapter
  /** The caller's spelling of the model. */
  alias: string
  /** Whether the caller asked for the chunk that carries nothing but usage. */
  includeUsage: boolean
  /** Path of reasoning text in a chunk's delta, `delta` left out, where the operator named one. */
  reasoningPath: readonly string[] | undefined
}

export const DONE = '[DONE]'
const CLOSE_BRACE = 0x7d

/**
 * The events of an OpenAI-shaped stream in the caller's terms. Nearly every event of a stream begins with the same bytes
 * up to the end of `model`: these are learnt from the first, and from then on a chunk costs a comparison and a few
 * searches, no parsing. JSON is read only where `usage`, an error or reasoning is.
 * in, out: `data` of one event, as binary text
 */
export class ChunkRewriter {
  /** What events begin with up to and with the value of `model`, and what takes its place. */
  private prefix = ''
  private replacement = ''
  private readonly rawAlias: string
  isDone = false
  events = 0
  private hasFinished = false
  private hasUsage = false

  constructor(
    private readonly options: ChunkOptions,
    private readonly exchange: Exchange,
  ) {
    this.rawAlias = stringifyBinary(options.alias)
  }

  /** What ends an answer has come: its reason, and what was used. */
  get isWhole(): boolean {
    return this.hasFinished && this.hasUsage
  }

  /**
   * in: `isTerminated` is false for a last event without the blank line behind it: it may have been cut, behind an inner
   * brace too, and is read to its end
   * returns: the event's new `data`, or undefined when the caller gets no such event
   * throws: upstream_in_band_error (or upstream_error with the embedded status), upstream_decode_error
   */
  rewrite(data: string, isTerminated = true): string | undefined {
    const { prefix } = this
    if (isTerminated && prefix !== '' && data.startsWith(prefix) && data.startsWith(',"choices":[{', prefix.length)) {
      const from = prefix.length
      if (
        data.charCodeAt(data.length - 1) === CLOSE_BRACE &&
        data.indexOf('"usage":{', from) < 0 &&
        data.indexOf('"error":', from) < 0 &&
        data.indexOf('"reasoning":', from) < 0 &&
        this.options.reasoningPath === undefined
      ) {
        this.events += 1
        this.observe(data, from)
        return this.replacement + data.slice(from)
      }
    }
    return this.rewriteSlowly(data)
  }

  private rewriteSlowly(data: string): string | undefined {
    const text = data.trim()
    if (text === '') return undefined
    if (text === DONE) {
      this.isDone = true
      return undefined
    }
    let members: Member[]
    try {
      members = readMembers(text)
    } catch (error) {
      if (error instanceof JsonSyntaxError || error instanceof JsonDepthError)
        throw undecodableEvent(`not whole JSON (${error.message})`)
      throw error
    }
    if (findMember(members, 'error') && /"error"\s*:\s*[{"]/.test(text)) {
      const error = this.inBandError(text)
      if (error) throw error
    }
    const choices = findMember(members, 'choices')
    if (!choices?.rawValue.startsWith('[')) throw this.inBandError(text) ?? undecodableEvent('it has no `choices`')
    this.events += 1
    if (this.exchange.attempt && this.exchange.attempt.providerRequestId === undefined) this.noteIdentity(members)

    const usageMember = findMember(members, 'usage')
    if (usageMember?.rawValue.startsWith('{')) {
      const usage = this.options.adapter.usage(parseBinary(usageMember.rawValue))
      if (usage) {
        this.exchange.usage = mergeUsage(this.exchange.usage, usage)
        this.hasUsage = true
      }
      if (carriesNothingElse(choices.rawValue)) {
        if (!this.options.includeUsage) return undefined
        choices.rawValue = '[]'
      }
    }
    if (text.includes('"reasoning"') || this.options.reasoningPath) {
      choices.rawValue = addReasoning(choices.rawValue, 'delta', this.options.reasoningPath)
    }
    this.observe(compact(text), 0)
    setMember(members, 'model', this.rawAlias)
    this.learn(text)
    return writeMembers(members)
  }

  /** Counts what carries content, and notes how the stream ends. */
  private observe(data: string, from: number): void {
    const { exchange } = this
    for (const key of CONTENT_KEYS) {
      const at = data.indexOf(key, from)
      if (at < 0) continue
      const start = at + key.length
      if (data.charCodeAt(start) === 0x22) continue
      exchange.contentEvents += 1
      exchange.contentBytes += data.indexOf('"', start) - start
      if (exchange.capture && !key.startsWith('"reasoning')) exchange.capture.answer(deltaAt(data, start - 1))
      break
    }
    const finish = data.indexOf('"finish_reason":"', from)
    if (finish < 0) return
    exchange.finishReason = data.slice(finish + 17, Math.min(data.indexOf('"', finish + 17), finish + 81))
    // Some servers send an empty one with each chunk.
    if (exchange.finishReason !== '') this.hasFinished = true
  }

  /** Remembers the beginning of this event when `model` stands in it at the outermost level, before anything that varies. */
  private learn(text: string): void {
    const at = text.indexOf('"model":"')
    if (at < 0 || at > 512) return
    // At the outermost level: what stands before is whole members of one object.
    if (/[{[]/.test(text.slice(1, at))) return
    const end = skipValue(text, at + 8)
    this.prefix = text.slice(0, end)
    this.replacement = text.slice(0, at + 8) + this.rawAlias
  }

  private noteIdentity(members: readonly Member[]): void {
    const { attempt } = this.exchange
    if (!attempt) return
    const text = (name: string) => {
      const raw = findMember(members, name)?.rawValue
      const value = raw?.startsWith('"') ? parseBinary(raw) : undefined
      return typeof value === 'string' ? value : undefined
    }
    attempt.providerRequestId = text('id')
    attempt.providerModelVersion = text('model')
  }

  /** proxy-02 §4: before the first chunk the embedded status counts, afterwards there is one kind. */
  private inBandError(text: string): GatewayError | undefined {
    const error = errorInside(this.options.adapter, binaryToUtf8(text))
    if (!error || this.events === 0) return error
    const told = error.message.replace(/^upstream reported an error: /, '')
    return new GatewayError('upstream_in_band_error', cutMessage(`upstream reported an in-band stream error: ${told}`), {
      code: error.code,
      param: error.param,
      recorded: withoutWords('upstream reported an in-band stream error', error.code),
      upstreamStatus: error.upstreamStatus,
    })
  }
}

/** JSON as Python's own writer spaces it, `"key": "value"`, as `observe` expects it. */
function compact(text: string): string {
  return text.includes('": "') ? text.replaceAll('": "', '":"') : text
}

/** Text of chat, of legacy completions, reasoning in its two spellings, tool calls. */
const CONTENT_KEYS = ['"content":"', '"text":"', '"reasoning_content":"', '"reasoning":"', '"arguments":"']

/** No choice has a finish reason or anything in its delta (proxy-02 §4, the usage chunk rule). */
function carriesNothingElse(rawChoices: string): boolean {
  if (rawChoices === '[]') return true
  const choices: unknown = parseBinary(rawChoices)
  if (!Array.isArray(choices)) return false
  return choices.every((choice: unknown) => {
    if (typeof choice !== 'object' || choice === null) return false
    if ('finish_reason' in choice && choice.finish_reason !== null) return false
    if ('text' in choice && choice.text !== '') return false
    const delta = 'delta' in choice ? choice.delta : undefined
    if (typeof delta !== 'object' || delta === null) return true
    return Object.values(delta).every(value => value === null || value === '' || (Array.isArray(value) && value.length === 0))
  })
}

function undecodableEvent(why: string): GatewayError {
  return new GatewayError('upstream_decode_error', `upstream sent an unparseable stream event: ${why}`, { retry: 'yes' })
}
