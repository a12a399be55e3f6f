import { compilePattern } from '../lib/pattern.ts'
import type { Condition, Leaf } from '../resources/rate-limit-policy.ts'
import { propertiesOf, type Subject } from './subject.ts'

/**
 * Whether all conditions of a policy hold; without conditions they always do.
 * throws: PatternError for a pattern that the schema of policies would refuse
 * source: proxy-06 §5
 */
export function compileConditions(conditions: readonly Condition[]): (subject: Subject) => boolean {
  const all = conditions.map(compileCondition)
  return subject => all.every(holds => holds(subject))
}

function compileCondition(condition: Condition): (subject: Subject) => boolean {
  if (!('logic' in condition)) return compileLeaf(condition)
  const children = condition.children.map(compileCondition)
  const isNegated = condition.negate === true
  return condition.logic === 'and'
    ? subject => children.every(holds => holds(subject)) !== isNegated
    : subject => children.some(holds => holds(subject)) !== isNegated
}

/**
 * A target that was reached through a group has two ids and two names. What is asked for must hold for either of them, what
 * is excluded for neither; a request without the dimension is never matched, not even by what is excluded.
 */
function compileLeaf(leaf: Leaf): (subject: Subject) => boolean {
  const { dimension, operator } = leaf
  const equals = compileOperator(leaf)
  const excludes = (operator === '~=') !== (leaf.negate === true)
  return subject => {
    const values = propertiesOf(subject, dimension)
    return values.length > 0 && values.some(equals) !== excludes
  }
}

/** The operator without its negation: `~=` is `==` here. */
function compileOperator({ operator, value }: Leaf): (given: string) => boolean {
  if (Array.isArray(value)) {
    const values = new Set(value)
    return given => values.has(given)
  }
  if (operator === '~~' || operator === '~*') return remembering(compilePattern(value, { ignoreCase: operator === '~*' }))
  return given => given === value
}

/** Texts whose outcome is remembered for each pattern: names of models and labels of providers, which are few. */
const REMEMBERED_MAX = 256

/** A pattern in linear time still costs some microseconds, and every pair of key and model asks all patterns once. */
function remembering(matches: (text: string) => boolean): (text: string) => boolean {
  const known = new Map<string, boolean>()
  return text => {
    let outcome = known.get(text)
    if (outcome === undefined) {
      // Callers may spell the names of a wildcard model as they like: what they spelt must not pile up.
      if (known.size >= REMEMBERED_MAX) known.clear()
      outcome = matches(text)
      known.set(text, outcome)
    }
    return outcome
  }
}
