import { GatewayError } from '../errors.ts'
import { isGroup, type Model } from '../resources/model.ts'
import type { CallerKey, Snapshot } from '../store/snapshot.ts'
import { findModel, resolve } from './resolve.ts'

type ModelObject = { id: string; object: 'model'; created: number; owned_by: string }
type ModelList = { object: 'list'; data: ModelObject[] }

/**
 * The models that a key may use, sorted by id; patterns are no names that one could ask for and are left out.
 * source: OpenAI API reference, "List models"; contract proxy-03 §1
 */
export function listModels(snapshot: Snapshot, caller: CallerKey, nowMs: number): ModelList {
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

/**
 * A model as Anthropic's clients read it. What nobody here knows of it is null.
 * in: epoch milliseconds of the gateway's start, for the time at which a model came out: the same each time it is asked for
 * source: Anthropic API reference, "Models"
 */
export function anthropicModel({ id }: ModelObject, createdMs: number) {
  return {
    type: 'model',
    id,
    display_name: id,
    created_at: `${new Date(createdMs).toISOString().slice(0, 19)}Z`,
    ...{ lifecycle: 'active', line: null, capabilities: null, max_input_tokens: null, max_tokens: null },
    ...{ deprecated_at: null, retires_at: null },
  }
}

/** The whole list in one page, whatever size of pages is asked for. */
export function anthropicList({ data }: ModelList, createdMs: number) {
  return {
    data: data.map(model => anthropicModel(model, createdMs)),
    has_more: false,
    first_id: data.at(0)?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
  }
}
