/** The AI SDK with its provider for OpenAI-compatible servers against a real gateway. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'bun:test'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { APICallError, embed, embedMany, generateObject, generateText, Output, streamText, tool } from 'ai'
import { z } from 'zod'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway, UPSTREAM_MODEL } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway

beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: upstream.url })
})

afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})

beforeEach(() => upstream.answer((_request, connection) => connection.json(200, chatAnswer('Hello from here.'))))
// A request that was left over would be charged to the next test.
afterEach(() => gateway.idle())

function provider(apiKey = gateway.key) {
  return createOpenAICompatible({
    name: 'aisix',
    baseURL: `${gateway.url}/v1`,
    apiKey,
    includeUsage: true,
    supportsStructuredOutputs: true,
  })
}

const City = z.object({ city: z.string(), people: z.int() })
const weather = tool({
  description: 'Weather of a city',
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `sunny in ${city}`,
})

test('generateText gives text, usage and the reason of the end', async () => {
  const { text, usage, finishReason, response } = await generateText({ model: provider()(ALIAS), prompt: 'Say hello.' })
  expect({ text, finishReason }).toEqual({ text: 'Hello from here.', finishReason: 'stop' })
  expect(usage).toMatchObject({ inputTokens: 5, outputTokens: 7, totalTokens: 12 })
  expect(response.modelId).toBe(ALIAS)
  expect(upstream.last().json()).toMatchObject({ model: UPSTREAM_MODEL })
})

test('streamText gives the text in its pieces, and usage at the end', async () => {
  upstream.answer((_request, connection) =>
    connection.sse([
      chatChunk({ role: 'assistant', content: 'Hel' }),
      chatChunk({ content: 'lo 🚀' }),
      chatChunk({}, { choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }),
      chatChunk({}, { choices: [], usage: { prompt_tokens: 5, completion_tokens: 2, total_tokens: 7 } }),
    ]),
  )
  const result = streamText({ model: provider()(ALIAS), prompt: 'Say hello.' })
  expect(await Array.fromAsync(result.textStream)).toEqual(['Hel', 'lo 🚀'])
  expect(await result.finishReason).toBe('stop')
  expect(await result.usage).toMatchObject({ inputTokens: 5, outputTokens: 2 })
  expect(upstream.last().json()).toMatchObject({ stream: true, stream_options: { include_usage: true } })
})

test('reasoning that an engine sends as `reasoning` or `reasoning_content` is told apart from text', async () => {
  for (const name of ['reasoning', 'reasoning_content']) {
    upstream.answer((_request, connection) =>
      connection.sse([
        chatChunk({ role: 'assistant', [name]: 'Thinking.' }),
        chatChunk({ content: 'Hello' }),
        chatChunk({}, { choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }),
      ]),
    )
    const result = streamText({ model: provider()(ALIAS), prompt: 'Say hello.' })
    expect(await result.text).toBe('Hello')
    expect(await result.reasoningText).toBe('Thinking.')
  }
})

/** A tool call in the first turn, text in the second, streamed or not as the request asks. */
function answerWithToolCall(): void {
  const call = { id: 'call_1', type: 'function', function: { name: 'weather', arguments: '{"city":"Riga"}' } }
  upstream.answerInTurn(
    (request, connection) =>
      request.text.includes('"stream":true')
        ? connection.sse([
            chatChunk({
              role: 'assistant',
              tool_calls: [{ index: 0, ...call, function: { name: 'weather', arguments: '{"city":' } }],
            }),
            chatChunk({ tool_calls: [{ index: 0, function: { arguments: '"Riga"}' } }] }),
            chatChunk({}, { choices: [{ index: 0, delta: {}, finish_reason: 'tool_calls' }] }),
          ])
        : connection.json(
            200,
            chatAnswer('', {
              choices: [
                { index: 0, message: { role: 'assistant', content: null, tool_calls: [call] }, finish_reason: 'tool_calls' },
              ],
            }),
          ),
    (request, connection) =>
      request.text.includes('"stream":true')
        ? connection.sse([
            chatChunk({ role: 'assistant', content: 'It is sunny.' }),
            chatChunk({}, { choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }),
          ])
        : connection.json(200, chatAnswer('It is sunny.')),
  )
}

test('generateText with a tool: the call is carried out, and its result reaches the upstream', async () => {
  answerWithToolCall()
  const { text, steps } = await generateText({
    model: provider()(ALIAS),
    prompt: 'How is the weather?',
    tools: { weather },
    stopWhen: ({ steps }) => steps.length === 2,
  })
  expect(text).toBe('It is sunny.')
  expect(steps[0]?.toolCalls).toMatchObject([{ toolName: 'weather', input: { city: 'Riga' } }])
  expect(upstream.last().json()).toMatchObject({
    messages: [
      { role: 'user' },
      { role: 'assistant', tool_calls: [{ id: 'call_1' }] },
      { role: 'tool', tool_call_id: 'call_1', content: 'sunny in Riga' },
    ],
  })
})

test('streamText with a tool: the call is put together from its deltas and carried out', async () => {
  answerWithToolCall()
  const result = streamText({
    model: provider()(ALIAS),
    prompt: 'How is the weather?',
    tools: { weather },
    stopWhen: ({ steps }) => steps.length === 2,
  })
  expect(await result.text).toBe('It is sunny.')
  const steps = await result.steps
  expect(steps[0]?.toolResults).toMatchObject([{ toolName: 'weather', output: 'sunny in Riga' }])
})

test('structured output: the schema reaches the upstream, and the object comes back checked', async () => {
  upstream.answer((_request, connection) => connection.json(200, chatAnswer('{"city":"Riga","people":605273}')))
  const expected = { city: 'Riga', people: 605_273 }
  const { object } = await generateObject({ model: provider()(ALIAS), schema: City, prompt: 'A city.' })
  expect(object).toEqual(expected)
  const { output } = await generateText({
    model: provider()(ALIAS),
    output: Output.object({ schema: City }),
    prompt: 'A city.',
  })
  expect(output).toEqual(expected)
  expect(upstream.last().json()).toMatchObject({
    response_format: { type: 'json_schema', json_schema: { schema: { required: ['city', 'people'] } } },
  })
})

test('embed and embedMany give vectors and the tokens used', async () => {
  upstream.answer((request, connection) => {
    const asked = z.object({ input: z.array(z.string()) }).parse(request.json())
    return connection.json(200, {
      object: 'list',
      data: asked.input.map((_text, index) => ({ object: 'embedding', index, embedding: [0.5, index] })),
      model: UPSTREAM_MODEL,
      usage: { prompt_tokens: asked.input.length, total_tokens: asked.input.length },
    })
  })
  const model = provider().embeddingModel(ALIAS)
  const one = await embed({ model, value: 'hello' })
  expect(one).toMatchObject({ embedding: [0.5, 0], usage: { tokens: 1 } })
  const { embeddings } = await embedMany({ model, values: ['hello', 'goodbye'] })
  expect(embeddings).toEqual([
    [0.5, 0],
    [0.5, 1],
  ])
})

test('an error is an APICallError with status, message and the request id', async () => {
  const call = generateText({ model: provider('sk-nobody-made-this')(ALIAS), prompt: 'Say hello.', maxRetries: 0 })
  const error: unknown = await call.then(
    () => undefined,
    reason => reason,
  )
  if (!APICallError.isInstance(error)) throw new Error(`not an APICallError: ${error}`)
  expect(error).toMatchObject({ statusCode: 401, isRetryable: false, message: 'invalid API key' })
  expect(error.responseHeaders?.['x-aisix-request-id']).toMatch(/^[0-9a-f-]{36}$/)
})

test('a failure of the upstream is one that the client may try again', async () => {
  upstream.answer((_request, connection) => connection.json(503, { error: { message: 'loading the model' } }))
  const error: unknown = await generateText({ model: provider()(ALIAS), prompt: 'Say hello.', maxRetries: 0 }).then(
    () => undefined,
    reason => reason,
  )
  if (!APICallError.isInstance(error)) throw new Error(`not an APICallError: ${error}`)
  expect(error).toMatchObject({ statusCode: 502, isRetryable: true })
})
