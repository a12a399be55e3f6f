/** What the gateway's thread and those of the ledger tell each other. */
import type { Batch } from './batch.ts'
import type { RequestsQuestion, UsageQuestion } from './ledger.ts'

export type WriterOptions = {
  path: string
  /** Tells the batches of this gateway, in this life, from those of others. */
  writerId: string
  retentionDays: number
  bytesMax: number
  /** After a fault the file is tried again. */
  retryMs: number
}

export type ToWriter =
  | { kind: 'write'; options: WriterOptions; nowMs: number }
  | { kind: 'batch'; batch: Batch; nowMs: number }
  /** Time passes: prune what is due. */
  | { kind: 'tend'; nowMs: number }
  | { kind: 'close'; nowMs: number }

export type FromWriter =
  /** The batch is in the file, or never will be. */
  | { kind: 'done'; number: number; isWritten: boolean; report: Report }
  | { kind: 'report'; report: Report }
  | { kind: 'notice'; level: 'info' | 'warn'; message: string }
  | { kind: 'closed' }

export type Report = { problem: string | undefined; isWriting: boolean; bytes: number; oldestMs: number | undefined }

export type Question =
  | { about: 'usage'; question: UsageQuestion }
  | { about: 'requests'; question: RequestsQuestion }
  | { about: 'request'; requestId: string }

export type ToReader = { kind: 'read'; path: string } | { kind: 'ask'; id: number; question: Question } | { kind: 'leave' }

export type FromReader =
  | { kind: 'answer'; id: number; answer: unknown }
  | { kind: 'refused'; id: number; why: 'unavailable' | 'too_wide'; message: string }
  /** It has let go of the file. */
  | { kind: 'left' }
