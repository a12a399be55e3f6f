import { type Labels, NO_LABELS } from '../exchange.ts'
import type { CallerKey, DirectEntry } from '../store/snapshot.ts'
import type { ResolvedModel } from './resolve.ts'
import type { Member } from './route.ts'

/** By the caller's row, then by the row, or the target made from it, that the caller asked for. */
const byCaller = new WeakMap<CallerKey, WeakMap<object, Labels>>()
const callersOwn = new WeakMap<CallerKey, Labels>()
const onRoutes = new WeakMap<CallerKey, WeakMap<object, WeakMap<object, Labels>>>()
const unresolved = new WeakMap<CallerKey, Labels>()

/** What a model name that matches nothing is called. source: control-observability §1 */
const UNRESOLVED = 'unresolved'

/** Of a caller that has not named a model. */
export function labelsOfCaller(caller: CallerKey): Labels {
  return remembered(callersOwn, caller, () => ({ ...NO_LABELS, ...callerPart(caller) }))
}

/** Of a caller that named a model which there is not. */
export function labelsOfUnresolved(caller: CallerKey): Labels {
  return remembered(unresolved, caller, () => ({ ...NO_LABELS, ...callerPart(caller), name: UNRESOLVED }))
}

/** Of a caller and the row that it asked for, before a target is chosen. */
export function labelsOfModel(caller: CallerKey, { kind, entry }: ResolvedModel): Labels {
  return remembered(ofCaller(caller), entry, () => ({
    ...NO_LABELS,
    ...callerPart(caller),
    name: entry.value.display_name,
    modelId: entry.id,
    model: entry.value.display_name,
    ...(kind === 'direct' ? { provider: entry.value.provider } : {}),
  }))
}

/**
 * Of a caller and the candidate that is tried. A target stands for the rows that it was made from: one whose provider key
 * changed is another object.
 * in: alias of the group that was asked for, where one was
 */
export function labelsOfMember(caller: CallerKey, member: Member, group: string | undefined): Labels {
  return remembered(ofCaller(caller), member.aimed?.target ?? member, () => {
    const { value, id } = member.entry
    const key = member.aimed?.target.upstream
    return {
      ...callerPart(caller),
      name: group ?? value.display_name,
      modelId: id,
      model: value.display_name,
      isMember: group !== undefined,
      provider: value.provider,
      upstreamModel: value.model_name,
      providerKeyId: key?.id ?? '',
      providerKeyName: key?.name ?? '',
    }
  })
}

/**
 * Of a caller on a passthrough route. Labels are counted by the caller, what stands for the route and its provider key, and
 * the model whose limits apply, where the request named one.
 */
export function labelsOfRoute(caller: CallerKey, target: RouteLabels, model: DirectEntry | undefined): Labels {
  const ofTarget = remembered(
    remembered(onRoutes, caller, () => new WeakMap()),
    target,
    () => new WeakMap<object, Labels>(),
  )
  return remembered(ofTarget, model ?? target, () => ({
    ...NO_LABELS,
    ...callerPart(caller),
    ...(model && {
      name: model.value.display_name,
      modelId: model.id,
      model: model.value.display_name,
      upstreamModel: model.value.model_name,
    }),
    provider: model?.value.provider ?? target.provider ?? '',
    providerKeyId: target.providerKeyId ?? '',
    providerKeyName: target.providerKeyName ?? '',
  }))
}

/** What labels say of where a passthrough route leads; absent where it has no provider key. */
type RouteLabels = { provider: string | undefined; providerKeyId: string | undefined; providerKeyName: string | undefined }

function callerPart({ entry: { id, value } }: CallerKey) {
  return { apiKeyId: id, teamId: value.team_id ?? '', userId: value.user_id ?? '', userName: value.user_name ?? '' }
}

function ofCaller(caller: CallerKey): WeakMap<object, Labels> {
  return remembered(byCaller, caller, () => new WeakMap())
}

function remembered<K extends object, V>(known: WeakMap<K, V>, key: K, make: () => V): V {
  let value = known.get(key)
  if (value === undefined) {
    value = make()
    known.set(key, value)
  }
  return value
}
