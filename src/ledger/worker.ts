/**
 * The threads of the ledger: one writes, one answers questions, so that no question delays a record and neither ever runs
 * where requests are served. The first message says which of the two this is.
 */
import { LedgerUnavailable, QuestionTooWide } from './ledger.ts'
import type { FromReader, FromWriter, ToReader, ToWriter } from './messages.ts'
import { createReader, type Reader } from './reader.ts'
import { createWriter, type Writer } from './writer.ts'

declare const self: {
  onmessage: (event: MessageEvent<ToWriter | ToReader>) => void
  postMessage(message: FromWriter | FromReader): void
}

let writer: Writer | undefined
let reader: Reader | undefined

self.onmessage = ({ data }) => {
  switch (data.kind) {
    case 'write':
      writer = createWriter(data.options, message => self.postMessage(message))
      writer.start(data.nowMs)
      break
    case 'batch':
      writer?.push(data.batch, data.nowMs)
      break
    case 'tend':
      writer?.tend(data.nowMs)
      break
    case 'close':
      writer?.close(data.nowMs)
      break
    case 'read':
      reader = createReader(data.path)
      break
    case 'ask':
      if (reader) answer(reader, data)
      break
    case 'leave':
      reader?.close()
      self.postMessage({ kind: 'left' })
  }
}

function answer(reader: Reader, { id, question }: Extract<ToReader, { kind: 'ask' }>): void {
  try {
    self.postMessage({ kind: 'answer', id, answer: reader.answer(question) })
  } catch (error) {
    if (!(error instanceof LedgerUnavailable) && !(error instanceof QuestionTooWide)) throw error
    const why = error instanceof QuestionTooWide ? 'too_wide' : 'unavailable'
    self.postMessage({ kind: 'refused', id, why, message: error.message })
  }
}
