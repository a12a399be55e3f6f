/** Variables that the runtime obeys and a gateway must not: the executable behaves as without them. */
import { afterEach, beforeEach, expect, test } from 'bun:test'
import { join } from 'node:path'
import { ADMIN_KEY, type Executable, startExecutable } from './executable.ts'
import { type FakeUpstream, fakeUpstream } from './fake-upstream.ts'
import { waveOfOneSecond } from './wave.ts'

const CALLER_KEY = 'sk-environment-caller'
const ALIAS = 'environment-model'
const TLS = join(import.meta.dir, 'fixtures/tls')

let stops: (() => unknown)[]
beforeEach(() => {
  stops = []
})
afterEach(async () => {
  for (const stop of stops.reverse()) await stop()
})

async function startUpstream(tls?: { cert: string; key: string }): Promise<FakeUpstream> {
  const upstream = await fakeUpstream(tls ? { tls } : {})
  stops.push(upstream.stop)
  return upstream
}

async function start(env: Record<string, string>, upstream: FakeUpstream): Promise<Executable> {
  const gateway = await startExecutable({ env })
  stops.push(gateway.dispose)
  const write = async (path: string, document: unknown) => {
    const response = await fetch(`${gateway.adminUrl}/admin/v1/${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' },
      body: JSON.stringify(document),
    })
    expect(response.status).toBe(200)
    const body: unknown = await response.json()
    return typeof body === 'object' && body !== null && 'id' in body ? body.id : undefined
  }
  const provider_key_id = await write('provider_keys', {
    display_name: 'private',
    provider: 'vllm',
    adapter: 'openai',
    secret: 'upstream-secret-in-the-environment-test',
    api_base: upstream.url,
  })
  await write('models', { display_name: ALIAS, provider: 'vllm', model_name: 'm', provider_key_id, retries: 0 })
  await write('apikeys', { key_hash: new Bun.CryptoHasher('sha256').update(CALLER_KEY).digest('hex'), allowed_models: ['*'] })
  return gateway
}

async function chat(gateway: Executable) {
  const response = await fetch(`${gateway.proxyUrl}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${CALLER_KEY}`, 'content-type': 'application/json' },
    body: JSON.stringify({ model: ALIAS, messages: [{ role: 'user', content: 'a-prompt-nobody-prints' }] }),
  })
  return { status: response.status, text: await response.text() }
}

test('HTTP_PROXY and its kin are ignored: that proxy sees no connection', async () => {
  const upstream = await startUpstream()
  const proxy = await startUpstream()
  const names = ['HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'http_proxy', 'https_proxy', 'all_proxy']
  const gateway = await start(Object.fromEntries(names.map(name => [name, proxy.origin])), upstream)
  expect((await chat(gateway)).status).toBe(200)
  expect(upstream.requests.length).toBe(1)
  expect(proxy.connections).toBe(0)
})

test('DEBUG prints nothing of what libraries look into, which are inside the executable', async () => {
  const upstream = await startUpstream()
  upstream.answer((_request, connection) => connection.send(200, 'words', { 'content-type': 'text/plain' }))
  const gateway = await start({ DEBUG: '*', DEBUG_FD: '2' }, upstream)
  const form = new FormData()
  form.append('model', ALIAS)
  form.append('file', new Blob([waveOfOneSecond()]), 'a.wav')
  const headers = { authorization: `Bearer ${CALLER_KEY}` }
  const answer = await fetch(`${gateway.proxyUrl}/v1/audio/transcriptions`, { method: 'POST', headers, body: form })
  expect([answer.status, await answer.text()]).toEqual([200, 'words'])
  let text = ''
  // The ledger writes in batches.
  for (const giveUpAt = Date.now() + 10_000; !text.includes('audio_duration_seconds') && Date.now() < giveUpAt; ) {
    await Bun.sleep(50)
    const list = await fetch(`${gateway.adminUrl}/admin/v1/requests`, { headers: { authorization: `Bearer ${ADMIN_KEY}` } })
    text = await list.text()
  }
  expect(text).toContain('"audio_duration_seconds":1')
  await gateway.stop()
  for (const line of gateway.stderr().trimEnd().split('\n')) expect(line).toMatch(/^\d{4}-\d\d-\d\dT/)
})

test('an answer that breaks leaves lines of the log, and no source of ours', async () => {
  const upstream = await startUpstream()
  const gateway = await start({}, upstream)
  const headers = { authorization: `Bearer ${CALLER_KEY}`, 'content-type': 'application/json' }
  for (let round = 0; round < 20; round += 1) {
    upstream.answer(async (_request, connection) => {
      await connection.streamHead({ headers: { 'content-type': 'audio/mpeg' } })
      await connection.chunk('sound')
      if (round % 2 === 0) await connection.chunk('more')
      connection.reset()
    })
    const asked = fetch(`${gateway.proxyUrl}/v1/audio/speech`, {
      ...{ method: 'POST', headers, body: JSON.stringify({ model: ALIAS, input: 'x' }) },
    })
    await asked.then(answer => answer.text()).catch(() => undefined)
  }
  await gateway.stop()
  for (const line of gateway.stderr().trimEnd().split('\n')) expect(line).toMatch(/^\d{4}-\d\d-\d\dT/)
})

for (const value of ['curl', 'true']) {
  test(`BUN_CONFIG_VERBOSE_FETCH=${value} prints neither prompts nor credentials`, async () => {
    const upstream = await startUpstream()
    const gateway = await start({ BUN_CONFIG_VERBOSE_FETCH: value }, upstream)
    expect((await chat(gateway)).status).toBe(200)
    await gateway.stop()
    expect(gateway.stderr()).toContain('proxy request completed')
    expect(gateway.stderr()).not.toContain('a-prompt-nobody-prints')
    expect(gateway.stderr()).not.toContain('upstream-secret-in-the-environment-test')
    expect(gateway.stderr()).not.toContain('curl')
  })
}

test('NODE_TLS_REJECT_UNAUTHORIZED=0 does not switch off certificate checks', async () => {
  const [cert, key] = await Promise.all([Bun.file(join(TLS, 'server.crt')).text(), Bun.file(join(TLS, 'server.key')).text()])
  const upstream = await startUpstream({ cert, key })
  const gateway = await start({ NODE_TLS_REJECT_UNAUTHORIZED: '0' }, upstream)
  const { status, text } = await chat(gateway)
  expect({ status, error: JSON.parse(text).error }).toEqual({
    status: 502,
    error: { message: 'transport error: certificate not trusted', type: 'transport_error' },
  })
  expect(upstream.requests.length).toBe(0)
})

test('BUN_INSPECT opens no debugger', async () => {
  const holder = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } })
  const { port } = holder
  holder.stop(true)
  const upstream = await startUpstream()
  const gateway = await start({ BUN_INSPECT: `ws://127.0.0.1:${port}/debug` }, upstream)
  expect((await chat(gateway)).status).toBe(200)
  const connecting = Bun.connect({ hostname: '127.0.0.1', port, socket: { data() {} } })
  await expect(connecting).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  expect(gateway.stderr()).not.toContain('debug')
})

test('options of the runtime in the environment do not reach the gateway', async () => {
  const upstream = await startUpstream()
  const gateway = await start({ BUN_OPTIONS: '--inspect', NODE_OPTIONS: '--inspect' }, upstream)
  expect((await chat(gateway)).status).toBe(200)
  expect(gateway.stderr()).not.toContain('nspect')
})
