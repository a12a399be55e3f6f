import type { Dialect } from '../../dialects/dialect.ts'
import { messages } from '../../dialects/messages.ts'
import { member } from '../../lib/member.ts'
import { nativeRelay } from './messages.ts'
import { translatedEndpoint } from './translated.ts'

/** What of a chat request its tokens are counted of. source: vLLM, "Tokenizer API": the chat form of `/tokenize` */
const dialect: Dialect = {
  ...messages,
  question(body) {
    const { model, messages: turns, tools } = messages.question(body)
    return { model, messages: turns, ...(tools === undefined ? {} : { tools }), add_generation_prompt: true }
  },
}

/** What an image comes to at most, unless it is scaled down. source: Anthropic, "Vision", "Calculate image costs" */
const IMAGE_TOKENS = 1_600
/**
 * Pages of PDF are 1,500 to 3,000 tokens each and, with text and some pictures, around 70 kB; there is at least one.
 * source: Anthropic, "PDF support", "Estimate your costs"
 */
const DOCUMENT_BYTES_PER_TOKEN = 32
const DOCUMENT_TOKENS_MIN = 1_500

/** in: a chat request as JSON text. Text is four bytes a token (spec/README, row 16), and what base64 stands for is no text. */
function estimatedTokens(text: string): number {
  let media = 0
  const rest = JSON.stringify(JSON.parse(text), (_key, value: unknown) => {
    const url = member(member(value, 'image_url'), 'url') ?? member(member(value, 'file'), 'file_data')
    if (typeof url !== 'string') return value
    media += tokensOfMedia(url)
    return undefined
  })
  return media + Math.ceil(Buffer.byteLength(rest) / 4)
}

/** in: an address, or a `data:` URL in base64 */
function tokensOfMedia(url: string): number {
  const comma = url.indexOf(',')
  if (!url.startsWith('data:') || url.startsWith('data:image/') || comma < 0) return IMAGE_TOKENS
  const bytes = ((url.length - comma - 1) * 3) / 4
  return Math.max(DOCUMENT_TOKENS_MIN, Math.ceil(bytes / DOCUMENT_BYTES_PER_TOKEN))
}

/** Source: Anthropic API reference, "Count tokens in a message"; contract proxy-03 §5. */
export const countTokens = {
  ...translatedEndpoint({
    name: 'count_tokens',
    path: '/v1/messages/count_tokens',
    dialect,
    native: { ...nativeRelay, operation: 'count_tokens', renames: false },
  }),
  operation: 'tokenize' as const,
  alwaysSendsStream: false,
  noun: 'counting tokens',
  count: {
    answer(document: unknown) {
      const count = member(document, 'count')
      const tokens = member(document, 'tokens')
      const told = typeof count === 'number' ? count : Array.isArray(tokens) ? tokens.length : 0
      // Of none at all the server has not understood the question: there is no empty prompt.
      return Number.isSafeInteger(told) && told > 0 ? { input_tokens: told } : undefined
    },
    estimate: (text: string) => ({ input_tokens: estimatedTokens(text) }),
  },
}
