import type { Exchange } from './exchange.ts'

/** Consecutive upstream failures a model, in memory: what `/admin/v1/health` tells (control-admin-api §5). */
export type ModelHealth = {
  failures(modelId: string): number
  /** Takes the outcome of an exchange that reached an upstream. */
  note(exchange: Exchange): void
}

/** Statuses of an upstream that speak against the server and not against the request (the defaults of cooldowns). */
const FAILURES = new Set([401, 408, 429, 500, 502, 503, 504])

export function createModelHealth(): ModelHealth {
  const failures = new Map<string, number>()
  return {
    failures: modelId => failures.get(modelId) ?? 0,
    note({ modelId, attempts, error, status }) {
      if (modelId === undefined || attempts.length === 0 || status === 499) return
      if (error === undefined) failures.delete(modelId)
      else if (FAILURES.has(error.upstreamStatus ?? error.status)) failures.set(modelId, (failures.get(modelId) ?? 0) + 1)
    },
  }
}
