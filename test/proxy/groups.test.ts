import { afterEach, describe, expect, test } from 'bun:test'
import { ModelGroup } from '../../src/resources/model.ts'
import { chatChunk, type Handler } from '../fake-upstream.ts'
import { ACTOR, eventsOf, testClock, until } from '../gateway.ts'
import { answersAs, breaks, type Fleet, failsWith, startFleet } from './fleet.ts'

const redirects: Handler = (_request, connection) => connection.send(302, '', { location: '/elsewhere' })
const talksNonsense: Handler = (_request, connection) => connection.send(200, 'nonsense')
const failsInside: Handler = (_request, connection) => connection.json(200, { error: { message: 'no' } })

let fleet: Fleet
afterEach(() => fleet.stop())

describe('strategies', () => {
  test('failover serves from the first target and tells which one it was', async () => {
    fleet = await startFleet(['a', 'b'])
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] })
    const asked = await fleet.ask('group')
    expect(asked).toMatchObject({
      status: 200,
      servedBy: 'a',
      body: { model: 'group', choices: [{ message: { content: 'a' } }] },
    })
    expect(fleet.counts()).toEqual([1, 0])
  })

  test('round_robin holds 70 to 30 exactly over 100 calls', async () => {
    fleet = await startFleet(['a', 'b'])
    await fleet.gateway.addGroup('group', {
      strategy: 'round_robin',
      targets: [
        { model: 'a', weight: 70 },
        { model: 'b', weight: 30 },
      ],
    })
    for (let call = 0; call < 100; call += 1) expect((await fleet.ask('group')).status).toBe(200)
    expect(fleet.counts()).toEqual([70, 30])
  })

  test('round_robin goes on where it was when something else is configured, and counts weight 0 as 1', async () => {
    fleet = await startFleet(['a', 'b'])
    await fleet.gateway.addGroup('group', { strategy: 'round_robin', targets: [{ model: 'a', weight: 0 }, 'b'] })
    const served: (string | null)[] = []
    for (let call = 0; call < 6; call += 1) {
      served.push((await fleet.ask('group')).servedBy)
      await fleet.gateway.addModel({ display_name: `unrelated-${call}` })
    }
    expect(served).toEqual(['a', 'b', 'a', 'b', 'a', 'b'])
  })

  test('requests that a limit refuses take no turn of round_robin from those who are served', async () => {
    fleet = await startFleet(['a', 'b'])
    await fleet.gateway.addApiKey('sk-over', { rate_limit: { rpd: 0 } })
    await fleet.gateway.addGroup('even', { strategy: 'round_robin', targets: ['a', 'b'] })
    for (let call = 0; call < 10; call += 1) {
      expect((await fleet.ask('even')).status).toBe(200)
      expect((await fleet.ask('even', { authorization: 'Bearer sk-over' })).status).toBe(429)
    }
    expect(fleet.counts()).toEqual([5, 5])
  })

  test('consistent_hash keeps a routing key at one target, and moves it only while that target fails', async () => {
    const names = ['a', 'b', 'c', 'd']
    fleet = await startFleet(names)
    await fleet.gateway.addGroup('group', { strategy: 'consistent_hash', targets: names })
    const serve = async (key: string) => (await fleet.ask('group', { 'x-aisix-routing-key': key })).servedBy
    const keys = Array.from({ length: 24 }, (_, index) => `user-${index}`)
    const before = new Map<string, string | null>()
    for (const key of keys) before.set(key, await serve(key))
    expect(new Set(before.values())).toEqual(new Set(names))
    fleet.at('a').answer(breaks)
    for (const key of keys) {
      const now = await serve(key)
      if (before.get(key) === 'a') expect(now).not.toBe('a')
      else expect(now).toBe(before.get(key) ?? '')
    }
  })

  test('consistent_hash takes its key from where hash_on says: header, cookie, API key, address', async () => {
    const names = ['a', 'b', 'c', 'd']
    fleet = await startFleet(names)
    const { addGroup, addApiKey } = fleet.gateway
    const targets = names
    await addGroup('by-header', { strategy: 'consistent_hash', targets, hash_on: [{ type: 'header', name: 'x-session' }] })
    await addGroup('by-cookie', { strategy: 'consistent_hash', targets, hash_on: [{ type: 'cookie', name: 'sid' }] })
    await addGroup('by-key', { strategy: 'consistent_hash', targets, hash_on: [{ type: 'api_key' }] })
    await addGroup('by-ip', { strategy: 'consistent_hash', targets, hash_on: [{ type: 'client_ip' }] })
    const spread = async (model: string, headers: (n: number) => Record<string, string>) => {
      const served = new Set<string | null>()
      for (let n = 0; n < 16; n += 1) served.add((await fleet.ask(model, headers(n))).servedBy)
      return served.size
    }
    expect(await spread('by-header', n => ({ 'x-session': `s${n}` }))).toBeGreaterThan(1)
    expect(await spread('by-header', n => ({ 'x-aisix-routing-key': `s${n}` }))).toBe(1)
    expect(await spread('by-cookie', n => ({ cookie: `other=1; sid=s${n}` }))).toBeGreaterThan(1)
    for (let n = 0; n < 16; n += 1) await addApiKey(`sk-other-key-${n}`)
    expect(await spread('by-key', n => ({ authorization: `Bearer sk-other-key-${n}` }))).toBeGreaterThan(1)
    expect(await spread('by-ip', n => ({ 'x-session': `s${n}` }))).toBe(1)
  })

  test('least_cost asks the cheapest first and one without a price last', async () => {
    fleet = await startFleet(['unpriced', 'dear', 'cheap'], {
      models: {
        dear: { cost: { input_per_1k: 1, output_per_1k: 2 } },
        cheap: { cost: { input_per_1k: 2, output_per_1k: 0.5 } },
      },
    })
    await fleet.gateway.addGroup('group', { strategy: 'least_cost', targets: ['unpriced', 'dear', 'cheap'] })
    expect((await fleet.ask('group')).servedBy).toBe('cheap')
    fleet.at('cheap').answer(failsWith(500))
    expect((await fleet.ask('group')).servedBy).toBe('dear')
    fleet.at('dear').answer(failsWith(500))
    expect((await fleet.ask('group')).servedBy).toBe('unpriced')
  })

  test('least_latency measures every target once and then stays with the fastest', async () => {
    fleet = await startFleet(['slow', 'fast'])
    fleet.at('slow').answer(async (request, connection) => {
      await Bun.sleep(60)
      await answersAs('slow')(request, connection)
    })
    await fleet.gateway.addGroup('group', { strategy: 'least_latency', targets: ['slow', 'fast'] })
    const served: (string | null)[] = []
    for (let call = 0; call < 6; call += 1) served.push((await fleet.ask('group')).servedBy)
    expect(served).toEqual(['slow', 'fast', 'fast', 'fast', 'fast', 'fast'])
  })

  test('least_busy goes where least is under way, open streams and direct requests included', async () => {
    fleet = await startFleet(['a', 'b'])
    const endings: PromiseWithResolvers<void>[] = []
    fleet.at('a').answer(async (_request, connection) => {
      const ending = Promise.withResolvers<void>()
      endings.push(ending)
      await connection.streamHead()
      await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'a' }))}\n\n`)
      await ending.promise
      await connection.chunk('data: [DONE]\n\n')
      await connection.endChunks()
    })
    await fleet.gateway.addGroup('group', { strategy: 'least_busy', targets: ['a', 'b'] })
    const open = await fleet.gateway.chat({ model: 'a', stream: true })
    expect(open.status).toBe(200)
    expect((await fleet.ask('group')).servedBy).toBe('b')
    endings[0]?.resolve()
    await open.text()
    await fleet.gateway.idle()
    const next = await fleet.gateway.chat({ model: 'group', stream: true })
    expect(next.headers.get('x-aisix-served-by')).toBe('a')
    endings[1]?.resolve()
    await next.text()
  })

  test('targets of a higher priority are tried before all others', async () => {
    fleet = await startFleet(['low', 'high-1', 'high-2'])
    await fleet.gateway.addGroup('group', {
      strategy: 'round_robin',
      targets: [
        { model: 'low', priority: -1 },
        { model: 'high-1', priority: 5 },
        { model: 'high-2', priority: 5 },
      ],
    })
    for (let call = 0; call < 4; call += 1) await fleet.ask('group')
    expect(fleet.counts()).toEqual([0, 2, 2])
    fleet.at('high-1').answer(failsWith(503))
    fleet.at('high-2').answer(failsWith(503))
    expect((await fleet.ask('group')).servedBy).toBe('low')
  })

  test('embeddings and completions go through groups as chat does', async () => {
    fleet = await startFleet(['a', 'b'])
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] })
    fleet.at('a').answer(failsWith(500))
    const embedded = await fleet.gateway.post('/v1/embeddings', { model: 'group', input: 'x' })
    expect(embedded.headers.get('x-aisix-served-by')).toBe('b')
    expect(await embedded.json()).toMatchObject({ model: 'group' })
    const completed = await fleet.gateway.post('/v1/completions', { model: 'group', prompt: 'x' })
    expect(completed.headers.get('x-aisix-served-by')).toBe('b')
    expect(await completed.json()).toMatchObject({ model: 'group' })
  })
})

describe('which targets may serve', () => {
  const tagged = [{ model: 'a', tags: ['gpu'] }, { model: 'b', tags: ['default', 'cpu'] }, { model: 'c' }]

  test.each([
    ['no tags: the default ones', undefined, 'b'],
    ['a shared tag', 'cpu', 'b'],
    ['another, among several with blanks', ' tpu , gpu ', 'a'],
    ['no match: the default ones', 'tpu', 'b'],
  ])('tags: %s', async (_case, tags, expected) => {
    fleet = await startFleet(['a', 'b', 'c'])
    await fleet.gateway.addGroup('group', { targets: tagged })
    expect((await fleet.ask('group', tags === undefined ? {} : { 'x-aisix-routing-tags': tags })).servedBy).toBe(expected)
    for (const name of ['a', 'b']) {
      for (const request of fleet.at(name).requests) expect(request.header('x-aisix-routing-tags')).toBeUndefined()
    }
  })

  test('tags that nobody has, and no default: 400 that names them', async () => {
    fleet = await startFleet(['a'])
    await fleet.gateway.addGroup('group', { targets: [{ model: 'a', tags: ['gpu'] }] })
    const asked = await fleet.ask('group', { 'x-aisix-routing-tags': 'tpu' })
    expect(asked.status).toBe(400)
    expect(asked.error).toMatchObject({ type: 'invalid_request_error' })
    expect(asked.error.message).toContain('no routing target matches request tags [tpu]')
    expect((await fleet.ask('group')).servedBy).toBe('a')
  })

  test("targets whose addresses exclude the caller are left out; none left is 403, as is the group's own list", async () => {
    fleet = await startFleet(['a', 'b'], { models: { a: { allowed_cidrs: ['10.9.9.0/24'] } } })
    const { addGroup } = fleet.gateway
    await addGroup('group', { targets: ['a', 'b'] })
    await addGroup('closed', { targets: ['a'] })
    await addGroup('gated', { targets: ['b'] }, { allowed_cidrs: ['10.9.9.0/24'] })
    expect((await fleet.ask('group')).servedBy).toBe('b')
    for (const model of ['closed', 'gated']) {
      const asked = await fleet.ask(model)
      expect(asked.status).toBe(403)
      expect(asked.error).toMatchObject({ type: 'permission_denied', code: 'ip_restricted' })
    }
    expect(fleet.counts()).toEqual([0, 1])
  })

  test('max_fallbacks bounds how many are tried after the first; more than there are is no matter', async () => {
    fleet = await startFleet(['a', 'b', 'c'])
    for (const name of ['a', 'b']) fleet.at(name).answer(failsWith(500))
    await fleet.gateway.addGroup('one', { targets: ['a', 'b', 'c'], max_fallbacks: 1, retries: 0 })
    await fleet.gateway.addGroup('none', { targets: ['a', 'b', 'c'], max_fallbacks: 0, retries: 0 })
    await fleet.gateway.addGroup('many', { targets: ['a', 'b', 'c'], max_fallbacks: 99, retries: 0 })
    expect((await fleet.ask('none')).status).toBe(502)
    expect(fleet.counts()).toEqual([1, 0, 0])
    expect((await fleet.ask('one')).status).toBe(502)
    expect(fleet.counts()[2]).toBe(0)
    expect((await fleet.ask('many')).servedBy).toBe('c')
  })

  test('a target that names nothing, a group or a pattern is left out; when none is left, 400 names it', async () => {
    fleet = await startFleet(['a'])
    const { addGroup, addModel } = fleet.gateway
    await addModel({ display_name: 'any/*' })
    await addGroup('inner', { targets: ['a'] })
    await addGroup('outer', { targets: ['ghost', 'inner', 'any/*', 'any/thing', 'a'] })
    await addGroup('empty', { targets: ['ghost', 'inner'] })
    expect((await fleet.ask('outer')).servedBy).toBe('a')
    const asked = await fleet.ask('empty')
    expect(asked.status).toBe(400)
    expect(asked.error.message).toContain('routing target "ghost" does not resolve to a Model')
    await addModel({ display_name: 'ghost', provider_key_id: 'nowhere' })
    expect((await fleet.ask('empty')).status).toBe(400)
  })

  test('a target whose provider key is gone does not stop the others', async () => {
    fleet = await startFleet(['a'])
    await fleet.gateway.addModel({ display_name: 'lost', provider_key_id: 'nowhere' })
    await fleet.gateway.addGroup('group', { targets: ['lost', 'a'] })
    expect((await fleet.ask('group')).servedBy).toBe('a')
  })

  test('a key that may use the group alone reaches its targets, sees the group in the list, and not the targets', async () => {
    fleet = await startFleet(['a'])
    await fleet.gateway.addGroup('group', { targets: ['a'] })
    await fleet.gateway.addApiKey('sk-group-only', { allowed_models: ['group'] })
    const headers = { authorization: 'Bearer sk-group-only' }
    expect((await fleet.ask('group', headers)).servedBy).toBe('a')
    expect((await fleet.ask('a', headers)).status).toBe(403)
    const list = await (await fleet.gateway.get('/v1/models', headers)).json()
    expect(list).toEqual({
      object: 'list',
      data: [{ id: 'group', object: 'model', created: expect.any(Number), owned_by: 'aisix' }],
    })
  })
})

describe('failover', () => {
  test.each([400, 401, 403, 404, 422])('a %d is relayed at once, unless the group lists it', async status => {
    fleet = await startFleet(['a', 'b'])
    fleet.at('a').answer(failsWith(status))
    await fleet.gateway.addGroup('plain', { targets: ['a', 'b'] })
    await fleet.gateway.addGroup('listed', { targets: ['a', 'b'], fallback_on_statuses: [status] })
    const relayed = await fleet.ask('plain')
    expect(relayed).toMatchObject({ status, servedBy: null, error: { message: `failed with ${status}`, type: 'upstream_error' } })
    expect(fleet.counts()).toEqual([1, 0])
    // A 401 has cooled the target down: a group that tries it again has no other.
    await fleet.gateway.addGroup('only', { targets: ['a'], fallback_on_statuses: [status], retries: 1 })
    expect((await fleet.ask('only')).status).toBe(status)
    expect(fleet.counts()).toEqual([3, 0])
    expect((await fleet.ask('listed')).servedBy).toBe('b')
  })

  test('a 429 is relayed with its Retry-After, unless retry_on_429 is set or it is listed', async () => {
    const clock = testClock()
    fleet = await startFleet(['a', 'b'], { clock })
    fleet.at('a').answer(failsWith(429, { 'retry-after': '20' }))
    await fleet.gateway.addGroup('plain', { targets: ['a', 'b'] })
    await fleet.gateway.addGroup('on', { targets: ['a', 'b'], retry_on_429: true })
    await fleet.gateway.addGroup('listed', { targets: ['a', 'b'], fallback_on_statuses: [429] })
    const relayed = await fleet.ask('plain')
    expect(relayed.status).toBe(429)
    expect(relayed.headers.get('retry-after')).toBe('20')
    clock.advance(21_000)
    expect((await fleet.ask('on')).servedBy).toBe('b')
    clock.advance(21_000)
    expect((await fleet.ask('listed')).servedBy).toBe('b')
    expect(fleet.counts()).toEqual([3, 2])
  })

  test.each([
    ['500', failsWith(500)],
    ['503', failsWith(503)],
    ['a redirect', redirects],
    ['a broken connection', breaks],
    ['an answer that is none', talksNonsense],
    ['an error inside a 200', failsInside],
  ])('%s of one target is answered by the next, and not tried again before', async (_case, handler) => {
    fleet = await startFleet(['a', 'b'])
    fleet.at('a').answer(handler)
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] })
    const asked = await fleet.ask('group')
    expect(asked).toMatchObject({ status: 200, servedBy: 'b', body: { model: 'group' } })
    const [tries] = fleet.counts()
    // A broken connection is sent again once by the dialler, which is no try of its own.
    expect(tries).toBeLessThanOrEqual(2)
    const line = await fleet.gateway.accessLine()
    expect(line).toContain('served_by_model="b"')
    expect(line).toContain('routing_attempt_count=2')
    expect(line).toContain('routing_fallback_count=1')
  })

  test('a target that is refused the connection is answered by the next', async () => {
    fleet = await startFleet(['b'])
    const dead = await fleet.gateway.addProviderKey({ api_base: 'http://127.0.0.1:1/v1' })
    await fleet.gateway.addModel({ display_name: 'dead', provider_key_id: dead.id, retries: undefined })
    await fleet.gateway.addGroup('group', { targets: ['dead', 'b'] })
    expect((await fleet.ask('group')).servedBy).toBe('b')
  })

  test.each([false, true])('a target that does not answer in time is answered by the next (stream: %p)', async stream => {
    fleet = await startFleet(['a', 'b'])
    fleet.at('a').answer((_request, connection) => connection.stall())
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] }, { timeout: 40, stream_timeout: 40 })
    const asked = await fleet.ask('group', {}, { stream })
    expect(asked).toMatchObject({ status: 200, servedBy: 'b' })
    expect(fleet.counts()).toEqual([1, 1])
    await fleet.at('a').whenCut(1)
  })

  test("a target's own timeout goes before the group's", async () => {
    fleet = await startFleet(['a', 'b'], { models: { a: { timeout: 0 } } })
    fleet.at('a').answer(async (request, connection) => {
      await Bun.sleep(120)
      await answersAs('a')(request, connection)
    })
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] }, { timeout: 20 })
    expect((await fleet.ask('group')).servedBy).toBe('a')
  })

  test('a stream that breaks before its first event fails over; after it, it never does', async () => {
    fleet = await startFleet(['a', 'b'])
    fleet.at('a').answerInTurn(
      async (_request, connection) => {
        await connection.streamHead()
        connection.reset()
      },
      async (_request, connection) => {
        await connection.streamHead()
        await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'one' }))}\n\n`)
        await Bun.sleep(30)
        connection.reset()
      },
    )
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'], when_all_unavailable: 'try_anyway' })
    await fleet.gateway.addGroup('first', { targets: ['a', 'b'], max_fallbacks: 0 })
    const before = await fleet.ask('group', {}, { stream: true })
    expect(before.servedBy).toBe('b')
    expect(eventsOf(before.text)[0]).toContain('"content":"b"')
    const after = await fleet.ask('first', {}, { stream: true })
    expect(after.servedBy).toBe('a')
    expect(after.text).toContain('"content":"one"')
    expect(after.text).toContain('event: error')
    expect(after.text).not.toContain('[DONE]')
    expect(fleet.counts()[1]).toBe(1)
  })

  test('retries of the group are made at each target before the next; those of a target go before them', async () => {
    fleet = await startFleet(['a', 'b', 'c'], { models: { b: { retries: 0 } } })
    for (const name of ['a', 'b']) fleet.at(name).answer(failsWith(500))
    await fleet.gateway.addGroup('group', { targets: ['a', 'b', 'c'], retries: 1 })
    expect((await fleet.ask('group')).servedBy).toBe('c')
    expect(fleet.counts()).toEqual([2, 1, 1])
  })

  test('the last target has the retries of the deployment where nobody said anything', async () => {
    fleet = await startFleet(['a', 'b'], { config: { upstream: { retries: 1 } } })
    for (const name of ['a', 'b']) fleet.at(name).answer(failsWith(500))
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] })
    const asked = await fleet.ask('group')
    expect(asked.status).toBe(502)
    expect(fleet.counts()).toEqual([1, 2])
  })

  test('when all fail the caller is told of the last failure', async () => {
    fleet = await startFleet(['a', 'b'], { config: { upstream: { retries: 0 } } })
    fleet.at('a').answer(failsWith(500))
    fleet.at('b').answer(failsWith(404))
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] })
    const asked = await fleet.ask('group')
    expect(asked).toMatchObject({ status: 404, servedBy: null, error: { message: 'failed with 404', type: 'upstream_error' } })
    expect(asked.headers.get('x-should-retry')).toBe('false')
  })

  test('all attempts carry one request id, and the caller leaving ends the one under way', async () => {
    fleet = await startFleet(['a', 'b'])
    fleet.at('a').answer(failsWith(500))
    fleet.at('b').answer((_request, connection) => connection.stall())
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] })
    const leaving = new AbortController()
    const asking = fleet.gateway.chat({ model: 'group' }, { 'x-aisix-request-id': 'one-id' }, leaving.signal).catch(() => 'left')
    await fleet.at('b').arrived(1)
    leaving.abort()
    expect(await asking).toBe('left')
    await fleet.at('b').whenCut(1)
    await fleet.gateway.idle()
    for (const name of ['a', 'b']) expect(fleet.at(name).last().header('x-aisix-request-id')).toBe('one-id')
    expect(fleet.gateway.gateway.modelHealth.failures(modelId('b'))).toBe(0)
  })
})

describe('members that are down', () => {
  test('one that can never be called does not hide one that is merely cooling down', async () => {
    fleet = await startFleet(['a'], { config: { upstream: { retries: 0 } } })
    await fleet.gateway.addModel({ display_name: 'lost', provider_key_id: 'nowhere' })
    await fleet.gateway.addGroup('group', { targets: ['a', 'lost'] })
    fleet.at('a').answerInTurn(failsWith(503), answersAs('a'))
    expect((await fleet.ask('group')).status).toBe(502)
    expect((await fleet.ask('group')).servedBy).toBe('a')
  })

  test('the record of a member that could not be called names it, and counts it among those that were tried', async () => {
    fleet = await startFleet([])
    await fleet.gateway.addModel({ display_name: 'lost', provider_key_id: 'nowhere' })
    // Only when nothing else is left is such a member called at all.
    await fleet.gateway.addGroup('group', { targets: ['lost'] })
    const failed = await fleet.ask('group')
    expect(failed.status).toBe(400)
    expect(failed.error.message).toContain('model "lost" names a provider key that does not exist')
    const line = await fleet.gateway.accessLine(failed.headers.get('x-aisix-request-id') ?? '-')
    expect(line).toContain('routing_attempt_count=1')
    expect(line).toContain('error_kind="invalid_upstream_config"')
  })

  test('a failed answer whose body never ends is told by its status, and soon', async () => {
    fleet = await startFleet(['a', 'b'])
    const headOnly =
      (status: string): Handler =>
      async (_request, connection) => {
        await connection.raw(`HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n`)
        await connection.chunk('{"err')
        await connection.stall()
      }
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] })
    fleet.at('a').answer(headOnly('503 Unavailable'))
    expect((await fleet.ask('group', {}, { stream: true })).servedBy).toBe('b')
    await fleet.at('a').whenCut(1)
  })

  test('the words of a request that was wrong are waited for', async () => {
    fleet = await startFleet(['a'])
    fleet.at('a').answer(async (_request, connection) => {
      const body = JSON.stringify({ error: { message: 'too long', code: 'context_length_exceeded' } })
      await connection.raw(`HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n`)
      await Bun.sleep(1_200)
      await connection.raw(body)
    })
    expect((await fleet.ask('a')).error).toMatchObject({ message: 'too long', code: 'context_length_exceeded' })
  })

  test('a caller who gives up on a stalled stream does not make its server well', async () => {
    const clock = testClock()
    fleet = await startFleet(['a', 'b'], { clock })
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] })
    fleet.at('a').answerInTurn(failsWith(503), async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'x' }))}\n\n`)
      await connection.stall()
    })
    expect((await fleet.ask('group')).servedBy).toBe('b')
    const leaving = new AbortController()
    const stream = await fleet.gateway.chat({ model: 'a', stream: true }, {}, leaving.signal)
    await stream.body?.getReader().read()
    leaving.abort()
    await fleet.gateway.idle()
    expect((await fleet.ask('group')).servedBy).toBe('b')
    expect(fleet.gateway.gateway.modelHealth.failures(modelId('a'))).toBe(1)
  })

  test('least_latency tries one that answers badly no more often than once a minute, until it is measured', async () => {
    const clock = testClock()
    fleet = await startFleet(['a', 'b'], { clock })
    fleet.at('a').answer(failsWith(404))
    await fleet.gateway.addGroup('group', { strategy: 'least_latency', targets: ['a', 'b'] })
    const statuses: number[] = []
    for (let call = 0; call < 4; call += 1) statuses.push((await fleet.ask('group')).status)
    clock.advance(60_000)
    for (let call = 0; call < 2; call += 1) statuses.push((await fleet.ask('group')).status)
    expect(statuses).toEqual([404, 200, 200, 200, 404, 200])
  })

  test('least_latency goes on measuring a server to which a caller has sent a wrong request', async () => {
    fleet = await startFleet(['a', 'b'])
    fleet.at('a').answerInTurn(failsWith(422), answersAs('a'))
    await fleet.gateway.addGroup('group', { strategy: 'least_latency', targets: ['a', 'b'] })
    expect((await fleet.ask('group')).status).toBe(422)
    expect((await fleet.ask('group')).servedBy).toBe('a')
  })
})

describe('what outlives a change of configuration', () => {
  test('a group that is asked for while its targets change answers from those of its own snapshot', async () => {
    fleet = await startFleet(['a', 'b'])
    const group = await fleet.gateway.addGroup('group', { targets: ['a'] })
    expect((await fleet.ask('group')).servedBy).toBe('a')
    await fleet.gateway.store.replace(
      'models',
      group.id,
      () => ModelGroup.parse({ display_name: 'group', routing: { targets: [{ model: 'b' }] } }),
      ACTOR,
    )
    expect((await fleet.ask('group')).servedBy).toBe('b')
  })

  test('requests in flight are counted down again after their model is gone', async () => {
    fleet = await startFleet(['a'])
    fleet.at('a').answer((_request, connection) => connection.stall())
    const leaving = new AbortController()
    const asking = fleet.gateway.chat({ model: 'a' }, {}, leaving.signal).catch(() => 'left')
    await fleet.at('a').arrived(1)
    const id = modelId('a')
    const state = fleet.gateway.gateway.modelHealth.of(id)
    expect(state.inFlight).toBe(1)
    await fleet.gateway.store.remove('models', id, ACTOR)
    leaving.abort()
    await asking
    await until('nothing in flight', () => state.inFlight === 0)
  })
})

function modelId(alias: string): string {
  const row = fleet.gateway.store.snapshot.models.get(alias)
  if (!row) throw new Error(`no model ${alias}`)
  return row.id
}
