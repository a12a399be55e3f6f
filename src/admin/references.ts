import { type Kind, kinds } from '../resources/index.ts'
import { isGroup } from '../resources/model.ts'
import { type Condition, isClassic } from '../resources/rate-limit-policy.ts'
import { isDirectEntry, type Snapshot } from '../store/snapshot.ts'
import type { Entry } from '../store/store.ts'

/** A place where a resource names another one. */
type Reference = {
  /** The member that names it: `provider_key_id`, `routing.targets[0].model`. */
  field: string
  missing: string
  /** What is named, and by what of it: a rename leaves references by id alone. */
  of: Kind
  by: 'id' | 'name'
}

/** A resource that names another one which is not there, or is not what it should be; it has no effect until it is. */
export type Dangling = Reference & {
  kind: Kind
  id: string
  /** The resource's own name; absent for a caller key without one. */
  name: string | undefined
}

/**
 * Where a kind refers to others: the members and what they name that the snapshot does not have. In lists of allowed
 * models and routes entries with `*` are patterns and name nothing in particular. Teams and members are free text.
 * source: README of the contract, rows 6 and 12; proxy-05 §1, targets are direct models by their exact alias
 */
const MISSING: { [K in Kind]: (value: Entry<K>['value'], snapshot: Snapshot) => Reference[] } = {
  provider_keys: () => [],
  models(model, { providerKeys, models }) {
    if (!isGroup(model)) {
      const { provider_key_id: missing } = model
      return providerKeys.has(missing) ? [] : [{ field: 'provider_key_id', missing, of: 'provider_keys', by: 'id' }]
    }
    return model.routing.targets.flatMap(({ model: missing }, index): Reference[] => {
      const target = models.get(missing)
      if (target !== undefined && isDirectEntry(target)) return []
      return [{ field: `routing.targets[${index}].model`, missing, of: 'models', by: 'name' }]
    })
  },
  api_keys: ({ allowed_models, allowed_routes = [] }, snapshot) => [
    ...allowed_models
      .filter(name => !name.includes('*') && !isServed(name, snapshot))
      .map((missing): Reference => ({ field: 'allowed_models', missing, of: 'models', by: 'name' })),
    ...allowed_routes
      .filter(name => !name.includes('*') && !routeNames(snapshot).has(name))
      .map((missing): Reference => ({ field: 'allowed_routes', missing, of: 'passthrough_routes', by: 'name' })),
  ],
  rate_limit_policies(policy, snapshot) {
    if (!isClassic(policy)) return missingOfConditions(policy.conditions ?? [], 'conditions', snapshot)
    const { scope, scope_ref: missing } = policy
    const of = scope === 'api_key' ? 'api_keys' : scope === 'model' ? 'models' : undefined
    return of === undefined || snapshot.entries[of].has(missing) ? [] : [{ field: 'scope_ref', missing, of, by: 'id' }]
  },
  budgets({ scope, scope_ref: missing }, snapshot) {
    const of = scope === 'api_key' ? 'api_keys' : scope === 'model' ? 'models' : undefined
    if (of === undefined || missing === undefined || snapshot.entries[of].has(missing)) return []
    return [{ field: 'scope_ref', missing, of, by: 'id' }]
  },
  observability_exporters: () => [],
  passthrough_routes({ provider_key_id, anonymous_key_id }, { entries }) {
    const references: Reference[] = []
    if (provider_key_id !== undefined && !entries.provider_keys.has(provider_key_id)) {
      references.push({ field: 'provider_key_id', missing: provider_key_id, of: 'provider_keys', by: 'id' })
    }
    if (anonymous_key_id !== undefined && !entries.api_keys.has(anonymous_key_id)) {
      references.push({ field: 'anonymous_key_id', missing: anonymous_key_id, of: 'api_keys', by: 'id' })
    }
    return references
  },
}

const namesOfRoutes = new WeakMap<object, ReadonlySet<string>>()

/** Made once for a state of the routes: reports ask for every key. */
function routeNames({ entries: { passthrough_routes: rows } }: Snapshot): ReadonlySet<string> {
  let names = namesOfRoutes.get(rows)
  if (!names) {
    names = new Set(rows.values().map(({ value }) => value.name))
    namesOfRoutes.set(rows, names)
  }
  return names
}

/** Whether requests for this name find a model, a group or a pattern. */
function isServed(name: string, { models, wildcards }: Snapshot): boolean {
  return models.has(name) || wildcards.match(name) !== undefined
}

function missingOfConditions(conditions: readonly Condition[], place: string, snapshot: Snapshot): Reference[] {
  return conditions.flatMap((condition, index): Reference[] => {
    const here = `${place}[${index}]`
    if ('logic' in condition) return missingOfConditions(condition.children, `${here}.children`, snapshot)
    const { dimension, operator, value } = condition
    // A pattern names nothing in particular.
    if (operator === '~~' || operator === '~*') return []
    const names = (Array.isArray(value) ? value : [value]).map(missing => ({ field: `${here}.value`, missing }))
    const { api_keys, models } = snapshot.entries
    switch (dimension) {
      case 'api_key':
        return names.filter(({ missing }) => !api_keys.has(missing)).map(each => ({ ...each, of: 'api_keys', by: 'id' }))
      case 'model':
        return names.filter(({ missing }) => !models.has(missing)).map(each => ({ ...each, of: 'models', by: 'id' }))
      case 'model_name':
        return names.filter(({ missing }) => !isServed(missing, snapshot)).map(each => ({ ...each, of: 'models', by: 'name' }))
      default:
        return []
    }
  })
}

const NAMES: { [K in Kind]: (value: Entry<K>['value']) => string | undefined } = {
  provider_keys: value => value.display_name,
  models: value => value.display_name,
  api_keys: value => value.display_name,
  rate_limit_policies: value => value.name,
  budgets: value => value.name,
  observability_exporters: value => value.name,
  passthrough_routes: value => value.name,
}

/** What one resource names and the snapshot does not have. */
export function danglingOf<K extends Kind>(kind: K, { id, value }: Entry<K>, snapshot: Snapshot): Dangling[] {
  const name = NAMES[kind](value)
  return MISSING[kind](value, snapshot).map(reference => ({ kind, id, name, ...reference }))
}

function danglingOfKind<K extends Kind>(kind: K, snapshot: Snapshot): Dangling[] {
  return Array.from(snapshot.entries[kind].values()).flatMap(entry => danglingOf(kind, entry, snapshot))
}

/** The same of the configuration, which names an API key by its id for callers without one. */
export function danglingOfConfig(apiKeyId: string | undefined, { entries }: Snapshot) {
  if (apiKeyId === undefined || entries.api_keys.has(apiKeyId)) return []
  return [{ kind: 'config' as const, id: 'proxy.anonymous', field: 'api_key_id', missing: apiKeyId }]
}

/** All references that lead nowhere. Looks at every resource: for writes that take something away and for reports. */
export function allDangling(snapshot: Snapshot): Dangling[] {
  return kinds.flatMap(kind => danglingOfKind(kind, snapshot))
}
