import { readMessagesUsage } from '../adapters/anthropic-chat.ts'
import { GatewayError, withoutWords } from '../errors.ts'
import { type Exchange, mergeUsage, type Usage } from '../exchange.ts'
import { member } from '../lib/member.ts'
import { countOf } from '../wire/count.ts'
import { binaryToUtf8, parseBinary, parseBounded, scanMembers, skipString, stringifyBinary } from '../wire/members.ts'
import { deltaAt } from './capture.ts'
import { noteSeconds, relayedUsage } from './relayed-usage.ts'
import { cutMessage } from './rewrite-answer.ts'

/** What is read of answers that are relayed in the dialect that caller and upstream share: how much was used, and how it ended. */
export type Native = {
  /** A whole answer. throws: upstream_error where it is an error inside a 200 */
  whole(document: unknown, exchange: Exchange): void
  /** in: the names of the model, where the caller is to be told its own */
  stream(exchange: Exchange, names?: Names): NativeObserver
}

/** What the upstream calls a model, and what its caller does. */
export type Names = { upstream: string; alias: string }

export type NativeObserver = {
  /**
   * in: `data` of one event, as binary text. out: as the caller is told it, mostly the same
   * throws: upstream_error where the event is an error
   */
  event(data: string): string
  readonly events: number
  /** The event that ends a stream was seen: one that ends without it was cut. */
  readonly isComplete: boolean
}

type Reading = { usage: Usage | undefined; id: unknown; model: unknown; finish: unknown }

/** Types of events that are looked into; in all others nothing stands that is counted. */
type Shape = {
  read(document: unknown): Reading
  /** The text of a whole answer, or the arguments of its calls where it has none. */
  text(document: unknown): string
  /** Marks of the events that are parsed. */
  telling: readonly string[]
  ends: readonly string[]
  /** Mark of events that carry text, and the members that it may stand in there. */
  content: string
  said: readonly string[]
  /** Some servers send chunks without a type and end them with `[DONE]`, as in chat. */
  hasChunks?: boolean
  /** The event that tells the model's name, and the member of it in which `model` stands. */
  names?: { event: string; holder: string }
  /** What else is taken down of what is read. */
  note?(exchange: Exchange, document: unknown): void
}

/** Source: Anthropic API reference, "Messages", "Streaming messages". */
export const nativeMessages: Native = nativeOf({
  read(document) {
    const started = member(document, 'message')
    const message = started ?? document
    const usage = member(message, 'usage')
    return {
      // What a stream tells at its start of its answer's tokens is a beginning: of one that is cut, they are estimated.
      usage: readMessagesUsage(started === undefined ? usage : { ...Object(usage), output_tokens: 0 }),
      id: member(message, 'id'),
      model: member(message, 'model'),
      finish: member(message, 'stop_reason') ?? member(member(document, 'delta'), 'stop_reason'),
    }
  },
  text(document) {
    const blocks = listOf(member(document, 'content'))
    return joined(blocks, block => member(block, 'text')) || joined(blocks, block => jsonOf(member(block, 'input')))
  },
  telling: ['message_start', 'message_delta', 'message_stop', 'error'],
  ends: ['message_stop'],
  content: 'content_block_delta',
  names: { event: 'message_start', holder: 'message' },
  said: ['text', 'partial_json', 'thinking'],
})

/** Source: OpenAI API reference, "Responses", "Streaming". */
export const nativeResponses: Native = nativeOf({
  read(document) {
    const response = member(document, 'response') ?? document
    return {
      usage: responsesUsage(member(response, 'usage')),
      id: member(response, 'id'),
      model: member(response, 'model'),
      finish: member(response, 'status'),
    }
  },
  text(document) {
    const output = listOf(member(document, 'output'))
    const parts = output.flatMap(item => (member(item, 'type') === 'reasoning' ? [] : listOf(member(item, 'content'))))
    return joined(parts, part => member(part, 'text')) || joined(output, item => member(item, 'arguments'))
  },
  telling: ['response.created', 'response.completed', 'response.incomplete', 'response.failed', 'error'],
  ends: ['response.completed', 'response.incomplete', 'response.failed'],
  content: '.delta',
  said: ['delta'],
})

/** Source: OpenAI API reference, "Audio", "Transcript text events"; vLLM, "Transcriptions API", for its chunks. */
export const nativeTranscripts: Native = nativeOf({
  read: document => ({
    usage: relayedUsage(document),
    id: member(document, 'id'),
    model: member(document, 'model'),
    finish: undefined,
  }),
  text: document => String(member(document, 'text') ?? ''),
  note: noteSeconds,
  telling: ['transcript.text.done', 'error'],
  ends: ['transcript.text.done'],
  content: '.delta',
  said: ['delta'],
  hasChunks: true,
})

function nativeOf({ read, text, note: noteMore, telling, ends, content, said, hasChunks = false, names: told }: Shape): Native {
  const keys = said.map(name => ({ mark: `"${name}":`, isReasoning: name === 'thinking' }))

  /** Counts what an event carries of the answer. in: its type, its `data` as binary text */
  const observe = (exchange: Exchange, type: string, data: string) => {
    exchange.contentEvents += 1
    for (const { mark, isReasoning } of keys) {
      const at = data.indexOf(mark)
      if (at < 0) continue
      let quote = at + mark.length
      while (data.charCodeAt(quote) === SPACE) quote += 1
      if (data.charCodeAt(quote) !== QUOTE) continue
      exchange.contentBytes += stringBytes(data, quote)
      if (exchange.capture && !isReasoning && !type.includes('reasoning')) exchange.capture.answer(deltaAt(data, quote))
      return
    }
  }
  const note = (exchange: Exchange, document: unknown, { usage, id, model, finish }: Reading) => {
    noteMore?.(exchange, document)
    if (usage) exchange.usage = mergeUsage(exchange.usage, usage)
    if (typeof finish === 'string') exchange.finishReason = finish.slice(0, 64)
    const { attempt } = exchange
    if (!attempt) return
    if (typeof id === 'string') attempt.providerRequestId ??= id
    if (typeof model === 'string') attempt.providerModelVersion ??= model
  }
  return {
    whole(document, exchange) {
      // A response tells `error: null` where all is well.
      if (member(document, 'type') === 'error' || (member(document, 'object') !== 'response' && hasError(document))) {
        throw errorOf(document, true)
      }
      const reading = read(document)
      note(exchange, document, reading)
      if (!exchange.capture && reading.usage && reading.usage.completionTokens > 0) return
      const answer = text(document)
      exchange.contentBytes = Buffer.byteLength(answer)
      exchange.capture?.answer(answer)
    },
    stream(exchange, names) {
      const observer = { events: 0, isComplete: false, event }
      function event(data: string): string {
        const type = FIRST_TYPE.exec(data)?.[1]
        if (type !== undefined && !telling.includes(type)) {
          observer.events += 1
          if (type.includes(content)) observe(exchange, type, data)
          return data
        }
        // Servers may write `type` behind what holds others of that name, and errors without any.
        const document = parsed(data)
        const own = type ?? member(document, 'type')
        if (own === 'error' || (typeof own !== 'string' && hasError(document))) throw errorOf(document, observer.events === 0)
        observer.events += 1
        if (typeof own !== 'string') {
          if (!hasChunks) return data
          if (document === undefined) observer.isComplete = true
          else note(exchange, document, read(document))
          return data
        }
        if (own.includes(content)) observe(exchange, own, data)
        if (!telling.includes(own)) return data
        note(exchange, document, read(document))
        if (ends.includes(own)) observer.isComplete = true
        return names && own === told?.event ? renamed(data, told.holder, names) : data
      }
      return observer
    },
  }
}

/** An event with the caller's name for the model where the upstream's stands; all else of it stays as it was sent. */
function renamed(data: string, holder: string, { upstream, alias }: Names): string {
  const outer = scanMembers(data).find(({ key }) => key === holder)
  if (!outer || data[outer.valueStart] !== '{') return data
  const inner = data.slice(outer.valueStart, outer.valueEnd)
  const model = scanMembers(inner).find(({ key }) => key === 'model')
  if (!model || parseBinary(inner.slice(model.valueStart, model.valueEnd)) !== upstream) return data
  const at = outer.valueStart
  return data.slice(0, at + model.valueStart) + stringifyBinary(alias) + data.slice(at + model.valueEnd)
}

const SPACE = 0x20
const QUOTE = 0x22

/** Of a string as it is written, without its quotes. Events are relayed that are no JSON: what is not closed counts nothing. */
function stringBytes(data: string, quote: number): number {
  try {
    return skipString(data, quote) - quote - 2
  } catch {
    return 0
  }
}

const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [])

/** The texts among what stands in each of a list. */
function joined(list: readonly unknown[], textIn: (each: unknown) => unknown): string {
  let text = ''
  for (const each of list) {
    const found = textIn(each)
    if (typeof found === 'string') text += found
  }
  return text
}

const jsonOf = (value: unknown): string | undefined => JSON.stringify(value)

/** Of an event that begins with its type, as nearly all do. */
const FIRST_TYPE = /^\s*\{\s*"type"\s*:\s*"([\w.]{1,64})"/

/** in: `data` of one event. out: undefined for `[DONE]`, which some servers send here as well */
function parsed(data: string): unknown {
  if (data.trim() === '[DONE]') return undefined
  try {
    return parseBounded(binaryToUtf8(data))
  } catch {
    throw new GatewayError('upstream_decode_error', 'upstream sent an unparseable stream event: not whole JSON', { retry: 'yes' })
  }
}

function hasError(document: unknown): boolean {
  const error = member(document, 'error')
  return error !== undefined && error !== null
}

const OVERLOADED = 503

const STATUSES: Readonly<Record<string, number>> = {
  invalid_request_error: 400,
  authentication_error: 401,
  permission_error: 403,
  not_found_error: 404,
  request_too_large: 413,
  rate_limit_error: 429,
  // Of an answer this would be 529; 503 is what that error has here, and callers wait for longer when they are told so.
  overloaded_error: OVERLOADED,
}

function errorOf(document: unknown, isFirst: boolean): GatewayError {
  const error = member(document, 'error') ?? document
  const message = member(error, 'message')
  const type = member(error, 'type')
  const status = typeof type === 'string' ? STATUSES[type] : undefined
  const said = isFirst ? 'upstream reported an error' : 'upstream reported an in-band stream error'
  const text = typeof message === 'string' ? message : 'it does not say which'
  return new GatewayError(isFirst ? 'upstream_error' : 'upstream_in_band_error', cutMessage(`${said}: ${text}`), {
    ...((isFirst && status !== undefined) || status === OVERLOADED ? { status } : {}),
    recorded: withoutWords(said, typeof type === 'string' ? type : undefined),
    retry: isFirst && (status === undefined || status === OVERLOADED) ? 'yes' : 'no',
  })
}

export function responsesUsage(usage: unknown): Usage | undefined {
  if (typeof usage !== 'object' || usage === null) return undefined
  const promptTokens = countOf(member(usage, 'input_tokens'))
  const completionTokens = countOf(member(usage, 'output_tokens'))
  return {
    promptTokens,
    completionTokens,
    totalTokens: countOf(member(usage, 'total_tokens')) || promptTokens + completionTokens,
    cachedTokens: countOf(member(member(usage, 'input_tokens_details'), 'cached_tokens')),
    reasoningTokens: countOf(member(member(usage, 'output_tokens_details'), 'reasoning_tokens')),
    isEstimated: false,
  }
}
