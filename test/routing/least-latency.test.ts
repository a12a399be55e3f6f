import { expect, test } from 'bun:test'
import { measuresOf, member, tierOf } from './candidates.ts'

test('the fastest is first, those that were never measured before all, in the order of declaration', () => {
  const order = tierOf(
    'least_latency',
    ['slow', 'new', 'fast', 'newer', 'middling'].map(alias => member(alias)),
  )
  const measures = measuresOf({}, { slow: 900, fast: 12.5, middling: 300 })
  expect(order({ measures })).toEqual(['new', 'newer', 'fast', 'middling', 'slow'])
})

test('a measurement of 0 ms is a measurement', () => {
  const order = tierOf('least_latency', [member('instant'), member('new')])
  expect(order({ measures: measuresOf({}, { instant: 0 }) })).toEqual(['new', 'instant'])
})

test('of equal averages the order of declaration stays', () => {
  const order = tierOf(
    'least_latency',
    ['b', 'a', 'c'].map(alias => member(alias)),
  )
  expect(order({ measures: measuresOf({}, { a: 5, b: 5, c: 5 }) })).toEqual(['b', 'a', 'c'])
})

test('every request sees the averages of its moment', () => {
  const order = tierOf('least_latency', [member('a'), member('b')])
  expect(order({ measures: measuresOf({}, { a: 10, b: 20 }) })).toEqual(['a', 'b'])
  expect(order({ measures: measuresOf({}, { a: 30, b: 20 }) })).toEqual(['b', 'a'])
})
