import type { Exchange, Usage } from '../exchange.ts'
import { member } from '../lib/member.ts'
import { countOf } from '../wire/count.ts'

/**
 * Tokens that an answer tells which nobody else looks into.
 * in: its JSON
 * source: proxy-03 §7 to §9; OpenAI API reference, "Images", "Audio"; Cohere and Jina API references, "Rerank"; vLLM,
 * "Score API", "Pooling API", "Transcriptions API"
 */
export function relayedUsage(document: unknown): Usage | undefined {
  const usage = member(document, 'usage')
  const billed = member(member(document, 'meta'), 'billed_units')
  const completionTokens = countOf(member(usage, 'output_tokens')) || countOf(member(usage, 'completion_tokens'))
  const promptTokens =
    countOf(member(usage, 'prompt_tokens')) ||
    countOf(member(usage, 'input_tokens')) ||
    Math.max(countOf(member(usage, 'total_tokens')) - completionTokens, 0) ||
    countOf(member(billed, 'input_tokens'))
  if (promptTokens + completionTokens === 0) return undefined
  const totalTokens = promptTokens + completionTokens
  return { promptTokens, completionTokens, totalTokens, cachedTokens: 0, reasoningTokens: 0, isEstimated: false }
}

/**
 * How much was transcribed, where an answer tells it: `usage` of type `duration`, or the `duration` of the long form, which
 * some servers write as text. Source: OpenAI API reference, "Create transcription"
 */
export function noteSeconds(exchange: Exchange, document: unknown): void {
  const usage = member(document, 'usage')
  const told = member(usage, 'type') === 'duration' ? member(usage, 'seconds') : undefined
  const seconds = Number(told ?? member(document, 'duration') ?? Number.NaN)
  if (Number.isFinite(seconds) && seconds > 0) exchange.extra = { ...exchange.extra, audioSeconds: seconds }
}
