/** Ollama's own API, as far as it differs from the other dialects on the way through the gateway. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, answerOf, startGateway, type TestGateway } from '../gateway.ts'

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

test('a request to load a model counts in the limits of its key, and asks nobody', async () => {
  const limited = 'sk-caller-limited-0001'
  await gateway.addApiKey(limited, { rate_limit: { rpm: 2, concurrency: 1 } })
  const load = (more: Record<string, unknown> = {}) =>
    gateway.post('/api/generate', { model: ALIAS, ...more }, { authorization: `Bearer ${limited}` })
  const before = upstream.requests.length
  expect(await (await load()).json()).toMatchObject({ model: ALIAS, done_reason: 'load' })
  // What is wrong uses up nothing.
  expect((await load({ prompt: 'Hi', format: 1 })).status).toBe(400)
  expect(await (await load({ keep_alive: 0 })).json()).toMatchObject({ done_reason: 'unload' })
  const refused = await load()
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, expect.any(String)])
  expect(upstream.requests.length).toBe(before)
})

describe('a name without a tag and the same with `:latest` are one', () => {
  const chat = async (model: string, headers: Record<string, string> = {}) => {
    const question = { model, messages: [{ role: 'user', content: 'Hi' }], stream: false }
    return await answerOf(await gateway.post('/api/chat', question, headers))
  }
  const upstreamModel = () => Reflect.get(Object(upstream.last().json()), 'model')
  beforeAll(async () => {
    await gateway.addModel({ display_name: 'tagged:latest', model_name: 'of-tagged' })
    await gateway.addModel({ display_name: 'both', model_name: 'of-both' })
    await gateway.addModel({ display_name: 'both:latest', model_name: 'of-both-latest' })
    await gateway.addModel({ display_name: 'small:7b', model_name: 'of-small' })
    await gateway.addModel({ display_name: 'host:5000/deep', model_name: 'of-deep' })
    await gateway.addModel({ display_name: 'pattern/*', model_name: 'of-*' })
  })

  test.each([
    [`${ALIAS}:latest`, 'org/upstream-model'],
    ['tagged', 'of-tagged'],
    ['tagged:latest', 'of-tagged'],
    ['both', 'of-both'],
    ['both:latest', 'of-both-latest'],
    ['host:5000/deep:latest', 'of-deep'],
    ['pattern/x:latest', 'of-x:latest'],
  ])('%s is served by %s, and the answer tells the name that was asked for', async (name, served) => {
    expect(await chat(name)).toMatchObject({ status: 200, body: { model: name } })
    expect(upstreamModel()).toBe(served)
    for (const [path, body] of [
      ['/api/generate', { prompt: 'Hi', stream: false }],
      ['/api/generate', {}],
      ['/api/show', {}],
    ] as const) {
      const answer = await answerOf(await gateway.post(path, { model: name, ...body }))
      expect(answer).toMatchObject({
        status: 200,
        body: path === '/api/show' ? { model_info: { 'general.basename': name } } : { model: name },
      })
    }
  })

  test('other tags are other models, and other paths know of none', async () => {
    expect((await chat('small')).status).toBe(404)
    expect((await chat(`${ALIAS}:7b`)).body).toEqual({ error: `model "${ALIAS}:7b" not found` })
    expect((await gateway.chat({ model: `${ALIAS}:latest` })).status).toBe(404)
  })

  test('rights and records are those of the alias', async () => {
    const key = 'sk-caller-alias-0001'
    await gateway.addApiKey(key, { allowed_models: [ALIAS] })
    expect((await chat(`${ALIAS}:latest`, { authorization: `Bearer ${key}` })).status).toBe(200)
    await gateway.idle()
    expect(gateway.telemetry.records.at(-1)).toMatchObject({ requestedModel: ALIAS })
    expect((await chat('tagged', { authorization: `Bearer ${key}` })).status).toBe(403)
  })

  test('models are listed with a tag', async () => {
    const { body } = await answerOf(await gateway.get('/api/tags'))
    const { models } = Object(body)
    const names: { name: string; model: string }[] = models
    expect(names.map(({ name }) => name).sort()).toEqual(
      ['both:latest', 'host:5000/deep:latest', 'small:7b', 'tagged:latest', `${ALIAS}:latest`].sort(),
    )
    for (const { name, model } of names) expect(model).toBe(name)
  })
})
