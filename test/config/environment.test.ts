import { describe, expect, test } from 'bun:test'
import { load, MINIMAL, problems } from './load.ts'

describe('AISIX_* variables', () => {
  test('win over the file, which wins over the defaults', () => {
    const { config, origins } = load(`${MINIMAL}upstream: {retries: 5, timeout_ms: 6}\n`, { AISIX_UPSTREAM__RETRIES: '7' })
    expect(config.upstream).toMatchObject({ retries: 7, timeout_ms: 6, connect_timeout_ms: 5000 })
    expect(origins.get('upstream.retries')).toEqual({ from: 'environment', variable: 'AISIX_UPSTREAM__RETRIES' })
    expect(origins.get('upstream.timeout_ms')).toEqual({ from: 'file', path: 'config.yaml', line: 4, column: 24 })
    expect(origins.get('upstream.connect_timeout_ms')).toEqual({ from: 'default' })
  })

  test('alone are enough, with an empty file', () => {
    const { config } = load('', {
      AISIX_PROXY__ADDR: '[::1]:3000',
      AISIX_ADMIN__ADMIN_KEYS: 'a, b',
      AISIX_OBSERVABILITY__METRICS__PROMETHEUS__ADDR: '127.0.0.1:0',
    })
    expect(config.proxy.addr).toBe('[::1]:3000')
    expect(config.admin.admin_keys).toEqual(['a', 'b'])
    expect(config.observability.metrics.prometheus.addr).toBe('127.0.0.1:0')
  })

  test.each(['aisix_proxy__addr', 'Aisix_Proxy__Addr', 'AISIX_proxy__ADDR'])('%s: case does not matter', name => {
    expect(load('admin: {enabled: false}', { [name]: '127.0.0.1:9' }).config.proxy.addr).toBe('127.0.0.1:9')
  })

  test('the same name in two cases is a problem, not a race', () => {
    expect(problems(MINIMAL, { AISIX_STORE__PATH: 'a', aisix_store__path: 'b' })).toEqual([
      'aisix_store__path: store.path: AISIX_STORE__PATH sets the same key; unset one of the two',
    ])
  })

  test('take the type of their key', () => {
    const { config } = load(MINIMAL, {
      AISIX_ADMIN__ENABLED: 'FALSE',
      AISIX_UPSTREAM__TIMEOUT_MS: ' 0 ',
      AISIX_OBSERVABILITY__TRACING__OTLP__SAMPLE_RATIO: '0.25',
      AISIX_OBSERVABILITY__SERVICE_NAME: '12',
      AISIX_STORE__PATH: 'true',
    })
    expect(config.admin.enabled).toBe(false)
    expect(config.upstream.timeout_ms).toBe(0)
    expect(config.observability.tracing.otlp.sample_ratio).toBe(0.25)
    expect(config.observability.service_name).toBe('12')
    expect(config.store.path).toEndWith('/true')
  })

  test('the text of a variable is not interpolated', () => {
    expect(load(MINIMAL, { AISIX_OBSERVABILITY__SERVICE_NAME: '${HOME}', HOME: '/root' }).config.observability.service_name).toBe(
      '${HOME}',
    )
  })

  test.each([
    ['AISIX_PROXY__ADDR', 'sk-secret', 'proxy.addr: expected an address and a port'],
    ['AISIX_PROXY__ADDR', '', 'proxy.addr: expected an address and a port'],
    ['AISIX_UPSTREAM__RETRIES', 'sk-secret', 'upstream.retries: expected a whole number, and got text'],
    ['AISIX_UPSTREAM__RETRIES', '1.5', 'upstream.retries: expected a whole number'],
    ['AISIX_UPSTREAM__RETRIES', '0x10', 'upstream.retries: expected a whole number'],
    ['AISIX_UPSTREAM__RETRIES', '-1', 'upstream.retries: expected 0 or more'],
    ['AISIX_UPSTREAM__RETRIES', '', 'upstream.retries: expected a whole number'],
    ['AISIX_ADMIN__ENABLED', 'yes', 'admin.enabled: expected true or false'],
    ['AISIX_CACHE__BACKEND', 'sk-secret', 'cache.backend: expected "memory" or "redis"'],
    ['AISIX_RESOURCES_FILE', ' ', 'resources_file: must not be blank'],
    ['AISIX_PROXY__REAL_IP__TRUSTED_PROXIES', '10.0.0.0/8,sk-secret', 'proxy.real_ip.trusted_proxies[1]: invalid CIDR/IP'],
  ])('%s=%s is a problem that names the variable and not the value', (name, value, message) => {
    const [problem, ...rest] = problems(MINIMAL, { [name]: value })
    expect(rest).toEqual([])
    expect(problem).toStartWith(`${name}: ${message}`)
    expect(problem).not.toContain('sk-secret')
  })

  test('a variable creates the section of its key, and answers for what it lacks', () => {
    expect(problems(MINIMAL, { AISIX_PROXY__TLS__CERT_FILE: 'a.pem' })).toEqual([
      expect.stringMatching(/^AISIX_PROXY__TLS__CERT_FILE: proxy.tls.key_file: is required/),
    ])
  })

  test('where the file has no section, the file is told', () => {
    expect(problems(`${MINIMAL}store: 5\n`, { AISIX_STORE__PATH: 'x' })).toEqual([
      'config.yaml:4:1: store: expected a mapping of keys to values, and got a number',
    ])
  })
})

describe('lists', () => {
  test.each([
    ['AISIX_PROXY__REAL_IP__TRUSTED_PROXIES', '10.0.0.0/8, ::1', ['10.0.0.0/8', '::1']],
    ['AISIX_PROXY__REAL_IP__TRUSTED_PROXIES', '', []],
  ])('%s=%s is split at commas', (name, value, expected) => {
    expect(load(MINIMAL, { [name]: value }).config.proxy.real_ip.trusted_proxies).toEqual(expected)
  })

  test('an empty list of request-id headers means none, not the default', () => {
    expect(load(MINIMAL, { AISIX_PROXY__REQUEST_ID__ACCEPT_HEADERS: '' }).config.proxy.request_id.accept_headers).toEqual([])
  })

  test('a variable replaces the list of the file as a whole, origins included', () => {
    const { config, origins } = load('proxy: {addr: "127.0.0.1:0"}\nadmin: {admin_keys: [a, b, c]}\n', {
      AISIX_ADMIN__ADMIN_KEYS: 'd',
    })
    expect(config.admin.admin_keys).toEqual(['d'])
    expect([...origins.keys()].filter(path => path.startsWith('admin.admin_keys'))).toEqual(['admin.admin_keys'])
  })

  test('an empty entry between commas is a problem', () => {
    expect(problems('proxy: {addr: "127.0.0.1:0"}', { AISIX_ADMIN__ADMIN_KEYS: 'a,' })).toEqual([
      'AISIX_ADMIN__ADMIN_KEYS: admin.admin_keys[1]: must not be empty: an empty bearer would authenticate',
    ])
  })

  test('a comma in any other text stays', () => {
    expect(load(MINIMAL, { AISIX_OBSERVABILITY__SERVICE_NAME: 'a,b' }).config.observability.service_name).toBe('a,b')
    expect(load(MINIMAL, { AISIX_STORE__PATH: '/x/a,b' }).config.store.path).toBe('/x/a,b')
  })

  test('numbers are split and read', () => {
    expect(problems(MINIMAL, { AISIX_OBSERVABILITY__METRICS__BUCKETS__REQUEST_TTFT: '0.1,1,abc' })).toEqual([
      expect.stringMatching(
        /^AISIX_OBSERVABILITY__METRICS__BUCKETS__REQUEST_TTFT: observability.metrics.buckets.request_ttft\[2\]: expected a number/,
      ),
    ])
    const { config } = load(MINIMAL, { AISIX_OBSERVABILITY__METRICS__BUCKETS__REQUEST_TTFT: '0.1,1' })
    expect(config.observability.metrics.buckets.request_ttft).toEqual([0.1, 1])
    expect(problems(MINIMAL, { AISIX_OBSERVABILITY__METRICS__BUCKETS__A2A_TTFB: '0.1,1' })).toEqual([
      'AISIX_OBSERVABILITY__METRICS__BUCKETS__A2A_TTFB: observability.metrics.buckets.a2a_ttfb: is not supported by this version; unset the variable',
    ])
  })

  test('any other list is one JSON array', () => {
    const env = { AISIX_PROXY__CORS__ALLOWED_ORIGINS: '["https://a.example", "https://b.example"]' }
    expect(load(MINIMAL, env).config.proxy.cors.allowed_origins).toEqual(['https://a.example', 'https://b.example'])
    for (const value of ['https://a.example,https://b.example', '{}', '[', '']) {
      expect(problems(MINIMAL, { AISIX_PROXY__CORS__ALLOWED_ORIGINS: value })).toEqual([
        'AISIX_PROXY__CORS__ALLOWED_ORIGINS: proxy.cors.allowed_origins: expected a JSON array, such as ["one", "two"]',
      ])
    }
    expect(problems(MINIMAL, { AISIX_PROXY__URL_REWRITES: 'x' })[0]).toContain(
      'expected a JSON array, such as [{"name": "value"}]',
    )
    expect(problems(MINIMAL, { AISIX_PROXY__URL_REWRITES: '[{"match": "a"}]' })).toEqual([
      'AISIX_PROXY__URL_REWRITES: proxy.url_rewrites[0].rewrite: is required',
    ])
  })
})

describe('variables that name no key', () => {
  test('AISIX_CONFIG, AISIX_ADMIN_KEY and AISIX_API_KEY are never a problem', () => {
    const { warnings, debug } = load(MINIMAL, { AISIX_CONFIG: 'x', AISIX_ADMIN_KEY: 'sk-a', AISIX_API_KEY: 'sk-b', OTHER: '1' })
    expect({ warnings, debug }).toEqual({ warnings: [], debug: [] })
  })

  test('are skipped: one debug line has their names, never their values', () => {
    const { warnings, debug } = load(MINIMAL, { AISIX_PORT: 'sk-secret', AISIX_PROXY: 'sk-secret', aisix_other: 'sk-secret' })
    expect(warnings).toEqual([])
    expect(debug).toEqual(['environment variables that name no key are ignored: AISIX_PORT, AISIX_PROXY, aisix_other'])
  })

  test('are a warning when two underscores show that an override was meant', () => {
    const { warnings, debug } = load(MINIMAL, { AISIX_PROXY__ADR: 'sk-secret', AISIX_ADMIN__ADMIN_KEYS__0: 'sk-secret' })
    expect(debug).toEqual([])
    expect(warnings).toEqual([
      'AISIX_ADMIN__ADMIN_KEYS__0: no key has this name, did you mean AISIX_ADMIN__ADMIN_KEYS?; the variable is ignored',
      'AISIX_PROXY__ADR: no key has this name, did you mean AISIX_PROXY__ADDR?; the variable is ignored',
    ])
  })
})
