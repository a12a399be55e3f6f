import { ascending } from './ascending.ts'
import type { Strategy } from './strategy.ts'

/** The fastest first; those without a measurement before all, for they get one only when they are tried. */
export const leastLatency: Strategy = {
  cutsFirst: false,
  usesHashKey: false,
  order: ({ candidates, measures }) => ascending(candidates, ({ id }) => measures.latencyMs(id) ?? Number.NEGATIVE_INFINITY),
}
