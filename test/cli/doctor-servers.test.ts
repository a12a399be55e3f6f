/** What the doctor says of servers behind TLS, behind a proxy, and with odd answers. */
import { afterEach, describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { checkServers, type ServerOptions } from '../../src/cli/doctor/servers.ts'
import { runtimeFetch } from '../../src/lib/fetch.ts'
import { ProviderKey } from '../../src/resources/provider-key.ts'
import { openMemoryStore } from '../../src/store/memory.ts'
import { ACTOR } from '../gateway.ts'

const fixture = (name: string) => readFileSync(join(import.meta.dir, '../fixtures/tls', name), 'utf8')
const NO_TLS = { ca: [], cert: undefined, key: undefined, verify: true }
const NOW = Date.parse('2027-01-01')

const servers: { stop(closeNow: boolean): unknown }[] = []
afterEach(() => {
  for (const server of servers.splice(0)) server.stop(true)
})

function serve(
  answer: (request: Request) => Response,
  tls?: { cert: string; key: string; ca?: string; requestCert?: boolean; rejectUnauthorized?: boolean },
) {
  const server = Bun.serve({ hostname: '0.0.0.0', port: 0, fetch: answer, ...(tls ? { tls } : {}) })
  servers.push(server)
  return server
}
const models = () => Response.json({ data: [{ id: 'm', owned_by: 'someone' }] })

async function check(members: Record<string, unknown>, options: Partial<ServerOptions> = {}): Promise<string[]> {
  const store = openMemoryStore()
  await store.create(
    'provider_keys',
    ProviderKey.parse({ display_name: 'key', provider: 'private', adapter: 'openai', secret: 's3cret-value', ...members }),
    ACTOR,
  )
  const findings = await checkServers({
    snapshot: store.snapshot,
    tls: NO_TLS,
    proxy: undefined,
    fetch: runtimeFetch,
    nowMs: NOW,
    mayProbe: false,
    ...options,
  })
  for (const { message, advice = '' } of findings) expect(message + advice).not.toContain('s3cret-value')
  return findings.map(({ severity, message }) => `${severity} ${message}`)
}

describe('behind TLS', () => {
  const trusted = { ca_cert: fixture('server.crt') }
  const start = (cert = 'server.crt') => serve(models, { cert: fixture(cert), key: fixture('server.key') })

  test('a certificate that is trusted and for the name is sound', async () => {
    const said = await check({ api_base: `https://localhost:${start().port}/v1`, tls: trusted })
    expect(said.filter(text => text.startsWith('error'))).toEqual([])
    expect(said.find(text => text.startsWith('ok'))).toContain('its certificate is valid until 21')
  })

  test('one for another name, or that nobody vouches for, is told, and the server is sent nothing', async () => {
    let asked = 0
    const server = serve(
      () => {
        asked += 1
        return models()
      },
      { cert: fixture('server.crt'), key: fixture('server.key') },
    )
    expect(await check({ api_base: `https://127.0.0.2:${server.port}/v1`, tls: trusted })).toEqual([
      'error its certificate is not for 127.0.0.2',
    ])
    expect(await check({ api_base: `https://localhost:${server.port}/v1` })).toEqual([
      expect.stringMatching(/^error its certificate is not trusted \(\w+\)$/),
    ])
    expect(asked).toBe(0)
  })

  test('one that has expired', async () => {
    const said = await check({
      api_base: `https://localhost:${start('expired.crt').port}/v1`,
      tls: { ca_cert: fixture('expired.crt') },
    })
    expect(said[0]).toStartWith('error its certificate expired on 2021-')
  })

  test('where certificates are not checked, the same are warnings', async () => {
    const said = await check({ api_base: `https://127.0.0.2:${start().port}/v1`, tls: { verify: false } })
    expect(said.filter(text => text.startsWith('error'))).toEqual([])
    expect(said).toContain('warning its certificate is not for 127.0.0.2')
  })

  test('the client certificate of the configuration is shown', async () => {
    const server = serve(models, {
      cert: fixture('server.crt'),
      key: fixture('server.key'),
      ca: fixture('server.crt'),
      requestCert: true,
      rejectUnauthorized: true,
    })
    const base = { api_base: `https://localhost:${server.port}/v1`, tls: trusted }
    const without = await check(base)
    expect(without.some(text => text.startsWith('error'))).toBe(true)
    const tls = { ca: [], cert: fixture('server.crt'), key: fixture('server.key'), verify: true }
    expect((await check(base, { tls })).filter(text => text.startsWith('error'))).toEqual([])
  })

  test('http in front of a server that speaks TLS, and the reverse', async () => {
    for (const [base, server] of [
      ['http', start()],
      ['https', serve(models)],
    ] as const) {
      const said = await check({ api_base: `${base}://localhost:${server.port}/v1` })
      expect(
        said.some(text => text.startsWith('error')),
        said.join('\n'),
      ).toBe(true)
    }
  })
})

test('through a proxy everything goes to the proxy: no name is looked up, nothing is connected to', async () => {
  const seen: string[] = []
  const proxy = serve(request => {
    seen.push(request.url)
    return request.url.endsWith('/models') ? models() : new Response('', { status: 404 })
  })
  const said = await check({ api_base: 'http://engine.invalid:8000/v1' }, { proxy: `http://127.0.0.1:${proxy.port}` })
  expect(said[0]).toBe('ok http://engine.invalid:8000 asked through upstream.proxy')
  expect(seen.length).toBeGreaterThan(1)
})

test.each([
  [
    'a redirect',
    () => new Response(null, { status: 302, headers: { location: 'https://elsewhere.invalid/' } }),
    'error answers with a redirect (302), which is not followed',
  ],
  ['a page', () => new Response('<html>'), 'note has no list of models (200 for GET /models)'],
  ['no such route', () => new Response('', { status: 404 }), 'note has no list of models (404 for GET /models)'],
  ['a refusal', () => new Response('', { status: 403 }), 'error refuses the secret (403 for GET /models)'],
  ['a failure', () => new Response('', { status: 503 }), 'error GET /models was answered 503'],
  ['a list of something else', () => Response.json({ data: [1, null, { id: 2 }] }), 'note no model uses this provider key'],
])('a server that answers with %s', async (_name, answer, wanted) => {
  const said = await check({ api_base: `http://127.0.0.1:${serve(answer).port}/v1` })
  expect(said).toContain(wanted)
})

test('an answer without an end is not read to its end', async () => {
  const cut = Promise.withResolvers<void>()
  const endless = () =>
    new Response(
      new ReadableStream({
        pull: controller => controller.enqueue(new Uint8Array(65_536).fill(32)),
        cancel: () => cut.resolve(),
      }),
    )
  const said = await check({ api_base: `http://127.0.0.1:${serve(endless).port}/v1` }, { hostMs: 10_000 })
  expect(said).toContain('note has no list of models (200 for GET /models)')
  await cut.promise
})

test('a server that a provider key cannot be made for is told before anything is dialled', async () => {
  expect(await check({ api_base: '' })).toEqual([expect.stringContaining('error invalid upstream configuration')])
  expect(await check({ adapter: 'bedrock', api_base: 'http://127.0.0.1:1' })).toEqual(['error no bridge registered for provider'])
})
