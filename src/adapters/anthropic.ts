import type { Adapter } from './adapter.ts'
import { createChunks, fromMessage, messagesBase, readMessagesError, toMessages } from './anthropic-chat.ts'
import { openai } from './openai.ts'

/**
 * Messages as Anthropic and, by now, vLLM, SGLang, llama.cpp and Ollama serve them.
 * Source: Anthropic API reference, "Messages"; contract proxy-04 §3.
 */
export const anthropic: Adapter = {
  headers: secret => ({ 'x-api-key': secret, 'anthropic-version': '2023-06-01' }),
  base: messagesBase,
  paths: { chat: '/v1/messages', messages: '/v1/messages', count_tokens: '/v1/messages/count_tokens' },
  chat: { question: toMessages, answer: fromMessage, chunks: createChunks },
  error: readMessagesError,
  // What is counted is read once it is in the shape of chat.
  usage: openai.usage,
}
