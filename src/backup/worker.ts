/** The thread in which a running gateway makes a backup: no request waits for the copying. */
import { BackupError, type Databases, type Made, makeBackup } from './backup.ts'

export type Asked = { from: Databases; target: string; usage: boolean }
export type Answered = { made: Made } | { problem: string }

declare const self: Worker

self.onmessage = ({ data: { from, target, usage } }: MessageEvent<Asked>) => {
  self.postMessage(answerTo(from, target, usage))
}

function answerTo(from: Databases, target: string, usage: boolean): Answered {
  try {
    return { made: makeBackup(from, target, { usage }) }
  } catch (error) {
    if (!(error instanceof BackupError)) throw error
    return { problem: error.message }
  }
}
