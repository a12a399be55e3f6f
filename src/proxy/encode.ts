import {
  findMember,
  type Member,
  parseBinary,
  readElements,
  readMembers,
  removeMember,
  setMember,
  stringifyBinary,
  toBytes,
  utf8ToBinary,
  writeMembers,
} from '../wire/members.ts'
import type { Endpoint } from './endpoints/endpoint.ts'
import type { Question } from './question.ts'

/** What an operator changes in every request of a provider key (control-resources §1.1, §1.2), made ready. */
export type BodyOverrides = {
  renames: readonly [from: string, to: string][]
  temperatureMin: number | undefined
  temperatureMax: number | undefined
  /** Members that are added when the caller did not send them, as binary JSON text. */
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
): Uint8Array<ArrayBuffer> {
  const members = question.members.map(member => ({ ...member }))
  setMember(members, 'model', stringifyBinary(upstreamModel))
  if (endpoint.alwaysSendsStream) setMember(members, 'stream', question.isStream ? 'true' : 'false')
  if (asksUsage) setMember(members, 'stream_options', '{"include_usage":true}')
  if (overrides) applyOverrides(members, overrides)
  return toBytes(writeMembers(members))
}

function applyOverrides(members: Member[], overrides: BodyOverrides): void {
  for (const [from, to] of overrides.renames) {
    const member = findMember(members, from)
    if (!member || from === to) continue
    removeMember(members, to)
    member.key = to
    member.rawKey = stringifyBinary(to)
  }
  const temperature = findMember(members, 'temperature')
  if (temperature && (overrides.temperatureMin !== undefined || overrides.temperatureMax !== undefined)) {
    const given: unknown = parseBinary(temperature.rawValue)
    if (typeof given === 'number') {
      const lowered = overrides.temperatureMax === undefined ? given : Math.min(given, overrides.temperatureMax)
      const clamped = overrides.temperatureMin === undefined ? lowered : Math.max(lowered, overrides.temperatureMin)
      if (clamped !== given) temperature.rawValue = String(clamped)
    }
  }
  for (const [key, rawValue] of overrides.defaults) if (!findMember(members, key)) setMember(members, key, rawValue)
  const messages = overrides.flattensContent ? findMember(members, 'messages') : undefined
  if (messages) messages.rawValue = `[${readElements(messages.rawValue, 1).map(flattenContent).join(',')}]`
}

/** A message whose content has text parts gets them as one string, for servers that take no arrays. */
function flattenContent(rawMessage: string): string {
  const members = readMembers(rawMessage, 2)
  const content = findMember(members, 'content')
  if (!content?.rawValue.startsWith('[')) return rawMessage
  const parts: unknown = parseBinary(content.rawValue)
  if (!Array.isArray(parts)) return rawMessage
  const texts = parts.flatMap((part: unknown) =>
    typeof part === 'object' && part !== null && 'text' in part && typeof part.text === 'string' ? [part.text] : [],
  )
  if (texts.length === 0) return rawMessage
  content.rawValue = utf8ToBinary(JSON.stringify(texts.join('')))
  return writeMembers(members)
}
