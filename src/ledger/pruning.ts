import type { OpenLedger } from './file.ts'
import { removeOldest } from './rollup.ts'
import { DAY_MS, HOUR_MS } from './sums.ts'
import type { Tail } from './tail.ts'

/** Days that roll-ups are kept. */
export const HOURS_KEPT_DAYS = 35
export const DAYS_KEPT_DAYS = 400

/** Parts of `bytesMax`: above the first something is removed, down to the second. What is between is reused, not given back. */
const BYTES_HIGH = 0.9
const BYTES_LOW = 0.85
/** Part of the file that may lie unused before it is made smaller, and what is not worth the trouble. */
const FREE_MAX = 0.1
const FREE_BYTES_MAX = 1024 * 1024
const VACUUM_PAGES = 500
/** Rows of the dictionaries that one step removes. */
const ENTRIES_A_STEP = 1_000
const WRITERS_KEPT_DAYS = 7

export type PruningOptions = { retentionDays: number; bytesMax: number }

/** What the log may take of `bytesMax`; it is counted as if it always did, for a long question keeps it from shrinking. */
export function logBytesOf(bytesMax: number): number {
  return Math.min(4 * 1024 * 1024, Math.floor(bytesMax / 8))
}

/**
 * Keeps a ledger in its bounds, in steps of some milliseconds between which records are written: rows past their days, then
 * the oldest rows and roll-ups while the file is too large, then entries of dictionaries that nothing refers to, and in the
 * end the pages that became free.
 */
export function createPruning(file: OpenLedger, tail: Tail, { retentionDays, bytesMax }: PruningOptions) {
  let isShrinking = false
  let isVacuuming = false
  let hasRemoved = false
  let dictionariesDay = 0

  /** The oldest rows that a block describes, or else those that wait to be. out: whether there were any */
  const removeRows = (nowMs: number, endedBefore: number): boolean => {
    const find = () =>
      file.values('SELECT first_seq, last_seq FROM blocks WHERE to_ms < ? ORDER BY first_seq LIMIT 1', endedBefore)
    let [block] = find()
    if (!block && tail.unsealed.rows > 0 && tail.unsealed.toMs < endedBefore) {
      tail.settleAll(nowMs)
      ;[block] = find()
    }
    if (!block) return false
    // Their sums must not go with them.
    tail.settleAll(nowMs)
    const [first, last] = [Number(block[0]), Number(block[1])]
    file.transaction(() => {
      file.run('DELETE FROM attempts WHERE seq >= ? AND seq <= ?', first, last)
      file.run('DELETE FROM blocks WHERE first_seq = ?', first)
      file.run('DELETE FROM filters WHERE first_seq = ?', first)
    })
    return true
  }

  const removeForAge = (nowMs: number): boolean =>
    removeRows(nowMs, nowMs - retentionDays * DAY_MS) ||
    removeOldest(file, 'hours', Math.floor((nowMs - HOURS_KEPT_DAYS * DAY_MS) / HOUR_MS)) ||
    removeOldest(file, 'days', Math.floor((nowMs - DAYS_KEPT_DAYS * DAY_MS) / DAY_MS))

  const logBytes = logBytesOf(bytesMax)
  const usedBytes = () => file.sizes().used + logBytes

  const removeForBytes = (nowMs: number): boolean => {
    if (usedBytes() <= bytesMax * (isShrinking ? BYTES_LOW : BYTES_HIGH)) {
      isShrinking = false
      return false
    }
    isShrinking = true
    const always = Number.MAX_SAFE_INTEGER
    return removeRows(nowMs, always) || removeOldest(file, 'hours', always) || removeOldest(file, 'days', always)
  }

  /** Entries that were last used before the oldest row that may speak of them: a day's grace for rows under way. */
  const removeEntries = (nowMs: number): boolean => {
    const today = Math.floor(nowMs / DAY_MS)
    const rowsDay = Math.min(today, Math.floor((oldestMs(file) ?? nowMs) / DAY_MS)) - 1
    const [[hour, day] = []] = file.values('SELECT (SELECT min(start) FROM hours) / 24, (SELECT min(start) FROM days)')
    const sumsDay = Math.min(rowsDay, Number(hour ?? today) - 1, Number(day ?? today) - 1)
    let removed = 0
    file.transaction(() => {
      for (const [table, usedBefore] of [
        ['strings', rowsDay],
        ['labels', rowsDay],
        ['entities', sumsDay],
      ] as const) {
        const { changes } = file.run(
          `DELETE FROM ${table} WHERE id IN (SELECT id FROM ${table} WHERE used_day < ? LIMIT ${ENTRIES_A_STEP})`,
          usedBefore,
        )
        removed = Math.max(removed, changes)
      }
      file.run('DELETE FROM writers WHERE used_day < ?', today - WRITERS_KEPT_DAYS)
    })
    return removed >= ENTRIES_A_STEP
  }

  const vacuum = (): boolean => {
    const { free, taken, log } = file.sizes()
    if (free > Math.max(FREE_BYTES_MAX, taken * FREE_MAX) || (taken + logBytes > bytesMax && free > 0)) isVacuuming = true
    if (isVacuuming) {
      file.vacuum(VACUUM_PAGES)
      const left = file.sizes().free
      if (left > 0 && left < free) return true
      isVacuuming = false
      file.emptyLog()
    } else if (log > logBytes) file.emptyLog()
    return false
  }

  return {
    /** Whether there is something to do before the next look. */
    isOverBytes: () => usedBytes() > bytesMax * BYTES_HIGH,

    /** One step. out: whether there is more to do at once */
    step(nowMs: number): boolean {
      if (removeForAge(nowMs) || removeForBytes(nowMs)) {
        hasRemoved = true
        return true
      }
      const today = Math.floor(nowMs / DAY_MS)
      if (hasRemoved || dictionariesDay !== today) {
        if (removeEntries(nowMs)) return true
        hasRemoved = false
        dictionariesDay = today
      }
      return vacuum()
    },
  }
}
export type Pruning = ReturnType<typeof createPruning>

/** When the oldest row ended; undefined without one. */
export function oldestMs(file: OpenLedger): number | undefined {
  const [[block] = []] = file.values('SELECT min(from_ms) FROM blocks')
  const [[row] = []] = file.values('SELECT at FROM attempts ORDER BY seq LIMIT 1')
  if (typeof row !== 'number') return undefined
  return typeof block === 'number' ? Math.min(block, row) : row
}
