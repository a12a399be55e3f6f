/** No request comes near it; a counter above it is a mistake of its server, and one would spoil every sum for good. */
const COUNT_MAX = 1_000_000_000

/** A counter of tokens as servers tell it; what is none, or none that a request can have, is 0. */
export function countOf(value: unknown): number {
  return typeof value === 'number' && value > 0 && value <= COUNT_MAX ? Math.round(value) : 0
}
