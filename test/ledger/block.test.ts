import { describe, expect, test } from 'bun:test'
import { BlockBuilder, countOf, mayHaveRequest } from '../../src/ledger/block.ts'
import { hashId, packId } from '../../src/ledger/packed-id.ts'

const hashesOf = (id: string) => {
  const hashes = new Uint32Array(2)
  hashId(packId(id), hashes, 0)
  return hashes
}

describe('a block of attempts', () => {
  for (const [kind, idOf] of [
    ['UUIDs', () => crypto.randomUUID()],
    ['UUIDs in the order of time', () => Bun.randomUUIDv7()],
    ['ids of callers', (index: number) => `request-${index}`],
  ] as const) {
    test(`knows every id that it has, and next to none that it has not: ${kind}`, () => {
      const block = new BlockBuilder()
      const ids = Array.from({ length: 4_096 }, (_, index) => idOf(index))
      for (const id of ids) block.add(1, packId(id), 1, 200)
      const filter = block.packRequests()
      expect(ids.filter(id => !mayHaveRequest(filter, hashesOf(id)))).toEqual([])
      const others = Array.from({ length: 20_000 }, (_, index) => idOf(5_000 + index))
      expect(others.filter(id => mayHaveRequest(filter, hashesOf(id))).length).toBeLessThan(400)
      expect(filter.length).toBe(5_120)
    })
  }

  test('tells how many rows have a label or a status', () => {
    const block = new BlockBuilder()
    for (let row = 0; row < 3_000; row++) block.add(row, `r${row}`, 70_000 + (row % 3), row % 10 === 0 ? 429 : 200)
    expect(countOf(block.packLabels(), id => id === 70_001)).toBe(1_000)
    expect(countOf(block.packLabels(), id => id === 1)).toBe(0)
    expect(countOf(block.packStatuses(), status => status === 429)).toBe(300)
    expect([block.rows, block.failed, block.fromMs, block.toMs]).toEqual([3_000, 300, 0, 2_999])
  })
})
