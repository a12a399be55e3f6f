import { z } from 'zod'
import type { Dialect } from '../../dialects/dialect.ts'
import type { Endpoint, EndpointQuestion, NativeRelay } from './endpoint.ts'
import { isPlainQuestion, model, stream } from './fields.ts'

/** An endpoint whose callers speak another dialect: upstreams are asked for a chat completion. */
export function translatedEndpoint(of: {
  name: string
  path: string
  dialect: Dialect
  native?: NativeRelay
  promptMember?: Endpoint['promptMember']
  more?: z.ZodRawShape
}): Endpoint {
  const schema = z.looseObject({ model, stream, ...of.more })
  return {
    name: of.name,
    path: of.path,
    operation: 'chat',
    dialect: of.dialect,
    ...(of.native ? { native: of.native } : {}),
    schema,
    keys: Object.keys(schema.shape),
    // The dialect looks at all else, and says what is wrong in its own words.
    isPlain: (value): value is EndpointQuestion => isPlainQuestion(value),
    promptMember: of.promptMember ?? 'messages',
    answerMember: 'choices',
    alwaysSendsStream: true,
    hasCallId: false,
    fillsUsage: false,
    noun: 'chat completions',
  }
}
