import type { JsonObject } from '../lib/json.ts'
import { type Kind, REGISTRY, type Resource } from '../resources/index.ts'
import { type Problem, parseSorted, removeUnknown, type Sorted, sortOut } from '../resources/judgement.ts'
import { AdminError } from './error.ts'
import { jsonPointer } from './pointer.ts'

/** More problems than these are counted, not listed. */
const PROBLEMS_MAX = 20

/**
 * The normalised document: defaults filled in, absent members left out.
 * throws: AdminError 400 naming every problem by place and rule, and no submitted value
 * source: control-admin-api §3
 */
export function validate<K extends Kind>(kind: K, document: JsonObject): Resource[K] {
  const { name, refusals } = REGISTRY[kind]
  const sorted = sortOut(kind, document)
  const problems = sorted.refused.map(({ message }) => message)
  const result = parse(sorted)
  const issues = 'problems' in result ? result.problems : []
  for (const issue of issues) problems.push(describe(kind, name, issue))
  problems.push(...(refusals?.(sorted.document) ?? []).map(({ path, message }) => failedAt(path, message)))
  if ('value' in result && problems.length === 0) return result.value
  const shown = problems.slice(0, PROBLEMS_MAX)
  if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`)
  throw new AdminError(400, shown.join('; '))
}

function failedAt(path: readonly PropertyKey[], message: string): string {
  return `schema validation failed at ${jsonPointer(path)}: ${message}`
}

function describe(kind: Kind, name: string, issue: Problem): string {
  const isUnknownMember = issue.code === 'unrecognized_keys'
  const place = failedAt(issue.path, issue.message)
  // Clients look for this beginning on API keys alone, where members of hosted deployments are sent most often.
  if (kind !== 'api_keys') return place
  if (isUnknownMember && issue.path.length === 0) return `malformed ${name} payload: ${issue.message}`
  return isUnknownMember || issue.code === 'invalid_type' ? `malformed ${name} payload: ${place}` : place
}

/**
 * Parses, and where members are unknown parses again without them: zod skips the rules over several members as long as one
 * is unknown, and an operator should hear of everything at once.
 */
function parse<K extends Kind>(sorted: Sorted<K>): ReturnType<typeof parseSorted<K>> {
  const result = parseSorted(sorted)
  const unknown = 'problems' in result ? result.problems.filter(({ code }) => code === 'unrecognized_keys') : []
  if (unknown.length === 0) return result
  const document = structuredClone(sorted.document)
  removeUnknown(document, unknown)
  const again = parseSorted({ ...sorted, document })
  return { problems: 'problems' in again ? [...unknown, ...again.problems] : unknown }
}
