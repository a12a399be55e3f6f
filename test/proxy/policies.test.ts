/** Rate-limit policies as callers meet them: each form, comparison and schedule through the proxy's own listener. */
import { afterEach, describe, expect, test } from 'bun:test'
import { RateLimitPolicy } from '../../src/resources/rate-limit-policy.ts'
import { ACTOR, CALLER_KEY, testClock } from '../gateway.ts'
import { type Fleet, startFleet } from './fleet.ts'

let fleet: Fleet
afterEach(() => fleet.stop())

/** A second past the start of a minute, an hour and a day; a Monday. */
const START = Date.parse('2026-03-02T00:00:01.000Z')
/** What the answer of the fleet's upstreams tells: 5 of the prompt and 7 of the completion. */
const TOKENS = 12
const as = (key: string) => ({ authorization: `Bearer ${key}` })

type Section = Record<string, unknown>
const is = (dimension: string, operator: string, value: unknown, negate?: boolean): Section => ({
  dimension,
  operator,
  value,
  ...(negate === undefined ? {} : { negate }),
})
const and = (...children: Section[]): Section => ({ logic: 'and', children })
const or = (...children: Section[]): Section => ({ logic: 'or', children })
const not = (group: Section): Section => ({ ...group, negate: true })

/** Keys of two teams and three users, and one that has neither. */
const KEYS = {
  'sk-ann': { team_id: 'red', user_id: 'ann' },
  'sk-ann-too': { team_id: 'red', user_id: 'ann' },
  'sk-bob': { team_id: 'red', user_id: 'bob' },
  'sk-cy': { team_id: 'blue', user_id: 'cy' },
  'sk-nobody': {},
}

/** A fleet with those keys. out: the id of the row of each */
async function startWithKeys(clock = testClock(START)): Promise<Record<keyof typeof KEYS, string>> {
  fleet = await startFleet(['llama-8b', 'llama-70b', 'qwen'], { clock, models: { qwen: { provider: 'sglang' } } })
  const add = async (key: keyof typeof KEYS) => (await fleet.gateway.addApiKey(key, KEYS[key])).id
  return {
    'sk-ann': await add('sk-ann'),
    'sk-ann-too': await add('sk-ann-too'),
    'sk-bob': await add('sk-bob'),
    'sk-cy': await add('sk-cy'),
    'sk-nobody': await add('sk-nobody'),
  }
}

const idOfModel = (alias: string): string => {
  const row = fleet.gateway.store.snapshot.models.get(alias)
  if (!row) throw new Error(`no model ${alias}`)
  return row.id
}

/** A policy that lets nothing through to which its conditions apply. */
const forbid = (...conditions: Section[]) => fleet.gateway.addPolicy({ name: 'forbidden', limits: { rpm: 0 }, conditions })

/** The keys that are refused for a model, in order; every other one must be answered. */
async function refusedKeys(model = 'llama-8b'): Promise<string[]> {
  const refused: string[] = []
  for (const key of Object.keys(KEYS)) {
    const { status } = await fleet.ask(model, as(key))
    if (status === 429) refused.push(key)
    else expect({ key, status }).toEqual({ key, status: 200 })
  }
  return refused
}

/** Likewise the models that are refused to a key. */
async function refusedModels(key = CALLER_KEY): Promise<string[]> {
  const refused: string[] = []
  for (const model of ['llama-8b', 'llama-70b', 'qwen']) {
    const { status } = await fleet.ask(model, as(key))
    if (status === 429) refused.push(model)
    else expect({ model, status }).toEqual({ model, status: 200 })
  }
  return refused
}

describe('classic policies', () => {
  test.each([
    ['second', 1_000, '1'],
    ['minute', 60_000, '59'],
    ['hour', 3_600_000, '3599'],
    ['day', 86_400_000, '86399'],
  ] as const)(
    'max_requests of a %s counts in windows of %d ms by the clock, and names the policy',
    async (window, ms, retryAfter) => {
      const clock = testClock(START)
      fleet = await startFleet(['a'], { clock })
      const scope_ref = fleet.gateway.rows.apiKey.id
      const policy = await fleet.gateway.addPolicy({ name: window, scope: 'api_key', scope_ref, window, max_requests: 2 })
      for (let call = 0; call < 2; call += 1) expect((await fleet.ask('a')).status).toBe(200)
      const refused = await fleet.ask('a')
      expect(refused.status).toBe(429)
      expect(refused.error).toEqual({
        message: `request limit exceeded (requests) (policy '${window}')`,
        type: 'rate_limit_exceeded',
        policy: { id: policy.id, name: window },
      })
      expect(refused.headers.get('retry-after')).toBe(retryAfter)
      expect(fleet.counts()).toEqual([2])
      // The last moment of the window, and the first of the next.
      clock.advance(ms - (START % ms) - 1)
      expect((await fleet.ask('a')).status).toBe(429)
      clock.advance(1)
      expect((await fleet.ask('a')).status).toBe(200)
    },
  )

  test.each([
    ['minute', 60_000, '59'],
    ['day', 86_400_000, '86399'],
  ] as const)('max_tokens of a %s refuses what comes after the request that crosses it', async (window, ms, retryAfter) => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock })
    const scope_ref = fleet.gateway.rows.apiKey.id
    await fleet.gateway.addPolicy({ name: 'tokens', scope: 'api_key', scope_ref, window, max_tokens: TOKENS })
    for (let call = 0; call < 2; call += 1) expect((await fleet.ask('a')).status).toBe(200)
    const refused = await fleet.ask('a')
    expect(refused.error.message).toBe("token limit exceeded (tokens) (policy 'tokens')")
    expect(refused.headers.get('retry-after')).toBe(retryAfter)
    clock.advance(ms - (START % ms))
    expect((await fleet.ask('a')).status).toBe(200)
  })

  test.each(['second', 'hour'])('max_tokens of a %s limits nothing, max_requests beside it does', async window => {
    const clock = testClock(START)
    fleet = await startFleet(['a'], { clock })
    const scope_ref = fleet.gateway.rows.apiKey.id
    const policy = { name: 'both', scope: 'api_key', scope_ref, window, max_tokens: 1, max_requests: 3 }
    await fleet.gateway.addPolicy(policy)
    for (let call = 0; call < 3; call += 1) expect((await fleet.ask('a')).status).toBe(200)
    expect((await fleet.ask('a')).error.message).toBe("request limit exceeded (requests) (policy 'both')")
  })
})

describe('conditions', () => {
  test('`in` holds for each value of its list, and negated for every other that is there', async () => {
    await startWithKeys()
    const policy = await forbid(is('member', 'in', ['bob', 'cy', 'nobody']))
    expect(await refusedKeys()).toEqual(['sk-bob', 'sk-cy'])
    await replace(policy.id, is('member', 'in', ['bob', 'cy', 'nobody'], true))
    expect(await refusedKeys()).toEqual(['sk-ann', 'sk-ann-too'])
  })

  test('`~=` holds for every other value that is there, and negated for the value alone', async () => {
    await startWithKeys()
    const policy = await forbid(is('team', '~=', 'red'))
    expect(await refusedKeys()).toEqual(['sk-cy'])
    await replace(policy.id, is('team', '~=', 'red', true))
    expect(await refusedKeys()).toEqual(['sk-ann', 'sk-ann-too', 'sk-bob'])
  })

  test('a key is known by its id: `==`, `~=` and `in` on api_key', async () => {
    const ids = await startWithKeys()
    const policy = await forbid(is('api_key', '==', ids['sk-ann']))
    expect(await refusedKeys()).toEqual(['sk-ann'])
    await replace(policy.id, is('api_key', '~=', ids['sk-ann']))
    expect(await refusedKeys()).toEqual(['sk-ann-too', 'sk-bob', 'sk-cy', 'sk-nobody'])
    await replace(policy.id, is('api_key', 'in', [ids['sk-cy'], ids['sk-nobody']]))
    expect(await refusedKeys()).toEqual(['sk-cy', 'sk-nobody'])
  })

  test('member is the user of the key: every key of that user, and none without one', async () => {
    await startWithKeys()
    const policy = await forbid(is('member', '==', 'ann'))
    expect(await refusedKeys()).toEqual(['sk-ann', 'sk-ann-too'])
    await replace(policy.id, is('member', '==', 'ann', true))
    expect(await refusedKeys()).toEqual(['sk-bob', 'sk-cy'])
  })

  test('model is the id of the model, not its alias', async () => {
    await startWithKeys()
    const policy = await forbid(is('model', '==', idOfModel('qwen')))
    expect(await refusedModels()).toEqual(['qwen'])
    await replace(policy.id, is('model', 'in', [idOfModel('qwen'), idOfModel('llama-8b')], true))
    expect(await refusedModels()).toEqual(['llama-70b'])
    await replace(policy.id, is('model', '==', 'qwen'))
    expect(await refusedModels()).toEqual([])
  })

  test('`~~` is found anywhere in the name, upper and lower case apart, and `~*` together', async () => {
    await startWithKeys()
    const policy = await forbid(is('model_name', '~~', '-\\d+b$'))
    expect(await refusedModels()).toEqual(['llama-8b', 'llama-70b'])
    await replace(policy.id, is('model_name', '~~', '-\\d+b$', true))
    expect(await refusedModels()).toEqual(['qwen'])
    await replace(policy.id, is('model_name', '~~', 'LLAMA'))
    expect(await refusedModels()).toEqual([])
    await replace(policy.id, is('model_name', '~*', 'LLAMA-7'))
    expect(await refusedModels()).toEqual(['llama-70b'])
  })

  test('`~~` looks at the label of the provider, too', async () => {
    await startWithKeys()
    await forbid(is('provider', '~~', '^sg'))
    expect(await refusedModels()).toEqual(['qwen'])
  })

  test('several conditions must all hold, of the key and of the model alike', async () => {
    await startWithKeys()
    await forbid(is('team', '==', 'red'), is('member', '~=', 'ann'), is('model_name', '==', 'qwen'))
    expect(await refusedKeys('qwen')).toEqual(['sk-bob'])
    expect(await refusedKeys('llama-8b')).toEqual([])
  })

  const groups: [string, Section, string[]][] = [
    ['`or` holds where one child does', or(is('member', '==', 'bob'), is('team', '==', 'blue')), ['sk-bob', 'sk-cy']],
    ['`and` holds where all children do', and(is('team', '==', 'red'), is('member', '==', 'bob')), ['sk-bob']],
    [
      'a negated `or` holds where no child does, also where the dimension is absent',
      not(or(is('member', '==', 'bob'), is('team', '==', 'blue'))),
      ['sk-ann', 'sk-ann-too', 'sk-nobody'],
    ],
    [
      'a negated `and` holds where one child does not, also where the dimension is absent',
      not(and(is('team', '==', 'red'), is('member', '==', 'bob'))),
      ['sk-ann', 'sk-ann-too', 'sk-cy', 'sk-nobody'],
    ],
    [
      'a negated comparison in a group does not match what is absent',
      or(is('team', '==', 'red', true), is('member', '==', 'bob')),
      ['sk-bob', 'sk-cy'],
    ],
    [
      'groups stand in groups, each negated by itself',
      and(is('team', '==', 'red'), not(or(is('member', '==', 'bob'), is('member', '==', 'cy')))),
      ['sk-ann', 'sk-ann-too'],
    ],
  ]
  test.each(groups)('%s', async (_title, condition, refused) => {
    await startWithKeys()
    await forbid(condition)
    expect(await refusedKeys()).toEqual(refused)
  })
})

/** Puts other conditions into a policy that is in force. */
async function replace(id: string, ...conditions: Section[]): Promise<void> {
  const { store } = fleet.gateway
  await store.replace(
    'rate_limit_policies',
    id,
    () => RateLimitPolicy.parse({ name: 'forbidden', limits: { rpm: 0 }, conditions }),
    ACTOR,
  )
}

describe('group_by', () => {
  /** Under a limit of one request each: who is let in, asking in this order. */
  async function admitted(group_by: string[], ...asked: [key: string, model: string][]): Promise<boolean[]> {
    await startWithKeys()
    await fleet.gateway.addPolicy({ name: 'one each', limits: { rpm: 1 }, group_by })
    const outcome: boolean[] = []
    for (const [key, model] of asked) outcome.push((await fleet.ask(model, as(key))).status === 200)
    return outcome
  }

  test('team: keys of a team share a count, teams have their own, and keys without a team are not limited', async () => {
    expect(
      await admitted(
        ['team'],
        ['sk-ann', 'llama-8b'],
        ['sk-bob', 'qwen'],
        ['sk-cy', 'llama-8b'],
        ['sk-cy', 'llama-8b'],
        ['sk-nobody', 'llama-8b'],
        ['sk-nobody', 'llama-8b'],
      ),
    ).toEqual([true, false, true, false, true, true])
  })

  test('api_key: each key has its own count over all models, those of one user too', async () => {
    expect(
      await admitted(
        ['api_key'],
        ['sk-ann', 'llama-8b'],
        ['sk-ann', 'qwen'],
        ['sk-ann-too', 'llama-8b'],
        ['sk-ann-too', 'llama-8b'],
        ['sk-nobody', 'llama-8b'],
        ['sk-nobody', 'llama-8b'],
      ),
    ).toEqual([true, false, true, false, true, false])
  })

  test('provider: models of one label share a count over all keys', async () => {
    expect(
      await admitted(['provider'], ['sk-ann', 'llama-8b'], ['sk-cy', 'llama-70b'], ['sk-cy', 'qwen'], ['sk-nobody', 'qwen']),
    ).toEqual([true, false, true, false])
  })

  test('several: a count for each combination that occurs', async () => {
    expect(
      await admitted(
        ['provider', 'team'],
        ['sk-ann', 'llama-8b'],
        ['sk-bob', 'llama-70b'],
        ['sk-bob', 'qwen'],
        ['sk-cy', 'llama-70b'],
        ['sk-cy', 'llama-8b'],
      ),
    ).toEqual([true, false, true, true, false])
  })

  test('provider of a group is that of each target: one that is used up is passed over', async () => {
    await startWithKeys()
    await fleet.gateway.addGroup('group', { targets: ['llama-8b', 'llama-70b', 'qwen'] })
    await fleet.gateway.addPolicy({ name: 'one each', limits: { rpm: 1 }, group_by: ['provider'] })
    expect((await fleet.ask('group')).servedBy).toBe('llama-8b')
    expect((await fleet.ask('group')).servedBy).toBe('qwen')
    expect((await fleet.ask('group')).status).toBe(429)
    expect(fleet.counts()).toEqual([1, 0, 1])
  })
})

describe('schedules', () => {
  /** Whether a policy that lets nothing pass is suspended at these times, in the order of time. */
  async function suspendedAt(schedules: Section[], times: readonly string[]): Promise<boolean[]> {
    const [first = ''] = times
    const clock = testClock(Date.parse(first))
    fleet = await startFleet(['a'], { clock })
    await fleet.gateway.addPolicy({ name: 'closed', limits: { rpm: 0 }, schedules })
    const outcome: boolean[] = []
    for (const time of times) {
      clock.advance(Date.parse(time) - clock.now())
      const { status } = await fleet.ask('a')
      if (status !== 200) expect(status).toBe(429)
      outcome.push(status === 200)
    }
    return outcome
  }

  const cases: [string, Section, [time: string, isSuspended: boolean][]][] = [
    [
      'dates name single days in the time of the zone',
      { timezone: 'Europe/Berlin', dates: ['2026-03-02', '2026-03-04'], start_time: '09:00', end_time: '17:00' },
      [
        ['2026-03-02T07:59:59.999Z', false],
        ['2026-03-02T08:00:00.000Z', true],
        ['2026-03-02T15:59:59.999Z', true],
        ['2026-03-02T16:00:00.000Z', false],
        ['2026-03-03T12:00:00.000Z', false],
        ['2026-03-04T12:00:00.000Z', true],
        ['2027-03-02T12:00:00.000Z', false],
      ],
    ],
    [
      'a window over midnight goes by the day that it starts on',
      { timezone: 'UTC', days_of_week: ['fri'], start_time: '22:00', end_time: '06:00' },
      [
        ['2026-03-06T05:00:00.000Z', false],
        ['2026-03-06T21:59:59.999Z', false],
        ['2026-03-06T22:00:00.000Z', true],
        ['2026-03-07T00:00:00.000Z', true],
        ['2026-03-07T05:59:59.999Z', true],
        ['2026-03-07T06:00:00.000Z', false],
        ['2026-03-07T23:00:00.000Z', false],
      ],
    ],
    [
      'a date over midnight, the end of a month too, goes by the day that it starts on',
      { timezone: 'UTC', dates: ['2026-02-28'], start_time: '23:00', end_time: '01:00' },
      [
        ['2026-02-28T00:30:00.000Z', false],
        ['2026-02-28T23:30:00.000Z', true],
        ['2026-03-01T00:59:59.999Z', true],
        ['2026-03-01T01:00:00.000Z', false],
        ['2026-03-01T23:30:00.000Z', false],
      ],
    ],
    [
      '24:00 is the end of the day and not a moment more',
      { timezone: 'UTC', days_of_week: ['sun'], start_time: '00:00', end_time: '24:00' },
      [
        ['2026-02-28T23:59:59.999Z', false],
        ['2026-03-01T00:00:00.000Z', true],
        ['2026-03-01T23:59:59.999Z', true],
        ['2026-03-02T00:00:00.000Z', false],
      ],
    ],
    [
      'a start that equals the end never suspends',
      { timezone: 'UTC', days_of_week: ['mon', 'tue'], start_time: '12:00', end_time: '12:00' },
      [
        ['2026-03-02T11:59:59.999Z', false],
        ['2026-03-02T12:00:00.000Z', false],
        ['2026-03-02T12:00:30.000Z', false],
        ['2026-03-03T00:00:00.000Z', false],
        ['2026-03-03T12:00:00.000Z', false],
      ],
    ],
  ]
  test.each(cases)('%s', async (_title, schedule, times) => {
    const suspended = await suspendedAt(
      [schedule],
      times.map(([time]) => time),
    )
    expect(times.map(([time], index) => [time, suspended[index]])).toEqual(times)
  })

  test('of several windows one that is open is enough', async () => {
    const night = { timezone: 'UTC', days_of_week: ['mon'], start_time: '00:00', end_time: '06:00' }
    const noon = { timezone: 'UTC', dates: ['2026-03-02'], start_time: '12:00', end_time: '13:00' }
    expect(
      await suspendedAt(
        [night, noon],
        ['2026-03-02T05:00:00Z', '2026-03-02T09:00:00Z', '2026-03-02T12:30:00Z', '2026-03-09T12:30:00Z'],
      ),
    ).toEqual([true, false, true, false])
  })

  test('while a classic policy is suspended nothing is counted, and its count of before goes on', async () => {
    const clock = testClock(Date.parse('2026-03-02T11:59:00.000Z'))
    fleet = await startFleet(['a'], { clock })
    await fleet.gateway.addPolicy({
      name: 'by day',
      scope: 'api_key',
      scope_ref: fleet.gateway.rows.apiKey.id,
      window: 'day',
      max_requests: 2,
      schedules: [{ timezone: 'UTC', dates: ['2026-03-02'], start_time: '12:00', end_time: '13:00' }],
    })
    expect((await fleet.ask('a')).status).toBe(200)
    clock.advance(60_000)
    for (let call = 0; call < 4; call += 1) expect((await fleet.ask('a')).status).toBe(200)
    clock.advance(3_600_000)
    expect((await fleet.ask('a')).status).toBe(200)
    expect((await fleet.ask('a')).status).toBe(429)
  })
})
