/**
 * OpenAI's Responses API over chat completions (proxy-04 §5), for models whose server does not speak it.
 * Nothing is stored: what refers to an earlier response is refused, because without it the model would answer another question.
 * source: OpenAI API reference, "Create a model response" and "Streaming events" of the Responses API
 */

import { GatewayError, invalidRequest, openAiEnvelope } from '../errors.ts'
import { isDataUrl, readDataUrl } from '../wire/base64.ts'
import { countOf } from '../wire/count.ts'
import { parseBounded } from '../wire/members.ts'
import { promptTokensOf } from '../wire/prompt-tokens.ts'
import { contentText, type StreamedCall, StreamedCalls, wholeCalls } from './chat-answer.ts'
import type { Asked, Dialect, Json, StreamTranslator } from './dialect.ts'

export const responses: Dialect = {
  question,
  answer,
  stream: asked => new ResponseEvents(asked),
  error: error => openAiEnvelope(error),
  heartbeat: ':\n\n',
  streamType: 'text/event-stream',
}

// The question

/** Each of the events that repeat a text holds it once more. */
const KEPT_MAX = 8 * 1024 * 1024

const NOTHING_STORED =
  'this gateway stores no responses for bridged models: send the whole conversation in `input`, as clients do that are told `store: false`'
/** Members that refer to what OpenAI would have stored. */
const REFERENCES = ['previous_response_id', 'conversation', 'prompt'] as const
/** Members that chat has under the same name. */
const PASSED = {
  temperature: 'number',
  top_p: 'number',
  frequency_penalty: 'number',
  presence_penalty: 'number',
  seed: 'number',
  stream: 'boolean',
  user: 'string',
} as const
/** Up to 32 bits, as the engines count (proxy-02 §1). */
const TOKENS_MAX = 4_294_967_295

function question(body: Json): Json {
  for (const member of REFERENCES) {
    if (isGiven(body[member])) throw invalidRequest(`\`${member}\` is not supported: ${NOTHING_STORED}`, { param: member })
  }
  if (optional(body, 'background', 'boolean')) {
    throw invalidRequest('`background` is not supported: this gateway stores no responses for bridged models', {
      param: 'background',
    })
  }
  const chat: Json = { model: body.model, messages: messagesOf(body) }
  for (const [member, type] of Object.entries(PASSED)) setGiven(chat, member, optional(body, member, type))
  setGiven(chat, 'max_tokens', tokenCount(body, 'max_output_tokens') ?? tokenCount(body, 'max_tokens'))
  const { mode: toolChoice, allowed } = toolChoiceOf(body.tool_choice)
  const tools = toolsOf(body.tools).filter(({ function: { name } }) => allowed?.has(name) ?? true)
  const isParallel = optional(body, 'parallel_tool_calls', 'boolean')
  // Chat refuses what is said about tools where there are none, and here all of them may have been dropped.
  if (tools.length > 0) {
    chat.tools = tools
    setGiven(chat, 'tool_choice', toolChoice)
    setGiven(chat, 'parallel_tool_calls', isParallel)
  }
  const text = optionalObject(body, 'text')
  setGiven(chat, 'response_format', text && responseFormatOf(optionalObject(text, 'format', 'text.')))
  const reasoning = optionalObject(body, 'reasoning')
  setGiven(chat, 'reasoning_effort', reasoning && optional(reasoning, 'effort', 'string', 'reasoning.'))
  return chat
}

type ToolCall = { id: string; type: 'function'; function: { name: string; arguments: string } }
type Part = { type: 'text'; text: string } | { type: 'image_url'; image_url: { url: string; detail?: string } }
type Content = string | Part[]
type Message =
  | { role: 'system' | 'user'; content: Content }
  | { role: 'assistant'; content: Content | null; reasoning_content?: string; tool_calls?: ToolCall[] }
  | { role: 'tool'; tool_call_id: string; content: Content }

function messagesOf(body: Json): Message[] {
  const messages: Message[] = []
  const instructions = optional(body, 'instructions', 'string')
  if (instructions) messages.push({ role: 'system', content: instructions })
  const { input } = body
  if (!isGiven(input)) throw invalidRequest('`input` field missing', { param: 'input' })
  if (typeof input === 'string') messages.push({ role: 'user', content: input })
  else if (Array.isArray(input)) addItems(messages, input)
  else throw wrong('input', 'must be a string or an array')
  if (messages.length === 0) throw wrong('input', 'must not be empty')
  return messages
}

/**
 * Calls of tools that OpenAI defines and clients run, with the member that says what of: nobody is offered them here, but what came of
 * them belongs to the conversation. They are told as calls of functions that have the names of the tools.
 */
const CLIENT_RUN: Readonly<Record<string, { name: string; member: string }>> = {
  local_shell_call: { name: 'local_shell', member: 'action' },
  shell_call: { name: 'shell', member: 'action' },
  apply_patch_call: { name: 'apply_patch', member: 'operation' },
}
const OUTPUTS = new Set<unknown>([
  'function_call_output',
  'custom_tool_call_output',
  ...Object.keys(CLIENT_RUN).map(type => `${type}_output`),
])

/**
 * Items of types that are not named here are dropped: they tell of tools that run at OpenAI, or are of clients newer than this. Those
 * without which the model would answer another question are refused.
 */
function addItems(messages: Message[], items: readonly unknown[]): void {
  const callIds = new Map<string, string>()
  /** What was thought since the last turn of another role: it goes back with the calls that it led to. */
  let thought: string[] = []
  for (const [position, item] of items.entries()) {
    const path = `input[${position}]`
    if (typeof item === 'string') {
      if (item !== '') messages.push({ role: 'user', content: item })
      thought = []
      continue
    }
    if (!isObject(item)) throw wrong(path, 'must be a string or an object')
    const type = item.type ?? 'message'
    if (typeof type !== 'string') throw wrong(`${path}.type`, 'must be a string')
    if (type === 'message') {
      addMessage(messages, item, path)
      if (item.role !== 'assistant') thought = []
    } else if (type === 'function_call' || type === 'custom_tool_call' || Object.hasOwn(CLIENT_RUN, type)) {
      const call = toolCallOf(type, item, path)
      callIds.set(call.id, call.id)
      // Outputs of `local_shell_call` name the item and not the call.
      if (type === 'local_shell_call' && typeof item.id === 'string') callIds.set(item.id, call.id)
      addToolCall(messages, call, thought)
      thought = []
    } else if (OUTPUTS.has(type)) {
      messages.push(toolMessageOf(item, path, callIds))
      thought = []
    } else if (type === 'reasoning') thought.push(reasoningOf(item))
    else if (type === 'item_reference') throw wrong(path, `refers to a stored item: ${NOTHING_STORED}`)
    else if (type === 'compaction') {
      throw wrong(path, 'is a conversation that only OpenAI can read: for bridged models send the conversation itself')
    } else if (isGiven(item.role)) throw wrong(`${path}.type`, 'must be "message" of an item that has a role')
  }
}

const KEPT_ITEMS = new Set<unknown>([
  'message',
  'function_call',
  'custom_tool_call',
  'reasoning',
  ...Object.keys(CLIENT_RUN),
  ...OUTPUTS,
])

/**
 * What of a body no model server is told that speaks chat: items and tools of OpenAI's own. in: a body that `question` takes.
 * out: each as its place, and what it is: `tools[0] (web_search)`
 */
export function droppedItems({ input, tools }: Json): string[] {
  const typesOf = (name: string, list: unknown, kept: ReadonlySet<unknown>) =>
    (Array.isArray(list) ? list : []).flatMap((each: unknown, at) =>
      isObject(each) && isGiven(each.type) && !kept.has(each.type) ? [`${name}[${at}] (${String(each.type)})`] : [],
    )
  return [...typesOf('input', input, KEPT_ITEMS), ...typesOf('tools', tools, new Set(['function', 'custom']))]
}

/** What an item of reasoning tells in words; most of OpenAI's own tell nothing. */
function reasoningOf({ content, summary }: Json): string {
  const textsOf = (parts: unknown) => (Array.isArray(parts) ? parts.filter(isObject).map(({ text }) => textOf(text)) : [])
  return textsOf(content).join('') || textsOf(summary).join('\n\n')
}

const ROLES: Readonly<Record<string, 'system' | 'user' | 'assistant'>> = {
  user: 'user',
  assistant: 'assistant',
  system: 'system',
  developer: 'system',
}

function addMessage(messages: Message[], item: Json, path: string): void {
  const given = required(item, 'role', path)
  const role = Object.hasOwn(ROLES, given) ? ROLES[given] : undefined
  if (!role) throw wrong(`${path}.role`, 'must be user, assistant, system or developer')
  const content = contentOf(item.content, `${path}.content`, role)
  if (content.length === 0) return
  const turn = messages.at(-1)
  if (role !== 'assistant') {
    // Many chat templates take one system message, at the beginning.
    if (role === 'system' && turn?.role === 'system' && messages.length === 1)
      turn.content = joined(turn.content, content, '\n\n')
    else messages.push({ role, content })
    return
  }
  // Text after a call is of the same turn: between a call and its output chat allows no further message.
  if (turn?.role === 'assistant' && turn.tool_calls) turn.content = turn.content ? joined(turn.content, content, '') : content
  else messages.push({ role, content })
}

function joined(one: Content, other: Content, between: string): Content {
  if (typeof one === 'string' && typeof other === 'string') return one + between + other
  return [...partsOf(one), ...partsOf(other)]
}

function partsOf(content: Content): Part[] {
  return typeof content === 'string' ? [{ type: 'text', text: content }] : content
}

/** out: a text where there is nothing but text, because some servers take no arrays; parts without any text are left out */
function contentOf(content: unknown, path: string, role: 'system' | 'user' | 'assistant'): Content {
  if (typeof content === 'string') return content
  if (!isGiven(content)) throw invalidRequest(`\`${path}\` field missing`, { param: path })
  if (!Array.isArray(content)) throw wrong(path, 'must be a string or an array')
  const parts: Part[] = []
  const texts: string[] = []
  for (const [position, value] of content.entries()) {
    const part = partOf(value, `${path}[${position}]`)
    if (part.type === 'text') {
      if (part.text === '') continue
      texts.push(part.text)
    }
    parts.push(part)
  }
  if (texts.length < parts.length) return parts
  // Parts of an answer continue each other, as in the SDKs' `output_text`; those of a question are paragraphs.
  return texts.join(role === 'assistant' ? '' : '\n')
}

function partOf(part: unknown, path: string): Part {
  if (!isObject(part)) throw wrong(path, 'must be an object')
  switch (part.type) {
    case 'input_text':
    case 'output_text':
    case 'text':
      return { type: 'text', text: required(part, 'text', path) }
    case 'refusal':
      return { type: 'text', text: required(part, 'refusal', path) }
    case 'input_image': {
      if (!isGiven(part.image_url) && isGiven(part.file_id)) {
        throw wrong(`${path}.file_id`, 'is not supported for bridged models: send the image as `image_url`')
      }
      const url = mediaUrl(part, 'image_url', path)
      const detail = optional(part, 'detail', 'string', `${path}.`)
      return { type: 'image_url', image_url: { url, ...(detail === undefined ? {} : { detail }) } }
    }
    case 'input_file': {
      if (isGiven(part.file_data)) return filePart(part, path)
      if (isGiven(part.file_url)) return { type: 'image_url', image_url: { url: mediaUrl(part, 'file_url', path) } }
      throw wrong(path, 'is an `input_file` without `file_data` or `file_url`, which is not supported for bridged models')
    }
    default:
      throw wrong(`${path}.type`, 'must be input_text, output_text, refusal, input_image or input_file')
  }
}

/** throws: invalid_request where a `data:` URL holds no base64: servers say of that something else each, or crash */
function mediaUrl(part: Json, member: string, path: string): string {
  const url = required(part, member, path)
  if (isDataUrl(url) && !readDataUrl(url)) throw wrong(`${path}.${member}`, NO_DATA_URL)
  return url
}

const NO_DATA_URL = 'must be a URL, or a data: URL with a media type and base64'

/** Texts are told as such; what else there is goes as images do, as far as the server knows documents. */
function filePart(part: Json, path: string): Part {
  const url = required(part, 'file_data', path)
  const file = readDataUrl(url)
  if (!file) throw wrong(`${path}.file_data`, 'must be a data: URL with a media type and base64')
  if (!file.mediaType.startsWith('text/')) return { type: 'image_url', image_url: { url } }
  return { type: 'text', text: Buffer.from(file.data, 'base64').toString('utf8') }
}

function toolCallOf(type: string, item: Json, path: string): ToolCall {
  const id = required(item, 'call_id', path)
  const of = (name: string, args: string): ToolCall => ({ id, type: 'function', function: { name, arguments: args } })
  const run = Object.hasOwn(CLIENT_RUN, type) ? CLIENT_RUN[type] : undefined
  if (run) return of(run.name, JSON.stringify(optionalObject(item, run.member, `${path}.`) ?? {}))
  const name = required(item, 'name', path)
  if (type === 'function_call') return of(name, required(item, 'arguments', path))
  return of(name, JSON.stringify({ [CUSTOM_INPUT]: required(item, 'input', path) }))
}

function addToolCall(messages: Message[], call: ToolCall, thought: readonly string[]): void {
  let turn = messages.at(-1)
  if (turn?.role !== 'assistant') {
    turn = { role: 'assistant', content: null }
    messages.push(turn)
  }
  // Servers with interleaved thinking want it back; others take no notice of the member.
  const reasoning = [turn.reasoning_content ?? '', ...thought].filter(text => text !== '').join('\n')
  if (reasoning !== '') turn.reasoning_content = reasoning
  if (turn.tool_calls) turn.tool_calls.push(call)
  else turn.tool_calls = [call]
}

function toolMessageOf(item: Json, path: string, callIds: ReadonlyMap<string, string>): Message {
  const named = typeof item.call_id !== 'string' && typeof item.id === 'string' ? 'id' : 'call_id'
  const told = required(item, named, path)
  const callId = callIds.get(told)
  if (callId === undefined) {
    throw wrong(`${path}.${named}`, `is "${told}", and no call before it has that \`call_id\`: ${NOTHING_STORED}`)
  }
  return { role: 'tool', tool_call_id: callId, content: outputOf(item, path) }
}

/** Text, or parts where there are images. What tools of OpenAI's own definition give is told as it is, in JSON. */
function outputOf({ type, output }: Json, path: string): Content {
  if (type === 'function_call_output' || type === 'custom_tool_call_output') {
    const content = contentOf(output, `${path}.output`, 'user')
    return content.length === 0 ? '' : content
  }
  return typeof output === 'string' ? output : JSON.stringify(output ?? '')
}

type FunctionTool = { type: 'function'; function: Json & { name: string } }

/** The only parameter of a custom tool, whose input is any text. */
const CUSTOM_INPUT = 'input'

/** Function tools, and those of the caller's own whose input is text; the others run at OpenAI. */
function toolsOf(tools: unknown): FunctionTool[] {
  if (!isGiven(tools)) return []
  if (!Array.isArray(tools)) throw wrong('tools', 'must be an array')
  const functions: FunctionTool[] = []
  for (const [position, tool] of tools.entries()) {
    const path = `tools[${position}]`
    if (!isObject(tool)) throw wrong(path, 'must be an object')
    const type = required(tool, 'type', path)
    if (type === 'custom') functions.push(customTool(tool, path))
    if (type !== 'function') continue
    const definition: FunctionTool['function'] = { name: required(tool, 'name', path) }
    setGiven(definition, 'description', optional(tool, 'description', 'string', `${path}.`))
    setGiven(definition, 'parameters', optionalObject(tool, 'parameters', `${path}.`))
    setGiven(definition, 'strict', optional(tool, 'strict', 'boolean', `${path}.`))
    functions.push({ type: 'function', function: definition })
  }
  return functions
}

/** Nothing here can hold a model to a grammar: it is told which one. source: OpenAI, "Function calling", custom tools */
function customTool(tool: Json, path: string): FunctionTool {
  const description = optional(tool, 'description', 'string', `${path}.`) ?? ''
  const format = optionalObject(tool, 'format', `${path}.`)
  const grammar = format?.type === 'grammar' && typeof format.definition === 'string' ? format.definition : undefined
  const rule = grammar === undefined ? [] : [`\`${CUSTOM_INPUT}\` must match this ${textOf(format?.syntax)} grammar:\n${grammar}`]
  const words = [...(description === '' ? [] : [description]), ...rule].join('\n\n')
  return {
    type: 'function',
    function: {
      name: required(tool, 'name', path),
      ...(words === '' ? {} : { description: words }),
      parameters: {
        type: 'object',
        properties: { [CUSTOM_INPUT]: { type: 'string' } },
        required: [CUSTOM_INPUT],
        additionalProperties: false,
      },
    },
  }
}

/** Names of the caller's custom tools: their calls come back as such. */
function customNames({ tools }: Json): ReadonlySet<unknown> {
  const custom = (Array.isArray(tools) ? tools : []).filter(isObject).filter(({ type }) => type === 'custom')
  return new Set(custom.map(({ name }) => name))
}

/** out: chat's `tool_choice`, if it has one for it; `allowed` where only some of the tools are to be offered */
function toolChoiceOf(choice: unknown): { mode: unknown; allowed?: ReadonlySet<unknown> } {
  if (!isGiven(choice) || choice === 'auto' || choice === 'none' || choice === 'required') return { mode: choice }
  if (!isObject(choice)) throw wrong('tool_choice', 'must be auto, none, required or an object')
  const type = required(choice, 'type', 'tool_choice')
  if (type === 'allowed_tools') {
    const mode = required(choice, 'mode', 'tool_choice')
    if (mode !== 'auto' && mode !== 'required') throw wrong('tool_choice.mode', 'must be auto or required')
    if (!Array.isArray(choice.tools)) throw wrong('tool_choice.tools', 'must be an array')
    return { mode, allowed: new Set(choice.tools.filter(isObject).map(({ name }) => name)) }
  }
  if (type !== 'function' && type !== 'custom') return { mode: undefined }
  return { mode: { type: 'function', function: { name: required(choice, 'name', 'tool_choice') } } }
}

function responseFormatOf(format: Json | undefined): Json | undefined {
  if (!format) return undefined
  const type = required(format, 'type', 'text.format')
  if (type === 'text') return undefined
  if (type === 'json_object') return { type }
  if (type !== 'json_schema') throw wrong('text.format.type', 'must be text, json_object or json_schema')
  const schema = optionalObject(format, 'schema', 'text.format.')
  if (!schema) throw invalidRequest('`text.format.schema` field missing', { param: 'text.format.schema' })
  const wanted: Json = { name: required(format, 'name', 'text.format') }
  setGiven(wanted, 'description', optional(format, 'description', 'string', 'text.format.'))
  wanted.schema = schema
  setGiven(wanted, 'strict', optional(format, 'strict', 'boolean', 'text.format.'))
  return { type, json_schema: wanted }
}

// Reading members

type Named = { string: string; number: number; boolean: boolean }

/** An optional member may be null as well: SDKs send that for "not set". */
function optional<T extends keyof Named>(holder: Json, member: string, type: T, prefix = ''): Named[T] | undefined {
  const value = holder[member]
  if (!isGiven(value)) return undefined
  if (!isOf(value, type)) throw wrong(prefix + member, type === 'boolean' ? 'must be true or false' : `must be a ${type}`)
  return value
}

function isOf<T extends keyof Named>(value: unknown, type: T): value is Named[T] {
  return typeof value === type
}

function optionalObject(holder: Json, member: string, prefix = ''): Json | undefined {
  const value = holder[member]
  if (!isGiven(value)) return undefined
  if (!isObject(value)) throw wrong(prefix + member, 'must be an object')
  return value
}

function required(holder: Json, member: string, path: string): string {
  const value = holder[member]
  if (typeof value === 'string') return value
  const param = `${path}.${member}`
  if (!isGiven(value)) throw invalidRequest(`\`${param}\` field missing`, { param })
  throw wrong(param, 'must be a string')
}

function tokenCount(body: Json, member: string): number | undefined {
  const count = optional(body, member, 'number')
  if (count === undefined) return undefined
  if (!Number.isInteger(count)) throw wrong(member, 'must be an integer')
  if (count < 0) throw wrong(member, 'must not be negative')
  if (count > TOKENS_MAX) throw wrong(member, 'is too large')
  return count
}

function wrong(param: string, problem: string): GatewayError {
  return invalidRequest(`\`${param}\` ${problem}`, { param })
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null
}

function setGiven(holder: Json, member: string, value: unknown): void {
  if (isGiven(value)) holder[member] = value
}

// The answer

function answer(chat: Json, asked: Asked): Json {
  const choice = firstChoice(chat)
  const message = isObject(choice?.message) ? choice.message : {}
  const output: Json[] = []
  const reasoning = textOf(message.reasoning_content) || textOf(message.reasoning)
  if (reasoning) output.push(reasoningItem(newId('rs'), reasoning, wantsSummary(asked)))
  const content: Json[] = []
  const text = contentText(message.content)
  if (text) content.push(textPart(text))
  const refusal = textOf(message.refusal)
  if (refusal) content.push(refusalPart(refusal))
  if (content.length > 0) output.push(messageItem(newId('msg'), 'completed', content))
  const callIds = new Set<string>()
  const custom = customNames(asked.body)
  for (const { id, name, args } of wholeCalls(message)) {
    const callId = unusedId(id, callIds)
    output.push(
      custom.has(name)
        ? customItem(newId('ctc'), 'completed', callId, name, inputOf(args))
        : callItem(newId('fc'), 'completed', callId, name, args || NO_ARGUMENTS),
    )
  }
  return responseOf(asked, newId('resp'), endingOf(choice?.finish_reason), output, usageOf(chat.usage))
}

function firstChoice(chat: Json): Json | undefined {
  if (!Array.isArray(chat.choices)) return undefined
  for (const choice of chat.choices) {
    if (isObject(choice) && (choice.index === undefined || choice.index === 0)) return choice
  }
  return undefined
}

type Ending = { status: 'in_progress' | 'completed' | 'incomplete'; reason?: string }

function endingOf(finishReason: unknown): Ending {
  if (finishReason === 'length') return { status: 'incomplete', reason: 'max_output_tokens' }
  if (finishReason === 'content_filter') return { status: 'incomplete', reason: 'content_filter' }
  return { status: 'completed' }
}

/** The Response object: what the caller asked for is told again, as OpenAI does. */
function responseOf({ alias, body, nowMs }: Asked, id: string, ending: Ending, output: Json[], usage: Json | null): Json {
  return {
    id,
    object: 'response',
    created_at: Math.floor(nowMs / 1000),
    status: ending.status,
    error: null,
    incomplete_details: ending.reason === undefined ? null : { reason: ending.reason },
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    model: alias,
    output,
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    previous_response_id: null,
    reasoning: {
      effort: isObject(body.reasoning) ? (body.reasoning.effort ?? null) : null,
      summary: isObject(body.reasoning) ? (body.reasoning.summary ?? null) : null,
    },
    store: false,
    temperature: body.temperature ?? null,
    text: { format: isObject(body.text) ? (body.text.format ?? { type: 'text' }) : { type: 'text' } },
    tool_choice: body.tool_choice ?? 'auto',
    tools: body.tools ?? [],
    top_p: body.top_p ?? null,
    truncation: 'disabled',
    usage,
    user: body.user ?? null,
    metadata: body.metadata ?? {},
  }
}

/** source: chat's `usage` in the OpenAI API reference; the details are missing at most servers, and 0 then */
function usageOf(usage: unknown): Json | null {
  if (!isObject(usage)) return null
  const input = promptTokensOf(usage)
  const output = countOf(usage.completion_tokens)
  const { completion_tokens_details: outputDetails } = usage
  return {
    input_tokens: input.all,
    input_tokens_details: { cached_tokens: input.cached },
    output_tokens: output,
    output_tokens_details: { reasoning_tokens: isObject(outputDetails) ? countOf(outputDetails.reasoning_tokens) : 0 },
    total_tokens: typeof usage.total_tokens === 'number' ? usage.total_tokens : input.all + output,
  }
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** As OpenAI writes it: clients parse the arguments of every call. */
const NO_ARGUMENTS = '{}'

function newId(prefix: string): string {
  return `${prefix}_${crypto.randomUUID().replaceAll('-', '')}`
}

/** Some servers send no id, or the same for several calls: an output could not be told to be of which, and SDKs refuse that. */
function unusedId(given: string, taken: Set<string>): string {
  const id = given === '' || taken.has(given) ? newId('call') : given
  taken.add(id)
  return id
}

type ItemStatus = 'in_progress' | 'completed'

/** Nobody here sums anything up: who asks for a summary gets the reasoning itself, because clients show nothing else. */
function wantsSummary({ body: { reasoning } }: Asked): boolean {
  return isObject(reasoning) && (isGiven(reasoning.summary) || isGiven(reasoning.generate_summary))
}

function reasoningItem(id: string, text: string, hasSummary: boolean): Json {
  return { id, type: 'reasoning', summary: hasSummary ? [summaryPart(text)] : [], content: [{ type: 'reasoning_text', text }] }
}

function summaryPart(text: string): Json {
  return { type: 'summary_text', text }
}

function messageItem(id: string, status: ItemStatus, content: Json[]): Json {
  return { id, type: 'message', status, role: 'assistant', content }
}

function callItem(id: string, status: ItemStatus, callId: string, name: string, args: string): Json {
  return { id, type: 'function_call', status, call_id: callId, name, arguments: args }
}

function customItem(id: string, status: ItemStatus, callId: string, name: string, input: string): Json {
  return { id, type: 'custom_tool_call', status, call_id: callId, name, input }
}

/** The text that a custom tool is called with. A model may write it without the object around it. */
function inputOf(args: string): string {
  try {
    const value = parseBounded(args)
    const input = isObject(value) ? value[CUSTOM_INPUT] : value
    return typeof input === 'string' ? input : args
  } catch {
    return args
  }
}

function textPart(text: string): Json {
  return { type: 'output_text', text, annotations: [], logprobs: [] }
}

function refusalPart(refusal: string): Json {
  return { type: 'refusal', refusal }
}

// The stream

/** The text of one part or the arguments of one call, as it comes. `head` is its delta event up to the text, made once. */
type Growing = { readonly head: string; readonly pieces: string[] }
type ItemPlace = { readonly id: string; readonly outputIndex: number }
type OpenReasoning = ItemPlace & Growing & { readonly kind: 'reasoning'; readonly summary: Growing | undefined }
type OpenMessage = ItemPlace & { readonly kind: 'message'; readonly content: Json[]; part: OpenPart | undefined }
type OpenPart = Growing & { readonly kind: 'text' | 'refusal' }
/** Of a custom tool the input is known when the arguments are whole: until then they are kept, and nothing is sent. */
type OpenCall = ItemPlace & Growing & { readonly callId: string; readonly name: string; readonly isCustom: boolean }
/** A call of the chat stream: its arguments until its item opens, and the item from then on. */
type Call = { early: string; item: OpenCall | undefined }

class ResponseEvents implements StreamTranslator {
  readonly #id = newId('resp')
  #sequence = 0
  #isStarted = false
  #isOver = false
  #finishReason = ''
  #usage: Json | null = null
  /** Items that are done, at their `output_index`. */
  readonly #output: Json[] = []
  #outputCount = 0
  /** Reasoning and message are one at a time; calls may be open beside them. */
  #current: OpenReasoning | OpenMessage | undefined
  readonly #calls = new StreamedCalls()
  readonly #items = new Map<StreamedCall, Call>()
  readonly #callIds = new Set<string>()
  #customNames: ReadonlySet<unknown> | undefined

  constructor(readonly asked: Asked) {}

  chunk(chunk: Json): string {
    if (this.#isOver) return ''
    let events = this.#start()
    if (isObject(chunk.usage)) this.#usage = usageOf(chunk.usage)
    const choice = firstChoice(chunk)
    if (choice) {
      if (isObject(choice.delta)) events += this.#delta(choice.delta)
      this.#finishReason = textOf(choice.finish_reason) || this.#finishReason
    } else if (this.#usage && this.#finishReason) events += this.#complete()
    return events
  }

  end(): string {
    return this.#isOver ? '' : this.#start() + this.#complete()
  }

  error(error: GatewayError, last?: string): string {
    if (this.#isOver) return ''
    this.#isOver = true
    if (last !== undefined) this.#sequence = sequenceOf(last) + 1
    return this.#event('error', { code: error.type, message: error.message, param: null })
  }

  #delta(delta: Json): string {
    let events = ''
    const reasoning = textOf(delta.reasoning_content) || textOf(delta.reasoning)
    if (reasoning) events += this.#reasoning(reasoning)
    const text = contentText(delta.content)
    if (text) events += this.#text('text', text)
    const refusal = textOf(delta.refusal)
    if (refusal) events += this.#text('refusal', refusal)
    for (const { call, args } of this.#calls.read(delta)) events += this.#call(call, args)
    return events
  }

  #reasoning(text: string): string {
    let events = ''
    let item = this.#current
    if (item?.kind !== 'reasoning') {
      events = this.#closeCurrent()
      const place = this.#place('rs')
      const summary = { ...at(place), summary_index: 0 }
      item = {
        kind: 'reasoning',
        ...place,
        ...growing('response.reasoning_text.delta', { ...at(place), content_index: 0 }),
        summary: wantsSummary(this.asked) ? growing('response.reasoning_summary_text.delta', summary) : undefined,
      }
      this.#current = item
      // The part is there from the start: OpenAI's SDKs refuse a delta to a part that they have not seen.
      events += this.#event('response.output_item.added', {
        output_index: place.outputIndex,
        item: { ...reasoningItem(place.id, '', false), status: 'in_progress' },
      })
      if (item.summary) events += this.#event('response.reasoning_summary_part.added', { ...summary, part: summaryPart('') })
    }
    events += this.#grow(item, text)
    return item.summary ? events + this.#grow(item.summary, text) : events
  }

  #text(kind: 'text' | 'refusal', text: string): string {
    let events = ''
    let item = this.#current
    if (item?.kind !== 'message') {
      events = this.#closeCurrent()
      const place = this.#place('msg')
      item = { kind: 'message', ...place, content: [], part: undefined }
      this.#current = item
      events += this.#event('response.output_item.added', {
        output_index: place.outputIndex,
        item: messageItem(place.id, 'in_progress', []),
      })
    }
    let { part } = item
    if (part?.kind !== kind) {
      events += this.#closePart(item)
      const where = { ...at(item), content_index: item.content.length }
      part = {
        kind,
        ...(kind === 'text'
          ? growing('response.output_text.delta', { ...where, logprobs: [] })
          : growing('response.refusal.delta', where)),
      }
      item.part = part
      const empty = kind === 'text' ? textPart('') : refusalPart('')
      events += this.#event('response.content_part.added', { ...where, part: empty })
    }
    return events + this.#grow(part, text)
  }

  #call(told: StreamedCall, args: string): string {
    let call = this.#items.get(told)
    if (!call) {
      call = { early: '', item: undefined }
      this.#items.set(told, call)
    }
    if (call.item) return args ? this.#growCall(call.item, args) : ''
    call.early += args
    return told.id && told.name ? this.#openCall(told, call) : ''
  }

  #openCall({ id, name }: StreamedCall, call: Call): string {
    let events = this.#closeCurrent()
    this.#customNames ??= customNames(this.asked.body)
    const isCustom = this.#customNames.has(name)
    const place = this.#place(isCustom ? 'ctc' : 'fc')
    const type = isCustom ? 'response.custom_tool_call_input.delta' : 'response.function_call_arguments.delta'
    const item: OpenCall = { ...place, ...growing(type, at(place)), callId: unusedId(id, this.#callIds), name, isCustom }
    call.item = item
    const begun = isCustom ? customItem : callItem
    events += this.#event('response.output_item.added', {
      output_index: place.outputIndex,
      item: begun(item.id, 'in_progress', item.callId, item.name, ''),
    })
    return call.early ? events + this.#growCall(item, call.early) : events
  }

  #growCall(item: OpenCall, args: string): string {
    if (!item.isCustom) return this.#grow(item, args)
    this.#keep(item, args)
    return ''
  }

  #closeCurrent(): string {
    const item = this.#current
    if (!item) return ''
    this.#current = undefined
    if (item.kind === 'message') return this.#closePart(item) + this.#done(item, messageItem(item.id, 'completed', item.content))
    const text = item.pieces.join('')
    let events = this.#event('response.reasoning_text.done', { ...at(item), content_index: 0, text })
    if (item.summary) {
      const where = { ...at(item), summary_index: 0 }
      events += this.#event('response.reasoning_summary_text.done', { ...where, text })
      events += this.#event('response.reasoning_summary_part.done', { ...where, part: summaryPart(text) })
    }
    return events + this.#done(item, reasoningItem(item.id, text, item.summary !== undefined))
  }

  #closePart(item: OpenMessage): string {
    const { part } = item
    if (!part) return ''
    item.part = undefined
    const text = part.pieces.join('')
    const where = { ...at(item), content_index: item.content.length }
    const whole = part.kind === 'text' ? textPart(text) : refusalPart(text)
    item.content.push(whole)
    const events =
      part.kind === 'text'
        ? this.#event('response.output_text.done', { ...where, text, logprobs: [] })
        : this.#event('response.refusal.done', { ...where, refusal: text })
    return events + this.#event('response.content_part.done', { ...where, part: whole })
  }

  #closeCalls(): string {
    let events = ''
    // Some servers never send an id. Without a name there is nothing that the caller could run.
    for (const [told, call] of this.#items) if (!call.item && told.name) events += this.#openCall(told, call)
    for (const { item } of this.#items.values()) {
      if (!item) continue
      events += item.isCustom ? this.#closeCustom(item) : this.#closeFunction(item)
    }
    return events
  }

  #closeFunction(item: OpenCall): string {
    let events = item.pieces.length === 0 ? this.#grow(item, NO_ARGUMENTS) : ''
    const args = item.pieces.join('')
    events += this.#event('response.function_call_arguments.done', { ...at(item), name: item.name, arguments: args })
    return events + this.#done(item, callItem(item.id, 'completed', item.callId, item.name, args))
  }

  #closeCustom(item: OpenCall): string {
    const input = inputOf(item.pieces.join(''))
    let events = input === '' ? '' : this.#grown(item, input)
    events += this.#event('response.custom_tool_call_input.done', { ...at(item), input })
    return events + this.#done(item, customItem(item.id, 'completed', item.callId, item.name, input))
  }

  #done({ outputIndex }: ItemPlace, item: Json): string {
    this.#output[outputIndex] = item
    return this.#event('response.output_item.done', { output_index: outputIndex, item })
  }

  #start(): string {
    if (this.#isStarted) return ''
    this.#isStarted = true
    const response = responseOf(this.asked, this.#id, { status: 'in_progress' }, [], null)
    return this.#event('response.created', { response }) + this.#event('response.in_progress', { response })
  }

  /** UTF-16 units that are kept, because the events that end a stream repeat all that was said. */
  #kept = 0

  #complete(): string {
    const events = this.#closeCurrent() + this.#closeCalls()
    this.#isOver = true
    const ending = endingOf(this.#finishReason)
    const response = responseOf(this.asked, this.#id, ending, this.#output, this.#usage)
    return events + this.#event(`response.${ending.status}`, { response })
  }

  #place(prefix: string): ItemPlace {
    return { id: newId(prefix), outputIndex: this.#outputCount++ }
  }

  #grow(growing: Growing, text: string): string {
    this.#keep(growing, text)
    return this.#grown(growing, text)
  }

  #keep({ pieces }: Growing, text: string): void {
    pieces.push(text)
    this.#kept += text.length
    if (this.#kept > KEPT_MAX) {
      throw new GatewayError(
        'upstream_decode_error',
        `the answer is longer than the ${KEPT_MAX} characters that its last event can repeat`,
      )
    }
  }

  #grown({ head }: Growing, text: string): string {
    return `${head}${JSON.stringify(text)},"sequence_number":${this.#sequence++}}\n\n`
  }

  #event(type: string, members: Json): string {
    return `event: ${type}\ndata: ${JSON.stringify({ type, ...members, sequence_number: this.#sequence++ })}\n\n`
  }
}

/** in: `data` of an event of a stream that a server made itself. out: -1 where it tells no number */
function sequenceOf(data: string): number {
  let event: unknown
  try {
    event = JSON.parse(data)
  } catch {
    // Such a stream is relayed all the same.
  }
  return isObject(event) && Number.isSafeInteger(event.sequence_number) ? Number(event.sequence_number) : -1
}

function at({ id, outputIndex }: ItemPlace): Json {
  return { item_id: id, output_index: outputIndex }
}

function growing(type: string, where: Json): Growing {
  return { head: `event: ${type}\ndata: ${JSON.stringify({ type, ...where }).slice(0, -1)},"delta":`, pieces: [] }
}
