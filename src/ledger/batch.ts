import type { Labels } from '../exchange.ts'
import type { UsageRecord } from '../telemetry/usage-record.ts'
import { FIELDS, FLAG, labelsText, packFlags, routeText } from './row.ts'

/**
 * Records on their way to the writer's thread: one buffer that is handed over, few strings. A clone of a thousand records
 * as objects would cost the event loop several times as much.
 */
export type Batch = {
  /** Counts up within one gateway: a batch that was committed is known again. */
  number: number
  rows: number
  /** FIELDS a row. */
  numbers: Float64Array<ArrayBuffer>
  /** Texts that repeat, each once. */
  strings: string[]
  /** `labelsText` of each of the batch's labels. */
  labels: string[]
  /** Ids and messages of all rows, one after another. */
  text: string
}

/** What the sender keeps of a batch until it hears of it. */
export type Receipt = { number: number; rows: number; bytes: number; labels: readonly Labels[]; counts: readonly number[] }

/** Longest id and the like that is taken down: they come from upstreams. */
const TEXT_MAX = 256
const MESSAGE_MAX = 1_024

const texts = new WeakMap<Labels, string>()

function textOf(labels: Labels): string {
  let text = texts.get(labels)
  if (text === undefined) {
    text = labelsText(labels)
    texts.set(labels, text)
  }
  return text
}

/** Gives a text its index, and knows at once the one that it was given last: most rows have what the row before had. */
class Column {
  private last: string | undefined
  private lastIndex = -1
  constructor(
    private readonly known: Map<string, number>,
    private readonly strings: string[],
  ) {}

  index(text: string | undefined): number {
    if (text === undefined || text === '') return -1
    if (text === this.last) return this.lastIndex
    const short = cut(text, TEXT_MAX)
    let index = this.known.get(short)
    if (index === undefined) {
      index = this.strings.push(short) - 1
      this.known.set(short, index)
    }
    this.last = text
    this.lastIndex = index
    return index
  }
}

export function encodeBatch(number: number, records: readonly UsageRecord[]): { batch: Batch; receipt: Receipt } {
  const rows = records.length
  const numbers = new Float64Array(rows * FIELDS)
  const strings: string[] = []
  const known = new Map<string, number>()
  const column = () => new Column(known, strings)
  const [routes, models, finishes, versions] = [column(), column(), column(), column()]
  const [addresses, agents, errors] = [column(), column(), column()]
  const labelIndexes = new Map<Labels, number>()
  const labels: Labels[] = []
  const counts: number[] = []
  const parts: string[] = []
  let lastLabels: Labels | undefined
  let labelsIndex = -1
  let lastRoute: UsageRecord | undefined
  let route = -1
  const part = (text: string | undefined, max: number): number => {
    if (text === undefined) return -1
    const short = cut(text, max)
    parts.push(short)
    return short.length
  }

  let at = 0
  for (const record of records) {
    if (record.labels !== lastLabels) {
      lastLabels = record.labels
      const index = labelIndexes.get(lastLabels)
      if (index === undefined) {
        labelsIndex = labels.push(lastLabels) - 1
        counts.push(0)
        labelIndexes.set(lastLabels, labelsIndex)
      } else labelsIndex = index
    }
    counts[labelsIndex] = (counts[labelsIndex] ?? 0) + 1
    if (
      lastRoute === undefined ||
      record.endpoint !== lastRoute.endpoint ||
      record.handler !== lastRoute.handler ||
      record.inboundProtocol !== lastRoute.inboundProtocol
    ) {
      route = routes.index(routeText(record.endpoint, record.handler, record.inboundProtocol))
      lastRoute = record
    }
    let bits = 0
    if (record.isStream) bits |= FLAG.stream
    if (record.isEstimated) bits |= FLAG.estimated
    if (record.isPriced) bits |= FLAG.priced
    if (record.isTerminal) bits |= FLAG.terminal
    // In the order of FIELD.
    numbers[at] = whole(record.occurredAtMs)
    numbers[at + 1] = labelsIndex
    numbers[at + 2] = route
    numbers[at + 3] = packFlags(bits, record.attemptKind, record.attemptIndex)
    numbers[at + 4] = whole(record.status)
    numbers[at + 5] = whole(record.promptTokens)
    numbers[at + 6] = whole(record.completionTokens)
    numbers[at + 7] = whole(record.cachedTokens)
    numbers[at + 8] = whole(record.reasoningTokens)
    numbers[at + 9] = whole(record.upstreamMs)
    numbers[at + 10] = record.upstreamTtftMs === undefined ? -1 : whole(record.upstreamTtftMs)
    numbers[at + 11] = record.downstreamMs === undefined ? -1 : whole(record.downstreamMs)
    numbers[at + 12] = record.totalMs === undefined ? -1 : whole(record.totalMs)
    numbers[at + 13] = whole(record.costPico)
    numbers[at + 14] = models.index(record.requestedModel)
    numbers[at + 15] = finishes.index(record.finishReason)
    numbers[at + 16] = versions.index(record.providerModelVersion)
    numbers[at + 17] = addresses.index(record.clientIp)
    numbers[at + 18] = agents.index(record.userAgent)
    numbers[at + 19] = errors.index(record.errorClass)
    numbers[at + 20] = part(record.requestId, TEXT_MAX)
    numbers[at + 21] = part(record.traceId, TEXT_MAX)
    numbers[at + 22] = part(record.providerRequestId, TEXT_MAX)
    numbers[at + 23] = part(record.errorMessage, MESSAGE_MAX)
    at += FIELDS
  }
  const text = parts.join('')
  let stringBytes = 0
  for (const each of strings) stringBytes += each.length
  const bytes = numbers.byteLength + text.length + stringBytes
  return {
    batch: { number, rows, numbers, strings, labels: labels.map(textOf), text },
    receipt: { number, rows, bytes, labels, counts },
  }
}

/** A count or a time as the file takes it: whole, not below zero, exact. What is none of these is 0. */
function whole(value: number): number {
  return value >= 0 && value <= Number.MAX_SAFE_INTEGER ? Math.round(value) : 0
}

/** Not in the middle of a character. */
function cut(text: string, max: number): string {
  if (text.length <= max) return text
  const last = text.charCodeAt(max - 1)
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? max - 1 : max)
}
