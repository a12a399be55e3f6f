/** The values of a resources file → its resources, or all that is wrong with them. Source: control-resources-file §1-§5. */
import { interpolate } from '../lib/interpolate.ts'
import { printable } from '../lib/log.ts'
import { nearest } from '../lib/nearest.ts'
import { eachCredential } from '../resources/credentials.ts'
import { type Kind, REGISTRY, type Resource } from '../resources/index.ts'
import { documentSchema } from '../resources/json-schema.ts'
import { memberOf, parseWritten, sortOut } from '../resources/judgement.ts'
import { MASK } from '../resources/provider-key.ts'
import { MISSING, nameOfType } from '../resources/wording.ts'
import { COLLECTIONS, FORMAT_VERSION, identityMember, idOf, LATER_COLLECTIONS } from './names.ts'
import { type Problem, renderScope } from './problem.ts'
import { type Place, SUGAR, sugarOf } from './sugar.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/** A resource of the file: its normalised document under the id that follows from its name. */
export type FileEntry<K extends Kind = Kind> = { kind: K; id: string; value: Resource[K] }

/**
 * `entries` are all there are only where there are no problems. Warnings begin with the entry that is meant. `sources`: texts that
 * hold the value of a variable, as they stand in the file; what shows values of entries must not show these.
 */
export type Checked = { entries: FileEntry[]; problems: Problem[]; warnings: string[]; sources: ReadonlyMap<string, string> }

type Fields = Record<string, unknown>

/** Stand for what is missing, so that the rest of a document can be judged. */
const NO_HASH = '0'.repeat(64)
const NO_ID = 'none'

/** Names that are listed where one was not found. */
const NAMES_SHOWN = 20

/** in: what YAML says, which is changed in place, and the environment that `${NAME}` and `key_env` are taken from */
export function checkResources(root: unknown, env: Environment): Checked {
  return new Check(env).run(root)
}

/** One entry on its way through the stages. */
type Item = {
  kind: Kind
  index: number
  fields: Fields
  name: string | undefined
  /** Set where variables or the name are missing: whatever else is told of it would follow from that. */
  isUnreadable: boolean
  /** Set once anything is wrong with it. */
  isBroken: boolean
}

class Check {
  private readonly problems: Problem[] = []
  private readonly warnings: string[] = []
  /** Where each name was first given, by kind, and the ids that follow. */
  private readonly names = new Map<Kind, Map<string, { index: number; id: string }>>()
  private readonly ids = new Map<Kind, Set<string>>()
  /** Texts that hold the value of a variable, as they stand in the file: values are never told. */
  private readonly sources = new Map<string, string>()

  constructor(private readonly env: Environment) {
    for (const kind of COLLECTIONS) {
      this.names.set(kind, new Map())
      this.ids.set(kind, new Set())
    }
  }

  run(root: unknown): Checked {
    const items = this.collections(root).flatMap(({ kind, list }) =>
      list.map((entry, index) => this.identify(kind, index, entry)).filter(item => item !== undefined),
    )
    for (const item of items) this.resolveNames(item)
    const owners = new Map<Kind, Map<string, Item>>()
    const judged = items.flatMap(item => {
      const entry = this.judge(item.kind, item, owners)
      return entry ? [{ item, entry }] : []
    })
    const hasModel = this.modelNames()
    for (const { item, entry } of judged) this.crossCheck(item, entry, hasModel)
    return {
      entries: judged.map(({ entry }) => entry),
      problems: this.problems.sort(byPlace),
      warnings: this.warnings,
      sources: this.sources,
    }
  }

  private report(
    item: Pick<Item, 'kind' | 'index' | 'name'> | undefined,
    message: string,
    reason: Problem['reason'] = 'validate',
  ) {
    const scope = item && { collection: item.kind, index: item.index, identity: this.shown(item.name) }
    this.problems.push({ scope, message, reason })
  }

  /** A text as messages may have it. */
  private shown(text: string): string
  private shown(text: string | undefined): string | undefined
  private shown(text: string | undefined): string | undefined {
    return text === undefined ? undefined : printable(this.sources.get(text) ?? text)
  }

  /** The top of the file: its version, and the lists that it has. */
  private collections(root: unknown): { kind: Kind; list: unknown[] }[] {
    if (root === null || root === undefined) {
      this.report(undefined, 'the file is empty: it needs at least `_format_version: "1"`', 'decode')
      return []
    }
    if (!isFields(root)) {
      this.report(undefined, `expected a mapping of collections at the top, not ${nameOfType(root)}`, 'decode')
      return []
    }
    const version = root._format_version
    if (version === undefined || version === null) {
      this.report(undefined, '`_format_version` is required: write `_format_version: "1"`', 'decode')
    } else if (typeof version === 'number') {
      this.report(undefined, '`_format_version` must be a string: put it in quotes, `_format_version: "1"`', 'decode')
    } else if (version !== FORMAT_VERSION) {
      this.report(undefined, '`_format_version` is not one that this version knows: write `_format_version: "1"`', 'decode')
    }
    for (const name of Object.keys(root)) {
      if (name === '_format_version' || COLLECTION_NAMES.includes(name)) continue
      const meant = nearest(name, COLLECTIONS)
      const hint = LATER_COLLECTIONS.includes(name)
        ? ', which this version does not support'
        : meant === undefined
          ? ''
          : ` (did you mean \`${meant}\`?)`
      const known = COLLECTIONS.map(kind => `\`${kind}\``).join(', ')
      this.report(undefined, `unknown collection \`${printable(name)}\`${hint}, expected one of ${known}`, 'decode')
    }
    return COLLECTIONS.flatMap(kind => {
      const list = Object.hasOwn(root, kind) ? root[kind] : undefined
      if (list === undefined || list === null) return []
      if (Array.isArray(list)) return [{ kind, list }]
      this.report(undefined, `\`${kind}\` must be a list of entries, not ${nameOfType(list)}`, 'decode')
      return []
    })
  }

  /** Fills variables in, and finds out what the entry is called. */
  private identify(kind: Kind, index: number, entry: unknown): Item | undefined {
    const item: Item = {
      kind,
      index,
      fields: isFields(entry) ? entry : {},
      name: undefined,
      isUnreadable: false,
      isBroken: false,
    }
    if (!isFields(entry)) {
      this.report(item, `expected a mapping, not ${nameOfType(entry)}`, 'decode')
      return undefined
    }
    const fault: { problem: string | undefined } = { problem: undefined }
    this.fill(entry, [], fault)
    const { fields } = item
    const member = identityMember(kind)
    // The admin API takes both spellings where a kind's own is `name`, too.
    const given = fields[member] ?? fields.display_name
    const isNamed = typeof given === 'string' && given !== ''
    if (isNamed) item.name = given
    item.isUnreadable = fault.problem !== undefined || !isNamed
    if (fault.problem !== undefined) {
      this.fail(item, fault.problem)
    } else if (!isNamed) {
      const problem = given === undefined || given === null ? 'is required' : 'must be a string that is not empty'
      this.fail(item, `${field(member)}: ${problem}: it is what the entry is told apart by`, 'decode')
    }
    if (item.name === undefined) return item
    const names = this.names.get(kind)
    const first = names?.get(item.name)
    if (first) {
      const scope = { collection: kind, index: first.index, identity: undefined }
      this.fail(item, `duplicate \`${member}\`: the name is first used by ${renderScope(scope)}`)
      return item
    }
    const id = idOf(kind, item.name)
    names?.set(item.name, { index, id })
    this.ids.get(kind)?.add(id)
    return item
  }

  private fail(item: Item, message: string, reason?: Problem['reason']) {
    this.report(item, message, reason)
    item.isBroken = true
  }

  /** Fills every `${NAME}` in, in place. The first problem is kept. */
  private fill(holder: object, path: (string | number)[], fault: { problem: string | undefined }): void {
    const isList = Array.isArray(holder)
    for (const name of Object.keys(holder)) {
      const value = memberOf(holder, name)
      if (typeof value === 'object' && value !== null) {
        path.push(isList ? Number(name) : name)
        this.fill(value, path, fault)
        path.pop()
      } else if (typeof value === 'string' && value.includes('$')) {
        try {
          const filled = interpolate(value, this.env)
          if (value.includes('${')) this.sources.set(filled, value)
          Reflect.set(holder, name, filled)
        } catch (error) {
          fault.problem ??= at([...path, isList ? Number(name) : name], error instanceof Error ? error.message : String(error))
        }
      }
    }
  }

  /** Sugar: names become ids, the variable of a key its hash. One problem is told; what it leaves can be judged all the same. */
  private resolveNames(item: Item): void {
    if (item.isUnreadable) return
    const { kind, fields } = item
    const problems: string[] = []
    if (Object.hasOwn(fields, 'id')) {
      problems.push(`an entry of ${kind} does not accept \`id\`: it follows from the name`)
      delete fields.id
    }
    const problem = kind === 'api_keys' ? this.hashVariable(item) : undefined
    if (problem !== undefined) {
      problems.push(problem)
      fields.key_hash = NO_HASH
    }
    for (const place of SUGAR[kind](fields)) {
      const problem = this.resolvePlace(place)
      if (problem !== undefined) problems.push(`${field(`${place.prefix}${place.named}`)}: ${problem}`)
    }
    if (problems.length > 0) this.fail(item, problems.join('; '))
  }

  /** Puts ids where names stand. Of a name that is unknown, the id that it would have. out: what is wrong */
  private resolvePlace({ holder, named, id, of }: Place): string | undefined {
    const given = memberOf(holder, named)
    const hasOwnMember = named !== id
    if (hasOwnMember) Reflect.deleteProperty(holder, named)
    if (given === undefined || given === null) return undefined
    if (hasOwnMember && (memberOf(holder, id) ?? null) !== null) return `not together with \`${id}\`: keep one of the two`
    const names: unknown[] = Array.isArray(given) ? given : [given]
    const texts = names.filter(name => typeof name === 'string')
    if (texts.length < names.length || (hasOwnMember && Array.isArray(given))) {
      if (!hasOwnMember) return undefined // The schema tells of it.
      Reflect.set(holder, id, NO_ID)
      return `must be the name of an entry of ${of}, not ${nameOfType(given)}`
    }
    const ids = texts.map(name => this.find(of, name) ?? idOf(of, name))
    Reflect.set(holder, id, Array.isArray(given) ? ids : ids[0])
    const missing = texts.find(name => this.find(of, name) === undefined)
    return missing === undefined ? undefined : this.unknownName(of, missing)
  }

  /** The id that a name stands for; an id that is there stands for itself. */
  private find(kind: Kind, name: unknown): string | undefined {
    if (typeof name !== 'string') return undefined
    return this.names.get(kind)?.get(name)?.id ?? (this.ids.get(kind)?.has(name) ? name : undefined)
  }

  private unknownName(kind: Kind, name: string): string {
    const all = [...(this.names.get(kind)?.keys() ?? [])]
    const names = all.slice(0, NAMES_SHOWN).map(each => `"${this.shown(each)}"`)
    if (all.length > names.length) names.push(`and ${all.length - names.length} more`)
    const defined = names.length === 0 ? `the file has no ${kind}` : `defined are ${names.join(', ')}`
    return `"${this.shown(name)}" names no entry of ${kind}: ${defined}`
  }

  /** Gives a key the hash of the variable that it names. out: what is wrong */
  private hashVariable(item: Item): string | undefined {
    const { fields } = item
    const { key_env: given, key_hash: hash } = fields
    const hasHash = hash !== undefined && hash !== null
    delete fields.key_env
    if (given === undefined || given === null) return hasHash ? undefined : 'exactly one of `key_env` and `key_hash` is required'
    const place = field('key_env')
    if (hasHash) return `${place}: not together with \`key_hash\`: keep one of the two`
    if (typeof given !== 'string' || this.sources.has(given) || !/^[A-Za-z_][A-Za-z0-9_]*$/.test(given)) {
      return `${place}: takes the name of a variable, without \`$\` and braces; never the key itself`
    }
    const variable = `environment variable \`${printable(given)}\``
    const key = this.env[given]
    if (key === undefined || key === '') return `${place}: ${variable} is unset or empty`
    if (key.includes('${')) return `${place}: ${variable} holds \`\${\`: it must hold the key itself, nothing in it is filled in`
    if (!/^[!-~](?:[ -~]*[!-~])?$/.test(key)) {
      this.warn(item, `${variable} begins or ends with white space, or holds what no request could present`)
    }
    fields.key_hash = new Bun.CryptoHasher('sha256').update(key).digest('hex')
    return undefined
  }

  private warn({ kind, index, name }: Item, message: string) {
    this.warnings.push(`${renderScope({ collection: kind, index, identity: this.shown(name) })}: ${message}`)
  }

  /** The schema, and what is refused of writes. */
  private judge<K extends Kind>(kind: K, item: Item, owners: Map<Kind, Map<string, Item>>): FileEntry<K> | undefined {
    const { fields, name } = item
    if (name === undefined || item.isUnreadable) return undefined
    const oddHash = kind === 'api_keys' ? takeOddHash(fields) : undefined
    const sorted = sortOut(kind, fields)
    const result = parseWritten(sorted)
    const problems = sorted.refused.map(({ message }) => message)
    if ('problems' in result) {
      problems.push(
        ...result.problems.map(({ path, message }) => at(message === MISSING ? namedPath(kind, path) : path, message)),
      )
    }
    problems.push(...(REGISTRY[kind].refusals?.(sorted.document) ?? []).map(({ path, message }) => at(path, message)))
    if (!('value' in result) || problems.length > 0) {
      this.fail(item, problems.join('; '))
      return undefined
    }
    const { value } = result
    if (this.isMasked(kind, value, item)) return undefined
    if (oddHash !== undefined) {
      Reflect.set(value, 'key_hash', oddHash)
      this.warn(item, '`key_hash` is not 64 hexadecimal digits, so no key that a caller presents can match it')
    }
    // A hash that could not be made says nothing.
    if (!item.isBroken && !this.isAlone(kind, value, item, owners)) return undefined
    return { kind, id: this.names.get(kind)?.get(name)?.id ?? idOf(kind, name), value }
  }

  /** A credential that was copied from a read, where it is masked. */
  private isMasked(kind: Kind, value: unknown, item: Item): boolean {
    if (!mayHoldCredentials(kind)) return false
    const places: string[] = []
    eachCredential(kind, value, (path, holder, member) => {
      if (holder[member] === MASK)
        places.push(at(path, `${MASK} is what reads show in place of a credential: write the value itself`))
    })
    if (places.length > 0) this.fail(item, places.join('; '))
    return places.length > 0
  }

  /** Whether no entry before has the same value where it must differ and is not the name. */
  private isAlone(kind: Kind, value: unknown, item: Item, owners: Map<Kind, Map<string, Item>>): boolean {
    const { unique } = REGISTRY[kind]
    if (unique === identityMember(kind)) return true
    const taken = owners.get(kind) ?? new Map<string, Item>()
    owners.set(kind, taken)
    const own = String(memberOf(value, unique))
    const first = taken.get(own)
    if (!first) {
      taken.set(own, item)
      return true
    }
    const scope = { collection: kind, index: first.index, identity: this.shown(first.name) }
    this.fail(item, `the same \`${unique}\` as ${renderScope(scope)}: each key needs one of its own`)
    return false
  }

  /** Whether an alias is there, as itself or by the pattern of a model. */
  private modelNames(): (alias: string) => boolean {
    const names = this.names.get('models') ?? new Map<string, unknown>()
    const patterns = [...names.keys()].map(name => name.split('*')).filter(parts => parts.length === 2)
    return alias =>
      names.has(alias) ||
      patterns.some(
        ([before = '', after = '']) =>
          alias.length >= before.length + after.length && alias.startsWith(before) && alias.endsWith(after),
      )
  }

  /** What an entry names that the file does not have. */
  private crossCheck(item: Item, { kind, value }: FileEntry, hasModel: (alias: string) => boolean): void {
    // Names that are unknown are told already.
    for (const { holder, prefix, id, of } of item.isBroken ? [] : SUGAR[kind](value)) {
      const given: unknown = memberOf(holder, id)
      const missing = (Array.isArray(given) ? given : [given]).some(
        each => typeof each === 'string' && !this.ids.get(of)?.has(each),
      )
      if (missing)
        this.fail(item, `${field(`${prefix}${id}`)}: is the id of no entry of ${of} in this file: name the entry instead`)
    }
    for (const { path, alias, isExact } of modelsNamed(value)) {
      const isThere = isExact ? this.names.get('models')?.has(alias) : hasModel(alias)
      if (!isThere) this.fail(item, `${field(path)}: "${this.shown(alias)}" names no model of this file`)
    }
    for (const [i, name] of ('allowed_routes' in value ? (value.allowed_routes ?? []) : []).entries()) {
      if (name.includes('*') || this.names.get('passthrough_routes')?.has(name)) continue
      this.fail(item, `${field(`allowed_routes[${i}]`)}: "${this.shown(name)}" names no passthrough route of this file`)
    }
  }
}

/** Who leaves the name of another entry out is told of the name, not of the id that would follow from it. */
function namedPath(kind: Kind, path: readonly PropertyKey[]): readonly PropertyKey[] {
  const sugar = path.length === 1 ? sugarOf(kind).find(({ id }) => id === path[0]) : undefined
  return sugar ? [sugar.named] : path
}

/** Where a document names models by their alias. `isExact`: patterns do not count. */
function modelsNamed(value: FileEntry['value']): { path: string; alias: string; isExact: boolean }[] {
  if ('allowed_models' in value) {
    return value.allowed_models.flatMap((alias, i) =>
      alias.includes('*') ? [] : [{ path: `allowed_models[${i}]`, alias, isExact: false }],
    )
  }
  if ('routing' in value) {
    return value.routing.targets.map(({ model }, i) => ({ path: `routing.targets[${i}].model`, alias: model, isExact: true }))
  }
  return []
}

/** Kinds that have credentials at all: most entries of a large file are of one that has none. */
const hasCredentials = new Map<Kind, boolean>()
function mayHoldCredentials(kind: Kind): boolean {
  let may = hasCredentials.get(kind)
  if (may === undefined) {
    may = JSON.stringify(documentSchema(kind)).includes('"writeOnly":true')
    hasCredentials.set(kind, may)
  }
  return may
}

/**
 * Takes a hash out that is none, and puts one in its place that the schema takes: in a file any text is accepted.
 * source: README of the contract, row 28
 */
function takeOddHash(fields: Fields): string | undefined {
  const { key_hash: hash } = fields
  if (typeof hash !== 'string' || hash.trim() === '' || /^[0-9a-fA-F]{64}$/.test(hash)) return undefined
  fields.key_hash = NO_HASH
  return hash
}

const field = (path: string) => `field \`${path}\``

function at(path: readonly PropertyKey[], message: string): string {
  let place = ''
  for (const step of path) {
    place += typeof step === 'number' ? `[${step}]` : `${place === '' ? '' : '.'}${printable(String(step))}`
  }
  return place === '' ? message : `${field(place)}: ${message}`
}

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

const COLLECTION_NAMES: readonly string[] = COLLECTIONS

/** What the file as a whole lacks comes first, then entries as they stand in it, collection by collection. */
function byPlace({ scope: a }: Problem, { scope: b }: Problem): number {
  if (!a || !b) return Number(a !== undefined) - Number(b !== undefined)
  const rank = ({ collection }: typeof a) => COLLECTION_NAMES.indexOf(collection)
  return rank(a) - rank(b) || a.index - b.index
}
