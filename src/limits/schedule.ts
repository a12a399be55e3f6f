import type { Schedule } from '../resources/rate-limit-policy.ts'

const MINUTE_MS = 60_000
const WEEKDAYS = ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] as const

/** A calendar day, as the two kinds of schedule name it. */
type Day = { date: string; weekday: (typeof WEEKDAYS)[number] }

/** What clocks and calendars on the wall show: `minute` counts from 00:00, as if no hour were skipped or repeated. */
type WallTime = { minute: number; today: Day; yesterday: Day }

/** Wall clocks by IANA zone, made at the first use: a formatter of `Intl` is large, one for each zone does. */
export type WallClocks = (timeZone: string) => (nowMs: number) => WallTime

/**
 * Whether one of the windows is open at an instant, epoch milliseconds. Windows have whole minutes, so the answer is kept for
 * the minute, and most requests cost a division.
 *
 * Times are compared as the wall clock of the zone shows them: where an hour is skipped a window in it does not open, and
 * where one is repeated it opens twice. source: proxy-06 §5, control-resources §5
 */
export function compileSchedules(schedules: readonly Schedule[], clocks: WallClocks): (nowMs: number) => boolean {
  const windows = schedules.map(schedule => ({ clock: clocks(schedule.timezone), isOpen: compileWindow(schedule) }))
  return eachMinute(nowMs => windows.some(({ clock, isOpen }) => isOpen(clock(nowMs))))
}

export function createWallClocks(): WallClocks {
  const clocks = new Map<string, (nowMs: number) => WallTime>()
  return timeZone => {
    let clock = clocks.get(timeZone)
    if (!clock) {
      clock = wallClock(timeZone)
      clocks.set(timeZone, clock)
    }
    return clock
  }
}

/** `start_time` belongs to the window and `end_time` does not; one that runs over midnight goes by the day it starts on. */
function compileWindow({ days_of_week, dates, start_time, end_time }: Schedule): (at: WallTime) => boolean {
  const start = minuteOf(start_time)
  const end = minuteOf(end_time)
  const days = new Set<string>(days_of_week)
  const names = new Set(dates)
  const startsOn = ({ date, weekday }: Day) => days.has(weekday) || names.has(date)
  if (start <= end) return ({ minute, today }) => minute >= start && minute < end && startsOn(today)
  return ({ minute, today, yesterday }) => (minute >= start && startsOn(today)) || (minute < end && startsOn(yesterday))
}

function minuteOf(time: string): number {
  return Number(time.slice(0, 2)) * 60 + Number(time.slice(3))
}

function wallClock(timeZone: string): (nowMs: number) => WallTime {
  const formatter = new Intl.DateTimeFormat('en-US-u-ca-gregory-nu-latn', {
    timeZone,
    hourCycle: 'h23',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
  })
  return eachMinute(nowMs => {
    const parts = formatter.formatToParts(nowMs)
    const read = (type: Intl.DateTimeFormatPartTypes) => Number(parts.find(part => part.type === type)?.value)
    const [year, month, day] = [read('year'), read('month'), read('day')]
    const minute = read('hour') * 60 + read('minute')
    return { minute, today: dayOf(year, month, day), yesterday: dayOf(year, month, day - 1) }
  })
}

/** A day of the calendar; day 0 of a month is the last of the month before. */
function dayOf(year: number, month: number, day: number): Day {
  const date = new Date(Date.UTC(year, month - 1, day))
  const weekday = WEEKDAYS[date.getUTCDay()]
  if (weekday === undefined) throw new Error(`${year}-${month}-${day} is no day`)
  return { date: date.toISOString().slice(0, 10), weekday }
}

/** Keeps the answer for the minute: offsets of zones are whole minutes, so minutes turn at the same instant everywhere. */
function eachMinute<T>(compute: (nowMs: number) => T): (nowMs: number) => T {
  let known: { minute: number; answer: T } | undefined
  return nowMs => {
    const minute = Math.floor(nowMs / MINUTE_MS)
    if (known?.minute !== minute) known = { minute, answer: compute(nowMs) }
    return known.answer
  }
}
