import type { Strategy } from './strategy.ts'

/** The order of declaration, always. */
export const failover: Strategy = {
  cutsFirst: true,
  usesHashKey: false,
  order: ({ candidates }) => candidates.slice(),
}
