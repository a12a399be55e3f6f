import { describe, expect, test } from 'bun:test'
import { resolve } from 'node:path'
import { ConfigError, formatAddress, loadConfig, parseSocketAddress } from '../src/config.ts'
import { load, MINIMAL, problems, withKey } from './config/load.ts'

const SHIPPED = resolve(import.meta.dir, '../config.yaml')

describe('the shipped config.yaml', () => {
  const { config, warnings, debug } = loadConfig({ path: SHIPPED, env: {} })

  test('is what the guide says, and loads without a word', () => {
    expect({ warnings, debug }).toEqual({ warnings: [], debug: [] })
    expect(config.proxy).toMatchObject({ addr: '0.0.0.0:3000', request_body_limit_bytes: 67108864 })
    expect(config.admin).toMatchObject({ addr: '127.0.0.1:3001', admin_keys: ['admin-local-only-change-me'] })
    expect(config.observability.metrics.prometheus.addr).toBe('127.0.0.1:9090')
    expect(config.store.path).toBe(resolve(SHIPPED, '../aisix.db'))
  })
})

describe('paths', () => {
  test('count from the folder of the file, and are absolute once loaded', () => {
    const text = `${MINIMAL}store: {path: data/x.db}\n`
    expect(load(text, {}, '/etc/aisix/config.yaml').config.store.path).toBe('/etc/aisix/data/x.db')
    expect(load(text, { AISIX_STORE__PATH: '../y.db' }, '/etc/aisix/config.yaml').config.store.path).toBe('/etc/y.db')
    expect(load(text, {}, 'conf/config.yaml').config.store.path).toBe(resolve('conf/data/x.db'))
    expect(load(MINIMAL, {}, '/tmp/one/config.yaml').config.store.path).toBe('/tmp/one/aisix.db')
  })
})

describe('origins', () => {
  test('every value has one: file with line and column, variable, or default', () => {
    const { origins } = load(`${MINIMAL}store:\n    path: a.db\n`, {
      AISIX_OBSERVABILITY__METRICS__PROMETHEUS__ADDR: '127.0.0.1:0',
    })
    expect(origins.get('proxy.addr')).toEqual({ from: 'file', path: 'config.yaml', line: 3, column: 3 })
    expect(origins.get('store.path')).toEqual({ from: 'file', path: 'config.yaml', line: 5, column: 5 })
    expect(origins.get('observability.metrics.prometheus.addr')).toEqual({
      from: 'environment',
      variable: 'AISIX_OBSERVABILITY__METRICS__PROMETHEUS__ADDR',
    })
    expect(origins.get('observability.metrics.prometheus.path')).toEqual({ from: 'default' })
    expect(load(MINIMAL).origins.get('observability.metrics.prometheus.addr')).toEqual({ from: 'default' })
  })
})

describe('the message', () => {
  test('one problem is one line', () => {
    expect(() => load(`${MINIMAL}x: 1`)).toThrow(/^config.yaml:4:1: x: unknown key[^\n]*$/)
  })

  test('of very many problems the first hundred are told', () => {
    const told = problems(`proxy: {addr: "127.0.0.1:0"}\nadmin: {admin_keys: [${Array(5000).fill('1').join(', ')}]}\n`)
    expect(told).toHaveLength(101)
    expect(told.at(-1)).toBe('and 4900 more problems')
  })

  test('several problems are all told, a line each, from the top of the file to the variables', () => {
    try {
      load('upstream: {retries: -1}\nadmin: {enabled: 1}\nproxy: {workers: 0, adr: x}\nx: 1\n', {
        AISIX_SHUTDOWN__MIN_DRAIN_SECS: 'x',
      })
      throw new Error('loaded')
    } catch (error) {
      expect(error).toBeInstanceOf(ConfigError)
      const lines = String(error instanceof Error ? error.message : error).split('\n')
      expect(lines[0]).toBe('7 problems:')
      expect(lines.slice(1).map(line => line.split(':', 4).join(':'))).toEqual([
        '  config.yaml:1:12: upstream.retries',
        '  config.yaml:2:9: admin.enabled',
        '  config.yaml:3:1: proxy.addr',
        '  config.yaml:3:9: proxy.workers',
        '  config.yaml:3:21: proxy.adr',
        '  config.yaml:4:1: x',
        '  AISIX_SHUTDOWN__MIN_DRAIN_SECS: shutdown.min_drain_secs: expected a whole number, and got text',
      ])
    }
  })
})

describe('files that the gateway writes', () => {
  test.each([
    ['usage.path', 'aisix.db', 'store.path'],
    ['budgets.path', './x/../aisix.db', 'store.path'],
    ['budgets.path', 'usage.db', 'usage.path'],
    ['store.path', 'config.yaml', 'this configuration'],
  ])('%s in the place of another file is refused', (path, value, other) => {
    expect(problems(withKey(path, value))).toEqual([
      expect.stringContaining(`${path}: names ${other}, too: give it a file of its own`),
    ])
  })

  test('the database of usage in the place of the resources file is refused', () => {
    expect(problems(`${MINIMAL}resources_file: r.yaml\nusage: {path: r.yaml}\n`)).toEqual([
      expect.stringContaining('usage.path: names the resources_file, too: give it a file of its own'),
    ])
  })

  test('a resources file counts from the folder of the configuration', () => {
    expect(load(`${MINIMAL}resources_file: a/r.yaml\n`).config.resources_file).toMatch(/^\/.*\/a\/r\.yaml$/)
  })

  test('each in its own place is accepted', () => {
    expect(load(withKey('usage.path', 'other.db')).config.usage.path).toEndWith('/other.db')
  })
})

describe('keys of features that this version lacks', () => {
  test.each<[string, unknown, string?]>([
    ['store.encryption_key_env', 'KEY'],
    ['bedrock_endpoint_url', 'https://bedrock.internal'],
    ['managed.enabled', true],
    ['proxy.url_rewrites', [{ match: '^/a$', rewrite: '/b' }]],
    ['cache.redis', { url: 'redis://a' }, 'cache.redis.url'],
    ['ratelimit.redis', { url: 'redis://a' }, 'ratelimit.redis.url'],
    ['ratelimit.concurrency_ttl_secs', 10],
    ['observability.metrics.buckets.guardrail_latency', [0.1, 1]],
    ['observability.metrics.buckets.a2a_ttfb', [0.1, 1]],
    ['observability.metrics.otlp.enabled', true],
  ])('%s stops the start, with what to do', (path, value, told = path) => {
    const problem = new RegExp(`: ${told.replaceAll('.', '\\.')}: is not supported by this version; remove the key$`)
    expect(problems(withKey(path, value))).toContainEqual(expect.stringMatching(problem))
  })

  test('a backend of redis can be set back or removed', () => {
    expect(problems(withKey('cache', { backend: 'redis', redis: { url: 'redis://a' } }))).toContainEqual(
      expect.stringContaining('cache.backend: is not supported by this version; remove the key, or set it to "memory"'),
    )
  })

  test('traces without endpoint and with one', () => {
    const key = 'observability.tracing.otlp'
    expect(problems(withKey(key, { enabled: true }))).toContainEqual(
      expect.stringContaining(`${key}.endpoint: is required while enabled is true`),
    )
    expect(problems(withKey(key, { enabled: true, endpoint: 'http://a' }))).toEqual([
      expect.stringContaining(`${key}.enabled: is not supported by this version; remove the key`),
    ])
  })

  test('a variable is told as a variable', () => {
    expect(problems(MINIMAL, { AISIX_BEDROCK_ENDPOINT_URL: 'https://bedrock.internal' })).toEqual([
      'AISIX_BEDROCK_ENDPOINT_URL: bedrock_endpoint_url: is not supported by this version; unset the variable',
    ])
  })

  test('a value of the wrong shape is told as that', () => {
    expect(problems(withKey('resources_file', 5))).toEqual([
      expect.stringContaining('resources_file: expected text, and got a number'),
    ])
  })

  test('given at their defaults they are accepted without a word', () => {
    const text = `${MINIMAL}  url_rewrites: []
bedrock_endpoint_url: ""
managed: {enabled: false}
cache: {backend: memory}
ratelimit: {backend: memory, concurrency_ttl_secs: 300}
observability: {metrics: {client_type_rules: [], buckets: {}, otlp: {enabled: false}}, tracing: {otlp: {enabled: false}}}
`
    expect(load(text).warnings).toEqual([])
  })
})

describe('keys for compatibility', () => {
  test.each([
    ['etcd: {endpoints: [http://127.0.0.1:2379], prefix: /x}', 'etcd.endpoints, etcd.prefix', 'nothing connects to etcd'],
    ['  thread_per_core: true\n  workers: 4', 'proxy.thread_per_core, proxy.workers', 'one process with one event loop'],
    [
      'upstream: {tcp_keepalive_secs: 1, tcp_keepalive_retries: 1}',
      'upstream.tcp_keepalive_secs, upstream.tcp_keepalive_retries',
      'keep-alive',
    ],
    ['upstream: {pool_max_idle_per_host: 1}', 'upstream.pool_max_idle_per_host', 'the runtime manages the pool'],
    ['observability: {access_log: false}', 'observability.access_log', 'observability.log_level decides'],
    [
      'observability: {metrics: {otlp: {enabled: false, endpoint: http://a}}}',
      'observability.metrics.otlp.endpoint',
      'metrics are served',
    ],
    [
      'observability: {tracing: {otlp: {sample_ratio: 0.5}}}',
      'observability.tracing.otlp.sample_ratio',
      'observability_exporters',
    ],
    [
      'managed: {snapshot_cache_path: /x, cp_endpoint: y}',
      'managed.snapshot_cache_path, managed.cp_endpoint',
      'no hosted control plane',
    ],
  ])('%s gets one warning', (line, paths, why) => {
    const { warnings } = load(`${MINIMAL}${line}\n`)
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toMatch(/^config.yaml:4:\d+: /)
    expect(warnings[0]).toContain(`: ${paths}: accepted for compatibility, without effect: `)
    expect(warnings[0]).toContain(why)
  })

  test('given at their defaults they get none', () => {
    const text = `${MINIMAL}etcd: {prefix: /aisix}\nupstream: {tcp_keepalive_secs: 60, pool_idle_timeout_secs: 30}\nobservability: {access_log: true}\n`
    expect(load(text).warnings).toEqual([])
  })

  test('a configuration of the kind that other test suites write boots', () => {
    const { config, warnings } = load(`
etcd: {endpoints: ["http://127.0.0.1:2379"], prefix: "/t-1"}
proxy: {addr: "127.0.0.1:4000", request_body_limit_bytes: 10485760}
admin: {enabled: true, addr: "127.0.0.1:4001", admin_keys: ["k"]}
observability:
  service_name: test
  log_level: warn
  access_log: false
  metrics: {prometheus: {enabled: true, path: /metrics, addr: "127.0.0.1:4002"}, otlp: {enabled: false, endpoint: ""}}
  tracing: {otlp: {enabled: false, endpoint: "", sample_ratio: 1.0}}
cache: {backend: memory}
managed: {snapshot_cache_path: /tmp/snapshot}
`)
    expect(config.proxy.request_body_limit_bytes).toBe(10485760)
    expect(warnings).toHaveLength(5)
  })
})

describe('what works and should not be left so', () => {
  test.each(['no/such/folder', 'config.yaml'])('a folder for uploads that is %s', folder => {
    const path = resolve(import.meta.dir, '../config.yaml')
    const { config, warnings } = load(withKey('proxy.upload_dir', folder), {}, path)
    expect(config.proxy.upload_dir).toBe(resolve(path, '..', folder))
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toContain('proxy.upload_dir: forms of more than 256 KiB will be answered 503')
    expect(load(withKey('proxy.upload_dir', '.'), {}, path).warnings).toEqual([])
  })

  const text = (addr: string) =>
    `proxy: {addr: "0.0.0.0:1"}\nadmin: {addr: "${addr}", admin_keys: [admin-local-only-change-me]}\n`

  test.each(['127.0.0.1:3001', '127.1.2.3:1', '[::1]:3001', '[::ffff:127.0.0.1]:1'])('the sample key on %s is fine', addr => {
    expect(load(text(addr)).warnings).toEqual([])
  })

  test.each(['0.0.0.0:3001', '10.0.0.5:3001', '[::]:3001'])('the sample key on %s is a warning', addr => {
    expect(load(text(addr)).warnings).toEqual([
      expect.stringMatching(/^config.yaml:2:\d+: admin.admin_keys: the key of the sample configuration/),
    ])
    expect(load(text(addr).replace('change-me', 'changed')).warnings).toEqual([])
  })

  test('upstreams that are not verified are a loud warning', () => {
    expect(load(withKey('upstream.tls.verify', false)).warnings).toEqual([
      expect.stringContaining('upstream.tls.verify: CERTIFICATES OF UPSTREAMS ARE NOT CHECKED'),
    ])
  })
})

describe('RUST_LOG', () => {
  test('wins over observability.log_level', () => {
    const { config, origins, warnings } = load(withKey('observability.log_level', 'warn'), { RUST_LOG: 'info,proxy=debug' })
    expect(config.observability.log_level).toBe('info,proxy=debug')
    expect(origins.get('observability.log_level')).toEqual({ from: 'environment', variable: 'RUST_LOG' })
    expect(warnings).toEqual([])
  })

  test('that is empty is not there; one in a grammar that is not ours is a warning, without its text', () => {
    expect(load(MINIMAL, { RUST_LOG: ' ' }).config.observability.log_level).toBe('info')
    const { config, warnings } = load(MINIMAL, { RUST_LOG: 'tower[span{x=sk-secret}]' })
    expect(config.observability.log_level).toBe('info')
    expect(warnings).toEqual([expect.stringMatching(/^RUST_LOG: expected one of .*; observability.log_level applies$/)])
    expect(warnings.join()).not.toContain('sk-secret')
  })
})

test('addresses are read and written by the functions that check them', () => {
  expect(formatAddress(parseSocketAddress(load(MINIMAL).config.proxy.addr))).toBe('127.0.0.1:0')
})
