/** What one try at an upstream comes to: every way in which it can fail, in the words that callers get. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { chatAnswer, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { answerOf, type GatewayOptions, startGateway, type TestGateway, UPSTREAM_SECRET } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
})
beforeEach(async () => {
  upstream.requests.length = 0
  upstream.cut = 0
  upstream.answer((_request, connection) => connection.json(200, chatAnswer()))
  gateway = await startGateway({ upstream: upstream.url })
})
afterEach(async () => {
  await gateway.idle()
  await gateway.stop()
})
afterAll(() => upstream.stop())

async function restart(options: GatewayOptions): Promise<void> {
  await gateway.stop()
  gateway = await startGateway({ upstream: upstream.url, ...options })
}
const ask = async (members: Record<string, unknown> = {}) => await answerOf(await gateway.chat(members))

describe('a 4xx of the upstream has its status, its words, its code and its param', () => {
  test.each([
    [
      'OpenAI',
      { error: { message: 'bad', type: 'invalid_request_error', param: 'messages', code: 'x' } },
      { message: 'bad', param: 'messages', code: 'x' },
    ],
    [
      'vLLM, numeric code',
      { error: { message: 'bad', type: 'BadRequestError', param: null, code: 400 } },
      { message: 'bad', code: '400' },
    ],
    [
      'older vLLM',
      { object: 'error', message: 'bad', type: 'BadRequestError', param: null, code: 400 },
      { message: 'bad', code: '400' },
    ],
    ['param missing', { error: { message: 'bad' } }, { message: 'bad' }],
    [
      'Ollama, error as text',
      { error: 'model "x" not found, try pulling it first' },
      { message: 'model "x" not found, try pulling it first' },
    ],
    ['FastAPI, text', { detail: 'Not Found' }, { message: 'Not Found' }],
    [
      'FastAPI, list',
      { detail: [{ loc: ['body', 'n'], msg: 'too big' }] },
      { message: '[{"loc":["body","n"],"msg":"too big"}]' },
    ],
  ])('of %s', async (_name, body, expected) => {
    for (const status of [400, 401, 403, 404, 422]) {
      upstream.answer((_request, connection) => connection.json(status, body))
      const answer = await ask()
      expect(answer.status).toBe(status)
      expect(answer.error).toEqual({ ...expected, type: 'upstream_error' })
    }
    expect(upstream.requests).toHaveLength(5)
  })

  test.each([
    ['HTML', '<html>nginx</html>', 'text/html', '<html>nginx</html>'],
    ['text', 'no', 'text/plain', 'no'],
    ['nothing', '', 'text/plain', 'upstream returned 404'],
    ['JSON that says nothing', '{"status":"bad"}', 'application/json', '{"status":"bad"}'],
    ['JSON of another media type', '{"error":{"message":"bad"}}', 'text/plain', 'bad'],
  ])('of %s', async (_name, body, type, message) => {
    upstream.answer((_request, connection) => connection.send(404, body, { 'content-type': type }))
    expect(await ask()).toMatchObject({ status: 404, error: { message, type: 'upstream_error' } })
  })

  test('and is told in 1,024 bytes at most, cut between characters', async () => {
    upstream.answer((_request, connection) => connection.json(400, { error: { message: 'ä'.repeat(2_000) } }))
    const { error } = await ask()
    expect(String(error.message)).toMatch(/^ä+…$/)
    expect(Buffer.byteLength(String(error.message))).toBeLessThanOrEqual(1_024)
  })

  test('and is never tried again', async () => {
    await restart({ model: { retries: 3 } })
    for (const status of [400, 401, 404, 408, 422, 429]) {
      upstream.requests.length = 0
      upstream.answer((_request, connection) => connection.json(status, {}))
      const { headers } = await ask()
      expect(upstream.requests).toHaveLength(1)
      expect(headers.get('x-should-retry')).toBeNull()
    }
  })
})

describe('Retry-After', () => {
  test.each([
    [429, '7', '7'],
    [429, '0', '0'],
    [429, 'Wed, 21 Oct 2099 07:28:00 GMT', null],
    [429, '1.5', null],
    [429, '-1', null],
    [400, '7', null],
    [503, '7', null],
  ])('of a %d, "%s", is told the caller as %p', async (status, given, expected) => {
    upstream.answer((_request, connection) => connection.json(status, {}, { 'retry-after': given }))
    expect((await ask()).headers.get('retry-after')).toBe(expected)
  })
})

describe('a 5xx of the upstream', () => {
  test.each([500, 502, 503, 529, 599])('%d is 502, its text withheld and its beginning logged', async status => {
    upstream.answer((_request, connection) =>
      connection.json(status, { error: { message: 'host db-internal-7 is down' } }, { 'retry-after': '9' }),
    )
    const { status: told, error, text } = await ask()
    expect(told).toBe(502)
    expect(error.type).toBe('upstream_error')
    expect(String(error.message)).toStartWith(`upstream returned ${status}`)
    expect(text).not.toContain('db-internal-7')
    expect(gateway.logs.some(line => line.includes(' WARN ') && line.includes('db-internal-7'))).toBe(true)
  })

  test('logs 1,024 bytes of it at most', async () => {
    upstream.answer((_request, connection) => connection.send(500, 'x'.repeat(100_000)))
    await ask()
    expect(Math.max(...gateway.logs.map(line => line.length))).toBeLessThan(2_000)
  })
})

test.each([301, 302, 303, 307, 308])('a redirect (%d) is 502 and not followed: the other host sees nothing', async status => {
  const other = await fakeUpstream()
  upstream.answer((_request, connection) => connection.send(status, '', { location: `${other.origin}/v1/chat/completions` }))
  const answer = await ask()
  expect(answer.status).toBe(502)
  expect(answer.error).toEqual({
    message: `upstream returned ${status}; redirects are not followed; check api_base`,
    type: 'upstream_error',
  })
  expect(other.requests).toHaveLength(0)
  expect(other.connections).toBe(0)
  other.stop()
})

test.each([204, 206, 304])('a %d without a body is 502', async status => {
  upstream.answer((_request, connection) => connection.raw(`HTTP/1.1 ${status} X\r\ncontent-length: 0\r\n\r\n`))
  expect((await ask()).status).toBe(502)
})

describe('a transport error is 502 and tells its class, no host', () => {
  const transportError = async (api_base: string) => {
    await restart({ upstream: api_base })
    const answer = await ask()
    expect(answer.status).toBe(502)
    expect(answer.error.type).toBe('transport_error')
    const { hostname } = new URL(api_base)
    expect(answer.text).not.toContain(hostname)
    expect(gateway.logs.some(line => line.includes('upstream call failed') && line.includes('cause='))).toBe(true)
    return answer.error.message
  }

  test('connection refused', async () => {
    const gone = await fakeUpstream()
    gone.stop()
    expect(await transportError(gone.url)).toBe('transport error: connection refused')
  })

  test('name not found', async () => {
    expect(await transportError('http://no-such-host.invalid/v1')).toBe('transport error: name not found')
  })

  test('no HTTP', async () => {
    upstream.answer((_request, connection) => connection.raw('SSH-2.0-OpenSSH_9.9\r\n\r\n'))
    expect(await ask()).toMatchObject({
      status: 502,
      error: { type: 'transport_error', message: 'transport error: the answer is not HTTP' },
    })
  })

  test('a body that is cut by a reset or a close', async () => {
    for (const how of ['reset', 'close'] as const) {
      upstream.answer(async (_request, connection) => {
        await connection.raw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"choices":[')
        connection[how]()
      })
      expect(await ask()).toMatchObject({ status: 502, error: { type: 'transport_error' } })
    }
  })

  test('a connection that ends before any answer', async () => {
    upstream.answer((_request, connection) => connection.close())
    expect(await ask()).toMatchObject({
      status: 502,
      error: { type: 'transport_error', message: 'transport error: connection reset' },
    })
  })
})

describe('deadlines', () => {
  test('silence before the head is 504, and the upstream is let go', async () => {
    await restart({ model: { timeout: 60 } })
    upstream.answer((_request, connection) => connection.stall())
    expect(await ask()).toMatchObject({
      status: 504,
      error: { type: 'timeout', message: 'upstream request timed out after 60ms' },
    })
    await upstream.whenCut(1)
  })

  test('silence behind the head is 504 too', async () => {
    await restart({ model: { timeout: 60 } })
    upstream.answer(async (_request, connection) => {
      await connection.raw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"choices":[')
      await connection.stall()
    })
    expect(await ask()).toMatchObject({ status: 504, error: { type: 'timeout' } })
    await upstream.whenCut(1)
  })

  test('an error whose body never ends is bounded by the same deadline', async () => {
    await restart({ model: { timeout: 60 } })
    upstream.answer(async (_request, connection) => {
      await connection.raw('HTTP/1.1 400 Bad Request\r\ncontent-length: 1000\r\n\r\nno')
      await connection.stall()
    })
    expect((await ask()).status).toBe(504)
    await upstream.whenCut(1)
  })

  test('of the deployment count where the model has none, and `timeout: 0` is none', async () => {
    const config = { upstream: { timeout_ms: 60, retries: 0 } }
    const slow: Parameters<FakeUpstream['answer']>[0] = async (_request, connection) => {
      await Promise.race([Bun.sleep(250), connection.closed])
      await connection.json(200, chatAnswer())
    }
    upstream.answer(slow)
    await restart({ config, model: { retries: undefined } })
    expect((await ask()).status).toBe(504)
    await restart({ config, model: { timeout: 0 } })
    expect((await ask()).status).toBe(200)
  })

  test.each([
    ['stream_timeout', { stream_timeout: 60, timeout: 5_000 }, {}, '60ms'],
    ['timeout where there is no stream_timeout', { timeout: 70 }, { stream_timeout_ms: 60 }, '70ms'],
    ['timeout where stream_timeout is 0', { stream_timeout: 0, timeout: 70 }, {}, '70ms'],
    ['the deployment’s stream_timeout_ms', {}, { stream_timeout_ms: 80, timeout_ms: 5_000 }, '80ms'],
    ['the deployment’s timeout_ms', {}, { timeout_ms: 90 }, '90ms'],
  ])('of a stream are %s', async (_name, model, config, expected) => {
    await restart({ model, config: { upstream: config } })
    upstream.answer((_request, connection) => connection.stall())
    const { status, error } = await ask({ stream: true })
    expect(status).toBe(504)
    expect(error.message).toBe(`upstream request timed out after ${expected}`)
  })
})

describe('what is wrong with the configuration is told without a call', () => {
  test('a provider key that does not exist', async () => {
    await gateway.addModel({ display_name: 'dangling', provider_key_id: 'nobody' })
    const answer = await ask({ model: 'dangling' })
    expect(answer.status).toBe(400)
    expect(answer.error.type).toBe('invalid_request_error')
    expect(String(answer.error.message)).toStartWith('invalid upstream configuration: ')
  })

  test('a label without a base', async () => {
    await restart({ providerKey: { api_base: undefined, provider: 'my-servers' } })
    expect(await ask()).toMatchObject({
      status: 400,
      error: {
        type: 'invalid_request_error',
        message: 'invalid upstream configuration: provider_key for vendor "my-servers" has no upstream base URL configured',
      },
    })
  })

  test('a dialect that this version does not speak, and none', async () => {
    for (const adapter of ['bedrock', undefined]) {
      await restart({ providerKey: { adapter } })
      expect(await ask()).toMatchObject({
        status: 503,
        error: { type: 'provider_unavailable', message: 'no bridge registered for provider' },
      })
    }
  })

  test.each(['   ', 'line\nbreak', 'secret\u0000nul', 'secret-日本'])('a secret that can be no header: %p', async secret => {
    await restart({ providerKey: { secret } })
    const { status, error, text } = await ask()
    expect(status).toBe(401)
    expect(error.type).toBe('authentication_error')
    expect(String(error.message)).toStartWith('invalid upstream credentials: ')
    expect(text).not.toContain('break')
    expect(upstream.requests).toHaveLength(0)
  })

  test('a secret with space around it is sent without', async () => {
    await restart({ providerKey: { secret: `  ${UPSTREAM_SECRET}\n` } })
    expect((await ask()).status).toBe(200)
    expect(upstream.last().header('authorization')).toBe(`Bearer ${UPSTREAM_SECRET}`)
  })

  test('a base or a secret that is changed counts from the next request on', async () => {
    const other = await fakeUpstream()
    await ask()
    await gateway.store.replace(
      'provider_keys',
      gateway.rows.providerKey.id,
      now => ({ ...now, api_base: `${other.url}/`, secret: 'new-secret' }),
      { adminKey: 'test', address: '127.0.0.1' },
    )
    expect((await ask()).status).toBe(200)
    expect(upstream.requests).toHaveLength(1)
    expect(other.last().header('authorization')).toBe('Bearer new-secret')
    expect(other.last().path).toBe('/v1/chat/completions')
    other.stop()
  })
})
