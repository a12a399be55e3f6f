/** What the rest of the gateway needs of budgets. Requests are answered from memory; nothing they call waits for a disk. */
import type { GatewayError } from '../errors.ts'
import type { CallerKey, Snapshot } from '../store/snapshot.ts'
import type { Registry } from '../telemetry/registry.ts'
import type { UsageRecord } from '../telemetry/usage-record.ts'

export interface Budgets {
  /**
   * Whether a request may be dispatched: by the budgets of its key, team and user, of everything, and of the model or group
   * that it asks for. Called before rate limits are reserved. Costs a look-up that does not grow with the number of budgets.
   * in: `modelId`, the row that was asked for; `nowMs`, epoch milliseconds
   * returns: the error to answer with, budget_exceeded, of the exhausted budget that is free again last; counted as rejected
   */
  refusal(snapshot: Snapshot, caller: CallerKey, modelId: string, nowMs: number): GatewayError | undefined
  /** The same for a member of a group: only budgets of the member's own model are asked, and nothing is counted. */
  memberRefusal(snapshot: Snapshot, modelId: string, nowMs: number): GatewayError | undefined
  /** Counts a refusal that the caller is told of: of a member, because no other could answer. Each counts once. */
  reject(refusal: GatewayError): void
  /**
   * Charges what an attempt used to every budget that it falls under, once each. Called when the exchange settles.
   * in: `groupId`, the group that was asked for, where one was: a budget with scope `model` may be that group's
   */
  charge(record: UsageRecord, groupId: string | undefined): void
  /** Where a budget stands; undefined where there is none with this id. */
  status(snapshot: Snapshot, id: string, nowMs: number): BudgetStatus | undefined
  /** Where all of them stand, in the order of their creation. */
  statuses(snapshot: Snapshot, nowMs: number): BudgetStatus[]
  /** Latest periods of a budget that are over and in which something was charged, newest first; undefined without the file. */
  history(snapshot: Snapshot, id: string, nowMs: number): Promise<PastPeriod[] | undefined>
  /** Sets the gauges `aisix_budget_*`, and drops the series of budgets that are gone. For each scrape. */
  collect(registry: Registry, snapshot: Snapshot, nowMs: number): void
  /** The budgets' own condition: whether what is spent reaches the disk. */
  readonly health: { state: 'ok' | 'degraded'; problem: string | undefined }
  /** Writes what is charged and not written yet, and reads what others wrote. returns: whether the file could be used */
  flush(): Promise<boolean>
  /** Writes what is not written yet, and lets go of the file. */
  close(): Promise<void>
}

/** As `GET /admin/v1/budgets/{id}/status` tells it. Times are RFC 3339 in UTC. */
export type BudgetStatus = {
  id: string
  name: string
  state: 'ok' | 'warning' | 'exceeded'
  action: 'block' | 'warn'
  scope: 'api_key' | 'team' | 'user' | 'model' | 'all'
  /** Absent for `all`. */
  scope_ref?: string
  period: 'day' | 'week' | 'month' | 'total'
  /** Absent for `total`. */
  period_started_at?: string
  period_resets_at?: string
  limit_usd?: number
  spent_usd: number
  remaining_usd?: number
  limit_tokens?: number
  spent_tokens: number
  remaining_tokens?: number
  /** The larger of both shares, 0 and up; 100 is the limit. */
  used_percent: number
  /** Warnings of this period, oldest first. */
  warnings: { at_percent: number; warned_at: string; spent_usd: number; spent_tokens: number }[]
}

export type PastPeriod = { period_started_at: string; period_ended_at: string; spent_usd: number; spent_tokens: number }
