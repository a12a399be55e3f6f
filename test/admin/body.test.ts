import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { BODY_BYTES_MAX } from '../../src/admin/body.ts'
import { ADMIN_KEY, type Answer, answerOf, apiKey, type Harness, messageOf, openAdmin, sha256 } from './harness.ts'

type Body = string | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>

let admin: Harness
let server: ReturnType<typeof Bun.serve>

beforeAll(() => {
  admin = openAdmin()
  server = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: request => admin.fetch(request) })
})
afterAll(() => server.stop(true))

/** Writes a caller key over a real connection. */
async function post(body: Body, headers: Record<string, string> = {}): Promise<Answer> {
  const response = await fetch(new URL('/admin/v1/apikeys', server.url), {
    method: 'POST',
    headers: { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json', ...headers },
    body,
  })
  return answerOf(response)
}

/** Sends `head` and `parts` as they stand, each on its own, and returns what comes back until the server closes. */
async function raw(...parts: string[]): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  let received = ''
  const socket = await Bun.connect({
    hostname: '127.0.0.1',
    port: Number(server.url.port),
    socket: {
      data: (_socket, bytes) => {
        received += bytes.toString()
      },
      close: () => resolve(received),
    },
  })
  for (const part of parts) socket.write(part)
  socket.flush()
  return promise
}

const HEAD = `POST /admin/v1/apikeys HTTP/1.1\r\nhost: a\r\nauthorization: Bearer ${ADMIN_KEY}\r\ncontent-type: application/json\r\nconnection: close\r\n`

/** A document of exactly this many bytes. */
function documentOf(bytes: number): string {
  const frame = JSON.stringify(apiKey({ key_hash: sha256(String(bytes)), display_name: '' }))
  return frame.replace('"display_name":""', `"display_name":"${'x'.repeat(bytes - frame.length)}"`)
}

function inChunks(text: string): ReadableStream<Uint8Array> {
  const bytes = new TextEncoder().encode(text)
  let at = 0
  return new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) controller.close()
      else controller.enqueue(bytes.subarray(at, at + 65_536))
      at += 65_536
    },
  })
}

describe('size', () => {
  test('a body of exactly 2 MiB is read, declared or in chunks', async () => {
    expect((await post(documentOf(BODY_BYTES_MAX))).status).toBe(200)
    expect((await post(inChunks(documentOf(BODY_BYTES_MAX - 1)))).status).toBe(200)
  })

  test('one byte more is 413, declared or in chunks', async () => {
    const declared = await post(documentOf(BODY_BYTES_MAX + 1))
    const chunked = await post(inChunks(documentOf(BODY_BYTES_MAX + 1)))
    for (const answer of [declared, chunked]) {
      expect(answer.status).toBe(413)
      expect(messageOf(answer)).toBe('the request body is larger than 2097152 bytes (2 MiB)')
    }
  })

  test('3 MB are 413, and the client reads the answer', async () => {
    expect((await post('x'.repeat(3_000_000))).status).toBe(413)
    expect((await post(inChunks('x'.repeat(3_000_000)))).status).toBe(413)
  })

  test('3 MB without an admin key are 401', async () => {
    expect((await post('x'.repeat(3_000_000), { authorization: 'Bearer sk-other' })).status).toBe(401)
  })
})

describe('content type', () => {
  test.each(['application/json', 'application/json; charset=utf-8', 'APPLICATION/JSON', 'application/merge-patch+json'])(
    '%s is read',
    async type => {
      const body = JSON.stringify(apiKey({ key_hash: sha256(type) }))
      expect((await post(body, { 'content-type': type })).status).toBe(200)
    },
  )

  test.each(['text/plain', 'application/x-www-form-urlencoded', 'application/jsonp', 'json', '+json', ''])(
    '%j is 415',
    async type => {
      const answer = await post(JSON.stringify(apiKey()), { 'content-type': type })
      expect(answer.status).toBe(415)
      expect(messageOf(answer)).toContain('Content-Type: application/json')
    },
  )

  test('none at all is 415', async () => {
    const body = JSON.stringify(apiKey())
    const head = HEAD.replace('content-type: application/json\r\n', '')
    expect(await raw(`${head}content-length: ${body.length}\r\n\r\n${body}`)).toStartWith('HTTP/1.1 415 ')
  })

  test('a compressed body is 415, and said to be why', async () => {
    const answer = await post(Bun.gzipSync(JSON.stringify(apiKey())), { 'content-encoding': 'gzip' })
    expect(answer.status).toBe(415)
    expect(messageOf(answer)).toContain('`Content-Encoding`')
  })
})

describe('JSON', () => {
  const bad: [string, Body, string][] = [
    ['an empty body', '', 'expected a JSON object in the request body, which is empty'],
    ['blanks', ' \n', 'expected a JSON object in the request body, which is empty'],
    ['a body cut short', '{"key_hash":"', 'invalid JSON: this string is not closed at line 1, column 13'],
    ['a trailing comma', '{\n  "a": 1,\n}', 'invalid JSON: expected a member name in double quotes at line 3, column 1'],
    ['invalid UTF-8', new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), 'invalid JSON: expected UTF-8 text'],
    ['a member given twice', '{"key_hash":"a","key_hash":"b"}', 'invalid JSON: duplicate member `key_hash` at line 1, column 17'],
    ['a member given twice further in', '{"a":[{"b":1,"b":1}]}', 'invalid JSON: duplicate member `b` at line 1, column 14'],
    [
      'a number that would be changed',
      '{"request":{"default_body_fields":{"seed":9007199254740993}}}',
      'invalid JSON: the number in `request.default_body_fields.seed` has more digits than can be kept',
    ],
    [
      'a number beyond all',
      '{"request":{"default_body_fields":{"seed":1e400}}}',
      'invalid JSON: the number in `request.default_body_fields.seed` is too large at line 1',
    ],
    ['nesting of 129 levels', '['.repeat(129) + ']'.repeat(129), 'invalid JSON: nested deeper than 128 levels'],
    ['an array', '[]', 'schema validation failed at : must be an object, not an array'],
    ['null', 'null', 'schema validation failed at : must be an object, not null'],
    ['a string', '"sk-hidden"', 'schema validation failed at : must be an object, not a string'],
  ]
  test.each(bad)('%s is 400 and says what is wrong', async (_name, body, expected) => {
    const answer = await post(body)
    expect(answer.status).toBe(400)
    expect(messageOf(answer)).toStartWith(expected)
    expect(answer.text).not.toContain('hidden')
  })

  test('a byte order mark is skipped', async () => {
    expect((await post(`\ufeff${JSON.stringify(apiKey({ key_hash: sha256('bom') }))}`)).status).toBe(200)
  })
})

describe('delivery', () => {
  test('a body in chunks that arrive one by one, cut inside a character, is read whole', async () => {
    const bytes = Buffer.from(JSON.stringify(apiKey({ key_hash: sha256('chunks'), display_name: 'ü' })))
    const cut = bytes.indexOf(0xbc)
    const body = new ReadableStream({
      async start(controller) {
        controller.enqueue(bytes.subarray(0, cut))
        await Bun.sleep(1)
        controller.enqueue(bytes.subarray(cut))
        controller.close()
      },
    })
    expect((await post(body)).body).toMatchObject({ value: { display_name: 'ü' } })
  })

  test('a body that stops arriving is 408 after the deadline, and nothing is written', async () => {
    const slow = openAdmin({ bodyTimeoutMs: 20 })
    const body = new ReadableStream({ start: controller => controller.enqueue(new TextEncoder().encode('{"key_hash":')) })
    const request = new Request('http://127.0.0.1/admin/v1/apikeys', {
      method: 'POST',
      headers: { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' },
      body,
    })
    const answer = await answerOf(await slow.fetch(request))
    expect(answer.status).toBe(408)
    expect(messageOf(answer)).toBe('the request body did not arrive within 0.02 s')
    expect((await slow.call('GET', '/admin/v1/apikeys')).body).toEqual([])
  })

  test('a client that leaves in the middle of its body writes nothing, and the next one is served', async () => {
    const left = openAdmin()
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode(JSON.stringify(apiKey())))
        controller.error(new Error('the connection was reset'))
      },
    })
    const request = new Request('http://127.0.0.1/admin/v1/apikeys', {
      method: 'POST',
      headers: { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' },
      body,
    })
    const answer = await answerOf(await left.fetch(request))
    expect([answer.status, messageOf(answer)]).toEqual([400, 'the request body ended before it was complete'])
    expect((await left.call('GET', '/admin/v1/apikeys')).body).toEqual([])
  })
})
