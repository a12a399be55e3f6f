import { z } from 'zod'
import type { Dialect, Json } from '../../dialects/dialect.ts'
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
  /** What of a body the translation leaves out, each by its place. */
  dropped?: (body: Json) => readonly string[]
}): Endpoint {
  const { dropped } = of
  const schema = z.looseObject({ model, stream, ...of.more })
  return {
    name: of.name,
    path: of.path,
    operation: 'chat',
    dialect: of.dialect,
    ...(of.native ? { native: of.native } : {}),
    ...(dropped ? { warning: body => droppedWarning(dropped(body)) } : {}),
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

/** Places that a warning names; a long conversation may have hundreds. */
const PLACES_MAX = 8
const PLACE_LENGTH_MAX = 100

/** out: fit for a header: types are the caller's words */
function droppedWarning(places: readonly string[]): string | undefined {
  if (places.length === 0) return undefined
  const named = places.slice(0, PLACES_MAX).map(place => place.replace(/[^\x20-\x7e]/g, '?').slice(0, PLACE_LENGTH_MAX))
  const more = places.length > PLACES_MAX ? ` and ${places.length - PLACES_MAX} more` : ''
  return `${named.join(', ')}${more}: the model server has nothing for this; it was left out`
}
