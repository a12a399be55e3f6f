import { healthRules, type ModelHealth, type StatusReason } from '../model-health.ts'
import { isDirectEntry, type Snapshot } from '../store/snapshot.ts'
import type { Entry } from '../store/store.ts'

/** A point in time as the contract writes it. */
export type EpochTime = { secs_since_epoch: number; nanos_since_epoch: number }

/** `not_applicable`: a model group, which has no upstream of its own. */
export const MODEL_STATUSES = ['healthy', 'unhealthy', 'cooldown', 'not_applicable'] as const

/** One row of `/admin/v1/models/status` and `/status/models`. */
export type ModelStatus = {
  id: string
  display_name: string
  kind: 'direct' | 'routing'
  status: (typeof MODEL_STATUSES)[number]
  /** During a cooldown. */
  cooldown_until?: EpochTime
  /** After a background check. */
  last_checked_at?: EpochTime
  /** After a background check that got a response; 408 where its deadline passed. */
  last_check_status?: number
  /** Of a model that is not healthy, or whose last check failed with a status that its operator excuses. */
  status_reason?: StatusReason
}

/**
 * A row for each model in the store, in the order of creation. Members that do not apply are left out.
 * in: epoch milliseconds
 * source: control-admin-api §6, proxy-09 §5
 */
export function modelStatus(snapshot: Snapshot, modelHealth: ModelHealth, nowMs: number): ModelStatus[] {
  return Array.from(snapshot.entries.models.values(), entry => rowOf(entry, modelHealth, nowMs))
}

function rowOf(entry: Entry<'models'>, modelHealth: ModelHealth, nowMs: number): ModelStatus {
  const named = { id: entry.id, display_name: entry.value.display_name }
  if (!isDirectEntry(entry)) return { ...named, kind: 'routing', status: 'not_applicable' }
  const report = modelHealth.of(entry.id).report(healthRules(entry.value), nowMs)
  const { availability, cooldownUntil, lastCheckedAt, lastCheckStatus, reason } = report
  return {
    ...named,
    kind: 'direct',
    status: availability,
    ...(cooldownUntil === undefined ? {} : { cooldown_until: epochTime(cooldownUntil) }),
    ...(lastCheckedAt === undefined ? {} : { last_checked_at: epochTime(lastCheckedAt) }),
    ...(lastCheckStatus === undefined ? {} : { last_check_status: lastCheckStatus }),
    ...(reason === undefined ? {} : { status_reason: reason }),
  }
}

function epochTime(ms: number): EpochTime {
  const secs = Math.floor(ms / 1_000)
  return { secs_since_epoch: secs, nanos_since_epoch: Math.round((ms - secs * 1_000) * 1_000_000) }
}
