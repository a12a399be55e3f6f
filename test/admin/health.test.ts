import { describe, expect, test } from 'bun:test'
import { HealthResponse } from '../../src/admin/health.ts'
import { GatewayError } from '../../src/errors.ts'
import { createModelHealth, healthRules } from '../../src/model-health.ts'
import { ApiKey } from '../../src/resources/api-key.ts'
import { DirectModel } from '../../src/resources/model.ts'
import { openMemoryStore } from '../../src/store/memory.ts'
import type { Store, StoreStatus } from '../../src/store/store.ts'
import { COMMIT, VERSION } from '../../src/version.ts'
import { entryOf, group, model, openAdmin } from './harness.ts'

/** A memory store whose status is what a test says. */
function storeWith(change: (status: StoreStatus) => Partial<StoreStatus>): Store {
  const memory = openMemoryStore()
  return {
    ...memory,
    get snapshot() {
      return memory.snapshot
    },
    get status() {
      return { ...memory.status, ...change(memory.status) }
    },
  }
}

async function report(options: Parameters<typeof openAdmin>[0] = {}) {
  const answer = await openAdmin(options).call('GET', '/admin/v1/health')
  expect(answer.status).toBe(200)
  return HealthResponse.parse(answer.body)
}

describe('/admin/v1/health', () => {
  test('of a fresh gateway is ok and says which build it is and for how long it runs', async () => {
    const admin = openAdmin()
    admin.clock.nowMs += 61_500
    const { body } = await admin.call('GET', '/admin/v1/health')
    expect(body).toEqual({
      status: 'ok',
      version: VERSION,
      commit: COMMIT,
      uptime_seconds: 61,
      models: [],
      config: { snapshot_revision: admin.store.snapshot.revision, snapshot_age_seconds: 0 },
      store: { connected: true, writable: true },
      rejected: 0,
      dangling: [],
      usage: { state: 'ok', queued: 0, written: 0, dropped: 0, bytes: 0, bytes_max: 0 },
      budgets: { state: 'ok' },
      exporters: [],
    })
  })

  test('tells of a configuration that names no API key for callers without one, until there is one', async () => {
    const missing = 'b569cd19-498b-43dc-8ea6-510628b28d6f'
    const named = { kind: 'config' as const, id: 'proxy.anonymous', field: 'api_key_id', missing }
    expect((await report({ anonymousKeyId: missing })).dangling).toEqual([named])
    expect((await report()).dangling).toEqual([])
    const store = openMemoryStore()
    const key = await store.create('api_keys', ApiKey.parse({ key_hash: '0'.repeat(64), allowed_models: ['*'] }), {
      adminKey: 'test',
      address: '127.0.0.1',
    })
    expect((await report({ store, anonymousKeyId: key.id })).dangling).toEqual([])
  })

  test.each([
    [0, 0, 'ok'],
    [3, 0, 'ok'],
    [4, 1, 'degraded'],
    [7, 1, 'degraded'],
    [8, 2, 'unhealthy'],
    [900, 2, 'unhealthy'],
  ])('%i consecutive failures of a model are health %i and make the gateway %s', async (failures, health, status) => {
    let failing = ''
    const admin = openAdmin({ modelHealth: { ...createModelHealth(), failures: id => (id === failing ? failures : 0) } })
    const well = entryOf(await admin.call('POST', '/admin/v1/models', model('pk', { display_name: 'well' })))
    failing = entryOf(await admin.call('POST', '/admin/v1/models', model('pk'))).id
    const { body } = await admin.call('GET', '/admin/v1/health')
    expect(body).toMatchObject({
      status,
      models: [
        { id: well.id, name: 'well', health: 0 },
        { id: failing, name: 'llama-3-private', health },
      ],
    })
  })

  const ages: [number | undefined, number | null, 'ok' | 'degraded'][] = [
    [0, 0, 'ok'],
    [300_999, 300, 'ok'],
    [301_000, 301, 'degraded'],
    [undefined, null, 'degraded'],
  ]
  test.each(ages)('a snapshot confirmed %p ms ago is %p s old and the gateway %s', async (agoMs, age, status) => {
    const now = Date.parse('2030-01-01T00:00:00Z')
    const store = storeWith(() => ({ confirmedAt: agoMs === undefined ? undefined : now - agoMs }))
    expect(await report({ store })).toMatchObject({ status, config: { snapshot_age_seconds: age } })
  })

  test('tells that the store is gone and why, and how many rows are not served', async () => {
    const row = { resource_kind: 'models', resource_id: 'x', last_error_kind: 'non_json', last_error: 'e' } as const
    const times = { first_seen_at: '2030-01-01T00:00:00Z', last_seen_at: '2030-01-01T00:00:00Z' }
    const store = storeWith(() => ({ connected: false, problem: 'the file was replaced', rejected: [{ ...row, ...times }] }))
    expect(await report({ store })).toMatchObject({
      store: { connected: false, writable: false, problem: 'the file was replaced' },
      rejected: 1,
    })
  })

  test('asks for an admin key', async () => {
    expect((await openAdmin().call('GET', '/admin/v1/health', undefined, {})).status).toBe(401)
  })
})

describe('a model group', () => {
  test('is listed with health 0, whatever is known under its id', async () => {
    const admin = openAdmin({ modelHealth: { ...createModelHealth(), failures: () => 100 } })
    const { id } = entryOf(await admin.call('POST', '/admin/v1/models', group(['a'])))
    const { body } = await admin.call('GET', '/admin/v1/health')
    expect(body).toMatchObject({ status: 'ok', models: [{ id, name: 'llama-3', health: 0 }] })
  })

  test('has no status of its own, and a direct model in cooldown tells until when and why', async () => {
    const modelHealth = createModelHealth()
    const admin = openAdmin({ modelHealth })
    const direct = entryOf(await admin.call('POST', '/admin/v1/models', model('pk')))
    const whole = entryOf(await admin.call('POST', '/admin/v1/models', group(['llama-3-private'])))
    const rules = healthRules(DirectModel.parse(direct.value))
    modelHealth
      .of(direct.id)
      .failed(new GatewayError('upstream_error', 'gone', { upstreamStatus: 503 }), rules, admin.clock.nowMs)
    expect((await admin.call('GET', '/admin/v1/models/status')).body).toEqual([
      {
        id: direct.id,
        display_name: 'llama-3-private',
        kind: 'direct',
        status: 'cooldown',
        cooldown_until: { secs_since_epoch: admin.clock.nowMs / 1000 + 30, nanos_since_epoch: 0 },
        status_reason: 'upstream_server_error',
      },
      { id: whole.id, display_name: 'llama-3', kind: 'routing', status: 'not_applicable' },
    ])
    expect((await admin.call('GET', '/admin/v1/health')).body).toMatchObject({
      models: [
        { id: direct.id, name: 'llama-3-private', health: 0, status: 'cooldown', status_reason: 'upstream_server_error' },
        { id: whole.id, name: 'llama-3', health: 0, status: 'not_applicable' },
      ],
    })
  })
})

describe('/admin/v1/models/status', () => {
  test('is a fixed route with a row for each model, and no id', async () => {
    const admin = openAdmin()
    expect((await admin.call('GET', '/admin/v1/models/status')).body).toEqual([])
    const { id } = entryOf(await admin.call('POST', '/admin/v1/models', model('pk')))
    expect((await admin.call('GET', '/admin/v1/models/status')).body).toEqual([
      { id, display_name: 'llama-3-private', kind: 'direct', status: 'healthy' },
    ])
    expect((await admin.call('GET', '/admin/v1/models/status', undefined, {})).status).toBe(401)
  })
})
