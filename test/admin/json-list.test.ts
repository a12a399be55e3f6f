import { expect, test } from 'bun:test'
import { jsonList } from '../../src/admin/json-list.ts'

test.each([0, 1, 499, 500, 501, 1_000, 1_001, 2_345])('a list of %d items is whole, in its order', async length => {
  const items = Array.from({ length }, (_, at) => at)
  const response = jsonList(items, at => ({ at, text: `ä${at}` }))
  expect(response.headers.get('content-type')).toStartWith('application/json')
  expect(await response.json()).toEqual(items.map(at => ({ at, text: `ä${at}` })))
})

test('others get their turn while a long list is written', async () => {
  const items = Array.from({ length: 5_000 }, (_, at) => at)
  let turns = 0
  let isOver = false
  const others = (async () => {
    while (!isOver) {
      await new Promise(resolve => setImmediate(resolve))
      turns += 1
    }
  })()
  await jsonList(items, at => at).text()
  isOver = true
  await others
  expect(turns).toBeGreaterThanOrEqual(9)
})

test('a reader that goes away ends it', async () => {
  let shown = 0
  const items = Array.from({ length: 50_000 }, (_, at) => at)
  const reader = jsonList(items, at => {
    shown += 1
    return at
  }).body?.getReader()
  await reader?.read()
  await reader?.cancel()
  await new Promise(resolve => setImmediate(resolve))
  expect(shown).toBeLessThanOrEqual(1_000)
})
