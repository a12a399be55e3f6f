import { describe, expect, test } from 'bun:test'
import { createServer, type Socket } from 'node:net'
import { BATCH_RECORDS, RECORDS_MAX } from '../../src/exporters/pipeline.ts'
import { runtimeFetch } from '../../src/lib/fetch.ts'
import { type Answerer, eventually, openExporters, openServer, QUICK, type Received, snapshotOf } from './harness.ts'
import { failover, report } from './reports.ts'

const collector = (url: string, more: Record<string, unknown> = {}) => ({
  name: 'collector',
  kind: 'otlp_http',
  endpoint: `${url}/v1/traces`,
  ...more,
})

const textOf = ({ body }: Received) => new TextDecoder().decode(body)
/** Ids of the requests whose spans a delivery holds, in their order. */
const requestsOf = (received: Received): string[] =>
  [...textOf(received).matchAll(/"kind":2,.*?"aisix\.request_id","value":\{"stringValue":"([^"]*)"/g)].map(
    match => match[1] ?? '',
  )
const numbered = (count: number) => Array.from({ length: count }, (_, index) => report({ requestId: `request-${index}` }))

describe('deliveries', () => {
  test('a request arrives in a collector with the headers of the exporter and the name of the gateway', async () => {
    await using server = openServer()
    const { exporters, lines } = openExporters({ serviceName: 'gateway-a' })
    exporters.sync(snapshotOf(collector(server.url, { headers: { Authorization: 'Bearer collector-secret', 'X-Tenant': 't' } })))
    exporters.offer(report())
    await server.until(1)
    const [received] = server.received
    expect(received).toMatchObject({ method: 'POST', path: '/v1/traces' })
    expect(received?.headers).toMatchObject({
      'content-type': 'application/json',
      authorization: 'Bearer collector-secret',
      'x-tenant': 't',
    })
    expect(received && textOf(received)).toContain('"service.name","value":{"stringValue":"gateway-a"}')
    await exporters.close(1_000)
    expect(exporters.status()).toEqual([])
    expect(lines).toEqual([])
  })

  test('100 records go at once, without the wait of fewer', async () => {
    await using server = openServer()
    const { exporters } = openExporters({ pace: { ...QUICK, batch: 3_600_000 } })
    exporters.sync(snapshotOf(collector(server.url)))
    for (const each of numbered(BATCH_RECORDS)) exporters.offer(each)
    await server.until(1)
    expect(server.received.map(each => requestsOf(each).length)).toEqual([BATCH_RECORDS])
    await exporters.close(1_000)
  })

  test('all attempts of a request go together', async () => {
    await using server = openServer()
    const { exporters } = openExporters({ pace: { ...QUICK, batch: 3_600_000 } })
    exporters.sync(snapshotOf(collector(server.url)))
    for (const each of numbered(BATCH_RECORDS - 1)) exporters.offer(each)
    exporters.offer(failover({ requestId: 'two-attempts' }))
    await server.until(1)
    expect(server.received.map(each => requestsOf(each).length)).toEqual([BATCH_RECORDS - 1])
    await exporters.close(1_000)
    const spans = server.received
      .map(textOf)
      .join('')
      .match(/"two-attempts"/g)
    expect(spans?.length).toBe(4)
    expect(server.received.slice(1).map(requestsOf)).toEqual([['two-attempts']])
  })

  test('each of several exporters gets its own part', async () => {
    await using server = openServer()
    const { exporters } = openExporters()
    exporters.sync(snapshotOf(collector(server.url, { name: 'a' }), collector(server.url, { name: 'b', content_mode: 'full' })))
    exporters.offer(report({ content: { prompt: 'private prompt', response: 'r', isTruncated: false } }))
    await exporters.close(1_000)
    const texts = server.received.map(textOf)
    expect(texts.length).toBe(2)
    expect(texts.filter(text => text.includes('private prompt')).map(text => text.includes('"stringValue":"b"'))).toEqual([true])
  })

  test('a proxy of the environment is not used', async () => {
    await using server = openServer()
    await using proxy = openServer()
    process.env.http_proxy = proxy.url
    try {
      const { exporters } = openExporters()
      exporters.sync(snapshotOf(collector(server.url)))
      exporters.offer(report())
      await exporters.close(1_000)
    } finally {
      delete process.env.http_proxy
    }
    expect([server.received.length, proxy.received.length]).toEqual([1, 0])
  })

  test('the proxy of the configuration is', async () => {
    await using proxy = openServer()
    const { exporters } = openExporters({ proxy: proxy.url })
    exporters.sync(snapshotOf(collector('http://collector.invalid:4318')))
    exporters.offer(report())
    await exporters.close(1_000)
    expect(proxy.received.length).toBe(1)
  })
})

describe('what is tried again', () => {
  const again: [string, Answerer][] = [
    ['500', () => new Response('oops', { status: 500 })],
    ['503', () => new Response(null, { status: 503 })],
    ['408', () => new Response(null, { status: 408 })],
    ['429', () => new Response(null, { status: 429, headers: { 'retry-after': '0' } })],
  ]
  test.each(again)('%s, with the same bytes, until it goes well', async (_name, failing) => {
    await using server = openServer((each, count) => (count < 3 ? failing(each, count) : Response.json({})))
    const { exporters, drops, failures, lines } = openExporters()
    exporters.sync(snapshotOf(collector(server.url)))
    for (const each of numbered(3)) exporters.offer(each)
    await server.until(3)
    await exporters.close(1_000)
    const [first, ...others] = server.received.map(textOf)
    expect(first).toContain('request-2')
    for (const other of others) expect(other).toBe(first ?? '')
    expect([failures('collector'), drops('collector', 'delivery_failed')]).toEqual([2, 0])
    expect(lines.filter(line => line.includes(' WARN '))).toEqual([])
  })

  test('five tries in all, then the batch is dropped and counted, and one line tells it', async () => {
    await using server = openServer(() => new Response('collector-says', { status: 503 }))
    const { exporters, drops, failures, lines } = openExporters()
    exporters.sync(snapshotOf(collector(`${server.url}`, { headers: { a: 'collector-secret' } })))
    for (const [index, each] of numbered(3).entries()) {
      exporters.offer(each)
      await eventually(() => drops('collector', 'delivery_failed') === index + 1)
    }
    expect(server.received.length).toBe(15)
    expect(failures('collector')).toBe(15)
    expect(exporters.status()).toMatchObject([
      { id: 'exporter-1', kind: 'otlp_http', queued: 0, delivered: 0, dropped: 3, failed: 15, problem: 'the answer was 503' },
    ])
    const warnings = lines.filter(line => line.includes(' WARN '))
    expect(warnings.length).toBe(1)
    expect(warnings[0]).toContain('an exporter fails')
    expect(warnings[0]).toContain(`address="${server.url}/v1/traces"`)
    expect(lines.join('\n')).not.toMatch(/collector-secret|collector-says|llama-3/)
    await exporters.close(1_000)
  })

  test('a collector that comes back is told once, and its state is good again', async () => {
    let isDown = true
    await using server = openServer(() => (isDown ? new Response(null, { status: 500 }) : Response.json({})))
    const { exporters, drops, lines } = openExporters()
    exporters.sync(snapshotOf(collector(server.url)))
    exporters.offer(report())
    await eventually(() => drops('collector', 'delivery_failed') === 1)
    isDown = false
    for (const each of numbered(2)) {
      const { delivered = 0 } = exporters.status()[0] ?? {}
      exporters.offer(each)
      await eventually(() => exporters.status()[0]?.delivered === delivered + 1)
    }
    expect(exporters.status()[0]).toMatchObject({ delivered: 2, dropped: 1, problem: undefined })
    expect(lines.filter(line => line.includes(' INFO ') && line.includes('delivers again')).length).toBe(1)
    await exporters.close(1_000)
  })

  test('Retry-After is followed, up to the longest wait', async () => {
    await using server = openServer((_each, count) =>
      count === 1 ? new Response(null, { status: 429, headers: { 'retry-after': '99999' } }) : Response.json({}),
    )
    const { exporters, lines } = openExporters()
    exporters.sync(snapshotOf(collector(server.url)))
    exporters.offer(report())
    await server.until(2)
    await exporters.close(1_000)
    expect(lines.filter(line => line.includes(`wait_ms=${QUICK.retryMax}`)).length).toBe(1)
  })

  test('a collector that is not there', async () => {
    const { url } = await closedServer()
    const { exporters, drops, failures } = openExporters()
    exporters.sync(snapshotOf(collector(url)))
    exporters.offer(report())
    await eventually(() => drops('collector', 'delivery_failed') === 1)
    expect(failures('collector')).toBe(5)
    expect(exporters.status()[0]?.problem).toBe('connection refused')
    await exporters.close(1_000)
  })

  test('a collector that hangs: each try ends at its deadline', async () => {
    await using raw = await rawServer(() => {})
    const { exporters, drops, failures } = openExporters({ pace: { ...QUICK, timeout: 30 } })
    exporters.sync(snapshotOf(collector(raw.url)))
    exporters.offer(report())
    await eventually(() => drops('collector', 'delivery_failed') === 1)
    expect(failures('collector')).toBe(5)
    expect(exporters.status()[0]?.problem).toBe('no answer in time')
    await exporters.close(1_000)
  })

  const broken: [string, (socket: Socket) => void][] = [
    ['closes before it answers', socket => socket.end()],
    ['answers no HTTP', socket => socket.end('220 smtp ready\r\n')],
  ]
  test.each(broken)('a collector that %s', async (_name, answer) => {
    await using raw = await rawServer(answer)
    const { exporters, drops } = openExporters()
    exporters.sync(snapshotOf(collector(raw.url)))
    exporters.offer(report())
    await eventually(() => drops('collector', 'delivery_failed') === 1)
    expect(exporters.status()[0]?.problem).toBeString()
    await exporters.close(1_000)
  })
})

describe('what is not tried again', () => {
  const final: [number, string][] = [
    [400, 'the answer was 400: the collector does not take OTLP in JSON here; check endpoint'],
    [401, 'the answer was 401: check headers'],
    [404, 'the answer was 404: check endpoint, whose path is /v1/traces in most collectors'],
    [413, 'the answer was 413: the collector takes no bodies of this size; lower content_max_bytes'],
    [302, 'the answer was 302: redirects are not followed; check endpoint'],
  ]
  test.each(final)('%d drops the batch', async (status, problem) => {
    await using elsewhere = openServer()
    await using server = openServer(() => new Response('no', { status, headers: { location: elsewhere.url } }))
    const { exporters, drops, failures } = openExporters()
    exporters.sync(snapshotOf(collector(server.url)))
    for (const each of numbered(2)) exporters.offer(each)
    await eventually(() => drops('collector', 'delivery_failed') === 2)
    expect(failures('collector')).toBe(1)
    expect(exporters.status()[0]?.problem).toBe(problem)
    expect([server.received.length, elsewhere.received.length]).toEqual([1, 0])
    await exporters.close(1_000)
  })
})

describe('answers of a 2xx', () => {
  const rejecting =
    (rejectedSpans: unknown): Answerer =>
    () =>
      Response.json({ partialSuccess: { rejectedSpans, errorMessage: 'e' } })
  const partial: [string, unknown, number][] = [
    ['a string, as JSON has 64-bit integers', '2', 2],
    ['a number', 2, 2],
    ['more than there were', '1000000', 3],
    ['nothing', '0', 0],
    ['less than nothing', -5, 0],
    ['no number', 'many', 0],
    ['an object', {}, 0],
  ]
  test.each(partial)('rejected spans are counted as drops: %s', async (_name, rejectedSpans, expected) => {
    await using server = openServer(rejecting(rejectedSpans))
    const { exporters, drops, failures } = openExporters()
    exporters.sync(snapshotOf(collector(server.url)))
    for (const each of numbered(3)) exporters.offer(each)
    await eventually(() => exporters.status().some(({ delivered, dropped }) => delivered + dropped === 3))
    expect(exporters.status()[0]?.dropped).toBe(expected)
    expect([drops('collector', 'rejected'), failures('collector')]).toEqual([expected, 0])
    await exporters.close(1_000)
  })

  const endless = () =>
    new Response(
      new ReadableStream({
        pull: controller => controller.enqueue(new Uint8Array(65_536).fill(0x20)),
      }),
    )
  const nonsense: [string, Answerer][] = [
    ['HTML', () => new Response('<html><body>Login</body></html>', { headers: { 'content-type': 'text/html' } })],
    ['no body', () => new Response(null, { status: 204 })],
    ['JSON of another shape', () => Response.json([1, null, { partialSuccess: 'x' }])],
    ['null', () => Response.json(null)],
    ['deep JSON', () => new Response('['.repeat(60_000))],
    ['a body that never ends', endless],
    ['bytes that are said to be compressed', () => new Response('x', { headers: { 'content-encoding': 'gzip' } })],
  ]
  test.each(nonsense)('%s is harmless: the status said that all was taken', async (_name, answer) => {
    await using server = openServer(answer)
    const { exporters, drops, failures } = openExporters()
    exporters.sync(snapshotOf(collector(server.url)))
    exporters.offer(report())
    await eventually(() => exporters.status()[0]?.delivered === 1)
    expect([drops('collector', 'rejected'), drops('collector', 'delivery_failed'), failures('collector')]).toEqual([0, 0, 0])
    await exporters.close(1_000)
  })

  test('a body that stops half-way is waited for no longer than the deadline, and the delivery has gone well', async () => {
    await using raw = await rawServer(socket => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{'))
    const { exporters } = openExporters({ pace: { ...QUICK, timeout: 50 } })
    exporters.sync(snapshotOf(collector(raw.url)))
    exporters.offer(report())
    await eventually(() => exporters.status()[0]?.delivered === 1)
    await exporters.close(1_000)
  })
})

describe('memory is bounded', () => {
  test('records beyond 1,024 that wait are dropped, counted and told once', async () => {
    await using raw = await rawServer(() => {})
    const { exporters, drops, lines } = openExporters()
    exporters.sync(snapshotOf(collector(raw.url)))
    for (const each of numbered(2_000)) exporters.offer(each)
    // Four batches are on their way.
    const held = RECORDS_MAX + 4 * BATCH_RECORDS
    expect(exporters.status()[0]).toMatchObject({ queued: RECORDS_MAX, dropped: 2_000 - held })
    expect(drops('collector', 'queue_full')).toBe(2_000 - held)
    expect(lines.filter(line => line.includes('more come than')).length).toBe(1)
    await exporters.close(1)
    expect(drops('collector', 'stopped')).toBe(held)
  })

  test('records with content are bounded by their bytes', async () => {
    await using raw = await rawServer(() => {})
    const { exporters, drops } = openExporters()
    exporters.sync(snapshotOf(collector(raw.url, { content_mode: 'full', content_max_bytes: 1_048_576 })))
    const content = { prompt: 'p'.repeat(1_000_000), response: 'r'.repeat(1_000_000), isTruncated: false }
    for (const each of numbered(30)) exporters.offer({ ...each, content })
    // 32 MiB hold 16 requests of 2 MB.
    expect(drops('collector', 'queue_full')).toBe(14)
    await exporters.close(1)
  })

  test('what was delivered makes room again', async () => {
    await using server = openServer()
    const { exporters, drops } = openExporters()
    exporters.sync(snapshotOf(collector(server.url)))
    for (let round = 0; round < 5; round += 1) {
      for (const each of numbered(1_000)) exporters.offer(each)
      await eventually(() => exporters.status()[0]?.delivered === 1_000 * (round + 1))
    }
    expect(drops('collector', 'queue_full')).toBe(0)
    await exporters.close(1_000)
  })
})

describe('what is delivered', () => {
  test('nothing while no exporter is enabled', () => {
    const { exporters } = openExporters()
    expect([exporters.isActive, exporters.wants('r'), exporters.contentBytesMax('r')]).toEqual([false, false, 0])
    exporters.sync(snapshotOf(collector('http://127.0.0.1:1', { enabled: false, content_mode: 'full' })))
    expect([exporters.isActive, exporters.wants('r'), exporters.contentBytesMax('r')]).toEqual([false, false, 0])
    expect(exporters.status()).toEqual([])
    exporters.offer(report())
  })

  test('content is wanted by exporters that take it, of requests that they sample', async () => {
    const { exporters } = openExporters()
    const full = (content_max_bytes: number, more: Record<string, unknown> = {}) =>
      collector('http://127.0.0.1:1', { name: `e${content_max_bytes}`, content_mode: 'full', content_max_bytes, ...more })
    exporters.sync(snapshotOf(full(10), full(20), full(30, { sample_rate: 0 }), collector('http://127.0.0.1:1')))
    expect(exporters.contentBytesMax('r')).toBe(20)
    await exporters.close(1)
  })

  const part = async (sample_rate: number) => {
    const { exporters } = openExporters()
    exporters.sync(snapshotOf(collector('http://127.0.0.1:1', { sample_rate })))
    const wanted = Array.from({ length: 20_000 }, (_, index) => `request-${index}`).filter(id => exporters.wants(id))
    await exporters.close(1)
    return wanted
  }

  test('about the part that sample_rate says, the same requests each time', async () => {
    const wanted = await part(0.05)
    expect(wanted.length).toBeGreaterThan(800)
    expect(wanted.length).toBeLessThan(1_200)
    expect(await part(0.05)).toEqual(wanted)
    expect(new Set(await part(0.1)).isSupersetOf(new Set(wanted))).toBe(true)
    expect((await part(1)).length).toBe(20_000)
  })

  test('nothing at a rate of 0, also where the caller marks its trace as sampled', async () => {
    await using server = openServer()
    const { exporters, drops } = openExporters()
    exporters.sync(snapshotOf(collector(server.url, { sample_rate: 0 })))
    const parent = { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331', isSampled: true }
    for (const each of numbered(500)) exporters.offer({ ...each, parent })
    expect(exporters.status()).toMatchObject([{ queued: 0, dropped: 0 }])
    await exporters.close(1_000)
    expect([server.received.length, drops('collector', 'stopped')]).toEqual([0, 0])
  })
})

describe('changes of the resources', () => {
  test('an unchanged exporter goes on, a changed one delivers what it held and starts anew with its counts', async () => {
    await using first = openServer()
    await using second = openServer()
    const { exporters } = openExporters({ pace: { ...QUICK, batch: 3_600_000 } })
    const before = snapshotOf(collector(first.url))
    exporters.sync(before)
    exporters.offer(report({ requestId: 'before' }))
    exporters.sync({ ...before })
    expect(exporters.status()).toMatchObject([{ queued: 1 }])
    exporters.sync(snapshotOf(collector(second.url)))
    exporters.offer(report({ requestId: 'after' }))
    await first.until(1)
    expect(first.received.flatMap(requestsOf)).toEqual(['before'])
    await eventually(() => exporters.status()[0]?.delivered === 1)
    await exporters.close(1_000)
    expect(second.received.flatMap(requestsOf)).toEqual(['after'])
  })

  test('one whose revision alone is another goes on with what it holds', async () => {
    await using server = openServer()
    const { exporters } = openExporters({ pace: { ...QUICK, batch: 3_600_000 } })
    const before = snapshotOf(collector(server.url))
    exporters.sync(before)
    exporters.offer(report())
    const entries = before.entries.observability_exporters
      .entries()
      .map(([id, entry]) => [id, { ...entry, revision: 2 }] as const)
    exporters.sync({ ...before, entries: { ...before.entries, observability_exporters: new Map(entries) } })
    expect(exporters.status()).toMatchObject([{ queued: 1 }])
    await exporters.close(1_000)
    expect(server.received).toHaveLength(1)
  })

  test('a deleted one delivers what it held, then nothing', async () => {
    await using server = openServer()
    const { exporters } = openExporters({ pace: { ...QUICK, batch: 3_600_000 } })
    exporters.sync(snapshotOf(collector(server.url)))
    exporters.offer(report({ requestId: 'before' }))
    exporters.sync(snapshotOf())
    expect(exporters.isActive).toBe(false)
    exporters.offer(report({ requestId: 'after' }))
    await exporters.close(1_000)
    expect(server.received.flatMap(requestsOf)).toEqual(['before'])
  })

  test('the end waits for what is queued', async () => {
    await using server = openServer()
    const { exporters } = openExporters({ pace: { ...QUICK, batch: 3_600_000 } })
    exporters.sync(snapshotOf(collector(server.url)))
    for (const each of numbered(250)) exporters.offer(each)
    await exporters.close(5_000)
    expect(server.received.flatMap(requestsOf).length).toBe(250)
  })

  test('the end waits no longer than it may, for hanging collectors of changed exporters too; drops are counted and told', async () => {
    await using raw = await rawServer(() => {})
    const { exporters, drops, lines } = openExporters({ pace: { ...QUICK, timeout: 3_600_000 } })
    exporters.sync(snapshotOf(collector(raw.url, { name: 'old' })))
    for (const each of numbered(150)) exporters.offer(each)
    exporters.sync(snapshotOf(collector(raw.url, { name: 'new' })))
    for (const each of numbered(20)) exporters.offer(each)
    await exporters.close(10)
    expect([drops('old', 'stopped'), drops('new', 'stopped')]).toEqual([150, 20])
    expect(lines.filter(line => line.includes('stopped before they were delivered')).length).toBe(2)
    exporters.offer(report())
  })

  test('the end interrupts a wait for the next try', async () => {
    await using server = openServer(() => new Response(null, { status: 500 }))
    const { exporters, drops } = openExporters({ pace: { ...QUICK, retry: 3_600_000, retryMax: 3_600_000 } })
    exporters.sync(snapshotOf(collector(server.url)))
    exporters.offer(report())
    await server.until(1)
    await exporters.close(10)
    expect(drops('collector', 'stopped')).toBe(1)
  })
})

describe('mistakes of ours', () => {
  test('never reach whoever offers a request, and cost a batch', async () => {
    const { exporters, drops, lines } = openExporters({
      fetch: () => {
        throw new Error('a fetch that throws at once')
      },
    })
    exporters.sync(snapshotOf(collector('http://127.0.0.1:1')))
    exporters.offer(report())
    await eventually(() => drops('collector', 'delivery_failed') === 1)
    // A report that no code of ours makes.
    exporters.offer({ ...report(), records: [] })
    expect(lines.join('\n')).not.toContain('ERROR')
    await exporters.close(1_000)
  })

  test('a fetch that takes no notice of its signal does not hold up the end', async () => {
    const { exporters, drops } = openExporters({ fetch: () => new Promise(() => {}) })
    exporters.sync(snapshotOf(collector('http://127.0.0.1:1')))
    exporters.offer(report())
    await eventually(() => exporters.status()[0]?.queued === 0)
    await exporters.close(10)
    expect(drops('collector', 'stopped')).toBe(1)
  })

  test('redirects, compression, proxies and time limits of the runtime are all ruled out', async () => {
    const seen: unknown[] = []
    const { exporters } = openExporters({
      fetch: (url, init) => {
        seen.push({ ...init, body: '', headers: {} })
        return runtimeFetch(url, init)
      },
    })
    await using server = openServer()
    exporters.sync(snapshotOf(collector(server.url)))
    exporters.offer(report())
    await exporters.close(1_000)
    expect(seen).toMatchObject([{ redirect: 'manual', proxy: false, timeout: false, verbose: false, decompress: false }])
  })
})

/** An address where nothing listens. */
async function closedServer(): Promise<{ url: string }> {
  const raw = await rawServer(() => {})
  await raw[Symbol.asyncDispose]()
  return raw
}

/** A server that does what it likes with whoever connects and sends something. */
async function rawServer(onRequest: (socket: Socket) => void) {
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    sockets.add(socket)
    socket.once('data', () => onRequest(socket))
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('expected a port')
  return {
    url: `http://127.0.0.1:${address.port}`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise<void>(resolve => server.close(() => resolve()))
    },
  }
}
