import type { Config } from '../config.ts'
import { GatewayError, invalidRequest } from '../errors.ts'
import { printable } from '../lib/log.ts'
import { type HealthRules, healthRules, type ModelHealth, type ModelState } from '../model-health.ts'
import { type Price, priceOf } from '../pricing/price.ts'
import type { ModelGroup } from '../resources/model.ts'
import { compileHashKey } from '../routing/hash-key.ts'
import { type Group, type GroupMemory, orderCandidates, planGroup } from '../routing/order.ts'
import type { Candidate, Measures, TierMemory } from '../routing/strategy.ts'
import { cleanTags, selectByTags } from '../routing/tags.ts'
import { type CallerKey, type DirectEntry, type GroupEntry, isDirectEntry, type Snapshot } from '../store/snapshot.ts'
import type { Entry } from '../store/store.ts'
import { compileAccess, ipRestricted, type ResolvedModel } from './resolve.ts'
import { compileUpstream, type Upstream, type UpstreamTls } from './upstream.ts'

/** Where one attempt goes: plain values, no resource. Made once for a row, and used by every request until it changes. */
export type Target = {
  modelId: string
  /** The row's own name: the pattern of a wildcard, not what the caller spelt. */
  model: string
  provider: string
  upstreamModel: string
  upstream: Upstream
  /** What its tokens cost; undefined where the model has no price. */
  price: Price | undefined
  /** Milliseconds for a whole answer; 0: none. */
  timeoutMs: number
  /** Milliseconds of silence in a stream; 0: none. */
  streamTimeoutMs: number
}

/** A direct model that may serve a request, alone or as a member of a group, with what is known of it. */
export type Member = Candidate & {
  entry: DirectEntry
  state: ModelState
  rules: HealthRules
  /** Whether a caller's address may use it; undefined: all may. */
  allows: ((ip: string) => boolean) | undefined
  /** Retries that an operator asked for, on the model or the group; undefined: the deployment's default. */
  retries: number | undefined
  /** The target, and the provider key that it was made from. */
  aimed: { providerKey: Entry<'provider_keys'>; target: Target } | undefined
}

/** What a group adds to the rules of trying again (proxy-05 §4). */
export type GroupRules = { retriesOn429: boolean; fallbackStatuses: ReadonlySet<number> }

/** The group that was asked for. */
export type RoutedGroup = { entry: GroupEntry; rules: GroupRules }

/** The targets of one request, the one to try first in front. */
export type Route = {
  candidates: readonly Member[]
  /** Undefined for a direct model. */
  group: RoutedGroup | undefined
  /**
   * Makes a candidate ready to be called.
   * throws: invalid_upstream_config, provider_unavailable, invalid_upstream_credentials
   */
  aim(candidate: Member): Target
  /** The request is refused after all: as if it had not been routed. Only before anything else is routed. */
  takeBack(): void
}

/** What strategies may look at in a request. */
export type Asker = { headers: Headers; callerKey: CallerKey; clientIp: () => string }

export type Router = {
  /**
   * throws: what `aim` throws, for a direct model; for a group invalid_request (no target resolves, or none has the tags),
   * ip_restricted, all_candidates_unavailable
   */
  route(snapshot: Snapshot, model: ResolvedModel, asker: Asker, nowMs: number): Route
  /** throws: as `aim` */
  upstreamOf(entry: Entry<'provider_keys'>): Upstream
}

type Compiled = { upstream: Upstream } | { problem: GatewayError }

type CompiledGroup = {
  plan: Group<Member>
  route: RoutedGroup
  hashKey: ReturnType<typeof compileHashKey>
  memory: GroupMemory
  /** Whether a member has a list of addresses of its own. */
  hasAccess: boolean
}

/** Seconds after which a caller may ask again while background checks fail for all members (proxy-05 §5). */
const ALL_DOWN_RETRY_SECS = 30

export function createRouter(config: Config['upstream'], tls: UpstreamTls, health: ModelHealth, now: () => number): Router {
  // Keyed by immutable rows: a changed document is another row, and is compiled at its next use.
  const upstreams = new WeakMap<Entry<'provider_keys'>, Compiled>()
  const direct = new WeakMap<DirectEntry, Member>()
  // A group depends on the rows of its members: on all models of a snapshot, whose map stays the same until one is written.
  const groups = new WeakMap<Snapshot['models'], Map<string, CompiledGroup>>()
  /** What strategies remember, by the id of the group: it outlives changes of configuration. */
  const memories = new Map<string, GroupMemory>()
  const measures: Measures = {
    inFlight: id => health.of(id).inFlight,
    latencyMs: id => health.of(id).latencyForRouting(now()),
  }

  const compile = (entry: Entry<'provider_keys'>): Compiled => {
    let known = upstreams.get(entry)
    if (!known) {
      try {
        known = { upstream: compileUpstream(entry, tls) }
      } catch (error) {
        if (!(error instanceof GatewayError)) throw error
        known = { problem: error }
      }
      upstreams.set(entry, known)
    }
    return known
  }

  const upstreamOf = (entry: Entry<'provider_keys'>): Upstream => {
    const known = compile(entry)
    if ('problem' in known) {
      const { kind, message, cause } = known.problem
      throw new GatewayError(kind, message, { cause })
    }
    return known.upstream
  }

  const aim = (snapshot: Snapshot, member: Member, group: ModelGroup | undefined): Target => {
    const { value } = member.entry
    const providerKey = snapshot.providerKeys.get(value.provider_key_id)
    if (!providerKey) {
      throw new GatewayError(
        'invalid_upstream_config',
        `invalid upstream configuration: model "${value.display_name}" names a provider key that does not exist`,
      )
    }
    if (member.aimed?.providerKey === providerKey) return member.aimed.target
    const target: Target = {
      modelId: member.id,
      model: value.display_name,
      provider: value.provider,
      upstreamModel: value.model_name,
      upstream: upstreamOf(providerKey),
      price: value.cost && priceOf(value.cost.input_per_1k, value.cost.output_per_1k),
      timeoutMs: value.timeout ?? group?.timeout ?? config.timeout_ms,
      streamTimeoutMs: streamTimeoutMs(value, group, config),
    }
    member.aimed = { providerKey, target }
    return target
  }

  /** Whether `aim` would give a target. */
  const isUsable = (snapshot: Snapshot, { entry, aimed }: Member): boolean => {
    const providerKey = snapshot.providerKeys.get(entry.value.provider_key_id)
    return providerKey !== undefined && (aimed?.providerKey === providerKey || 'upstream' in compile(providerKey))
  }

  const memberOf = (entry: DirectEntry, more: Pick<Member, 'weight' | 'priority' | 'tags' | 'retries'>): Member => ({
    ...more,
    id: entry.id,
    alias: entry.value.display_name,
    cost: entry.value.cost && entry.value.cost.input_per_1k + entry.value.cost.output_per_1k,
    entry,
    state: health.of(entry.id),
    rules: healthRules(entry.value),
    allows: compileAccess(entry.value.allowed_cidrs),
    aimed: undefined,
  })

  const groupOf = (snapshot: Snapshot, entry: GroupEntry): CompiledGroup => {
    let known = groups.get(snapshot.models)
    if (!known) {
      known = new Map()
      groups.set(snapshot.models, known)
      for (const id of memories.keys()) if (!snapshot.entries.models.has(id)) memories.delete(id)
    }
    let group = known.get(entry.id)
    if (!group) {
      group = compileGroup(snapshot, entry)
      known.set(entry.id, group)
    }
    return group
  }

  const compileGroup = (snapshot: Snapshot, entry: GroupEntry): CompiledGroup => {
    const { routing } = entry.value
    const members = new Map<string, Member>()
    let unresolved: string | undefined
    for (const { model, weight = 1, priority = 0, tags = [] } of routing.targets) {
      const row = snapshot.models.get(model)
      if (!row || !isDirectEntry(row)) unresolved ??= model
      // A model that is named twice is one member: trying it again is what retries are for.
      else if (!members.has(row.id)) {
        members.set(
          row.id,
          memberOf(row, {
            weight: Math.max(weight, 1),
            priority,
            tags: cleanTags(tags),
            retries: row.value.retries ?? routing.retries,
          }),
        )
      }
    }
    // A target that names nothing is left out as long as another is there to answer.
    if (members.size === 0) throw invalidRequest(`routing target "${printable(unresolved ?? '')}" does not resolve to a Model`)
    let memory = memories.get(entry.id)
    if (!memory) {
      memory = new Map()
      memories.set(entry.id, memory)
    }
    return {
      plan: planGroup(routing.strategy ?? 'failover', [...members.values()], {
        maxFallbacks: routing.max_fallbacks,
        whenAllUnavailable: routing.when_all_unavailable ?? 'fail',
      }),
      route: {
        entry,
        rules: {
          retriesOn429: routing.retry_on_429 ?? false,
          fallbackStatuses: new Set(routing.fallback_on_statuses),
        },
      },
      hashKey: compileHashKey(routing.hash_on),
      memory,
      hasAccess: [...members.values()].some(({ allows }) => allows !== undefined),
    }
  }

  return {
    upstreamOf,
    route(snapshot, model, asker, nowMs) {
      if (model.kind === 'group') {
        const group = groupOf(snapshot, model.entry)
        const { plan, route } = group
        const ordered: TierMemory[] | undefined = plan.strategy.takeBack && []
        const candidates = orderCandidates(plan, eligible(group, asker), {
          memory: group.memory,
          hashKey: plan.strategy.usesHashKey ? hashKey(group, asker) : '',
          measures,
          availability: member => (isUsable(snapshot, member) ? member.state.availability(member.rules, nowMs) : 'unusable'),
          ...(ordered && { ordered }),
        })
        if (!candidates) {
          throw new GatewayError(
            'all_candidates_unavailable',
            `no target of model "${printable(route.entry.value.display_name)}" is available: background checks fail for all of them`,
            { retryAfterSecs: ALL_DOWN_RETRY_SECS },
          )
        }
        return {
          candidates,
          group: route,
          aim: member => aim(snapshot, member, route.entry.value),
          takeBack: () => {
            for (const memory of ordered ?? []) plan.strategy.takeBack?.(memory)
          },
        }
      }
      const { entry, captured } = model
      let member = direct.get(entry)
      if (!member) {
        member = memberOf(entry, { weight: 1, priority: 0, tags: [], retries: entry.value.retries })
        direct.set(entry, member)
      }
      const target = filledIn(aim(snapshot, member, undefined), captured)
      return { candidates: [member], group: undefined, aim: () => target, takeBack: () => {} }
    },
  }
}

/** The members that may serve this caller, in the order of declaration: by tags, then by address (proxy-05 §2). */
function eligible({ plan, hasAccess }: CompiledGroup, { headers, clientIp }: Asker): readonly Member[] {
  let members = plan.members
  if (plan.hasTags) {
    const chosen = selectByTags(members, headers.get('x-aisix-routing-tags'))
    if ('unmatched' in chosen) {
      throw invalidRequest(`no routing target matches request tags [${printable(chosen.unmatched.join(', '))}]`)
    }
    members = chosen
  }
  if (!hasAccess) return members
  const ip = clientIp()
  const allowed = members.filter(({ allows }) => allows === undefined || allows(ip))
  if (allowed.length === 0) throw ipRestricted()
  return allowed
}

function hashKey(group: CompiledGroup, { headers, callerKey, clientIp }: Asker): string {
  return group.hashKey({ header: name => headers.get(name), apiKeyId: callerKey.entry.id, clientIp })
}

/** Of a pattern: the upstream's name with what the caller's `*` stood for (proxy-01 §2). */
function filledIn(target: Target, captured: string | undefined): Target {
  if (captured === undefined || !target.upstreamModel.includes('*')) return target
  // A function as replacement: `$` in the captured text means nothing.
  return { ...target, upstreamModel: target.upstreamModel.replace('*', () => captured) }
}

type Timeouts = { timeout?: number | undefined; stream_timeout?: number | undefined }

/** The target's `stream_timeout`, else the group's, else a `timeout` of either, else the deployment's (proxy-02 §6). */
function streamTimeoutMs(model: Timeouts, group: Timeouts | undefined, config: Config['upstream']): number {
  const own = model.stream_timeout || group?.stream_timeout
  if (own) return own
  const whole = model.timeout ?? group?.timeout
  if (whole !== undefined) return whole
  return config.stream_timeout_ms > 0 ? config.stream_timeout_ms : config.timeout_ms
}
