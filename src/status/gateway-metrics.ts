import type { Gateway } from '../gateway.ts'
import { healthRules } from '../model-health.ts'
import { isDirectEntry } from '../store/snapshot.ts'
import { type EndpointLabels, endpointLabels } from '../telemetry/endpoint-labels.ts'
import { counter, DEPLOYMENT, gauge } from '../telemetry/families.ts'
import type { Family } from '../telemetry/registry.ts'
import { COMMIT, VERSION } from '../version.ts'
import { renderFamilies, type Sample, type ToldFamily } from './metrics.ts'

const IN_FLIGHT = gauge(
  'aisix_proxy_in_flight_requests',
  ['endpoint', 'inbound_protocol'],
  'Requests whose answer, stream included, is not over.',
  'Of every endpoint that was used; 0 when nothing is under way.',
)
const DEPLOYMENT_STATE = gauge(
  'aisix_deployment_state',
  DEPLOYMENT,
  '0: in rotation. 2: cooling down, or failing its background checks.',
  'Of direct models that were used or checked, until they are deleted.',
)
const COOLED_DOWN = counter('aisix_deployment_cooled_down_total', DEPLOYMENT, 'Entries into cooldown.')
const LEDGER_UP = gauge(
  'aisix_usage_ledger_up',
  [],
  '1: records of usage reach the disk. 0: they do not, see /admin/v1/health.',
  'Not told where `usage.enabled` is `false`, like the other families of the ledger.',
)
const LEDGER_BYTES = gauge('aisix_usage_ledger_bytes', [], 'Bytes of the file with the records of usage.')
const LEDGER_QUEUED = gauge('aisix_usage_ledger_queued_records', [], 'Records of usage that wait to be written.')
const LEDGER_WRITTEN = counter('aisix_usage_ledger_written_total', [], 'Records of usage that reached the disk.')
const BUDGETS_UP = gauge('aisix_budgets_up', [], '1: spending on budgets reaches the disk. 0: it does not, see /admin/v1/health.')
const AUDIT_ENTRIES = counter(
  'aisix_audit_entries_total',
  ['result'],
  'Entries that were written to the audit log, by whether the change was applied or refused.',
)
const AUDIT_OMITTED = counter(
  'aisix_audit_omitted_total',
  [],
  'Refused changes that were too many to be taken down in the audit log.',
  'Beyond 100 at once and 10 a minute of one admin key, or while the store takes no writes.',
)
const SERIES = gauge('aisix_metric_series', [], 'Series that are kept, of at most observability.metrics.max_series.')
const OVERFLOWS = counter(
  'aisix_metric_series_overflows_total',
  [],
  'Times that a series was wanted and there was no room: it counts under the label value `other`.',
)
const BUILD_INFO = gauge('aisix_build_info', ['version', 'commit'], 'Always 1: the version that runs.')
const CPU = counter('aisix_process_cpu_seconds_total', [], 'Processor time of this process, user and system together.')
const MEMORY = gauge('aisix_process_resident_memory_bytes', [], 'Memory of this process.')
const STARTED = gauge('aisix_process_start_time_seconds', [], 'When this process started, seconds since the epoch.')

/** In the order of the page. */
export const GATEWAY_FAMILIES: readonly Family[] = [
  IN_FLIGHT,
  DEPLOYMENT_STATE,
  COOLED_DOWN,
  LEDGER_UP,
  LEDGER_BYTES,
  LEDGER_QUEUED,
  LEDGER_WRITTEN,
  BUDGETS_UP,
  SERIES,
  OVERFLOWS,
  AUDIT_ENTRIES,
  AUDIT_OMITTED,
  BUILD_INFO,
  CPU,
  MEMORY,
  STARTED,
]

/**
 * What the gateway is at this moment, in metrics: requests under way, the state of deployments, ledger, budgets and process.
 * Endpoints that were once used fall to 0, they do not vanish.
 */
export function createGatewayMetrics(gateway: Gateway): () => string {
  const seen = new Map<string, Counted>()
  return () => {
    // Before traffic the page tells of the configuration alone. source: control-observability §1
    if (gateway.registry.size === 0) return ''
    return renderFamilies([
      { family: IN_FLIGHT, samples: inFlight(gateway, seen) },
      ...deployments(gateway),
      ...ledgerFamilies(gateway),
      ...auditFamilies(gateway),
      ...processFamilies(gateway),
    ])
  }
}

type Counted = { labels: readonly string[]; value: number }

function inFlight({ lifecycle, registry }: Gateway, seen: Map<string, Counted>): Sample[] {
  for (const sample of seen.values()) sample.value = 0
  const see = ({ endpoint, inboundProtocol }: EndpointLabels, more: number) => {
    const sample = seen.get(endpoint)
    if (sample) sample.value += more
    else seen.set(endpoint, { labels: [endpoint, inboundProtocol], value: more })
  }
  // What came and went between two scrapes was used as well.
  for (const endpoint of registry.values('aisix_request_e2e_latency_seconds', 'endpoint')) see(endpointLabels(endpoint), 0)
  for (const { endpoint } of lifecycle.inFlight) see(endpoint, 1)
  return [...seen.values()]
}

/** Of every direct model that has been used or checked. source: control-observability §2, `aisix_deployment_*` */
function deployments({ store, modelHealth, clock }: Gateway): ToldFamily[] {
  const states: Sample[] = []
  const cooldowns: Sample[] = []
  const now = clock.now()
  for (const entry of store.snapshot.entries.models.values()) {
    const state = modelHealth.known(entry.id)
    if (!state || !isDirectEntry(entry)) continue
    const { provider, display_name, model_name, provider_key_id } = entry.value
    const labels = [provider || 'unknown', display_name, model_name, provider_key_id]
    const { availability } = state.report(healthRules(entry.value), now)
    states.push({ labels, value: availability === 'healthy' ? 0 : 2 })
    if (state.cooldowns > 0) cooldowns.push({ labels, value: state.cooldowns })
  }
  return [
    { family: DEPLOYMENT_STATE, samples: states },
    { family: COOLED_DOWN, samples: cooldowns },
  ]
}

const one = (family: Family, value: number): ToldFamily => ({ family, samples: [{ value }] })

function auditFamilies({ store }: Gateway): ToldFamily[] {
  if (!store.audit) return []
  const { written, omitted } = store.audit.status
  const entries = Object.entries(written).map(([result, value]) => ({ labels: [result], value }))
  return [{ family: AUDIT_ENTRIES, samples: entries }, one(AUDIT_OMITTED, omitted)]
}

function ledgerFamilies({ ledger, budgets, registry }: Gateway): ToldFamily[] {
  const { state, isWriting, bytes, queued, written } = ledger.status
  // A ledger that nobody wants is not down.
  const told =
    state === 'disabled'
      ? []
      : [one(LEDGER_UP, isWriting ? 1 : 0), one(LEDGER_BYTES, bytes), one(LEDGER_QUEUED, queued), one(LEDGER_WRITTEN, written)]
  return [
    ...told,
    one(BUDGETS_UP, budgets.health.state === 'ok' ? 1 : 0),
    one(SERIES, registry.size),
    one(OVERFLOWS, registry.overflows),
  ]
}

function processFamilies({ lifecycle }: Gateway): ToldFamily[] {
  const { user, system } = process.cpuUsage()
  return [
    { family: BUILD_INFO, samples: [{ labels: [VERSION, COMMIT], value: 1 }] },
    one(CPU, (user + system) / 1e6),
    one(MEMORY, process.memoryUsage.rss()),
    one(STARTED, lifecycle.startedAtMs / 1_000),
  ]
}
