import { kinds } from '../resources/index.ts'
import type { StoreStatus } from '../store/store.ts'
import { counter, gauge } from '../telemetry/families.ts'
import { escapeLabel, type Family, familyHead } from '../telemetry/registry.ts'

/** Label values stand in the order of their family's labels. */
export type Sample = { labels?: readonly string[]; value: number }
/** A family that is told from a state at the moment of the scrape, and what it tells then. */
export type ToldFamily = { family: Family; samples: readonly Sample[] }

/** Content type of a scrape page. source: Prometheus, "Exposition formats", text format 0.0.4 */
export const TEXT_FORMAT = 'text/plain; version=0.0.4; charset=utf-8'

/**
 * Renders families that are told from a state at the moment of the scrape, each with its HELP and TYPE line.
 */
export function renderFamilies(told: readonly ToldFamily[]): string {
  let page = ''
  for (const { family, samples } of told) {
    if (samples.length === 0) continue
    page += familyHead(family)
    for (const { labels = [], value } of samples) {
      const pairs = family.labels.map((name, at) => `${name}="${escapeLabel(labels[at] ?? '')}"`)
      page += `${family.name}${pairs.length > 0 ? `{${pairs.join(',')}}` : ''} ${value}\n`
    }
  }
  return page
}

const LAST_RELOAD_SUCCESSFUL = gauge(
  'aisix_config_last_reload_successful',
  [],
  'Whether the latest full load of the configuration succeeded.',
)
const LAST_RELOAD_SUCCESS = gauge(
  'aisix_config_last_reload_success_timestamp_seconds',
  [],
  'When a full load last succeeded, seconds since the epoch.',
)
const RELOADS = counter(
  'aisix_config_reloads_total',
  [],
  'Full loads of the configuration since the start, good and bad.',
  'At the start, and whenever the store or the resources file is read anew as a whole; a change of a row does not count.',
)
const RELOAD_FAILURES = counter(
  'aisix_config_reload_failures_total',
  ['reason'],
  'Full loads that failed, by reason: fetch, parse or validate.',
  'Once a reason that is present in a load. `fetch`: the store or the resources file could not be read. `parse`: it is no YAML or JSON.',
)
const REJECTED = gauge(
  'aisix_config_rejected_resources',
  ['kind'],
  'Stored resources that do not validate; of a resources file that was refused, its errors.',
)
const PARTIALLY_COMPATIBLE = gauge(
  'aisix_config_partially_compatible_resources',
  ['kind'],
  'Served resources with members that this version does not know.',
)
const STALE_SERVED = gauge(
  'aisix_config_stale_served_resources',
  ['kind'],
  'Rejected resources whose last good version goes on serving.',
)
const OBSERVED_REVISION = gauge(
  'aisix_config_observed_revision',
  [],
  'Newest revision seen in the store. Not with a resources file.',
)
const APPLIED_REVISION = gauge(
  'aisix_config_applied_revision',
  [],
  'Revision that requests are served with. Not with a resources file.',
)
const SOURCE_CONNECTED = gauge('aisix_config_source_connected', [], 'Whether the store can be read. Not with a resources file.')
const SOURCE_WRITABLE = gauge(
  'aisix_config_source_writable',
  [],
  'Whether the store took the last write: it can be read and yet be full, locked or read-only. Not with a resources file.',
)
const HASH_INFO = gauge(
  'aisix_config_hash_info',
  ['hash'],
  'Hash of the applied configuration: 1 for the current one, 0 for the one before.',
)

/** In the order of the page. */
export const CONFIG_FAMILIES: readonly Family[] = [
  LAST_RELOAD_SUCCESSFUL,
  LAST_RELOAD_SUCCESS,
  RELOADS,
  RELOAD_FAILURES,
  REJECTED,
  PARTIALLY_COMPATIBLE,
  STALE_SERVED,
  OBSERVED_REVISION,
  APPLIED_REVISION,
  SOURCE_CONNECTED,
  SOURCE_WRITABLE,
  HASH_INFO,
]

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
    return [...seenKinds].sort().map(kind => ({ labels: [kind], value: counts.get(kind) ?? 0 }))
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
    if (currentHash !== undefined) hashes.push({ labels: [currentHash], value: 1 })
    if (previousHash !== undefined) hashes.push({ labels: [previousHash], value: 0 })

    // A resources file has no revisions, and no connection.
    const ofStore = (value: number): Sample[] => (status.source === 'file' ? [] : [{ value }])
    const { lastReload, lastReloadSuccessAt, reloadFailures } = status
    const reloadedAt = lastReloadSuccessAt === undefined ? [] : [{ value: lastReloadSuccessAt / 1_000 }]
    return renderFamilies([
      { family: LAST_RELOAD_SUCCESSFUL, samples: lastReload === undefined ? [] : [{ value: lastReload.successful ? 1 : 0 }] },
      { family: LAST_RELOAD_SUCCESS, samples: reloadedAt },
      { family: RELOADS, samples: [{ value: status.reloads }] },
      {
        family: RELOAD_FAILURES,
        samples: Object.entries(reloadFailures).map(([reason, value]) => ({ labels: [reason], value })),
      },
      { family: REJECTED, samples: perKind(rejected) },
      { family: PARTIALLY_COMPATIBLE, samples: perKind(partial) },
      { family: STALE_SERVED, samples: perKind(stale) },
      { family: OBSERVED_REVISION, samples: ofStore(status.observedRevision) },
      { family: APPLIED_REVISION, samples: ofStore(status.appliedRevision) },
      { family: SOURCE_CONNECTED, samples: ofStore(status.connected ? 1 : 0) },
      { family: SOURCE_WRITABLE, samples: ofStore(status.connected && status.writeProblem === undefined ? 1 : 0) },
      { family: HASH_INFO, samples: hashes },
    ])
  }
}

function increase(counts: Map<string, number>, key: string, by: number) {
  counts.set(key, (counts.get(key) ?? 0) + by)
}
