import { z } from 'zod'
import { optional } from './fields.ts'

/** Bounded above by what a number holds exactly. */
const most = () => z.int().min(0)

/**
 * Limits that stand inside a key, a model or a policy. Windows are fixed ones of the wall clock in UTC, aligned to multiples
 * of their length. source: control-resources §4, proxy-06 §1
 */
export const RateLimit = z.strictObject({
  rps: optional(most()).describe('Requests a second. 0: nothing passes.'),
  rpm: optional(most()).describe('Requests a minute. 0: nothing passes.'),
  rph: optional(most()).describe('Requests an hour. 0: nothing passes.'),
  rpd: optional(most()).describe('Requests a day (UTC). 0: nothing passes.'),
  tpm: optional(most()).describe(
    'Tokens a minute, prompt and completion together. The request that crosses the limit is answered, the next is refused. 0: nothing passes.',
  ),
  tpd: optional(most()).describe('Tokens a day (UTC), counted like `tpm`. 0: nothing passes.'),
  concurrency: optional(most()).describe('Requests at the same time, streams until their end. 0: nothing passes.'),
})

export type RateLimit = z.output<typeof RateLimit>
