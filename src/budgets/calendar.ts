import type { BudgetPeriod } from '../resources/budget.ts'

/** One day, week or month of a time zone; of `total` all of time. */
export type Period = {
  /** The day it begins on, `2026-03-01`; empty for `total`. */
  readonly firstDay: string
  /** Epoch milliseconds, from the first to before the second; infinite for `total`. */
  readonly startMs: number
  readonly endMs: number
}

/** The periods of one kind in one time zone. */
export type Calendar = {
  /** The period that an instant lies in, epoch milliseconds; the same object for every instant of a period, as long as it is remembered. */
  at(ms: number): Period
}

const DAY_MS = 86_400_000
const MINUTE_MS = 60_000
/** Zones are at most 14 hours ahead of UTC and 12 behind; a change of an hour or two may come on top. */
const ZONE_MS = 16 * 60 * MINUTE_MS
/** Requests ask for the present period, and late ones around a border for the last; a clock that is set back for one before. */
const REMEMBERED = 3

const FOREVER: Period = {
  firstDay: '',
  startMs: Number.NEGATIVE_INFINITY,
  endMs: Number.POSITIVE_INFINITY,
}
const calendars = new Map<string, Calendar>()

/** One calendar for all budgets of a kind in a zone: a formatter of `Intl` is large, and borders take a while to find. */
export function calendarOf(kind: BudgetPeriod, timeZone: string): Calendar {
  const name = `${kind} ${timeZone}`
  let calendar = calendars.get(name)
  if (!calendar) {
    calendar = kind === 'total' ? { at: () => FOREVER } : createCalendar(kind, timeZone)
    calendars.set(name, calendar)
  }
  return calendar
}

function createCalendar(kind: Exclude<BudgetPeriod, 'total'>, timeZone: string): Calendar {
  const dayAt = dayReader(timeZone)
  const known: Period[] = []
  return {
    at(ms) {
      for (const period of known) if (ms >= period.startMs && ms < period.endMs) return period
      const period = find(kind, dayAt, ms)
      known.unshift(period)
      if (known.length > REMEMBERED) known.pop()
      return period
    },
  }
}

function find(kind: Exclude<BudgetPeriod, 'total'>, dayAt: (ms: number) => number, ms: number): Period {
  let first = firstDay(kind, dayAt(ms))
  // Where clocks were set back over midnight a day is shown, left, and shown again: borders decide, not what is shown.
  while (ms < startOf(first, dayAt)) first = firstDay(kind, first - 1)
  for (;;) {
    const next = nextDay(kind, first)
    const endMs = startOf(next, dayAt)
    if (ms < endMs) return { firstDay: dateOf(first), startMs: startOf(first, dayAt), endMs }
    first = next
  }
}

/** Days are numbers: 0 is 1970-01-01, a Thursday. */
function firstDay(kind: Exclude<BudgetPeriod, 'total'>, day: number): number {
  if (kind === 'day') return day
  if (kind === 'week') return day - ((((day + 3) % 7) + 7) % 7)
  const date = new Date(day * DAY_MS)
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), 1) / DAY_MS
}

function nextDay(kind: Exclude<BudgetPeriod, 'total'>, first: number): number {
  if (kind === 'day') return first + 1
  if (kind === 'week') return first + 7
  const date = new Date(first * DAY_MS)
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 1) / DAY_MS
}

/**
 * The first instant at which the zone shows this day or a later one: midnight, where there is one. Some zones set their
 * clocks forward at midnight, and days have been left out altogether. Borders lie on whole minutes, as offsets do since 1972.
 */
function startOf(day: number, dayAt: (ms: number) => number): number {
  let before = day * DAY_MS - ZONE_MS
  let after = day * DAY_MS + ZONE_MS
  while (after - before > MINUTE_MS) {
    const middle = before + Math.floor((after - before) / 2 / MINUTE_MS) * MINUTE_MS
    if (dayAt(middle) >= day) after = middle
    else before = middle
  }
  return after
}

function dayReader(timeZone: string): (ms: number) => number {
  const formatter = new Intl.DateTimeFormat('en-US-u-ca-gregory-nu-latn', {
    timeZone,
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
  })
  return ms => {
    const parts = formatter.formatToParts(ms)
    const read = (type: Intl.DateTimeFormatPartTypes) => Number(parts.find(part => part.type === type)?.value)
    return Date.UTC(read('year'), read('month') - 1, read('day')) / DAY_MS
  }
}

function dateOf(day: number): string {
  return new Date(day * DAY_MS).toISOString().slice(0, 10)
}
