/** What the pipeline of an exporter needs of a kind of exporter: a translation of reports, and one way to deliver them. */
import type { RequestReport } from '../telemetry/usage-record.ts'

/** A report as a destination wants it, made once: what waits is what will be sent. */
export type Part = {
  readonly text: string
  /** Records of usage that it tells of. */
  readonly records: number
  /** Bytes that it takes while it waits. */
  readonly bytes: number
  /** Epoch milliseconds of its first record. */
  readonly atMs: number
}

/** What came of one try. */
export type Outcome =
  /** `rejected`: of what was delivered, how much the destination said it did not take. */
  | { isDelivered: true; rejected: number }
  | {
      isDelivered: false
      /** In words without a credential and without what was to be delivered. */
      problem: string
      /** Whether the same may go well later. */
      mayRetry: boolean
      /** What the destination asked for. */
      retryAfterMs?: number
    }

/** Delivers one batch. Called again for each try, with the same bytes each time; never rejects. */
export type Delivery = (signal: AbortSignal) => Promise<Outcome>

export interface Destination {
  /** Part of the requests that it takes, 0 to 1. */
  readonly sampleRate: number
  /** 0: no content. */
  readonly contentBytesMax: number
  /** Where records go, in words without a credential, for the log. */
  readonly address: string
  encode(report: RequestReport): string
  /** in: at least one part, in the order in which they were offered */
  pack(parts: readonly Part[]): Delivery | Promise<Delivery>
}
