import { GatewayError } from '../errors.ts'
import { printable } from '../lib/log.ts'
import { type BucketLimit, isRefusal, type Lease, type Limiter, type Refusal } from '../limits/limit.ts'
import { compilePolicies, type Matched, type PolicySet, type Subject } from '../limits/policy-set.ts'
import type { RemainingLimits } from '../limits/remaining.ts'
import type { RateLimit } from '../resources/rate-limit.ts'
import type { CallerKey, Snapshot } from '../store/snapshot.ts'
import type { Entry } from '../store/store.ts'
import type { ResolvedModel } from './resolve.ts'
import type { Member, RoutedGroup } from './route.ts'

/** The buckets that a request goes through: those that are always there, and those of policies with schedules. */
type Plan = { always: readonly BucketLimit[]; scheduled: readonly Matched[] }

/** The rate limits of requests: which buckets they go through, and whether these let them in. */
export type Admission = {
  /**
   * Lets a request in: key, then model or group, then policies (proxy-06 §3).
   * returns: what the request holds from now on; undefined where nothing limits it
   * throws: rate_limited; then nothing is counted
   */
  admit(snapshot: Snapshot, caller: CallerKey, model: ResolvedModel, alias: string, nowMs: number): Lease | undefined
  /**
   * Lets a request in that names no model, by the key's limits and the policies that look at no model.
   * in: `route`, what stands for the passthrough route, the same object as long as nothing of it changes
   * throws: rate_limited
   */
  admitRoute(snapshot: Snapshot, caller: CallerKey, route: { provider: string | undefined }, nowMs: number): Lease | undefined
  /** Lets a request in at a member of a group, by the member's own limits and the policies that look at the member. */
  admitMember(
    snapshot: Snapshot,
    caller: CallerKey,
    group: RoutedGroup,
    member: Member,
    nowMs: number,
    counted: ReadonlySet<string> | undefined,
  ): { lease: Lease | undefined } | { refusal: Refusal }
  /** Counts a refusal by a member that the caller is told of: no other member could answer. */
  reject(refusal: Refusal): void
  /** `x-ratelimit-*` headers of an answer, from the key's own limits (proxy-01 §10), and the gauges that say the same. */
  describe(caller: CallerKey, model: ResolvedModel, headers: Record<string, string>, nowMs: number): void
}

/** Plans by the rows that they follow from; a row that changes is another object. */
type Plans = WeakMap<CallerKey, WeakMap<object, Plan>>

/** What follows from one state of the policies. */
type Remembered = {
  policies: PolicySet
  plans: Plans
  /** Of patterns, by the row and the spelling. */
  spellings: WeakMap<object, Map<string, Plans>>
  /** By the group, then by the member's row. */
  memberPlans: WeakMap<object, Plans>
}

/** Spellings of one pattern that are remembered. */
const SPELLINGS_MAX = 1_000

export function createAdmission(limiter: Limiter, remaining: RemainingLimits): Admission {
  // What matches a request is worked out once for each pair of key and model: no request looks at all policies.
  const sets = new WeakMap<object, Remembered>()
  const keyLimits = new WeakMap<Entry<'api_keys'>, { limit: BucketLimit | undefined }>()

  const setOf = (snapshot: Snapshot) => {
    const rows = snapshot.entries.rate_limit_policies
    let set = sets.get(rows)
    if (!set) {
      set = {
        policies: compilePolicies(rows.values()),
        plans: new WeakMap(),
        spellings: new WeakMap(),
        memberPlans: new WeakMap(),
      }
      sets.set(rows, set)
    }
    return set
  }

  const keyLimitOf = ({ entry }: CallerKey): BucketLimit | undefined => {
    let known = keyLimits.get(entry)
    if (!known) {
      known = { limit: bucketLimit(`api_key:${entry.id}`, 'api_key', entry.value.rate_limit) }
      keyLimits.set(entry, known)
    }
    return known.limit
  }

  const planOf = (snapshot: Snapshot, caller: CallerKey, model: ResolvedModel, alias: string): Plan => {
    const { policies, plans, spellings } = setOf(snapshot)
    const make = () => {
      const { entry } = model
      const isGroup = model.kind === 'group'
      const provider = model.kind === 'group' ? undefined : model.entry.value.provider
      const matched = policies.isEmpty
        ? []
        : policies.atAdmission({ ...subjectOf(caller), modelId: entry.id, modelName: alias, provider }, isGroup)
      return planned([keyLimitOf(caller), modelLimit(entry.id, entry.value.rate_limit)], matched)
    }
    if (model.kind === 'group' || model.captured === undefined || !policies.readsModelName) {
      return remembered(plans, caller, model.entry, make)
    }
    // Of a pattern every spelling is a model name of its own: what matched one of them says nothing about the next.
    let spelt = spellings.get(model.entry)
    // Callers may spell as they like, so it must not pile up.
    if (!spelt || spelt.size >= SPELLINGS_MAX) {
      spelt = new Map()
      spellings.set(model.entry, spelt)
    }
    let ofSpelling = spelt.get(alias)
    if (!ofSpelling) {
      ofSpelling = new WeakMap()
      spelt.set(alias, ofSpelling)
    }
    return remembered(ofSpelling, caller, model.entry, make)
  }

  const memberPlanOf = (snapshot: Snapshot, caller: CallerKey, group: RoutedGroup, member: Member): Plan => {
    const { policies, memberPlans } = setOf(snapshot)
    let plans = memberPlans.get(group.entry)
    if (!plans) {
      plans = new WeakMap()
      memberPlans.set(group.entry, plans)
    }
    const { entry } = member
    return remembered(plans, caller, entry, () => {
      const matched = policies.isEmpty
        ? []
        : policies.atTarget({
            ...subjectOf(caller),
            modelId: entry.id,
            modelName: entry.value.display_name,
            provider: entry.value.provider,
            group: { id: group.entry.id, name: group.entry.value.display_name },
          })
      return planned([modelLimit(entry.id, entry.value.rate_limit)], matched)
    })
  }

  const routePlanOf = (snapshot: Snapshot, caller: CallerKey, route: { provider: string | undefined }): Plan => {
    const { policies, plans } = setOf(snapshot)
    return remembered(plans, caller, route, () => {
      const { provider } = route
      const subject: Subject = { ...subjectOf(caller), modelId: undefined, modelName: undefined, provider }
      return planned([keyLimitOf(caller)], policies.isEmpty ? [] : policies.atAdmission(subject, false))
    })
  }

  const admitBy = (plan: Plan, nowMs: number): Lease | undefined => {
    const outcome = enter(limiter, plan, nowMs)
    if (outcome && isRefusal(outcome)) {
      limiter.reject(outcome)
      throw rateLimited(outcome)
    }
    return outcome
  }

  return {
    admit: (snapshot, caller, model, alias, nowMs) => admitBy(planOf(snapshot, caller, model, alias), nowMs),
    admitRoute: (snapshot, caller, route, nowMs) => admitBy(routePlanOf(snapshot, caller, route), nowMs),
    reject: limiter.reject,
    admitMember(snapshot, caller, group, member, nowMs, counted) {
      const outcome = enter(limiter, memberPlanOf(snapshot, caller, group, member), nowMs, counted)
      return outcome && isRefusal(outcome) ? { refusal: outcome } : { lease: outcome }
    },
    describe(caller, model, headers, nowMs) {
      const limit = keyLimitOf(caller)
      if (!limit) return
      const { rpm, tpm, concurrency } = limit.limits
      const { requests, tokens, inFlight } = limiter.standing(limit.key, nowMs)
      const requestsLeft = rpm === undefined ? undefined : Math.max(0, rpm - requests.rpm)
      const tokensLeft = tpm === undefined ? undefined : Math.max(0, tpm - tokens.tpm)
      if (rpm !== undefined || tpm !== undefined) {
        remaining.note(caller.entry.id, model.entry.value.display_name, requestsLeft, tokensLeft)
      }
      const reset = `${60 - (Math.floor(nowMs / 1_000) % 60)}s`
      if (rpm !== undefined) {
        headers['x-ratelimit-limit-requests'] = String(rpm)
        headers['x-ratelimit-remaining-requests'] = String(requestsLeft)
        headers['x-ratelimit-reset-requests'] = reset
      }
      if (tpm !== undefined) {
        headers['x-ratelimit-limit-tokens'] = String(tpm)
        headers['x-ratelimit-remaining-tokens'] = String(tokensLeft)
        headers['x-ratelimit-reset-tokens'] = reset
      }
      if (concurrency !== undefined) {
        headers['x-ratelimit-limit-concurrent'] = String(concurrency)
        headers['x-ratelimit-remaining-concurrent'] = String(Math.max(0, concurrency - inFlight))
      }
    },
  }
}

function remembered(plans: Plans, caller: CallerKey, row: object, make: () => Plan): Plan {
  let ofCaller = plans.get(caller)
  if (!ofCaller) {
    ofCaller = new WeakMap()
    plans.set(caller, ofCaller)
  }
  let plan = ofCaller.get(row)
  if (!plan) {
    plan = make()
    ofCaller.set(row, plan)
  }
  return plan
}

function subjectOf({ entry }: CallerKey): Pick<Subject, 'apiKeyId' | 'teamId' | 'userId'> {
  return { apiKeyId: entry.id, teamId: entry.value.team_id, userId: entry.value.user_id }
}

/** The bucket of a model or group; a direct request and one through a group share it (proxy-06 §3). */
function modelLimit(id: string, limits: RateLimit | undefined): BucketLimit | undefined {
  return bucketLimit(`model:${id}`, 'model', limits)
}

/** Undefined where no limit is set. */
function bucketLimit(key: string, layer: BucketLimit['layer'], limits: RateLimit | undefined): BucketLimit | undefined {
  const isLimited = limits !== undefined && Object.values(limits).some(each => each !== undefined)
  return isLimited ? { key, limits, layer } : undefined
}

function planned(own: readonly (BucketLimit | undefined)[], matched: readonly Matched[]): Plan {
  return {
    always: [
      ...own.filter(each => each !== undefined),
      ...matched.filter(({ isSuspended }) => isSuspended === undefined).map(({ limit }) => limit),
    ],
    scheduled: matched.filter(({ isSuspended }) => isSuspended !== undefined),
  }
}

function enter(
  limiter: Limiter,
  { always, scheduled }: Plan,
  nowMs: number,
  counted?: ReadonlySet<string>,
): Lease | Refusal | undefined {
  let buckets = always
  if (scheduled.length > 0) {
    buckets = [...always, ...scheduled.filter(({ isSuspended }) => !isSuspended?.(nowMs)).map(({ limit }) => limit)]
  }
  return buckets.length === 0 ? undefined : limiter.reserve(buckets, nowMs, counted)
}

const MESSAGES: Record<Refusal['scope'], string> = {
  requests: 'request limit exceeded (requests)',
  tokens: 'token limit exceeded (tokens)',
  concurrency: 'concurrency limit exceeded',
}

/** source: proxy-06 §4 */
function rateLimited({ scope, retryAfterSecs, limit: { policy } }: Refusal): GatewayError {
  const message = MESSAGES[scope]
  return new GatewayError('rate_limited', policy === undefined ? message : `${message} (policy '${printable(policy.name)}')`, {
    ...(retryAfterSecs === undefined ? {} : { retryAfterSecs }),
    ...(policy === undefined ? {} : { policy }),
  })
}

/**
 * What callers are told when a member of a group was over a limit and no other could answer: a policy is named, a limit of
 * the member's own is told as the upstream's (proxy-05 §4).
 * in: whole seconds after which a member may have room again
 */
export function targetRateLimited(model: string, refusal: Refusal, retryAfterSecs: number): GatewayError {
  if (refusal.limit.policy !== undefined) return rateLimited({ ...refusal, retryAfterSecs })
  const message = `routing target "${printable(model)}": ${MESSAGES[refusal.scope]}`
  return new GatewayError('targets_rate_limited', message, { retryAfterSecs })
}
