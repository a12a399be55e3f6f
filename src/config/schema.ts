/**
 * The schema of config.yaml: every key, its default, its bounds, and what it means to an operator. Validation, the
 * `AISIX_*` variables and docs/configuration.md come from it. Source: control-bootstrap §2.
 */
import { z } from 'zod'
import { parseSocketAddress } from '../lib/address.ts'
import { parseCidr } from '../lib/cidr.ts'
import { CREDENTIAL_HEADERS, isHeaderName } from '../lib/headers.ts'
import { parseFilter } from '../lib/log.ts'
import { compilePattern } from '../lib/pattern.ts'
import { count, text } from '../resources/fields.ts'

/** Seconds that are still a valid timer once they are milliseconds. */
const seconds = () => z.int().min(0).max(2_147_483)

/** Headers that carry a credential, a signature or routing: they must not become an id that is logged and sent on. */
export const REQUEST_ID_HEADERS_REFUSED = [...CREDENTIAL_HEADERS, 'host', 'traceparent', 'tracestate']

/** A string with a rule of its own: `problem` returns what was expected, or undefined. */
function checked(problem: (value: string) => string | undefined) {
  return z.string().superRefine((value, context) => {
    const message = problem(value)
    if (message !== undefined) context.addIssue({ code: 'custom', message })
  })
}

/** What a function that throws has to say about the value. */
function complaint(read: () => unknown): string | undefined {
  try {
    read()
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

const addressProblem = (value: string) => complaint(() => parseSocketAddress(value))
const address = () => checked(addressProblem)

const network = () =>
  checked(value =>
    parseCidr(value) ? undefined : 'invalid CIDR/IP: expected a network such as "10.0.0.0/8", or an address such as "10.0.0.1"',
  )

const headerName = () =>
  checked(value =>
    isHeaderName(value) ? undefined : 'expected the name of an HTTP header, such as "x-forwarded-for"',
  ).overwrite(name => name.toLowerCase())

const requestIdHeader = () =>
  headerName().superRefine((name, context) => {
    if (!REQUEST_ID_HEADERS_REFUSED.includes(name)) return
    context.addIssue({
      code: 'custom',
      message: `the header ${name} cannot carry a request id: it holds a credential or controls the request; name another`,
    })
  })

const adminKey = () =>
  checked(key => {
    if (key.trim() === '') return 'must not be empty: an empty bearer would authenticate'
    if (key !== key.trim() || /[\u0000-\u001f\u007f]/.test(key)) {
      return 'must not begin or end with white space or hold a control character: no request could present it'
    }
    return undefined
  })

const origin = () =>
  checked(value =>
    value === '*' || /^[a-z][a-z0-9+.-]*:\/\/[^/?#@\s]+$/i.test(value)
      ? undefined
      : 'expected "*", or a scheme and a host without a path, such as "https://app.example.com"',
  )

const proxyUrl = () =>
  checked(value => {
    const url = URL.parse(value)
    const isProxy = url !== null && (url.protocol === 'http:' || url.protocol === 'https:') && /^https?:\/\/[^/]/i.test(value)
    if (isProxy && url.hostname !== '' && url.pathname === '/' && !/[?#]/.test(value)) return undefined
    return 'expected the URL of an HTTP proxy without a path, such as "http://10.0.0.1:3128"'
  })

const sha256 = (text: string) => new Bun.CryptoHasher('sha256').update(text).digest('hex')

/** Adds an issue to a member unless `holds`. */
function demand(context: z.RefinementCtx, holds: boolean, path: string, message: string): void {
  if (!holds) context.addIssue({ code: 'custom', path: [path], message })
}

/** A member that some other member calls for. */
const isGiven = (value: string | readonly string[] | undefined) => value !== undefined && value.length > 0

/** A certificate and a key, for a listener. */
const listenerTls = (listener: string) =>
  z
    .strictObject({
      cert_file: text().describe('PEM file with the certificate, followed by its intermediates.'),
      key_file: text().describe('PEM file with the private key of the certificate, not encrypted.'),
    })
    .describe(`Serves ${listener} over TLS. Both files, or no block. Read once, at the start.`)

const redis = () =>
  z
    .strictObject({
      mode: z.enum(['single', 'cluster', 'sentinel']).default('single').describe('How the servers are arranged.'),
      url: text().optional().describe('Address of the server, for `single`.'),
      nodes: z.array(text()).default([]).describe('Addresses of nodes, for `cluster`.'),
      sentinels: z.array(text()).default([]).describe('Addresses of sentinels, for `sentinel`.'),
      master_name: text().optional().describe('Name of the master, for `sentinel`.'),
      username: z.string().optional().describe('User.'),
      password: z.string().optional().describe('Password.'),
      database: count().optional().describe('Number of the database.'),
      tls: z
        .strictObject({
          ca_file: text().optional().describe('PEM file of certificates to trust.'),
          client_cert_file: text().optional().describe('PEM file with our certificate.'),
          client_key_file: text().optional().describe('PEM file with its key.'),
          verify: z.boolean().default(true).describe('`false` accepts any certificate.'),
        })
        .superRefine(pairOfClientFiles)
        .optional()
        .describe('TLS to the servers.'),
    })
    .superRefine(({ mode, url, nodes, sentinels, master_name }, context) => {
      if (mode === 'single') demand(context, isGiven(url), 'url', 'is required for mode "single"')
      if (mode === 'cluster') demand(context, isGiven(nodes), 'nodes', 'at least one is required for mode "cluster"')
      if (mode === 'sentinel') {
        demand(context, isGiven(sentinels), 'sentinels', 'at least one is required for mode "sentinel"')
        demand(context, isGiven(master_name), 'master_name', 'is required for mode "sentinel"')
      }
    })
    .optional()
    .describe('Redis.')

function pairOfClientFiles(tls: { client_cert_file?: string; client_key_file?: string }, context: z.RefinementCtx): void {
  const rule = (other: string) => `is required together with ${other}: give both or neither`
  demand(context, !tls.client_key_file || isGiven(tls.client_cert_file), 'client_cert_file', rule('client_key_file'))
  demand(context, !tls.client_cert_file || isGiven(tls.client_key_file), 'client_key_file', rule('client_cert_file'))
}

const buckets = (what: string) =>
  z
    .array(z.number().positive())
    .min(1)
    .max(64)
    .superRefine((bounds, context) => {
      const fault = bounds.findIndex((bound, i) => bound <= (bounds[i - 1] ?? 0))
      if (fault > 0) context.addIssue({ code: 'custom', path: [fault], message: 'expected more than the bound before it' })
    })
    .optional()
    .describe(`Bounds of the histogram of ${what}, ascending seconds.`)

const proxy = z
  .strictObject({
    addr: address().describe(
      'IP address and port that callers reach, such as `0.0.0.0:3000`; IPv6 in brackets, port 0 for any free one. Host names are refused.',
    ),
    request_body_limit_bytes: z
      .int()
      .min(0)
      .default(0)
      .describe('Largest request body; over it the answer is 413. 0: no limit, which lets one caller fill the memory.'),
    upload_limit_bytes: z
      .int()
      .min(0)
      .optional()
      .describe(
        'Largest form (audio, images, files); forms are kept on the disk, not in memory. 0: no limit. Left out: `request_body_limit_bytes`.',
      ),
    upload_dir: text()
      .optional()
      .describe(
        "Folder in which forms are kept while they are under way; its disk needs room for all of them at once. Left out: the system's folder for temporary files (`TMPDIR`, `/tmp`).",
      ),
    tls: listenerTls('callers').optional(),
    real_ip: z
      .strictObject({
        trusted_proxies: z
          .array(network())
          .default([])
          .describe('Networks whose `real_ip.header` is believed. `[]`: the address of a caller is that of its connection.'),
        recursive: z
          .boolean()
          .default(false)
          .describe('`false` takes the last entry of the header; `true` walks from right to left over trusted addresses.'),
        header: headerName().default('x-forwarded-for').describe('Header in which trusted proxies pass on the address.'),
      })
      .prefault({})
      .describe('How the address of a caller is found behind proxies.'),
    request_id: z
      .strictObject({
        accept_headers: z
          .array(requestIdHeader())
          .default(['x-aisix-request-id'])
          .describe(
            'Headers, in this order, from which a request id of the caller is taken over: 1 to 256 visible ASCII characters. `[]`: every request gets a new one.',
          ),
      })
      .prefault({})
      .describe('Where request ids come from.'),
    cors: z
      .strictObject({
        allowed_origins: z
          .array(origin())
          .default([])
          .describe(
            'Origins of web pages that may call the gateway from a browser, such as `https://app.example.com`; `*` for all. `[]`: none.',
          ),
      })
      .prefault({})
      .describe('Calls from web pages in browsers.'),
    anonymous: z
      .strictObject({
        api_key_id: text().describe('Id of the API key whose rights such callers get.'),
        source_cidrs: z.array(network()).min(1).describe('Networks that may call without a key.'),
        paths: z
          .array(text())
          .min(1)
          .describe('Paths that may be called without a key, such as `/api/chat`; `/api/*` stands for all below `/api/`.'),
      })
      .optional()
      .describe('Callers without a key.'),
    thread_per_core: z.boolean().optional().describe('Threading of other implementations.'),
    workers: z.int().min(1).max(65_536).optional().describe('Number of workers of other implementations.'),
    url_rewrites: z
      .array(
        z.strictObject({
          name: text().optional().describe('Name in messages.'),
          match: text().describe('Regular expression, tried on the path.'),
          rewrite: z.string().describe('What replaces the matched part.'),
        }),
      )
      .default([])
      .describe('Changes to request paths before routing.'),
  })
  .describe('The listener that callers reach.')

const admin = z
  .strictObject({
    enabled: z.boolean().default(true).describe('`false`: no admin listener; `addr` and `admin_keys` are not looked at.'),
    addr: z
      .string()
      .default('127.0.0.1:3001')
      .describe('IP address and port of the admin API. Keep it off networks that callers reach.'),
    admin_keys: z
      .array(z.string())
      .default([])
      .describe(
        'Keys that operators present; each may do everything, several allow rotation. At least one, or one in `keys`, while the listener is enabled.',
      ),
    keys: z
      .array(
        z.strictObject({
          name: z
            .string()
            .regex(
              /^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/,
              'expected 1 to 64 of A-Z, a-z, 0-9, ".", "_", "@", "-", a letter or digit first',
            )
            .describe('Whose key it is: what the audit log and the log call whoever presents it.'),
          key_hash: z
            .string()
            .regex(/^[0-9a-fA-F]{64}$/, 'expected the 64 hexadecimal digits that `aisix hash-key` prints')
            .overwrite(hash => hash.toLowerCase())
            .describe('SHA-256 of the key, as `aisix hash-key` prints it.'),
          role: z
            .enum(['admin', 'viewer'])
            .describe('`admin` may do everything; `viewer` may read everything that has no secret in it, and change nothing.'),
        }),
      )
      .default([])
      .describe('Keys with a name and a role, beside `admin_keys`.'),
    tls: listenerTls('the admin API').optional(),
  })
  .superRefine(({ enabled, addr, admin_keys, keys }, context) => {
    if (!enabled) return
    const problem = addressProblem(addr)
    demand(context, problem === undefined, 'addr', problem ?? '')
    demand(
      context,
      admin_keys.length + keys.length > 0,
      'admin_keys',
      'admin.admin_keys must contain at least one key while admin.enabled is true; add one, there or in admin.keys, or set admin.enabled to false',
    )
    const names = new Set<string>()
    const hashes = new Map(admin_keys.map((key, i) => [sha256(key), `admin.admin_keys[${i}]`]))
    for (const [i, { name, key_hash }] of keys.entries()) {
      const other = hashes.get(key_hash)
      const refuse = (member: string, message: string) => context.addIssue({ code: 'custom', path: ['keys', i, member], message })
      if (names.has(name)) refuse('name', 'another key has this name: give each its own')
      if (other !== undefined) refuse('key_hash', `is the hash of ${other}: nobody could tell which of the two was presented`)
      names.add(name)
      hashes.set(key_hash, `admin.keys[${i}]`)
    }
    for (const [i, key] of admin_keys.entries()) {
      for (const issue of adminKey().safeParse(key).error?.issues ?? []) {
        context.addIssue({ code: 'custom', path: ['admin_keys', i], message: issue.message })
      }
    }
  })
  .prefault({})
  .describe('The listener that operators reach.')

const store = z
  .strictObject({
    path: text().default('./aisix.db').describe('SQLite file with the resources. Created with mode 0600; its folder must exist.'),
    encryption_key_env: text().optional().describe('Variable with a 32-byte key that credentials are encrypted with.'),
  })
  .prefault({})
  .describe('Where resources live.')

const etcd = z
  .strictObject({
    endpoints: z.array(text()).default([]).describe('Addresses.'),
    prefix: z.string().default('/aisix').describe('Prefix of keys.'),
    env_id: z.string().default('').describe('Environment.'),
    user: z.string().optional().describe('User.'),
    password_env: text().optional().describe('Variable with the password.'),
    dial_timeout_ms: count().default(5000).describe('Milliseconds to connect.'),
    request_timeout_ms: count().default(5000).describe('Milliseconds for a request.'),
    tls: z
      .strictObject({
        ca_cert_file: text().optional().describe('PEM file of certificates to trust.'),
        client_cert_file: text().optional().describe('PEM file with our certificate.'),
        client_key_file: text().optional().describe('PEM file with its key.'),
        domain_name: text().optional().describe('Name that the certificate must have.'),
      })
      .optional()
      .describe('TLS to etcd.'),
  })
  .optional()
  .describe('The store of other implementations.')

const observability = z
  .strictObject({
    service_name: text().default('aisix').describe('Name of this gateway in records.'),
    log_level: checked(value => complaint(() => parseFilter(value)))
      .default('info')
      .describe(
        'Least level that is logged: `trace`, `debug`, `info`, `warn`, `error`, `off`, also by target: `info,proxy=debug`. The variable `RUST_LOG` wins.',
      ),
    log_format: z.enum(['text', 'json']).default('text').describe('Form of log lines on stderr.'),
    access_log: z.boolean().default(true).describe('Access lines of other implementations; here `log_level` decides.'),
    metrics: z
      .strictObject({
        prometheus: z
          .strictObject({
            enabled: z.boolean().default(true).describe('`false`: no metrics and status listener.'),
            path: z
              .string()
              .default('/metrics')
              .overwrite(path => (path.startsWith('/') ? path : path === '' ? '/metrics' : `/${path}`))
              .refine(
                path => !/[?#\s\u0000-\u001f]/.test(path),
                'expected a path such as "/metrics", without query or white space',
              )
              .refine(path => !/^\/status(\/|$)/.test(path), 'must not lie under /status, where the status pages are')
              .describe('Path of the scrape page; a missing slash in front is added.'),
            addr: address()
              .default('0.0.0.0:9090')
              .describe(
                'IP address and port of metrics and status. There is no authentication: choose a network that only you reach.',
              ),
          })
          .prefault({})
          .describe('The listener of metrics and status.'),
        otlp: z
          .strictObject({
            enabled: z.boolean().default(false).describe('Sends metrics.'),
            endpoint: z.string().optional().describe('Where to.'),
          })
          .prefault({})
          .describe('Metrics over OTLP.'),
        client_type_rules: z
          .array(
            z.strictObject({
              pattern: text()
                .refine(pattern => Buffer.byteLength(pattern) <= 512, 'expected 512 bytes or less')
                .superRefine((pattern, context) => {
                  const message = complaint(() => compilePattern(pattern, { ignoreCase: true }))
                  if (message !== undefined) context.addIssue({ code: 'custom', message: 'is no regular expression of RE2' })
                })
                .describe('Regular expression (RE2) on the user agent: upper and lower case alike, found anywhere in it.'),
              client: z
                .string()
                .regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, 'expected 1 to 64 of a-z, 0-9, ".", "_", "-", a letter or digit first')
                .describe('What such clients are called in `client_type`.'),
            }),
          )
          .max(64)
          .default([])
          .describe('Names for clients of your own, tried in this order before the built-in table.'),
        max_series: z
          .int()
          .min(100)
          .max(10_000_000)
          .default(50_000)
          .describe('Most series that are kept; what further ones would count is counted under the label value `other`.'),
        buckets: z
          .strictObject({
            request_e2e_latency: buckets('whole requests'),
            request_ttft: buckets('the time to the first token'),
            guardrail_latency: buckets('guardrails'),
            a2a_ttfb: buckets('the time to the first byte of A2A'),
          })
          .prefault({})
          .describe('Bounds of histograms.'),
      })
      .prefault({})
      .describe('What is counted, and how it is read.'),
    tracing: z
      .strictObject({
        otlp: z
          .strictObject({
            enabled: z.boolean().default(false).describe('Sends traces.'),
            endpoint: z.string().optional().describe('Where to.'),
            sample_ratio: z.number().min(0).max(1).default(1).describe('Part of the requests that is traced.'),
          })
          .superRefine(({ enabled, endpoint }, context) =>
            demand(context, !enabled || isGiven(endpoint), 'endpoint', 'is required while enabled is true'),
          )
          .prefault({})
          .describe('Traces over OTLP.'),
      })
      .prefault({})
      .describe('Traces.'),
  })
  .prefault({})
  .describe('What the gateway tells about itself.')

const usage = z
  .strictObject({
    enabled: z.boolean().default(true).describe('`false`: no records of usage are kept, and the usage API refuses.'),
    path: text()
      .optional()
      .describe('SQLite file with the records of usage, created with mode 0600. Default: `usage.db` beside the store.'),
    retention_days: z.int().min(1).max(400).default(30).describe('Days that the records of single requests are kept.'),
    max_bytes: z
      .int()
      .min(8_388_608)
      .max(Number.MAX_SAFE_INTEGER)
      .default(1_073_741_824)
      .describe('Most bytes of the file; over it the oldest records go first.'),
  })
  .prefault({})
  .describe('Records of usage: who used which model, how much and when.')

const budgets = z
  .strictObject({
    path: text()
      .optional()
      .describe('SQLite file with what has been spent, created with mode 0600. Default: `budgets.db` beside the store.'),
  })
  .prefault({})
  .describe('Spending on budgets.')

const audit = z
  .strictObject({
    retention_days: z
      .int()
      .min(1)
      .max(36_500)
      .optional()
      .describe('Days that entries of the audit log are kept. Left out: for ever.'),
  })
  .prefault({})
  .describe('The audit log: what was changed over the admin API, and what was refused.')

const cache = z
  .strictObject({
    backend: z.enum(['memory', 'redis']).default('memory').describe('Where answers are kept.'),
    redis: redis(),
  })
  .superRefine(({ backend, redis }, context) =>
    demand(context, backend !== 'redis' || redis !== undefined, 'redis', 'cache.backend = redis requires a cache.redis block'),
  )
  .prefault({})
  .describe('Cache of answers.')

const ratelimit = z
  .strictObject({
    backend: z.enum(['memory', 'redis']).default('memory').describe('Where limits are counted.'),
    redis: redis(),
    concurrency_ttl_secs: seconds().default(300).describe('Seconds after which the slot of a crashed replica is free again.'),
  })
  .superRefine(({ backend, redis, concurrency_ttl_secs }, context) => {
    if (backend !== 'redis') return
    demand(context, redis !== undefined, 'redis', 'ratelimit.backend = redis requires a ratelimit.redis block')
    demand(context, concurrency_ttl_secs > 0, 'concurrency_ttl_secs', 'expected 1 or more with ratelimit.backend = redis')
  })
  .prefault({})
  .describe('Counters of rate limits.')

const upstream = z
  .strictObject({
    timeout_ms: count()
      .default(6_000_000)
      .describe('Milliseconds for a whole answer that is not streamed, where the model has no `timeout`. 0: no deadline.'),
    stream_timeout_ms: count().default(0).describe('Milliseconds of silence between the chunks of a stream. 0: as `timeout_ms`.'),
    connect_timeout_ms: count().default(5000).describe('Milliseconds for name, connection and TLS together. 0: no deadline.'),
    retries: count()
      .max(1000)
      .default(2)
      .describe('Further attempts after a failure that may pass, where the model has no `retries`.'),
    proxy: proxyUrl()
      .optional()
      .describe(
        'HTTP proxy that every upstream is reached through, such as `http://10.0.0.1:3128`. Without it none is used: `HTTP_PROXY` and its kin are ignored.',
      ),
    tls: z
      .strictObject({
        ca_file: text().optional().describe('PEM file; all certificates in it are trusted besides the roots of the system.'),
        client_cert_file: text().optional().describe('PEM file with the certificate that the gateway presents (mutual TLS).'),
        client_key_file: text().optional().describe('PEM file with its private key, not encrypted.'),
        verify: z
          .boolean()
          .default(true)
          .describe('`false` accepts any certificate, so that anybody on the way can read and change everything. For tests.'),
      })
      .superRefine(pairOfClientFiles)
      .prefault({})
      .describe('TLS of every outbound connection. Read once, at the start.'),
    tcp_keepalive_secs: seconds().default(60).describe('Seconds of silence before a probe.'),
    tcp_keepalive_interval_secs: seconds().default(30).describe('Seconds between probes.'),
    tcp_keepalive_retries: count().default(5).describe('Probes before a connection counts as lost.'),
    pool_idle_timeout_secs: seconds().default(30).describe('Seconds that an idle connection is kept.'),
    pool_max_idle_per_host: count().optional().describe('Idle connections per host.'),
  })
  .prefault({})
  .describe('Connections to upstreams.')

const downstream = z
  .strictObject({
    idle_timeout_secs: seconds()
      .default(0)
      .describe('Seconds after which an idle kept-alive connection of a caller is closed. 0: never.'),
    sse_keepalive_interval_secs: seconds()
      .default(15)
      .describe('Seconds of silence after which a stream gets a comment line, so that nothing on the way closes it. 0: off.'),
  })
  .prefault({})
  .describe('Connections of callers.')

const shutdown = z
  .strictObject({
    min_drain_secs: seconds()
      .default(30)
      .describe(
        'Seconds after SIGTERM during which nothing closes, so that load balancers notice. Then requests in flight are awaited, and realtime sessions are closed.',
      ),
  })
  .prefault({})
  .describe('The end of the process.')

const managed = z
  .object({
    enabled: z.boolean().default(false).describe('Takes resources from a hosted control plane.'),
    mtls_dir: z.string().default('/var/lib/aisix/mtls').describe('Folder of certificates.'),
    dp_id_file: z.string().default('/var/lib/aisix/dp_id').describe('File with the id of this gateway.'),
    snapshot_cache_path: z.string().optional().describe('File with the last resources.'),
    heartbeat_interval_secs: seconds().default(15).describe('Seconds between heartbeats.'),
  })
  // Keys of the control plane are many and differ from version to version; none of them has an effect.
  .catchall(z.unknown())
  .superRefine((given, context) => {
    const keys = Object.keys(given).filter(key => !(key in managed.unwrap().shape) && !key.startsWith('cp_'))
    if (keys.length > 0) context.addIssue({ code: 'unrecognized_keys', keys, input: given })
  })
  .prefault({})
  .describe('Hosted control plane.')

export const Config = z
  .strictObject({
    proxy,
    admin,
    store,
    observability,
    upstream,
    downstream,
    usage,
    budgets,
    audit,
    shutdown,
    cache,
    ratelimit,
    etcd,
    resources_file: checked(path => (path.trim() === '' ? 'must not be blank: give a path, or remove the key' : undefined))
      .optional()
      .describe('File with all resources, in place of the store, which is then not opened. SIGHUP reads it again.'),
    managed,
    bedrock_endpoint_url: z.string().default('').describe('Address of the Bedrock runtime.'),
  })
  .superRefine((config, context) => {
    if (config.resources_file === undefined) return
    const excludes = (other: string) => `excludes ${other}: keep one of the two`
    demand(context, !config.etcd || config.etcd.endpoints.length === 0, 'resources_file', excludes('etcd.endpoints'))
    demand(context, !config.managed.enabled, 'resources_file', excludes('managed.enabled'))
  })

/** The configuration with every default filled in. Sections are there always; keys that have no default may be undefined. */
export type ConfigOutput = z.output<typeof Config>
export type Config = Omit<ConfigOutput, 'usage' | 'budgets'> & {
  /** The paths are told, or follow from that of the store. */
  usage: z.output<typeof usage> & { path: string }
  budgets: { path: string }
}
