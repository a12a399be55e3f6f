import type { SQLQueryBindings } from 'bun:sqlite'
import type { Batch } from './batch.ts'
import type { OpenLedger } from './file.ts'
import { isAscii, type PackedId, packId, packIdAt } from './packed-id.ts'
import { COLUMNS, FIELD, FIELDS } from './row.ts'
import type { Addend } from './sums.ts'

/** Rows of one INSERT: a call costs as much as a third of a row, and more of them at once gain nothing that can be measured. */
const ROWS_A_STATEMENT = 16
const WIDTH = COLUMNS.length
const ONE_ROW = `(${COLUMNS.map(() => '?').join(', ')})`
const INSERT = `INSERT INTO attempts (${COLUMNS.join(', ')}) VALUES `
const INSERT_ONE = INSERT + ONE_ROW
const INSERT_MANY = INSERT + new Array(ROWS_A_STATEMENT).fill(ONE_ROW).join(', ')

// Looked up once: in the loop below each look-up would cost as much as the number that it leads to.
const {
  requestId: REQUEST_ID,
  at: AT,
  labels: LABELS,
  route: ROUTE,
  flags: FLAGS,
  costPico: COST_PICO,
  requestedModel: REQUESTED_MODEL,
  userAgent: USER_AGENT,
  traceId: TRACE_ID,
  providerRequestId: PROVIDER_REQUEST_ID,
  errorClass: ERROR_CLASS,
  errorMessage: ERROR_MESSAGE,
  status: STATUS,
  promptTokens: PROMPT_TOKENS,
  completionTokens: COMPLETION_TOKENS,
  cachedTokens: CACHED_TOKENS,
  reasoningTokens: REASONING_TOKENS,
  upstreamTtftMs: UPSTREAM_TTFT_MS,
  downstreamMs: DOWNSTREAM_MS,
  totalMs: TOTAL_MS,
} = FIELD

/**
 * Inserts the rows of a batch, within a transaction.
 * in: ids of the batch's strings and labels in the file
 * out: the packed ids of the requests
 */
export function insertRows(
  file: OpenLedger,
  firstSeq: number,
  { rows, numbers, text, extras }: Batch,
  strings: readonly (number | string)[],
  labels: readonly number[],
): PackedId[] {
  const requests: PackedId[] = new Array(rows)
  const values: SQLQueryBindings[] = new Array(ROWS_A_STATEMENT * WIDTH).fill(null)
  const many = file.statement(INSERT_MANY)
  let textAt = 0
  let extraAt = 0
  // Characters of a long string are several times slower to come by than bytes.
  const bytes = isAscii(text) ? Buffer.from(text, 'latin1') : undefined
  const takeId = (length = ABSENT): PackedId | null => {
    if (length < 0) return null
    const from = textAt
    textAt += length
    if (!bytes) return packId(text.slice(from, textAt))
    return packIdAt(bytes, from, length) ?? text.slice(from, textAt)
  }
  const string = (index = ABSENT): number | string | null => (index < 0 ? null : (strings[index | 0] ?? null))
  for (let row = 0, at = 0, to = 0; row < rows; row++, at += FIELDS) {
    const request = takeId(numbers[at + REQUEST_ID]) ?? ''
    requests[row] = request
    values[to] = firstSeq + row
    values[to + 1] = integer(numbers[at + AT])
    values[to + 2] = request
    values[to + 3] = labels[(numbers[at + LABELS] ?? 0) | 0] ?? 0
    values[to + 4] = string(numbers[at + ROUTE])
    // Columns and fields from `flags` to `cost_pico`, then from `requested_model` to `user_agent`, are in one order.
    for (let field: number = FLAGS; field <= COST_PICO; field++) values[to + 2 + field] = integer(numbers[at + field])
    for (let field: number = REQUESTED_MODEL; field <= USER_AGENT; field++) {
      values[to + 2 + field] = string(numbers[at + field])
    }
    values[to + 21] = takeId(numbers[at + TRACE_ID])
    values[to + 22] = takeId(numbers[at + PROVIDER_REQUEST_ID])
    values[to + 23] = string(numbers[at + ERROR_CLASS])
    const message = numbers[at + ERROR_MESSAGE] ?? -1
    values[to + 24] = message < 0 ? null : text.slice(textAt, textAt + message)
    if (message > 0) textAt += message
    const extra = extras[extraAt]
    const hasExtra = extra?.row === row
    values[to + 25] = hasExtra ? extra.text : null
    if (hasExtra) extraAt += 1
    to += WIDTH
    if (to < values.length) continue
    many.run(...values)
    to = 0
  }
  const rest = rows % ROWS_A_STATEMENT
  for (let row = 0; row < rest; row++) file.run(INSERT_ONE, ...values.slice(row * WIDTH, (row + 1) * WIDTH))
  return requests
}

const ABSENT = -1

/**
 * A number of the batch as SQLite takes it, NULL for an absent one. Out of the buffer numbers come as floating point, which
 * SQLite would turn back one by one; those of 32 bits are made integers here.
 */
function integer(value = ABSENT): number | null {
  if (value < 0) return null
  const short = value | 0
  return short === value ? short : value
}

/** What the rows of a batch add to sums, one after another in one object: a batch has thousands. */
export function* addendsOf({ rows, numbers }: Batch, labels: readonly number[]): Generator<Addend> {
  const row: Addend = {
    at: 0,
    labels: 0,
    flags: 0,
    status: 0,
    promptTokens: 0,
    completionTokens: 0,
    cachedTokens: 0,
    reasoningTokens: 0,
    upstreamTtftMs: -1,
    downstreamMs: -1,
    totalMs: -1,
    costPico: 0,
  }
  for (let index = 0, at = 0; index < rows; index++, at += FIELDS) {
    row.at = numbers[at + AT] ?? 0
    row.labels = labels[(numbers[at + LABELS] ?? 0) | 0] ?? 0
    row.flags = numbers[at + FLAGS] ?? 0
    row.status = numbers[at + STATUS] ?? 0
    row.promptTokens = numbers[at + PROMPT_TOKENS] ?? 0
    row.completionTokens = numbers[at + COMPLETION_TOKENS] ?? 0
    row.cachedTokens = numbers[at + CACHED_TOKENS] ?? 0
    row.reasoningTokens = numbers[at + REASONING_TOKENS] ?? 0
    row.upstreamTtftMs = numbers[at + UPSTREAM_TTFT_MS] ?? -1
    row.downstreamMs = numbers[at + DOWNSTREAM_MS] ?? -1
    row.totalMs = numbers[at + TOTAL_MS] ?? -1
    row.costPico = numbers[at + COST_PICO] ?? 0
    yield row
  }
}
