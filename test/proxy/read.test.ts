import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { BODY_STALL_MS, readBody } from '../../src/proxy/read.ts'
import { type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, answerOf, CALLER_KEY, startGateway, type TestGateway, until } from '../gateway.ts'
import { rawAnswer, rawCaller, rawPost } from './raw-caller.ts'

const CAP = 100_000
let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: upstream.url, config: { proxy: { request_body_limit_bytes: CAP } } })
})
beforeEach(() => {
  upstream.requests.length = 0
})
afterAll(async () => {
  await gateway.idle()
  await gateway.stop()
  upstream.stop()
})

const AUTHORIZATION = `Authorization: Bearer ${CALLER_KEY}`
const messages = [{ role: 'user', content: 'Hi' }]

async function ask(body: unknown, headers: Record<string, string> = {}, path = '/v1/chat/completions') {
  return await answerOf(await gateway.post(path, body, headers))
}

const PARSE_FAILED = 'request payload is invalid: invalid JSON request body'

describe('a body is 400 and goes nowhere', () => {
  test.each([
    ['empty', ''],
    ['cut short', '{"model":"m","messages":['],
    ['followed by something', '{"model":"m","messages":[]} x'],
    ['an array', '[]'],
    ['a string', '"secret-text"'],
    ['null', 'null'],
    ['with a bare control character in a string', '{"model":"a\nb","messages":[{"role":"user"}]}'],
    ['with a bad escape', '{"model":"\\x","messages":[{"role":"user"}]}'],
    ['with a bad escape in a member that is only passed on', '{"model":"m","messages":[{"role":"user"}],"x":"\\u12"}'],
    ['not UTF-8', new Uint8Array([...Buffer.from('{"model":"'), 0xff, 0xfe, ...Buffer.from('"}')])],
    ['UTF-8 with a surrogate', new Uint8Array([...Buffer.from('{"model":"'), 0xed, 0xa0, 0x80, ...Buffer.from('"}')])],
    ['UTF-16', new Uint8Array(Buffer.from('\ufeff{"model":"m"}', 'utf16le'))],
  ])('that is %s', async (_name, body) => {
    const { status, error, text } = await ask(body)
    expect(status).toBe(400)
    expect(error.type).toBe('invalid_request_error')
    expect(String(error.message)).toStartWith(PARSE_FAILED)
    expect(text).not.toContain('secret-text')
    expect(upstream.requests).toHaveLength(0)
  })

  test.each([
    ['model missing', { messages }, 'request payload is invalid: `model` field missing', 'model'],
    ['model a number', { model: 7, messages }, `${PARSE_FAILED}: \`model\` must be a string`, 'model'],
    ['model null', { model: null, messages }, `${PARSE_FAILED}: \`model\` must be a string`, 'model'],
    ['model empty', { model: '', messages }, `${PARSE_FAILED}: \`model\` must not be empty`, 'model'],
    ['messages missing', { model: ALIAS }, 'request payload is invalid: `messages` field missing', 'messages'],
    [
      'messages empty',
      { model: ALIAS, messages: [] },
      'request payload is invalid: messages array must not be empty',
      'messages',
    ],
    ['messages a string', { model: ALIAS, messages: 'x' }, `${PARSE_FAILED}: \`messages\` must be an array`, 'messages'],
    ['a message a string', { model: ALIAS, messages: ['x'] }, `${PARSE_FAILED}: \`messages.0\` must be an object`, 'messages.0'],
    [
      'a role a number',
      { model: ALIAS, messages: [{ role: 1 }] },
      `${PARSE_FAILED}: \`messages.0.role\` must be a string`,
      'messages.0.role',
    ],
    [
      'stream a string',
      { model: ALIAS, messages, stream: 'true' },
      `${PARSE_FAILED}: \`stream\` must be true or false`,
      'stream',
    ],
    [
      'temperature a string',
      { model: ALIAS, messages, temperature: '1' },
      `${PARSE_FAILED}: \`temperature\` must be a number`,
      'temperature',
    ],
    [
      'max_tokens negative',
      { model: ALIAS, messages, max_tokens: -1 },
      `${PARSE_FAILED}: \`max_tokens\` must not be negative`,
      'max_tokens',
    ],
    [
      'max_tokens broken',
      { model: ALIAS, messages, max_tokens: 1.5 },
      `${PARSE_FAILED}: \`max_tokens\` must be an integer`,
      'max_tokens',
    ],
    [
      'max_tokens huge',
      { model: ALIAS, messages, max_tokens: 4_294_967_296 },
      `${PARSE_FAILED}: \`max_tokens\` is too large`,
      'max_tokens',
    ],
    [
      'stream_options a list',
      { model: ALIAS, messages, stream_options: [] },
      `${PARSE_FAILED}: \`stream_options\` must be an object`,
      'stream_options',
    ],
  ])('with %s', async (_name, body, message, param) => {
    expect(await ask(body)).toMatchObject({ status: 400, error: { type: 'invalid_request_error', message, param } })
    expect(upstream.requests).toHaveLength(0)
  })

  test('with empty messages before the alias is looked for', async () => {
    expect((await ask({ model: 'unknown', messages: [] })).status).toBe(400)
  })

  test.each([
    ['completions without model', '/v1/completions', { prompt: 'x' }, 'model'],
    ['embeddings without input', '/v1/embeddings', { model: ALIAS }, 'input'],
    ['embeddings without model', '/v1/embeddings', { input: 'x' }, 'model'],
  ])('of %s', async (_name, path, body, param) => {
    expect(await ask(body, {}, path)).toMatchObject({ status: 400, error: { type: 'invalid_request_error', param } })
    expect(upstream.requests).toHaveLength(0)
  })

  test.each([
    ['`model` twice', `{"model":"${ALIAS}","messages":[{"role":"user"}],"model":"${ALIAS}"}`, 'model'],
    ['`model` twice, once escaped', `{"model":"${ALIAS}","messages":[{"role":"user"}],"mod\\u0065l":"other"}`, 'model'],
    ['`stream` twice', `{"model":"${ALIAS}","stream":false,"messages":[{"role":"user"}],"stream":true}`, 'stream'],
    ['`messages` twice', `{"model":"${ALIAS}","messages":[{"role":"user"}],"messages":[{"role":"user"}]}`, 'messages'],
  ])('with %s', async (_name, body, param) => {
    const { status, error } = await ask(body)
    expect(status).toBe(400)
    expect(error).toMatchObject({ message: `request payload is invalid: \`${param}\` occurs twice`, param })
    expect(upstream.requests).toHaveLength(0)
  })

  test.each([
    ['nothing', ''],
    ['text/plain', 'text/plain'],
    ['a form', 'application/x-www-form-urlencoded'],
    ['multipart', 'multipart/form-data; boundary=x'],
    ['a type that only begins like JSON', 'application/jsonp'],
  ])('of media type %s', async (_name, type) => {
    const answer = await rawAnswer(
      gateway.port,
      rawPost('/v1/chat/completions', JSON.stringify({ model: ALIAS, messages }), [AUTHORIZATION]).replace(
        'Content-Type: application/json\r\n',
        type === '' ? '' : `Content-Type: ${type}\r\n`,
      ),
    )
    expect(answer).toStartWith('HTTP/1.1 400 ')
    expect(answer).toContain('content-type must be application/json')
    expect(upstream.requests).toHaveLength(0)
  })
})

describe('a body is good', () => {
  test.each([
    ['application/json; charset=utf-8'],
    ['Application/JSON'],
    ['application/vnd.api+json'],
    ['application/json;profile="x"'],
  ])('as %s', async type => {
    expect((await ask({ model: ALIAS, messages }, { 'content-type': type })).status).toBe(200)
  })

  test('with a byte order mark, which does not go upstream', async () => {
    const { status } = await ask(Buffer.from(`\ufeff${JSON.stringify({ model: ALIAS, messages })}`))
    expect(status).toBe(200)
    expect(upstream.last().text).toStartWith('{')
  })

  test('with space around it', async () => {
    expect((await ask(` \r\n\t${JSON.stringify({ model: ALIAS, messages })}\n `)).status).toBe(200)
    expect(upstream.last().json()).toMatchObject({ messages })
  })

  test('with null for members that may be absent', async () => {
    const members = { stream: null, stream_options: null, temperature: null, top_p: null, max_tokens: null }
    expect((await ask({ model: ALIAS, messages, ...members })).status).toBe(200)
    expect(upstream.last().json()).toMatchObject({ stream: false, temperature: null })
  })

  test.each(['developer', 'tool', 'function', 'anything'])('with role %s', async role => {
    expect((await ask({ model: ALIAS, messages: [{ role, content: 'x' }] })).status).toBe(200)
    expect(upstream.last().json()).toMatchObject({ messages: [{ role, content: 'x' }] })
  })

  test('with members that nobody reads twice: they are passed on', async () => {
    const body = `{"model":"${ALIAS}","messages":[{"role":"user"}],"x":1,"x":2}`
    expect((await ask(body)).status).toBe(200)
    expect(upstream.last().text).toContain('"x":1,"x":2')
  })
})

describe('nesting', () => {
  const nested = (levels: number) =>
    `{"model":"${ALIAS}","messages":[{"role":"user"}],"x":${'['.repeat(levels - 1)}${']'.repeat(levels - 1)}}`

  test('128 levels deep is good', async () => {
    expect((await ask(nested(128))).status).toBe(200)
  })

  test('129 levels deep is 400', async () => {
    const { status, error } = await ask(nested(129))
    expect(status).toBe(400)
    expect(error.message).toBe(`${PARSE_FAILED}: nested deeper than 128 levels`)
    expect(upstream.requests).toHaveLength(0)
  })

  test('without an end is 400', async () => {
    expect((await ask(`{"model":"m","x":${'['.repeat(90_000)}`)).status).toBe(400)
  })
})

describe('content-encoding', () => {
  test.each(['gzip', 'br', 'deflate', 'zstd', 'gzip, identity'])('%s is refused by name', async encoding => {
    const body = Bun.gzipSync(JSON.stringify({ model: ALIAS, messages }))
    const { status, error } = await ask(body, { 'content-encoding': encoding })
    expect(status).toBe(415)
    expect(error).toMatchObject({ type: 'invalid_request_error' })
    expect(error.message).toContain('content-encoding')
    expect(upstream.requests).toHaveLength(0)
  })

  test('identity is no encoding', async () => {
    expect((await ask({ model: ALIAS, messages }, { 'content-encoding': 'identity' })).status).toBe(200)
  })
})

describe('a body over the limit', () => {
  const large = JSON.stringify({ model: ALIAS, messages: [{ role: 'user', content: 'x'.repeat(CAP) }] })
  const TOO_LARGE = { message: `request body exceeds ${CAP}-byte limit`, type: 'invalid_request_error' }

  test('by its declared length is 413 before anybody is asked for a key, and the connection stays good', async () => {
    const caller = await rawCaller(gateway.port)
    const request = rawPost('/v1/chat/completions', large, []).replace('Connection: close\r\n', '')
    caller.send(request)
    const answer = await caller.receives('limit')
    expect(answer).toStartWith('HTTP/1.1 413 ')
    expect(JSON.parse(answer.split('\r\n\r\n')[1] ?? '')).toEqual({ error: TOO_LARGE })
    caller.send('GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
    expect((await caller.closed).split('HTTP/1.1 200 OK')).toHaveLength(2)
    expect(upstream.requests).toHaveLength(0)
  })

  test('by its declared length is logged with what was drained', async () => {
    gateway.logs.length = 0
    expect((await ask(large)).status).toBe(413)
    const line = gateway.logs.find(each => each.includes('over the limit'))
    expect(line).toContain(`declared_content_length=${large.length}`)
    expect(line).toContain(`configured_limit_bytes=${CAP}`)
    expect(line).toContain('drain_outcome="completed"')
  })

  test('in chunks is 413 once it has grown, after the key', async () => {
    const body = () =>
      new ReadableStream<Uint8Array>({
        start(controller) {
          for (let sent = 0; sent <= CAP; sent += 10_000) controller.enqueue(new Uint8Array(10_000).fill(0x20))
          controller.close()
        },
      })
    const send = (key: string) =>
      fetch(`${gateway.url}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
        body: body(),
      })
    expect(await answerOf(await send(CALLER_KEY))).toMatchObject({ status: 413, error: TOO_LARGE })
    expect((await send('sk-unknown')).status).toBe(401)
    expect(upstream.requests).toHaveLength(0)
  })

  test('of exactly the limit is good', async () => {
    const frame = JSON.stringify({ model: ALIAS, messages: [{ role: 'user', content: '' }] })
    const body = JSON.stringify({ model: ALIAS, messages: [{ role: 'user', content: 'x'.repeat(CAP - frame.length) }] })
    expect(body).toHaveLength(CAP)
    expect((await ask(body)).status).toBe(200)
    expect((await ask(`${body} `)).status).toBe(413)
  })

  test('is no such thing where the limit is 0: 12 MiB reach the upstream', async () => {
    const other = await startGateway({ upstream: upstream.url })
    const content = 'x'.repeat(12 * 1024 * 1024)
    expect((await other.chat({ messages: [{ role: 'user', content }] })).status).toBe(200)
    expect(upstream.last().text).toContain(content)
    await other.stop()
  })
})

test('a chunked body is read whole', async () => {
  const text = JSON.stringify({ model: ALIAS, messages })
  const chunks = [...text].map(character => `1\r\n${character}\r\n`).join('')
  const answer = await rawAnswer(
    gateway.port,
    `POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n${AUTHORIZATION}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n${chunks}0\r\n\r\n`,
  )
  expect(answer).toStartWith('HTTP/1.1 200 ')
  expect(upstream.last().json()).toMatchObject({ messages })
})

describe('readBody', () => {
  /** A request that declares 10 bytes (or is chunked), sends 3, and then nothing more. */
  const stalled = (framing: Record<string, string>) =>
    new Request('http://gateway.test/', {
      method: 'POST',
      headers: framing,
      body: new ReadableStream<Uint8Array>({
        start(controller) {
          controller.enqueue(new Uint8Array(3))
        },
      }),
    })

  test.each([
    ['declared', { 'content-length': '10' }],
    ['declared large', { 'content-length': '1000000' }],
    ['chunked', { 'transfer-encoding': 'chunked' }],
  ])('a %s body that stalls is given up', async (_name, framing) => {
    await expect(readBody(stalled(framing), Number.POSITIVE_INFINITY, 20)).rejects.toMatchObject({
      kind: 'request_read_timeout',
      status: 408,
      message: 'request body stalled: nothing came for 20 ms',
    })
  })

  test('the time that a body may stall is half a minute unless said otherwise', () => {
    expect(BODY_STALL_MS).toBe(30_000)
  })

  test('a caller that leaves in the middle of its body leaves nothing open', async () => {
    const caller = await rawCaller(gateway.port)
    caller.send(
      `POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n${AUTHORIZATION}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"model"`,
    )
    await until('the exchange is open', () => gateway.gateway.lifecycle.inFlight.size === 1)
    caller.leave()
    await gateway.idle()
    expect(upstream.requests).toHaveLength(0)
  })
})
