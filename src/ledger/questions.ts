import { LedgerTooBusy, LedgerUnavailable, QuestionTooWide } from './ledger.ts'
import type { FromReader, Question } from './messages.ts'
import { type StartThread, startThread, type Thread } from './thread.ts'

/** Questions that may wait; each takes up to some hundred milliseconds of a thread. */
const QUESTIONS_MAX = 64
/** A question that takes longer than this has met a disk that does not answer. */
const DEADLINE_MS = 30_000

/** A reader that is in the middle of an answer is not waited for longer than this. */
const LEAVE_MS = 1_000

type Pending = { resolve: (answer: unknown) => void; reject: (error: Error) => void; timer: ReturnType<typeof setTimeout> }

/** Asks the thread that reads the ledger, which is started by the first question. */
export function createQuestions(path: string, startReader: StartThread = startThread, deadlineMs = DEADLINE_MS) {
  const pending = new Map<number, Pending>()
  let reader: Thread | undefined
  let asked = 0
  let isClosed = false
  const left = Promise.withResolvers<void>()

  const take = (id: number): Pending | undefined => {
    const found = pending.get(id)
    if (!found) return undefined
    clearTimeout(found.timer)
    pending.delete(id)
    if (pending.size === 0) reader?.release()
    return found
  }

  const onMessage = (message: FromReader) => {
    if (message.kind === 'left') {
      left.resolve()
      return
    }
    const waiting = take(message.id)
    if (!waiting) return
    if (message.kind === 'answer') waiting.resolve(message.answer)
    else waiting.reject(new (message.why === 'too_wide' ? QuestionTooWide : LedgerUnavailable)(message.message))
  }

  const refuseAll = (words: string) => {
    for (const id of [...pending.keys()]) take(id)?.reject(new LedgerUnavailable(words))
  }

  const start = (): Thread => {
    const thread = startReader<FromReader>(onMessage, reason => {
      reader = undefined
      left.resolve()
      refuseAll(`the thread that reads the usage ledger ended (${reason}); ask again`)
    })
    thread.send({ kind: 'read', path })
    return thread
  }

  const giveUp = () => {
    reader?.end()
    reader = undefined
    refuseAll(`the usage ledger did not answer within ${deadlineMs / 1_000} s; check its disk, or ask for less`)
  }

  const assertRoom = () => {
    if (isClosed) throw new LedgerUnavailable('the gateway is stopping')
    if (pending.size >= QUESTIONS_MAX) throw new LedgerTooBusy('too many questions about usage wait already; ask again later')
  }

  return {
    /** throws: LedgerTooBusy; LedgerUnavailable once closed */
    assertRoom,

    /** throws: LedgerTooBusy, LedgerUnavailable, QuestionTooWide */
    ask<T>(question: Question): Promise<T> {
      assertRoom()
      reader ??= start()
      reader.hold()
      const id = ++asked
      const { promise, resolve, reject } = Promise.withResolvers<unknown>()
      pending.set(id, { resolve, reject, timer: setTimeout(giveUp, deadlineMs) })
      reader.send({ kind: 'ask', id, question })
      return promise as Promise<T>
    },

    /** Refuses what waits. The reader lets go of the file first, or its end would leave the log behind. */
    async close(): Promise<void> {
      isClosed = true
      refuseAll('the gateway is stopping')
      if (!reader) return
      reader.hold()
      reader.send({ kind: 'leave' })
      const timer = setTimeout(left.resolve, LEAVE_MS)
      await left.promise
      clearTimeout(timer)
      reader?.end()
      reader = undefined
    },
  }
}
