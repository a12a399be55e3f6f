import type { Config } from '../config.ts'
import { metricFamilies } from '../telemetry/families.ts'
import type { Family } from '../telemetry/registry.ts'
import { GATEWAY_FAMILIES } from './gateway-metrics.ts'
import { LIMIT_FAMILIES } from './limit-metrics.ts'
import { CONFIG_FAMILIES } from './metrics.ts'

/** Every family that the scrape page can have, in its order: what the reference, the dashboard and the alerts are made of. */
export function allFamilies(buckets: Config['observability']['metrics']['buckets']): Family[] {
  return [...CONFIG_FAMILIES, ...LIMIT_FAMILIES, ...GATEWAY_FAMILIES, ...metricFamilies(buckets)]
}
