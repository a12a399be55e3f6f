import { z } from 'zod'
import type { Endpoint, EndpointQuestion } from './endpoint.ts'
import { isPlainQuestion, model } from './fields.ts'

/** Source: OpenAI API reference, "Create embeddings"; contract proxy-03 §3. Token arrays and vendor members pass untouched. */
const schema = z.looseObject({
  model,
  input: z.unknown().refine(input => input !== undefined && input !== null, 'is required'),
})

export const embeddings: Endpoint = {
  name: 'embeddings',
  path: '/v1/embeddings',
  operation: 'embeddings',
  schema,
  keys: Object.keys(schema.shape),
  isPlain: (value): value is EndpointQuestion => isPlainQuestion(value) && typeof value.input === 'string',
  promptMember: 'input',
  answerMember: 'data',
  alwaysSendsStream: false,
  hasCallId: false,
  fillsUsage: true,
  noun: 'embeddings',
}
