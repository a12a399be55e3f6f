import { adapterOf } from '../adapters/index.ts'
import { parseCidr } from '../lib/cidr.ts'
import type { Budget } from '../resources/budget.ts'
import type { Kind, Resource } from '../resources/index.ts'
import { checkMode, type DirectModel, isGroup, type ModelGroup } from '../resources/model.ts'
import type { FolderExporter, OtlpHttpExporter, S3Exporter } from '../resources/observability-exporter.ts'
import type { PassthroughRoute } from '../resources/passthrough-route.ts'
import { HEADER_VARIABLES, type ProviderKey } from '../resources/provider-key.ts'
import type { RateLimit } from '../resources/rate-limit.ts'
import { type ClassicPolicy, isClassic } from '../resources/rate-limit-policy.ts'
import { type DirectEntry, isDirectEntry, isGroupEntry, type Snapshot } from '../store/snapshot.ts'
import type { Entry } from '../store/store.ts'
import { maySet } from '../wire/headers.ts'
import { allDangling, type Dangling, danglingOf } from './references.ts'

/** Longest value of the header; what goes beyond is counted. */
const HEADER_CHARACTERS_MAX = 2048

/**
 * What an accepted write should make its author look twice at. The write stands: resources may come in any order.
 * in: `entry` as it is stored now, `before` the document it replaced
 * source: README of the contract, rows 6, 11 and 12
 */
export function warningsOfWrite<K extends Kind>(
  kind: K,
  entry: Entry<K>,
  before: Resource[K] | undefined,
  snapshot: Snapshot,
): string[] {
  const warnings = danglingOf(kind, entry, snapshot).map(tellMissing(snapshot))
  warnings.push(...OWN[kind](entry.value, snapshot))
  const now = before === undefined ? undefined : modelOf(kind, entry.value)
  const then = before === undefined ? undefined : modelOf(kind, before)
  // A direct model that became a group is still there, but no target any more.
  if (then && now && (then.display_name !== now.display_name || isGroup(then) !== isGroup(now))) {
    warnings.push(...leftBehind(snapshot, 'models', 'name', then.display_name, entry.id))
  }
  const name = before && routeName(kind, before)
  if (name !== undefined && name !== routeName(kind, entry.value)) warnings.push(...leftBehind(snapshot, kind, 'name', name))
  return warnings
}

/** What a deletion leaves without its counterpart. in: the snapshot after it */
export function warningsOfRemoval<K extends Kind>(kind: K, { id, value }: Entry<K>, snapshot: Snapshot): string[] {
  const name = modelOf(kind, value)?.display_name ?? routeName(kind, value)
  return [...leftBehind(snapshot, kind, 'id', id), ...(name === undefined ? [] : leftBehind(snapshot, kind, 'name', name))]
}

/** in: `except`, the id of a resource whose own references are told already */
function leftBehind(snapshot: Snapshot, kind: Kind, by: 'id' | 'name', missing: string, except?: string): string[] {
  return allDangling(snapshot)
    .filter(each => each.of === kind && each.by === by && each.missing === missing && each.id !== except)
    .map(tellLeftBehind)
}

/** The document of a model, which others refer to by its name. */
function modelOf<K extends Kind>(kind: K, value: Resource[K]): Resource['models'] | undefined
function modelOf(kind: Kind, value: Resource[Kind]): Resource['models'] | undefined {
  return kind === 'models' && 'display_name' in value && ('routing' in value || 'model_name' in value) ? value : undefined
}

/** Name of a passthrough route, by which caller keys refer to it. */
function routeName<K extends Kind>(kind: K, value: Resource[K]): string | undefined
function routeName(kind: Kind, value: Resource[Kind]): string | undefined {
  return kind === 'passthrough_routes' && 'auth_mode' in value && 'credential_mode' in value ? value.name : undefined
}

const NOUNS: Record<Kind, string> = {
  provider_keys: 'provider key',
  models: 'model',
  api_keys: 'caller API key',
  rate_limit_policies: 'rate-limit policy',
  budgets: 'budget',
  observability_exporters: 'exporter',
  passthrough_routes: 'passthrough route',
}

const tellMissing =
  ({ models }: Snapshot) =>
  ({ kind, field, missing, of, by }: Dangling): string => {
    if (field === 'provider_key_id') {
      const what = kind === 'models' ? 'for this model' : 'on this route'
      return `provider_key_id "${missing}" names no provider key: requests ${what} fail until there is one`
    }
    if (field === 'anonymous_key_id') {
      return `anonymous_key_id "${missing}" is the id of no caller API key: nobody is let in until there is one`
    }
    if (kind === 'models') {
      const what = models.has(missing) ? 'is a model group, and only direct models can be targets' : 'names no direct model'
      return `${field} "${missing}" ${what}: no request goes there until it is one`
    }
    if (field === 'scope_ref') {
      return `scope_ref "${missing}" is the id of no ${NOUNS[of]}: nothing is counted until there is one`
    }
    if (by === 'id') return `${field} names "${missing}", and there is no ${NOUNS[of]} with this id yet`
    return `${field} names "${missing}", and there is no such ${NOUNS[of]} yet`
  }

function tellLeftBehind({ kind, id, name, field, missing }: Dangling): string {
  return `${kind} "${name ?? id}" still names "${missing}" in ${field}`
}

const OWN: { [K in Kind]: (value: Resource[K], snapshot: Snapshot) => string[] } = {
  provider_keys: warningsOfProviderKey,
  models: model => [
    ...(isGroup(model) ? warningsOfGroup(model) : warningsOfDirect(model)),
    ...warningsOfLimits('rate_limit', model.rate_limit),
    ...warningsOfCidrs('allowed_cidrs', model.allowed_cidrs),
  ],
  api_keys: ({ allowed_models, allowed_routes = [], rate_limit }) => {
    const warnings = [
      ...warningsOfPatterns('allowed_models', allowed_models),
      ...warningsOfPatterns('allowed_routes', allowed_routes),
    ]
    if (allowed_models.length === 0) warnings.push('allowed_models is empty, so this key may use no model')
    return [...warnings, ...warningsOfLimits('rate_limit', rate_limit)]
  },
  rate_limit_policies: policy => [
    ...(isClassic(policy) ? warningsOfClassic(policy) : warningsOfLimits('limits', policy.limits)),
    ...(policy.schedules ?? []).flatMap(({ start_time, end_time }, index) =>
      start_time === end_time ? [`schedules[${index}] ends when it starts, so it never suspends the policy`] : [],
    ),
  ],
  budgets: warningsOfBudget,
  observability_exporters: exporter =>
    exporter.kind === 'otlp_http' ? warningsOfCollector(exporter) : warningsOfObjects(exporter),
  passthrough_routes: warningsOfRoute,
}

function warningsOfPatterns(member: string, patterns: readonly string[]): string[] {
  return patterns
    .filter(name => name.split('*').length > 2)
    .map(name => `${member} entry "${name}" has more than one *, so it allows nothing`)
}

function warningsOfCidrs(member: string, cidrs: readonly string[] = []): string[] {
  return cidrs
    .filter(entry => parseCidr(entry) === undefined)
    .map(entry => `${member} entry "${entry}" is no network or address such as 10.0.0.0/8, so it lets nobody in`)
}

function warningsOfRoute(route: PassthroughRoute, { entries, apiKeys }: Snapshot): string[] {
  const warnings = warningsOfCidrs('source_cidrs', route.source_cidrs)
  const key = route.anonymous_key_id === undefined ? undefined : entries.api_keys.get(route.anonymous_key_id)
  if (key && !apiKeys.get(key.value.key_hash)?.allowsRoute(route.name)) {
    warnings.push(`anonymous_key_id names a key without this route in its allowed_routes, so nobody is let in`)
  }
  return warnings
}

function warningsOfDirect({ display_name, background_model_check: check }: DirectModel): string[] {
  const warnings: string[] = []
  if (display_name.split('*').length > 2) warnings.push('display_name has more than one *, so no request matches it')
  if (!check?.enabled) return warnings
  if (display_name.includes('*'))
    warnings.push('background_model_check has no effect on a pattern: which model would be asked for?')
  if (check.stale_after_seconds < check.interval_seconds) {
    warnings.push(
      'background_model_check.stale_after_seconds is below interval_seconds, so a failed check is forgotten before the next one',
    )
  }
  if (check.prompt !== undefined && checkMode(check) === 'endpoint') {
    warnings.push('background_model_check.prompt is not sent, because mode is "endpoint"')
  }
  return warnings
}

function warningsOfGroup({ display_name, routing: { targets, max_fallbacks } }: ModelGroup): string[] {
  const warnings: string[] = []
  if (display_name.includes('*')) {
    warnings.push('display_name has a *, but a model group is no pattern: only requests for exactly this name reach it')
  }
  const seen = new Set<string>()
  const repeated = new Set<string>()
  for (const { model } of targets) {
    if (seen.has(model)) repeated.add(model)
    seen.add(model)
  }
  for (const model of repeated) warnings.push(`routing.targets names "${model}" more than once: only the first counts`)
  for (const [index, { weight }] of targets.entries()) {
    if (weight === 0)
      warnings.push(`routing.targets[${index}].weight is 0, which counts as 1: take the target out to stop its requests`)
  }
  const isTagged = ({ tags = [] }: ModelGroup['routing']['targets'][number]) => tags.length > 0
  if (targets.some(isTagged)) {
    const requests = targets.some(({ tags }) => tags?.includes('default')) ? 'no request' : 'no request with tags'
    for (const [index, target] of targets.entries()) {
      if (!isTagged(target)) warnings.push(`routing.targets[${index}] has no tags while others have, so ${requests} reaches it`)
    }
  }
  if (max_fallbacks !== undefined && max_fallbacks > targets.length - 1) {
    warnings.push(`routing.max_fallbacks is cut to ${targets.length - 1}: there are no more targets after the first`)
  }
  return warnings
}

function warningsOfLimits(member: string, limits: RateLimit | undefined): string[] {
  if (limits === undefined) return []
  const given = Object.entries(limits).filter(([, limit]) => limit !== undefined)
  if (given.length === 0) return [`${member} is empty, so it limits nothing`]
  return given.filter(([, limit]) => limit === 0).map(([name]) => `${member}.${name} is 0, so no request passes`)
}

function warningsOfClassic({ window, max_tokens }: ClassicPolicy): string[] {
  if (max_tokens === undefined || window === 'minute' || window === 'day') return []
  return [`max_tokens has no effect with the window "${window}": tokens are counted by minute or day`]
}

/** Models of a budget in dollars that are named before the rest is counted. */
const UNPRICED_NAMED = 5

function warningsOfBudget({ scope, scope_ref, limit_usd, limit_tokens }: Budget, snapshot: Snapshot): string[] {
  const warnings: string[] = []
  if (scope === 'team' || scope === 'user') {
    const member = `${scope}_id` as const
    const keys = snapshot.entries.api_keys.values()
    if (!keys.some(({ value }) => value[member] === scope_ref)) {
      warnings.push(`no caller API key has the ${member} "${scope_ref}": nothing is counted until one has`)
    }
  }
  if (limit_usd === undefined) return warnings
  const models = modelsUnder(scope === 'model' ? scope_ref : undefined, snapshot)
  const unpriced = models.filter(({ value }) => value.cost === undefined).map(({ value }) => `"${value.display_name}"`)
  if (unpriced.length === 0) return warnings
  const named = unpriced.slice(0, UNPRICED_NAMED).join(', ')
  const more = unpriced.length > UNPRICED_NAMED ? ` and ${unpriced.length - UNPRICED_NAMED} more` : ''
  const remedy = limit_tokens === undefined ? 'set their cost, or a limit_tokens' : 'limit_tokens alone limits them'
  warnings.push(`limit_usd does not see models without cost, which are ${named}${more}: ${remedy}`)
  return warnings
}

/** Direct models that requests under a budget may reach: all, or those of one model or group. */
function modelsUnder(modelId: string | undefined, { entries, models }: Snapshot): DirectEntry[] {
  if (modelId === undefined) return entries.models.values().filter(isDirectEntry).toArray()
  const model = entries.models.get(modelId)
  if (!model) return []
  if (isDirectEntry(model)) return [model]
  if (!isGroupEntry(model)) return []
  const targets = new Set(model.value.routing.targets.map(target => models.get(target.model)))
  return [...targets].filter(target => target !== undefined).filter(isDirectEntry)
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

function warningsOfCollector({ endpoint, headers, sample_rate, content_mode }: OtlpHttpExporter): string[] {
  const { pathname, search } = new URL(endpoint)
  const warnings = warningsOfPlainHttp(endpoint, headers === undefined ? 'records' : 'records and the values of headers')
  if (pathname === '/') warnings.push('endpoint has no path, and nothing is appended to it: most collectors expect /v1/traces')
  if (search !== '') {
    warnings.push(
      'endpoint has a query, which everybody with an admin key can read: give a credential in headers, which are masked',
    )
  }
  if (sample_rate === 0) warnings.push('sample_rate is 0, so nothing is delivered')
  if (content_mode === 'full') {
    warnings.push('content_mode is "full": the texts of requests and answers are delivered, whatever they hold')
  }
  return warnings
}

function warningsOfObjects(exporter: S3Exporter | FolderExporter): string[] {
  return exporter.provider === 's3' && exporter.endpoint !== undefined ? warningsOfPlainHttp(exporter.endpoint, 'records') : []
}

/** Hosts that mean this machine or its neighbours. source: control-resources §7 */
const NEAR_HOSTS = ['mock-otlp', 'otel-collector', '127.0.0.1', 'localhost', 'minio', '[::1]']

function warningsOfPlainHttp(endpoint: string, what: string): string[] {
  const { protocol, hostname } = new URL(endpoint)
  if (protocol !== 'http:' || NEAR_HOSTS.includes(hostname)) return []
  return [`endpoint is plain http, so ${what} cross the network in clear text: use https where others may listen`]
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
