import {
  type ClassicPolicy,
  type ConditionalPolicy,
  GROUP_BY,
  type GroupBy,
  isClassic,
  leavesOf,
  type RateLimitPolicy,
} from '../resources/rate-limit-policy.ts'
import { compileConditions } from './conditions.ts'
import type { BucketLimit, Limits } from './limit.ts'
import { compileSchedules, createWallClocks } from './schedule.ts'
import { propertyOf, type Subject } from './subject.ts'

export type { Subject } from './subject.ts'

/** A policy that applies to a subject. */
export type Matched = {
  limit: BucketLimit
  /** Set where the policy has schedules: whether it is suspended at an instant, epoch milliseconds. */
  isSuspended: ((nowMs: number) => boolean) | undefined
}

/** All policies, compiled. What matches depends on the subject alone, so callers may remember it by who asks for what. */
export interface PolicySet {
  /** No policy limits anything. */
  readonly isEmpty: boolean
  /** Whether a condition reads `model_name`: what matched one name of a pattern then says nothing about the next. */
  readonly readsModelName: boolean
  /** Once for each request. For a group, policies that look at properties of the model are left to its targets. */
  atAdmission(subject: Subject, isGroup: boolean): Matched[]
  /** Once for each target of a group: policies that look at properties of the model, and classic ones that name the target. */
  atTarget(subject: Subject): Matched[]
}

/** One policy: when it is asked, and its bucket for a subject; undefined where it does not apply. */
type Compiled = {
  isAskedForGroups: boolean
  isAskedForTargets: boolean
  readsModelName: boolean
  name: string
  id: string
  limits: Limits
  /** What a classic policy is found by: it applies to no subject without it. */
  scope: { name: ClassicPolicy['scope']; ref: string } | undefined
  keyFor: (subject: Subject) => string | undefined
  isSuspended: Matched['isSuspended']
}

type PolicyEntry = { id: string; value: RateLimitPolicy }

/** By the document, which is never changed in place: a write compiles the policy that it wrote and no other. */
const compiled = new WeakMap<RateLimitPolicy, Compiled>()
const clocks = createWallClocks()

function compile({ id, value }: PolicyEntry): Compiled {
  const known = compiled.get(value)
  if (known?.id === id) return known
  const { name, schedules = [] } = value
  const form = isClassic(value) ? compileClassic(id, value) : compileConditional(id, value)
  const policy = { id, name, isSuspended: schedules.length > 0 ? compileSchedules(schedules, clocks) : undefined, ...form }
  compiled.set(value, policy)
  return policy
}

/** source: proxy-06 §5 */
export function compilePolicies(entries: Iterable<PolicyEntry>): PolicySet {
  const policies: Compiled[] = []
  for (const entry of entries) {
    const policy = compile(entry)
    if (Object.values(policy.limits).some(limit => limit !== undefined)) policies.push(policy)
  }
  const forAll = createFinder(policies)
  const forGroups = createFinder(policies.filter(({ isAskedForGroups }) => isAskedForGroups))
  const forTargets = createFinder(policies.filter(({ isAskedForTargets }) => isAskedForTargets))
  return {
    isEmpty: policies.length === 0,
    readsModelName: policies.some(policy => policy.readsModelName),
    atAdmission: (subject, isGroup) => (isGroup ? forGroups : forAll)(subject),
    atTarget: forTargets,
  }
}

/**
 * What matches a subject, in the order of the policies. Classic ones, of which there may be one for every key, are looked up
 * by what their scope names; only conditional ones are asked one after the other.
 */
function createFinder(policies: readonly Compiled[]): (subject: Subject) => Matched[] {
  const byScope = new Map<string, number[]>()
  const conditional: number[] = []
  for (const [at, { scope }] of policies.entries()) {
    if (scope === undefined) {
      conditional.push(at)
      continue
    }
    const name = `${scope.name} ${scope.ref}`
    const places = byScope.get(name)
    if (places) places.push(at)
    else byScope.set(name, [at])
  }
  return subject => {
    const { apiKeyId, modelId, teamId, userId } = subject
    const places = conditional.concat(
      byScope.get(`api_key ${apiKeyId}`) ?? [],
      modelId === undefined ? [] : (byScope.get(`model ${modelId}`) ?? []),
      teamId === undefined ? [] : (byScope.get(`team ${teamId}`) ?? []),
      teamId === undefined ? [] : (byScope.get(`team_member ${teamId}`) ?? []),
      userId === undefined ? [] : (byScope.get(`member ${userId}`) ?? []),
    )
    const matched: Matched[] = []
    for (const at of places.sort((a, b) => a - b)) {
      const policy = policies[at]
      const key = policy?.keyFor(subject)
      if (policy === undefined || key === undefined) continue
      const { id, name, limits, isSuspended } = policy
      matched.push({ limit: { key, limits, layer: 'policy', policy: { id, name } }, isSuspended })
    }
    return matched
  }
}

type Form = Omit<Compiled, 'id' | 'name' | 'isSuspended'>

function compileClassic(id: string, { scope, scope_ref, window, max_requests, max_tokens }: ClassicPolicy): Form {
  const key = bucketKey('policy', scope, scope_ref, id)
  const keyFor = (subject: Subject): string | undefined => {
    switch (scope) {
      case 'api_key':
        return subject.apiKeyId === scope_ref ? key : undefined
      case 'model':
        return subject.modelId === scope_ref ? key : undefined
      case 'team':
        return subject.teamId === scope_ref ? key : undefined
      case 'member':
        return subject.userId === scope_ref ? key : undefined
      case 'team_member':
        // The bucket is the user's, over all of their keys in the team.
        if (subject.teamId !== scope_ref || subject.userId === undefined) return undefined
        return `${key}:${encode(subject.userId)}`
    }
  }
  return {
    // A group is a model with an id of its own, and so is each of its targets: who calls is asked only once.
    isAskedForGroups: true,
    isAskedForTargets: scope === 'model',
    readsModelName: false,
    limits: limitsOf(window, max_requests, max_tokens),
    scope: { name: scope, ref: scope_ref },
    keyFor,
  }
}

/** Tokens are counted by the minute and the day alone: with the other windows their limit has no effect. */
function limitsOf(window: ClassicPolicy['window'], requests: number | undefined, tokens: number | undefined): Limits {
  switch (window) {
    case 'second':
      return { rps: requests }
    case 'minute':
      return { rpm: requests, tpm: tokens }
    case 'hour':
      return { rph: requests }
    case 'day':
      return { rpd: requests, tpd: tokens }
  }
}

const MODEL_PROPERTIES: readonly string[] = ['model', 'model_name', 'provider']

function compileConditional(id: string, { limits, conditions = [], group_by = [] }: ConditionalPolicy): Form {
  const holds = compileConditions(conditions)
  // In one order, however they were written down: counters survive a policy that was only tidied up.
  const dimensions: readonly GroupBy[] = GROUP_BY.filter(dimension => group_by.includes(dimension))
  const leaves = leavesOf(conditions)
  const looksAtModel =
    leaves.some(({ dimension }) => MODEL_PROPERTIES.includes(dimension)) ||
    dimensions.some(dimension => MODEL_PROPERTIES.includes(dimension))
  return {
    isAskedForGroups: !looksAtModel,
    isAskedForTargets: looksAtModel,
    readsModelName: leaves.some(({ dimension }) => dimension === 'model_name'),
    limits,
    scope: undefined,
    keyFor: subject => {
      if (!holds(subject)) return undefined
      let key = bucketKey('policy', 'v2', id)
      for (const dimension of dimensions) {
        const value = propertyOf(subject, dimension)
        if (value === undefined) return undefined
        key += `:${dimension}=${encode(value)}`
      }
      return key
    },
  }
}

function bucketKey(...parts: string[]): string {
  return parts.map(encode).join(':')
}

/** Percent-encodes what separates the parts of a key, so that no two combinations of values share a bucket. */
function encode(part: string): string {
  return part.replaceAll('%', '%25').replaceAll(':', '%3A').replaceAll('=', '%3D')
}
