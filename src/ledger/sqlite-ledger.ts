import type { Clock } from '../gateway.ts'
import type { Log } from '../lib/log.ts'
import type { Registry } from '../telemetry/registry.ts'
import { BatchBuilder, type Receipt } from './batch.ts'
import { Drops } from './drops.ts'
import type { Ledger } from './ledger.ts'
import type { FromWriter, Report } from './messages.ts'
import { createQuestions } from './questions.ts'
import { type StartThread, startThread, type Thread } from './thread.ts'

export type LedgerOptions = {
  path: string
  retentionDays: number
  bytesMax: number
  log: Log
  registry: Registry
  clock: Clock
  /** Longest time that a record waits before it is handed to the writer. */
  flushMs?: number
  /** After a fault the file is tried again. */
  retryMs?: number
  /** How long the end of the gateway waits for the last records. */
  closeMs?: number
  /** How threads are started: tests end them. */
  startWriter?: StartThread
  startReader?: StartThread
  /** How long a question may take. */
  deadlineMs?: number
}

export type SqliteLedger = Ledger & {
  /** The file was looked at: from now on `status` says how it is. */
  readonly opened: Promise<void>
}

/** Records that may wait, of which the file has not told yet that it has them. */
const QUEUE_RECORDS_MAX = 65_536
const QUEUE_BYTES_MAX = 64 * 1024 * 1024
/** Records that are handed over at once: a millisecond of the event loop. */
const BATCH_RECORDS = 2_048
const FLUSH_MS = 300
const RETRY_MS = 5_000
const CLOSE_MS = 5_000
const TEND_MS = 10_000
/** A question waits this long for the records before it. */
const SETTLE_MS = 1_000

/** The ledger in a file, written and read by threads of its own. Opening never fails: a file that cannot be used is told in `status`. */
export function createLedger(options: LedgerOptions): SqliteLedger {
  const { path, retentionDays, bytesMax, log, registry, clock } = options
  const { flushMs = FLUSH_MS, retryMs = RETRY_MS, closeMs = CLOSE_MS, startWriter = startThread } = options
  const drops = new Drops(registry)
  const receipts = new Map<number, Receipt>()
  const opened = Promise.withResolvers<void>()
  const closed = Promise.withResolvers<void>()
  const settlers = new Set<{ number: number; wake: () => void }>()
  const waiting = new BatchBuilder()
  let flushTimer: ReturnType<typeof setTimeout> | undefined
  let batchNumber = 0
  let queuedRecords = 0
  let queuedBytes = 0
  let written = 0
  let report: Report = { problem: undefined, isWriting: true, bytes: 0, oldestMs: undefined }
  let writer: Thread | undefined
  let restartTimer: ReturnType<typeof setTimeout> | undefined
  let isClosing = false

  const hear = (next: Report) => {
    const before = report.problem
    report = next
    if (next.problem !== undefined && next.problem !== before) log.warn('the usage ledger is degraded', { problem: next.problem })
    if (next.problem === undefined && before !== undefined) log.info('the usage ledger is written again')
    opened.resolve()
  }

  const finish = (number: number, isWritten: boolean) => {
    const receipt = receipts.get(number)
    if (!receipt) return
    receipts.delete(number)
    queuedRecords -= receipt.rows
    queuedBytes -= receipt.bytes
    if (isWritten) written += receipt.rows
    else for (const [at, labels] of receipt.labels.entries()) drops.add('sink_closed', labels, receipt.counts[at])
    for (const settler of settlers) if (isSettled(settler.number)) settler.wake()
  }

  /** Batches are finished in their order. */
  const isSettled = (number: number) => {
    for (const each of receipts.keys()) return each > number
    return true
  }

  const onMessage = (message: FromWriter) => {
    switch (message.kind) {
      case 'done':
        finish(message.number, message.isWritten)
        hear(message.report)
        break
      case 'report':
        hear(message.report)
        break
      case 'notice':
        log[message.level](message.message)
        break
      case 'closed':
        closed.resolve()
    }
  }

  const loseAll = () => {
    for (const number of [...receipts.keys()]) finish(number, false)
  }

  /** Its last batches may be in the file or not: they are not sent again, so that nothing is counted twice. */
  const onEnd = (reason: string) => {
    writer = undefined
    if (isClosing) return closed.resolve()
    loseAll()
    hear({
      ...report,
      isWriting: false,
      problem: `the thread that writes the usage ledger ended (${reason}); it is started again`,
    })
    restartTimer = setTimeout(start, retryMs)
    restartTimer.unref()
  }

  const start = () => {
    const writerId = crypto.randomUUID()
    writer = startWriter<FromWriter>(onMessage, onEnd)
    writer.send({ kind: 'write', options: { path, writerId, retentionDays, bytesMax, retryMs }, nowMs: clock.now() })
  }

  const flush = () => {
    clearTimeout(flushTimer)
    flushTimer = undefined
    if (waiting.rows === 0) return
    const { batch, receipt } = waiting.take(++batchNumber)
    receipts.set(receipt.number, receipt)
    queuedBytes += receipt.bytes
    if (!writer) return finish(receipt.number, false)
    writer.send({ kind: 'batch', batch, nowMs: clock.now() }, [batch.numbers.buffer])
  }

  /** What was recorded before a question is in its answer, where the file can be written. */
  const settle = async () => {
    flush()
    const number = batchNumber
    if (isSettled(number) || report.problem !== undefined) return
    const { promise, resolve } = Promise.withResolvers<void>()
    const settler = { number, wake: resolve }
    settlers.add(settler)
    const timer = setTimeout(resolve, SETTLE_MS)
    await promise
    clearTimeout(timer)
    settlers.delete(settler)
  }

  const questions = createQuestions(path, options.startReader, options.deadlineMs)
  const tendTimer = setInterval(() => writer?.send({ kind: 'tend', nowMs: clock.now() }), TEND_MS)
  tendTimer.unref()
  start()

  const ask = async <T>(question: Parameters<typeof questions.ask>[0]): Promise<T> => {
    questions.assertRoom()
    await settle()
    return questions.ask<T>(question)
  }

  return {
    opened: opened.promise,

    record(record) {
      const isFull = queuedRecords >= QUEUE_RECORDS_MAX || queuedBytes >= QUEUE_BYTES_MAX
      if (isClosing || isFull) {
        drops.add(isClosing ? 'sink_closed' : 'sink_full', record.labels)
        return false
      }
      queuedRecords += 1
      waiting.add(record)
      if (waiting.rows >= BATCH_RECORDS) flush()
      else if (flushTimer === undefined) {
        flushTimer = setTimeout(flush, flushMs)
        flushTimer.unref()
      }
      return true
    },

    usage: question => ask({ about: 'usage', question }),
    requests: question => ask({ about: 'requests', question }),
    request: requestId => ask({ about: 'request', requestId }),

    get status() {
      const { problem, isWriting, bytes, oldestMs } = report
      const state = problem === undefined ? ('ok' as const) : ('degraded' as const)
      return { state, isWriting, problem, queued: queuedRecords, written, dropped: drops.total, bytes, bytesMax, oldestMs }
    },

    async close() {
      if (isClosing) return closed.promise
      isClosing = true
      flush()
      clearInterval(tendTimer)
      clearTimeout(restartTimer)
      await questions.close()
      if (writer) {
        writer.hold()
        writer.send({ kind: 'close', nowMs: clock.now() })
        const timer = setTimeout(closed.resolve, closeMs)
        await closed.promise
        clearTimeout(timer)
        writer?.end()
      }
      closed.resolve()
      loseAll()
      if (drops.total > 0) log.warn('records of usage were lost since the start', { count: drops.total })
    },
  }
}
