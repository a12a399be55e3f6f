/** What is wrong with a document, told alike of what operators write and of what is stored. */
import type { z } from 'zod'
import { isGiven } from './form.ts'
import { type Kind, REGISTRY, type Resource } from './index.ts'
import { expectedTypes, isVirtualModel, MISSING, unsupportedMember, wording } from './wording.ts'

type Document = Readonly<Record<string, unknown>>

/** A place and what is wrong there. Messages name rules and members, never a value, which may be a credential. */
export type Problem = z.core.$ZodIssue

/** A document in the form that it is judged by. */
export type Sorted<K extends Kind> = {
  schema: z.ZodType<Resource[K]>
  /** What the schema is to look at: the members that are neither foreign to the form nor of a later version. */
  document: Record<string, unknown>
  /** Members of other forms and of later versions, in the order of the document. Those that are `null` are absent. */
  refused: { member: string; message: string; isDead: boolean }[]
  /** Whether the document is of a kind of its own that this version does not have: what it lacks as this kind is no news. */
  isStranger: boolean
}

/** Takes out of a document what its form has nothing to say about. */
export function sortOut<K extends Kind>(kind: K, document: Document): Sorted<K> {
  const { schema, unsupported, formOf } = REGISTRY[kind]
  const form = formOf?.(document)
  // Spreading keeps a member named `__proto__` a member, which an assignment would not.
  const sorted: Sorted<K> = { schema: form?.schema ?? schema, document: { ...document }, refused: [], isStranger: false }
  for (const member of Object.keys(document)) {
    const foreign = form?.foreignMember(member)
    const isAbsent = !isGiven(document, member)
    if (foreign === undefined && !unsupported.includes(member) && !(isAbsent && form?.absentMembers?.includes(member))) continue
    delete sorted.document[member]
    if (isAbsent) continue
    if (foreign === undefined) {
      sorted.refused.push({ member, message: unsupportedMember(kind, member), isDead: true })
      if (isVirtualModel(kind, member)) sorted.isStranger = true
    } else {
      sorted.refused.push({ member, message: foreign, isDead: form?.deadMembers.includes(member) === true })
    }
  }
  return sorted
}

/** Parses what was sorted out. */
export function parseSorted<K extends Kind>({
  schema,
  document,
  isStranger,
}: Sorted<K>): { value: Resource[K] } | { problems: Problem[] } {
  const result = schema.safeParse(document, { error: wording })
  if (result.success) return { value: result.data }
  const problems = withoutRepetition(result.error.issues.flatMap(unfold))
  return { problems: isStranger ? problems.filter(({ message }) => message !== MISSING) : problems }
}

/**
 * Parses what an operator wrote, and where members are unknown parses again without them: zod skips the rules over several
 * members as long as one is unknown, and an operator should hear of everything at once.
 */
export function parseWritten<K extends Kind>(sorted: Sorted<K>): ReturnType<typeof parseSorted<K>> {
  const result = parseSorted(sorted)
  const unknown = 'problems' in result ? result.problems.filter(({ code }) => code === 'unrecognized_keys') : []
  if (unknown.length === 0) return result
  const document = structuredClone(sorted.document)
  removeUnknown(document, unknown)
  const again = parseSorted({ ...sorted, document })
  return { problems: 'problems' in again ? [...unknown, ...again.problems] : unknown }
}

/**
 * What is wrong by the one form of a union that was likely meant, in place of the word that no form fits: the one with the
 * fewest unknown members, the first of these by declaration.
 */
function unfold(problem: Problem): Problem[] {
  if (problem.code !== 'invalid_union' || problem.errors.length === 0) return [problem]
  const forms = problem.errors.map(issues => issues.flatMap(unfold))
  const ofRightType = forms.filter(form => !form.some(each => each.code === 'invalid_type' && each.path.length === 0))
  const [first, ...others] = ofRightType
  if (!first) {
    const wrong = forms.flatMap(form => form.filter(each => each.code === 'invalid_type'))
    const isAbsent = wrong.every(({ message }) => message === MISSING)
    const message = isAbsent ? MISSING : expectedTypes(wrong.map(({ expected }) => expected))
    return [{ code: 'custom', path: problem.path, message }]
  }
  const likely = others.reduce((best, each) => (unknownCount(each) < unknownCount(best) ? each : best), first)
  return likely.map(each => ({ ...each, path: [...problem.path, ...each.path] }))
}

/**
 * zod judges a whole number twice, as one that is exact and by its own bounds: where both say that it is too large or too
 * small, only the bound of the rule is told, which may be the same sentence.
 */
function withoutRepetition(problems: readonly Problem[]): Problem[] {
  const place = ({ path, code }: Problem) => `${code} ${JSON.stringify(path)}`
  const bounded = new Set(problems.filter(each => isBound(each) && each.origin !== 'int').map(place))
  return problems.filter(each => !(isBound(each) && each.origin === 'int' && bounded.has(place(each))))
}

function isBound(problem: Problem): problem is Extract<Problem, { code: 'too_big' | 'too_small' }> {
  return problem.code === 'too_big' || problem.code === 'too_small'
}

function unknownCount(form: readonly Problem[]): number {
  return form.reduce(
    (sum, each) => (each.code === 'unrecognized_keys' && each.path.length === 0 ? sum + each.keys.length : sum),
    0,
  )
}

/** Takes the members that were found unknown out of the document, in place. out: their paths */
export function removeUnknown(document: object, problems: readonly Problem[]): PropertyKey[][] {
  const removed: PropertyKey[][] = []
  for (const problem of problems) {
    if (problem.code !== 'unrecognized_keys') continue
    const holder = problem.path.reduce<unknown>(memberOf, document)
    if (holder === null || typeof holder !== 'object') continue
    for (const key of problem.keys) {
      if (Object.hasOwn(holder, key) && Reflect.deleteProperty(holder, key)) removed.push([...problem.path, key])
    }
  }
  return removed
}

export function memberOf(holder: unknown, key: PropertyKey): unknown {
  return holder !== null && typeof holder === 'object' ? Reflect.get(holder, key) : undefined
}
