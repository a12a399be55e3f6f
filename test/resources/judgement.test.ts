import { describe, expect, test } from 'bun:test'
import type { Kind } from '../../src/resources/index.ts'
import { parseSorted, removeUnknown, sortOut } from '../../src/resources/judgement.ts'

const DIRECT = { display_name: 'm', provider: 'vllm', model_name: 'x', provider_key_id: 'k' }
const GROUP = { display_name: 'g', routing: { targets: [{ model: 'm' }] } }
const CLASSIC = { name: 'p', scope: 'team', scope_ref: 't', window: 'day', max_requests: 1 }
const CONDITIONAL = { name: 'p', limits: { rpm: 1 } }

/** Places and messages of what is wrong with a document. */
function problemsOf(kind: Kind, document: Record<string, unknown>): string[] {
  const result = parseSorted(sortOut(kind, document))
  return 'value' in result ? [] : result.problems.map(({ path, message }) => `${path.join('.')}: ${message}`)
}

describe('the form of a document', () => {
  const forms: [Kind, Record<string, unknown>, string[]][] = [
    ['models', DIRECT, []],
    ['models', GROUP, []],
    ['models', { ...DIRECT, routing: null }, []],
    ['models', { ...GROUP, provider: null, retries: null, cost: undefined }, []],
    ['models', { ...GROUP, provider: 'x', cost: {} }, ['provider', 'cost']],
    ['models', { ...DIRECT, embedding: {}, ensemble: {} }, ['embedding', 'ensemble']],
    ['rate_limit_policies', CLASSIC, []],
    ['rate_limit_policies', CONDITIONAL, []],
    ['rate_limit_policies', { ...CLASSIC, limits: null, action: null }, []],
    ['rate_limit_policies', { ...CONDITIONAL, scope: null, window: null }, []],
  ]
  test.each(forms)('of %s: %j has no place for %j', (kind, document, expected) => {
    const before = structuredClone(document)
    const { refused } = sortOut(kind, document)
    expect(refused.map(({ member }) => member)).toEqual(expected)
    expect(document).toEqual(before)
  })

  test('without members of other forms the rest is judged as if they had never been there', () => {
    expect(problemsOf('models', { ...GROUP, provider: 5, retries: 'x' })).toEqual([])
    expect(problemsOf('rate_limit_policies', { ...CLASSIC, limits: null })).toEqual([])
    expect(problemsOf('rate_limit_policies', { ...CONDITIONAL, scope: null, window: null })).toEqual([])
  })

  test('knobs are dead in a group, what makes a direct model is not', () => {
    const { refused } = sortOut('models', { ...GROUP, retries: 1, model_name: 'x' })
    expect(refused.map(({ member, isDead }) => [member, isDead])).toEqual([
      ['retries', true],
      ['model_name', false],
    ])
  })

  test('a member named __proto__ is a member like any other', () => {
    const document = JSON.parse('{"__proto__": {"provider": "x"}, "display_name": "g", "routing": {"targets": [{"model": "m"}]}}')
    const sorted = sortOut('models', document)
    expect(Object.keys(sorted.document)).toContain('__proto__')
    expect(Object.getPrototypeOf(sorted.document)).toBe(Object.prototype)
  })

  test('of a kind that this version does not have, only what is wrong is told and not what is missing', () => {
    expect(problemsOf('models', { display_name: 5, semantic: {} })).toEqual(['display_name: must be a string, not a number'])
  })
})

describe('the form of a policy', () => {
  const FORMS = [CLASSIC, CONDITIONAL].map(({ name, ...members }) => Object.keys(members))

  test('is undecided with members of both forms, whichever has more of them: only that is told', () => {
    const [classic = [], conditional = []] = FORMS
    for (const one of classic) {
      for (const other of conditional) {
        for (const document of [
          { name: 'p', [one]: 1, [other]: 1 },
          { ...CLASSIC, [other]: 1 },
          { ...CONDITIONAL, [one]: 1 },
        ]) {
          const problems = problemsOf('rate_limit_policies', document)
          expect(problems).toEqual([expect.stringContaining('the two forms of a policy exclude each other')])
          for (const member of Object.keys(document)) if (member !== 'name') expect(problems[0]).toContain(`\`${member}\``)
        }
      }
    }
  })

  test('is undecided with members of neither form', () => {
    expect(problemsOf('rate_limit_policies', { name: 'p', schedules: [] })).toEqual([
      expect.stringMatching(/^: one of two forms is needed/),
    ])
  })

  test.each([...new Set(FORMS.flat())])('is known by %s alone', member => {
    expect(problemsOf('rate_limit_policies', { name: 'p', [member]: 1 }).join()).not.toContain('form')
  })
})

describe('unions inside a document', () => {
  const of = (...conditions: unknown[]) => problemsOf('rate_limit_policies', { ...CONDITIONAL, conditions })
  const team = { dimension: 'team', operator: '==', value: 't' }

  test('are told by the form that was likely meant, with the whole path', () => {
    expect(of(team, { logic: 'and', children: [team, { logic: 'or', children: [{ ...team, value: { a: 1 } }] }] })).toEqual([
      'conditions.1.children.1.children.0.value: must be a string or an array',
    ])
  })

  test('are told as comparison where nothing speaks for either, and as group where more of it is known', () => {
    expect(of({})).toEqual([
      'conditions.0.dimension: is required',
      'conditions.0.operator: is required',
      'conditions.0.value: is required',
    ])
    expect(of({ logic: 'and', children: 5, value: 'x' })).toEqual([
      'conditions.0.children: must be an array, not a number',
      'conditions.0: unknown field `value`, expected one of `logic`, `children`, `negate`',
    ])
  })

  test('say which types may stand there where none of them does', () => {
    expect(of(null, [], 1)).toEqual([0, 1, 2].map(index => `conditions.${index}: must be an object`))
  })

  test('a sentence is told once of a place, and of each place', () => {
    const huge = { ...CONDITIONAL, limits: { rpm: 1e21, tpm: 1e21 } }
    expect(problemsOf('rate_limit_policies', huge)).toEqual(
      ['rpm', 'tpm'].map(limit => `limits.${limit}: must be at most 9007199254740991`),
    )
  })

  test('no message repeats what was given', () => {
    const given = 'sk-pasted-by-mistake'
    const told = of(given, { ...team, operator: given }, { logic: given, children: [given] }, { ...team, value: [given, 5] })
    expect(told.length).toBeGreaterThan(3)
    expect(told.join('\n')).not.toContain(given)
  })
})

describe('removeUnknown', () => {
  test('takes out what was found unknown, through objects and lists, and tells where it stood', () => {
    const document = {
      ...CONDITIONAL,
      conditions: [{ logic: 'or', children: [{ dimension: 'team', operator: '==', value: 't', x: 1 }], y: 2 }],
      z: 3,
    }
    const sorted = sortOut('rate_limit_policies', document)
    const removed: PropertyKey[][] = []
    for (;;) {
      const result = parseSorted(sorted)
      if ('value' in result) break
      const now = removeUnknown(sorted.document, result.problems)
      if (now.length === 0) throw new Error(`expected unknown members alone, got ${JSON.stringify(result.problems)}`)
      removed.push(...now)
    }
    expect(removed.map(path => path.join('.')).sort()).toEqual(['conditions.0.children.0.x', 'conditions.0.y', 'z'])
  })
})
