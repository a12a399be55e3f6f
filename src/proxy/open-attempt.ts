import { clientGone, GatewayError, toGatewayError } from '../errors.ts'
import type { Attempt } from '../exchange.ts'
import { type Deadline, type Expiring, startDeadline } from '../lib/deadlines.ts'
import type { Caller, Waiting } from './caller.ts'
import { errorCode, transportError } from './dial.ts'

/** One fetch under one controller: the caller, the deadline and the connect watch all end it through here. */
export class OpenAttempt implements Expiring, Waiting {
  private readonly controller = new AbortController()
  private deadline: Deadline | undefined
  /** Why it was ended from our side. */
  reason: GatewayError | undefined

  constructor(private readonly caller: Caller) {
    caller.tell(this)
  }

  get signal(): AbortSignal {
    return this.controller.signal
  }

  abort(reason: GatewayError): void {
    this.reason ??= reason
    this.disarm()
    this.controller.abort()
  }

  onCallerGone(): void {
    this.abort(clientGone())
  }

  onDeadline(ms: number): void {
    this.deadline = undefined
    this.abort(timedOut(ms))
  }

  /** Sets the deadline anew; 0 is none. */
  arm(ms: number): void {
    this.disarm()
    if (ms > 0) this.deadline = startDeadline(ms, this)
  }

  disarm(): void {
    this.deadline?.cancel()
    this.deadline = undefined
  }

  /** The attempt is over: nothing may end it any more. */
  release(): void {
    this.disarm()
    this.caller.tell(undefined)
  }

  /** The attempt has failed before its answer began. returns: why, in our words, as its record tells it, too */
  fail(record: Attempt, error: unknown): GatewayError {
    const known = this.explain(error)
    record.errorKind = known.kind
    record.errorMessage = known.recorded
    record.status = known.upstreamStatus ?? known.status
    // The body of a failed answer may still be under way: nobody reads it.
    this.abort(known)
    this.caller.tell(undefined)
    return known
  }

  /** An error of reading or connecting in our words: ours where we ended it. */
  explain(error: unknown): GatewayError {
    if (this.reason) return this.reason
    // What the network did has a code; what has none is a mistake of ours, and must not pass for the upstream's. An error
    // in our words may have a code too: the one that the upstream told.
    return error instanceof GatewayError || errorCode(error) === '' ? toGatewayError(error) : transportError(error)
  }
}

export function timedOut(ms: number): GatewayError {
  return new GatewayError('timeout', `upstream request timed out after ${ms}ms`, { retry: 'if-configured' })
}
