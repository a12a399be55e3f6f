/** Background checks against a real listener; the clock is passed in, and only `tick` makes time pass. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { runtimeFetch } from '../../src/lib/fetch.ts'
import { createLog } from '../../src/lib/log.ts'
import { createModelHealth, type HealthReport, healthRules, type StatusReason } from '../../src/model-health.ts'
import { createDialer } from '../../src/proxy/dial.ts'
import { createModelChecker } from '../../src/proxy/model-check.ts'
import { compileUpstream } from '../../src/proxy/upstream.ts'
import { Model } from '../../src/resources/model.ts'
import { ProviderKey } from '../../src/resources/provider-key.ts'
import { openMemoryStore } from '../../src/store/memory.ts'
import { isDirectEntry } from '../../src/store/snapshot.ts'
import type { Entry } from '../../src/store/store.ts'
import { chatAnswer, type FakeUpstream, fakeUpstream, type Handler } from '../fake-upstream.ts'
import { ACTOR, UPSTREAM_SECRET, until } from '../gateway.ts'

const START = Date.parse('2030-01-01T00:00:00Z')

type Section = Record<string, unknown>

const COMPLETION = {
  enabled: true,
  interval_seconds: 10,
  timeout_seconds: 20,
  prompt: 'ping',
  max_tokens: 3,
  stale_after_seconds: 60,
}
const ENDPOINT = { enabled: true, interval_seconds: 10, timeout_seconds: 20, stale_after_seconds: 60 }

let upstream: FakeUpstream
let checks: Awaited<ReturnType<typeof open>>
beforeAll(async () => {
  upstream = await fakeUpstream()
})
beforeEach(async () => {
  upstream.requests.length = 0
  upstream.cut = 0
  upstream.answer((_request, connection) => connection.json(200, chatAnswer()))
  checks = await open()
})
afterEach(() => checks.checker.stop())
afterAll(() => upstream.stop())

/** A checker over a store with one provider key that leads to the fake upstream. */
async function open({ providerKey = {} }: { providerKey?: Section } = {}) {
  const time = { nowMs: START }
  const clock = { now: () => time.nowMs, monotonic: () => performance.now() }
  const store = openMemoryStore({ clock })
  const health = createModelHealth()
  const lines: string[] = []
  const log = createLog({
    filter: 'debug',
    sink: {
      isTerminal: false,
      write(text, done) {
        lines.push(...text.trimEnd().split('\n'))
        done()
      },
    },
  })
  const dial = createDialer({
    fetch: runtimeFetch,
    proxy: undefined,
    connectTimeoutMs: 10_000,
    monotonic: clock.monotonic,
  })
  let dialled = 0
  const checker = createModelChecker({
    store,
    clock,
    modelHealth: health,
    log,
    upstreamOf: entry => compileUpstream(entry, { ca: [], cert: undefined, key: undefined, verify: true }),
    dial(request) {
      dialled += 1
      return dial(request)
    },
  })
  const keyDocument = (members: Section = {}) =>
    ProviderKey.parse({
      display_name: 'gpu-a',
      provider: 'vllm',
      adapter: 'openai',
      secret: UPSTREAM_SECRET,
      api_base: upstream.url,
      ...providerKey,
      ...members,
    })
  const key = await store.create('provider_keys', keyDocument(), ACTOR)
  const modelDocument = (display_name: string, check: Section | undefined, members: Section = {}) =>
    Model.parse({
      display_name,
      provider: 'vllm',
      model_name: 'org/model',
      provider_key_id: key.id,
      ...(check ? { background_model_check: check } : {}),
      ...members,
    })
  const addModel = (check: Section | 'unchecked' = COMPLETION, name = 'a', members: Section = {}) =>
    store.create('models', modelDocument(name, check === 'unchecked' ? undefined : check, members), ACTOR)
  const report = (id: string): HealthReport => {
    const entry = store.get('models', id)
    if (!entry || !isDirectEntry(entry)) throw new Error('no such direct model')
    return health.of(id).report(healthRules(entry.value), time.nowMs)
  }
  const tick = (seconds = 0) => {
    time.nowMs += seconds * 1_000
    checker.tick(time.nowMs)
  }
  /** Makes time pass, and waits for the verdict of the check that is then due on this model. */
  const checked = async ({ id }: Entry<'models'>, seconds = 0): Promise<HealthReport> => {
    tick(seconds)
    await until('the verdict of a check', () => report(id).lastCheckedAt === time.nowMs)
    return report(id)
  }
  return {
    store,
    health,
    lines,
    checker,
    key,
    keyDocument,
    modelDocument,
    addModel,
    report,
    tick,
    checked,
    time,
    /** Requests that were handed to the dialer so far: a tick that starts a check has done so when it returns. */
    dialled: () => dialled,
  }
}

const answering =
  (status: number, body: unknown = {}, headers: Record<string, string> = {}): Handler =>
  (_request, connection) =>
    connection.json(status, body, headers)

/** Answers by path; a path that is missing is 404. */
function serveRoutes(routes: Record<string, number>): void {
  upstream.answer((request, connection) => connection.json(routes[request.path] ?? 404, { detail: 'words' }))
}
const asked = () => upstream.requests.map(({ method, path }) => `${method} ${path}`)

const verdict = (report: Pick<HealthReport, 'availability' | 'lastCheckStatus' | 'reason'>): HealthReport => ({
  ...report,
  cooldownUntil: undefined,
  lastCheckedAt: START,
})
const unhealthy = (lastCheckStatus: number | undefined, reason: StatusReason = 'background_check_failed') =>
  verdict({ availability: 'unhealthy', lastCheckStatus, reason })
const healthy = (lastCheckStatus: number, reason?: StatusReason) => verdict({ availability: 'healthy', lastCheckStatus, reason })

describe('a completion check', () => {
  test('is one short chat request that is not streamed, and passes with an answer', async () => {
    const model = await checks.addModel()
    expect(await checks.checked(model)).toMatchObject(healthy(200))
    expect(asked()).toEqual(['POST /v1/chat/completions'])
    expect(upstream.last().json()).toEqual({
      model: 'org/model',
      messages: [{ role: 'user', content: 'ping' }],
      max_tokens: 3,
      stream: false,
    })
    expect(upstream.last().header('authorization')).toBe(`Bearer ${UPSTREAM_SECRET}`)
    expect(upstream.last().header('content-type')).toBe('application/json')
  })

  test('goes through what the provider key changes in requests', async () => {
    await checks.checker.stop()
    checks = await open({
      providerKey: {
        request: {
          param_renames: { max_tokens: 'max_completion_tokens' },
          default_body_fields: { seed: 1 },
          default_headers: { 'x-model': '${model.name}', 'x-caller': '${request.api_key.id}' },
        },
      },
    })
    await checks.checked(await checks.addModel())
    expect(upstream.last().json()).toMatchObject({ max_completion_tokens: 3, seed: 1 })
    expect(upstream.last().header('x-model')).toBe('a')
    expect(upstream.last().header('x-caller')).toBeUndefined()
  })

  test.each([302, 400, 401, 403, 404, 408, 429, 500, 501, 503])('fails with status %d', async status => {
    upstream.answer(answering(status, { error: { message: 'words' } }, { location: '/elsewhere' }))
    expect(await checks.checked(await checks.addModel())).toEqual(unhealthy(status))
    expect(upstream.requests).toHaveLength(1)
  })

  test.each<[string, unknown, number]>([
    ['without choices', { id: 'x' }, 200],
    ['that is an error without a status', { error: { message: 'out of memory' } }, 200],
    ['that is an error with a status', { error: { message: 'busy', code: 429 } }, 200],
  ])('fails with a 200 %s', async (_what, body, status) => {
    upstream.answer(answering(200, body))
    expect(await checks.checked(await checks.addModel())).toEqual(unhealthy(status))
  })

  test('fails with a 200 that is no JSON', async () => {
    upstream.answer((_request, connection) => connection.send(200, '<html>', { 'content-type': 'text/html' }))
    expect(await checks.checked(await checks.addModel())).toEqual(unhealthy(200))
  })

  test('fails with a body that breaks off', async () => {
    upstream.answer(async (_request, connection) => {
      await connection.raw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"choices":')
      connection.reset()
    })
    expect(await checks.checked(await checks.addModel())).toMatchObject({ availability: 'unhealthy' })
  })

  test('fails without a status where no connection can be had', async () => {
    const model = await checks.addModel()
    await checks.store.replace(
      'provider_keys',
      checks.key.id,
      () => checks.keyDocument({ api_base: 'http://127.0.0.1:1/v1' }),
      ACTOR,
    )
    expect(await checks.checked(model)).toEqual(unhealthy(undefined))
  })
})

describe.each([
  ['completion', COMPLETION],
  ['endpoint', ENDPOINT],
])('a check of mode %s', (_mode, check) => {
  test('fails with 408 when its time is over, and closes the connection', async () => {
    upstream.answer((_request, connection) => connection.stall())
    const model = await checks.addModel({ ...check, timeout_seconds: 1 })
    expect(await checks.checked(model)).toEqual(unhealthy(408))
    await upstream.whenCut(1)
  })

  test('fails without a status, and asks nothing, where the provider key is of no use', async () => {
    const model = await checks.addModel(check, 'a', { provider_key_id: 'nobody' })
    expect(await checks.checked(model)).toEqual(unhealthy(undefined))
    expect(checks.lines.join('\n')).toContain('names a provider key that does not exist')
    await checks.store.replace(
      'provider_keys',
      checks.key.id,
      () => checks.keyDocument({ provider: 'other', api_base: undefined }),
      ACTOR,
    )
    const other = await checks.addModel(check, 'b')
    expect(await checks.checked(other)).toEqual(unhealthy(undefined))
    expect(upstream.requests).toHaveLength(0)
  })

  test('that fails with a status of `ignore_statuses` is recorded and leaves the model healthy', async () => {
    upstream.answer(answering(429))
    const model = await checks.addModel({ ...check, ignore_statuses: [429] })
    expect(await checks.checked(model)).toEqual(healthy(429, 'ignored_transient_error'))
    upstream.answer(answering(503))
    expect((await checks.checked(model, 10)).availability).toBe('unhealthy')
  })

  test('whose time is over is ignored where `ignore_statuses` has 408', async () => {
    upstream.answer((_request, connection) => connection.stall())
    const model = await checks.addModel({ ...check, timeout_seconds: 1, ignore_statuses: [408] })
    expect(await checks.checked(model)).toEqual(healthy(408, 'ignored_transient_error'))
  })

  test('starts no cooldown, counts no failure, load or latency', async () => {
    upstream.answer(answering(429, {}, { 'retry-after': '100' }))
    const model = await checks.addModel(check)
    await checks.checked(model)
    const state = checks.health.of(model.id)
    expect([state.failures, state.inFlight, state.latencyMs]).toEqual([0, 0, undefined])
    expect(checks.report(model.id).cooldownUntil).toBeUndefined()
  })
})

describe('an endpoint check', () => {
  test('asks for /models and for one /health, and never posts', async () => {
    serveRoutes({ '/v1/models': 200, '/health': 200 })
    expect(await checks.checked(await checks.addModel(ENDPOINT))).toEqual(healthy(200))
    expect(asked()).toEqual(['GET /v1/models', 'GET /health'])
    for (const request of upstream.requests) {
      expect([request.text, request.header('content-type'), request.header('content-length')]).toEqual(['', undefined, undefined])
    }
  })

  test('is the mode of a check with a prompt where `mode` says so', async () => {
    serveRoutes({ '/v1/models': 200 })
    await checks.checked(await checks.addModel({ ...COMPLETION, mode: 'endpoint' }))
    expect(asked()).toEqual(['GET /v1/models', 'GET /health'])
  })

  test('shows the credential to /models alone', async () => {
    serveRoutes({ '/v1/models': 200, '/health': 200 })
    await checks.checked(await checks.addModel(ENDPOINT))
    expect(upstream.requests.map(request => request.header('authorization'))).toEqual([`Bearer ${UPSTREAM_SECRET}`, undefined])
  })

  test("asks for /health at the host's root and beside the last part of the base", async () => {
    await checks.checker.stop()
    checks = await open({ providerKey: { api_base: `${upstream.origin}/llm/a/v1` } })
    serveRoutes({ '/llm/a/v1/models': 200, '/health': 200, '/llm/a/health': 503 })
    expect(await checks.checked(await checks.addModel(ENDPOINT))).toEqual(unhealthy(503))
    expect(asked()).toEqual(['GET /llm/a/v1/models', 'GET /health', 'GET /llm/a/health'])
  })

  test.each([
    [404, 404],
    [405, 405],
    [501, 501],
    [200, 404],
    [200, 401],
    [200, 403],
    [200, 405],
    [200, 429],
    [200, 501],
    [200, 302],
    [404, 200],
  ])('passes with /models %d and /health %d', async (models, own) => {
    serveRoutes({ '/v1/models': models, '/health': own })
    expect(await checks.checked(await checks.addModel(ENDPOINT))).toEqual(healthy(models === 404 && own === 200 ? 200 : models))
  })

  test.each([302, 400, 403, 408, 429, 500, 503])('fails with /models %d, and asks no further', async status => {
    serveRoutes({ '/v1/models': status, '/health': 200 })
    expect(await checks.checked(await checks.addModel(ENDPOINT))).toEqual(unhealthy(status))
    expect(asked()).toEqual(['GET /v1/models'])
  })

  test('fails with 401 of /models because of `upstream_auth_failure`', async () => {
    serveRoutes({ '/v1/models': 401, '/health': 200 })
    expect(await checks.checked(await checks.addModel(ENDPOINT))).toEqual(unhealthy(401, 'upstream_auth_failure'))
  })

  test.each([500, 502, 503])('fails with /health %d', async status => {
    serveRoutes({ '/v1/models': 200, '/health': status })
    expect(await checks.checked(await checks.addModel(ENDPOINT))).toEqual(unhealthy(status))
  })

  test('fails where /health brings the connection down', async () => {
    upstream.answer((request, connection) => {
      if (request.path === '/health') connection.reset()
      else return connection.json(200, {})
    })
    expect(await checks.checked(await checks.addModel(ENDPOINT))).toEqual(unhealthy(undefined))
  })

  test('asks for /health also where /models failed with an ignored status, and fails by it', async () => {
    serveRoutes({ '/v1/models': 429, '/health': 503 })
    expect(await checks.checked(await checks.addModel({ ...ENDPOINT, ignore_statuses: [429] }))).toEqual(unhealthy(503))
  })

  test('leaves no connection behind after an answer without an end', async () => {
    upstream.answer(async (request, connection) => {
      if (request.path === '/health') return connection.json(200, {})
      await connection.streamHead()
      // The runtime may stop reading before all of it is taken; the connection is closed then.
      while (!connection.isClosed()) await Promise.race([connection.chunk('x'.repeat(16_384)), connection.closed])
    })
    expect(await checks.checked(await checks.addModel(ENDPOINT))).toMatchObject({ availability: 'healthy' })
    await upstream.whenCut(1)
  })
})

describe('a failed check', () => {
  test('is cleared by one that passes', async () => {
    upstream.answer(answering(503))
    const model = await checks.addModel()
    expect((await checks.checked(model)).availability).toBe('unhealthy')
    upstream.answer(answering(200, chatAnswer()))
    expect((await checks.checked(model, 10)).availability).toBe('healthy')
  })

  test('is logged once a change, with names and reason, without the secret', async () => {
    upstream.answer(answering(503, { error: { message: 'Loading model' } }))
    const model = await checks.addModel()
    for (const seconds of [0, 10, 10]) await checks.checked(model, seconds)
    upstream.answer(answering(200, chatAnswer()))
    for (const seconds of [10, 10]) await checks.checked(model, seconds)
    const told = checks.lines.filter(line => line.includes(' health: '))
    expect(told).toHaveLength(2)
    expect(told[0]).toContain(' WARN health: model is unhealthy model="a" provider_key="gpu-a" mode="completion" status=503')
    expect(told[0]).toContain('reason="background_check_failed" error="upstream returned 503: Loading model"')
    expect(told[1]).toContain(' INFO health: model is healthy again model="a" provider_key="gpu-a"')
    expect(checks.lines.join('\n')).not.toContain(UPSTREAM_SECRET)
  })
})

describe('the schedule', () => {
  const counted = () => checks.dialled()

  test('checks at once, then every `interval_seconds` from the start of the last', async () => {
    const model = await checks.addModel()
    await checks.checked(model)
    checks.tick(9)
    checks.tick(0.9)
    expect(counted()).toBe(1)
    await checks.checked(model, 0.1)
    expect(counted()).toBe(2)
    // A late tick does not move what follows: the interval runs from the start.
    await checks.checked(model, 14)
    checks.tick(9)
    expect(counted()).toBe(3)
    await checks.checked(model, 1)
    expect(counted()).toBe(4)
  })

  test('never checks a model twice at once, however late the answer', async () => {
    const gate = Promise.withResolvers<void>()
    upstream.answer(async (_request, connection) => {
      await gate.promise
      await connection.json(200, chatAnswer())
    })
    const model = await checks.addModel()
    checks.tick()
    await upstream.arrived(1)
    for (const seconds of [10, 10, 10]) checks.tick(seconds)
    expect(counted()).toBe(1)
    gate.resolve()
    await until('the verdict', () => checks.report(model.id).lastCheckedAt === checks.time.nowMs)
    await checks.checked(model, 1)
    expect(counted()).toBe(2)
  })

  test('a verdict holds while the next check waits for its turn, and late checks are warned of once a minute', async () => {
    upstream.answer((_request, connection) => connection.json(503, {}))
    const check = { ...ENDPOINT, stale_after_seconds: 15 }
    const dead = await checks.addModel(check, 'dead')
    expect((await checks.checked(dead)).availability).toBe('unhealthy')
    upstream.answer((_request, connection) => connection.stall())
    for (const name of ['w', 'x', 'y', 'z'])
      await checks.addModel({ ...check, timeout_seconds: 300, interval_seconds: 300 }, name)
    checks.tick()
    await upstream.arrived(5)
    checks.tick(10)
    expect(checks.lines.some(line => line.includes('background checks are late'))).toBe(false)
    checks.tick(50)
    expect(checks.report(dead.id).availability).toBe('unhealthy')
    checks.tick(1)
    const late = checks.lines.filter(line => line.includes('background checks are late'))
    expect(late).toHaveLength(1)
    expect(late[0]).toContain('model="dead"')
    expect(late[0]).toContain('since_last_check_secs=60')
  })

  test('runs at most 4 checks at once, and the others in the order in which they were due', async () => {
    const gates: (() => void)[] = []
    upstream.answer(async (_request, connection) => {
      const { promise, resolve } = Promise.withResolvers<void>()
      gates.push(resolve)
      await promise
      await connection.json(200, chatAnswer())
    })
    const models: Entry<'models'>[] = []
    for (let i = 0; i < 10; i += 1) models.push(await checks.addModel(COMPLETION, `m${i}`, { model_name: `up-${i}` }))
    checks.tick()
    const names = () => upstream.requests.map(({ text }) => String(JSON.parse(text).model))
    await upstream.arrived(4)
    for (let arrived = 4; arrived <= 10; arrived += 1) {
      await upstream.arrived(arrived)
      // What is due again must not overtake those that wait.
      checks.tick(10)
      expect([gates.length, checks.dialled()]).toEqual([arrived, arrived])
      gates[arrived - 4]?.()
    }
    await upstream.arrived(11)
    expect(names().slice(0, 4).sort()).toEqual(['up-0', 'up-1', 'up-2', 'up-3'])
    expect(names().slice(4, 10)).toEqual(['up-4', 'up-5', 'up-6', 'up-7', 'up-8', 'up-9'])
  })

  test('goes on after a clock that was set back', async () => {
    const model = await checks.addModel()
    await checks.checked(model)
    await checks.checked(model, -3_600)
    expect(counted()).toBe(2)
  })

  test('leaves alone patterns, groups, models without a check, and checks that are switched off', async () => {
    await checks.addModel(COMPLETION, 'vllm/*')
    await checks.addModel('unchecked', 'a')
    await checks.addModel({ ...COMPLETION, enabled: false }, 'b')
    await checks.store.create('models', Model.parse({ display_name: 'g', routing: { targets: [{ model: 'a' }] } }), ACTOR)
    checks.tick()
    checks.tick(100)
    expect(counted()).toBe(0)
  })
})

describe('a change of configuration', () => {
  test('of the model, or of its provider key, is followed by a check at once', async () => {
    const model = await checks.addModel()
    await checks.checked(model)
    await checks.store.replace('models', model.id, () => checks.modelDocument('renamed', COMPLETION), ACTOR)
    await checks.checked(model, 1)
    await checks.store.replace('provider_keys', checks.key.id, () => checks.keyDocument({ secret: 'sk-other-0002' }), ACTOR)
    await checks.checked(model, 1)
    expect(upstream.last().header('authorization')).toBe('Bearer sk-other-0002')
    expect(upstream.requests).toHaveLength(3)
  })

  test('of something else is not', async () => {
    const model = await checks.addModel()
    await checks.checked(model)
    await checks.addModel('unchecked', 'b')
    checks.tick(1)
    expect(checks.dialled()).toBe(1)
  })

  test('ends the check of the document that was, without a verdict', async () => {
    upstream.answer((_request, connection) => connection.stall())
    const model = await checks.addModel()
    checks.tick()
    await upstream.arrived(1)
    upstream.answer(answering(200, chatAnswer()))
    await checks.store.replace('models', model.id, () => checks.modelDocument('a', COMPLETION, { model_name: 'new' }), ACTOR)
    expect(await checks.checked(model, 1)).toMatchObject({ availability: 'healthy', lastCheckStatus: 200 })
    await upstream.whenCut(1)
    expect(upstream.last().json()).toMatchObject({ model: 'new' })
    expect(checks.lines.filter(line => line.includes(' WARN '))).toEqual([])
  })

  test.each<[string, Section | undefined]>([
    ['without a check', undefined],
    ['with a check that is switched off', { ...COMPLETION, enabled: false }],
  ])('to a model %s clears what checks have said', async (_what, check) => {
    upstream.answer(answering(503))
    const model = await checks.addModel()
    await checks.checked(model)
    await checks.store.replace('models', model.id, () => checks.modelDocument('a', check), ACTOR)
    checks.tick(10)
    // Were the check back under the old state, it would be unhealthy before its first check.
    await checks.store.replace('models', model.id, () => checks.modelDocument('a', COMPLETION), ACTOR)
    expect(checks.report(model.id)).toMatchObject({ availability: 'healthy', lastCheckedAt: undefined })
    expect(checks.dialled()).toBe(1)
  })

  test('that removes a model ends its check and forgets it', async () => {
    upstream.answer((_request, connection) => connection.stall())
    const model = await checks.addModel()
    checks.tick()
    await upstream.arrived(1)
    const state = checks.health.of(model.id)
    await checks.store.remove('models', model.id, ACTOR)
    checks.tick(1)
    await upstream.whenCut(1)
    await checks.checker.stop()
    expect(checks.health.of(model.id)).not.toBe(state)
  })
})

describe('stop', () => {
  test('ends what runs and what waits, without a verdict, and nothing starts any more', async () => {
    upstream.answer((_request, connection) => connection.stall())
    const models: Entry<'models'>[] = []
    for (let i = 0; i < 6; i += 1) models.push(await checks.addModel(i % 2 ? COMPLETION : ENDPOINT, `m${i}`))
    checks.tick()
    await upstream.arrived(4)
    await checks.checker.stop()
    await upstream.whenCut(4)
    checks.tick(100)
    expect(checks.dialled()).toBe(4)
    for (const { id } of models) expect(checks.report(id)).toMatchObject({ availability: 'healthy', lastCheckedAt: undefined })
    expect(checks.lines.filter(line => / (WARN|ERROR) /.test(line))).toEqual([])
  })
})
