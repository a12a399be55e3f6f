import { describe, expect, test } from 'bun:test'
import { createAdminApp } from '../../src/admin/app.ts'
import { systemClock } from '../../src/gateway.ts'
import { InFlight } from '../../src/in-flight.ts'
import { silentLog } from '../../src/lib/log.ts'
import { createModelHealth } from '../../src/model-health.ts'
import { createCatalog } from '../../src/pricing/catalog-file.ts'
import { openMemoryStore } from '../../src/store/memory.ts'
import { VERSION } from '../../src/version.ts'
import { testTelemetry } from '../telemetry.ts'
import { ADMIN_KEY, apiKey, messageOf, openAdmin, providerKey, SECOND_ADMIN_KEY, sha256 } from './harness.ts'
import { memoryLedger } from './memory-ledger.ts'

const UNAUTHORIZED = '{"error_msg":"missing or malformed admin authorization"}'

describe('authentication', () => {
  const accepted: [string, Record<string, string>][] = [
    ['a bearer admin key', { authorization: `Bearer ${ADMIN_KEY}` }],
    ['the second admin key', { authorization: `Bearer ${SECOND_ADMIN_KEY}` }],
    ['a bearer key with blanks around it', { authorization: `Bearer   ${ADMIN_KEY}  ` }],
    ['x-api-key without authorization', { 'x-api-key': ADMIN_KEY }],
  ]
  test.each(accepted)('%s is accepted', async (_name, headers) => {
    expect((await openAdmin().call('GET', '/admin/v1/models', undefined, headers)).status).toBe(200)
  })

  const refused: [string, Record<string, string>][] = [
    ['nothing', {}],
    ['an unknown key', { authorization: 'Bearer sk-other' }],
    ['a lower-case scheme', { authorization: `bearer ${ADMIN_KEY}` }],
    ['the bare key', { authorization: ADMIN_KEY }],
    ['an empty token', { authorization: 'Bearer ' }],
    ['another scheme, with a good x-api-key beside it', { authorization: 'Basic eDp5', 'x-api-key': ADMIN_KEY }],
    ['an empty authorization, with a good x-api-key beside it', { authorization: '', 'x-api-key': ADMIN_KEY }],
    ['an empty x-api-key', { 'x-api-key': '' }],
    ['a prefix of the key', { authorization: `Bearer ${ADMIN_KEY.slice(0, -1)}` }],
    ['the key and more', { authorization: `Bearer ${ADMIN_KEY}x` }],
    ['both keys in one header', { authorization: `Bearer ${ADMIN_KEY}, Bearer ${ADMIN_KEY}` }],
  ]
  test.each(refused)('%s gets the one 401 there is', async (_name, headers) => {
    const answer = await openAdmin().call('GET', '/admin/v1/models', undefined, headers)
    expect(answer.status).toBe(401)
    expect(answer.text).toBe(UNAUTHORIZED)
    expect(answer.headers.get('www-authenticate')).toBeNull()
  })

  test('a caller key is no admin key', async () => {
    const admin = openAdmin()
    expect((await admin.call('POST', '/admin/v1/apikeys', apiKey())).status).toBe(200)
    const answer = await admin.call('GET', '/admin/v1/models', undefined, { authorization: 'Bearer sk-byo-caller' })
    expect(answer.status).toBe(401)
  })

  test('a key beyond ASCII is recognised by the bytes that a client sends for it', async () => {
    const admin = openAdmin({ adminKeys: ['schlüssel'] })
    const server = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: request => admin.fetch(request) })
    try {
      const bytes = Buffer.from('Bearer schlüssel').toString('latin1')
      const response = await fetch(new URL('/admin/v1/models', server.url), { headers: { authorization: bytes } })
      expect(response.status).toBe(200)
    } finally {
      await server.stop(true)
    }
  })

  test('an empty admin key is refused at the start, because an empty credential would match it', () => {
    const options = {
      store: openMemoryStore(),
      log: silentLog,
      clock: systemClock,
      lifecycle: { isDraining: false, inFlight: new InFlight(), startedAtMs: 0 },
      modelHealth: createModelHealth(),
      ledger: memoryLedger(),
      budgets: testTelemetry().budgets,
      registry: testTelemetry().registry,
      exporters: testTelemetry().exporters,
      catalog: createCatalog('/no/such/folder/catalog.json'),
    }
    expect(() => createAdminApp({ ...options, adminKeys: ['good', ' '] })).toThrow('admin.admin_keys[1] must not be empty')
  })

  test('a refusal is logged with its reason class and without the credential', async () => {
    const admin = openAdmin({ addressOf: () => '192.0.2.7' })
    await admin.call('GET', '/admin/v1/models', undefined, { authorization: 'Bearer sk-guessed' })
    expect(admin.lines.join('\n')).toContain('auth rejected reason="unknown" address="192.0.2.7"')
    expect(admin.lines.join('\n')).not.toContain('guessed')
  })

  test('refusals are counted by reason, and guessing does not fill the log', async () => {
    const { registry } = testTelemetry()
    const admin = openAdmin({ registry })
    for (let index = 0; index < 25; index++) {
      await admin.call('GET', '/admin/v1/models', undefined, { authorization: 'Bearer sk-guessed' })
    }
    await admin.call('GET', '/admin/v1/models', undefined, {})
    await admin.call('GET', '/admin/v1/models', undefined, { authorization: 'Basic abc' })
    const told = () => admin.lines.filter(line => line.includes('auth rejected'))
    expect(told()).toHaveLength(20)
    admin.clock.nowMs += 1_000
    await admin.call('GET', '/admin/v1/models', undefined, {})
    expect(told().at(-1)).toContain('not_logged_before=7')
    const page = registry.render()
    expect(page).toContain('aisix_admin_auth_failures_total{reason="unknown"} 25\n')
    expect(page).toContain('aisix_admin_auth_failures_total{reason="missing"} 2\n')
    expect(page).toContain('aisix_admin_auth_failures_total{reason="malformed"} 1\n')
  })

  test('a named key is known by its hash alone', async () => {
    const key_hash = sha256('alice-key')
    const admin = openAdmin({ adminKeys: [], namedKeys: [{ name: 'alice', key_hash, role: 'admin' }] })
    expect((await admin.call('GET', '/admin/v1/models', undefined, { 'x-api-key': 'alice-key' })).status).toBe(200)
    expect((await admin.call('GET', '/admin/v1/models', undefined, { 'x-api-key': key_hash })).status).toBe(401)
    expect(() => openAdmin({ namedKeys: [{ name: 'bob', key_hash: 'short', role: 'viewer' }] })).toThrow('the key_hash of bob')
  })

  test.each(['/livez', '/readyz', '/admin/openapi.json', '/admin/openapi-scalar'])('%s asks for no key', async path => {
    expect((await openAdmin().call('GET', path, undefined, {})).status).toBe(200)
  })
})

describe('routing', () => {
  const unknown = [
    '/',
    '/admin',
    '/admin/v1',
    '/admin/v1/nothing',
    '/admin/v1/models/',
    '/admin/v1/models/a/b',
    '/livez/',
    '/metrics',
    '/status/config',
    '/v1/models',
    '/admin/v1/models/%zz/x',
  ]
  test.each(unknown)('%s is unknown: 404, empty, and no key is asked for', async path => {
    const answer = await openAdmin().call('GET', path, undefined, {})
    expect(answer.status).toBe(404)
    expect(answer.text).toBe('')
  })

  const wrong: [string, string, string][] = [
    ['PUT', '/admin/v1/models', 'GET, HEAD, POST'],
    ['PATCH', '/admin/v1/models/x', 'GET, HEAD, PUT, DELETE'],
    ['POST', '/admin/v1/apikeys/x', 'GET, HEAD, PUT, DELETE'],
    ['GET', '/admin/v1/apikeys/x/rotate', 'POST'],
    ['HEAD', '/admin/v1/api_keys/x/rotate', 'POST'],
    ['DELETE', '/admin/v1/models/status', 'GET, HEAD'],
    ['POST', '/admin/v1/health', 'GET, HEAD'],
    ['POST', '/livez', 'GET, HEAD'],
    ['POST', '/readyz', 'GET, HEAD'],
    ['GET', '/playground/chat/completions', 'POST'],
    ['OPTIONS', '/admin/v1/models', 'GET, HEAD, POST'],
  ]
  test.each(wrong)('%s %s is 405 with Allow, before a key is asked for', async (method, path, allow) => {
    const answer = await openAdmin().call(method, path, undefined, {})
    expect(answer.status).toBe(405)
    expect(answer.headers.get('allow')).toBe(allow)
    expect(answer.text).toBe('')
  })

  test.each(['/admin/v1/models', '/admin/v1/health', '/admin/openapi.json', '/livez'])(
    'HEAD %s is GET without its body',
    async path => {
      const admin = openAdmin()
      const got = await admin.call('GET', path)
      const head = await admin.call('HEAD', path)
      expect(head.status).toBe(200)
      expect(head.text).toBe('')
      expect(head.headers.get('content-type')).toBe(got.headers.get('content-type'))
      expect(head.headers.get('content-length')).toBe(String(Buffer.byteLength(got.text)))
    },
  )

  test('HEAD asks for the same key as GET', async () => {
    expect((await openAdmin().call('HEAD', '/admin/v1/models', undefined, {})).status).toBe(401)
  })

  test('every answer names the product and forbids sniffing, and JSON is not cached', async () => {
    const admin = openAdmin()
    for (const path of ['/livez', '/nothing', '/admin/v1/models', '/admin/openapi-scalar', '/admin/v1/models/x']) {
      const { headers } = await admin.call('GET', path)
      expect(headers.get('server')).toBe(`AISIX/${VERSION}`)
      expect(headers.get('x-content-type-options')).toBe('nosniff')
      if (path.startsWith('/admin/v1')) expect(headers.get('cache-control')).toBe('no-store')
    }
  })

  test('no answer carries CORS headers or cookies', async () => {
    const { headers } = await openAdmin().call('GET', '/admin/v1/models', undefined, {
      authorization: `Bearer ${ADMIN_KEY}`,
      origin: 'http://elsewhere.example',
    })
    expect([...headers.keys()].filter(name => name.startsWith('access-control-') || name === 'set-cookie')).toEqual([])
  })
})

describe('a fault of our own', () => {
  test('gets a plain 500, and its cause stands in the log alone', async () => {
    const store = openMemoryStore()
    const admin = openAdmin({
      store: {
        ...store,
        get snapshot() {
          return store.snapshot
        },
        get status() {
          return store.status
        },
        list: () => {
          throw new Error('cause-of-the-fault')
        },
      },
    })
    const answer = await admin.call('GET', '/admin/v1/models')
    expect(answer.status).toBe(500)
    expect(messageOf(answer)).toBe("internal error; see the gateway's log")
    expect(admin.lines.join('\n')).toContain('cause-of-the-fault')
  })
})

describe('probes', () => {
  test('fail from the signal to stop on, while everything else goes on', async () => {
    const admin = openAdmin()
    admin.lifecycle.isDraining = true
    expect((await admin.call('GET', '/livez')).status).toBe(503)
    expect((await admin.call('GET', '/readyz')).text).toBe('[-]shutdown failed: draining\n[+]config ok\nreadyz check failed\n')
    expect((await admin.call('POST', '/admin/v1/provider_keys', providerKey())).status).toBe(200)
  })
})

describe('playground', () => {
  const question = { model: 'm', messages: [] }

  test('without a proxy answers 501', async () => {
    const answer = await openAdmin().call('POST', '/playground/chat/completions', question, {})
    expect(answer.status).toBe(501)
    expect(messageOf(answer)).toBe('playground not wired: proxy router not configured')
  })

  test('hands the request to the proxy as it came and returns its answer untouched', async () => {
    const seen: { url: string; key: string | null; body: string; address: string | undefined }[] = []
    const admin = createAdminApp({
      store: openMemoryStore(),
      adminKeys: [ADMIN_KEY],
      log: silentLog,
      clock: systemClock,
      lifecycle: { isDraining: false, inFlight: new InFlight(), startedAtMs: 0 },
      modelHealth: createModelHealth(),
      ledger: memoryLedger(),
      budgets: testTelemetry().budgets,
      registry: testTelemetry().registry,
      exporters: testTelemetry().exporters,
      catalog: createCatalog('/no/such/folder/catalog.json'),
      playground: async (request, server) => {
        seen.push({
          url: new URL(request.url).pathname,
          key: request.headers.get('authorization'),
          body: await request.text(),
          address: server.requestIP(request)?.address,
        })
        return new Response('refused by the proxy', { status: 401, headers: { server: 'proxy', 'x-aisix-request-id': 'r1' } })
      },
    })
    const request = new Request('http://127.0.0.1/playground/chat/completions', {
      method: 'POST',
      headers: { authorization: `Bearer ${ADMIN_KEY}` },
      body: '{"model":"m" }',
    })
    const response = await admin.fetch(request, { requestIP: each => (each === request ? { address: '192.0.2.9' } : null) })
    expect(seen).toEqual([
      { url: '/v1/chat/completions', key: `Bearer ${ADMIN_KEY}`, body: '{"model":"m" }', address: '192.0.2.9' },
    ])
    expect(response.status).toBe(401)
    expect(Object.fromEntries(response.headers)).toMatchObject({ server: 'proxy', 'x-aisix-request-id': 'r1' })
    expect(response.headers.has('x-content-type-options')).toBe(false)
    expect(await response.text()).toBe('refused by the proxy')
  })

  test('a stream arrives chunk by chunk, and the proxy hears when the caller leaves', async () => {
    const more = Promise.withResolvers<void>()
    const left = Promise.withResolvers<void>()
    const admin = openAdmin({
      playground: request => {
        request.signal.addEventListener('abort', () => left.resolve())
        return new Response(
          new ReadableStream({
            async start(controller) {
              controller.enqueue(new TextEncoder().encode('data: 1\n\n'))
              await more.promise
              controller.enqueue(new TextEncoder().encode('data: 2\n\n'))
            },
          }),
          { headers: { 'content-type': 'text/event-stream' } },
        )
      },
    })
    const server = Bun.serve({ hostname: '127.0.0.1', port: 0, idleTimeout: 0, fetch: request => admin.fetch(request) })
    try {
      const caller = new AbortController()
      const url = new URL('/playground/chat/completions', server.url)
      const response = await fetch(url, { method: 'POST', body: '{}', signal: caller.signal })
      const reader = response.body?.getReader()
      if (!reader) throw new Error('expected a stream')
      // The second event is sent only after the first has been read here.
      expect(new TextDecoder().decode((await reader.read()).value)).toBe('data: 1\n\n')
      more.resolve()
      expect(new TextDecoder().decode((await reader.read()).value)).toBe('data: 2\n\n')
      caller.abort()
      await left.promise
    } finally {
      await server.stop(true)
    }
  })
})
