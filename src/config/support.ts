/** Keys that are accepted and have no effect, and keys that this version refuses. */

/**
 * Keys of the contract whose feature this version does not have. They are accepted at their default alone, because a
 * limit or a rule that is accepted and not enforced is worse than none. A section stands for all that lies in it.
 * Whoever builds the feature deletes its row.
 */
export const UNSUPPORTED: readonly string[] = [
  'store.encryption_key_env',
  'proxy.url_rewrites',
  'observability.metrics.otlp.enabled',
  'observability.metrics.buckets.guardrail_latency',
  'observability.metrics.buckets.a2a_ttfb',
  'observability.tracing.otlp.enabled',
  'cache.backend',
  'cache.redis',
  'ratelimit.backend',
  'ratelimit.redis',
  'ratelimit.concurrency_ttl_secs',
  'managed.enabled',
  'bedrock_endpoint_url',
]

/**
 * Keys that files of other implementations carry, and that cannot or need not have an effect here: one warning a row.
 * A section stands for all that lies in it.
 */
export const COMPATIBILITY: readonly { keys: readonly string[]; why: string }[] = [
  { keys: ['etcd'], why: 'nothing connects to etcd: resources are kept in the local store, see store.path' },
  { keys: ['proxy.thread_per_core', 'proxy.workers'], why: 'one process with one event loop serves all connections' },
  {
    keys: ['upstream.tcp_keepalive_secs', 'upstream.tcp_keepalive_interval_secs', 'upstream.tcp_keepalive_retries'],
    why: 'the runtime does not let keep-alive probes be set; the deadlines of upstream.* apply',
  },
  {
    keys: ['upstream.pool_idle_timeout_secs', 'upstream.pool_max_idle_per_host'],
    why: 'the runtime manages the pool of upstream connections itself',
  },
  { keys: ['observability.access_log'], why: 'observability.log_level decides whether access lines are written' },
  { keys: ['observability.metrics.otlp'], why: 'metrics are served by observability.metrics.prometheus' },
  {
    keys: ['observability.tracing.otlp'],
    why: 'traces are sent by observability_exporters of kind otlp_http, which are resources',
  },
  { keys: ['managed'], why: 'there is no hosted control plane' },
]

/** True when a key is one of `rows`, or lies in a section that is. */
export function isCovered(path: string, rows: readonly string[]): boolean {
  return rows.some(row => path === row || path.startsWith(`${row}.`))
}
