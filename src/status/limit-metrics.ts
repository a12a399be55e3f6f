import type { Limiter } from '../limits/limit.ts'
import type { Remaining, RemainingLimits } from '../limits/remaining.ts'
import type { Snapshot } from '../store/snapshot.ts'
import { renderFamilies, type Sample } from './metrics.ts'

/** The `aisix_ratelimit_*` families, rendered. source: proxy-06 §7 */
export function limitMetrics(limiter: Limiter, remaining: RemainingLimits, { entries, models, wildcards }: Snapshot): string {
  const isCurrent = ({ apiKeyId, model }: Remaining) => {
    const limits = entries.api_keys.get(apiKeyId)?.value.rate_limit
    return (limits?.rpm ?? limits?.tpm) !== undefined && (models.has(model) || wildcards.match(model) !== undefined)
  }
  const requests: Sample[] = []
  const tokens: Sample[] = []
  for (const row of remaining.list(isCurrent)) {
    const labels = { api_key_id: row.apiKeyId, model: row.model }
    if (row.requests !== undefined) requests.push({ labels, value: row.requests })
    if (row.tokens !== undefined) tokens.push({ labels, value: row.tokens })
  }
  return renderFamilies([
    {
      name: 'aisix_ratelimit_rejections_total',
      type: 'counter',
      help: 'Requests that a rate limit refused, by what was used up (requests, which concurrency counts as, or tokens) and where.',
      samples: Array.from(limiter.rejections(), ({ scope, layer, policyId, count }) => ({
        labels: { scope, layer, policy_id: policyId },
        value: count,
      })),
    },
    {
      name: 'aisix_ratelimit_remaining_requests',
      type: 'gauge',
      help: 'Requests that a key had left in the minute of its last answered chat request.',
      samples: requests,
    },
    {
      name: 'aisix_ratelimit_remaining_tokens',
      type: 'gauge',
      help: 'Tokens that a key had left in the minute of its last answered chat request.',
      samples: tokens,
    },
  ])
}
