import { afterEach, describe, expect, test } from 'bun:test'
import { ApiKey } from '../../src/resources/api-key.ts'
import { DirectModel } from '../../src/resources/model.ts'
import { chatAnswer, chatChunk } from '../fake-upstream.ts'
import { ACTOR, CALLER_KEY, sha256, testClock } from '../gateway.ts'
import { type Fleet, failsWith, startFleet } from './fleet.ts'

let fleet: Fleet
afterEach(() => fleet.stop())

/** A second past the start of a minute, an hour and a day. */
const START = Date.parse('2026-03-02T00:00:01.000Z')
const OTHER_KEY = 'sk-another-caller'
const as = (key: string) => ({ authorization: `Bearer ${key}` })

/** The answer tells 12 tokens: 5 of the prompt and 7 of the completion. */
const TOKENS = 12

describe('windows', () => {
  test.each([
    ['rps', 1, 1],
    ['rpm', 60, 59],
    ['rph', 3_600, 3_599],
    ['rpd', 86_400, 86_399],
  ])('%s lets so many through in a window of %d s, aligned to the clock', async (name, seconds, untilEnd) => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock, apiKey: { rate_limit: { [name]: 2 } } })
    expect((await fleet.ask('a')).status).toBe(200)
    expect((await fleet.ask('a')).status).toBe(200)
    const refused = await fleet.ask('a')
    expect(refused.status).toBe(429)
    expect(refused.body).toEqual({ error: { message: 'request limit exceeded (requests)', type: 'rate_limit_exceeded' } })
    expect(refused.headers.get('retry-after')).toBe(String(untilEnd))
    expect(fleet.counts()).toEqual([2])
    clock.advance(untilEnd * 1_000 - 1)
    expect((await fleet.ask('a')).headers.get('retry-after')).toBe('1')
    clock.advance(1)
    expect((await fleet.ask('a')).status).toBe(200)
    expect(seconds).toBeGreaterThanOrEqual(untilEnd)
  })

  test.each([
    ['tpm', 59],
    ['tpd', 86_399],
  ])('%s answers the request that crosses it and refuses the next', async (name, untilEnd) => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock, apiKey: { rate_limit: { [name]: TOKENS } } })
    // Exactly at the limit is not over it.
    for (let call = 0; call < 2; call += 1) expect((await fleet.ask('a')).status).toBe(200)
    const refused = await fleet.ask('a')
    expect(refused.status).toBe(429)
    expect(refused.error).toEqual({ message: 'token limit exceeded (tokens)', type: 'rate_limit_exceeded' })
    expect(refused.headers.get('retry-after')).toBe(String(untilEnd))
    clock.advance(untilEnd * 1_000)
    expect((await fleet.ask('a')).status).toBe(200)
  })

  test.each(['rps', 'rpm', 'rph', 'rpd', 'tpm', 'tpd', 'concurrency'])('%s of 0 lets nothing pass', async name => {
    fleet = await startFleet(['a'], { apiKey: { rate_limit: { [name]: 0 } } })
    expect((await fleet.ask('a')).status).toBe(429)
    expect(fleet.counts()).toEqual([0])
  })

  test('an object without a limit limits nothing', async () => {
    fleet = await startFleet(['a'], { apiKey: { rate_limit: {} } })
    for (let call = 0; call < 3; call += 1) expect((await fleet.ask('a')).status).toBe(200)
  })

  test('concurrency counts requests until their answer is over, streams until their end', async () => {
    fleet = await startFleet(['a'], { apiKey: { rate_limit: { concurrency: 1 } } })
    const ending = Promise.withResolvers<void>()
    fleet.at('a').answerInTurn(
      async (_request, connection) => {
        await connection.streamHead()
        await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'x' }))}\n\n`)
        await ending.promise
        await connection.chunk('data: [DONE]\n\n')
        await connection.endChunks()
      },
      (_request, connection) => connection.json(200, chatAnswer()),
    )
    const stream = await fleet.gateway.chat({ model: 'a', stream: true })
    const refused = await fleet.ask('a')
    expect(refused.status).toBe(429)
    expect(refused.error).toEqual({ message: 'concurrency limit exceeded', type: 'rate_limit_exceeded' })
    expect(refused.headers.has('retry-after')).toBe(false)
    ending.resolve()
    await stream.text()
    await fleet.gateway.idle()
    expect((await fleet.ask('a')).status).toBe(200)
  })
})

describe('what is charged', () => {
  test('a failed dispatch has used up its request, gives its place back and adds no tokens', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock, apiKey: { rate_limit: { rpm: 3, tpm: 0x7fff, concurrency: 1 } } })
    fleet.at('a').answerInTurn(failsWith(404), (_request, connection) => connection.json(200, chatAnswer()))
    expect((await fleet.ask('a')).status).toBe(404)
    const answered = await fleet.ask('a')
    expect(answered.headers.get('x-ratelimit-remaining-requests')).toBe('1')
    expect(answered.headers.get('x-ratelimit-remaining-tokens')).toBe(String(0x7fff - TOKENS))
    expect((await fleet.ask('a')).status).toBe(200)
    expect((await fleet.ask('a')).status).toBe(429)
  })

  test('a stream is charged at its end with what the upstream told, in the window of its end', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock, apiKey: { rate_limit: { tpm: 11 } } })
    const ending = Promise.withResolvers<void>()
    fleet.at('a').answerInTurn(
      async (_request, connection) => {
        await connection.streamHead()
        await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'x' }))}\n\n`)
        await ending.promise
        const usage = { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 }
        await connection.chunk(`data: ${JSON.stringify({ ...chatChunk({}), choices: [], usage })}\n\ndata: [DONE]\n\n`)
        await connection.endChunks()
      },
      (_request, connection) => connection.json(200, chatAnswer()),
    )
    const stream = await fleet.gateway.chat({ model: 'a', stream: true })
    clock.advance(60_000)
    ending.resolve()
    await stream.text()
    await fleet.gateway.idle()
    expect((await fleet.ask('a')).status).toBe(429)
    clock.advance(60_000)
    expect((await fleet.ask('a')).status).toBe(200)
  })

  test('what the upstream does not count is estimated', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock, apiKey: { rate_limit: { tpm: 1 } } })
    fleet.at('a').answer((_request, connection) => connection.json(200, chatAnswer('x'.repeat(40), { usage: undefined })))
    expect((await fleet.ask('a')).status).toBe(200)
    expect((await fleet.ask('a')).status).toBe(429)
  })

  test('a request that one bucket refuses has used up nothing in another', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a', 'b'], {
      clock,
      apiKey: { rate_limit: { rpm: 2 } },
      models: { a: { rate_limit: { rpm: 0 } } },
    })
    for (let call = 0; call < 5; call += 1) expect((await fleet.ask('a')).status).toBe(429)
    for (let call = 0; call < 2; call += 1) expect((await fleet.ask('b')).status).toBe(200)
    expect((await fleet.ask('b')).status).toBe(429)
  })

  test('limits come after access: a model that the key may not use is 403, whatever its limits', async () => {
    fleet = await startFleet(['a'], { apiKey: { allowed_models: ['b'], rate_limit: { rpm: 0 } } })
    expect((await fleet.ask('a')).status).toBe(403)
    expect((await fleet.ask('nothing')).status).toBe(404)
  })
})

describe('buckets', () => {
  test('keys have counters of their own', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock, apiKey: { rate_limit: { rpm: 1 } } })
    await fleet.gateway.addApiKey(OTHER_KEY, { rate_limit: { rpm: 1 } })
    expect((await fleet.ask('a')).status).toBe(200)
    expect((await fleet.ask('a')).status).toBe(429)
    expect((await fleet.ask('a', as(OTHER_KEY))).status).toBe(200)
  })

  test('a model counts over all keys, directly and as a member of groups', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock, models: { a: { rate_limit: { rpm: 2 } } } })
    await fleet.gateway.addApiKey(OTHER_KEY)
    await fleet.gateway.addGroup('group', { targets: ['a'] })
    expect((await fleet.ask('a')).status).toBe(200)
    expect((await fleet.ask('group', as(OTHER_KEY))).status).toBe(200)
    expect((await fleet.ask('a', as(OTHER_KEY))).status).toBe(429)
    expect((await fleet.ask('group')).status).toBe(429)
    expect(fleet.counts()).toEqual([2])
  })

  test('a pattern counts by its row, however its callers spell it', async () => {
    const clock = testClock(START)
    fleet = await startFleet([], { clock })
    await fleet.gateway.addModel({ display_name: 'any/*', rate_limit: { rpm: 2 } })
    expect((await fleet.ask('any/one')).status).toBe(502)
    expect((await fleet.ask('any/two')).status).toBe(502)
    expect((await fleet.ask('any/three')).status).toBe(429)
  })

  test('counters outlive a rename, a changed limit and any other write', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock, apiKey: { rate_limit: { rpm: 9 } }, models: { a: { rate_limit: { rpm: 2 } } } })
    const { store, rows } = fleet.gateway
    expect((await fleet.ask('a')).status).toBe(200)
    const row = store.snapshot.models.get('a')
    if (!row) throw new Error('no model a')
    await store.replace('models', row.id, now => DirectModel.parse({ ...now, display_name: 'renamed' }), ACTOR)
    expect((await fleet.ask('renamed')).status).toBe(200)
    expect((await fleet.ask('renamed')).status).toBe(429)
    await store.replace('models', row.id, now => DirectModel.parse({ ...now, rate_limit: { rpm: 3 } }), ACTOR)
    expect((await fleet.ask('renamed')).status).toBe(200)
    expect((await fleet.ask('renamed')).status).toBe(429)
    await store.replace('api_keys', rows.apiKey.id, now => ApiKey.parse({ ...now, rate_limit: { rpm: 3 } }), ACTOR)
    await store.replace('models', row.id, now => DirectModel.parse({ ...now, rate_limit: undefined }), ACTOR)
    expect((await fleet.ask('renamed')).error).toEqual({
      message: 'request limit exceeded (requests)',
      type: 'rate_limit_exceeded',
    })
    await store.replace(
      'api_keys',
      rows.apiKey.id,
      now => ApiKey.parse({ ...now, rate_limit: { rpm: 4 }, key_hash: sha256('sk-rotated-key') }),
      ACTOR,
    )
    expect((await fleet.ask('renamed', as('sk-rotated-key'))).status).toBe(200)
    expect((await fleet.ask('renamed', as('sk-rotated-key'))).status).toBe(429)
    expect((await fleet.ask('renamed', as(CALLER_KEY))).status).toBe(401)
  })
})

describe('groups', () => {
  test("a group has a limit of its own beside its members'", async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock })
    await fleet.gateway.addGroup('group', { targets: ['a'] }, { rate_limit: { rpm: 1 } })
    expect((await fleet.ask('group')).status).toBe(200)
    expect((await fleet.ask('group')).error).toMatchObject({ type: 'rate_limit_exceeded' })
    expect((await fleet.ask('a')).status).toBe(200)
  })

  test('a member over its limit is passed over; when all are, 429 names the target and the soonest time', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a', 'b'], { clock, models: { a: { rate_limit: { rpm: 1 } }, b: { rate_limit: { rph: 1 } } } })
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] })
    expect((await fleet.ask('group')).servedBy).toBe('a')
    const second = await fleet.ask('group')
    expect(second.servedBy).toBe('b')
    const refused = await fleet.ask('group')
    expect(refused.status).toBe(429)
    expect(refused.error).toEqual({
      message: 'routing target "b": request limit exceeded (requests)',
      type: 'upstream_error',
    })
    expect(refused.headers.get('retry-after')).toBe('59')
    // The caller's own SDK may come back: no member was asked.
    expect(refused.headers.has('x-should-retry')).toBe(false)
    expect(fleet.counts()).toEqual([1, 1])
    expect(await fleet.gateway.accessLine(second.headers.get('x-aisix-request-id') ?? '-')).toContain('routing_fallback_count=1')
  })

  test("a member's concurrency passes the request on, and its place is free again after a failure", async () => {
    fleet = await startFleet(['a', 'b'], { models: { a: { rate_limit: { concurrency: 1 } } } })
    const leaving = new AbortController()
    fleet.at('a').answerInTurn(
      (_request, connection) => connection.stall(),
      failsWith(500),
      (_request, connection) => connection.json(200, chatAnswer('a')),
    )
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] })
    await fleet.gateway.addGroup('single', { targets: ['a'] })
    const held = fleet.gateway.chat({ model: 'a' }, {}, leaving.signal).catch(() => undefined)
    await fleet.at('a').arrived(1)
    expect((await fleet.ask('group')).servedBy).toBe('b')
    const refused = await fleet.ask('single')
    expect(refused.error).toMatchObject({ message: 'routing target "a": concurrency limit exceeded', type: 'upstream_error' })
    expect(refused.headers.get('retry-after')).toBe('1')
    leaving.abort()
    await held
    await fleet.gateway.idle()
    expect((await fleet.ask('group')).servedBy).toBe('b')
    expect((await fleet.ask('single')).servedBy).toBe('a')
  })

  test('tokens go to the member that answered, streams included', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a', 'b'], { clock, models: { a: { rate_limit: { tpm: 1 } }, b: { rate_limit: { tpm: 1 } } } })
    fleet.at('a').answer(failsWith(500))
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] })
    const streamed = await fleet.ask('group', {}, { stream: true })
    expect(streamed.servedBy).toBe('b')
    await fleet.gateway.idle()
    expect((await fleet.ask('b')).status).toBe(429)
    expect((await fleet.ask('a')).error).toMatchObject({ type: 'upstream_error' })
  })
})

describe('who is charged', () => {
  test('a caller who leaves before any answer has used up its request and no tokens', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock, apiKey: { rate_limit: { rpm: 10, tpm: 100_000 } } })
    for (const stream of [false, true]) {
      fleet.at('a').answerInTurn((_request, connection) => connection.stall())
      const leaving = new AbortController()
      const content = 'x'.repeat(40_000)
      const asking = fleet.gateway
        .chat({ model: 'a', stream, messages: [{ role: 'user', content }] }, {}, leaving.signal)
        .catch(() => undefined)
      await fleet.at('a').arrived(stream ? 2 : 1)
      leaving.abort()
      await asking
      await fleet.gateway.idle()
    }
    fleet.at('a').answer((_request, connection) => connection.json(200, chatAnswer()))
    expect(limitHeaders((await fleet.ask('a')).headers)).toMatchObject({
      'x-ratelimit-remaining-requests': '7',
      'x-ratelimit-remaining-tokens': String(100_000 - TOKENS),
    })
  })

  test('a caller who leaves in the middle of a stream pays for its prompt and what came', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock, apiKey: { rate_limit: { tpm: 100_000 } } })
    fleet.at('a').answerInTurn(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'word' }))}\n\n`)
      await connection.stall()
    })
    const leaving = new AbortController()
    const content = 'x'.repeat(40_000)
    const stream = await fleet.gateway.chat(
      { model: 'a', stream: true, messages: [{ role: 'user', content }] },
      {},
      leaving.signal,
    )
    await stream.body?.getReader().read()
    leaving.abort()
    await fleet.gateway.idle()
    fleet.at('a').answer((_request, connection) => connection.json(200, chatAnswer()))
    const left = Number((await fleet.ask('a')).headers.get('x-ratelimit-remaining-tokens'))
    expect(left).toBeLessThan(100_000 - 10_000)
    expect(left).toBeGreaterThan(100_000 - 10_200)
  })

  test('an answer too large to hold is charged, though its caller leaves in the middle', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock, apiKey: { rate_limit: { tpm: 1_000_000_000 } } })
    fleet.at('a').answerInTurn(
      async (_request, connection) => {
        const filler = 'x'.repeat(1_048_576)
        await connection.raw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n')
        await connection.chunk('{"choices":["')
        for (let mib = 0; mib < 70; mib += 1) await connection.chunk(filler)
        await connection.stall()
      },
      (_request, connection) => connection.json(200, chatAnswer()),
    )
    const leaving = new AbortController()
    const large = await fleet.gateway.chat(
      { model: 'a', messages: [{ role: 'user', content: 'x'.repeat(40_000) }] },
      {},
      leaving.signal,
    )
    await large.body?.getReader().read()
    leaving.abort()
    await fleet.gateway.idle()
    const left = Number((await fleet.ask('a')).headers.get('x-ratelimit-remaining-tokens'))
    expect(left).toBeLessThan(1_000_000_000 - 10_000)
  })

  test('a policy over several targets counts a request once, however many of them fail it', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a', 'b', 'c'], { clock })
    for (const name of ['a', 'b']) fleet.at(name).answer(failsWith(500))
    await fleet.gateway.addGroup('group', { targets: ['a', 'b', 'c'] })
    await fleet.gateway.addPolicy({
      name: 'two',
      limits: { rpm: 2, concurrency: 1 },
      conditions: [{ dimension: 'model_name', operator: '==', value: 'group' }],
    })
    expect((await fleet.ask('group')).servedBy).toBe('c')
    expect((await fleet.ask('group')).servedBy).toBe('c')
    expect((await fleet.ask('group')).status).toBe(429)
  })

  test('a name of a pattern that is too long for a model is not found: no policy looks through it', async () => {
    fleet = await startFleet([])
    await fleet.gateway.addModel({ display_name: 'any/*' })
    expect((await fleet.ask(`any/${'x'.repeat(252)}`)).status).toBe(502)
    expect((await fleet.ask(`any/${'x'.repeat(253)}`)).status).toBe(404)
  })
})

describe('headers', () => {
  test("an answered chat tells how far the key's own limits are used up, stream or not", async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock, apiKey: { rate_limit: { rpm: 10, tpm: 100, concurrency: 5 } } })
    const whole = await fleet.ask('a')
    expect(limitHeaders(whole.headers)).toEqual({
      'x-ratelimit-limit-requests': '10',
      'x-ratelimit-remaining-requests': '9',
      'x-ratelimit-reset-requests': '59s',
      'x-ratelimit-limit-tokens': '100',
      'x-ratelimit-remaining-tokens': String(100 - TOKENS),
      'x-ratelimit-reset-tokens': '59s',
      'x-ratelimit-limit-concurrent': '5',
      'x-ratelimit-remaining-concurrent': '5',
    })
    const streamed = await fleet.ask('a', {}, { stream: true })
    expect(limitHeaders(streamed.headers)).toMatchObject({
      'x-ratelimit-remaining-requests': '8',
      'x-ratelimit-remaining-concurrent': '4',
    })
  })

  test('only limits that are set are told, and neither failures nor other endpoints tell any', async () => {
    fleet = await startFleet(['a'], { apiKey: { rate_limit: { concurrency: 5, rpd: 100 } } })
    expect(Object.keys(limitHeaders((await fleet.ask('a')).headers)).sort()).toEqual([
      'x-ratelimit-limit-concurrent',
      'x-ratelimit-remaining-concurrent',
    ])
    const embedded = await fleet.gateway.post('/v1/embeddings', { model: 'a', input: 'x' })
    expect(limitHeaders(embedded.headers)).toEqual({})
    fleet.at('a').answer(failsWith(500))
    expect(limitHeaders((await fleet.ask('a')).headers)).toEqual({})
  })
})

describe('policies', () => {
  const classic = (scope: string, scope_ref: string, more: Record<string, unknown> = { max_requests: 1 }) => ({
    name: 'the policy',
    scope,
    scope_ref,
    window: 'minute',
    ...more,
  })

  test('a refusal names the policy, in words and as an object', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock })
    const policy = await fleet.gateway.addPolicy(classic('api_key', fleet.gateway.rows.apiKey.id))
    expect((await fleet.ask('a')).status).toBe(200)
    const refused = await fleet.ask('a')
    expect(refused.status).toBe(429)
    expect(refused.error).toEqual({
      message: "request limit exceeded (requests) (policy 'the policy')",
      type: 'rate_limit_exceeded',
      policy: { id: policy.id, name: 'the policy' },
    })
    expect(refused.headers.get('retry-after')).toBe('59')
  })

  test('scopes: model, team, member and team_member', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a', 'b', 'c', 'd'], { clock })
    const { addPolicy, addApiKey, store } = fleet.gateway
    await addApiKey('sk-ann-one', { team_id: 'red', user_id: 'ann' })
    await addApiKey('sk-ann-two', { team_id: 'red', user_id: 'ann' })
    await addApiKey('sk-bob', { team_id: 'red', user_id: 'bob' })
    await addApiKey('sk-red', { team_id: 'red' })
    const statuses = async (...keys: string[]) => {
      const all: number[] = []
      for (const key of keys) all.push((await fleet.ask('a', as(key))).status)
      clock.advance(60_000)
      return all
    }
    const removed = async (policy: { id: string }) => store.remove('rate_limit_policies', policy.id, ACTOR)

    const ofModel = await addPolicy(classic('model', store.snapshot.models.get('a')?.id ?? ''))
    expect(await statuses('sk-ann-one', 'sk-bob')).toEqual([200, 429])
    await removed(ofModel)
    const ofTeam = await addPolicy(classic('team', 'red'))
    expect(await statuses('sk-ann-one', 'sk-red', CALLER_KEY)).toEqual([200, 429, 200])
    await removed(ofTeam)
    const ofMember = await addPolicy(classic('member', 'ann'))
    expect(await statuses('sk-ann-one', 'sk-ann-two', 'sk-bob')).toEqual([200, 429, 200])
    await removed(ofMember)
    await addPolicy(classic('team_member', 'red'))
    expect(await statuses('sk-ann-one', 'sk-ann-two', 'sk-bob', 'sk-red', 'sk-red')).toEqual([200, 429, 200, 200, 200])
  })

  test('max_tokens counts what was used; the request that crosses it is answered', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock })
    await fleet.gateway.addPolicy(classic('api_key', fleet.gateway.rows.apiKey.id, { max_tokens: 1 }))
    expect((await fleet.ask('a')).status).toBe(200)
    expect((await fleet.ask('a')).error.message).toBe("token limit exceeded (tokens) (policy 'the policy')")
  })

  test('conditions on the key: team and member, absent ones never match, negated or not', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock })
    await fleet.gateway.addApiKey('sk-red', { team_id: 'red' })
    await fleet.gateway.addApiKey('sk-blue', { team_id: 'blue' })
    await fleet.gateway.addPolicy({
      name: 'not red',
      limits: { rpm: 0 },
      conditions: [{ dimension: 'team', operator: '==', value: 'red', negate: true }],
    })
    expect((await fleet.ask('a', as('sk-red'))).status).toBe(200)
    expect((await fleet.ask('a', as('sk-blue'))).status).toBe(429)
    expect((await fleet.ask('a')).status).toBe(200)
  })

  test('group_by gives each combination a bucket of its own and leaves alone who lacks one', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a', 'b'], { clock })
    await fleet.gateway.addApiKey('sk-ann', { user_id: 'ann' })
    await fleet.gateway.addApiKey('sk-bob', { user_id: 'bob' })
    await fleet.gateway.addPolicy({ name: 'each', limits: { rpm: 1 }, group_by: ['member', 'model'] })
    const statuses: number[] = []
    for (const key of ['sk-ann', 'sk-bob', CALLER_KEY]) {
      for (const model of ['a', 'b', 'a']) statuses.push((await fleet.ask(model, as(key))).status)
    }
    expect(statuses).toEqual([200, 200, 429, 200, 200, 429, 200, 200, 200])
  })

  test('model_name looks at the alias that was asked for, also of a pattern', async () => {
    const clock = testClock(START)
    fleet = await startFleet([], { clock })
    await fleet.gateway.addModel({ display_name: 'any/*' })
    await fleet.gateway.addPolicy({
      name: 'large',
      limits: { rpm: 0 },
      conditions: [{ dimension: 'model_name', operator: '~*', value: '-70B$' }],
    })
    expect((await fleet.ask('any/llama-8b')).status).toBe(502)
    expect((await fleet.ask('any/llama-70b')).status).toBe(429)
    expect((await fleet.ask('any/llama-8b')).status).toBe(502)
  })

  test('policies on properties of the model look at each target of a group, and pass it over', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a', 'b'], { clock, models: { a: { provider: 'sglang' } } })
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] })
    const policy = await fleet.gateway.addPolicy({
      name: 'no sglang',
      limits: { rpm: 0 },
      conditions: [{ dimension: 'provider', operator: '==', value: 'sglang' }],
    })
    expect((await fleet.ask('group')).servedBy).toBe('b')
    expect((await fleet.ask('group', {}, { stream: true })).servedBy).toBe('b')
    await fleet.gateway.addGroup('single', { targets: ['a'] })
    const refused = await fleet.ask('single')
    expect(refused.status).toBe(429)
    expect(refused.error).toMatchObject({ type: 'rate_limit_exceeded', policy: { id: policy.id, name: 'no sglang' } })
    expect(refused.headers.has('retry-after')).toBe(true)
  })

  test("a condition on the group's own name matches its targets, and a negated one must hold for both", async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a', 'b'], { clock })
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] })
    const { addPolicy, store } = fleet.gateway
    const byName = await addPolicy({
      name: 'by name',
      limits: { rpm: 0 },
      conditions: [{ dimension: 'model_name', operator: '==', value: 'group' }],
    })
    expect((await fleet.ask('group')).status).toBe(429)
    expect((await fleet.ask('a')).status).toBe(200)
    await store.remove('rate_limit_policies', byName.id, ACTOR)
    await addPolicy({
      name: 'all but a',
      limits: { rpm: 0 },
      conditions: [{ dimension: 'model_name', operator: '~=', value: 'a' }],
    })
    expect((await fleet.ask('group')).servedBy).toBe('a')
    expect((await fleet.ask('b')).status).toBe(429)
  })

  test('a classic policy on a model holds where the model is reached through a group', async () => {
    const clock = testClock(START)
    fleet = await startFleet(['a', 'b'], { clock })
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'] })
    await fleet.gateway.addPolicy(classic('model', fleet.gateway.store.snapshot.models.get('a')?.id ?? ''))
    expect((await fleet.ask('a')).status).toBe(200)
    expect((await fleet.ask('group')).servedBy).toBe('b')
  })

  test('a schedule suspends its policy by the wall clock of its zone, and the same bucket goes on after it', async () => {
    // A Monday, 08:59 in Berlin.
    const clock = testClock(Date.parse('2026-03-02T07:59:00.000Z'))
    fleet = await startFleet(['a'], { clock })
    await fleet.gateway.addPolicy({
      name: 'outside of office hours',
      limits: { rpd: 1 },
      schedules: [{ timezone: 'Europe/Berlin', days_of_week: ['mon'], start_time: '09:00', end_time: '17:00' }],
    })
    expect((await fleet.ask('a')).status).toBe(200)
    expect((await fleet.ask('a')).status).toBe(429)
    clock.advance(60_000)
    for (let call = 0; call < 3; call += 1) expect((await fleet.ask('a')).status).toBe(200)
    clock.advance(8 * 3_600_000)
    expect((await fleet.ask('a')).status).toBe(429)
  })

  test('a policy comes into force with its write and ends with its removal', async () => {
    fleet = await startFleet(['a'])
    const policy = await fleet.gateway.addPolicy({ name: 'closed', limits: { concurrency: 0 } })
    const refused = await fleet.ask('a')
    expect(refused.error.message).toBe("concurrency limit exceeded (policy 'closed')")
    expect(refused.headers.has('retry-after')).toBe(false)
    await fleet.gateway.store.remove('rate_limit_policies', policy.id, ACTOR)
    expect((await fleet.ask('a')).status).toBe(200)
  })
})

function limitHeaders(headers: Headers): Record<string, string> {
  return Object.fromEntries([...headers].filter(([name]) => name.startsWith('x-ratelimit-')))
}
