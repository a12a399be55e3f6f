/** The usage API over the ledger that gateways have: what it answers is what a plain sum over the same records gives. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { RequestsResponse, UsageResponse } from '../../src/admin/usage-schema.ts'
import { systemClock } from '../../src/gateway.ts'
import { createLedger, type SqliteLedger } from '../../src/ledger/sqlite-ledger.ts'
import { silentLog } from '../../src/lib/log.ts'
import type { UsageRecord } from '../../src/telemetry/usage-record.ts'
import { testRegistry } from '../telemetry.ts'
import { type Harness, openAdmin } from './harness.ts'
import { memoryLedger, usageRecord } from './memory-ledger.ts'

const RECORDS = 2_000
const HOUR_MS = 3_600_000

/** The same numbers each time. */
function pseudoRandom(): (below: number) => number {
  let state = 42
  return below => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    return Math.floor((state / 2 ** 31) * below)
  }
}

function mixedRecords(nowMs: number): UsageRecord[] {
  const random = pseudoRandom()
  const labels = Array.from({ length: 30 }, (_, index) => ({
    apiKeyId: index % 7 === 0 ? '' : `key-${index % 7}`,
    modelId: `model-${index % 3}`,
    model: `alias-${index % 3}`,
    providerKeyId: index % 2 === 0 ? `pk-${index % 4}` : '',
    providerKeyName: index % 2 === 0 ? `server ${index % 4}` : '',
    teamId: index % 5 === 0 ? '' : `team-${index % 5}`,
    userId: `user-${index % 6}`,
    userName: `User ${index % 6}`,
  }))
  return Array.from({ length: RECORDS }, (_, index) => {
    const isTerminal = random(5) > 0
    return usageRecord({
      labels: labels[random(labels.length)] ?? {},
      requestId: `request-${index}`,
      occurredAtMs: nowMs - random(72 * HOUR_MS),
      status: [200, 200, 200, 429, 499, 500, 503][random(7)] ?? 200,
      promptTokens: random(3) === 0 ? 0 : random(100_000),
      completionTokens: random(10_000),
      cachedTokens: random(100),
      reasoningTokens: random(100),
      costPico: random(4) === 0 ? Number.MAX_SAFE_INTEGER : random(2 ** 30),
      isEstimated: random(4) === 0,
      isPriced: random(4) > 0,
      isStream: random(2) === 0,
      totalMs: isTerminal ? random(700_000) : undefined,
      upstreamTtftMs: random(3) === 0 ? undefined : random(400_000),
      downstreamMs: isTerminal ? random(400_000) : undefined,
      isTerminal,
    })
  })
}

let folder: string
let ledger: SqliteLedger
let stored: Harness
let plain: Harness

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'aisix-usage-'))
  const nowMs = Date.now()
  const path = join(folder, 'usage.db')
  const bounds = { retentionDays: 30, bytesMax: 64 * 1024 * 1024 }
  ledger = createLedger({ path, ...bounds, log: silentLog, registry: testRegistry(), clock: systemClock })
  const inMemory = memoryLedger()
  stored = openAdmin({ ledger, clock: { now: () => nowMs, monotonic: () => 0 } })
  plain = openAdmin({ ledger: inMemory, clock: { now: () => nowMs, monotonic: () => 0 } })
  for (const record of mixedRecords(nowMs)) {
    ledger.record(record)
    inMemory.record(record)
  }
})
afterAll(async () => {
  await ledger.close()
  rmSync(folder, { recursive: true, force: true })
})

async function both(path: string) {
  const [is, shouldBe] = await Promise.all([stored.call('GET', path), plain.call('GET', path)])
  expect([is.status, shouldBe.status]).toEqual([200, 200])
  return [is, shouldBe] as const
}

describe('sums', () => {
  test.each([
    '',
    'group_by=day',
    'group_by=hour',
    'group_by=api_key',
    'group_by=model,provider_key',
    'group_by=team,user',
    'group_by=day,model,api_key,provider_key,team,user',
    'group_by=hour,model&status=4xx,5xx',
    'group_by=model&api_key=key-1,key-2',
    'group_by=model&api_key=',
    'group_by=user&team=team-1&model=model-0,model-2&status=2xx',
    'group_by=provider_key&provider_key=',
    'model=nothing',
  ])('%j are those of the records, over any time', async query => {
    const times = ['', `from=${Math.floor(Date.now() / 1000) - 80 * 3600}`, `from=${Math.floor(Date.now() / 1000) - 50 * 3600}`]
    for (const time of times) {
      const [is, shouldBe] = await both(`/admin/v1/usage?${[query, time].filter(Boolean).join('&')}`)
      expect(UsageResponse.parse(is.body)).toEqual(UsageResponse.parse(shouldBe.body))
    }
  })

  test('of all records are there to the last token and picodollar', async () => {
    const [{ body }] = await both(`/admin/v1/usage?from=${Math.floor(Date.now() / 1000) - 80 * 3600}`)
    expect(UsageResponse.parse(body).totals.attempts).toBe(RECORDS)
  })

  test('make the same table', async () => {
    const [is, shouldBe] = await both('/admin/v1/usage?format=csv&group_by=day,model,user')
    expect(is.text).toBe(shouldBe.text)
    expect(is.text.split('\r\n').length).toBeGreaterThan(10)
  })
})

describe('single attempts', () => {
  const page = async (admin: Harness, query: string) =>
    RequestsResponse.parse((await admin.call('GET', `/admin/v1/requests?${query}`)).body)

  /** Ids of all pages. */
  async function walk(admin: Harness, query: string, by: 'cursor' | 'after', from: string | undefined): Promise<string[]> {
    const ids: string[] = []
    let at = from
    for (let pages = 0; pages < 1_000; pages++) {
      const answer = await page(admin, at === undefined ? query : `${query}&${by}=${at}`)
      ids.push(...answer.attempts.map(({ request_id }) => request_id))
      if (answer.next_cursor === null) return ids
      at = answer.next_cursor
    }
    throw new Error('expected an end of the pages')
  }

  test.each([
    'limit=1000',
    'limit=77&failed=true',
    'limit=50&status=429',
    'limit=50&status=5xx&model=model-1',
    'limit=3&api_key=key-3&status=503',
  ])('%s are told newest first, each once', async query => {
    const expected = await walk(plain, query, 'cursor', undefined)
    expect(expected.length).toBeGreaterThan(10)
    expect(await walk(stored, query, 'cursor', undefined)).toEqual(expected)
  })

  test('are told oldest first after a cursor, and a tail goes on where it ended', async () => {
    const oldest = await walk(stored, 'limit=1000', 'cursor', undefined)
    const { cursor } = await page(stored, 'limit=1')
    expect(await walk(stored, 'limit=300', 'after', 'r0')).toEqual(oldest.toReversed())
    expect(await page(stored, `after=${cursor}`)).toEqual({ attempts: [], next_cursor: null, cursor })
    // The other tests count what is there.
    const late = usageRecord({
      requestId: 'late',
      occurredAtMs: 0,
      isTerminal: false,
      promptTokens: 0,
      completionTokens: 0,
      costPico: 0,
    })
    ledger.record(late)
    const after = await page(stored, `after=${cursor}`)
    expect(after.attempts.map(({ request_id }) => request_id)).toEqual(['late'])
    expect((await page(stored, `after=${after.cursor}`)).attempts).toEqual([])
  })

  test('of one request are found by its id', async () => {
    const { body } = await stored.call('GET', '/admin/v1/requests/request-17')
    const plainly = await plain.call('GET', '/admin/v1/requests/request-17')
    expect(body).toEqual(plainly.body)
    expect((await stored.call('GET', '/admin/v1/requests/request-unknown')).status).toBe(404)
  })
})
