import { clientGone, type GatewayError, toGatewayError } from '../errors.ts'
import { type Answer, type AttemptInput, attempt } from './attempt.ts'
import type { Caller } from './caller.ts'
import type { Target } from './route.ts'

export type DispatchInput = AttemptInput & {
  target: Target
  random: () => number
  /** True once something went out to the caller: from then on nothing is tried again. */
  isCommitted: () => boolean
}

const BACKOFF_FIRST_MS = 250
const BACKOFF_MAX_MS = 2_000
const JITTER_MS = 250
/** A hint of the upstream's is followed when it is this short, in seconds. */
const HINT_MAX_SECS = 5

/** Milliseconds before try `k` (1 is the first repetition): proxy-02 §7. */
export function backoffMs(k: number, retryAfterSecs: number | undefined, random: () => number): number {
  const jitter = random() * JITTER_MS
  if (retryAfterSecs !== undefined && retryAfterSecs >= 1 && retryAfterSecs <= HINT_MAX_SECS)
    return retryAfterSecs * 1_000 + jitter
  return Math.min(BACKOFF_FIRST_MS * 2 ** (k - 1), BACKOFF_MAX_MS) + jitter
}

/**
 * Target → its first good answer. The only place that tries again.
 * throws: the last attempt's error, or client_disconnected
 */
export function dispatch(input: DispatchInput): Promise<Answer> {
  const { target } = input
  aim(input, target)
  return attempt(input, target).catch(error => tryAgain(input, error))
}

async function tryAgain(input: DispatchInput, error: unknown): Promise<Answer> {
  const { target, exchange, caller, random, isCommitted } = input
  let tried = 1
  let failure = toGatewayError(error)
  for (;;) {
    failure.wasRetried = exchange.attempts.length > 1
    if (caller.isGone || isCommitted()) throw failure
    if (tried <= target.retries && mayRetry(failure, target)) {
      await pause(backoffMs(tried, failure.retryAfterSecs, random), caller)
      if (caller.isGone) throw clientGone()
      if (isCommitted()) throw failure
      tried += 1
    } else throw failure
    try {
      return await attempt(input, target)
    } catch (next) {
      failure = toGatewayError(next)
    }
  }
}

/** The exchange speaks of the target that was tried last. */
function aim({ exchange }: DispatchInput, target: Target): void {
  exchange.provider = target.provider
  exchange.model = target.model
  exchange.modelId = target.modelId
  exchange.upstreamModel = target.upstreamModel
  exchange.providerKeyId = target.upstream.id
  exchange.providerKeyName = target.upstream.name
  exchange.upstreamOrigin = target.upstream.origin
}

function mayRetry(failure: GatewayError, target: Target): boolean {
  return failure.retry === 'yes' || (failure.retry === 'if-configured' && target.retriesTimeouts)
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
