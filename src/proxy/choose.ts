import { invalidRequest } from '../errors.ts'
import type { Exchange } from '../exchange.ts'
import { printable } from '../lib/log.ts'
import type { Snapshot } from '../store/snapshot.ts'
import { labelsOfModel, labelsOfUnresolved } from './labels.ts'
import { findModel, type ResolvedModel, resolve } from './resolve.ts'
import type { Asker, Route } from './route.ts'
import type { ProxyState } from './serve.ts'

/** The model that was asked for, and the targets that may answer for it. */
export type Chosen = {
  model: ResolvedModel
  route: Route
  /** Epoch milliseconds at which they were chosen. */
  now: number
}

/**
 * From an alias to targets: whether there is such a model, whether this caller may use it and has money left, and where it leads.
 * Nothing is reserved yet. in: `isDirectOnly`, where groups are refused; `isFree`, where it may have no money left
 * throws: as `resolve`, budget_exceeded, and as `route`
 */
export function choose(
  { gateway, router }: ProxyState,
  snapshot: Snapshot,
  asker: Asker,
  alias: string,
  exchange: Exchange,
  { isDirectOnly = false, isFree = false }: { isDirectOnly?: boolean; isFree?: boolean },
): Chosen {
  const { callerKey, clientIp } = asker
  exchange.requestedModel = alias
  const found = findModel(snapshot, alias)
  exchange.labels = found ? labelsOfModel(callerKey, found) : labelsOfUnresolved(callerKey)
  const model = resolve(found, callerKey, alias, clientIp)
  if (model.kind === 'group') {
    if (isDirectOnly) {
      throw invalidRequest(`model "${printable(alias)}" is a group, which has none of its own here: name one of its models`, {
        param: 'model',
      })
    }
    exchange.group = model.entry.value.display_name
    exchange.groupId = model.entry.id
  }
  const now = gateway.clock.now()
  const overspent = isFree ? undefined : gateway.budgets.refusal(snapshot, callerKey, model.entry.id, now)
  if (overspent) throw overspent
  return { model, route: router.route(snapshot, model, asker, now), now }
}
