import type { ApiKey } from '../resources/api-key.ts'
import type { Kind } from '../resources/index.ts'
import { type DirectModel, isGroup, type Model, type ModelGroup } from '../resources/model.ts'
import type { ProviderKey } from '../resources/provider-key.ts'
import type { Entry } from './store.ts'

/**
 * One immutable view of the configuration, with the look-ups that a request needs already built: nothing on the request
 * path grows with the number of resources. A request works on the snapshot it started with.
 */
export type Snapshot = {
  revision: number
  providerKeys: ReadonlyMap<string, Entry<'provider_keys'>>
  /** Caller keys by `key_hash`. */
  apiKeys: ReadonlyMap<string, CallerKey>
  /** Models by alias, patterns excluded. */
  models: ReadonlyMap<string, Entry<'models'>>
  wildcards: Wildcards
  /** Rows of every kind by id, in the order of their creation. */
  entries: { readonly [K in Kind]: ReadonlyMap<string, Entry<K>> }
}

/** Rows of `models` by their kind. */
export type DirectEntry = { id: string; value: DirectModel; revision: number }
export type GroupEntry = { id: string; value: ModelGroup; revision: number }

export function isGroupEntry(entry: Entry<'models'>): entry is GroupEntry {
  return isGroup(entry.value)
}

export function isDirectEntry(entry: Entry<'models'>): entry is DirectEntry {
  return !isGroup(entry.value)
}

/** A caller key with its allow-lists made ready. */
export type CallerKey = {
  entry: Entry<'api_keys'>
  /** Epoch milliseconds; the key is refused strictly after. */
  expiresAtMs: number | undefined
  allows(alias: string): boolean
  /** in: the name of a passthrough route */
  allowsRoute(name: string): boolean
}

export type { ApiKey, Model, ProviderKey }

/**
 * Models whose alias, or another name of theirs, has one `*`, found by the lengths of what stands before and after it: a look-up costs one map
 * access per distinct pair of lengths, however many patterns there are.
 */
export type Wildcards = {
  /** The model with the longest pattern that matches, and what its `*` stands for. */
  match(name: string): { model: DirectEntry; captured: string } | undefined
}

/** in: `patternOf`, the name that holds the `*` */
export function buildWildcards(
  models: Iterable<DirectEntry>,
  patternOf = ({ value }: DirectEntry) => value.display_name,
): Wildcards {
  const byShape = new Map<string, { before: number; after: number; patterns: Map<string, DirectEntry> }>()
  for (const model of models) {
    const parts = patternOf(model).split('*')
    const [before = '', after = ''] = parts
    if (parts.length !== 2) continue
    const key = `${before.length}/${after.length}`
    let shape = byShape.get(key)
    if (!shape) {
      shape = { before: before.length, after: after.length, patterns: new Map() }
      byShape.set(key, shape)
    }
    // The first by creation serves where two rows spell one pattern.
    if (!shape.patterns.has(`${before}*${after}`)) shape.patterns.set(`${before}*${after}`, model)
  }
  const shapes = [...byShape.values()].sort((a, b) => b.before + b.after - (a.before + a.after) || b.before - a.before)
  return {
    match(name) {
      for (const { before, after, patterns } of shapes) {
        if (name.length < before + after) continue
        const model = patterns.get(`${name.slice(0, before)}*${name.slice(name.length - after)}`)
        if (model) return { model, captured: name.slice(before, name.length - after) }
      }
      return undefined
    },
  }
}

/**
 * Whether an allow-list lets a name pass: entries without `*` by equality, with one by prefix and suffix, with more never
 * (control.md, conventions).
 */
export function compileAllowList(patterns: readonly string[]): (name: string) => boolean {
  const exact = new Set<string>()
  const globs: { before: string; after: string }[] = []
  for (const pattern of patterns) {
    const parts = pattern.split('*')
    const [before = '', after = ''] = parts
    if (parts.length === 1) exact.add(pattern)
    else if (parts.length === 2) globs.push({ before, after })
  }
  if (globs.some(({ before, after }) => before === '' && after === '')) return () => true
  return name =>
    exact.has(name) ||
    globs.some(
      ({ before, after }) => name.length >= before.length + after.length && name.startsWith(before) && name.endsWith(after),
    )
}

const allowsNone = () => false

/** What can be taken over from a snapshot, or was made ready before there is one. */
export type Built = Pick<Snapshot, 'apiKeys' | 'models' | 'wildcards'> & {
  entries: Pick<Snapshot['entries'], 'api_keys' | 'models'>
}

/** A row in which a snapshot differs from the one before. */
export type Change = { kind: Kind; id: string }

/**
 * Builds the look-ups over rows that are given in the order of their creation. What `previous` built over the same maps
 * and entries is taken over, so that a write costs what its own kind costs: entries are never changed in place.
 */
export function buildSnapshot(
  revision: number,
  entries: Snapshot['entries'],
  previous?: Built,
  changes?: readonly Change[],
): Snapshot {
  return {
    revision,
    providerKeys: entries.provider_keys,
    apiKeys:
      previous?.entries.api_keys === entries.api_keys ? previous.apiKeys : buildApiKeys(entries.api_keys, previous, changes),
    ...(previous?.entries.models === entries.models
      ? { models: previous.models, wildcards: previous.wildcards }
      : buildModels(entries.models)),
    entries,
  }
}

function buildModels(entries: Snapshot['entries']['models']): Pick<Snapshot, 'models' | 'wildcards'> {
  const models = new Map<string, Entry<'models'>>()
  const patterns: DirectEntry[] = []
  for (const model of entries.values()) {
    const alias = model.value.display_name
    // Only direct models are patterns: a group whose alias holds a star is asked for by just that name (proxy-01 §2).
    if (alias.includes('*') && isDirectEntry(model)) patterns.push(model)
    else if (!models.has(alias)) models.set(alias, model)
  }
  return { models, wildcards: buildWildcards(patterns) }
}

function buildApiKeys(
  entries: Snapshot['entries']['api_keys'],
  previous: Built | undefined,
  changes: readonly Change[] | undefined,
): Snapshot['apiKeys'] {
  if (previous && changes) {
    const ids = changes.flatMap(({ kind, id }) => (kind === 'api_keys' ? [id] : []))
    const apiKeys = new Map(previous.apiKeys)
    // What is gone goes first: a hash may have moved from one row to another.
    for (const id of ids) {
      const hash = previous.entries.api_keys.get(id)?.value.key_hash
      if (hash !== undefined && hash !== entries.get(id)?.value.key_hash) apiKeys.delete(hash)
    }
    for (const id of ids) {
      const after = entries.get(id)
      if (!after) continue
      const made = new Map<string, CallerKey>()
      addApiKey(made, after, previous.apiKeys)
      for (const [hash, caller] of made) apiKeys.set(hash, caller)
    }
    return apiKeys
  }
  const apiKeys = new Map<string, CallerKey>()
  for (const entry of entries.values()) addApiKey(apiKeys, entry, previous?.apiKeys)
  return apiKeys
}

/** Makes a caller key ready, unless an older row has its hash. What `before` made of the same document is taken over. */
export function addApiKey(
  apiKeys: Map<string, CallerKey>,
  entry: Entry<'api_keys'>,
  before: Snapshot['apiKeys'] | undefined,
): void {
  const { key_hash, expires_at, allowed_models, allowed_routes = [] } = entry.value
  if (apiKeys.has(key_hash)) return
  const known = before?.get(key_hash)
  if (known?.entry.value === entry.value) {
    apiKeys.set(key_hash, known.entry === entry ? known : { ...known, entry })
    return
  }
  const expiresAtMs = expires_at === undefined ? undefined : Date.parse(expires_at)
  apiKeys.set(key_hash, {
    entry,
    expiresAtMs,
    allows: compileAllowList(allowed_models),
    allowsRoute: allowed_routes.length === 0 ? allowsNone : compileAllowList(allowed_routes),
  })
}
