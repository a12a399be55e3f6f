import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { GatewayError } from '../../src/errors.ts'
import { createProxyApp } from '../../src/proxy/app.ts'
import { Caller } from '../../src/proxy/caller.ts'
import { type LinkRequest, openLink } from '../../src/proxy/realtime/upstream-link.ts'
import { modelStatus } from '../../src/status/models.ts'
import {
  ACTOR,
  ALIAS,
  CALLER_KEY,
  type GatewayOptions,
  startGateway,
  type TestGateway,
  UPSTREAM_MODEL,
  UPSTREAM_SECRET,
  until,
} from '../gateway.ts'
import {
  HANDSHAKE,
  openSession,
  type RealtimeUpstream,
  type RealtimeUpstreamOptions,
  rawHandshake,
  realtimeUpstream,
  refusalOf,
} from '../realtime.ts'
import { samplesOf } from '../telemetry/page.ts'

const TARGET = `/v1/realtime?model=${ALIAS}`
const KEY = `Authorization: Bearer ${CALLER_KEY}`
const BEARER = { authorization: `Bearer ${CALLER_KEY}` }
const TLS = join(import.meta.dir, '..', 'fixtures', 'tls')

let stops: (() => unknown)[]
beforeEach(() => {
  stops = []
})
afterEach(async () => {
  for (const stop of stops.reverse()) await stop()
})

async function start(options: GatewayOptions = {}, upstreamOptions: RealtimeUpstreamOptions = {}) {
  const upstream = realtimeUpstream(upstreamOptions)
  stops.push(upstream.stop)
  const gateway = await startGateway({ upstream: upstream.url, ...options })
  stops.push(gateway.stop)
  return { upstream, gateway }
}

const open = (gateway: TestGateway, query = `model=${ALIAS}`, headers: Record<string, string> = BEARER) =>
  openSession(`${gateway.url}/v1/realtime?${query}`, { headers })

/** Both ends of a session. */
async function joined(gateway: TestGateway, upstream: RealtimeUpstream) {
  const caller = await open(gateway)
  return { caller, session: await upstream.session() }
}

/** What is answered to a caller with a key and a good handshake. */
const refused = (gateway: TestGateway, target = TARGET, headers: readonly string[] = [KEY]) =>
  refusalOf(gateway.port, target, [...HANDSHAKE, ...headers])

/** The record of the one session that there was, once it is over. */
async function recordOf({ telemetry }: TestGateway) {
  await until('a record', () => telemetry.records.length > 0)
  expect(telemetry.records).toHaveLength(1)
  const [record] = telemetry.records
  if (!record) throw new Error('no record')
  return record
}

/** What the status page says of the model. */
function stateOf({ store, gateway }: TestGateway): string | undefined {
  return modelStatus(store.snapshot, gateway.modelHealth, gateway.clock.now())[0]?.status
}

/** A server of TCP that does what it is told with a connection's first bytes. */
function tcpServer(onData: (socket: Bun.Socket, text: string) => void, onClose = () => {}) {
  const server = Bun.listen({
    hostname: '127.0.0.1',
    port: 0,
    socket: { data: (socket, bytes) => onData(socket, bytes.toString('latin1')), close: onClose, error() {} },
  })
  stops.push(() => server.stop(true))
  return server
}

/** The answer to a handshake. source: RFC 6455 §4.2.2 */
function switching(request: string): string {
  const key = /sec-websocket-key: (\S+)/i.exec(request)?.[1] ?? ''
  const accept = new Bun.CryptoHasher('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
  return `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`
}

describe('what is no handshake', () => {
  const without = (name: string) => HANDSHAKE.filter(each => !each.startsWith(name))

  test.each<[string, readonly string[], number, Record<string, string>]>([
    ['no upgrade at all', [], 426, { upgrade: 'websocket', connection: 'Upgrade' }],
    ['an upgrade to something else', [...without('Upgrade'), 'Upgrade: h2c'], 426, { upgrade: 'websocket' }],
    ['no upgrade of this connection', [...without('Connection'), 'Connection: keep-alive'], 426, { upgrade: 'websocket' }],
    ['no version', without('Sec-WebSocket-Version'), 400, { 'sec-websocket-version': '13' }],
    [
      'another version',
      [...without('Sec-WebSocket-Version'), 'Sec-WebSocket-Version: 8'],
      400,
      { 'sec-websocket-version': '13' },
    ],
    ['no key', without('Sec-WebSocket-Key'), 400, {}],
    ['a short key', [...without('Sec-WebSocket-Key'), 'Sec-WebSocket-Key: c2hvcnQ='], 400, {}],
  ])('%s: %#', async (_what, headers, status, told) => {
    const { gateway, upstream } = await start()
    const answer = await refusalOf(gateway.port, TARGET, [...headers, KEY])
    expect(answer.status).toBe(status)
    expect(answer.body?.error.type).toBe('websocket_upgrade_required')
    for (const [name, value] of Object.entries(told)) expect(answer.headers.get(name)).toBe(value)
    expect(upstream.requests).toHaveLength(0)
  })

  test('HEAD gets the head of what GET gets', async () => {
    const { gateway } = await start()
    const answer = await refusalOf(gateway.port, TARGET, [KEY], 'HEAD')
    expect([answer.status, answer.headers.get('upgrade'), answer.body]).toEqual([426, 'websocket', undefined])
    expect(Number(answer.headers.get('content-length'))).toBeGreaterThan(50)
  })

  test.each(['POST', 'PUT', 'DELETE', 'OPTIONS'])('%s: 405', async method => {
    const { gateway } = await start()
    const answer = await refusalOf(gateway.port, TARGET, [...HANDSHAKE, KEY, 'Content-Length: 0'], method)
    expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'GET, HEAD'])
    expect(answer.body?.error.type).toBe('websocket_upgrade_required')
  })

  test('a handshake that came through no listener, as over the playground, cannot be taken up', async () => {
    const { gateway, upstream } = await start()
    const app = createProxyApp(gateway.gateway, { ca: [], cert: undefined, key: undefined, verify: true })
    const handshake = HANDSHAKE.map((field): [string, string] => [field.split(': ')[0] ?? '', field.split(': ')[1] ?? ''])
    const headers = new Headers([...handshake, ['host', 'gateway.test'], ['authorization', `Bearer ${CALLER_KEY}`]])
    const answer = await app.fetch(new Request(gateway.url + TARGET, { headers }), { requestIP: () => null })
    expect(answer?.status).toBe(426)
    expect(await answer?.text()).toContain('needs a connection of its own')
    expect(upstream.requests).toHaveLength(0)
  })

  test('it is counted, and leaves no record', async () => {
    const { gateway } = await start()
    await refusalOf(gateway.port, TARGET, [KEY])
    await gateway.idle()
    expect(gateway.telemetry.records).toHaveLength(0)
    const counted = samplesOf(gateway.telemetry.registry.render()).filter(({ name }) => name === 'aisix_proxy_requests_total')
    expect(counted).toMatchObject([
      { labels: { endpoint: '/v1/realtime', inbound_protocol: 'realtime', status: '426' }, value: 1 },
    ])
  })
})

describe('refusals before the upgrade are answers of HTTP', () => {
  test.each<[string, GatewayOptions, string, number, Record<string, unknown>]>([
    ['no model', {}, '/v1/realtime', 400, { type: 'invalid_request_error', param: 'model' }],
    ['an empty model', {}, '/v1/realtime?model=', 400, { type: 'invalid_request_error', param: 'model' }],
    ['two models', {}, `${TARGET}&model=x`, 400, { type: 'invalid_request_error', param: 'model' }],
    ['an unknown model', {}, '/v1/realtime?model=nobody', 404, { type: 'model_not_found' }],
    ['a model that the key may not use', { apiKey: { allowed_models: ['other'] } }, TARGET, 403, { type: 'permission_denied' }],
    [
      'an address that may not use it',
      { model: { allowed_cidrs: ['10.0.0.0/8'] } },
      TARGET,
      403,
      { type: 'permission_denied', code: 'ip_restricted' },
    ],
    ['a key that is disabled', { apiKey: { disabled: true } }, TARGET, 401, { code: 'api_key_disabled' }],
    ['no requests left', { apiKey: { rate_limit: { rpm: 0 } } }, TARGET, 429, { type: 'rate_limit_exceeded' }],
    ['no place left', { model: { rate_limit: { concurrency: 0 } } }, TARGET, 429, { type: 'rate_limit_exceeded' }],
    ['an adapter without sessions', { providerKey: { adapter: 'anthropic' } }, TARGET, 501, { type: 'not_implemented' }],
    ['a credential that no header can hold', { providerKey: { secret: 'a\nb' } }, TARGET, 401, { type: 'authentication_error' }],
  ])('%s', async (_what, options, target, status, error) => {
    const { gateway, upstream } = await start(options)
    const answer = await refused(gateway, target)
    expect(answer.status).toBe(status)
    expect(answer.body?.error).toMatchObject(error)
    expect(answer.headers.get('x-aisix-request-id')).toBeTruthy()
    expect(upstream.requests).toHaveLength(0)
    await gateway.idle()
    expect(gateway.gateway.limiter.inFlight).toBe(0)
  })

  test('a group: what a session holds is one server', async () => {
    const { gateway } = await start()
    await gateway.addGroup('fleet', { targets: [ALIAS] })
    const answer = await refused(gateway, '/v1/realtime?model=fleet')
    expect([answer.status, answer.body?.error.param]).toEqual([400, 'model'])
  })

  test('a budget that is used up', async () => {
    const { gateway } = await start()
    gateway.telemetry.budgets.refusal = () => new GatewayError('budget_exceeded', 'budget "x" is used up')
    const answer = await refused(gateway)
    expect([answer.status, answer.body?.error.code]).toEqual([429, 'budget_exceeded'])
  })

  test('no base that could be dialled', async () => {
    const { gateway } = await start()
    const none = await gateway.addProviderKey({ provider: 'lab' })
    await gateway.addModel({ display_name: 'baseless', provider_key_id: none.id })
    const answer = await refused(gateway, '/v1/realtime?model=baseless')
    expect([answer.status, answer.body?.error.type]).toEqual([400, 'invalid_request_error'])
  })
})

describe('credentials', () => {
  const subprotocols = (key: string) => ['realtime', `openai-insecure-api-key.${key}`, 'openai-beta.realtime-v1']

  test('a key as subprotocol, as browsers send it; only `realtime` is agreed to', async () => {
    const { gateway, upstream } = await start()
    const { socket } = await openSession(gateway.url + TARGET, { protocols: subprotocols(CALLER_KEY) })
    expect(socket.protocol).toBe('realtime')
    expect((await upstream.session()).headers.get('sec-websocket-protocol')).toBeNull()
  })

  test('where `realtime` is not offered nothing is agreed to, least of all the key', async () => {
    const { gateway } = await start()
    const caller = await rawHandshake(gateway.port, TARGET, [
      ...HANDSHAKE,
      `Sec-WebSocket-Protocol: openai-insecure-api-key.${CALLER_KEY}, other`,
    ])
    const head = await caller.receives('\r\n\r\n')
    expect(head).toStartWith('HTTP/1.1 101 ')
    expect(head.toLowerCase()).not.toContain('sec-websocket-protocol')
    expect(head).not.toContain(CALLER_KEY)
    caller.leave()
  })

  test('x-api-key', async () => {
    const { gateway, upstream } = await start()
    await open(gateway, `model=${ALIAS}`, { 'x-api-key': CALLER_KEY })
    expect((await upstream.session()).headers.get('x-api-key')).toBeNull()
  })

  test.each<[string, string[]]>([
    ['none', []],
    ['a wrong subprotocol', ['Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-wrong']],
    ['an empty one', ['Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.']],
    [
      'a wrong header beside a right subprotocol',
      ['Authorization: Bearer sk-wrong', `Sec-WebSocket-Protocol: openai-insecure-api-key.${CALLER_KEY}`],
    ],
    ['another scheme beside it', ['Authorization: Basic eDp5', `Sec-WebSocket-Protocol: openai-insecure-api-key.${CALLER_KEY}`]],
  ])('%s: 401', async (_what, headers) => {
    const { gateway, upstream } = await start()
    const answer = await refused(gateway, TARGET, headers)
    expect([answer.status, answer.body?.error.type]).toEqual([401, 'invalid_api_key'])
    expect(upstream.requests).toHaveLength(0)
    expect(gateway.logs.join('\n')).not.toContain(CALLER_KEY)
  })

  test('the key of the caller reaches no upstream, whatever is forwarded, and no log', async () => {
    const { gateway, upstream } = await start({ providerKey: { request: { forward_client_headers: ['*'] } } })
    const query = `model=${ALIAS}&api_key=${CALLER_KEY}&access_token=${CALLER_KEY}&Authorization=${CALLER_KEY}`
    const { socket } = await openSession(`${gateway.url}/v1/realtime?${query}`, { protocols: subprotocols(CALLER_KEY) })
    const session = await upstream.session()
    socket.close()
    await gateway.idle()
    expect(JSON.stringify([session.target, [...session.headers]])).not.toContain(CALLER_KEY)
    expect(session.target).toBe(`/v1/realtime?model=${encodeURIComponent(UPSTREAM_MODEL)}`)
    expect(gateway.logs.join('\n')).not.toContain(CALLER_KEY)
  })

  test('without keys, pages of other origins are refused: browsers ask no server before they open a WebSocket', async () => {
    const anonymous = { api_key_id: 'later', source_cidrs: ['127.0.0.0/8'], paths: ['/v1/realtime'] }
    const cors = { allowed_origins: ['https://own.test'] }
    const { gateway, upstream } = await start({ config: { proxy: { anonymous, cors } } })
    const rule = gateway.gateway.config.proxy.anonymous
    if (rule) rule.api_key_id = gateway.rows.apiKey.id
    const answer = await refused(gateway, TARGET, ['Origin: https://other.test'])
    expect([answer.status, answer.body?.error.type]).toEqual([403, 'permission_denied'])
    expect(upstream.requests).toHaveLength(0)
    await open(gateway, `model=${ALIAS}`, { origin: 'https://own.test' })
    await open(gateway, `model=${ALIAS}`, {})
    await open(gateway, `model=${ALIAS}`, { ...BEARER, origin: 'https://other.test' })
    expect(upstream.requests).toHaveLength(3)
  })
})

describe('what the upstream is asked', () => {
  test('its own name of the model, the other parameters, its credential and our headers', async () => {
    const { gateway, upstream } = await start({
      providerKey: {
        request: {
          default_headers: {
            'x-team': 'key ${request.api_key.name}',
            'openai-beta': 'other',
            'x-none': '${request.api_key.team_id}',
          },
          forward_client_headers: ['x-mine'],
        },
      },
    })
    await open(gateway, `voice=a%26b&model=${ALIAS}&x=1&x=2`, {
      ...BEARER,
      'x-mine': 'yes',
      'x-other': 'no',
      'x-aisix-request-id': 'id-1',
    })
    const { target, headers } = await upstream.session()
    expect(target).toBe(`/v1/realtime?model=${encodeURIComponent(UPSTREAM_MODEL)}&voice=a%26b&x=1&x=2`)
    expect(Object.fromEntries([...headers].filter(([name]) => !/^(?:host|sec-websocket-key)$/.test(name)))).toEqual({
      authorization: `Bearer ${UPSTREAM_SECRET}`,
      connection: 'Upgrade',
      'openai-beta': 'realtime=v1',
      'sec-websocket-version': '13',
      upgrade: 'websocket',
      'user-agent': 'aisix/0.1',
      'x-aisix-request-id': 'id-1',
      'x-mine': 'yes',
      'x-team': 'key caller one',
    })
  })

  test('a base without a path means /v1, one with a path is taken as it is', async () => {
    const { gateway, upstream } = await start()
    const { origin } = new URL(upstream.url)
    for (const [name, api_base] of [
      ['bare', origin],
      ['other', `${origin}/v2/`],
    ]) {
      const { id } = await gateway.addProviderKey({ api_base })
      await gateway.addModel({ display_name: name, provider_key_id: id, model_name: 'm' })
    }
    await open(gateway, 'model=bare')
    await open(gateway, 'model=other')
    expect((await upstream.session(0)).target).toBe('/v1/realtime?model=m')
    expect((await upstream.session(1)).target).toBe('/v2/realtime?model=m')
  })

  test('of a pattern, the name with what the star stood for', async () => {
    const { gateway, upstream } = await start()
    await gateway.addModel({ display_name: 'lab/*', model_name: 'real-*' })
    await open(gateway, 'model=lab%2Fvoice')
    expect((await upstream.session()).target).toBe('/v1/realtime?model=real-voice')
  })

  test('over TLS, with the certificates of its provider key', async () => {
    const [cert, key] = ['server.crt', 'server.key'].map(name => readFileSync(join(TLS, name), 'utf8'))
    if (!cert || !key) throw new Error('no certificate')
    const { gateway } = await start({ providerKey: { tls: { ca_cert: cert } } }, { tls: { cert, key } })
    const caller = await open(gateway)
    caller.socket.close()
    const untrusted = await start({}, { tls: { cert, key } })
    const answer = await refused(untrusted.gateway)
    expect([answer.status, answer.body?.error]).toEqual([
      502,
      { message: 'transport error: certificate not trusted', type: 'transport_error' },
    ])
    const unchecked = await start({ providerKey: { tls: { verify: false } } }, { tls: { cert, key } })
    await open(unchecked.gateway)
  })

  test('through the proxy of the configuration', async () => {
    const upstream = realtimeUpstream({ onOpen: session => void session.socket.send('through') })
    stops.push(upstream.stop)
    let asked = ''
    const proxy = tcpServer((socket, text) => {
      if (tunnels.has(socket)) return void tunnels.get(socket)?.write(Buffer.from(text, 'latin1'))
      asked = text
      const onward = connect(upstream.port, '127.0.0.1', () => socket.write('HTTP/1.1 200 OK\r\n\r\n'))
      tunnels.set(socket, onward)
      onward.on('data', bytes => socket.write(bytes))
    })
    const tunnels = new Map<Bun.Socket, ReturnType<typeof connect>>()
    stops.push(() => {
      for (const each of tunnels.values()) each.destroy()
    })
    const gateway = await startGateway({
      upstream: upstream.url,
      config: { upstream: { proxy: `http://user:pass@127.0.0.1:${proxy.port}` } },
    })
    stops.push(gateway.stop)
    const caller = await open(gateway)
    await until('a frame', () => caller.received.length > 0)
    expect(caller.received).toEqual(['through'])
    expect(asked).toStartWith(`CONNECT 127.0.0.1:${upstream.port} HTTP/1.1\r\n`)
    expect(asked.toLowerCase()).toContain(`proxy-authorization: basic ${btoa('user:pass')}`.toLowerCase())
    expect(asked).not.toContain(UPSTREAM_SECRET)
  })

  test('a proxy that refuses is no answer of the upstream', async () => {
    const proxy = tcpServer(socket => void socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n'))
    const { gateway } = await start({ config: { upstream: { proxy: `http://127.0.0.1:${proxy.port}` } } })
    const answer = await refused(gateway)
    expect([answer.status, answer.body?.error.type]).toEqual([502, 'transport_error'])
  })

  test('through no proxy that only the environment names', async () => {
    const upstream = realtimeUpstream()
    stops.push(upstream.stop)
    let connections = 0
    const proxy = tcpServer(socket => {
      connections += 1
      socket.end()
    })
    const names = ['HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'http_proxy', 'https_proxy', 'all_proxy']
    const script = `
      import { Caller } from '${join(import.meta.dir, '../../src/proxy/caller.ts')}'
      import { openLink } from '${join(import.meta.dir, '../../src/proxy/realtime/upstream-link.ts')}'
      const caller = new Caller(new AbortController().signal)
      const url = 'ws://127.0.0.1:${upstream.port}/v1/realtime'
      await openLink({ url, headers: {}, timeoutMs: 5_000, connectTimeoutMs: 0, caller })
      process.exit(0)
    `
    const child = Bun.spawn([process.execPath, '-e', script], {
      env: { ...process.env, ...Object.fromEntries(names.map(name => [name, `http://127.0.0.1:${proxy.port}`])) },
      stdout: 'ignore',
      stderr: 'pipe',
    })
    expect([await child.exited, await child.stderr.text()]).toEqual([0, ''])
    expect([upstream.requests.length, connections]).toEqual([1, 0])
  })
})

describe('an upstream that opens no session', () => {
  const gatewayFor = async (port: number, options: GatewayOptions = {}) => {
    const gateway = await startGateway({ upstream: `http://127.0.0.1:${port}/v1`, ...options })
    stops.push(gateway.stop)
    return gateway
  }

  test('is not there: 502', async () => {
    const gateway = await gatewayFor(1)
    const answer = await refused(gateway)
    expect([answer.status, answer.body?.error]).toEqual([
      502,
      { message: 'transport error: connection refused', type: 'transport_error' },
    ])
    const record = await recordOf(gateway)
    expect(record).toMatchObject({ status: 502, errorClass: 'transport_error', attemptKind: 'initial', promptTokens: 0 })
    expect(gateway.gateway.modelHealth.of(gateway.rows.model.id).inFlight).toBe(0)
    expect(stateOf(gateway)).toBe('cooldown')
  })

  test.each<[string, Response, number, Record<string, unknown>]>([
    [
      'with its own words and code',
      Response.json({ error: { message: 'no such model', code: 'model_not_found', param: 'model' } }, { status: 404 }),
      404,
      { message: 'no such model', type: 'upstream_error', code: 'model_not_found', param: 'model' },
    ],
    ['a plain text', new Response('not here', { status: 403 }), 403, { message: 'not here', type: 'upstream_error' }],
    ['nothing more', new Response(null, { status: 401 }), 401, { message: 'upstream returned 401', type: 'upstream_error' }],
  ])('4xx: the caller is told %s', async (_what, answer, status, error) => {
    const { gateway } = await start({}, { answer: () => answer })
    const told = await refused(gateway)
    expect([told.status, told.body?.error]).toEqual([status, error])
    expect((await recordOf(gateway)).status).toBe(status)
  })

  test('429 tells when to come back', async () => {
    const { gateway } = await start({}, { answer: () => new Response('busy', { status: 429, headers: { 'retry-after': '7' } }) })
    const told = await refused(gateway)
    expect([told.status, told.headers.get('retry-after')]).toEqual([429, '7'])
  })

  test('5xx: 502, and its words are for the log', async () => {
    const { gateway } = await start({}, { answer: () => new Response('stack trace', { status: 503 }) })
    const told = await refused(gateway)
    expect([told.status, told.body?.error.type]).toEqual([502, 'upstream_error'])
    expect(JSON.stringify(told.body)).not.toContain('stack trace')
    expect(gateway.logs.join('\n')).toContain('stack trace')
  })

  test('a redirect is not followed', async () => {
    const elsewhere = realtimeUpstream()
    stops.push(elsewhere.stop)
    const { gateway } = await start({}, { answer: () => Response.redirect(`${elsewhere.url}/realtime`) })
    const told = await refused(gateway)
    expect([told.status, told.body?.error.message]).toEqual([
      502,
      'upstream returned 302; redirects are not followed; check api_base',
    ])
    expect(elsewhere.requests).toHaveLength(0)
  })

  test('answers a page', async () => {
    const { gateway } = await start({}, { answer: () => new Response('<html>') })
    const told = await refused(gateway)
    expect([told.status, told.body?.error.message]).toEqual([
      502,
      'upstream answered a WebSocket handshake with 200; check api_base',
    ])
  })

  test.each<[string, (socket: Bun.Socket, request: string) => void, string]>([
    ['hangs up', socket => void socket.end(), 'transport_error'],
    ['speaks something else', socket => void socket.end('220 mail.test ESMTP\r\n'), 'transport_error'],
    [
      'computes the handshake wrongly',
      (socket, request) => void socket.write(switching(request).replace(/Accept: ./, 'Accept: _')),
      'upstream_error',
    ],
  ])('%s: 502', async (_what, onData, type) => {
    const gateway = await gatewayFor(tcpServer(onData).port)
    const told = await refused(gateway, `${TARGET}&hint=private`)
    expect([told.status, told.body?.error.type]).toEqual([502, type])
    const logged = gateway.logs.join('\n')
    expect(logged).toContain('upstream call failed')
    expect(logged).not.toContain('private')
  })

  test('says nothing: 504 at the deadline of its model, and its connection is closed', async () => {
    const closed = Promise.withResolvers<void>()
    const silent = tcpServer(() => {}, closed.resolve)
    const gateway = await gatewayFor(silent.port, { model: { timeout: 50 } })
    const told = await refused(gateway)
    expect([told.status, told.body?.error.message]).toEqual([504, 'upstream request timed out after 50ms'])
    await closed.promise
  })

  test('takes no connection: 502 after the time for connecting', async () => {
    // One that never ends the handshake of TLS is as far as a test gets on one machine.
    const mute = tcpServer(() => {})
    const { gateway } = await start({
      upstream: `https://127.0.0.1:${mute.port}/v1`,
      config: { upstream: { connect_timeout_ms: 50 } },
    })
    const told = await refused(gateway)
    expect([told.status, told.body?.error.message]).toEqual([502, 'transport error: connection timed out'])
  })

  test('a caller that leaves meanwhile: 499, and the connection to the upstream is closed', async () => {
    const closed = Promise.withResolvers<void>()
    const asked = Promise.withResolvers<void>()
    const silent = tcpServer(() => asked.resolve(), closed.resolve)
    const gateway = await gatewayFor(silent.port)
    const caller = await rawHandshake(gateway.port, TARGET, [...HANDSHAKE, KEY])
    await asked.promise
    caller.leave()
    await closed.promise
    expect(await recordOf(gateway)).toMatchObject({ status: 499, errorClass: 'client_disconnected' })
    expect(gateway.gateway.lifecycle.inFlight.size).toBe(0)
  })
})

describe('frames', () => {
  test('pass unchanged and in order, text as text and bytes as bytes, both ways', async () => {
    const { gateway, upstream } = await start()
    const { caller, session } = await joined(gateway, upstream)
    const large = Buffer.alloc(8 * 1024 * 1024, 'abcdefg')
    const frames: (string | Buffer<ArrayBuffer>)[] = [
      '{"type":"session.update"}',
      Buffer.from([0, 255, 128]),
      '',
      Buffer.alloc(0),
      '\ufeffa byte order mark, \u0000, é and 🦊',
      'x'.repeat(8 * 1024 * 1024),
      large,
      ...Array.from({ length: 500 }, (_, i) => (i % 3 === 0 ? Buffer.from(`${i}`) : `${i}`)),
    ]
    const expected = frames.map(each => (typeof each === 'string' ? each : Buffer.from(each)))
    for (const frame of frames) caller.socket.send(frame)
    await until('all at the upstream', () => session.received.length >= frames.length)
    for (const frame of frames) session.socket.send(frame)
    await until('all at the caller', () => caller.received.length >= frames.length)
    // Compared one by one: a difference in 8 MiB would be printed.
    for (const received of [session.received, caller.received]) {
      expect(received).toHaveLength(expected.length)
      for (const [i, frame] of expected.entries()) {
        const came = received[i]
        expect([i, typeof came]).toEqual([i, typeof frame])
        expect(typeof frame === 'string' || typeof came === 'string' ? frame === came : came && frame.equals(came)).toBe(true)
      }
    }
  })

  test('that come with the handshake of the upstream are kept until there is somebody to take them', async () => {
    const early = Array.from({ length: 20 }, (_, i) => `early ${i}`)
    const eager = tcpServer((socket, request) => {
      if (!request.startsWith('GET')) return
      const frames = early.map(text => Buffer.concat([Buffer.from([0x81, text.length]), Buffer.from(text)]))
      // One segment, which is read as a whole.
      socket.write(Buffer.concat([Buffer.from(switching(request)), ...frames]))
    })
    const gateway = await startGateway({ upstream: `http://127.0.0.1:${eager.port}/v1` })
    stops.push(gateway.stop)
    const caller = await open(gateway)
    await until('all frames', () => caller.received.length >= early.length)
    expect(caller.received).toEqual(early)

    const request: LinkRequest = {
      url: `ws://127.0.0.1:${eager.port}/`,
      ...{ hostname: '127.0.0.1', port: eager.port, tls: undefined, proxy: undefined },
      headers: {},
      ...{ timeoutMs: 0, connectTimeoutMs: 0 },
      caller: new Caller(new AbortController().signal),
      refused: () => new GatewayError('upstream_error', 'refused'),
    }
    const link = await openLink(request)
    // Whatever was read with the first handshake has been dealt with once there was a second.
    const second = await openLink(request)
    const received: (string | Buffer)[] = []
    link.listen({ onFrame: frame => received.push(frame), onPong() {}, onClosed() {} })
    await until('all frames', () => received.length >= early.length)
    expect(received).toEqual(early)
    link.terminate()
    second.terminate()
  })

  test('in pieces and with bytes between them are put together', async () => {
    const { gateway, upstream } = await start()
    const caller = await rawHandshake(gateway.port, TARGET, [...HANDSHAKE, KEY])
    await caller.receives('\r\n\r\n')
    const session = await upstream.session()
    // 'he' without FIN, a ping between, and 'y' that ends it; all under the mask 0.
    caller.send(
      Buffer.concat([Buffer.from([1, 0x82, 0, 0, 0, 0]), Buffer.from('he'), Buffer.from([0x89, 0x81, 0, 0, 0, 0, 0x70])]),
    )
    // The ping is answered by the gateway, before the message is whole.
    await caller.receives('\x8a\x01p')
    caller.send(Buffer.concat([Buffer.from([0x80, 0x81, 0, 0, 0, 0]), Buffer.from('y')]))
    await until('a frame', () => session.received.length > 0)
    expect(session.received).toEqual(['hey'])
    caller.leave()
  })

  test('over 16 MiB end the session with 1009, whoever sends them', async () => {
    const { gateway, upstream } = await start()
    const first = await joined(gateway, upstream)
    first.caller.socket.send(Buffer.alloc(16 * 1024 * 1024 + 1))
    expect((await first.caller.closed).code).toBe(1009)
    await first.session.closed
    const second = await open(gateway)
    const session = await upstream.session(1)
    session.socket.send(Buffer.alloc(16 * 1024 * 1024 + 1))
    expect(await second.closed).toEqual({ code: 1011, reason: 'upstream connection lost' })
    expect((await session.closed).code).toBe(1009)
    await until('two records', () => gateway.telemetry.records.length === 2)
    expect(gateway.telemetry.records.map(({ status }) => status)).toEqual([499, 502])
  })
})

const PIECE_BYTES = 64 * 1024
const PIECES = 2_048
/** Of 128 MiB: what sockets of this machine hold is a few MiB each, of which a session passes four. */
const HELD_BYTES_MAX = 48 * 1024 * 1024

function piece(index: number): Buffer<ArrayBuffer> {
  const bytes = Buffer.alloc(PIECE_BYTES)
  bytes.writeUInt32BE(index)
  return bytes
}

/** Waits until a sender gets rid of nothing any more. returns: bytes that it got rid of */
async function stuck(sent: () => number): Promise<number> {
  let before = -1
  for (let same = 0; same < 100; same++) {
    const now = sent()
    if (now !== before) same = 0
    before = now
    await Bun.sleep(5)
  }
  return before
}

function isInOrder(received: readonly (string | Buffer)[]): boolean {
  return received.every((frame, i) => typeof frame !== 'string' && frame.byteLength === PIECE_BYTES && frame.readUInt32BE() === i)
}

/** Sends all pieces, each once the one before it has left. returns: bytes that were sent so far */
function pour(caller: WebSocket): () => number {
  let sent = 0
  const pouring = async () => {
    for (; sent < PIECES && caller.readyState === WebSocket.OPEN; sent++) {
      caller.send(piece(sent))
      while (caller.bufferedAmount > 0 && caller.readyState === WebSocket.OPEN) await Bun.sleep(1)
    }
  }
  pouring()
  return () => sent * PIECE_BYTES
}

describe('whoever does not read stops the other side', () => {
  test('a caller: the upstream gets rid of little, and of the rest once the caller reads on', async () => {
    const { gateway, upstream } = await start()
    const { caller, session } = await joined(gateway, upstream)
    caller.socket.pause()
    let sent = 0
    session.onDrain = () => {
      while (sent < PIECES && session.socket.getBufferedAmount() === 0) session.socket.send(piece(sent++))
    }
    session.onDrain()
    const held = await stuck(() => sent * PIECE_BYTES - session.socket.getBufferedAmount())
    expect(held).toBeGreaterThan(0)
    expect(held).toBeLessThan(HELD_BYTES_MAX)
    // The other direction does not stand still.
    caller.socket.send('still here')
    await until('a frame of the caller', () => session.received.length > 0)
    caller.socket.resume()
    await until('everything', () => caller.received.length === PIECES)
    expect(isInOrder(caller.received)).toBe(true)
  }, 30_000)

  test('an upstream: the caller gets rid of little, and of the rest once the upstream reads on', async () => {
    const { gateway, upstream } = await start()
    const { caller, session } = await joined(gateway, upstream)
    session.socket.pause()
    const sent = pour(caller.socket)
    const held = await stuck(sent)
    expect(held).toBeGreaterThan(0)
    expect(held).toBeLessThan(HELD_BYTES_MAX)
    session.socket.send('still here')
    await until('a frame of the upstream', () => caller.received.length > 0)
    session.socket.resume()
    await until('everything', () => session.received.length === PIECES)
    expect(isInOrder(session.received)).toBe(true)
  }, 30_000)

  test('an upstream that ends while its caller does not read: the caller gets everything, then the end', async () => {
    const { gateway, upstream } = await start()
    const { caller, session } = await joined(gateway, upstream)
    caller.socket.pause()
    for (let i = 0; i < 512; i++) session.socket.send(piece(i))
    await stuck(() => session.socket.getBufferedAmount())
    // Right before the caller goes on: whoever closes waits about a second for what it has sent to be read.
    session.socket.close(4000, 'all said')
    caller.socket.resume()
    expect(await caller.closed).toEqual({ code: 4000, reason: 'all said' })
    expect(caller.received).toHaveLength(512)
    expect(isInOrder(caller.received)).toBe(true)
    expect(await recordOf(gateway)).toMatchObject({ status: 200 })
  }, 30_000)

  test('a caller that leaves while its upstream does not read is noticed', async () => {
    const { gateway, upstream } = await start({ timings: { pausedPingMs: 20, upstreamPingMs: 30_000 } })
    const { caller, session } = await joined(gateway, upstream)
    session.socket.pause()
    await stuck(pour(caller.socket))
    caller.socket.terminate()
    await gateway.idle()
    expect(await recordOf(gateway)).toMatchObject({ status: 499, errorClass: 'client_disconnected' })
    session.socket.resume()
    expect((await session.closed).code).toBe(1006)
  }, 30_000)
})

describe('a session that its caller could not open any more', () => {
  test.each<[string, (gateway: TestGateway) => unknown, string]>([
    [
      'since its key is deleted',
      gateway => gateway.store.remove('api_keys', gateway.rows.apiKey.id, ACTOR),
      'the API key may no longer use this model',
    ],
    [
      'since its key is disabled',
      gateway => gateway.store.replace('api_keys', gateway.rows.apiKey.id, key => ({ ...key, disabled: true }), ACTOR),
      'the API key may no longer use this model',
    ],
    [
      'since its key may use other models now',
      gateway => gateway.store.replace('api_keys', gateway.rows.apiKey.id, key => ({ ...key, allowed_models: [] }), ACTOR),
      'the API key may no longer use this model',
    ],
    [
      'since a budget is used up',
      gateway => {
        gateway.gateway.budgets.refusal = () => new GatewayError('budget_exceeded', 'all is spent')
      },
      'a budget is used up',
    ],
  ])('%s is ended', async (_what, change, reason) => {
    const { gateway, upstream } = await start({ timings: { pausedPingMs: 1_000, upstreamPingMs: 20 } })
    const { caller, session } = await joined(gateway, upstream)
    await change(gateway)
    expect(await caller.closed).toEqual({ code: 1008, reason })
    expect((await session.closed).code).toBe(1000)
    expect(await recordOf(gateway)).toMatchObject({ status: 403, errorClass: 'permission_denied' })
  })
})

describe('the end of a session', () => {
  test.each<[string, number | undefined, string, { code: number; reason: string }, { code: number; reason: string }]>([
    ['in good order', 1000, 'done', { code: 1000, reason: 'done' }, { code: 1000, reason: 'done' }],
    ['with a code of its own', 4321, 'é', { code: 4321, reason: 'é' }, { code: 4321, reason: 'é' }],
    ['without a code', undefined, '', { code: 1005, reason: '' }, { code: 1000, reason: '' }],
  ])('%s goes to the other side', async (_what, code, reason, atUpstream, atCaller) => {
    const { gateway, upstream } = await start()
    const first = await joined(gateway, upstream)
    first.caller.socket.close(code, reason)
    expect(await first.session.closed).toEqual(atUpstream)
    const second = await open(gateway)
    const session = await upstream.session(1)
    session.socket.close(code, reason)
    expect(await second.closed).toEqual(atCaller)
    await until('two records', () => gateway.telemetry.records.length === 2)
    for (const record of gateway.telemetry.records) {
      expect(record).toMatchObject({ status: 200, isStream: true, handler: 'realtime', inboundProtocol: 'realtime' })
      expect(record.errorClass).toBeUndefined()
    }
  })

  test('a caller that is gone: the connection to the upstream is closed', async () => {
    const { gateway, upstream } = await start()
    const caller = await rawHandshake(gateway.port, TARGET, [...HANDSHAKE, KEY])
    const session = await upstream.session()
    await caller.receives('\r\n\r\n')
    caller.leave()
    expect((await session.closed).code).toBe(1006)
    expect(await recordOf(gateway)).toMatchObject({ status: 499, errorClass: 'client_disconnected' })
    expect(stateOf(gateway)).toBe('healthy')
  })

  test('an upstream that is gone: 1011, and it counts as a failure of its model', async () => {
    const { gateway, upstream } = await start()
    const { caller, session } = await joined(gateway, upstream)
    session.socket.terminate()
    expect(await caller.closed).toEqual({ code: 1011, reason: 'upstream connection lost' })
    expect(await recordOf(gateway)).toMatchObject({ status: 502, errorClass: 'stream_aborted', attemptKind: 'initial' })
    expect(gateway.logs.join('\n')).toContain('error_kind="stream_aborted"')
    expect(stateOf(gateway)).toBe('cooldown')
  })

  test('an upstream that says that it failed: its code is passed on, and the record tells', async () => {
    const { gateway, upstream } = await start()
    const { caller, session } = await joined(gateway, upstream)
    session.socket.close(1011, 'engine died')
    expect(await caller.closed).toEqual({ code: 1011, reason: 'engine died' })
    expect(await recordOf(gateway)).toMatchObject({ status: 502, errorClass: 'stream_aborted' })
    expect(gateway.logs.join('\n')).not.toContain('engine died')
  })

  test('an upstream that breaks the protocol: 1011', async () => {
    const broken = tcpServer((socket, request) => {
      if (!request.startsWith('GET')) return
      socket.write(switching(request))
      socket.write(Buffer.from([0x83, 0x01, 0x41]))
    })
    const gateway = await startGateway({ upstream: `http://127.0.0.1:${broken.port}/v1` })
    stops.push(gateway.stop)
    expect(await (await open(gateway)).closed).toEqual({ code: 1011, reason: 'upstream connection lost' })
  })

  test.each<[string, Buffer, number]>([
    ['no frames at all', Buffer.from('GET / HTTP/1.1\r\n\r\n'), 1002],
    ['a frame without a mask', Buffer.from([0x81, 0x01, 0x41]), 1002],
    ['an opcode that there is not', Buffer.from([0x83, 0x80, 0, 0, 0, 0]), 1002],
    ['text that is no UTF-8', Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]), 1007],
    ['a length beyond all measure', Buffer.from([0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0]), 1009],
  ])('a caller that sends %s ends its own session and no other', async (_what, bytes, code) => {
    const { gateway, upstream } = await start()
    const { caller, session } = await joined(gateway, upstream)
    const bad = await rawHandshake(gateway.port, TARGET, [...HANDSHAKE, KEY])
    await bad.receives('\r\n\r\n')
    const badSession = await upstream.session(1)
    bad.send(bytes)
    expect((await badSession.closed).code).toBe(1006)
    // A Close frame with the code, then the end of the connection.
    expect(await bad.closed).toContain(String.fromCharCode(code >> 8, code & 255))
    expect(await recordOf(gateway)).toMatchObject({ status: 499 })
    caller.socket.send('and this one goes on')
    await until('a frame', () => session.received.length > 0)
    expect((await gateway.get('/v1/models')).status).toBe(200)
  })

  test('when the gateway stops: 1001 to both sides', async () => {
    const { gateway, upstream } = await start()
    const { caller, session } = await joined(gateway, upstream)
    gateway.endSessions()
    expect(await caller.closed).toEqual({ code: 1001, reason: 'the gateway is shutting down' })
    expect((await session.closed).code).toBe(1001)
    expect(await recordOf(gateway)).toMatchObject({ status: 200 })
  })

  test('an upstream that answers no ping any more: 1011', async () => {
    const silent = tcpServer((socket, request) => {
      if (request.startsWith('GET')) socket.write(switching(request))
    })
    const timings = { pausedPingMs: 1_000, upstreamPingMs: 20 }
    const gateway = await startGateway({ upstream: `http://127.0.0.1:${silent.port}/v1`, timings })
    stops.push(gateway.stop)
    expect(await (await open(gateway)).closed).toEqual({ code: 1011, reason: 'upstream is silent' })
    expect(await recordOf(gateway)).toMatchObject({ status: 504, errorClass: 'timeout' })
  })

  test('one that answers them may be silent as long as it likes', async () => {
    let pings = 0
    const quiet = tcpServer((socket, text) => {
      if (text.startsWith('GET')) return void socket.write(switching(text))
      if (!text.startsWith('\x89')) return
      pings += 1
      socket.write(Buffer.from([0x8a, 0]))
    })
    const timings = { pausedPingMs: 1_000, upstreamPingMs: 5 }
    const gateway = await startGateway({ upstream: `http://127.0.0.1:${quiet.port}/v1`, timings })
    stops.push(gateway.stop)
    const caller = await open(gateway)
    await until('more pings than may stay unanswered', () => pings > 8)
    expect(caller.socket.readyState).toBe(WebSocket.OPEN)
    caller.socket.close()
    await gateway.idle()
  })
})

describe('what a session comes to', () => {
  const done = (usage: unknown, type = 'response.done') => JSON.stringify({ type, response: { id: 'r', usage } })

  test('the sum of what its answers tell, once, at its end', async () => {
    const { gateway, upstream } = await start({ model: { cost: { input_per_1k: 1, output_per_1k: 2 } } })
    const { caller, session } = await joined(gateway, upstream)
    const frames = [
      done({ input_tokens: 100, output_tokens: 20, total_tokens: 120, input_token_details: { cached_tokens: 64 } }),
      done({ input_tokens: 30, output_tokens: 5, input_token_details: { cached_tokens: 6 } }),
      // What only looks like it.
      done({ input_tokens: 1_000, output_tokens: 1_000 }, 'conversation.item.created'),
      '{"type":"response.done","response":{"usage":null}}',
      '{"type":"response.done"',
      '"response.done"',
      Buffer.from(done({ input_tokens: 1_000, output_tokens: 1_000 })),
    ]
    for (const frame of frames) session.socket.send(frame)
    await until('all frames', () => caller.received.length === frames.length)
    // What callers say of usage is not believed.
    caller.socket.send(done({ input_tokens: 1_000, output_tokens: 1_000 }))
    await until('that frame', () => session.received.length === 1)
    expect(gateway.telemetry.records).toHaveLength(0)
    caller.socket.close()
    expect(await recordOf(gateway)).toMatchObject({
      promptTokens: 130,
      completionTokens: 25,
      cachedTokens: 70,
      isEstimated: false,
      isPriced: true,
      costPico: (0.13 + 0.05) * 1e12,
      status: 200,
      attemptKind: 'initial',
      requestedModel: ALIAS,
    })
    expect(gateway.telemetry.charged).toHaveLength(1)
    expect(await gateway.accessLine()).toContain('status=200 ')
    expect(await gateway.accessLine()).toContain('prompt_tokens=130 completion_tokens=25 total_tokens=155')
    const page = samplesOf(gateway.telemetry.registry.render())
    const value = (name: string) => page.find(each => each.name === name)
    expect(value('aisix_llm_requests_total')).toMatchObject({
      labels: { endpoint: '/v1/realtime', outcome: 'success', stream: 'true' },
      value: 1,
    })
    expect(value('aisix_usage_events_emitted_total')).toMatchObject({
      labels: { handler: 'realtime', status_code: '2xx' },
      value: 1,
    })
    expect(value('aisix_llm_total_tokens_total')?.value).toBe(155)
  })

  test('nothing is invented where no answer told any usage', async () => {
    const { gateway, upstream } = await start()
    const { caller, session } = await joined(gateway, upstream)
    caller.socket.send('x'.repeat(10_000))
    session.socket.send('y'.repeat(10_000))
    await until('both', () => caller.received.length + session.received.length === 2)
    caller.socket.close()
    expect(await recordOf(gateway)).toMatchObject({ promptTokens: 0, completionTokens: 0, isEstimated: false })
  })

  test('tokens count against the limits of the key, also of a session that broke', async () => {
    const { gateway, upstream } = await start({ apiKey: { rate_limit: { tpm: 100 } } })
    const { caller, session } = await joined(gateway, upstream)
    session.socket.send(done({ input_tokens: 90, output_tokens: 20 }))
    await until('the frame', () => caller.received.length === 1)
    session.socket.terminate()
    await caller.closed
    expect(await recordOf(gateway)).toMatchObject({ status: 502, promptTokens: 90, completionTokens: 20 })
    const answer = await refused(gateway)
    expect([answer.status, answer.body?.error.message]).toEqual([429, 'token limit exceeded (tokens)'])
  })

  test('a place is held for as long as the session lasts, and is free again however it ends', async () => {
    const { gateway, upstream } = await start({ apiKey: { rate_limit: { concurrency: 1 } } })
    const ends: ((ends: Awaited<ReturnType<typeof joined>>) => void)[] = [
      ({ caller }) => caller.socket.close(),
      ({ caller }) => caller.socket.terminate(),
      ({ session }) => void session.socket.close(),
      ({ session }) => session.socket.terminate(),
      () => gateway.endSessions(),
    ]
    for (const [i, end] of ends.entries()) {
      const caller = await open(gateway)
      const session = await upstream.session(i)
      expect((await refused(gateway)).status).toBe(429)
      expect(gateway.gateway.modelHealth.of(gateway.rows.model.id).inFlight).toBe(1)
      end({ caller, session })
      await gateway.idle()
      expect(gateway.gateway.limiter.inFlight).toBe(0)
      expect(gateway.gateway.modelHealth.of(gateway.rows.model.id).inFlight).toBe(0)
    }
  })
})
