/** The Responses API of OpenAI's official client: bridged over chat, and relayed to a server that speaks it. */
import { beforeAll, describe, expect, test } from 'bun:test'
import OpenAI from 'openai'
import { ResponsesToolRunner } from 'openai/helpers/responses-tool-runner'
import { zodResponsesFunction, zodTextFormat } from 'openai/helpers/zod'
import { z } from 'zod'
import { ALIAS, UPSTREAM_MODEL } from '../gateway.ts'
import { AGENT_QUESTION, runAgent, startAgent, TOOL_NAMES, TOOLS, type ToolName } from './agent-scenario.ts'
import { choice, expectCut, oneTokenThen, oneTokenThenSilence, saying } from './engine.ts'
import { cutStream, gatewayForClients, thrown } from './harness.ts'
import { openAiClient } from './openai-client.ts'

const gateway = gatewayForClients()
let client: OpenAI
beforeAll(() => {
  client = openAiClient(gateway)
})

const QUESTION = { model: ALIAS, input: 'Say hello.' }
const responsesTool = (name: ToolName) => ({
  type: 'function' as const,
  name,
  description: TOOLS[name].description,
  parameters: { ...TOOLS[name].parameters },
  strict: false,
})
const RESPONSES_TOOLS = TOOL_NAMES.map(responsesTool)

test('responses.create is a chat upstream and a Response here', async () => {
  const response = await client.responses.create({ ...QUESTION, instructions: 'Be brief.' })
  const { object, status, model, output_text } = response
  expect({ object, status, model, output_text }).toEqual({
    object: 'response',
    status: 'completed',
    model: ALIAS,
    output_text: 'Hello from the private model.',
  })
  expect(response.usage).toMatchObject({ input_tokens: 5, output_tokens: 7, total_tokens: 12 })
  expect(gateway.upstream.last().path).toBe('/v1/chat/completions')
  expect(gateway.upstream.last().json()).toMatchObject({
    model: UPSTREAM_MODEL,
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Say hello.' },
    ],
  })
})

test('responses.stream tells thoughts, words and parallel calls as events in their order, and gives the whole response', async () => {
  gateway.upstream.answer(
    saying({
      reasoning: 'Where?',
      text: 'I look.',
      calls: ['Rīga', 'Oslo'].map((city, index) => ({ id: `call_${index}`, name: 'weather', input: { city } })),
      isInOrder: true,
    }),
  )
  const stream = client.responses.stream({ ...QUESTION, reasoning: { effort: 'low' }, tools: RESPONSES_TOOLS })
  const events = await Array.fromAsync(stream)
  type Types = OpenAI.Responses.ResponseStreamEvent['type'][]
  const call: Types = [
    'response.output_item.added',
    'response.function_call_arguments.delta',
    'response.function_call_arguments.delta',
  ]
  const callDone: Types = ['response.function_call_arguments.done', 'response.output_item.done']
  expect(events.map(({ type }) => type)).toEqual([
    'response.created',
    'response.in_progress',
    'response.output_item.added',
    'response.reasoning_text.delta',
    'response.reasoning_text.delta',
    'response.reasoning_text.done',
    'response.output_item.done',
    'response.output_item.added',
    'response.content_part.added',
    'response.output_text.delta',
    'response.output_text.delta',
    'response.output_text.done',
    'response.content_part.done',
    'response.output_item.done',
    ...call,
    ...call,
    ...callDone,
    ...callDone,
    'response.completed',
  ])
  expect(events.map(event => event.sequence_number)).toEqual(events.map((_event, index) => index))
  const response = await stream.finalResponse()
  expect(response).toMatchObject({ status: 'completed', model: ALIAS, usage: { input_tokens: 5, output_tokens: 7 } })
  expect(response.output).toMatchObject([
    { type: 'reasoning', content: [{ type: 'reasoning_text', text: 'Where?' }] },
    { type: 'message', content: [{ type: 'output_text', text: 'I look.' }] },
    { type: 'function_call', call_id: 'call_0', name: 'weather', arguments: '{"city":"Rīga"}' },
    { type: 'function_call', call_id: 'call_1', name: 'weather', arguments: '{"city":"Oslo"}' },
  ])
  expect(gateway.upstream.last().json()).toMatchObject({ stream: true, reasoning_effort: 'low' })
})

test('a token is with the caller before the next is sent', async () => {
  const { handler, proceed } = oneTokenThen([choice({ content: ' two' }, 'stop')])
  gateway.upstream.answer(handler)
  const deltas: string[] = []
  for await (const event of await client.responses.create({ ...QUESTION, stream: true })) {
    if (event.type !== 'response.output_text.delta') continue
    deltas.push(event.delta)
    proceed()
  }
  expect(deltas).toEqual(['one', ' two'])
})

describe('responses.parse', () => {
  test('reads what a schema asked for', async () => {
    gateway.upstream.answer(saying('{"city":"Riga"}'))
    const response = await client.responses.parse({
      ...QUESTION,
      text: { format: zodTextFormat(z.object({ city: z.string() }), 'place') },
    })
    expect(response.output_parsed).toEqual({ city: 'Riga' })
    expect(gateway.upstream.last().json()).toMatchObject({
      response_format: { type: 'json_schema', json_schema: { name: 'place', strict: true, schema: { required: ['city'] } } },
    })
  })

  test('reads the arguments of calls', async () => {
    gateway.upstream.answer(saying({ calls: [{ id: 'call_1', name: 'weather', input: { city: 'Rīga' } }] }))
    const { output } = await client.responses.parse({
      ...QUESTION,
      tools: [zodResponsesFunction({ name: 'weather', parameters: TOOLS.weather.schema })],
      tool_choice: { type: 'function', name: 'weather' },
    })
    expect(output).toMatchObject([{ type: 'function_call', call_id: 'call_1', parsed_arguments: { city: 'Rīga' } }])
    expect(gateway.upstream.last().json()).toMatchObject({
      tools: [{ type: 'function', function: { name: 'weather', strict: true } }],
      tool_choice: { type: 'function', function: { name: 'weather' } },
    })
  })
})

describe('an agent of six turns with parallel calls', () => {
  test('that streams makes the calls of the script, and gives the upstream each with its result', async () => {
    const input: OpenAI.Responses.ResponseInput = [{ role: 'user', content: AGENT_QUESTION }]
    await runAgent(gateway.upstream, async results => {
      for (const { id, content } of results) input.push({ type: 'function_call_output', call_id: id, output: content })
      const response = await client.responses.stream({ model: ALIAS, input, tools: RESPONSES_TOOLS }).finalResponse()
      // The client's own type of outputs has a member of its parser's in it.
      for (const item of response.output) {
        if (item.type === 'function_call') {
          const { call_id, name, arguments: args } = item
          input.push({ type: 'function_call', call_id, name, arguments: args })
        } else if (item.type === 'message' || item.type === 'reasoning') input.push(item)
      }
      const calls = response.output.filter(item => item.type === 'function_call')
      return {
        text: response.output_text,
        calls: calls.map(({ call_id, name, arguments: args }) => ({ id: call_id, name, input: JSON.parse(args) })),
      }
    })
  })

  test.each([false, true])('that is left to the tool runner does the same, streamed: %p', async isStreamed => {
    const agent = startAgent(gateway.upstream, { isStreamed })
    const functions = TOOL_NAMES.map(name => ({
      tool: { ...responsesTool(name) },
      execute: (input: Record<string, unknown>) => agent.carryOut(name, input),
    }))
    const runner = new ResponsesToolRunner({ functions })
    const response = await runner.run(client, { model: ALIAS, input: AGENT_QUESTION }, { stream: isStreamed })
    agent.expectDone(response.output_text)
  })
})

describe('errors are those of the client', () => {
  test('a wrong key', async () => {
    const error = await thrown(openAiClient(gateway, 'sk-wrong').responses.create(QUESTION))
    expect(error).toBeInstanceOf(OpenAI.AuthenticationError)
    expect(error).toMatchObject({ status: 401, type: 'invalid_api_key' })
  })

  test('a model that there is not', async () => {
    const error = await thrown(client.responses.create({ ...QUESTION, model: 'nope' }))
    expect(error).toBeInstanceOf(OpenAI.NotFoundError)
    expect(error).toMatchObject({ status: 404, message: expect.stringContaining('"nope"') })
  })

  test('a response of before is not there, and the error says what to do', async () => {
    const before = gateway.upstream.requests.length
    const error = await thrown(client.responses.create({ ...QUESTION, previous_response_id: 'resp_1' }))
    expect(error).toBeInstanceOf(OpenAI.BadRequestError)
    expect(error).toMatchObject({ param: 'previous_response_id', message: expect.stringContaining('`input`') })
    expect(gateway.upstream.requests.length).toBe(before)
  })

  test('an upstream that is too busy', async () => {
    gateway.upstream.answer((_request, connection) => connection.json(429, { error: { message: 'queue is full' } }))
    const error = await thrown(client.responses.create(QUESTION))
    expect(error).toBeInstanceOf(OpenAI.RateLimitError)
    expect(String(error)).toContain('queue is full')
  })

  test('an upstream that dies in mid-stream ends the stream with an error event, which the client throws', async () => {
    const text = await cutStream(gateway, '/v1/responses', { ...QUESTION, stream: true })
    expect(text).toContain('"delta":"one"')
    expect(text).toMatch(/event: error\ndata: {"type":"error","code":"transport_error",[^\n]*}\n\n$/)
    expect(text).not.toContain('response.completed')

    const seen = oneTokenThen()
    gateway.upstream.answer(seen.handler)
    const stream = client.responses.stream(QUESTION).on('response.output_text.delta', seen.proceed)
    expect(await thrown(stream.finalResponse())).toBeInstanceOf(OpenAI.APIError)
  })
})

test('a caller that leaves takes its upstream with it', async () => {
  gateway.upstream.answer(oneTokenThenSilence)
  await expectCut(gateway.upstream, async () => {
    for await (const event of await client.responses.create({ ...QUESTION, stream: true })) {
      if (event.type === 'response.output_text.delta') break
    }
  })
})

const RESPONSE = {
  id: 'resp_up',
  object: 'response',
  status: 'completed',
  model: UPSTREAM_MODEL,
  output: [
    {
      type: 'message',
      id: 'm',
      role: 'assistant',
      status: 'completed',
      content: [{ type: 'output_text', text: 'Hi', annotations: [] }],
    },
  ],
  usage: { input_tokens: 3, output_tokens: 4, total_tokens: 7, input_tokens_details: { cached_tokens: 2 } },
}

test.each([
  ['the label `openai` on the model', { provider: 'openai' }, {}],
  ['`response.native_responses` on the provider key', {}, { response: { native_responses: true } }],
])('with %s the question is relayed, and the answer byte for byte', async (name, model, key) => {
  const providerKeyId = await gateway.addProviderKey(key)
  const alias = `native ${name}`
  await gateway.addModel({ display_name: alias, provider_key_id: providerKeyId, ...model })
  const recorded = async ({ headers }: Response) => gateway.attemptOf(headers.get('x-aisix-request-id') ?? '')
  const answer = `${JSON.stringify(RESPONSE, null, 1)}\n`
  gateway.upstream.answer((_request, connection) => connection.send(200, answer, { 'content-type': 'application/json' }))
  const got = await gateway.post(
    '/v1/responses',
    `{"store":true, "model":${JSON.stringify(alias)}, "previous_response_id":"resp_0","input":"x"}`,
  )
  expect(await got.text()).toBe(answer)
  expect(gateway.upstream.last().path).toBe('/v1/responses')
  expect(gateway.upstream.last().text).toBe(
    `{"store":true, "model":"${UPSTREAM_MODEL}", "previous_response_id":"resp_0","input":"x"}`,
  )
  const counts = { prompt_tokens: 3, completion_tokens: 4, cached_prompt_tokens: 2 }
  const whole = await recorded(got)
  expect(whole).toMatchObject(counts)
  expect(whole.usage_estimated).toBeUndefined()

  const events = [
    { type: 'response.created', response: { ...RESPONSE, status: 'in_progress', usage: null } },
    { type: 'response.output_text.delta', delta: 'Grüße', item_id: 'm' },
    { type: 'response.completed', response: RESPONSE },
  ]
  const body = events.map(event => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join('')
  gateway.upstream.answer((_request, connection) => connection.send(200, body, { 'content-type': 'text/event-stream' }))
  const stream = await gateway.post('/v1/responses', { model: alias, input: 'x', stream: true })
  expect(await stream.text()).toBe(body)
  const streamed = await recorded(stream)
  expect(streamed).toMatchObject({ ...counts, stream: true })
  expect(streamed.usage_estimated).toBeUndefined()
})
