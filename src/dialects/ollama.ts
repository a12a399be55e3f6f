/**
 * Ollama's own API as its clients speak it, over the chat shape.
 * Source: github.com/ollama/ollama docs/api.md and api/types.go; npm `ollama` 0.6.4, src/interfaces.ts.
 */

import { createHash } from 'node:crypto'
import { GatewayError, invalidRequest } from '../errors.ts'
import { countOf } from '../wire/count.ts'
import { parseBounded } from '../wire/members.ts'
import { promptTokensOf } from '../wire/prompt-tokens.ts'
import { contentText, type StreamedCall, StreamedCalls, type WholeCall, wholeCalls } from './chat-answer.ts'
import type { Asked, Dialect, Json, StreamTranslator } from './dialect.ts'

/** The two endpoints that generate text. Their answers differ in where the text stands. */
export type OllamaKind = 'chat' | 'generate'

export const ollamaChat: Dialect = dialectOf('chat', chatQuestion)
export const ollamaGenerate: Dialect = dialectOf('generate', generateQuestion)

function dialectOf(kind: OllamaKind, question: Dialect['question']): Dialect {
  return {
    question,
    answer: (chat, asked) => answerOf(kind, chat, asked),
    stream: asked => new OllamaStream(kind, asked),
    error: ollamaError,
    // NDJSON has no comments, and clients take each line for a part of the answer.
    heartbeat: '',
    streamType: 'application/x-ndjson',
  }
}

export function ollamaError({ message }: GatewayError): Json {
  return { error: message }
}

function invalid(path: string, why: string): GatewayError {
  return invalidRequest(`invalid Ollama body: \`${path}\` ${why}`, { param: path })
}

function isRecord(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

// Readers of one member. Ollama's server, in Go, reads null as if the member were not there: so do these.

function stringOf(value: unknown, path: string): string | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'string') throw invalid(path, 'must be a string')
  return value
}

function booleanOf(value: unknown, path: string): boolean | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'boolean') throw invalid(path, 'must be true or false')
  return value
}

function numberOf(value: unknown, path: string): number | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'number') throw invalid(path, 'must be a number')
  return value
}

function integerOf(value: unknown, path: string): number | undefined {
  const number = numberOf(value, path)
  if (number !== undefined && !Number.isInteger(number)) throw invalid(path, 'must be an integer')
  return number
}

function recordOf(value: unknown, path: string): Json | undefined {
  if (value === undefined || value === null) return undefined
  if (!isRecord(value)) throw invalid(path, 'must be an object')
  return value
}

function arrayOf(value: unknown, path: string): readonly unknown[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) throw invalid(path, 'must be an array')
  return value
}

function chatQuestion(body: Json): Json {
  const messages = arrayOf(body.messages, 'messages')
  if (messages.length === 0) throw invalid('messages', 'must not be empty')
  const tools = arrayOf(body.tools, 'tools').map((tool, at) => toolOf(tool, `tools[${at}]`))
  return {
    model: body.model,
    messages: turnsOf(messages),
    // OpenAI's own servers refuse an empty array.
    ...(tools.length === 0 ? {} : { tools }),
    ...commonOf(body),
  }
}

function generateQuestion(body: Json): Json {
  // Each of these changes what the model reads, in ways that chat completions have no words for: to drop it would mislead.
  if (stringOf(body.suffix, 'suffix'))
    throw invalid('suffix', 'is not supported: there is no chat request that fills in the middle')
  if (stringOf(body.template, 'template')) throw invalid('template', 'is not supported: the model server has its own')
  if (booleanOf(body.raw, 'raw')) throw invalid('raw', 'must not be true: prompts go through the template of the model server')
  if (arrayOf(body.context, 'context').length > 0) {
    throw invalid('context', 'is not supported: it is a conversation as tokens of another server; send the messages to /api/chat')
  }
  const system = stringOf(body.system, 'system') ?? ''
  const content = contentOf(stringOf(body.prompt, 'prompt') ?? '', imagesOf(body.images, 'images'))
  return {
    model: body.model,
    messages: [...(system === '' ? [] : [{ role: 'system', content: system }]), { role: 'user', content }],
    ...commonOf(body),
  }
}

/** What both endpoints have: stream, format, think, log probabilities and options. */
function commonOf(body: Json): Json {
  const logprobs = booleanOf(body.logprobs, 'logprobs') ?? false
  const topLogprobs = integerOf(body.top_logprobs, 'top_logprobs') ?? 0
  return {
    // Ollama streams unless it is told not to; everybody else does not.
    stream: booleanOf(body.stream, 'stream') ?? true,
    ...formatOf(body.format),
    ...thinkOf(body.think),
    ...(logprobs ? { logprobs } : {}),
    ...(logprobs && topLogprobs > 0 ? { top_logprobs: topLogprobs } : {}),
    ...optionsOf(recordOf(body.options, 'options') ?? {}),
  }
}

function formatOf(format: unknown): Json {
  if (format === undefined || format === null || format === '') return {}
  if (format === 'json') return { response_format: { type: 'json_object' } }
  if (!isRecord(format)) throw invalid('format', 'must be "json" or a JSON schema')
  return { response_format: { type: 'json_schema', json_schema: { name: 'response', schema: format, strict: true } } }
}

/** source: `chat_template_kwargs`: vLLM and SGLang, "Reasoning outputs"; `reasoning_effort`: OpenAI, "Create chat completion" */
function thinkOf(think: unknown): Json {
  if (think === undefined || think === null) return {}
  if (typeof think === 'boolean') return { chat_template_kwargs: { enable_thinking: think } }
  // Chat has nothing above `high`.
  if (think === 'max') return { reasoning_effort: 'high' }
  if (think !== 'low' && think !== 'medium' && think !== 'high') {
    throw invalid('think', 'must be true, false, "low", "medium", "high" or "max"')
  }
  return { reasoning_effort: think }
}

/** Ollama's name of a sampling option, and the one that OpenAI's API or, beyond it, vLLM and SGLang have for the same. */
const NUMBER_OPTIONS = [
  ['temperature', 'temperature'],
  ['top_p', 'top_p'],
  ['presence_penalty', 'presence_penalty'],
  ['frequency_penalty', 'frequency_penalty'],
  ['min_p', 'min_p'],
  ['repeat_penalty', 'repetition_penalty'],
] as const

/** Ollama's default seed, which stands for a different one each time: other servers would take it for a seed. */
const SEED_RANDOM = -1

function optionsOf(options: Json): Json {
  const chat: Json = {}
  for (const [name, chatName] of NUMBER_OPTIONS) {
    const value = numberOf(options[name], `options.${name}`)
    if (value !== undefined) chat[chatName] = value
  }
  const topK = integerOf(options.top_k, 'options.top_k')
  if (topK !== undefined) chat.top_k = topK
  const seed = integerOf(options.seed, 'options.seed')
  if (seed !== undefined && seed !== SEED_RANDOM) chat.seed = seed
  // -1 is "no limit", -2 "until the context is full"; the runner takes 0 for no limit as well.
  const tokensMax = integerOf(options.num_predict, 'options.num_predict') ?? 0
  if (tokensMax > 0) chat.max_tokens = tokensMax
  const stop = stopOf(options.stop)
  if (stop.length > 0) chat.stop = stop
  return chat
}

function stopOf(stop: unknown): readonly unknown[] {
  if (typeof stop === 'string') return stop === '' ? [] : [stop]
  if (stop === undefined || stop === null) return []
  if (!Array.isArray(stop) || stop.some(each => typeof each !== 'string')) {
    throw invalid('options.stop', 'must be an array of strings')
  }
  return stop
}

/** Members that only Ollama's own server could follow, of those that the caller sent. */
export function droppedMembers(body: Json): string[] {
  const { keep_alive, options } = body
  const dropped: string[] = []
  if (keep_alive !== undefined && keep_alive !== null) dropped.push('keep_alive')
  if (isRecord(options) && options.num_ctx !== undefined && options.num_ctx !== null) dropped.push('options.num_ctx')
  return dropped
}

function toolOf(value: unknown, path: string): Json {
  const tool = recordOf(value, path)
  const called = recordOf(tool?.function, `${path}.function`)
  const name = stringOf(called?.name, `${path}.function.name`)
  if (called === undefined || !name) throw invalid(`${path}.function.name`, 'field missing')
  const description = stringOf(called.description, `${path}.function.description`)
  const parameters = recordOf(called.parameters, `${path}.function.parameters`)
  return {
    type: 'function',
    function: {
      name,
      ...(description === undefined ? {} : { description }),
      ...(parameters === undefined ? {} : { parameters }),
    },
  }
}

function turnsOf(messages: readonly unknown[]): Json[] {
  const calls = new OpenCalls()
  return messages.map((value, at) => {
    const path = `messages[${at}]`
    const message = recordOf(value, path)
    if (message === undefined) throw invalid(path, 'must be an object')
    // Ollama lowers roles before it compares them (api/types.go, `Message.UnmarshalJSON`).
    const role = stringOf(message.role, `${path}.role`)?.toLowerCase()
    const text = stringOf(message.content, `${path}.content`) ?? ''
    const content = contentOf(text, imagesOf(message.images, `${path}.images`))
    switch (role) {
      case 'system':
      case 'user':
        return { role, content }
      case 'assistant':
        return assistantTurn(message, content, path, calls)
      case 'tool':
        return { role, tool_call_id: calls.answer(message, path), content }
      default:
        throw invalid(`${path}.role`, 'must be "system", "user", "assistant" or "tool"')
    }
  })
}

function assistantTurn(message: Json, content: string | Json[], path: string, calls: OpenCalls): Json {
  const thinking = stringOf(message.thinking, `${path}.thinking`) ?? ''
  const toolCalls = arrayOf(message.tool_calls, `${path}.tool_calls`)
  const turn: Json = { role: 'assistant', content }
  if (thinking !== '') turn.reasoning_content = thinking
  if (toolCalls.length === 0) return turn
  // "No text" is null where calls are: some servers refuse an empty text.
  if (content === '') turn.content = null
  calls.startTurn()
  turn.tool_calls = toolCalls.map((value, at) => {
    const callPath = `${path}.tool_calls[${at}]`
    const call = recordOf(value, callPath)
    const called = recordOf(call?.function, `${callPath}.function`)
    const name = stringOf(called?.name, `${callPath}.function.name`)
    if (!name) throw invalid(`${callPath}.function.name`, 'field missing')
    const parameters = recordOf(called?.arguments, `${callPath}.function.arguments`) ?? {}
    const id = calls.open(name, stringOf(call?.id, `${callPath}.id`))
    return { id, type: 'function', function: { name, arguments: JSON.stringify(parameters) } }
  })
  return turn
}

type OpenCall = { id: string; name: string; isNamedByUs: boolean }

/**
 * The tool calls that no message has answered yet. OpenAI's API pairs calls and answers by id; Ollama's older servers and
 * most of its clients know only names and the order.
 */
class OpenCalls {
  #calls: OpenCall[] = []
  #turn = 0
  #callsOfTurn = 0
  #isTurnOver = true

  /**
   * An assistant message with calls. Streaming clients keep one message a line, so several in a row are one turn; with the
   * next turn, calls that were never answered are given up: a later answer under the same name is not theirs.
   */
  startTurn(): void {
    if (!this.#isTurnOver) return
    this.#isTurnOver = false
    this.#calls = []
    this.#turn += 1
    this.#callsOfTurn = 0
  }

  /** out: the id of the call: the caller's, else one that is the same whenever the conversation is sent again */
  open(name: string, sent: string | undefined): string {
    const id = sent || `call_${this.#turn}_${this.#callsOfTurn}`
    this.#callsOfTurn += 1
    this.#calls.push({ id, name, isNamedByUs: !sent })
    return id
  }

  /** out: the id of the call that the `tool` message answers */
  answer(message: Json, path: string): string {
    this.#isTurnOver = true
    const sent = stringOf(message.tool_call_id, `${path}.tool_call_id`)
    const name = stringOf(message.tool_name, `${path}.tool_name`)
    if (this.#calls.length === 0) throw invalid(path, 'answers no tool call of an assistant message before it')
    let at = sent ? this.#calls.findIndex(call => call.id === sent) : -1
    if (at < 0) {
      // An id that we do not know may be one that the caller's library left out of the calls: then only those are meant.
      const isMeant = (call: OpenCall) => !sent || call.isNamedByUs
      at = this.#calls.findIndex(call => isMeant(call) && call.name === name)
      if (at < 0) at = this.#calls.findIndex(isMeant)
    }
    const [call] = at < 0 ? [] : this.#calls.splice(at, 1)
    if (call === undefined) throw invalid(`${path}.tool_call_id`, 'is not the id of a tool call that is still open')
    return call.id
  }
}

function contentOf(text: string, images: readonly string[]): string | Json[] {
  if (images.length === 0) return text
  return [...(text === '' ? [] : [{ type: 'text', text }]), ...images.map(url => ({ type: 'image_url', image_url: { url } }))]
}

/** out: `data:` URLs */
function imagesOf(value: unknown, path: string): string[] {
  return arrayOf(value, path).map((image, at) => imageUrl(image, `${path}[${at}]`))
}

/** As Go reads `[]byte`: padded, in the standard alphabet. */
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/
const DATA_URL_HEAD = /^data:(image\/[\w.+-]+)?[^,]{0,200};base64,/
/** For an image of a kind that we do not know. Model servers look into the bytes anyway. */
const IMAGE_TYPE_DEFAULT = 'image/png'

function imageUrl(image: unknown, path: string): string {
  const text = stringOf(image, path) ?? ''
  const [head = '', declared] = DATA_URL_HEAD.exec(text) ?? []
  const data = text.slice(head.length).replace(/[\r\n]+/g, '')
  if (data.length % 4 !== 0 || !BASE64.test(data)) throw invalid(path, 'must be an image in base64')
  return `data:${imageType(data) ?? declared ?? IMAGE_TYPE_DEFAULT};base64,${data}`
}

/** source: WHATWG MIME Sniffing, "Matching an image type pattern" */
function imageType(base64: string): string | undefined {
  const head = Buffer.from(base64.slice(0, 16), 'base64').toString('latin1')
  if (head.startsWith('\x89PNG\r\n\x1a\n')) return 'image/png'
  if (head.startsWith('\xff\xd8\xff')) return 'image/jpeg'
  if (head.startsWith('RIFF') && head.slice(8) === 'WEBP') return 'image/webp'
  if (head.startsWith('GIF87a') || head.startsWith('GIF89a')) return 'image/gif'
  return undefined
}

function answerOf(kind: OllamaKind, chat: Json, asked: Asked): Json {
  const choice = choiceOf(chat) ?? {}
  const message = isRecord(choice.message) ? choice.message : {}
  const logprobs = logprobsOf(choice)
  return {
    ...lineOf(kind, asked, {
      text: contentText(message.content) || textOf(message.refusal),
      thinking: thinkingOf(message),
      toolCalls: kind === 'chat' ? wholeCalls(message).map(callOf) : [],
    }),
    ...(logprobs.length === 0 ? {} : { logprobs }),
    ...endOf(choice.finish_reason, isRecord(chat.usage) ? chat.usage : {}),
  }
}

type Said = { text: string; thinking: string; toolCalls: readonly Json[] }

/** What each document and each line begins with. */
function lineOf(kind: OllamaKind, asked: Asked, { text, thinking, toolCalls }: Said): Json {
  const head = { model: asked.alias, created_at: new Date(asked.nowMs).toISOString() }
  const thought = thinking === '' ? {} : { thinking }
  if (kind === 'generate') return { ...head, response: text, ...thought }
  const calls = toolCalls.length === 0 ? {} : { tool_calls: toolCalls }
  return { ...head, message: { role: 'assistant', content: text, ...thought, ...calls } }
}

/**
 * How a document ends, and a stream's last line. Durations are nanoseconds in Ollama; here they are 0: what a model server
 * spent is not known, and a clock has no place in a translator.
 */
function endOf(finishReason: unknown, usage: Json): Json {
  return {
    done: true,
    // Ollama has no reason of its own for tool calls.
    done_reason: finishReason === 'length' ? 'length' : 'stop',
    total_duration: 0,
    load_duration: 0,
    prompt_eval_count: promptTokensOf(usage).all,
    prompt_eval_duration: 0,
    eval_count: countOf(usage.completion_tokens),
    eval_duration: 0,
  }
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** source: `reasoning_content`: DeepSeek, SGLang; `reasoning`: newer vLLM, OpenRouter */
function thinkingOf(message: Json): string {
  return textOf(message.reasoning_content) || textOf(message.reasoning)
}

function logprobsOf(choice: Json): readonly unknown[] {
  const content = isRecord(choice.logprobs) ? choice.logprobs.content : undefined
  return Array.isArray(content) ? content : []
}

/** Ollama has one choice; others than the first are not what the caller asked for. */
function choiceOf(chat: Json): Json | undefined {
  const choices: readonly unknown[] = Array.isArray(chat.choices) ? chat.choices : []
  return choices.filter(isRecord).find(({ index }) => index === 0 || typeof index !== 'number')
}

/** A call as Ollama has it; with the id, as its newer servers, where the upstream gave one. */
function callOf({ id, name, args }: WholeCall): Json {
  return { ...(id === '' ? {} : { id }), function: { name, arguments: argumentsOf(args) } }
}

function argumentsOf(text: string): Json {
  try {
    const value = parseBounded(text)
    return isRecord(value) ? value : {}
  } catch {
    return {}
  }
}

class OllamaStream implements StreamTranslator {
  readonly #calls = new StreamedCalls()
  readonly #args = new Map<StreamedCall, string>()
  #finishReason: unknown
  #usage: Json = {}

  constructor(
    readonly kind: OllamaKind,
    readonly asked: Asked,
  ) {}

  chunk(chunk: Json): string {
    // Some servers count along in each chunk: the last is the one that counts.
    if (isRecord(chunk.usage)) this.#usage = chunk.usage
    const choice = choiceOf(chunk)
    if (choice === undefined) return ''
    if (typeof choice.finish_reason === 'string') this.#finishReason = choice.finish_reason
    if (!isRecord(choice.delta)) return ''
    const { delta } = choice
    if (this.kind === 'chat') {
      for (const { call, args } of this.#calls.read(delta)) this.#args.set(call, (this.#args.get(call) ?? '') + args)
    }
    const text = contentText(delta.content) || textOf(delta.refusal)
    const thinking = thinkingOf(delta)
    if (text === '' && thinking === '') return ''
    return this.#line({ text, thinking, toolCalls: [] }, logprobsOf(choice))
  }

  /** The last line has the counts, and clients read nothing behind it: so it waits until nothing more can come. */
  end(): string {
    const toolCalls: Json[] = []
    for (const [{ id, name }, args] of this.#args) if (name !== '') toolCalls.push(callOf({ id, name, args }))
    return (
      (toolCalls.length === 0 ? '' : this.#line({ text: '', thinking: '', toolCalls }, [])) +
      ndjson({
        ...lineOf(this.kind, this.asked, { text: '', thinking: '', toolCalls: [] }),
        ...endOf(this.#finishReason, this.#usage),
      })
    )
  }

  error(error: GatewayError): string {
    return ndjson(ollamaError(error))
  }

  #line(said: Said, logprobs: readonly unknown[]): string {
    const line = lineOf(this.kind, this.asked, said)
    return ndjson({ ...line, ...(logprobs.length === 0 ? {} : { logprobs }), done: false })
  }
}

function ndjson(line: Json): string {
  return `${JSON.stringify(line)}\n`
}

/** True when the caller only wants the model in memory, or out of it: there is nothing to ask a model. */
export function isLoadRequest({ messages, prompt }: Json): boolean {
  const hasNoMessages = messages === undefined || messages === null || (Array.isArray(messages) && messages.length === 0)
  return hasNoMessages && (prompt === undefined || prompt === null || prompt === '')
}

/** The answer to a load request, streaming or not. */
export function loadAnswer(body: Json, asked: Asked, kind: OllamaKind): Json {
  return {
    ...lineOf(kind, asked, { text: '', thinking: '', toolCalls: [] }),
    done: true,
    done_reason: isZeroDuration(body.keep_alive) ? 'unload' : 'load',
  }
}

/** in: `keep_alive`: seconds as a number, or a duration as Go writes it ("5m", "0s") */
function isZeroDuration(value: unknown): boolean {
  return value === 0 || (typeof value === 'string' && /^[-+]?[\d.]*0/.test(value) && !/[1-9]/.test(value))
}

/** POST /api/embed. `truncate` is dropped: model servers decide on their own. */
export function embedQuestion(body: Json): Json {
  booleanOf(body.truncate, 'truncate')
  recordOf(body.options, 'options')
  const dimensions = integerOf(body.dimensions, 'dimensions')
  return {
    model: body.model,
    input: inputOf(body.input),
    ...(dimensions === undefined ? {} : { dimensions }),
    encoding_format: 'float',
  }
}

function inputOf(input: unknown): string | readonly unknown[] {
  if (input === undefined || input === null) throw invalid('input', 'field missing')
  if (typeof input === 'string') return input
  if (!Array.isArray(input)) throw invalid('input', 'must be a string or an array of strings')
  if (input.length === 0) throw invalid('input', 'must not be empty')
  for (const [at, text] of input.entries()) if (typeof text !== 'string') throw invalid(`input[${at}]`, 'must be a string')
  return input
}

/** throws: upstream_decode_error where an embedding is no array */
export function embedAnswer(openai: Json, asked: Asked): Json {
  return {
    model: asked.alias,
    embeddings: embeddingsOf(openai),
    total_duration: 0,
    load_duration: 0,
    prompt_eval_count: isRecord(openai.usage) ? countOf(openai.usage.prompt_tokens) : 0,
  }
}

/** POST /api/embeddings, which Ollama has replaced and clients still use. */
export function oldEmbedQuestion(body: Json): Json {
  recordOf(body.options, 'options')
  const prompt = stringOf(body.prompt, 'prompt')
  if (prompt === undefined) throw invalid('prompt', 'field missing')
  return { model: body.model, input: prompt, encoding_format: 'float' }
}

/** throws: upstream_decode_error where there is no embedding */
export function oldEmbedAnswer(openai: Json): Json {
  const [embedding] = embeddingsOf(openai)
  if (embedding === undefined) throw new GatewayError('upstream_decode_error', 'the upstream answered without an embedding')
  return { embedding }
}

/** In the order of the inputs: it is `index` that says which is whose. */
function embeddingsOf({ data }: Json): (readonly unknown[])[] {
  const items = Array.isArray(data) ? data.filter(isRecord) : []
  return items
    .map((item, at) => ({ ...item, index: typeof item.index === 'number' ? item.index : at, embedding: item.embedding }))
    .sort((a, b) => a.index - b.index)
    .map(({ embedding }) => {
      if (Array.isArray(embedding)) return embedding
      throw new GatewayError('upstream_decode_error', 'the upstream answered with an embedding that is no array of numbers')
    })
}

/** What Ollama reads out of a model's file, which nobody here has. Clients expect the members. */
const NO_DETAILS = { parent_model: '', format: '', family: '', families: [], parameter_size: '', quantization_level: '' }

/** GET /api/tags */
export function tagsDocument(models: readonly { alias: string; createdMs: number }[]): Json {
  return {
    models: models.map(({ alias, createdMs }) => ({
      name: alias,
      model: alias,
      modified_at: new Date(createdMs).toISOString(),
      size: 0,
      // Of the name, since there is no file: clients tell models apart by it.
      digest: createHash('sha256').update(alias).digest('hex'),
      details: NO_DETAILS,
    })),
  }
}

/** GET /api/ps */
export function psDocument(): Json {
  return { models: [] }
}

/** POST /api/show. in: capabilities as Ollama names them: "completion", "tools", "vision", "thinking", "embedding" */
export function showDocument(alias: string, capabilities: readonly string[]): Json {
  return {
    modelfile: '',
    parameters: '',
    template: '',
    details: NO_DETAILS,
    // Some editors list models under this name.
    model_info: { 'general.basename': alias },
    capabilities,
  }
}

/** GET /api/version */
export function versionDocument(version: string): Json {
  return { version }
}
