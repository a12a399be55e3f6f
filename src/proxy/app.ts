import { tmpdir } from 'node:os'
import { Hono } from 'hono'
import { messages } from '../dialects/messages.ts'
import { GatewayError } from '../errors.ts'
import { Exchange } from '../exchange.ts'
import type { Gateway } from '../gateway.ts'
import { type AddressSource, frontDoor, withoutBody } from '../status/front-door.ts'
import { HEALTH_PATHS, type HealthPath, health } from '../status/health.ts'
import { endpointLabels, PASSTHROUGH_LABELS } from '../telemetry/endpoint-labels.ts'
import { isUsableRequestId } from '../wire/headers.ts'
import { createAdmission } from './admit.ts'
import { createClientIp } from './client-ip.ts'
import { createDialer } from './dial.ts'
import { envelopeOf, NOT_HERE } from './dialect-paths.ts'
import type { Endpoint } from './endpoints/endpoint.ts'
import { ENDPOINTS } from './endpoints/index.ts'
import { createIdentify } from './identify.ts'
import { createBatchUsage } from './jobs/batch-usage.ts'
import { createModelChecker, type ModelChecker } from './model-check.ts'
import { anthropicList, anthropicModel, getModel, listModels } from './models.ts'
import { addOllamaRoutes } from './ollama.ts'
import { routeTable } from './passthrough/route-table.ts'
import { enterRoute, serveRoute } from './passthrough/serve-route.ts'
import { createAim } from './passthrough/target.ts'
import { declaredLength, tooLarge } from './read.ts'
import { REALTIME_PATH } from './realtime/handshake.ts'
import { createRealtime, type Realtime, type SessionTimings, type Upgrader } from './realtime.ts'
import { commonHeaders, replyEmpty, replyError, replyJson } from './reply.ts'
import { createRouter } from './route.ts'
import { type ProxyState, serve } from './serve.ts'
import type { UpstreamTls } from './upstream.ts'

/** The runtime's server, as far as requests ask something of it. */
export type ProxyServer = AddressSource & Upgrader

export type ProxyApp = Pick<Realtime, 'websocket' | 'endSessions'> & {
  /** returns: undefined where the request has become a WebSocket, which only a server that can `upgrade` makes of it */
  fetch(request: Request, server?: ProxyServer): Response | undefined | Promise<Response | undefined>
  /** Checks models through the same upstreams and connections as requests; somebody has to tick it. */
  modelChecker: ModelChecker
}

/** Bytes and time that a refused body is read for, so that its sender gets to read the answer (proxy-01 §7). */
const DRAIN_BYTES_MAX = 32 * 1024 * 1024
const DRAIN_MS = 5_000

type Env = { Bindings: { exchange: Exchange; server: ProxyServer | undefined } }

/** The listener that callers reach: opens an exchange for each request and hands it to its endpoint. */
export function createProxyApp(gateway: Gateway, tls: UpstreamTls, timings?: SessionTimings): ProxyApp {
  const { config, store, lifecycle, clock } = gateway
  const router = createRouter(config.upstream, tls, gateway.modelHealth, clock.now)
  const dial = createDialer({
    fetch: gateway.fetch,
    proxy: config.upstream.proxy,
    connectTimeoutMs: config.upstream.connect_timeout_ms,
    monotonic: clock.monotonic,
  })
  const { request_body_limit_bytes: bodyLimit, upload_limit_bytes: uploadLimit, upload_dir: uploadFolder } = config.proxy
  const proxy: ProxyState = {
    gateway,
    router,
    identify: createIdentify(gateway),
    admission: createAdmission(gateway.limiter, gateway.remainingLimits),
    dial,
    bodyBytesMax: bodyLimit || Number.POSITIVE_INFINITY,
    uploadBytesMax: (uploadLimit ?? bodyLimit) || Number.POSITIVE_INFINITY,
    uploadFolder: uploadFolder ?? tmpdir(),
    batches: createBatchUsage(gateway, router, dial),
    drainWarnings: new Map(),
  }
  const realtime = createRealtime(proxy, timings)
  const modelChecker = createModelChecker({ ...gateway, upstreamOf: router.upstreamOf, dial: proxy.dial })
  const clientIp = createClientIp(config.proxy.real_ip)
  const requestId = createRequestId(config.proxy.request_id.accept_headers)
  const cors = createCors(config.proxy.cors.allowed_origins)
  const endpoints = new Map(ENDPOINTS.filter(isPosted).map(endpoint => [endpoint.path, endpoint]))
  const { routes, isRouted } = createRoutes(proxy)
  const aim = createAim(tls)

  const handle = (request: Request, server: ProxyServer | undefined): ReturnType<ProxyApp['fetch']> => {
    const id = requestId(request.headers)
    const entered = isPlain(request) ? request : frontDoor(request)
    if (entered instanceof Response) {
      for (const [name, value] of Object.entries(commonHeaders(gateway, id))) entered.headers.set(name, value)
      return entered
    }
    const path = pathOf(entered.url)
    const { snapshot } = store
    const passthrough = routeTable(snapshot)
    // A host that a route asks for leads there before any endpoint is looked for.
    const hosted = passthrough.hasHosts ? passthrough.ofHost(entered.headers.get('host'), path) : undefined
    if (!hosted && isHealthPath(path)) {
      const answer = healthAnswer(gateway, entered, path, id, store.status.appliedAt !== undefined)
      gateway.metrics.probed(endpointLabels(path), answer.status)
      return answer
    }
    let address: string | undefined
    const addressOf = () => {
      address ??= clientIp(request, server)
      return address
    }
    const known = hosted ? undefined : endpoints.get(path)
    const prefixed = hosted || known ? undefined : passthrough.ofPath(path)
    const route = prefixed && isRouted(path) ? undefined : (hosted ?? prefixed)
    const labels = route ? PASSTHROUGH_LABELS : endpointLabels(path)
    const exchange = new Exchange(id, entered.method, path, labels, addressOf, clock.monotonic())
    exchange.callerHeaders = entered.headers
    if (route) enterRoute(exchange, route)
    const envelope = known ? known.dialect?.error : route ? undefined : envelopeOf(path, entered.headers)
    if (envelope) exchange.envelope = envelope
    if (envelope === messages.error) exchange.isAnthropic = true
    lifecycle.inFlight.add(exchange)
    try {
      const preflight = cors?.preflight(gateway, exchange, entered)
      if (preflight) return preflight
      const length = declaredLength(entered.headers)
      if (length === undefined && entered.headers.has('content-length')) {
        throw new GatewayError('conflicting_lengths', 'conflicting Content-Length headers')
      }
      const bytesMax = known?.form ? proxy.uploadBytesMax : proxy.bodyBytesMax
      if (length !== undefined && length > bytesMax) return refuseLarge(proxy, exchange, entered, length, bytesMax)
      if (route) {
        const routed = { proxy, aim, snapshot, route, request: entered, exchange }
        return serveRoute(routed).catch(error => replyError(gateway, exchange, error))
      }
      if (path === REALTIME_PATH) return realtime.open(request, exchange, server)
      // The endpoints that carry the load are found without the router: it costs 3 to 10 us a request, they a look-up.
      const endpoint = entered.method === 'POST' ? known : undefined
      if (!endpoint && entered.method === 'HEAD') return headOf(routes, entered, { exchange, server })
      if (!endpoint) return routes.fetch(entered, { exchange, server })
      return serve(proxy, endpoint, entered, exchange).catch(error => replyError(gateway, exchange, error))
    } catch (error) {
      return replyError(gateway, exchange, error)
    }
  }
  return {
    modelChecker,
    websocket: realtime.websocket,
    endSessions: realtime.endSessions,
    fetch(request, server) {
      const answer = handle(request, server)
      if (!cors) return answer
      const mark = (each: Response | undefined) => each && cors.mark(request, each)
      return answer instanceof Promise ? answer.then(mark) : mark(answer)
    },
  }
}

/** out: the router, and whether a path is one of its endpoints, for any method */
function createRoutes(proxy: ProxyState): { routes: Hono<Env>; isRouted: (path: string) => boolean } {
  const { gateway } = proxy
  const app = new Hono<Env>({ strict: true })
  const methods = new Map<string, string>()
  for (const endpoint of ENDPOINTS) {
    const { path, job } = endpoint
    const method = job?.method ?? 'POST'
    methods.set(
      path,
      [...new Set([...(methods.get(path)?.split(', ') ?? []), method, ...(method === 'GET' ? ['HEAD'] : [])])].join(', '),
    )
    if (!isPosted(endpoint)) app.on(method, path, c => serve(proxy, endpoint, c.req.raw, c.env.exchange))
  }
  app.get('/v1/models', c => {
    const { snapshot } = gateway.store
    const caller = proxy.identify(snapshot, c.req.raw.headers, c.env.exchange)
    const list = listModels(snapshot, caller, gateway.clock.now())
    const { isAnthropic } = c.env.exchange
    return replyJson(gateway, c.env.exchange, isAnthropic ? anthropicList(list, gateway.lifecycle.startedAtMs) : list)
  })
  // The rest of the path as it came: an alias may hold slashes, escaped or not.
  app.get('/v1/models/*', c => {
    const { exchange } = c.env
    const { snapshot } = gateway.store
    const caller = proxy.identify(snapshot, c.req.raw.headers, exchange)
    const encoded = exchange.path.slice('/v1/models/'.length)
    const model = getModel(snapshot, caller, encoded, gateway.clock.now(), exchange.clientIp)
    return replyJson(gateway, exchange, exchange.isAnthropic ? anthropicModel(model, gateway.lifecycle.startedAtMs) : model)
  })
  addOllamaRoutes(app, gateway, methods, proxy.bodyBytesMax, c => {
    const { snapshot } = gateway.store
    const caller = proxy.identify(snapshot, c.req.raw.headers, c.env.exchange)
    return { snapshot, caller }
  })
  methods.set('/v1/models', 'GET, HEAD')
  methods.set('/v1/models/*', 'GET, HEAD')
  for (const [path, allow] of methods) app.all(path, c => replyEmpty(gateway, c.env.exchange, 405, { allow }))
  for (const [name, paths] of NOT_BUILT) {
    for (const path of paths) {
      app.all(path, c => {
        proxy.identify(gateway.store.snapshot, c.req.raw.headers, c.env.exchange)
        throw new GatewayError('not_implemented', `${name} are not supported by this version`)
      })
    }
  }
  const isRouted = compileRouted(app)
  app.all('/passthrough/*', () => {
    throw new GatewayError(
      'endpoint_removed',
      'this endpoint was removed; ask the operator to configure an explicit passthrough route',
    )
  })
  for (const [path, message] of NOT_HERE) {
    app.all(path, () => {
      throw new GatewayError('endpoint_not_found', message)
    })
  }
  app.notFound(c => replyEmpty(gateway, c.env.exchange, 404))
  app.onError((error, c) => replyError(gateway, c.env.exchange, error))
  return { routes: app, isRouted }
}

/** Whether a path, as it came, is one that the routes so far answer. Decoded as the router does it before it looks for one. */
function compileRouted(app: Hono<Env>): (path: string) => boolean {
  const patterns = app.routes.map(({ path }) =>
    path
      .replace(/[.+?^${}()|[\]\\]/g, '\\$&')
      .replace(/\/\*$/, '(?:/.*)?')
      .replace(/:[^/]+/g, '[^/]+'),
  )
  const routed = new RegExp(`^(?:${[...new Set(patterns)].join('|')})$`)
  return path => routed.test(path.includes('%') ? tryDecodeURI(path) : path)
}

function tryDecodeURI(path: string): string {
  try {
    return decodeURI(path)
  } catch {
    return path
  }
}

/** What the contract has and this version does not: whoever asks is told so. */
const NOT_BUILT = [
  ['videos', ['/v1/videos', '/v1/videos/*']],
  ['MCP servers', ['/mcp', '/mcp/*']],
  ['A2A agents', ['/a2a/*']],
] as const

/** Endpoints that are found by their path alone; the others, of which there are few and whose paths hold ids, by the router. */
function isPosted({ path, job }: Endpoint): boolean {
  return !job || (job.method === 'POST' && !path.includes(':'))
}

/** The head of what GET answers, its length included. */
async function headOf(routes: Hono<Env>, request: Request, env: Env['Bindings']): Promise<Response> {
  return withoutBody(await routes.fetch(new Request(request, { method: 'GET' }), env))
}

/** A request that needs no second look before it is routed: an absolute URL and one Host. */
function isPlain(request: Request): boolean {
  const { url } = request
  if (!url.startsWith('http') || request.method === 'CONNECT') return false
  const host = request.headers.get('host')
  return host !== null && !host.includes(',')
}

function pathOf(url: string): string {
  const start = url.indexOf('/', url.indexOf('//') + 2)
  if (start < 0) return '/'
  const query = url.indexOf('?', start)
  const fragment = url.indexOf('#', start)
  const end = Math.min(query < 0 ? url.length : query, fragment < 0 ? url.length : fragment)
  return url.slice(start, end)
}

function isHealthPath(path: string): path is HealthPath {
  return path === HEALTH_PATHS[0] || path === HEALTH_PATHS[1]
}

function healthAnswer(gateway: Gateway, request: Request, path: HealthPath, id: string, hasConfig: boolean): Response {
  const isRead = request.method === 'GET' || request.method === 'HEAD'
  const answer = isRead
    ? health(path, new URL(request.url), gateway.lifecycle, hasConfig)
    : new Response(null, { status: 405, headers: { allow: 'GET, HEAD' } })
  for (const [name, value] of Object.entries(commonHeaders(gateway, id))) answer.headers.set(name, value)
  return answer
}

function createRequestId(names: readonly string[]): (headers: Headers) => string {
  return headers => {
    for (const name of names) {
      const value = headers.get(name)
      if (value !== null && isUsableRequestId(value)) return value
    }
    return crypto.randomUUID()
  }
}

/** A declared length over the cap is refused before anybody is asked for a key; the body is read and dropped first. */
async function refuseLarge(
  proxy: ProxyState,
  exchange: Exchange,
  request: Request,
  declared: number,
  bytesMax: number,
): Promise<Response> {
  const { gateway } = proxy
  exchange.handler ??= ENDPOINTS.find(({ path }) => path === exchange.path)?.name
  const drained = await drain(request)
  gateway.metrics.bodyRefused(exchange.endpoint, drained.outcome)
  const fields = {
    declared_content_length: declared,
    configured_limit_bytes: bytesMax,
    drained_bytes: drained.bytes,
    drain_outcome: drained.outcome,
    endpoint: exchange.path,
    request_id: exchange.requestId,
  }
  const log = gateway.log.as('proxy')
  if (drained.outcome === 'completed') log.info('request body over the limit', fields)
  else if (isTimeToWarn(proxy, drained.outcome)) log.warn('request body over the limit', fields)
  return replyError(gateway, exchange, tooLarge(bytesMax))
}

/** At most one warning a second for each way in which reading the rest of a body can fail. source: proxy-09 §4 */
function isTimeToWarn({ gateway, drainWarnings }: ProxyState, outcome: string): boolean {
  const now = gateway.clock.monotonic()
  if (now - (drainWarnings.get(outcome) ?? Number.NEGATIVE_INFINITY) < 1_000) return false
  drainWarnings.set(outcome, now)
  return true
}

type Drained = { bytes: number; outcome: 'completed' | 'cap_reached' | 'timeout' | 'client_read_error' }

async function drain(request: Request): Promise<Drained> {
  const reader = request.body?.getReader()
  if (!reader) return { bytes: 0, outcome: 'completed' }
  let bytes = 0
  const { promise: late, resolve } = Promise.withResolvers<'late'>()
  const timer = setTimeout(() => resolve('late'), DRAIN_MS)
  try {
    for (;;) {
      const read = reader.read()
      read.catch(() => {})
      const piece = await Promise.race([read, late])
      if (piece === 'late') return { bytes, outcome: 'timeout' }
      if (piece.done) return { bytes, outcome: 'completed' }
      bytes += piece.value.byteLength
      if (bytes >= DRAIN_BYTES_MAX) return { bytes, outcome: 'cap_reached' }
    }
  } catch {
    return { bytes, outcome: 'client_read_error' }
  } finally {
    clearTimeout(timer)
    reader.cancel().catch(() => {})
  }
}

/** What scripts of other origins may read besides the simple headers. */
const EXPOSED_HEADERS = [
  'x-aisix-request-id',
  'x-request-id',
  'retry-after',
  'x-aisix-call-id',
  'x-aisix-served-by',
  'x-aisix-warning',
  'x-aisix-estimated',
  ...['limit-requests', 'remaining-requests', 'reset-requests', 'limit-tokens', 'remaining-tokens', 'reset-tokens'].map(
    name => `x-ratelimit-${name}`,
  ),
  'x-ratelimit-limit-concurrent',
  'x-ratelimit-remaining-concurrent',
].join(', ')

type Cors = {
  preflight(gateway: Gateway, exchange: Exchange, request: Request): Response | undefined
  mark(request: Request, answer: Response): Response
}

/** Cross-origin calls from browsers, off unless the operator lists origins. Source: Fetch standard, "CORS protocol". */
function createCors(origins: readonly string[]): Cors | undefined {
  if (origins.length === 0) return undefined
  const allowed = (request: Request): string | undefined => {
    const origin = request.headers.get('origin')
    if (origin === null) return undefined
    return origins.includes('*') ? '*' : origins.includes(origin) ? origin : undefined
  }
  return {
    preflight(gateway, exchange, request) {
      if (request.method !== 'OPTIONS' || !request.headers.has('access-control-request-method')) return undefined
      if (allowed(request) === undefined) return replyEmpty(gateway, exchange, 403)
      return replyEmpty(gateway, exchange, 204, {
        'access-control-allow-methods': 'GET, POST, PUT, PATCH, DELETE, OPTIONS',
        'access-control-allow-headers': request.headers.get('access-control-request-headers') ?? 'authorization, content-type',
        'access-control-max-age': '600',
      })
    },
    mark(request, answer) {
      const origin = allowed(request)
      if (origin === undefined) return answer
      answer.headers.set('access-control-allow-origin', origin)
      answer.headers.set('access-control-expose-headers', EXPOSED_HEADERS)
      if (origin !== '*') answer.headers.append('vary', 'origin')
      return answer
    },
  }
}
