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
  name: string
  id: string
  limits: Limits
  keyFor: (subject: Subject) => string | undefined
  isSuspended: Matched['isSuspended']
}

/** source: proxy-06 §5 */
export function compilePolicies(entries: Iterable<{ id: string; value: RateLimitPolicy }>): PolicySet {
  const clocks = createWallClocks()
  const policies: Compiled[] = []
  let readsModelName = false
  for (const { id, value } of entries) {
    const { name, schedules = [] } = value
    const form = isClassic(value) ? compileClassic(id, value) : compileConditional(id, value)
    if (Object.values(form.limits).every(limit => limit === undefined)) continue
    const isSuspended = schedules.length > 0 ? compileSchedules(schedules, clocks) : undefined
    policies.push({ id, name, isSuspended, ...form })
    if (!isClassic(value)) readsModelName ||= leavesOf(value.conditions ?? []).some(leaf => leaf.dimension === 'model_name')
  }
  const forGroups = policies.filter(({ isAskedForGroups }) => isAskedForGroups)
  const forTargets = policies.filter(({ isAskedForTargets }) => isAskedForTargets)
  return {
    isEmpty: policies.length === 0,
    readsModelName,
    atAdmission: (subject, isGroup) => match(isGroup ? forGroups : policies, subject),
    atTarget: subject => match(forTargets, subject),
  }
}

function match(policies: readonly Compiled[], subject: Subject): Matched[] {
  const matched: Matched[] = []
  for (const { id, name, limits, keyFor, isSuspended } of policies) {
    const key = keyFor(subject)
    if (key !== undefined) matched.push({ limit: { key, limits, layer: 'policy', policy: { id, name } }, isSuspended })
  }
  return matched
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
    limits: limitsOf(window, max_requests, max_tokens),
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
  const looksAtModel =
    leavesOf(conditions).some(({ dimension }) => MODEL_PROPERTIES.includes(dimension)) ||
    dimensions.some(dimension => MODEL_PROPERTIES.includes(dimension))
  return {
    isAskedForGroups: !looksAtModel,
    isAskedForTargets: looksAtModel,
    limits,
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
