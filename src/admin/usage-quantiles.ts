/** Which quantiles are told. */
const QUANTILES = { p50: 0.5, p90: 0.9, p99: 0.99 } as const

export type Quantiles = Record<keyof typeof QUANTILES, number | null>

/** in: counts by bucket, one more than there are bounds. out: whole milliseconds; null where nothing was counted */
export function quantilesOf(counts: readonly number[], bounds: readonly number[]): Quantiles {
  const at = (share: number) => quantile(share, counts, bounds)
  return { p50: at(QUANTILES.p50), p90: at(QUANTILES.p90), p99: at(QUANTILES.p99) }
}

/**
 * An estimate: what lies in one bucket is taken to be spread evenly over it, and what lies above the last bound to lie at it.
 * source: Prometheus, `histogram_quantile`
 */
function quantile(share: number, counts: readonly number[], bounds: readonly number[]): number | null {
  const total = counts.reduce((sum, count) => sum + count, 0)
  if (total === 0) return null
  const rank = share * total
  let below = 0
  for (const [index, upper] of bounds.entries()) {
    const count = counts[index] ?? 0
    if (count > 0 && below + count >= rank) {
      const lower = index === 0 ? 0 : (bounds[index - 1] ?? 0)
      return Math.round(lower + ((upper - lower) * (rank - below)) / count)
    }
    below += count
  }
  return bounds.at(-1) ?? null
}
