import type { Registry } from '../telemetry/registry.ts'
import { Drops } from './drops.ts'
import { type Ledger, LedgerUnavailable } from './ledger.ts'

/** A ledger that keeps nothing, because the operator wants none: records are counted as dropped, questions are refused. */
export function disabledLedger({ registry }: { registry: Registry }): Ledger {
  const drops = new Drops(registry)
  const refuse = async () => {
    throw new LedgerUnavailable('no records of usage are kept; set usage.enabled to true and restart the gateway')
  }
  return {
    record(record) {
      drops.add('sink_disabled', record.labels)
      return false
    },
    usage: refuse,
    requests: refuse,
    request: refuse,
    get status() {
      return {
        state: 'disabled' as const,
        isWriting: false,
        problem: undefined,
        queued: 0,
        written: 0,
        dropped: drops.total,
        bytes: 0,
        bytesMax: 0,
        oldestMs: undefined,
      }
    },
    close: async () => undefined,
  }
}
