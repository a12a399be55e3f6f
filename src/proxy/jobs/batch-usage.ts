import { createHash } from 'node:crypto'
import { openai } from '../../adapters/openai.ts'
import { Exchange, type Usage } from '../../exchange.ts'
import type { Gateway } from '../../gateway.ts'
import { startDeadline } from '../../lib/deadlines.ts'
import { member } from '../../lib/member.ts'
import { type CallerKey, isDirectEntry, type Snapshot } from '../../store/snapshot.ts'
import { endpointLabels } from '../../telemetry/endpoint-labels.ts'
import { accountLater } from '../account.ts'
import type { Dial } from '../dial.ts'
import { labelsOfMember } from '../labels.ts'
import { responsesUsage } from '../native.ts'
import { findModel } from '../resolve.ts'
import type { Asker, Router, Target } from '../route.ts'
import { decodeId } from './ids.ts'

/** A batch of which somebody has heard that it is over. */
export type BatchAnswer = { text: string; alias: string; snapshot: Snapshot; caller: CallerKey; asker: Asker }

export type BatchUsage = {
  /** Looks into an answer about a batch, and charges what it used when it is over. Never throws, and nobody waits for it. */
  note(answer: BatchAnswer): void
  /** What is under way; for tests. */
  readonly pending: Promise<void>
}

/** States in which a batch has done all that it will do; what is done of an expired one is billed as well. */
const OVER: readonly unknown[] = ['completed', 'expired', 'cancelled']
/** A server that sends nothing for this long is asked again when the batch is next looked at. */
const SILENCE_MS = 60_000
/** One answer in an output file; a longer one is not counted. */
const LINE_BYTES_MAX = 16 * 1024 * 1024
/** Batches that are remembered without asking the ledger. */
const KNOWN_MAX = 10_000

/**
 * Charges batches: nothing passes the gateway while a server works on one, so its output, which tells the usage of every answer,
 * is read once when a caller is first told that it is over. What was charged is known from the ledger, whose records of a batch
 * have an id of their own.
 * source: proxy-03 §11
 */
export function createBatchUsage(gateway: Gateway, router: Router, dial: Dial): BatchUsage {
  const { log, ledger } = gateway
  const known = new Set<string>()
  let pending = Promise.resolve()

  const charge = async (answer: BatchAnswer, rawBatch: string, rawOutput: string): Promise<void> => {
    const { snapshot, alias, asker } = answer
    const found = findModel(snapshot, alias)
    if (found?.kind !== 'direct') return
    const route = router.route(snapshot, found, asker, gateway.clock.now())
    const [first] = route.candidates
    if (!first) return
    const target = route.aim(first)
    const requestId = `batch-${createHash('sha256').update(`${target.upstream.id}\n${rawBatch}`).digest('hex').slice(0, 32)}`
    if (known.has(requestId)) return
    if (known.size >= KNOWN_MAX) known.clear()
    known.add(requestId)
    try {
      // Without a ledger only this process knows.
      if (ledger.status.state !== 'disabled' && (await ledger.request(requestId)).length > 0) return
      const sums = await usageByModel(dial, target, rawOutput)
      for (const [model, { usage }] of sums) record(answer, target, requestId, model, usage)
      log.as('proxy').info('batch charged', {
        request_id: requestId,
        model: alias,
        models: sums.size,
        answers: [...sums.values()].reduce((sum, { answers }) => sum + answers, 0),
      })
    } catch (error) {
      known.delete(requestId)
      log.as('upstream').warn('a batch could not be charged; it is when it is next asked for', {
        request_id: requestId,
        model: alias,
        provider_key: target.upstream.name,
        cause: error instanceof Error ? error.message : String(error),
      })
    }
  }

  /** What one model used, as a record of the caller that asked. in: the server's name of the model */
  const record = (answer: BatchAnswer, target: Target, requestId: string, model: string, usage: Usage): void => {
    const { snapshot, caller, alias, asker } = answer
    const row = findModel(snapshot, aliasOf(snapshot, target, model) ?? alias)
    if (row?.kind !== 'direct') return
    const route = router.route(snapshot, row, asker, gateway.clock.now())
    const [billed] = route.candidates
    if (!billed) return
    const { price } = route.aim(billed)
    const now = gateway.clock.monotonic()
    const exchange = new Exchange(requestId, 'GET', '/v1/batches', endpointLabels('/v1/batches/:id'), asker.clientIp, now)
    exchange.handler = 'jobs'
    exchange.labels = labelsOfMember(caller, billed, undefined)
    exchange.requestedModel = model
    exchange.status = 200
    exchange.usage = usage
    accountLater(gateway, exchange, price)
  }

  return {
    get pending() {
      return pending
    },
    note(answer) {
      let document: unknown
      try {
        document = JSON.parse(answer.text)
      } catch {
        return
      }
      const id = member(document, 'id')
      const output = member(document, 'output_file_id')
      if (!OVER.includes(member(document, 'status')) || typeof id !== 'string' || typeof output !== 'string') return
      // One after the other: outputs are large, and nobody waits.
      pending = pending.then(() => charge(answer, decodeId(id).raw, decodeId(output).raw)).catch(() => {})
    },
  }
}

/** The row that stands for a model of the same server, by the server's name for it. */
function aliasOf({ models }: Snapshot, target: Target, upstreamModel: string): string | undefined {
  if (target.upstreamModel === upstreamModel) return undefined
  for (const [alias, entry] of models) {
    if (!isDirectEntry(entry) || entry.value.provider_key_id !== target.upstream.id) continue
    if (entry.value.model_name === upstreamModel) return alias
  }
  return undefined
}

type Sum = { usage: Usage; answers: number }

/** Sums of an output file, by the model that each answer names. throws: Error where the file cannot be had whole */
async function usageByModel(dial: Dial, { upstream }: Target, rawOutput: string): Promise<Map<string, Sum>> {
  const controller = new AbortController()
  const url = `${upstream.urls.files}/${encodeURIComponent(rawOutput)}/content`
  const deadline = () => startDeadline(SILENCE_MS, { onDeadline: () => controller.abort() })
  let waiting = deadline()
  const sums = new Map<string, Sum>()
  try {
    const response = await dial({
      ...{ url, origin: upstream.origin, hostname: upstream.hostname, port: upstream.port, tls: upstream.tls },
      headers: { ...upstream.headers, accept: '*/*' },
      method: 'GET',
      isStream: false,
      signal: controller.signal,
      onUnreachable: () => controller.abort(),
    })
    if (!response.ok) throw new Error(`the server answered ${response.status}`)
    let rest = ''
    const decoder = new TextDecoder()
    const reader = response.body?.getReader()
    while (reader) {
      waiting.cancel()
      waiting = deadline()
      const { done, value } = await reader.read()
      rest += done ? '\n' : decoder.decode(value, { stream: true })
      const end = rest.lastIndexOf('\n')
      if (end >= 0) {
        for (const line of rest.slice(0, end).split('\n')) addLine(sums, line)
        rest = rest.slice(end + 1)
      }
      if (rest.length > LINE_BYTES_MAX) throw new Error('a line of the output is too long')
      if (done) break
    }
    return sums
  } finally {
    waiting.cancel()
    controller.abort()
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
