import { type Labels, NO_LABELS } from '../exchange.ts'
import type { UsageRecord } from '../telemetry/usage-record.ts'
import { countOf, mayHaveRequest } from './block.ts'
import { entityIds } from './dictionary.ts'
import { ENTITY, explain, META, type OpenLedger, openLedgerFile, remedyFor } from './file.ts'
import { LedgerUnavailable, type RequestsAnswer, type RequestsQuestion, type StoredRecord } from './ledger.ts'
import type { Question } from './messages.ts'
import { hashId, packId, unpackId } from './packed-id.ts'
import { COLUMNS, FLAG, indexOf, kindOf, readExtra } from './row.ts'
import { answerUsage } from './usage-answer.ts'

/** Rows that one page looks at; past them it ends early, with a cursor. */
const ROWS_A_PAGE_MAX = 400_000
/** What a page costs for each block that it passes over, in rows. */
const ROWS_A_BLOCK = 16
/** Attempts of one request that are told. */
const ATTEMPTS_MAX = 1_000
/** Entries of dictionaries that are remembered. */
const KNOWN_MAX = 50_000

/** The one that answers questions, in a thread of its own: a long one keeps others waiting, and nothing else. */
export function createReader(path: string) {
  let file: OpenLedger | undefined
  const strings = new Map<number, string>()
  const labels = new Map<number, Labels>()

  const letGo = () => {
    file?.close()
    file = undefined
    strings.clear()
    labels.clear()
  }
  const open = (): OpenLedger => {
    try {
      file?.assertInPlace()
    } catch (error) {
      if (remedyFor(error) !== 'moved') throw error
      letGo()
    }
    file ??= openLedgerFile(path, { create: false })
    return file
  }

  const answerFrom = (file: OpenLedger, question: Question) => {
    if (question.about === 'usage') return answerUsage(file, question.question)
    const read = rowReader(file, strings, labels)
    if (question.about === 'requests') return answerRequests(file, question.question, read)
    return attemptsOf(file, question.requestId, read)
  }

  return {
    /** throws: LedgerUnavailable, QuestionTooWide */
    answer(question: Question): unknown {
      try {
        const opened = open()
        return opened.reading(() => answerFrom(opened, question))
      } catch (error) {
        const remedy = remedyFor(error)
        if (remedy === 'unknown') throw error
        if (remedy !== 'wait') letGo()
        throw new LedgerUnavailable(explain(error, path))
      }
    },
    close: letGo,
  }
}
export type Reader = ReturnType<typeof createReader>

type ReadRow = (values: readonly unknown[]) => StoredRecord

const ROW = `SELECT ${COLUMNS.join(', ')} FROM attempts`

/** Makes records of rows again. Strings and labels that many rows share are read once. */
function rowReader(file: OpenLedger, strings: Map<number, string>, labels: Map<number, Labels>): ReadRow {
  const stringOf = (value: unknown): string | undefined => {
    // Those that came when there were too many stand in the row themselves.
    if (typeof value !== 'number') return typeof value === 'string' ? value : undefined
    let text = strings.get(value)
    if (text === undefined) {
      const [[found] = []] = file.values('SELECT text FROM strings WHERE id = ?', value)
      if (typeof found !== 'string') return undefined
      if (strings.size >= KNOWN_MAX) strings.clear()
      strings.set(value, found)
      text = found
    }
    return text
  }
  const labelsOf = (id: number): Labels => {
    let known = labels.get(id)
    if (!known) {
      const [[content] = []] = file.values('SELECT content FROM labels WHERE id = ?', id)
      const stored: Partial<Labels> = typeof content === 'string' ? JSON.parse(content) : {}
      known = { ...NO_LABELS, ...stored }
      if (labels.size >= KNOWN_MAX) labels.clear()
      labels.set(id, known)
    }
    return known
  }
  return values => {
    const number = (at: number) => Number(values[at] ?? 0)
    const optional = (at: number) => (values[at] === null ? undefined : Number(values[at]))
    const id = (at: number) => {
      const value = values[at]
      return typeof value === 'string' || value instanceof Uint8Array ? unpackId(value) : undefined
    }
    const flags = number(5)
    const [endpoint = '', handler = '', inboundProtocol = ''] = (stringOf(values[4]) ?? '').split('\n')
    const message = values[24]
    const extra = values[25]
    // In the order of COLUMNS.
    const record: UsageRecord = {
      labels: labelsOf(number(3)),
      handler,
      endpoint,
      inboundProtocol,
      requestId: id(2) ?? '',
      traceId: id(21),
      occurredAtMs: number(1),
      requestedModel: stringOf(values[16]),
      isStream: (flags & FLAG.stream) !== 0,
      promptTokens: number(7),
      completionTokens: number(8),
      cachedTokens: number(9),
      reasoningTokens: number(10),
      isEstimated: (flags & FLAG.estimated) !== 0,
      upstreamMs: number(11),
      upstreamTtftMs: optional(12),
      downstreamMs: optional(13),
      totalMs: optional(14),
      status: number(6),
      costPico: number(15),
      isPriced: (flags & FLAG.priced) !== 0,
      attemptIndex: indexOf(flags),
      attemptKind: kindOf(flags),
      isTerminal: (flags & FLAG.terminal) !== 0,
      errorClass: stringOf(values[23]),
      errorMessage: typeof message === 'string' ? message : undefined,
      finishReason: stringOf(values[17]),
      providerRequestId: id(22),
      providerModelVersion: stringOf(values[18]),
      clientIp: stringOf(values[19]) ?? '',
      userAgent: stringOf(values[20]),
      extra: typeof extra === 'string' ? readExtra(extra) : undefined,
    }
    return { seq: number(0), record }
  }
}

type Block = { first: number; last: number; fromMs: number; toMs: number; rows: number; failed: number; isSealed: boolean }

/** What rows must be, in SQL, and which blocks can have such. */
type Sieve = {
  sql: string
  params: (number | string)[]
  isOnFailures: boolean
  isEmpty: boolean
  passes(block: Block): boolean
}

function answerRequests(file: OpenLedger, question: RequestsQuestion, read: ReadRow): RequestsAnswer {
  const newest = file.meta(META.last)
  const isForward = question.after !== undefined
  const sieve = sieveOf(file, question)
  const records: StoredRecord[] = []
  if (sieve.isEmpty) return { records, next: undefined, newest }
  const order = isForward ? 'ASC' : 'DESC'
  // The index has failures alone: without it, a page of them would look at every row.
  const source = sieve.isOnFailures ? ROW.replace('FROM attempts', 'FROM attempts INDEXED BY failures') : ROW
  const sql = `${source} WHERE seq >= ? AND seq <= ?${sieve.sql} ORDER BY seq ${order} LIMIT ?`
  const from = isForward ? (question.after ?? 0) + 1 : 1
  const to = isForward ? newest : Math.min(newest, (question.before ?? newest + 1) - 1)
  let work = 0
  for (const block of blocksBetween(file, from, to, isForward)) {
    work += ROWS_A_BLOCK
    if (sieve.passes(block)) {
      const low = Math.max(from, block.first)
      const high = Math.min(to, block.last)
      const limit = question.limit - records.length
      const rows = file.values(sql, low, high, ...sieve.params, limit)
      for (const row of rows) records.push(read(row))
      const last = records.at(-1)
      if (rows.length >= limit && last) return { records, next: hasMore(last.seq, from, to, isForward), newest }
      work += sieve.isOnFailures && block.isSealed ? block.failed : block.rows
    }
    if (work > ROWS_A_PAGE_MAX) {
      const edge = isForward ? Math.min(to, block.last) : Math.max(from, block.first)
      return { records, next: hasMore(edge, from, to, isForward), newest }
    }
  }
  return { records, next: undefined, newest }
}

function hasMore(seq: number, from: number, to: number, isForward: boolean): number | undefined {
  return (isForward ? seq < to : seq > from) ? seq : undefined
}

/** Blocks of the attempts from `from` to `to`, in the order in which a page reads them; the newest rows have none yet. */
function* blocksBetween(file: OpenLedger, from: number, to: number, isForward: boolean): Generator<Block> {
  if (from > to) return
  const sealed = file.meta(META.sealed)
  const tail: Block = {
    first: sealed + 1,
    last: file.meta(META.last),
    fromMs: 0,
    toMs: Number.MAX_SAFE_INTEGER,
    rows: file.meta(META.last) - sealed,
    failed: 0,
    isSealed: false,
  }
  if (!isForward && to > sealed) yield tail
  const sql = `SELECT first_seq, last_seq, from_ms, to_ms, rows, failed FROM blocks WHERE last_seq >= ? AND first_seq <= ?
    ORDER BY first_seq ${isForward ? 'ASC' : 'DESC'} LIMIT ${BLOCKS_AT_ONCE}`
  let [low, high] = [from, to]
  for (;;) {
    const blocks = file.values(sql, low, high)
    for (const values of blocks) {
      const [first = 0, last = 0, fromMs = 0, toMs = 0, rows = 0, failed = 0] = values.map(Number)
      yield { first, last, fromMs, toMs, rows, failed, isSealed: true }
      if (isForward) low = last + 1
      else high = first - 1
    }
    if (blocks.length < BLOCKS_AT_ONCE || low > high) break
  }
  if (isForward && to > sealed) yield tail
}

const BLOCKS_AT_ONCE = 256

function sieveOf(file: OpenLedger, question: RequestsQuestion): Sieve {
  const { apiKeyIds, modelIds, status, failedOnly = false, fromMs, toMs } = question
  let sql = ''
  const params: (number | string)[] = []
  let labels: Set<number> | undefined
  if (apiKeyIds || modelIds) {
    labels = labelsWith(file, apiKeyIds, modelIds)
    sql += ' AND labels IN (SELECT value FROM json_each(?))'
    params.push(JSON.stringify([...labels]))
  }
  const statuses = statusRange(status)
  if (statuses) {
    sql += ' AND status >= ? AND status <= ?'
    params.push(...statuses)
  }
  const isOnFailures = failedOnly || (statuses !== undefined && statuses[0] >= 400)
  // In these words, for the partial index to be of use.
  if (isOnFailures) sql += ' AND status >= 400'
  if (fromMs !== undefined) {
    sql += ' AND at >= ?'
    params.push(fromMs)
  }
  if (toMs !== undefined) {
    sql += ' AND at < ?'
    params.push(toMs)
  }
  return {
    sql,
    params,
    isOnFailures,
    isEmpty: labels?.size === 0 || (statuses !== undefined && statuses[0] > statuses[1]),
    passes(block) {
      if (!block.isSealed) return true
      if (fromMs !== undefined && block.toMs < fromMs) return false
      if (toMs !== undefined && block.fromMs >= toMs) return false
      if (isOnFailures && block.failed === 0) return false
      if (!labels && !statuses) return true
      const [packed = []] = file.values('SELECT labels, statuses FROM blocks WHERE first_seq = ?', block.first)
      const [packedLabels, packedStatuses] = packed
      if (labels && packedLabels instanceof Uint8Array && countOf(packedLabels, id => labels.has(id)) === 0) return false
      if (!statuses || !(packedStatuses instanceof Uint8Array)) return true
      return countOf(packedStatuses, each => each >= statuses[0] && each <= statuses[1]) > 0
    },
  }
}

/** `404` → 404 to 404, `4xx` → 400 to 499. */
function statusRange(status: number | string | undefined): [number, number] | undefined {
  if (status === undefined) return undefined
  if (typeof status === 'number') return [status, status]
  const hundreds = /^[0-9]xx$/.test(status) ? Number(status[0]) * 100 : undefined
  if (hundreds !== undefined) return [hundreds, hundreds + 99]
  const exact = Number(status)
  // Nothing has a status that is no number.
  return Number.isInteger(exact) ? [exact, exact] : [1, 0]
}

function labelsWith(file: OpenLedger, apiKeyIds: readonly string[] | undefined, modelIds: readonly string[] | undefined) {
  let sql = 'SELECT id FROM labels WHERE true'
  const params: string[] = []
  for (const [column, ids] of [
    ['apiKey', apiKeyIds],
    ['model', modelIds],
  ] as const) {
    if (!ids) continue
    sql += ` AND ${column === 'apiKey' ? 'api_key' : 'model'} IN (SELECT value FROM json_each(?))`
    params.push(JSON.stringify(entityIds(file, ENTITY[column], ids)))
  }
  return new Set(file.values(sql, ...params).map(([id]) => Number(id)))
}

function attemptsOf(file: OpenLedger, requestId: string, read: ReadRow): StoredRecord[] {
  const packed = packId(requestId)
  const hashes = new Uint32Array(2)
  hashId(packed, hashes, 0)
  const found: StoredRecord[] = []
  const look = (first: number, last: number) => {
    const sql = `${ROW} WHERE seq >= ? AND seq <= ? AND request = ? ORDER BY seq LIMIT ?`
    for (const row of file.values(sql, first, last, packed, ATTEMPTS_MAX - found.length)) found.push(read(row))
  }
  const sql = 'SELECT first_seq, requests FROM filters WHERE first_seq > ? ORDER BY first_seq LIMIT 64'
  for (let after = 0; ; ) {
    const filters = file.values(sql, after)
    for (const [first, requests] of filters) {
      after = Number(first)
      if (!(requests instanceof Uint8Array) || !mayHaveRequest(requests, hashes)) continue
      const [[last] = []] = file.values('SELECT last_seq FROM blocks WHERE first_seq = ?', after)
      look(after, Number(last ?? after))
    }
    if (filters.length < 64) break
  }
  look(file.meta(META.sealed) + 1, file.meta(META.last))
  return found.sort((one, two) => one.record.attemptIndex - two.record.attemptIndex || one.seq - two.seq)
}
