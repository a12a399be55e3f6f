/** The Responses API of OpenAI's official client: bridged over chat, and relayed to a server that speaks it. */
import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test'
import OpenAI from 'openai'
import { zodTextFormat } from 'openai/helpers/zod'
import { z } from 'zod'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway, UPSTREAM_MODEL } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
let client: OpenAI
beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: upstream.url })
  client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: gateway.key, maxRetries: 0 })
})
afterEach(() => gateway.idle())
afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})

const choice = (delta: Record<string, unknown>, finish_reason: string | null = null) =>
  chatChunk({}, { choices: [{ index: 0, delta, finish_reason }] })
const usageChunk = chatChunk({}, { choices: [], usage: { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 } })
const WEATHER = {
  type: 'function' as const,
  name: 'weather',
  parameters: { type: 'object', properties: { city: { type: 'string' } } },
  strict: false,
}

test('responses.create is a chat upstream and a Response here', async () => {
  upstream.answer((_request, connection) => connection.json(200, chatAnswer('Hello.')))
  const response = await client.responses.create({ model: ALIAS, instructions: 'Be brief.', input: 'Say hello.' })
  expect(response).toMatchObject({ object: 'response', status: 'completed', model: ALIAS, output_text: 'Hello.' })
  expect(response.usage).toMatchObject({ input_tokens: 5, output_tokens: 7, total_tokens: 12 })
  expect(upstream.last().path).toBe('/v1/chat/completions')
  expect(upstream.last().json()).toMatchObject({
    model: UPSTREAM_MODEL,
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Say hello.' },
    ],
  })
})

test('responses.parse reads what a schema asked for', async () => {
  upstream.answer((_request, connection) => connection.json(200, chatAnswer('{"city":"Riga"}')))
  const response = await client.responses.parse({
    model: ALIAS,
    input: 'Where?',
    text: { format: zodTextFormat(z.object({ city: z.string() }), 'place') },
  })
  expect(response.output_parsed).toEqual({ city: 'Riga' })
  expect(upstream.last().json()).toMatchObject({ response_format: { type: 'json_schema', json_schema: { name: 'place' } } })
})

test('an agent of six turns with two calls each, streamed, gives the upstream every call with its result', async () => {
  const TURNS = 6
  upstream.answer((request, connection) => {
    const { messages } = Object(request.json())
    const turn = messages.filter(({ role }: { role: string }) => role === 'assistant').length
    if (turn === TURNS) return connection.sse([choice({ content: 'done' }, 'stop'), usageChunk])
    const call = (index: number, more: Record<string, unknown>) => choice({ tool_calls: [{ index, ...more }] })
    const begun = (index: number) => ({
      id: `call_${turn}_${index}`,
      type: 'function',
      function: { name: 'weather', arguments: '' },
    })
    return connection.sse([
      call(0, begun(0)),
      call(0, { function: { arguments: '{"city":' } }),
      call(1, begun(1)),
      call(1, { function: { arguments: '{"city":"c1"}' } }),
      call(0, { function: { arguments: '"c0"}' } }),
      choice({}, 'tool_calls'),
      usageChunk,
    ])
  })
  const input: OpenAI.Responses.ResponseInput = [{ role: 'user', content: 'How is the weather?' }]
  let text = ''
  for (;;) {
    const response = await client.responses.stream({ model: ALIAS, input, tools: [WEATHER] }).finalResponse()
    const calls = response.output.filter(item => item.type === 'function_call')
    text = response.output_text
    if (calls.length === 0) break
    for (const { call_id, name, arguments: args } of calls) input.push({ type: 'function_call', call_id, name, arguments: args })
    for (const { call_id } of calls) input.push({ type: 'function_call_output', call_id, output: `sunny ${call_id}` })
  }
  expect(text).toBe('done')
  const { messages } = Object(upstream.last().json())
  const expected = Array.from({ length: TURNS }, (_, turn) => [
    {
      role: 'assistant',
      tool_calls: [
        { id: `call_${turn}_0`, function: { name: 'weather', arguments: '{"city":"c0"}' } },
        { id: `call_${turn}_1`, function: { name: 'weather', arguments: '{"city":"c1"}' } },
      ],
    },
    { role: 'tool', tool_call_id: `call_${turn}_0`, content: `sunny call_${turn}_0` },
    { role: 'tool', tool_call_id: `call_${turn}_1`, content: `sunny call_${turn}_1` },
  ]).flat()
  expect(messages.slice(1)).toMatchObject(expected)
})

test('a response of before is not there, and the error says what to do', async () => {
  const before = upstream.requests.length
  const error = await client.responses.create({ model: ALIAS, input: 'And now?', previous_response_id: 'resp_1' }).then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(OpenAI.BadRequestError)
  expect(String(error)).toContain('previous_response_id')
  expect(upstream.requests.length).toBe(before)
})

test('an upstream that dies in mid-stream ends the stream with an error event', async () => {
  upstream.answer(async (_request, connection) => {
    await connection.streamHead()
    await connection.chunk(`data: ${JSON.stringify(choice({ content: 'half' }))}\n\n`)
    await Bun.sleep(20)
    connection.reset()
  })
  const text = await (await gateway.post('/v1/responses', { model: ALIAS, input: 'x', stream: true })).text()
  expect(text).toContain('"delta":"half"')
  expect(text).toMatch(/event: error\ndata: {"type":"error","code":"transport_error",[^\n]*}\n\n$/)
  expect(text).not.toContain('response.completed')
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
])('with %s the question is relayed, and the answer byte for byte', async (_name, model, key) => {
  const providerKey = await gateway.addProviderKey({ api_base: upstream.url, ...key })
  const alias = `native ${_name}`
  await gateway.addModel({ display_name: alias, provider_key_id: providerKey.id, ...model })
  const answer = `${JSON.stringify(RESPONSE, null, 1)}\n`
  upstream.answer((_request, connection) => connection.send(200, answer, { 'content-type': 'application/json' }))
  const got = await gateway.post(
    '/v1/responses',
    `{"store":true, "model":${JSON.stringify(alias)}, "previous_response_id":"resp_0","input":"x"}`,
  )
  expect(await got.text()).toBe(answer)
  expect(upstream.last().path).toBe('/v1/responses')
  expect(upstream.last().text).toBe(`{"store":true, "model":"${UPSTREAM_MODEL}", "previous_response_id":"resp_0","input":"x"}`)
  await gateway.idle()
  expect(gateway.telemetry.records.at(-1)).toMatchObject({
    promptTokens: 3,
    completionTokens: 4,
    cachedTokens: 2,
    isEstimated: false,
  })

  const events = [
    { type: 'response.created', response: { ...RESPONSE, status: 'in_progress', usage: null } },
    { type: 'response.output_text.delta', delta: 'Grüße', item_id: 'm' },
    { type: 'response.completed', response: RESPONSE },
  ]
  const body = events.map(event => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`).join('')
  upstream.answer((_request, connection) => connection.send(200, body, { 'content-type': 'text/event-stream' }))
  const stream = await gateway.post('/v1/responses', { model: alias, input: 'x', stream: true })
  expect(await stream.text()).toBe(body)
  await gateway.idle()
  expect(gateway.telemetry.records.at(-1)).toMatchObject({
    promptTokens: 3,
    completionTokens: 4,
    isStream: true,
    isEstimated: false,
  })
})
