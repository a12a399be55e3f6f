/**
 * Chat completions asked of an upstream that speaks Messages: pure translators, one stream's state aside.
 * Source: Anthropic API reference, "Messages", "Streaming messages", "Errors", "Extended thinking", "Tool use";
 * contract proxy-04 §3 and §8, and README "Where we go further": streamed tool use and thinking are kept, images are kept,
 * `stop` is translated.
 */

import { type GatewayError, invalidRequest } from '../errors.ts'
import type { Usage } from '../exchange.ts'
import { readDataUrl } from '../wire/base64.ts'
import { countOf } from '../wire/count.ts'
import { parseBounded } from '../wire/members.ts'
import type { ChunkTranslator, Json, UpstreamError } from './adapter.ts'

/** Messages demands a limit, chat does not (proxy-04 §3). */
const MAX_TOKENS_DEFAULT = 4096

/**
 * Tokens of thinking for a `reasoning_effort`: proxy-04 §4 read the other way. `output_config.effort` is not used: models that
 * think within a budget know no such member, and refuse it. Anthropic takes no budget under 1,024, which is
 * why `minimal` has that of `low`. `none` and words that we do not know ask for no thinking.
 */
const THINKING_BUDGETS: ReadonlyMap<unknown, number> = new Map([
  ['minimal', 1024],
  ['low', 1024],
  ['medium', 2048],
  ['high', 4096],
  ['xhigh', 8192],
])

/** OpenAI's goes up to 2. */
const TEMPERATURE_MAX = 1

/** The least `top_p` that goes with thinking ("Extended thinking", feature compatibility). */
const THINKING_TOP_P_MIN = 0.95

/** Members that OpenAI alone has, and that Messages refuses by name. Others pass: servers of Messages have some of their own. */
const REFUSED = [
  'n',
  'logprobs',
  'top_logprobs',
  'seed',
  'frequency_penalty',
  'presence_penalty',
  'logit_bias',
  'stream_options',
  'store',
  'modalities',
  'audio',
  'moderation',
  'web_search_options',
  'functions',
  'function_call',
  'prediction',
  'verbosity',
  'prompt_cache_key',
  'prompt_cache_options',
  'prompt_cache_retention',
  'safety_identifier',
]

/** Members of chat requests that are translated below, under these or other names. */
const TRANSLATED = [
  'messages',
  'max_tokens',
  'max_completion_tokens',
  'temperature',
  'top_p',
  'stream',
  'stop',
  'tools',
  'tool_choice',
  'parallel_tool_calls',
  'user',
  'metadata',
  'reasoning_effort',
  'response_format',
  'service_tier',
]

const NOT_FORWARDED: ReadonlySet<string> = new Set([...REFUSED, ...TRANSLATED])

/** Words of `service_tier` that Anthropic has; OpenAI's others would be refused. */
const SERVICE_TIERS: ReadonlySet<unknown> = new Set(['auto', 'standard_only'])

function isRecord(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== ''
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : []
}

function invalid(path: string, why: string): GatewayError {
  return invalidRequest(`\`${path}\` ${why}`, { param: path })
}

// ── The question ──────────────────────────────────────────────────────────────────────────────────────────────────────────

type Turn = { role: 'user' | 'assistant'; content: Json[] }

/**
 * A chat request as a Messages request.
 * in: the caller's body, `model` already the upstream's name
 * throws: invalid_request that names the member: a turn that has no counterpart, an image that cannot be sent
 */
export function toMessages(chat: Json): Json {
  if (!Array.isArray(chat.messages)) throw invalid('messages', chat.messages === undefined ? 'field missing' : 'must be an array')
  const said: unknown[] = chat.messages
  const leading = said.findIndex(message => !isInstruction(message))
  // Messages wants a turn: where there are only instructions they are what is asked.
  const systems = leading < 0 ? [] : said.slice(0, leading)
  const turns = toTurns(said, systems.length)

  const body: Json = Object.fromEntries(Object.entries(chat).filter(([name]) => !NOT_FORWARDED.has(name)))
  const system = toSystem(systems)
  if (system !== undefined) body.system = system
  body.messages = turns
  const limit = [chat.max_tokens, chat.max_completion_tokens].find(count => typeof count === 'number')
  body.max_tokens = limit ?? MAX_TOKENS_DEFAULT
  for (const name of ['temperature', 'top_p', 'stream']) if (isTold(chat[name])) body[name] = chat[name]
  if (typeof body.temperature === 'number') body.temperature = Math.min(body.temperature, TEMPERATURE_MAX)
  if (SERVICE_TIERS.has(chat.service_tier)) body.service_tier = chat.service_tier
  const stops = toStopSequences(chat.stop)
  if (stops) body.stop_sequences = stops
  const { choice, allowed } = readToolChoice(chat.tool_choice)
  const tools = listOf(chat.tools)
    .flatMap(toTool)
    .filter(({ name }) => allowed?.has(name) ?? true)
  // What is said of tools where there are none is refused, and here all of them may have been dropped.
  if (tools.length > 0) {
    body.tools = tools
    const told = toToolChoice(choice, chat.parallel_tool_calls === false)
    if (told) body.tool_choice = told
  }
  const userId = toUserId(chat)
  if (userId !== undefined) body.metadata = { user_id: userId }
  const format = toOutputFormat(chat.response_format)
  if (format) body.output_config = { format, ...(isRecord(body.output_config) ? body.output_config : {}) }
  think(body, chat.reasoning_effort, limit, turns)
  return body
}

/** SDKs send null for what they were not told. */
function isTold(value: unknown): boolean {
  return value !== undefined && value !== null
}

function isInstruction(message: unknown): boolean {
  return isRecord(message) && (message.role === 'system' || message.role === 'developer')
}

/** One string where all are strings; blocks where any has parts, so that `cache_control` stays where the caller put it. */
function toSystem(messages: readonly unknown[]): string | Json[] | undefined {
  const contents = messages.map(message => (isRecord(message) ? message.content : undefined))
  if (contents.some(content => Array.isArray(content))) {
    const blocks = contents.flatMap(content => textBlocks(content))
    return blocks.length > 0 ? blocks : undefined
  }
  const text = contents.filter(content => textOf(content).trim() !== '').join('\n\n')
  return text === '' ? undefined : text
}

function toTurns(messages: readonly unknown[], from: number): Turn[] {
  const turns: Turn[] = []
  /** Ids of the calls so far: Messages refuses a result without its call. */
  const calls = new Set<unknown>()
  for (const [at, message] of messages.entries()) {
    if (at < from) continue
    const { role, content } = toTurn(message, `messages.${at}`)
    for (const block of content) {
      if (block.type === 'tool_use') calls.add(block.id)
      if (block.type !== 'tool_result' || calls.has(block.tool_use_id)) continue
      throw invalid(`messages.${at}.tool_call_id`, 'names no tool call of an earlier assistant message')
    }
    const last = turns.at(-1)
    if (last?.role === role) last.content.push(...content)
    else turns.push({ role, content })
  }
  // Only now: an empty message that was merged into a turn with text must not leave an empty block there.
  for (const turn of turns) if (turn.content.length === 0) turn.content.push({ type: 'text', text: '' })
  return turns
}

function toTurn(message: unknown, path: string): Turn {
  if (!isRecord(message)) throw invalid(path, 'must be an object')
  switch (message.role) {
    case 'system':
    case 'developer':
      return { role: 'user', content: textBlocks(message.content) }
    case 'user':
      return { role: 'user', content: userBlocks(message.content, `${path}.content`) }
    case 'assistant':
      return {
        role: 'assistant',
        content: [...textBlocks(message.content), ...listOf(message.tool_calls).flatMap(toToolUse)],
      }
    case 'tool':
      return { role: 'user', content: [toToolResult(message, path)] }
    default:
      throw invalid(`${path}.role`, 'must be "system", "developer", "user", "assistant" or "tool"')
  }
}

/** Text alone, blank ones dropped: Messages refuses blocks without a visible character. */
function textBlocks(content: unknown): Json[] {
  if (typeof content === 'string') return content.trim() === '' ? [] : [{ type: 'text', text: content }]
  return listOf(content).flatMap(part => (isRecord(part) && part.type === 'text' ? textBlock(part) : []))
}

function textBlock(part: Json): Json[] {
  const text = textOf(part.text)
  if (text.trim() === '') return []
  return [{ type: 'text', text, ...pick(part, 'cache_control'), ...pick(part, 'citations') }]
}

/** The member, if it is there. */
function pick(from: Json, name: string): Json {
  return from[name] === undefined ? {} : { [name]: from[name] }
}

/** Text, images and documents; kinds of parts that Messages has no block for are dropped (proxy-04 §3). */
function userBlocks(content: unknown, path: string): Json[] {
  if (!Array.isArray(content)) return textBlocks(content)
  return content.flatMap((part: unknown, at) => {
    if (!isRecord(part)) return []
    if (part.type === 'text') return textBlock(part)
    if (part.type === 'image_url') {
      const url = isRecord(part.image_url) ? part.image_url.url : part.image_url
      return [{ ...mediaBlock(url, `${path}.${at}.image_url.url`), ...pick(part, 'cache_control') }]
    }
    if (part.type === 'file' && isRecord(part.file) && part.file.file_data !== undefined) {
      const title = isText(part.file.filename) ? { title: part.file.filename } : {}
      const block = mediaBlock(part.file.file_data, `${path}.${at}.file.file_data`)
      return [{ ...block, ...(block.type === 'document' ? title : {}), ...pick(part, 'cache_control') }]
    }
    return []
  })
}

/** An image from where `url` has it; a PDF that came the same way is a document. The path is the member's, for errors. */
function mediaBlock(url: unknown, path: string): Json {
  if (typeof url !== 'string') throw invalid(path, 'must be a string')
  const text = url.trim()
  if (/^https?:\/\//i.test(text)) return { type: 'image', source: { type: 'url', url: text } }
  const told = readDataUrl(text)
  if (!told) throw invalid(path, 'must be an http:// or https:// URL, or a data: URL with a media type and base64')
  const { mediaType, data } = told
  return {
    type: mediaType === 'application/pdf' ? 'document' : 'image',
    // The name that is written often and is none: OpenAI takes it, Anthropic does not.
    source: {
      type: 'base64',
      media_type: mediaType === 'image/jpg' ? 'image/jpeg' : mediaType,
      data,
    },
  }
}

/** A call without id or name is dropped: nothing could answer it. */
function toToolUse(call: unknown): Json[] {
  if (!isRecord(call) || !isRecord(call.function)) return []
  const { name, arguments: args } = call.function
  if (!isText(call.id) || !isText(name)) return []
  return [{ type: 'tool_use', id: call.id, name, input: readArguments(args), ...pick(call, 'cache_control') }]
}

/** Models write the arguments and write them wrong: whatever is no object is an empty one (proxy-04 §3). */
function readArguments(args: unknown): Json {
  if (isRecord(args)) return args
  if (typeof args !== 'string') return {}
  try {
    const parsed = parseBounded(args)
    return isRecord(parsed) ? parsed : {}
  } catch {
    return {}
  }
}

function toToolResult(message: Json, path: string): Json {
  if (!isText(message.tool_call_id)) {
    throw invalid(
      `${path}.tool_call_id`,
      message.tool_call_id === undefined ? 'field missing' : 'must be a string that is not empty',
    )
  }
  const { content } = message
  return {
    type: 'tool_result',
    tool_use_id: message.tool_call_id,
    content: Array.isArray(content) ? userBlocks(content, `${path}.content`) : textOf(content),
    ...pick(message, 'cache_control'),
  }
}

function toStopSequences(stop: unknown): string[] | undefined {
  if (!isTold(stop)) return undefined
  const list: unknown[] = Array.isArray(stop) ? stop : [stop]
  const texts = list.filter(text => typeof text === 'string')
  if (texts.length < list.length) throw invalid('stop', 'must be a string or an array of strings')
  const sequences = texts.filter(text => text !== '')
  return sequences.length > 0 ? sequences : undefined
}

/** Functions alone; other kinds of tools have no counterpart (proxy-04 §3). */
function toTool(tool: unknown): (Json & { name: string })[] {
  if (!isRecord(tool) || tool.type !== 'function' || !isRecord(tool.function)) return []
  const { name, description, parameters, strict } = tool.function
  if (!isText(name)) return []
  return [
    {
      name,
      ...(isTold(description) ? { description } : {}),
      // Messages demands a schema, of an object; chat has functions without.
      input_schema: isRecord(parameters) ? { type: 'object', ...parameters } : (parameters ?? { type: 'object' }),
      ...(typeof strict === 'boolean' ? { strict } : {}),
      ...pick(tool.function, 'cache_control'),
      ...pick(tool, 'cache_control'),
    },
  ]
}

function toToolChoice(choice: Json | undefined, isSequential: boolean): Json | undefined {
  // One call at a time has no place of its own in Messages: it needs a choice.
  const told = choice ?? (isSequential ? { type: 'auto' } : undefined)
  if (!told || !isSequential || told.type === 'none') return told
  return { ...told, disable_parallel_tool_use: true }
}

const NO_CHOICE = 'must be "auto", "none", "required", allowed tools or a function with a `name`'

/** out: `allowed` where only some of the tools are to be offered; no choice where it is of a kind of tool that is dropped */
function readToolChoice(choice: unknown): { choice?: Json; allowed?: ReadonlySet<unknown> } {
  if (!isTold(choice)) return {}
  if (choice === 'auto' || choice === 'none') return { choice: { type: choice } }
  if (choice === 'required') return { choice: { type: 'any' } }
  if (!isRecord(choice)) throw invalid('tool_choice', NO_CHOICE)
  if (choice.type === 'custom') return {}
  if (choice.type === 'allowed_tools' && isRecord(choice.allowed_tools)) {
    const { mode, tools } = choice.allowed_tools
    const functions = listOf(tools).map(tool => (isRecord(tool) && isRecord(tool.function) ? tool.function.name : undefined))
    return { choice: { type: mode === 'required' ? 'any' : 'auto' }, allowed: new Set(functions) }
  }
  if (choice.type === 'function' && isRecord(choice.function) && isText(choice.function.name)) {
    return { choice: { type: 'tool', name: choice.function.name } }
  }
  throw invalid('tool_choice', NO_CHOICE)
}

/** The only member of `metadata` that Messages has; OpenAI's are notes for its own store. */
function toUserId({ metadata, user }: Json): string | undefined {
  if (isRecord(metadata) && isText(metadata.user_id)) return metadata.user_id
  return isText(user) ? user : undefined
}

/** A schema, as far as one was told: for "any JSON" Messages has no word. Source: "Structured outputs" */
function toOutputFormat(format: unknown): Json | undefined {
  if (!isRecord(format) || format.type !== 'json_schema') return undefined
  const schema = isRecord(format.json_schema) ? format.json_schema.schema : undefined
  if (!isRecord(schema)) throw invalid('response_format.json_schema.schema', 'must be a JSON schema')
  return { type: 'json_schema', schema }
}

/**
 * Turns thinking on where the caller asked for effort and Anthropic would take it. The budget counts within `max_tokens`, so
 * it is added: what the caller allowed is left for the answer. A caller's own limit that the budget would more than double is
 * kept instead, without thinking.
 */
function think(body: Json, effort: unknown, limit: unknown, turns: readonly Turn[]): void {
  const budget = THINKING_BUDGETS.get(effort)
  if (budget === undefined || body.thinking !== undefined) return
  if (typeof limit === 'number' && limit <= budget) return
  // A turn that answers calls needs the signed thinking that led to them, a prefilled one has no room for any: both are
  // refused with thinking on. So is a choice that forces a tool.
  const last = turns.at(-1)
  if (last?.role !== 'user' || last.content.some(block => block.type === 'tool_result')) return
  if (isRecord(body.tool_choice) && (body.tool_choice.type === 'any' || body.tool_choice.type === 'tool')) return
  body.thinking = { type: 'enabled', budget_tokens: budget }
  body.max_tokens = (typeof limit === 'number' ? limit : MAX_TOKENS_DEFAULT) + budget
  delete body.temperature
  delete body.top_k
  if (typeof body.top_p === 'number' && body.top_p < THINKING_TOP_P_MIN) delete body.top_p
}

// ── The answer ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A Messages answer as a chat completion. in: epoch milliseconds, for `created` */
export function fromMessage(message: Json, nowMs: number): Json {
  const blocks = listOf(message.content).filter(isRecord)
  const texts = blocks.filter(block => block.type === 'text')
  const reasoning = blocks.map(block => (block.type === 'thinking' ? textOf(block.thinking) : '')).join('')
  const calls = blocks.filter(block => block.type === 'tool_use').map(block => toolCall(block, inputText(block)))
  return {
    id: message.id,
    object: 'chat.completion',
    created: Math.floor(nowMs / 1000),
    model: message.model,
    choices: [
      {
        index: 0,
        message: {
          role: 'assistant',
          content: texts.length > 0 ? texts.map(block => textOf(block.text)).join('') : null,
          ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
          ...(calls.length > 0 ? { tool_calls: calls } : {}),
        },
        finish_reason: finishReason(message.stop_reason),
      },
    ],
    usage: chatUsage(raise(NOTHING_COUNTED, message.usage)),
  }
}

function toolCall(block: Json, args: string): Json {
  return { id: textOf(block.id), type: 'function', function: { name: textOf(block.name), arguments: args } }
}

function inputText(block: Json): string {
  return JSON.stringify(block.input ?? {})
}

/** `refusal` and `pause_turn` came after the contract's table: of OpenAI's words the nearest. Others pass as they are. */
const FINISH_REASONS: ReadonlyMap<string, string> = new Map([
  ['end_turn', 'stop'],
  ['stop_sequence', 'stop'],
  ['pause_turn', 'stop'],
  ['max_tokens', 'length'],
  ['tool_use', 'tool_calls'],
  ['refusal', 'content_filter'],
])

function finishReason(stopReason: unknown): string {
  return isText(stopReason) ? (FINISH_REASONS.get(stopReason) ?? stopReason) : 'stop'
}

// ── Usage ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Counters as Messages has them: input without what the cache took or gave. */
type Counted = { input: number; output: number; cacheCreation: number; cacheRead: number }

const NOTHING_COUNTED: Counted = { input: 0, output: 0, cacheCreation: 0, cacheRead: 0 }

/** The larger of each counter: streams tell their usage twice, and growing. */
function raise(before: Counted, usage: unknown): Counted {
  if (!isRecord(usage)) return before
  return {
    input: Math.max(before.input, countOf(usage.input_tokens)),
    output: Math.max(before.output, countOf(usage.output_tokens)),
    cacheCreation: Math.max(before.cacheCreation, countOf(usage.cache_creation_input_tokens)),
    cacheRead: Math.max(before.cacheRead, countOf(usage.cache_read_input_tokens)),
  }
}

/** What the cache gave and took is part of the prompt, as OpenAI's kind of server counts. */
function toUsage({ input, output, cacheCreation, cacheRead }: Counted): Usage {
  const promptTokens = input + cacheCreation + cacheRead
  return {
    promptTokens,
    completionTokens: output,
    totalTokens: promptTokens + output,
    cachedTokens: cacheRead,
    ...(cacheRead > 0 ? { cacheReadTokens: cacheRead } : {}),
    ...(cacheCreation > 0 ? { cacheCreationTokens: cacheCreation } : {}),
    reasoningTokens: 0,
    isEstimated: false,
  }
}

/**
 * `usage` of a chat answer: the total has the cache's tokens, the prompt has not (proxy-04 §3). The cache's counters only when
 * there is something to tell (proxy-02 §3); under Anthropic's names they say what lies between prompt and total.
 */
function chatUsage({ input, output, cacheCreation, cacheRead }: Counted): Json {
  return {
    prompt_tokens: input,
    completion_tokens: output,
    total_tokens: input + output + cacheCreation + cacheRead,
    ...(cacheRead > 0 ? { prompt_tokens_details: { cached_tokens: cacheRead } } : {}),
    ...(cacheRead > 0 ? { cache_read_input_tokens: cacheRead } : {}),
    ...(cacheCreation > 0 ? { cache_creation_input_tokens: cacheCreation } : {}),
  }
}

/** Token counts out of a Messages `usage`; undefined when it is no such thing. Thinking is counted in `output_tokens`. */
export function readMessagesUsage(usage: unknown): Usage | undefined {
  return isRecord(usage) ? toUsage(raise(NOTHING_COUNTED, usage)) : undefined
}

// ── The stream ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** One Messages stream as chat chunks. in: epoch milliseconds, `created` of every chunk */
export function createChunks(nowMs: number): ChunkTranslator {
  return new MessageChunks(Math.floor(nowMs / 1000))
}

/** A tool block under way. Servers that do not stream arguments send them whole in `input`, where Anthropic sends `{}`. */
type OpenCall = { index: number; input: string; hasFragments: boolean }

class MessageChunks implements ChunkTranslator {
  isDone = false
  private id: unknown = ''
  private model: unknown = ''
  private isOpen = false
  private isFinished = false
  private counted = NOTHING_COUNTED
  private callCount = 0
  /** By the `index` of their blocks. */
  private readonly calls = new Map<unknown, OpenCall>()

  constructor(private readonly created: number) {}

  event(data: Json): Json[] {
    switch (data.type) {
      case 'message_start':
        return this.start(isRecord(data.message) ? data.message : {})
      case 'content_block_start':
        return isRecord(data.content_block) ? this.blockStart(data.index, data.content_block) : []
      case 'content_block_delta':
        return isRecord(data.delta) ? this.blockDelta(data.index, data.delta) : []
      case 'content_block_stop':
        return this.closeCall(data.index)
      case 'message_delta':
        return this.messageDelta(isRecord(data.delta) ? data.delta : {}, data.usage)
      case 'message_stop':
        this.isDone = true
        return this.isFinished ? [] : this.finish(undefined)
      case 'error':
        return [inBandError(data)]
      case undefined:
        // What gateways and servers between put into a stream without Anthropic's frame around it.
        return data.error === undefined || data.error === null ? [] : [inBandError(data)]
      default:
        return []
    }
  }

  private start(message: Json): Json[] {
    if (isText(message.id)) this.id = message.id
    if (isText(message.model)) this.model = message.model
    this.counted = raise(this.counted, message.usage)
    return this.open()
  }

  private blockStart(index: unknown, block: Json): Json[] {
    if (block.type === 'text') return this.content(block.text)
    if (block.type === 'thinking') return this.reasoning(block.thinking)
    if (block.type !== 'tool_use') return []
    const call = { index: this.callCount, input: inputText(block), hasFragments: false }
    this.callCount += 1
    const unfinished = this.closeCall(index)
    this.calls.set(index, call)
    return [...unfinished, ...this.delta({ tool_calls: [{ index: call.index, ...toolCall(block, '') }] })]
  }

  private blockDelta(index: unknown, delta: Json): Json[] {
    if (delta.type === 'text_delta') return this.content(delta.text)
    if (delta.type === 'thinking_delta') return this.reasoning(delta.thinking)
    const call = delta.type === 'input_json_delta' ? this.calls.get(index) : undefined
    if (!call || !isText(delta.partial_json)) return []
    call.hasFragments = true
    return this.fragment(call, delta.partial_json)
  }

  /** A call without fragments has its arguments still to come: `{}` for one without any, so that callers can parse them. */
  private closeCall(index: unknown): Json[] {
    const call = this.calls.get(index)
    this.calls.delete(index)
    return call && !call.hasFragments ? this.fragment(call, call.input) : []
  }

  private messageDelta(delta: Json, usage: unknown): Json[] {
    this.counted = raise(this.counted, usage)
    if (isText(delta.stop_reason) && !this.isFinished) return this.finish(delta.stop_reason)
    return this.isFinished && isRecord(usage) ? [this.usage()] : []
  }

  private finish(stopReason: unknown): Json[] {
    const unfinished = [...this.calls.keys()].flatMap(index => this.closeCall(index))
    const opening = this.open()
    this.isFinished = true
    const choice = { index: 0, delta: {}, finish_reason: finishReason(stopReason) }
    return [...opening, ...unfinished, this.chunk([choice]), this.usage()]
  }

  private usage(): Json {
    return { ...this.chunk([]), usage: chatUsage(this.counted) }
  }

  private content(text: unknown): Json[] {
    return isText(text) ? this.delta({ content: text }) : []
  }

  private reasoning(text: unknown): Json[] {
    return isText(text) ? this.delta({ reasoning_content: text }) : []
  }

  private fragment(call: OpenCall, args: string): Json[] {
    return this.delta({ tool_calls: [{ index: call.index, function: { arguments: args } }] })
  }

  private delta(delta: Json): Json[] {
    return [...this.open(), this.chunk([{ index: 0, delta }])]
  }

  /** The role goes first, and once, whatever the upstream begins with. */
  private open(): Json[] {
    if (this.isOpen) return []
    this.isOpen = true
    return [this.chunk([{ index: 0, delta: { role: 'assistant', content: '' } }])]
  }

  private chunk(choices: Json[]): Json {
    return { id: this.id, object: 'chat.completion.chunk', created: this.created, model: this.model, choices }
  }
}

// ── Errors ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** source: Anthropic API reference, "Errors"; proxy-04 §8 for codes, of which other kinds have none */
const ERRORS: ReadonlyMap<unknown, { status: string; code?: string }> = new Map([
  ['invalid_request_error', { status: '400' }],
  ['authentication_error', { status: '401', code: 'invalid_api_key' }],
  ['billing_error', { status: '402' }],
  ['permission_error', { status: '403', code: 'permission_denied' }],
  ['not_found_error', { status: '404', code: 'model_not_found' }],
  ['request_too_large', { status: '413', code: 'request_too_large' }],
  ['rate_limit_error', { status: '429', code: 'rate_limit_exceeded' }],
  ['api_error', { status: '500' }],
  ['timeout_error', { status: '504' }],
  ['overloaded_error', { status: '529', code: 'overloaded' }],
])

/** What is wrong, inside a stream: the status of the kind is the code, as the gateway's reader of in-band errors has it. */
function inBandError({ error }: Json): Json {
  const told = isRecord(error) ? error : {}
  const type = isText(told.type) ? told.type : 'api_error'
  const message = errorText(error) ?? 'the upstream sent an error event without a message'
  const code = ERRORS.get(type)?.status ?? givenCode(told)
  return { error: { message, type, ...(code === undefined ? {} : { code }) } }
}

function errorText(error: unknown): string | undefined {
  if (isText(error)) return error
  if (!isRecord(error)) return undefined
  return isText(error.message) ? error.message : JSON.stringify(error)
}

function givenCode({ code }: Json): string | undefined {
  return isText(code) || typeof code === 'number' ? String(code) : undefined
}

/**
 * `{"type":"error","error":{"type","message"}}`. A `code` goes before what follows from the type: Anthropic sends none, the
 * errors of `createChunks` and servers that answer Messages with an envelope of OpenAI's do.
 */
export function readMessagesError(body: unknown): UpstreamError | undefined {
  if (!isRecord(body)) return undefined
  const message = errorText(body.error)
  if (message === undefined) return undefined
  const told = isRecord(body.error) ? body.error : {}
  return { message, code: givenCode(told) ?? ERRORS.get(told.type)?.code, param: undefined }
}

// ── The address ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * The root that `/v1/messages` is appended to.
 * returns: undefined when there is none and `vendor` has no public default: then nothing may be dialled
 * throws: Error in words for an operator when `apiBase` is no usable URL
 */
export function messagesBase(apiBase: string | undefined, vendor: string): string | undefined {
  const given = (apiBase ?? '').trim()
  if (given === '') return ['', 'anthropic'].includes(vendor.trim().toLowerCase()) ? 'https://api.anthropic.com' : undefined
  // Not behind the scheme: a host may be called `v1`.
  const base = given
    .replace(/\/+$/, '')
    .replace(/(?<!:\/*)\/v1(?:\/messages)?$/, '')
    .replace(/\/+$/, '')
  const url = URL.parse(base)
  if (!url || (url.protocol !== 'http:' && url.protocol !== 'https:') || url.hostname === '') {
    throw new Error('api_base is not an http:// or https:// URL')
  }
  return base
}
