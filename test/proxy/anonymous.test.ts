/** Callers without a key, where the operator lets them in. */
import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test'
import { chatAnswer, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, CALLER_KEY, startGateway, type TestGateway } from '../gateway.ts'
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

const decisions = (gateway: TestGateway) =>
  samplesOf(gateway.telemetry.registry.render()).filter(({ name }) => name === 'aisix_auth_decisions_total')

/** Of a refusal: one decision, one line of the log with its reason, and no record. */
async function expectDenied({ gateway, ask }: Awaited<ReturnType<typeof start>>, reason: string, method = 'anonymous') {
  const { status, text } = await ask('/api/chat')
  await gateway.idle()
  expect(status).toBe(401)
  expect(decisions(gateway)).toMatchObject([{ labels: { method, result: 'denied', reason }, value: 1 }])
  expect(gateway.telemetry.records).toEqual([])
  const lines = gateway.logs.filter(line => line.includes('auth rejected'))
  expect(lines).toHaveLength(1)
  return { text, line: lines[0] ?? '' }
}

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
  expect(gateway.telemetry.records).toMatchObject([
    { labels: { apiKeyId: gateway.rows.apiKey.id }, extra: { authType: 'anonymous' } },
  ])
  expect(decisions(gateway)).toMatchObject([{ labels: { method: 'anonymous', result: 'allowed', reason: 'none' }, value: 2 }])
})

test('are told apart in their records from callers who show the key, and share what is told of them', async () => {
  const { gateway, ask } = await start()
  const callers: Record<string, string>[] = [{}, { authorization: `Bearer ${CALLER_KEY}` }, {}]
  for (const headers of callers) {
    expect((await ask('/api/chat', headers)).status).toBe(200)
  }
  await gateway.idle()
  const [first, second, third] = gateway.telemetry.records.map(({ extra }) => extra)
  expect([first, second]).toEqual([{ authType: 'anonymous' }, undefined])
  expect(third).toBe(first)
  expect(Object.isFrozen(first)).toBe(true)
})

test('are refused on other paths, and from other networks', async () => {
  const { ask } = await start()
  expect((await ask('/v1/chat/completions')).status).toBe(401)
  const { text, line } = await expectDenied(await start({ source_cidrs: ['10.0.0.0/8'] }), 'source_not_allowed')
  // Nobody from elsewhere is told that there are networks that need no key.
  expect(JSON.parse(text)).toEqual({ error: 'missing or malformed Authorization header' })
  expect(line).toContain('reason="source_not_allowed" client_ip="127.0.0.1"')
})

test('on a path that is not listed are callers who sent no credential', async () => {
  await expectDenied(await start({ paths: ['/v1/models'] }), 'missing_credentials', 'none')
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
})

test.each([
  ['principal_disabled', {}, { disabled: true }, 'the API key of proxy.anonymous has been disabled'],
  ['principal_expired', {}, { expires_at: '2020-01-01T00:00:00Z' }, 'the API key of proxy.anonymous has expired'],
  ['principal_missing', { api_key_id: 'gone' }, {}, 'proxy.anonymous.api_key_id names an API key that does not exist'],
])('%s: nobody is let in, and callers, log and metrics are told why', async (reason, members, apiKey, message) => {
  const { text, line } = await expectDenied(await start(members, apiKey), reason)
  expect(JSON.parse(text)).toEqual({ error: message })
  expect(line).toContain(`reason="${reason}"`)
})

test('a key that shows the same flaw itself is told of as a key', async () => {
  const { gateway, ask } = await start({}, { disabled: true })
  const { status } = await ask('/api/chat', { authorization: `Bearer ${CALLER_KEY}` })
  expect(status).toBe(401)
  expect(decisions(gateway)).toMatchObject([{ labels: { method: 'api_key', result: 'denied', reason: 'key_disabled' } }])
})

test('are nobody where the operator says nothing', async () => {
  const gateway = await startGateway({ upstream: upstream.url })
  gateways.push(gateway)
  expect((await fetch(`${gateway.url}/api/tags`)).status).toBe(401)
})
