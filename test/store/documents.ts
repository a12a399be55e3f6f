import { ApiKey } from '../../src/resources/api-key.ts'
import { Budget } from '../../src/resources/budget.ts'
import { DirectModel, ModelGroup } from '../../src/resources/model.ts'
import { ObservabilityExporter } from '../../src/resources/observability-exporter.ts'
import { PassthroughRoute } from '../../src/resources/passthrough-route.ts'
import { ProviderKey } from '../../src/resources/provider-key.ts'
import { RateLimitPolicy } from '../../src/resources/rate-limit-policy.ts'
import type { Actor } from '../../src/store/store.ts'

/** Valid documents for tests of the store, as the admin API hands them over: parsed, with their defaults. */
export const SECRET = 'upstream-credential-0001'
export const actor: Actor = { adminKey: 'admin_keys[0]', address: '127.0.0.1' }

export function providerKey(display_name: string, more: Record<string, unknown> = {}): ProviderKey {
  return ProviderKey.parse({ display_name, provider: 'vllm', adapter: 'openai', secret: SECRET, ...more })
}
export function model(display_name: string, more: Record<string, unknown> = {}): DirectModel {
  return DirectModel.parse({ display_name, provider: 'vllm', model_name: 'org/model', provider_key_id: 'some-key', ...more })
}
export function group(display_name: string, targets: string[], more: Record<string, unknown> = {}): ModelGroup {
  return ModelGroup.parse({ display_name, routing: { targets: targets.map(model => ({ model })) }, ...more })
}
export function policy(name: string, more: Record<string, unknown> = { limits: { rpm: 10 } }): RateLimitPolicy {
  return RateLimitPolicy.parse({ name, ...more })
}
export function budget(name: string, more: Record<string, unknown> = {}): Budget {
  return Budget.parse({ name, scope: 'team', scope_ref: 't', limit_usd: 5, period: 'month', ...more })
}
export function exporter(name: string): ObservabilityExporter {
  return ObservabilityExporter.parse({ name, kind: 'otlp_http', endpoint: 'http://10.0.0.6:4318/v1/traces' })
}
export function passthroughRoute(name: string): PassthroughRoute {
  return PassthroughRoute.parse({ display_name: name, path_prefix: '/up', target_url: 'http://10.0.0.5', provider_key_id: 'k' })
}
export function apiKey(plaintext: string, more: Record<string, unknown> = {}): ApiKey {
  return ApiKey.parse({ key_hash: hashOf(plaintext), allowed_models: ['*'], ...more })
}
export function hashOf(plaintext: string): string {
  return new Bun.CryptoHasher('sha256').update(plaintext).digest('hex')
}

/** A wall clock that stands still until a test moves it; durations are real. */
export function testClock(startMs = Date.parse('2026-03-01T12:00:00.750Z')) {
  const clock = {
    ms: startMs,
    now: () => clock.ms,
    monotonic: () => performance.now(),
  }
  return clock
}
