/** What is wrong with a document, in the words that the admin API and the status of the store share. */
import { z } from 'zod'
import { printable } from '../lib/log.ts'
import { nearest } from '../lib/nearest.ts'
import type { Kind } from './index.ts'

/** What is said of a member that is not there. */
export const MISSING = 'is required'

/** Unknown members of one object that are named. */
const UNKNOWN_SHOWN_MAX = 20

/** Members that make a model a kind of its own that this version does not have, and what such models are called. */
const VIRTUAL_MODELS: readonly string[] = ['ensemble', 'semantic']

/** Whether a member makes a model one that this version does not have, so that the rules of direct models do not apply. */
export function isVirtualModel(kind: Kind, member: string): boolean {
  return kind === 'models' && VIRTUAL_MODELS.includes(member)
}

/** What is said of a member whose feature this version does not have. */
export function unsupportedMember(kind: Kind, member: string): string {
  return isVirtualModel(kind, member)
    ? `${member} models are not supported by this version: leave out \`${member}\``
    : `\`${member}\` is not supported by this version: leave it out`
}

/**
 * What the rules say in our words; messages that stand in a schema go before these. zod's own texts are not used because
 * some of them quote what was submitted.
 */
export const wording: z.core.$ZodErrorMap = issue => {
  switch (issue.code) {
    case 'invalid_type':
      if (issue.input === undefined) return MISSING
      if (issue.expected === 'int' && typeof issue.input === 'number') return 'must be a whole number'
      return `must be ${TYPES[issue.expected] ?? issue.expected}, not ${nameOfType(issue.input)}`
    case 'unrecognized_keys': {
      const names = issue.inst instanceof z.ZodObject ? Object.keys(issue.inst.shape) : []
      return unknownMembers(issue.keys, names)
    }
    case 'invalid_value':
      if (issue.input === undefined) return MISSING
      return `must be ${issue.values.length > 1 ? 'one of ' : ''}${issue.values.map(value => JSON.stringify(value)).join(', ')}`
    case 'too_small':
      if (issue.origin === 'array' && issue.minimum === 1) return 'must not be empty'
      return `${bound(issue.origin)} at least ${issue.minimum}${unit(issue.origin)}`
    case 'too_big':
      return `${bound(issue.origin)} at most ${issue.maximum}${unit(issue.origin)}`
    case 'invalid_format':
      if (issue.format === 'datetime') return 'must be a time of RFC 3339 with its offset, such as 2030-01-31T00:00:00Z'
      return 'does not have the form that the reference describes'
    case 'invalid_key':
      return 'member names must not be empty'
    default:
      return 'is not what the reference describes'
  }
}

/** What is said where a value is of none of the types that may stand in its place. in: names of types in zod's spelling */
export function expectedTypes(expected: readonly string[]): string {
  return `must be ${[...new Set(expected.map(type => TYPES[type] ?? type))].join(' or ')}`
}

const bound = (origin: string) => (origin === 'array' ? 'must have' : 'must be')
const unit = (origin: string) => (origin === 'array' ? ' entries' : origin === 'string' ? ' characters long' : '')

const TYPES: Record<string, string> = {
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'an array',
  object: 'an object',
  record: 'an object',
}

/** One sentence for all of an object: the list of what is known is told once. */
function unknownMembers(given: readonly string[], known: readonly string[]): string {
  const names = given.slice(0, UNKNOWN_SHOWN_MAX).map(name => {
    const meant = nearest(name, known)
    return `\`${printable(name)}\`${meant === undefined ? '' : ` (did you mean \`${meant}\`?)`}`
  })
  if (given.length > names.length) names.push(`and ${given.length - names.length} more`)
  const expected = known.map(each => `\`${each}\``).join(', ')
  return `unknown ${given.length === 1 ? 'field' : 'field(s):'} ${names.join(', ')}, expected one of ${expected}`
}

/** The JSON type of a value with its article, for messages. */
export function nameOfType(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'an array'
  if (typeof value === 'object') return 'an object'
  return typeof value === 'boolean' ? 'a boolean' : `a ${typeof value}`
}
