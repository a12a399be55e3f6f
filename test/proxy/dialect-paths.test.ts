/** What of a dialect the gateway does not have, and who is told in which dialect. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { ALIAS, answerOf, startGateway, type TestGateway } from '../gateway.ts'

let gateway: TestGateway
beforeAll(async () => {
  gateway = await startGateway()
})
afterAll(() => gateway.stop())

const ask = async (method: string, path: string, headers: Record<string, string> = {}) =>
  await answerOf(
    await fetch(gateway.url + path, {
      method,
      headers: { authorization: `Bearer ${gateway.key}`, ...headers },
      ...(method === 'POST' ? { body: '{}' } : {}),
    }),
  )

test.each([
  ['POST', '/v1/messages/batches', 'Message Batches'],
  ['GET', '/v1/messages/batches/msgbatch_1/results', 'Message Batches'],
  ['DELETE', '/v1/messages/batches/msgbatch_1', 'Message Batches'],
  ['POST', '/v1/messages/other', 'count_tokens'],
])('%s %s is not there, as Anthropic’s clients read it', async (method, path, words) => {
  const { status, headers, body } = await ask(method, path)
  expect([status, body]).toEqual([
    404,
    { type: 'error', error: { type: 'not_found_error', message: expect.stringContaining(words) } },
  ])
  expect(headers.get('request-id')).toBe(headers.get('x-aisix-request-id'))
})

test.each([
  ['GET', '/v1/responses/resp_1'],
  ['DELETE', '/v1/responses/resp_1'],
  ['POST', '/v1/responses/resp_1/cancel'],
  ['GET', '/v1/responses/resp_1/input_items'],
  ['POST', '/v1/responses/input_tokens'],
  ['POST', '/v1/responses/compact'],
])('%s %s is not there, as OpenAI’s clients read it', async (method, path) => {
  const { status, headers, body } = await ask(method, path)
  expect([status, body]).toEqual([
    404,
    { error: { type: 'invalid_request_error', message: expect.stringContaining('nothing stores responses') } },
  ])
  expect(headers.get('request-id')).toBeNull()
})

test.each([
  ['GET', '/api/nothing'],
  ['POST', '/api/me'],
])('%s %s is not there, as Ollama’s clients read it', async (method, path) => {
  expect(await ask(method, path)).toMatchObject({ status: 404, body: { error: expect.stringContaining('Ollama') } })
})

test('the head of what is not there has no body', async () => {
  expect(await ask('HEAD', '/api/nothing')).toMatchObject({ status: 404, text: '' })
})

test.each([
  ['GET', '/v1/messages', 'POST'],
  ['PUT', '/v1/messages/count_tokens', 'POST'],
  ['GET', '/v1/responses', 'POST'],
  ['DELETE', '/api/chat', 'POST'],
  ['POST', '/api/tags', 'GET, HEAD'],
])('%s %s is a wrong method, without a body', async (method, path, allow) => {
  const { status, text, headers } = await ask(method, path)
  expect([status, text, headers.get('allow')]).toEqual([405, '', allow])
})

test.each(['/v1/nothing', '/nothing', '/v1/messagesx', '/apix'])('%s is no part of a dialect: 404 without a body', async path => {
  expect(await ask('GET', path)).toMatchObject({ status: 404, text: '' })
})

test('passthrough routes below /api come before what is not there', async () => {
  await gateway.addRoute({ name: 'own', path_prefix: '/api/own', target_url: 'http://127.0.0.1:1' })
  expect((await ask('GET', '/api/own/x')).status).not.toBe(404)
})

describe('the models, asked for with a version of Anthropic’s API', () => {
  const version = { 'anthropic-version': '2023-06-01' }

  test('are listed as Anthropic lists its own', async () => {
    await gateway.addModel({ display_name: 'zeta' })
    await gateway.addModel({ display_name: 'vllm/*' })
    const { status, body, headers } = await ask('GET', '/v1/models?limit=1000', version)
    const startedAt = new Date(gateway.gateway.lifecycle.startedAtMs).toISOString()
    const model = (id: string) => ({ type: 'model', id, display_name: id, created_at: `${startedAt.slice(0, 19)}Z` })
    expect(status).toBe(200)
    expect(body).toMatchObject({ data: [model(ALIAS), model('zeta')], has_more: false, first_id: ALIAS, last_id: 'zeta' })
    expect(headers.get('request-id')).toBe(headers.get('x-aisix-request-id'))
    expect((await ask('GET', '/v1/models/vllm%2Fx', version)).body).toMatchObject(model('vllm/x'))
  })

  test('are none for a key that may use none', async () => {
    await gateway.addApiKey('sk-none', { allowed_models: [] })
    const { body } = await ask('GET', '/v1/models', { ...version, authorization: 'Bearer sk-none' })
    expect(body).toEqual({ data: [], has_more: false, first_id: null, last_id: null })
  })

  test('have errors of Anthropic’s', async () => {
    const missing = await ask('GET', '/v1/models/nope', version)
    expect([missing.status, missing.body]).toMatchObject([404, { type: 'error', error: { type: 'not_found_error' } }])
    expect(missing.headers.get('request-id')).toBeTruthy()
    const wrong = await ask('GET', '/v1/models', { ...version, authorization: 'Bearer sk-wrong' })
    expect([wrong.status, wrong.body]).toMatchObject([401, { type: 'error', error: { type: 'authentication_error' } }])
  })

  test('are OpenAI’s list for everybody else', async () => {
    const { body, headers } = await ask('GET', '/v1/models')
    expect([body, headers.get('request-id')]).toMatchObject([{ object: 'list' }, null])
  })
})
