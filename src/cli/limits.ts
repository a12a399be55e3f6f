/** `rate_limit` of keys and models as options. */
import type { Given } from './arguments.ts'
import type { Option } from './command.ts'

const LIMITS = {
  rps: 'requests a second',
  rpm: 'requests a minute',
  rph: 'requests an hour',
  rpd: 'requests a day',
  tpm: 'tokens a minute',
  tpd: 'tokens a day',
  concurrency: 'requests at the same time',
}

export const LIMIT_OPTIONS: readonly Option[] = Object.entries(LIMITS).map(([name, what]) => ({
  name,
  value: 'N',
  about: `At most so many ${what}; 0 lets nothing pass.`,
}))

/** The member of a document; nothing where no limit was given. */
export function limitsOf(given: Given): { rate_limit?: Record<string, number> } {
  const limits = Object.keys(LIMITS).flatMap(name => {
    const most = given.count(name)
    return most === undefined ? [] : [[name, most] as const]
  })
  return limits.length === 0 ? {} : { rate_limit: Object.fromEntries(limits) }
}

/** `rpm 60, tpm 1000`, for tables. */
export function shownLimits(limits: unknown): string {
  if (typeof limits !== 'object' || limits === null) return ''
  return Object.entries(limits)
    .map(([name, most]) => `${name} ${most}`)
    .join(', ')
}
