import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Batch } from './batch.ts'
import { createDictionary, type Dictionary } from './dictionary.ts'
import { explain, META, type OpenLedger, openLedgerFile, type Remedy, remedyFor, setAside } from './file.ts'
import { addendsOf, insertRows } from './insertion.ts'
import type { FromWriter, Report, WriterOptions } from './messages.ts'
import { createPruning, logBytesOf, oldestMs, type Pruning } from './pruning.ts'
import { DAY_MS } from './sums.ts'
import { Tail } from './tail.ts'

/** How long things are left alone that need no haste. */
const TEND_EVERY_MS = 10_000
/** Times that something is tried in one go. */
const TRIES = 3
/** A file that another process holds is free again soon. */
const LOCKED_RETRY_MS = 1_000
/** A string of a dictionary stays for a day at least: of a small file it may take this part. */
const NEW_STRINGS_MAX = 10_000
const BYTES_A_NEW_STRING = 16_384

type Open = { file: OpenLedger; dictionary: Dictionary; tail: Tail; pruning: Pruning }

/**
 * The one that writes to the ledger, in a thread of its own: it may wait for a lock or a disk. Batches are written in the
 * order in which they come; while the file cannot be written they wait, and the file is tried again until it can.
 */
export function createWriter(options: WriterOptions, tell: (message: FromWriter) => void) {
  const { path, writerId, retentionDays, bytesMax } = options
  const waiting: Batch[] = []
  let open: Open | undefined
  let fault: string | undefined
  /** Where a damaged ledger was put: a problem for as long as it is there. */
  let aside: string | undefined
  let lastSeq = 0
  let nowMs = 0
  let tendedMs = Number.NEGATIVE_INFINITY
  let timer: ReturnType<typeof setTimeout> | undefined
  let isClosed = false
  let bytes = 0
  let oldest: number | undefined

  const report = (): Report => {
    if (open) measure(open.file)
    const set = aside && `the ledger was damaged and lies at ${aside} now, a new one was begun; repair or remove the old one`
    return { problem: fault ?? set, isWriting: fault === undefined, bytes, oldestMs: oldest }
  }
  const measure = (file: OpenLedger) => {
    try {
      const { used, log } = file.sizes()
      bytes = used + log
      // Looking for it takes a while in a large ledger: it moves when rows are pruned.
      oldest ??= oldestMs(file)
    } catch (error) {
      // The next write meets it too, and sees to it.
      if (remedyFor(error) === 'unknown') throw error
    }
  }
  const notice = (level: 'info' | 'warn', message: string) => tell({ kind: 'notice', level, message })

  const openFile = (): Open => {
    if (open) return open
    const file = openLedgerFile(path, { create: true, seqFloor: lastSeq, logBytes: logBytesOf(bytesMax) })
    try {
      lastSeq = file.meta(META.last)
      const tail = new Tail(file)
      const newStringsMax = Math.min(NEW_STRINGS_MAX, Math.floor(bytesMax / BYTES_A_NEW_STRING))
      open = {
        file,
        dictionary: createDictionary(file, newStringsMax),
        tail,
        pruning: createPruning(file, tail, { retentionDays, bytesMax }),
      }
      return open
    } catch (error) {
      file.close()
      throw error
    }
  }

  const letGo = (remedy?: Remedy) => {
    if (remedy === 'moved') open?.file.abandon()
    else open?.file.close()
    open = undefined
    bytes = 0
    oldest = undefined
  }

  /**
   * Sees to what went wrong.
   * out: whether it is worth trying again at once
   */
  const face = (error: unknown, remedy: Remedy): boolean => {
    open?.dictionary.forget()
    if (remedy === 'wait') {
      fault = `${explain(error, path)}; it is tried again every second`
      return false
    }
    letGo(remedy)
    const words = explain(error, path)
    fault = `${words}; it is tried again every ${Math.max(1, Math.round(options.retryMs / 1_000))} s`
    if (remedy === 'moved') {
      notice('warn', `${words}; what it held is not in the usage any more, a ledger is looked for or begun at its place`)
      return true
    }
    if (remedy === 'unknown') return true
    if (remedy !== 'damaged' || !existsSync(path)) return false
    try {
      aside = setAside(path, nowMs)
      notice('warn', `${words}; it was moved to ${aside} and a new one is begun, nothing of it was deleted`)
      return true
    } catch (failure) {
      fault = `the ledger ${path} is damaged and cannot be moved away (${explain(failure, path)}); make ${dirname(path)} writable`
      return false
    }
  }

  /**
   * Runs `work` on the open file, again where that may help.
   * out: whether it was `done`; `later`: it can be once the fault is over; `never`: it fails for a reason of its own
   */
  const attempt = (work: (open: Open) => void): 'done' | 'later' | 'never' => {
    for (let tries = 1; ; tries++) {
      try {
        const opened = openFile()
        opened.file.assertInPlace()
        work(opened)
        fault = undefined
        if (aside !== undefined && !existsSync(aside)) aside = undefined
        return 'done'
      } catch (error) {
        const remedy = remedyFor(error)
        const isWorthIt = face(error, remedy)
        if (isWorthIt && tries < TRIES) continue
        return remedy === 'unknown' ? 'never' : 'later'
      }
    }
  }

  const drop = () => {
    const batch = waiting.shift()
    if (batch) tell({ kind: 'done', number: batch.number, isWritten: false, report: report() })
  }

  const work = () => {
    clearTimeout(timer)
    timer = undefined
    if (isClosed) return
    for (let batch = waiting[0]; batch; batch = waiting[0]) {
      const { number } = batch
      const outcome = attempt(opened => {
        // Rows of long ago do not share a block with those of now, or they would be kept as long.
        opened.tail.settle(nowMs)
        lastSeq = writeBatch(opened, batch, writerId, nowMs)
      })
      if (outcome === 'later') return later()
      if (outcome === 'never') {
        drop()
        continue
      }
      waiting.shift()
      // It is committed: whatever goes wrong with the sums from here on is made good later.
      attempt(({ tail }) => tail.settle(nowMs))
      tell({ kind: 'done', number, isWritten: true, report: report() })
    }
    tend()
  }

  const tend = () => {
    const isDue = nowMs - tendedMs >= TEND_EVERY_MS
    let isMore = false
    const outcome = attempt(({ file, tail, pruning }) => {
      if (!isDue && !pruning.isOverBytes()) return
      if (isDue) file.assertHead()
      tail.settle(nowMs)
      isMore = pruning.step(nowMs)
      if (!isMore) oldest = oldestMs(file)
    })
    if (outcome !== 'done') return later()
    // Batches that have come in the meantime go first.
    if (isMore) timer = setTimeout(work, 0)
    else if (isDue) {
      tendedMs = nowMs
      tell({ kind: 'report', report: report() })
    }
  }

  const later = () => {
    tell({ kind: 'report', report: report() })
    // The wait for a lock is short, but never longer than what was asked for.
    timer = setTimeout(work, open ? Math.min(LOCKED_RETRY_MS, options.retryMs) : options.retryMs)
  }

  return {
    start(now: number): void {
      nowMs = now
      work()
      tell({ kind: 'report', report: report() })
    },
    push(batch: Batch, now: number): void {
      nowMs = now
      waiting.push(batch)
      // What waits for a better time keeps its order.
      if (timer === undefined || fault === undefined) work()
    },
    tend(now: number): void {
      nowMs = now
      if (timer === undefined) work()
    },
    /** Writes what waits if it can, and lets go of the file. What could not be written is told as lost. */
    close(now: number): void {
      nowMs = now
      clearTimeout(timer)
      for (let batch = waiting[0]; batch; batch = waiting[0]) {
        const current = batch
        const outcome = attempt(opened => void writeBatch(opened, current, writerId, nowMs))
        if (outcome === 'later') break
        if (outcome === 'never') {
          drop()
          continue
        }
        waiting.shift()
        tell({ kind: 'done', number: current.number, isWritten: true, report: report() })
      }
      while (waiting.length > 0) drop()
      if (open) attempt(({ file }) => file.emptyLog())
      letGo()
      isClosed = true
      tell({ kind: 'closed' })
    },
  }
}
export type Writer = ReturnType<typeof createWriter>

/**
 * Puts a batch into the file, once: a batch that is there already, committed before its writer could say so, is not written
 * again. out: the newest sequence number
 */
function writeBatch({ file, dictionary, tail }: Open, batch: Batch, writerId: string, nowMs: number): number {
  const day = Math.floor(nowMs / DAY_MS)
  const written = file.transaction(() => {
    const before = file.meta(META.last)
    const [[lastBatch] = []] = file.values('SELECT last_batch FROM writers WHERE id = ?', writerId)
    if (typeof lastBatch === 'number' && lastBatch >= batch.number) return { last: before }
    const strings = batch.strings.map(each => dictionary.string(each, day))
    const labels = batch.labels.map(each => dictionary.labels(each, day).id)
    const requests = insertRows(file, before + 1, batch, strings, labels)
    const last = before + batch.rows
    file.setMeta(META.last, last)
    file.run(
      `INSERT INTO writers (id, last_batch, used_day) VALUES (?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET last_batch = excluded.last_batch, used_day = excluded.used_day`,
      ...[writerId, batch.number, day],
    )
    return { last, labels, requests }
  })
  const { last, labels, requests } = written
  if (requests) tail.extend(last - batch.rows + 1, addendsOf(batch, labels), requests, nowMs)
  return last
}
