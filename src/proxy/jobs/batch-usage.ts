import { createHash } from 'node:crypto'
import { openai } from '../../adapters/openai.ts'
import { GatewayError } from '../../errors.ts'
import { Exchange, type Usage } from '../../exchange.ts'
import type { Gateway } from '../../gateway.ts'
import { startDeadline } from '../../lib/deadlines.ts'
import { member } from '../../lib/member.ts'
import { transportCause } from '../../lib/transport-cause.ts'
import { isDirectEntry, type Snapshot } from '../../store/snapshot.ts'
import { endpointLabels } from '../../telemetry/endpoint-labels.ts'
import { accountLater } from '../account.ts'
import type { Dial } from '../dial.ts'
import { labelsOfMember } from '../labels.ts'
import { responsesUsage } from '../native.ts'
import { addOperatorHeaders } from '../outbound.ts'
import { findModel } from '../resolve.ts'
import type { Asker, Router, Target } from '../route.ts'
import { decodeId } from './ids.ts'

/** What a caller was told of a batch, or of a list of them. */
export type BatchAnswer = { text: string; alias: string; snapshot: Snapshot; requestId: string; asker: Asker }

export type BatchUsage = {
  /** Looks into an answer about batches, and charges what those used that are over. Never throws, and nobody waits for it. */
  note(answer: BatchAnswer): void
}

/** States in which a batch has done all that it will do; what is done of an expired one is billed as well. */
const OVER: readonly unknown[] = ['completed', 'expired', 'cancelled']
/** A server that sends nothing for this long, or not all in this time, is asked again when the batch is next looked at. */
const SILENCE_MS = 60_000
const WHOLE_MS = 15 * 60_000
/** One answer in an output file; a longer one is passed over. */
const LINE_LENGTH_MAX = 16 * 1024 * 1024
/** Batches that are remembered without asking the ledger. */
const KNOWN_MAX = 10_000
/** Outputs that are read at once, and that wait for it. */
const READING_MAX = 4
const WAITING_MAX = 1_000

type Batch = { answer: BatchAnswer; target: Target; id: string; rawOutput: string }

/**
 * Charges batches: nothing passes the gateway while a server works on one, so its output, which tells the usage of every answer,
 * is read once when a caller is first told that it is over. What was charged is known from the ledger, whose records of a batch
 * have an id of their own.
 * source: proxy-03 §11
 */
export function createBatchUsage(gateway: Gateway, router: Router, dial: Dial): BatchUsage {
  const { log, ledger } = gateway
  const known = new Set<string>()
  const waiting: Batch[] = []
  let reading = 0

  const begin = (batch: Batch): void => {
    reading += 1
    charge(batch).finally(() => {
      reading -= 1
      const next = waiting.shift()
      if (next) begin(next)
    })
  }

  const charge = async (batch: Batch): Promise<void> => {
    const { answer, target, id, rawOutput } = batch
    const { alias, requestId } = answer
    try {
      // Without a ledger only this process knows.
      if (ledger.status.state !== 'disabled' && (await ledger.request(id)).length > 0) return
      const sums = await usageByModel(dial, batch, rawOutput)
      for (const [model, { usage }] of sums) record(answer, target, id, model, usage)
      log.as('proxy').info('batch charged', {
        request_id: requestId,
        model: alias,
        models: sums.size,
        answers: [...sums.values()].reduce((sum, { answers }) => sum + answers, 0),
      })
    } catch (error) {
      known.delete(id)
      log.as('upstream').warn('a batch could not be charged; it is when it is next asked for', {
        request_id: requestId,
        model: alias,
        provider_key: target.upstream.name,
        cause: error instanceof GatewayError ? error.message : transportCause(error),
      })
    }
  }

  /** A batch that is over, and that nobody has charged yet. */
  const noteBatch = (answer: BatchAnswer, document: unknown): void => {
    const id = member(document, 'id')
    const output = member(document, 'output_file_id')
    if (!OVER.includes(member(document, 'status')) || typeof id !== 'string' || typeof output !== 'string') return
    const { snapshot, alias, asker } = answer
    const found = findModel(snapshot, alias)
    if (found?.kind !== 'direct') return
    const route = router.route(snapshot, found, asker, gateway.clock.now())
    const [first] = route.candidates
    if (!first) return
    const target = route.aim(first)
    // With a space in it: no caller can give a request of its own this id.
    const batchId = `batch ${createHash('sha256')
      .update(`${target.upstream.id}\n${decodeId(id).raw}`)
      .digest('hex')
      .slice(0, 32)}`
    if (known.has(batchId) || waiting.length >= WAITING_MAX) return
    if (known.size >= KNOWN_MAX) known.clear()
    known.add(batchId)
    const batch = { answer, target, id: batchId, rawOutput: decodeId(output).raw }
    if (reading < READING_MAX) begin(batch)
    else waiting.push(batch)
  }

  /** What one model used, as a record of the caller that asked. in: the server's name of the model */
  const record = (answer: BatchAnswer, target: Target, id: string, model: string, usage: Usage): void => {
    const { snapshot, alias, asker } = answer
    const row = findModel(snapshot, aliasOf(snapshot, target, model) ?? alias)
    if (row?.kind !== 'direct') return
    const route = router.route(snapshot, row, asker, gateway.clock.now())
    const [billed] = route.candidates
    if (!billed) return
    const { price } = route.aim(billed)
    const now = gateway.clock.monotonic()
    const exchange = new Exchange(id, 'GET', '/v1/batches', endpointLabels('/v1/batches/:id'), asker.clientIp, now)
    exchange.handler = 'jobs'
    exchange.labels = labelsOfMember(asker.callerKey, billed, undefined)
    exchange.requestedModel = model
    exchange.status = 200
    exchange.usage = usage
    accountLater(gateway, exchange, price)
  }

  return {
    note(answer) {
      try {
        const document: unknown = JSON.parse(answer.text)
        const list = member(document, 'data')
        for (const each of Array.isArray(list) ? list : [document]) noteBatch(answer, each)
      } catch (error) {
        log
          .as('proxy')
          .debug('an answer about batches was not understood', { request_id: answer.requestId, cause: String(error) })
      }
    },
  }
}

/**
 * The row that stands for a model of the same server, by the server's name for it; answers often name the version that was meant
 * by it, with a date behind a dash.
 */
function aliasOf({ models }: Snapshot, target: Target, upstreamModel: string): string | undefined {
  let best: { alias: string; name: string } | undefined
  for (const [alias, entry] of models) {
    if (!isDirectEntry(entry) || entry.value.provider_key_id !== target.upstream.id) continue
    const { model_name: name } = entry.value
    const isMeant = name === upstreamModel || upstreamModel.startsWith(`${name}-`)
    // The alias that was asked for goes before another one of the same name.
    const isBetter = !best || name.length > best.name.length || (name === best.name && alias === target.model)
    if (isMeant && isBetter) best = { alias, name }
  }
  return best?.alias
}

type Sum = { usage: Usage; answers: number }

/** Sums of an output file, by the model that each answer names. throws: where the file cannot be had whole */
async function usageByModel(dial: Dial, { answer, target }: Batch, rawOutput: string): Promise<Map<string, Sum>> {
  const { upstream } = target
  const { requestId, asker } = answer
  const controller = new AbortController()
  const stop = () => controller.abort()
  const whole = startDeadline(WHOLE_MS, { onDeadline: stop })
  let silence = startDeadline(SILENCE_MS, { onDeadline: stop })
  const { 'content-type': _type, ...own } = upstream.headers
  const headers: Record<string, string> = { ...own, accept: '*/*', 'x-aisix-request-id': requestId }
  addOperatorHeaders(headers, requestId, asker.callerKey, asker.headers, target)
  const lines = new Lines()
  try {
    const response = await dial({
      ...{ origin: upstream.origin, hostname: upstream.hostname, port: upstream.port, tls: upstream.tls },
      url: `${upstream.urls.files}/${encodeURIComponent(rawOutput)}/content`,
      headers,
      method: 'GET',
      isStream: false,
      signal: controller.signal,
      onUnreachable: stop,
    })
    if (!response.ok) throw new GatewayError('upstream_error', `upstream returned ${response.status} for the output`)
    const reader = response.body?.getReader()
    for (let isOver = !reader; !isOver; ) {
      silence.cancel()
      silence = startDeadline(SILENCE_MS, { onDeadline: stop })
      const piece = await reader?.read()
      if (piece?.value) lines.push(piece.value)
      isOver = piece?.done ?? true
    }
    return lines.end()
  } finally {
    silence.cancel()
    whole.cancel()
    controller.abort()
  }
}

/** Lines out of bytes that come cut anywhere, each summed as soon as it is whole. */
class Lines {
  private readonly sums = new Map<string, Sum>()
  private readonly decoder = new TextDecoder()
  private rest = ''
  /** The line is too long: the rest of it is read and dropped. */
  private isSkipping = false

  push(bytes: Uint8Array): void {
    const text = this.decoder.decode(bytes, { stream: true })
    const end = text.lastIndexOf('\n')
    if (end < 0) {
      this.keep(text)
      return
    }
    const [first = '', ...more] = text.slice(0, end).split('\n')
    if (!this.isSkipping) addLine(this.sums, this.rest + first)
    for (const line of more) addLine(this.sums, line)
    this.rest = ''
    this.isSkipping = false
    this.keep(text.slice(end + 1))
  }

  end(): Map<string, Sum> {
    if (!this.isSkipping) addLine(this.sums, this.rest)
    return this.sums
  }

  private keep(text: string): void {
    if (this.isSkipping) return
    this.rest += text
    if (this.rest.length <= LINE_LENGTH_MAX) return
    this.rest = ''
    this.isSkipping = true
  }
}

/** Source: OpenAI API reference, "Batch", "The request output object" */
function addLine(sums: Map<string, Sum>, line: string): void {
  if (line.trim() === '') return
  let document: unknown
  try {
    document = JSON.parse(line)
  } catch {
    return
  }
  const body = member(member(document, 'response'), 'body')
  const told = member(body, 'usage')
  // Answers of the Responses API name their counts otherwise.
  const usage = member(told, 'input_tokens') === undefined ? openai.usage(told) : responsesUsage(told)
  const model = member(body, 'model')
  if (!usage || typeof model !== 'string') return
  let sum = sums.get(model)
  if (!sum) {
    sum = {
      usage: {
        promptTokens: 0,
        completionTokens: 0,
        totalTokens: 0,
        cachedTokens: 0,
        reasoningTokens: 0,
        isEstimated: false,
      },
      answers: 0,
    }
    sums.set(model, sum)
  }
  sum.answers += 1
  sum.usage.promptTokens += usage.promptTokens
  sum.usage.completionTokens += usage.completionTokens
  sum.usage.totalTokens += usage.promptTokens + usage.completionTokens
  sum.usage.cachedTokens += usage.cachedTokens
  sum.usage.reasoningTokens += usage.reasoningTokens
}
