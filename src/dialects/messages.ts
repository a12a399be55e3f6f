/**
 * Messages as Anthropic's clients speak them, over the chat shape.
 * Source: Anthropic API reference, "Messages", "Streaming messages", "Errors"; contract proxy-04 §4, proxy-01 §9.
 */

import { type GatewayError, invalidRequest } from '../errors.ts'
import { isBase64 } from '../wire/base64.ts'
import { countOf } from '../wire/count.ts'
import { parseBounded } from '../wire/members.ts'
import { promptTokensOf } from '../wire/prompt-tokens.ts'
import { contentText, type StreamedCall, StreamedCalls, wholeCalls } from './chat-answer.ts'
import type { Asked, Dialect, Json, StreamTranslator } from './dialect.ts'
import { ToolNames } from './tool-names.ts'

export const messages: Dialect = {
  question: toChat,
  answer: fromChat,
  stream: asked => new MessageStream(asked),
  error: messagesError,
  heartbeat: frame('ping', '{"type":"ping"}'),
  streamType: 'text/event-stream',
}

/** source: proxy-01 §9 */
const ERROR_TYPES: Readonly<Record<number, string>> = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  408: 'timeout_error',
  413: 'request_too_large',
  422: 'invalid_request_error',
  429: 'rate_limit_error',
  503: 'overloaded_error',
}

/**
 * Anthropic's code for a conversation that its server cannot hold. Its clients look for it under `details`: their tool runner
 * then sends the whole conversation with each turn, and goes on.
 * source: Anthropic API reference, "Errors", `thread_unsupported_request`; npm `@anthropic-ai/sdk`, BetaMessageThread
 */
const THREAD_UNSUPPORTED = 'thread_unsupported_request'

export function messagesError({ status, message, code }: GatewayError): Json {
  const details = code === THREAD_UNSUPPORTED ? { details: { error_code: code } } : {}
  return { type: 'error', error: { type: ERROR_TYPES[status] ?? 'api_error', message, ...details } }
}

function invalid(path: string, why: string): GatewayError {
  return invalidRequest(`invalid Anthropic body: \`${path}\` ${why}`, { param: path })
}

function isRecord(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function toChat(body: Json): Json {
  if (body.thread !== undefined && body.thread !== null) {
    throw invalidRequest(
      '`thread` is not supported: this gateway stores no conversations for models whose server speaks chat; send the whole conversation in `messages`, without `thread`',
      { param: 'thread', code: THREAD_UNSUPPORTED },
    )
  }
  if (!Array.isArray(body.messages)) throw invalid('messages', body.messages === undefined ? 'field missing' : 'must be an array')
  if (body.messages.length === 0) throw invalid('messages', 'must not be empty')
  const names = toolNamesOf(body)
  const chat: Json = { model: body.model, messages: [...systemOf(body.system), ...turnsOf(body.messages, names)] }
  for (const [name, type] of [
    ['max_tokens', 'number'],
    ['temperature', 'number'],
    ['top_p', 'number'],
    ['stream', 'boolean'],
  ] as const) {
    const value = body[name]
    if (value === undefined || value === null) continue
    if (typeof value !== type) throw invalid(name, type === 'number' ? 'must be a number' : 'must be true or false')
    chat[name] = value
  }
  const stops = body.stop_sequences
  if (stops !== undefined && stops !== null) {
    if (!Array.isArray(stops) || stops.some(each => typeof each !== 'string')) {
      throw invalid('stop_sequences', 'must be an array of strings')
    }
    if (stops.length > 0) chat.stop = stops
  }
  const tools = toolsOf(body.tools, names)
  if (tools.length > 0) {
    chat.tools = tools
    const choice = toolChoiceOf(body.tool_choice, names)
    if (isOfDropped(body.tool_choice, body.tools)) delete choice.tool_choice
    Object.assign(chat, choice)
  }
  if (isRecord(body.metadata) && typeof body.metadata.user_id === 'string') chat.user = body.metadata.user_id
  const output = body.output_config ?? {}
  if (!isRecord(output)) throw invalid('output_config', 'must be an object')
  const effort = effortOf(body.thinking, output.effort)
  if (effort !== undefined) chat.reasoning_effort = effort
  // Members of before `output_config` are still sent by clients of that time.
  const format = output.format ?? body.output_format
  if (format !== undefined && format !== null) chat.response_format = responseFormatOf(format)
  return chat
}

/** Every name of a tool that a request has, also of calls of earlier turns. */
function toolNamesOf({ tools, tool_choice: choice, messages: turns }: Json): ToolNames {
  const names = new Set<string>()
  const add = (named: unknown) => {
    if (isRecord(named) && typeof named.name === 'string') names.add(named.name)
  }
  for (const tool of Array.isArray(tools) ? tools : []) add(tool)
  add(choice)
  for (const turn of Array.isArray(turns) ? turns : []) {
    const content = isRecord(turn) && turn.role === 'assistant' ? turn.content : undefined
    for (const block of Array.isArray(content) ? content : []) if (isRecord(block) && block.type === 'tool_use') add(block)
  }
  return new ToolNames(names)
}

function systemOf(system: unknown): Json[] {
  if (system === undefined || system === null) return []
  let text: string
  if (typeof system === 'string') text = system
  else if (Array.isArray(system)) {
    text = system
      .map((block: unknown, at) => {
        if (!isRecord(block) || block.type !== 'text' || typeof block.text !== 'string') {
          throw invalid(`system.${at}`, 'must be a text block')
        }
        return block.text
      })
      .join('\n')
  } else throw invalid('system', 'must be a string or an array of text blocks')
  return text.trim() === '' ? [] : [{ role: 'system', content: text }]
}

function turnsOf(turns: readonly unknown[], names: ToolNames): Json[] {
  const chat: Json[] = []
  /** Ids of the tool calls so far: a result without its call would be refused by some servers and mislead the others. */
  const calls = new Set<string>()
  for (const [at, turn] of turns.entries()) {
    const path = `messages.${at}`
    if (!isRecord(turn)) throw invalid(path, 'must be an object')
    const { role, content } = turn
    if (role !== 'user' && role !== 'assistant' && role !== 'system') {
      throw invalid(`${path}.role`, 'must be "user", "assistant" or "system"')
    }
    if (typeof content === 'string') chat.push({ role, content })
    else if (!Array.isArray(content)) throw invalid(`${path}.content`, 'must be a string or an array of blocks')
    else if (role === 'assistant') chat.push(assistantTurn(content, `${path}.content`, calls, names))
    else chat.push(...userTurn(role, content, `${path}.content`, calls))
  }
  return chat
}

function blocksOf(content: readonly unknown[], path: string): Json[] {
  return content.map((block, at) => {
    if (!isRecord(block) || typeof block.type !== 'string') throw invalid(`${path}.${at}`, 'must be a block with a `type`')
    return block
  })
}

function textOf(block: Json, path: string): string {
  if (typeof block.text !== 'string') throw invalid(`${path}.text`, 'must be a string')
  return block.text
}

function assistantTurn(content: readonly unknown[], path: string, calls: Set<string>, names: ToolNames): Json {
  let text = ''
  let thinking = ''
  const toolCalls: Json[] = []
  for (const [at, block] of blocksOf(content, path).entries()) {
    if (block.type === 'text') text += textOf(block, `${path}.${at}`)
    else if (block.type === 'thinking' && typeof block.thinking === 'string') thinking += block.thinking
    else if (block.type === 'tool_use') {
      const { id, name, input } = block
      if (typeof id !== 'string' || id === '') throw invalid(`${path}.${at}.id`, 'must be a string')
      if (typeof name !== 'string' || name === '') throw invalid(`${path}.${at}.name`, 'must be a string')
      calls.add(id)
      toolCalls.push({
        id,
        type: 'function',
        function: { name: names.sent(name), arguments: JSON.stringify(input ?? {}) },
      })
    }
  }
  const turn: Json = { role: 'assistant', content: text === '' && toolCalls.length > 0 ? null : text }
  // Servers with interleaved thinking want it back; others take no notice of the member.
  if (thinking !== '' && toolCalls.length > 0) turn.reasoning_content = thinking
  if (toolCalls.length > 0) turn.tool_calls = toolCalls
  return turn
}

/** Results of tools come before the rest of their turn: that is where chat has them. */
function userTurn(role: 'user' | 'system', content: readonly unknown[], path: string, calls: ReadonlySet<string>): Json[] {
  const results: Json[] = []
  const parts: Json[] = []
  let hasMedia = false
  for (const [at, block] of blocksOf(content, path).entries()) {
    const place = `${path}.${at}`
    if (block.type === 'text') parts.push({ type: 'text', text: textOf(block, place) })
    else if (block.type === 'image' || block.type === 'document') {
      const media = mediaParts(block, place)
      parts.push(...media)
      hasMedia ||= media.some(({ type }) => type !== 'text')
    } else if (block.type === 'tool_result') {
      const id = block.tool_use_id
      if (typeof id !== 'string') throw invalid(`${place}.tool_use_id`, 'must be a string')
      if (!calls.has(id)) throw invalid(`${place}.tool_use_id`, 'names no `tool_use` block of an earlier turn')
      results.push({ role: 'tool', tool_call_id: id, content: resultContent(block.content, `${place}.content`) })
    }
  }
  if (parts.length === 0) return results.length > 0 ? results : [{ role, content: '' }]
  return [...results, { role, content: hasMedia ? parts : parts.map(({ text }) => String(text)).join('') }]
}

function resultContent(content: unknown, path: string): unknown {
  if (content === undefined || content === null) return ''
  if (typeof content === 'string') return content
  if (!Array.isArray(content)) throw invalid(path, 'must be a string or an array of blocks')
  const parts: Json[] = []
  for (const [at, block] of blocksOf(content, path).entries()) {
    if (block.type === 'text') parts.push({ type: 'text', text: textOf(block, `${path}.${at}`) })
    else if (block.type === 'image' || block.type === 'document') {
      parts.push(...mediaParts(block, `${path}.${at}`))
    }
  }
  if (parts.every(({ type }) => type === 'text')) return parts.map(({ text }) => String(text)).join('')
  return parts
}

/** An image or a document, or nothing where its source is of a kind that chat does not have. */
function mediaParts(block: Json, path: string): Json[] {
  const { source } = block
  if (!isRecord(source)) throw invalid(`${path}.source`, 'must be an object')
  if (source.type === 'url') {
    if (typeof source.url !== 'string') throw invalid(`${path}.source.url`, 'must be a string')
    return [{ type: 'image_url', image_url: { url: source.url } }]
  }
  if (source.type === 'text' && typeof source.data === 'string') return [{ type: 'text', text: source.data }]
  if (source.type === 'content') return contentParts(source.content, `${path}.source.content`)
  if (source.type !== 'base64') return []
  const { data, media_type } = source
  if (typeof media_type !== 'string' || !/^[\w.+-]+\/[\w.+-]+$/.test(media_type)) {
    throw invalid(`${path}.source.media_type`, 'must be a media type such as image/png')
  }
  if (typeof data !== 'string' || !isBase64(data)) throw invalid(`${path}.source.data`, 'must be base64')
  return [{ type: 'image_url', image_url: { url: `data:${media_type};base64,${data}` } }]
}

/** What a document holds whose text is cut into blocks, for citations of them. */
function contentParts(content: unknown, path: string): Json[] {
  if (typeof content === 'string') return [{ type: 'text', text: content }]
  if (!Array.isArray(content)) throw invalid(path, 'must be a string or an array of blocks')
  return blocksOf(content, path).flatMap((block, at) => {
    if (block.type === 'text') return [{ type: 'text', text: textOf(block, `${path}.${at}`) }]
    return block.type === 'image' ? mediaParts(block, `${path}.${at}`) : []
  })
}

const NOT_DROPPED: Readonly<Record<string, readonly unknown[]>> = {
  // Thinking is given back where it leads to calls, and never missed where it does not.
  assistant: ['text', 'thinking', 'redacted_thinking', 'tool_use'],
  user: ['text', 'tool_result'],
  system: ['text', 'tool_result'],
}
const SOURCES: readonly unknown[] = ['url', 'text', 'content', 'base64']

/**
 * What of a body no model server is told that speaks chat: blocks and tools of Anthropic's own. in: a body that `question` takes.
 * out: each as its place, and what it is: `tools.0 (web_search_20250305)`
 */
export function droppedBlocks({ messages: turns, tools }: Json): string[] {
  const dropped: string[] = []
  const look = (content: unknown, path: string, kept: readonly unknown[]): void => {
    for (const [at, block] of (Array.isArray(content) ? content : []).entries()) {
      if (!isRecord(block)) continue
      const place = `${path}.${at}`
      if (block.type === 'tool_result' && kept.includes('tool_result')) look(block.content, `${place}.content`, ['text'])
      if (kept.includes(block.type)) continue
      const source = isRecord(block.source) ? block.source : undefined
      const isMedia = block.type === 'image' || block.type === 'document'
      if (source?.type === 'content' && isMedia) look(source.content, `${place}.source.content`, ['text'])
      if (!isMedia || !SOURCES.includes(source?.type)) dropped.push(`${place} (${String(block.type)})`)
    }
  }
  for (const [at, turn] of (Array.isArray(turns) ? turns : []).entries()) {
    if (isRecord(turn)) look(turn.content, `messages.${at}.content`, NOT_DROPPED[String(turn.role)] ?? [])
  }
  for (const [at, tool] of (Array.isArray(tools) ? tools : []).entries()) {
    if (isRecord(tool) && !isOwnTool(tool)) dropped.push(`tools.${at} (${String(tool.type)})`)
  }
  return dropped
}

/** A tool of the caller's, which has a schema. Those that Anthropic defines have a type of their own: nobody here could run or describe them. */
function isOwnTool({ type }: Json): boolean {
  return type === undefined || type === null || type === 'custom'
}

function toolsOf(tools: unknown, names: ToolNames): Json[] {
  if (tools === undefined || tools === null) return []
  if (!Array.isArray(tools)) throw invalid('tools', 'must be an array')
  const functions: Json[] = []
  for (const [at, tool] of tools.entries()) {
    if (!isRecord(tool)) throw invalid(`tools.${at}`, 'must be an object')
    if (!isOwnTool(tool)) continue
    if (typeof tool.name !== 'string' || tool.name === '') throw invalid(`tools.${at}.name`, 'must be a string')
    functions.push({
      type: 'function',
      function: {
        name: names.sent(tool.name),
        ...(typeof tool.description === 'string' ? { description: tool.description } : {}),
        parameters: isRecord(tool.input_schema) ? tool.input_schema : { type: 'object', properties: {} },
      },
    })
  }
  return functions
}

/** Whether a choice names a tool that nobody is offered. */
function isOfDropped(choice: unknown, tools: unknown): boolean {
  if (!isRecord(choice) || choice.type !== 'tool' || !Array.isArray(tools)) return false
  const named = tools.filter(isRecord).filter(({ name }) => name === choice.name)
  return named.length > 0 && !named.some(isOwnTool)
}

function toolChoiceOf(choice: unknown, names: ToolNames): Json {
  if (choice === undefined || choice === null) return {}
  if (!isRecord(choice)) throw invalid('tool_choice', 'must be an object')
  const parallel = choice.disable_parallel_tool_use === true ? { parallel_tool_calls: false } : {}
  switch (choice.type) {
    case 'auto':
    case 'none':
      return { tool_choice: choice.type, ...parallel }
    case 'any':
      return { tool_choice: 'required', ...parallel }
    case 'tool':
      if (typeof choice.name !== 'string') throw invalid('tool_choice.name', 'must be a string')
      return { tool_choice: { type: 'function', function: { name: names.sent(choice.name) } }, ...parallel }
    default:
      throw invalid('tool_choice.type', 'must be "auto", "any", "tool" or "none"')
  }
}

/** What the caller says of the effort stands over what its budget of thinking lets one guess. Chat has nothing above `high`. */
function effortOf(thinking: unknown, effort: unknown): string | undefined {
  if (effort !== undefined && effort !== null) {
    if (effort === 'xhigh' || effort === 'max') return 'high'
    if (effort === 'low' || effort === 'medium' || effort === 'high') return effort
    throw invalid('output_config.effort', 'must be "low", "medium", "high", "xhigh" or "max"')
  }
  if (!isRecord(thinking)) return undefined
  if (thinking.type === 'adaptive') return 'medium'
  if (thinking.type !== 'enabled') return undefined
  const budget = typeof thinking.budget_tokens === 'number' ? thinking.budget_tokens : 0
  return budget >= 4_096 ? 'high' : budget >= 2_048 ? 'medium' : budget >= 1_024 ? 'low' : 'minimal'
}

/** source: Anthropic API reference, "Structured outputs" */
function responseFormatOf(format: unknown): Json {
  if (!isRecord(format) || format.type !== 'json_schema') throw invalid('output_config.format', 'must be of type "json_schema"')
  if (!isRecord(format.schema)) throw invalid('output_config.format.schema', 'must be a JSON schema')
  return { type: 'json_schema', json_schema: { name: 'output', schema: format.schema, strict: true } }
}

function fromChat(chat: Json, { alias, body, requestId }: Asked): Json {
  const choice = firstOf(chat.choices)
  const message = isRecord(choice?.message) ? choice.message : {}
  const content: Json[] = []
  const thinking = message.reasoning_content ?? message.reasoning
  // Unsigned: Anthropic's own servers would refuse it back, others do not look at it.
  if (typeof thinking === 'string' && thinking !== '') content.push({ type: 'thinking', thinking, signature: '' })
  const { refusal } = message
  const text = contentText(message.content)
  if (text !== '') content.push({ type: 'text', text })
  else if (typeof refusal === 'string' && refusal !== '') content.push({ type: 'text', text: refusal })
  const ids = new CallIds(requestId)
  const calls = wholeCalls(message)
  const names = calls.length === 0 ? undefined : toolNamesOf(body)
  for (const { id, name, args } of calls) {
    content.push({ type: 'tool_use', id: ids.take(id), name: names?.given(name) ?? name, input: inputOf(args) })
  }
  if (content.every(({ type }) => type === 'thinking')) content.push({ type: 'text', text: '' })
  return {
    id: `msg_${hexOf(requestId)}`,
    type: 'message',
    role: 'assistant',
    model: alias,
    content,
    stop_reason: stopReason(
      choice?.finish_reason,
      content.some(({ type }) => type === 'tool_use'),
    ),
    stop_sequence: null,
    usage: usageOf(chat.usage),
  }
}

function firstOf(choices: unknown): Json | undefined {
  const all: unknown[] = Array.isArray(choices) ? choices : []
  return all.filter(isRecord).find(({ index }) => index === undefined || index === 0)
}

/** Arguments as the object that they spell; what is none is kept as text rather than lost. */
function inputOf(args: string): Json {
  if (args.trim() === '') return {}
  try {
    const value = parseBounded(args)
    return isRecord(value) ? value : { value }
  } catch {
    return { raw_arguments: args }
  }
}

/** Servers that were told which tool to call say `stop` of it; clients run tools on `tool_use` alone, and look for one then. */
function stopReason(finish: unknown, hasCalls: boolean): string {
  if (hasCalls && finish !== 'length' && finish !== 'content_filter') return 'tool_use'
  switch (finish) {
    case 'length':
      return 'max_tokens'
    case 'content_filter':
      return 'stop_sequence'
    default:
      return 'end_turn'
  }
}

/** Anthropic counts what its cache had apart from the rest of the prompt. */
function usageOf(usage: unknown): Json {
  const told = isRecord(usage) ? usage : {}
  const { all, cached, cacheCreation } = promptTokensOf(told)
  return {
    input_tokens: Math.max(all - cached - cacheCreation, 0),
    output_tokens: countOf(told.completion_tokens),
    ...(cached > 0 ? { cache_read_input_tokens: cached } : {}),
    ...(cacheCreation > 0 ? { cache_creation_input_tokens: cacheCreation } : {}),
  }
}

/** 32 hexadecimal digits that belong to a request. */
function hexOf(requestId: string): string {
  const hex = requestId.replaceAll('-', '').toLowerCase()
  return /^[0-9a-f]{32}$/.test(hex) ? hex : Bun.SHA256.hash(requestId, 'hex').slice(0, 32)
}

/**
 * Ids of the calls of one answer. Results are told apart by them, so one that is missing or was given to another call is
 * replaced by one of ours.
 */
class CallIds {
  private readonly taken = new Set<string>()

  constructor(private readonly requestId: string) {}

  take(given: string): string {
    let id = given
    for (let count = this.taken.size; id === '' || this.taken.has(id); count += 1) id = `toolu_${hexOf(this.requestId)}${count}`
    this.taken.add(id)
    return id
  }
}

function frame(event: string, json: string): string {
  return `event: ${event}\ndata: ${json}\n\n`
}

/** A call's block, which begins when id and name are known; until then its arguments wait. */
type ToolBlock = { block: number | undefined; pending: string }

/**
 * Chunks of chat as Anthropic's events. Text and thinking are one open block at a time; each tool call is a block that stays
 * open to the end, since servers may send pieces of parallel calls in any order.
 */
class MessageStream implements StreamTranslator {
  private isStarted = false
  private isOver = false
  private blocks = 0
  /** The text or thinking block that is open. */
  private open: { kind: 'text' | 'thinking'; block: number } | undefined
  private readonly calls = new StreamedCalls()
  private readonly tools = new Map<StreamedCall, ToolBlock>()
  private readonly ids: CallIds
  /** Made for the first call: most streams have none. */
  private names: ToolNames | undefined
  private finish: unknown
  private usage: unknown

  constructor(private readonly asked: Asked) {
    this.ids = new CallIds(asked.requestId)
  }

  chunk(chunk: Json): string {
    if (this.isOver) return ''
    if (isRecord(chunk.usage)) this.usage = chunk.usage
    const choice = firstOf(chunk.choices)
    let out = ''
    if (choice) {
      const delta = isRecord(choice.delta) ? choice.delta : {}
      const thinking = delta.reasoning_content ?? delta.reasoning
      if (typeof thinking === 'string' && thinking !== '') out += this.text('thinking', thinking)
      const text = contentText(delta.content)
      if (text !== '') out += this.text('text', text)
      else if (typeof delta.refusal === 'string' && delta.refusal !== '') out += this.text('text', delta.refusal)
      for (const { call, args } of this.calls.read(delta)) out += this.toolCall(call, args)
      if (choice.finish_reason !== undefined && choice.finish_reason !== null) this.finish = choice.finish_reason
    }
    // The closing pair tells the usage: where it has not come yet, it waits for it, or for the end.
    if (this.finish !== undefined && this.usage !== undefined) out += this.close()
    return out
  }

  end(): string {
    return this.isOver ? '' : this.close()
  }

  error(error: GatewayError): string {
    // The message is complete: what its upstream says afterwards is no matter of the caller's.
    if (this.isOver) return ''
    this.isOver = true
    return frame('error', JSON.stringify(messagesError(error)))
  }

  private start(): string {
    if (this.isStarted) return ''
    this.isStarted = true
    const message = {
      id: `msg_${hexOf(this.asked.requestId)}`,
      type: 'message',
      role: 'assistant',
      model: this.asked.alias,
      content: [],
      stop_reason: null,
      stop_sequence: null,
      usage: { input_tokens: 0, output_tokens: 0 },
    }
    return frame('message_start', JSON.stringify({ type: 'message_start', message }))
  }

  /** The usual token: its frame is put together by hand around one text. */
  private text(kind: 'text' | 'thinking', text: string): string {
    const out = this.open?.kind === kind ? '' : this.openText(kind)
    const block = this.open?.block ?? 0
    return `${out}event: content_block_delta\ndata: {"type":"content_block_delta","index":${block},"delta":{"type":"${kind}_delta","${kind}":${JSON.stringify(text)}}}\n\n`
  }

  private openText(kind: 'text' | 'thinking'): string {
    const before = this.start() + this.closeText()
    const block = this.blocks++
    this.open = { kind, block }
    const content = kind === 'text' ? '{"type":"text","text":""}' : '{"type":"thinking","thinking":"","signature":""}'
    return before + startFrame(block, content)
  }

  private toolCall(call: StreamedCall, args: string): string {
    let tool = this.tools.get(call)
    if (!tool) {
      tool = { block: undefined, pending: '' }
      this.tools.set(call, tool)
    }
    tool.pending += args
    if (tool.block !== undefined) return this.fragment(tool, tool.block)
    return call.id === '' || call.name === '' ? '' : this.startTool(call, tool)
  }

  private startTool({ id, name }: StreamedCall, tool: ToolBlock): string {
    const before = this.start() + this.closeText()
    const block = this.blocks++
    tool.block = block
    this.names ??= toolNamesOf(this.asked.body)
    const content = JSON.stringify({ type: 'tool_use', id: this.ids.take(id), name: this.names.given(name), input: {} })
    return before + startFrame(block, content) + this.fragment(tool, block)
  }

  private fragment(tool: ToolBlock, block: number): string {
    if (tool.pending === '') return ''
    const json = JSON.stringify(tool.pending)
    tool.pending = ''
    return `event: content_block_delta\ndata: {"type":"content_block_delta","index":${block},"delta":{"type":"input_json_delta","partial_json":${json}}}\n\n`
  }

  private closeText(): string {
    if (!this.open) return ''
    const { block, kind } = this.open
    this.open = undefined
    const signature = `{"type":"content_block_delta","index":${block},"delta":{"type":"signature_delta","signature":""}}`
    return (kind === 'thinking' ? frame('content_block_delta', signature) : '') + stopFrame(block)
  }

  private close(): string {
    this.isOver = true
    let out = this.start()
    // Servers that give calls no id: one of ours, so that the call is not lost.
    for (const [call, tool] of this.tools) if (tool.block === undefined && call.name !== '') out += this.startTool(call, tool)
    if (this.blocks === 0) out += this.openText('text')
    out += this.closeText()
    let hasCalls = false
    for (const { block } of this.tools.values()) {
      if (block === undefined) continue
      hasCalls = true
      out += stopFrame(block)
    }
    const { input_tokens, ...counts } = usageOf(this.usage)
    const delta = {
      type: 'message_delta',
      delta: {
        stop_reason: stopReason(this.finish, hasCalls),
        stop_sequence: null,
      },
      usage: { ...(input_tokens === 0 ? {} : { input_tokens }), ...counts },
    }
    return `${out}${frame('message_delta', JSON.stringify(delta))}${frame('message_stop', '{"type":"message_stop"}')}`
  }
}

function startFrame(block: number, content: string): string {
  return frame('content_block_start', `{"type":"content_block_start","index":${block},"content_block":${content}}`)
}

function stopFrame(block: number): string {
  return frame('content_block_stop', `{"type":"content_block_stop","index":${block}}`)
}
