import { z } from 'zod'
import type { Endpoint } from './endpoint.ts'
import { isPlainQuestion, model, stream, streamOptions } from './fields.ts'

/** Source: OpenAI API reference, "Create completion" (legacy); contract proxy-03 §2. */
const schema = z.looseObject({ model, stream, stream_options: streamOptions })

export const completions: Endpoint = {
  name: 'completions',
  path: '/v1/completions',
  operation: 'completions',
  schema,
  keys: Object.keys(schema.shape),
  isPlain: isPlainQuestion,
  promptMember: 'prompt',
  answerMember: 'choices',
  alwaysSendsStream: false,
  hasCallId: false,
  fillsUsage: false,
  noun: 'text completions',
}
