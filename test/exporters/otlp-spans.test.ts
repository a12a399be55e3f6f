import { describe, expect, test } from 'bun:test'
import { type Attributes, SpanKind } from '@opentelemetry/api'
import { JsonTraceSerializer } from '@opentelemetry/otlp-transformer'
import { createSpanWriter, envelope } from '../../src/exporters/otlp-spans.ts'
import type { RequestReport } from '../../src/telemetry/usage-record.ts'
import { VERSION } from '../../src/version.ts'
import { AT_MS, failover, LABELS, record, refused, report } from './reports.ts'

type Value = { stringValue: string } | { intValue: number } | { doubleValue: number } | { boolValue: boolean } | ArrayValue
type ArrayValue = { arrayValue: { values: { stringValue: string }[] } }
type Span = {
  traceId: string
  spanId: string
  parentSpanId?: string
  name: string
  kind: number
  startTimeUnixNano: string
  endTimeUnixNano: string
  attributes: { key: string; value: Value }[]
  status: { code: number }
  flags: number
}

const { before, after } = envelope('aisix-a')
const write = (each: RequestReport, contentBytesMax = 0) => createSpanWriter({ exporterName: 'collector', contentBytesMax })(each)
const spansOf = (each: RequestReport, contentBytesMax = 0): Span[] =>
  JSON.parse(before + write(each, contentBytesMax) + after).resourceSpans[0].scopeSpans[0].spans

function plain(value: Value): string | number | boolean | string[] {
  if ('stringValue' in value) return value.stringValue
  if ('intValue' in value) return value.intValue
  if ('doubleValue' in value) return value.doubleValue
  return 'boolValue' in value ? value.boolValue : value.arrayValue.values.map(({ stringValue }) => stringValue)
}
const attributesOf = (span: Span | undefined): Attributes =>
  Object.fromEntries((span?.attributes ?? []).map(({ key, value }) => [key, plain(value)]))

/** What the transformer of OpenTelemetry makes of the same spans. */
function transformed(spans: readonly Span[]): string {
  const resource = { attributes: { 'service.name': 'aisix-a' }, merge: () => resource, getRawAttributes: () => [] }
  const scope = { name: 'aisix', version: VERSION }
  const time = (nanoseconds: string): [number, number] => [Number(nanoseconds.slice(0, -9)), Number(nanoseconds.slice(-9))]
  const bytes = JsonTraceSerializer.serializeRequest(
    spans.map(span => {
      const context = { traceId: span.traceId, spanId: span.spanId, traceFlags: 1 }
      const start = time(span.startTimeUnixNano)
      const end = time(span.endTimeUnixNano)
      return {
        name: span.name,
        kind: span.kind === 2 ? SpanKind.SERVER : SpanKind.CLIENT,
        spanContext: () => context,
        ...(span.parentSpanId === undefined
          ? {}
          : { parentSpanContext: { ...context, spanId: span.parentSpanId, isRemote: (span.flags & 0x200) !== 0 } }),
        startTime: start,
        endTime: end,
        duration: [0, 0] as [number, number],
        status: { code: span.status.code },
        attributes: attributesOf(span),
        links: [],
        events: [],
        ended: true,
        resource,
        instrumentationScope: scope,
        droppedAttributesCount: 0,
        droppedEventsCount: 0,
        droppedLinksCount: 0,
      }
    }),
  )
  return new TextDecoder().decode(bytes)
}

const PARENT = { traceId: '0af7651916cd43dd8448eb211c80319c', spanId: 'b7ad6b7169203331', isSampled: false }
const HOSTILE = 'quote " backslash \\ line\nfeed \u0000 \u2028 € 😀 \ud83d </script>'

describe('the wire format', () => {
  const cases: [string, RequestReport, number][] = [
    ['one attempt', report(), 0],
    ['a failover', failover(), 0],
    ['a refusal', refused(), 0],
    ['a request with a parent', failover({ parent: PARENT }), 0],
    ['content', report({ content: { prompt: HOSTILE, response: HOSTILE, isTruncated: true } }), 1_000],
    [
      'hostile texts in every place',
      report({
        requestId: HOSTILE,
        records: [
          record({
            requestedModel: HOSTILE,
            errorClass: 'upstream_error',
            errorMessage: HOSTILE,
            finishReason: HOSTILE,
            providerRequestId: HOSTILE,
            providerModelVersion: HOSTILE,
            userAgent: HOSTILE,
            handler: 'passthrough_route',
            extra: { clientIdentity: HOSTILE, passthroughRoute: HOSTILE, audioSeconds: 0.25 },
            labels: { ...LABELS, provider: HOSTILE, userId: HOSTILE, upstreamModel: HOSTILE },
          }),
        ],
      }),
      0,
    ],
    ['costs small and large', failover({ records: [record({ costPico: 1 }), record({ costPico: 3_000_000_000_000 })] }), 0],
  ]
  test.each(cases)("is byte for byte that of OpenTelemetry's transformer: %s", (_name, each, contentBytesMax) => {
    const spans = spansOf(each, contentBytesMax)
    expect(spans.length).toBeGreaterThanOrEqual(2)
    expect(before + write(each, contentBytesMax) + after).toBe(transformed(spans))
  })

  test('times are decimal nanoseconds, and an attempt lies where it was', () => {
    const [server, logical, attempt] = spansOf(report())
    expect(server).toMatchObject({ startTimeUnixNano: `${AT_MS - 125}000000`, endTimeUnixNano: `${AT_MS}000000` })
    expect(logical).toMatchObject({ startTimeUnixNano: `${AT_MS - 125}000000`, endTimeUnixNano: `${AT_MS}000000` })
    expect(attempt).toMatchObject({ startTimeUnixNano: `${AT_MS - 121}500000`, endTimeUnixNano: `${AT_MS}000000` })
  })
})

describe('the spans of a request', () => {
  test('are a server, the logical call in it, and an attempt each in that', () => {
    const spans = spansOf(failover())
    const [server, logical, first, second] = spans
    expect(spans.map(({ kind, name }) => [kind, name])).toEqual([2, 3, 3, 3].map(kind => [kind, 'chat.completions']))
    expect(server).not.toHaveProperty('parentSpanId')
    expect(logical?.parentSpanId).toBe(server?.spanId ?? '')
    expect(first?.parentSpanId).toBe(logical?.spanId ?? '')
    expect(second?.parentSpanId).toBe(logical?.spanId ?? '')
    expect(spans.map(({ status }) => status.code)).toEqual([1, 1, 2, 1])
    expect(new Set(spans.map(({ spanId }) => spanId)).size).toBe(4)
    for (const { spanId, traceId } of spans) {
      expect(spanId).toMatch(/^(?!0{16})[0-9a-f]{16}$/)
      expect(traceId).toMatch(/^(?!0{32})[0-9a-f]{32}$/)
      expect(traceId).toBe(server?.traceId ?? '')
    }
  })

  test.each([
    ['files', 'passthrough files'],
    ['\u20ac'.repeat(21), `passthrough ${'\u20ac'.repeat(21)}`],
    // 66 bytes.
    ['\u20ac'.repeat(22), 'passthrough'],
    ['a "quoted"\nroute', 'passthrough a "quoted"\nroute'],
    ['', 'passthrough'],
    [undefined, 'passthrough'],
  ])('by the passthrough route %j are called %j, all of them', (passthroughRoute, name) => {
    const extra = passthroughRoute === undefined ? undefined : { passthroughRoute }
    const spans = spansOf(report({ records: [record({ handler: 'passthrough_route', extra })] }))
    expect(spans.map(each => each.name)).toEqual([name, name, name])
    // A model that is asked over another endpoint has no such name, whatever stands beside it.
    expect(spansOf(report({ records: [record({ extra })] })).map(each => each.name)).toEqual(
      new Array(3).fill('chat.completions'),
    )
  })

  test('continue the trace of the caller, whatever its sampled flag says', () => {
    const [server, logical] = spansOf(report({ parent: PARENT }))
    expect(server).toMatchObject({ traceId: PARENT.traceId, parentSpanId: PARENT.spanId, flags: 0x301 })
    expect(logical).toMatchObject({ traceId: PARENT.traceId, parentSpanId: server?.spanId, flags: 0x101 })
  })

  test('of a request that asked no upstream are two, and the logical call tells the record', () => {
    const spans = spansOf(refused())
    expect(spans.map(({ kind }) => kind)).toEqual([2, 3])
    expect(spans.map(({ status }) => status.code)).toEqual([2, 2])
    expect(attributesOf(spans[1])).toMatchObject({
      'aisix.error_class': 'rate_limit_exceeded',
      'aisix.error_message': 'request limit exceeded',
      'http.response.status_code': 429,
      'aisix.attempt_index': 0,
    })
  })

  test('have the same ids each time, and others for another request or another one of the same id', () => {
    const ids = (each: RequestReport) => spansOf(each).map(({ traceId, spanId }) => `${traceId}/${spanId}`)
    expect(ids(failover())).toEqual(ids(failover()))
    const traceOf = (each: RequestReport) => spansOf(each)[0]?.traceId
    expect(traceOf(report({ requestId: 'request-2' }))).not.toBe(traceOf(report()))
    const again = report({ startedAtMs: AT_MS + 1 })
    expect(traceOf(again)).toBe(traceOf(report()))
    expect(ids(again).filter(id => ids(report()).includes(id))).toEqual([])
  })

  test('of many attempts have ids of their own', () => {
    const records = Array.from({ length: 20 }, (_, attemptIndex) => record({ attemptIndex }))
    expect(new Set(spansOf(report({ records })).map(({ spanId }) => spanId)).size).toBe(22)
  })
})

describe('attributes', () => {
  test('of an attempt are those of the contract, with the names of today beside them', () => {
    const [, , attempt] = spansOf(report())
    expect(attributesOf(attempt)).toEqual({
      'gen_ai.system': 'aisix',
      'gen_ai.operation.name': 'chat',
      'gen_ai.provider.name': 'vllm',
      'gen_ai.request.model': 'llama-3',
      'gen_ai.request.stream': true,
      'gen_ai.response.model': 'meta-llama/Llama-3.1-8B-Instruct',
      'gen_ai.response.id': 'chatcmpl-1',
      'gen_ai.response.finish_reasons': ['stop'],
      'gen_ai.response.time_to_first_chunk': 0.02,
      'gen_ai.usage.input_tokens': 12,
      'gen_ai.usage.output_tokens': 34,
      'gen_ai.usage.cache_read.input_tokens': 4,
      'gen_ai.usage.reasoning.output_tokens': 3,
      'http.response.status_code': 200,
      'aisix.exporter_name': 'collector',
      'aisix.request_id': 'request-1',
      'aisix.api_key_id': 'key-1',
      'aisix.team_id': 'search',
      'aisix.user_id': 'ada',
      'aisix.model_id': 'model-1',
      'aisix.upstream_model': 'meta-llama/Llama-3.1-8B-Instruct',
      'aisix.attempt_index': 0,
      'aisix.attempt_kind': 'initial',
      'aisix.attempt_model': 'llama-3-a',
      'aisix.upstream_ttft_ms': 20,
      'aisix.downstream_latency_ms': 22,
      'aisix.cost_usd': 0.0000025,
      'aisix.client_source_ip': '10.0.0.7',
      'aisix.client_user_agent': 'OpenAI/Python 1.2',
    })
  })

  test('of a failure tell its class in both names, and its message', () => {
    const [, , failed] = spansOf(failover())
    expect(attributesOf(failed)).toMatchObject({
      'error.type': 'upstream_error',
      'aisix.error_class': 'upstream_error',
      'aisix.error_message': 'the upstream answered 503',
      'aisix.attempt_kind': 'initial',
    })
    expect(attributesOf(failed)).not.toContainAnyKeys([
      'gen_ai.usage.input_tokens',
      'aisix.downstream_latency_ms',
      'aisix.cost_usd',
    ])
  })

  test('of the server are those of HTTP', () => {
    expect(attributesOf(spansOf(report())[0])).toEqual({
      'aisix.exporter_name': 'collector',
      'aisix.request_id': 'request-1',
      'http.request.method': 'POST',
      'http.route': '/v1/chat/completions',
      'http.response.status_code': 200,
      'client.address': '10.0.0.7',
      'user_agent.original': 'OpenAI/Python 1.2',
      'aisix.api_key_id': 'key-1',
    })
  })

  test('count tokens once: on attempts, and not on the call over them', () => {
    for (const span of spansOf(failover()).slice(0, 2)) {
      expect(Object.keys(attributesOf(span)).filter(key => key.startsWith('gen_ai.usage.'))).toEqual([])
    }
  })

  test.each([
    ['embeddings', 'embeddings'],
    ['completions', 'text_completion'],
    ['messages', 'chat'],
    ['rerank', 'chat'],
    ['passthrough_route', 'passthrough'],
  ])('the operation of %s is %s', (handler, operation) => {
    const [, logical, attempt] = spansOf(report({ records: [record({ handler })] }))
    for (const span of [logical, attempt]) expect(attributesOf(span)['gen_ai.operation.name']).toBe(operation)
  })

  test('of what few requests have stand on attempts; the route on the call, too', () => {
    const extra = { passthroughRoute: 'files', clientIdentity: 'ada', audioSeconds: 12.5, cacheCreationTokens: 7 }
    const [server, logical, attempt] = spansOf(report({ records: [record({ handler: 'passthrough_route', extra })] }))
    expect(attributesOf(attempt)).toMatchObject({
      'aisix.passthrough.route_name': 'files',
      'aisix.client_identity': 'ada',
      'aisix.audio.duration_seconds': 12.5,
      'gen_ai.usage.cache_creation.input_tokens': 7,
    })
    expect(attributesOf(logical)).toMatchObject({ 'aisix.passthrough.route_name': 'files' })
    expect(attributesOf(logical)).not.toContainAnyKeys(['aisix.client_identity', 'aisix.audio.duration_seconds'])
    expect(attributesOf(server)).not.toHaveProperty(['aisix.passthrough.route_name'])
  })

  test('what callers and upstreams choose is cut at 256 bytes, between characters', () => {
    const long = '€'.repeat(200)
    const cut = '€'.repeat(85)
    const each = record({
      requestedModel: long,
      userAgent: long,
      providerRequestId: long,
      providerModelVersion: long,
      finishReason: long,
      extra: { clientIdentity: long },
    })
    expect(attributesOf(spansOf(report({ records: [each] }))[2])).toMatchObject({
      'gen_ai.request.model': cut,
      'aisix.client_user_agent': cut,
      'gen_ai.response.id': cut,
      'gen_ai.response.model': cut,
      'gen_ai.response.finish_reasons': [cut],
      'aisix.client_identity': cut,
    })
  })
})

describe('content', () => {
  const content = { prompt: 'Say €1.', response: 'One €uro.', isTruncated: false }
  const contentOf = (each: RequestReport, bytesMax: number) => {
    const {
      'gen_ai.prompt': prompt,
      'gen_ai.completion': completion,
      'aisix.content_truncated': isTruncated,
    } = attributesOf(spansOf(each, bytesMax).at(-1))
    return { prompt, completion, isTruncated }
  }

  test('stands on the last attempt alone, and only where it is wanted', () => {
    expect(write(failover({ content }), 0)).not.toContain('€')
    const spans = spansOf(failover({ content }), 100)
    expect(spans.map(span => 'gen_ai.prompt' in attributesOf(span))).toEqual([false, false, false, true])
    expect(contentOf(failover({ content }), 100)).toEqual({ prompt: 'Say €1.', completion: 'One €uro.', isTruncated: undefined })
  })

  test('of a request that asked no upstream stands on the logical call', () => {
    expect(contentOf(refused({ content }), 100)).toMatchObject({ prompt: 'Say €1.' })
  })

  test.each([
    [7, 'Say €', 'One €'],
    [6, 'Say ', 'One '],
    [4, 'Say ', 'One '],
    [1, 'S', 'O'],
  ])('is cut to %d bytes between characters, and says so', (bytesMax, prompt, completion) => {
    expect(contentOf(report({ content }), bytesMax)).toEqual({ prompt, completion, isTruncated: true })
  })

  test('that was cut before says so, and a half character at its end is left out', () => {
    const cut = { prompt: 'a 😀'.slice(0, 3), response: '', isTruncated: true }
    expect(contentOf(report({ content: cut }), 100)).toEqual({ prompt: 'a ', completion: undefined, isTruncated: true })
  })
})
