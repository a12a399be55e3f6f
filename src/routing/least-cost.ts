import { ascending } from './ascending.ts'
import type { Strategy } from './strategy.ts'

/** The cheapest first, those without a price last: what nobody has priced may cost anything. */
export const leastCost: Strategy = {
  cutsFirst: false,
  usesHashKey: false,
  order: ({ candidates }) => ascending(candidates, ({ cost }) => cost ?? Number.POSITIVE_INFINITY),
}
