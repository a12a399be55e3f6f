/** What is told of a request when it is over: one table over every endpoint and every way in which a request can end. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { GatewayError } from '../../src/errors.ts'
import { createProxyApp } from '../../src/proxy/app.ts'
import { RateLimit } from '../../src/resources/rate-limit.ts'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream, type Handler } from '../fake-upstream.ts'
import {
  ALIAS,
  answerOf,
  CALLER_KEY,
  startGateway,
  type TestGateway,
  UPSTREAM_MODEL,
  UPSTREAM_SECRET,
  until,
} from '../gateway.ts'
import { samplesOf } from '../telemetry/page.ts'

const PROMPT = 'the secret recipe of the house'
const REPLY = 'a spoon of nothing'
const USAGE = { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 }

type Asked = { name: string; handler: string; path: string; body: Record<string, unknown>; isStream: boolean; answer: Handler }

const textChunk = (text: string, more = {}) => ({
  id: 'cmpl-1',
  object: 'text_completion',
  choices: [{ index: 0, text }],
  ...more,
})

/** Every endpoint that reaches an upstream, streamed and not, and how its upstream answers it well. */
const ENDPOINTS: readonly Asked[] = [
  {
    name: 'chat',
    handler: 'chat',
    path: '/v1/chat/completions',
    body: { messages: [{ role: 'user', content: PROMPT }] },
    isStream: false,
    answer: (_request, connection) => connection.json(200, chatAnswer(REPLY)),
  },
  {
    name: 'chat, streamed',
    handler: 'chat',
    path: '/v1/chat/completions',
    body: { messages: [{ role: 'user', content: PROMPT }], stream: true },
    isStream: true,
    answer: (_request, connection) => connection.sse([chatChunk({ content: REPLY }), chatChunk({}, { usage: USAGE })]),
  },
  {
    name: 'completions',
    handler: 'completions',
    path: '/v1/completions',
    body: { prompt: PROMPT },
    isStream: false,
    answer: (_request, connection) => connection.json(200, { ...textChunk(REPLY), model: 'm', usage: USAGE }),
  },
  {
    name: 'completions, streamed',
    handler: 'completions',
    path: '/v1/completions',
    body: { prompt: PROMPT, stream: true },
    isStream: true,
    answer: (_request, connection) => connection.sse([textChunk(REPLY), textChunk('', { usage: USAGE })]),
  },
  {
    name: 'messages, translated',
    handler: 'messages',
    path: '/v1/messages',
    body: { messages: [{ role: 'user', content: PROMPT }] },
    isStream: false,
    answer: (_request, connection) => connection.json(200, chatAnswer(REPLY)),
  },
  {
    name: 'messages, translated and streamed',
    handler: 'messages',
    path: '/v1/messages',
    body: { messages: [{ role: 'user', content: PROMPT }], stream: true },
    isStream: true,
    answer: (_request, connection) => connection.sse([chatChunk({ content: REPLY }), chatChunk({}, { usage: USAGE })]),
  },
  {
    name: 'embeddings',
    handler: 'embeddings',
    path: '/v1/embeddings',
    body: { input: PROMPT },
    isStream: false,
    answer: (_request, connection) =>
      connection.json(200, {
        object: 'list',
        model: 'm',
        data: [{ object: 'embedding', index: 0, embedding: [1] }],
        usage: { prompt_tokens: 5, total_tokens: 5 },
      }),
  },
]

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
})
beforeEach(async () => {
  gateway = await startGateway({
    upstream: upstream.url,
    model: { cost: { input_per_1k: 0.15, output_per_1k: 0.6 }, timeout: 60_000 },
    apiKey: { team_id: 'kitchen', user_id: 'u-1', user_name: 'Ada' },
  })
})
afterEach(async () => {
  await gateway.idle()
  await gateway.stop()
})
afterAll(() => upstream.stop())

const ask = ({ path, body }: Asked, more: Record<string, unknown> = {}, headers = {}, signal?: AbortSignal) =>
  gateway.post(path, { model: ALIAS, ...body, ...more }, { 'user-agent': 'OpenAI/Python 1.2', ...headers }, signal)

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

const protocolOf = ({ handler }: Asked) => (handler === 'messages' ? 'anthropic' : 'openai')

/** What every request says of itself in the label set R. */
const request = (asked: Asked, status: number, outcome: string) => ({
  endpoint: asked.path,
  inbound_protocol: protocolOf(asked),
  provider: 'vllm',
  model: ALIAS,
  upstream_model: UPSTREAM_MODEL,
  provider_key_id: gateway.rows.providerKey.id,
  provider_key_name: 'provider-key-1',
  api_key_id: gateway.rows.apiKey.id,
  team_id: 'kitchen',
  user_id: 'u-1',
  user_name: 'Ada',
  stream: String(asked.isStream),
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

describe.each(ENDPOINTS)('$name', asked => {
  const { handler, path, isStream } = asked
  const isEmbedding = handler === 'embeddings'
  const tokens = isEmbedding ? { prompt: 5, completion: 0 } : { prompt: 5, completion: 7 }

  test('a good answer: its tokens and what they cost, everywhere the same', async () => {
    upstream.answer(asked.answer)
    const { headers } = await answerOf(await ask(asked))
    const { record, records, metrics, line } = await told()
    expect(records).toHaveLength(1)
    expect(record).toMatchObject({
      handler,
      endpoint: path,
      inboundProtocol: protocolOf(asked),
      requestId: headers.get('x-aisix-request-id'),
      requestedModel: ALIAS,
      isStream,
      promptTokens: tokens.prompt,
      completionTokens: tokens.completion,
      isEstimated: false,
      status: 200,
      // 5 × $0.15 / 1000 and 7 × $0.60 / 1000, in picodollars.
      costPico: isEmbedding ? 750_000_000 : 4_950_000_000,
      isPriced: true,
      attemptIndex: 0,
      attemptKind: 'initial',
      isTerminal: true,
      clientIp: '127.0.0.1',
      userAgent: 'OpenAI/Python 1.2',
      labels: { apiKeyId: gateway.rows.apiKey.id, teamId: 'kitchen', modelId: gateway.rows.model.id, isMember: false },
    })
    expect(record?.errorClass).toBeUndefined()
    expect(record?.totalMs).toBeGreaterThanOrEqual(record?.upstreamMs ?? Number.NaN)
    if (isStream) expect(record?.upstreamTtftMs).toBeGreaterThan(0)
    else expect(record?.upstreamTtftMs).toBeUndefined()

    const labels = request(asked, 200, 'success')
    expect(only(metrics, 'aisix_proxy_requests_total')).toMatchObject({ labels, value: 1 })
    expect(only(metrics, 'aisix_llm_requests_total')).toMatchObject({ labels, value: 1 })
    const { is_fallback, ...duration } = labels
    expect(only(metrics, 'aisix_llm_request_duration_seconds_count')).toEqual({
      name: 'aisix_llm_request_duration_seconds_count',
      labels: duration,
      value: 1,
    })
    const { stream, status, outcome, ...usage } = duration
    expect(only(metrics, 'aisix_llm_input_tokens_total')).toMatchObject({ labels: usage, value: tokens.prompt })
    expect(only(metrics, 'aisix_llm_output_tokens_total')).toMatchObject({ labels: usage, value: tokens.completion })
    expect(only(metrics, 'aisix_llm_total_tokens_total').value).toBe(tokens.prompt + tokens.completion)
    expect(only(metrics, 'aisix_llm_spend_micro_usd_total').value).toBeCloseTo(isEmbedding ? 750 : 4_950, 9)
    expect(only(metrics, 'aisix_tokens_consumed_total')).toMatchObject({ labels: { provider: 'vllm', model: ALIAS } })
    expect(metrics).toContainEqual({
      name: 'aisix_llm_tokens_by_client_total',
      labels: { client_type: 'openai-python', model: ALIAS, token_type: 'input' },
      value: tokens.prompt,
    })
    const latency = { env_id: 'unknown', endpoint: path, model: ALIAS, provider: 'vllm', status_class: '2xx', streaming: stream }
    expect(only(metrics, 'aisix_request_e2e_latency_seconds_count').labels).toEqual(latency)
    expect(families(metrics).has('aisix_request_ttft_seconds_count')).toBe(isStream)
    expect(families(metrics).has('aisix_llm_time_to_first_token_seconds_count')).toBe(isStream)
    expect(families(metrics).has('aisix_proxy_failed_requests_total')).toBe(false)
    expect(only(metrics, 'aisix_deployment_success_responses_total').value).toBe(1)
    expect(only(metrics, 'aisix_usage_events_emitted_total').labels).toEqual({
      handler,
      status_code: '2xx',
      inbound_protocol: protocolOf(asked),
      model: ALIAS,
      provider_key_id: labels.provider_key_id,
      provider_key_name: labels.provider_key_name,
    })
    expect(only(metrics, 'aisix_auth_decisions_total').labels).toEqual({ method: 'api_key', result: 'allowed', reason: 'none' })
    expect(line).toContain(`status=200`)
    expect(line).toContain(`prompt_tokens=5`)
    expect(gateway.telemetry.charged).toHaveLength(1)
  })

  test.each([
    ['a model that there is not', { model: 'no-such' }, 404, 'model_not_found', 'unresolved'],
    ['a body that is wrong', { model: 5 }, 400, 'invalid_request_error', 'unknown'],
  ])('a refusal, %s: a record without an upstream', async (_what, more, status, errorClass, model) => {
    upstream.requests.length = 0
    await answerOf(await ask(asked, more))
    const { record, metrics, line } = await told()
    expect(upstream.requests).toHaveLength(0)
    expect(record).toMatchObject({ handler, status, errorClass, promptTokens: 0, costPico: 0, isTerminal: true, upstreamMs: 0 })
    expect(record?.attemptKind).toBeUndefined()
    expect(only(metrics, 'aisix_proxy_failed_requests_total').labels).toEqual({
      ...request(asked, status, 'client_error'),
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
    await gateway.store.replace(
      'api_keys',
      gateway.rows.apiKey.id,
      key => ({ ...key, rate_limit: RateLimit.parse({ rpm: 0 }) }),
      {
        adminKey: 'test',
        address: '',
      },
    )
    const { status } = await answerOf(await ask(asked))
    const { record, metrics } = await told()
    expect(status).toBe(429)
    expect(record).toMatchObject({ status: 429, errorClass: 'rate_limit_exceeded', labels: { name: ALIAS } })
    expect(only(metrics, 'aisix_proxy_failed_requests_total').labels).toEqual({
      ...request(asked, 429, 'rate_limited'),
      ...untargeted,
    })
  })

  test('no key: one decision, one line of its own, no record and no request', async () => {
    const { status } = await answerOf(
      await fetch(gateway.url + path, { method: 'POST', headers: { authorization: 'Bearer wrong' }, body: '{}' }),
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
    await answerOf(await ask(asked))
    const { record, metrics, line } = await told()
    expect(record).toMatchObject({ status: 502, errorClass: 'upstream_error', promptTokens: 0, completionTokens: 0, costPico: 0 })
    expect(record?.errorMessage).toStartWith('upstream returned 500')
    expect(only(metrics, 'aisix_proxy_failed_requests_total').labels).toEqual(request(asked, 502, 'upstream_error'))
    expect(only(metrics, 'aisix_deployment_requests_total').labels).toEqual({
      provider: 'vllm',
      model: ALIAS,
      upstream_model: UPSTREAM_MODEL,
      provider_key_id: gateway.rows.providerKey.id,
    })
    expect(only(metrics, 'aisix_deployment_failure_responses_total').value).toBe(1)
    expect(families(metrics).has('aisix_deployment_success_responses_total')).toBe(false)
    expect(line).toContain('error_kind="upstream_error"')
  })

  test('retries: a record an attempt, the last one terminal', async () => {
    await gateway.store.replace('models', gateway.rows.model.id, model => ({ ...model, retries: 1 }), {
      adminKey: 'test',
      address: '',
    })
    upstream.answerInTurn((_request, connection) => connection.json(503, {}), asked.answer)
    await answerOf(await ask(asked))
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
      [1, 'retry', 200, true, 5, undefined],
    ])
    expect(records[0]?.requestId).toBe(records[1]?.requestId ?? '')
    expect(records[0]?.downstreamMs).toBeUndefined()
    expect(only(metrics, 'aisix_proxy_requests_total').value).toBe(1)
    expect(only(metrics, 'aisix_deployment_requests_total').value).toBe(2)
  })

  test('a timeout: 504', async () => {
    await gateway.store.replace('models', gateway.rows.model.id, model => ({ ...model, timeout: 30, stream_timeout: 30 }), {
      adminKey: 'test',
      address: '',
    })
    upstream.answer((_request, connection) => connection.stall())
    await answerOf(await ask(asked))
    const { record, metrics } = await told()
    expect(record).toMatchObject({ status: 504, errorClass: 'timeout', promptTokens: 0 })
    expect(record?.upstreamMs).toBeGreaterThanOrEqual(25)
    expect(only(metrics, 'aisix_proxy_failed_requests_total').labels).toEqual(request(asked, 504, 'upstream_error'))
  })

  test('a caller that leaves before the head: 499, and nothing against the upstream', async () => {
    const arrived = upstream.arrived(upstream.requests.length + 1)
    upstream.answer((_request, connection) => connection.stall())
    const leaving = new AbortController()
    const answer = ask(asked, {}, {}, leaving.signal).catch(() => undefined)
    await arrived
    leaving.abort()
    await answer
    const { record, metrics } = await told()
    expect(record).toMatchObject({ status: 499, errorClass: 'client_disconnected', promptTokens: 0, costPico: 0 })
    expect(only(metrics, 'aisix_proxy_client_cancelled_requests_total').labels).toEqual({
      endpoint: path,
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
      if (isStream) {
        await connection.streamHead()
        const chunk = handler !== 'completions' ? chatChunk({ content: REPLY }) : textChunk(REPLY)
        await connection.chunk(`data: ${JSON.stringify(chunk)}\n\n`)
        await isDelivered.promise
        connection.reset()
      } else {
        await connection.raw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"half":')
        connection.reset()
      }
    })
    const response = await ask(asked)
    const reader = response.body?.getReader()
    await reader?.read()
    isDelivered.resolve()
    for (;;) {
      const piece = await reader?.read()
      if (!piece || piece.done) break
    }
    const { record, metrics } = await told()
    expect(record).toMatchObject({ status: 502, errorClass: 'transport_error', isEstimated: isStream })
    expect((record?.completionTokens ?? 0) > 0).toBe(isStream)
    expect((record?.costPico ?? 0) > 0).toBe(isStream)
    expect(only(metrics, 'aisix_proxy_failed_requests_total').labels).toEqual(request(asked, 502, 'upstream_error'))
    expect(only(metrics, 'aisix_deployment_failure_responses_total').value).toBe(1)
  })
})

describe.each(ENDPOINTS.filter(({ isStream }) => isStream))('$name', asked => {
  test('a caller that leaves in the middle: 499, and what came until then is charged as an estimate', async () => {
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      const chunk = asked.handler !== 'completions' ? chatChunk({ content: REPLY }) : textChunk(REPLY)
      await connection.chunk(`data: ${JSON.stringify(chunk)}\n\n`)
      await connection.stall()
    })
    const leaving = new AbortController()
    const response = await ask(asked, {}, {}, leaving.signal)
    const reader = response.body?.getReader()
    await reader?.read()
    leaving.abort()
    await reader?.read().catch(() => undefined)
    const { record, metrics } = await told()
    expect(record).toMatchObject({ status: 499, isEstimated: true, errorClass: 'client_disconnected' })
    expect(record?.completionTokens).toBeGreaterThan(0)
    expect(record?.upstreamTtftMs).toBeGreaterThan(0)
    // Its head was out: it is no request that was cancelled before.
    expect(families(metrics).has('aisix_proxy_client_cancelled_requests_total')).toBe(false)
    expect(only(metrics, 'aisix_request_ttft_seconds_count').value).toBe(1)
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
    expect(answer.status).toBe(499)
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

  test.each(ENDPOINTS)('$name: an exporter that wants content gets what was asked and what was answered', async asked => {
    await gateway.stop()
    const { testTelemetry } = await import('../telemetry.ts')
    gateway = await startGateway({ upstream: upstream.url, telemetry: testTelemetry({ wantsReports: true }) })
    upstream.answer(asked.answer)
    await answerOf(await ask(asked))
    await until('the report is there', () => gateway.telemetry.reports.length === 1)
    const [report] = gateway.telemetry.reports
    expect(report?.content?.prompt).toContain(PROMPT)
    expect(report?.content?.response).toBe(asked.handler === 'embeddings' ? '' : REPLY)
    expect(report?.content?.isTruncated).toBe(false)
    expect(report).toMatchObject({ method: 'POST', endpoint: asked.path, status: 200 })
  })
})
