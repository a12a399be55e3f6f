import { expect, test } from 'bun:test'
import { endInEveryWay, endingUpstream, WAYS } from '../../tools/rig/endings.ts'
import { CALLER_KEY, startGateway, until } from '../gateway.ts'

// The same drill runs against the executable in `make soak`.
test('20,000 requests that end in every way leave every count at 0', async () => {
  const upstream = endingUpstream()
  const gateway = await startGateway({
    upstream: upstream.url,
    logFilter: 'error',
    apiKey: { rate_limit: { concurrency: 1_000, tpm: 1_000_000_000 } },
  })
  try {
    const dead = await gateway.addProviderKey({ api_base: 'http://127.0.0.1:1/v1' })
    const limits = { rate_limit: { concurrency: 1_000 }, timeout: 30, stream_timeout: 30 }
    for (const way of WAYS) await gateway.addModel({ display_name: way, model_name: way, ...limits })
    await gateway.addModel({ display_name: 'dead', provider_key_id: dead.id, ...limits })
    await gateway.addModel({ display_name: 'full', model_name: 'whole', rate_limit: { concurrency: 0 } })
    const routing = { retries: 0, retry_on_429: true, fallback_on_statuses: [422], when_all_unavailable: 'try_anyway' }
    const targets = ['dead', 'full', ...WAYS]
    await gateway.addGroup('group', { ...routing, strategy: 'round_robin', targets }, { rate_limit: { concurrency: 1_000 } })
    await gateway.addPolicy({ name: 'all', limits: { concurrency: 1_000 }, group_by: ['model'] })
    const endings = await endInEveryWay({
      url: gateway.url,
      keys: [...Array.from({ length: 11 }, () => CALLER_KEY), 'sk-unknown'],
      models: [...WAYS, 'dead', 'full', 'group', 'unknown'],
      count: 20_000,
      abreast: 50,
    })
    await gateway.idle()
    const { limiter, modelHealth } = gateway.gateway
    await until('no place taken', () => limiter.inFlight === 0)
    for (const row of gateway.store.list('models'))
      expect([row.value.display_name, modelHealth.of(row.id).inFlight]).toEqual([row.value.display_name, 0])
    expect(limiter.inFlight).toBe(0)
    for (const outcome of [
      '200',
      '200 and an error event',
      '200 left with the first byte',
      '401',
      '404',
      '422',
      '429',
      '502',
      '504',
      'left before an answer',
    ]) {
      expect([outcome, endings.get(outcome) ?? 0]).not.toEqual([outcome, 0])
    }
  } finally {
    await gateway.stop()
    upstream.stop()
  }
}, 60_000)
