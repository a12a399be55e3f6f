import { z } from 'zod'
import type { Endpoint, EndpointQuestion } from './endpoint.ts'
import { isPlainNumber, isPlainQuestion, model, stream, streamOptions, tokenCount } from './fields.ts'

/** Source: OpenAI API reference, "Create chat completion"; contract proxy-02 §1. */
const schema = z.looseObject({
  model,
  messages: z
    .array(z.looseObject({ role: z.string('must be a string') }, 'must be an object'), 'must be an array')
    .min(1, 'messages array must not be empty'),
  stream,
  stream_options: streamOptions,
  temperature: z.number('must be a number').nullish(),
  top_p: z.number('must be a number').nullish(),
  max_tokens: tokenCount,
})

export const chatCompletions: Endpoint = {
  name: 'chat',
  path: '/v1/chat/completions',
  operation: 'chat',
  schema,
  keys: Object.keys(schema.shape),
  isPlain,
  promptMember: 'messages',
  answerMember: 'choices',
  alwaysSendsStream: true,
  hasCallId: true,
  fillsUsage: false,
  noun: 'chat completions',
}

function isPlain(value: unknown): value is EndpointQuestion {
  if (!isPlainQuestion(value) || !isPlainCount(value.max_tokens)) return false
  if (!isPlainNumber(value.temperature) || !isPlainNumber(value.top_p)) return false
  const { messages } = value
  if (!Array.isArray(messages) || messages.length === 0) return false
  for (const message of messages) {
    if (typeof message !== 'object' || message === null || typeof message.role !== 'string') return false
  }
  return true
}

function isPlainCount(value: unknown): boolean {
  return value === undefined || (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 4_294_967_295)
}
