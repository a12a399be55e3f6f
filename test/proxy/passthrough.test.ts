/** Passthrough routes over real sockets: who is let in, where requests go, what of them goes through, and what is told of them. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createBudgets } from '../../src/budgets/budgets.ts'
import { GatewayError } from '../../src/errors.ts'
import { runtimeFetch } from '../../src/lib/fetch.ts'
import { budget } from '../budgets/bench.ts'
import { chatAnswer, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import {
  ACTOR,
  ALIAS,
  answerOf,
  CALLER_KEY,
  type GatewayOptions,
  startGateway,
  type TestGateway,
  testClock,
  UPSTREAM_MODEL,
  UPSTREAM_SECRET,
} from '../gateway.ts'
import { samplesOf } from '../telemetry/page.ts'
import { testTelemetry } from '../telemetry.ts'
import { rawAnswer } from './raw-caller.ts'

const BEARER = { authorization: `Bearer ${CALLER_KEY}` }
const ANSWER = chatAnswer('hello')

let upstream: FakeUpstream
const gateways: TestGateway[] = []
beforeAll(async () => {
  upstream = await fakeUpstream()
})
afterEach(async () => {
  upstream.answer((_request, connection) => connection.json(200, ANSWER))
  upstream.requests.length = 0
  for (const gateway of gateways.splice(0)) {
    await gateway.idle()
    await gateway.stop()
  }
})
afterAll(() => upstream.stop())

/** A gateway whose caller may use every route. */
async function start({ apiKey = {}, ...options }: GatewayOptions = {}): Promise<TestGateway> {
  const gateway = await startGateway({ upstream: upstream.url, apiKey: { allowed_routes: ['*'], ...apiKey }, ...options })
  gateways.push(gateway)
  return gateway
}

/** The same, with one route below /up. */
async function startUp(route: Record<string, unknown> = {}, options: GatewayOptions = {}): Promise<TestGateway> {
  const gateway = await start(options)
  await gateway.addRoute({ name: 'up', path_prefix: '/up', target_url: upstream.origin, ...route })
  return gateway
}

/** A request as text. in: the target as it is to stand in the request line */
function rawRequest(target: string, headers: readonly string[] = [], host = 'gateway.test'): string {
  const lines = [
    `GET ${target} HTTP/1.1`,
    `Host: ${host}`,
    'Connection: close',
    `Authorization: Bearer ${CALLER_KEY}`,
    ...headers,
  ]
  return `${lines.join('\r\n')}\r\n\r\n`
}

const statusOf = (answer: string) => Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1])

describe('a request leads', () => {
  test('below a prefix to the target, with the rest of the path and the query, the longest prefix first', async () => {
    const gateway = await startUp()
    await gateway.addRoute({ name: 'deeper', path_prefix: '/up/deeper', target_url: `${upstream.origin}/base` })
    expect((await gateway.get('/up/a/b?x=1&y=%2F')).status).toBe(200)
    expect((await gateway.get('/up/deeper/c')).status).toBe(200)
    expect((await gateway.get('/up')).status).toBe(200)
    expect(upstream.requests.map(({ path }) => path)).toEqual(['/a/b?x=1&y=%2F', '/base/c', '/'])
    const { status, text } = await answerOf(await gateway.get('/upper'))
    expect({ status, text }).toEqual({ status: 404, text: '' })
  })

  test('to a target that ends in a version without doubling it', async () => {
    const gateway = await startUp({ target_url: upstream.url })
    await gateway.get('/up/v1/models')
    await gateway.get('/up/models')
    expect(upstream.requests.map(({ path }) => path)).toEqual(['/v1/models', '/v1/models'])
  })

  test('to endpoints of the gateway before any prefix, whatever the method, and to all of them when no host is asked for', async () => {
    const gateway = await startUp({ path_prefix: '/' })
    expect(await (await gateway.get('/livez')).text()).toBe('ok')
    expect((await gateway.get('/v1/models')).status).toBe(200)
    expect((await gateway.get(`/v1/models/${ALIAS}`)).status).toBe(200)
    expect((await gateway.get('/v1/m%6fdels')).status).toBe(200)
    expect((await gateway.get('/v1/chat/completions')).status).toBe(405)
    expect((await gateway.get('/tokenize')).status).toBe(405)
    expect((await gateway.get('/api/pull')).status).toBe(501)
    expect(await (await gateway.get('/')).text()).toBe('Ollama is running')
    expect(upstream.requests).toEqual([])
    expect((await gateway.get('/v1/unknown')).status).toBe(200)
    expect((await gateway.get('/passthrough/x')).status).toBe(200)
    expect(upstream.requests.map(({ path }) => path)).toEqual(['/v1/unknown', '/passthrough/x'])
  })

  test('to a host before any endpoint, probes included, and to no other host', async () => {
    const gateway = await start()
    await gateway.addRoute({ name: 'hosted', hosts: ['api.example.com', '*.example.org'], target_url: `${upstream.origin}/base` })
    const ask = (target: string, host: string) => rawAnswer(gateway.port, rawRequest(target, [], host))
    for (const host of ['api.example.com', 'API.example.com:3000', 'x.example.org']) {
      expect(statusOf(await ask('/v1/models', host))).toBe(200)
    }
    expect(await ask('/livez', 'api.example.com')).toContain('"hello"')
    expect(upstream.requests.map(({ path }) => path)).toEqual([...Array(3).fill('/base/v1/models'), '/base/livez'])
    expect(await ask('/livez', 'example.org')).toEndWith('\r\nok')
    expect(statusOf(await ask('/x', 'x.y.example.org'))).toBe(404)
    expect(upstream.requests).toHaveLength(4)
  })

  test('to the host that it named, over TLS and with its whole path, where the route preserves it', async () => {
    const asked: string[] = []
    const gateway = await start({
      fetch: async (url, init) => {
        asked.push(`${init.method} ${url} ${init.tls?.rejectUnauthorized} ${init.redirect}`)
        return new Response('there')
      },
    })
    await gateway.addRoute({ name: 'hosted', hosts: ['*.example.com'], preserve_host: true })
    const answer = await rawAnswer(gateway.port, rawRequest('/v1/models?a=b', [], 'Api.Example.com:3000'))
    expect(answer).toContain('there')
    expect(statusOf(await rawAnswer(gateway.port, rawRequest('/x', [], 'evil.org/x.example.com')))).toBe(400)
    expect(statusOf(await rawAnswer(gateway.port, rawRequest('/x', [], 'a@evil.example.com')))).not.toBe(200)
    expect(asked).toEqual(['GET https://api.example.com/v1/models?a=b true manual'])
  })

  test('nowhere when the route is disabled or gone, from the very next request on', async () => {
    const gateway = await start()
    const route = await gateway.addRoute({ name: 'old', path_prefix: '/passthrough/openai', target_url: upstream.origin })
    expect((await gateway.get('/passthrough/openai/x')).status).toBe(200)
    await gateway.store.replace('passthrough_routes', route.id, now => ({ ...now, enabled: false }), ACTOR)
    const { status, error } = await answerOf(await gateway.get('/passthrough/openai/x'))
    expect(status).toBe(410)
    expect(error).toMatchObject({ type: 'invalid_request_error', code: 'endpoint_removed' })
    await gateway.store.replace('passthrough_routes', route.id, now => ({ ...now, enabled: true }), ACTOR)
    expect((await gateway.get('/passthrough/openai/x')).status).toBe(200)
    await gateway.store.remove('passthrough_routes', route.id, ACTOR)
    expect((await gateway.get('/passthrough/openai/x')).status).toBe(410)
  })

  test('where its provider key says by now: another credential is used at once', async () => {
    const gateway = await startUp()
    await gateway.get('/up/x')
    const { id } = gateway.rows.providerKey
    await gateway.store.replace('provider_keys', id, now => ({ ...now, secret: 'rotated' }), ACTOR)
    await gateway.get('/up/x')
    expect(upstream.requests.map(({ header }) => header('authorization'))).toEqual([
      `Bearer ${UPSTREAM_SECRET}`,
      'Bearer rotated',
    ])
  })
})

describe('a path that could lead out of the target', () => {
  // What a client would tidy up stands in the request line as it is.
  const UNSAFE = ['/up/..%2fadmin', '/up/%2e%2e%2Fadmin', '/up/..%5cadmin', '/up/%252e%252e/admin', '/up/..;/admin']
  test.each(UNSAFE)('%s: 400, and the server is not asked', async target => {
    const gateway = await startUp({ target_url: `${upstream.origin}/base` })
    const answer = await rawAnswer(gateway.port, rawRequest(target))
    expect(statusOf(answer)).toBe(400)
    expect(answer).toContain('request payload is invalid: invalid path parameter')
    expect(upstream.requests).toEqual([])
  })

  test.each(['/up/../admin', '/up/%2e%2e/admin', '/up/x/../../admin', '/up\\..\\admin', '//up/x'])(
    '%s is no path of the route at all',
    async target => {
      const gateway = await startUp({ target_url: `${upstream.origin}/base` })
      expect(statusOf(await rawAnswer(gateway.port, rawRequest(target)))).toBe(404)
      expect(upstream.requests).toEqual([])
    },
  )

  test('what is escaped and leads nowhere goes on as it is', async () => {
    const gateway = await startUp({ target_url: `${upstream.origin}/base` })
    for (const target of ['/up/a%2Fb%5Cc%20d', '/up//x//', '/up/%C3%A9?q=..%2f#x']) {
      expect(statusOf(await rawAnswer(gateway.port, rawRequest(target)))).toBe(200)
    }
    expect(upstream.requests.map(({ path }) => path)).toEqual(['/base/a%2Fb%5Cc%20d', '/base//x//', '/base/%C3%A9?q=..%2f'])
  })
})

describe('auth_mode', () => {
  test.each<[Record<string, string>, number, string]>([
    [BEARER, 200, ''],
    [{ 'x-api-key': CALLER_KEY }, 200, ''],
    [{}, 401, 'missing or malformed Authorization header'],
    [{ authorization: `Basic ${CALLER_KEY}` }, 401, 'missing or malformed Authorization header'],
    [{ authorization: 'Bearer sk-wrong' }, 401, 'invalid API key'],
  ])('gateway_key: %p is answered %d', async (headers, status, message) => {
    const gateway = await startUp()
    const answer = await answerOf(await gateway.get('/up/x', headers))
    expect(answer.status).toBe(status)
    if (status === 401) expect(answer.error).toMatchObject({ type: 'invalid_api_key', message })
    expect(upstream.requests).toHaveLength(status === 200 ? 1 : 0)
  })

  test.each<[Record<string, string>, number, string]>([
    [{ 'x-gateway-key': CALLER_KEY }, 200, ''],
    [{ 'x-gateway-key': `Bearer ${CALLER_KEY}` }, 200, ''],
    [BEARER, 401, 'missing API key: this route expects it in the header x-gateway-key'],
    [{ 'x-gateway-key': 'Bearer ' }, 401, 'missing API key: this route expects it in the header x-gateway-key'],
    [{ 'x-gateway-key': 'sk-wrong' }, 401, 'invalid API key'],
  ])('header_key: %p is answered %d', async (headers, status, message) => {
    const gateway = await startUp({ auth_mode: 'header_key', auth_header_name: 'x-gateway-key' })
    const answer = await answerOf(await gateway.get('/up/x', headers))
    expect(answer.status).toBe(status)
    if (status === 401) expect(answer.error).toMatchObject({ type: 'invalid_api_key', message })
    expect(upstream.requests).toHaveLength(status === 200 ? 1 : 0)
  })

  test.each<[string, Record<string, unknown>, string]>([
    ['disabled', { disabled: true }, 'api_key_disabled'],
    ['expired', { expires_at: '2020-01-01T00:00:00Z' }, 'api_key_expired'],
  ])('header_key: a key that is %s is refused', async (_state, apiKey, code) => {
    const gateway = await startUp({ auth_mode: 'header_key', auth_header_name: 'x-gateway-key' }, { apiKey })
    const { status, error } = await answerOf(await gateway.get('/up/x', { 'x-gateway-key': CALLER_KEY }))
    expect(status).toBe(401)
    expect(error).toMatchObject({ code })
  })

  const decisions = ({ telemetry }: TestGateway) =>
    samplesOf(telemetry.registry.render())
      .filter(({ name }) => name === 'aisix_auth_decisions_total')
      .map(({ labels, value }) => [labels.method, labels.result, labels.reason, value])

  async function startAnonymous(apiKey: Record<string, unknown> = {}, route: Record<string, unknown> = {}) {
    const gateway = await start({ apiKey })
    await gateway.addRoute({
      ...{ name: 'open', path_prefix: '/open', target_url: upstream.origin, auth_mode: 'anonymous' },
      ...{ anonymous_key_id: gateway.rows.apiKey.id, source_cidrs: ['127.0.0.0/8'], ...route },
    })
    return gateway
  }

  test('anonymous: everybody acts as the key, whatever they show, and it is told apart', async () => {
    const gateway = await startAnonymous()
    const shown: Record<string, string>[] = [{}, { authorization: 'Bearer sk-wrong' }]
    for (const headers of shown) {
      expect((await gateway.get('/open/x', headers)).status).toBe(200)
    }
    await gateway.idle()
    expect(gateway.telemetry.records.map(({ labels }) => labels.apiKeyId)).toEqual(Array(2).fill(gateway.rows.apiKey.id))
    expect(gateway.telemetry.records[0]?.extra).toEqual({ authType: 'anonymous', passthroughRoute: 'open' })
    expect(decisions(gateway)).toEqual([['anonymous', 'allowed', 'none', 2]])
  })

  test.each<[string, Record<string, unknown>, Record<string, unknown>, number, string]>([
    ['a key that there is not', {}, { anonymous_key_id: 'gone' }, 401, 'principal_missing'],
    ['a disabled key', { disabled: true }, {}, 401, 'principal_disabled'],
    ['an expired key', { expires_at: '2020-01-01T00:00:00Z' }, {}, 401, 'principal_expired'],
    ['another network', {}, { source_cidrs: ['10.0.0.0/8'] }, 403, 'source_not_allowed'],
  ])('anonymous: %s lets nobody in', async (_what, apiKey, route, status, reason) => {
    const gateway = await startAnonymous(apiKey, route)
    expect((await gateway.get('/open/x', {})).status).toBe(status)
    expect(upstream.requests).toEqual([])
    expect(decisions(gateway)).toEqual([['anonymous', 'denied', reason, 1]])
  })

  test('gateway_key: whoever shows none is let in where proxy.anonymous does it, and both are told', async () => {
    const anonymous = { api_key_id: 'later', source_cidrs: ['127.0.0.0/8'], paths: ['/up/*'] }
    const gateway = await startUp({}, { config: { proxy: { anonymous } } })
    const rule = gateway.gateway.config.proxy.anonymous
    if (rule) rule.api_key_id = gateway.rows.apiKey.id
    expect((await gateway.get('/up/x', {})).status).toBe(200)
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([{ extra: { authType: 'anonymous', passthroughRoute: 'up' } }])
  })

  test('anonymous: the key must be allowed the route, too', async () => {
    const gateway = await startAnonymous({ allowed_routes: ['other'] })
    expect((await gateway.get('/open/x', {})).status).toBe(403)
  })
})

describe('refusals come in this order', () => {
  test('the address, the key, the right to the route, the path, the server', async () => {
    const gateway = await start({ apiKey: { allowed_routes: ['upst*', 'exact'] } })
    const route = await gateway.addRoute({
      ...{ name: 'up', path_prefix: '/up', target_url: upstream.origin, source_cidrs: ['10.0.0.0/8'], provider_key_id: 'gone' },
    })
    const set = (members: Record<string, unknown>) =>
      gateway.store.replace('passthrough_routes', route.id, now => ({ ...now, ...members }), ACTOR)
    const ask = async (headers: Record<string, string>) => {
      const { status, error } = await answerOf(await gateway.get('/up/..;/x', headers))
      return { status, ...error }
    }
    expect(await ask({})).toMatchObject({ status: 403, type: 'permission_denied', code: 'ip_restricted' })
    await set({ source_cidrs: ['127.0.0.1'] })
    expect(await ask({})).toMatchObject({ status: 401, type: 'invalid_api_key' })
    const denied = await ask({ ...BEARER, upgrade: 'websocket' })
    expect(denied).toMatchObject({
      status: 403,
      type: 'permission_denied',
      message: 'API key is not allowed to use passthrough route "up"',
    })
    expect(denied).not.toHaveProperty('code')
    await set({ name: 'upstream' })
    expect(await ask(BEARER)).toMatchObject({
      status: 400,
      message: 'invalid upstream configuration: passthrough route "upstream" names a provider key that does not exist',
    })
    await set({ name: 'exact', provider_key_id: gateway.rows.providerKey.id })
    expect(await ask(BEARER)).toMatchObject({ status: 400, message: 'request payload is invalid: invalid path parameter' })
    expect(upstream.requests).toEqual([])
  })

  test.each([[undefined], [[]], [['other', 'u*p*']]])('a key with the routes %p may not use this one', async allowed_routes => {
    const gateway = await startUp({}, { apiKey: { allowed_routes } })
    expect((await gateway.get('/up/x')).status).toBe(403)
  })

  test('a credential that no header can carry is told as ours', async () => {
    const gateway = await startUp()
    const { id } = gateway.rows.providerKey
    await gateway.store.replace('provider_keys', id, now => ({ ...now, secret: 'a\nb' }), ACTOR)
    const { status, error } = await answerOf(await gateway.get('/up/x'))
    expect(status).toBe(401)
    expect(error.type).toBe('authentication_error')
  })

  test('WebSockets and TRACE are not passed on', async () => {
    const gateway = await startUp()
    const upgrade = ['Upgrade: websocket', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version: 13']
    const answer = await rawAnswer(gateway.port, rawRequest('/up/x', upgrade))
    expect(statusOf(answer)).toBe(501)
    expect(answer).toContain('"type":"not_implemented"')
    expect(statusOf(await rawAnswer(gateway.port, rawRequest('/up/x').replace('GET', 'TRACE')))).toBe(501)
    expect(upstream.requests).toEqual([])
  })
})

describe('what goes upstream', () => {
  const SENT = {
    ...BEARER,
    ...{ 'x-api-key': 'vendor-key', cookie: 'session=1', 'x-custom': 'kept', 'user-agent': 'tool/1.0', accept: 'a/b' },
    ...{ 'x-user': 'ada', traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01`, tracestate: 'x=y' },
    ...{ 'x-aisix-request-id': 'mine', te: 'trailers', 'proxy-authorization': 'Basic x', 'keep-alive': 'timeout=5' },
  }
  const seen = () => Object.fromEntries(upstream.last().headers)

  test("inject: the provider key's credential, and none of the caller's", async () => {
    const gateway = await startUp({ identity_header: 'x-user' })
    expect((await gateway.get('/up/x', SENT)).status).toBe(200)
    expect(seen()).toEqual({
      ...{ authorization: `Bearer ${UPSTREAM_SECRET}`, 'x-custom': 'kept', 'user-agent': 'tool/1.0', accept: 'a/b' },
      ...{ 'x-aisix-request-id': 'mine', host: `127.0.0.1:${upstream.port}`, connection: 'keep-alive' },
      'accept-encoding': expect.any(String),
    })
  })

  test.each<[string, Record<string, unknown>, Record<string, string | undefined>]>([
    [
      'the label anthropic',
      { provider: 'anthropic', adapter: undefined },
      { authorization: undefined, 'x-api-key': UPSTREAM_SECRET, 'anthropic-version': '2023-06-01', cookie: undefined },
    ],
    [
      'a label that no dialect is known for',
      { provider: 'cohere', adapter: undefined, api_base: undefined },
      { authorization: `Bearer ${UPSTREAM_SECRET}`, 'x-api-key': undefined, cookie: undefined },
    ],
    [
      'nothing kept back, but the key of the gateway',
      { strip_headers: [] },
      { authorization: `Bearer ${UPSTREAM_SECRET}`, 'x-api-key': 'vendor-key', cookie: 'session=1' },
    ],
    [
      'another list of what is kept back',
      { strip_headers: ['X-Custom'] },
      { authorization: `Bearer ${UPSTREAM_SECRET}`, 'x-custom': undefined, cookie: 'session=1' },
    ],
  ])('inject: %s', async (_what, providerKey, expected) => {
    const gateway = await startUp({}, { providerKey })
    await gateway.get('/up/x', { ...SENT, 'anthropic-version': 'another' })
    for (const [name, value] of Object.entries(expected)) expect([name, upstream.last().header(name)]).toEqual([name, value])
  })

  test("forward_client: the caller's own credential, without the key of the gateway", async () => {
    const gateway = await startUp({ credential_mode: 'forward_client' })
    await gateway.get('/up/x', { 'x-api-key': CALLER_KEY, cookie: 'session=1' })
    expect(seen()).toMatchObject({ cookie: 'session=1' })
    expect(seen()).not.toHaveProperty('x-api-key')
    await gateway.get('/up/x', SENT)
    expect(seen()).toMatchObject({ 'x-api-key': 'vendor-key', cookie: 'session=1' })
    expect(seen()).not.toHaveProperty('authorization')
  })

  test('forward_client with a key in a header of its own: that header alone is kept back', async () => {
    const route = { credential_mode: 'forward_client', auth_mode: 'header_key', auth_header_name: 'x-gateway-key' }
    const gateway = await startUp(route)
    await gateway.get('/up/x', { 'x-gateway-key': CALLER_KEY, authorization: 'Bearer vendor-token' })
    expect(seen()).toMatchObject({ authorization: 'Bearer vendor-token' })
    expect(JSON.stringify(upstream.last().headers)).not.toContain(CALLER_KEY)
  })

  test('a key of the gateway reaches nobody, wherever else its caller puts it', async () => {
    const other = 'sk-another-key-0002'
    const gateway = await startUp({
      credential_mode: 'forward_client',
      auth_mode: 'header_key',
      auth_header_name: 'x-gateway-key',
    })
    await gateway.addApiKey(other)
    const headers = { 'x-gateway-key': `Bearer ${CALLER_KEY}`, authorization: `Bearer ${other}`, 'x-api-key': CALLER_KEY }
    await gateway.get('/up/x', { ...headers, cookie: `a=b; key=${CALLER_KEY}`, 'x-copy': other, 'x-custom': 'kept' })
    expect(seen()).toMatchObject({ 'x-custom': 'kept' })
    expect(JSON.stringify(upstream.last().headers)).not.toContain(CALLER_KEY)
    expect(JSON.stringify(upstream.last().headers)).not.toContain(other)
  })

  test('headers that Connection names are of that connection', async () => {
    const gateway = await startUp()
    const headers = ['X-Hop: 1', 'X-Custom: kept', 'Connection: X-Hop, close']
    const request = rawRequest('/up/x', headers).replace('Connection: close\r\n', '')
    expect(statusOf(await rawAnswer(gateway.port, request))).toBe(200)
    expect(upstream.last().header('x-hop')).toBeUndefined()
    expect(upstream.last().header('x-custom')).toBe('kept')
  })

  test('a caller that names no program and takes no encoding is sent on as such', async () => {
    const gateway = await startUp()
    await rawAnswer(gateway.port, rawRequest('/up/x'))
    expect(upstream.last().header('user-agent')).toBe('aisix/0.1')
    expect(upstream.last().header('accept-encoding')).toBeUndefined()
  })

  test.each(['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PURGE'])('%s has its body byte for byte', async method => {
    const gateway = await startUp()
    const body = Uint8Array.from({ length: 70_000 }, (_, index) => (index * 7) % 256)
    const headers = { ...BEARER, 'content-type': 'application/octet-stream' }
    expect((await fetch(`${gateway.url}/up/x`, { method, headers, body })).status).toBe(200)
    expect(upstream.last().method).toBe(method)
    expect(Buffer.compare(upstream.last().bytes, body)).toBe(0)
    expect(upstream.last().header('content-length')).toBe('70000')
    expect(upstream.last().header('content-type')).toBe('application/octet-stream')
  })

  test('JSON keeps its spelling, and a model that the gateway knows keeps its name', async () => {
    const gateway = await startUp()
    const body = ` {"model" : "${UPSTREAM_MODEL}", "n": 1.0, "n": 9007199254740993}\n`
    await gateway.post('/up/x', body)
    expect(upstream.last().text).toBe(body)
  })

  test('no body is none, and a body with GET is refused instead of lost', async () => {
    const gateway = await startUp()
    await fetch(`${gateway.url}/up/x`, { method: 'POST', headers: BEARER })
    expect(upstream.last().header('content-length')).toBe('0')
    const answer = await rawAnswer(gateway.port, `${rawRequest('/up/x', ['Content-Length: 2'])}{}`)
    expect(statusOf(answer)).toBe(400)
    expect(answer).toContain('a body with GET cannot be passed on')
    expect(upstream.requests).toHaveLength(1)
  })

  test('a declared length over the cap is refused before anybody is asked for a key', async () => {
    const gateway = await startUp({}, { config: { proxy: { request_body_limit_bytes: 1_000 } } })
    const answer = await answerOf(await fetch(`${gateway.url}/up/x`, { method: 'POST', body: 'x'.repeat(1_001) }))
    expect(answer.status).toBe(413)
    expect(upstream.requests).toEqual([])
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([
      { handler: 'passthrough_route', endpoint: '/passthrough_route', status: 413 },
    ])
  })
})

describe('what comes back', () => {
  test.each([200, 201, 404, 429, 500, 503])('%d with its body and headers', async status => {
    const gateway = await startUp()
    const headers = { 'x-vendor': 'v', 'retry-after': '7', 'x-request-id': 'req_vendor', server: 'vendor', etag: '"1"' }
    upstream.answer((_request, connection) => connection.send(status, '<b>', { ...headers, 'content-type': 'text/html' }))
    const answer = await answerOf(await gateway.get('/up/x', { ...BEARER, 'x-aisix-request-id': 'mine' }))
    expect([answer.status, answer.text]).toEqual([status, '<b>'])
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      ...{ 'x-vendor': 'v', 'retry-after': '7', etag: '"1"', 'content-type': 'text/html', 'x-request-id': 'req_vendor' },
      ...{ 'x-aisix-request-id': 'mine', server: expect.stringMatching(/^AISIX\//) },
    })
    // What the server says is its own affair: nobody asks again.
    expect(upstream.requests).toHaveLength(1)
  })

  test('each cookie on a line of its own, and nothing of the connection', async () => {
    const gateway = await startUp()
    const lines = ['Set-Cookie: a=1; Expires=Wed, 21 Oct 2030 07:28:00 GMT', 'Set-Cookie: b=2', 'X-Hop: 1', 'Connection: x-hop']
    upstream.answer((_request, connection) =>
      connection.raw(`HTTP/1.1 200 OK\r\n${lines.join('\r\n')}\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok`),
    )
    const { headers } = await gateway.get('/up/x')
    expect(headers.getSetCookie()).toEqual(['a=1; Expires=Wed, 21 Oct 2030 07:28:00 GMT', 'b=2'])
    expect([headers.get('x-hop'), headers.get('keep-alive')]).toEqual([null, null])
  })

  test('an encoded body byte for byte', async () => {
    const gateway = await startUp()
    const body = Bun.gzipSync(Buffer.from(JSON.stringify(ANSWER)))
    const encoded = { 'content-encoding': 'gzip', 'content-type': 'application/json' }
    upstream.answer((_request, connection) => connection.send(200, body, encoded))
    const answer = await runtimeFetch(`${gateway.url}/up/x`, {
      ...{ method: 'GET', headers: { ...BEARER, 'accept-encoding': 'gzip' }, signal: AbortSignal.timeout(20_000) },
      ...{ redirect: 'manual', decompress: false, keepalive: false, proxy: false, timeout: false, verbose: false },
    })
    expect(upstream.last().header('accept-encoding')).toBe('gzip')
    expect(answer.headers.get('content-encoding')).toBe('gzip')
    expect(Buffer.compare(await answer.bytes(), body)).toBe(0)
    // What is encoded is not looked into.
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([{ promptTokens: 0, completionTokens: 0, isEstimated: false }])
  })

  test('a redirect as it is: nobody follows it', async () => {
    const gateway = await startUp()
    upstream.answer((_request, connection) => connection.send(302, '', { location: `${upstream.origin}/elsewhere` }))
    const answer = await gateway.get('/up/x')
    expect([answer.status, answer.headers.get('location')]).toEqual([302, `${upstream.origin}/elsewhere`])
    expect(upstream.requests).toHaveLength(1)
  })

  test.each<[string, string]>([
    ['a length', 'content-length: 1234'],
    ['no length', 'transfer-encoding: chunked'],
  ])('the head that HEAD asks for, with %s', async (_what, header) => {
    const gateway = await startUp()
    upstream.answer((_request, connection) => connection.raw(`HTTP/1.1 200 OK\r\n${header}\r\nETag: "1"\r\n\r\n`))
    const answer = await rawAnswer(gateway.port, rawRequest('/up/x').replace('GET', 'HEAD'))
    expect(upstream.last().method).toBe('HEAD')
    expect(answer.toLowerCase()).toContain(`\r\n${header}\r\n`)
    expect(answer).toContain('"1"')
    expect(answer).toEndWith('\r\n\r\n')
  })

  test.each([204, 304])('%d without a body', async status => {
    const gateway = await startUp()
    upstream.answer((_request, connection) => connection.raw(`HTTP/1.1 ${status} Status\r\nETag: "1"\r\n\r\n`))
    const answer = await gateway.get('/up/x')
    expect([answer.status, answer.headers.get('etag'), await answer.text()]).toEqual([status, '"1"', ''])
  })

  test('after hints only what is final', async () => {
    const gateway = await startUp()
    upstream.answer((_request, connection) =>
      connection.raw('HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'),
    )
    const answer = await answerOf(await gateway.get('/up/x'))
    expect([answer.status, answer.text]).toEqual([200, 'ok'])
  })
})

describe('a server that does not answer', () => {
  test('cannot be reached: 502, and its address is not told', async () => {
    const gateway = await startUp({ target_url: 'http://127.0.0.1:1/secret' })
    const { status, error, text } = await answerOf(await gateway.get('/up/x'))
    expect(status).toBe(502)
    expect(error).toMatchObject({ type: 'transport_error', message: 'transport error: connection refused' })
    expect(text).not.toContain('127.0.0.1')
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([{ status: 502, errorClass: 'transport_error', attemptKind: 'initial' }])
  })

  test('in time: 504 after timeout_ms', async () => {
    const gateway = await startUp({ timeout_ms: 50 })
    upstream.answer((_request, connection) => connection.stall())
    const { status, error } = await answerOf(await gateway.get('/up/x'))
    expect(status).toBe(504)
    expect(error).toEqual({ type: 'timeout', message: 'upstream request timed out after 50ms' })
    await upstream.whenCut(1)
  })

  test('in time: 504 after the time of the deployment where the route has none', async () => {
    const gateway = await startUp({}, { config: { upstream: { timeout_ms: 40 } } })
    upstream.answer((_request, connection) => connection.stall())
    const { status, error } = await answerOf(await gateway.get('/up/x'))
    expect(status).toBe(504)
    expect(error.message).toBe('upstream request timed out after 40ms')
  })

  test('with HTTP: 502', async () => {
    const gateway = await startUp()
    upstream.answer(async (_request, connection) => {
      await connection.raw('no http at all\r\n\r\n')
      connection.close()
    })
    expect((await gateway.get('/up/x')).status).toBe(502)
    upstream.answer((_request, connection) => connection.raw('HTTP/1.1 999 Odd\r\ncontent-length: 2\r\n\r\nok'))
    const { status, error } = await answerOf(await gateway.get('/up/x'))
    expect(status).toBe(502)
    expect(error).toEqual({ type: 'upstream_error', message: 'upstream returned 999, which is no final status' })
  })

  test('over TLS that is not trusted: 502, and the provider key can say otherwise', async () => {
    const fixture = (name: string) => readFileSync(join(import.meta.dir, '..', 'fixtures', 'tls', name), 'utf8')
    const secure = await fakeUpstream({ tls: { cert: fixture('server.crt'), key: fixture('server.key') } })
    const target_url = `https://127.0.0.1:${secure.port}`
    const strict = await startUp({ target_url })
    const { status, error } = await answerOf(await strict.get('/up/x'))
    expect(status).toBe(502)
    expect(error.message).toBe('transport error: certificate not trusted')
    expect(secure.requests).toEqual([])
    const lenient = await startUp({ target_url }, { providerKey: { tls: { verify: false } } })
    expect((await lenient.get('/up/x')).status).toBe(200)
    secure.stop()
  })
})

describe('limits', () => {
  const call = (gateway: TestGateway, model?: string) => gateway.post('/up/x', model === undefined ? {} : { model })
  const twice = async (gateway: TestGateway, model?: string) => {
    const statuses: number[] = []
    for (let i = 0; i < 2; i++) {
      statuses.push((await call(gateway, model)).status)
      await gateway.idle()
    }
    return statuses
  }
  const clock = testClock()

  test("of the caller's key hold, and the server does not see what they refuse", async () => {
    const gateway = await startUp({}, { clock, apiKey: { rate_limit: { rpm: 1 } } })
    expect(await twice(gateway)).toEqual([200, 429])
    expect(upstream.requests).toHaveLength(1)
    const { headers, error } = await answerOf(await call(gateway))
    expect(headers.get('retry-after')).toBe('60')
    expect(error).toEqual({ type: 'rate_limit_exceeded', message: 'request limit exceeded (requests)' })
  })

  test.each([
    ['its name at the server', UPSTREAM_MODEL, [200, 429]],
    ['its alias', ALIAS, [200, 429]],
    ['a name that the gateway does not know', 'other', [200, 200]],
  ])('of a model of the provider key hold where the body names it by %s', async (_what, name, statuses) => {
    // Whether the key may use the model is not asked: the route is what it may use.
    const gateway = await startUp({}, { clock, model: { rate_limit: { rpm: 1 } }, apiKey: { allowed_models: [] } })
    expect(await twice(gateway, name)).toEqual(statuses)
  })

  test('of a pattern hold for every name that it stands for', async () => {
    const gateway = await startUp({}, { clock })
    await gateway.addModel({ display_name: 'vendor/*', model_name: 'big-*', rate_limit: { rpm: 1 } })
    expect((await call(gateway, 'big-one')).status).toBe(200)
    expect((await call(gateway, 'big-two')).status).toBe(429)
    expect((await call(gateway, 'small')).status).toBe(200)
  })

  test('of a model of another provider key do not', async () => {
    const gateway = await startUp({}, { clock })
    const other = await gateway.addProviderKey({ api_base: upstream.url })
    await gateway.addModel({ display_name: 'm', model_name: 'm', provider_key_id: other.id, rate_limit: { rpm: 0 } })
    expect(await twice(gateway, 'm')).toEqual([200, 200])
  })

  test('of a model are those that its own endpoint counts by', async () => {
    const gateway = await startUp({}, { clock, model: { rate_limit: { rpm: 1 } } })
    expect((await gateway.chat()).status).toBe(200)
    expect((await call(gateway, UPSTREAM_MODEL)).status).toBe(429)
  })

  test('are not escaped by sending the same in chunks, without a type or behind a long beginning', async () => {
    const gateway = await startUp({}, { clock, model: { rate_limit: { rpm: 0 } } })
    const json = JSON.stringify({ model: UPSTREAM_MODEL })
    const inChunks = () => new Blob([json]).stream()
    const send = (body: string | ReadableStream<Uint8Array>, type?: string) =>
      fetch(`${gateway.url}/up/x`, { method: 'POST', headers: { ...BEARER, ...(type && { 'content-type': type }) }, body })
    expect((await send(inChunks(), 'application/json')).status).toBe(429)
    expect((await send(inChunks())).status).toBe(429)
    expect((await send(json, 'application/x-www-form-urlencoded')).status).toBe(429)
    const late = `{"model":"${UPSTREAM_MODEL}","prompt":"${'x'.repeat(2_000_000)}"}`
    expect((await send(late, 'application/json')).status).toBe(429)
    expect(upstream.requests).toEqual([])
    expect((await send(json, 'application/octet-stream')).status).toBe(200)
  })

  test('of policies hold: those of who asks and of the label of the provider key, not those of models that nobody named', async () => {
    const gateway = await startUp({}, { clock })
    await gateway.addPolicy({ name: 'models', limits: { rpm: 0 }, group_by: ['model'] })
    expect(await twice(gateway)).toEqual([200, 200])
    expect((await call(gateway, UPSTREAM_MODEL)).status).toBe(429)
    const condition = { dimension: 'provider', operator: '==', value: 'vllm' }
    await gateway.addPolicy({ name: 'vendor', limits: { rpm: 1 }, conditions: [condition] })
    expect((await call(gateway)).status).toBe(200)
    const { status, error } = await answerOf(await call(gateway))
    expect(status).toBe(429)
    expect(error).toMatchObject({ policy: { name: 'vendor' } })
  })

  test('of tokens count what answers tell', async () => {
    const gateway = await startUp({}, { clock, apiKey: { rate_limit: { tpm: 11 } } })
    expect(await twice(gateway)).toEqual([200, 429])
  })

  test('of concurrency are given back, however a request ends', async () => {
    const gateway = await startUp({ timeout_ms: 5_000 }, { clock, apiKey: { rate_limit: { concurrency: 1 } } })
    const ends: Parameters<FakeUpstream['answer']>[0][] = [
      (_request, connection) => connection.json(500, {}),
      (_request, connection) => connection.reset(),
      (_request, connection) => connection.send(204, ''),
      async (_request, connection) => {
        await connection.raw('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf')
        connection.reset()
      },
    ]
    for (const end of ends) {
      upstream.answer(end)
      await call(gateway)
        .then(answer => answer.text())
        .catch(() => {})
      await gateway.idle()
    }
    upstream.answer((_request, connection) => connection.stall())
    const leaving = new AbortController()
    const held = gateway.post('/up/x', {}, {}, leaving.signal).catch(() => {})
    await upstream.arrived(upstream.requests.length + 1)
    expect((await call(gateway)).status).toBe(429)
    leaving.abort()
    await held
    await gateway.idle()
    upstream.answer((_request, connection) => connection.json(200, ANSWER))
    expect((await call(gateway)).status).toBe(200)
  })

  test('of budgets hold, and are charged what answers tell, at the price of the model', async () => {
    const gateway = await startUp({}, { clock, model: { cost: { input_per_1k: 1, output_per_1k: 2 } } })
    await gateway.store.create('budgets', budget({ name: 'all', scope: 'all', limit_usd: undefined, limit_tokens: 12 }), ACTOR)
    const { store, gateway: inner } = gateway
    const folder = mkdtempSync(join(tmpdir(), 'aisix-passthrough-'))
    inner.budgets = await createBudgets({
      path: join(folder, 'budgets.db'),
      store,
      log: inner.log,
      registry: inner.registry,
      clock,
    })
    expect((await call(gateway, UPSTREAM_MODEL)).status).toBe(200)
    await gateway.idle()
    const [status] = inner.budgets.statuses(store.snapshot, clock.now())
    expect(status).toMatchObject({ spent_tokens: 12, spent_usd: 0.019 })
    const { status: refused, error } = await answerOf(await call(gateway))
    expect(refused).toBe(429)
    expect(error).toMatchObject({ type: 'billing_error', code: 'budget_exceeded' })
    expect(upstream.requests).toHaveLength(1)
    await inner.budgets.close()
    rmSync(folder, { recursive: true, force: true })
  })

  test('of budgets are asked for the model that is named, and for none where none is', async () => {
    const telemetry = testTelemetry()
    const asked: string[] = []
    telemetry.budgets.refusal = (_snapshot, _caller, modelId) => {
      asked.push(modelId)
      return modelId === '' ? undefined : new GatewayError('budget_exceeded', 'used up')
    }
    const gateway = await startUp({}, { telemetry })
    expect((await call(gateway)).status).toBe(200)
    expect((await call(gateway, UPSTREAM_MODEL)).status).toBe(429)
    expect(asked).toEqual(['', gateway.rows.model.id])
  })
})

describe('what is told', () => {
  test('a record of what the answer tells, the route and the end user, and no series of model endpoints', async () => {
    const gateway = await startUp({ identity_header: 'x-user' })
    await gateway.post(
      '/up/v1/chat/completions?secret=1',
      { model: 'unknown', messages: [] },
      { 'x-user': `ada\t${'x'.repeat(300)}` },
    )
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([
      {
        ...{ handler: 'passthrough_route', endpoint: '/passthrough_route', inboundProtocol: 'passthrough', status: 200 },
        extra: { passthroughRoute: 'up', clientIdentity: `ada${'x'.repeat(253)}` },
        ...{ requestedModel: 'unknown', promptTokens: 5, completionTokens: 7, isEstimated: false, isStream: false },
        ...{ providerRequestId: 'chatcmpl-upstream-1', providerModelVersion: 'upstream-model', attemptKind: 'initial' },
        labels: {
          ...{ apiKeyId: gateway.rows.apiKey.id, name: '', modelId: '', provider: 'vllm' },
          ...{ providerKeyId: gateway.rows.providerKey.id, providerKeyName: 'provider-key-1' },
        },
      },
    ])
    const samples = samplesOf(gateway.telemetry.registry.render())
    expect(samples.filter(({ name }) => name.startsWith('aisix_llm_') || name === 'aisix_requests_total')).toEqual([])
    expect(samples.filter(({ name }) => name === 'aisix_proxy_requests_total')).toMatchObject([
      { labels: { endpoint: '/passthrough_route', inbound_protocol: 'passthrough', model: 'unknown', status: '200' }, value: 1 },
    ])
    expect(samples.filter(({ name }) => name === 'aisix_usage_events_emitted_total')).toMatchObject([
      { labels: { handler: 'passthrough_route', status_code: '2xx', inbound_protocol: 'passthrough' }, value: 1 },
    ])
    const line = await gateway.accessLine()
    expect(line).toContain('method="POST" path="/up/v1/chat/completions" status=200')
    expect(line).toContain('prompt_tokens=5 completion_tokens=7')
    expect(gateway.logs.join('\n')).not.toContain('secret=1')
    expect(gateway.logs.join('\n')).not.toContain(CALLER_KEY)
  })

  test('a model of the provider key by its alias, with its price', async () => {
    const gateway = await startUp({}, { model: { cost: { input_per_1k: 1, output_per_1k: 2 } } })
    await gateway.post('/up/x', { model: UPSTREAM_MODEL })
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([
      { labels: { name: ALIAS, modelId: gateway.rows.model.id, upstreamModel: UPSTREAM_MODEL }, costPico: 19_000_000_000 },
    ])
  })

  const USAGES: [string, unknown, Record<string, number>][] = [
    ['chat', ANSWER, { promptTokens: 5, completionTokens: 7 }],
    [
      'a response',
      { id: 'r', usage: { input_tokens: 3, output_tokens: 4, total_tokens: 7, input_tokens_details: { cached_tokens: 2 } } },
      { promptTokens: 3, completionTokens: 4, cachedTokens: 2 },
    ],
    [
      'a message',
      { type: 'message', usage: { input_tokens: 3, output_tokens: 4, cache_read_input_tokens: 10 } },
      { promptTokens: 13, completionTokens: 4, cachedTokens: 10 },
    ],
    ['embeddings', { data: [], usage: { prompt_tokens: 8, total_tokens: 8 } }, { promptTokens: 8, completionTokens: 0 }],
    ['a ranking', { meta: { billed_units: { input_tokens: 9 } } }, { promptTokens: 9, completionTokens: 0 }],
    ['nothing of it', { answer: 42 }, { promptTokens: 0, completionTokens: 0 }],
    ['odd things', { usage: 'much', id: 5 }, { promptTokens: 0, completionTokens: 0 }],
  ]
  test.each(USAGES)('the usage of %s', async (_what, answer, expected) => {
    const gateway = await startUp()
    upstream.answer((_request, connection) => connection.json(200, answer))
    await gateway.post('/up/x', { prompt: 'never counted by its length' })
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([{ ...expected, isEstimated: false }])
  })

  test.each<[string, string, Record<string, string>]>([
    ['no JSON', '{"usage":{"prompt_tokens":5', { 'content-type': 'application/json' }],
    ['another type', JSON.stringify(ANSWER), { 'content-type': 'text/plain' }],
    ['a long one', JSON.stringify({ ...ANSWER, x: 'x'.repeat(1_100_000) }), { 'content-type': 'application/json' }],
  ])('no usage of %s, which arrives all the same', async (_what, body, headers) => {
    const gateway = await startUp()
    upstream.answer((_request, connection) => connection.send(200, body, headers))
    expect(await (await gateway.get('/up/x')).text()).toBe(body)
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([{ promptTokens: 0, completionTokens: 0, isEstimated: false }])
  })

  test('an error that the server answered with, by its status alone', async () => {
    const gateway = await startUp()
    upstream.answer((_request, connection) => connection.json(429, { error: { message: 'quoted prompt' } }))
    expect((await gateway.get('/up/x')).status).toBe(429)
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([
      { status: 429, errorClass: 'upstream_error', errorMessage: 'upstream returned 429' },
    ])
    expect(gateway.logs.join('\n')).not.toContain('quoted prompt')
  })

  test('a refused caller is told as on any endpoint', async () => {
    const gateway = await startUp({}, { apiKey: { allowed_routes: [] } })
    await gateway.get('/up/x', {})
    await gateway.get('/up/x')
    await gateway.idle()
    // A rejected credential leaves no record.
    expect(gateway.telemetry.records).toMatchObject([
      { handler: 'passthrough_route', status: 403, errorClass: 'permission_denied' },
    ])
  })
})
