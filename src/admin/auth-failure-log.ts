import type { Log } from '../lib/log.ts'
import type { RefusalReason } from './auth.ts'

/** Lines at once, and then one each so many milliseconds. */
const BURST = 20
const REFILL_MS = 1_000

/** One line a failed authentication, up to a rate: whoever guesses keys must not fill the disk of the log. */
export function createAuthFailureLog(log: Log, clock: { monotonic(): number }) {
  let left = BURST
  let filledAtMs = clock.monotonic()
  let untold = 0
  return {
    tell(reason: RefusalReason, address: string, method: string): void {
      const refills = Math.floor((clock.monotonic() - filledAtMs) / REFILL_MS)
      left = Math.min(BURST, left + refills)
      filledAtMs += refills * REFILL_MS
      if (left < 1) {
        untold += 1
        return
      }
      left -= 1
      log.info('auth rejected', { reason, address, method, ...(untold > 0 && { not_logged_before: untold }) })
      untold = 0
    },
  }
}
