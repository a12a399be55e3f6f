/** Official clients on passthrough routes: what their vendors offer beyond the gateway's own endpoints, under the gateway's keys. */
import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test'
import Anthropic from '@anthropic-ai/sdk'
import OpenAI, { toFile } from 'openai'
import { chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { startGateway, type TestGateway, UPSTREAM_SECRET } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway

beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: upstream.url, apiKey: { allowed_routes: ['openai', 'claude'] } })
  const { id } = await gateway.addProviderKey({ provider: 'anthropic', adapter: undefined, secret: 'anthropic-secret' })
  await gateway.addRoute({ name: 'openai', path_prefix: '/openai', target_url: upstream.url })
  await gateway.addRoute({
    ...{ name: 'claude', path_prefix: '/claude', target_url: upstream.origin, provider_key_id: id },
    ...{ auth_mode: 'header_key', auth_header_name: 'x-gateway-key' },
  })
})
afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})
// A request that was left over would be charged to the next test.
afterEach(() => gateway.idle())

/** The version in the base is not doubled behind the target, which has one of its own. */
const openai = () => new OpenAI({ baseURL: `${gateway.url}/openai/v1`, apiKey: gateway.key, maxRetries: 0 })
const anthropic = (key: string | null) =>
  new Anthropic({ baseURL: `${gateway.url}/claude`, apiKey: 'unused', maxRetries: 0, defaultHeaders: { 'x-gateway-key': key } })

/** What the client threw; fails when it did not. */
async function thrown(call: PromiseLike<unknown>): Promise<unknown> {
  return await call.then(
    () => {
      throw new Error('the call went well')
    },
    (error: unknown) => error,
  )
}

test('OpenAI: a file is uploaded in parts, byte for byte, and listed', async () => {
  upstream.answer((_request, connection) => connection.json(200, { id: 'file-1', object: 'file' }))
  const bytes = Uint8Array.from({ length: 300 }, (_, index) => index % 256)
  const file = await openai().files.create({ file: await toFile(bytes, 'data.bin'), purpose: 'user_data' })
  expect(file.id).toBe('file-1')
  const sent = upstream.last()
  expect([sent.method, sent.path]).toEqual(['POST', '/v1/files'])
  expect(sent.header('authorization')).toBe(`Bearer ${UPSTREAM_SECRET}`)
  expect(sent.header('content-type')).toStartWith('multipart/form-data; boundary=')
  expect(Buffer.from(sent.bytes).includes(bytes)).toBe(true)
  upstream.answer((_request, connection) => connection.json(200, { object: 'list', data: [{ id: 'file-1' }] }))
  expect((await openai().files.list({ limit: 5 })).data).toMatchObject([{ id: 'file-1' }])
  expect(upstream.last().path).toBe('/v1/files?limit=5')
})

test("OpenAI: a stream arrives, and the server's id is the client's", async () => {
  const chunks = [chatChunk({ content: 'Hel' }), chatChunk({ content: 'lo' })]
  upstream.answer((_request, connection) => connection.sse(chunks, { headers: { 'x-request-id': 'req_upstream' } }))
  const { data, request_id } = await openai()
    .chat.completions.create({ model: 'gpt', messages: [{ role: 'user', content: 'Hi' }], stream: true })
    .withResponse()
  let text = ''
  for await (const chunk of data) text += chunk.choices[0]?.delta.content ?? ''
  expect([text, request_id]).toEqual(['Hello', 'req_upstream'])
})

test("OpenAI: the server's errors are its own, the gateway's are told as on any endpoint", async () => {
  upstream.answer((_request, connection) =>
    connection.json(404, { error: { message: 'No such file', type: 'invalid_request_error' } }),
  )
  const missing = await thrown(openai().files.retrieve('file-2'))
  expect(missing).toBeInstanceOf(OpenAI.NotFoundError)
  expect(String(missing)).toContain('No such file')
  const stranger = new OpenAI({ baseURL: `${gateway.url}/openai/v1`, apiKey: 'sk-wrong', maxRetries: 0 })
  expect(await thrown(stranger.files.list())).toBeInstanceOf(OpenAI.AuthenticationError)
})

test('Anthropic: messages stream with the key in a header of its own, and the vendor sees none of it', async () => {
  const message = {
    id: 'msg_1',
    type: 'message',
    role: 'assistant',
    model: 'claude',
    content: [],
    usage: { input_tokens: 3, output_tokens: 1 },
  }
  const events = [
    { type: 'message_start', message },
    { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
    { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'Hello' } },
    { type: 'content_block_stop', index: 0 },
    { type: 'message_delta', delta: { stop_reason: 'end_turn', stop_sequence: null }, usage: { output_tokens: 5 } },
    { type: 'message_stop' },
  ]
  upstream.answer(async (_request, connection) => {
    await connection.streamHead()
    for (const event of events) await connection.chunk(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`)
    await connection.endChunks()
  })
  const count = gateway.telemetry.records.length
  const stream = anthropic(gateway.key).messages.stream({
    model: 'claude',
    max_tokens: 9,
    messages: [{ role: 'user', content: 'Hi' }],
  })
  expect(await stream.finalText()).toBe('Hello')
  const sent = upstream.last()
  expect([sent.method, sent.path]).toEqual(['POST', '/v1/messages'])
  expect([sent.header('x-api-key'), sent.header('anthropic-version')]).toEqual(['anthropic-secret', '2023-06-01'])
  expect(JSON.stringify(sent.headers)).not.toContain(gateway.key)
  await gateway.idle()
  expect(gateway.telemetry.records.slice(count)).toMatchObject([{ promptTokens: 3, completionTokens: 5, isStream: true }])
})

test('Anthropic: without the header the client sees what is missing', async () => {
  const missing = await thrown(anthropic(null).models.list())
  expect(missing).toBeInstanceOf(Anthropic.AuthenticationError)
  expect(String(missing)).toContain('x-gateway-key')
})
