import type { Kind } from '../resources/index.ts'
import type { Snapshot } from '../store/snapshot.ts'
import type { Entry } from '../store/store.ts'

/** A resource that names another one which is not there; requests that need it fail until it is. */
export type Dangling = {
  kind: Kind
  id: string
  /** The resource's own name; absent for a caller key without one. */
  name: string | undefined
  /** The member that names the missing resource. */
  field: string
  missing: string
}

/**
 * Where a kind refers to others: the members and what they name that the snapshot does not have. In a list of allowed
 * models entries with `*` are patterns and name nothing in particular.
 * source: README of the contract, row 6
 */
const MISSING: { [K in Kind]: (value: Entry<K>['value'], snapshot: Snapshot) => { field: string; missing: string }[] } = {
  provider_keys: () => [],
  models: ({ provider_key_id }, { providerKeys }) =>
    providerKeys.has(provider_key_id) ? [] : [{ field: 'provider_key_id', missing: provider_key_id }],
  api_keys: ({ allowed_models }, { models, wildcards }) =>
    allowed_models
      .filter(name => !name.includes('*') && !models.has(name) && wildcards.match(name) === undefined)
      .map(missing => ({ field: 'allowed_models', missing })),
}

const NAMES: { [K in Kind]: (value: Entry<K>['value']) => string | undefined } = {
  provider_keys: value => value.display_name,
  models: value => value.display_name,
  api_keys: value => value.display_name,
}

/** What one resource names and the snapshot does not have. */
export function danglingOf<K extends Kind>(kind: K, { id, value }: Entry<K>, snapshot: Snapshot): Dangling[] {
  const name = NAMES[kind](value)
  return MISSING[kind](value, snapshot).map(({ field, missing }) => ({ kind, id, name, field, missing }))
}

function danglingOfKind<K extends Kind>(kind: K, snapshot: Snapshot): Dangling[] {
  return Array.from(snapshot.entries[kind].values()).flatMap(entry => danglingOf(kind, entry, snapshot))
}

/** All references that lead nowhere. Looks at every resource: for writes that take something away and for reports. */
export function allDangling(snapshot: Snapshot): Dangling[] {
  return [...danglingOfKind('models', snapshot), ...danglingOfKind('api_keys', snapshot)]
}
