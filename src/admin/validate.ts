import { z } from 'zod'
import type { JsonObject } from '../lib/json.ts'
import { printable } from '../lib/log.ts'
import { nearest } from '../lib/nearest.ts'
import type { Kind, Resource } from '../resources/index.ts'
import { nameOfType } from './body.ts'
import { AdminError } from './error.ts'
import { jsonPointer } from './pointer.ts'
import { REGISTRY } from './schema.ts'

/** More problems than these are counted, not listed. */
const PROBLEMS_MAX = 20

const MISSING = 'is required'

/** Unknown members of one object that are named. */
const UNKNOWN_SHOWN_MAX = 20

/** Members that make a model a kind of its own, and what such models are called. */
const VIRTUAL_MODELS: Record<string, string> = { routing: 'routing', ensemble: 'ensemble', semantic: 'semantic' }

/**
 * The normalised document: defaults filled in, absent members left out.
 * throws: AdminError 400 naming every problem by place and rule, and no submitted value
 * source: control-admin-api §3
 */
export function validate<K extends Kind>(kind: K, document: JsonObject): Resource[K] {
  const { unsupported, name, refusals } = REGISTRY[kind]
  const supported: JsonObject = {}
  const problems: string[] = []
  let isVirtual = false
  for (const [member, value] of Object.entries(document)) {
    if (!unsupported.includes(member)) supported[member] = value
    // `null` means that the member is absent, here as anywhere.
    else if (value !== null) {
      const virtual = kind === 'models' ? VIRTUAL_MODELS[member] : undefined
      if (virtual !== undefined) isVirtual = true
      problems.push(
        virtual === undefined
          ? `\`${member}\` is not supported by this version: leave it out`
          : `${virtual} models are not supported by this version: leave out \`${member}\``,
      )
    }
  }
  const result = parse(kind, supported)
  const issues = 'issues' in result ? result.issues : []
  for (const issue of issues) {
    // Without the member the document is judged as a direct model, which is not what its author wrote.
    if (!(isVirtual && issue.message === MISSING)) problems.push(describe(kind, name, issue))
  }
  problems.push(...(refusals?.(supported) ?? []).map(({ path, message }) => failedAt(path, message)))
  if ('value' in result && problems.length === 0) return result.value
  const shown = problems.slice(0, PROBLEMS_MAX)
  if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`)
  throw new AdminError(400, shown.join('; '))
}

function failedAt(path: readonly PropertyKey[], message: string): string {
  return `schema validation failed at ${jsonPointer(path)}: ${message}`
}

function describe(kind: Kind, name: string, issue: z.core.$ZodIssue): string {
  const isUnknownMember = issue.code === 'unrecognized_keys'
  const place = failedAt(issue.path, issue.message)
  // Clients look for this beginning on API keys alone, where members of hosted deployments are sent most often.
  if (kind !== 'api_keys') return place
  if (isUnknownMember && issue.path.length === 0) return `malformed ${name} payload: ${issue.message}`
  return isUnknownMember || issue.code === 'invalid_type' ? `malformed ${name} payload: ${place}` : place
}

type Parsed<T> = { value: T } | { issues: z.core.$ZodIssue[] }

/**
 * Parses, and where members are unknown parses again without them: zod skips the rules over several members as long as one
 * is unknown, and an operator should hear of everything at once.
 */
function parse<K extends Kind>(kind: K, document: JsonObject): Parsed<Resource[K]> {
  const schema = REGISTRY[kind].schema
  const result = schema.safeParse(document, { error: wording })
  if (result.success) return { value: result.data }
  const unknown = result.error.issues.filter(issue => issue.code === 'unrecognized_keys')
  if (unknown.length === 0) return { issues: result.error.issues }
  const known = structuredClone(document)
  for (const { path, keys } of unknown) {
    const holder = path.reduce<unknown>((value, part) => (isRecord(value) ? value[String(part)] : undefined), known)
    if (isRecord(holder)) for (const key of keys) delete holder[key]
  }
  const again = schema.safeParse(known, { error: wording })
  return { issues: again.success ? unknown : [...unknown, ...again.error.issues] }
}

/**
 * What the rules say in our words; messages that stand in a schema go before these. zod's own texts are not used because
 * some of them quote what was submitted.
 */
const wording: z.core.$ZodErrorMap = issue => {
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
      return `must be one of ${issue.values.map(value => JSON.stringify(value)).join(', ')}`
    case 'too_small':
      return `must be at least ${issue.minimum}${issue.origin === 'string' ? ' characters long' : ''}`
    case 'too_big':
      return `must be at most ${issue.maximum}${issue.origin === 'string' ? ' characters long' : ''}`
    case 'invalid_format':
      if (issue.format === 'datetime') return 'must be a time of RFC 3339 with its offset, such as 2030-01-31T00:00:00Z'
      return 'does not have the form that the reference describes'
    case 'invalid_key':
      return 'member names must not be empty'
    default:
      return 'is not what the reference describes'
  }
}

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

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
