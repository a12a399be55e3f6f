/**
 * OpenAI's Responses API over chat completions (proxy-04 §5), for models whose server does not speak it.
 * Nothing is stored: what refers to an earlier response is refused, because without it the model would answer another question.
 * source: OpenAI API reference, "Create a model response" and "Streaming events" of the Responses API
 */

import { GatewayError, invalidRequest, openAiEnvelope } from '../errors.ts'
import { countOf } from '../wire/count.ts'
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
  const tools = toolsOf(body.tools)
  const toolChoice = toolChoiceOf(body.tool_choice)
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
  | { role: 'assistant'; content: Content | null; tool_calls?: ToolCall[] }
  | { role: 'tool'; tool_call_id: string; content: string }

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

/** Items that tell of a tool which is not offered here, and reasoning, which chat does not take back. */
const DROPPED_ITEMS = new Set<unknown>([
  'reasoning',
  'web_search_call',
  'file_search_call',
  'code_interpreter_call',
  'image_generation_call',
  'computer_call',
  'computer_call_output',
  'mcp_list_tools',
  'mcp_call',
  'mcp_approval_request',
  'mcp_approval_response',
  'custom_tool_call',
  'custom_tool_call_output',
])

function addItems(messages: Message[], items: readonly unknown[]): void {
  const callIds = new Set<string>()
  for (const [position, item] of items.entries()) {
    const path = `input[${position}]`
    if (typeof item === 'string') {
      if (item !== '') messages.push({ role: 'user', content: item })
      continue
    }
    if (!isObject(item)) throw wrong(path, 'must be a string or an object')
    const type = item.type ?? 'message'
    if (type === 'message') addMessage(messages, item, path)
    else if (type === 'function_call') {
      const call = toolCallOf(item, path)
      callIds.add(call.id)
      addToolCall(messages, call)
    } else if (type === 'function_call_output') messages.push(toolMessageOf(item, path, callIds))
    else if (type === 'item_reference') throw wrong(path, `refers to a stored item: ${NOTHING_STORED}`)
    else if (!DROPPED_ITEMS.has(type)) throw wrong(`${path}.type`, 'is not a type of item that is supported for bridged models')
  }
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
  if (role !== 'assistant') {
    messages.push({ role, content })
    return
  }
  const turn = messages.at(-1)
  // Text after a call is of the same turn: between a call and its output chat allows no further message.
  if (turn?.role === 'assistant' && turn.tool_calls) turn.content = turn.content ? joined(turn.content, content) : content
  else messages.push({ role, content })
}

function joined(one: Content, other: Content): Content {
  if (typeof one === 'string' && typeof other === 'string') return one + other
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
      const url = required(part, 'image_url', path)
      const detail = optional(part, 'detail', 'string', `${path}.`)
      return { type: 'image_url', image_url: { url, ...(detail === undefined ? {} : { detail }) } }
    }
    case 'input_file':
      throw wrong(path, 'is an `input_file`, which is not supported for bridged models: send its text as `input_text`')
    default:
      throw wrong(`${path}.type`, 'must be input_text, output_text, refusal or input_image')
  }
}

function toolCallOf(item: Json, path: string): ToolCall {
  return {
    id: required(item, 'call_id', path),
    type: 'function',
    function: { name: required(item, 'name', path), arguments: required(item, 'arguments', path) },
  }
}

function addToolCall(messages: Message[], call: ToolCall): void {
  const turn = messages.at(-1)
  if (turn?.role !== 'assistant') messages.push({ role: 'assistant', content: null, tool_calls: [call] })
  else if (turn.tool_calls) turn.tool_calls.push(call)
  else turn.tool_calls = [call]
}

function toolMessageOf(item: Json, path: string, callIds: ReadonlySet<string>): Message {
  const callId = required(item, 'call_id', path)
  if (!callIds.has(callId)) {
    throw wrong(`${path}.call_id`, `is "${callId}", and no function_call before it has that \`call_id\`: ${NOTHING_STORED}`)
  }
  const content = contentOf(item.output, `${path}.output`, 'user')
  if (typeof content !== 'string' && content.length > 0) throw wrong(`${path}.output`, 'must be text for bridged models')
  return { role: 'tool', tool_call_id: callId, content: typeof content === 'string' ? content : '' }
}

/** Function tools alone: the others run at OpenAI. */
function toolsOf(tools: unknown): Json[] {
  if (!isGiven(tools)) return []
  if (!Array.isArray(tools)) throw wrong('tools', 'must be an array')
  const functions: Json[] = []
  for (const [position, tool] of tools.entries()) {
    const path = `tools[${position}]`
    if (!isObject(tool)) throw wrong(path, 'must be an object')
    if (required(tool, 'type', path) !== 'function') continue
    const definition: Json = { name: required(tool, 'name', path) }
    setGiven(definition, 'description', optional(tool, 'description', 'string', `${path}.`))
    setGiven(definition, 'parameters', optionalObject(tool, 'parameters', `${path}.`))
    setGiven(definition, 'strict', optional(tool, 'strict', 'boolean', `${path}.`))
    functions.push({ type: 'function', function: definition })
  }
  return functions
}

function toolChoiceOf(choice: unknown): unknown {
  if (!isGiven(choice) || choice === 'auto' || choice === 'none' || choice === 'required') return choice
  if (!isObject(choice)) throw wrong('tool_choice', 'must be auto, none, required or an object')
  if (required(choice, 'type', 'tool_choice') !== 'function') return undefined
  return { type: 'function', function: { name: required(choice, 'name', 'tool_choice') } }
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
  if (reasoning) output.push(reasoningItem(newId('rs'), reasoning))
  const content: Json[] = []
  const text = contentText(message.content)
  if (text) content.push(textPart(text))
  const refusal = textOf(message.refusal)
  if (refusal) content.push(refusalPart(refusal))
  if (content.length > 0) output.push(messageItem(newId('msg'), 'completed', content))
  const callIds = new Set<string>()
  for (const { id, name, args } of wholeCalls(message)) {
    output.push(callItem(newId('fc'), 'completed', unusedId(id, callIds), name, args || NO_ARGUMENTS))
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
    reasoning: { effort: isObject(body.reasoning) ? (body.reasoning.effort ?? null) : null, summary: null },
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

function reasoningItem(id: string, text: string): Json {
  return { id, type: 'reasoning', summary: [], content: [{ type: 'reasoning_text', text }] }
}

function messageItem(id: string, status: ItemStatus, content: Json[]): Json {
  return { id, type: 'message', status, role: 'assistant', content }
}

function callItem(id: string, status: ItemStatus, callId: string, name: string, args: string): Json {
  return { id, type: 'function_call', status, call_id: callId, name, arguments: args }
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
type OpenReasoning = ItemPlace & Growing & { readonly kind: 'reasoning' }
type OpenMessage = ItemPlace & { readonly kind: 'message'; readonly content: Json[]; part: OpenPart | undefined }
type OpenPart = Growing & { readonly kind: 'text' | 'refusal' }
type OpenCall = ItemPlace & Growing & { readonly callId: string; readonly name: string }
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
      item = { kind: 'reasoning', ...place, ...growing('response.reasoning_text.delta', { ...at(place), content_index: 0 }) }
      this.#current = item
      // The part is there from the start: OpenAI's SDKs refuse a delta to a part that they have not seen.
      events += this.#event('response.output_item.added', {
        output_index: place.outputIndex,
        item: { ...reasoningItem(place.id, ''), status: 'in_progress' },
      })
    }
    return events + this.#grow(item, text)
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
    if (call.item) return args ? this.#grow(call.item, args) : ''
    call.early += args
    return told.id && told.name ? this.#openCall(told, call) : ''
  }

  #openCall({ id, name }: StreamedCall, call: Call): string {
    let events = this.#closeCurrent()
    const place = this.#place('fc')
    const item: OpenCall = {
      ...place,
      ...growing('response.function_call_arguments.delta', at(place)),
      callId: unusedId(id, this.#callIds),
      name,
    }
    call.item = item
    events += this.#event('response.output_item.added', {
      output_index: place.outputIndex,
      item: callItem(item.id, 'in_progress', item.callId, item.name, ''),
    })
    return call.early ? events + this.#grow(item, call.early) : events
  }

  #closeCurrent(): string {
    const item = this.#current
    if (!item) return ''
    this.#current = undefined
    if (item.kind === 'message') return this.#closePart(item) + this.#done(item, messageItem(item.id, 'completed', item.content))
    const text = item.pieces.join('')
    const events = this.#event('response.reasoning_text.done', { ...at(item), content_index: 0, text })
    return events + this.#done(item, reasoningItem(item.id, text))
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
      if (item.pieces.length === 0) events += this.#grow(item, NO_ARGUMENTS)
      const args = item.pieces.join('')
      events += this.#event('response.function_call_arguments.done', { ...at(item), name: item.name, arguments: args })
      events += this.#done(item, callItem(item.id, 'completed', item.callId, item.name, args))
    }
    return events
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

  #grow({ head, pieces }: Growing, text: string): string {
    pieces.push(text)
    this.#kept += text.length
    if (this.#kept > KEPT_MAX) {
      throw new GatewayError(
        'upstream_decode_error',
        `the answer is longer than the ${KEPT_MAX} characters that its last event can repeat`,
      )
    }
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
