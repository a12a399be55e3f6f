import { type BudgetDetails, GatewayError } from '../errors.ts'
import { printable } from '../lib/log.ts'
import { usdOf, wholeSeconds } from '../telemetry/usage-record.ts'
import type { Watch } from './watch.ts'

const PERIOD_WORDS = { day: 'for this day', week: 'for this week', month: 'for this month', total: 'for good' } as const

/**
 * The answer to a request whose budget is used up: the operator's numbers, and when there is money again.
 * source: proxy-01 §8, row "budget"
 */
export function budgetExceeded(watch: Watch, nowMs: number): GatewayError {
  const { name, scope, scope_ref, limit_usd, limit_tokens, period } = watch.value
  const tally = watch.account.at(nowMs)
  const { endMs } = tally.period
  const isEndless = endMs === Number.POSITIVE_INFINITY
  const waitSecs = isEndless ? undefined : Math.max(1, Math.ceil((endMs - nowMs) / 1_000))
  const budget: BudgetDetails = {
    scope,
    ...(scope_ref === undefined ? {} : { scope_ref }),
    ...(limit_usd === undefined ? {} : { limit_usd, spent_usd: usdOf(tally.spentPico) }),
    ...(limit_tokens === undefined ? {} : { limit_tokens, spent_tokens: tally.spentTokens }),
    period,
    ...(waitSecs === undefined ? {} : { period_resets_at: wholeSeconds(endMs), retry_after_seconds: waitSecs }),
  }
  const next = isEndless ? 'it lasts until' : `it begins again at ${wholeSeconds(endMs)}, or when`
  const message = `budget "${printable(name)}" is used up ${PERIOD_WORDS[period]}: ${next} the operator of this gateway raises it`
  return new GatewayError('budget_exceeded', message, {
    budget,
    ...(waitSecs === undefined ? {} : { retryAfterSecs: waitSecs }),
  })
}
