/** Background checks of the compiled executable: started with it, shown by both views, heeded by groups, ended with it. */
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { ADMIN_KEY, type Executable, startExecutable } from './executable.ts'
import { chatAnswer, type FakeUpstream, fakeUpstream } from './fake-upstream.ts'
import { sha256, until } from './gateway.ts'

const CALLER_KEY = 'sk-health-caller'
const CHECK = { enabled: true, interval_seconds: 600, timeout_seconds: 600, stale_after_seconds: 600 }

let upstream: FakeUpstream
let gateway: Executable
beforeEach(async () => {
  upstream = await fakeUpstream()
  gateway = await startExecutable()
})
afterEach(async () => {
  await gateway.dispose()
  upstream.stop()
})

const admin = (method: string, path: string, document?: unknown) =>
  fetch(`${gateway.adminUrl}/admin/v1/${path}`, {
    method,
    headers: { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' },
    ...(document === undefined ? {} : { body: JSON.stringify(document) }),
  })

async function write(path: string, document: unknown): Promise<string> {
  const response = await admin('POST', path, document)
  const body: unknown = await response.json()
  if (typeof body === 'object' && body !== null && 'id' in body && typeof body.id === 'string') return body.id
  throw new Error(`${path} was refused: ${JSON.stringify(body)}`)
}

async function addModel(name: string, check: unknown): Promise<string> {
  const provider_key_id = await write('provider_keys', {
    display_name: name,
    provider: 'vllm',
    adapter: 'openai',
    secret: 'none',
    api_base: `${upstream.origin}/${name}/v1`,
  })
  return write('models', {
    display_name: name,
    provider: 'vllm',
    model_name: 'm',
    provider_key_id,
    ...(check === undefined ? {} : { background_model_check: check }),
  })
}

describe('the executable', () => {
  test('checks a new model, shows it on both views in the same bytes, and keeps its group from it', async () => {
    upstream.answer((request, connection) =>
      request.path.startsWith('/gpu-a/') ? connection.json(503, {}) : connection.json(200, chatAnswer()),
    )
    await addModel('gpu-b', undefined)
    await addModel('gpu-a', CHECK)
    await write('models', { display_name: 'llama', routing: { targets: [{ model: 'gpu-a' }, { model: 'gpu-b' }] } })
    await write('apikeys', { key_hash: sha256(CALLER_KEY), allowed_models: ['*'] })
    await until('the log to tell of the failed check', () => gateway.stderr().includes('model is unhealthy'))
    expect(upstream.requests.map(({ method, path }) => `${method} ${path}`)).toEqual(['GET /gpu-a/v1/models'])

    const status = await (await fetch(`${gateway.statusUrl}/status/models`)).text()
    expect(status).toBe(await (await admin('GET', 'models/status')).text())
    expect(JSON.parse(status)).toMatchObject([
      { display_name: 'gpu-b', status: 'healthy' },
      { display_name: 'gpu-a', status: 'unhealthy', last_check_status: 503, status_reason: 'background_check_failed' },
      { display_name: 'llama', kind: 'routing', status: 'not_applicable' },
    ])

    const answer = await fetch(`${gateway.proxyUrl}/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${CALLER_KEY}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'llama', messages: [{ role: 'user', content: 'Hi' }] }),
    })
    expect([answer.status, answer.headers.get('x-aisix-served-by')]).toEqual([200, 'gpu-b'])
    expect(upstream.requests.filter(({ method }) => method === 'POST').map(({ path }) => path)).toEqual([
      '/gpu-b/v1/chat/completions',
    ])
  })

  test('does not wait at its end for a check that hangs', async () => {
    upstream.answer((_request, connection) => connection.stall())
    await addModel('gpu-a', CHECK)
    await upstream.arrived(1)
    expect(await gateway.stop()).toBe(0)
    await upstream.whenCut(1)
    expect(gateway.stderr()).not.toContain('model is unhealthy')
  })
})
