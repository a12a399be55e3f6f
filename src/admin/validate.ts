import type { z } from 'zod'
import type { JsonObject } from '../lib/json.ts'
import type { Kind, Resource } from '../resources/index.ts'
import { isVirtualModel, MISSING, unsupportedMember, wording } from '../resources/wording.ts'
import { AdminError } from './error.ts'
import { jsonPointer } from './pointer.ts'
import { REGISTRY } from './schema.ts'

/** More problems than these are counted, not listed. */
const PROBLEMS_MAX = 20

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
      if (isVirtualModel(kind, member)) isVirtual = true
      problems.push(unsupportedMember(kind, member))
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

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
