import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { systemClock } from '../../src/gateway.ts'
import { createModelHealth } from '../../src/model-health.ts'
import { createStatusApp } from '../../src/status/app.ts'
import { frontDoor, peerAddress } from '../../src/status/front-door.ts'
import { openMemoryStore } from '../../src/store/memory.ts'
import { VERSION } from '../../src/version.ts'
import { captureLog, openAdmin } from '../admin/harness.ts'

const lines: string[] = []
const servers: ReturnType<typeof Bun.serve>[] = []

beforeAll(() => {
  const admin = openAdmin()
  const status = createStatusApp({
    store: openMemoryStore(),
    log: captureLog(lines),
    clock: systemClock,
    modelHealth: createModelHealth(),
    metricsPath: '/livez',
  })
  for (const app of [admin, status]) {
    servers.push(Bun.serve({ hostname: '127.0.0.1', port: 0, development: false, fetch: request => app.fetch(request) }))
  }
})
afterAll(() => Promise.all(servers.map(server => server.stop(true))))

/** Sends bytes as they stand and returns the head of what comes back. */
async function head(listener: number, request: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  let received = ''
  const socket = await Bun.connect({
    hostname: '127.0.0.1',
    port: Number(servers[listener]?.url.port),
    socket: {
      data(_socket, bytes) {
        received += bytes.toString()
        if (received.includes('\r\n\r\n')) resolve(received)
      },
      close: () => resolve(received),
    },
  })
  socket.write(request)
  const answer = await promise
  socket.end()
  return answer
}

describe.each([
  [0, 'admin'],
  [1, 'status'],
])('listener %i (%s)', listener => {
  const cases: [string, string, number][] = [
    ['HTTP/1.0 without Host, as probes of load balancers send it', 'GET /livez HTTP/1.0\r\n\r\n', 200],
    ['an absolute target', 'GET http://other.example/livez HTTP/1.1\r\nHost: a\r\n\r\n', 200],
    ['HTTP/1.1 without Host', 'GET /livez HTTP/1.1\r\n\r\n', 400],
    ['two Host headers', 'GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n', 400],
    ['an empty Host', 'GET /livez HTTP/1.1\r\nHost:\r\n\r\n', 400],
    ['a Host with a path', 'GET /livez HTTP/1.1\r\nHost: a/b\r\n\r\n', 400],
    ['a Host with user info', 'GET /livez HTTP/1.1\r\nHost: u@a\r\n\r\n', 400],
    ['a Host with blanks', 'GET /livez HTTP/1.1\r\nHost: a b\r\n\r\n', 400],
    ['CONNECT', 'CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n', 405],
    ['TRACE', 'TRACE /livez HTTP/1.1\r\nHost: a\r\n\r\n', 405],
    ['a malformed percent sign', 'GET /liv%zz HTTP/1.1\r\nHost: a\r\n\r\n', 404],
    ['a path with two slashes', 'GET //livez HTTP/1.1\r\nHost: a\r\n\r\n', 404],
    ['a path that is no path, HTTP/1.0', 'GET //evil.example/livez HTTP/1.0\r\n\r\n', 400],
  ]
  test.each(cases)('%s: no page, no crash', async (name, request, status) => {
    const answer = await head(listener, request)
    expect(answer).toStartWith(`HTTP/1.1 ${status} `)
    expect(answer.toLowerCase()).not.toContain('text/html')
    // The runtime's own parser refuses this one, without headers of ours.
    if (name !== 'HTTP/1.1 without Host') expect(answer).toContain(`server: AISIX/${VERSION}`)
  })
})

describe('frontDoor', () => {
  test('lets a request with an absolute URL through as it is', () => {
    const request = new Request('http://127.0.0.1:3001/livez?verbose')
    expect(frontDoor(request)).toBe(request)
  })
})

describe('peerAddress', () => {
  const request = new Request('http://a/')
  test.each([
    ['192.0.2.7', '192.0.2.7'],
    ['::ffff:192.0.2.7', '192.0.2.7'],
    ['::FFFF:192.0.2.7', '192.0.2.7'],
    ['2001:db8::1', '2001:db8::1'],
  ])('%s is %s', (address, expected) => {
    expect(peerAddress(request, { requestIP: () => ({ address }) })).toBe(expected)
  })

  test('is empty where there is no connection', () => {
    expect(peerAddress(request, undefined)).toBe('')
    expect(peerAddress(request, { requestIP: () => null })).toBe('')
  })
})
