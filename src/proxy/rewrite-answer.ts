import type { Adapter } from '../adapters/adapter.ts'
import { GatewayError, withoutWords } from '../errors.ts'
import type { Usage } from '../exchange.ts'
import {
  createQuoter,
  findMember,
  JsonDepthError,
  JsonSyntaxError,
  type Member,
  readElements,
  readMembers,
  setMember,
  skipSpace,
  skipString,
  writeMembers,
} from '../wire/members.ts'
import type { Endpoint } from './endpoints/endpoint.ts'

export type RewrittenAnswer = {
  text: string
  usage: Usage | undefined
  id: string | undefined
  model: string | undefined
  finishReason: string | undefined
  /** Bytes of what was generated: the base of an estimate, counted only where the upstream told no usage. */
  contentBytes: number
}

/**
 * A whole answer in the caller's dialect: every member that the upstream sent, in its order, with the caller's alias in
 * `model` and, where only a vendor's spelling came, the standard one beside it.
 * throws: upstream_decode_error when it is no answer; upstream_error when it is an error inside a 2xx
 */
export function rewriteAnswer(endpoint: Endpoint, adapter: Adapter, alias: string, text: string): RewrittenAnswer {
  return rewriteModel(endpoint, adapter, alias, text) ?? rewriteMembers(endpoint, adapter, alias, text)
}

const aliasText = createQuoter()

/** Over this many bytes a structural scan is cheaper than building every value. */
const PARSED_BYTES_MAX = 65_536

/**
 * The usual answer: nothing but `model` changes, and it stands in one place. One parse by the runtime, one splice.
 * returns: undefined when it is anything else
 */
function rewriteModel(endpoint: Endpoint, adapter: Adapter, alias: string, text: string): RewrittenAnswer | undefined {
  if (text.length > PARSED_BYTES_MAX) return undefined
  const key = text.indexOf('"model"')
  if (key < 0 || text.indexOf('"model"', key + 7) >= 0 || text.includes('"reasoning"')) return undefined
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (!isRecord(value) || typeof value.model !== 'string') return undefined
  const body = value[endpoint.answerMember]
  if (!Array.isArray(body)) return undefined
  const usage = adapter.usage(value.usage)
  // A vendor's counters, or missing ones: members are added, which the long way does.
  if (usage ? usage.cachedTokens > 0 : value.usage !== undefined || endpoint.fillsUsage) return undefined
  if (
    endpoint.fillsUsage &&
    isRecord(value.usage) &&
    (value.usage.prompt_tokens === undefined || value.usage.total_tokens === undefined)
  ) {
    return undefined
  }
  const colon = skipSpace(text, key + 7)
  const start = skipSpace(text, colon + 1)
  if (text[colon] !== ':' || text[start] !== '"') return undefined
  const end = skipString(text, start)
  // The outermost object has a `model`, and the text one place that spells it. That they are the same, the value says:
  // an escaped spelling outside and a plain one inside would differ here or mean the same.
  if (text.slice(start + 1, end - 1) !== value.model) return undefined
  const first: unknown = body[0]
  return {
    text: text.slice(0, start) + aliasText(alias) + text.slice(end),
    usage,
    id: typeof value.id === 'string' ? value.id : undefined,
    model: value.model,
    finishReason: isRecord(first) && typeof first.finish_reason === 'string' ? first.finish_reason : undefined,
    contentBytes: usage?.completionTokens ? 0 : contentBytes(body),
  }
}

/** Bytes of text, reasoning and arguments in the choices of a chat or completion. */
function contentBytes(choices: unknown): number {
  if (!Array.isArray(choices)) return 0
  let bytes = 0
  const add = (text: unknown) => {
    if (typeof text === 'string') bytes += Buffer.byteLength(text)
  }
  for (const choice of choices) {
    if (!isRecord(choice)) continue
    add(choice.text)
    const { message } = choice
    if (!isRecord(message)) continue
    add(message.content)
    add(message.reasoning_content ?? message.reasoning)
    const calls: unknown[] = Array.isArray(message.tool_calls) ? message.tool_calls : []
    for (const call of calls) if (isRecord(call) && isRecord(call.function)) add(call.function.arguments)
  }
  return bytes
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function rewriteMembers(endpoint: Endpoint, adapter: Adapter, alias: string, text: string): RewrittenAnswer {
  let members: Member[]
  try {
    members = readMembers(text)
  } catch (error) {
    if (error instanceof JsonSyntaxError || error instanceof JsonDepthError) throw undecodable(whatIs(text, error.message))
    throw error
  }
  const body = findMember(members, endpoint.answerMember)
  if (!body?.rawValue.startsWith('[')) {
    // A 2xx without it is undecodable whatever it says (spec, row 2); an error inside is told in words.
    const told = errorInside(adapter, text)
    throw told ? undecodable(told.message, told.recorded) : undecodable(`it has no \`${endpoint.answerMember}\``)
  }
  const model = stringOf(findMember(members, 'model'))
  const id = stringOf(findMember(members, 'id'))
  setMember(members, 'model', JSON.stringify(alias))
  if (endpoint.operation === 'chat' && body.rawValue.includes('"reasoning"'))
    body.rawValue = addReasoning(body.rawValue, 'message')
  const usageMember = findMember(members, 'usage')
  const told = usageMember ? parseMember(usageMember) : undefined
  const usage = adapter.usage(told)
  if (usageMember && usage && usage.cachedTokens > 0)
    usageMember.rawValue = addCachedTokens(usageMember.rawValue, usage.cachedTokens)
  if (endpoint.fillsUsage) fillUsage(members, usageMember, usage)
  return {
    text: writeMembers(members),
    usage,
    id,
    model,
    finishReason: finishReason(body.rawValue),
    contentBytes: usage?.completionTokens ? 0 : contentBytes(parseMember(body)),
  }
}

/** in: why, for the caller, and for logs and records, where it is to be told without an upstream's words */
export function undecodable(why: string, recorded = why): GatewayError {
  const said = 'upstream returned an unparseable body'
  return new GatewayError('upstream_decode_error', `${said}: ${why}`, { retry: 'yes', recorded: `${said}: ${recorded}` })
}

/** Says what came in place of JSON, without telling any of it. */
function whatIs(text: string, problem: string): string {
  const start = text.trimStart()
  if (start === '') return 'it is empty'
  if (start.startsWith('<')) return 'it is HTML or XML; check api_base'
  if (start.startsWith('data:') || start.startsWith('event:')) return 'it is an event stream'
  return `it is not whole JSON (${problem})`
}

/** An error object inside a 2xx: its own status where it is one of 400 to 499, else 502 (proxy-02, in-band errors). */
export function errorInside(adapter: Adapter, text: string): GatewayError | undefined {
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch {
    return undefined
  }
  if (!isRecord(body) || !(body.error || body.object === 'error')) return undefined
  const error = adapter.error(body)
  if (!error) return undefined
  const embedded = error.code !== undefined && /^[45]\d\d$/.test(error.code) ? Number(error.code) : undefined
  const isCallers = embedded !== undefined && embedded < 500
  return new GatewayError('upstream_error', cutMessage(`upstream reported an error: ${error.message}`), {
    status: isCallers ? embedded : 502,
    code: embedded === undefined ? error.code : undefined,
    param: error.param,
    recorded: withoutWords('upstream reported an error', error.code),
    upstreamStatus: embedded,
    retry: isCallers ? 'no' : 'yes',
  })
}

/** What an upstream says of a failure, where its body is JSON that this dialect understands. */
export function upstreamWords(adapter: Adapter, text: string): ReturnType<Adapter['error']> {
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch {
    return undefined
  }
  return adapter.error(body)
}

/** proxy-01 §8: at most 1,024 bytes of an upstream's words, cut on a character boundary. */
export function cutMessage(message: string): string {
  const bytes = Buffer.from(message)
  if (bytes.byteLength <= 1024) return message
  let end = 1024 - 3
  // A byte 10xxxxxx is inside a character.
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1
  return `${bytes.subarray(0, end).toString('utf8')}…`
}

function parseMember(member: Member): unknown {
  try {
    return JSON.parse(member.rawValue)
  } catch {
    throw undecodable(`its \`${member.key}\` is not JSON`)
  }
}

function stringOf(member: Member | undefined): string | undefined {
  if (!member?.rawValue.startsWith('"')) return undefined
  const value = parseMember(member)
  return typeof value === 'string' ? value : undefined
}

/** Newer vLLM and Ollama say `reasoning`; callers expect `reasoning_content`, which is added beside it. */
export function addReasoning(rawChoices: string, holder: 'message' | 'delta', path?: readonly string[]): string {
  const choices = readElements(rawChoices, 1).map(rawChoice => {
    const choice = readMembers(rawChoice, 2)
    const held = findMember(choice, holder)
    if (!held?.rawValue.startsWith('{')) return rawChoice
    const members = readMembers(held.rawValue, 3)
    const standard = findMember(members, 'reasoning_content')
    if (standard && standard.rawValue !== 'null' && standard.rawValue !== '""') return rawChoice
    const raw = path ? valueAt(held.rawValue, path) : findMember(members, 'reasoning')?.rawValue
    if (raw === undefined || !raw.startsWith('"') || raw === '""') return rawChoice
    setMember(members, 'reasoning_content', raw)
    held.rawValue = writeMembers(members)
    return writeMembers(choice)
  })
  return `[${choices.join(',')}]`
}

/** The raw value at a path of member names. */
function valueAt(raw: string, path: readonly string[]): string | undefined {
  let value: string | undefined = raw
  for (const name of path) {
    if (!value?.startsWith('{')) return undefined
    value = findMember(readMembers(value), name)?.rawValue
  }
  return value
}

/** `prompt_tokens_details.cached_tokens` where only a vendor's cache counters came. */
export function addCachedTokens(rawUsage: string, cachedTokens: number): string {
  const members = readMembers(rawUsage, 1)
  const details = findMember(members, 'prompt_tokens_details')
  const inner = details?.rawValue.startsWith('{') ? readMembers(details.rawValue, 2) : []
  const told = findMember(inner, 'cached_tokens')
  if (told && told.rawValue !== '0' && told.rawValue !== 'null') return rawUsage
  setMember(inner, 'cached_tokens', String(cachedTokens))
  setMember(members, 'prompt_tokens_details', writeMembers(inner))
  return writeMembers(members)
}

/** Embeddings: counters that the upstream did not send are shown as 0 (proxy-03 §3). */
function fillUsage(members: Member[], usageMember: Member | undefined, usage: Usage | undefined): void {
  if (!usageMember || !usage) {
    setMember(members, 'usage', '{"prompt_tokens":0,"total_tokens":0}')
    return
  }
  const counters = readMembers(usageMember.rawValue, 1)
  for (const name of ['prompt_tokens', 'total_tokens']) if (!findMember(counters, name)) setMember(counters, name, '0')
  usageMember.rawValue = writeMembers(counters)
}

const FINISH_REASON = /"finish_reason"\s*:\s*"([^"\\]{1,64})"/

export function finishReason(raw: string): string | undefined {
  // A key in the answer's own text is escaped there (\"finish_reason\"), so what matches is a member.
  return raw.includes('"finish_reason"') ? FINISH_REASON.exec(raw)?.[1] : undefined
}
