/** Callers without a key, where the operator lets them in. */
import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test'
import { chatAnswer, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway } from '../gateway.ts'
import { samplesOf } from '../telemetry/page.ts'

let upstream: FakeUpstream
const gateways: TestGateway[] = []
beforeAll(async () => {
  upstream = await fakeUpstream()
  upstream.answer((_request, connection) => connection.json(200, chatAnswer('x')))
})
afterEach(async () => {
  for (const gateway of gateways.splice(0)) {
    await gateway.idle()
    await gateway.stop()
  }
})
afterAll(() => upstream.stop())

async function start(members: Record<string, unknown> = {}, apiKey: Record<string, unknown> = {}) {
  const anonymous = { api_key_id: 'later', source_cidrs: ['127.0.0.0/8'], paths: ['/api/*', '/v1/models'], ...members }
  const gateway = await startGateway({ upstream: upstream.url, config: { proxy: { anonymous } }, apiKey })
  gateways.push(gateway)
  const rule = gateway.gateway.config.proxy.anonymous
  if (rule && members.api_key_id === undefined) rule.api_key_id = gateway.rows.apiKey.id
  const ask = (path: string, headers: Record<string, string> = {}) =>
    fetch(gateway.url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ model: ALIAS, prompt: 'x', messages: [{ role: 'user', content: 'x' }], stream: false }),
    }).then(async answer => ({ status: answer.status, text: await answer.text() }))
  return { gateway, ask }
}

test('act as the key that is named, on the listed paths', async () => {
  const { gateway, ask } = await start()
  expect((await ask('/api/chat')).status).toBe(200)
  expect((await fetch(`${gateway.url}/v1/models`)).status).toBe(200)
  await gateway.idle()
  expect(gateway.telemetry.records).toMatchObject([{ labels: { apiKeyId: gateway.rows.apiKey.id } }])
  const decisions = samplesOf(gateway.telemetry.registry.render()).filter(({ name }) => name === 'aisix_auth_decisions_total')
  expect(decisions).toMatchObject([{ labels: { method: 'anonymous', result: 'allowed', reason: 'none' }, value: 2 }])
})

test('are refused on other paths, and from other networks', async () => {
  const { ask } = await start()
  expect((await ask('/v1/chat/completions')).status).toBe(401)
  const elsewhere = await start({ source_cidrs: ['10.0.0.0/8'] })
  expect((await elsewhere.ask('/api/chat')).status).toBe(401)
})

test.each<Record<string, string>>([
  { authorization: 'Bearer sk-wrong' },
  { authorization: 'Basic x' },
  { 'x-api-key': 'sk-wrong' },
])('who shows %p is no such caller', async headers => {
  const { ask } = await start()
  expect((await ask('/api/chat', headers)).status).toBe(401)
})

test('have the rights and the state of the key', async () => {
  const limited = await start({}, { allowed_models: ['other'] })
  expect((await limited.ask('/api/chat')).status).toBe(403)
  const disabled = await start({}, { disabled: true })
  expect((await disabled.ask('/api/chat')).status).toBe(401)
})

test('a key that there is not lets nobody in, and says so', async () => {
  const { ask } = await start({ api_key_id: 'gone' })
  const { status, text } = await ask('/api/chat')
  expect(status).toBe(401)
  expect(text).toContain('proxy.anonymous.api_key_id names an API key that does not exist')
})

test('are nobody where the operator says nothing', async () => {
  const gateway = await startGateway({ upstream: upstream.url })
  gateways.push(gateway)
  expect((await fetch(`${gateway.url}/api/tags`)).status).toBe(401)
})
