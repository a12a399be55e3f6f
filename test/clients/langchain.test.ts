/** LangChain's client for OpenAI, over chat completions and over the Responses API, in front of an upstream that speaks chat alone. */
import { describe, expect, test } from 'bun:test'
import { AIMessageChunk, type BaseMessage, HumanMessage, SystemMessage, ToolMessage } from '@langchain/core/messages'
import { tool } from '@langchain/core/tools'
import { ChatOpenAI, type ChatOpenAIFields, OpenAIEmbeddings } from '@langchain/openai'
import { z } from 'zod'
import { ALIAS, UPSTREAM_MODEL, UPSTREAM_SECRET } from '../gateway.ts'
import { AGENT_QUESTION, CHAT_TOOLS, runAgent, TOOLS } from './agent-scenario.ts'
import { choice, embedding, expectCut, oneTokenThen, oneTokenThenSilence, saying } from './engine.ts'
import { gatewayForClients, thrown } from './harness.ts'

const gateway = gatewayForClients()

/** No retries: what a test asserts is the first answer. */
function modelOf(apiKey = gateway.key, more: ChatOpenAIFields = {}): ChatOpenAI {
  return new ChatOpenAI({ model: ALIAS, apiKey, maxRetries: 0, configuration: { baseURL: gateway.openAiUrl }, ...more })
}

const DIALECTS = {
  'chat completions': (apiKey?: string, model = ALIAS) => modelOf(apiKey, { model }),
  'the Responses API': (apiKey?: string, model = ALIAS) => modelOf(apiKey, { model, useResponsesApi: true }),
}

describe.each(['chat completions', 'the Responses API'] as const)('over %s', dialect => {
  const model = DIALECTS[dialect]

  test('invoke gives text and usage; the upstream is asked for a chat with its own model and credential', async () => {
    const answer = await model().invoke([new SystemMessage('Be brief.'), new HumanMessage('Say hello.')])
    expect(answer.text).toBe('Hello from the private model.')
    expect(answer.usage_metadata).toMatchObject({ input_tokens: 5, output_tokens: 7, total_tokens: 12 })
    const seen = gateway.upstream.last()
    expect(seen.path).toBe('/v1/chat/completions')
    expect(seen.header('authorization')).toBe(`Bearer ${UPSTREAM_SECRET}`)
    expect(seen.json()).toMatchObject({
      model: UPSTREAM_MODEL,
      messages: [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'Say hello.' },
      ],
    })
  })

  test('stream gives the text in its pieces, the first before the next is sent', async () => {
    const { handler, proceed } = oneTokenThen([choice({ content: ' 🦊' }, 'stop')])
    gateway.upstream.answer(handler)
    const pieces: string[] = []
    for await (const { text } of await model().stream('Say hello.')) {
      if (text === '') continue
      pieces.push(text)
      proceed()
    }
    expect(pieces).toEqual(['one', ' 🦊'])
  })

  test('stream tells usage at the end', async () => {
    const chunks = await Array.fromAsync(await model().stream('Say hello.'))
    const whole = chunks.reduce((sum, chunk) => sum.concat(chunk))
    expect(whole.text).toBe('Hello from the private model.')
    expect(whole.usage_metadata).toMatchObject({ input_tokens: 5, output_tokens: 7, total_tokens: 12 })
    expect(gateway.upstream.last().json()).toMatchObject({ stream: true, stream_options: { include_usage: true } })
  })

  test('bindTools: parallel calls come back with ids and arguments, and tools reach the upstream', async () => {
    const calls = ['Rīga', 'Oslo'].map((city, index) => ({ id: `call_${index}`, name: 'weather', input: { city } }))
    gateway.upstream.answer(saying({ text: 'I look.', calls }))
    const { description, schema, run } = TOOLS.weather
    const bound = model().bindTools([tool(run, { name: 'weather', description, schema })])
    const expected = calls.map(({ id, name, input }) => ({ id, name, args: input, type: 'tool_call' as const }))
    const answer = await bound.invoke('How is the weather?')
    expect([answer.text, answer.tool_calls]).toEqual(['I look.', expected])
    const chunks = await Array.fromAsync(await bound.stream('How is the weather?'))
    const whole = chunks.reduce((sum, chunk) => sum.concat(chunk))
    expect([whole.text, whole.tool_calls]).toEqual(['I look.', expected])
    expect(gateway.upstream.last().json()).toMatchObject({
      tools: [{ type: 'function', function: { name: 'weather', parameters: { properties: { city: { type: 'string' } } } } }],
    })
  })

  test('an agent of six turns with parallel calls, streamed, makes the calls of the script and gives the upstream each with its result', async () => {
    const bound = model().bindTools(CHAT_TOOLS)
    const messages: BaseMessage[] = [new HumanMessage(AGENT_QUESTION)]
    await runAgent(gateway.upstream, async results => {
      for (const { id, content } of results) messages.push(new ToolMessage({ tool_call_id: id, content }))
      let answer = new AIMessageChunk('')
      for await (const chunk of await bound.stream(messages)) answer = answer.concat(chunk)
      messages.push(answer)
      const calls = answer.tool_calls ?? []
      return { text: answer.text, calls: calls.map(({ id = '', name, args }) => ({ id, name, input: args })) }
    })
  })

  test('withStructuredOutput: the schema reaches the upstream, and the object comes back checked', async () => {
    gateway.upstream.answer(saying('{"city":"Riga","people":605273}'))
    const Place = z.object({ city: z.string(), people: z.int() })
    const structured = model().withStructuredOutput(Place, { name: 'place', method: 'jsonSchema' })
    expect(await structured.invoke('A city.')).toEqual({ city: 'Riga', people: 605_273 })
    expect(gateway.upstream.last().json()).toMatchObject({
      response_format: { type: 'json_schema', json_schema: { name: 'place', schema: { required: ['city', 'people'] } } },
    })
  })

  test('withStructuredOutput by a function that must be called', async () => {
    const input = { city: 'Riga', people: 605_273 }
    gateway.upstream.answer(saying({ calls: [{ id: 'call_1', name: 'place', input }] }))
    const Place = z.object({ city: z.string(), people: z.int() })
    const structured = model().withStructuredOutput(Place, { name: 'place', method: 'functionCalling' })
    expect(await structured.invoke('A city.')).toEqual(input)
    expect(gateway.upstream.last().json()).toMatchObject({
      tools: [{ function: { name: 'place' } }],
      tool_choice: { type: 'function', function: { name: 'place' } },
    })
  })

  test('errors have their status and the code that LangChain gives them', async () => {
    const wrongKey = await thrown(model('sk-nobody-made-this').invoke('x'))
    expect(wrongKey).toMatchObject({ status: 401, lc_error_code: 'MODEL_AUTHENTICATION' })
    const wrongModel = await thrown(model(gateway.key, 'no-such-model').invoke('x'))
    expect(wrongModel).toMatchObject({ status: 404, lc_error_code: 'MODEL_NOT_FOUND' })
    expect(String(wrongModel)).toContain('model "no-such-model" not found')
    gateway.upstream.answer((_request, connection) => connection.json(429, { error: { message: 'queue is full' } }))
    expect(await thrown(model().invoke('x'))).toMatchObject({ status: 429, lc_error_code: 'MODEL_RATE_LIMIT' })
  })

  test('a stream that the upstream cuts is an error after what had come', async () => {
    const { handler, proceed: cut } = oneTokenThen()
    gateway.upstream.answer(handler)
    const pieces: string[] = []
    const reading = async () => {
      for await (const { text } of await model().stream('x')) {
        if (text === '') continue
        pieces.push(text)
        cut()
      }
    }
    expect(String(await thrown(reading()))).toContain('transport error')
    expect(pieces).toEqual(['one'])
  })

  test('an abort in mid-stream ends the request upstream', async () => {
    gateway.upstream.answer(oneTokenThenSilence)
    await expectCut(gateway.upstream, async () => {
      const controller = new AbortController()
      const reading = async () => {
        for await (const { text } of await model().stream('x', { signal: controller.signal })) if (text !== '') controller.abort()
      }
      expect(await thrown(reading())).toMatchObject({ message: expect.stringMatching(/abort/i) })
    })
  })
})

test('OpenAIEmbeddings gives a vector for a query and one for each document', async () => {
  gateway.upstream.answer(embedding)
  const embeddings = new OpenAIEmbeddings({
    ...{ model: ALIAS, apiKey: gateway.key, maxRetries: 0 },
    configuration: { baseURL: gateway.openAiUrl },
  })
  expect([...(await embeddings.embedQuery('hello'))]).toEqual([0.5, -0])
  const documents = await embeddings.embedDocuments(['hello', 'goodbye'])
  expect(documents.map(vector => [...vector])).toEqual([
    [0.5, -0],
    [0.5, -1],
  ])
  expect(gateway.upstream.last().json()).toMatchObject({ model: UPSTREAM_MODEL, input: ['hello', 'goodbye'] })
})
