import { describe, expect, test } from 'bun:test'
import { GatewayError } from '../../src/errors.ts'
import { systemClock } from '../../src/gateway.ts'
import { createModelHealth, healthRules } from '../../src/model-health.ts'
import { DirectModel } from '../../src/resources/model.ts'
import { createStatusApp, type StatusOptions } from '../../src/status/app.ts'
import { openMemoryStore } from '../../src/store/memory.ts'
import type { Rejection, Store, StoreStatus } from '../../src/store/store.ts'
import { VERSION } from '../../src/version.ts'
import { apiKey, captureLog, entryOf, model, openAdmin, providerKey } from '../admin/harness.ts'

const AT = '2030-01-01T00:00:00Z'

function open(options: Partial<StatusOptions> = {}) {
  const lines: string[] = []
  const store = options.store ?? openMemoryStore()
  const app = createStatusApp({
    store,
    log: captureLog(lines),
    clock: systemClock,
    modelHealth: createModelHealth(),
    metricsPath: '/metrics',
    ...options,
  })
  const get = async (path: string, method = 'GET') => {
    const response = await app.fetch(new Request(`http://127.0.0.1:9090${path}`, { method }))
    const text = await response.text()
    return { status: response.status, headers: response.headers, text }
  }
  return { get, lines, store, config: async () => JSON.parse((await get('/status/config')).text) }
}

/** A memory store whose status is what a test says. */
function storeWith(change: Partial<StoreStatus>, memory = openMemoryStore()): Store {
  return {
    ...memory,
    get snapshot() {
      return memory.snapshot
    },
    get status() {
      return { ...memory.status, ...change }
    },
  }
}

const rejection = (more: Partial<Rejection> = {}): Rejection => ({
  resource_kind: 'models',
  resource_id: 'm1',
  last_error_kind: 'schema_failed',
  last_error: 'display_name: is required',
  first_seen_at: AT,
  last_seen_at: AT,
  ...more,
})

/** A store with one provider key. */
async function filled() {
  const admin = openAdmin()
  entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey()))
  return admin
}

describe('routes', () => {
  test.each(['/', '/status', '/status/', '/status/config/', '/metrics/', '/livez', '/admin/v1/models', '/v1/models', '/%zz'])(
    '%s is 404 with an empty body',
    async path => {
      const { status, text, headers } = await open().get(path)
      expect([status, text, headers.get('server')]).toEqual([404, '', `AISIX/${VERSION}`])
    },
  )

  test.each(['/status/config', '/status/ready', '/status/models', '/metrics'])('%s takes GET and HEAD alone', async path => {
    const { get } = open()
    const got = await get(path)
    const head = await get(path, 'HEAD')
    expect([got.status, head.status, head.text]).toEqual([200, 200, ''])
    expect(head.headers.get('content-type')).toBe(got.headers.get('content-type'))
    expect(head.headers.get('content-length')).toBe(String(Buffer.byteLength(got.text)))
    const post = await get(path, 'POST')
    expect([post.status, post.headers.get('allow'), post.text]).toEqual([405, 'GET, HEAD', ''])
  })

  test('the scrape path is the configured one', async () => {
    const { get } = open({ metricsPath: '/prometheus' })
    expect((await get('/prometheus')).status).toBe(200)
    expect((await get('/metrics')).status).toBe(404)
  })

  test('a fault of our own is a plain 500, and its cause stands in the log alone', async () => {
    const { get, lines } = open({
      moreMetrics: () => {
        throw new Error('cause-of-the-fault')
      },
    })
    const { status, text, headers } = await get('/metrics')
    expect([status, text]).toEqual([500, "internal error; see the gateway's log"])
    expect(headers.get('content-type')).toBe('text/plain; charset=utf-8')
    expect(lines.join('\n')).toContain('cause-of-the-fault')
  })
})

describe('/status/ready', () => {
  test('is ok with an empty configuration, and 503 while none was ever loaded', async () => {
    expect(await open().get('/status/ready')).toMatchObject({ status: 200, text: 'ok' })
    const never = open({ store: storeWith({ applySeq: 0 }) })
    expect(await never.get('/status/ready')).toMatchObject({ status: 503, text: 'no configuration available' })
  })

  test('does not depend on a store that is gone', async () => {
    const { get } = open({ store: storeWith({ connected: false, problem: 'locked' }) })
    expect((await get('/status/ready')).status).toBe(200)
  })
})

describe('/status/models', () => {
  test('is byte for byte what the admin API answers', async () => {
    const modelHealth = createModelHealth()
    const admin = openAdmin({ modelHealth })
    const { id } = entryOf(await admin.call('POST', '/admin/v1/models', model('pk')))
    const nowMs = admin.clock.nowMs
    const failure = new GatewayError('timeout', 'upstream request timed out after 1000ms')
    modelHealth.of(id).failed(failure, healthRules(DirectModel.parse(model('pk'))), nowMs)
    const clock = { now: () => nowMs, monotonic: () => nowMs }
    const { text, headers } = await open({ store: admin.store, modelHealth, clock }).get('/status/models')
    expect(text).toContain('"status":"cooldown"')
    expect(text).toBe((await admin.call('GET', '/admin/v1/models/status')).text)
    expect(headers.get('content-type')).toStartWith('application/json')
  })

  test('is 500 while nothing was ever loaded', async () => {
    const { status, text } = await open({ store: storeWith({ applySeq: 0 }) }).get('/status/models')
    expect([status, text]).toEqual([500, '{"error_msg":"failed to list models"}'])
  })
})

describe('/status/config', () => {
  test('of an empty store', async () => {
    const clock = { now: () => Date.parse(AT), monotonic: () => 0 }
    const { config, store } = open({ store: openMemoryStore({ clock }) })
    const { configHash } = store.status
    expect(configHash).toMatch(/^[0-9a-f]{64}$/)
    expect(await config()).toEqual({
      state: 'empty',
      source: { type: 'sqlite', connected: true, observed_revision: store.status.observedRevision, observed_at: AT },
      applied: {
        applied_revision: store.status.appliedRevision,
        config_hash: configHash,
        apply_seq: 1,
        applied_at: AT,
        resource_counts: {},
      },
      last_reload: { successful: true, at: AT },
      last_failure: null,
      rejected: [],
      partially_compatible: [],
    })
  })

  test('counts what is served, leaves out kinds without any, and moves on with each change', async () => {
    const admin = await filled()
    const { config } = open({ store: admin.store })
    const before = await config()
    expect(before).toMatchObject({ state: 'synced', applied: { resource_counts: { provider_keys: 1 }, apply_seq: 2 } })
    expect(Object.keys(before.applied.resource_counts)).toEqual(['provider_keys'])
    await admin.call('POST', '/admin/v1/apikeys', apiKey())
    const after = await config()
    expect(after.applied).toMatchObject({ resource_counts: { provider_keys: 1, api_keys: 1 }, apply_seq: 3 })
    expect(after.applied.config_hash).not.toBe(before.applied.config_hash)
  })

  test('shows no credential', async () => {
    const admin = await filled()
    await admin.call('POST', '/admin/v1/apikeys', apiKey())
    const { text } = await open({ store: admin.store }).get('/status/config')
    expect(text).not.toContain('sk-upstream-secret')
    expect(text).not.toContain(apiKey().key_hash)
  })

  const fetchFailure = { at: AT, last_error_kind: 'fetch', last_error: 'configuration source unreachable' }
  const rowFailure = { at: AT, last_error_kind: 'schema_failed', last_error: 'display_name: is required' }
  const failed = { successful: false, at: AT }
  const states: [string, Partial<StoreStatus>, boolean, string][] = [
    ['nothing was ever applied', { applySeq: 0, rejected: [rejection()], lastReload: failed }, false, 'never_loaded'],
    ['the source could not be read', { lastReload: failed, lastFailure: fetchFailure }, true, 'out_of_sync'],
    [
      'rows were rejected and nothing is served',
      { rejected: [rejection()], lastReload: failed, lastFailure: rowFailure },
      false,
      'out_of_sync',
    ],
    [
      'rows were rejected and others are served',
      { rejected: [rejection()], lastReload: failed, lastFailure: rowFailure },
      true,
      'degraded',
    ],
    ['an older failure is over', { lastFailure: fetchFailure }, true, 'synced'],
    ['all is well', {}, true, 'synced'],
    ['all is well and there is nothing', {}, false, 'empty'],
  ]
  test.each(states)('when %s', async (_when, status, serves, state) => {
    const memory = serves ? (await filled()).store : openMemoryStore()
    expect(await open({ store: storeWith(status, memory) }).config()).toMatchObject({ state })
  })

  test('leaves out what never happened, and shows rejected rows and unknown members as they are', async () => {
    const stale = rejection({ serving_stale_since: AT, serving_stale_age_seconds: 7 })
    const status: Partial<StoreStatus> = {
      applySeq: 0,
      observedAt: undefined,
      lastReload: undefined,
      rejected: [rejection(), stale],
      partiallyCompatible: [{ resource_kind: 'models', field: 'new_member', count: 2 }],
    }
    const document = await open({ store: storeWith(status) }).config()
    expect(Object.keys(document)).toEqual(['state', 'source', 'last_failure', 'rejected', 'partially_compatible'])
    expect(Object.keys(document.source)).toEqual(['type', 'connected', 'observed_revision'])
    expect(document.rejected).toEqual([rejection(), stale])
    expect(document.partially_compatible).toEqual([{ resource_kind: 'models', field: 'new_member', count: 2 }])
  })
})

describe('the scrape page', () => {
  test('shows further families behind the configuration ones', async () => {
    const { get } = open({ moreMetrics: () => '# TYPE aisix_x counter\naisix_x 1\n' })
    const { text, headers } = await get('/metrics')
    expect(headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
    expect(text).toContain('aisix_config_source_connected 1\n')
    expect(text).toEndWith('aisix_x 1\n')
  })
})
