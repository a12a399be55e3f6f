/** Resources → a resources file that gives the same ones back. Source: control-resources-file §8. */
import { printable } from '../lib/log.ts'
import { eachCredential } from '../resources/credentials.ts'
import type { Kind, Resource } from '../resources/index.ts'
import { memberOf } from '../resources/judgement.ts'
import { checkResources } from './check.ts'
import { COLLECTIONS, FORMAT_VERSION, identityMember } from './names.ts'
import { renderScope } from './problem.ts'
import { SUGAR } from './sugar.ts'
import { readYaml } from './yaml.ts'

/** A stored resource, whatever its kind. */
export type StoredEntry = { kind: Kind; id: string; value: Resource[Kind] }

/** A credential that was left out, and the variable that stands in its place. */
export type Placeholder = { variable: string; collection: Kind; identity: string; field: string }

export type Exported = {
  text: string
  count: number
  placeholders: Placeholder[]
  /** Why the file does not give back what was exported. */
  problems: string[]
}

/**
 * The file, and whether it gives the same resources back, which is found out by reading it.
 * in: entries in the order of their creation; `revealSecrets` writes credentials in clear text
 */
export function exportResources(entries: readonly StoredEntry[], { revealSecrets }: { revealSecrets: boolean }): Exported {
  const names = identities(entries)
  const secrets = new Secrets(revealSecrets)
  const root: Record<string, unknown> = { _format_version: FORMAT_VERSION }
  for (const collection of COLLECTIONS) {
    const list = entries.filter(({ kind }) => kind === collection).map(entry => written(entry, names, secrets))
    if (list.length > 0) root[collection] = list
  }
  const text = render(root)
  return {
    text,
    count: entries.length,
    placeholders: secrets.placeholders,
    problems: problemsOf(text, entries, names, secrets.values),
  }
}

type Names = ReadonlyMap<string, string>
const key = (kind: Kind, id: string) => `${kind}/${id}`

/** What each entry is called in the file. A key without a label of its own is called by its hash. */
function identities(entries: readonly StoredEntry[]): Names {
  const labels = new Map<string, number>()
  for (const { kind, value } of entries) {
    const label = labelOf(kind, value)
    if (label !== undefined) labels.set(key(kind, label), (labels.get(key(kind, label)) ?? 0) + 1)
  }
  return new Map(
    entries.map(({ kind, id, value }) => {
      const label = labelOf(kind, value)
      const isOwn = label !== undefined && (kind !== 'api_keys' || labels.get(key(kind, label)) === 1)
      return [key(kind, id), isOwn ? label : `apikey-${String(memberOf(value, 'key_hash')).slice(0, 16)}`]
    }),
  )
}

function labelOf(kind: Kind, value: unknown): string | undefined {
  const label = memberOf(value, identityMember(kind))
  return typeof label === 'string' && label !== '' ? label : undefined
}

/** An entry as the file has it: names for ids, variables for credentials, the name first. */
function written({ kind, id, value }: StoredEntry, names: Names, secrets: Secrets): Record<string, unknown> {
  const identity = names.get(key(kind, id)) ?? ''
  const document: Record<string, unknown> = structuredClone(value)
  for (const { holder, named, id: member, of } of SUGAR[kind](document)) {
    const given = memberOf(holder, member)
    const nameOf = (each: unknown) => (typeof each === 'string' ? names.get(key(of, each)) : undefined)
    const found = Array.isArray(given) ? given.map(each => nameOf(each) ?? each) : nameOf(given)
    if (found === undefined) continue
    if (named !== member) Reflect.deleteProperty(holder, member)
    Reflect.set(holder, named, found)
  }
  // Where a file and the store spell credentials differently, the file has the canonical word. source: control.md §4 row 1
  const isProviderKey = kind === 'provider_keys'
  const secretPlaces = new Map<object, Set<string>>()
  const note = (holder: object, member: string) => secretPlaces.set(holder, (secretPlaces.get(holder) ?? new Set()).add(member))
  eachCredential(kind, document, (_path, holder, member) => note(holder, member))
  if (isProviderKey) for (const holder of bodyFields(document)) for (const member of Object.keys(holder)) note(holder, member)

  const fill = (holder: object, path: readonly string[]): unknown => {
    const copy: [string, unknown][] = Object.entries(holder).flatMap(([member, each]: [string, unknown]) => {
      if (each === undefined) return []
      const name = isProviderKey && path.length === 0 && member === 'secret' ? 'api_key' : member
      const place = [...path, name]
      if (typeof each === 'string') {
        const isSecret = each !== '' && secretPlaces.get(holder)?.has(member) === true
        return [[name, isSecret ? secrets.take(kind, identity, place, each) : each.replaceAll('$', '$$$$')]]
      }
      return [[name, typeof each === 'object' && each !== null ? fill(each, place) : each]]
    })
    return Array.isArray(holder) ? copy.map(([, each]) => each) : Object.fromEntries(copy)
  }
  const member = identityMember(kind)
  document[member] = identity
  const filled = fill(document, [])
  const { [member]: name, ...rest } = Object.fromEntries(Object.entries(Object(filled)))
  return { [member]: name, ...rest }
}

/** Members of a provider key that are added to requests, and whatever is in them: their texts may be credentials. */
function bodyFields(document: Record<string, unknown>): object[] {
  const found: object[] = []
  const collect = (value: unknown) => {
    if (typeof value !== 'object' || value === null) return
    found.push(value)
    for (const each of Object.values(value)) collect(each)
  }
  collect(memberOf(document.request, 'default_body_fields'))
  return found
}

/** Credentials on their way out of the store. */
class Secrets {
  readonly placeholders: Placeholder[] = []
  /** Values by variable, for the proof that the file gives the same back. */
  readonly values: Record<string, string> = {}

  constructor(private readonly isRevealed: boolean) {}

  take(kind: Kind, identity: string, path: readonly string[], value: string): string {
    if (this.isRevealed) return value.replaceAll('$', '$$$$')
    const words = [kind.replace(/s$/, ''), identity, fieldName(path)]
    const wanted = `AISIXSECRET_${words
      .join('_')
      .replace(/[^A-Za-z0-9]/g, '_')
      .toUpperCase()}`
    let variable = wanted
    // Two names may differ in nothing but what cannot stand in that of a variable.
    for (let number = 2; Object.hasOwn(this.values, variable); number++) variable = `${wanted}_${number}`
    this.values[variable] = value
    this.placeholders.push({ variable, collection: kind, identity, field: path.join('.') })
    return `\${${variable}}`
  }
}

/** What a variable is called after its entry. source: control-resources-file §8, row "Secrets" */
function fieldName(path: readonly string[]): string {
  const last = path.at(-1) ?? ''
  const holder = path.at(-2)
  return holder === 'default_headers' || holder === 'headers'
    ? `HEADER_${last}`
    : path.slice(path[0] === 'request' ? 2 : 0).join('_')
}

/** A mapping as block YAML, texts in double quotes: the plainest kind, which is read fast and shows well in a comparison. */
function render(root: Record<string, unknown>): string {
  return Object.entries(root)
    .map(([name, value]) => `${keyText(name)}:${block(value, '  ')}\n`)
    .join('')
}

/** A value behind its key: on the same line, or on lines of its own. */
function block(value: unknown, indent: string): string {
  if (typeof value !== 'object' || value === null || Object.keys(value).length === 0) return ` ${scalarText(value)}`
  if (Array.isArray(value)) return value.map(each => `\n${indent}-${item(each, `${indent}  `)}`).join('')
  return Object.entries(value)
    .map(([name, each]) => `\n${indent}${keyText(name)}:${block(each, `${indent}  `)}`)
    .join('')
}

/** An item behind its dash: the first member of a mapping stands beside it. */
function item(value: unknown, indent: string): string {
  const text = block(value, indent)
  return text.startsWith('\n') ? ` ${text.slice(1 + indent.length)}` : text
}

const keyText = (name: string) =>
  /^(?!(?:null|true|false|y|n|yes|no|on|off)$)[A-Za-z_][\w.-]*$/i.test(name) ? name : scalarText(name)

/** JSON is YAML, but for characters that YAML does not take as they are. */
function scalarText(value: unknown): string {
  return JSON.stringify(value).replace(
    /[\u007f-\u00a0\u2028\u2029\ufeff\ufffe\uffff]/g,
    character => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** Reads the file as a gateway would that has all its variables, and compares. */
function problemsOf(text: string, entries: readonly StoredEntry[], names: Names, env: Record<string, string>): string[] {
  const read = readYaml(new TextEncoder().encode(text))
  if ('problems' in read) return read.problems.map(({ message }) => message)
  const { problems, entries: loaded } = checkResources(read.value, env)
  if (problems.length > 0) return problems.map(({ scope, message }) => `${renderScope(scope)}: ${message}`)
  const known = new Map(loaded.map(({ kind, value }) => [key(kind, labelOf(kind, value) ?? ''), value]))
  const sameIds = new Map(loaded.map(({ kind, id, value }) => [key(kind, id), labelOf(kind, value)]))
  return entries.flatMap(({ kind, id, value }) => {
    const identity = names.get(key(kind, id)) ?? ''
    const before = comparable(kind, value, of => each => names.get(key(of, each)) ?? each)
    const after = comparable(kind, known.get(key(kind, identity)) ?? {}, of => each => sameIds.get(key(of, each)) ?? each)
    const member = identityMember(kind)
    if (Bun.deepEquals({ ...before, [member]: identity }, after)) return []
    return [`${kind} "${printable(identity)}": does not read back as it is stored`]
  })
}

/** A document with names in place of ids, so that it can be compared with its like from elsewhere. */
function comparable(kind: Kind, value: unknown, nameOf: (of: Kind) => (id: string) => string): Record<string, unknown> {
  const document: Record<string, unknown> = JSON.parse(JSON.stringify(value))
  for (const { holder, id, of } of SUGAR[kind](document)) {
    const given = memberOf(holder, id)
    if (typeof given === 'string') Reflect.set(holder, id, nameOf(of)(given))
    else if (Array.isArray(given))
      Reflect.set(
        holder,
        id,
        given.map(each => nameOf(of)(String(each))),
      )
  }
  return document
}
