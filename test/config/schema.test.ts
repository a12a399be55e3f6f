import { describe, expect, test } from 'bun:test'
import { listKeys, variableOf } from '../../src/config/keys.ts'
import { REQUEST_ID_HEADERS_REFUSED } from '../../src/config/schema.ts'
import { COMPATIBILITY, isCovered, UNSUPPORTED } from '../../src/config/support.ts'
import { Config } from '../../src/config.ts'
import { load, MINIMAL, problems, withKey } from './load.ts'

/** SHA-256 of `k`, in upper case as some tools print it, and of something else. */
const HASH = '8254C329A92850F6D539DD376F4816EE2764517DA5E0235514AF433164480D7A'
const OTHER = 'b'.repeat(64)
const NAMED = { name: 'alice', key_hash: HASH, role: 'admin' }

test('named keys are enough, and their hashes are kept in lower case', () => {
  const { config } = load(JSON.stringify({ proxy: { addr: '127.0.0.1:0' }, admin: { keys: [NAMED] } }))
  expect(config.admin.keys).toEqual([{ name: 'alice', key_hash: HASH.toLowerCase(), role: 'admin' }])
})

test('named keys come from a variable too', () => {
  const { config } = load(MINIMAL, { AISIX_ADMIN__KEYS: JSON.stringify([{ ...NAMED, key_hash: OTHER }]) })
  expect(config.admin.keys).toEqual([{ name: 'alice', key_hash: OTHER, role: 'admin' }])
})

test('everything but proxy.addr and admin keys has its default', () => {
  const { config } = load('proxy: {addr: "0.0.0.0:3000"}\nadmin: {admin_keys: [k]}\n', {}, '/etc/aisix/config.yaml')
  expect(config).toEqual({
    proxy: {
      addr: '0.0.0.0:3000',
      request_body_limit_bytes: 0,
      tls: undefined,
      real_ip: { trusted_proxies: [], recursive: false, header: 'x-forwarded-for' },
      request_id: { accept_headers: ['x-aisix-request-id'] },
      cors: { allowed_origins: [] },
      url_rewrites: [],
    },
    admin: { enabled: true, addr: '127.0.0.1:3001', admin_keys: ['k'], keys: [], tls: undefined },
    store: { path: '/etc/aisix/aisix.db' },
    observability: {
      service_name: 'aisix',
      log_level: 'info',
      log_format: 'text',
      access_log: true,
      metrics: {
        prometheus: { enabled: true, path: '/metrics', addr: '0.0.0.0:9090' },
        otlp: { enabled: false },
        client_type_rules: [],
        max_series: 50_000,
        buckets: {},
      },
      tracing: { otlp: { enabled: false, sample_ratio: 1 } },
    },
    usage: { enabled: true, path: '/etc/aisix/usage.db', retention_days: 30, max_bytes: 1_073_741_824 },
    audit: {},
    budgets: { path: '/etc/aisix/budgets.db' },
    upstream: {
      timeout_ms: 6_000_000,
      stream_timeout_ms: 0,
      connect_timeout_ms: 5000,
      retries: 2,
      tls: { verify: true },
      tcp_keepalive_secs: 60,
      tcp_keepalive_interval_secs: 30,
      tcp_keepalive_retries: 5,
      pool_idle_timeout_secs: 30,
    },
    downstream: { idle_timeout_secs: 0, sse_keepalive_interval_secs: 15 },
    shutdown: { min_drain_secs: 30 },
    cache: { backend: 'memory' },
    ratelimit: { backend: 'memory', concurrency_ttl_secs: 300 },
    managed: {
      enabled: false,
      mtls_dir: '/var/lib/aisix/mtls',
      dp_id_file: '/var/lib/aisix/dp_id',
      heartbeat_interval_secs: 15,
    },
    bedrock_endpoint_url: '',
  })
})

describe('values that work', () => {
  test.each([
    ['proxy.addr', '[::1]:0', '[::1]:0'],
    ['proxy.request_body_limit_bytes', 67108864, 67108864],
    ['proxy.real_ip.trusted_proxies', ['10.0.0.0/8', '::1'], ['10.0.0.0/8', '::1']],
    ['proxy.real_ip.header', 'X-Real-IP', 'x-real-ip'],
    ['proxy.request_id.accept_headers', ['X-Request-Id', 'x-b'], ['x-request-id', 'x-b']],
    ['proxy.request_id.accept_headers', [], []],
    ['proxy.cors.allowed_origins', ['*', 'https://a.example:8443'], ['*', 'https://a.example:8443']],
    ['observability.log_level', 'warn,proxy=debug', 'warn,proxy=debug'],
    ['observability.log_format', 'json', 'json'],
    ['observability.metrics.prometheus.path', 'scrape', '/scrape'],
    ['observability.metrics.prometheus.path', '', '/metrics'],
    ['upstream.proxy', 'http://user:pass@10.0.0.1:3128', 'http://user:pass@10.0.0.1:3128'],
    ['upstream.proxy', 'https://proxy.internal/', 'https://proxy.internal/'],
    ['upstream.timeout_ms', 0, 0],
    ['shutdown.min_drain_secs', 0, 0],
    ['cache.backend', 'memory', 'memory'],
    ['bedrock_endpoint_url', '', ''],
  ])('%s: %j', (path, value, expected) => {
    expect(load(withKey(path, value)).config).toHaveProperty(path, expected)
  })
})

const EXPECTED_ADDRESS = 'expected an address and a port, such as "127.0.0.1:3000"'
const REDIS = { url: 'redis://127.0.0.1' }

describe('values that are refused', () => {
  test.each([
    ['proxy.addr', ':3000', `proxy.addr: ${EXPECTED_ADDRESS}; for all addresses write "0.0.0.0:3000"`],
    ['proxy.addr', 'localhost:3000', `proxy.addr: ${EXPECTED_ADDRESS}; host names are not resolved here: write "127.0.0.1:3000"`],
    ['proxy.addr', '0.0.0.0:65536', `proxy.addr: ${EXPECTED_ADDRESS}; the port is a number from 0 to 65535`],
    ['proxy.addr', 3000, 'proxy.addr: expected text, and got a number: put the value in quotes'],
    ['proxy.addr', true, 'proxy.addr: expected text, and got true or false: put the value in quotes'],
    ['proxy.addr', {}, 'proxy.addr: expected text, and got a mapping'],
    ['proxy', [], 'proxy: expected a mapping of keys to values, and got a list'],
    ['proxy.request_body_limit_bytes', -1, 'proxy.request_body_limit_bytes: expected 0 or more'],
    [
      'proxy.request_body_limit_bytes',
      1.5,
      'proxy.request_body_limit_bytes: expected a whole number, and got a number with a fraction',
    ],
    [
      'proxy.request_body_limit_bytes',
      '1',
      'proxy.request_body_limit_bytes: expected a whole number, and got text: write it without quotes',
    ],
    ['proxy.tls', { cert_file: 'a' }, 'proxy.tls.key_file: is required'],
    ['proxy.tls', { key_file: 'a' }, 'proxy.tls.cert_file: is required'],
    ['proxy.tls', { cert_file: '', key_file: 'a' }, 'proxy.tls.cert_file: must not be empty'],
    ['proxy.real_ip.trusted_proxies', ['10.0.0.0/8', '10.0.0.0/33'], 'proxy.real_ip.trusted_proxies[1]: invalid CIDR/IP'],
    ['proxy.real_ip.trusted_proxies', '10.0.0.0/8', 'proxy.real_ip.trusted_proxies: expected a list'],
    ['proxy.real_ip.header', 'x forwarded', 'proxy.real_ip.header: expected the name of an HTTP header'],
    ['proxy.request_id.accept_headers', ['a', 'b c'], 'proxy.request_id.accept_headers[1]: expected the name of an HTTP header'],
    ['proxy.cors.allowed_origins', ['https://a.example/'], 'proxy.cors.allowed_origins[0]: expected "*", or a scheme and a host'],
    ['proxy.workers', 0, 'proxy.workers: expected 1 or more'],
    ['proxy.thread_per_core', 'yes', 'proxy.thread_per_core: expected true or false, and got text'],
    ['admin', {}, 'admin.admin_keys: admin.admin_keys must contain at least one key'],
    ['admin', { admin_keys: [''] }, 'admin.admin_keys[0]: must not be empty'],
    ['admin', { admin_keys: ['a', '  '] }, 'admin.admin_keys[1]: must not be empty'],
    ['admin', { admin_keys: ['a\n'] }, 'admin.admin_keys[0]: must not begin or end with white space'],
    ['admin', { keys: [{ name: 'a b', key_hash: HASH, role: 'admin' }] }, 'admin.keys[0].name: expected 1 to 64 of'],
    ['admin', { keys: [{ name: 'admin_keys[0]', key_hash: HASH, role: 'admin' }] }, 'admin.keys[0].name: expected 1 to 64 of'],
    ['admin', { keys: [{ name: 'a', key_hash: 'sk-plain', role: 'admin' }] }, 'admin.keys[0].key_hash: expected the 64'],
    ['admin', { keys: [{ name: 'a', key_hash: HASH, role: 'root' }] }, 'admin.keys[0].role: expected "admin" or "viewer"'],
    ['admin', { keys: [{ name: 'a', key_hash: HASH }] }, 'admin.keys[0].role: expected "admin" or "viewer"'],
    ['admin', { keys: [NAMED, { ...NAMED, key_hash: OTHER }] }, 'admin.keys[1].name: another key has this name'],
    ['admin', { keys: [NAMED, { ...NAMED, name: 'b' }] }, 'admin.keys[1].key_hash: is the hash of admin.keys[0]'],
    ['admin', { admin_keys: ['k'], keys: [NAMED] }, 'admin.keys[0].key_hash: is the hash of admin.admin_keys[0]'],
    ['audit', { retention_days: 0 }, 'audit.retention_days: '],
    ['admin', { admin_keys: [1] }, 'admin.admin_keys[0]: expected text, and got a number: put the value in quotes'],
    ['admin', { admin_keys: [null] }, 'admin.admin_keys[0]: expected text, and got nothing'],
    ['admin', { admin_keys: ['a'], addr: 'localhost:1' }, `admin.addr: ${EXPECTED_ADDRESS}`],
    ['store.path', '', 'store.path: must not be empty'],
    ['observability.log_level', 'loud', 'observability.log_level: expected one of trace, debug'],
    ['observability.log_format', 'xml', 'observability.log_format: expected "text" or "json"'],
    [
      'observability.metrics.prometheus',
      { enabled: false, addr: 'x' },
      'observability.metrics.prometheus.addr: expected an address',
    ],
    ['observability.metrics.prometheus.path', '/a?b', 'observability.metrics.prometheus.path: expected a path'],
    [
      'observability.metrics.prometheus.path',
      'status/ready',
      'observability.metrics.prometheus.path: must not lie under /status',
    ],
    [
      'observability.metrics.buckets.request_ttft',
      [1, 1],
      'observability.metrics.buckets.request_ttft[1]: expected more than the bound',
    ],
    ['observability.metrics.buckets.request_ttft', [0], 'observability.metrics.buckets.request_ttft[0]: expected more than 0'],
    ['observability.metrics.buckets.request_ttft', [], 'observability.metrics.buckets.request_ttft: expected 1 or more entries'],
    [
      'observability.metrics.client_type_rules',
      [{ pattern: 'é'.repeat(257), client: 'a' }],
      'observability.metrics.client_type_rules[0].pattern: expected 512 bytes',
    ],
    [
      'observability.metrics.client_type_rules',
      [{ pattern: 'a', client: 'A' }],
      'observability.metrics.client_type_rules[0].client: expected 1 to 64',
    ],
    [
      'observability.metrics.client_type_rules',
      Array(65).fill({ pattern: 'a', client: 'a' }),
      'observability.metrics.client_type_rules: expected 64 entries or less',
    ],
    ['observability.tracing.otlp.sample_ratio', 2, 'observability.tracing.otlp.sample_ratio: expected 1 or less'],
    ['upstream.timeout_ms', 2 ** 31, 'upstream.timeout_ms: expected 2147483647 or less'],
    ['upstream.proxy', 'socks5://10.0.0.1:1080', 'upstream.proxy: expected the URL of an HTTP proxy'],
    ['upstream.proxy', '10.0.0.1:3128', 'upstream.proxy: expected the URL of an HTTP proxy'],
    ['upstream.proxy', 'http://10.0.0.1:3128/path', 'upstream.proxy: expected the URL of an HTTP proxy'],
    ['upstream.proxy', 'http:///', 'upstream.proxy: expected the URL of an HTTP proxy'],
    ['upstream.tls', { client_cert_file: 'a' }, 'upstream.tls.client_key_file: is required together with client_cert_file'],
    ['upstream.tls', { client_key_file: 'a' }, 'upstream.tls.client_cert_file: is required together with client_key_file'],
    ['shutdown.min_drain_secs', 3_000_000, 'shutdown.min_drain_secs: expected 2147483 or less'],
    ['etcd', { endpoints: 'a' }, 'etcd.endpoints: expected a list'],
    ['cache', { backend: 'redis' }, 'cache.redis: cache.backend = redis requires a cache.redis block'],
    ['cache', { redis: {} }, 'cache.redis.url: is required for mode "single"'],
    ['cache', { redis: { mode: 'cluster' } }, 'cache.redis.nodes: at least one is required for mode "cluster"'],
    ['cache', { redis: { mode: 'sentinel', sentinels: ['a'] } }, 'cache.redis.master_name: is required for mode "sentinel"'],
    ['cache', { redis: { ...REDIS, tls: { client_cert_file: 'a' } } }, 'cache.redis.tls.client_key_file: is required together'],
    ['ratelimit', { backend: 'redis' }, 'ratelimit.redis: ratelimit.backend = redis requires a ratelimit.redis block'],
    [
      'ratelimit',
      { backend: 'redis', redis: REDIS, concurrency_ttl_secs: 0 },
      'ratelimit.concurrency_ttl_secs: expected 1 or more',
    ],
    ['managed', { enabled: true }, 'managed.enabled: is not supported by this version'],
    [
      'proxy.anonymous',
      { api_key_id: 'a', source_cidrs: [], paths: ['/'] },
      'proxy.anonymous.source_cidrs: expected 1 or more entries',
    ],
    ['resources_file', ' ', 'resources_file: must not be blank'],
  ])('%s: %j', (path, value, message) => {
    expect(problems(withKey(path, value)).join('\n')).toContain(`: ${message}`)
  })

  test.each(REQUEST_ID_HEADERS_REFUSED)('the header %s cannot carry a request id, in any case', name => {
    const [problem] = problems(withKey('proxy.request_id.accept_headers', ['x-ok', name.toUpperCase()]))
    expect(problem).toMatch(/^config.yaml:1:\d+: proxy.request_id.accept_headers\[1\]: the header \S+ cannot carry a request id/)
  })

  test('a file of resources excludes the other sources', () => {
    const both = problems(`${MINIMAL}resources_file: a.yaml\netcd: {endpoints: [a]}\nmanaged: {enabled: true}\n`)
    expect(both).toContain('config.yaml:4:1: resources_file: excludes etcd.endpoints: keep one of the two')
    expect(both).toContain('config.yaml:4:1: resources_file: excludes managed.enabled: keep one of the two')
  })

  test('no message repeats a value that was submitted, but for the names of files that cannot be loaded', () => {
    for (const key of listKeys().values()) {
      if (key.path.endsWith('_file')) continue
      for (const value of ['sk-secret', ['sk-secret'], { 'x y': 'sk-secret' }, [{ match: ['sk-secret'] }]]) {
        const name = key.path.startsWith('admin.') ? 'admin' : key.path
        try {
          load(withKey(name, name === 'admin' ? { admin_keys: [], [key.path.slice(6)]: value } : value))
        } catch (error) {
          expect(String(error)).not.toContain('sk-secret')
        }
      }
    }
  })
})

test('while admin.enabled is false its address and keys are not looked at', () => {
  expect(
    load('proxy: {addr: "127.0.0.1:0"}\nadmin: {enabled: false, addr: nonsense, admin_keys: [""]}').config.admin.enabled,
  ).toBe(false)
})

describe('unknown keys', () => {
  test.each([
    ['bogus: 1', '4:1: bogus: unknown key; known here: proxy, admin, store'],
    ['proxi: {}', '4:1: proxi: unknown key; did you mean proxy?'],
    ['addr: x', '4:1: addr: unknown key; did you mean proxy.addr or admin.addr or observability.metrics.prometheus.addr?'],
    ['min_drain_secs: 1', '4:1: min_drain_secs: unknown key; did you mean shutdown.min_drain_secs?'],
    ['upstream: {timeout: 1}', '4:12: upstream.timeout: unknown key; did you mean upstream.timeout_ms?'],
    ['upstream:\n  tls: {verfy: true}', '5:9: upstream.tls.verfy: unknown key; did you mean upstream.tls.verify?'],
    ['managed: {cp_url: x, other: 1}', '4:22: managed.other: unknown key; known here: enabled'],
    ['"a\\nb": 1', '4:1: a\\u000ab: unknown key'],
  ])('%s', (line, expected) => {
    expect(problems(`${MINIMAL}${line}\n`)).toEqual([expect.stringContaining(`config.yaml:${expected}`)])
  })
})

describe('the list of keys', () => {
  const keys = [...listKeys().values()]

  test('every key says what it is for', () => {
    expect(keys.filter(key => key.description.length < 4).map(key => key.path)).toEqual([])
    expect(keys.length).toBeGreaterThan(80)
  })

  test('no two keys have one variable', () => {
    expect(new Set(keys.map(key => key.variable)).size).toBe(keys.length)
    expect(variableOf('observability.metrics.prometheus.addr')).toBe('AISIX_OBSERVABILITY__METRICS__PROMETHEUS__ADDR')
  })

  test('every row of the tables of unsupported and of compatibility keys stands for keys that exist', () => {
    for (const row of [...UNSUPPORTED, ...COMPATIBILITY.flatMap(({ keys }) => keys)]) {
      expect(keys.filter(key => isCovered(key.path, [row])).length).toBeGreaterThan(0)
    }
  })

  test('the defaults in the list are what an empty section gets', () => {
    const config = Config.parse({ proxy: { addr: '127.0.0.1:0' }, admin: { enabled: false } })
    for (const key of keys) {
      if (
        key.default === undefined ||
        key.path.startsWith('etcd') ||
        key.path.includes('.redis.') ||
        key.path === 'admin.enabled'
      )
        continue
      expect(config).toHaveProperty(key.path, key.default)
    }
  })
})
