import { describe, expect, test } from 'bun:test'
import { createConfigMetrics, renderFamilies } from '../../src/status/metrics.ts'
import { openMemoryStore } from '../../src/store/memory.ts'
import type { Rejection, StoreStatus } from '../../src/store/store.ts'
import { counter, gauge } from '../../src/telemetry/families.ts'

const AT = '2030-01-01T00:00:00Z'

const status = (more: Partial<StoreStatus> = {}): StoreStatus => ({ ...openMemoryStore().status, configHash: 'h1', ...more })

const rejection = (resource_kind: string, more: Partial<Rejection> = {}): Rejection => ({
  resource_kind,
  resource_id: 'x',
  last_error_kind: 'schema_failed',
  last_error: 'e',
  first_seen_at: AT,
  last_seen_at: AT,
  ...more,
})

/** Samples of a page by series; fails on a line that is neither a sample nor a comment. */
function samplesOf(page: string): Record<string, number> {
  const samples: Record<string, number> = {}
  for (const line of page.trimEnd().split('\n')) {
    if (line.startsWith('# HELP ') || line.startsWith('# TYPE ')) continue
    const match = /^(aisix_[a-z_]+(?:\{.*\})?) (\S+)$/.exec(line)
    if (!match?.[1] || !match[2]) throw new Error(`no sample: ${line}`)
    samples[match[1]] = Number(match[2])
  }
  return samples
}

describe('renderFamilies', () => {
  test('writes HELP and TYPE once a family, and a line a sample', () => {
    const page = renderFamilies([
      { family: counter('a_total', [], 'Counts.'), samples: [{ value: 1 }] },
      { family: counter('b_total', ['k', 'l'], 'Counts.'), samples: [{ labels: ['v', 'w'], value: 2.5 }] },
    ])
    expect(page).toBe(
      '# HELP a_total Counts.\n# TYPE a_total counter\na_total 1\n' +
        '# HELP b_total Counts.\n# TYPE b_total counter\nb_total{k="v",l="w"} 2.5\n',
    )
  })

  test('escapes backslash, quote and line break in labels, backslash and line break in help', () => {
    const page = renderFamilies([{ family: gauge('a', ['k'], 'x\\y\n"z"'), samples: [{ labels: ['a\\b"c\nd'], value: 0 }] }])
    expect(page).toBe('# HELP a x\\\\y\\n"z"\n# TYPE a gauge\na{k="a\\\\b\\"c\\nd"} 0\n')
  })

  test('leaves out a family without samples', () => {
    expect(renderFamilies([{ family: gauge('a', [], 'x'), samples: [] }])).toBe('')
  })
})

describe('aisix_config_*', () => {
  test('tells the loads, the revisions and the hash', () => {
    const page = createConfigMetrics()(
      status({
        reloads: 3,
        reloadFailures: { fetch: 1, parse: 2 },
        lastReload: { successful: false, at: AT },
        lastReloadSuccessAt: 1_893_456_000_500,
        observedRevision: 9,
        appliedRevision: 8,
        connected: false,
      }),
    )
    expect(samplesOf(page)).toEqual({
      aisix_config_last_reload_successful: 0,
      aisix_config_last_reload_success_timestamp_seconds: 1_893_456_000.5,
      aisix_config_reloads_total: 3,
      'aisix_config_reload_failures_total{reason="fetch"}': 1,
      'aisix_config_reload_failures_total{reason="parse"}': 2,
      'aisix_config_rejected_resources{kind="api_keys"}': 0,
      'aisix_config_rejected_resources{kind="budgets"}': 0,
      'aisix_config_rejected_resources{kind="observability_exporters"}': 0,
      'aisix_config_rejected_resources{kind="passthrough_routes"}': 0,
      'aisix_config_rejected_resources{kind="models"}': 0,
      'aisix_config_rejected_resources{kind="provider_keys"}': 0,
      'aisix_config_rejected_resources{kind="rate_limit_policies"}': 0,
      'aisix_config_partially_compatible_resources{kind="api_keys"}': 0,
      'aisix_config_partially_compatible_resources{kind="budgets"}': 0,
      'aisix_config_partially_compatible_resources{kind="observability_exporters"}': 0,
      'aisix_config_partially_compatible_resources{kind="passthrough_routes"}': 0,
      'aisix_config_partially_compatible_resources{kind="models"}': 0,
      'aisix_config_partially_compatible_resources{kind="provider_keys"}': 0,
      'aisix_config_partially_compatible_resources{kind="rate_limit_policies"}': 0,
      'aisix_config_stale_served_resources{kind="api_keys"}': 0,
      'aisix_config_stale_served_resources{kind="budgets"}': 0,
      'aisix_config_stale_served_resources{kind="observability_exporters"}': 0,
      'aisix_config_stale_served_resources{kind="passthrough_routes"}': 0,
      'aisix_config_stale_served_resources{kind="models"}': 0,
      'aisix_config_stale_served_resources{kind="provider_keys"}': 0,
      'aisix_config_stale_served_resources{kind="rate_limit_policies"}': 0,
      aisix_config_observed_revision: 9,
      aisix_config_applied_revision: 8,
      aisix_config_source_connected: 0,
      aisix_config_source_writable: 0,
      'aisix_config_hash_info{hash="h1"}': 1,
    })
  })

  test('types counters as counters and everything else as gauges', () => {
    const types = [...createConfigMetrics()(status({ reloadFailures: { fetch: 1 } })).matchAll(/^# TYPE (\S+) (\S+)$/gm)]
    expect(types.length).toBe(12)
    for (const [, name = '', type = ''] of types)
      expect(`${name} ${type}`).toBe(`${name} ${name.endsWith('_total') ? 'counter' : 'gauge'}`)
  })

  test('a store that can be read and takes no writes is told apart', () => {
    const of = (writeProblem: string | undefined) => samplesOf(createConfigMetrics()(status({ connected: true, writeProblem })))
    expect(of('the disk is full')).toMatchObject({ aisix_config_source_connected: 1, aisix_config_source_writable: 0 })
    expect(of(undefined)).toMatchObject({ aisix_config_source_connected: 1, aisix_config_source_writable: 1 })
  })

  test('counts rejected, stale and partially compatible rows by kind, and a kind that vanished falls to 0', () => {
    const render = createConfigMetrics()
    const bad = render(
      status({
        rejected: [rejection('models'), rejection('models', { serving_stale_since: AT }), rejection('gadgets')],
        partiallyCompatible: [
          { resource_kind: 'api_keys', field: 'a', count: 2 },
          { resource_kind: 'api_keys', field: 'b', count: 3 },
        ],
      }),
    )
    expect(samplesOf(bad)).toMatchObject({
      'aisix_config_rejected_resources{kind="models"}': 2,
      'aisix_config_rejected_resources{kind="gadgets"}': 1,
      'aisix_config_stale_served_resources{kind="models"}': 1,
      'aisix_config_partially_compatible_resources{kind="api_keys"}': 5,
    })
    expect(samplesOf(render(status()))).toMatchObject({
      'aisix_config_rejected_resources{kind="models"}': 0,
      'aisix_config_rejected_resources{kind="gadgets"}': 0,
    })
  })

  test('shows the current hash as 1 and the one before as 0, and no older one', () => {
    const render = createConfigMetrics()
    const hashes = (configHash: string) =>
      Object.entries(samplesOf(render(status({ configHash })))).filter(([series]) => series.startsWith('aisix_config_hash_info'))
    expect(hashes('h1')).toEqual([['aisix_config_hash_info{hash="h1"}', 1]])
    expect(hashes('h1')).toHaveLength(1)
    expect(hashes('h2')).toEqual([
      ['aisix_config_hash_info{hash="h2"}', 1],
      ['aisix_config_hash_info{hash="h1"}', 0],
    ])
    expect(hashes('h3')).toEqual([
      ['aisix_config_hash_info{hash="h3"}', 1],
      ['aisix_config_hash_info{hash="h2"}', 0],
    ])
  })
})
