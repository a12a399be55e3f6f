import { describe, expect, test } from 'bun:test'
import { calendarOf } from '../../src/budgets/calendar.ts'
import type { BudgetPeriod } from '../../src/resources/budget.ts'

const told = (kind: BudgetPeriod, zone: string, at: string) => {
  const { firstDay, startMs, endMs } = calendarOf(kind, zone).at(Date.parse(at))
  return [firstDay, new Date(startMs).toISOString(), new Date(endMs).toISOString()]
}

describe('a period begins and ends at midnight of its time zone', () => {
  const cases: [kind: BudgetPeriod, zone: string, at: string, firstDay: string, start: string, end: string][] = [
    ['day', 'UTC', '2026-03-11T00:00:00.000Z', '2026-03-11', '2026-03-11T00:00:00.000Z', '2026-03-12T00:00:00.000Z'],
    ['day', 'UTC', '2026-03-11T23:59:59.999Z', '2026-03-11', '2026-03-11T00:00:00.000Z', '2026-03-12T00:00:00.000Z'],
    ['day', 'Asia/Kolkata', '2026-03-11T18:30:00.000Z', '2026-03-12', '2026-03-11T18:30:00.000Z', '2026-03-12T18:30:00.000Z'],
    ['day', 'Asia/Kathmandu', '2026-03-11T12:00:00Z', '2026-03-11', '2026-03-10T18:15:00.000Z', '2026-03-11T18:15:00.000Z'],
    ['day', 'Pacific/Kiritimati', '2026-03-11T12:00:00Z', '2026-03-12', '2026-03-11T10:00:00.000Z', '2026-03-12T10:00:00.000Z'],
    ['day', 'America/Los_Angeles', '2026-07-01T06:59:59Z', '2026-06-30', '2026-06-30T07:00:00.000Z', '2026-07-01T07:00:00.000Z'],
    // 23 and 25 hours long.
    ['day', 'Europe/Berlin', '2026-03-29T12:00:00Z', '2026-03-29', '2026-03-28T23:00:00.000Z', '2026-03-29T22:00:00.000Z'],
    ['day', 'Europe/Berlin', '2026-10-25T12:00:00Z', '2026-10-25', '2026-10-24T22:00:00.000Z', '2026-10-25T23:00:00.000Z'],
    // No midnight: clocks go from 23:59 to 01:00.
    ['day', 'Asia/Beirut', '2026-03-29T12:00:00Z', '2026-03-29', '2026-03-28T22:00:00.000Z', '2026-03-29T21:00:00.000Z'],
    // Two midnights: at 01:00 clocks go back to 00:00.
    ['day', 'America/Havana', '2026-11-01T12:00:00Z', '2026-11-01', '2026-11-01T04:00:00.000Z', '2026-11-02T05:00:00.000Z'],
    // Half an hour.
    ['day', 'Australia/Lord_Howe', '2026-04-05T00:00:00Z', '2026-04-05', '2026-04-04T13:00:00.000Z', '2026-04-05T13:30:00.000Z'],
    // A day that was left out: what follows begins where it would have.
    ['day', 'Pacific/Apia', '2011-12-30T09:00:00Z', '2011-12-29', '2011-12-29T10:00:00.000Z', '2011-12-30T10:00:00.000Z'],
    ['day', 'Pacific/Apia', '2011-12-30T10:00:00Z', '2011-12-31', '2011-12-30T10:00:00.000Z', '2011-12-31T10:00:00.000Z'],
    ['week', 'UTC', '2026-03-15T23:59:59.999Z', '2026-03-09', '2026-03-09T00:00:00.000Z', '2026-03-16T00:00:00.000Z'],
    ['week', 'UTC', '2026-03-16T00:00:00Z', '2026-03-16', '2026-03-16T00:00:00.000Z', '2026-03-23T00:00:00.000Z'],
    ['week', 'America/New_York', '2026-03-08T20:00:00Z', '2026-03-02', '2026-03-02T05:00:00.000Z', '2026-03-09T04:00:00.000Z'],
    ['week', 'UTC', '1969-12-31T00:00:00Z', '1969-12-29', '1969-12-29T00:00:00.000Z', '1970-01-05T00:00:00.000Z'],
    ['month', 'UTC', '2026-12-31T23:59:59Z', '2026-12-01', '2026-12-01T00:00:00.000Z', '2027-01-01T00:00:00.000Z'],
    ['month', 'UTC', '2028-02-29T12:00:00Z', '2028-02-01', '2028-02-01T00:00:00.000Z', '2028-03-01T00:00:00.000Z'],
    ['month', 'Europe/Berlin', '2026-03-31T21:59:59Z', '2026-03-01', '2026-02-28T23:00:00.000Z', '2026-03-31T22:00:00.000Z'],
    ['month', 'Europe/Berlin', '2026-03-31T22:00:00Z', '2026-04-01', '2026-03-31T22:00:00.000Z', '2026-04-30T22:00:00.000Z'],
  ]
  for (const [kind, zone, at, ...expected] of cases) {
    test(`the ${kind} of ${at} in ${zone}`, () => expect(told(kind, zone, at)).toEqual(expected))
  }
})

test('periods of a year follow each other without a gap, in zones of every kind', () => {
  const zones = ['UTC', 'Europe/London', 'America/Santiago', 'Africa/Cairo', 'Asia/Gaza', 'America/Nuuk', 'Antarctica/Troll']
  for (const zone of [...zones, 'America/St_Johns', 'Pacific/Chatham', 'Africa/Casablanca']) {
    for (const kind of ['day', 'week', 'month'] as const) {
      const calendar = calendarOf(kind, zone)
      let period = calendar.at(Date.parse('2026-01-01T00:00:00Z'))
      const days = new Set([period.firstDay])
      while (period.endMs < Date.parse('2027-01-02T00:00:00Z')) {
        const next = calendar.at(period.endMs)
        expect(next.startMs, `${kind} ${zone}`).toBe(period.endMs)
        expect(days.has(next.firstDay)).toBe(false)
        expect(calendar.at(period.endMs - 1)).toBe(period)
        days.add(next.firstDay)
        period = next
      }
    }
  }
})

test('where a day is shown, left and shown again, every instant still lies in just one period', () => {
  // Until 2011 clocks in Newfoundland went back at 00:01, to 23:01 of the day before.
  const calendar = calendarOf('day', 'America/St_Johns')
  const around = Date.parse('2010-11-07T02:31:00Z')
  let before = calendar.at(around - 7_200_000)
  for (let ms = around - 7_200_000; ms < around + 7_200_000; ms += 20_000) {
    const period = calendar.at(ms)
    expect(ms >= period.startMs && ms < period.endMs).toBe(true)
    if (period !== before) expect(period.startMs).toBe(before.endMs)
    before = period
  }
})

test('`total` is one period for all of time, and budgets of one zone share their calendar', () => {
  const { startMs, endMs, firstDay } = calendarOf('total', 'UTC').at(0)
  expect([startMs, endMs, firstDay]).toEqual([Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY, ''])
  expect(calendarOf('day', 'Asia/Tokyo')).toBe(calendarOf('day', 'Asia/Tokyo'))
  expect(calendarOf('day', 'Asia/Tokyo')).not.toBe(calendarOf('week', 'Asia/Tokyo'))
})
