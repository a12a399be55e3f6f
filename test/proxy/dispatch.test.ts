import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { backoffMs } from '../../src/proxy/dispatch.ts'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream, type Handler } from '../fake-upstream.ts'
import { ALIAS, answerOf, eventsOf, type GatewayOptions, startGateway, type TestGateway } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
})
beforeEach(async () => {
  upstream.requests.length = 0
  gateway = await startGateway({ upstream: upstream.url, model: { retries: 1 } })
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
const good: Handler = (_request, connection) => connection.json(200, chatAnswer('at last'))

describe('the wait before try k', () => {
  test('doubles from 250 ms to 2 s, with up to 250 ms at random on top', () => {
    expect([1, 2, 3, 4, 5, 50].map(k => backoffMs(k, undefined, () => 0))).toEqual([250, 500, 1_000, 2_000, 2_000, 2_000])
    expect(backoffMs(1, undefined, () => 0.5)).toBe(375)
  })

  test('is what the upstream asked for, from 1 to 5 seconds', () => {
    expect([0, 1, 5, 6, 3_600].map(hint => backoffMs(1, hint, () => 0))).toEqual([250, 1_000, 5_000, 250, 250])
    expect(backoffMs(1, 2, () => 1)).toBe(2_250)
  })
})

describe('is tried again', () => {
  const failures: [string, Handler][] = [
    ['a 503, as while a model loads', (_request, connection) => connection.json(503, { error: { message: 'loading' } })],
    ['a 500', (_request, connection) => connection.send(500, 'boom')],
    ['HTML with 200', (_request, connection) => connection.send(200, '<html>')],
    ['an answer without choices', (_request, connection) => connection.json(200, {})],
    [
      'a body cut by a reset',
      async (_request, connection) => {
        await connection.raw('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{')
        connection.reset()
      },
    ],
  ]
  test.each(failures)('%s, and the answer of the second try is the answer', async (_name, failure) => {
    upstream.answerInTurn(failure, good)
    const { status, body, headers } = await ask()
    expect(status).toBe(200)
    expect(body).toEqual({ ...chatAnswer('at last'), model: ALIAS })
    expect(upstream.requests).toHaveLength(2)
    expect(headers.get('x-should-retry')).toBeNull()
    expect(await gateway.accessLine()).toContain('attempts=2')
  })

  test('under the same id, with the same body', async () => {
    upstream.answerInTurn((_request, connection) => connection.send(500, ''), good)
    await ask()
    const [first, second] = upstream.requests
    expect(second?.header('x-aisix-request-id')).toBe(first?.header('x-aisix-request-id'))
    expect(second?.text).toBe(first?.text ?? 'absent')
  })

  test.each(['/v1/embeddings', '/v1/completions'])('also on %s', async path => {
    upstream.answerInTurn(
      (_request, connection) => connection.send(500, ''),
      (_request, connection) => connection.json(200, { data: [], choices: [] }),
    )
    expect((await gateway.post(path, { model: ALIAS, input: 'x', prompt: 'x' })).status).toBe(200)
  })

  const streamFailures: [string, Handler][] = [
    ['a 503', (_request, connection) => connection.send(503, '')],
    ['nothing at all', (_request, connection) => connection.sse([], { done: null })],
    ['an error before the first chunk', (_request, connection) => connection.sse([{ error: { message: 'x' } }])],
    ['something that is no chunk', (_request, connection) => connection.sse(['hello'])],
    [
      'a reset before the first chunk',
      async (_request, connection) => {
        await connection.streamHead()
        connection.reset()
      },
    ],
  ]
  test.each(streamFailures)('a stream that begins with %s', async (_name, failure) => {
    const chunk = chatChunk({ content: 'A' })
    upstream.answerInTurn(failure, (_request, connection) => connection.sse([chunk]))
    const { status, text } = await ask({ stream: true })
    expect(status).toBe(200)
    expect(eventsOf(text)).toEqual([JSON.stringify({ ...chunk, model: ALIAS }), '[DONE]'])
    expect(upstream.requests).toHaveLength(2)
  })
})

describe('is not tried again', () => {
  test('a stream that has begun', async () => {
    upstream.answer((_request, connection) => connection.sse([chatChunk({ content: 'A' }), { error: 'boom' }]))
    expect((await ask({ stream: true })).text).toContain('event: error')
    expect(upstream.requests).toHaveLength(1)
  })

  test('an error of the caller inside a stream', async () => {
    upstream.answer((_request, connection) => connection.sse([{ error: { message: 'too long', code: 400 } }]))
    expect((await ask({ stream: true })).status).toBe(400)
    expect(upstream.requests).toHaveLength(1)
  })

  test('anything with `retries: 0`', async () => {
    await restart({ model: { retries: 0 } })
    upstream.answerInTurn((_request, connection) => connection.send(503, ''), good)
    const { status, headers } = await ask()
    expect(status).toBe(502)
    expect(headers.get('x-should-retry')).toBeNull()
    expect(upstream.requests).toHaveLength(1)
  })

  test('a timeout, unless the model says how often', async () => {
    upstream.answer((_request, connection) => connection.stall())
    await restart({ model: { timeout: 50, retries: undefined } })
    expect((await ask()).status).toBe(504)
    expect(upstream.requests).toHaveLength(1)
    await restart({ model: { timeout: 50, retries: 1 } })
    expect((await ask()).status).toBe(504)
    expect(upstream.requests).toHaveLength(3)
  })
})

test('as often as the model says, else as the deployment says; the last failure is told, with the advice not to try again', async () => {
  upstream.answer((_request, connection) => connection.send(500 + upstream.requests.length, ''))
  await restart({ model: { retries: undefined }, config: { upstream: { retries: 1 } } })
  const { status, error, headers } = await ask()
  expect(status).toBe(502)
  expect(String(error.message)).toStartWith('upstream returned 502')
  expect(headers.get('x-should-retry')).toBe('false')
  expect(upstream.requests).toHaveLength(2)
  expect(await gateway.accessLine()).toContain('attempts=2')
})

test('a hint of the upstream is waited for', async () => {
  upstream.answerInTurn((_request, connection) => connection.send(503, '', { 'retry-after': '1' }), good)
  const startedAt = performance.now()
  expect((await ask()).status).toBe(200)
  // A timer may come a little early by the other clock.
  expect(performance.now() - startedAt).toBeGreaterThan(990)
})
