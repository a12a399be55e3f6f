import { kinds } from '../resources/index.ts'
import type { Store, StoreStatus } from '../store/store.ts'

export type ConfigState = 'never_loaded' | 'out_of_sync' | 'degraded' | 'empty' | 'synced'

/** Whether a configuration was ever applied, an empty one included. */
export const hasConfig = (status: StoreStatus): boolean => status.applySeq > 0

/** How many resources of each kind are served; kinds without any are left out. */
export function resourceCounts(store: Store): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const kind of kinds) {
    const { size } = store.snapshot.entries[kind]
    if (size > 0) counts[kind] = size
  }
  return counts
}

/** The first of the states that applies, in the order of the contract. source: control-bootstrap §5.3 */
export function configState(status: StoreStatus, served: number): ConfigState {
  if (!hasConfig(status)) return 'never_loaded'
  // A load of a store fails also when some rows were rejected; it is refused as a whole only where the source could not be
  // read. A resources file is taken whole or not at all.
  const isWhole = status.source === 'file' || status.lastFailure?.last_error_kind === 'fetch'
  const isRefused = status.lastReload?.successful === false && isWhole
  if (isRefused || (status.rejected.length > 0 && served === 0)) return 'out_of_sync'
  if (status.rejected.length > 0) return 'degraded'
  return served === 0 ? 'empty' : 'synced'
}

/** The document of `/status/config`. What is undefined is left out of the JSON. source: control-bootstrap §5.3 */
export function configStatus(store: Store) {
  const { status } = store
  const counts = resourceCounts(store)
  const served = Object.values(counts).reduce((sum, count) => sum + count, 0)
  const isFile = status.source === 'file'
  return {
    state: configState(status, served),
    source: {
      type: status.source,
      connected: isFile ? undefined : status.connected,
      observed_revision: isFile ? undefined : status.observedRevision,
      source_hash: status.sourceHash,
      observed_at: status.observedAt,
    },
    applied: hasConfig(status)
      ? {
          applied_revision: isFile ? undefined : status.appliedRevision,
          config_hash: status.configHash,
          apply_seq: status.applySeq,
          applied_at: status.appliedAt,
          resource_counts: counts,
        }
      : undefined,
    last_reload: status.lastReload,
    last_failure: status.lastFailure,
    rejected: status.rejected,
    partially_compatible: status.partiallyCompatible,
  }
}
