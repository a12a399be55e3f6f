import { type Ledger, LedgerTooBusy, LedgerUnavailable, QuestionTooWide } from '../ledger/ledger.ts'
import { AdminError } from './error.ts'

/**
 * What the ledger answers to a question.
 * throws: AdminError with the ledger's own words: 503 where it cannot be asked, 400 where the question is too wide
 */
export async function ask<T>(ledger: Ledger, question: (ledger: Ledger) => Promise<T>): Promise<T> {
  try {
    return await question(ledger)
  } catch (error) {
    if (error instanceof QuestionTooWide) throw new AdminError(400, error.message)
    if (error instanceof LedgerUnavailable || error instanceof LedgerTooBusy) throw new AdminError(503, error.message)
    throw error
  }
}

/** What the reference says of the errors that `ask` throws. */
export const LEDGER_ERRORS = {
  400: 'A parameter is unknown or out of its range, or the question is too wide; the message names each one.',
  503: 'The ledger cannot be asked, or `usage.enabled` is false; the message says why and what to do.',
} as const
