/** The scrape page of the executable: what is on it before and after traffic of every kind, and what never is. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { allFamilies } from '../src/status/families.ts'
import { type Executable, startExecutable } from './executable.ts'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream } from './fake-upstream.ts'
import { sha256 } from './gateway.ts'
import { operatorOf } from './operator.ts'
import { seriesOf } from './promql.ts'
import { type PageSample, samplesOf } from './telemetry/page.ts'

const PROMTOOL = Bun.which('promtool')
const KEY = 'sk-metrics-caller'
const SHUT_KEY = 'sk-metrics-shut-out'
const BODY_BYTES_MAX = 50_000

let upstream: FakeUpstream
let gateway: Executable
/** Pages: of a gateway that nobody has asked anything, after the requests, after as many with other texts in them. */
const pages = { fresh: '', first: '', second: '' }
/** All that callers made up. */
const madeUp: string[] = []
const ids = { apiKey: '', shutKey: '', goodKey: '', brokenKey: '' }

beforeAll(async () => {
  upstream = await fakeUpstream()
  upstream.answer(async (request, connection) => {
    if (request.path.startsWith('/broken/')) return connection.json(500, { error: { message: 'no memory left' } })
    if (request.path.startsWith('/stalling/')) return connection.stall()
    if (request.path.endsWith('/embeddings')) {
      const usage = { prompt_tokens: 3, total_tokens: 3 }
      return connection.json(200, {
        object: 'list',
        model: 'm',
        data: [{ object: 'embedding', index: 0, embedding: [1] }],
        usage,
      })
    }
    const usage = { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 }
    if (request.path.endsWith('/chat/completions')) {
      if (!request.text.includes('"stream":true')) return connection.json(200, chatAnswer('Hello', { usage }))
      return connection.sse([chatChunk({ content: 'Hel' }), chatChunk({ content: 'lo' }), chatChunk({}, { choices: [], usage })])
    }
    return connection.json(200, { id: 'c', object: 'text_completion', model: 'm', choices: [{ index: 0, text: 'Hello' }], usage })
  })
  gateway = await startExecutable({
    ready: 'log',
    config: { proxy: { request_body_limit_bytes: BODY_BYTES_MAX } },
  })
  pages.fresh = await scrape()
  await setUp()
  await traffic('first')
  pages.first = await scrape()
  await traffic('second')
  pages.second = await scrape()
}, 60_000)
afterAll(async () => {
  await gateway.dispose()
  upstream.stop()
})

async function scrape(): Promise<string> {
  const response = await fetch(`${gateway.statusUrl}/metrics`)
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
  return response.text()
}

async function setUp(): Promise<void> {
  const { write } = operatorOf(gateway)
  const providerKey = (name: string) =>
    write('provider_keys', {
      display_name: `${name}-key`,
      provider: 'vllm',
      adapter: 'openai',
      secret: 'none',
      api_base: `${upstream.origin}/${name}/v1`,
    })
  ids.goodKey = await providerKey('good')
  ids.brokenKey = await providerKey('broken')
  const stallingKey = await providerKey('stalling')
  const model = (display_name: string, provider_key_id: string, more: object = {}) =>
    write('models', {
      display_name,
      provider: 'vllm',
      model_name: 'm',
      provider_key_id,
      retries: 0,
      cooldown: { enabled: false },
      ...more,
    })
  await model('good', ids.goodKey, { cost: { input_per_1k: 0.1, output_per_1k: 0.2 } })
  await model('broken', ids.brokenKey)
  await model('stalling', stallingKey)
  await model('wild-*', ids.goodKey, { model_name: '*' })
  await write('models', {
    display_name: 'group',
    routing: { strategy: 'failover', targets: [{ model: 'broken' }, { model: 'good' }] },
  })
  ids.apiKey = await write('apikeys', {
    key_hash: sha256(KEY),
    allowed_models: ['*'],
    team_id: 'red',
    user_id: 'u-1',
    user_name: 'Ada',
  })
  ids.shutKey = await write('apikeys', { key_hash: sha256(SHUT_KEY), allowed_models: ['*'], rate_limit: { rpm: 0 } })
}

/** What is sent in one round, and what it is answered with. */
const SENT = {
  chat: 80,
  streams: 60,
  embeddings: 40,
  completions: 20,
  broken: 20,
  group: 30,
  unresolved: 25,
  wild: 20,
  wrongKey: 30,
  noKey: 5,
  unknownPath: 24,
  badJson: 10,
  shutOut: 6,
  tooLarge: 3,
  left: 4,
} as const

async function traffic(round: string): Promise<void> {
  const invent = (kind: string, n: number) => {
    const text = `${kind}-${round}-${n}-${crypto.randomUUID()}`
    madeUp.push(text)
    return text
  }
  const post = (path: string, body: unknown, n: number, { key = KEY, signal }: { key?: string; signal?: AbortSignal } = {}) =>
    fetch(`${gateway.proxyUrl}${path}?${invent('query', n)}`, {
      method: 'POST',
      headers: {
        ...(key === '' ? {} : { authorization: `Bearer ${key}` }),
        'content-type': 'application/json',
        'user-agent': n % 2 === 0 ? invent('program', n) : 'OpenAI/Python 1.2',
        'x-request-id': invent('request', n),
      },
      body: typeof body === 'string' ? body : JSON.stringify(body),
      ...(signal ? { signal } : {}),
    })
  const expectStatus = async (answering: Promise<Response>, status: number) => {
    const answer = await answering
    await answer.text()
    expect(answer.status).toBe(status)
  }
  const chat = (n: number, model = 'good', more: object = {}, key = KEY) =>
    post(
      '/v1/chat/completions',
      { model, messages: [{ role: 'user', content: invent('prompt', n) }], user: invent('user', n), ...more },
      n,
      { key },
    )
  const each = async (count: number, send: (n: number) => Promise<void>) => {
    for (let at = 0; at < count; at += 10) {
      await Promise.all(Array.from({ length: Math.min(10, count - at) }, (_, n) => send(at + n)))
    }
  }
  await each(SENT.chat, n => expectStatus(chat(n), 200))
  await each(SENT.streams, n => expectStatus(chat(n, 'good', { stream: true }), 200))
  await each(SENT.embeddings, n => expectStatus(post('/v1/embeddings', { model: 'good', input: invent('input', n) }, n), 200))
  await each(SENT.completions, n => expectStatus(post('/v1/completions', { model: 'good', prompt: invent('prompt', n) }, n), 200))
  await each(SENT.broken, n => expectStatus(chat(n, 'broken'), 502))
  await each(SENT.group, n => expectStatus(chat(n, 'group'), 200))
  await each(SENT.unresolved, n => expectStatus(chat(n, invent('model', n)), 404))
  await each(SENT.wild, n => expectStatus(chat(n, `wild-${invent('alias', n)}`), 200))
  await each(SENT.wrongKey, n => expectStatus(chat(n, 'good', {}, invent('sk', n)), 401))
  await each(SENT.noKey, n => expectStatus(chat(n, 'good', {}, ''), 401))
  await each(SENT.unknownPath, n => expectStatus(post(`/v1/${invent('path', n)}`, {}, n), 404))
  await each(SENT.badJson, n => expectStatus(post('/v1/chat/completions', `{"model": "${invent('broken', n)}`, n), 400))
  await each(SENT.shutOut, n => expectStatus(chat(n, 'good', {}, SHUT_KEY), 429))
  await each(SENT.tooLarge, n => expectStatus(chat(n, 'good', { padding: 'x'.repeat(BODY_BYTES_MAX) }), 413))
  const arrived = upstream.requests.length
  const leaving = new AbortController()
  const left = Array.from({ length: SENT.left }, (_, n) =>
    post('/v1/chat/completions', { model: 'stalling', messages: [{ role: 'user', content: 'Hi' }] }, n, {
      signal: leaving.signal,
    }).catch(() => undefined),
  )
  await upstream.arrived(arrived + SENT.left)
  leaving.abort()
  await Promise.all(left)
  // The gateway hears a little later than they left.
  const rounds = round === 'first' ? 1 : 2
  await untilPage(page => total(page, 'aisix_proxy_client_cancelled_requests_total') === SENT.left * rounds)
}

async function untilPage(holds: (page: PageSample[]) => boolean): Promise<void> {
  const giveUpAt = Date.now() + 10_000
  while (!holds(samplesOf(await scrape()))) {
    if (Date.now() > giveUpAt) throw new Error('waited 10 s in vain for the page to tell of callers that left')
    await Bun.sleep(5)
  }
}

/** Sum over the series of a family that have these labels. */
function total(page: PageSample[], name: string, labels: Record<string, string> = {}): number {
  return page
    .filter(sample => sample.name === name && Object.entries(labels).every(([label, value]) => sample.labels[label] === value))
    .reduce((sum, { value }) => sum + value, 0)
}

/** Of one round. */
const ANSWERED_CHATS = SENT.chat + SENT.streams + SENT.group + SENT.wild
const SUCCEEDED = ANSWERED_CHATS + SENT.embeddings + SENT.completions
const MODEL_REQUESTS = SUCCEEDED + SENT.broken + SENT.unresolved + SENT.badJson + SENT.shutOut + SENT.tooLarge + SENT.left
const TOKENS_IN = (ANSWERED_CHATS + SENT.completions) * 5 + SENT.embeddings * 3
const TOKENS_OUT = (ANSWERED_CHATS + SENT.completions) * 7

describe('before traffic', () => {
  test('the page tells of the configuration, and of nothing else', () => {
    const names = samplesOf(pages.fresh).map(({ name }) => name)
    expect(names.length).toBeGreaterThan(10)
    for (const name of names) expect(name).toStartWith('aisix_config_')
  })
})

describe.each(['first', 'second'] as const)('after the %s round', round => {
  const rounds = round === 'first' ? 1 : 2
  const read = () => samplesOf(pages[round])

  test.skipIf(!PROMTOOL)('promtool has nothing to complain of', () => {
    const { exitCode, stdout, stderr } = Bun.spawnSync([PROMTOOL ?? '', 'check', 'metrics'], { stdin: Buffer.from(pages[round]) })
    expect(`${stdout}${stderr}`).toBe('')
    expect(exitCode).toBe(0)
  })

  test('every series belongs to a family of the reference and has its labels', () => {
    const series = seriesOf(allFamilies({}))
    for (const { name, labels } of read())
      expect(Object.keys(labels), name).toEqual([...(series.get(name) ?? ['no such family'])])
  })

  test('every series stands there once', () => {
    const lines = pages[round].split('\n').filter(line => line !== '' && !line.startsWith('#'))
    const names = lines.map(line => line.slice(0, line.lastIndexOf(' ')))
    expect(new Set(names).size).toBe(names.length)
  })

  test('buckets add up, and the last one is the count', () => {
    const counts = new Map<string, number>()
    for (const [, name = '', labels = '', bound = '', count = ''] of pages[round].matchAll(
      /^(\w+)_bucket\{(.*),le="([^"]+)"\} (\d+)$/gm,
    )) {
      const key = `${name}{${labels}}`
      expect(Number(count), `${key} ${bound}`).toBeGreaterThanOrEqual(counts.get(key) ?? 0)
      counts.set(key, Number(count))
    }
    expect(counts.size).toBeGreaterThan(5)
    for (const [key, count] of counts) expect(pages[round]).toContain(`\n${key.replace('{', '_count{')} ${count}\n`)
  })

  test('requests are counted by endpoint and outcome, those with a wrong credential among the decisions alone', () => {
    const page = read()
    const requests = (labels: Record<string, string>) => total(page, 'aisix_proxy_requests_total', labels) / rounds
    expect(requests({})).toBe(MODEL_REQUESTS + SENT.unknownPath)
    expect(requests({ endpoint: '/v1/embeddings' })).toBe(SENT.embeddings)
    expect(requests({ endpoint: '/v1/completions' })).toBe(SENT.completions)
    expect(requests({ endpoint: 'other', status: '404', outcome: 'client_error' })).toBe(SENT.unknownPath)
    expect(requests({ outcome: 'success' })).toBe(SUCCEEDED)
    expect(requests({ outcome: 'upstream_error' })).toBe(SENT.broken)
    expect(requests({ outcome: 'rate_limited', api_key_id: ids.shutKey })).toBe(SENT.shutOut)
    expect(requests({ status: '401' })).toBe(0)
    expect(requests({ status: '499' })).toBe(SENT.left)
    expect(requests({ stream: 'true' })).toBe(SENT.streams)
    expect(requests({ is_fallback: 'true', model: 'group' })).toBe(SENT.group)
    expect(total(page, 'aisix_proxy_failed_requests_total') / rounds).toBe(MODEL_REQUESTS + SENT.unknownPath - SUCCEEDED)
    expect(total(page, 'aisix_llm_requests_total') / rounds).toBe(MODEL_REQUESTS)
    expect(total(page, 'aisix_requests_total') / rounds).toBe(MODEL_REQUESTS)
    expect(total(page, 'aisix_request_e2e_latency_seconds_count') / rounds).toBe(MODEL_REQUESTS + SENT.unknownPath)
    const decisions = (labels: Record<string, string>) => total(page, 'aisix_auth_decisions_total', labels) / rounds
    expect(decisions({ reason: 'unknown_key' })).toBe(SENT.wrongKey)
    expect(decisions({ reason: 'missing_credentials' })).toBe(SENT.noKey)
    // A body over the limit is refused before anybody is asked for a key.
    expect(decisions({ result: 'allowed' })).toBe(MODEL_REQUESTS - SENT.tooLarge)
  })

  test('models are called by their configured names', () => {
    const page = read()
    const requests = (model: string) => total(page, 'aisix_llm_requests_total', { model }) / rounds
    expect(requests('unresolved')).toBe(SENT.unresolved)
    expect(requests('wild-*')).toBe(SENT.wild)
    expect(requests('group')).toBe(SENT.group)
    expect(requests('broken')).toBe(SENT.broken)
    expect(requests('unknown')).toBe(SENT.badJson + SENT.tooLarge)
  })

  test('tokens, money and programs are counted to the token', () => {
    const page = read()
    const sum = (name: string, labels: Record<string, string> = {}) => total(page, name, labels) / rounds
    expect(sum('aisix_llm_input_tokens_total')).toBe(TOKENS_IN)
    expect(sum('aisix_llm_output_tokens_total', { user_name: 'Ada', team_id: 'red' })).toBe(TOKENS_OUT)
    expect(sum('aisix_llm_total_tokens_total', { api_key_id: ids.apiKey })).toBe(TOKENS_IN + TOKENS_OUT)
    expect(sum('aisix_tokens_consumed_total')).toBe(TOKENS_IN + TOKENS_OUT)
    expect(sum('aisix_llm_tokens_by_client_total', { token_type: 'total' })).toBe(TOKENS_IN + TOKENS_OUT)
    const clients = new Set(page.flatMap(({ labels }) => labels.client_type ?? []))
    expect([...clients].sort()).toEqual(['openai-python', 'other'])
    // 100 and 200 micro-dollars a token; the wildcard has no price, the group that of the member that answered.
    const priced = SENT.chat + SENT.streams + SENT.group + SENT.completions
    const spent = priced * (5 * 100 + 7 * 200) + SENT.embeddings * 3 * 100
    expect(sum('aisix_llm_spend_micro_usd_total')).toBeCloseTo(spent, 3)
    expect(sum('aisix_request_ttft_seconds_count', { streaming: 'true' })).toBe(SENT.streams)
    expect(sum('aisix_llm_time_to_first_token_seconds_count')).toBe(SENT.streams)
  })

  test('attempts, fallbacks, refusals and records are counted', () => {
    const page = read()
    const sum = (name: string, labels: Record<string, string> = {}) => total(page, name, labels) / rounds
    const attempts = SUCCEEDED + SENT.group + SENT.broken + SENT.left
    expect(sum('aisix_deployment_requests_total')).toBe(attempts)
    expect(sum('aisix_deployment_failure_responses_total', { model: 'broken' })).toBe(SENT.broken + SENT.group)
    expect(sum('aisix_deployment_success_responses_total')).toBe(SUCCEEDED)
    expect(sum('aisix_routing_successful_fallbacks_total', { model: 'group', fallback_model: 'good' })).toBe(SENT.group)
    expect(sum('aisix_routing_failed_fallbacks_total')).toBe(0)
    expect(sum('aisix_ratelimit_rejections_total', { scope: 'requests', layer: 'api_key', policy_id: '' })).toBe(SENT.shutOut)
    expect(sum('aisix_proxy_request_body_limit_rejections_total', { outcome: 'completed' })).toBe(SENT.tooLarge)
    // One an attempt, and one for each request that reached no upstream.
    const records = attempts + SENT.unresolved + SENT.badJson + SENT.shutOut + SENT.tooLarge
    expect(sum('aisix_usage_events_emitted_total') + sum('aisix_usage_event_drops_total')).toBe(records)
    expect(total(page, 'aisix_deployment_state', { model: 'good' })).toBe(0)
    const underWay = page.filter(({ name }) => name === 'aisix_proxy_in_flight_requests')
    expect(underWay.map(({ labels, value }) => `${labels.endpoint} ${value}`).sort()).toEqual([
      '/v1/chat/completions 0',
      '/v1/completions 0',
      '/v1/embeddings 0',
      'other 0',
    ])
  })

  test('nothing that callers made up is on it', () => {
    expect(madeUp.length).toBeGreaterThan(500)
    for (const text of madeUp) expect(pages[round]).not.toContain(text)
    for (const secret of [KEY, SHUT_KEY, sha256(KEY)]) expect(pages[round]).not.toContain(secret)
  })
})

test('as many requests with other texts in them make no new series', () => {
  const names = (page: string) => samplesOf(page).map(({ name, labels }) => `${name}${JSON.stringify(labels)}`)
  expect(names(pages.second).sort()).toEqual(names(pages.first).sort())
})

test('the page is on the listener of metrics alone', async () => {
  for (const url of [gateway.proxyUrl, gateway.adminUrl]) expect((await fetch(`${url}/metrics`)).status).toBe(404)
})

test('series of a deleted key are gone at the next scrape, sums of the others stay', async () => {
  const before = samplesOf(await scrape())
  expect(total(before, 'aisix_llm_requests_total', { api_key_id: ids.shutKey })).toBeGreaterThan(0)
  const { ask } = operatorOf(gateway)
  expect((await ask('DELETE', `apikeys/${ids.shutKey}`)).status).toBe(200)
  const page = await scrape()
  expect(page).not.toContain(ids.shutKey)
  const labels = { api_key_id: ids.apiKey }
  expect(total(samplesOf(page), 'aisix_llm_requests_total', labels)).toBe(total(before, 'aisix_llm_requests_total', labels))
})

test('where there is no room for more series, all further requests count as `other`, and sums stay right', async () => {
  const small = await startExecutable({
    config: { observability: { metrics: { max_series: 100, prometheus: { addr: '127.0.0.1:0' } } } },
    ready: 'log',
  })
  try {
    const metricsUrl = `http://${/ metrics="([^"]+)"/.exec(small.stderr())?.[1]}/metrics`
    const { write } = operatorOf(small)
    for (let n = 0; n < 40; n += 1) {
      const key = `sk-many-${n}`
      await write('apikeys', { key_hash: sha256(key), allowed_models: ['*'] })
      const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
      const body = JSON.stringify({ model: 'nobody', messages: [{ role: 'user', content: 'Hi' }] })
      expect((await fetch(`${small.proxyUrl}/v1/chat/completions`, { method: 'POST', headers, body })).status).toBe(404)
    }
    const text = await (await fetch(metricsUrl)).text()
    const page = samplesOf(text)
    expect(total(page, 'aisix_llm_requests_total')).toBe(40)
    const others = total(page, 'aisix_llm_requests_total', { api_key_id: 'other', status: 'other', endpoint: 'other' })
    expect(others).toBeGreaterThan(0)
    expect(total(page, 'aisix_metric_series_overflows_total')).toBeGreaterThan(0)
    // Each family may have one series more, for the rest.
    expect(total(page, 'aisix_metric_series')).toBeLessThan(100 + 60)
    if (!PROMTOOL) return
    const { exitCode, stdout, stderr } = Bun.spawnSync([PROMTOOL, 'check', 'metrics'], { stdin: Buffer.from(text) })
    expect([exitCode, `${stdout}${stderr}`]).toEqual([0, ''])
  } finally {
    await small.dispose()
  }
})
