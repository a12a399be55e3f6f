/**
 * A resources file and what a gateway has: what differs, and the writes that make it the same. Pure: who reads and writes is
 * elsewhere. Credentials are masked where they are read, so of these only whether they are there is compared.
 */
import { eachCredential } from '../resources/credentials.ts'
import { type Kind, REGISTRY } from '../resources/index.ts'
import { memberOf, parseWritten, sortOut } from '../resources/judgement.ts'
import { MASK } from '../resources/provider-key.ts'
import type { FileEntry } from './check.ts'
import { identityMember } from './names.ts'
import { SUGAR } from './sugar.ts'

type Document = Record<string, unknown>

/** A resource as the admin API gives it. */
export type StoredResource = { kind: Kind; id: string; value: Readonly<Document>; revision: number }

/** A member that differs, with its values as they may be shown; undefined: it is absent. */
export type Difference = { path: string; before: unknown; after: unknown }

export type Change =
  | { action: 'create'; kind: Kind; name: string; entry: FileEntry }
  | { action: 'update'; kind: Kind; name: string; entry: FileEntry; stored: StoredResource; differences: Difference[] }
  | { action: 'delete'; kind: Kind; name: string; stored: StoredResource }

export type Comparison = {
  /** In the order in which they can be made: what others name comes first, and is deleted last; deletions come behind all else. */
  changes: Change[]
  /** How many resources are the same on both sides. */
  sameCount: number
  /** How many resources have credentials on both sides, whose values nobody can compare. */
  uncomparedCount: number
  /** Real ids of what the file names: by kind and the id that follows from a name. What is created is added to it. */
  ids: RealIds
  /** Why no comparison can be made; the rest means nothing then. */
  problems: string[]
}

export type ComparisonOptions = {
  /** Whether every resource with credentials counts as different, because they are to be written whatever they are. */
  writesSecrets: boolean
  /** Whether a text of the file holds what came from a variable, and must not be shown. */
  isHidden: (text: string) => boolean
  /** The name of an entry as it may be shown. */
  shownName: (name: string) => string
}

export function compare(
  entries: readonly FileEntry[],
  stored: readonly StoredResource[],
  { writesSecrets, isHidden, shownName }: ComparisonOptions,
): Comparison {
  const { counterparts, problems } = match(entries, stored)
  const ids = new RealIds()
  for (const [{ kind, id }, counterpart] of counterparts) ids.set(kind, id, counterpart.id)
  const labels = labelsOf(entries, stored, counterparts)
  const changes: Change[] = []
  let sameCount = 0
  let uncomparedCount = 0
  for (const entry of entries) {
    const { kind } = entry
    const name = shownName(nameOf(kind, entry.value) ?? '')
    const counterpart = counterparts.get(entry)
    if (!counterpart) {
      changes.push({ action: 'create', kind, name, entry })
      continue
    }
    const before = comparable(kind, normalised(counterpart), labels)
    const after = comparable(kind, ids.translated(entry), labels)
    const shown = differences(before, after).map(each => asShown(kind, each, isHidden))
    const common = commonCredentials(entry, counterpart)
    if (common.length > 0) uncomparedCount += 1
    if (writesSecrets) shown.push(...common.map(path => ({ path, before: MASK, after: MASK })))
    if (shown.length === 0) sameCount += 1
    else changes.push({ action: 'update', kind, name, entry, stored: counterpart, differences: shown })
  }
  const kept = new Set(counterparts.values())
  const deletions = stored
    .filter(each => !kept.has(each))
    .map((each): Change => ({ action: 'delete', kind: each.kind, name: nameOf(each.kind, each.value) ?? each.id, stored: each }))
  return {
    changes: [
      ...changes.toSorted((a, b) => stepOf(a) - stepOf(b)),
      ...deletions.toReversed().toSorted((a, b) => stepOf(b) - stepOf(a)),
    ],
    sameCount,
    uncomparedCount,
    ids,
    problems,
  }
}

/**
 * The document that makes a change, with real ids in it. A credential that the gateway has is left to it, as `***`, unless
 * `writesSecrets`.
 */
export function documentOf(
  change: Exclude<Change, { action: 'delete' }>,
  ids: RealIds,
  { writesSecrets }: Pick<ComparisonOptions, 'writesSecrets'>,
): Document {
  const { kind, entry } = change
  const document = ids.translated(entry)
  if (change.action === 'create' || writesSecrets) return document
  const there = new Set(credentialsOf(kind, change.stored.value))
  eachCredential(kind, document, (pointer, holder, member) => {
    if (there.has(pathOf(pointer))) holder[member] = MASK
  })
  return document
}

/** What the ids in the documents of a file are in the gateway, which gives out ids of its own. */
export class RealIds {
  private readonly known = new Map<string, string>()

  set(kind: Kind, derived: string, real: string): void {
    this.known.set(key(kind, derived), real)
  }

  /** The document of an entry, with the real ids of what it names as far as they are known. */
  translated({ kind, value }: FileEntry): Document {
    const document = plain(value)
    eachReference(kind, document, (of, id) => this.known.get(key(of, id)) ?? id)
    return document
  }
}

type Counterparts = ReadonlyMap<FileEntry, StoredResource>

/** Which stored resource is which entry: by what is unique in the kind, and caller keys by their name where the hash is another. */
function match(
  entries: readonly FileEntry[],
  stored: readonly StoredResource[],
): { counterparts: Counterparts; problems: string[] } {
  const counterparts = new Map<FileEntry, StoredResource>()
  const byUnique = new Map(stored.map(each => [key(each.kind, uniqueOf(each)), each]))
  for (const entry of entries) {
    const counterpart = byUnique.get(key(entry.kind, uniqueOf(entry)))
    if (counterpart) counterparts.set(entry, counterpart)
  }
  const taken = new Set(counterparts.values())
  const byName = Map.groupBy(
    stored.filter(each => !taken.has(each) && REGISTRY[each.kind].unique !== identityMember(each.kind)),
    ({ kind, value }) => key(kind, nameOf(kind, value) ?? ''),
  )
  const problems: string[] = []
  for (const entry of entries) {
    const { kind, value } = entry
    const name = nameOf(kind, value)
    const [first, second] = (name !== undefined && !counterparts.has(entry) && byName.get(key(kind, name))) || []
    if (first && second) {
      problems.push(
        `${kind} "${name}": several of the gateway are called so, and none has its \`${REGISTRY[kind].unique}\`: which one is meant cannot be told; rename or delete the others`,
      )
    } else if (first) counterparts.set(entry, first)
  }
  return { counterparts, problems }
}

function uniqueOf({ kind, value }: { kind: Kind; value: unknown }): string {
  return String(memberOf(value, REGISTRY[kind].unique))
}

function nameOf(kind: Kind, value: unknown): string | undefined {
  const name = memberOf(value, identityMember(kind))
  return typeof name === 'string' && name !== '' ? name : undefined
}

const key = (kind: Kind, text: string) => `${kind}/${text}`

/** What a resource is called where another names it. No two of a kind are called the same. */
type Labels = (kind: Kind, id: string) => string

function labelsOf(entries: readonly FileEntry[], stored: readonly StoredResource[], counterparts: Counterparts): Labels {
  const names = new Map<string, string>()
  for (const { kind, id, value } of stored) names.set(key(kind, id), nameOf(kind, value) ?? id)
  // A caller key is called as in the file from here on.
  for (const entry of entries) {
    const { kind, value } = entry
    names.set(key(kind, counterparts.get(entry)?.id ?? entry.id), nameOf(kind, value) ?? entry.id)
  }
  const uses = new Map<string, number>()
  const use = (kind: string, name: string) => `${kind}/${name}`
  const kindOf = (place: string) => place.slice(0, place.indexOf('/'))
  for (const [place, name] of names) uses.set(use(kindOf(place), name), (uses.get(use(kindOf(place), name)) ?? 0) + 1)
  return (kind, id) => {
    const name = names.get(key(kind, id))
    // A name that someone wrote where an id belongs must not pass for the resource of that name.
    if (name === undefined) return `${id} (an id of no ${kind})`
    return uses.get(use(kind, name)) === 1 ? name : `${name} (${id})`
  }
}

/** A stored document as this version would store it: one of another version may have fewer defaults filled in. */
function normalised({ kind, value }: StoredResource): unknown {
  const sorted = sortOut(kind, value)
  const result = parseWritten(sorted)
  return 'value' in result && sorted.refused.length === 0 ? result.value : value
}

/** A document as it is compared: credentials masked, names in place of ids. */
function comparable(kind: Kind, value: unknown, labels: Labels): Document {
  const document = plain(value)
  eachCredential(kind, document, (_pointer, holder, member) => {
    holder[member] = MASK
  })
  eachReference(kind, document, labels)
  for (const { holder, named, id } of SUGAR[kind](document)) {
    const label = memberOf(holder, id)
    if (named === id || label === undefined) continue
    Reflect.deleteProperty(holder, id)
    Reflect.set(holder, named, label)
  }
  return document
}

/** Puts something else in the place of each id by which a document names others. */
function eachReference(kind: Kind, document: Document, replace: (of: Kind, id: string) => string): void {
  for (const { holder, id, of } of SUGAR[kind](document)) {
    const given = memberOf(holder, id)
    if (typeof given === 'string') Reflect.set(holder, id, replace(of, given))
    if (Array.isArray(given)) {
      const all: unknown[] = given
      Reflect.set(
        holder,
        id,
        all.map(each => (typeof each === 'string' ? replace(of, each) : each)),
      )
    }
  }
}

/** A copy without what is undefined, as it goes over the wire. */
function plain(value: unknown): Document {
  return JSON.parse(JSON.stringify(value))
}

function credentialsOf(kind: Kind, value: unknown): string[] {
  // A credential that several forms of a document have is visited once for each.
  const paths = new Set<string>()
  eachCredential(kind, value, pointer => paths.add(pathOf(pointer)))
  return [...paths]
}

function commonCredentials({ kind, value }: FileEntry, stored: StoredResource): string[] {
  const there = new Set(credentialsOf(kind, stored.value))
  return credentialsOf(kind, value).filter(path => there.has(path))
}

const pathOf = (pointer: readonly string[]) => pointer.join('.')

function differences(before: unknown, after: unknown, path = ''): Difference[] {
  if (Bun.deepEquals(before, after)) return []
  if (isRecord(before) && isRecord(after)) {
    const members = new Set([...Object.keys(before), ...Object.keys(after)])
    return [...members].flatMap(member =>
      differences(memberOf(before, member), memberOf(after, member), path === '' ? member : `${path}.${member}`),
    )
  }
  const isComparedByItem =
    Array.isArray(before) && Array.isArray(after) && before.length === after.length && [...before, ...after].every(isRecord)
  if (isComparedByItem) return before.flatMap((each, i) => differences(each, after[i], `${path}[${i}]`))
  return [{ path, before, after }]
}

/**
 * Values as they may be shown: nothing that came from a variable, nor what the gateway has in its place, which may be its last
 * value; no hash of a key; and no text that is added to requests, where credentials of odd servers stand.
 */
function asShown(kind: Kind, { path, before, after }: Difference, isHidden: (text: string) => boolean): Difference {
  const isBodyField = kind === 'provider_keys' && /^request(?:$|\.default_body_fields)/.test(path)
  const isHash = kind === 'api_keys' && path === 'key_hash'
  if (!isBodyField && !isHash && !holdsText(after, isHidden)) return { path, before, after }
  return { path, before: masked(before), after: masked(after) }
}

function holdsText(value: unknown, is: (text: string) => boolean): boolean {
  if (typeof value === 'string') return is(value)
  return typeof value === 'object' && value !== null && Object.values(value).some(each => holdsText(each, is))
}

function masked(value: unknown): unknown {
  if (typeof value === 'string') return MASK
  if (Array.isArray(value)) return value.map(masked)
  if (!isRecord(value)) return value
  return Object.fromEntries(Object.entries(value).map(([member, each]) => [member, masked(each)]))
}

function isRecord(value: unknown): value is Document {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/**
 * When resources are made: behind everything that they name. Routes come before the keys that list them, unless they name a
 * key themselves.
 */
const STEPS: { readonly [K in Kind]: (document: unknown) => number } = {
  provider_keys: () => 0,
  models: document => (memberOf(document, 'routing') === undefined ? 1 : 2),
  passthrough_routes: document => (memberOf(document, 'anonymous_key_id') === undefined ? 3 : 5),
  api_keys: () => 4,
  rate_limit_policies: () => 6,
  budgets: () => 7,
  observability_exporters: () => 8,
}

function stepOf(change: Change): number {
  return STEPS[change.kind](change.action === 'delete' ? change.stored.value : change.entry.value)
}
