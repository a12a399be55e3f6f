import { readMessagesUsage } from '../../adapters/anthropic-chat.ts'
import { openai } from '../../adapters/openai.ts'
import { type Exchange, mergeUsage, type Usage } from '../../exchange.ts'
import { member } from '../../lib/member.ts'
import { binaryToUtf8, toBinary } from '../../wire/members.ts'
import { SseReader } from '../../wire/sse.ts'
import { responsesUsage } from '../native.ts'
import { isJson } from '../read.ts'
import { relayedUsage } from '../relayed-usage.ts'

/** A longer JSON answer is not looked into. */
const READ_BYTES_MAX = 1_048_576
const NAME_MAX = 256

/** Looks at an answer while it passes. It never fails, and never holds anything up. */
export type Observer = {
  see(piece: Uint8Array): void
  /** The answer is over, well or badly. */
  end(): void
}

/**
 * What notes the usage that an answer tells, if it is of a kind that tells any. Nothing is estimated: who knows what API this is?
 * in: an answer that was not decoded
 */
export function observerOf({ ok, headers }: Response, exchange: Exchange): Observer | undefined {
  const encoding = headers.get('content-encoding')
  if (!ok || (encoding !== null && encoding.trim().toLowerCase() !== 'identity')) return undefined
  if (isEventStream(headers)) return observeEvents(exchange)
  const length = Number(headers.get('content-length') ?? 0)
  return isJson(headers.get('content-type')) && length <= READ_BYTES_MAX ? observeJson(exchange) : undefined
}

export function isEventStream(headers: Headers): boolean {
  return headers.get('content-type')?.split(';', 1)[0]?.trim().toLowerCase() === 'text/event-stream'
}

function observeJson(exchange: Exchange): Observer {
  let pieces: Uint8Array[] = []
  let bytes = 0
  return {
    see(piece) {
      bytes += piece.byteLength
      if (bytes > READ_BYTES_MAX) pieces = []
      else pieces.push(piece)
    },
    end() {
      if (bytes <= READ_BYTES_MAX) noteJson(Buffer.concat(pieces).toString('utf8'), exchange)
    },
  }
}

function observeEvents(exchange: Exchange): Observer {
  let events: SseReader | undefined = new SseReader()
  let isFirst = true
  const onData = (data: string) => {
    // The first one has the answer's id; chunks of chat say `null` in all but the last.
    if (isFirst || /"usage"\s*:\s*\{/.test(data)) noteJson(binaryToUtf8(data), exchange)
    isFirst = false
  }
  return {
    see(piece) {
      try {
        events?.push(toBinary(piece), onData)
      } catch {
        // An event of a size that nobody reads: it goes on to the caller all the same.
        events = undefined
      }
    },
    end() {
      events?.end(onData)
    },
  }
}

function noteJson(text: string, exchange: Exchange): void {
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch {
    return
  }
  // The event that begins a message of Anthropic's, and those that end a response of OpenAI's, hold it inside.
  for (const holder of [document, member(document, 'message'), member(document, 'response')]) {
    const { attempt } = exchange
    const [id, model] = [member(holder, 'id'), member(holder, 'model')]
    if (attempt && typeof id === 'string') attempt.providerRequestId ??= id.slice(0, NAME_MAX)
    if (attempt && typeof model === 'string') attempt.providerModelVersion ??= model.slice(0, NAME_MAX)
    const usage = usageIn(holder)
    if (!usage || usage.totalTokens === 0) continue
    exchange.usage = mergeUsage(exchange.usage, usage)
    exchange.isCounted = true
  }
}

/** source: OpenAI API reference, "Chat", "Responses"; Anthropic API reference, "Messages", "Streaming messages" */
function usageIn(holder: unknown): Usage | undefined {
  const usage = member(holder, 'usage')
  const has = (name: string) => member(usage, name) !== undefined
  if (has('prompt_tokens') || has('completion_tokens')) return withTotal(openai.usage(usage))
  // Of Anthropic's prompts what is cached counts beside the rest, and no total is told.
  if (has('output_tokens') || has('input_tokens')) {
    return withTotal(has('total_tokens') ? responsesUsage(usage) : readMessagesUsage(usage))
  }
  return relayedUsage(holder)
}

function withTotal(usage: Usage | undefined): Usage | undefined {
  return usage && { ...usage, totalTokens: Math.max(usage.totalTokens, usage.promptTokens + usage.completionTokens) }
}
