/** The AI SDK with its providers for Anthropic and for OpenAI's Responses, in front of an upstream that speaks chat alone. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { createAnthropic } from '@ai-sdk/anthropic'
import { createOpenAI } from '@ai-sdk/openai'
import { APICallError, generateText, streamText, tool } from 'ai'
import { z } from 'zod'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway, UPSTREAM_MODEL } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: upstream.url })
})
afterEach(() => gateway.idle())
afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})

const weather = tool({
  description: 'Weather of a city',
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `sunny in ${city}`,
})
const choice = (delta: Record<string, unknown>, finish_reason: string | null = null) =>
  chatChunk({}, { choices: [{ index: 0, delta, finish_reason }] })
const usageChunk = chatChunk({}, { choices: [], usage: { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 } })
const CALLS = ['Riga', 'Oslo'].map((city, index) => ({
  id: `call_${index}`,
  type: 'function',
  function: { name: 'weather', arguments: JSON.stringify({ city }) },
}))

const PROVIDERS = {
  anthropic: (apiKey: string) => createAnthropic({ baseURL: `${gateway.url}/v1`, apiKey })(ALIAS),
  responses: (apiKey: string) => createOpenAI({ baseURL: `${gateway.url}/v1`, apiKey }).responses(ALIAS),
  chat: (apiKey: string) => createOpenAI({ baseURL: `${gateway.url}/v1`, apiKey }).chat(ALIAS),
}

describe.each(['anthropic', 'responses', 'chat'] as const)('the provider for %s', name => {
  const model = (apiKey = gateway.key) => PROVIDERS[name](apiKey)

  test('generateText gives text, usage and the reason of the end', async () => {
    upstream.answer((_request, connection) => connection.json(200, chatAnswer('Grüße 🦊')))
    const { text, usage, finishReason } = await generateText({ model: model(), prompt: 'Say hello.', system: 'Be brief.' })
    expect({ text, finishReason }).toEqual({ text: 'Grüße 🦊', finishReason: 'stop' })
    expect(usage).toMatchObject({ inputTokens: 5, outputTokens: 7 })
    expect(upstream.last().json()).toMatchObject({
      model: UPSTREAM_MODEL,
      messages: [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'Say hello.' },
      ],
    })
  })

  test('streamText carries out two calls of one turn, and gives their results to the upstream', async () => {
    upstream.answerInTurn(
      (_request, connection) =>
        connection.sse([
          choice({ role: 'assistant', content: 'I look.' }),
          ...CALLS.map((call, index) => choice({ tool_calls: [{ index, ...call }] })),
          choice({}, 'tool_calls'),
          usageChunk,
        ]),
      (_request, connection) =>
        connection.sse([choice({ content: 'Sunny ' }), choice({ content: 'in both.' }, 'stop'), usageChunk]),
    )
    const result = streamText({
      model: model(),
      prompt: 'How is the weather?',
      tools: { weather },
      stopWhen: ({ steps }) => steps.length === 2,
      // Else it sends references to items of responses that it believes to be stored.
      providerOptions: { openai: { store: false } },
    })
    expect(await result.text).toBe('Sunny in both.')
    const [first] = await result.steps
    expect(first?.toolCalls).toMatchObject([{ input: { city: 'Riga' } }, { input: { city: 'Oslo' } }])
    const { messages } = Object(upstream.last().json())
    expect(messages.filter(({ role }: { role: string }) => role !== 'system')).toMatchObject([
      { role: 'user' },
      { role: 'assistant', tool_calls: CALLS },
      { role: 'tool', tool_call_id: 'call_0', content: 'sunny in Riga' },
      { role: 'tool', tool_call_id: 'call_1', content: 'sunny in Oslo' },
    ])
  })

  test('a wrong key is an APICallError with the status', async () => {
    const error = await generateText({ model: model('sk-wrong'), prompt: 'x', maxRetries: 0 }).then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    expect(APICallError.isInstance(error) && error.statusCode).toBe(401)
  })
})
