import { describe, expect, test } from 'bun:test'
import { GatewayError } from '../../src/errors.ts'
import { createModelHealth, healthRules } from '../../src/model-health.ts'
import { DirectModel, Model } from '../../src/resources/model.ts'
import { modelStatus } from '../../src/status/models.ts'
import { openMemoryStore } from '../../src/store/memory.ts'
import type { Entry } from '../../src/store/store.ts'

const NOW = Date.parse('2030-01-01T00:00:00Z') + 250
const ACTOR = { adminKey: 'test', address: '127.0.0.1' }

async function open() {
  const store = openMemoryStore()
  const health = createModelHealth()
  const addModel = (document: Record<string, unknown>): Promise<Entry<'models'>> =>
    store.create('models', Model.parse(document), ACTOR)
  const addDirect = (display_name: string, members: Record<string, unknown> = {}) =>
    addModel({ display_name, provider: 'vllm', model_name: 'm', provider_key_id: 'pk', ...members })
  return { store, health, addModel, addDirect, rows: (nowMs = NOW) => modelStatus(store.snapshot, health, nowMs) }
}

const background_model_check = {
  enabled: true,
  interval_seconds: 10,
  timeout_seconds: 1,
  stale_after_seconds: 60,
  prompt: 'ping',
  max_tokens: 1,
}
const rules = healthRules(
  DirectModel.parse({ display_name: 'a', provider: 'vllm', model_name: 'm', provider_key_id: 'pk', background_model_check }),
)
const rateLimited = new GatewayError('upstream_error', 'too many', { upstreamStatus: 429, retryAfterSecs: 2 })

describe('modelStatus', () => {
  test('of no model is an empty array', async () => {
    expect((await open()).rows()).toEqual([])
  })

  test('has one row a model, in the order of creation, with nothing that does not apply', async () => {
    const { addDirect, addModel, rows } = await open()
    const a = await addDirect('a', { background_model_check })
    const pattern = await addDirect('vllm/*')
    const group = await addModel({ display_name: 'g', routing: { targets: [{ model: 'a' }] } })
    expect(JSON.stringify(rows())).toBe(
      JSON.stringify([
        { id: a.id, display_name: 'a', kind: 'direct', status: 'healthy' },
        { id: pattern.id, display_name: 'vllm/*', kind: 'direct', status: 'healthy' },
        { id: group.id, display_name: 'g', kind: 'routing', status: 'not_applicable' },
      ]),
    )
  })

  test('shows a cooldown with its end and its reason, until it is over', async () => {
    const { addDirect, health, rows } = await open()
    const { id } = await addDirect('a')
    health.of(id).failed(rateLimited, rules, NOW)
    expect(JSON.stringify(rows())).toBe(
      `[{"id":"${id}","display_name":"a","kind":"direct","status":"cooldown",` +
        '"cooldown_until":{"secs_since_epoch":1893456002,"nanos_since_epoch":250000000},"status_reason":"upstream_rate_limited"}]',
    )
    expect(rows(NOW + 2_000)).toEqual([{ id, display_name: 'a', kind: 'direct', status: 'healthy' }])
  })

  test('shows a failed check with its time, status and reason', async () => {
    const { addDirect, health, rows } = await open()
    const { id } = await addDirect('a', { background_model_check })
    health.of(id).checked({ outcome: 'failed', status: 503, reason: 'background_check_failed' }, NOW)
    expect(JSON.stringify(rows())).toBe(
      `[{"id":"${id}","display_name":"a","kind":"direct","status":"unhealthy",` +
        '"last_checked_at":{"secs_since_epoch":1893456000,"nanos_since_epoch":250000000},"last_check_status":503,' +
        '"status_reason":"background_check_failed"}]',
    )
  })

  test('leaves out the status of a check that got no answer', async () => {
    const { addDirect, health, rows } = await open()
    const { id } = await addDirect('a', { background_model_check })
    health.of(id).checked({ outcome: 'failed', status: undefined, reason: 'background_check_failed' }, NOW)
    expect(Object.keys(rows()[0] ?? {})).toEqual(['id', 'display_name', 'kind', 'status', 'last_checked_at', 'status_reason'])
  })

  test('shows a passed check, and an excused one with its reason, as healthy', async () => {
    const { addDirect, health, rows } = await open()
    const { id } = await addDirect('a', { background_model_check })
    const last_checked_at = { secs_since_epoch: 1_893_456_000, nanos_since_epoch: 250_000_000 }
    const row = { id, display_name: 'a', kind: 'direct' as const, status: 'healthy' as const, last_checked_at }
    health.of(id).checked({ outcome: 'passed', status: 200, reason: undefined }, NOW)
    expect(rows()).toEqual([{ ...row, last_check_status: 200 }])
    health.of(id).checked({ outcome: 'ignored', status: 429, reason: 'ignored_transient_error' }, NOW)
    expect(rows()).toEqual([{ ...row, last_check_status: 429, status_reason: 'ignored_transient_error' }])
  })

  test('shows the cooldown of a model whose check fails, too', async () => {
    const { addDirect, health, rows } = await open()
    const { id } = await addDirect('a', { background_model_check })
    health.of(id).checked({ outcome: 'failed', status: 401, reason: 'upstream_auth_failure' }, NOW)
    health.of(id).failed(rateLimited, rules, NOW)
    expect(rows()).toMatchObject([{ status: 'cooldown', last_check_status: 401, status_reason: 'upstream_rate_limited' }])
    expect(rows(NOW + 2_000)).toMatchObject([{ status: 'unhealthy', status_reason: 'upstream_auth_failure' }])
  })
})
