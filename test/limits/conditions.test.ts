import { describe, expect, test } from 'bun:test'
import { compileConditions } from '../../src/limits/conditions.ts'
import type { Subject } from '../../src/limits/subject.ts'
import type { Branch, Condition, Dimension, Leaf } from '../../src/resources/rate-limit-policy.ts'

const DIRECT: Subject = {
  apiKeyId: 'key-1',
  teamId: 'team-1',
  userId: 'user-1',
  modelId: 'model-1',
  modelName: 'llama-70b',
  provider: 'vllm',
}
const TARGET: Subject = { ...DIRECT, group: { id: 'group-1', name: 'chat' } }

const holds = (conditions: Condition[], subject: Subject = DIRECT) => compileConditions(conditions)(subject)
const leaf = (dimension: Dimension, operator: Leaf['operator'], value: Leaf['value'], negate?: boolean): Leaf => ({
  dimension,
  operator,
  value,
  negate,
})
const yes = leaf('api_key', '==', 'key-1')
const no = leaf('api_key', '==', 'key-2')

describe('comparisons', () => {
  test.each([
    ['team', 'team-1'],
    ['member', 'user-1'],
    ['api_key', 'key-1'],
    ['model', 'model-1'],
    ['model_name', 'llama-70b'],
    ['provider', 'vllm'],
  ] as const)('%s is compared with what the request has, %s', (dimension, value) => {
    expect(holds([leaf(dimension, '==', value)])).toBe(true)
    expect(holds([leaf(dimension, '==', `${value}x`)])).toBe(false)
    expect(holds([leaf(dimension, '~=', value)])).toBe(false)
    expect(holds([leaf(dimension, '~=', `${value}x`)])).toBe(true)
    expect(holds([leaf(dimension, 'in', ['other', value])])).toBe(true)
    expect(holds([leaf(dimension, 'in', ['other', `${value}x`])])).toBe(false)
  })

  test.each([
    ['==', 'llama-70b', true],
    ['==', 'Llama-70B', false],
    ['==', 'llama', false],
    ['~=', 'llama', true],
    ['~~', 'llama', true],
    ['~~', '-\\d+b$', true],
    ['~~', '^70b', false],
    ['~~', 'LLAMA', false],
    ['~*', 'LLAMA', true],
    ['~*', '^70B', false],
    ['~*', '-70B$', true],
  ] as const)('model_name llama-70b %s %s: %p, and the contrary when negated', (operator, value, expected) => {
    expect(holds([leaf('model_name', operator, value)])).toBe(expected)
    expect(holds([leaf('model_name', operator, value, false)])).toBe(expected)
    expect(holds([leaf('model_name', operator, value, true)])).toBe(!expected)
  })

  test.each([
    ['team', 'teamId'],
    ['member', 'userId'],
    ['provider', 'provider'],
  ] as const)('a request without %s is matched by no operator, negated or not', (dimension, field) => {
    const operators = [
      ['==', 'a'],
      ['~=', 'a'],
      ['in', ['a']],
      ...(dimension === 'provider' ? ([['~~', '.*']] as const) : []),
      ...(dimension === 'provider' ? ([['~*', '.*']] as const) : []),
    ] as const
    for (const [operator, value] of operators) {
      for (const negate of [false, true]) {
        const given = Array.isArray(value) ? [...value] : String(value)
        expect(holds([leaf(dimension, operator, given, negate)], { ...DIRECT, [field]: undefined })).toBe(false)
      }
    }
  })
})

describe('a target that was reached through a group', () => {
  // Rows: operator, value, and the outcome plain and negated.
  test.each([
    ['model', '==', 'model-1', true, false],
    ['model', '==', 'group-1', true, false],
    ['model', '==', 'other', false, true],
    ['model', '~=', 'model-1', false, true],
    ['model', '~=', 'group-1', false, true],
    ['model', '~=', 'other', true, false],
    ['model', 'in', ['other', 'group-1'], true, false],
    ['model', 'in', ['other', 'model-1'], true, false],
    ['model', 'in', ['other'], false, true],
    ['model_name', '==', 'llama-70b', true, false],
    ['model_name', '==', 'chat', true, false],
    ['model_name', '~=', 'chat', false, true],
    ['model_name', '~=', 'llama-70b', false, true],
    ['model_name', '~=', 'other', true, false],
    ['model_name', '~~', '^chat$', true, false],
    ['model_name', '~~', '70b$', true, false],
    ['model_name', '~~', '^other', false, true],
    ['model_name', '~*', '^CHAT$', true, false],
  ] as const)('%s %s %p: its own and that of the group are asked (%p, negated %p)', (...row) => {
    const [dimension, operator, value, plain, negated] = row
    const given = typeof value === 'string' ? value : [...value]
    expect(holds([leaf(dimension, operator, given)], TARGET)).toBe(plain)
    expect(holds([leaf(dimension, operator, given, true)], TARGET)).toBe(negated)
  })

  test('its provider is its own alone', () => {
    expect(holds([leaf('provider', '==', 'vllm')], TARGET)).toBe(true)
    expect(holds([leaf('provider', '==', 'chat')], TARGET)).toBe(false)
    expect(holds([leaf('provider', '~=', 'vllm')], TARGET)).toBe(false)
  })
})

describe('several conditions', () => {
  test('without conditions every request is matched', () => {
    expect(holds([])).toBe(true)
  })

  test('all of the list must hold', () => {
    expect(holds([yes, yes])).toBe(true)
    expect(holds([yes, no])).toBe(false)
    expect(holds([no, yes])).toBe(false)
  })

  const branch = (logic: Branch['logic'], children: Condition[], negate?: boolean): Branch => ({ logic, children, negate })
  test.each([
    ['and', [yes, yes], true],
    ['and', [yes, no], false],
    ['and', [no, no], false],
    ['or', [yes, yes], true],
    ['or', [no, yes], true],
    ['or', [no, no], false],
  ] as const)('%s of a branch, and the contrary when it is negated', (logic, children, expected) => {
    expect(holds([branch(logic, [...children])])).toBe(expected)
    expect(holds([branch(logic, [...children], false)])).toBe(expected)
    expect(holds([branch(logic, [...children], true)])).toBe(!expected)
  })

  test('branches may stand in branches', () => {
    const inner = branch('or', [no, leaf('provider', '==', 'vllm')])
    expect(holds([branch('and', [yes, inner])])).toBe(true)
    expect(holds([branch('and', [yes, { ...inner, negate: true }])])).toBe(false)
    expect(holds([branch('or', [no, { ...inner, negate: true }], true)])).toBe(true)
  })

  test('a branch that is negated holds where a dimension is missing: only the comparison is then false', () => {
    const noTeam = { ...DIRECT, teamId: undefined }
    const inTeam = leaf('team', '==', 'team-1')
    expect(holds([{ ...inTeam, negate: true }], noTeam)).toBe(false)
    expect(holds([branch('or', [inTeam], true)], noTeam)).toBe(true)
  })
})
