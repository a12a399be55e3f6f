import type { Limiter } from '../limits/limit.ts'
import type { Remaining, RemainingLimits } from '../limits/remaining.ts'
import type { Snapshot } from '../store/snapshot.ts'
import { counter, gauge } from '../telemetry/families.ts'
import type { Family } from '../telemetry/registry.ts'
import { renderFamilies, type Sample } from './metrics.ts'

const REJECTIONS = counter(
  'aisix_ratelimit_rejections_total',
  ['scope', 'layer', 'policy_id'],
  'Requests that a rate limit refused, by what was used up (requests, which concurrency counts as, or tokens) and where.',
  '`layer` is `api_key`, `model` or `policy`; `policy_id` is empty but for policies.',
)
const REMAINING_REQUESTS = gauge(
  'aisix_ratelimit_remaining_requests',
  ['api_key_id', 'model'],
  'Requests that a key had left in the minute of its last answered chat request.',
  'Of keys with `rpm`, until the key, its limit or the model is gone.',
)
const REMAINING_TOKENS = gauge(
  'aisix_ratelimit_remaining_tokens',
  ['api_key_id', 'model'],
  'Tokens that a key had left in the minute of its last answered chat request.',
  'Of keys with `tpm`, until the key, its limit or the model is gone.',
)

/** In the order of the page. */
export const LIMIT_FAMILIES: readonly Family[] = [REJECTIONS, REMAINING_REQUESTS, REMAINING_TOKENS]

/** The `aisix_ratelimit_*` families, rendered. source: proxy-06 §7 */
export function limitMetrics(limiter: Limiter, remaining: RemainingLimits, { entries, models, wildcards }: Snapshot): string {
  const isCurrent = ({ apiKeyId, model }: Remaining) => {
    const limits = entries.api_keys.get(apiKeyId)?.value.rate_limit
    return (limits?.rpm ?? limits?.tpm) !== undefined && (models.has(model) || wildcards.match(model) !== undefined)
  }
  const requests: Sample[] = []
  const tokens: Sample[] = []
  for (const row of remaining.list(isCurrent)) {
    const labels = [row.apiKeyId, row.model]
    if (row.requests !== undefined) requests.push({ labels, value: row.requests })
    if (row.tokens !== undefined) tokens.push({ labels, value: row.tokens })
  }
  const refused = Array.from(limiter.rejections(), ({ scope, layer, policyId, count }) => ({
    labels: [scope, layer, policyId],
    value: count,
  }))
  return renderFamilies([
    { family: REJECTIONS, samples: refused },
    { family: REMAINING_REQUESTS, samples: requests },
    { family: REMAINING_TOKENS, samples: tokens },
  ])
}
