import { z } from 'zod'
import type { Endpoint } from './endpoint.ts'
import { model, stream, streamOptions, tokenCount } from './fields.ts'

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
  answerMember: 'choices',
  alwaysSendsStream: true,
  hasCallId: true,
  fillsUsage: false,
  noun: 'chat completions',
}
