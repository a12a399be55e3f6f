import { z } from 'zod'
import type { Budgets } from '../budgets/budget.ts'
import type { Exporters } from '../exporters/exporter.ts'
import type { Clock, Lifecycle } from '../gateway.ts'
import type { Ledger } from '../ledger/ledger.ts'
import { type ModelHealth, STATUS_REASONS } from '../model-health.ts'
import { kinds } from '../resources/index.ts'
import { MODEL_STATUSES, modelStatus } from '../status/models.ts'
import type { Store } from '../store/store.ts'
import { wholeSeconds } from '../telemetry/usage-record.ts'
import { COMMIT, VERSION } from '../version.ts'
import { allDangling, danglingOfConfig } from './references.ts'

/** Consecutive failures from which a model is shaky, and from which it is taken to be down. source: control-admin-api §5 */
const FAILURES_SHAKY = 4
const FAILURES_DOWN = 8

/** Age of the snapshot from which the gateway counts as degraded: nobody could tell whether it is current. */
const SNAPSHOT_AGE_SECONDS_MAX = 300

const seconds = () => z.int().min(0)

export const HealthResponse = z
  .strictObject({
    status: z
      .enum(['ok', 'degraded', 'unhealthy'])
      .describe(
        '`unhealthy`: a model has health 2. `degraded`: one has 1, the store cannot be read or written, the snapshot is older than 300 s, or records of usage or spending do not reach the disk.',
      ),
    version: z.string().describe('Version of the gateway.'),
    commit: z.string().describe('Commit the executable was built from; `source` when it runs from source.'),
    uptime_seconds: seconds().describe('Since the process started.'),
    models: z
      .array(
        z.strictObject({
          id: z.string().describe('Id of the model.'),
          name: z.string().describe('Alias of the model.'),
          health: z
            .union([z.literal(0), z.literal(1), z.literal(2)])
            .describe(
              '0: fewer than 4 consecutive upstream failures. 1: from 4. 2: from 8. A success resets it. Of a model group always 0.',
            ),
          status: z
            .enum(MODEL_STATUSES)
            .describe('What groups make of it now, as `/admin/v1/models/status` tells it with its times.'),
          status_reason: z
            .enum(STATUS_REASONS)
            .optional()
            .describe('Why it is not healthy, or what its last check was excused for.'),
        }),
      )
      .describe('Every model in the store, in the order of creation.'),
    config: z
      .strictObject({
        snapshot_revision: z.int().describe('Change counter of the store as it is served.'),
        snapshot_age_seconds: seconds().nullable().describe('Since the snapshot was last confirmed to be what the store holds.'),
      })
      .optional()
      .describe('The configuration that requests are served with. Absent with a resources file.'),
    store: z
      .strictObject({
        connected: z
          .boolean()
          .describe(
            'Whether the store can be read. While it cannot, the last snapshot is served. With a resources file always true.',
          ),
        writable: z
          .boolean()
          .describe('Whether the store took the last write. While it does not, changes are refused. Not with a resources file.')
          .optional(),
        problem: z.string().optional().describe('Why not, or why the resources file was refused, and what to do.'),
      })
      .describe('Where resources are kept.'),
    rejected: z.int().describe('Stored resources that are not served as they stand; `/status/config` lists them.'),
    dangling: z
      .array(
        z.strictObject({
          kind: z
            .enum([...kinds, 'config'])
            .describe('Kind of the resource that names another one; `config` for the configuration of the gateway itself.'),
          id: z.string().describe('Its id; of the configuration the section, `proxy.anonymous`.'),
          name: z.string().optional().describe('Its name, where it has one.'),
          field: z.string().describe('Its member that names what is missing.'),
          missing: z.string().describe('The id or the name that is not there.'),
        }),
      )
      .describe('Resources that name another one which does not exist.'),
    usage: z
      .strictObject({
        state: z
          .enum(['ok', 'degraded', 'disabled'])
          .describe('`degraded`: records of usage do not reach the disk. `disabled`: `usage.enabled` is false.'),
        problem: z.string().optional().describe('What is wrong, and what to do.'),
        queued: z.int().min(0).describe('Records that wait to be written.'),
        written: z.int().min(0).describe('Records written since the start.'),
        dropped: z.int().min(0).describe('Records lost since the start.'),
        bytes: z.int().min(0).describe('Size of the file.'),
        bytes_max: z.int().min(0).describe('What it may grow to: `usage.max_bytes`.'),
        oldest_at: z.string().optional().describe('When the oldest record was made.'),
      })
      .describe('The records of usage.'),
    budgets: z
      .strictObject({
        state: z.enum(['ok', 'degraded']).describe('`degraded`: what is spent is counted, and does not reach the disk.'),
        problem: z.string().optional().describe('What is wrong, and what to do.'),
      })
      .describe('Spending on budgets.'),
    exporters: z
      .array(
        z.strictObject({
          id: z.string().describe('Id of the exporter.'),
          name: z.string().describe('Its name.'),
          kind: z.string().describe('Its kind.'),
          queued: z.int().min(0).describe('Records that wait.'),
          delivered: z.int().min(0).describe('Records delivered since the exporter started or changed.'),
          dropped: z.int().min(0).describe('Records lost since then.'),
          failed: z.int().min(0).describe('Deliveries that failed since then.'),
          problem: z.string().optional().describe('Why the last delivery failed; absent when it succeeded.'),
        }),
      )
      .describe('Exporters that are enabled. What they fail at does not make the gateway degraded.'),
  })
  .meta({ id: 'HealthResponse' })

export type HealthResponse = z.infer<typeof HealthResponse>

function healthOf(failures: number): 0 | 1 | 2 {
  return failures >= FAILURES_DOWN ? 2 : failures >= FAILURES_SHAKY ? 1 : 0
}

/** The document of `GET /admin/v1/health`. Information for operators, no probe: its status is always 200. */
export function healthReport(options: {
  store: Store
  clock: Clock
  lifecycle: Lifecycle
  modelHealth: ModelHealth
  ledger: Pick<Ledger, 'status'>
  budgets: Pick<Budgets, 'health'>
  exporters: Pick<Exporters, 'status'>
  anonymousKeyId?: string | undefined
}): HealthResponse {
  const { store, clock, lifecycle, modelHealth, ledger, budgets, exporters, anonymousKeyId } = options
  const { snapshot, status } = store
  const models = modelStatus(snapshot, modelHealth, clock.now()).map(({ id, display_name, kind, status, status_reason }) => {
    // A group has no upstream of its own.
    const health = kind === 'direct' ? healthOf(modelHealth.failures(id)) : 0
    return { id, name: display_name, health, status, ...(status_reason && { status_reason }) }
  })
  const age = status.confirmedAt === undefined ? null : Math.max(0, Math.floor((clock.now() - status.confirmedAt) / 1000))
  const isFile = status.source === 'file'
  const isDown = models.some(({ health }) => health === 2)
  const { state, problem, queued, written, dropped, bytes, bytesMax, oldestMs } = ledger.status
  const isWritable = status.connected && status.writeProblem === undefined
  const isDegraded =
    !isWritable ||
    models.some(({ health }) => health === 1) ||
    (!isFile && (age === null || age > SNAPSHOT_AGE_SECONDS_MAX)) ||
    state === 'degraded' ||
    budgets.health.state === 'degraded'
  return {
    status: isDown ? 'unhealthy' : isDegraded ? 'degraded' : 'ok',
    version: VERSION,
    commit: COMMIT,
    uptime_seconds: Math.max(0, Math.floor((clock.now() - lifecycle.startedAtMs) / 1000)),
    models,
    ...(!isFile && { config: { snapshot_revision: snapshot.revision, snapshot_age_seconds: age } }),
    store: {
      connected: status.connected,
      ...(!isFile && { writable: isWritable }),
      problem: status.problem ?? status.writeProblem,
    },
    rejected: status.rejected.length,
    dangling: [
      ...allDangling(snapshot).map(({ kind, id, name, field, missing }) => ({ kind, id, name, field, missing })),
      ...danglingOfConfig(anonymousKeyId, snapshot),
    ],
    usage: {
      state,
      problem,
      queued,
      written,
      dropped,
      bytes,
      bytes_max: bytesMax,
      oldest_at: oldestMs === undefined ? undefined : wholeSeconds(oldestMs),
    },
    budgets: budgets.health,
    exporters: exporters.status(),
  }
}
