import type { Asked } from '../dialects/dialect.ts'
import type { Exchange } from '../exchange.ts'
import type { Log } from '../lib/log.ts'
import type { CallerKey } from '../store/snapshot.ts'
import type { Caller } from './caller.ts'
import type { Dial } from './dial.ts'
import type { Endpoint } from './endpoints/endpoint.ts'
import type { Question } from './question.ts'

export type AttemptInput = {
  dial: Dial
  endpoint: Endpoint
  question: Question
  /** Headers of the caller, for the operator's allow-list. */
  callerHeaders: Headers
  exchange: Exchange
  callerKey: CallerKey
  caller: Caller
  log: Log
  monotonic: () => number
  /** Epoch milliseconds. */
  now: () => number
}

/** What translators are told of the request that they answer. */
export function askedOf({ question, exchange, now }: AttemptInput): Asked {
  return { alias: question.model, body: question.callerBody ?? {}, requestId: exchange.requestId, nowMs: now() }
}
