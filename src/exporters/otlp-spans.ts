/**
 * A request as the spans of a trace, in the JSON of OTLP. Written as text at once: objects for the transformer of
 * OpenTelemetry and its own pass over them cost four times as much, and would be what waits in memory. A test holds these
 * bytes to those of the transformer.
 * source: control-observability §5.1 for names and levels; OpenTelemetry semantic conventions 1.45 for GenAI and HTTP; OTLP
 * 1.x, "JSON Protobuf Encoding"
 */
import type { Extra } from '../exchange.ts'
import type { Labels, RequestReport, UsageRecord } from '../telemetry/usage-record.ts'
import { usdOf } from '../telemetry/usage-record.ts'
import { VERSION } from '../version.ts'
import { cutText } from './cut-text.ts'

export type SpanOptions = {
  exporterName: string
  /** Bytes of each text; 0: no content. */
  contentBytesMax: number
}

/** Bytes of what callers and upstreams may choose, and of what the name of a span tells. source: control-observability §5.1 */
const CHOSEN_BYTES_MAX = 256
const TARGET_BYTES_MAX = 64

/** Requests of this handler reach what an operator named a route for, and no model. */
const PASSTHROUGH_HANDLER = 'passthrough_route'

/** source: OTLP, `Span.SpanKind` and `SpanFlags`: sampled, and whether the parent is known to be remote */
const SERVER = 2
const CLIENT = 3
const FLAGS_LOCAL = 0x101
const FLAGS_REMOTE = 0x301

/** What stands around the spans of a batch. */
export function envelope(serviceName: string): { before: string; after: string } {
  const resource = `{"attributes":[${text('service.name', serviceName)}],"droppedAttributesCount":0}`
  const scope = `{"name":"aisix","version":${JSON.stringify(VERSION)}}`
  return { before: `{"resourceSpans":[{"resource":${resource},"scopeSpans":[{"scope":${scope},"spans":[`, after: ']}]}]}' }
}

/** The translation for one exporter. out: the spans of a request, joined by commas */
export function createSpanWriter({ exporterName, contentBytesMax }: SpanOptions): (report: RequestReport) => string {
  const ofExporter = text('aisix.exporter_name', exporterName)
  // Labels are interned, so that most of a span is written once for each caller and target.
  const known = new WeakMap<Labels, string>()
  const ofLabels = (labels: Labels): string => {
    let attributes = known.get(labels)
    if (attributes === undefined) {
      attributes = labelAttributes(labels)
      known.set(labels, attributes)
    }
    return attributes
  }

  return report => {
    const { records, parent, requestId, startedAtMs, endedAtMs } = report
    const last = records[records.length - 1]
    if (!last) return ''
    // The trace follows from the request alone; spans also from its time, because callers may use an id again.
    const digest = Bun.SHA256.hash(`${requestId}\n${startedAtMs}`, 'hex')
    const traceId = parent?.traceId ?? Bun.SHA256.hash(requestId, 'hex').slice(0, 32)
    const serverId = digest.slice(0, 16)
    const logicalId = digest.slice(16, 32)
    const ofRequest = `${ofExporter},${text('aisix.request_id', requestId)}`
    const name = nameOf(last)
    const started = nanoseconds(startedAtMs)
    const ended = nanoseconds(endedAtMs)

    const server = span({
      traceId,
      id: serverId,
      parentId: parent?.spanId,
      isRemote: parent !== undefined,
      name,
      kind: SERVER,
      started,
      ended,
      status: report.status,
      attributes: `${ofRequest}${serverAttributes(report, last)}`,
    })
    // Where no upstream was asked the logical call is all that there was, and tells the record.
    const isAsked = records.length > 1 || last.attemptKind !== undefined
    const content = contentBytesMax > 0 ? contentAttributes(report, contentBytesMax) : ''
    const logical = span({
      traceId,
      id: logicalId,
      parentId: serverId,
      isRemote: false,
      name,
      kind: CLIENT,
      started,
      ended,
      status: report.status,
      attributes: isAsked
        ? `${ofRequest}${callAttributes(last)}`
        : `${ofRequest}${ofLabels(last.labels)}${recordAttributes(last)}${content}`,
    })
    if (!isAsked) return `${server},${logical}`
    let spans = `${server},${logical}`
    for (const record of records) {
      spans += `,${span({
        traceId,
        id: attemptId(digest, requestId, startedAtMs, record.attemptIndex),
        parentId: logicalId,
        isRemote: false,
        name,
        kind: CLIENT,
        started: nanoseconds(record.occurredAtMs - record.upstreamMs),
        ended: nanoseconds(record.occurredAtMs),
        status: record.status,
        attributes: `${ofRequest}${ofLabels(record.labels)}${recordAttributes(record)}${record === last ? content : ''}`,
      })}`
    }
    return spans
  }
}

/** The digest has room for the ids of two attempts; those of further ones have a digest of their own. */
function attemptId(digest: string, requestId: string, startedAtMs: number, index: number): string {
  if (index < 2) return digest.slice(32 + 16 * index, 48 + 16 * index)
  return Bun.SHA256.hash(`${requestId}\n${startedAtMs}\n${index}`, 'hex').slice(0, 16)
}

type Span = {
  traceId: string
  id: string
  parentId: string | undefined
  isRemote: boolean
  /** As JSON. */
  name: string
  kind: number
  started: string
  ended: string
  status: number
  attributes: string
}

/** source: OTLP, `trace.proto`; members in the order in which the transformer of OpenTelemetry writes them */
function span({ traceId, id, parentId, isRemote, name, kind, started, ended, status, attributes }: Span): string {
  const parent = parentId === undefined ? '' : `"parentSpanId":"${parentId}",`
  const code = status >= 200 && status < 300 ? 1 : 2
  const flags = isRemote ? FLAGS_REMOTE : FLAGS_LOCAL
  return `{"traceId":"${traceId}","spanId":"${id}",${parent}"name":${name},"kind":${kind},"startTimeUnixNano":"${started}","endTimeUnixNano":"${ended}","attributes":[${attributes}],"droppedAttributesCount":0,"events":[],"droppedEventsCount":0,"status":{"code":${code}},"links":[],"droppedLinksCount":0,"flags":${flags}}`
}

/** What all spans of a request are called: what was done, and to what where its name is short. out: JSON */
function nameOf({ handler, extra }: UsageRecord): string {
  if (handler !== PASSTHROUGH_HANDLER) return '"chat.completions"'
  const route = extra?.passthroughRoute ?? ''
  return route === '' || Buffer.byteLength(route) > TARGET_BYTES_MAX ? '"passthrough"' : JSON.stringify(`passthrough ${route}`)
}

/** Decimal nanoseconds, exact to the microsecond: epoch nanoseconds are too large for a number. */
function nanoseconds(ms: number): string {
  return `${Math.round(ms * 1000)}000`
}

/** The inbound request, in the names of HTTP. */
function serverAttributes({ method, endpoint, status }: RequestReport, last: UsageRecord): string {
  const { labels, clientIp, userAgent, errorClass } = last
  return (
    more('http.request.method', method) +
    more('http.route', endpoint) +
    moreNumber('http.response.status_code', status) +
    more('error.type', errorClass) +
    more('client.address', clientIp) +
    moreChosen('user_agent.original', userAgent) +
    more('aisix.api_key_id', labels.apiKeyId)
  )
}

/**
 * The call as its caller meant it, over all attempts. Counts of tokens are those of attempts alone: whoever adds up spans
 * would else count them twice.
 */
function callAttributes(last: UsageRecord): string {
  return (
    operation(last) +
    moreChosen('gen_ai.request.model', last.requestedModel) +
    moreNumber('http.response.status_code', last.status) +
    more('error.type', last.errorClass) +
    more('aisix.api_key_id', last.labels.apiKeyId) +
    moreChosen('aisix.passthrough.route_name', last.extra?.passthroughRoute)
  )
}

const operation = ({ handler }: UsageRecord) =>
  `,{"key":"gen_ai.system","value":{"stringValue":"aisix"}},{"key":"gen_ai.operation.name","value":{"stringValue":"${OPERATIONS[handler] ?? 'chat'}"}}`

/** Operations for which the conventions have a name of their own. All other traffic of models is `chat` in the contract. */
const OPERATIONS: Readonly<Record<string, string>> = {
  embeddings: 'embeddings',
  completions: 'text_completion',
  [PASSTHROUGH_HANDLER]: 'passthrough',
}

function labelAttributes(labels: Labels): string {
  return (
    more('gen_ai.provider.name', labels.provider) +
    more('aisix.api_key_id', labels.apiKeyId) +
    more('aisix.team_id', labels.teamId) +
    more('aisix.user_id', labels.userId) +
    more('aisix.model_id', labels.modelId) +
    more('aisix.attempt_model', labels.isMember ? labels.model : '') +
    moreChosen('aisix.upstream_model', labels.upstreamModel)
  )
}

function recordAttributes(record: UsageRecord): string {
  const isFailure = record.errorClass !== undefined
  return (
    operation(record) +
    moreChosen('gen_ai.request.model', record.requestedModel) +
    (record.isStream ? ',{"key":"gen_ai.request.stream","value":{"boolValue":true}}' : '') +
    moreChosen('gen_ai.response.model', record.providerModelVersion) +
    moreChosen('gen_ai.response.id', record.providerRequestId) +
    finishReasons(record.finishReason) +
    moreCount('gen_ai.usage.input_tokens', record.promptTokens) +
    moreCount('gen_ai.usage.output_tokens', record.completionTokens) +
    moreCount('gen_ai.usage.cache_read.input_tokens', record.cachedTokens) +
    moreCount('gen_ai.usage.reasoning.output_tokens', record.reasoningTokens) +
    (record.upstreamTtftMs === undefined
      ? ''
      : moreNumber('gen_ai.response.time_to_first_chunk', Math.round(record.upstreamTtftMs) / 1000) +
        moreNumber('aisix.upstream_ttft_ms', Math.round(record.upstreamTtftMs))) +
    moreNumber('http.response.status_code', record.status) +
    moreNumber('aisix.attempt_index', record.attemptIndex) +
    more('aisix.attempt_kind', record.attemptKind) +
    (isFailure
      ? more('error.type', record.errorClass) +
        more('aisix.error_class', record.errorClass) +
        more('aisix.error_message', record.errorMessage)
      : '') +
    (record.downstreamMs === undefined ? '' : moreNumber('aisix.downstream_latency_ms', Math.round(record.downstreamMs))) +
    (record.isEstimated ? ',{"key":"aisix.usage_estimated","value":{"boolValue":true}}' : '') +
    (record.isPriced && record.costPico > 0 ? moreNumber('aisix.cost_usd', usdOf(record.costPico)) : '') +
    more('aisix.client_source_ip', record.clientIp) +
    moreChosen('aisix.client_user_agent', record.userAgent) +
    (record.extra === undefined ? '' : extraAttributes(record.extra))
  )
}

function extraAttributes({ passthroughRoute, clientIdentity, audioSeconds, cacheCreationTokens }: Extra): string {
  return (
    moreChosen('aisix.client_identity', clientIdentity) +
    moreChosen('aisix.passthrough.route_name', passthroughRoute) +
    (audioSeconds === undefined ? '' : moreCount('aisix.audio.duration_seconds', audioSeconds)) +
    (cacheCreationTokens === undefined ? '' : moreCount('gen_ai.usage.cache_creation.input_tokens', cacheCreationTokens))
  )
}

function finishReasons(reason: string | undefined): string {
  if (reason === undefined || reason === '') return ''
  return `,{"key":"gen_ai.response.finish_reasons","value":{"arrayValue":{"values":[{"stringValue":${JSON.stringify(cutText(reason, CHOSEN_BYTES_MAX))}}]}}}`
}

/** Texts, where the report has them. */
function contentAttributes({ content }: RequestReport, bytesMax: number): string {
  if (!content) return ''
  const prompt = cutText(content.prompt, bytesMax)
  const response = cutText(content.response, bytesMax)
  const isTruncated = content.isTruncated || prompt.length < content.prompt.length || response.length < content.response.length
  return (
    more('gen_ai.prompt', prompt) +
    more('gen_ai.completion', response) +
    (isTruncated ? ',{"key":"aisix.content_truncated","value":{"boolValue":true}}' : '')
  )
}

// An attribute as JSON, and the same behind a comma; values that are absent give none.
const text = (key: string, value: string) => `{"key":"${key}","value":{"stringValue":${JSON.stringify(value)}}}`
const more = (key: string, value: string | undefined) => (value === undefined || value === '' ? '' : `,${text(key, value)}`)
const moreChosen = (key: string, value: string | undefined) =>
  value === undefined || value === '' ? '' : `,${text(key, cutText(value, CHOSEN_BYTES_MAX))}`
const moreCount = (key: string, value: number) => (value === 0 ? '' : moreNumber(key, value))
const moreNumber = (key: string, value: number) =>
  Number.isInteger(value)
    ? `,{"key":"${key}","value":{"intValue":${value}}}`
    : `,{"key":"${key}","value":{"doubleValue":${value}}}`
