import { GatewayError } from '../errors.ts'
import { compileNetworks } from '../lib/cidr.ts'
import { printable } from '../lib/log.ts'
import type { CallerKey, Snapshot } from '../store/snapshot.ts'
import type { Entry } from '../store/store.ts'

export type ResolvedModel = {
  entry: Entry<'models'>
  /** The id that the upstream knows, a pattern's `*` filled in. */
  upstreamModel: string
}

/** The row that an alias stands for: the exact one, else the longest pattern that matches (proxy-01 §2). */
export function findModel(snapshot: Snapshot, alias: string): ResolvedModel | undefined {
  const exact = snapshot.models.get(alias)
  if (exact) return { entry: exact, upstreamModel: exact.value.model_name }
  const found = snapshot.wildcards.match(alias)
  if (!found) return undefined
  // A function as replacement: `$` in the captured text means nothing.
  return { entry: found.model, upstreamModel: found.model.value.model_name.replace('*', () => found.captured) }
}

const networks = new WeakMap<readonly string[], (ip: string) => boolean>()

/**
 * The model that a caller asked for and may use.
 * throws: model_not_found, permission_denied, ip_restricted, in this order
 */
export function resolve(snapshot: Snapshot, caller: CallerKey, alias: string, clientIp: () => string): ResolvedModel {
  const model = findModel(snapshot, alias)
  if (!model) throw new GatewayError('model_not_found', `model "${printable(alias)}" not found`)
  if (!caller.allows(alias)) {
    throw new GatewayError('permission_denied', `API key is not allowed to use model "${printable(alias)}"`)
  }
  const { allowed_cidrs } = model.entry.value
  if (allowed_cidrs && allowed_cidrs.length > 0) {
    let contains = networks.get(allowed_cidrs)
    if (!contains) {
      contains = compileNetworks(allowed_cidrs)
      networks.set(allowed_cidrs, contains)
    }
    if (!contains(clientIp())) {
      throw new GatewayError('ip_restricted', 'Access denied: your client IP is not allowed to access this model')
    }
  }
  return model
}
