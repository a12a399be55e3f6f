/** Every finished request to every exporter that samples it. source: control-observability §5, proxy-09 §3 */
import type { Fetch } from '../lib/fetch.ts'
import type { Log } from '../lib/log.ts'
import type { Snapshot } from '../store/snapshot.ts'
import type { Entry } from '../store/store.ts'
import type { Registry } from '../telemetry/registry.ts'
import type { RequestReport } from '../telemetry/usage-record.ts'
import type { ExporterStatus, Exporters } from './exporter.ts'
import { openDestination } from './index.ts'
import { type Counts, PACE, type Pace, Pipeline } from './pipeline.ts'
import { createPost, type Tls } from './post.ts'
import type { Environment } from './s3.ts'

export type ExportersOptions = {
  log: Log
  registry: Registry
  clock: { now(): number }
  fetch: Fetch
  env: Environment
  /** `upstream.tls` of the configuration. */
  tls: Tls | undefined
  /** `upstream.proxy` of the configuration: the only one that is used. */
  proxy: string | undefined
  /** `observability.service_name` of the configuration. */
  serviceName: string
  pace?: Partial<Pace>
}

/** An exporter that is enabled. */
type Running = {
  entry: Entry<'observability_exporters'>
  pipeline: Pipeline
  counts: Counts
  /** Requests whose number is below it are delivered. */
  threshold: number
  contentBytesMax: number
}

/** Numbers of requests are whole and below it. */
const NUMBERS = 2 ** 32

/** How long an exporter that was changed or removed may go on delivering what it holds. */
const DRAIN_MS = 5_000

export function createExporters(options: ExportersOptions): Exporters {
  const { registry, clock, env, serviceName } = options
  const log = options.log.as('exporters')
  const now = () => clock.now()
  const pace = { ...PACE, ...options.pace }
  const post = createPost(options)
  let running: Running[] = []
  let wantContent: Running[] = []
  let seen: Snapshot['entries']['observability_exporters'] | undefined
  let isClosed = false
  /** Pipelines that take nothing more and are not done. */
  const draining = new Set<Pipeline>()

  const retire = ({ pipeline }: Running, timeoutMs: number): Promise<void> => {
    draining.add(pipeline)
    return pipeline.close(timeoutMs).then(() => void draining.delete(pipeline))
  }

  const start = (entry: Entry<'observability_exporters'>, counts: Counts): Running => {
    const { name } = entry.value
    const destination = openDestination(entry.value, { post, serviceName, env, now })
    const pipeline = new Pipeline({
      destination,
      log,
      name,
      pace,
      counts,
      now,
      onDrop: (records, reason) => {
        registry.series('aisix_otlp_fanout_drops_total', [name, reason]).value += records
      },
      onFailure: () => {
        registry.series('aisix_otlp_fanout_failures_total', [name]).value += 1
      },
    })
    const { sampleRate, contentBytesMax } = destination
    return { entry, pipeline, counts, threshold: Math.round(sampleRate * NUMBERS), contentBytesMax }
  }

  return {
    get isActive() {
      return running.length > 0
    },

    contentBytesMax(requestId) {
      if (wantContent.length === 0) return 0
      const number = numberOf(requestId)
      let most = 0
      for (const { threshold, contentBytesMax } of wantContent) {
        if (number < threshold && contentBytesMax > most) most = contentBytesMax
      }
      return most
    },

    wants(requestId) {
      if (running.length === 0) return false
      const number = numberOf(requestId)
      for (const { threshold } of running) if (number < threshold) return true
      return false
    },

    offer(report: RequestReport) {
      const number = numberOf(report.requestId)
      for (const { threshold, pipeline, entry } of running) {
        if (number >= threshold) continue
        try {
          pipeline.offer(report)
        } catch (error) {
          // A mistake of ours must cost a record and never a request.
          log.error('an exporter could not take a record', { exporter: entry.value.name, error: String(error) })
        }
      }
    },

    sync({ entries: { observability_exporters: entries } }) {
      if (entries === seen || isClosed) return
      seen = entries
      const before = new Map(running.map(each => [each.entry.id, each]))
      const now: Running[] = []
      for (const entry of entries.values()) {
        if (!entry.value.enabled) continue
        const known = before.get(entry.id)
        // A reload of a resources file gives every entry a new revision, and changes few documents.
        if (known?.entry.value === entry.value) {
          before.delete(entry.id)
          now.push({ ...known, entry })
        } else {
          try {
            now.push(start(entry, known?.counts ?? { delivered: 0, dropped: 0, failed: 0 }))
          } catch (error) {
            // It is synchronized with every request: what one exporter cannot do must cost neither a request nor the others.
            log.error('an exporter could not be started', { exporter: entry.value.name, error: String(error) })
          }
        }
      }
      running = now
      wantContent = now.filter(({ contentBytesMax }) => contentBytesMax > 0)
      for (const each of before.values()) void retire(each, DRAIN_MS)
    },

    async close(timeoutMs) {
      isClosed = true
      const last = running
      running = []
      wantContent = []
      await Promise.all([...last.map(each => retire(each, timeoutMs)), ...Array.from(draining, each => each.close(timeoutMs))])
    },

    status: () =>
      running.map(
        ({ entry: { id, value }, pipeline, counts }): ExporterStatus => ({
          id,
          name: value.name,
          kind: value.kind,
          queued: pipeline.queued,
          ...counts,
          problem: pipeline.problem,
        }),
      ),
  }
}

/** The same for all attempts of a request and in every gateway: what is sampled at a low rate is so at every higher one. */
function numberOf(requestId: string): number {
  return Bun.hash.xxHash32(requestId)
}
