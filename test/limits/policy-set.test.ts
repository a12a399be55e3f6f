import { describe, expect, test } from 'bun:test'
import type { z } from 'zod'
import { isRefusal } from '../../src/limits/limit.ts'
import { createLimiter } from '../../src/limits/limiter.ts'
import { compilePolicies, type Matched, type Subject } from '../../src/limits/policy-set.ts'
import { ClassicPolicy, ConditionalPolicy, type RateLimitPolicy } from '../../src/resources/rate-limit-policy.ts'

const DIRECT: Subject = {
  apiKeyId: 'key-1',
  teamId: 'team-1',
  userId: 'user-1',
  modelId: 'model-1',
  modelName: 'llama-70b',
  provider: 'vllm',
}
const GROUP: Subject = { ...DIRECT, modelId: 'group-1', modelName: 'chat', provider: undefined }
const TARGET: Subject = { ...DIRECT, group: { id: 'group-1', name: 'chat' } }

const only = (value: RateLimitPolicy) => compilePolicies([{ id: 'p1', value }])
const keysOf = (matched: Matched[]) => matched.map(({ limit }) => limit.key)

type ClassicInput = z.input<typeof ClassicPolicy>
type ConditionalInput = z.input<typeof ConditionalPolicy>

const classic = (scope: ClassicInput['scope'], scope_ref: string, more: Partial<ClassicInput> = {}) =>
  ClassicPolicy.parse({ name: 'classic', scope, scope_ref, window: 'minute', max_requests: 5, ...more })
const conditional = (more: Partial<ConditionalInput> = {}) => ConditionalPolicy.parse({ name: 'v2', limits: { rpm: 5 }, ...more })

describe('classic policies', () => {
  test.each([
    ['api_key', 'key-1', 'policy:api_key:key-1:p1'],
    ['model', 'model-1', 'policy:model:model-1:p1'],
    ['team', 'team-1', 'policy:team:team-1:p1'],
    ['member', 'user-1', 'policy:member:user-1:p1'],
    ['team_member', 'team-1', 'policy:team_member:team-1:p1:user-1'],
  ] as const)('scope %s matches its own id in the bucket of its own, and no other id', (scope, ref, key) => {
    expect(keysOf(only(classic(scope, ref)).atAdmission(DIRECT, false))).toEqual([key])
    expect(only(classic(scope, 'other')).atAdmission(DIRECT, false)).toEqual([])
  })

  test.each(['team', 'member', 'team_member'] as const)('scope %s leaves keys alone that have no such id', scope => {
    const nobody = { ...DIRECT, teamId: undefined, userId: undefined }
    for (const ref of ['team-1', 'user-1', 'undefined']) expect(only(classic(scope, ref)).atAdmission(nobody, false)).toEqual([])
  })

  test('team_member: keys of one user share a bucket, users have one each, and a key without a user has none', () => {
    const policies = only(classic('team_member', 'team-1'))
    const keyOf = (subject: Partial<Subject>) => keysOf(policies.atAdmission({ ...DIRECT, ...subject }, false))
    expect(keyOf({ apiKeyId: 'key-2' })).toEqual(keyOf({}))
    expect(keyOf({ userId: 'user-2' })).not.toEqual(keyOf({}))
    expect(keyOf({ userId: undefined })).toEqual([])
    expect(keyOf({ teamId: 'team-2' })).toEqual([])
  })

  test.each([
    ['second', { rps: 5 }],
    ['minute', { rpm: 5, tpm: 900 }],
    ['hour', { rph: 5 }],
    ['day', { rpd: 5, tpd: 900 }],
  ] as const)('window %s: requests and tokens become limits of that window', (window, limits) => {
    const [matched] = only(classic('team', 'team-1', { window, max_tokens: 900 })).atAdmission(DIRECT, false)
    expect(matched?.limit).toEqual({
      key: 'policy:team:team-1:p1',
      limits,
      layer: 'policy',
      policy: { id: 'p1', name: 'classic' },
    })
  })

  test('tokens alone limit the minute and the day, and nothing with a second or an hour', () => {
    const tokens = (window: ClassicInput['window']) =>
      only(classic('team', 'team-1', { window, max_requests: undefined, max_tokens: 900 }))
    expect(tokens('minute').atAdmission(DIRECT, false)[0]?.limit.limits).toEqual({ tpm: 900 })
    expect(tokens('day').atAdmission(DIRECT, false)[0]?.limit.limits).toEqual({ tpd: 900 })
    for (const window of ['second', 'hour'] as const) {
      expect(tokens(window).atAdmission(DIRECT, false)).toEqual([])
      expect(tokens(window).isEmpty).toBe(true)
    }
  })

  test('one that names the group is asked when the request comes, one that names the target at the target, in the same bucket as directly', () => {
    const ofGroup = only(classic('model', 'group-1'))
    expect(keysOf(ofGroup.atAdmission(GROUP, true))).toEqual(['policy:model:group-1:p1'])
    expect(ofGroup.atTarget(TARGET)).toEqual([])
    const ofTarget = only(classic('model', 'model-1'))
    expect(ofTarget.atAdmission(GROUP, true)).toEqual([])
    expect(keysOf(ofTarget.atTarget(TARGET))).toEqual(keysOf(ofTarget.atAdmission(DIRECT, false)))
  })

  test.each(['api_key', 'team', 'member', 'team_member'] as const)(
    'scope %s is asked once for a group, not at each target',
    scope => {
      const ref = { api_key: 'key-1', team: 'team-1', member: 'user-1', team_member: 'team-1' }[scope]
      expect(only(classic(scope, ref)).atAdmission(GROUP, true)).toHaveLength(1)
      expect(only(classic(scope, ref)).atTarget(TARGET)).toEqual([])
    },
  )
})

describe('conditional policies', () => {
  test('without conditions and group_by: every request, in one bucket', () => {
    const [matched] = only(conditional({ limits: { rpm: 5, concurrency: 2 } })).atAdmission(DIRECT, false)
    expect(matched).toEqual({
      limit: { key: 'policy:v2:p1', limits: { rpm: 5, concurrency: 2 }, layer: 'policy', policy: { id: 'p1', name: 'v2' } },
      isSuspended: undefined,
    })
  })

  test('conditions that do not hold: no bucket', () => {
    const policies = only(conditional({ conditions: [{ dimension: 'team', operator: '==', value: 'team-2' }] }))
    expect(policies.atAdmission(DIRECT, false)).toEqual([])
    expect(policies.atAdmission({ ...DIRECT, teamId: 'team-2' }, false)).toHaveLength(1)
  })

  test('group_by: a bucket for each combination, under the name of all of its values', () => {
    const policies = only(conditional({ group_by: ['team', 'member', 'api_key', 'model', 'provider'] }))
    expect(keysOf(policies.atAdmission(DIRECT, false))).toEqual([
      'policy:v2:p1:team=team-1:member=user-1:api_key=key-1:model=model-1:provider=vllm',
    ])
    const others = ['teamId', 'userId', 'apiKeyId', 'modelId', 'provider'].map(field => ({ ...DIRECT, [field]: 'other' }))
    const keys = [DIRECT, ...others].flatMap(subject => keysOf(policies.atAdmission(subject, false)))
    expect(new Set(keys).size).toBe(6)
  })

  test('group_by in another order is the same bucket', () => {
    const keyOf = (group_by: ConditionalInput['group_by']) => keysOf(only(conditional({ group_by })).atAdmission(DIRECT, false))
    expect(keyOf(['model', 'team'])).toEqual(keyOf(['team', 'model']))
  })

  test.each([
    ['team', 'teamId'],
    ['member', 'userId'],
    ['provider', 'provider'],
  ] as const)('group_by %s leaves requests alone that have none', (dimension, field) => {
    expect(only(conditional({ group_by: [dimension] })).atAdmission({ ...DIRECT, [field]: undefined }, false)).toEqual([])
  })

  test('values that hold separators share no bucket', () => {
    const policies = only(conditional({ group_by: ['team', 'member'] }))
    const pairs = [
      ['a', 'b'],
      ['a:member=b', 'b'],
      ['a', 'b:member=b'],
      ['a%3Amember%3Db', 'b'],
      ['a%', 'b'],
      ['a%25', 'b'],
      ['a:', 'b'],
      ['a=', 'b'],
    ]
    const keys = pairs.flatMap(([teamId, userId]) => keysOf(policies.atAdmission({ ...DIRECT, teamId, userId }, false)))
    expect(new Set(keys).size).toBe(pairs.length)
  })

  test('classic and conditional policies of one id share no bucket, whatever the ids hold', () => {
    const one = compilePolicies([{ id: 'x:y', value: classic('team', 'team-1') }]).atAdmission(DIRECT, false)
    const two = compilePolicies([{ id: 'y', value: classic('team', 'team-1:x') }])
    expect(keysOf(one)).toEqual(['policy:team:team-1:x%3Ay'])
    expect(keysOf(two.atAdmission({ ...DIRECT, teamId: 'team-1:x' }, false))).toEqual(['policy:team:team-1%3Ax:y'])
  })

  test('policies are asked in the order of the rows', () => {
    const policies = compilePolicies([
      { id: 'p3', value: conditional() },
      { id: 'p1', value: classic('team', 'team-1') },
      { id: 'p2', value: conditional() },
    ])
    expect(policies.atAdmission(DIRECT, false).map(({ limit }) => limit.policy?.id)).toEqual(['p3', 'p1', 'p2'])
  })
})

describe('groups', () => {
  const looksAtModel: [string, Partial<ConditionalInput>][] = [
    ['a condition on model', { conditions: [{ dimension: 'model', operator: '~=', value: 'other' }] }],
    ['a condition on model_name', { conditions: [{ dimension: 'model_name', operator: '~~', value: '70b' }] }],
    ['a condition on provider', { conditions: [{ dimension: 'provider', operator: '==', value: 'vllm' }] }],
    [
      'a condition on provider in a branch',
      { conditions: [{ logic: 'or', children: [{ dimension: 'provider', operator: '==', value: 'vllm' }] }] },
    ],
    ['group_by model', { group_by: ['model'] }],
    ['group_by provider', { group_by: ['provider'] }],
  ]
  test.each(looksAtModel)('%s: asked for direct models at once, for groups at each target alone', (_, more) => {
    const policies = only(conditional(more))
    expect(policies.atAdmission(DIRECT, false)).toHaveLength(1)
    expect(policies.atAdmission(GROUP, true)).toEqual([])
    expect(keysOf(policies.atTarget(TARGET))).toEqual(keysOf(policies.atAdmission(DIRECT, false)))
  })

  const looksAtCaller: [string, Partial<ConditionalInput>][] = [
    ['no condition', {}],
    ['a condition on team', { conditions: [{ dimension: 'team', operator: '==', value: 'team-1' }] }],
    ['group_by member and api_key', { group_by: ['member', 'api_key'] }],
  ]
  test.each(looksAtCaller)('%s: asked once for a group, not at its targets', (_, more) => {
    const policies = only(conditional(more))
    expect(policies.atAdmission(GROUP, true)).toHaveLength(1)
    expect(policies.atTarget(TARGET)).toEqual([])
  })

  test('group_by model and provider tell the targets apart, and a condition on the group gathers them', () => {
    const policies = only(
      conditional({ conditions: [{ dimension: 'model_name', operator: '==', value: 'chat' }], group_by: ['model', 'provider'] }),
    )
    const other = { ...TARGET, modelId: 'model-2', modelName: 'qwen', provider: 'ollama' }
    expect(keysOf(policies.atTarget(TARGET))).toEqual(['policy:v2:p1:model=model-1:provider=vllm'])
    expect(keysOf(policies.atTarget(other))).toEqual(['policy:v2:p1:model=model-2:provider=ollama'])
    expect(policies.atAdmission(DIRECT, false)).toEqual([])
  })
})

describe('what is known of a set', () => {
  test('isEmpty is true without policies only', () => {
    expect(compilePolicies([]).isEmpty).toBe(true)
    expect(only(conditional()).isEmpty).toBe(false)
  })

  test('readsModelName is true where a condition reads it, at any depth', () => {
    const leaf = { dimension: 'model_name', operator: '==', value: 'a' } as const
    expect(
      only(conditional({ conditions: [{ logic: 'or', children: [{ logic: 'and', children: [leaf] }] }] })).readsModelName,
    ).toBe(true)
    expect(only(conditional({ conditions: [{ dimension: 'model', operator: '==', value: 'a' }] })).readsModelName).toBe(false)
    expect(only(classic('model', 'model-1')).readsModelName).toBe(false)
  })
})

describe('schedules', () => {
  const night = { timezone: 'UTC', days_of_week: ['fri' as const], start_time: '22:00', end_time: '06:00' }
  const at = (time: string) => Date.parse(time)

  test.each([
    ['classic', classic('team', 'team-1', { schedules: [night] })],
    ['conditional', conditional({ schedules: [night] })],
  ])('a %s policy is suspended while a window is open', (_, policy) => {
    const [matched] = only(policy).atAdmission(DIRECT, false)
    expect(matched?.isSuspended?.(at('2030-03-15T21:59:00Z'))).toBe(false)
    expect(matched?.isSuspended?.(at('2030-03-15T22:00:00Z'))).toBe(true)
    expect(matched?.isSuspended?.(at('2030-03-16T06:00:00Z'))).toBe(false)
  })

  test('a policy without windows cannot be suspended', () => {
    expect(only(conditional({ schedules: [] })).atAdmission(DIRECT, false)[0]?.isSuspended).toBeUndefined()
  })

  test('the bucket is the same before and after, with its counts', () => {
    const limiter = createLimiter()
    const lunch = { timezone: 'UTC', days_of_week: ['fri' as const], start_time: '12:00', end_time: '13:00' }
    const policies = only(conditional({ limits: { rpd: 2 }, schedules: [lunch] }))
    const reserve = (time: string) => {
      const buckets = policies.atAdmission(DIRECT, false).filter(({ isSuspended }) => !isSuspended?.(at(time)))
      return isRefusal(
        limiter.reserve(
          buckets.map(({ limit }) => limit),
          at(time),
        ),
      )
    }
    expect(reserve('2030-03-15T11:00:00Z')).toBe(false)
    for (let i = 0; i < 5; i++) expect(reserve('2030-03-15T12:30:00Z')).toBe(false)
    expect(reserve('2030-03-15T13:00:00Z')).toBe(false)
    expect(reserve('2030-03-15T13:00:00Z')).toBe(true)
  })
})
