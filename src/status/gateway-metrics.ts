import type { Exchange } from '../exchange.ts'
import type { Gateway } from '../gateway.ts'
import { healthRules } from '../model-health.ts'
import { isDirectEntry } from '../store/snapshot.ts'
import { COMMIT, VERSION } from '../version.ts'
import { renderFamilies, type Sample, type StateFamily } from './metrics.ts'

/**
 * What the gateway is at this moment, in metrics: requests under way, the state of deployments, ledger, budgets and process.
 * Endpoints that were once seen under way fall to 0, they do not vanish.
 */
export function createGatewayMetrics(gateway: Gateway): () => string {
  const seen = new Map<string, Sample>()
  return () => {
    // Before traffic the page tells of the configuration alone. source: control-observability §1
    if (gateway.registry.size === 0) return ''
    return renderFamilies([
      { ...IN_FLIGHT, samples: inFlight(gateway.lifecycle.inFlight, seen) },
      ...deployments(gateway),
      ...ledgerFamilies(gateway),
      ...processFamilies(gateway),
    ])
  }
}

const IN_FLIGHT = {
  name: 'aisix_proxy_in_flight_requests',
  type: 'gauge',
  help: 'Requests whose answer, stream included, is not over.',
} as const

function inFlight(exchanges: ReadonlySet<Exchange>, seen: Map<string, Sample>): Sample[] {
  for (const sample of seen.values()) sample.value = 0
  for (const { endpoint } of exchanges) {
    const sample = seen.get(endpoint.endpoint)
    if (sample) sample.value += 1
    else {
      const labels = { endpoint: endpoint.endpoint, inbound_protocol: endpoint.inboundProtocol }
      seen.set(endpoint.endpoint, { labels, value: 1 })
    }
  }
  return [...seen.values()]
}

/** Of every direct model that has been used or checked. source: control-observability §2, `aisix_deployment_*` */
function deployments({ store, modelHealth, clock }: Gateway): StateFamily[] {
  const states: Sample[] = []
  const cooldowns: Sample[] = []
  const now = clock.now()
  for (const entry of store.snapshot.entries.models.values()) {
    const state = modelHealth.known(entry.id)
    if (!state || !isDirectEntry(entry)) continue
    const { provider, display_name, model_name, provider_key_id } = entry.value
    const labels = { provider: provider || 'unknown', model: display_name, upstream_model: model_name, provider_key_id }
    const { availability } = state.report(healthRules(entry.value), now)
    states.push({ labels, value: availability === 'healthy' ? 0 : 2 })
    if (state.cooldowns > 0) cooldowns.push({ labels, value: state.cooldowns })
  }
  return [
    {
      name: 'aisix_deployment_state',
      type: 'gauge',
      help: '0: in rotation. 2: cooling down, or failing its background checks.',
      samples: states,
    },
    {
      name: 'aisix_deployment_cooled_down_total',
      type: 'counter',
      help: 'Entries into cooldown.',
      samples: cooldowns,
    },
  ]
}

const gauge = (name: string, help: string, value: number): StateFamily => ({ name, type: 'gauge', help, samples: [{ value }] })

function ledgerFamilies({ ledger, budgets, registry }: Gateway): StateFamily[] {
  const { state, bytes, queued, written } = ledger.status
  return [
    gauge(
      'aisix_usage_ledger_up',
      '1: records of usage reach the disk. 0: they do not, see /admin/v1/health.',
      state === 'ok' ? 1 : 0,
    ),
    gauge('aisix_usage_ledger_bytes', 'Bytes of the file with the records of usage.', bytes),
    gauge('aisix_usage_ledger_queued_records', 'Records of usage that wait to be written.', queued),
    {
      name: 'aisix_usage_ledger_written_total',
      type: 'counter',
      help: 'Records of usage that reached the disk.',
      samples: [{ value: written }],
    },
    gauge(
      'aisix_budgets_up',
      '1: spending on budgets reaches the disk. 0: it does not, see /admin/v1/health.',
      budgets.health.state === 'ok' ? 1 : 0,
    ),
    gauge('aisix_metric_series', 'Series that are kept, of at most observability.metrics.max_series.', registry.size),
    {
      name: 'aisix_metric_series_overflows_total',
      type: 'counter',
      help: 'Times that a series was wanted and there was no room: it counts under the label value `other`.',
      samples: [{ value: registry.overflows }],
    },
  ]
}

function processFamilies({ lifecycle }: Gateway): StateFamily[] {
  const { user, system } = process.cpuUsage()
  return [
    {
      name: 'aisix_build_info',
      type: 'gauge',
      help: 'Always 1: the version that runs.',
      samples: [{ labels: { version: VERSION, commit: COMMIT }, value: 1 }],
    },
    {
      name: 'aisix_process_cpu_seconds_total',
      type: 'counter',
      help: 'Processor time of this process, user and system together.',
      samples: [{ value: (user + system) / 1e6 }],
    },
    gauge('aisix_process_resident_memory_bytes', 'Memory of this process.', process.memoryUsage.rss()),
    gauge(
      'aisix_process_start_time_seconds',
      'When this process started, seconds since the epoch.',
      lifecycle.startedAtMs / 1_000,
    ),
  ]
}
