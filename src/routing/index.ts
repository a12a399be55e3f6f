/** The registry of strategies. */
import { consistentHash } from './consistent-hash.ts'
import { failover } from './failover.ts'
import { leastBusy } from './least-busy.ts'
import { leastCost } from './least-cost.ts'
import { leastLatency } from './least-latency.ts'
import { roundRobin } from './round-robin.ts'
import type { Strategies } from './strategy.ts'

export const STRATEGIES = {
  failover,
  round_robin: roundRobin,
  consistent_hash: consistentHash,
  least_cost: leastCost,
  least_latency: leastLatency,
  least_busy: leastBusy,
} satisfies Strategies
