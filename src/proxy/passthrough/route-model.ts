import { type Price, priceOf } from '../../pricing/price.ts'
import { buildWildcards, type DirectEntry, isDirectEntry, type Snapshot, type Wildcards } from '../../store/snapshot.ts'
import type { Entry } from '../../store/store.ts'
import type { ResolvedModel } from '../resolve.ts'

/** The registered model that a request on a route names: its limits and its price apply, though the request goes out as it is. */
export type RouteModel = {
  resolved: Extract<ResolvedModel, { kind: 'direct' }>
  /** What callers of the gateway's own endpoints would have asked for. */
  alias: string
  price: Price | undefined
}

/** Direct models of one provider key. */
type KeyModels = {
  /** By the name that the server knows them by. */
  named: Map<string, DirectEntry>
  aliased: Map<string, DirectEntry>
  /** Patterns of the server's names. */
  patterns: Wildcards
}

/** By the rows of models, whose map stays the same until one of them is written; then by the id of the provider key. */
const indexes = new WeakMap<object, Map<string, KeyModels>>()
const prices = new WeakMap<DirectEntry, Price>()

/**
 * in: `name`, as the request says it: as a rule the server's own name of the model, since nothing is translated
 * source: proxy-03 §12
 */
export function modelOfKey(
  snapshot: Snapshot,
  providerKey: Entry<'provider_keys'> | undefined,
  name: string,
): RouteModel | undefined {
  const models = providerKey && indexOf(snapshot).get(providerKey.id)
  if (!models) return undefined
  const entry = models.named.get(name) ?? models.aliased.get(name)
  if (entry) return routeModel(entry, undefined)
  const matched = models.patterns.match(name)
  return matched && routeModel(matched.model, matched.captured)
}

function routeModel(entry: DirectEntry, captured: string | undefined): RouteModel {
  const { display_name, cost } = entry.value
  let price = prices.get(entry)
  if (!price && cost) {
    price = priceOf(cost.input_per_1k, cost.output_per_1k)
    prices.set(entry, price)
  }
  // A function as replacement: `$` in the captured text means nothing.
  const alias = captured === undefined ? display_name : display_name.replace('*', () => captured)
  return { resolved: { kind: 'direct', entry, captured }, alias, price }
}

function indexOf({ entries: { models: rows } }: Snapshot): Map<string, KeyModels> {
  let index = indexes.get(rows)
  if (!index) {
    index = new Map()
    const byKey = Map.groupBy(rows.values().filter(isDirectEntry), ({ value }) => value.provider_key_id)
    for (const [id, models] of byKey) index.set(id, keyModels(models))
    indexes.set(rows, index)
  }
  return index
}

function keyModels(models: readonly DirectEntry[]): KeyModels {
  const named = new Map<string, DirectEntry>()
  const aliased = new Map<string, DirectEntry>()
  const patterns: DirectEntry[] = []
  for (const model of models) {
    const { display_name, model_name } = model.value
    if (model_name.includes('*')) patterns.push(model)
    // Of several aliases of one model that which has its name speaks for it, else the first by creation.
    else if (!named.has(model_name) || display_name === model_name) named.set(model_name, model)
    if (!display_name.includes('*')) aliased.set(display_name, model)
  }
  return { named, aliased, patterns: buildWildcards(patterns, ({ value }) => value.model_name) }
}
