/** Callers of Ollama's API in front of an Ollama server: relayed, so that what only it understands reaches it. */
import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test'
import { chatAnswer, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway, UPSTREAM_MODEL } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: upstream.url, model: { provider: 'ollama' } })
})
afterEach(() => gateway.idle())
afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})

const BODY = `{"options":{"num_ctx":9,"temperature":1.0}, "model":"${ALIAS}","messages":[{"role":"user","content":"Hi"}],"keep_alive":"5m","raw":true`
const LAST = {
  model: UPSTREAM_MODEL,
  done: true,
  done_reason: 'stop',
  total_duration: 12_345,
  prompt_eval_count: 5,
  eval_count: 7,
}
const lines = (values: readonly unknown[]) => values.map(each => `${JSON.stringify(each)}\n`).join('')
const SAID = [
  { model: UPSTREAM_MODEL, message: { role: 'assistant', content: 'Grüße' }, done: false },
  { model: UPSTREAM_MODEL, message: { role: 'assistant', content: ' 🦊' }, done: false },
]
const ndjson = { 'content-type': 'application/x-ndjson' }

test('the body goes as it is but for the model, and the answer tells the alias', async () => {
  upstream.answer((_request, connection) => connection.json(200, { ...LAST, message: { role: 'assistant', content: 'Hi' } }))
  const got = await gateway.post('/api/chat', `${BODY},"stream":false}`)
  expect(await got.json()).toMatchObject({ model: ALIAS, message: { content: 'Hi' }, done: true })
  expect(got.headers.get('x-aisix-warning')).toBeNull()
  expect(upstream.last().path).toBe('/api/chat')
  expect(upstream.last().text).toBe(`${BODY.replace(ALIAS, UPSTREAM_MODEL)},"stream":false}`)
  await gateway.idle()
  expect(gateway.telemetry.records.at(-1)).toMatchObject({ promptTokens: 5, completionTokens: 7, isEstimated: false })
})

test('a stream is relayed line by line, however its bytes are cut', async () => {
  const bytes = Buffer.from(lines([...SAID, LAST]))
  for (const size of [1, 7, bytes.length]) {
    upstream.answer(async (_request, connection) => {
      await connection.streamHead({ headers: ndjson })
      for (let at = 0; at < bytes.length; at += size) await connection.chunk(bytes.subarray(at, at + size))
      await connection.endChunks()
    })
    const got = await gateway.post('/api/chat', `${BODY}}`)
    expect(await got.text()).toBe(bytes.toString().replaceAll(UPSTREAM_MODEL, ALIAS))
    expect(got.headers.get('content-type')).toBe('application/x-ndjson')
    await gateway.idle()
    expect(gateway.telemetry.records.at(-1)).toMatchObject({
      promptTokens: 5,
      completionTokens: 7,
      isStream: true,
      isEstimated: false,
    })
  }
})

test('one that ends before its last line ends with an error, and an error line first is a status', async () => {
  upstream.answer((_request, connection) => connection.send(200, lines(SAID), ndjson))
  const text = await (await gateway.post('/api/chat', `${BODY}}`)).text()
  expect(text).toBe(
    `${lines(SAID).replaceAll(UPSTREAM_MODEL, ALIAS)}{"error":"upstream ended the stream before its last line"}\n`,
  )
  upstream.answer((_request, connection) => connection.send(200, lines([{ error: 'no memory' }]), ndjson))
  const got = await gateway.post('/api/chat', `${BODY}}`)
  expect([got.status, await got.json()]).toEqual([502, { error: 'upstream reported an error: no memory' }])
})

test('loading and unloading reaches the server', async () => {
  upstream.answer((_request, connection) => connection.json(200, { ...LAST, response: '', done_reason: 'unload' }))
  const got = await gateway.post('/api/generate', { model: ALIAS, keep_alive: 0, stream: false })
  expect(await got.json()).toMatchObject({ model: ALIAS, done_reason: 'unload' })
  expect(upstream.last().json()).toEqual({ model: UPSTREAM_MODEL, keep_alive: 0, stream: false })
})

test.each([
  ['/api/embed', '"input":["a","b"],"truncate":false,"dimensions":2', { embeddings: [[1.5], [2]], prompt_eval_count: 5 }, 5],
  ['/api/embeddings', '"prompt":"abcdefgh"', { embedding: [1.5] }, undefined],
])('embeddings of %s are asked for as they are, and counted', async (path, members, answer, promptTokens) => {
  upstream.answer((_request, connection) => connection.json(200, { model: UPSTREAM_MODEL, ...answer }))
  const body = `{"model":"${ALIAS}", ${members},"options":{"num_ctx":9},"keep_alive":"5m","stream":true}`
  const got = await gateway.post(path, body)
  expect(await got.json()).toEqual({ model: ALIAS, ...answer })
  expect(got.headers.get('x-aisix-warning')).toBeNull()
  expect([upstream.last().path, upstream.last().text]).toEqual([path, body.replace(ALIAS, UPSTREAM_MODEL)])
  await gateway.idle()
  expect(gateway.telemetry.records.at(-1)).toMatchObject({
    handler: 'ollama_embed',
    isStream: false,
    promptTokens: promptTokens ?? Math.ceil(body.length / 4),
    completionTokens: 0,
    isEstimated: promptTokens === undefined,
  })
})

test('embeddings of another server leave out what only Ollama knows, and say so', async () => {
  await gateway.addModel({ display_name: 'embedder' })
  upstream.answer((_request, connection) => connection.json(200, { object: 'list', data: [{ index: 0, embedding: [1] }] }))
  const ask = (more: Record<string, unknown>) => gateway.post('/api/embed', { model: 'embedder', input: 'a', ...more })
  const got = await ask({ keep_alive: 0, options: {}, truncate: true })
  expect(await got.json()).toMatchObject({ model: 'embedder', embeddings: [[1]] })
  expect(got.headers.get('x-aisix-warning')).toStartWith('keep_alive, options, truncate: ')
  expect(upstream.last().json()).toEqual({ model: UPSTREAM_MODEL, input: 'a', encoding_format: 'float' })
  expect((await ask({ truncate: null })).headers.get('x-aisix-warning')).toBeNull()
})

test('a group goes on from an Ollama server to another', async () => {
  await gateway.addModel({ display_name: 'second' })
  await gateway.addGroup('both', { targets: [ALIAS, 'second'] })
  upstream.answer((request, connection) =>
    request.path === '/api/chat' ? connection.json(500, { error: 'x' }) : connection.json(200, chatAnswer('from the other')),
  )
  const question = { model: 'both', messages: [{ role: 'user', content: 'Hi' }], stream: false, keep_alive: 1 }
  const got = await gateway.post('/api/chat', question)
  expect(await got.json()).toMatchObject({ model: 'both', message: { content: 'from the other' } })
  expect(got.headers.get('x-aisix-warning')).toContain('keep_alive')
})
