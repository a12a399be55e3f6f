import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createDialer, transportError } from '../../src/proxy/dial.ts'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { answerOf, type GatewayOptions, startGateway, until } from '../gateway.ts'

const fixture = (name: string) => readFileSync(join(import.meta.dir, '..', 'fixtures', 'tls', name), 'utf8')

/** One chat request through a gateway of its own. */
async function askOnce(options: GatewayOptions) {
  const gateway = await startGateway(options)
  try {
    return await answerOf(await gateway.chat())
  } finally {
    await gateway.stop()
  }
}

describe('TLS upstream', () => {
  const cert = fixture('server.crt')
  let upstream: FakeUpstream
  beforeAll(async () => {
    upstream = await fakeUpstream({ tls: { cert, key: fixture('server.key') } })
  })
  afterAll(() => upstream.stop())
  const none = { ca: [], cert: undefined, key: undefined, verify: true }

  test('with a certificate that nobody signed is 502, and the request is not sent', async () => {
    const { status, error } = await askOnce({ upstream: upstream.url })
    expect(status).toBe(502)
    expect(error).toEqual({ type: 'transport_error', message: 'transport error: certificate not trusted' })
    expect(upstream.requests).toHaveLength(0)
  })

  test('is trusted with the certificate in the provider key', async () => {
    expect((await askOnce({ upstream: upstream.url, providerKey: { tls: { ca_cert: cert } } })).status).toBe(200)
  })

  test('is trusted with the certificate in the configuration', async () => {
    expect((await askOnce({ upstream: upstream.url, tls: { ...none, ca: [cert] } })).status).toBe(200)
  })

  test('is not trusted with another certificate', async () => {
    const { status } = await askOnce({ upstream: upstream.url, providerKey: { tls: { ca_cert: fixture('expired.crt') } } })
    expect(status).toBe(502)
  })

  test('is accepted as it is where the provider key or the configuration says so', async () => {
    expect((await askOnce({ upstream: upstream.url, providerKey: { tls: { verify: false } } })).status).toBe(200)
    expect((await askOnce({ upstream: upstream.url, tls: { ...none, verify: false } })).status).toBe(200)
  })

  test('one provider key that accepts everything does not open the door for another', async () => {
    const gateway = await startGateway({ upstream: upstream.url, providerKey: { tls: { verify: false } } })
    const strict = await gateway.addProviderKey({ api_base: upstream.url })
    await gateway.addModel({ display_name: 'strict', provider_key_id: strict.id })
    expect((await gateway.chat()).status).toBe(200)
    expect((await gateway.chat({ model: 'strict' })).status).toBe(502)
    await gateway.stop()
  })

  test('spoken to as if it were plain is 502', async () => {
    expect((await askOnce({ upstream: upstream.url.replace('https', 'http') })).status).toBe(502)
  })

  test('that speaks plain HTTP is 502', async () => {
    const plain = Bun.listen({
      hostname: '127.0.0.1',
      port: 0,
      socket: {
        data(socket) {
          socket.end('HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n')
        },
      },
    })
    const { status, error } = await askOnce({ upstream: `https://127.0.0.1:${plain.port}/v1` })
    expect(status).toBe(502)
    expect(error.type).toBe('transport_error')
    plain.stop(true)
  })
})

describe('an upstream that hangs up', () => {
  test('after each stream while it announces keep-alive costs no caller anything, over 200 requests', async () => {
    const upstream = await fakeUpstream()
    upstream.answer(async (_request, connection) => {
      await connection.sse([chatChunk({ content: 'A' })], { headers: { connection: 'keep-alive' } })
      connection.close()
    })
    const gateway = await startGateway({ upstream: upstream.url })
    const statuses = new Map<number, number>()
    let ended = 0
    const worker = async () => {
      for (let i = 0; i < 50; i++) {
        const response = await gateway.chat({ stream: true })
        statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1)
        if ((await response.text()).endsWith('data: [DONE]\n\n')) ended += 1
      }
    }
    await Promise.all([worker(), worker(), worker(), worker()])
    expect([...statuses]).toEqual([[200, 200]])
    expect(ended).toBe(200)
    expect(upstream.requests).toHaveLength(200)
    await gateway.stop()
    upstream.stop()
  }, 20_000)

  test('on a connection that lay idle is asked again at once, once, outside the retries', async () => {
    const upstream = await fakeUpstream()
    upstream.answer((request, connection) =>
      // The first connection dies with its second request.
      request.connection === 1 && upstream.requests.length > 1 ? connection.reset() : connection.json(200, chatAnswer()),
    )
    const gateway = await startGateway({ upstream: upstream.url })
    expect((await gateway.chat()).status).toBe(200)
    expect((await gateway.chat()).status).toBe(200)
    expect(upstream.requests.map(({ connection }) => connection)).toEqual([1, 1, 2])
    await gateway.stop()
    upstream.stop()
  })

  test('without end is an error after the second time', async () => {
    const upstream = await fakeUpstream()
    upstream.answer((_request, connection) => connection.reset())
    expect((await askOnce({ upstream: upstream.url })).status).toBe(502)
    expect(upstream.requests).toHaveLength(2)
    upstream.stop()
  })
})

test('connections are used again', async () => {
  const upstream = await fakeUpstream()
  const gateway = await startGateway({ upstream: upstream.url })
  for (let i = 0; i < 5; i++) await (await gateway.chat()).text()
  upstream.answer((_request, connection) => connection.sse([chatChunk({ content: 'A' })]))
  for (let i = 0; i < 5; i++) await (await gateway.chat({ stream: true })).text()
  expect(upstream.requests).toHaveLength(10)
  expect(upstream.connections).toBe(1)
  await gateway.stop()
  upstream.stop()
})

describe('the time for connecting', () => {
  /** A `fetch` that never answers, as one does to a host that drops what is sent to it. */
  const silent = (_url: string, init: { signal: AbortSignal }) =>
    new Promise<Response>((_resolve, reject) => {
      init.signal.addEventListener('abort', () => reject(new Error('aborted')))
    })
  const dialTo = (
    port: number,
    connectTimeoutMs: number,
    tls?: { rejectUnauthorized: boolean },
    fetch: (url: string, init: { signal: AbortSignal }) => Promise<Response> = silent,
  ) => {
    const controller = new AbortController()
    const unreachable: string[] = []
    const dial = createDialer({ fetch, proxy: undefined, connectTimeoutMs, monotonic: () => performance.now() })
    const answer = dial({
      url: `http://127.0.0.1:${port}/`,
      origin: `http://127.0.0.1:${port}`,
      hostname: '127.0.0.1',
      port,
      tls,
      headers: {},
      body: '',
      isStream: false,
      signal: controller.signal,
      onUnreachable: error => {
        unreachable.push(error.message)
        controller.abort()
      },
    })
    answer.catch(() => {})
    return { answer, controller, unreachable }
  }

  test('over, and connections are refused by now: what was sent before may still be answered', async () => {
    const draining = await fakeUpstream()
    draining.stop()
    const { answer, controller, unreachable } = dialTo(draining.port, 20)
    await Bun.sleep(150)
    expect(unreachable).toEqual([])
    controller.abort()
    await expect(answer).rejects.toThrow('aborted')
  })

  test('over, and the answer comes while no further connection can be had: it stands', async () => {
    const mute = await fakeUpstream()
    mute.answer((_request, connection) => connection.stall())
    const { answer, unreachable } = dialTo(mute.port, 80, { rejectUnauthorized: true }, async () => {
      await until('the connection that finds out', () => mute.connections > 0)
      return new Response('late')
    })
    expect(await (await answer).text()).toBe('late')
    // Past the time of the connection that was made to find out.
    await Bun.sleep(150)
    expect(unreachable).toEqual([])
    mute.stop()
  })

  test('over, and the host takes connections but no TLS handshake ends: a transport error', async () => {
    const mute = await fakeUpstream()
    mute.answer((_request, connection) => connection.stall())
    const { answer, unreachable } = dialTo(mute.port, 50, { rejectUnauthorized: true })
    await expect(answer).rejects.toThrow('aborted')
    expect(unreachable).toEqual(['transport error: connection timed out'])
    mute.stop()
  })

  test('over, and a TLS handshake can be had: the answer is waited for', async () => {
    const slow = await fakeUpstream({ tls: { cert: fixture('server.crt'), key: fixture('server.key') } })
    const { answer, controller, unreachable } = dialTo(slow.port, 200, { rejectUnauthorized: true })
    // Past the time for connecting and past that of the probe behind it.
    await Bun.sleep(500)
    expect(unreachable).toEqual([])
    controller.abort()
    await expect(answer).rejects.toThrow('aborted')
    slow.stop()
  })

  test('over, and the host takes connections: the answer is waited for', async () => {
    const slow = await fakeUpstream()
    const { answer, controller, unreachable } = dialTo(slow.port, 20)
    while (slow.connections === 0) await Bun.sleep(2)
    expect(unreachable).toEqual([])
    controller.abort()
    await expect(answer).rejects.toThrow('aborted')
    slow.stop()
  })
})

test.each([
  [{ code: 'ECONNREFUSED' }, 'connection refused'],
  [{ code: 'ConnectionRefused' }, 'connection refused'],
  [{ code: 'ENOTFOUND' }, 'name not found'],
  [{ code: 'EHOSTUNREACH' }, 'host unreachable'],
  [{ code: 'DEPTH_ZERO_SELF_SIGNED_CERT' }, 'certificate not trusted'],
  [{ code: 'ERR_TLS_CERT_ALTNAME_INVALID' }, 'certificate not trusted'],
  [{ code: 'CERT_HAS_EXPIRED' }, 'certificate not trusted'],
  [{ code: 'ECONNRESET' }, 'connection reset'],
  [{ code: 'EPROTO' }, 'TLS handshake failed'],
  [{ code: 'SOMETHING_NEW' }, 'connection failed'],
  [undefined, 'connection failed'],
])('a transport error %p is told as "%s"', (given, expected) => {
  const cause = Object.assign(new Error('to http://10.0.0.5/?key=secret'), given)
  const error = transportError(cause)
  expect(error.message).toBe(`transport error: ${expected}`)
  expect(error.cause).toBe(cause)
})
