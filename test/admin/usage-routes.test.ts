import { describe, expect, test } from 'bun:test'
import { InFlightResponse, RequestResponse, RequestsResponse, UsageResponse } from '../../src/admin/usage-schema.ts'
import { Exchange, openAttempt } from '../../src/exchange.ts'
import { disabledLedger } from '../../src/ledger/disabled-ledger.ts'
import { LedgerTooBusy, LedgerUnavailable, QuestionTooWide } from '../../src/ledger/ledger.ts'
import { endpointLabels } from '../../src/telemetry/endpoint-labels.ts'
import type { UsageRecord } from '../../src/telemetry/usage-record.ts'
import { testRegistry } from '../telemetry.ts'
import { apiKey, entryOf, messageOf, model, openAdmin, providerKey } from './harness.ts'
import { memoryLedger, usageRecord } from './memory-ledger.ts'

const NOW = '2026-11-01T10:20:30Z'

/** An admin listener at a fixed time over these records. */
function open(records: readonly UsageRecord[] = [], ledger = memoryLedger()) {
  const admin = openAdmin({ ledger })
  admin.clock.nowMs = Date.parse(NOW)
  for (const record of records) ledger.record(record)
  const get = async (path: string) => admin.call('GET', path)
  return {
    ...admin,
    ledger,
    get,
    usage: async (query = '') => {
      const answer = await get(`/admin/v1/usage${query}`)
      if (answer.status !== 200) throw new Error(answer.text)
      return UsageResponse.parse(answer.body)
    },
    requests: async (query = '') => {
      const answer = await get(`/admin/v1/requests${query}`)
      if (answer.status !== 200) throw new Error(answer.text)
      return RequestsResponse.parse(answer.body)
    },
  }
}

const at = (time: string) => ({ occurredAtMs: Date.parse(time) })

describe('the time of /admin/v1/usage', () => {
  const ranges: [string, string, string][] = [
    ['', '2026-10-31T10:00:00Z', '2026-11-01T11:00:00Z'],
    ['?from=2026-11-01', '2026-11-01T00:00:00Z', '2026-11-01T11:00:00Z'],
    ['?from=2026-10-01&to=2026-11-01', '2026-10-01T00:00:00Z', '2026-11-01T00:00:00Z'],
    ['?to=2026-11-01', '2026-10-31T00:00:00Z', '2026-11-01T00:00:00Z'],
    ['?from=2026-11-01T08:59:59.9Z&to=2026-11-01T09:00:00.001Z', '2026-11-01T08:00:00Z', '2026-11-01T10:00:00Z'],
    ['?from=2026-11-01T08:59:59%2B01:00', '2026-11-01T07:00:00Z', '2026-11-01T11:00:00Z'],
    ['?from=2026-11-01T08:59:59+01:00', '2026-11-01T07:00:00Z', '2026-11-01T11:00:00Z'],
    ['?from=2026-11-01t08:30:00z', '2026-11-01T08:00:00Z', '2026-11-01T11:00:00Z'],
    ['?from=1793520000', '2026-11-01T08:00:00Z', '2026-11-01T11:00:00Z'],
  ]
  test.each(ranges)('%j covers %s to %s', async (query, from, to) => {
    const admin = open()
    expect(await admin.usage(query)).toMatchObject({ from, to })
    expect(admin.ledger.asked).toMatchObject([{ fromMs: Date.parse(from), toMs: Date.parse(to) }])
  })

  test.each([
    // 35 days before 10:20:30 on 1 November are 10:20:30 on 27 September.
    ['?from=2026-09-27T11:30:00Z', '2026-09-27T11:00:00Z', '2026-11-01T11:00:00Z'],
    ['?from=2026-09-27T10:59:59Z', '2026-09-27T00:00:00Z', '2026-11-01T11:00:00Z'],
    ['?from=2026-09-01T07:00:00Z&to=2026-09-02T01:00:00Z&group_by=day', '2026-09-01T00:00:00Z', '2026-09-03T00:00:00Z'],
    ['?from=2026-09-01T07:00:00Z&to=2026-10-02T01:30:00Z', '2026-09-01T00:00:00Z', '2026-10-02T02:00:00Z'],
    ['?from=2026-09-20T07:00:00Z&to=2026-09-27T15:10:00Z', '2026-09-20T00:00:00Z', '2026-09-28T00:00:00Z'],
    ['?from=2026-09-27T09:00:00Z&to=2026-09-27T15:10:00Z', '2026-09-27T00:00:00Z', '2026-09-28T00:00:00Z'],
    ['?from=2026-09-27T12:00:00Z&to=2026-09-27T15:10:00Z', '2026-09-27T12:00:00Z', '2026-09-27T16:00:00Z'],
    ['?from=2020-01-01&to=2026-10-01', '2025-09-28T00:00:00Z', '2026-10-01T00:00:00Z'],
  ])('%j, of which single hours or days are no longer kept, covers %s to %s, and says so', async (query, from, to) => {
    const admin = open()
    expect(await admin.usage(query)).toMatchObject({ from, to })
    expect(admin.ledger.asked).toMatchObject([{ fromMs: Date.parse(from), toMs: Date.parse(to) }])
  })

  test.each([
    ['from=2026-09-27T10:00:00Z&group_by=hour', 'from: sums of single hours are kept for 35 days'],
    ['from=2020-01-01&to=2025-09-28', 'to: sums are kept for 400 days'],
    ['from=yesterday', 'from: expected a time such as'],
    ['from=2026-02-30', 'from: expected a time such as'],
    ['from=2026-11-01T24:30:00Z', 'from: expected a time such as'],
    ['from=2026-11-01T08:00:00', 'from: expected a time such as'],
    ['to=-5', 'to: expected a time such as'],
    ['to=99999999999999', 'to: expected a time such as'],
    // Rounded up it would have a year of five digits.
    ['to=9999-12-31T23:59:59Z', 'to: expected a time such as'],
    ['to=0000-01-01', 'to: expected a time such as'],
    ['to=', 'to: expected a time such as'],
    ['from=2026-11-02&to=2026-11-01', 'from: must be before `to`'],
    ['from=2026-11-01&to=2026-11-01', 'from: must be before `to`'],
    ['from=2027-01-01', 'from: must be before `to`, which is now where it is left out'],
    ['from=2026-10-01&from=2026-10-02', 'from: is given twice'],
    ['group_by=color', 'group_by: expected any of day, hour, api_key, model, provider_key, team, user'],
    ['group_by=', 'group_by: expected any of day'],
    ['group_by=day,hour', 'group_by: expected `day` or `hour`, not both'],
    ['format=xml', 'format: expected json or csv'],
    ['status=404', 'status: expected classes: 2xx'],
    ['status=6xx', 'status: expected classes: 2xx'],
    ['status=', 'status: expected classes: 2xx'],
    ['modle=x', 'modle: is no parameter; did you mean model? There are: from, to, group_by'],
    ['limit=5', 'limit: is no parameter; There are: from'],
  ])('%s is refused with the name of what is wrong, and nothing is asked', async (query, message) => {
    const admin = open()
    const answer = await admin.get(`/admin/v1/usage?${query}`)
    expect(answer.status).toBe(400)
    expect(messageOf(answer)).toStartWith(message)
    expect(admin.ledger.asked).toEqual([])
  })

  test('all that is wrong is told at once, and no value of it', async () => {
    const message = messageOf(await open().get('/admin/v1/usage?from=sk-secret&group_by=sk-secret&x=sk-secret'))
    for (const name of ['from: ', 'group_by: ', 'x: ']) expect(message).toContain(name)
    expect(message).not.toContain('sk-secret')
  })
})

describe('the sums of /admin/v1/usage', () => {
  const a = { apiKeyId: 'key-a', modelId: 'model-a', model: 'llama', teamId: 'search', userId: 'u1', userName: 'Ada' }
  const b = { apiKeyId: 'key-b', modelId: 'model-b', model: 'qwen', providerKeyId: 'pk', providerKeyName: 'vllm' }

  test('count requests once and attempts each, and cost is exact to the last digit', async () => {
    const admin = open([
      usageRecord({ labels: a, isTerminal: false, status: 503, promptTokens: 0, completionTokens: 0, costPico: 0 }),
      usageRecord({ labels: b, attemptIndex: 1, costPico: 9_007_199_254_740_991, cachedTokens: 4, reasoningTokens: 2 }),
      usageRecord({ labels: b, requestId: 'request-2', costPico: 9_007_199_254_740_991, isEstimated: true }),
      usageRecord({ labels: b, requestId: 'request-3', costPico: 0, isPriced: false, status: 499 }),
    ])
    const { totals, rows, group_by } = await admin.usage()
    expect(group_by).toEqual([])
    expect(rows).toEqual([totals])
    expect(totals).toEqual({
      requests: 3,
      attempts: 4,
      failed_requests: 1,
      prompt_tokens: 30,
      completion_tokens: 15,
      total_tokens: 45,
      cached_prompt_tokens: 4,
      reasoning_tokens: 2,
      estimated_requests: 1,
      estimated_tokens: 15,
      cost_usd: '18014.398509481982',
      unpriced_requests: 1,
      latency_ms: { p50: 75, p90: 95, p99: 100 },
      ttft_ms: { p50: null, p90: null, p99: null },
    })
  })

  test('are zero, and the quantiles null, where there are no records', async () => {
    const { rows, totals } = await open().usage('?group_by=model')
    expect(rows).toEqual([])
    expect(totals).toMatchObject({ requests: 0, cost_usd: '0', latency_ms: { p50: null, p90: null, p99: null } })
  })

  test('are grouped by what is asked for, in the order of time, then of names', async () => {
    const admin = open([
      usageRecord({ labels: b, ...at('2026-11-01T09:59:59Z') }),
      usageRecord({ labels: a, ...at('2026-11-01T09:00:00Z') }),
      usageRecord({ labels: b, ...at('2026-11-01T08:00:00Z') }),
      usageRecord({ labels: a, ...at('2026-10-31T23:59:59Z') }),
    ])
    const byHour = await admin.usage('?group_by=hour,model')
    expect(byHour.rows.map(row => [row.hour, row.model_id, row.model, row.requests])).toEqual([
      ['2026-10-31T23:00:00Z', 'model-a', 'llama', 1],
      ['2026-11-01T08:00:00Z', 'model-b', 'qwen', 1],
      ['2026-11-01T09:00:00Z', 'model-a', 'llama', 1],
      ['2026-11-01T09:00:00Z', 'model-b', 'qwen', 1],
    ])
    const byDay = await admin.usage('?group_by=day&group_by=user&group_by=team&group_by=provider_key&group_by=api_key')
    expect(byDay.group_by).toEqual(['day', 'user', 'team', 'provider_key', 'api_key'])
    expect(byDay.rows.map(row => [row.day, row.user_id, row.user_name, row.team_id])).toEqual([
      ['2026-10-31', 'u1', 'Ada', 'search'],
      ['2026-11-01', 'u1', 'Ada', 'search'],
      ['2026-11-01', '', null, ''],
    ])
    expect(byDay.rows.map(row => [row.provider_key_id, row.provider_key_name, row.api_key_id, row.requests])).toEqual([
      ['', null, 'key-a', 1],
      ['', null, 'key-a', 1],
      ['pk', 'vllm', 'key-b', 2],
    ])
    expect(byDay.totals.requests).toBe(4)
  })

  test('go by the present name of what still is, and by the last one of what is gone', async () => {
    const admin = open()
    const pk = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey({ display_name: 'renamed' })))
    const key = entryOf(await admin.call('POST', '/admin/v1/apikeys', apiKey({ display_name: 'frontend' })))
    admin.ledger.record(usageRecord({ labels: { ...b, providerKeyId: pk.id, providerKeyName: 'before', apiKeyId: key.id } }))
    const { rows } = await admin.usage('?group_by=provider_key,api_key,model')
    expect(rows).toMatchObject([{ provider_key_name: 'renamed', api_key_name: 'frontend', model: 'qwen' }])
  })

  test.each([
    ['team=search', { teamIds: ['search'] }],
    ['team=search,ads&team=', { teamIds: ['search', 'ads', ''] }],
    ['user=u1&user=u2', { userIds: ['u1', 'u2'] }],
    ['status=4xx,5xx', { statusClasses: ['4xx', '5xx'] }],
    ['model=gone', { modelIds: ['gone'] }],
    ['api_key=', { apiKeyIds: [''] }],
    ['', {}],
  ])('filtered by %j ask the ledger for just that', async (query, filter) => {
    const admin = open()
    await admin.usage(`?${query}`)
    expect(admin.ledger.asked).toEqual([expect.objectContaining({ filter })])
  })

  test('filtered by names ask for the ids that have them, and a name with a comma is one name', async () => {
    const admin = open()
    const pk = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey())).id
    const llama = entryOf(await admin.call('POST', '/admin/v1/models', model(pk))).id
    const keys = ['a, b', 'a, b', 'a'].map(async (display_name, index) => {
      const key_hash = String(index).repeat(64)
      return entryOf(await admin.call('POST', '/admin/v1/apikeys', apiKey({ display_name, key_hash }))).id
    })
    const [first = '', second = '', third = ''] = await Promise.all(keys)
    await admin.usage(`?model=llama-3-private,${llama},gone&provider_key=vllm-private&api_key=a,%20b&api_key=a`)
    expect(admin.ledger.asked).toEqual([
      expect.objectContaining({
        filter: { modelIds: [llama, 'gone'], providerKeyIds: [pk], apiKeyIds: [first, second, third] },
      }),
    ])
  })

  test('filtered by a team or user that holds a comma, as a caller key has it, ask for that one', async () => {
    const admin = open()
    await admin.call('POST', '/admin/v1/apikeys', apiKey({ team_id: 'search, ads', user_id: 'mia,leo' }))
    await admin.usage('?team=search,%20ads&team=search,ads&user=mia,leo')
    expect(admin.ledger.asked).toEqual([
      expect.objectContaining({ filter: { teamIds: ['search, ads', 'search', 'ads'], userIds: ['mia,leo'] } }),
    ])
  })

  test('of each group add up to the totals', async () => {
    const records = Array.from({ length: 200 }, (_, index) =>
      usageRecord({
        labels: index % 3 === 0 ? a : b,
        requestId: `request-${index}`,
        promptTokens: index,
        costPico: index * 7_777_777_777,
        totalMs: index * 10,
        isStream: index % 2 === 0,
        upstreamTtftMs: index * 2,
        downstreamMs: index * 3,
      }),
    )
    const admin = open(records)
    const { totals } = await admin.usage()
    for (const query of ['model', 'api_key,team', 'hour,user', 'day,model,provider_key']) {
      const grouped = await admin.usage(`?group_by=${query}`)
      expect(grouped.totals).toEqual(totals)
      expect(grouped.rows.reduce((sum, { prompt_tokens }) => sum + prompt_tokens, 0)).toBe(totals.prompt_tokens)
    }
  })
})

describe('the table of /admin/v1/usage', () => {
  test('has a line of names and the rows, is downloaded under the time that it covers, and quotes what must be', async () => {
    const labels = { modelId: 'm"1', model: 'one, "two"\nthree' }
    const admin = open([usageRecord({ labels, costPico: 250_000_000, isStream: true, upstreamTtftMs: 55, downstreamMs: 60 })])
    const answer = await admin.get('/admin/v1/usage?format=csv&group_by=day,model&from=2026-11-01')
    expect(answer.headers.get('content-type')).toBe('text/csv; charset=utf-8')
    expect(answer.headers.get('content-disposition')).toBe('attachment; filename="aisix-usage-20261101T0000Z-20261101T1100Z.csv"')
    expect(answer.text).toBe(
      [
        'day,model_id,model,requests,attempts,failed_requests,prompt_tokens,completion_tokens,total_tokens,',
        'cached_prompt_tokens,reasoning_tokens,estimated_requests,estimated_tokens,cost_usd,unpriced_requests,',
        'latency_p50_ms,latency_p90_ms,latency_p99_ms,ttft_p50_ms,ttft_p90_ms,ttft_p99_ms\r\n',
        '2026-11-01,"m""1","one, ""two""\nthree",1,1,0,10,5,15,0,0,0,0,0.00025,0,75,95,100,75,95,100\r\n',
      ].join(''),
    )
  })

  test.each(['=1+1', '+1', '-1', '@SUM(A1)', '\tx'])('names that begin like a formula, %j, are made plain text', async name => {
    const admin = open([usageRecord({ labels: { userId: 'u', userName: name } })])
    const { text } = await admin.get('/admin/v1/usage?format=csv&group_by=user')
    expect(text.split('\r\n')[1]).toStartWith(`u,'${name},1,`)
  })

  test('without records is its names alone', async () => {
    const { text } = await open().get('/admin/v1/usage?format=csv&group_by=hour')
    expect(text).toMatch(/^hour,requests,[^\r\n]*\r\n$/)
  })
})

describe('/admin/v1/requests', () => {
  const many = (length: number) =>
    Array.from({ length }, (_, index) => usageRecord({ requestId: `request-${index + 1}`, status: index % 4 === 3 ? 500 : 200 }))
  const ids = ({ attempts }: { attempts: { request_id: string }[] }) =>
    attempts.map(({ request_id }) => Number(request_id.slice('request-'.length)))

  test('answers newest first, page by page, each attempt once and none left out', async () => {
    const admin = open(many(7))
    const seen: number[] = []
    let page = await admin.requests('?limit=3')
    for (;;) {
      seen.push(...ids(page))
      if (page.next_cursor === null) break
      page = await admin.requests(`?limit=3&cursor=${page.next_cursor}`)
    }
    expect(seen).toEqual([7, 6, 5, 4, 3, 2, 1])
  })

  test('tells what arrives after a cursor, oldest first, and a cursor to go on with also when nothing is new', async () => {
    const admin = open()
    let { cursor, attempts } = await admin.requests()
    expect(attempts).toEqual([])
    const seen: number[][] = []
    for (const arriving of [0, 5, 0, 1]) {
      for (const record of many(arriving)) admin.ledger.record(record)
      for (;;) {
        const answer = await admin.requests(`?after=${cursor}&limit=2`)
        seen.push(ids(answer))
        cursor = answer.cursor
        if (answer.next_cursor === null) break
        expect(answer.next_cursor).toBe(answer.cursor)
      }
    }
    expect(seen).toEqual([[], [1, 2], [3, 4], [5], [], [1]])
  })

  test('a page of an answer is a cursor to tail from: nothing is told twice', async () => {
    const admin = open(many(3))
    const { cursor } = await admin.requests('?limit=1')
    admin.ledger.record(usageRecord({ requestId: 'request-9' }))
    expect(ids(await admin.requests(`?after=${cursor}`))).toEqual([9])
  })

  test('tells what few attempts have under the names that the reference describes, and of others nothing', async () => {
    const extra = {
      authType: 'anonymous',
      passthroughRoute: 'files',
      clientIdentity: 'ada',
      audioSeconds: 12.5,
      cacheReadTokens: 20_000,
      cacheCreationTokens: 1_000,
    } as const
    const admin = open([usageRecord({ requestId: 'plain' }), usageRecord({ requestId: 'rich', extra })])
    const members = {
      auth_type: 'anonymous',
      passthrough_route_name: 'files',
      client_identity: 'ada',
      audio_duration_seconds: 12.5,
      cache_read_tokens: 20_000,
      cache_creation_tokens: 1_000,
    }
    const { attempts } = await admin.requests()
    expect(attempts[0]).toMatchObject({ request_id: 'rich', ...members })
    expect(attempts[1]).not.toContainAnyKeys(Object.keys(members))
    expect((await admin.get('/admin/v1/requests/rich')).body).toMatchObject({ attempts: [members] })
    expect((await admin.requests('?request_id=rich')).attempts).toMatchObject([members])
    const tail = await admin.requests('?after=r1')
    expect(tail.attempts).toMatchObject([members])
    const document = (await admin.get('/admin/openapi.json')).text
    for (const name of Object.keys(members)) expect(document).toContain(`"${name}"`)
  })

  test('gives attempts as records of usage, each with its cursor', async () => {
    const labels = { apiKeyId: 'k', modelId: 'm', model: 'llama', name: 'group', isMember: true }
    const admin = open([usageRecord({ labels, errorClass: 'timeout', errorMessage: 'too slow', status: 504, costPico: 1 })])
    const { attempts } = await admin.requests()
    expect(attempts).toMatchObject([
      { request_id: 'request-1', occurred_at: '2026-11-01T08:30:00Z', status_code: 504, error_class: 'timeout', cost_usd: 1e-12 },
    ])
    expect(attempts).toMatchObject([{ attempt_model: 'llama', model_id: 'm', api_key_id: 'k', cursor: expect.any(String) }])
  })

  test.each([
    ['status=500', { status: 500 }],
    ['status=5xx', { status: '5xx' }],
    ['failed=true', { failedOnly: true }],
    ['failed=false', {}],
    ['model=m1,m2', { modelIds: ['m1', 'm2'] }],
    ['api_key=k', { apiKeyIds: ['k'] }],
    ['from=2026-11-01T08:00:01Z&to=1793520002', { fromMs: 1_793_520_001_000, toMs: 1_793_520_002_000 }],
    ['limit=1000', { limit: 1000 }],
  ])('%s asks the ledger for just that', async (query, question) => {
    const admin = open()
    await admin.requests(`?${query}`)
    expect(admin.ledger.asked).toEqual([{ limit: 100, ...question }])
  })

  test('the attempts of one request are filtered and paged like all others', async () => {
    const attempt = (attemptIndex: number, status: number) => usageRecord({ requestId: 'a/b', attemptIndex, status })
    const admin = open([attempt(0, 503), usageRecord(), attempt(1, 504), attempt(2, 200)])
    const indexes = (answer: RequestsAnswer) => answer.attempts.map(({ attempt_index }) => attempt_index)
    type RequestsAnswer = Awaited<ReturnType<typeof admin.requests>>
    const first = await admin.requests('?request_id=a/b&limit=2')
    expect(indexes(first)).toEqual([2, 1])
    expect(indexes(await admin.requests(`?request_id=a/b&limit=2&cursor=${first.next_cursor}`))).toEqual([0])
    expect(indexes(await admin.requests('?request_id=a/b&failed=true'))).toEqual([1, 0])
    expect(indexes(await admin.requests('?request_id=a/b&status=5xx'))).toEqual([1, 0])
    expect(indexes(await admin.requests('?request_id=a/b&status=503'))).toEqual([0])
    expect(indexes(await admin.requests('?request_id=a/b&model=other'))).toEqual([])
    const tail = await admin.requests(`?request_id=a/b&after=${first.cursor}`)
    expect([indexes(tail), tail.cursor]).toEqual([[], first.cursor])
    expect((await admin.requests('?request_id=unknown')).attempts).toEqual([])
  })

  test.each([
    ['limit=0', 'limit: expected a whole number from 1 to 1000'],
    ['limit=1001', 'limit: expected a whole number'],
    ['limit=1e2', 'limit: expected a whole number'],
    ['cursor=12', 'cursor: expected a cursor'],
    ['cursor=r00', 'cursor: expected a cursor'],
    ['after=', 'after: expected a cursor'],
    ['after=rzzzzzzzzzzz', 'after: expected a cursor'],
    ['after=r1&cursor=r2', 'after: cannot go together'],
    ['status=600', 'status: expected a status such as 429'],
    ['status=4XX', 'status: expected a status such as 429'],
    ['status=200&status=500', 'status: is given twice'],
    ['failed=yes', 'failed: expected true or false'],
    ['from=2026-11-02&to=2026-11-01', 'from: must be before `to`'],
    ['request_id=', 'request_id: must not be empty'],
    ['group_by=day', 'group_by: is no parameter'],
  ])('%s is refused with the name of what is wrong', async (query, message) => {
    const answer = await open().get(`/admin/v1/requests?${query}`)
    expect(answer.status).toBe(400)
    expect(messageOf(answer)).toStartWith(message)
  })
})

function exchangeOf(requestId: string, startedAt: number): Exchange {
  const path = '/v1/chat/completions'
  return new Exchange(requestId, 'POST', path, endpointLabels(path), () => '10.0.3.17', startedAt)
}

describe('/admin/v1/requests/{id}', () => {
  test('answers all attempts in their order', async () => {
    const admin = open([
      usageRecord({ isTerminal: false, status: 503 }),
      usageRecord({ attemptIndex: 1, attemptKind: 'fallback' }),
      usageRecord({ requestId: 'other' }),
    ])
    const answer = RequestResponse.parse((await admin.get('/admin/v1/requests/request-1')).body)
    expect(answer).toMatchObject({
      request_id: 'request-1',
      attempts: [
        { attempt_index: 0, status_code: 503 },
        { attempt_index: 1, attempt_kind: 'fallback' },
      ],
      in_flight: [],
    })
  })

  test.each(['a/b', 'a b', '100%', '%2F', 'a?b#c', '~!"$&\'()*+,;=:@[]{}|\\^`<>', 'constructor'])(
    'finds the id %j that a caller made up',
    async requestId => {
      const admin = open([usageRecord({ requestId })])
      const answer = await admin.get(`/admin/v1/requests/${encodeURIComponent(requestId)}`)
      expect(answer.body).toMatchObject({ request_id: requestId, attempts: [{ request_id: requestId }] })
    },
  )

  test('says of a request that is under way that it is, and what is known', async () => {
    const admin = open()
    const exchange = exchangeOf('running', admin.clock.nowMs - 500)
    admin.lifecycle.inFlight.add(exchange)
    const answer = RequestResponse.parse((await admin.get('/admin/v1/requests/running')).body)
    expect(answer).toMatchObject({ attempts: [], in_flight: [{ request_id: 'running', age_ms: 500 }] })
  })

  test('answers 404 to an unknown id, with why that may be', async () => {
    const answer = await open().get('/admin/v1/requests/unknown')
    expect(answer.status).toBe(404)
    expect(messageOf(answer)).toContain('`usage.retention_days`')
  })

  test('takes no parameters', async () => {
    expect((await open().get('/admin/v1/requests/unknown?limit=1')).status).toBe(400)
  })
})

describe('/admin/v1/in_flight', () => {
  test('tells what is being served, oldest first, and how many there are', async () => {
    const admin = open()
    const key = entryOf(await admin.call('POST', '/admin/v1/apikeys', apiKey({ display_name: 'frontend' })))
    const now = admin.clock.nowMs
    const [young, old] = [exchangeOf('young', now - 10), exchangeOf('old', now - 90_000)]
    for (const exchange of [young, old]) admin.lifecycle.inFlight.add(exchange)
    old.handler = 'chat'
    old.isStream = true
    old.requestedModel = 'group'
    old.labels = { ...old.labels, apiKeyId: key.id, modelId: 'm', model: 'llama', providerKeyId: 'pk', providerKeyName: 'vllm' }
    openAttempt(old, 'initial', undefined, now - 89_000)
    openAttempt(old, 'fallback', undefined, now - 80_000)
    old.firstByteAt = now - 1_000
    const answer = InFlightResponse.parse((await admin.get('/admin/v1/in_flight')).body)
    expect(answer.total).toBe(2)
    expect(answer.in_flight).toEqual([
      {
        request_id: 'old',
        started_at: '2026-11-01T10:19:00.000Z',
        age_ms: 90_000,
        method: 'POST',
        path: '/v1/chat/completions',
        handler: 'chat',
        api_key_id: key.id,
        api_key_name: 'frontend',
        requested_model: 'group',
        model_id: 'm',
        model: 'llama',
        provider_key_id: 'pk',
        provider_key_name: 'vllm',
        attempts: 2,
        stream: true,
        first_byte_at: '2026-11-01T10:20:29.000Z',
        client_source_ip: '10.0.3.17',
      },
      expect.objectContaining({ request_id: 'young', handler: null, api_key_id: null, model: null, first_byte_at: null }),
    ])
    const limited = InFlightResponse.parse((await admin.get('/admin/v1/in_flight?limit=1')).body)
    expect([limited.total, limited.in_flight.map(({ request_id }) => request_id)]).toEqual([2, ['old']])
  })

  test('is answered while the ledger is down', async () => {
    const ledger = memoryLedger()
    ledger.failure = new LedgerUnavailable('usage.db is gone')
    expect((await open([], ledger).get('/admin/v1/in_flight')).body).toEqual({ total: 0, in_flight: [] })
  })

  test.each(['limit=0', 'limit=x', 'cursor=r1'])('%s is refused', async query => {
    expect((await open().get(`/admin/v1/in_flight?${query}`)).status).toBe(400)
  })
})

describe('a ledger that cannot answer', () => {
  const paths = ['/admin/v1/usage', '/admin/v1/requests', '/admin/v1/requests?request_id=x', '/admin/v1/requests/x']

  test.each(paths)('%s is 503 where usage is switched off, and says so', async path => {
    const answer = await openAdmin({ ledger: disabledLedger({ registry: testRegistry() }) }).call('GET', path)
    expect(answer.status).toBe(503)
    expect(messageOf(answer)).toContain('usage.enabled')
  })

  test.each(paths)('%s is 503 with its words where it is not available, and 400 where the question is too wide', async path => {
    const admin = open()
    admin.ledger.failure = new LedgerUnavailable('usage.db is gone: restart the gateway')
    const gone = await admin.get(path)
    expect([gone.status, messageOf(gone)]).toEqual([503, 'usage.db is gone: restart the gateway'])
    admin.ledger.failure = new LedgerTooBusy('too many questions wait: ask again')
    const busy = await admin.get(path)
    expect([busy.status, messageOf(busy)]).toEqual([503, 'too many questions wait: ask again'])
    admin.ledger.failure = new QuestionTooWide('from: more than 100,000 rows')
    const wide = await admin.get(path)
    expect([wide.status, messageOf(wide)]).toEqual([400, 'from: more than 100,000 rows'])
  })

  test.each(paths)('%s does not tell of failures that nobody foresaw', async path => {
    const admin = open()
    admin.ledger.failure = new Error('sk-secret')
    const answer = await admin.get(path)
    expect(answer.status).toBe(500)
    expect(answer.text).not.toContain('sk-secret')
  })
})

test.each(['usage', 'requests', 'requests/x', 'in_flight'])('/admin/v1/%s asks for an admin key', async path => {
  expect((await openAdmin().call('GET', `/admin/v1/${path}`, undefined, {})).status).toBe(401)
})
