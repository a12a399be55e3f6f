import type { Usage } from '../exchange.ts'
import { member } from '../lib/member.ts'
import { countOf } from '../wire/count.ts'

/**
 * Tokens that an answer tells which nobody else looks into.
 * in: JSON
 * source: proxy-03 §7 and §8; Cohere and Jina API references, "Rerank"; vLLM, "Score API", "Pooling API"
 */
export function relayedUsage(body: Uint8Array): Usage | undefined {
  let document: unknown
  try {
    document = JSON.parse(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'))
  } catch {
    return undefined
  }
  const usage = member(document, 'usage')
  const billed = member(member(document, 'meta'), 'billed_units')
  const promptTokens =
    countOf(member(usage, 'prompt_tokens')) ||
    countOf(member(usage, 'input_tokens')) ||
    countOf(member(usage, 'total_tokens')) ||
    countOf(member(billed, 'input_tokens'))
  const completionTokens = countOf(member(usage, 'output_tokens'))
  if (promptTokens + completionTokens === 0) return undefined
  const totalTokens = promptTokens + completionTokens
  return { promptTokens, completionTokens, totalTokens, cachedTokens: 0, reasoningTokens: 0, isEstimated: false }
}
