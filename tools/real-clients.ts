/**
 * The official clients against a real inference engine behind the gateway. What the engine says cannot be known, so the
 * checks are about everything else: shapes, the order of events, text at all, counts, and that an abort reaches the engine.
 */
import { createAnthropic } from '@ai-sdk/anthropic'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import Anthropic from '@anthropic-ai/sdk'
import { ChatOpenAI } from '@langchain/openai'
import { generateText, streamText } from 'ai'
import { Ollama } from 'ollama'
import OpenAI from 'openai'

export type RealTarget = {
  /** Address of the proxy listener. */
  url: string
  key: string
  alias: string
  /** A model that is slow enough for its callers to leave in mid-stream. */
  slowAlias: string
  /** How the engine saw each request end, oldest first; undefined where it cannot be asked. */
  ends: (() => Promise<(string | undefined)[]>) | undefined
  /** One line of the report. */
  check(claim: string, holds: boolean, seen?: string): void
}

const PROMPT = 'Say hello from the private model.'
const MESSAGES = [{ role: 'user' as const, content: PROMPT }]
const TOKENS_MAX = 30
/** Longer than any caller of an abort waits for. */
const TOKENS_LONG = 900
const NO_SUCH_MODEL = 'nobody-made-this'
const ENGINE_NOTICES_MS = 5_000

export async function officialClients(target: RealTarget): Promise<void> {
  // It would warn of each request that it does not know the model's limits.
  globalThis.AI_SDK_LOG_WARNINGS = false
  await anthropic(target)
  await openAi(target)
  await ollama(target)
  await aiSdk(target)
  await langChain(target)
}

type Counts = { input: number | undefined; output: number | undefined }

function checkAnswer({ check }: RealTarget, claim: string, text: string | null | undefined, { input, output }: Counts): void {
  check(claim, Boolean(text) && Number(input) > 0 && Number(output) > 0, `${input} and ${output} tokens`)
}

/** True when the texts match one of the patterns each, in this order; a pattern may match several in a row. */
function isInOrder(texts: readonly string[], patterns: readonly RegExp[]): boolean {
  let at = 0
  for (const pattern of patterns) {
    if (!pattern.test(texts[at] ?? '')) return false
    while (at < texts.length && pattern.test(texts[at] ?? '')) at += 1
  }
  return at === texts.length
}

/** Runs a call that leaves in mid-stream, and waits until the engine has noticed. Of an engine that cannot be asked nothing is said. */
async function checkAbort({ check, ends }: RealTarget, client: string, leave: () => Promise<unknown>): Promise<void> {
  if (!ends) return
  const before = (await ends()).length
  // Most clients throw what they were told to do.
  await leave().catch(() => {})
  const giveUpAt = performance.now() + ENGINE_NOTICES_MS
  for (;;) {
    const end = (await ends()).slice(before)[0]
    if (end !== undefined || performance.now() > giveUpAt) {
      return check(`${client}: an abort in mid-stream reaches the engine`, end === 'client closed', String(end))
    }
    await Bun.sleep(10)
  }
}

async function thrown(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => undefined,
    (error: unknown) => error,
  )
}

async function anthropic(target: RealTarget): Promise<void> {
  const { alias: model, slowAlias, check } = target
  const client = new Anthropic({ baseURL: target.url, apiKey: target.key, maxRetries: 0 })
  const question = { model, max_tokens: TOKENS_MAX, messages: MESSAGES }
  const textOf = ({ content }: Anthropic.Message) => content.map(block => (block.type === 'text' ? block.text : '')).join('')
  const countsOf = ({ usage }: Anthropic.Message) => ({ input: usage.input_tokens, output: usage.output_tokens })

  const whole = await client.messages.create(question)
  checkAnswer(target, '@anthropic-ai/sdk: messages.create', textOf(whole), countsOf(whole))
  const events: string[] = []
  const stream = client.messages.stream(question).on('streamEvent', ({ type }) => events.push(type))
  const message = await stream.finalMessage()
  checkAnswer(target, '@anthropic-ai/sdk: messages.stream', textOf(message), countsOf(message))
  check(
    '@anthropic-ai/sdk: its events come in order',
    isInOrder(events, [
      /^message_start$/,
      /^content_block_start$/,
      /^content_block_delta$/,
      /^content_block_stop$/,
      /^message_delta$/,
      /^message_stop$/,
    ]),
    `${events.length} events`,
  )
  const { input_tokens } = await client.messages.countTokens({ model, messages: MESSAGES })
  check('@anthropic-ai/sdk: countTokens', input_tokens > 0, `${input_tokens} tokens`)
  const error = await thrown(client.messages.create({ ...question, model: NO_SUCH_MODEL }))
  check('@anthropic-ai/sdk: an unknown model is a NotFoundError', error instanceof Anthropic.NotFoundError)
  await checkAbort(target, '@anthropic-ai/sdk', async () => {
    const leaving = client.messages.stream({ ...question, model: slowAlias, max_tokens: TOKENS_LONG })
    leaving.on('text', () => leaving.abort())
    await leaving.done()
  })
}

async function openAi(target: RealTarget): Promise<void> {
  const { alias: model, slowAlias, check } = target
  const client = new OpenAI({ baseURL: `${target.url}/v1`, apiKey: target.key, maxRetries: 0 })
  const question = { model, max_tokens: TOKENS_MAX, messages: MESSAGES }
  const countsOf = (usage: OpenAI.CompletionUsage | null | undefined) => ({
    input: usage?.prompt_tokens,
    output: usage?.completion_tokens,
  })
  const { choices, usage } = await client.chat.completions.create(question)
  checkAnswer(target, 'openai: chat.completions.create', choices[0]?.message.content, countsOf(usage))
  const streamed = await client.chat.completions
    .stream({ ...question, stream_options: { include_usage: true } })
    .finalChatCompletion()
  checkAnswer(target, 'openai: chat.completions.stream', streamed.choices[0]?.message.content, countsOf(streamed.usage))
  const error = await thrown(client.chat.completions.create({ ...question, model: NO_SUCH_MODEL }))
  check('openai: an unknown model is a NotFoundError', error instanceof OpenAI.NotFoundError)
  await checkAbort(target, 'openai, chat', async () => {
    const leaving = await client.chat.completions.create({
      ...{ ...question, model: slowAlias, max_tokens: TOKENS_LONG },
      stream: true,
    })
    for await (const { choices } of leaving) if (choices[0]?.delta.content) leaving.controller.abort()
  })

  const asked = { model, input: PROMPT, max_output_tokens: TOKENS_MAX }
  const response = await client.responses.create(asked)
  const { input_tokens: input, output_tokens: output } = { ...response.usage }
  checkAnswer(target, 'openai: responses.create', response.output_text, { input, output })
  const events = await Array.fromAsync(await client.responses.create({ ...asked, stream: true }))
  const text = events.map(event => (event.type === 'response.output_text.delta' ? event.delta : '')).join('')
  const last = events.at(-1)
  const final = last?.type === 'response.completed' || last?.type === 'response.incomplete' ? last.response : undefined
  checkAnswer(target, 'openai: responses.create, streamed', text, {
    input: final?.usage?.input_tokens,
    output: final?.usage?.output_tokens,
  })
  check(
    'openai: the events of a response come in order',
    isInOrder(
      events.map(({ type }) => type),
      [
        /^response\.created$/,
        /^response\.in_progress$/,
        /^response\.output_item\.added$/,
        /^response\.content_part\.added$/,
        /^response\.output_text\.delta$/,
        /^response\.output_text\.done$/,
        /^response\.content_part\.done$/,
        /^response\.output_item\.done$/,
        /^response\.(completed|incomplete)$/,
      ],
    ),
    `${events.length} events`,
  )
  await checkAbort(target, 'openai, responses', async () => {
    const leaving = await client.responses.create({ model: slowAlias, input: PROMPT, stream: true })
    for await (const { type } of leaving) if (type === 'response.output_text.delta') leaving.controller.abort()
  })
}

async function ollama(target: RealTarget): Promise<void> {
  const { alias: model, slowAlias, check } = target
  const client = new Ollama({ host: target.url, headers: { authorization: `Bearer ${target.key}` } })
  const options = { num_predict: TOKENS_MAX }
  check(
    'ollama: list names the model',
    (await client.list()).models.some(({ name }) => name === model || name === `${model}:latest`),
  )
  const chat = await client.chat({ model, messages: MESSAGES, options })
  checkAnswer(target, 'ollama: chat', chat.message.content, { input: chat.prompt_eval_count, output: chat.eval_count })
  const lines = await Array.fromAsync(await client.generate({ model, prompt: PROMPT, options, stream: true }))
  const last = lines.at(-1)
  const text = lines.map(({ response }) => response).join('')
  checkAnswer(target, 'ollama: generate, streamed', text, { input: last?.prompt_eval_count, output: last?.eval_count })
  check(
    'ollama: the last line alone is done',
    lines.every(({ done }, at) => done === (at === lines.length - 1)),
    `${lines.length} lines`,
  )
  await checkAbort(target, 'ollama', async () => {
    const leaving = await client.generate({
      ...{ model: slowAlias, prompt: PROMPT, options: { num_predict: TOKENS_LONG } },
      stream: true,
    })
    for await (const { response } of leaving) if (response) leaving.abort()
  })
}

async function aiSdk(target: RealTarget): Promise<void> {
  const settings = { baseURL: `${target.url}/v1`, apiKey: target.key }
  const models = {
    anthropic: createAnthropic(settings),
    'openai, responses': createOpenAI(settings).responses,
    'openai, chat': createOpenAI(settings).chat,
    'openai-compatible': createOpenAICompatible({ ...settings, name: 'aisix', includeUsage: true }),
  }
  for (const [provider, modelOf] of Object.entries(models)) {
    const question = { model: modelOf(target.alias), prompt: PROMPT, maxOutputTokens: TOKENS_MAX, maxRetries: 0 }
    const { text, usage } = await generateText(question)
    checkAnswer(target, `ai, ${provider}: generateText`, text, { input: usage.inputTokens, output: usage.outputTokens })
    const result = streamText(question)
    const streamed = (await Array.fromAsync(result.textStream)).join('')
    const counts = await result.usage
    checkAnswer(target, `ai, ${provider}: streamText`, streamed, { input: counts.inputTokens, output: counts.outputTokens })
    await checkAbort(target, `ai, ${provider}`, async () => {
      const controller = new AbortController()
      const model = modelOf(target.slowAlias)
      const leaving = streamText({ model, prompt: PROMPT, maxOutputTokens: TOKENS_LONG, abortSignal: controller.signal })
      for await (const _piece of leaving.textStream) controller.abort()
    })
  }
}

async function langChain(target: RealTarget): Promise<void> {
  for (const useResponsesApi of [false, true]) {
    const client = `@langchain/openai, ${useResponsesApi ? 'responses' : 'chat'}`
    const modelOf = (model: string, maxTokens: number) =>
      new ChatOpenAI({
        ...{ model, maxTokens, useResponsesApi, apiKey: target.key, maxRetries: 0 },
        configuration: { baseURL: `${target.url}/v1` },
      })
    const countsOf = (usage: { input_tokens: number; output_tokens: number } | undefined) => ({
      input: usage?.input_tokens,
      output: usage?.output_tokens,
    })
    const model = modelOf(target.alias, TOKENS_MAX)
    const whole = await model.invoke(PROMPT)
    checkAnswer(target, `${client}: invoke`, whole.text, countsOf(whole.usage_metadata))
    const chunks = await Array.fromAsync(await model.stream(PROMPT))
    const streamed = chunks.reduce((sum, chunk) => sum.concat(chunk))
    checkAnswer(target, `${client}: stream`, streamed.text, countsOf(streamed.usage_metadata))
    await checkAbort(target, client, async () => {
      const controller = new AbortController()
      const leaving = await modelOf(target.slowAlias, TOKENS_LONG).stream(PROMPT, { signal: controller.signal })
      for await (const { text } of leaving) if (text !== '') controller.abort()
    })
  }
}
