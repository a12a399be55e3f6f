/** The kinds of exporters. */
import type { ObservabilityExporter } from '../resources/observability-exporter.ts'
import type { Destination } from './destination.ts'
import { openObjectStore } from './object-store.ts'
import { openOtlpHttp } from './otlp-http.ts'

type Needs = Parameters<typeof openOtlpHttp>[1] & Parameters<typeof openObjectStore>[1]

export function openDestination(exporter: ObservabilityExporter, needs: Needs): Destination {
  switch (exporter.kind) {
    case 'otlp_http':
      return openOtlpHttp(exporter, needs)
    case 'object_store':
      return openObjectStore(exporter, needs)
  }
}
