/** What failures of real upstreams do to the next requests, with the clock passed in. Contract: proxy-05 §5. */
import { afterEach, describe, expect, test } from 'bun:test'
import { modelStatus } from '../../src/status/models.ts'
import { chatChunk, type Handler } from '../fake-upstream.ts'
import { eventsOf, testClock } from '../gateway.ts'
import { answersAs, breaks, type Fleet, failsWith, startFleet } from './fleet.ts'

const START = Date.parse('2030-01-01T00:00:00Z')

type Section = Record<string, unknown>

let fleet: Fleet
let clock: ReturnType<typeof testClock>
afterEach(() => fleet.stop())

/** Two servers, and `group` with failover from `a` to `b`. */
async function start(members: Section = {}, routing: Section = {}): Promise<void> {
  clock = testClock(START)
  fleet = await startFleet(['a', 'b'], { clock, models: { a: members } })
  await fleet.gateway.addGroup('group', { targets: ['a', 'b'], ...routing })
}

function rowOf(alias: string) {
  const { store, gateway } = fleet.gateway
  const row = modelStatus(store.snapshot, gateway.modelHealth, clock.now()).find(each => each.display_name === alias)
  if (!row) throw new Error(`no row for ${alias}`)
  return row
}

/** Status of `a`, seconds that its cooldown lasts from now on, and why. */
function stateOfA(): unknown[] {
  const { status, cooldown_until, status_reason } = rowOf('a')
  return [status, cooldown_until === undefined ? 0 : cooldown_until.secs_since_epoch - clock.now() / 1_000, status_reason]
}

const HEALTHY = ['healthy', 0, undefined]

describe('a request for the model itself', () => {
  test.each<[number, string]>([
    [401, 'upstream_auth_failure'],
    [408, 'upstream_request_timeout'],
    [429, 'upstream_rate_limited'],
    [500, 'upstream_server_error'],
    [502, 'upstream_server_error'],
    [503, 'upstream_server_error'],
    [504, 'upstream_server_error'],
  ])('that the server answers with %d cools it down for 30 s because of %s', async (status, reason) => {
    await start({ retries: 0 })
    fleet.at('a').answer(failsWith(status))
    expect((await fleet.ask('a')).status).toBe(status < 500 ? status : 502)
    expect(stateOfA()).toEqual(['cooldown', 30, reason])
  })

  test.each([302, 400, 403, 404, 422, 501])('that the server answers with %d does not', async status => {
    await start({ retries: 0 })
    fleet.at('a').answer(failsWith(status))
    await fleet.ask('a')
    expect(stateOfA()).toEqual(HEALTHY)
  })

  test.each<[string, Handler, string]>([
    ['breaks off before an answer', breaks, 'transport_error'],
    ['is answered without choices', (_request, connection) => connection.json(200, { id: 'x' }), 'upstream_decode_error'],
    ['is answered with HTML', (_request, connection) => connection.send(200, '<html>'), 'upstream_decode_error'],
    [
      'breaks off inside an answer',
      async (_request, connection) => {
        await connection.raw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"choices":')
        connection.reset()
      },
      'transport_error',
    ],
    ['is not answered in time', (_request, connection) => connection.stall(), 'request_timeout'],
  ])('that %s cools it down because of its kind', async (_what, handler, reason) => {
    await start({ retries: 0, timeout: 200 })
    fleet.at('a').answer(handler)
    expect((await fleet.ask('a')).status).toBeGreaterThanOrEqual(502)
    expect(stateOfA()).toEqual(['cooldown', 30, reason])
  })

  test.each<[string, Handler, string]>([
    [
      'that is cut after its first event',
      async (_request, connection) => {
        await connection.streamHead()
        await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'Hel' }))}\n\n`)
        connection.reset()
      },
      'transport_error',
    ],
    ['that ends before its first event', (_request, connection) => connection.sse([], { done: null }), 'transport_error'],
    [
      'with an error without a status inside',
      (_request, connection) => connection.sse([chatChunk({ content: 'Hel' }), { error: { message: 'engine died' } }]),
      'upstream_in_band_error',
    ],
    [
      'that begins with an error without a status',
      (_request, connection) => connection.sse([{ error: { message: 'engine died' } }]),
      'upstream_in_band_error',
    ],
    [
      'with an error with a status inside',
      (_request, connection) => connection.sse([chatChunk({ content: 'Hel' }), { error: { message: 'full', code: 429 } }]),
      'upstream_rate_limited',
    ],
    [
      'that falls silent',
      async (_request, connection) => {
        await connection.streamHead()
        await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'Hel' }))}\n\n`)
        await connection.stall()
      },
      'request_timeout',
    ],
  ])('streamed, %s, cools it down', async (_what, handler, reason) => {
    await start({ retries: 0, stream_timeout: 200 })
    fleet.at('a').answer(handler)
    await fleet.ask('a', {}, { stream: true })
    await fleet.gateway.idle()
    expect(stateOfA()).toEqual(['cooldown', 30, reason])
  })

  test('is sent whatever the state of the model, and a good answer ends the cooldown', async () => {
    await start({ retries: 0 })
    fleet.at('a').answer(failsWith(429, { 'retry-after': '500' }))
    await fleet.ask('a')
    expect(stateOfA()).toEqual(['cooldown', 500, 'upstream_rate_limited'])
    fleet.at('a').answer(answersAs('a'))
    expect((await fleet.ask('a')).status).toBe(200)
    expect(stateOfA()).toEqual(HEALTHY)
  })

  test('whose stream ends well ends the cooldown, too', async () => {
    await start({ retries: 0 })
    fleet.at('a').answerInTurn(failsWith(503), answersAs('a'))
    await fleet.ask('a')
    expect(stateOfA()[0]).toBe('cooldown')
    expect(eventsOf((await fleet.ask('a', {}, { stream: true })).text).at(-1)).toBe('[DONE]')
    await fleet.gateway.idle()
    expect(stateOfA()).toEqual(HEALTHY)
  })

  test('whose caller leaves before the answer changes nothing', async () => {
    await start()
    fleet.at('a').answer((_request, connection) => connection.stall())
    const leaving = new AbortController()
    const asking = fleet.gateway.chat({ model: 'a' }, {}, leaving.signal).catch(() => undefined)
    await fleet.at('a').arrived(1)
    leaving.abort()
    await asking
    await fleet.gateway.idle()
    expect(stateOfA()).toEqual(HEALTHY)
  })

  test('that a provider key without use makes impossible changes nothing', async () => {
    await start({ provider_key_id: 'nobody' })
    expect((await fleet.ask('a')).status).toBe(400)
    expect(stateOfA()).toEqual(HEALTHY)
  })
})

describe('the cooldown block of the model', () => {
  test.each<[string, Section, string, unknown[]]>([
    ['enabled: false', { enabled: false }, '180', HEALTHY],
    ['default_seconds without Retry-After', { default_seconds: 7 }, '', ['cooldown', 7, 'upstream_server_error']],
    ['default_seconds: 0 without Retry-After', { default_seconds: 0 }, '', HEALTHY],
    ['default_seconds: 0 with Retry-After', { default_seconds: 0 }, '180', ['cooldown', 180, 'upstream_server_error']],
    ['nothing, with Retry-After', {}, '180', ['cooldown', 180, 'upstream_server_error']],
    ['nothing, with a short Retry-After', {}, '2', ['cooldown', 2, 'upstream_server_error']],
    ['nothing, with Retry-After: 0', {}, '0', ['cooldown', 30, 'upstream_server_error']],
    ['nothing, with Retry-After as a date', {}, 'Fri, 31 Dec 2049 23:59:59 GMT', ['cooldown', 30, 'upstream_server_error']],
    ['nothing, with a very long Retry-After', {}, '86400', ['cooldown', 600, 'upstream_server_error']],
    ['max_seconds', { max_seconds: 45 }, '180', ['cooldown', 45, 'upstream_server_error']],
    ['honor_retry_after: false', { honor_retry_after: false }, '180', ['cooldown', 30, 'upstream_server_error']],
    ['trigger_statuses without the status', { trigger_statuses: [429] }, '180', HEALTHY],
  ])('with %s', async (_what, cooldown, retryAfter, expected) => {
    await start({ retries: 0, cooldown })
    fleet.at('a').answer(failsWith(503, retryAfter === '' ? {} : { 'retry-after': retryAfter }))
    await fleet.ask('a')
    expect(stateOfA()).toEqual(expected)
  })

  test('with a status of its own in trigger_statuses', async () => {
    await start({ retries: 0, cooldown: { trigger_statuses: [404] } })
    fleet.at('a').answer(failsWith(404))
    await fleet.ask('a')
    expect(stateOfA()).toEqual(['cooldown', 30, 'upstream_status_failure'])
  })

  test('with trigger_on_timeout: false lets a deadline pass, trigger_on_transport: false a broken connection', async () => {
    await start({ retries: 0, timeout: 200, cooldown: { trigger_on_timeout: false, trigger_on_transport: false } })
    fleet.at('a').answerInTurn((_request, connection) => connection.stall(), breaks)
    expect((await fleet.ask('a')).status).toBe(504)
    expect(stateOfA()).toEqual(HEALTHY)
    expect((await fleet.ask('a')).status).toBe(502)
    expect(stateOfA()).toEqual(HEALTHY)
  })
})

describe('a group', () => {
  test('passes by a target in cooldown until its time is over', async () => {
    await start()
    fleet.at('a').answer(failsWith(503))
    expect((await fleet.ask('group')).servedBy).toBe('b')
    expect(fleet.counts()).toEqual([1, 1])
    fleet.at('a').answer(answersAs('a'))
    clock.advance(29_999)
    expect((await fleet.ask('group')).servedBy).toBe('b')
    expect(fleet.counts()).toEqual([1, 2])
    clock.advance(1)
    expect((await fleet.ask('group')).servedBy).toBe('a')
  })

  test.each([401, 429])('relays a %d, and asks the other target next', async status => {
    await start()
    fleet.at('a').answer(failsWith(status))
    expect((await fleet.ask('group')).status).toBe(status)
    expect(fleet.counts()).toEqual([1, 0])
    expect((await fleet.ask('group')).servedBy).toBe('b')
    expect(fleet.counts()).toEqual([1, 1])
  })

  test('tries targets that are all in cooldown', async () => {
    await start()
    fleet.at('a').answerInTurn(failsWith(503), answersAs('a'))
    fleet.at('b').answer(failsWith(503))
    expect((await fleet.ask('group')).status).toBe(502)
    expect([rowOf('a').status, rowOf('b').status]).toEqual(['cooldown', 'cooldown'])
    expect((await fleet.ask('group')).servedBy).toBe('a')
    expect(rowOf('a').status).toBe('healthy')
  })

  const background_model_check = {
    enabled: true,
    interval_seconds: 10,
    timeout_seconds: 1,
    stale_after_seconds: 60,
  }

  /** Both targets are checked, and fail. */
  async function startDown(routing: Section = {}): Promise<void> {
    const checked = { background_model_check, retries: 0 }
    clock = testClock(START)
    fleet = await startFleet(['a', 'b'], { clock, models: { a: checked, b: checked } })
    await fleet.gateway.addGroup('group', { targets: ['a', 'b'], ...routing })
    for (const alias of ['a', 'b']) failCheck(alias)
    expect([rowOf('a').status, rowOf('b').status]).toEqual(['unhealthy', 'unhealthy'])
  }
  const failCheck = (alias: string) => {
    const check = { outcome: 'failed', status: 503, reason: 'background_check_failed' } as const
    fleet.gateway.gateway.modelHealth.of(rowOf(alias).id).checked(check, clock.now())
  }

  test('whose targets all fail their checks is 503 with Retry-After: 30, and nothing is sent', async () => {
    await startDown()
    const { status, headers, error } = await fleet.ask('group')
    expect([status, headers.get('retry-after'), error.type]).toEqual([503, '30', 'all_candidates_unavailable'])
    expect(fleet.counts()).toEqual([0, 0])
  })

  test('with `try_anyway` tries them all the same, and an answer makes its target healthy', async () => {
    await startDown({ when_all_unavailable: 'try_anyway' })
    expect((await fleet.ask('group')).servedBy).toBe('a')
    expect([rowOf('a').status, rowOf('b').status]).toEqual(['healthy', 'unhealthy'])
  })

  test('uses targets again whose failed check is older than `stale_after_seconds`', async () => {
    await startDown()
    clock.advance(60_000)
    failCheck('a')
    clock.advance(1)
    expect((await fleet.ask('group')).servedBy).toBe('b')
  })

  test('prefers a target in cooldown to one whose check fails, also where that one is in cooldown, too', async () => {
    await startDown()
    fleet.gateway.gateway.modelHealth.of(rowOf('b').id).succeeded()
    fleet.at('a').answer(failsWith(503))
    fleet.at('b').answerInTurn(failsWith(503), answersAs('b'))
    await fleet.ask('a')
    await fleet.ask('b')
    expect([rowOf('a').status, rowOf('b').status]).toEqual(['cooldown', 'cooldown'])
    const before = fleet.at('a').requests.length
    expect((await fleet.ask('group')).servedBy).toBe('b')
    expect(fleet.at('a').requests).toHaveLength(before)
  })
})
