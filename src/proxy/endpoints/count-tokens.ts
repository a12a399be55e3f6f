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
    estimate: (text: string) => ({ input_tokens: Math.ceil(Buffer.byteLength(text) / 4) }),
  },
}
