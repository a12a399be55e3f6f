import { clientGone, type ErrorName, GatewayError, toGatewayError } from '../errors.ts'
import { openAttempt } from '../exchange.ts'
import type { CallerKey, Snapshot } from '../store/snapshot.ts'
import { type Admission, targetRateLimited } from './admit.ts'
import { type Answer, type AttemptInput, attempt } from './attempt.ts'
import type { Caller } from './caller.ts'
import type { Member, Route, Target } from './route.ts'
import { logAttempt } from './settle.ts'

export type DispatchInput = AttemptInput & {
  route: Route
  admission: Admission
  snapshot: Snapshot
  callerKey: CallerKey
  /** Retries at a target that says nothing of them and after which no other is tried. */
  retriesDefault: number
  /** Epoch milliseconds. */
  now: () => number
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
  if (entered.failure) return goOn(input, 0, undefined, entered.failure)
  const { target } = entered
  return attempt(input, target, 'initial').catch(error => goOn(input, 0, target, toGatewayError(error)))
}

/** Sends the request to a candidate: its own limits let it in, and from then on it counts among what is under way there. */
function enter(
  input: DispatchInput,
  index: number,
): { target: Target; failure?: undefined } | { failure: GatewayError; target?: undefined } {
  const { route, exchange, admission, snapshot, callerKey } = input
  const member = route.candidates[index]
  if (!member) throw new Error('a route without candidates')
  let target: Target
  try {
    target = route.aim(member)
  } catch (error) {
    return { failure: toGatewayError(error) }
  }
  speakOf(input, target)
  if (!route.group) {
    exchange.enter(member.state, member.rules, undefined)
    return { target }
  }
  const entered = admission.admitMember(snapshot, callerKey, route.group, member, input.now())
  if ('refusal' in entered) {
    const { refusal } = entered
    const kind = exchange.attempts.length === 0 ? 'initial' : 'fallback'
    const record = openAttempt(exchange, kind, member.id, member.alias, input.monotonic())
    record.errorKind = 'rate_limit_exceeded'
    record.endedAt = record.startedAt
    return { failure: targetRateLimited(member.alias, refusal, refusal.retryAfterSecs ?? PLACE_RETRY_SECS) }
  }
  exchange.enter(member.state, member.rules, entered.lease)
  return { target }
}

/**
 * What follows a failure: another try at the same target while it has retries left, or the next candidate.
 * in: `target` undefined where the candidate could not be called at all
 */
async function goOn(
  input: DispatchInput,
  firstIndex: number,
  firstTarget: Target | undefined,
  firstFailure: GatewayError,
): Promise<Answer> {
  const { route, exchange, caller, random, isCommitted } = input
  let index = firstIndex
  let target = firstTarget
  let failure = firstFailure
  let tried = 1
  let soonestSecs = Number.POSITIVE_INFINITY
  for (;;) {
    const member = route.candidates[index]
    if (!member) throw new Error('a candidate that is not on the route')
    if (target) member.state.failed(failure, member.rules, input.now())
    else soonestSecs = Math.min(soonestSecs, failure.retryAfterSecs ?? Number.POSITIVE_INFINITY)
    // A member that had no room was not asked: whoever is told of it alone may well ask again by itself.
    failure.wasRetried = exchange.attempts.length > 1 && !isFull(failure)
    const isOver = caller.isGone || isCommitted()
    const hasNext = index + 1 < route.candidates.length
    if (!isOver && target && tried <= retriesOf(input, member, hasNext) && mayRetry(failure, member, route)) {
      logAttempt(input.log, exchange, failure, 'retry')
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
    if (isOver || !hasNext || !mayGoOn(failure, route)) return giveUp(input, everyTargetIsFull(failure, soonestSecs))
    logAttempt(input.log, exchange, failure, 'fallback')
    exchange.leave()
    index += 1
    tried = 1
    const entered = enter(input, index)
    target = entered.target
    if (entered.failure) {
      failure = entered.failure
      continue
    }
    try {
      return await attempt(input, entered.target, exchange.attempts.length === 0 ? 'initial' : 'fallback')
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
function speakOf({ exchange }: DispatchInput, target: Target): void {
  exchange.provider = target.provider
  exchange.model = target.model
  exchange.modelId = target.modelId
  exchange.upstreamModel = target.upstreamModel
  exchange.providerKeyId = target.upstream.id
  exchange.providerKeyName = target.upstream.name
  exchange.upstreamOrigin = target.upstream.origin
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
