import type { Snapshot } from '../store/snapshot.ts'

/** What is known about the upstream of a model; counted in memory by whoever dispatches, reset by any success. */
export type ModelHealth = {
  /** Consecutive upstream failures of the model with this id, 0 when there were none. */
  failures(modelId: string): number
}

/** One row of `/admin/v1/models/status` and `/status/models`. Every model is a direct one in this version. */
export type ModelStatus = { id: string; display_name: string; kind: 'direct'; status: 'healthy' }

/** A row for each model in the store, in the order of creation. source: control-admin-api §6 */
export function modelStatus(snapshot: Snapshot): ModelStatus[] {
  return Array.from(snapshot.entries.models.values(), ({ id, value }) => ({
    id,
    display_name: value.display_name,
    kind: 'direct',
    status: 'healthy',
  }))
}
