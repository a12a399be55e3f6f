import type { Exchange, Labels } from '../exchange.ts'
import { quoted, type Wording } from '../lib/log.ts'

/**
 * The line of a finished request; a stream's comes when the stream is over, with its tokens. Both of these lines are written
 * for every request, so their text is put together by hand: a loop over fields takes three times as long.
 * source: control-observability §3, proxy-09 §4
 */
export const ACCESS_LINE: Wording<Exchange> = {
  message: 'proxy request completed',

  text(exchange) {
    const { attempt, attempts, usage, error, group, status } = exchange
    let text = `${methodText.of(exchange.method)}${pathText.of(exchange.path)} status=${status} latency_ms=${latencyMs(exchange)}`
    if (exchange.isStream) text += ' stream=true'
    text += labelsText(exchange.labels)
    const servedBy = servedByModel(exchange)
    if (servedBy !== undefined) text += ` served_by_model=${quoted(servedBy)}`
    if (usage) {
      text += ` prompt_tokens=${usage.promptTokens} completion_tokens=${usage.completionTokens} total_tokens=${usage.totalTokens}`
      if (usage.isEstimated) text += ' usage_estimated=true'
    }
    text += requestIdText.of(exchange.requestId)
    if (attempt?.providerRequestId !== undefined) text += providerRequestIdText.of(attempt.providerRequestId)
    // What most requests have none of is looked for last, at once.
    if (attempts.length <= 1 && group === undefined && error === undefined) return `${text}\n`
    if (attempts.length > 1) text += ` attempts=${attempts.length}`
    if (group !== undefined) text += ` routing_attempt_count=${attempts.length} routing_fallback_count=${fallbacks(exchange)}`
    if (error) text += ` error_kind=${quoted(error.kind)} error=${quoted(error.recorded)}`
    return `${text}\n`
  },

  fields(exchange) {
    const { attempt, attempts, labels, usage, error, group } = exchange
    return {
      method: exchange.method,
      path: exchange.path,
      status: exchange.status,
      latency_ms: latencyMs(exchange),
      stream: exchange.isStream ? true : undefined,
      provider: labels.provider || undefined,
      model: labels.modelId === '' ? undefined : labels.name,
      api_key_id: labels.apiKeyId || undefined,
      served_by_model: servedByModel(exchange),
      prompt_tokens: usage?.promptTokens,
      completion_tokens: usage?.completionTokens,
      total_tokens: usage?.totalTokens,
      usage_estimated: usage?.isEstimated ? true : undefined,
      request_id: exchange.requestId,
      provider_request_id: attempt?.providerRequestId,
      attempts: attempts.length > 1 ? attempts.length : undefined,
      routing_attempt_count: group === undefined ? undefined : attempts.length,
      routing_fallback_count: group === undefined ? undefined : fallbacks(exchange),
      error_kind: error?.kind,
      error: error?.recorded,
    }
  },
}

/** The line of an attempt that was answered with an id, streams included. */
export const CALL_LINE: Wording<Exchange> = {
  message: 'provider call completed',

  text({ requestId, attempt, handler, requestedModel }) {
    if (!attempt) return '\n'
    const { index, kind, status, providerRequestId = '', providerModelVersion } = attempt
    let text = `${requestIdText.of(requestId)}${providerRequestIdText.of(providerRequestId)} attempt_index=${index} attempt_kind="${kind}"`
    if (handler !== undefined) text += ` handler="${handler}"`
    if (status !== undefined) text += ` status=${status}`
    if (requestedModel !== undefined) text += requestedModelText.of(requestedModel)
    if (providerModelVersion !== undefined) text += modelVersionText.of(providerModelVersion)
    return `${text}\n`
  },

  fields: ({ requestId, attempt, handler, requestedModel }) => ({
    request_id: requestId,
    provider_request_id: attempt?.providerRequestId,
    attempt_index: attempt?.index,
    attempt_kind: attempt?.kind,
    handler,
    status: attempt?.status,
    requested_model: requestedModel,
    provider_model_version: attempt?.providerModelVersion,
  }),
}

/** A field that mostly has the value that it had in the line before: its text is remembered. */
class FieldText {
  private value = ''
  private text: string

  constructor(private readonly name: string) {
    this.text = this.textOf('')
  }

  of(value: string): string {
    if (value !== this.value) {
      this.text = this.textOf(value)
      this.value = value
    }
    return this.text
  }

  private textOf(value: string): string {
    return ` ${this.name}=${quoted(value)}`
  }
}

const methodText = new FieldText('method')
const pathText = new FieldText('path')
const requestIdText = new FieldText('request_id')
const providerRequestIdText = new FieldText('provider_request_id')
const requestedModelText = new FieldText('requested_model')
const modelVersionText = new FieldText('provider_model_version')

const texts = new WeakMap<Labels, string>()

/** Who asked for what: the same for every request of a caller at a target. */
function labelsText(labels: Labels): string {
  let text = texts.get(labels)
  if (text === undefined) {
    text = ''
    if (labels.provider !== '') text += ` provider=${quoted(labels.provider)}`
    if (labels.modelId !== '') text += ` model=${quoted(labels.name)}`
    if (labels.apiKeyId !== '') text += ` api_key_id=${quoted(labels.apiKeyId)}`
    texts.set(labels, text)
  }
  return text
}

function latencyMs({ settledAt, startedAt }: Exchange): number {
  return Math.round((settledAt ?? startedAt) - startedAt)
}

/** Of a group: the member that answered. */
function servedByModel({ group, status, labels }: Exchange): string | undefined {
  return group === undefined || status >= 400 ? undefined : labels.model
}

function fallbacks({ attempts }: Exchange): number {
  let count = 0
  for (const { kind } of attempts) if (kind === 'fallback') count += 1
  return count
}
