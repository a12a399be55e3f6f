import { ascending } from './ascending.ts'
import type { Strategy } from './strategy.ts'

/** The least loaded for its weight first, the request itself counted in: an idle heavy member goes before an idle light one. */
export const leastBusy: Strategy = {
  cutsFirst: false,
  usesHashKey: false,
  order: ({ candidates, measures }) => ascending(candidates, ({ id, weight }) => (measures.inFlight(id) + 1) / weight),
}
