import type { Extra, Labels } from '../exchange.ts'
import type { UsageRecord } from '../telemetry/usage-record.ts'
import { extraText, FIELDS, FLAG, labelsText, NO_EXTRA, packFlags, routeText } from './row.ts'

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
  /** What few rows have besides, in their order: `extraText`, and which row it is of. */
  extras: { row: number; text: string }[]
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

/** Texts that repeat, each once in `strings`. */
class Strings {
  private known = new Map<string, number>()
  list: string[] = []

  index(text: string): number {
    const short = cut(text, TEXT_MAX)
    let index = this.known.get(short)
    if (index === undefined) {
      index = this.list.push(short) - 1
      this.known.set(short, index)
    }
    return index
  }

  /** Begins anew. returns: what there was */
  take(): string[] {
    const { list } = this
    this.list = []
    this.known = new Map()
    return list
  }
}

/** Gives a text its index, and knows at once the one that it was given last: most rows have what the row before had. */
class Column {
  private last: string | undefined
  private lastIndex = -1
  constructor(private readonly strings: Strings) {}

  index(text: string | undefined): number {
    if (text === undefined || text === '') return -1
    if (text === this.last) return this.lastIndex
    this.lastIndex = this.strings.index(text)
    this.last = text
    return this.lastIndex
  }

  forget(): void {
    this.last = undefined
  }
}

const ROWS_FIRST = 64

/**
 * Puts records into the form of a batch as they come: kept as objects until the batch is full they would outlive a collection
 * each, which costs several times what this does.
 */
export class BatchBuilder {
  /** Kept from batch to batch, and as long as the longest. */
  private numbers = new Float64Array(ROWS_FIRST * FIELDS)
  private parts: string[] = []
  private readonly strings = new Strings()
  private readonly routes = new Column(this.strings)
  private readonly models = new Column(this.strings)
  private readonly finishes = new Column(this.strings)
  private readonly versions = new Column(this.strings)
  private readonly addresses = new Column(this.strings)
  private readonly agents = new Column(this.strings)
  private readonly errors = new Column(this.strings)
  private labels: Labels[] = []
  private counts: number[] = []
  private labelIndexes = new Map<Labels, number>()
  private lastLabels: Labels | undefined
  private labelsIndex = -1
  private route = { endpoint: '', handler: '', protocol: '', index: -1 }
  private extras: Batch['extras'] = []
  private lastExtra: Extra | undefined
  private lastExtraText = ''
  rows = 0

  add(record: UsageRecord): void {
    const at = this.rows * FIELDS
    if (at === this.numbers.length) this.grow()
    this.rows += 1
    const { numbers } = this
    const labelsIndex = this.indexOf(record.labels)
    this.counts[labelsIndex] = (this.counts[labelsIndex] ?? 0) + 1
    let bits = 0
    if (record.isStream) bits |= FLAG.stream
    if (record.isEstimated) bits |= FLAG.estimated
    if (record.isPriced) bits |= FLAG.priced
    if (record.isTerminal) bits |= FLAG.terminal
    // In the order of FIELD.
    numbers[at] = whole(record.occurredAtMs)
    numbers[at + 1] = labelsIndex
    numbers[at + 2] = this.routeOf(record)
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
    numbers[at + 14] = this.models.index(record.requestedModel)
    numbers[at + 15] = this.finishes.index(record.finishReason)
    numbers[at + 16] = this.versions.index(record.providerModelVersion)
    numbers[at + 17] = this.addresses.index(record.clientIp)
    numbers[at + 18] = this.agents.index(record.userAgent)
    numbers[at + 19] = this.errors.index(record.errorClass)
    numbers[at + 20] = this.part(record.requestId, TEXT_MAX)
    numbers[at + 21] = this.part(record.traceId, TEXT_MAX)
    numbers[at + 22] = this.part(record.providerRequestId, TEXT_MAX)
    numbers[at + 23] = this.part(record.errorMessage, MESSAGE_MAX)
    if (record.extra !== undefined) this.addExtra(record.extra)
  }

  /** The records that were added, as a batch; the next one begins. */
  take(number: number): { batch: Batch; receipt: Receipt } {
    const { rows, labels, counts } = this
    const numbers = this.numbers.slice(0, rows * FIELDS)
    const strings = this.strings.take()
    const text = this.parts.join('')
    this.parts = []
    const { extras } = this
    this.extras = []
    for (const column of [this.routes, this.models, this.finishes, this.versions]) column.forget()
    for (const column of [this.addresses, this.agents, this.errors]) column.forget()
    this.labels = []
    this.counts = []
    this.labelIndexes = new Map()
    this.lastLabels = undefined
    this.route = { endpoint: '', handler: '', protocol: '', index: -1 }
    this.rows = 0
    let stringBytes = 0
    for (const each of strings) stringBytes += each.length
    let bytes = numbers.byteLength + text.length + stringBytes
    for (const extra of extras) bytes += extra.text.length
    return {
      batch: { number, rows, numbers, strings, labels: labels.map(textOf), text, extras },
      receipt: { number, rows, bytes, labels, counts },
    }
  }

  private addExtra(extra: Extra): void {
    // All callers without a key share one object.
    if (extra !== this.lastExtra) {
      this.lastExtra = extra
      this.lastExtraText = extraText(shortened(extra))
    }
    if (this.lastExtraText !== NO_EXTRA) this.extras.push({ row: this.rows - 1, text: this.lastExtraText })
  }

  private grow(): void {
    const longer = new Float64Array(this.numbers.length * 2)
    longer.set(this.numbers)
    this.numbers = longer
  }

  private indexOf(labels: Labels): number {
    if (labels === this.lastLabels) return this.labelsIndex
    let index = this.labelIndexes.get(labels)
    if (index === undefined) {
      index = this.labels.push(labels) - 1
      this.counts.push(0)
      this.labelIndexes.set(labels, index)
    }
    this.lastLabels = labels
    this.labelsIndex = index
    return index
  }

  private routeOf({ endpoint, handler, inboundProtocol }: UsageRecord): number {
    const { route } = this
    if (route.index < 0 || endpoint !== route.endpoint || handler !== route.handler || inboundProtocol !== route.protocol) {
      const index = this.routes.index(routeText(endpoint, handler, inboundProtocol))
      this.route = { endpoint, handler, protocol: inboundProtocol, index }
      return index
    }
    return route.index
  }

  private part(text: string | undefined, max: number): number {
    if (text === undefined) return -1
    const short = cut(text, max)
    this.parts.push(short)
    return short.length
  }
}

/** A count or a time as the file takes it: whole, not below zero, exact. What is none of these is 0. */
function whole(value: number): number {
  return value >= 0 && value <= Number.MAX_SAFE_INTEGER ? Math.round(value) : 0
}

function shortened(extra: Extra): Extra {
  const { passthroughRoute, clientIdentity } = extra
  if ((passthroughRoute?.length ?? 0) <= TEXT_MAX && (clientIdentity?.length ?? 0) <= TEXT_MAX) return extra
  return {
    ...extra,
    ...(passthroughRoute !== undefined && { passthroughRoute: cut(passthroughRoute, TEXT_MAX) }),
    ...(clientIdentity !== undefined && { clientIdentity: cut(clientIdentity, TEXT_MAX) }),
  }
}

/** Not in the middle of a character. */
function cut(text: string, max: number): string {
  if (text.length <= max) return text
  const last = text.charCodeAt(max - 1)
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? max - 1 : max)
}
