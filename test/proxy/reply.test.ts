/** Streams as the caller gets them: delivery, ends good and bad, heartbeats, and callers that leave. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { type Connection, chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, answerOf, CALLER_KEY, eventsOf, type GatewayOptions, startGateway, type TestGateway, until } from '../gateway.ts'
import { rawCaller, rawPost } from './raw-caller.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
})
beforeEach(async () => {
  upstream.requests.length = 0
  upstream.cut = 0
  gateway = await startGateway({ upstream: upstream.url })
})
afterEach(async () => {
  // Whatever the test did: nothing that it began is still open.
  await gateway.idle()
  await gateway.stop()
})
afterAll(() => upstream.stop())

async function restart(options: GatewayOptions): Promise<void> {
  await gateway.stop()
  gateway = await startGateway({ upstream: upstream.url, ...options })
}

const A = chatChunk({ content: 'A' })
const B = chatChunk({ content: 'B' })
const toCaller = (chunk: Record<string, unknown>) => JSON.stringify({ ...chunk, model: ALIAS })
const eventText = (chunk: unknown) => `data: ${JSON.stringify(chunk)}\n\n`

/** The events that a caller of a stream gets, with the error frame's type where there is one. */
async function stream(members: Record<string, unknown> = {}) {
  const answer = await answerOf(await gateway.chat({ stream: true, ...members }))
  const events = eventsOf(answer.text)
  const frame = events.find(event => event.startsWith('event: error\n'))
  const error: Record<string, unknown> | undefined =
    frame === undefined ? undefined : JSON.parse(frame.replace('event: error\ndata: ', '')).error
  return { ...answer, events, frame: error }
}

describe('a stream', () => {
  test('is an event stream that no proxy on the way should hold back', async () => {
    upstream.answer((_request, connection) => connection.sse([A, B]))
    const { status, headers, events } = await stream()
    expect(status).toBe(200)
    expect(headers.get('content-type')).toBe('text/event-stream')
    expect(headers.get('cache-control')).toBe('no-cache')
    expect(headers.get('x-accel-buffering')).toBe('no')
    expect(headers.get('x-aisix-call-id')).toBe(headers.get('x-aisix-request-id'))
    expect(events).toEqual([toCaller(A), toCaller(B), '[DONE]'])
  })

  test('delivers its first chunk before the upstream has sent the second', async () => {
    const second = Promise.withResolvers<void>()
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(eventText(A))
      await second.promise
      await connection.chunk(`${eventText(B)}data: [DONE]\n\n`)
      await connection.endChunks()
    })
    const caller = await rawCaller(gateway.port)
    const body = JSON.stringify({ model: ALIAS, stream: true, messages: [{ role: 'user', content: 'Hi' }] })
    caller.send(rawPost('/v1/chat/completions', body, [`Authorization: Bearer ${CALLER_KEY}`]))
    const early = await caller.receives('"A"')
    expect(early).not.toContain('"B"')
    second.resolve()
    expect(await caller.closed).toContain('[DONE]')
  })

  test('of completions is relayed alike', async () => {
    const chunk = { id: 'cmpl', object: 'text_completion', model: 'm', choices: [{ index: 0, text: 'x', finish_reason: null }] }
    upstream.answer((_request, connection) => connection.sse([chunk, chunk]))
    const { text, headers } = await answerOf(await gateway.post('/v1/completions', { model: ALIAS, prompt: 'x', stream: true }))
    expect(eventsOf(text)).toEqual([toCaller(chunk), toCaller(chunk), '[DONE]'])
    expect(headers.get('x-aisix-call-id')).toBeNull()
  })

  test('is whole over any framing and line ends', async () => {
    const ends = ['\n\n', '\r\n\r\n', '\r\r', '\r\n\n']
    const text = `\ufeff: hello\n\nevent: message\nid: 1\n${[A, B, A, B].map((chunk, index) => `data: ${JSON.stringify(chunk)}${ends[index]}`).join('')}data:[DONE]\r\n\r\n`
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      for (const byte of Buffer.from(text)) await connection.chunk(new Uint8Array([byte]))
      await connection.endChunks()
    })
    expect((await stream()).events).toEqual([toCaller(A), toCaller(B), toCaller(A), toCaller(B), '[DONE]'])
  })

  test('of several data lines an event is one chunk', async () => {
    upstream.answer((_request, connection) => connection.sse(['{"model":"m",\ndata: "choices":[]}'], { chunked: false }))
    expect((await stream()).events).toEqual([`{"model":"${ALIAS}","choices":[]}`, '[DONE]'])
  })

  test('with an event of 2 MB delivers it whole', async () => {
    const large = chatChunk({ content: 'ä'.repeat(1_000_000) })
    upstream.answer((_request, connection) => connection.sse([A, large, B]))
    expect((await stream()).events).toEqual([toCaller(A), toCaller(large), toCaller(B), '[DONE]'])
  })

  test('with an event over 8 MiB ends in an error', async () => {
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(eventText(A))
      const piece = 'x'.repeat(1024 * 1024)
      await connection.chunk(`data: {"choices":[{"delta":{"content":"`)
      for (let i = 0; i < 12 && !connection.isClosed(); i++) await connection.chunk(piece)
      await connection.stall()
    })
    const { events, frame } = await stream()
    expect(events[0]).toBe(toCaller(A))
    expect(frame).toMatchObject({ type: 'upstream_decode_error' })
    expect(events).not.toContain('[DONE]')
  })

  test('swallows the chunk of usage alone unless the caller asked for it', async () => {
    const usage = { ...chatChunk({}), choices: [], usage: { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 } }
    upstream.answer((_request, connection) => connection.sse([A, usage]))
    expect((await stream()).events).toEqual([toCaller(A), '[DONE]'])
    expect(await gateway.accessLine()).toContain('prompt_tokens=3 completion_tokens=4 total_tokens=7')
    expect((await stream({ stream_options: { include_usage: true } })).events).toEqual([toCaller(A), toCaller(usage), '[DONE]'])
  })

  test('ends at `[DONE]`, also when the upstream goes on', async () => {
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(`${eventText(A)}data: [DONE]\n\n${eventText(B)}`)
      await connection.stall()
    })
    expect((await stream()).events).toEqual([toCaller(A), '[DONE]'])
    await upstream.whenCut(1)
  })
})

describe('the end of a stream', () => {
  test.each([
    ['of chunks', true],
    ['of the connection', false],
  ])('without [DONE], by a clean end %s, is a normal end', async (_name, chunked) => {
    upstream.answer((_request, connection) => connection.sse([A, B], { done: null, chunked }))
    expect((await stream()).events).toEqual([toCaller(A), toCaller(B), '[DONE]'])
  })

  test('without the last blank line still delivers the last event', async () => {
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(eventText(A) + eventText(B).trimEnd())
      await connection.endChunks()
    })
    expect((await stream()).events).toEqual([toCaller(A), toCaller(B), '[DONE]'])
  })

  test('without [DONE] is warned of where the operator said that it is required', async () => {
    await restart({ providerKey: { response: { stream_done_marker: 'required' } } })
    upstream.answer((_request, connection) => connection.sse([A], { done: null }))
    expect((await stream()).events).toEqual([toCaller(A), '[DONE]'])
    expect(gateway.logs.some(line => line.includes('stream ended without [DONE]'))).toBe(true)
  })
})

describe('a stream that is cut is an error and never a clean end', () => {
  const half = Buffer.from(eventText(chatChunk({ content: 'grüße' })))
  const inCharacter = half.indexOf('ü') + 1
  const afterBrace = half.indexOf('}') + 1

  test.each([
    ['between events by a reset', 0, 'reset', 'transport_error'],
    ['in an event by a reset', 40, 'reset', 'transport_error'],
    ['in a character by a reset', inCharacter, 'reset', 'transport_error'],
    ['between events by the end of the connection in the middle of the chunks', 0, 'close', 'transport_error'],
    ['in an event by a clean end', 40, 'end', 'upstream_decode_error'],
    ['in a character by a clean end', inCharacter, 'end', 'upstream_decode_error'],
    ['behind an inner brace by a clean end', afterBrace, 'end', 'upstream_decode_error'],
  ] as const)('%s', async (_name, length, how, type) => {
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(eventText(A) + eventText(B))
      await Bun.sleep(10)
      if (length > 0) await connection.chunk(half.subarray(0, length))
      if (how === 'end') await connection.endChunks()
      else if (how === 'close') connection.close()
      else connection.reset()
    })
    const { status, events, frame } = await stream()
    expect(status).toBe(200)
    expect(events.slice(0, 2)).toEqual([toCaller(A), toCaller(B)])
    expect(events).toHaveLength(3)
    expect(frame).toMatchObject({ type })
    const line = await gateway.accessLine()
    expect(line).toContain('status=502')
    expect(line).toContain(`error_kind="${type}"`)
    expect(line).toContain('stream=true')
  })

  test('by an error inside it, whose words are told', async () => {
    upstream.answer((_request, connection) =>
      connection.sse([A, { error: { message: 'out of memory', type: 'server_error', code: 500 } }, B]),
    )
    const { events, frame } = await stream()
    expect(events).toHaveLength(2)
    expect(frame).toEqual({
      type: 'upstream_in_band_error',
      message: 'upstream reported an in-band stream error: out of memory',
    })
  })

  test('by something that is no chunk', async () => {
    upstream.answer((_request, connection) => connection.sse([A, 'hello']))
    expect((await stream()).frame).toMatchObject({ type: 'upstream_decode_error' })
  })

  test('by silence longer than `stream_timeout`, and the upstream is let go', async () => {
    await restart({ model: { stream_timeout: 60 } })
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(eventText(A))
      await connection.stall()
    })
    const { events, frame } = await stream()
    expect(events).toHaveLength(2)
    expect(frame).toEqual({ type: 'timeout', message: 'upstream request timed out after 60ms' })
    await upstream.whenCut(1)
    expect(upstream.requests).toHaveLength(1)
  })

  test('and its connection upstream is closed', async () => {
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(eventText(A) + eventText({ error: 'boom' }))
      await connection.stall()
    })
    expect((await stream()).frame).toMatchObject({ type: 'upstream_in_band_error' })
    await upstream.whenCut(1)
  })
})

describe('a stream that fails before its first chunk is an HTTP error', () => {
  test.each([
    ['an error of the caller inside', [{ error: { message: 'too long', code: 400 } }], 400, 'upstream_error'],
    ['an error of the server inside', [{ error: { message: 'boom' } }], 502, 'upstream_error'],
    ['something that is no chunk', ['hello'], 502, 'upstream_decode_error'],
    ['nothing', [], 502, 'stream_aborted'],
  ] as const)('%s', async (_name, events, status, type) => {
    upstream.answer((_request, connection) => connection.sse(events, { done: null }))
    expect(await stream()).toMatchObject({ status, error: { type } })
  })

  test('a status', async () => {
    upstream.answer((_request, connection) => connection.json(404, { error: { message: 'no such model' } }))
    expect(await stream()).toMatchObject({ status: 404, error: { message: 'no such model', type: 'upstream_error' } })
  })

  test('JSON in place of a stream', async () => {
    upstream.answer((_request, connection) => connection.json(200, { error: { message: 'no streaming', code: 400 } }))
    expect(await stream()).toMatchObject({ status: 400, error: { type: 'upstream_error' } })
    upstream.answer((_request, connection) => connection.send(200, '<html>', { 'content-type': 'text/html' }))
    expect(await stream()).toMatchObject({ status: 502, error: { type: 'upstream_decode_error' } })
  })

  test('a reset', async () => {
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      connection.reset()
    })
    expect(await stream()).toMatchObject({ status: 502, error: { type: 'transport_error' } })
  })

  test('silence', async () => {
    await restart({ model: { stream_timeout: 60 } })
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.stall()
    })
    expect(await stream()).toMatchObject({ status: 504, error: { type: 'timeout' } })
    await upstream.whenCut(1)
  })
})

describe('heartbeats', () => {
  const config = { downstream: { sse_keepalive_interval_secs: 1 } }

  test('come while the upstream is silent, before its first event and between events', async () => {
    await restart({ config })
    upstream.answer(async (_request, connection) => {
      await Bun.sleep(1_100)
      await connection.streamHead()
      await connection.chunk(eventText(A))
      await Bun.sleep(1_100)
      await connection.chunk(`${eventText(B)}data: [DONE]\n\n`)
      await connection.endChunks()
    })
    const { status, events } = await stream()
    expect(status).toBe(200)
    expect(events).toEqual([':', toCaller(A), ':', toCaller(B), '[DONE]'])
  })

  test('commit the 200: what fails afterwards is an error frame and is not tried again', async () => {
    await restart({ config, model: { retries: 5 } })
    const failing = Promise.withResolvers<void>()
    upstream.answer(async (_request, connection) => {
      await failing.promise
      await connection.json(503, { error: { message: 'loading' } })
    })
    const response = await gateway.chat({ stream: true })
    expect(response.status).toBe(200)
    failing.resolve()
    const text = await response.text()
    expect(eventsOf(text)[0]).toBe(':')
    expect(text).toContain('event: error\ndata: {"error":{"message":"upstream returned 503')
    expect(text).not.toContain('[DONE]')
    expect(upstream.requests).toHaveLength(1)
    expect(await gateway.accessLine()).toContain('status=502')
  })

  test('do not move the deadline of a silent upstream', async () => {
    await restart({ config, model: { stream_timeout: 1_300 } })
    upstream.answer((_request, connection) => connection.stall())
    const { status, events, frame } = await stream()
    expect(status).toBe(200)
    expect(events[0]).toBe(':')
    expect(frame).toMatchObject({ type: 'timeout', message: 'upstream request timed out after 1300ms' })
    await upstream.whenCut(1)
  })

  test('that were sent do not keep the upstream when the caller leaves', async () => {
    await restart({ config })
    upstream.answer((_request, connection) => connection.stall())
    const controller = new AbortController()
    const response = await gateway.chat({ stream: true }, {}, controller.signal)
    const reader = response.body?.getReader()
    await reader?.read()
    controller.abort()
    await upstream.whenCut(1)
    expect(await gateway.accessLine()).toContain('status=499')
  })
})

describe('a caller that leaves', () => {
  /** Sends a question on a connection of its own. */
  async function ask(members: Record<string, unknown> = {}) {
    const caller = await rawCaller(gateway.port)
    const body = JSON.stringify({ model: ALIAS, messages: [{ role: 'user', content: 'Hi' }], ...members })
    caller.send(rawPost('/v1/chat/completions', body, [`Authorization: Bearer ${CALLER_KEY}`]))
    return caller
  }
  const isClosed = async (connection: Promise<Connection>) => await (await connection).closed

  test.each([
    ['not streamed', {}],
    ['streamed', { stream: true }],
  ])('before the head of an answer that is %s ends the call upstream', async (_name, members) => {
    const begun = Promise.withResolvers<Connection>()
    upstream.answer((_request, connection) => {
      begun.resolve(connection)
      return connection.stall()
    })
    const caller = await ask(members)
    await begun.promise
    expect(gateway.gateway.lifecycle.inFlight.size).toBe(1)
    caller.leave()
    await isClosed(begun.promise)
    await gateway.idle()
    const line = await gateway.accessLine()
    expect(line).toContain('status=499')
    expect(line).toContain('error_kind="client_disconnected"')
    expect(upstream.requests).toHaveLength(1)
  })

  test('in the middle of a body that is not streamed ends the call upstream', async () => {
    const begun = Promise.withResolvers<Connection>()
    upstream.answer(async (_request, connection) => {
      await connection.raw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5000000\r\n\r\n{"choices":[')
      begun.resolve(connection)
      await connection.stall()
    })
    const caller = await ask()
    await begun.promise
    caller.leave()
    await isClosed(begun.promise)
    expect(await gateway.accessLine()).toContain('status=499')
  })

  test('mid-stream ends the call upstream, and what was delivered is counted', async () => {
    const begun = Promise.withResolvers<Connection>()
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(eventText(A))
      begun.resolve(connection)
      await connection.stall()
    })
    const caller = await ask({ stream: true })
    await caller.receives('"A"')
    caller.leave()
    await isClosed(begun.promise)
    await gateway.idle()
    const line = await gateway.accessLine()
    expect(line).toContain('status=499')
    expect(line).toContain('completion_tokens=1 ')
    expect(line).toContain('usage_estimated=true')
  })

  test('while the gateway waits to try again is not asked for again', async () => {
    await restart({ model: { retries: 3 } })
    const begun = Promise.withResolvers<void>()
    upstream.answer(async (_request, connection) => {
      await connection.json(503, {})
      begun.resolve()
    })
    const caller = await ask()
    await begun.promise
    await until('the failed answer is read', () => gateway.logs.some(line => line.includes('upstream answered with an error')))
    caller.leave()
    expect(await gateway.accessLine()).toContain('status=499')
    await gateway.idle()
    expect(upstream.requests).toHaveLength(1)
  })

  test('after its answer is over is no error', async () => {
    upstream.answer((_request, connection) => connection.sse([A]))
    const caller = await ask({ stream: true })
    await caller.closed
    caller.leave()
    expect(await gateway.accessLine()).toContain('status=200')
  })

  test('a hundred times leaves nothing behind', async () => {
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(eventText(A))
      await connection.stall()
    })
    const before = upstream.cut
    for (let i = 0; i < 10; i++) {
      const callers = await Promise.all(Array.from({ length: 10 }, () => ask({ stream: true })))
      await Promise.all(callers.map(caller => caller.receives('"A"')))
      for (const caller of callers) caller.leave()
    }
    await upstream.whenCut(before + 100)
    await gateway.idle()
    expect(gateway.gateway.lifecycle.inFlight.size).toBe(0)
  })
})

test('a caller that does not read holds the upstream back', async () => {
  let sent = 0
  const limit = 64 * 1024 * 1024
  const pausing = Promise.withResolvers<void>()
  upstream.answer(async (_request, connection) => {
    await connection.streamHead()
    const event = eventText(chatChunk({ content: 'x'.repeat(100_000) }))
    while (sent < limit && !connection.isClosed()) {
      const isTaken = await Promise.race([connection.chunk(event).then(() => true), Bun.sleep(1_500).then(() => false)])
      if (!isTaken) {
        pausing.resolve()
        await connection.stall()
        return
      }
      sent += event.length
    }
    pausing.resolve()
  })
  const controller = new AbortController()
  const response = await gateway.chat({ stream: true }, {}, controller.signal)
  expect(response.status).toBe(200)
  await pausing.promise
  expect(sent).toBeLessThan(limit)
  controller.abort()
})

describe('an answer too large to hold', () => {
  const MEBIBYTE = Buffer.alloc(1024 * 1024, 'x')
  /** Sends a little more than is held, and then does what a test wants. */
  const large = (then: (connection: Connection) => unknown) => {
    upstream.answer(async (_request, connection) => {
      await connection.raw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n')
      for (let i = 0; i < 65 && !connection.isClosed(); i++) await connection.chunk(MEBIBYTE)
      await then(connection)
    })
  }

  test('that is cut upstream is cut for the caller, never ended as if it were whole', async () => {
    const goOn = Promise.withResolvers<void>()
    large(connection => goOn.promise.then(() => connection.reset()))
    const response = await gateway.chat()
    expect(response.status).toBe(200)
    goOn.resolve()
    await expect(response.bytes()).rejects.toThrow()
    const line = await gateway.accessLine()
    expect(line).toContain('status=502')
    expect(line).toContain('error_kind="transport_error"')
  })

  test('is let go when the caller leaves', async () => {
    large(connection => connection.stall())
    const controller = new AbortController()
    const response = await gateway.chat({}, {}, controller.signal)
    const reader = response.body?.getReader()
    await reader?.read()
    controller.abort()
    await upstream.whenCut(1)
    expect(await gateway.accessLine()).toContain('status=499')
  })
})

describe('an event', () => {
  test('that came in several data lines goes out in one, wherever it was broken', async () => {
    upstream.answer((_request, connection) => {
      const lines = JSON.stringify(A, null, 2).split('\n')
      connection.streamHead()
      connection.chunk(`${lines.map(line => `data: ${line}`).join('\n')}\n\ndata: [DONE]\n\n`)
      connection.endChunks()
    })
    const { events } = await stream()
    expect(events).toHaveLength(2)
    expect(events[0]).not.toContain('\n')
    expect(JSON.parse(events[0] ?? '')).toEqual(JSON.parse(toCaller(A)))
  })

  test("spaced as Python's writer spaces it counts towards the estimate as any other", async () => {
    const spaced = (chunk: unknown) => JSON.stringify(chunk).replaceAll('":', '": ').replaceAll(',"', ', "')
    upstream.answer((_request, connection) => {
      connection.streamHead()
      for (let i = 0; i < 7; i += 1) connection.chunk(`data: ${spaced(A)}\n\n`)
      connection.chunk('data: [DONE]\n\n')
      connection.endChunks()
    })
    const { headers } = await stream()
    const line = await gateway.accessLine(headers.get('x-aisix-request-id') ?? '')
    expect(line).toContain('completion_tokens=7 ')
    expect(line).toContain('usage_estimated=true')
  })

  test('with an error as older vLLM and SGLang tell it keeps its words', async () => {
    upstream.answer((_request, connection) => {
      connection.streamHead()
      connection.chunk(eventText(A))
      connection.chunk(eventText({ object: 'error', message: 'the engine is out of memory', type: 'BadRequest', code: 400 }))
      connection.endChunks()
    })
    const { frame } = await stream()
    expect(frame?.type).toBe('upstream_in_band_error')
    expect(frame?.message).toContain('the engine is out of memory')
  })
})
