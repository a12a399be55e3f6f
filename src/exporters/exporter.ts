/** What exporters are to the rest of the gateway: somebody to hand finished requests to, and forget. */
import type { Snapshot } from '../store/snapshot.ts'
import type { RequestReport } from '../telemetry/usage-record.ts'

export interface Exporters {
  /** False while no exporter is enabled: then nobody need make a report. Read for every request. */
  readonly isActive: boolean
  /**
   * The largest `content_max_bytes` among exporters that would take the content of this request; 0: none wants it.
   * Asked when the request begins.
   */
  contentBytesMax(requestId: string): number
  /** True where some exporter samples this request: then a report of it is worth making. */
  wants(requestId: string): boolean
  /** Hands a finished request to every exporter that samples it. Never waits and never throws; drops are counted. */
  offer(report: RequestReport): void
  /** Starts, stops and restarts pipelines as the resources say; cheap while they have not changed. Called once a second. */
  sync(snapshot: Snapshot): void
  /** Delivers what is queued, at most for `timeoutMs`, then stops. */
  close(timeoutMs: number): Promise<void>
  /** For health: one row an exporter. */
  status(): ExporterStatus[]
}

export type ExporterStatus = {
  id: string
  name: string
  kind: string
  queued: number
  delivered: number
  dropped: number
  failed: number
  /** Of the last delivery, in words without a credential; undefined when it succeeded. */
  problem: string | undefined
}
