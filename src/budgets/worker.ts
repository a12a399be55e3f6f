/** The thread that keeps the file with spending on budgets: no request ever waits for its disk. */
import { type Exchange, type Exchanged, type PastPeriod, type PastQuestion, SpendFile } from './spend-file.ts'

export type Question =
  | { ask: 'open'; path: string }
  | { ask: 'exchange'; exchange: Exchange }
  | { ask: 'past'; past: PastQuestion }
  | { ask: 'prune'; budgetIds: string[]; nowMs: number }
  | { ask: 'close' }
export type Asked = { id: number; question: Question }
export type Answer = { exchanged?: Exchanged; past?: PastPeriod[]; problem?: string }
export type Answered = { id: number; answer: Answer }

declare const self: Worker

let file: SpendFile | undefined

self.onmessage = ({ data: { id, question } }: MessageEvent<Asked>) => {
  self.postMessage({ id, answer: answerTo(question) } satisfies Answered)
}

function answerTo(question: Question): Answer {
  if (question.ask === 'open') file = new SpendFile(question.path)
  if (!file) throw new Error('asked before it was told where the file is')
  switch (question.ask) {
    case 'exchange':
      return { exchanged: file.exchange(question.exchange) }
    case 'past':
      try {
        return { past: file.past(question.past) }
      } catch (error) {
        return { problem: error instanceof Error ? error.message : String(error) }
      }
    case 'prune':
      file.prune(question.budgetIds, question.nowMs)
      return {}
    case 'close':
      file.close()
      return {}
    case 'open':
      return {}
  }
}
