/** Bodies on passthrough routes, both ways: as they come, as fast as they are taken, and never as if they were whole. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import net from 'node:net'
import { type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { CALLER_KEY, type GatewayOptions, startGateway, type TestGateway, until } from '../gateway.ts'
import { rawCaller } from './raw-caller.ts'

const BEARER = { authorization: `Bearer ${CALLER_KEY}` }
const MIB = 1024 * 1024
/** Far more than sockets hold between them. */
const LARGE = 256 * MIB
/** What sockets of this machine hold between them, and some. */
const HELD_MAX = 64 * MIB

let upstream: FakeUpstream
const gateways: TestGateway[] = []
beforeAll(async () => {
  upstream = await fakeUpstream()
})
afterEach(async () => {
  for (const gateway of gateways.splice(0)) {
    await gateway.idle()
    await gateway.stop()
  }
})
afterAll(() => upstream.stop())

async function start(route: Record<string, unknown> = {}, options: GatewayOptions = {}): Promise<TestGateway> {
  const gateway = await startGateway({ upstream: upstream.url, apiKey: { allowed_routes: ['up'] }, ...options })
  gateways.push(gateway)
  await gateway.addRoute({ name: 'up', path_prefix: '/up', target_url: upstream.origin, ...route })
  return gateway
}

/** The head of a POST as text, its body to follow. */
function postHead(...headers: string[]): string {
  return `${['POST /up/x HTTP/1.1', 'Host: gateway.test', `Authorization: Bearer ${CALLER_KEY}`, ...headers].join('\r\n')}\r\n\r\n`
}

const inChunks = (bytes: string | Uint8Array) =>
  Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), Buffer.from(bytes), Buffer.from('\r\n')])

/** A server that takes connections and keeps what it is sent; it reads only as long as it is told to. */
async function plainServer(onData: (socket: net.Socket, total: number) => void = () => {}) {
  const sockets: net.Socket[] = []
  const pieces: Buffer[] = []
  const state = { bytes: 0, closed: 0, isReading: true }
  const server = net.createServer(socket => {
    sockets.push(socket)
    if (!state.isReading) socket.pause()
    socket.on('error', () => {})
    socket.on('close', () => {
      state.closed += 1
    })
    socket.on('data', (piece: Buffer) => {
      state.bytes += piece.byteLength
      if (state.bytes < 4 * MIB) pieces.push(piece)
      onData(socket, state.bytes)
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the server has no port')
  return {
    state,
    sockets,
    origin: `http://127.0.0.1:${address.port}`,
    text: () => Buffer.concat(pieces).toString('latin1'),
    stop() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}

/** Resolves when a number has not grown for a while: as far as it goes while somebody else holds still. */
async function settled(count: () => number): Promise<number> {
  let last = -1
  for (let same = 0; same < 10; ) {
    await Bun.sleep(50)
    same = count() === last ? same + 1 : 0
    last = count()
  }
  return last
}

const EVENTS = [
  'event: message_start\r\ndata: {"type":"message_start","message":{"id":"msg_1","model":"m","usage":{"input_tokens":9,"output_tokens":1}}}\r\n\r\n',
  ': ping\n\n',
  'data: {"text":"ä€😀"}\n\n',
  'data: {"type":"message_delta","usage":{"output_tokens":20}}\n\ndata: [DONE]\n\n',
]

describe('an answer', () => {
  test('in events arrives event by event, byte for byte, and what it tells of its usage is noted', async () => {
    const gateway = await start()
    let send = Promise.withResolvers<void>()
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      for (const event of EVENTS) {
        await connection.chunk(event)
        await send.promise
        send = Promise.withResolvers()
      }
      await connection.endChunks()
    })
    const response = await gateway.post('/up/v1/messages', { model: 'm', stream: true })
    expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
    const reader = response.body?.getReader()
    const decoder = new TextDecoder()
    let text = ''
    for (const event of EVENTS) {
      const want = text + event
      while (text.length < want.length) text += decoder.decode((await reader?.read())?.value, { stream: true })
      // Each is there before the next is sent.
      expect(text).toBe(want)
      send.resolve()
    }
    expect((await reader?.read())?.done).toBe(true)
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([
      { isStream: true, status: 200, promptTokens: 9, completionTokens: 20, providerRequestId: 'msg_1', isEstimated: false },
    ])
    expect(gateway.telemetry.records[0]?.upstreamTtftMs).toBeGreaterThan(0)
    expect(await gateway.accessLine()).toContain('stream=true')
  })

  test.each([
    [
      'usage that grows',
      [{ usage: { prompt_tokens: 4, completion_tokens: 1 } }, { usage: { prompt_tokens: 4, completion_tokens: 6 } }],
      [4, 6],
    ],
    ['usage in the last event alone', [{ usage: null }, { usage: { prompt_tokens: 4, completion_tokens: 6 } }], [4, 6]],
    [
      'a response',
      [{ type: 'response.completed', response: { usage: { input_tokens: 2, output_tokens: 3, total_tokens: 5 } } }],
      [2, 3],
    ],
    ['no usage', [{ choices: [{ delta: { content: 'many words' } }] }], [0, 0]],
  ])('in events with %s', async (_what, events, tokens) => {
    const gateway = await start()
    upstream.answer((_request, connection) => connection.sse(events))
    await (await gateway.post('/up/x', {})).text()
    await gateway.idle()
    expect(gateway.telemetry.records.map(({ promptTokens, completionTokens }) => [promptTokens, completionTokens])).toEqual([
      tokens,
    ])
    expect(gateway.telemetry.records).toMatchObject([{ isEstimated: false }])
  })

  test('in one event larger than anybody looks into arrives whole', async () => {
    const gateway = await start()
    const event = `data: ${'x'.repeat(9 * MIB)}\n\n`
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(event)
      await connection.endChunks()
    })
    expect((await (await gateway.post('/up/x', {})).text()).length).toBe(event.length)
  })

  test('of any kind arrives piece by piece', async () => {
    const gateway = await start()
    const second = Promise.withResolvers<void>()
    upstream.answer(async (_request, connection) => {
      await connection.raw('HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 8\r\n\r\n\xff\xfb01')
      await second.promise
      await connection.raw('2345')
    })
    const reader = (await gateway.get('/up/x')).body?.getReader()
    expect((await reader?.read())?.value?.byteLength).toBeGreaterThan(0)
    second.resolve()
    while (!(await reader?.read())?.done);
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([{ isStream: false, status: 200 }])
  })

  test.each(['content-length: 100', 'transfer-encoding: chunked'])(
    'that breaks off breaks off for its caller: %s',
    async framing => {
      const gateway = await start()
      upstream.answer(async (_request, connection) => {
        const body = framing.endsWith('chunked') ? '5\r\nhello\r\n' : 'hello'
        await connection.raw(`HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n${framing}\r\n\r\n`)
        await connection.raw(body)
        // Not before the caller has it: what the runtime has not read by then a reset would take away.
        await caller.receives('hello')
        connection.reset()
      })
      const caller = await rawCaller(gateway.port)
      caller.send(postHead('Content-Length: 0'))
      const received = await caller.closed
      expect(received).toStartWith('HTTP/1.1 200')
      expect(received).toContain('hello')
      // The last chunk, which would say that this was all.
      expect(received).not.toEndWith('0\r\n\r\n')
      await gateway.idle()
      expect(gateway.telemetry.records).toMatchObject([{ status: 502, errorClass: 'transport_error' }])
      expect(await gateway.accessLine()).toContain('error_kind="transport_error"')
    },
  )

  test('that falls silent is cut after timeout_ms', async () => {
    const gateway = await start({ timeout_ms: 80 })
    const cut = upstream.cut
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk('data: 1\n\n')
      await connection.stall()
    })
    const response = await gateway.post('/up/x', {})
    await expect(response.text()).rejects.toThrow()
    await upstream.whenCut(cut + 1)
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([{ status: 504, errorClass: 'timeout' }])
  })

  test('may take longer than timeout_ms as long as it is never silent for that long', async () => {
    const gateway = await start({ timeout_ms: 400 })
    upstream.answer((_request, connection) => connection.sse(['1', '2', '3', '4', '5', '6'], { gapMs: 100 }))
    expect(await (await gateway.post('/up/x', {})).text()).toEndWith('data: [DONE]\n\n')
  })

  test('is asked for no faster than its caller takes it, which is no silence of the server', async () => {
    const gateway = await start({ timeout_ms: 300 })
    let sent = 0
    upstream.answer(async (_request, connection) => {
      const piece = new Uint8Array(MIB)
      await connection.raw(`HTTP/1.1 200 OK\r\ncontent-length: ${LARGE}\r\n\r\n`)
      while (sent < LARGE && !connection.isClosed()) {
        await connection.raw(piece)
        sent += piece.byteLength
      }
    })
    const caller = net.connect(gateway.port, '127.0.0.1')
    caller.pause()
    caller.write(`GET /up/x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer ${CALLER_KEY}\r\n\r\n`)
    await until('the first bytes', () => sent > 0)
    expect(await settled(() => sent)).toBeLessThan(HELD_MAX)
    let received = 0
    let end = ''
    caller.on('data', (piece: Buffer) => {
      received += piece.byteLength
      end = piece.subarray(-5).toString('latin1')
    })
    caller.resume()
    await new Promise(resolve => caller.on('close', resolve))
    expect(received).toBeGreaterThan(LARGE)
    expect(end).toEndWith('0\r\n\r\n')
  })

  test('ends at the server once its caller leaves', async () => {
    const gateway = await start()
    const cut = upstream.cut
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk('data: 1\n\n')
      await connection.stall()
    })
    const caller = await rawCaller(gateway.port)
    caller.send(postHead('Content-Length: 0'))
    await caller.receives('data: 1')
    caller.leave()
    await upstream.whenCut(cut + 1)
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([{ status: 499, errorClass: 'client_disconnected' }])
  })

  test('that has not begun is not waited for either once the caller leaves', async () => {
    const gateway = await start()
    const cut = upstream.cut
    upstream.answer((_request, connection) => connection.stall())
    const count = upstream.requests.length
    const caller = await rawCaller(gateway.port)
    caller.send(postHead('Content-Length: 0'))
    await upstream.arrived(count + 1)
    caller.leave()
    await upstream.whenCut(cut + 1)
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([{ status: 499, errorClass: 'client_disconnected' }])
  })
})

describe('a request body', () => {
  test('in chunks arrives piece by piece, and keeps its end', async () => {
    const server = await plainServer((socket, _total) => {
      if (server.text().endsWith('0\r\n\r\n')) socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok')
    })
    const gateway = await start({ target_url: server.origin })
    const caller = await rawCaller(gateway.port)
    caller.send(postHead('Transfer-Encoding: chunked', 'Content-Type: audio/wav', 'Connection: close'))
    caller.send(inChunks('first'))
    await until('the first piece', () => server.text().includes('first'))
    caller.send(inChunks(Uint8Array.from([0, 255, 128, 13, 10])))
    await until('the second piece', () => server.text().includes('\x00\xff\x80\r\n'))
    caller.send('0\r\n\r\n')
    expect(await caller.closed).toEndWith('ok')
    expect(server.text().toLowerCase()).toContain('transfer-encoding: chunked')
    server.stop()
  })

  test('that is long goes on under its own length while it comes', async () => {
    const server = await plainServer((socket, total) => {
      if (total > 3 * MIB) socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok')
    })
    const gateway = await start({ target_url: server.origin })
    const caller = await rawCaller(gateway.port)
    caller.send(postHead(`Content-Length: ${3 * MIB}`, 'Content-Type: application/octet-stream', 'Connection: close'))
    caller.send(new Uint8Array(1_000))
    await until('the beginning', () => server.state.bytes > 1_000)
    expect(server.text().toLowerCase()).toContain(`content-length: ${3 * MIB}`)
    expect(server.text().toLowerCase()).not.toContain('transfer-encoding')
    for (let sent = 1_000; sent < 3 * MIB; sent += 65_536) {
      caller.send(new Uint8Array(Math.min(65_536, 3 * MIB - sent)))
      await until('the next piece', () => server.state.bytes >= Math.min(sent + 65_536, 3 * MIB))
    }
    expect(await caller.closed).toEndWith('ok')
    server.stop()
  })

  test('is taken from its caller no faster than the server reads', async () => {
    const server = await plainServer()
    server.state.isReading = false
    const gateway = await start({ target_url: server.origin })
    const caller = net.connect(gateway.port, '127.0.0.1')
    caller.on('error', () => {})
    caller.write(postHead(`Content-Length: ${LARGE}`, 'Content-Type: application/octet-stream', 'Connection: close'))
    const piece = Buffer.alloc(MIB)
    let sent = 0
    const push = () => {
      while (sent < LARGE) {
        sent += piece.byteLength
        if (!caller.write(piece)) return caller.once('drain', push)
      }
      return undefined
    }
    push()
    await until('a connection to the server', () => server.sockets.length === 1)
    expect(await settled(() => sent)).toBeLessThan(HELD_MAX)
    const [socket] = server.sockets
    socket?.resume()
    await until('all of it', () => server.state.bytes > LARGE)
    socket?.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok')
    let received = ''
    caller.on('data', bytes => {
      received += bytes.toString('latin1')
    })
    await new Promise(resolve => caller.on('close', resolve))
    expect(received).toContain('\r\n\r\nok')
    server.stop()
  }, 60_000)

  test('that grows past the cap ends the request at the server, and its caller is told 413', async () => {
    const server = await plainServer()
    const gateway = await start({ target_url: server.origin }, { config: { proxy: { request_body_limit_bytes: 100_000 } } })
    const caller = await rawCaller(gateway.port)
    caller.send(postHead('Transfer-Encoding: chunked', 'Content-Type: audio/wav'))
    caller.send(inChunks(new Uint8Array(60_000)))
    await until('the beginning', () => server.state.bytes > 60_000)
    caller.send(inChunks(new Uint8Array(60_000)))
    const received = await caller.receives('request body exceeds 100000-byte limit')
    expect(received).toStartWith('HTTP/1.1 413')
    await until('the end at the server', () => server.state.closed === 1)
    expect(server.text()).not.toEndWith('0\r\n\r\n')
    caller.leave()
    server.stop()
  })

  test('that a server has heard enough of is answered at once', async () => {
    const server = await plainServer(socket => {
      socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 3\r\nconnection: close\r\n\r\nno!')
    })
    const gateway = await start({ target_url: server.origin })
    const caller = await rawCaller(gateway.port)
    caller.send(postHead('Transfer-Encoding: chunked', 'Content-Type: audio/wav'))
    caller.send(inChunks('the beginning'))
    expect(await caller.receives('no!')).toStartWith('HTTP/1.1 403')
    caller.leave()
    server.stop()
  })

  test.each<[string, string | Uint8Array]>([
    ['Transfer-Encoding: chunked', inChunks('half')],
    [`Content-Length: ${3 * MIB}`, 'half'],
  ])('whose caller leaves is left at the server, and not ended there: %s', async (framing, half) => {
    const server = await plainServer()
    const gateway = await start({ target_url: server.origin })
    const caller = await rawCaller(gateway.port)
    caller.send(postHead(framing, 'Content-Type: audio/wav'))
    caller.send(half)
    await until('the first piece', () => server.text().includes('half'))
    caller.leave()
    await until('the end at the server', () => server.state.closed === 1)
    expect(server.text()).not.toEndWith('0\r\n\r\n')
    await gateway.idle()
    server.stop()
  })

  test('whose server goes away is refused, and its caller may go on', async () => {
    const server = await plainServer(socket => socket.destroy())
    const gateway = await start({ target_url: server.origin })
    const { promise: rest, resolve } = Promise.withResolvers<void>()
    const body = new ReadableStream<Uint8Array>({
      async start(controller) {
        controller.enqueue(new Uint8Array(10))
        await rest
        controller.close()
      },
    })
    const response = await fetch(`${gateway.url}/up/x`, { method: 'POST', headers: BEARER, body })
    expect(response.status).toBe(502)
    resolve()
    // One attempt: what was sent of the body cannot be sent again.
    expect(server.sockets).toHaveLength(1)
    server.stop()
  })

  test('may go on while its answer is on its way', async () => {
    const server = await plainServer((socket, _total) => {
      if (server.text().endsWith('one\r\n')) socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nONE\r\n')
      if (server.text().endsWith('0\r\n\r\n')) socket.write('3\r\nTWO\r\n0\r\n\r\n')
    })
    const gateway = await start({ target_url: server.origin })
    const caller = await rawCaller(gateway.port)
    caller.send(postHead('Transfer-Encoding: chunked', 'Content-Type: audio/wav'))
    caller.send(inChunks('one'))
    await caller.receives('ONE')
    caller.send(`${inChunks('two')}0\r\n\r\n`)
    expect(await caller.receives('TWO')).toStartWith('HTTP/1.1 200')
    caller.leave()
    server.stop()
  })
})

test('whose model must be known is read before it is sent: JSON in chunks, up to its first MiB', async () => {
  const gateway = await start()
  upstream.answer((_request, connection) => connection.json(200, {}))
  const caller = await rawCaller(gateway.port)
  const count = upstream.requests.length
  caller.send(postHead('Transfer-Encoding: chunked', 'Content-Type: application/json', 'Connection: close'))
  caller.send(inChunks('{"model":'))
  caller.send(`${inChunks('"m"}')}0\r\n\r\n`)
  expect(await caller.closed).toStartWith('HTTP/1.1 200')
  expect(upstream.requests).toHaveLength(count + 1)
  expect([upstream.last().text, upstream.last().header('content-length')]).toEqual(['{"model":"m"}', '13'])
  await gateway.idle()
  expect(gateway.telemetry.records).toMatchObject([{ requestedModel: 'm' }])
})
