import type { Budgets } from '../budgets/budget.ts'
import { clientGone, type ErrorName, GatewayError, toGatewayError } from '../errors.ts'
import { openAttempt } from '../exchange.ts'
import type { Refusal } from '../limits/limit.ts'
import type { CallerKey, Snapshot } from '../store/snapshot.ts'
import { type Admission, targetRateLimited } from './admit.ts'
import type { Answer } from './answer.ts'
import { attempt } from './attempt.ts'
import type { AttemptInput } from './attempt-input.ts'
import type { Caller } from './caller.ts'
import { labelsOfMember } from './labels.ts'
import type { Member, Route, Target } from './route.ts'
import { logAttempt } from './settle.ts'

export type DispatchInput = AttemptInput & {
  route: Route
  admission: Admission
  budgets: Pick<Budgets, 'memberRefusal' | 'reject'>
  snapshot: Snapshot
  callerKey: CallerKey
  /** Retries at a target that says nothing of them and after which no other is tried. */
  retriesDefault: number
  random: () => number
  /** True once something went out to the caller: from then on nothing is tried again. */
  isCommitted: () => boolean
}

const BACKOFF_FIRST_MS = 250
const BACKOFF_MAX_MS = 2_000
const JITTER_MS = 250
/** A hint of the upstream's is followed when it is this short, in seconds. */
const HINT_MAX_SECS = 5
/** What callers are told to wait for a place at a member that runs as many requests as it may: nobody knows when one ends. */
const PLACE_RETRY_SECS = 1

/** Milliseconds before try `k` (1 is the first repetition): proxy-02 §7. */
export function backoffMs(k: number, retryAfterSecs: number | undefined, random: () => number): number {
  const jitter = random() * JITTER_MS
  if (retryAfterSecs !== undefined && retryAfterSecs >= 1 && retryAfterSecs <= HINT_MAX_SECS)
    return retryAfterSecs * 1_000 + jitter
  return Math.min(BACKOFF_FIRST_MS * 2 ** (k - 1), BACKOFF_MAX_MS) + jitter
}

/**
 * Candidates → the first good answer of one of them. The only place that tries again.
 * throws: the last attempt's error, or client_disconnected
 */
export function dispatch(input: DispatchInput): Promise<Answer> {
  // The usual request is answered by the candidate that it is sent to first: what else there may be to do costs it nothing.
  const entered = enter(input, 0)
  if (entered.failure) return goOn(input, entered, entered.failure)
  return attempt(input, entered.target, 'initial').catch(error => goOn(input, entered, toGatewayError(error)))
}

/** What became of sending the request to a candidate: a target to call, or why there is none. */
type Entered =
  | { target: Target; failure?: undefined; refusal?: undefined }
  | { target?: undefined; failure: GatewayError; refusal: Refusal | undefined }

/** Sends the request to a candidate: its own limits let it in, and from then on it counts among what is under way there. */
function enter(input: DispatchInput, index: number): Entered {
  const { route, exchange, admission, snapshot, callerKey } = input
  const member = route.candidates[index]
  if (!member) throw new Error('a route without candidates')
  let target: Target
  try {
    target = route.aim(member)
  } catch (error) {
    const failure = toGatewayError(error)
    speakOf(input, member, undefined)
    recordUncalled(input, failure)
    return { failure, refusal: undefined }
  }
  speakOf(input, member, target)
  if (!route.group) {
    exchange.enter(member.state, member.rules, undefined)
    return { target }
  }
  const overspent = input.budgets.memberRefusal(snapshot, member.id, input.now())
  if (overspent) {
    recordUncalled(input, overspent)
    return { failure: overspent, refusal: undefined }
  }
  const entered = admission.admitMember(snapshot, callerKey, route.group, member, input.now(), exchange.counted)
  if ('refusal' in entered) {
    const { refusal } = entered
    const failure = targetRateLimited(member.alias, refusal, refusal.retryAfterSecs ?? PLACE_RETRY_SECS)
    recordUncalled(input, failure, 'rate_limit_exceeded')
    return { failure, refusal }
  }
  exchange.enter(member.state, member.rules, entered.lease)
  return { target }
}

/** The record of a candidate that was not called at all (proxy-05 §8). */
function recordUncalled(
  { exchange, monotonic }: DispatchInput,
  { kind, status, recorded }: GatewayError,
  errorKind: string = kind,
): void {
  const record = openAttempt(exchange, exchange.attempts.length === 0 ? 'initial' : 'fallback', undefined, monotonic())
  record.isCalled = false
  record.errorKind = errorKind
  record.errorMessage = recorded
  record.status = status
  record.endedAt = record.startedAt
}

/**
 * What follows a failure: another try at the same target while it has retries left, or the next candidate.
 * in: what became of the first candidate, and how it failed
 */
async function goOn(input: DispatchInput, first: Entered, firstFailure: GatewayError): Promise<Answer> {
  const { route, exchange, caller, random, isCommitted, admission, question } = input
  let index = 0
  let entered = first
  let failure = firstFailure
  /** Tries at this target, and calls of any. */
  let tried = 1
  let calls = 0
  let soonestSecs = Number.POSITIVE_INFINITY
  for (;;) {
    const member = route.candidates[index]
    if (!member) throw new Error('a candidate that is not on the route')
    const { target, refusal } = entered
    if (target) {
      calls += 1
      member.state.failed(failure, member.rules, input.now())
    } else soonestSecs = Math.min(soonestSecs, failure.retryAfterSecs ?? Number.POSITIVE_INFINITY)
    // A member that had no room was not asked: whoever is told of it alone may well ask again by itself.
    failure.wasRetried = calls > 1 && !isFull(failure)
    const isOver = caller.isGone || isCommitted()
    const hasNext = index + 1 < route.candidates.length
    const isRepeatable = !question.call || question.call.method === 'GET'
    if (!isOver && isRepeatable && target && tried <= retriesOf(input, member, hasNext) && mayRetry(failure, member, route)) {
      logAttempt(input.log, 'info', exchange, failure, 'retry')
      await pause(backoffMs(tried, failure.retryAfterSecs, random), caller)
      tried += 1
      if (caller.isGone) failure = clientGone()
      if (caller.isGone || isCommitted()) return giveUp(input, failure)
      try {
        return await attempt(input, target, 'retry')
      } catch (next) {
        failure = toGatewayError(next)
      }
      continue
    }
    if (isOver || !hasNext || !mayGoOn(failure, route)) {
      if (refusal) admission.reject(refusal)
      if (failure.kind === 'budget_exceeded') input.budgets.reject(failure)
      return giveUp(input, everyTargetIsFull(failure, soonestSecs))
    }
    // A member that has no room or no budget left is no failure: groups that fill one server after the other would log every
    // request twice.
    const isUsual = isFull(failure) || failure.kind === 'budget_exceeded'
    logAttempt(input.log, isUsual ? 'debug' : 'info', exchange, failure, 'fallback')
    exchange.passOn()
    index += 1
    tried = 1
    entered = enter(input, index)
    if (entered.failure) {
      failure = entered.failure
      continue
    }
    try {
      return await attempt(input, entered.target, 'fallback')
    } catch (next) {
      failure = toGatewayError(next)
    }
  }
}

function giveUp({ exchange }: DispatchInput, failure: GatewayError): never {
  exchange.leave()
  throw failure
}

/** A caller whom no member let in is told to come back when the first of them may have room. */
function everyTargetIsFull(failure: GatewayError, soonestSecs: number): GatewayError {
  const { kind, message, policy, retryAfterSecs } = failure
  if (!isFull(failure) || retryAfterSecs === undefined || soonestSecs >= retryAfterSecs) return failure
  return new GatewayError(kind, message, { retryAfterSecs: soonestSecs, ...(policy ? { policy } : {}) })
}

function isFull({ kind }: GatewayError): boolean {
  return kind === 'targets_rate_limited' || kind === 'rate_limited'
}

/** The exchange speaks of the target that was tried last. */
function speakOf({ exchange, callerKey }: DispatchInput, member: Member, target: Target | undefined): void {
  exchange.labels = labelsOfMember(callerKey, member, exchange.group)
  exchange.upstreamOrigin = target?.upstream.origin
}

/** proxy-02 §7: where another candidate follows, it is tried rather than the same one again, unless somebody asked for retries. */
function retriesOf({ retriesDefault }: DispatchInput, { retries }: Member, hasNext: boolean): number {
  return retries ?? (hasNext ? 0 : retriesDefault)
}

/** Timeouts are tried again at the same target only where somebody asked for retries (proxy-02 §7). */
function mayRetry(failure: GatewayError, { retries }: Member, { group }: Route): boolean {
  if (failure.retry === 'yes' || (failure.retry === 'if-configured' && retries !== undefined)) return true
  return isListed(failure, group)
}

/** What speaks against this member alone: its configuration, its limits, its dialect. Another may well answer. */
const MEMBERS_OWN: ReadonlySet<ErrorName> = new Set([
  'invalid_upstream_config',
  'invalid_upstream_credentials',
  'provider_unavailable',
  'not_implemented',
  'rate_limited',
  'targets_rate_limited',
  'budget_exceeded',
])

function mayGoOn(failure: GatewayError, { group }: Route): boolean {
  if (!group) return false
  const { retry, kind, upstreamStatus } = failure
  // A redirect is a mistake in this member's address: asking it again is of no use, asking another is.
  const isRedirect = upstreamStatus !== undefined && upstreamStatus >= 300 && upstreamStatus < 400
  return retry !== 'no' || isRedirect || MEMBERS_OWN.has(kind) || isListed(failure, group)
}

/** Statuses that the group's operator wants to be tried again and elsewhere. */
function isListed({ upstreamStatus }: GatewayError, group: Route['group']): boolean {
  if (!group || upstreamStatus === undefined) return false
  return (upstreamStatus === 429 && group.rules.retriesOn429) || group.rules.fallbackStatuses.has(upstreamStatus)
}

/** Waits, or less when the caller leaves. */
async function pause(ms: number, caller: Caller): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, ms)
  caller.tell({ onCallerGone: resolve })
  await promise
  clearTimeout(timer)
  caller.tell(undefined)
}
