import type { GatewayError } from '../errors.ts'
import type { OpenAttempt } from './open-attempt.ts'

export type Piece = { done: boolean; value?: Uint8Array | undefined }
export type Reader = { read(): Promise<Piece>; cancel(): Promise<void> }

/** What an upstream answered well. */
export type Answer =
  /** `head`: what its head says besides the usual, or in place of it. */
  | { kind: 'whole'; body: string | Uint8Array<ArrayBuffer>; head?: Record<string, string>; status?: number }
  /** Too large to hold: what was read, and the rest. */
  | {
      kind: 'large'
      held: Uint8Array[]
      reader: Reader
      attempt: OpenAttempt
      head?: Record<string, string>
      status?: number
    }
  | { kind: 'stream'; stream: AnswerStream }

/** A stream on its way to the caller. `read` gives binary text to send, until `isDone`. */
export type AnswerStream = {
  readonly isDone: boolean
  read(): Promise<string>
  /** What tells the caller that it broke: the last thing that is sent. */
  errorFrame(error: GatewayError): string
  abort(reason: GatewayError): void
  release(): void
}

/** How chunks of chat go out to a caller. */
export type Framer = {
  /** in, out: binary text; '' where there is nothing to send */
  chunk(data: string): string
  end(): string
  /** What ends a stream that broke. in: `data` of the last event before it, where that is the upstream's own */
  error(error: GatewayError, last?: string): string
}
