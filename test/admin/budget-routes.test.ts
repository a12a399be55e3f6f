import { afterEach, beforeEach, expect, test } from 'bun:test'
import { budgetRoutes } from '../../src/admin/budget-routes.ts'
import { openApiDocument } from '../../src/admin/openapi.ts'
import { PICO_PER_USD } from '../../src/pricing/price.ts'
import { labelsOf, workbench } from '../budgets/bench.ts'
import { type Answer, budget, entryOf, messageOf, openAdmin } from './harness.ts'
import { misfits } from './json-schema.ts'

const USD = Number(PICO_PER_USD)
const DAY_MS = 86_400_000

let bench: ReturnType<typeof workbench>
beforeEach(() => {
  bench = workbench()
})
afterEach(() => bench.clean())

/** The admin API over real budgets, and every answer held to its description. */
async function open(path = bench.path) {
  const { store, clock } = bench
  const gateway = await bench.gateway({ path })
  const { budgets } = gateway
  const admin = openAdmin({ store, clock, budgets })
  const { paths, components } = openApiDocument(budgetRoutes({ store, clock, budgets }))
  const get = async (path: string, template = path): Promise<Answer> => {
    const answer = await admin.call('GET', path)
    const schema = paths[template]?.get?.responses[answer.status]?.content?.['application/json']?.schema
    expect(misfits(components.schemas, schema, answer.body)).toEqual([])
    return answer
  }
  return { ...gateway, admin, get, one: (id: string) => get(`/admin/v1/budgets/${id}/status`, '/admin/v1/budgets/{id}/status') }
}

test('a budget that nobody has used stands at zero', async () => {
  const { admin, one } = await open()
  const { id } = entryOf(
    await admin.call('POST', '/admin/v1/budgets', budget({ scope: 'all', scope_ref: undefined, limit_tokens: 7 })),
  )
  expect((await one(id)).body).toEqual({
    id,
    name: 'search team',
    state: 'ok',
    action: 'block',
    scope: 'all',
    period: 'month',
    period_started_at: '2026-03-01T00:00:00Z',
    period_resets_at: '2026-04-01T00:00:00Z',
    limit_usd: 250,
    spent_usd: 0,
    remaining_usd: 250,
    limit_tokens: 7,
    spent_tokens: 0,
    remaining_tokens: 7,
    used_percent: 0,
    warnings: [],
    history: [],
  })
})

test('tells what is spent, what was warned of, and the periods before', async () => {
  const key = await bench.caller('sk-1', { team_id: 'search' })
  const { id } = await bench.add({ name: 'b', scope: 'team', scope_ref: 'search', limit_usd: 2, period: 'day', warn_at: [50] })
  const { budgets, charge, one } = await open()
  charge(labelsOf(key), { pico: 3 * USD, tokens: 30 })
  bench.clock.advance(DAY_MS)
  charge(labelsOf(key), { pico: USD, tokens: 10 })
  await budgets.flush()
  expect((await one(id)).body).toEqual({
    id,
    name: 'b',
    state: 'warning',
    action: 'block',
    scope: 'team',
    scope_ref: 'search',
    period: 'day',
    period_started_at: '2026-03-12T00:00:00Z',
    period_resets_at: '2026-03-13T00:00:00Z',
    limit_usd: 2,
    spent_usd: 1,
    remaining_usd: 1,
    spent_tokens: 10,
    used_percent: 50,
    warnings: [{ at_percent: 50, warned_at: '2026-03-12T12:00:00Z', spent_usd: 1, spent_tokens: 10 }],
    history: [
      { period_started_at: '2026-03-11T00:00:00Z', period_ended_at: '2026-03-12T00:00:00Z', spent_usd: 3, spent_tokens: 30 },
    ],
  })
})

test('lists all budgets in the order of their creation; `total` has no times', async () => {
  const { get } = await open()
  expect((await get('/admin/v1/budgets/status')).body).toEqual([])
  for (const name of ['z', 'a']) await bench.add({ name, limit_tokens: 5, period: 'total' })
  const { body } = await get('/admin/v1/budgets/status')
  expect(body).toMatchObject([{ name: 'z' }, { name: 'a' }])
  expect(JSON.stringify(body)).not.toContain('period_')
})

test('an id that there is not answers 404, and nobody is told anything without an admin key', async () => {
  const { admin, one } = await open()
  const missing = await one('no-such-id')
  expect([missing.status, messageOf(missing)]).toEqual([404, 'resource not found'])
  for (const path of ['/admin/v1/budgets/status', '/admin/v1/budgets/x/status']) {
    expect((await admin.call('GET', path, undefined, {})).status).toBe(401)
    expect((await admin.call('POST', path, {})).status).toBe(405)
  }
})

test('while the file cannot be used the status comes from memory, without the periods before', async () => {
  const key = await bench.caller('sk-1')
  const { id } = await bench.add({ limit_tokens: 5 })
  const { charge, one } = await open(`${bench.folder}/not-there/budgets.db`)
  charge(labelsOf(key), { tokens: 3 })
  const { status, body } = await one(id)
  expect([status, body]).toMatchObject([200, { spent_tokens: 3, used_percent: 60 }])
  expect(body).not.toHaveProperty('history')
})
