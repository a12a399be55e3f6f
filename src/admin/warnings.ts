import { adapterOf } from '../adapters/index.ts'
import { parseCidr } from '../lib/cidr.ts'
import type { Kind, Resource } from '../resources/index.ts'
import { HEADER_VARIABLES, type ProviderKey } from '../resources/provider-key.ts'
import type { Snapshot } from '../store/snapshot.ts'
import type { Entry } from '../store/store.ts'
import { maySet } from '../wire/headers.ts'
import { allDangling, type Dangling, danglingOf } from './references.ts'

/** Longest value of the header; what goes beyond is counted. */
const HEADER_CHARACTERS_MAX = 2048

/**
 * What an accepted write should make its author look twice at. The write stands: resources may come in any order.
 * in: `entry` as it is stored now, `before` the document it replaced
 * source: README of the contract, rows 6 and 11
 */
export function warningsOfWrite<K extends Kind>(
  kind: K,
  entry: Entry<K>,
  before: Resource[K] | undefined,
  snapshot: Snapshot,
): string[] {
  const warnings = danglingOf(kind, entry, snapshot).map(tellMissing)
  warnings.push(...OWN[kind](entry.value))
  const oldName = before === undefined ? undefined : aliasOf(kind, before)
  if (oldName !== undefined && oldName !== aliasOf(kind, entry.value)) warnings.push(...leftBehind(oldName, snapshot))
  return warnings
}

/** What a deletion leaves without its counterpart. in: the snapshot after it */
export function warningsOfRemoval<K extends Kind>(kind: K, { id, value }: Entry<K>, snapshot: Snapshot): string[] {
  if (kind === 'provider_keys') return leftBehind(id, snapshot)
  const alias = aliasOf(kind, value)
  return alias === undefined ? [] : leftBehind(alias, snapshot)
}

function leftBehind(missing: string, snapshot: Snapshot): string[] {
  return allDangling(snapshot)
    .filter(each => each.missing === missing)
    .map(tellLeftBehind)
}

/** The name that other resources refer to, for kinds that are referred to by name. */
function aliasOf<K extends Kind>(kind: K, value: Resource[K]): string | undefined {
  return kind === 'models' ? value.display_name : undefined
}

function tellMissing({ field, missing }: Dangling): string {
  if (field === 'provider_key_id')
    return `provider_key_id "${missing}" names no provider key: requests for this model fail until there is one`
  return `${field} names "${missing}", and there is no such model yet`
}

function tellLeftBehind({ kind, id, name, field, missing }: Dangling): string {
  return `${kind} "${name ?? id}" still names "${missing}" in ${field}`
}

const OWN: { [K in Kind]: (value: Resource[K]) => string[] } = {
  provider_keys: warningsOfProviderKey,
  models: ({ display_name, allowed_cidrs = [] }) => {
    const warnings = allowed_cidrs
      .filter(entry => parseCidr(entry) === undefined)
      .map(entry => `allowed_cidrs entry "${entry}" is no network or address such as 10.0.0.0/8, so it lets nobody in`)
    if (display_name.split('*').length > 2) warnings.unshift('display_name has more than one *, so no request matches it')
    return warnings
  },
  api_keys: ({ allowed_models }) => {
    const warnings = allowed_models
      .filter(name => name.split('*').length > 2)
      .map(name => `allowed_models entry "${name}" has more than one *, so it allows nothing`)
    if (allowed_models.length === 0) warnings.push('allowed_models is empty, so this key may use no model')
    return warnings
  },
}

function warningsOfProviderKey(value: ProviderKey): string[] {
  return [...warningsOfAddress(value), ...Object.entries(value.request?.default_headers ?? {}).flatMap(warningsOfHeader)]
}

function warningsOfHeader([name, template]: [string, string]): string[] {
  if (!maySet(name)) return [`default_headers: ${name} belongs to the gateway or carries a credential, so it is never set`]
  const known: readonly string[] = HEADER_VARIABLES
  const unknown = [...template.matchAll(/\$\{([^}]*)\}/g)]
    .map(([, variable = '']) => variable)
    .filter(each => !known.includes(each))
  // Only what looks like a variable is repeated; anything else may be a part of a credential.
  return [...new Set(unknown)].map(variable => {
    const shown = /^[a-z_.]{1,40}$/.test(variable) ? `\${${variable}}` : 'a variable'
    return `default_headers: ${name} names ${shown}, which does not exist, so the header is left out; there are ${known.join(', ')}`
  })
}

function warningsOfAddress({ provider, adapter, api_base = '' }: ProviderKey): string[] {
  const warnings: string[] = []
  const isPinned = provider === 'openai' || provider === 'anthropic'
  if (isPinned && adapter !== undefined && adapter !== provider) {
    warnings.push(`provider "${provider}" decides the dialect, so adapter "${adapter}" is not used`)
  }
  const dialect = adapterOf(provider, adapter)
  if (!dialect) {
    const name = isPinned ? provider : adapter
    warnings.push(
      name === undefined
        ? 'no dialect is known for this provider, so its requests fail: set adapter, "openai" for vLLM, SGLang, Ollama and llama.cpp'
        : `this version does not speak the dialect "${name}", so requests fail`,
    )
    return warnings
  }
  const base = dialect.base(api_base, provider)
  if (base === undefined) {
    warnings.push('there is no api_base, so requests fail: set it to the root of the server, such as http://10.0.0.5:8000/v1')
    return warnings
  }
  const given = api_base.trim().replace(/\/+$/, '')
  if (given.length > base.length && given.startsWith(base)) {
    warnings.push(
      `api_base should end at the root: "${given.slice(base.length)}" is cut off, and the path of each endpoint appended`,
    )
  }
  if (given !== '' && URL.parse(base)?.pathname === '/') {
    warnings.push('api_base has no path: vLLM, SGLang, Ollama and llama.cpp expect one that ends in /v1')
  }
  return warnings
}

/**
 * The value of `x-aisix-warning`: warnings joined by `; `, everything but printable ASCII percent-encoded as UTF-8, and `%`
 * itself too, so that it can be decoded. Undefined when there is nothing to say.
 */
export function warningHeader(warnings: readonly string[]): string | undefined {
  if (warnings.length === 0) return undefined
  let value = ''
  for (const [index, warning] of warnings.entries()) {
    const cut = warning.length > 512 ? `${warning.slice(0, 511)}…` : warning
    const next = `${index === 0 ? '' : '; '}${headerText(cut)}`
    if (value.length + next.length > HEADER_CHARACTERS_MAX) {
      return `${value === '' ? '' : `${value}; and `}${warnings.length - index} more, see /admin/v1/health`
    }
    value += next
  }
  return value
}

function headerText(text: string): string {
  return text.toWellFormed().replace(/[^\u0020-\u007e]|%/gu, character => encodeURIComponent(character))
}
