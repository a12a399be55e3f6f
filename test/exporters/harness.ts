/** Exporters with a registry and a log to look at, and a destination that does as it is told. */
import { createExporters, type ExportersOptions } from '../../src/exporters/fan-out.ts'
import { runtimeFetch } from '../../src/lib/fetch.ts'
import { ObservabilityExporter } from '../../src/resources/observability-exporter.ts'
import { openMemoryStore } from '../../src/store/memory.ts'
import type { Snapshot } from '../../src/store/snapshot.ts'
import { captureLog } from '../admin/harness.ts'
import { testRegistry } from '../telemetry.ts'

/** Fast enough for tests, in the proportions of the real thing. */
export const QUICK = { batch: 20, retry: 5, retryMax: 40, timeout: 1_000 }

export function openExporters(options: Partial<ExportersOptions> = {}) {
  const registry = testRegistry()
  const lines: string[] = []
  const nowMs = Date.parse('2030-02-01T00:00:00Z')
  const exporters = createExporters({
    log: captureLog(lines),
    registry,
    clock: { now: () => nowMs },
    fetch: runtimeFetch,
    env: {},
    tls: undefined,
    proxy: undefined,
    serviceName: 'aisix',
    pace: QUICK,
    ...options,
  })
  const drops = (name: string, reason: string) => registry.series('aisix_otlp_fanout_drops_total', [name, reason]).value
  const failures = (name: string) => registry.series('aisix_otlp_fanout_failures_total', [name]).value
  return { exporters, lines, drops, failures, registry }
}

const empty = openMemoryStore({ clock: { now: () => 0 } }).snapshot

/** A snapshot with these exporters; each document is parsed as the store does it. */
export function snapshotOf(...documents: Record<string, unknown>[]): Snapshot {
  const entries = new Map(
    documents.map((document, index) => {
      const id = `exporter-${index + 1}`
      return [id, { id, value: ObservabilityExporter.parse(document), revision: 1 }]
    }),
  )
  return { ...empty, entries: { ...empty.entries, observability_exporters: entries } }
}

export type Received = { method: string; path: string; headers: Record<string, string>; body: Uint8Array<ArrayBuffer> }
export type Answerer = (received: Received, count: number) => Response | Promise<Response>

/** A server that keeps what it receives, and answers as `answer` says. */
export function openServer(answer: Answerer = () => Response.json({})) {
  const received: Received[] = []
  let waiting: { count: number; resolve: () => void }[] = []
  const server = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    idleTimeout: 0,
    async fetch(request) {
      const { pathname } = new URL(request.url)
      const each = {
        method: request.method,
        path: pathname,
        headers: request.headers.toJSON(),
        body: new Uint8Array(await request.arrayBuffer()),
      }
      received.push(each)
      for (const { count, resolve } of waiting) if (received.length >= count) resolve()
      waiting = waiting.filter(({ count }) => received.length < count)
      return await answer(each, received.length)
    },
  })
  return {
    url: `http://127.0.0.1:${server.port}`,
    received,
    /** Resolves when so many requests have come. */
    async until(count: number): Promise<void> {
      if (received.length >= count) return
      const { promise, resolve } = Promise.withResolvers<void>()
      waiting.push({ count, resolve })
      await promise
    },
    [Symbol.asyncDispose]: () => server.stop(true),
  }
}

/** Waits until something holds, however long the machine takes; the runner's own time limit is the bound. */
export async function eventually(holds: () => boolean): Promise<void> {
  while (!holds()) await Bun.sleep(2)
}
