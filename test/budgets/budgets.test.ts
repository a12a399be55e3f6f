import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { existsSync, statSync } from 'node:fs'
import { openAiEnvelope } from '../../src/errors.ts'
import { PICO_PER_USD } from '../../src/pricing/price.ts'
import type { Entry } from '../../src/store/store.ts'
import { ACTOR } from '../gateway.ts'
import { budget, labelsOf, NOON, workbench } from './bench.ts'

const USD = Number(PICO_PER_USD)
const DAY_MS = 86_400_000

let bench: ReturnType<typeof workbench>
beforeEach(() => {
  bench = workbench()
})
afterEach(() => bench.clean())

describe('a request is refused once a budget that it falls under is used up', () => {
  const scopes: [scope: string, ref: (keyId: string) => string | undefined][] = [
    ['api_key', keyId => keyId],
    ['team', () => 'search'],
    ['user', () => 'mia'],
    ['model', () => 'model-1'],
    ['all', () => undefined],
  ]
  for (const [scope, ref] of scopes) {
    test(`scope ${scope}: whoever falls under it, and nobody else`, async () => {
      const { caller, add, gateway } = bench
      const inside = await caller('sk-inside', { team_id: 'search', user_id: 'mia' })
      const outside = await caller('sk-outside', { team_id: 'ads', user_id: 'tom' })
      const nameless = await caller('sk-nameless')
      await add({ scope, scope_ref: ref(inside.entry.id), limit_tokens: 100 })
      const { charge, refusal } = await gateway()
      expect(refusal(inside)).toBeUndefined()
      charge(labelsOf(outside, 'model-2'), { tokens: 60 })
      charge(labelsOf(inside), { tokens: 60 })
      if (scope !== 'all') expect(refusal(inside)).toBeUndefined()
      charge(labelsOf(inside), { tokens: 40 })

      const isOfModel = scope === 'model'
      expect(refusal(inside)?.kind).toBe('budget_exceeded')
      for (const other of [outside, nameless]) {
        expect(refusal(other, isOfModel ? 'model-2' : 'model-1')?.kind).toBe(scope === 'all' ? 'budget_exceeded' : undefined)
      }
    })
  }

  test('a limit is reached when spending equals it, and not a picodollar before', async () => {
    const key = await bench.caller('sk-1')
    await bench.add({ limit_usd: 0.000001 })
    const { charge, refusal } = await bench.gateway()
    charge(labelsOf(key), { pico: 999_999 })
    expect(refusal(key)).toBeUndefined()
    charge(labelsOf(key), { pico: 1 })
    expect(refusal(key)?.status).toBe(429)
  })

  test('of two limits the one that is reached first counts', async () => {
    const key = await bench.caller('sk-1')
    const dollars = await bench.add({
      name: 'dollars',
      scope: 'api_key',
      scope_ref: key.entry.id,
      limit_usd: 1,
      limit_tokens: 1_000,
    })
    const { charge, refusal, status } = await bench.gateway()
    charge(labelsOf(key), { pico: 0.5 * USD, tokens: 999 })
    expect(refusal(key)).toBeUndefined()
    expect(status(dollars.id).used_percent).toBe(99.9)
    charge(labelsOf(key), { pico: 0, tokens: 1 })
    expect(refusal(key)).toBeDefined()
    expect(status(dollars.id)).toMatchObject({ state: 'exceeded', remaining_usd: 0.5, remaining_tokens: 0, used_percent: 100 })
  })

  test('a model without a price costs nothing, and its tokens count', async () => {
    const key = await bench.caller('sk-1')
    const money = await bench.add({ name: 'money', limit_usd: 1 })
    const tokens = await bench.add({ name: 'tokens', limit_tokens: 10 })
    const { charge, status } = await bench.gateway()
    charge(labelsOf(key), { pico: 0, tokens: 5 })
    expect(status(money.id)).toMatchObject({ spent_usd: 0, spent_tokens: 5, used_percent: 0 })
    expect(status(tokens.id).used_percent).toBe(50)
  })

  test('a group has a budget beside those of its members, each charged once', async () => {
    const key = await bench.caller('sk-1')
    const ids: string[] = []
    for (const scope_ref of ['group-1', 'model-1', 'model-2']) {
      ids.push((await bench.add({ name: scope_ref, scope: 'model', scope_ref, limit_tokens: 100 })).id)
    }
    const { budgets, charge, refusal, status } = await bench.gateway()
    charge(labelsOf(key, 'model-1'), { tokens: 60 }, 'group-1')
    charge(labelsOf(key, 'model-2'), { tokens: 40 }, 'group-1')
    expect(ids.map(id => status(id).spent_tokens)).toEqual([100, 60, 40])
    expect(refusal(key, 'group-1')?.budget?.scope_ref).toBe('group-1')
    expect(refusal(key, 'model-1')).toBeUndefined()

    charge(labelsOf(key, 'model-1'), { tokens: 40 })
    expect(budgets.memberRefusal(bench.store.snapshot, 'model-1', NOON)?.budget?.scope_ref).toBe('model-1')
    expect(budgets.memberRefusal(bench.store.snapshot, 'model-2', NOON)).toBeUndefined()
  })

  test('an attempt without tokens charges nothing', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 10 })
    const { charge, status } = await bench.gateway()
    charge(labelsOf(key), { tokens: 0 })
    expect(status(id).spent_tokens).toBe(0)
  })

  test('action `warn` refuses nobody', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 10, action: 'warn' })
    const { charge, refusal, status } = await bench.gateway()
    charge(labelsOf(key), { tokens: 50 })
    expect(refusal(key)).toBeUndefined()
    expect(status(id)).toMatchObject({ state: 'exceeded', used_percent: 500, remaining_tokens: 0 })
  })
})

describe('the refusal', () => {
  test('tells the operator’s numbers, flattened into the envelope, and when there is money again', async () => {
    const key = await bench.caller('sk-1', { team_id: 'search' })
    await bench.add({ name: 'search team', scope: 'team', scope_ref: 'search', limit_usd: 2.5, period: 'day' })
    const { charge, refusal } = await bench.gateway()
    charge(labelsOf(key), { pico: 2.625 * USD })
    const refused = refusal(key)
    if (!refused) throw new Error('nothing was refused')
    expect(refused.status).toBe(429)
    expect(refused.retryAfterSecs).toBe(12 * 3_600)
    expect(refused.isFinal).toBe(true)
    expect(openAiEnvelope(refused)).toEqual({
      error: {
        message:
          'budget "search team" is used up for this day: it begins again at 2026-03-12T00:00:00Z, or when the operator of this gateway raises it',
        type: 'billing_error',
        code: 'budget_exceeded',
        scope: 'team',
        scope_ref: 'search',
        limit_usd: 2.5,
        spent_usd: 2.625,
        period: 'day',
        period_resets_at: '2026-03-12T00:00:00Z',
        retry_after_seconds: 43_200,
      },
    })
  })

  test('of `total` names no time, and SDKs are told not to come back', async () => {
    const key = await bench.caller('sk-1')
    await bench.add({ name: 'trial', limit_tokens: 10, period: 'total' })
    const { charge, refusal } = await bench.gateway()
    charge(labelsOf(key), { tokens: 12 })
    const refused = refusal(key)
    if (!refused) throw new Error('nothing was refused')
    expect(refused.retryAfterSecs).toBeUndefined()
    expect(refused.isFinal).toBe(true)
    expect(openAiEnvelope(refused).error).toEqual({
      message: 'budget "trial" is used up for good: it lasts until the operator of this gateway raises it',
      type: 'billing_error',
      code: 'budget_exceeded',
      scope: 'all',
      limit_tokens: 10,
      spent_tokens: 12,
      period: 'total',
    })
  })

  test('leaves SDKs to come back where the wait is a minute at most', async () => {
    const key = await bench.caller('sk-1')
    await bench.add({ limit_tokens: 1, period: 'day' })
    const { charge, refusal } = await bench.gateway()
    bench.clock.advance(12 * 3_600_000 - 60_000)
    charge(labelsOf(key), { tokens: 1 })
    expect([refusal(key)?.retryAfterSecs, refusal(key)?.isFinal]).toEqual([60, false])
    bench.clock.advance(59_999)
    expect(refusal(key)?.retryAfterSecs).toBe(1)
    bench.clock.advance(1)
    expect(refusal(key)).toBeUndefined()
  })

  test('is of the budget that is free again last', async () => {
    const key = await bench.caller('sk-1', { team_id: 't', user_id: 'u' })
    await bench.add({ name: 'month', scope: 'team', scope_ref: 't', limit_tokens: 1, period: 'month' })
    await bench.add({ name: 'day', scope: 'user', scope_ref: 'u', limit_tokens: 1, period: 'day' })
    const { charge, refusal } = await bench.gateway()
    charge(labelsOf(key), { tokens: 1 })
    expect(refusal(key)?.budget?.period).toBe('month')
    const model = await bench.add({ name: 'ever', scope: 'model', scope_ref: 'model-1', limit_tokens: 1, period: 'total' })
    charge(labelsOf(key), { tokens: 1 })
    expect(refusal(key)?.budget?.period).toBe('total')
    await bench.store.remove('budgets', model.id, ACTOR)
    expect(refusal(key)?.budget?.period).toBe('month')
  })

  test('counts as rejected, of a member only when the caller is told', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ name: 'b "1"', scope: 'model', scope_ref: 'model-1', limit_tokens: 1 })
    const { budgets, registry, charge, refusal } = await bench.gateway()
    const rejections = () => registry.series('aisix_budget_rejections_total', [id, 'b "1"', 'model']).value
    charge(labelsOf(key), { tokens: 1 })
    refusal(key)
    expect(rejections()).toBe(1)
    const ofMember = budgets.memberRefusal(bench.store.snapshot, 'model-1', NOON)
    if (!ofMember) throw new Error('nothing was refused')
    expect(rejections()).toBe(1)
    budgets.reject(ofMember)
    expect(rejections()).toBe(2)
  })

  test('shows control characters of a name escaped', async () => {
    const key = await bench.caller('sk-1')
    await bench.add({ name: 'a\u0000b', limit_tokens: 1 })
    const { charge, refusal } = await bench.gateway()
    charge(labelsOf(key), { tokens: 1 })
    expect(refusal(key)?.message).toStartWith('budget "a\\u0000b" is used up')
  })
})

describe('periods', () => {
  test('spending starts at zero at midnight of the zone, while requests go on', async () => {
    const key = await bench.caller('sk-1')
    const tokyo = await bench.add({ name: 'tokyo', limit_tokens: 10_000, period: 'day', timezone: 'Asia/Tokyo' })
    const utc = await bench.add({ name: 'utc', limit_tokens: 10_000, period: 'day' })
    const { charge, status, budgets } = await bench.gateway()
    // From 12:00 UTC, 21:00 in Tokyo, for 24 hours: a token a minute.
    for (let minute = 0; minute < 24 * 60; minute += 1) {
      charge(labelsOf(key), { tokens: 1 })
      bench.clock.advance(60_000)
    }
    expect(status(tokyo.id).spent_tokens).toBe(21 * 60)
    expect(status(utc.id).spent_tokens).toBe(12 * 60)
    expect(status(tokyo.id)).toMatchObject({
      period_started_at: '2026-03-11T15:00:00Z',
      period_resets_at: '2026-03-12T15:00:00Z',
    })
    await budgets.flush()
    expect(await budgets.history(bench.store.snapshot, tokyo.id, bench.clock.now())).toEqual([
      { period_started_at: '2026-03-10T15:00:00Z', period_ended_at: '2026-03-11T15:00:00Z', spent_usd: 0, spent_tokens: 180 },
    ])
  })

  test('an attempt is booked in the period in which it ended, though it settles in the next', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 100, period: 'day' })
    const { charge, status, budgets, refusal } = await bench.gateway()
    bench.clock.advance(12 * 3_600_000)
    expect(refusal(key)).toBeUndefined()
    charge(labelsOf(key), { tokens: 100, atMs: bench.clock.now() - 1 })
    charge(labelsOf(key), { tokens: 7 })
    expect(status(id).spent_tokens).toBe(7)
    await budgets.flush()
    expect((await budgets.history(bench.store.snapshot, id, bench.clock.now()))?.map(each => each.spent_tokens)).toEqual([100])
  })

  test('a clock that steps back finds what was spent then, and forwards what was spent since', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 100, period: 'day' })
    const { charge, status, refusal, budgets } = await bench.gateway()
    charge(labelsOf(key), { tokens: 100 })
    for (let day = 1; day <= 5; day += 1) {
      bench.clock.advance(DAY_MS)
      charge(labelsOf(key), { tokens: day })
    }
    await budgets.flush()
    bench.clock.advance(-5 * DAY_MS)
    // Memory has let go of that day: the file has not.
    status(id)
    await budgets.flush()
    expect(refusal(key)).toBeDefined()
    charge(labelsOf(key), { tokens: 1 })
    expect(status(id).spent_tokens).toBe(101)
    bench.clock.advance(5 * DAY_MS)
    charge(labelsOf(key), { tokens: 1 })
    expect(status(id).spent_tokens).toBe(6)
    await budgets.flush()
    expect((await budgets.history(bench.store.snapshot, id, bench.clock.now()))?.map(each => each.spent_tokens)).toEqual([
      4, 3, 2, 1, 101,
    ])
  })

  test('a clock that stays behind is no reason to look for the period at every request', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 100, period: 'day' })
    const { charge, status } = await bench.gateway()
    bench.clock.advance(10 * DAY_MS)
    for (let day = 0; day < 10; day += 1) {
      bench.clock.advance(-DAY_MS)
      charge(labelsOf(key), { tokens: 2 })
      charge(labelsOf(key), { tokens: 3 })
      expect(status(id).spent_tokens).toBe(5)
    }
  })
})

describe('configuration', () => {
  test('a budget that is written while requests run counts from then on', async () => {
    const key = await bench.caller('sk-1')
    const { charge, refusal, status } = await bench.gateway()
    charge(labelsOf(key), { tokens: 50 })
    expect(refusal(key)).toBeUndefined()
    expect(existsSync(bench.path)).toBe(false)
    const { id } = await bench.add({ limit_tokens: 10 })
    charge(labelsOf(key), { tokens: 10 })
    expect(status(id).spent_tokens).toBe(10)
    expect(refusal(key)).toBeDefined()
  })

  test('name, limits, action and marks can be edited: what is spent stays', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 10 })
    const { charge, refusal, status } = await bench.gateway()
    charge(labelsOf(key), { tokens: 10 })
    expect(refusal(key)).toBeDefined()
    await bench.edit(id, { name: 'c', limit_tokens: 11, warn_at: [50] })
    expect(refusal(key)).toBeUndefined()
    expect(status(id)).toMatchObject({ name: 'c', spent_tokens: 10, remaining_tokens: 1 })
    await bench.edit(id, { limit_usd: 1, limit_tokens: 5, action: 'warn' })
    expect(refusal(key)).toBeUndefined()
    await bench.edit(id, { limit_tokens: 5 })
    expect(refusal(key)).toBeDefined()
  })

  test('what is counted can be changed: it starts at zero, and goes on where it was when it is changed back', async () => {
    const key = await bench.caller('sk-1', { team_id: 't' })
    const { id } = await bench.add({ limit_tokens: 10 })
    const { budgets, charge, status } = await bench.gateway()
    charge(labelsOf(key), { tokens: 4 })
    for (const change of [{ scope: 'team', scope_ref: 't' }, { period: 'day' }, { timezone: 'Asia/Tokyo' }]) {
      await bench.edit(id, { limit_tokens: 10, ...change })
      expect(status(id).spent_tokens).toBe(0)
      charge(labelsOf(key), { tokens: 1 })
      expect(status(id).spent_tokens).toBe(1)
    }
    await bench.edit(id, { limit_tokens: 10 })
    status(id)
    await budgets.flush()
    expect(status(id).spent_tokens).toBe(4)
  })

  test('a request that began before a budget was deleted is still judged by it; one after it is not', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 1 })
    const { budgets, charge, refusal } = await bench.gateway()
    charge(labelsOf(key), { tokens: 1 })
    const before = bench.store.snapshot
    await bench.store.remove('budgets', id, ACTOR)
    expect(refusal(key)).toBeUndefined()
    expect(budgets.refusal(before, key, 'model-1', NOON)).toBeDefined()
    expect(budgets.status(bench.store.snapshot, id, NOON)).toBeUndefined()
    await bench.add({ limit_tokens: 1 })
    expect(refusal(key)).toBeUndefined()
  })

  test('what an attempt used of a budget that is gone is no longer told, and nothing breaks', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 5, warn_at: [50] })
    const { budgets, charge, warnings } = await bench.gateway()
    charge(labelsOf(key), { tokens: 3 })
    await bench.store.remove('budgets', id, ACTOR)
    expect(await budgets.flush()).toBe(true)
    expect(warnings()).toEqual([])
    const row = bench.connect().query('SELECT tokens FROM spend WHERE budget_id = ?').get(id)
    expect(row).toEqual({ tokens: 3 })
  })
})

describe('warnings', () => {
  test('each mark is told once a period: a log line, a count, an entry of the status', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ name: 'search', limit_usd: 10, warn_at: [95, 80, 80], period: 'day' })
    const { budgets, registry, charge, status, warnings } = await bench.gateway()
    const count = (percent: string) => registry.series('aisix_budget_warnings_total', [id, 'search', percent]).value
    charge(labelsOf(key), { pico: 7.99 * USD })
    await budgets.flush()
    expect(warnings()).toEqual([])
    charge(labelsOf(key), { pico: 0.01 * USD, tokens: 3 })
    await budgets.flush()
    charge(labelsOf(key), { pico: 0.01 * USD })
    await budgets.flush()
    expect(warnings()).toHaveLength(1)
    expect(warnings()[0]).toEndWith(
      `WARN budgets: budget warning budget="search" budget_id="${id}" percent=80 spent="8 USD" limit="10 USD"`,
    )
    expect([count('80'), count('95')]).toEqual([1, 0])
    expect(status(id)).toMatchObject({
      state: 'warning',
      warnings: [{ at_percent: 80, warned_at: '2026-03-11T12:00:00Z', spent_usd: 8, spent_tokens: 4 }],
    })
    charge(labelsOf(key), { pico: 2 * USD })
    await budgets.flush()
    expect(warnings()).toHaveLength(2)
    expect(status(id).warnings.map(each => each.at_percent)).toEqual([80, 95])

    bench.clock.advance(DAY_MS)
    expect(status(id)).toMatchObject({ state: 'ok', warnings: [] })
    charge(labelsOf(key), { pico: 8 * USD })
    await budgets.flush()
    expect(warnings()).toHaveLength(3)
    expect(count('80')).toBe(2)
  })

  test('of two limits the nearer one is told; action `warn` tells of the limit itself too', async () => {
    const key = await bench.caller('sk-1')
    await bench.add({ name: 'w', limit_usd: 10, limit_tokens: 1_000, warn_at: [50], action: 'warn' })
    const { budgets, charge, warnings } = await bench.gateway()
    charge(labelsOf(key), { pico: USD, tokens: 500 })
    await budgets.flush()
    expect(warnings()[0]).toContain('percent=50 spent="500 tokens" limit="1000 tokens"')
    charge(labelsOf(key), { pico: 9 * USD })
    await budgets.flush()
    expect(warnings()).toHaveLength(2)
    expect(warnings()[1]).toContain('percent=100 spent="10 USD" limit="10 USD"')
  })

  test('a limit that is lowered below what is spent is warned of at once', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 100, warn_at: [80] })
    const { budgets, charge, status, warnings } = await bench.gateway()
    charge(labelsOf(key), { tokens: 40 })
    await bench.edit(id, { limit_tokens: 50, warn_at: [80] })
    status(id)
    await budgets.flush()
    expect(warnings()).toHaveLength(1)
  })

  test('neither lines nor errors hold a credential', async () => {
    const key = await bench.caller('sk-very-secret', { team_id: 't' })
    await bench.add({ scope: 'api_key', scope_ref: key.entry.id, limit_tokens: 1, warn_at: [1] })
    const { budgets, lines, charge, refusal } = await bench.gateway()
    charge(labelsOf(key), { tokens: 1 })
    await budgets.flush()
    const all = `${lines.join('\n')}${JSON.stringify(openAiEnvelope(refusal(key) ?? (new Error() as never)))}`
    expect(lines.length).toBeGreaterThan(0)
    expect(all).not.toContain('sk-very-secret')
    expect(all).not.toContain(key.entry.value.key_hash)
  })
})

describe('gauges', () => {
  test('tell of every budget as it stands, with the labels of what it is for', async () => {
    const key = await bench.caller('sk-1', { team_id: 't' })
    const team = await bench.add({ name: 'team', scope: 'team', scope_ref: 't', limit_usd: 10, period: 'day' })
    const tokens = await bench.add({
      name: 'tokens',
      scope: 'api_key',
      scope_ref: key.entry.id,
      limit_tokens: 10,
      period: 'total',
    })
    const { budgets, registry, charge } = await bench.gateway()
    charge(labelsOf(key), { pico: 2.5 * USD, tokens: 10 })
    budgets.collect(registry, bench.store.snapshot, NOON)
    const page = registry.render()
    const labels = (id: string, name: string, scope: string, keyId: string, teamId: string) =>
      `{budget_id="${id}",budget="${name}",scope="${scope}",api_key_id="${keyId}",team_id="${teamId}",user_id="unknown"}`
    const ofTeam = labels(team.id, 'team', 'team', 'unknown', 't')
    const ofKey = labels(tokens.id, 'tokens', 'api_key', key.entry.id, 'unknown')
    for (const line of [
      `aisix_budget_limit_usd${ofTeam} 10`,
      `aisix_budget_spent_usd${ofTeam} 2.5`,
      `aisix_budget_remaining_usd${ofTeam} 7.5`,
      `aisix_budget_reset_seconds${ofTeam} 43200`,
      `aisix_budget_details_present${ofTeam} 1`,
      `aisix_budget_spent_usd${ofKey} 2.5`,
      `aisix_budget_details_present${ofKey} 0`,
    ]) {
      expect(page).toContain(`\n${line}\n`)
    }
    expect(page).not.toContain(`aisix_budget_limit_usd${ofKey}`)
    expect(page).not.toContain(`aisix_budget_reset_seconds${ofKey}`)
  })

  test('and counters of a budget that is deleted go with it', async () => {
    const key = await bench.caller('sk-1')
    const { id } = await bench.add({ limit_tokens: 1, action: 'block' })
    const { budgets, registry, charge, refusal } = await bench.gateway()
    charge(labelsOf(key), { tokens: 1 })
    refusal(key)
    budgets.collect(registry, bench.store.snapshot, NOON)
    expect(registry.render()).toContain(id)
    await bench.store.remove('budgets', id, ACTOR)
    budgets.collect(registry, bench.store.snapshot, NOON)
    expect(registry.render()).not.toContain(id)
  })
})

describe('many', () => {
  test('10,000 budgets: a request looks at its own alone', async () => {
    const key = await bench.caller('sk-1', { team_id: 'team-77' })
    const rows = new Map(
      Array.from({ length: 10_000 }, (_, index): [string, Entry<'budgets'>] => {
        const value = budget({ name: `b${index}`, scope: 'team', scope_ref: `team-${index}`, limit_tokens: 1_000_000 })
        return [`id-${index}`, { id: `id-${index}`, value, revision: 1 }]
      }),
    )
    const { snapshot } = bench.store
    const store = { snapshot: { ...snapshot, entries: { ...snapshot.entries, budgets: rows } } }
    const { charge, budgets } = await bench.gateway({ store })
    const refusal = () => budgets.refusal(store.snapshot, key, 'model-1', NOON)
    const asked: string[] = []
    // Whoever walked through all budgets would ask the map of rows.
    for (const name of ['values', 'entries', 'forEach', 'keys'] as const) {
      Object.defineProperty(rows, name, { value: () => asked.push(name) })
    }
    for (let request = 0; request < 1_000; request += 1) {
      charge(labelsOf(key), { tokens: 1 })
      expect(refusal()).toBeUndefined()
    }
    expect(asked).toEqual([])
    await budgets.flush()
    expect(bench.connect().query('SELECT count(*) AS rows, sum(tokens) AS tokens FROM spend').get()).toEqual({
      rows: 1,
      tokens: 1_000,
    })
  })

  test('the file is there from the first budget on, and only its owner may read it', async () => {
    await bench.gateway()
    expect(existsSync(bench.path)).toBe(false)
    await bench.add({ limit_tokens: 1 })
    const { budgets } = await bench.gateway()
    expect(await budgets.flush()).toBe(true)
    for (const suffix of ['', '-wal', '-shm']) expect(statSync(bench.path + suffix).mode & 0o777).toBe(0o600)
  })
})
