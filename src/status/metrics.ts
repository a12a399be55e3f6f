import { kinds } from '../resources/index.ts'
import type { StoreStatus } from '../store/store.ts'
import { escapeLabel, familyHead } from '../telemetry/registry.ts'

export type Sample = { labels?: Record<string, string>; value: number }
export type StateFamily = { name: string; type: 'counter' | 'gauge'; help: string; samples: Sample[] }

/** Content type of a scrape page. source: Prometheus, "Exposition formats", text format 0.0.4 */
export const TEXT_FORMAT = 'text/plain; version=0.0.4; charset=utf-8'

/**
 * Renders families that are told from a state at the moment of the scrape, each with its HELP and TYPE line.
 */
export function renderFamilies(families: readonly StateFamily[]): string {
  let page = ''
  for (const { name, type, help, samples } of families) {
    if (samples.length === 0) continue
    page += familyHead({ name, type, help })
    for (const { labels = {}, value } of samples) {
      const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escapeLabel(text)}"`)
      page += `${name}${pairs.length > 0 ? `{${pairs.join(',')}}` : ''} ${value}\n`
    }
  }
  return page
}

/**
 * The `aisix_config_*` families, rendered. Remembers between scrapes what must fall to 0: kinds that had rejected rows, and
 * the previous configuration hash.
 * source: control-observability §2, rows `aisix_config_*`
 */
export function createConfigMetrics(): (status: StoreStatus) => string {
  const seenKinds = new Set<string>(kinds)
  let currentHash: string | undefined
  let previousHash: string | undefined

  const perKind = (counts: Map<string, number>): Sample[] => {
    return [...seenKinds].sort().map(kind => ({ labels: { kind }, value: counts.get(kind) ?? 0 }))
  }

  return status => {
    const rejected = new Map<string, number>()
    const stale = new Map<string, number>()
    for (const row of status.rejected) {
      seenKinds.add(row.resource_kind)
      increase(rejected, row.resource_kind, 1)
      if (row.serving_stale_since !== undefined) increase(stale, row.resource_kind, 1)
    }
    const partial = new Map<string, number>()
    for (const row of status.partiallyCompatible) {
      seenKinds.add(row.resource_kind)
      increase(partial, row.resource_kind, row.count)
    }
    if (status.configHash !== undefined && status.configHash !== currentHash) {
      previousHash = currentHash
      currentHash = status.configHash
    }
    const hashes: Sample[] = []
    if (currentHash !== undefined) hashes.push({ labels: { hash: currentHash }, value: 1 })
    if (previousHash !== undefined) hashes.push({ labels: { hash: previousHash }, value: 0 })

    const gauge = (name: string, help: string, samples: Sample[]): StateFamily => ({ name, type: 'gauge', help, samples })
    return renderFamilies([
      gauge(
        'aisix_config_last_reload_successful',
        'Whether the latest full load of the configuration succeeded.',
        status.lastReload === undefined ? [] : [{ value: status.lastReload.successful ? 1 : 0 }],
      ),
      gauge(
        'aisix_config_last_reload_success_timestamp_seconds',
        'When a full load last succeeded, seconds since the epoch.',
        status.lastReloadSuccessAt === undefined ? [] : [{ value: status.lastReloadSuccessAt / 1000 }],
      ),
      {
        name: 'aisix_config_reloads_total',
        type: 'counter',
        help: 'Full loads of the configuration since the start, good and bad.',
        samples: [{ value: status.reloads }],
      },
      {
        name: 'aisix_config_reload_failures_total',
        type: 'counter',
        help: 'Full loads that failed, by reason: fetch, parse or validate.',
        samples: Object.entries(status.reloadFailures).map(([reason, value]) => ({ labels: { reason }, value })),
      },
      gauge('aisix_config_rejected_resources', 'Stored resources that do not validate.', perKind(rejected)),
      gauge(
        'aisix_config_partially_compatible_resources',
        'Served resources with members that this version does not know.',
        perKind(partial),
      ),
      gauge('aisix_config_stale_served_resources', 'Rejected resources whose last good version goes on serving.', perKind(stale)),
      gauge('aisix_config_observed_revision', 'Newest revision seen in the store.', [{ value: status.observedRevision }]),
      gauge('aisix_config_applied_revision', 'Revision that requests are served with.', [{ value: status.appliedRevision }]),
      gauge('aisix_config_source_connected', 'Whether the store can be read.', [{ value: status.connected ? 1 : 0 }]),
      gauge('aisix_config_hash_info', 'Hash of the applied configuration: 1 for the current one, 0 for the one before.', hashes),
    ])
  }
}

function increase(counts: Map<string, number>, key: string, by: number) {
  counts.set(key, (counts.get(key) ?? 0) + by)
}
