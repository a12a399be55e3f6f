/** Ollama's own API, as far as it differs from the other dialects on the way through the gateway. */
import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test'
import { type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway } from '../gateway.ts'

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
