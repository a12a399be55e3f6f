import { expect, test } from 'bun:test'
import { interpolate } from '../../src/lib/interpolate.ts'

const env = { A: 'one', EMPTY: '', NESTED: '${A}', DOLLAR: '$$' }

test.each([
  ['plain', 'plain'],
  ['${A}', 'one'],
  ['x${A}y${A}z', 'xoneyonez'],
  ['$$', '$'],
  ['$${A}', '${A}'],
  ['$$${A}', '$one'],
  ['$A', '$A'],
  ['a$', 'a$'],
  ['$', '$'],
  ['5$ {A}', '5$ {A}'],
  ['${NESTED}', '${A}'],
  ['${DOLLAR}', '$$'],
])('%s becomes %s', (text, expected) => {
  expect(interpolate(text, env)).toBe(expected)
})

test.each([
  ['${MISSING}', 'environment variable `MISSING` is unset or empty'],
  ['${EMPTY}', 'environment variable `EMPTY` is unset or empty'],
  ['${A', '`${` without `}`'],
  ['${}', '`${}` names no variable'],
  ['${A:-default}', 'there is no syntax for defaults'],
])('%s is an error that says why', (text, message) => {
  expect(() => interpolate(text, env)).toThrow(message)
})
