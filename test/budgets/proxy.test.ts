/** Budgets as callers meet them: a real gateway, real upstreams, a real file. */
import { afterEach, describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createBudgets } from '../../src/budgets/budgets.ts'
import { ACTOR, testClock } from '../gateway.ts'
import { failsWith, startFleet } from '../proxy/fleet.ts'
import { budget } from './bench.ts'

const START = Date.parse('2026-03-11T12:00:00Z')
/** The answer of a fake upstream tells 12 tokens: 5 of the prompt and 7 of the completion. */
const TOKENS = 12
const COST = { input_per_1k: 0.001, output_per_1k: 0.002 }

let stop = async () => {}
afterEach(() => stop())

/** A fleet of priced models, and these budgets. in: budgets by the alias of a model or group where `scope` is `model` */
async function start(
  aliases: string[],
  budgets: Record<string, unknown>[],
  { groups = {}, apiKey = {} }: { groups?: Record<string, string[]>; apiKey?: Record<string, unknown> } = {},
) {
  const folder = mkdtempSync(join(tmpdir(), 'aisix-budgets-'))
  const clock = testClock(START)
  const models = Object.fromEntries(aliases.map(alias => [alias, { cost: COST }]))
  const fleet = await startFleet(aliases, { clock, models, apiKey })
  const { gateway, store, telemetry, addGroup } = fleet.gateway
  for (const [name, targets] of Object.entries(groups)) await addGroup(name, { strategy: 'failover', targets })
  const ids: string[] = []
  for (const { scope_ref, ...more } of budgets) {
    const ref = typeof scope_ref === 'string' ? (store.snapshot.models.get(scope_ref)?.id ?? scope_ref) : undefined
    ids.push((await store.create('budgets', budget({ name: `b${ids.length}`, scope_ref: ref, ...more }), ACTOR)).id)
  }
  gateway.budgets = await createBudgets({
    path: join(folder, 'budgets.db'),
    store,
    log: gateway.log,
    registry: telemetry.registry,
    clock,
  })
  stop = async () => {
    await gateway.budgets.close()
    await fleet.stop()
    rmSync(folder, { recursive: true, force: true })
  }
  const status = (at: number) => gateway.budgets.status(store.snapshot, ids[at] ?? '', clock.now())
  const rejections = (at: number, scope: string) =>
    telemetry.registry.series('aisix_budget_rejections_total', [ids[at] ?? '', `b${at}`, scope]).value
  return { ...fleet, clock, status, rejections }
}

describe('a caller', () => {
  for (const isStream of [false, true]) {
    test(`whose budget is used up by ${isStream ? 'streams' : 'answers'} gets 429 and no upstream call, until the next period`, async () => {
      const { ask, counts, clock, status, gateway } = await start(['a'], [{ limit_tokens: 2 * TOKENS, period: 'day' }])
      const send = async () => {
        const asked = await ask('a', {}, isStream ? { stream: true, stream_options: { include_usage: true } } : {})
        await gateway.idle()
        return asked
      }
      expect((await send()).status).toBe(200)
      expect((await send()).status).toBe(200)
      expect(status(0)).toMatchObject({ spent_tokens: 2 * TOKENS, spent_usd: 2 * (5 * 0.000001 + 7 * 0.000002) })
      const refused = await send()
      expect(refused.status).toBe(429)
      expect(refused.error).toMatchObject({ type: 'billing_error', code: 'budget_exceeded', scope: 'all', limit_tokens: 24 })
      expect(refused.headers.get('retry-after')).toBe('43200')
      expect(refused.headers.get('x-should-retry')).toBe('false')
      expect(counts()).toEqual([2])
      clock.advance(12 * 3_600_000)
      expect((await send()).status).toBe(200)
    })
  }

  test('is charged nothing for attempts that failed', async () => {
    const { ask, at, gateway, status } = await start(['a'], [{ limit_tokens: 100 }])
    at('a').answer(failsWith(500))
    expect((await ask('a')).status).toBe(502)
    await gateway.idle()
    expect(status(0)).toMatchObject({ spent_tokens: 0, spent_usd: 0 })
  })

  test('that is refused counts as refused, and nowhere in its rate limits', async () => {
    const { ask, gateway, status, rejections } = await start(['a'], [{ limit_tokens: 1 }], { apiKey: { rate_limit: { rpm: 5 } } })
    await ask('a')
    await gateway.idle()
    for (let call = 0; call < 3; call += 1) expect((await ask('a')).error).toMatchObject({ code: 'budget_exceeded' })
    expect(rejections(0, 'all')).toBe(3)
    await gateway.store.replace('budgets', status(0)?.id ?? '', value => ({ ...value, limit_tokens: 100 }), ACTOR)
    expect((await ask('a')).headers.get('x-ratelimit-remaining-requests')).toBe('3')
  })
})

describe('a group', () => {
  test('passes over a member whose budget is used up, and charges who answered', async () => {
    const budgets = [
      { scope: 'model', scope_ref: 'a', limit_tokens: TOKENS },
      { scope: 'model', scope_ref: 'b', limit_tokens: 10 * TOKENS },
      { scope: 'model', scope_ref: 'g', limit_tokens: 10 * TOKENS },
    ]
    const { ask, gateway, status, rejections } = await start(['a', 'b'], budgets, { groups: { g: ['a', 'b'] } })
    const served: (string | null)[] = []
    for (let call = 0; call < 3; call += 1) {
      served.push((await ask('g')).servedBy)
      await gateway.idle()
    }
    expect(served).toEqual(['a', 'b', 'b'])
    expect([0, 1, 2].map(at => status(at)?.spent_tokens)).toEqual([TOKENS, 2 * TOKENS, 3 * TOKENS])
    // Nobody was told: another member answered.
    expect(rejections(0, 'model')).toBe(0)
    expect((await ask('a')).status).toBe(429)
    expect(rejections(0, 'model')).toBe(1)
  })

  test('none of whose members has money left says so, and counts it', async () => {
    const budgets = ['a', 'b'].map(scope_ref => ({ scope: 'model', scope_ref, limit_tokens: 1 }))
    const { ask, gateway, counts, rejections } = await start(['a', 'b'], budgets, { groups: { g: ['a', 'b'] } })
    for (const alias of ['a', 'b']) await ask(alias)
    await gateway.idle()
    const refused = await ask('g')
    expect(refused.status).toBe(429)
    expect(refused.error).toMatchObject({ type: 'billing_error', code: 'budget_exceeded', scope: 'model' })
    expect(counts()).toEqual([1, 1])
    expect(rejections(0, 'model') + rejections(1, 'model')).toBe(1)
  })

  test('over its own budget is refused before any member is asked', async () => {
    const { ask, gateway, counts } = await start(['a'], [{ scope: 'model', scope_ref: 'g', limit_usd: 0.000001 }], {
      groups: { g: ['a'] },
    })
    await ask('g')
    await gateway.idle()
    expect((await ask('g')).status).toBe(429)
    expect((await ask('a')).status).toBe(200)
    expect(counts()).toEqual([2])
  })
})
