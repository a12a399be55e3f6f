/** The AI SDK with its providers for OpenAI, for Anthropic and for OpenAI-compatible servers, in front of an upstream that speaks chat. */
import { describe, expect, test } from 'bun:test'
import { createAnthropic } from '@ai-sdk/anthropic'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { APICallError, embed, embedMany, generateObject, generateText, Output, stepCountIs, streamText, tool } from 'ai'
import { z } from 'zod'
import { ALIAS, UPSTREAM_MODEL } from '../gateway.ts'
import { AGENT_QUESTION, type AgentRun, startAgent, TOOLS } from './agent-scenario.ts'
import { choice, embedding, expectCut, oneTokenThen, oneTokenThenSilence, saying } from './engine.ts'
import { gatewayForClients, thrown } from './harness.ts'

// It would warn of each request that it does not know the model's limits.
globalThis.AI_SDK_LOG_WARNINGS = false

const gateway = gatewayForClients()

function compatible(apiKey = gateway.key) {
  const settings = { includeUsage: true, supportsStructuredOutputs: true }
  return createOpenAICompatible({ name: 'aisix', baseURL: gateway.openAiUrl, apiKey, ...settings })
}

function openAi(apiKey = gateway.key) {
  return createOpenAI({ baseURL: gateway.openAiUrl, apiKey })
}

const PROVIDERS = {
  anthropic: (apiKey?: string) => createAnthropic({ baseURL: gateway.openAiUrl, apiKey: apiKey ?? gateway.key })(ALIAS),
  responses: (apiKey?: string) => openAi(apiKey).responses(ALIAS),
  chat: (apiKey?: string) => openAi(apiKey).chat(ALIAS),
  compatible: (apiKey?: string) => compatible(apiKey)(ALIAS),
}

const Place = z.object({ city: z.string(), people: z.int() })
const RIGA = { city: 'Riga', people: 605_273 }

/** The agent's tools as the SDK has them. */
function toolsOf(agent: AgentRun) {
  const { weather, note } = TOOLS
  return {
    weather: tool({
      description: weather.description,
      inputSchema: weather.schema,
      execute: input => agent.carryOut('weather', input),
    }),
    note: tool({ description: note.description, inputSchema: note.schema, execute: input => agent.carryOut('note', input) }),
  }
}

describe.each(['anthropic', 'responses', 'chat', 'compatible'] as const)('the provider for %s', name => {
  const model = PROVIDERS[name]

  test('generateText gives text, usage and the reason of the end', async () => {
    const { text, usage, finishReason } = await generateText({ model: model(), prompt: 'Say hello.', system: 'Be brief.' })
    expect({ text, finishReason }).toEqual({ text: 'Hello from the private model.', finishReason: 'stop' })
    expect(usage).toMatchObject({ inputTokens: 5, outputTokens: 7, totalTokens: 12 })
    expect(gateway.upstream.last().json()).toMatchObject({
      model: UPSTREAM_MODEL,
      messages: [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'Say hello.' },
      ],
    })
  })

  test('streamText gives the text in its pieces, the first before the next is sent', async () => {
    const { handler, proceed } = oneTokenThen([choice({ content: ' 🦊' }, 'stop')])
    gateway.upstream.answer(handler)
    const { textStream, finishReason } = streamText({ model: model(), prompt: 'Say hello.' })
    const pieces: string[] = []
    for await (const piece of textStream) {
      pieces.push(piece)
      proceed()
    }
    expect(pieces).toEqual(['one', ' 🦊'])
    expect(await finishReason).toBe('stop')
  })

  test('streamText tells usage at the end', async () => {
    const result = streamText({ model: model(), prompt: 'Say hello.' })
    expect(await result.text).toBe('Hello from the private model.')
    expect(await result.usage).toMatchObject({ inputTokens: 5, outputTokens: 7 })
    expect(gateway.upstream.last().json()).toMatchObject({ stream: true, stream_options: { include_usage: true } })
  })

  test.each([false, true])(
    'an agent of six turns with parallel calls makes the calls of the script, streamed: %p',
    async isStreamed => {
      const agent = startAgent(gateway.upstream, { isStreamed })
      const question = {
        model: model(),
        prompt: AGENT_QUESTION,
        tools: toolsOf(agent),
        stopWhen: stepCountIs(9),
        // Else it sends references to items of responses that it believes to be stored.
        providerOptions: { openai: { store: false } },
      }
      agent.expectDone(isStreamed ? await streamText(question).text : (await generateText(question)).text)
    },
  )

  test('an abort in mid-stream ends the request upstream', async () => {
    gateway.upstream.answer(oneTokenThenSilence)
    await expectCut(gateway.upstream, async () => {
      const controller = new AbortController()
      const { textStream } = streamText({ model: model(), prompt: 'x', abortSignal: controller.signal })
      for await (const _piece of textStream) controller.abort()
    })
  })

  test('a wrong key is an APICallError with the status and the request id', async () => {
    const error = await thrown(generateText({ model: model('sk-nobody-made-this'), prompt: 'x', maxRetries: 0 }))
    if (!APICallError.isInstance(error)) throw new Error(`not an APICallError: ${error}`)
    expect(error).toMatchObject({ statusCode: 401, isRetryable: false, message: 'invalid API key' })
    expect(error.responseHeaders?.['x-aisix-request-id']).toMatch(/^[0-9a-f-]{36}$/)
  })

  test('a failure of the upstream is one that may be tried again', async () => {
    gateway.upstream.answer((_request, connection) => connection.json(503, { error: { message: 'loading the model' } }))
    const error = await thrown(generateText({ model: model(), prompt: 'x', maxRetries: 0 }))
    if (!APICallError.isInstance(error)) throw new Error(`not an APICallError: ${error}`)
    expect(error).toMatchObject({ statusCode: 502, isRetryable: true })
  })
})

describe('structured output', () => {
  test.each([
    ['responses', {}],
    ['chat', {}],
    ['compatible', {}],
    ['anthropic', { anthropic: { structuredOutputMode: 'outputFormat' } }],
  ] as const)(
    'of the provider for %s: the schema reaches the upstream, and the object comes back checked',
    async (name, providerOptions) => {
      gateway.upstream.answer(saying(JSON.stringify(RIGA)))
      const question = { model: PROVIDERS[name](), prompt: 'A city.', providerOptions }
      const { object } = await generateObject({ ...question, schema: Place })
      const { output } = await generateText({ ...question, output: Output.object({ schema: Place }) })
      expect([object, output]).toEqual([RIGA, RIGA])
      for (const seen of gateway.upstream.requests.slice(-2)) {
        expect(seen.json()).toMatchObject({
          response_format: { type: 'json_schema', json_schema: { schema: { required: ['city', 'people'] } } },
        })
      }
    },
  )

  test('of the provider for anthropic, unless it is told otherwise, is a tool that must be called', async () => {
    gateway.upstream.answer(saying({ calls: [{ id: 'call_1', name: 'json', input: RIGA }] }))
    const { object } = await generateObject({ model: PROVIDERS.anthropic(), prompt: 'A city.', schema: Place })
    expect(object).toEqual(RIGA)
    expect(gateway.upstream.last().json()).toMatchObject({
      tools: [{ type: 'function', function: { name: 'json', parameters: { required: ['city', 'people'] } } }],
      tool_choice: 'required',
    })
  })
})

// OpenAI's own providers have no place for them: its servers tell summaries alone.
test.each(['anthropic', 'compatible'] as const)('the provider for %s tells thoughts apart from text', async name => {
  for (const member of ['reasoning', 'reasoning_content']) {
    gateway.upstream.answer((_request, connection) =>
      connection.sse([choice({ [member]: 'Thinking.' }), choice({ content: 'Hello' }), choice({}, 'stop')]),
    )
    const result = streamText({ model: PROVIDERS[name](), prompt: 'Say hello.' })
    expect(await result.text).toBe('Hello')
    expect(await result.reasoningText).toBe('Thinking.')
  }
})

test.each([
  ['openai', () => openAi().embedding(ALIAS)],
  ['compatible', () => compatible().embeddingModel(ALIAS)],
])('embed and embedMany of the provider for %s give vectors and the tokens used', async (_name, model) => {
  gateway.upstream.answer(embedding)
  expect(await embed({ model: model(), value: 'hello' })).toMatchObject({ embedding: [0.5, 0], usage: { tokens: 2 } })
  const { embeddings } = await embedMany({ model: model(), values: ['hello', 'goodbye'] })
  expect(embeddings).toEqual([
    [0.5, 0],
    [0.5, -1],
  ])
})
