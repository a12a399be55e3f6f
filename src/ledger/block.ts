import { hashId, type PackedId } from './packed-id.ts'
import { VarintReader, VarintWriter } from './varint.ts'

/**
 * What is remembered of some thousand attempts that follow each other, so that a question can pass over those that have
 * nothing for it: an index of every id would cost several times as much as the rows.
 */
export class BlockBuilder {
  rows = 0
  failed = 0
  fromMs = Number.MAX_SAFE_INTEGER
  toMs = 0
  private readonly labels = new Map<number, number>()
  private readonly statuses = new Map<number, number>()
  private hashes = new Uint32Array(8_192)

  add(at: number, request: PackedId, labels: number, status: number): void {
    if (this.hashes.length < this.rows * 2 + 2) {
      const larger = new Uint32Array(this.hashes.length * 2)
      larger.set(this.hashes)
      this.hashes = larger
    }
    hashId(request, this.hashes, this.rows * 2)
    this.rows += 1
    if (status >= 400) this.failed += 1
    if (at < this.fromMs) this.fromMs = at
    if (at > this.toMs) this.toMs = at
    this.labels.set(labels, (this.labels.get(labels) ?? 0) + 1)
    this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1)
  }

  packLabels(): Uint8Array {
    return packCounts(this.labels)
  }
  packStatuses(): Uint8Array {
    return packCounts(this.statuses)
  }

  /** A Bloom filter of the request ids. source: Kirsch, Mitzenmacher, "Less hashing, same performance" */
  packRequests(): Uint8Array {
    const filter = new Uint8Array(Math.max(8, Math.ceil((this.rows * BITS_PER_ROW) / 8)))
    const bits = filter.length * 8
    for (let row = 0; row < this.rows; row++) {
      const one = this.hashes[row * 2] ?? 0
      const two = this.hashes[row * 2 + 1] ?? 0
      for (let probe = 0; probe < PROBES; probe++) {
        const bit = probeOf(one, two, probe, bits)
        filter[bit >> 3] = (filter[bit >> 3] ?? 0) | (1 << (bit & 7))
      }
    }
    return filter
  }
}

/** Of ten bits and seven probes a row, eight of a thousand blocks are looked through in vain. */
const BITS_PER_ROW = 10
const PROBES = 7

function probeOf(one: number, two: number, probe: number, bits: number): number {
  return ((one + Math.imul(probe, two | 1)) >>> 0) % bits
}

/** Whether a block may have rows of a request; false is certain. */
export function mayHaveRequest(filter: Uint8Array, hashes: Uint32Array): boolean {
  const bits = filter.length * 8
  const [one = 0, two = 0] = hashes
  for (let probe = 0; probe < PROBES; probe++) {
    const bit = probeOf(one, two, probe, bits)
    if (((filter[bit >> 3] ?? 0) & (1 << (bit & 7))) === 0) return false
  }
  return true
}

/** Ascending numbers, each as its distance from the one before, with their counts. */
function packCounts(counts: Map<number, number>): Uint8Array {
  const writer = new VarintWriter()
  let before = 0
  for (const [id, count] of [...counts].sort(([a], [b]) => a - b)) {
    writer.add(id - before)
    writer.add(count)
    before = id
  }
  return writer.take()
}

/** How many rows of a block have a number that is wanted. */
export function countOf(packed: Uint8Array, isWanted: (id: number) => boolean): number {
  const reader = new VarintReader(packed)
  let id = 0
  let rows = 0
  while (!reader.isAtEnd) {
    id += reader.next()
    const count = reader.next()
    if (isWanted(id)) rows += count
  }
  return rows
}
