import { GatewayError } from '../errors.ts'
import { compileNetworks } from '../lib/cidr.ts'
import { printable } from '../lib/log.ts'
import {
  type CallerKey,
  type DirectEntry,
  type GroupEntry,
  isDirectEntry,
  isGroupEntry,
  type Snapshot,
} from '../store/snapshot.ts'

export type ResolvedModel =
  | {
      kind: 'direct'
      entry: DirectEntry
      /** What the `*` of a pattern stands for; undefined where the alias is the model's own. */
      captured: string | undefined
    }
  | { kind: 'group'; entry: GroupEntry }

/** UTF-16 units of a name that a pattern may match. */
const SPELLING_LENGTH_MAX = 256

/** The row that an alias stands for: the exact one, else the longest pattern that matches (proxy-01 §2). */
export function findModel(snapshot: Snapshot, alias: string): ResolvedModel | undefined {
  const exact = snapshot.models.get(alias)
  if (exact) {
    if (isGroupEntry(exact)) return { kind: 'group', entry: exact }
    if (isDirectEntry(exact)) return { kind: 'direct', entry: exact, captured: undefined }
  }
  // Only what patterns match is the caller's own spelling: no model name is long, and policies run regular expressions over it.
  if (alias.length > SPELLING_LENGTH_MAX) return undefined
  const found = snapshot.wildcards.match(alias)
  return found && { kind: 'direct', entry: found.model, captured: found.captured }
}

const LATEST = ':latest'

/**
 * The alias that a client of Ollama means: to it, a name without a tag and the same with `:latest` are one.
 * out: the name itself where there is such an alias, or neither is one
 */
export function aliasOfOllama({ models }: Snapshot, name: string): string {
  if (models.has(name)) return name
  const other = name.endsWith(LATEST) ? name.slice(0, -LATEST.length) : withTag(name)
  return models.has(other) ? other : name
}

/** An alias as Ollama lists its models: none is without a tag there, and clients add it before they look for one. */
export function withTag(alias: string): string {
  // What stands before a slash may be a host with its port.
  return alias.includes(':', alias.lastIndexOf('/') + 1) ? alias : alias + LATEST
}

const networks = new WeakMap<readonly string[], (ip: string) => boolean>()

/** Whether addresses lie in a list of networks, undefined for an empty list: everybody. Read once a list. */
export function compileAccess(cidrs: readonly string[] | undefined): ((ip: string) => boolean) | undefined {
  if (cidrs === undefined || cidrs.length === 0) return undefined
  let contains = networks.get(cidrs)
  if (!contains) {
    contains = compileNetworks(cidrs)
    networks.set(cidrs, contains)
  }
  return contains
}

export function ipRestricted(): GatewayError {
  return new GatewayError('ip_restricted', 'Access denied: your client IP is not allowed to access this model')
}

/**
 * The model that a caller asked for, if it may use it. in: what `findModel` found for the alias
 * throws: model_not_found, permission_denied, ip_restricted, in this order
 */
export function resolve(
  model: ResolvedModel | undefined,
  caller: CallerKey,
  alias: string,
  clientIp: () => string,
): ResolvedModel {
  if (!model) throw new GatewayError('model_not_found', `model "${printable(alias)}" not found`)
  if (!caller.allows(alias)) {
    throw new GatewayError('permission_denied', `API key is not allowed to use model "${printable(alias)}"`)
  }
  const allows = compileAccess(model.entry.value.allowed_cidrs)
  if (allows && !allows(clientIp())) throw ipRestricted()
  return model
}
