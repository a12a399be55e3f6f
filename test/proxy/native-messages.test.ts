/** Callers of Messages in front of an upstream that speaks it itself. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { chatAnswer, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway, UPSTREAM_MODEL, UPSTREAM_SECRET } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: upstream.url, providerKey: { adapter: 'anthropic' } })
})
afterEach(() => gateway.idle())
afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})

const MESSAGE = {
  id: 'msg_1',
  type: 'message',
  role: 'assistant',
  model: UPSTREAM_MODEL,
  content: [{ type: 'text', text: 'Grüße' }],
  stop_reason: 'end_turn',
  usage: { input_tokens: 5, output_tokens: 7, cache_read_input_tokens: 2 },
}
const BODY = `{"max_tokens":9, "model":"${ALIAS}","messages":[{"role":"user","content":[{"type":"text","text":"Hi","cache_control":{"type":"ephemeral"}}]}], "vendor": 1.0}`
const frames = (events: readonly Record<string, unknown>[]) =>
  events.map(event => `event: ${String(event.type)}\ndata: ${JSON.stringify(event)}\n\n`).join('')
/** What of them the caller gets: its own name for the model, all else as it is. */
const shown = (text: string) => text.replace(`"model":"${UPSTREAM_MODEL}"`, `"model":"${ALIAS}"`)
const EVENTS = [
  { type: 'message_start', message: { ...MESSAGE, content: [], usage: { input_tokens: 5, output_tokens: 1 } } },
  { type: 'ping' },
  { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
  { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'Grüße "type":"error" 🦊' } },
  { type: 'content_block_stop', index: 0 },
  { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 7 } },
  { type: 'message_stop' },
]

test('the body goes as it is but for the model, with the credential where Anthropic has it; the answer tells the alias', async () => {
  upstream.answer((_request, connection) => connection.json(200, MESSAGE))
  const got = await gateway.post('/v1/messages', BODY)
  expect(await got.text()).toBe(JSON.stringify({ ...MESSAGE, model: ALIAS }))
  const seen = upstream.last()
  expect(seen.path).toBe('/v1/messages')
  expect(seen.text).toBe(BODY.replace(ALIAS, UPSTREAM_MODEL))
  expect([seen.header('x-api-key'), seen.header('anthropic-version'), seen.header('authorization')]).toEqual([
    UPSTREAM_SECRET,
    '2023-06-01',
    undefined,
  ])
  await gateway.idle()
  expect(gateway.telemetry.records.at(-1)).toMatchObject({
    promptTokens: 7,
    completionTokens: 7,
    cachedTokens: 2,
    isEstimated: false,
  })
})

test('a model with the label `anthropic` is spoken to natively, whatever its provider key says', async () => {
  const key = await gateway.addProviderKey({ api_base: `${upstream.origin}/v2` })
  await gateway.addModel({ display_name: 'labelled', provider: 'anthropic', provider_key_id: key.id })
  upstream.answer((_request, connection) => connection.json(200, MESSAGE))
  await (await gateway.post('/v1/messages', BODY.replace(ALIAS, 'labelled'))).text()
  const seen = upstream.last()
  expect([seen.path, seen.header('x-api-key'), seen.header('authorization')]).toEqual([
    '/v2/v1/messages',
    UPSTREAM_SECRET,
    undefined,
  ])
})

describe('a stream', () => {
  test('is relayed byte for byte but for the model, however its bytes are cut, and counted', async () => {
    const bytes = Buffer.from(frames(EVENTS))
    for (const size of [1, 7, 64, bytes.length]) {
      upstream.answer(async (_request, connection) => {
        await connection.streamHead()
        for (let at = 0; at < bytes.length; at += size) await connection.chunk(bytes.subarray(at, at + size))
        await connection.endChunks()
      })
      const got = await gateway.post('/v1/messages', `${BODY.slice(0, -1)},"stream":true}`)
      expect(await got.text()).toBe(shown(bytes.toString()))
      await gateway.idle()
      expect(gateway.telemetry.records.at(-1)).toMatchObject({
        promptTokens: 5,
        completionTokens: 7,
        status: 200,
        isEstimated: false,
      })
    }
  })

  test('that ends before message_stop was cut: an error event, and the record says so', async () => {
    upstream.answer((_request, connection) =>
      connection.send(200, frames(EVENTS.slice(0, 4)), { 'content-type': 'text/event-stream' }),
    )
    const text = await (await gateway.post('/v1/messages', `${BODY.slice(0, -1)},"stream":true}`)).text()
    expect(text).toBe(
      `${shown(frames(EVENTS.slice(0, 4)))}event: error\ndata: {"type":"error","error":{"type":"api_error","message":"upstream ended the stream before its last event"}}\n\n`,
    )
    await gateway.idle()
    expect(gateway.telemetry.records.at(-1)).toMatchObject({ status: 502, errorClass: 'stream_aborted' })
  })

  test('whose first event is an error is an answer with its status', async () => {
    const error = { type: 'error', error: { type: 'rate_limit_error', message: 'slow down' } }
    upstream.answer((_request, connection) => connection.send(200, frames([error]), { 'content-type': 'text/event-stream' }))
    const got = await gateway.post('/v1/messages', `${BODY.slice(0, -1)},"stream":true}`)
    expect([got.status, await got.json()]).toMatchObject([429, { type: 'error', error: { type: 'rate_limit_error' } }])
  })
})

test('a group goes on from a server of Anthropic’s dialect to one of OpenAI’s', async () => {
  const key = await gateway.addProviderKey({ api_base: `${upstream.origin}/other/v1` })
  await gateway.addModel({ display_name: 'second', provider_key_id: key.id })
  await gateway.addGroup('both', { targets: [ALIAS, 'second'] })
  upstream.answer((request, connection) =>
    request.path === '/v1/messages' ? connection.json(529, {}) : connection.json(200, chatAnswer('from the other')),
  )
  const got = await gateway.post('/v1/messages', BODY.replace(ALIAS, 'both'))
  expect(await got.json()).toMatchObject({ model: 'both', content: [{ type: 'text', text: 'from the other' }] })
})

test('an event whose type stands last, behind others of that name, is read as what it is', async () => {
  const last = EVENTS.map(({ type, ...more }) => ({ ...more, type }))
  upstream.answer((_request, connection) => connection.send(200, frames(last), { 'content-type': 'text/event-stream' }))
  const got = await gateway.post('/v1/messages', `${BODY.slice(0, -1)},"stream":true}`)
  expect(await got.text()).toBe(shown(frames(last)))
  await gateway.idle()
  expect(gateway.telemetry.records.at(-1)).toMatchObject({
    promptTokens: 5,
    completionTokens: 7,
    status: 200,
    isEstimated: false,
  })
})

test('half an event is not relayed: the frame of the error would be part of it', async () => {
  upstream.answer((_request, connection) =>
    connection.send(200, `${frames(EVENTS.slice(0, 3))}event: content_block_delta\ndata: {"type":"cont`, {
      'content-type': 'text/event-stream',
    }),
  )
  const text = await (await gateway.post('/v1/messages', `${BODY.slice(0, -1)},"stream":true}`)).text()
  expect(text.startsWith(`${shown(frames(EVENTS.slice(0, 3)))}event: error\ndata: {"type":"error",`)).toBe(true)
})

test('an error without a type is an error: a status before all else, one event later', async () => {
  const error = `data: {"error":{"message":"bad thing"}}\n\ndata: [DONE]\n\n`
  upstream.answer((_request, connection) => connection.send(200, error, { 'content-type': 'text/event-stream' }))
  const first = await gateway.post('/v1/messages', `${BODY.slice(0, -1)},"stream":true}`)
  expect([first.status, await first.json()]).toMatchObject([502, { error: { message: 'upstream reported an error: bad thing' } }])
  upstream.answer((_request, connection) =>
    connection.send(200, frames(EVENTS.slice(0, 4)) + error, { 'content-type': 'text/event-stream' }),
  )
  const text = await (await gateway.post('/v1/messages', `${BODY.slice(0, -1)},"stream":true}`)).text()
  expect(text.match(/event: error/g)).toHaveLength(1)
  expect(text).toContain('in-band stream error: bad thing')
  expect(text).not.toContain('[DONE]')
})

test.each<[string, unknown, number, string]>([
  ['an error', { type: 'error', error: { type: 'api_error', message: 'x' } }, 502, 'api_error'],
  ['overloaded', { type: 'error', error: { type: 'overloaded_error', message: 'busy' } }, 503, 'overloaded_error'],
  ['no object', [1], 502, 'api_error'],
])('a whole answer that is %s is none', async (_name, answer, status, type) => {
  upstream.answer((_request, connection) => connection.json(200, answer))
  const got = await gateway.post('/v1/messages', BODY)
  expect([got.status, await got.json()]).toMatchObject([status, { type: 'error', error: { type } }])
})

test('count_tokens is asked of the server itself, and told as it says', async () => {
  upstream.answer((_request, connection) => connection.json(200, { input_tokens: 5, context_management: null }))
  const got = await gateway.post('/v1/messages/count_tokens', BODY)
  expect([await got.json(), got.headers.get('x-aisix-estimated')]).toEqual([{ input_tokens: 5, context_management: null }, null])
  expect([upstream.last().path, upstream.last().header('x-api-key')]).toEqual(['/v1/messages/count_tokens', UPSTREAM_SECRET])
  expect(upstream.last().text).toBe(BODY.replace(ALIAS, UPSTREAM_MODEL))
})
