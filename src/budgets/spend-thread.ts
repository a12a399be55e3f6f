import { startWorker } from '../lib/worker.ts'
import type { Exchange, Exchanged, PastPeriod, PastQuestion } from './spend-file.ts'
import type { Answer, Answered, Asked, Question } from './worker.ts'

/** The thread of the file, from outside. A thread that ends unasked is started again with the next question. */
export class SpendThread {
  private worker: Worker | undefined
  private readonly waiting = new Map<number, PromiseWithResolvers<Answer>>()
  private asked = 0

  constructor(private readonly path: string) {}

  async exchange(exchange: Exchange): Promise<Exchanged> {
    try {
      const { exchanged } = await this.ask({ ask: 'exchange', exchange })
      if (exchanged) return exchanged
      throw new Error('it gave no answer')
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      return { kind: 'failed', problem: `the thread that writes ${this.path} has ended: ${reason}`, movedTo: undefined }
    }
  }

  /** throws: Error with words for an operator */
  async past(question: PastQuestion): Promise<PastPeriod[]> {
    const { past, problem } = await this.ask({ ask: 'past', past: question })
    if (!past) throw new Error(problem)
    return past
  }

  async prune(budgetIds: string[], nowMs: number): Promise<void> {
    await this.ask({ ask: 'prune', budgetIds, nowMs })
  }

  /** Lets go of the file; whoever still waits for an answer gets none. */
  async close(timeoutMs: number): Promise<void> {
    const { worker } = this
    if (!worker) return
    // A disk that hangs must not keep the process from ending: what was acknowledged is on it.
    const closed = this.ask({ ask: 'close' }).catch(() => undefined)
    const { promise: late, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, timeoutMs)
    await Promise.race([closed, late])
    clearTimeout(timer)
    this.fail(worker, 'it was closed')
    worker.terminate()
  }

  /** Starts the thread ahead of the first question: it takes some milliseconds. */
  prepare(): void {
    this.worker ??= this.start()
  }

  private ask(question: Question): Promise<Answer> {
    return this.send(this.worker ?? this.start(), question)
  }

  private send(worker: Worker, question: Question): Promise<Answer> {
    this.asked += 1
    const answer = Promise.withResolvers<Answer>()
    this.waiting.set(this.asked, answer)
    worker.postMessage({ id: this.asked, question } satisfies Asked)
    return answer.promise
  }

  private start(): Worker {
    const worker = startWorker('budgets/worker.ts')
    this.worker = worker
    worker.onmessage = ({ data: { id, answer } }: MessageEvent<Answered>) => {
      this.waiting.get(id)?.resolve(answer)
      this.waiting.delete(id)
    }
    worker.onerror = event => {
      event.preventDefault()
      this.fail(worker, event.message)
      worker.terminate()
    }
    worker.addEventListener('close', () => this.fail(worker, 'it stopped'))
    // The timer of its owner keeps nothing alive either: a process ends when its listeners do.
    worker.unref()
    this.send(worker, { ask: 'open', path: this.path }).catch(() => undefined)
    return worker
  }

  private fail(worker: Worker, reason: string): void {
    if (this.worker !== worker) return
    this.worker = undefined
    for (const { reject } of this.waiting.values()) reject(new Error(reason))
    this.waiting.clear()
  }
}
