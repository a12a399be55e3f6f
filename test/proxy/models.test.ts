import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { ALIAS, answerOf, startGateway, type TestGateway } from '../gateway.ts'

let gateway: TestGateway
beforeAll(async () => {
  gateway = await startGateway({ clock: { now: () => 1_900_000_000_999, monotonic: () => performance.now() } })
  await gateway.addModel({ display_name: 'zeta', provider: 'sglang' })
  await gateway.addModel({ display_name: 'Beta', provider: 'ollama' })
  await gateway.addModel({ display_name: 'org/beta:7b', provider: 'ollama' })
  await gateway.addModel({ display_name: 'vllm/*', provider: 'vllm' })
  await gateway.addModel({ display_name: 'elsewhere', allowed_cidrs: ['10.0.0.0/8'] })
  await gateway.addApiKey('sk-few', { allowed_models: ['zeta', 'vllm/*'] })
  await gateway.addApiKey('sk-none', { allowed_models: [] })
})
afterAll(() => gateway.stop())

async function get(path: string, key = gateway.key) {
  return await answerOf(await gateway.get(path, { authorization: `Bearer ${key}` }))
}

describe('GET /v1/models', () => {
  test('lists what the key may use, sorted, patterns left out', async () => {
    const { status, body } = await get('/v1/models')
    expect(status).toBe(200)
    expect(body).toEqual({
      object: 'list',
      data: [
        { id: 'Beta', object: 'model', created: 1_900_000_000, owned_by: 'ollama' },
        { id: ALIAS, object: 'model', created: 1_900_000_000, owned_by: 'vllm' },
        { id: 'elsewhere', object: 'model', created: 1_900_000_000, owned_by: 'vllm' },
        { id: 'org/beta:7b', object: 'model', created: 1_900_000_000, owned_by: 'ollama' },
        { id: 'zeta', object: 'model', created: 1_900_000_000, owned_by: 'sglang' },
      ],
    })
  })

  test('lists for another key what that one may use', async () => {
    expect((await get('/v1/models', 'sk-few')).body).toMatchObject({ data: [{ id: 'zeta' }] })
    expect((await get('/v1/models', 'sk-none')).body).toEqual({ object: 'list', data: [] })
  })

  test('is 401 without a key', async () => {
    expect((await get('/v1/models', 'sk-unknown')).status).toBe(401)
  })
})

describe('GET /v1/models/{id}', () => {
  test.each([
    ['zeta', 'zeta', 'sglang'],
    ['org/beta:7b', 'org/beta:7b', 'ollama'],
    ['org%2Fbeta%3A7b', 'org/beta:7b', 'ollama'],
    ['vllm/any/thing', 'vllm/any/thing', 'vllm'],
  ])('%s is a model', async (path, id, owned_by) => {
    const { status, body } = await get(`/v1/models/${path}`)
    expect(status).toBe(200)
    expect(body).toEqual({ id, object: 'model', created: 1_900_000_000, owned_by })
  })

  test.each([
    ['unknown', 404, 'model_not_found', 'model "unknown" not found'],
    ['%ff', 400, 'invalid_request_error', 'request payload is invalid: invalid path parameter'],
    ['elsewhere', 403, 'permission_denied', 'Access denied: your client IP is not allowed to access this model'],
  ])('%s is %d', async (path, status, type, message) => {
    expect(await get(`/v1/models/${path}`)).toMatchObject({ status, error: { type, message } })
  })

  test('of a model that the key may not use is 403', async () => {
    expect(await get('/v1/models/zeta', 'sk-none')).toMatchObject({ status: 403, error: { type: 'permission_denied' } })
  })

  test('asks for a key before it looks at the path', async () => {
    expect((await get('/v1/models/%ff', 'sk-unknown')).status).toBe(401)
  })
})
