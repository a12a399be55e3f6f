import { expect, test } from 'bun:test'
import { limitMetrics } from '../../src/status/limit-metrics.ts'
import { fakeUpstream } from '../fake-upstream.ts'
import { ACTOR, startGateway, testClock } from '../gateway.ts'

test('refusals are counted by layer and policy, and gauges tell what a key has left until it is gone', async () => {
  const upstream = await fakeUpstream()
  const gateway = await startGateway({ upstream: upstream.url, clock: testClock(), apiKey: { rate_limit: { rpm: 3, tpm: 100 } } })
  try {
    const page = () => limitMetrics(gateway.gateway.limiter, gateway.gateway.remainingLimits, gateway.store.snapshot)
    expect(page()).toBe('')
    const { id } = gateway.rows.apiKey
    for (let call = 0; call < 4; call += 1) await (await gateway.chat()).text()
    const policy = await gateway.addPolicy({ name: 'closed', limits: { tpm: 0 } })
    await (await gateway.chat()).text()
    expect(page()).toContain('aisix_ratelimit_rejections_total{scope="requests",layer="api_key",policy_id=""} 2\n')
    expect(page()).toContain(`aisix_ratelimit_remaining_requests{api_key_id="${id}",model="alias-model"} 0\n`)
    expect(page()).toContain(`aisix_ratelimit_remaining_tokens{api_key_id="${id}",model="alias-model"} 64\n`)
    await gateway.addApiKey('sk-unlimited')
    await (await gateway.chat({}, { authorization: 'Bearer sk-unlimited' })).text()
    expect(page()).toContain(`aisix_ratelimit_rejections_total{scope="tokens",layer="policy",policy_id="${policy.id}"} 1\n`)
    const key = gateway.rows.apiKey.value
    await gateway.store.replace('api_keys', id, () => ({ ...key, rate_limit: undefined }), ACTOR)
    expect(page()).not.toContain('aisix_ratelimit_remaining')
    await gateway.store.replace('api_keys', id, () => key, ACTOR)
    await gateway.store.remove('rate_limit_policies', policy.id, ACTOR)
    await gateway.store.remove('api_keys', id, ACTOR)
    expect(page()).not.toContain('aisix_ratelimit_remaining')
  } finally {
    await gateway.stop()
    upstream.stop()
  }
})
