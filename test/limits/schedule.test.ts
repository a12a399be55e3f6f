import { describe, expect, test } from 'bun:test'
import type { z } from 'zod'
import { compileSchedules, createWallClocks } from '../../src/limits/schedule.ts'
import { Schedule } from '../../src/resources/rate-limit-policy.ts'

const isOpen = (schedules: Schedule[], time: string) => compileSchedules(schedules, createWallClocks())(Date.parse(time))

const weekly = (days_of_week: z.input<typeof Schedule>['days_of_week'], start_time: string, end_time: string, timezone = 'UTC') =>
  Schedule.parse({ timezone, days_of_week, start_time, end_time })
const dated = (dates: string[], start_time: string, end_time: string, timezone = 'UTC') =>
  Schedule.parse({ timezone, dates, start_time, end_time })

/** 2030-03-15 is a Friday. */
describe('days of the week', () => {
  const office = weekly(['mon', 'fri'], '08:30', '18:00')
  test.each([
    ['2030-03-15T08:29:59.999Z', false],
    ['2030-03-15T08:30:00Z', true],
    ['2030-03-15T17:59:59.999Z', true],
    ['2030-03-15T18:00:00Z', false],
    ['2030-03-16T12:00:00Z', false],
    ['2030-03-17T12:00:00Z', false],
    ['2030-03-18T12:00:00Z', true],
    ['2030-03-19T12:00:00Z', false],
  ])('08:30 to 18:00 on Mondays and Fridays, at %s: %p', (time, expected) => {
    expect(isOpen([office], time)).toBe(expected)
  })

  const days = ['fri', 'sat', 'sun', 'mon', 'tue', 'wed', 'thu'] as const
  test.each(days.map((day, index) => [day, `2030-03-${15 + index}T12:00:00Z`] as const))('%s is the day of %s', (day, time) => {
    for (const each of days) expect(isOpen([weekly([each], '00:00', '24:00')], time)).toBe(each === day)
  })

  const night = weekly(['fri'], '22:00', '06:00')
  test.each([
    ['2030-03-15T05:00:00Z', false],
    ['2030-03-15T21:59:59.999Z', false],
    ['2030-03-15T22:00:00Z', true],
    ['2030-03-15T23:59:59.999Z', true],
    ['2030-03-16T00:00:00Z', true],
    ['2030-03-16T05:59:59.999Z', true],
    ['2030-03-16T06:00:00Z', false],
    ['2030-03-16T22:00:00Z', false],
  ])('22:00 to 06:00 goes by the day it starts on, Friday, at %s: %p', (time, expected) => {
    expect(isOpen([night], time)).toBe(expected)
  })

  test('a window over midnight of Sunday ends on Monday', () => {
    const sunday = weekly(['sun'], '23:00', '01:00')
    expect(isOpen([sunday], '2030-03-17T23:30:00Z')).toBe(true)
    expect(isOpen([sunday], '2030-03-18T00:59:00Z')).toBe(true)
    expect(isOpen([sunday], '2030-03-17T00:30:00Z')).toBe(false)
  })

  test('00:00 to 24:00 is the whole day and not a moment more', () => {
    const friday = weekly(['fri'], '00:00', '24:00')
    expect(isOpen([friday], '2030-03-14T23:59:59.999Z')).toBe(false)
    expect(isOpen([friday], '2030-03-15T00:00:00Z')).toBe(true)
    expect(isOpen([friday], '2030-03-15T23:59:59.999Z')).toBe(true)
    expect(isOpen([friday], '2030-03-16T00:00:00Z')).toBe(false)
  })

  test('22:00 to 24:00 ends at midnight, 22:00 to 00:00 too', () => {
    for (const end of ['24:00', '00:00']) {
      const late = weekly(['fri'], '22:00', end)
      expect(isOpen([late], '2030-03-15T23:59:00Z')).toBe(true)
      expect(isOpen([late], '2030-03-16T00:00:00Z')).toBe(false)
    }
  })

  test('a window that starts when it ends is never open', () => {
    const every = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const
    for (const time of ['00:00', '09:00']) {
      const schedule = weekly([...every], time, time)
      for (let hour = 0; hour < 24; hour++) {
        expect(isOpen([schedule], new Date(Date.parse('2030-03-15T00:00:00Z') + hour * 3_600_000).toISOString())).toBe(false)
      }
    }
  })
})

describe('dates', () => {
  test.each([
    ['2030-12-31T19:59:59Z', false],
    ['2030-12-31T20:00:00Z', true],
    ['2031-01-01T00:00:00Z', true],
    ['2031-01-01T05:59:59Z', true],
    ['2031-01-01T06:00:00Z', false],
    ['2031-01-01T20:00:00Z', false],
    ['2030-12-31T05:00:00Z', false],
  ])('20:00 to 06:00 of 2030-12-31 runs into the next year, at %s: %p', (time, expected) => {
    expect(isOpen([dated(['2030-12-31'], '20:00', '06:00')], time)).toBe(expected)
  })

  test('a window over the end of February goes by the calendar', () => {
    expect(isOpen([dated(['2028-02-29'], '23:00', '01:00')], '2028-03-01T00:30:00Z')).toBe(true)
    expect(isOpen([dated(['2028-02-28'], '23:00', '01:00')], '2028-03-01T00:30:00Z')).toBe(false)
    expect(isOpen([dated(['2030-02-28'], '23:00', '01:00')], '2030-03-01T00:30:00Z')).toBe(true)
  })

  test('each date of the list counts, others do not', () => {
    const holidays = dated(['2030-05-01', '2030-12-25'], '00:00', '24:00')
    expect(isOpen([holidays], '2030-05-01T12:00:00Z')).toBe(true)
    expect(isOpen([holidays], '2030-12-25T12:00:00Z')).toBe(true)
    expect(isOpen([holidays], '2030-12-24T12:00:00Z')).toBe(false)
    expect(isOpen([holidays], '2031-12-25T12:00:00Z')).toBe(false)
  })
})

describe('time zones', () => {
  test.each([
    // 09:00 in Kathmandu is 03:15 UTC.
    ['Asia/Kathmandu', '2030-03-15T03:14:59.999Z', false],
    ['Asia/Kathmandu', '2030-03-15T03:15:00Z', true],
    ['Asia/Kathmandu', '2030-03-15T04:14:59.999Z', true],
    ['Asia/Kathmandu', '2030-03-15T04:15:00Z', false],
    // 09:00 in New York is 13:00 UTC in summer time, which began on 2030-03-10.
    ['America/New_York', '2030-03-15T12:59:00Z', false],
    ['America/New_York', '2030-03-15T13:00:00Z', true],
    // 09:00 of Friday in Auckland is 20:00 UTC of Thursday.
    ['Pacific/Auckland', '2030-03-14T20:00:00Z', true],
    ['Pacific/Auckland', '2030-03-15T20:00:00Z', false],
  ])('09:00 to 10:00 on Fridays in %s, at %s: %p', (timezone, time, expected) => {
    expect(isOpen([weekly(['fri'], '09:00', '10:00', timezone)], time)).toBe(expected)
  })

  test('a date is one of the zone', () => {
    const newYear = dated(['2031-01-01'], '00:00', '24:00', 'Asia/Kathmandu')
    expect(isOpen([newYear], '2030-12-31T18:14:59Z')).toBe(false)
    expect(isOpen([newYear], '2030-12-31T18:15:00Z')).toBe(true)
    expect(isOpen([newYear], '2031-01-01T18:14:59Z')).toBe(true)
    expect(isOpen([newYear], '2031-01-01T18:15:00Z')).toBe(false)
  })

  // In Berlin 02:00 becomes 03:00 on Sunday 2030-03-31 at 01:00 UTC.
  test.each([
    ['2030-03-31T00:29:59Z', false],
    ['2030-03-31T00:30:00Z', true],
    ['2030-03-31T00:59:59Z', true],
    ['2030-03-31T01:00:00Z', true],
    ['2030-03-31T01:29:59Z', true],
    ['2030-03-31T01:30:00Z', false],
  ])('01:30 to 03:30 on the day that loses an hour lasts an hour, at %s: %p', (time, expected) => {
    expect(isOpen([dated(['2030-03-31'], '01:30', '03:30', 'Europe/Berlin')], time)).toBe(expected)
  })

  test('a window inside the hour that is skipped does not open', () => {
    const isSuspended = compileSchedules([dated(['2030-03-31'], '02:15', '02:45', 'Europe/Berlin')], createWallClocks())
    for (let minute = 0; minute < 26 * 60; minute++) {
      expect(isSuspended(Date.parse('2030-03-30T22:00:00Z') + minute * 60_000)).toBe(false)
    }
  })

  // In Berlin 03:00 becomes 02:00 on Sunday 2030-10-27 at 01:00 UTC.
  test.each([
    ['2030-10-27T00:14:59Z', false],
    ['2030-10-27T00:15:00Z', true],
    ['2030-10-27T00:45:00Z', false],
    ['2030-10-27T01:14:59Z', false],
    ['2030-10-27T01:15:00Z', true],
    ['2030-10-27T01:45:00Z', false],
  ])('a window inside the hour that is repeated opens twice, at %s: %p', (time, expected) => {
    expect(isOpen([weekly(['sun'], '02:15', '02:45', 'Europe/Berlin')], time)).toBe(expected)
  })

  test('the night of a change goes by the wall clock', () => {
    const saturdayNight = weekly(['sat'], '22:00', '06:00', 'Europe/Berlin')
    expect(isOpen([saturdayNight], '2030-03-30T20:59:00Z')).toBe(false)
    expect(isOpen([saturdayNight], '2030-03-30T21:00:00Z')).toBe(true)
    expect(isOpen([saturdayNight], '2030-03-31T03:59:00Z')).toBe(true)
    expect(isOpen([saturdayNight], '2030-03-31T04:00:00Z')).toBe(false)
  })
})

describe('several windows', () => {
  const windows = [weekly(['fri'], '08:00', '09:00'), weekly(['fri'], '08:00', '09:00', 'Asia/Kathmandu')]

  test('one that is open is enough', () => {
    expect(isOpen(windows, '2030-03-15T08:30:00Z')).toBe(true)
    expect(isOpen(windows, '2030-03-15T02:30:00Z')).toBe(true)
    expect(isOpen(windows, '2030-03-15T05:00:00Z')).toBe(false)
  })

  test('the answer follows the clock forwards and back, whatever was asked before', () => {
    const isSuspended = compileSchedules(windows, createWallClocks())
    for (const [time, expected] of [
      ['2030-03-15T08:59:59.999Z', true],
      ['2030-03-15T09:00:00Z', false],
      ['2030-03-15T08:59:59.999Z', true],
      ['2030-03-22T08:59:00Z', true],
      ['2030-03-22T09:00:30Z', false],
      ['2030-03-15T08:30:00Z', true],
    ] as const) {
      expect(isSuspended(Date.parse(time))).toBe(expected)
    }
  })
})
