import { describe, expect, test } from 'bun:test'
import { STRATEGY_NAMES, type StrategyName } from '../../src/routing/names.ts'
import { type Group, type GroupMemory, orderCandidates, planGroup } from '../../src/routing/order.ts'
import type { Candidate, Measures } from '../../src/routing/strategy.ts'
import { aliases, countEach, measuresOf, member } from './candidates.ts'

type State = 'healthy' | 'cooldown' | 'unhealthy'
type Options = { maxFallbacks?: number; whenAllUnavailable?: 'fail' | 'try_anyway' }
type Request = { states?: Record<string, State>; eligible?: readonly Candidate[]; hashKey?: string; measures?: Measures }

function plan(strategy: StrategyName, members: readonly Candidate[], options: Options = {}): Group<Candidate> {
  return planGroup(strategy, members, { maxFallbacks: undefined, whenAllUnavailable: 'fail', ...options })
}

/** A group whose memory lasts; gives the aliases to try, or undefined. */
function ask(group: Group<Candidate>, memory: GroupMemory = new Map()) {
  return ({ states = {}, eligible = group.members, hashKey = '', measures = measuresOf() }: Request = {}) => {
    const availability = ({ alias }: Candidate) => states[alias] ?? 'healthy'
    const ordered = orderCandidates(group, eligible, { memory, hashKey, measures, availability })
    return ordered && aliases(ordered)
  }
}

const [a, b, c, d] = [member('a'), member('b'), member('c'), member('d')]

describe('a plan', () => {
  test('has its tiers by descending priority, each in the order of declaration', () => {
    const members = [
      member('a'),
      member('b', { priority: 5 }),
      member('c', { priority: -1 }),
      member('d'),
      member('e', { priority: 5 }),
    ]
    const group = plan('failover', members)
    expect(group.tiers.map(aliases)).toEqual([['b', 'e'], ['a', 'd'], ['c']])
    expect(group.members).toBe(members)
  })

  test('knows whether tags mean anything', () => {
    expect(plan('failover', [a, b]).hasTags).toBe(false)
    expect(plan('failover', [a, member('b', { tags: ['gpu'] })]).hasTags).toBe(true)
  })
})

describe('tiers', () => {
  const members = [
    member('low'),
    member('high-1', { priority: 10 }),
    member('high-2', { priority: 10 }),
    member('mid', { priority: 5 }),
  ]

  for (const name of STRATEGY_NAMES) {
    test(`${name} tries all of a higher priority before any of a lower one`, () => {
      const request = ask(plan(name, members))
      for (let call = 0; call < 20; call += 1) {
        const ordered = request({
          hashKey: `key ${call}`,
          measures: measuresOf({ 'high-1': 50, 'high-2': 60 }, { 'high-1': 9, low: 1 }),
        })
        expect(ordered?.slice(0, 2).toSorted()).toEqual(['high-1', 'high-2'])
        expect(ordered?.slice(2)).toEqual(['mid', 'low'])
      }
    })
  }

  test('have memories of their own', () => {
    const request = ask(plan('round_robin', [member('a', { priority: 1 }), member('b', { priority: 1 }), c, d]))
    expect(request()).toEqual(['a', 'b', 'c', 'd'])
    expect(request()).toEqual(['b', 'a', 'd', 'c'])
  })

  test('that max_fallbacks does not reach do not use up their turns', () => {
    const memory: GroupMemory = new Map()
    const tiered = [member('a', { priority: 1 }), c, d]
    ask(plan('round_robin', tiered, { maxFallbacks: 0 }), memory)()
    expect([...memory.keys()]).toEqual([1])
    expect(ask(plan('round_robin', tiered), memory)()).toEqual(['a', 'c', 'd'])
  })

  test('whose priority is no longer configured are forgotten', () => {
    const memory: GroupMemory = new Map()
    for (let priority = 0; priority < 50; priority += 1) {
      ask(plan('round_robin', [member('a', { priority }), member('b', { priority })]), memory)()
    }
    expect(memory.size).toBe(1)
  })

  test('without an eligible member are passed over', () => {
    const group = plan('failover', members)
    expect(ask(group)({ eligible: members.filter(({ alias }) => !alias.startsWith('high')) })).toEqual(['mid', 'low'])
  })
})

describe('members that tags or addresses leave out', () => {
  for (const name of STRATEGY_NAMES) {
    test(`are not tried under ${name}, in one tier and in several`, () => {
      const tiered = [a, member('b', { priority: 3 }), c, member('d', { priority: 3 })]
      for (const members of [[a, b, c, d], tiered]) {
        const eligible = members.filter(({ alias }) => alias !== 'b')
        expect(ask(plan(name, members))({ eligible, hashKey: 'key' })?.toSorted()).toEqual(['a', 'c', 'd'])
      }
    })
  }

  test('leave the keys of the others where they were', () => {
    const request = ask(plan('consistent_hash', [a, b, c]))
    for (let key = 0; key < 100; key += 1) {
      const hashKey = `key ${key}`
      const whole = request({ hashKey }) ?? []
      expect(request({ hashKey, eligible: [a, c] })).toEqual(whole.filter(alias => alias !== 'b'))
    }
  })
})

describe('max_fallbacks', () => {
  test.each([
    [0, ['a']],
    [1, ['a', 'b']],
    [2, ['a', 'b', 'c']],
    [9, ['a', 'b', 'c']],
    [undefined, ['a', 'b', 'c']],
  ])('of %p gives %p of three', (maxFallbacks, expected) => {
    expect(ask(plan('failover', [a, b, c], { maxFallbacks }))()).toEqual(expected)
  })

  test('counts over all tiers', () => {
    const members = [c, member('a', { priority: 1 }), d, member('b', { priority: 1 })]
    for (const name of ['failover', 'least_cost'] as const) {
      expect(ask(plan(name, members, { maxFallbacks: 2 }))()).toEqual(['a', 'b', 'c'])
    }
  })

  test.each(['failover', 'round_robin', 'consistent_hash'] as const)(
    'under %s cuts before members that are down are left out: the next ones do not move up',
    name => {
      const options = { maxFallbacks: 1 }
      const [first = '', second = ''] = ask(plan(name, [a, b, c, d], options))({ hashKey: 'key' }) ?? []
      const request = ask(plan(name, [a, b, c, d], options))
      expect(request({ hashKey: 'key', states: { [first]: 'cooldown' } })).toEqual([second])
    },
  )

  test.each(['failover', 'round_robin', 'consistent_hash'] as const)(
    'under %s fails where those that are left after the cut are unhealthy, though others are not',
    name => {
      const options = { maxFallbacks: 0 }
      const [first = ''] = ask(plan(name, [a, b], options))({ hashKey: 'key' }) ?? []
      expect(ask(plan(name, [a, b], options))({ hashKey: 'key', states: { [first]: 'unhealthy' } })).toBeUndefined()
    },
  )

  test.each(['least_cost', 'least_latency', 'least_busy'] as const)(
    'under %s cuts after members that are down are left out: the next ones move up',
    name => {
      const request = ask(plan(name, [a, b, c, d], { maxFallbacks: 1 }))
      expect(request({ states: { a: 'cooldown' } })).toEqual(['b', 'c'])
      expect(request({ states: { a: 'unhealthy', c: 'cooldown' } })).toEqual(['b', 'd'])
      expect(request({ states: { a: 'cooldown', b: 'cooldown', c: 'cooldown', d: 'cooldown' } })).toEqual(['a', 'b'])
    },
  )
})

describe('members that are down', () => {
  const request = ask(plan('failover', [a, b, c]))
  const anyway = ask(plan('failover', [a, b, c], { whenAllUnavailable: 'try_anyway' }))

  test.each<[string, Record<string, State>, string[]]>([
    ['all healthy: all', {}, ['a', 'b', 'c']],
    ['one in cooldown: the others', { a: 'cooldown' }, ['b', 'c']],
    ['one unhealthy: the others', { b: 'unhealthy' }, ['a', 'c']],
    ['one healthy: that one', { a: 'unhealthy', c: 'cooldown' }, ['b']],
    ['none healthy: those in cooldown', { a: 'unhealthy', b: 'cooldown', c: 'cooldown' }, ['b', 'c']],
    ['all in cooldown: all', { a: 'cooldown', b: 'cooldown', c: 'cooldown' }, ['a', 'b', 'c']],
  ])('%s', (_case, states, expected) => {
    expect(request({ states })).toEqual(expected)
    expect(anyway({ states })).toEqual(expected)
  })

  test('where all are unhealthy: none with `fail`, all with `try_anyway`', () => {
    const states: Record<string, State> = { a: 'unhealthy', b: 'unhealthy', c: 'unhealthy' }
    expect(request({ states })).toBeUndefined()
    expect(anyway({ states })).toEqual(['a', 'b', 'c'])
  })

  test('with `try_anyway`, max_fallbacks holds all the same', () => {
    const options = { whenAllUnavailable: 'try_anyway', maxFallbacks: 0 } as const
    expect(ask(plan('least_cost', [a, b], options))({ states: { a: 'unhealthy', b: 'unhealthy' } })).toEqual(['a'])
  })

  test('a healthy one of a lower tier goes before one in cooldown of a higher', () => {
    const tiered = ask(plan('failover', [member('a', { priority: 1 }), b]))
    expect(tiered({ states: { a: 'cooldown' } })).toEqual(['b'])
  })

  test('are asked about once a request', () => {
    const asked: string[] = []
    const group = plan('failover', [a, b, c])
    orderCandidates(group, group.members, {
      memory: new Map(),
      hashKey: '',
      measures: measuresOf(),
      availability: ({ alias }) => {
        asked.push(alias)
        return alias === 'b' ? 'cooldown' : 'healthy'
      },
    })
    expect(asked).toEqual(['a', 'b', 'c'])
  })
})

test('weights hold over requests while a member is down: its turns go to the next in the order of declaration', () => {
  const request = ask(
    plan('round_robin', [member('a', { weight: 70 }), member('b', { weight: 30 }), member('c', { weight: 100 })]),
  )
  const firsts = Array.from({ length: 200 }, () => request({ states: { b: 'unhealthy' } })?.[0] ?? 'nobody')
  expect(countEach(firsts)).toEqual({ a: 70, c: 130 })
})

test('a change of the configuration keeps what a group remembers', () => {
  const memory: GroupMemory = new Map()
  expect(ask(plan('round_robin', [a, b]), memory)()).toEqual(['a', 'b'])
  expect(ask(plan('round_robin', [member('a'), member('b')], { maxFallbacks: 3 }), memory)()).toEqual(['b', 'a'])
})

test('the array that is given may be changed: the next request does not see it', () => {
  const group = plan('failover', [a, b])
  const context = { memory: new Map(), hashKey: '', measures: measuresOf(), availability: () => 'healthy' as const }
  const ordered = orderCandidates(group, group.members, context)
  ordered?.reverse()
  expect(aliases(orderCandidates(group, group.members, context) ?? [])).toEqual(['a', 'b'])
})
