import { BlockBuilder } from './block.ts'
import { META, type OpenLedger } from './file.ts'
import type { PackedId } from './packed-id.ts'
import { addToRollups } from './rollup.ts'
import { type Addend, SumsByHour } from './sums.ts'

/** Rows of a block: a page of a rare key reads some hundred blocks, the headers of ten million rows are 2,500. */
const BLOCK_ROWS = 4_096
/** Rows that wait for the roll-ups: many labels share them, and a question can still read them one by one. */
const ROLLUP_ROWS = 16_384
/** After this long, what waits is sealed and rolled up as it is, so that it can be pruned when its time comes. */
const SETTLE_MS = 3_600_000

/**
 * The newest rows in memory: those that no block describes yet, and those that no roll-up has. Blocks and roll-ups are made
 * from it, and `sealed_seq` and `rolled_seq` move on in the same transaction: however a process ends, and however many
 * write, each row is counted once, by its roll-up or by itself.
 */
export class Tail {
  private block = new BlockBuilder()
  private sums = new SumsByHour()
  private sealedSeq = 0
  private rolledSeq = 0
  private toSeq = 0
  private blockSinceMs = 0
  private sumsSinceMs = 0

  constructor(private readonly file: OpenLedger) {
    this.reset()
  }

  /** Takes in rows that were just committed, where they follow what it has; else they are read from the file later. */
  extend(firstSeq: number, rows: Iterable<Addend>, requests: readonly PackedId[], nowMs: number): void {
    if (firstSeq !== this.toSeq + 1) return
    let index = 0
    for (const row of rows) {
      this.add(firstSeq + index, row, requests[index] ?? '', nowMs)
      index += 1
    }
  }

  /** throws: SQLiteError */
  settle(nowMs: number): void {
    for (;;) {
      const isBehind = this.catchUp(nowMs)
      if (this.toSeq > this.sealedSeq && (this.block.rows >= BLOCK_ROWS || nowMs - this.blockSinceMs >= SETTLE_MS)) this.seal()
      if (this.toSeq - this.rolledSeq >= ROLLUP_ROWS || (this.toSeq > this.rolledSeq && nowMs - this.sumsSinceMs >= SETTLE_MS)) {
        this.rollUp()
      }
      if (!isBehind) return
    }
  }

  /** Seals and rolls up all there is: before rows are removed. */
  settleAll(nowMs: number): void {
    do {
      this.settle(nowMs)
      if (this.toSeq > this.sealedSeq) this.seal()
      if (this.toSeq > this.rolledSeq) this.rollUp()
      // Where another gateway was faster, what it left is read once more.
    } while (this.toSeq < this.file.meta(META.last))
  }

  /** Rows that no block describes yet, and when the newest of them ended. */
  get unsealed(): { rows: number; toMs: number } {
    return { rows: this.block.rows, toMs: this.block.toMs }
  }

  private reset(): void {
    this.block = new BlockBuilder()
    this.sums = new SumsByHour()
    this.sealedSeq = this.file.meta(META.sealed)
    this.rolledSeq = this.file.meta(META.rolled)
    this.toSeq = Math.min(this.sealedSeq, this.rolledSeq)
  }

  /** Reads what others have written, and what a start finds. out: whether there is more */
  private catchUp(nowMs: number): boolean {
    const last = this.file.meta(META.last)
    if (last <= this.toSeq) return false
    const upTo = Math.min(last, this.toSeq + BLOCK_ROWS)
    for (const values of this.file.values(TAIL_ROWS, this.toSeq, upTo)) {
      const row = addendOf(values)
      // What is found at a start has waited since it was written.
      this.add(Number(values[0]), row, packed(values[1]), Math.min(nowMs, row.at))
    }
    this.toSeq = upTo
    return upTo < last
  }

  private add(seq: number, row: Addend, request: PackedId, nowMs: number): void {
    if (seq > this.sealedSeq) {
      if (this.block.rows === 0) this.blockSinceMs = nowMs
      this.block.add(row.at, request, row.labels, row.status)
    }
    if (seq > this.rolledSeq) {
      if (this.toSeq <= this.rolledSeq) this.sumsSinceMs = nowMs
      this.sums.add(row)
    }
    this.toSeq = seq
  }

  private seal(): void {
    const { file, block, toSeq } = this
    const isMine = file.transaction(() => {
      if (file.meta(META.sealed) !== this.sealedSeq) return false
      if (block.rows > 0) {
        const first = this.sealedSeq + 1
        file.run(
          'INSERT INTO blocks (first_seq, last_seq, from_ms, to_ms, rows, failed, statuses, labels) VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
          ...[first, toSeq, block.fromMs, block.toMs, block.rows, block.failed],
          ...[block.packStatuses(), block.packLabels()],
        )
        file.run('INSERT INTO filters (first_seq, requests) VALUES (?, ?)', first, block.packRequests())
      }
      file.setMeta(META.sealed, toSeq)
      return true
    })
    if (!isMine) {
      this.reset()
      return
    }
    this.sealedSeq = toSeq
    this.block = new BlockBuilder()
  }

  private rollUp(): void {
    const { file, sums, toSeq } = this
    const isMine = file.transaction(() => {
      if (file.meta(META.rolled) !== this.rolledSeq) return false
      addToRollups(file, sums)
      file.setMeta(META.rolled, toSeq)
      return true
    })
    // Another gateway on the same file has done it: what it left is read anew.
    if (!isMine) {
      this.reset()
      return
    }
    this.rolledSeq = toSeq
    this.sums = new SumsByHour()
  }
}

const TAIL_COLUMNS = `seq, request, at, labels, flags, status, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens,
  upstream_ttft_ms, downstream_ms, total_ms, cost_pico`
const TAIL_ROWS = `SELECT ${TAIL_COLUMNS} FROM attempts WHERE seq > ? AND seq <= ? ORDER BY seq`

function addendOf(values: readonly unknown[]): Addend {
  const number = (at: number) => {
    const value = values[at]
    return typeof value === 'number' ? value : -1
  }
  return {
    at: number(2),
    labels: number(3),
    flags: number(4),
    status: number(5),
    promptTokens: number(6),
    completionTokens: number(7),
    cachedTokens: number(8),
    reasoningTokens: number(9),
    upstreamTtftMs: number(10),
    downstreamMs: number(11),
    totalMs: number(12),
    costPico: number(13),
  }
}

function packed(value: unknown): PackedId {
  return typeof value === 'string' || value instanceof Uint8Array ? value : ''
}

/** Rows after a sequence number as sums take them. */
export function* addendsAfter(file: OpenLedger, seq: number): Generator<Addend> {
  for (const values of file.values(ROWS_AFTER, seq)) yield addendOf(values)
}

const ROWS_AFTER = `SELECT ${TAIL_COLUMNS.replace('request,', 'NULL,')} FROM attempts WHERE seq > ? ORDER BY seq`
