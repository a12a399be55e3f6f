import { GatewayError } from '../errors.ts'
import { isGroup, type Model } from '../resources/model.ts'
import type { CallerKey, Snapshot } from '../store/snapshot.ts'
import { findModel, resolve } from './resolve.ts'

type ModelObject = { id: string; object: 'model'; created: number; owned_by: string }

/**
 * The models that a key may use, sorted by id; patterns are no names that one could ask for and are left out.
 * source: OpenAI API reference, "List models"; contract proxy-03 §1
 */
export function listModels(snapshot: Snapshot, caller: CallerKey, nowMs: number): { object: 'list'; data: ModelObject[] } {
  const created = Math.floor(nowMs / 1_000)
  const data: ModelObject[] = []
  for (const [alias, { value }] of snapshot.models) {
    if (caller.allows(alias)) data.push({ id: alias, object: 'model', created, owned_by: ownerOf(value) })
  }
  return { object: 'list', data: data.sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)) }
}

/**
 * One model, also one that only a pattern serves.
 * in: the rest of the path, still percent-encoded; aliases may hold slashes
 * throws: invalid_request for a bad escape, model_not_found, permission_denied
 */
export function getModel(
  snapshot: Snapshot,
  caller: CallerKey,
  encoded: string,
  nowMs: number,
  clientIp: () => string,
): ModelObject {
  let alias: string
  try {
    alias = decodeURIComponent(encoded)
  } catch {
    throw new GatewayError('invalid_request', 'request payload is invalid: invalid path parameter')
  }
  const { entry } = resolve(findModel(snapshot, alias), caller, alias, clientIp)
  return { id: alias, object: 'model', created: Math.floor(nowMs / 1_000), owned_by: ownerOf(entry.value) }
}

/** Who answers for a model: the label of its vendor or server, or this gateway for a group (proxy-05 §7). */
function ownerOf(model: Model): string {
  return isGroup(model) ? 'aisix' : model.provider
}
