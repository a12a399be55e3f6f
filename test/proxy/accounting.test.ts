/** What is told of a request when it is over: one table over every endpoint and every way in which a request can end. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { GatewayError } from '../../src/errors.ts'
import type { Extra } from '../../src/exchange.ts'
import { createProxyApp } from '../../src/proxy/app.ts'
import { ENDPOINTS } from '../../src/proxy/endpoints/index.ts'
import { RateLimit } from '../../src/resources/rate-limit.ts'
import { usageJson } from '../../src/telemetry/usage-record.ts'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream, type Handler } from '../fake-upstream.ts'
import {
  ACTOR,
  ALIAS,
  answerOf,
  CALLER_KEY,
  type GatewayOptions,
  startGateway,
  type TestGateway,
  UPSTREAM_MODEL,
  UPSTREAM_SECRET,
  until,
} from '../gateway.ts'
import { plainRecord } from '../plain-record.ts'
import { samplesOf } from '../telemetry/page.ts'
import { testTelemetry } from '../telemetry.ts'
import { JOB_ROWS, type JobRow, PROMPT, REPLY, ROWS, type Row } from './accounting-rows.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
})
const start = async (row?: Row, more: Partial<GatewayOptions> = {}) => {
  gateway = await startGateway({
    upstream: upstream.url,
    model: { cost: { input_per_1k: 0.15, output_per_1k: 0.6 }, timeout: 60_000, ...row?.model },
    apiKey: { team_id: 'kitchen', user_id: 'u-1', user_name: 'Ada' },
    ...(row?.providerKey && { providerKey: row.providerKey }),
    ...more,
  })
}
const restart = async (row?: Row, more: Partial<GatewayOptions> = {}) => {
  await gateway.stop()
  await start(row, more)
}
beforeEach(() => start())
afterEach(async () => {
  await gateway.idle()
  await gateway.stop()
})
afterAll(() => upstream.stop())

/** The request of a row, whose body has these members besides its own, or in place of them. */
const bodyOf = ({ body, encode }: Row, more: Record<string, unknown> = {}) => {
  const members = { model: ALIAS, ...body, ...more }
  return encode?.(members) ?? { body: JSON.stringify(members), headers: {} }
}

const ask = (row: Row, more: Record<string, unknown> = {}, signal?: AbortSignal) => {
  const { body, headers } = bodyOf(row, more)
  return gateway.post(row.path, body, { 'user-agent': 'OpenAI/Python 1.2', ...headers }, signal)
}

/** The tokens of a good answer: as it tells them, or as they are estimated where it does not. */
function tokensOf(row: Row): { prompt: number; completion: number } | undefined {
  return row.tokens === 'untold' ? { prompt: Math.ceil(bodyOf(row).body.length / 4), completion: 0 } : row.tokens
}

/** Members of the model, or of the caller key, that change. */
const change = (kind: 'models' | 'api_keys', members: Record<string, unknown>) =>
  kind === 'models'
    ? gateway.store.replace('models', gateway.rows.model.id, model => ({ ...model, ...members }), ACTOR)
    : gateway.store.replace('api_keys', gateway.rows.apiKey.id, key => ({ ...key, ...members }), ACTOR)

/** All that was told of the only request. */
async function told(count = 1) {
  await until('the request is over', () => gateway.telemetry.records.length === count)
  await gateway.idle()
  const { records } = gateway.telemetry
  const metrics = samplesOf(gateway.telemetry.registry.render())
  const access = gateway.logs.filter(line => line.includes('proxy request completed'))
  expect(access).toHaveLength(1)
  return { records, record: records[records.length - 1], metrics, line: access[0] ?? '' }
}

/** The only series of a family, and its labels. */
function only(metrics: ReturnType<typeof samplesOf>, name: string) {
  const series = metrics.filter(each => each.name === name)
  expect(series.map(({ labels }) => labels)).toHaveLength(1)
  return series[0] ?? { name, labels: {}, value: Number.NaN }
}

const families = (metrics: ReturnType<typeof samplesOf>) => new Set(metrics.map(({ name }) => name))

const templateOf = ({ path, template = path }: Row) => template

/** What every request says of itself in the label set R. */
const request = (row: Row, status: number, outcome: string) => ({
  endpoint: templateOf(row),
  inbound_protocol: row.protocol ?? 'openai',
  provider: String(row.model?.provider ?? 'vllm'),
  model: ALIAS,
  upstream_model: UPSTREAM_MODEL,
  provider_key_id: gateway.rows.providerKey.id,
  provider_key_name: 'provider-key-1',
  api_key_id: gateway.rows.apiKey.id,
  team_id: 'kitchen',
  user_id: 'u-1',
  user_name: 'Ada',
  stream: String(row.road === 'stream'),
  is_fallback: 'false',
  status: String(status),
  outcome,
})

/** Before a target is chosen nobody knows what it would have been. */
const untargeted = { upstream_model: 'unknown', provider_key_id: 'unknown', provider_key_name: 'unknown' }

afterEach(() => {
  const everything = [...gateway.logs, gateway.telemetry.registry.render(), JSON.stringify(gateway.telemetry.records)].join('\n')
  for (const secret of [PROMPT, REPLY, CALLER_KEY, UPSTREAM_SECRET]) expect(everything).not.toContain(secret)
})

test('the table has rows for every endpoint that there is', () => {
  const paths = new Set(ROWS.map(({ path, handler }) => `${path} (${handler})`))
  const endpoints = ENDPOINTS.filter(({ job }) => !job)
  expect([...paths].sort()).toEqual(endpoints.map(({ path, name }) => `${path} (${name})`).sort())
  const jobs = JOB_ROWS.map(({ method, path }) => `${method} ${path.replace('x-1', ':id')}`)
  expect(jobs.sort()).toEqual(ENDPOINTS.flatMap(({ path, job }) => (job ? [`${job.method} ${path}`] : [])).sort())
})

describe.each(ROWS)('$name', row => {
  const { handler, road } = row
  const isStream = road === 'stream'
  const tokens = tokensOf(row)
  beforeEach(async () => {
    if (row.model || row.providerKey) await restart(row)
  })

  test('a good answer: its tokens and what they cost, everywhere the same', async () => {
    upstream.answer(row.answer)
    const { headers } = await answerOf(await ask(row))
    const { record, records, metrics, line } = await told()
    expect(records).toHaveLength(1)
    // $0.15 and $0.60 per 1,000 tokens, in picodollars.
    const costPico = tokens ? tokens.prompt * 150_000_000 + tokens.completion * 600_000_000 : 0
    expect(record).toMatchObject({
      handler,
      endpoint: templateOf(row),
      inboundProtocol: row.protocol ?? 'openai',
      requestId: headers.get('x-aisix-request-id'),
      requestedModel: ALIAS,
      isStream,
      promptTokens: tokens?.prompt ?? 0,
      completionTokens: tokens?.completion ?? 0,
      isEstimated: row.tokens === 'untold',
      status: 200,
      costPico,
      isPriced: true,
      attemptIndex: 0,
      attemptKind: 'initial',
      isTerminal: true,
      clientIp: '127.0.0.1',
      userAgent: 'OpenAI/Python 1.2',
      labels: { apiKeyId: gateway.rows.apiKey.id, teamId: 'kitchen', modelId: gateway.rows.model.id, isMember: false },
    })
    expect(record?.errorClass).toBeUndefined()
    expect(record?.extra).toBeUndefined()
    expect(record?.totalMs).toBeGreaterThanOrEqual(record?.upstreamMs ?? Number.NaN)
    expect(record?.downstreamMs).toBeLessThanOrEqual(record?.totalMs ?? Number.NaN)
    if (road === 'whole') expect(record?.upstreamTtftMs).toBeUndefined()
    else expect(record?.upstreamTtftMs).toBeGreaterThan(0)

    const labels = request(row, 200, 'success')
    expect(only(metrics, 'aisix_proxy_requests_total')).toMatchObject({ labels, value: 1 })
    expect(only(metrics, 'aisix_llm_requests_total')).toMatchObject({ labels, value: 1 })
    const { is_fallback, ...duration } = labels
    expect(only(metrics, 'aisix_llm_request_duration_seconds_count')).toEqual({
      name: 'aisix_llm_request_duration_seconds_count',
      labels: duration,
      value: 1,
    })
    const { stream, status, outcome, ...usage } = duration
    const { provider } = labels
    if (tokens) {
      expect(only(metrics, 'aisix_llm_input_tokens_total')).toMatchObject({ labels: usage, value: tokens.prompt })
      expect(only(metrics, 'aisix_llm_output_tokens_total')).toMatchObject({ labels: usage, value: tokens.completion })
      expect(only(metrics, 'aisix_llm_total_tokens_total').value).toBe(tokens.prompt + tokens.completion)
      expect(only(metrics, 'aisix_llm_spend_micro_usd_total').value).toBeCloseTo(costPico / 1e6, 9)
      expect(only(metrics, 'aisix_tokens_consumed_total')).toMatchObject({ labels: { provider, model: ALIAS } })
      expect(metrics).toContainEqual({
        name: 'aisix_llm_tokens_by_client_total',
        labels: { client_type: 'openai-python', model: ALIAS, token_type: 'input' },
        value: tokens.prompt,
      })
      expect(line).toContain(` prompt_tokens=${tokens.prompt} completion_tokens=${tokens.completion} `)
    } else {
      expect([...families(metrics)].filter(name => /token.*_total|spend/.test(name))).toEqual([])
      expect(line).not.toContain('_tokens=')
    }
    const latency = {
      env_id: 'unknown',
      endpoint: templateOf(row),
      model: ALIAS,
      provider,
      status_class: '2xx',
      streaming: stream,
    }
    expect(only(metrics, 'aisix_request_e2e_latency_seconds_count').labels).toEqual(latency)
    expect(families(metrics).has('aisix_request_ttft_seconds_count')).toBe(isStream)
    expect(families(metrics).has('aisix_llm_time_to_first_token_seconds_count')).toBe(isStream)
    expect(families(metrics).has('aisix_proxy_failed_requests_total')).toBe(false)
    expect(only(metrics, 'aisix_deployment_success_responses_total').value).toBe(1)
    expect(only(metrics, 'aisix_usage_events_emitted_total').labels).toEqual({
      handler,
      status_code: '2xx',
      inbound_protocol: labels.inbound_protocol,
      model: ALIAS,
      provider_key_id: labels.provider_key_id,
      provider_key_name: labels.provider_key_name,
    })
    expect(only(metrics, 'aisix_auth_decisions_total').labels).toEqual({ method: 'api_key', result: 'allowed', reason: 'none' })
    expect(line).toContain(` path="${row.path}" status=200 `)
    expect(gateway.telemetry.charged).toMatchObject([{ record: { costPico } }])
  })

  test.each([
    ['a model that there is not', { model: 'no-such' }, 404, 'model_not_found', 'unresolved'],
    ['a body that is wrong', { model: '' }, 400, 'invalid_request_error', 'unknown'],
  ])('a refusal, %s: a record without an upstream', async (_what, more, status, errorClass, model) => {
    upstream.requests.length = 0
    await answerOf(await ask(row, more))
    const { record, metrics, line } = await told()
    expect(upstream.requests).toHaveLength(0)
    expect(record).toMatchObject({ handler, status, errorClass, promptTokens: 0, costPico: 0, isTerminal: true, upstreamMs: 0 })
    expect(record?.attemptKind).toBeUndefined()
    expect(only(metrics, 'aisix_proxy_failed_requests_total').labels).toEqual({
      ...request(row, status, 'client_error'),
      ...untargeted,
      provider: 'unknown',
      model,
      stream: String(isStream && status === 404),
    })
    expect(families(metrics).has('aisix_llm_input_tokens_total')).toBe(false)
    expect(families(metrics).has('aisix_deployment_requests_total')).toBe(false)
    expect(line).toContain(`status=${status}`)
    expect(line).toContain('error_kind=')
  })

  test('a limit: 429, counted as such', async () => {
    await change('api_keys', { rate_limit: RateLimit.parse({ rpm: 0 }) })
    const { status } = await answerOf(await ask(row))
    const { record, metrics } = await told()
    expect(status).toBe(429)
    expect(record).toMatchObject({ status: 429, errorClass: 'rate_limit_exceeded', labels: { name: ALIAS } })
    expect(only(metrics, 'aisix_proxy_failed_requests_total').labels).toEqual({
      ...request(row, 429, 'rate_limited'),
      ...untargeted,
    })
  })

  test('no key: one decision, one line of its own, no record and no request', async () => {
    const { status } = await answerOf(
      await fetch(gateway.url + row.path, { method: 'POST', headers: { authorization: 'Bearer wrong' }, body: '{}' }),
    )
    await gateway.idle()
    const metrics = samplesOf(gateway.telemetry.registry.render())
    expect(status).toBe(401)
    expect(metrics).toEqual([
      {
        name: 'aisix_auth_decisions_total',
        labels: { method: 'api_key', result: 'denied', reason: 'unknown_key' },
        value: 1,
      },
    ])
    expect(gateway.telemetry.records).toEqual([])
    expect(gateway.logs.filter(line => line.includes('auth rejected'))).toHaveLength(1)
    expect(gateway.logs.filter(line => line.includes('proxy request completed'))).toHaveLength(0)
  })

  test('an upstream that fails: no tokens, and its failure is the deployment’s', async () => {
    upstream.answer((_request, connection) => connection.json(500, { error: { message: 'boom' } }))
    await answerOf(await ask(row))
    const { record, metrics, line } = await told()
    expect(record).toMatchObject({ status: 502, errorClass: 'upstream_error', promptTokens: 0, completionTokens: 0, costPico: 0 })
    expect(record?.errorMessage).toStartWith('upstream returned 500')
    const labels = request(row, 502, 'upstream_error')
    expect(only(metrics, 'aisix_proxy_failed_requests_total').labels).toEqual(labels)
    expect(only(metrics, 'aisix_deployment_requests_total').labels).toEqual({
      provider: labels.provider,
      model: ALIAS,
      upstream_model: UPSTREAM_MODEL,
      provider_key_id: gateway.rows.providerKey.id,
    })
    expect(only(metrics, 'aisix_deployment_failure_responses_total').value).toBe(1)
    expect(families(metrics).has('aisix_deployment_success_responses_total')).toBe(false)
    expect(line).toContain('error_kind="upstream_error"')
  })

  test('retries: a record an attempt, the last one terminal', async () => {
    await change('models', { retries: 1 })
    // The jitter takes back the wait before the retry.
    gateway.gateway.random = () => -1
    upstream.answerInTurn((_request, connection) => connection.json(503, {}), row.answer)
    await answerOf(await ask(row))
    const { records, metrics } = await told(2)
    expect(
      records.map(({ attemptIndex, attemptKind, status, isTerminal, promptTokens, errorClass }) => [
        attemptIndex,
        attemptKind,
        status,
        isTerminal,
        promptTokens,
        errorClass,
      ]),
    ).toEqual([
      [0, 'initial', 503, false, 0, 'upstream_error'],
      [1, 'retry', 200, true, tokens?.prompt ?? 0, undefined],
    ])
    expect(records[0]?.requestId).toBe(records[1]?.requestId ?? '')
    expect(records[0]?.downstreamMs).toBeUndefined()
    expect(only(metrics, 'aisix_proxy_requests_total').value).toBe(1)
    expect(only(metrics, 'aisix_deployment_requests_total').value).toBe(2)
  })

  test('a timeout: 504', async () => {
    await change('models', { timeout: 30, stream_timeout: 30 })
    upstream.answer((_request, connection) => connection.stall())
    await answerOf(await ask(row))
    const { record, metrics } = await told()
    expect(record).toMatchObject({ status: 504, errorClass: 'timeout', promptTokens: 0 })
    expect(record?.upstreamMs).toBeGreaterThanOrEqual(25)
    expect(only(metrics, 'aisix_proxy_failed_requests_total').labels).toEqual(request(row, 504, 'upstream_error'))
  })

  test('a caller that leaves before the head: 499, and nothing against the upstream', async () => {
    const arrived = upstream.arrived(upstream.requests.length + 1)
    upstream.answer((_request, connection) => connection.stall())
    const leaving = new AbortController()
    const answer = ask(row, {}, leaving.signal).catch(() => undefined)
    await arrived
    leaving.abort()
    await answer
    const { record, metrics } = await told()
    expect(record).toMatchObject({ status: 499, errorClass: 'client_disconnected', promptTokens: 0, costPico: 0 })
    expect(only(metrics, 'aisix_proxy_client_cancelled_requests_total').labels).toEqual({
      endpoint: templateOf(row),
      model: ALIAS,
      provider_key_id: gateway.rows.providerKey.id,
      provider_key_name: 'provider-key-1',
    })
    expect(only(metrics, 'aisix_deployment_requests_total').value).toBe(1)
    expect(families(metrics).has('aisix_deployment_failure_responses_total')).toBe(false)
  })

  test('an upstream that cuts its answer: an error, and what was delivered is charged', async () => {
    const isDelivered = Promise.withResolvers<void>()
    upstream.answer(async (_request, connection) => {
      if (row.begin) {
        await row.begin(connection)
        await isDelivered.promise
      } else await connection.raw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"half":')
      connection.reset()
    })
    const response = await ask(row)
    const reader = response.body?.getReader()
    await reader?.read()
    isDelivered.resolve()
    // What is passed on as it is ends for its caller as it ended for us.
    for (let isOver = false; !isOver; ) isOver = (await reader?.read().catch(() => undefined))?.done ?? true
    const { record, metrics } = await told()
    expect(record).toMatchObject({ status: 502, errorClass: 'transport_error', ...delivered(row) })
    expect((record?.costPico ?? 0) > 0).toBe(road !== 'whole' && !row.isNeverEstimated)
    expect(only(metrics, 'aisix_proxy_failed_requests_total').labels).toEqual(request(row, 502, 'upstream_error'))
    expect(only(metrics, 'aisix_deployment_failure_responses_total').value).toBe(1)
  })
})

/** What is charged of an answer that was cut: nothing of a whole one, else its prompt and what had come of it until then. */
function delivered({ road, isNeverEstimated }: Row) {
  if (road === 'whole' || isNeverEstimated) return { isEstimated: false, promptTokens: 0, completionTokens: 0 }
  // A quarter of the bytes of REPLY, which came as one event; sound has no tokens.
  return {
    isEstimated: true,
    promptTokens: expect.any(Number),
    completionTokens: road === 'stream' ? Math.ceil(REPLY.length / 4) : 0,
  }
}

describe.each(ROWS.filter(({ road }) => road !== 'whole'))('$name', row => {
  const isStream = row.road === 'stream'
  beforeEach(async () => {
    if (row.model || row.providerKey) await restart(row)
  })

  test('a caller that leaves in the middle: 499, and what came until then is charged as an estimate', async () => {
    upstream.answer(async (_request, connection) => {
      await row.begin?.(connection)
      await connection.stall()
    })
    const leaving = new AbortController()
    const askedAt = performance.now()
    const response = await ask(row, {}, leaving.signal)
    const reader = response.body?.getReader()
    await reader?.read()
    const usableMs = performance.now() - askedAt
    leaving.abort()
    await reader?.read().catch(() => undefined)
    const { record, metrics } = await told()
    expect(record).toMatchObject({ status: 499, errorClass: 'client_disconnected', ...delivered(row) })
    expect(record?.upstreamTtftMs).toBeGreaterThan(0)
    // It had something to use before it had read it, and long before the end.
    expect(record?.downstreamMs).toBeLessThanOrEqual(usableMs)
    // Its head was out: it is no request that was cancelled before.
    expect(families(metrics).has('aisix_proxy_client_cancelled_requests_total')).toBe(false)
    expect(families(metrics).has('aisix_request_ttft_seconds_count')).toBe(isStream)
    expect(families(metrics).has('aisix_deployment_failure_responses_total')).toBe(false)
  })
})

describe.each(JOB_ROWS)('$method $path', row => {
  const requestId = 'job-request-1'
  const ask = ({ method, path, body }: JobRow, model = ALIAS, signal?: AbortSignal) => {
    const form = new FormData()
    if (path === '/v1/files' && body) form.append(body.name, new Blob([body.value]), 'a.jsonl')
    const isForm = path === '/v1/files' && body !== undefined
    return fetch(`${gateway.url}${path}?model=${model}`, {
      method,
      headers: {
        ...{ authorization: `Bearer ${CALLER_KEY}`, 'x-aisix-request-id': requestId },
        ...(body && !isForm ? { 'content-type': 'application/json' } : {}),
      },
      ...(body && { body: isForm ? form : JSON.stringify({ [body.name]: body.value }) }),
      ...(signal && { signal }),
    })
  }
  /** What is told of a request for what servers keep, however it ends. */
  const toldOf = async (status: number, outcome: string, errorClass?: string) => {
    const { record, records, metrics, line } = await told()
    expect(records).toHaveLength(1)
    expect(record).toMatchObject({
      ...{ handler: 'jobs', endpoint: row.template, requestId, status, isStream: false, isTerminal: true },
      ...{ promptTokens: 0, completionTokens: 0, isEstimated: false, costPico: 0 },
    })
    expect(record?.errorClass).toBe(errorClass)
    const { labels } = only(metrics, 'aisix_proxy_requests_total')
    expect(labels).toMatchObject({ endpoint: row.template, inbound_protocol: 'openai', status: String(status), outcome })
    expect([...families(metrics)].filter(name => /_llm_|token.*_total|spend|deployment/.test(name))).toEqual([])
    expect(line).toContain(` method="${row.method}" path="${row.path}" status=${status} `)
    return record
  }

  test('a good answer', async () => {
    upstream.answer((_request, connection) => connection.json(200, { id: 'x-1', usage: { prompt_tokens: 5 } }))
    await answerOf(await ask(row))
    const record = await toldOf(200, 'success')
    expect(record).toMatchObject({ attemptKind: 'initial', requestedModel: ALIAS, labels: { modelId: gateway.rows.model.id } })
  })

  test('a refusal', async () => {
    await answerOf(await ask(row, 'no-such'))
    const record = await toldOf(404, 'client_error', 'model_not_found')
    expect(record?.attemptKind).toBeUndefined()
  })

  test('an upstream that fails', async () => {
    upstream.answer((_request, connection) => connection.json(500, {}))
    await answerOf(await ask(row))
    await toldOf(502, 'upstream_error', 'upstream_error')
  })

  test('a timeout', async () => {
    await change('models', { timeout: 30 })
    upstream.answer((_request, connection) => connection.stall())
    await answerOf(await ask(row))
    await toldOf(504, 'upstream_error', 'timeout')
  })

  test('a caller that leaves', async () => {
    const arrived = upstream.arrived(upstream.requests.length + 1)
    upstream.answer((_request, connection) => connection.stall())
    const leaving = new AbortController()
    const answer = ask(row, ALIAS, leaving.signal).catch(() => undefined)
    await arrived
    leaving.abort()
    await answer
    await toldOf(499, 'client_error', 'client_disconnected')
  })

  test('an upstream that cuts its answer', async () => {
    upstream.answer(async (_request, connection) => {
      await connection.raw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"half":')
      connection.reset()
    })
    await ask(row)
      .then(response => response.text())
      .catch(() => undefined)
    await toldOf(502, 'upstream_error', 'transport_error')
  })
})

describe('count_tokens', () => {
  const row = ROWS.find(({ name }) => name === 'count_tokens, of an engine') ?? ROWS[0]

  test.each(['count_tokens, of an engine', 'count_tokens, native'])('is no stream, whatever is asked: %s', async name => {
    const counting = ROWS.find(each => each.name === name)
    if (!counting) throw new Error(`the table has no row ${name}`)
    await restart(counting)
    upstream.answer(counting.answer)
    const { status, body } = await answerOf(await ask(counting, { stream: true }))
    expect([status, body]).toEqual([200, { input_tokens: 5 }])
    const { record } = await told()
    expect(record).toMatchObject({ status: 200, isStream: false })
  })

  test('of a server that cannot count: the estimate is an answer, the attempt is told, and later ones ask nobody', async () => {
    if (!row) throw new Error('the table has no rows')
    upstream.answer((_request, connection) => connection.json(404, {}))
    const before = upstream.requests.length
    const first = await answerOf(await ask(row))
    const second = await answerOf(await ask(row))
    expect([first.status, second.status, upstream.requests.length - before]).toEqual([200, 200, 1])
    await gateway.idle()
    const { records, registry } = gateway.telemetry
    expect(records).toMatchObject([
      { status: 200, attemptKind: 'initial', promptTokens: 0, isEstimated: false, costPico: 0 },
      { status: 200, promptTokens: 0, isEstimated: false, costPico: 0, upstreamMs: 0 },
    ])
    expect(records[1]?.attemptKind).toBeUndefined()
    expect(only(samplesOf(registry.render()), 'aisix_deployment_requests_total').value).toBe(1)
  })
})
describe('groups', () => {
  test('a fallback: both attempts under the name that was asked for, each with its own target', async () => {
    const second = await fakeUpstream()
    second.answer((_request, connection) => connection.json(200, chatAnswer(REPLY)))
    upstream.answer((_request, connection) => connection.json(500, {}))
    const key = await gateway.addProviderKey({ api_base: second.url })
    await gateway.addModel({ display_name: 'spare', provider_key_id: key.id })
    await gateway.addGroup('house', { targets: [ALIAS, 'spare'] })
    await answerOf(await gateway.chat({ model: 'house' }))
    const { records, metrics, line } = await told(2)
    expect(
      records.map(({ labels, attemptKind, status }) => [labels.name, labels.model, labels.isMember, attemptKind, status]),
    ).toEqual([
      ['house', ALIAS, true, 'initial', 500],
      ['house', 'spare', true, 'fallback', 200],
    ])
    // The spare model has no price: it costs nothing, and says so.
    expect(records[1]).toMatchObject({ isPriced: false, costPico: 0, promptTokens: 5 })
    expect(only(metrics, 'aisix_proxy_requests_total').labels).toMatchObject({
      model: 'house',
      is_fallback: 'true',
      provider_key_id: key.id,
    })
    expect(only(metrics, 'aisix_routing_successful_fallbacks_total').labels).toEqual({ model: 'house', fallback_model: 'spare' })
    expect(line).toContain('served_by_model="spare"')
    expect(gateway.telemetry.charged.map(({ groupId }) => groupId)).not.toContain(undefined)
    second.stop()
  })

  test('a pattern is labelled as its row, whatever callers spell', async () => {
    await gateway.addModel({ display_name: 'team/*', model_name: 'org/*' })
    upstream.answer((_request, connection) => connection.json(200, chatAnswer(REPLY)))
    for (const spelling of ['team/a', 'team/b', 'team/c']) await answerOf(await gateway.chat({ model: spelling }))
    const metrics = samplesOf(gateway.telemetry.registry.render())
    expect(only(metrics, 'aisix_proxy_requests_total')).toMatchObject({
      value: 3,
      labels: { model: 'team/*', upstream_model: 'org/*' },
    })
    expect(gateway.telemetry.records.map(({ requestedModel }) => requestedModel)).toEqual(['team/a', 'team/b', 'team/c'])
  })
})

describe('other paths', () => {
  test('a list of models is a request on a known endpoint, and no record of usage', async () => {
    await answerOf(await gateway.get('/v1/models'))
    await answerOf(await gateway.get('/no/such/path'))
    await answerOf(await fetch(`${gateway.url}/livez`))
    await gateway.idle()
    const metrics = samplesOf(gateway.telemetry.registry.render()).filter(({ name }) => name === 'aisix_proxy_requests_total')
    expect(metrics.map(({ labels }) => [labels.endpoint, labels.status])).toEqual([
      ['/v1/models', '200'],
      ['other', '404'],
      ['/livez', '200'],
    ])
    expect(gateway.telemetry.records).toEqual([])
  })

  test('a body over the limit is a request, a record and a rejection', async () => {
    await gateway.stop()
    gateway = await startGateway({ upstream: upstream.url, config: { proxy: { request_body_limit_bytes: 100 } } })
    await answerOf(await gateway.chat({ messages: [{ role: 'user', content: 'x'.repeat(200) }] }))
    const { record, metrics } = await told()
    expect(record).toMatchObject({ status: 413, handler: 'chat', errorClass: 'invalid_request_error' })
    expect(only(metrics, 'aisix_proxy_request_body_limit_rejections_total').labels).toEqual({
      endpoint: '/v1/chat/completions',
      inbound_protocol: 'openai',
      outcome: 'completed',
    })
  })
})

describe('what upstreams say of a request', () => {
  const echo = { message: `bad input: ${PROMPT}`, code: 'bad_input' }

  test.each<[string, Handler, boolean, string]>([
    ['in a 4xx', (_request, connection) => connection.json(422, { error: echo }), false, 'upstream returned 422 (bad_input)'],
    [
      'in a 4xx that is no envelope',
      (_request, connection) => connection.json(422, { detail: [{ loc: ['body'], input: PROMPT }] }),
      false,
      'upstream returned 422',
    ],
    [
      'inside a 200',
      (_request, connection) => connection.json(200, { error: echo }),
      false,
      'upstream returned an unparseable body: upstream reported an error (bad_input)',
    ],
    [
      'inside a stream',
      (_request, connection) => connection.sse([chatChunk({ content: REPLY }), { error: echo }]),
      true,
      'upstream reported an in-band stream error (bad_input)',
    ],
  ])('%s is for the caller: logs and records have what happened and its code', async (_where, handler, stream, recorded) => {
    upstream.answer(handler)
    const { text } = await answerOf(await gateway.chat({ messages: [{ role: 'user', content: PROMPT }], stream }))
    expect(text).toContain(PROMPT)
    const { record, line } = await told()
    expect(record?.errorMessage).toBe(recorded)
    expect(line).toContain(`error="${recorded}"`)
    // That the prompt is nowhere else, the end of every test of this file looks for.
  })
})

describe('requests that ask no upstream', () => {
  test('a 401 for the credential of the provider key is no rejected caller: it is recorded and logged as any other', async () => {
    await gateway.stop()
    gateway = await startGateway({ upstream: upstream.url, providerKey: { secret: 'line\nbreak' } })
    expect((await answerOf(await gateway.chat())).status).toBe(401)
    const { record, metrics, line } = await told()
    expect(record).toMatchObject({ status: 401, errorClass: 'authentication_error', attemptKind: undefined })
    expect(line).toContain('error_kind="invalid_upstream_credentials"')
    expect(only(metrics, 'aisix_proxy_failed_requests_total').labels).toMatchObject({ status: '401', outcome: 'client_error' })
    expect(only(metrics, 'aisix_auth_decisions_total').labels).toMatchObject({ result: 'allowed' })
    expect(gateway.logs.filter(each => each.includes('auth rejected'))).toHaveLength(0)
  })

  test('a caller that has left before an upstream is asked counts at no deployment', async () => {
    const app = createProxyApp(gateway.gateway, { ca: [], cert: undefined, key: undefined, verify: true })
    const before = upstream.requests.length
    const body = JSON.stringify({ model: ALIAS, messages: [{ role: 'user', content: PROMPT }] })
    const leaving = new AbortController()
    gateway.telemetry.budgets.refusal = () => void leaving.abort()
    const answer = await app.fetch(
      new Request(`${gateway.url}/v1/chat/completions`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${CALLER_KEY}`,
          host: 'gateway',
          'content-type': 'application/json',
          'content-length': String(body.length),
        },
        body,
        signal: leaving.signal,
      }),
    )
    expect(answer?.status).toBe(499)
    const { record, metrics } = await told()
    expect(record).toMatchObject({ status: 499, errorClass: 'client_disconnected', attemptKind: undefined })
    expect(families(metrics).has('aisix_deployment_requests_total')).toBe(false)
    expect(upstream.requests).toHaveLength(before)
  })

  test('a member whose budget is used up is passed over, without a line of the log for every request', async () => {
    const other = await gateway.addModel({ display_name: 'other' })
    await gateway.addGroup('fleet', { targets: [ALIAS, 'other'] })
    gateway.telemetry.budgets.memberRefusal = (_snapshot, id) =>
      id === other.id ? undefined : new GatewayError('budget_exceeded', 'budget "x" is used up')
    upstream.answer((_request, connection) => connection.json(200, chatAnswer(REPLY)))
    expect((await answerOf(await gateway.chat({ model: 'fleet' }))).status).toBe(200)
    const { records, metrics } = await told(2)
    expect(records.map(({ errorClass, status }) => [errorClass, status])).toEqual([
      ['budget_exceeded', 429],
      [undefined, 200],
    ])
    expect(only(metrics, 'aisix_deployment_requests_total').labels).toMatchObject({ model: 'other' })
    expect(gateway.logs.filter(each => each.includes('another follows'))).toEqual([expect.stringMatching(/ DEBUG upstream: /)])
  })
})

describe('what few requests have', () => {
  const LONG = 'i'.repeat(300)

  /** Answers as told, after it has noted something rare of the request that is under way. */
  const noting =
    (extra: Extra, answer: Handler): Handler =>
    (request, connection) => {
      for (const exchange of gateway.gateway.lifecycle.inFlight) exchange.extra = extra
      return answer(request, connection)
    }

  test('stands on all attempts as far as it is of the request, and on the last as far as it is of the answer', async () => {
    await change('models', { retries: 1 })
    const extra = { authType: 'anonymous', passthroughRoute: 'files', clientIdentity: LONG, audioSeconds: 12.5 } as const
    upstream.answerInTurn(
      noting(extra, (_request, connection) => connection.json(503, {})),
      (_request, connection) => connection.json(200, chatAnswer(REPLY)),
    )
    await answerOf(await gateway.chat())
    const { records } = await told(2)
    const ofRequest: Extra = { authType: 'anonymous', passthroughRoute: 'files', clientIdentity: 'i'.repeat(256) }
    expect(records.map(record => record.extra)).toEqual([
      { ...ofRequest, audioSeconds: undefined },
      { ...ofRequest, audioSeconds: 12.5 },
    ])
    expect(records.map(usageJson)).toMatchObject([
      { auth_type: 'anonymous', passthrough_route_name: 'files', client_identity: 'i'.repeat(256) },
      { audio_duration_seconds: 12.5 },
    ])
    expect(usageJson(records[0] ?? plainRecord({}))).not.toHaveProperty('audio_duration_seconds')
  })

  test('is left as it is where nothing of it has to be cut or left out, and is nothing for most', async () => {
    const extra = { clientIdentity: 'ada', audioSeconds: 1 }
    upstream.answerInTurn(
      noting(extra, (_request, connection) => connection.json(200, chatAnswer(REPLY))),
      (_request, connection) => connection.json(200, chatAnswer(REPLY)),
    )
    await answerOf(await gateway.chat())
    await answerOf(await gateway.chat())
    const [first, second] = gateway.telemetry.records
    expect(first?.extra).toBe(extra)
    expect(second?.extra).toBeUndefined()
    for (const name of ['auth_type', 'passthrough_route_name', 'client_identity', 'audio_duration_seconds']) {
      expect(usageJson(second ?? plainRecord({}))).not.toHaveProperty(name)
    }
  })
})

describe('traces and content', () => {
  test('an inbound traceparent is taken over, one that is malformed is not', async () => {
    const [traceId, spanId] = ['0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331']
    upstream.answer((_request, connection) => connection.json(200, chatAnswer(REPLY)))
    await answerOf(await gateway.chat({}, { traceparent: `00-${traceId}-${spanId}-01` }))
    for (const wrong of [
      `00-${traceId}-${spanId}`,
      `00-${traceId}-${spanId}-01-x`,
      `ff-${traceId}-${spanId}-01`,
      `00-${'0'.repeat(32)}-${spanId}-01`,
      'x',
    ]) {
      await answerOf(await gateway.chat({}, { traceparent: wrong }))
    }
    expect(gateway.telemetry.records.map(record => record.traceId)).toEqual([traceId, ...new Array(5).fill(undefined)])
  })

  test.each(ROWS)('$name: an exporter that wants content gets what was asked and what was answered', async row => {
    await restart(row, { telemetry: testTelemetry({ wantsReports: true }) })
    upstream.answer(row.answer)
    await answerOf(await ask(row))
    await until('the report is there', () => gateway.telemetry.reports.length === 1)
    const [report] = gateway.telemetry.reports
    const { prompt, response, isTruncated } = report?.content ?? {}
    if (row.content.prompt === '') expect(prompt).toBe('')
    else expect(prompt).toContain(row.content.prompt)
    expect(response).toBe(row.content.response)
    expect(isTruncated).toBe(false)
    expect(report).toMatchObject({ method: 'POST', endpoint: templateOf(row), status: 200 })
  })

  const frame = (event: object, space = '') => `data: ${JSON.stringify(event).replaceAll('":', `":${space}`)}\n\n`
  const messagesDelta = (delta: object) => frame({ type: 'content_block_delta', index: 0, delta })
  const responsesDelta = (type: string, delta: string) => frame({ type: `response.${type}.delta`, delta }, ' ')
  const calls = { input: { city: 'Rome' }, arguments: '{"city":"Rome"}' }

  test.each<[string, string, string, () => { answer: Handler; response: string; completionTokens: number }]>([
    [
      'a stream of Messages',
      'messages, native and streamed',
      'what it thinks is counted and not kept, arguments are both',
      () => ({
        answer: (_request, connection) =>
          connection.send(
            200,
            messagesDelta({ type: 'thinking_delta', thinking: 'x'.repeat(40) }) +
              messagesDelta({ type: 'text_delta', text: 'A "word" ' }) +
              messagesDelta({ type: 'input_json_delta', partial_json: calls.arguments }) +
              frame({ type: 'message_stop' }),
            { 'content-type': 'text/event-stream' },
          ),
        response: `A "word" ${calls.arguments}`,
        // A quarter of the bytes as they are written, escapes included.
        completionTokens: 18,
      }),
    ],
    [
      'a stream of Responses, of a server that writes spaces',
      'responses, native and streamed',
      'the same',
      () => ({
        answer: (_request, connection) =>
          connection.send(
            200,
            responsesDelta('reasoning_text', 'x'.repeat(40)) +
              responsesDelta('output_text', 'A word ') +
              responsesDelta('function_call_arguments', 'Rome') +
              frame({ type: 'response.completed', response: { id: 'r', status: 'completed' } }),
            { 'content-type': 'text/event-stream' },
          ),
        response: 'A word Rome',
        completionTokens: 13,
      }),
    ],
    [
      'an answer of Messages that is a call',
      'messages, native',
      'its arguments stand for its text',
      () => ({
        answer: (_request, connection) =>
          connection.json(200, {
            type: 'message',
            content: [
              { type: 'thinking', thinking: 'x' },
              { type: 'tool_use', input: calls.input },
            ],
          }),
        response: calls.arguments,
        completionTokens: 4,
      }),
    ],
    [
      'an answer of Responses that is a call',
      'responses, native',
      'the same',
      () => ({
        answer: (_request, connection) =>
          connection.json(200, {
            object: 'response',
            output: [
              { type: 'reasoning', content: [{ type: 'reasoning_text', text: 'x' }] },
              { type: 'function_call', arguments: calls.arguments },
            ],
          }),
        response: calls.arguments,
        completionTokens: 4,
      }),
    ],
  ])('%s which tells no usage: of %s, %s', async (_what, name, _how, make) => {
    const row = ROWS.find(each => each.name === name)
    if (!row) throw new Error(`the table has no row ${name}`)
    const { answer, response, completionTokens } = make()
    await restart(row, { telemetry: testTelemetry({ wantsReports: true }) })
    upstream.answer(answer)
    await answerOf(await ask(row))
    await until('the report is there', () => gateway.telemetry.reports.length === 1)
    const [report] = gateway.telemetry.reports
    expect(report?.content?.response).toBe(response)
    expect(report?.records).toMatchObject([{ status: 200, isEstimated: true, completionTokens }])
  })
})
