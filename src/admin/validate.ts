import type { JsonObject } from '../lib/json.ts'
import { type Kind, REGISTRY, type Resource } from '../resources/index.ts'
import { type Problem, parseWritten, sortOut } from '../resources/judgement.ts'
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
  const result = parseWritten(sorted)
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
