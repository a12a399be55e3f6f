import type { Labels } from '../exchange.ts'
import type { Registry } from '../telemetry/registry.ts'
import type { DropReason } from './ledger.ts'

/** Counts records that were lost, in the metric and in all. */
export class Drops {
  total = 0
  constructor(private readonly registry: Registry) {}

  add(reason: DropReason, labels: Labels, count = 1): void {
    this.total += count
    const { name, providerKeyId, providerKeyName } = labels
    this.registry.series('aisix_usage_event_drops_total', [reason, name, providerKeyId, providerKeyName]).value += count
  }
}
