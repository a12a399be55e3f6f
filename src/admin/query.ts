import { printable } from '../lib/log.ts'
import { nearest } from '../lib/nearest.ts'
import { AdminError } from './error.ts'
import type { Description } from './route.ts'

/** What the reference says of a query, and with it the names that the query may hold. */
export type QueryParameters = NonNullable<Description['parameters']>

/** A text in the query, as the reference tells it. */
export const parameter = (name: string, description: string) => ({
  name,
  in: 'query' as const,
  required: false,
  description,
  schema: { type: 'string' as const },
})

/** Entries of one page of a long list. */
export const LIMIT_MAX = 1000
export const LIMIT_DEFAULT = 100

export const limitParameter: QueryParameters[number] = {
  name: 'limit',
  in: 'query',
  required: false,
  description: 'Most entries of the answer.',
  schema: { type: 'integer', minimum: 1, maximum: LIMIT_MAX, default: LIMIT_DEFAULT },
}

/** Last instant that is written with four digits of a year, also rounded up to a whole day. */
const INSTANT_MAX_MS = Date.parse('9999-12-31T00:00:00Z')

/**
 * The query of one request, read member by member: what is wrong is collected, so that all of it can be told at once.
 * Nothing that was read may be used before `check` has passed.
 */
export class Query {
  readonly #problems: string[] = []
  readonly #search: URLSearchParams

  /** in: `parameters`, all that the route knows; any other is a problem, because a typo would widen the question in silence */
  constructor(url: URL, parameters: QueryParameters) {
    this.#search = url.searchParams
    const known = parameters.map(({ name }) => name)
    for (const name of new Set(this.#search.keys())) {
      if (known.includes(name)) continue
      const near = nearest(name, known)
      const hint = near === undefined ? '' : `did you mean ${near}? `
      const others = known.length === 0 ? 'there are none here' : `${hint}There are: ${known.join(', ')}`
      this.refuse(printable(name), `is no parameter; ${others}`)
    }
  }

  refuse(name: string, problem: string): void {
    this.#problems.push(`${name}: ${problem}`)
  }

  /** throws: AdminError 400 naming every parameter that is wrong, and no value */
  check(): void {
    if (this.#problems.length > 0) throw new AdminError(400, this.#problems.join('; '))
  }

  has(name: string): boolean {
    return this.#search.has(name)
  }

  /** The value of a parameter that is given once, or not at all. */
  text(name: string): string | undefined {
    const [value, ...others] = this.#search.getAll(name)
    if (others.length > 0) this.refuse(name, 'is given twice: give it once')
    return value
  }

  /** Values of a parameter that may be repeated, as they were written. */
  texts(name: string): string[] {
    return this.#search.getAll(name)
  }

  /** Values of a parameter that may be repeated or hold several, separated by commas. */
  list(name: string): string[] {
    return this.texts(name).flatMap(splitList)
  }

  choice<const C extends string>(name: string, choices: readonly C[], fallback: C): C {
    const value = this.text(name)
    if (value === undefined) return fallback
    const choice = choices.find(each => each === value)
    if (choice === undefined) this.refuse(name, `expected ${choices.slice(0, -1).join(', ')} or ${choices.at(-1)}`)
    return choice ?? fallback
  }

  integer(name: string, { min, max, fallback }: { min: number; max: number; fallback: number }): number {
    const value = this.text(name)
    if (value === undefined) return fallback
    const number = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN
    if (number >= min && number <= max) return number
    this.refuse(name, `expected a whole number from ${min} to ${max}`)
    return fallback
  }

  /** Epoch milliseconds; undefined where it is absent or refused. */
  instant(name: string): number | undefined {
    const value = this.text(name)
    if (value === undefined) return undefined
    const instant = instantOf(value)
    if (instant === undefined) {
      this.refuse(name, 'expected a time such as 2026-11-01T08:00:00Z, a date such as 2026-11-01, or whole seconds since 1970')
    }
    return instant
  }
}

export function splitList(text: string): string[] {
  return text.split(',').map(each => each.trim())
}

/**
 * in: an RFC 3339 time, a date (its first moment in UTC), or whole seconds since 1970
 * out: epoch milliseconds; undefined for anything else, days that no calendar has included
 */
function instantOf(text: string): number | undefined {
  if (/^\d{1,12}$/.test(text)) return inRange(Number(text) * 1000)
  const [, date, time, offset] =
    /^(\d{4}-\d{2}-\d{2})(?:[Tt](\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?)([Zz]|[+\- ]\d{2}:\d{2}))?$/.exec(text) ?? []
  if (date === undefined) return undefined
  // `Date.parse` takes 30 February for a day of March.
  const midnight = Date.parse(`${date}T00:00:00Z`)
  if (Number.isNaN(midnight) || new Date(midnight).toISOString().slice(0, 10) !== date) return undefined
  if (time === undefined || offset === undefined) return inRange(midnight)
  // In a query a plus sign that nobody has percent-encoded arrives as a blank; no other sense of it is possible here.
  return inRange(Date.parse(`${date}T${time}${offset.toUpperCase().replace(' ', '+')}`))
}

function inRange(ms: number): number | undefined {
  return ms >= 0 && ms <= INSTANT_MAX_MS ? ms : undefined
}
