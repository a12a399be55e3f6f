/** The strategies that a group may choose, apart from their code: schemas need the names alone. */
export const STRATEGY_NAMES = ['failover', 'round_robin', 'consistent_hash', 'least_cost', 'least_latency', 'least_busy'] as const

export type StrategyName = (typeof STRATEGY_NAMES)[number]
