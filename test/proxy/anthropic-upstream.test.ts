/** Chat callers, and callers of other dialects, in front of an upstream that speaks Anthropic's Messages. */
import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test'
import OpenAI from 'openai'
import { chatAnswer, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway, UPSTREAM_MODEL, UPSTREAM_SECRET } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
let client: OpenAI
beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: `${upstream.origin}/v1`, providerKey: { adapter: 'anthropic' } })
  client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: gateway.key, maxRetries: 0 })
})
afterEach(() => gateway.idle())
afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})

const TOOL = { type: 'function' as const, function: { name: 'weather', parameters: { type: 'object', properties: {} } } }
const QUESTION = { model: ALIAS, messages: [{ role: 'user' as const, content: 'Grüße?' }] }
const MESSAGE = {
  id: 'msg_1',
  type: 'message',
  role: 'assistant',
  model: UPSTREAM_MODEL,
  content: [
    { type: 'thinking', thinking: 'hm', signature: 's' },
    { type: 'text', text: 'Grüße 🦊' },
    { type: 'tool_use', id: 'toolu_1', name: 'weather', input: { city: 'Riga' } },
  ],
  stop_reason: 'tool_use',
  usage: { input_tokens: 5, output_tokens: 7, cache_read_input_tokens: 3 },
}
const EVENTS = [
  {
    type: 'message_start',
    message: { ...MESSAGE, content: [], stop_reason: null, usage: { input_tokens: 5, output_tokens: 1 } },
  },
  { type: 'ping' },
  { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
  { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'Grüße' } },
  { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: ' 🦊' } },
  { type: 'content_block_stop', index: 0 },
  { type: 'content_block_start', index: 1, content_block: { type: 'tool_use', id: 'toolu_1', name: 'weather', input: {} } },
  { type: 'content_block_delta', index: 1, delta: { type: 'input_json_delta', partial_json: '{"city":' } },
  { type: 'content_block_delta', index: 1, delta: { type: 'input_json_delta', partial_json: '"Riga"}' } },
  { type: 'content_block_stop', index: 1 },
  { type: 'message_delta', delta: { stop_reason: 'tool_use' }, usage: { output_tokens: 7 } },
  { type: 'message_stop' },
]

test('a chat is asked as Messages, with the credential where Anthropic has it, and answered as a chat', async () => {
  upstream.answer((_request, connection) => connection.json(200, MESSAGE))
  const answer = await client.chat.completions.create({ ...QUESTION, tools: [TOOL], stop: 'END' })
  expect(answer).toMatchObject({
    id: 'msg_1',
    object: 'chat.completion',
    model: ALIAS,
    choices: [
      {
        finish_reason: 'tool_calls',
        message: {
          role: 'assistant',
          content: 'Grüße 🦊',
          reasoning_content: 'hm',
          tool_calls: [{ id: 'toolu_1', type: 'function', function: { name: 'weather', arguments: '{"city":"Riga"}' } }],
        },
      },
    ],
    usage: { prompt_tokens: 5, completion_tokens: 7, prompt_tokens_details: { cached_tokens: 3 } },
  })
  const seen = upstream.last()
  expect(seen.path).toBe('/v1/messages')
  expect([seen.header('x-api-key'), seen.header('anthropic-version'), seen.header('authorization')]).toEqual([
    UPSTREAM_SECRET,
    '2023-06-01',
    undefined,
  ])
  expect(seen.json()).toMatchObject({
    model: UPSTREAM_MODEL,
    max_tokens: 4096,
    messages: [{ role: 'user' }],
    stop_sequences: ['END'],
    tools: [{ name: 'weather' }],
  })
  await gateway.idle()
  expect(gateway.telemetry.records.at(-1)).toMatchObject({
    promptTokens: 8,
    completionTokens: 7,
    cachedTokens: 3,
    isEstimated: false,
  })
})

test('a stream of Messages is a stream of chunks, tool calls and usage among them', async () => {
  upstream.answer((_request, connection) => connection.sse(EVENTS, { done: null }))
  const stream = client.chat.completions.stream({ ...QUESTION, tools: [TOOL], stream_options: { include_usage: true } })
  const completion = await stream.finalChatCompletion()
  expect(completion.choices[0]).toMatchObject({
    finish_reason: 'tool_calls',
    message: {
      content: 'Grüße 🦊',
      tool_calls: [{ id: 'toolu_1', function: { name: 'weather', arguments: '{"city":"Riga"}' } }],
    },
  })
  expect([completion.model, completion.usage?.prompt_tokens, completion.usage?.completion_tokens]).toEqual([ALIAS, 5, 7])
  await gateway.idle()
  expect(gateway.telemetry.records.at(-1)).toMatchObject({ promptTokens: 5, completionTokens: 7, isEstimated: false })
})

test('a stream that ends before its last event was cut', async () => {
  upstream.answer((_request, connection) => connection.sse(EVENTS.slice(0, 5), { done: null }))
  const text = await (await gateway.chat({ stream: true })).text()
  expect(text).toContain(' 🦊')
  expect(text).toMatch(
    /event: error\ndata: {"error":{"message":"upstream ended the stream before its last event","type":"stream_aborted"}}\n\n$/,
  )
  expect(text).not.toContain('[DONE]')
})

test('an error event before anything else has its own status, one in the middle is an error event', async () => {
  const overloaded = { type: 'error', error: { type: 'rate_limit_error', message: 'slow down' } }
  upstream.answer((_request, connection) => connection.sse([overloaded], { done: null }))
  const first = await gateway.chat({ stream: true })
  expect([first.status, await first.json()]).toMatchObject([429, { error: { type: 'upstream_error' } }])
  upstream.answer((_request, connection) => connection.sse([...EVENTS.slice(0, 4), overloaded], { done: null }))
  const text = await (await gateway.chat({ stream: true })).text()
  expect(text).toContain('upstream reported an in-band stream error: slow down')
})

test('a refusal has the code that follows from its type', async () => {
  upstream.answer((_request, connection) =>
    connection.json(404, { type: 'error', error: { type: 'not_found_error', message: 'model: nope' } }),
  )
  const got = await gateway.chat()
  expect([got.status, await got.json()]).toMatchObject([
    404,
    { error: { message: 'model: nope', type: 'upstream_error', code: 'model_not_found' } },
  ])
})

test('what nests too deeply is refused, whoever sends it, and never an error of ours', async () => {
  const deep = `${'['.repeat(60_000)}${']'.repeat(60_000)}`
  upstream.answer((_request, connection) => connection.json(200, MESSAGE))
  const call = { id: 'a', type: 'function', function: { name: 'f', arguments: `{"a":${deep}}` } }
  const asked = await gateway.chat({
    messages: [
      { role: 'assistant', tool_calls: [call] },
      { role: 'tool', tool_call_id: 'a', content: 'x' },
    ],
  })
  expect(asked.status).toBeLessThan(500)
  const text = JSON.stringify(MESSAGE).replace('{"city":"Riga"}', `{"a":${deep}}`)
  upstream.answer((_request, connection) => connection.send(200, text, { 'content-type': 'application/json' }))
  const answered = await gateway.chat()
  expect([answered.status, await answered.json()]).toMatchObject([502, { error: { type: 'upstream_decode_error' } }])
})

test('a group of both dialects answers whoever is left', async () => {
  const openAi = await gateway.addProviderKey({ api_base: `${upstream.origin}/other/v1` })
  await gateway.addModel({ display_name: 'second', provider_key_id: openAi.id })
  await gateway.addGroup('both', { targets: [ALIAS, 'second'] })
  upstream.answer((request, connection) =>
    request.path === '/v1/messages' ? connection.json(500, {}) : connection.json(200, chatAnswer('from the other')),
  )
  const got = await client.chat.completions.create({ ...QUESTION, model: 'both' })
  expect(got.choices[0]?.message.content).toBe('from the other')
})
