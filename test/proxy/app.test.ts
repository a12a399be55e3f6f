import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { VERSION } from '../../src/version.ts'
import { chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, answerOf, CALLER_KEY, startGateway, type TestGateway } from '../gateway.ts'
import { rawAnswer, rawPost } from './raw-caller.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: upstream.url })
})
beforeEach(() => {
  upstream.requests.length = 0
})
afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})

const AUTHORIZATION = `Authorization: Bearer ${CALLER_KEY}`
const QUESTION = JSON.stringify({ model: ALIAS, messages: [{ role: 'user', content: 'Hi' }] })
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

describe('every answer says who it is from and which request it is for', () => {
  test.each([
    ['a good one', () => gateway.chat(), 200],
    ['401', () => gateway.get('/v1/models', {}), 401],
    ['404 of a path', () => gateway.get('/nowhere'), 404],
    ['404 of a model', () => gateway.chat({ model: 'unknown' }), 404],
    ['405', () => gateway.get('/v1/chat/completions'), 405],
    ['410', () => gateway.get('/passthrough/x'), 410],
    ['400', () => gateway.post('/v1/chat/completions', '{'), 400],
    ['/livez', () => gateway.get('/livez', {}), 200],
    ['/readyz', () => gateway.get('/readyz', {}), 200],
    ['/livez with a wrong method', () => fetch(`${gateway.url}/livez`, { method: 'POST' }), 405],
    ['HEAD', () => fetch(`${gateway.url}/v1/models`, { method: 'HEAD' }), 401],
    ['OPTIONS', () => fetch(`${gateway.url}/v1/models`, { method: 'OPTIONS' }), 405],
  ] as const)('%s', async (_name, ask, status) => {
    const response = await ask()
    await response.text()
    expect(response.status).toBe(status)
    expect(response.headers.get('server')).toBe(`AISIX/${VERSION}`)
    expect(response.headers.get('x-aisix-request-id')).toMatch(UUID)
    expect(response.headers.get('x-request-id')).toBe(response.headers.get('x-aisix-request-id'))
  })

  test('a server header of the upstream is not relayed, nor any other of its headers', async () => {
    upstream.answerInTurn(
      (_request, connection) =>
        connection.json(
          200,
          { choices: [] },
          { server: 'nginx', 'openai-organization': 'org', 'x-ratelimit-limit-requests': '5' },
        ),
      (_request, connection) => connection.json(200, { choices: [] }),
    )
    const { headers } = await gateway.chat()
    expect(headers.get('server')).toBe(`AISIX/${VERSION}`)
    expect(headers.get('openai-organization')).toBeNull()
    expect(headers.get('x-ratelimit-limit-requests')).toBeNull()
  })

  test('while it drains, an answer asks for the connection to be closed', async () => {
    gateway.gateway.lifecycle.isDraining = true
    try {
      expect((await gateway.chat()).headers.get('connection')).toBe('close')
      expect((await gateway.get('/readyz')).status).toBe(503)
    } finally {
      gateway.gateway.lifecycle.isDraining = false
    }
    expect((await gateway.chat()).headers.get('connection')).not.toBe('close')
  })
})

describe('a request id', () => {
  test('of the caller is taken over, sent upstream and told in the log', async () => {
    const { headers } = await gateway.chat({}, { 'x-aisix-request-id': 'my-id-1' })
    expect(headers.get('x-aisix-request-id')).toBe('my-id-1')
    expect(headers.get('x-aisix-call-id')).toBe('my-id-1')
    expect(upstream.last().header('x-aisix-request-id')).toBe('my-id-1')
    expect(await gateway.accessLine('my-id-1')).toContain('request_id="my-id-1"')
  })

  test.each([
    ['empty', ''],
    ['with a space', 'a b'],
    ['beyond ASCII', 'caf\u00e9'],
    ['of 257 bytes', 'x'.repeat(257)],
  ])('%s is ignored, and is no error', async (_name, id) => {
    const { status, headers } = await gateway.chat({}, { 'x-aisix-request-id': id })
    expect(status).toBe(200)
    expect(headers.get('x-aisix-request-id')).toMatch(UUID)
  })

  test('of 256 bytes is taken over', async () => {
    const id = 'x'.repeat(256)
    expect((await gateway.chat({}, { 'x-aisix-request-id': id })).headers.get('x-aisix-request-id')).toBe(id)
  })

  test('in x-request-id is ignored unless configured', async () => {
    expect((await gateway.chat({}, { 'x-request-id': 'theirs' })).headers.get('x-aisix-request-id')).toMatch(UUID)
  })

  test('comes from the first listed header that has a usable one', async () => {
    const other = await startGateway({
      upstream: upstream.url,
      config: { proxy: { request_id: { accept_headers: ['x-request-id', 'x-aisix-request-id'] } } },
    })
    const idOf = async (headers: Record<string, string>) => (await other.chat({}, headers)).headers.get('x-aisix-request-id')
    expect(await idOf({ 'x-request-id': 'first', 'x-aisix-request-id': 'second' })).toBe('first')
    expect(await idOf({ 'x-request-id': 'not usable', 'x-aisix-request-id': 'second' })).toBe('second')
    expect(await idOf({})).toMatch(UUID)
    await other.stop()
  })

  test('is always minted when no header is listed', async () => {
    const other = await startGateway({ upstream: upstream.url, config: { proxy: { request_id: { accept_headers: [] } } } })
    const { headers } = await other.chat({}, { 'x-aisix-request-id': 'mine' })
    expect(headers.get('x-aisix-request-id')).toMatch(UUID)
    await other.stop()
  })
})

describe('paths and methods', () => {
  test.each([
    '/v1',
    '/v1/',
    '/health',
    '/v1/chat',
    '/v1/chat/completions/',
    '/v1/models/',
    '/V1/models',
    '/favicon.ico',
    '/metrics',
  ])('%s is 404 with an empty body', async path => {
    const response = await gateway.get(path)
    // The list with a slash behind it asks for a model without a name.
    expect(response.status).toBe(404)
    if (path !== '/v1/models/') expect(await response.text()).toBe('')
  })

  test.each([
    ['GET', '/v1/chat/completions', 'POST'],
    ['PUT', '/v1/chat/completions', 'POST'],
    ['DELETE', '/v1/embeddings', 'POST'],
    ['HEAD', '/v1/completions', 'POST'],
    ['OPTIONS', '/v1/chat/completions', 'POST'],
    ['POST', '/v1/models', 'GET, HEAD'],
    ['DELETE', '/v1/models/x', 'GET, HEAD'],
    ['POST', '/livez', 'GET, HEAD'],
  ])('%s %s is 405 and says what is allowed', async (method, path, allow) => {
    const response = await fetch(gateway.url + path, { method })
    expect(response.status).toBe(405)
    expect(response.headers.get('allow')).toBe(allow)
    expect(await response.text()).toBe('')
  })

  test.each(['GET', 'POST', 'DELETE'])('%s /passthrough/x is 410 and says what to do', async method => {
    const { status, error } = await answerOf(await fetch(`${gateway.url}/passthrough/openai/v1/chat`, { method }))
    expect(status).toBe(410)
    expect(error).toMatchObject({ type: 'invalid_request_error', code: 'endpoint_removed' })
    expect(error.message).toContain('passthrough route')
  })

  test.each(['/v1/videos', '/v1/videos/x/content', '/mcp', '/mcp/files', '/a2a/agent'])(
    '%s, which this version has not, is 501 to whoever has a key',
    async path => {
      const { status, error } = await answerOf(await gateway.post(path, {}))
      expect([status, error.type]).toEqual([501, 'not_implemented'])
      expect(error.message).toEndWith('are not supported by this version')
      expect((await fetch(gateway.url + path, { method: 'POST' })).status).toBe(401)
    },
  )

  test('a query behind a path changes nothing', async () => {
    const response = await gateway.post('/v1/chat/completions?api-version=1&x=%ff', QUESTION)
    expect(response.status).toBe(200)
    expect(upstream.last().path).toBe('/v1/chat/completions')
  })

  test('HEAD /v1/models has the head of GET and no body', async () => {
    const response = await fetch(`${gateway.url}/v1/models`, {
      method: 'HEAD',
      headers: { authorization: `Bearer ${CALLER_KEY}` },
    })
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toBe('application/json')
    expect(await response.text()).toBe('')
  })
})

describe('requests that are odd as HTTP', () => {
  test('without Host in HTTP/1.0 are served, as probes send them', async () => {
    const answer = await rawAnswer(gateway.port, 'GET /livez HTTP/1.0\r\n\r\n')
    expect(answer).toContain(' 200 OK')
    expect(answer).toEndWith('\r\n\r\nok')
  })

  test('a question without Host in HTTP/1.0 reaches the upstream', async () => {
    const request = rawPost('/v1/chat/completions', QUESTION, [AUTHORIZATION])
      .replace('HTTP/1.1', 'HTTP/1.0')
      .replace('Host: gateway.test\r\n', '')
    expect(await rawAnswer(gateway.port, request)).toContain(' 200 OK')
    expect(upstream.requests).toHaveLength(1)
  })

  test.each([
    ['two Host headers', 'GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n', ' 400 '],
    ['a malformed Host', 'GET /v1/models HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n', ' 400 '],
    ['CONNECT', 'CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nConnection: close\r\n\r\n', ' 405 '],
    ['TRACE', 'TRACE /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n', ' 405 '],
    ['TRACE of nothing', 'TRACE /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n', ' 404 '],
  ])('%s gets an answer of ours', async (_name, request, status) => {
    const answer = await rawAnswer(gateway.port, request)
    expect(answer.split('\r\n', 1)[0]).toContain(status)
    expect(answer.toLowerCase()).toContain('x-aisix-request-id: ')
    expect(answer.toLowerCase()).toContain('server: aisix/')
  })

  test('two Host headers on a question are 400 and go nowhere', async () => {
    const answer = await rawAnswer(gateway.port, rawPost('/v1/chat/completions', QUESTION, ['Host: b', AUTHORIZATION]))
    expect(answer).toStartWith('HTTP/1.1 400 ')
    expect(upstream.requests).toHaveLength(0)
  })

  test('two lengths are 400', async () => {
    const answer = await rawAnswer(gateway.port, rawPost('/v1/chat/completions', QUESTION, ['Content-Length: 3', AUTHORIZATION]))
    expect(answer).toStartWith('HTTP/1.1 400 ')
    expect(upstream.requests).toHaveLength(0)
  })

  test('a target in absolute form is served as its path', async () => {
    const answer = await rawAnswer(
      gateway.port,
      'GET http://gateway.test/livez HTTP/1.1\r\nHost: gateway.test\r\nConnection: close\r\n\r\n',
    )
    expect(answer).toStartWith('HTTP/1.1 200 ')
  })
})

describe('cross-origin calls', () => {
  const origin = 'https://app.example'
  const preflight = (url: string, from = origin) =>
    fetch(`${url}/v1/chat/completions`, {
      method: 'OPTIONS',
      headers: { origin: from, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,x-a' },
    })

  test('are not allowed unless configured', async () => {
    expect((await preflight(gateway.url)).status).toBe(405)
    const { headers } = await gateway.chat({}, { origin })
    expect([...headers.keys()].filter(name => name.startsWith('access-control-'))).toEqual([])
  })

  test('from a listed origin are allowed, errors and streams included', async () => {
    const other = await startGateway({ upstream: upstream.url, config: { proxy: { cors: { allowed_origins: [origin] } } } })
    const allowed = await preflight(other.url)
    expect(allowed.status).toBe(204)
    expect(allowed.headers.get('access-control-allow-origin')).toBe(origin)
    expect(allowed.headers.get('access-control-allow-methods')).toContain('POST')
    expect(allowed.headers.get('access-control-allow-headers')).toBe('authorization,x-a')
    expect(allowed.headers.get('vary')).toBe('origin')
    for (const members of [{}, { model: 'unknown' }]) {
      const { headers } = await other.chat(members, { origin })
      expect(headers.get('access-control-allow-origin')).toBe(origin)
      expect(headers.get('access-control-expose-headers')).toContain('x-aisix-request-id')
    }
    upstream.answer((_request, connection) => connection.sse([chatChunk({ content: 'a' })]))
    const stream = await other.chat({ stream: true }, { origin })
    expect(stream.headers.get('access-control-allow-origin')).toBe(origin)
    expect(await stream.text()).toContain('[DONE]')
    await other.idle()
    await other.stop()
  })

  test('from any other origin are not', async () => {
    const other = await startGateway({ upstream: upstream.url, config: { proxy: { cors: { allowed_origins: [origin] } } } })
    const refused = await preflight(other.url, 'https://evil.example')
    expect(refused.status).toBe(403)
    expect(refused.headers.get('access-control-allow-origin')).toBeNull()
    expect((await other.chat({}, { origin: 'https://evil.example' })).headers.get('access-control-allow-origin')).toBeNull()
    await other.stop()
  })
})

test('HEAD tells the length that GET would have', async () => {
  const headers = { authorization: `Bearer ${CALLER_KEY}` }
  const body = await (await fetch(`${gateway.url}/v1/models`, { headers })).bytes()
  const head = await fetch(`${gateway.url}/v1/models`, { method: 'HEAD', headers })
  expect(head.status).toBe(200)
  expect(head.headers.get('content-length')).toBe(String(body.length))
})

test('two Content-Length headers are refused by name, and nothing goes upstream', async () => {
  const answer = await rawAnswer(
    gateway.port,
    `POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n${AUTHORIZATION}\r\nContent-Type: application/json\r\nContent-Length: ${QUESTION.length}\r\nContent-Length: ${QUESTION.length}\r\nConnection: close\r\n\r\n${QUESTION}`,
  )
  expect(answer).toContain('HTTP/1.1 400')
  expect(answer).toContain('conflicting Content-Length headers')
  expect(upstream.requests).toHaveLength(0)
})
