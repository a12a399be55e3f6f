import type { Adapter, Operation } from '../adapters/adapter.ts'
import {
  createQuoter,
  findMember,
  JsonDepthError,
  type Member,
  parseBounded,
  readElements,
  readMembers,
  removeMember,
  setMember,
  writeMembers,
} from '../wire/members.ts'
import type { Endpoint } from './endpoints/endpoint.ts'
import type { Question } from './question.ts'
import { undecodable } from './rewrite-answer.ts'

/** What an operator changes in every request of a provider key (control-resources §1.1, §1.2), made ready. */
export type BodyOverrides = {
  renames: readonly [from: string, to: string][]
  temperatureMin: number | undefined
  temperatureMax: number | undefined
  /** Members that are added when the caller did not send them, as JSON text. */
  defaults: readonly [key: string, rawValue: string][]
  flattensContent: boolean
}

/**
 * The body that goes upstream: the caller's, with the upstream's model name, `stream` said, usage asked for where
 * `asksUsage`, and the operator's overrides in the contract's order (proxy-02 §2). All else byte for byte.
 */
export function encodeQuestion(
  endpoint: Endpoint,
  question: Question,
  upstreamModel: string,
  overrides: BodyOverrides | undefined,
  asksUsage: boolean,
): string {
  const { text, spans, isStream } = question
  const model = modelText(upstreamModel)
  if (!overrides) {
    // Two or three places change, the rest is one copy.
    let encoded = ''
    let from = 0
    let isStreamSaid = false
    for (const { key, valueStart, valueEnd } of spans) {
      if (key === 'model') encoded += text.slice(from, valueStart) + model
      else if (key === 'stream' && endpoint.alwaysSendsStream) {
        encoded += text.slice(from, valueStart) + String(isStream)
        isStreamSaid = true
      } else if (key === 'stream_options' && asksUsage) encoded += text.slice(from, valueStart) + INCLUDE_USAGE
      else continue
      from = valueEnd
    }
    const end = text.lastIndexOf('}')
    encoded += text.slice(from, end)
    if (endpoint.alwaysSendsStream && !isStreamSaid) encoded += `,"stream":${isStream}`
    if (asksUsage && !spans.some(({ key }) => key === 'stream_options')) encoded += `,"stream_options":${INCLUDE_USAGE}`
    return `${encoded}}`
  }
  const members = readMembers(text)
  setMember(members, 'model', model)
  if (endpoint.alwaysSendsStream) setMember(members, 'stream', String(isStream))
  if (asksUsage) setMember(members, 'stream_options', INCLUDE_USAGE)
  applyOverrides(members, overrides)
  return writeMembers(members)
}

/** A chat request as the upstream's dialect has it. in: its JSON text, as `encodeQuestion` gives it */
export function toUpstream({ chat }: Adapter, operation: Operation, text: string): string {
  if (!chat || operation !== 'chat') return text
  return JSON.stringify(chat.question({ ...Object(parseBounded(text)) }))
}

/** A chat answer out of what the upstream's dialect has for one; what is no JSON stays as it is, for others to judge. */
export function fromUpstream({ chat }: Adapter, operation: Operation, text: string, nowMs: number): string {
  if (!chat || operation !== 'chat') return text
  let answer: unknown
  try {
    answer = parseBounded(text)
  } catch (error) {
    if (error instanceof JsonDepthError) throw undecodable(error.message)
    return text
  }
  // Errors inside a 200 are read as the upstream sent them.
  if (typeof answer !== 'object' || answer === null || !('content' in answer)) return text
  return JSON.stringify(chat.answer({ ...answer }, nowMs))
}

const modelText = createQuoter()

const INCLUDE_USAGE = '{"include_usage":true}'

function applyOverrides(members: Member[], overrides: BodyOverrides): void {
  for (const [from, to] of overrides.renames) {
    const member = findMember(members, from)
    if (!member || from === to) continue
    removeMember(members, to)
    member.key = to
    member.rawKey = JSON.stringify(to)
  }
  const temperature = findMember(members, 'temperature')
  if (temperature) {
    const given: unknown = JSON.parse(temperature.rawValue)
    if (typeof given === 'number') {
      const allowed = allowedTemperature(given, overrides)
      if (allowed !== given) temperature.rawValue = String(allowed)
    }
  }
  for (const [key, rawValue] of overrides.defaults) if (!findMember(members, key)) setMember(members, key, rawValue)
  const messages = overrides.flattensContent ? findMember(members, 'messages') : undefined
  if (messages) messages.rawValue = `[${readElements(messages.rawValue, 1).map(flattenContent).join(',')}]`
}

/** A temperature within the operator's bounds. */
export function allowedTemperature(given: number, { temperatureMin, temperatureMax }: BodyOverrides): number {
  const lowered = temperatureMax === undefined ? given : Math.min(given, temperatureMax)
  return temperatureMin === undefined ? lowered : Math.max(lowered, temperatureMin)
}

/** A message whose content has text parts gets them as one string, for servers that take no arrays. */
function flattenContent(rawMessage: string): string {
  const members = readMembers(rawMessage, 2)
  const content = findMember(members, 'content')
  if (!content?.rawValue.startsWith('[')) return rawMessage
  const parts: unknown = JSON.parse(content.rawValue)
  if (!Array.isArray(parts)) return rawMessage
  const texts = parts.flatMap((part: unknown) =>
    typeof part === 'object' && part !== null && 'text' in part && typeof part.text === 'string' ? [part.text] : [],
  )
  if (texts.length === 0) return rawMessage
  content.rawValue = JSON.stringify(texts.join(''))
  return writeMembers(members)
}
