import { expect, test } from 'bun:test'
import { isTimeZone } from '../../src/lib/time-zone.ts'

test.each(['UTC', 'Europe/Berlin', 'America/Argentina/Buenos_Aires', 'Asia/Kolkata', 'europe/berlin', 'Etc/GMT+3'])(
  '%p is a time zone',
  name => {
    expect(isTimeZone(name)).toBe(true)
  },
)

test.each([
  '',
  ' ',
  'Mars/Phobos',
  'Europe/Berlin ',
  'Berlin',
  '+02:00',
  '-05:30',
  '+2',
  'UTC+2',
  'Europe/Berlin\n',
  '../etc/passwd',
  '2',
])('%p is no time zone', name => {
  expect(isTimeZone(name)).toBe(false)
})
