import { startWorker } from '../lib/worker.ts'
import type { FromReader, FromWriter, ToReader, ToWriter } from './messages.ts'

export type Thread = {
  send(message: ToWriter | ToReader, transfer?: ArrayBuffer[]): void
  /** While held, the process waits for the thread; else the thread ends with it. */
  hold(): void
  release(): void
  end(): void
}

/**
 * Starts a thread of the ledger.
 * in: `onEnd` is told once when it ends by itself, and why; nothing more is heard of it then
 */
export type StartThread = <T extends FromWriter | FromReader>(
  onMessage: (message: T) => void,
  onEnd: (reason: string) => void,
) => Thread

export const startThread: StartThread = (onMessage, onEnd) => {
  const worker = startWorker('ledger/worker.ts')
  worker.unref()
  let isOver = false
  const over = (reason: string) => {
    if (isOver) return
    isOver = true
    worker.terminate()
    onEnd(reason)
  }
  worker.onmessage = ({ data }) => {
    if (!isOver) onMessage(data)
  }
  worker.onerror = event => {
    event.preventDefault()
    over(event.message)
  }
  worker.onmessageerror = () => over('a message could not be read')
  worker.addEventListener('close', () => over('closed'))
  return {
    send: (message, transfer = []) => worker.postMessage(message, transfer),
    hold: () => worker.ref(),
    release: () => worker.unref(),
    end() {
      isOver = true
      worker.terminate()
    },
  }
}
