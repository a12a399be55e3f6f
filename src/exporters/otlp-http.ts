/** Traces to a collector of OpenTelemetry. source: control-observability §5.1; OTLP 1.x, "OTLP/HTTP" */
import { member } from '../lib/member.ts'
import type { OtlpHttpExporter } from '../resources/observability-exporter.ts'
import { VERSION } from '../version.ts'
import type { Destination } from './destination.ts'
import { createSpanWriter, envelope } from './otlp-spans.ts'
import type { Post, Reader } from './post.ts'

export function openOtlpHttp(
  exporter: OtlpHttpExporter,
  { post, serviceName }: { post: Post; serviceName: string },
): Destination {
  const { endpoint, content_mode, content_max_bytes, sample_rate = 1 } = exporter
  const contentBytesMax = content_mode === 'full' ? content_max_bytes : 0
  const { before, after } = envelope(serviceName)
  const headers: Record<string, string> = { 'user-agent': `aisix/${VERSION}` }
  for (const [name, value] of Object.entries(exporter.headers ?? {})) headers[name.toLowerCase()] = value
  headers['content-type'] = 'application/json'
  const { origin, pathname } = new URL(endpoint)
  return {
    sampleRate: sample_rate,
    contentBytesMax,
    // Not its query: that may hold a credential.
    address: origin + pathname,
    encode: createSpanWriter({ exporterName: exporter.name, contentBytesMax }),
    pack(parts) {
      // Plain: compressing costs more than the whole rest, and collectors of a private network are near.
      const body = before + parts.map(part => part.text).join(',') + after
      return signal => post({ method: 'POST', url: endpoint, headers, body }, signal, READER)
    },
  }
}

const READER: Reader = {
  /** source: OTLP, "Partial Success": `rejectedSpans`, as JSON has 64-bit integers: a string or a number */
  rejected(text) {
    let answer: unknown
    try {
      answer = JSON.parse(text)
    } catch {
      // An empty body is legal and nonsense harmless: the status said that all was taken.
      return 0
    }
    const rejected = Number(member(member(answer, 'partialSuccess'), 'rejectedSpans'))
    return Number.isSafeInteger(rejected) && rejected > 0 ? rejected : 0
  },
  /** Words of the collector may repeat attributes, and so content: none is told. */
  reason: status => REASONS[status] ?? '',
}

const REASONS: Readonly<Record<number, string>> = {
  400: 'the collector does not take OTLP in JSON here; check endpoint',
  401: 'check headers',
  403: 'check headers',
  404: 'check endpoint, whose path is /v1/traces in most collectors',
  405: 'check endpoint, whose path is /v1/traces in most collectors',
  413: 'the collector takes no bodies of this size; lower content_max_bytes',
  415: 'the collector does not take OTLP in JSON; choose a receiver that does',
}
