import { expect, test } from 'bun:test'
import { nearest } from '../../src/lib/nearest.ts'

const KNOWN = ['addr', 'admin_keys', 'timeout_ms', 'stream_timeout_ms']

test.each([
  ['adr', 'addr'],
  ['ADDR', 'addr'],
  ['adrd', 'addr'],
  ['admin_key', 'admin_keys'],
  ['timeout', 'timeout_ms'],
  ['stream_timeout', 'stream_timeout_ms'],
])('%s was meant to be %s', (word, meant) => {
  expect(nearest(word, KNOWN)).toBe(meant)
})

test.each(['zzzz', 'x', '', 'a'.repeat(100_000)])('nothing is near to a word such as "%.8s"', word => {
  expect(nearest(word, KNOWN)).toBeUndefined()
})
