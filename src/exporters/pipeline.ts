/** What waits to be delivered to one destination, in bounded memory, and when it is sent. source: control-observability §5 */
import type { Log } from '../lib/log.ts'
import type { RequestReport } from '../telemetry/usage-record.ts'
import type { Delivery, Destination, Outcome, Part } from './destination.ts'

/** Records that wait for their delivery. */
export const RECORDS_MAX = 1024
/** Records of one delivery, unless one request alone has more. */
export const BATCH_RECORDS = 100
/** Bytes that wait or are on their way: with content, records are as large as callers make them. */
export const HELD_BYTES_MAX = 32 * 1024 * 1024
/** Bytes of one delivery, unless one request alone has more: what a collector takes by default is 20 MiB. */
const BATCH_BYTES = 4 * 1024 * 1024
/** Deliveries that are under way at a time: a collector far away answers no more than so many batches a round trip. */
const DELIVERIES_MAX = 4
/** Further tries of a delivery. */
const RETRIES = 4

/** Milliseconds. */
export type Pace = {
  /** How long a record waits for others. */
  batch: number
  /** Before the first further try; doubled before each other one. */
  retry: number
  /** Longest wait before a try, whatever the destination asks for. */
  retryMax: number
  /** For one try, to the end of its answer. */
  timeout: number
}
export const PACE: Pace = { batch: 1_000, retry: 200, retryMax: 5_000, timeout: 5_000 }

/** Why records were given up. */
export type DropReason = 'queue_full' | 'delivery_failed' | 'rejected' | 'stopped'

/** Of one exporter, since the start of the process. */
export type Counts = { delivered: number; dropped: number; failed: number }

export type PipelineOptions = {
  destination: Destination
  log: Log
  name: string
  pace: Pace
  /** Shared by the pipelines that an exporter has one after the other. */
  counts: Counts
  /** Epoch milliseconds. */
  now: () => number
  onDrop: (records: number, reason: DropReason) => void
  onFailure: () => void
}

/** Drops are told in the log once in this time, with their number. */
const DROPS_TOLD_MS = 60_000

export class Pipeline {
  /** Of the last try, in words; undefined when it went well. */
  problem: string | undefined
  private readonly queue: Part[] = []
  private queuedRecords = 0
  private heldBytes = 0
  private underWay = 0
  private timer: ReturnType<typeof setTimeout> | undefined
  /** The oldest record has waited long enough. */
  private isDue = false
  private isClosing = false
  private isStopped = false
  private isFailing = false
  private dropsTold = { atMs: Number.NEGATIVE_INFINITY, untold: 0 }
  /** Tries that are under way, and waits for the next one: cut short when the pipeline stops. */
  private readonly interrupts = new Set<() => void>()
  /** Records that were dropped because the pipeline stopped. */
  private stopped = 0
  private readonly idle = Promise.withResolvers<void>()

  constructor(private readonly options: PipelineOptions) {}

  get queued(): number {
    return this.queuedRecords
  }

  offer(report: RequestReport): void {
    const records = report.records.length
    // Asked before the work of translating, most of all while a destination is down.
    if (this.isClosing || this.queuedRecords + records > RECORDS_MAX) {
      this.drop(records, this.isClosing ? 'stopped' : 'queue_full')
      return
    }
    const text = this.options.destination.encode(report)
    const bytes = Buffer.byteLength(text)
    if (bytes === 0) return
    if (this.heldBytes + bytes > HELD_BYTES_MAX) {
      this.drop(records, 'queue_full')
      return
    }
    this.queue.push({ text, records, bytes, atMs: report.records[0]?.occurredAtMs ?? report.endedAtMs })
    this.queuedRecords += records
    this.heldBytes += bytes
    this.pump()
  }

  /** Delivers what is queued, at most for `timeoutMs`; what is left then is dropped. Takes nothing new. May be called again. */
  async close(timeoutMs: number): Promise<void> {
    this.isClosing = true
    const deadline = setTimeout(() => this.stop(), timeoutMs)
    this.pump()
    this.tellIdle()
    await this.idle.promise
    clearTimeout(deadline)
  }

  private stop(): void {
    this.isStopped = true
    this.drop(this.queuedRecords, 'stopped')
    for (const { bytes } of this.queue) this.heldBytes -= bytes
    this.queue.length = 0
    this.queuedRecords = 0
    for (const interrupt of this.interrupts) interrupt()
    this.tellIdle()
  }

  private tellIdle(): void {
    if (!this.isClosing || this.underWay > 0 || this.queue.length > 0) return
    clearTimeout(this.timer)
    const { log, name } = this.options
    if (this.stopped > 0)
      log.warn('records were dropped: this exporter stopped before they were delivered', {
        exporter: name,
        records: this.stopped,
      })
    this.stopped = 0
    this.idle.resolve()
  }

  private pump(): void {
    while (this.underWay < DELIVERIES_MAX && this.queue.length > 0) {
      if (this.queuedRecords < BATCH_RECORDS && !this.isDue && !this.isClosing) break
      this.isDue = false
      this.underWay += 1
      void this.run(this.take())
    }
    if (this.queue.length === 0 || this.isDue || this.timer !== undefined || this.isClosing) return
    this.timer = setTimeout(() => {
      this.timer = undefined
      this.isDue = true
      this.pump()
    }, this.options.pace.batch)
  }

  private take(): Part[] {
    let records = 0
    let bytes = 0
    let count = 0
    for (const part of this.queue) {
      if (count > 0 && (records + part.records > BATCH_RECORDS || bytes + part.bytes > BATCH_BYTES)) break
      records += part.records
      bytes += part.bytes
      count += 1
    }
    this.queuedRecords -= records
    return this.queue.splice(0, count)
  }

  private async run(parts: Part[]): Promise<void> {
    const records = parts.reduce((sum, part) => sum + part.records, 0)
    const outcome = await this.deliver(parts).catch((error: unknown): Outcome => {
      // A mistake of ours: it costs a batch and never the process.
      this.options.log.error('an exporter could not make a delivery', { exporter: this.options.name, error: String(error) })
      return { isDelivered: false, problem: 'could not make a delivery', mayRetry: false }
    })
    for (const { bytes } of parts) this.heldBytes -= bytes
    this.underWay -= 1
    if (outcome.isDelivered) this.delivered(records, outcome.rejected)
    else if (this.isStopped) this.drop(records, 'stopped')
    else this.gaveUp(records, outcome.problem)
    this.pump()
    this.tellIdle()
  }

  private async deliver(parts: readonly Part[]): Promise<Outcome> {
    const { destination, pace, log, name, counts, onFailure } = this.options
    const delivery = await destination.pack(parts)
    for (let tries = 1; ; tries += 1) {
      const outcome = await this.once(delivery)
      if (outcome.isDelivered) return outcome
      counts.failed += 1
      onFailure()
      this.problem = outcome.problem
      if (!outcome.mayRetry || tries > RETRIES || this.isStopped) return outcome
      const wait = Math.min(Math.max(pace.retry * 2 ** (tries - 1), outcome.retryAfterMs ?? 0), pace.retryMax)
      log.debug('a delivery failed and is tried again', { exporter: name, problem: outcome.problem, tries, wait_ms: wait })
      await this.wait(wait)
      if (this.isStopped) return outcome
    }
  }

  /** One try: ended by its deadline, or at once when the pipeline stops, whether its destination listens or not. */
  private once(delivery: Delivery): Promise<Outcome> {
    const controller = new AbortController()
    const { promise, resolve, reject } = Promise.withResolvers<Outcome>()
    const deadline = setTimeout(() => controller.abort(), this.options.pace.timeout)
    const interrupt = () => {
      controller.abort()
      resolve({ isDelivered: false, problem: 'stopped', mayRetry: false })
    }
    this.interrupts.add(interrupt)
    delivery(controller.signal).then(resolve, reject)
    return promise.finally(() => {
      clearTimeout(deadline)
      this.interrupts.delete(interrupt)
    })
  }

  private wait(ms: number): Promise<void> {
    return new Promise(resolve => {
      const end = () => {
        clearTimeout(timer)
        this.interrupts.delete(end)
        resolve()
      }
      const timer = setTimeout(end, ms)
      this.interrupts.add(end)
    })
  }

  private delivered(records: number, rejected: number): void {
    const { counts, log, name } = this.options
    const lost = Math.min(rejected, records)
    counts.delivered += records - lost
    this.problem = undefined
    if (this.isFailing) {
      this.isFailing = false
      log.info('an exporter delivers again', { exporter: name })
    }
    if (lost === 0) return
    this.problem = `the destination rejected ${lost} records of a delivery`
    this.drop(lost, 'rejected')
  }

  private gaveUp(records: number, problem: string): void {
    const { log, name, destination } = this.options
    if (!this.isFailing) {
      this.isFailing = true
      log.warn('an exporter fails: its records are lost until it delivers again', {
        exporter: name,
        address: destination.address,
        problem,
      })
    }
    this.drop(records, 'delivery_failed')
  }

  private drop(records: number, reason: DropReason): void {
    if (records === 0) return
    const { counts, onDrop, log, name, now } = this.options
    counts.dropped += records
    onDrop(records, reason)
    if (reason === 'stopped') this.stopped += records
    // Failures and the end are told as such.
    if (reason === 'stopped' || reason === 'delivery_failed') return
    this.dropsTold.untold += records
    if (now() - this.dropsTold.atMs < DROPS_TOLD_MS) return
    log.warn(DROPPED[reason], { exporter: name, records: this.dropsTold.untold })
    this.dropsTold = { atMs: now(), untold: 0 }
  }
}

const DROPPED = {
  queue_full: 'records were dropped: more come than the destination of this exporter takes',
  rejected: 'records were dropped: the destination of this exporter rejected them',
} as const
