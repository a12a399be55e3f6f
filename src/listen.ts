/** The life of a serving process: what is opened in which order, and how it ends. Source: control-bootstrap §5, §6. */
import { createAdminApp } from './admin/app.ts'
import { createBackups } from './backup/online.ts'
import { createBudgets } from './budgets/budgets.ts'
import {
  type Config,
  ConfigError,
  formatAddress,
  type LoadedConfig,
  loadConfig,
  parseSocketAddress,
  type ServerTls,
} from './config.ts'
import { createExporters } from './exporters/fan-out.ts'
import { type Gateway, systemClock } from './gateway.ts'
import { InFlight } from './in-flight.ts'
import { disabledLedger } from './ledger/disabled-ledger.ts'
import { createLedger } from './ledger/sqlite-ledger.ts'
import { batchThreads } from './lib/batch-thread.ts'
import { cutOff } from './lib/cut-off.ts'
import { type Fetch, runtimeFetch } from './lib/fetch.ts'
import { createLog, type Log } from './lib/log.ts'
import { say } from './lib/say.ts'
import { createLimiter } from './limits/limiter.ts'
import { RemainingLimits } from './limits/remaining.ts'
import { createModelHealth } from './model-health.ts'
import { catalogPath, createCatalog } from './pricing/catalog-file.ts'
import { createProxyApp, type ProxyApp } from './proxy/app.ts'
import type { Session } from './proxy/realtime.ts'
import type { UpstreamTls } from './proxy/upstream.ts'
import { createStatusApp } from './status/app.ts'
import { createGatewayMetrics } from './status/gateway-metrics.ts'
import { limitMetrics } from './status/limit-metrics.ts'
import { openResourcesFile, openSqliteStore, ResourcesFileError, type ResourcesFileStore, StoreOpenError } from './store/index.ts'
import type { Store } from './store/store.ts'
import { metricFamilies, RESOURCE_LABELS } from './telemetry/families.ts'
import { Registry } from './telemetry/registry.ts'
import { createRequestMetrics } from './telemetry/request-metrics.ts'
import { COMMIT, VERSION } from './version.ts'

type Environment = Readonly<Record<string, string | undefined>>
type Handler = (request: Request, server: Bun.Server<Session>) => ReturnType<ProxyApp['fetch']>
type Listener = { label: string; server: Bun.Server<Session> }

const DRAIN_PROGRESS_MS = 5_000
const FLUSH_MS = 2_000
/** A line is out this much later than it was written, at the most. */
const LOG_GATHER_MS = 10
/** How exactly the intervals of background checks are kept, and how soon a change of exporters takes hold. */
const TICK_MS = 1_000
/** How long the end waits for collectors to take what is queued. */
const EXPORT_MS = 3_000

/** Hands every SIGHUP to a handler. The process met those that came before. */
type HangUps = (handler: () => void) => void

/** A listener that could not be had; the message is complete. */
class BindError extends Error {}

/**
 * Serves until a signal ends it.
 * returns: the exit status: 0 after a clean drain, 1 when the start failed, 130 or 143 after a second signal
 */
export async function serve(
  configPath: string,
  env: Environment,
  { isRestarted, handleHangUps }: { isRestarted: boolean; handleHangUps: HangUps },
): Promise<number> {
  const signals = listenToSignals()
  let loaded: LoadedConfig
  try {
    loaded = loadConfig({ path: configPath, env })
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return failStart(`config load failed: ${error.message}`)
  }
  const { config, tls, warnings, debug } = loaded
  const { log_level: filter, log_format: format } = config.observability
  const log = createLog({ filter, format, gatherMs: LOG_GATHER_MS })
  process.on('unhandledRejection', error => logStranger(log, 'unhandled rejection', error))
  process.on('uncaughtException', error => logStranger(log, 'uncaught exception', error))
  // Its process ends at once: what the log has gathered would be lost, and may say why.
  const refuseStart = async (message: string) => {
    await log.flush(FLUSH_MS)
    return failStart(message)
  }
  for (const warning of warnings) log.as('config').warn(warning)
  for (const line of debug) log.as('config').debug(line)
  if (!isRestarted) {
    log.warn('the process could not start itself anew: at most 256 upstream requests run at once')
  }

  const { metrics: metricsConfig } = config.observability
  const registry = new Registry(metricsConfig.max_series, metricFamilies(metricsConfig.buckets))
  let gateway: Gateway
  try {
    gateway = await openGateway(loaded, env, registry, log, handleHangUps)
  } catch (error) {
    if (error instanceof ResourcesFileError) return refuseStart(error.message)
    if (!(error instanceof StoreOpenError)) throw error
    return refuseStart(`store open failed: ${error.message}`)
  }

  const { anonymous } = config.proxy
  if (anonymous && !gateway.store.snapshot.entries.api_keys.has(anonymous.api_key_id)) {
    log
      .as('config')
      .warn(
        `proxy.anonymous.api_key_id: "${anonymous.api_key_id}" is the id of no API key: callers without a key are refused until there is one`,
      )
  }

  const listeners: Listener[] = []
  let proxyApp: ProxyApp
  try {
    proxyApp = openListeners(gateway, loaded, tls, listeners)
  } catch (error) {
    if (!(error instanceof BindError)) throw error
    for (const { server } of listeners) server.stop(true)
    await closeGateway(gateway)
    return refuseStart(error.message)
  }
  log.info('gateway started', {
    version: VERSION,
    commit: COMMIT,
    ...Object.fromEntries(
      listeners.map(({ label, server }) => [label, formatAddress({ hostname: server.hostname ?? '', port: server.port ?? 0 })]),
    ),
    ...(config.resources_file === undefined ? { store: config.store.path } : { resources_file: config.resources_file }),
  })

  const { modelChecker } = proxyApp
  const tick = () => {
    modelChecker.tick(gateway.clock.now())
    gateway.exporters.sync(gateway.store.snapshot)
  }
  tick()
  const ticking = setInterval(tick, TICK_MS)

  const first = await signals.next()
  const second = signals.next()
  const ended = await Promise.race([drain(gateway, proxyApp, listeners, first), second.then(name => ({ second: name }))])
  if (typeof ended === 'object') {
    log.warn('second signal: ending at once', { in_flight: gateway.lifecycle.inFlight.size })
    await log.flush(FLUSH_MS)
    return ended.second === 'SIGINT' ? 130 : 143
  }
  clearInterval(ticking)
  await modelChecker.stop()
  await Promise.all(listeners.map(({ server }) => server.stop(true)))
  await closeGateway(gateway)
  log.info('drain complete')
  await log.flush(FLUSH_MS)
  return 0
}

/**
 * throws: StoreOpenError, ResourcesFileError; whatever else cannot be opened is told by health, and the gateway serves
 * without it
 */
async function openGateway(
  { config, tls }: LoadedConfig,
  env: Environment,
  registry: Registry,
  log: Log,
  handleHangUps: HangUps,
): Promise<Gateway> {
  const clock = systemClock
  const { metrics, service_name: serviceName } = config.observability
  const { enabled, path, retention_days: retentionDays, max_bytes: bytesMax } = config.usage
  let store: Store
  if (config.resources_file === undefined) {
    store = openSqliteStore({ path: config.store.path, clock, log, auditRetentionDays: config.audit.retention_days })
    handleHangUps(() => log.info('SIGHUP is ignored: there is no resources_file to read again'))
  } else {
    const file: ResourcesFileStore = await openResourcesFile({ path: config.resources_file, env, clock, log })
    handleHangUps(() => void file.reload())
    store = file
  }
  return {
    config,
    store,
    fetch: tunedFetch(log),
    clock,
    random: Math.random,
    log,
    modelHealth: createModelHealth(),
    limiter: createLimiter(),
    remainingLimits: new RemainingLimits(),
    registry,
    metrics: createRequestMetrics(registry, metrics.client_type_rules),
    ledger: enabled ? createLedger({ path, retentionDays, bytesMax, log, registry, clock }) : disabledLedger({ registry }),
    budgets: await createBudgets({ path: config.budgets.path, store, log, registry, clock }),
    exporters: createExporters({
      log,
      registry,
      clock,
      fetch: runtimeFetch,
      env,
      tls: upstreamTls(config, tls),
      proxy: config.upstream.proxy,
      serviceName,
    }),
    lifecycle: { isDraining: false, inFlight: new InFlight(), startedAtMs: clock.now() },
  }
}

/** Once nothing is in flight: what is recorded and charged reaches the disk, what is queued the collectors, if they take it. */
async function closeGateway({ store, ledger, budgets, exporters, log }: Gateway): Promise<void> {
  const closed = await Promise.allSettled([ledger.close(), budgets.close(), exporters.close(EXPORT_MS)])
  // One that fails keeps neither the others nor the store from being closed in good order.
  for (const each of closed) if (each.status === 'rejected') logStranger(log, 'closing failed', each.reason)
  await store.close()
}

function upstreamTls(config: Config, { upstream: { ca, cert, key } }: LoadedConfig['tls']): UpstreamTls {
  return { ca: ca === undefined ? [] : [ca], cert, key, verify: config.upstream.tls.verify }
}

/** The runtime's `fetch`, whose thread is there once the first request is: from then on it works in batches. */
function tunedFetch(log: Log): Fetch {
  let isFirst = true
  return (url, init) => {
    const answer = runtimeFetch(url, init)
    if (isFirst) {
      isFirst = false
      const tune = async () => log.debug('upstream thread works in batches', { threads: await batchThreads('HTTP Client') })
      answer.then(tune, tune)
    }
    return answer
  }
}

/** One line, or one a problem, on stderr: there is no log yet, or nobody to read on. */
async function failStart(message: string): Promise<number> {
  await say(process.stderr, `${message}\n`)
  return 1
}

function logStranger(log: Log, message: string, error: unknown): void {
  log.error(message, {
    error: error instanceof Error ? `${error.name}: ${error.message}` : 'not an Error',
    stack: error instanceof Error ? error.stack : undefined,
  })
}

/** returns: the proxy, whose checks of models nobody ticks yet */
function openListeners(
  gateway: Gateway,
  { config, origins }: LoadedConfig,
  tls: LoadedConfig['tls'],
  listeners: Listener[],
): ProxyApp {
  const { log, store, clock, lifecycle, modelHealth } = gateway
  const proxyApp = createProxyApp(gateway, upstreamTls(config, tls))
  const idleSecs = idleTimeoutSecs(config.downstream.idle_timeout_secs, log)
  const proxyFetch = idleSecs === 0 ? proxyApp.fetch : closingIdle(proxyApp.fetch, idleSecs)
  const proxyServer = bind('proxy', config.proxy.addr, proxyFetch, tls.proxy, gateway, idleSecs, proxyApp.websocket)
  listeners.push({ label: 'proxy', server: proxyServer })
  if (config.admin.enabled) {
    const adminApp = createAdminApp({
      store,
      adminKeys: config.admin.admin_keys,
      namedKeys: config.admin.keys,
      registry: gateway.registry,
      ...(config.resources_file === undefined && {
        backups: createBackups({ store: config.store.path, budgets: config.budgets.path, usage: config.usage.path }),
      }),
      log,
      clock,
      lifecycle,
      modelHealth,
      ledger: gateway.ledger,
      budgets: gateway.budgets,
      exporters: gateway.exporters,
      catalog: createCatalog(catalogPath(config.store.path)),
      anonymousKeyId: config.proxy.anonymous?.api_key_id,
      playground: async (request, server) => (await proxyApp.fetch(request, server)) ?? new Response(null, { status: 500 }),
    })
    listeners.push({ label: 'admin', server: bind('admin', config.admin.addr, adminApp.fetch, tls.admin, gateway) })
  }
  const { prometheus } = config.observability.metrics
  if (prometheus.enabled) {
    const statusApp = createStatusApp({
      store,
      log,
      clock,
      modelHealth,
      metricsPath: prometheus.path,
      moreMetrics: scrapedPieces(gateway),
    })
    try {
      listeners.push({ label: 'metrics', server: bind('metrics', prometheus.addr, statusApp.fetch, undefined, gateway) })
    } catch (error) {
      // Nobody asked for this address: the gateway is worth more than its metrics.
      if (!(error instanceof BindError) || origins.get('observability.metrics.prometheus.addr')?.from !== 'default') throw error
      log.warn(`${error.message}; going on without the metrics listener`)
    }
  }
  return proxyApp
}

/** What the scrape page says besides the configuration. */
function scrapedPieces(gateway: Gateway): () => Generator<string> {
  const { limiter, remainingLimits, registry, store } = gateway
  const gatewayMetrics = createGatewayMetrics(gateway)
  return function* () {
    const { snapshot } = store
    for (const [label, kind] of Object.entries(RESOURCE_LABELS)) registry.drop(label, id => snapshot.entries[kind].has(id))
    const exporters = new Set(Array.from(snapshot.entries.observability_exporters.values(), ({ value }) => value.name))
    registry.drop('exporter', name => exporters.has(name))
    gateway.budgets.collect(registry, snapshot, gateway.clock.now())
    yield limitMetrics(limiter, remainingLimits, snapshot)
    yield gatewayMetrics()
    yield* registry.pages()
  }
}

/** Longest time that the runtime can be told to wait on a silent connection. */
const IDLE_SECS_MAX = 255

function idleTimeoutSecs(configured: number, log: Log): number {
  if (configured <= IDLE_SECS_MAX) return configured
  const problem = `downstream.idle_timeout_secs: ${configured} is more than the runtime can wait; idle connections are closed after ${IDLE_SECS_MAX} s`
  log.as('config').warn(problem)
  return IDLE_SECS_MAX
}

/**
 * Lets the runtime close connections that are silent for `secs`, but only between requests: the clock of a connection
 * stands still from the head of a request to the end of its answer, streams included.
 */
function closingIdle(fetch: Handler, secs: number): Handler {
  return async (request, server) => {
    server.timeout(request, 0)
    const answer = await fetch(request, server)
    // A WebSocket now, whose silence its own handlers mind.
    if (!answer) return undefined
    const resume = () => server.timeout(request, secs)
    const isStream = answer.headers.get('content-type')?.startsWith('text/event-stream') === true
    if (isStream && answer.body) return new Response(withEnd(answer.body, resume), answer)
    resume()
    return answer
  }
}

/** The same bytes, at the reader's pace; `onEnd` is called once, at the end, a failure, or when nobody reads on. */
function withEnd(source: ReadableStream<Uint8Array>, onEnd: () => void): ReadableStream<Uint8Array> {
  const reader = source.getReader()
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await reader.read()
        if (value) controller.enqueue(value)
        if (!done) return
        onEnd()
        controller.close()
      } catch {
        onEnd()
        cutOff(controller)
      }
    },
    cancel(reason) {
      onEnd()
      return reader.cancel(reason)
    },
  })
}

/** Listeners that take up no WebSocket. */
const NO_WEBSOCKETS: Bun.WebSocketHandler<Session> = { message() {} }

/**
 * in: `idleSecs` of silence after which the runtime closes a connection; 0: never
 * throws: BindError with the operating system's reason
 */
function bind(
  label: string,
  addr: string,
  fetch: Handler,
  tls: ServerTls | undefined,
  gateway: Gateway,
  idleSecs = 0,
  websocket = NO_WEBSOCKETS,
): Bun.Server<Session> {
  const { hostname, port } = parseSocketAddress(addr)
  const log = gateway.log.as(label)
  try {
    return Bun.serve({
      hostname,
      port,
      ...(tls ? { tls } : {}),
      fetch,
      websocket,
      // The runtime's 10 s would cut quiet streams and long answers: deadlines are the gateway's own.
      idleTimeout: idleSecs,
      maxRequestBodySize: Number.POSITIVE_INFINITY,
      development: false,
      // Outside development the runtime shares ports: a second gateway would take half of the connections in silence.
      reusePort: false,
      error(error) {
        logStranger(log, 'request failed', error)
        return new Response(null, { status: 500, headers: { server: `AISIX/${VERSION}` } })
      },
    })
  } catch (error) {
    const code = typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : ''
    const reason = REASONS[code] ?? (error instanceof Error ? error.message : String(error))
    throw new BindError(`${label} listener bind ${formatAddress({ hostname, port })} failed: ${reason}`, { cause: error })
  }
}

const REASONS: Record<string, string> = {
  EADDRINUSE: 'address already in use; stop the process that listens there, or choose another address',
  EADDRNOTAVAIL: 'address not available: no interface of this host has it',
  EACCES: 'permission denied: ports below 1024 need the capability to bind them',
}

type SignalName = 'SIGINT' | 'SIGTERM'

/** Signals to stop, one after the other. */
function listenToSignals(): { next(): Promise<SignalName> } {
  const came: SignalName[] = []
  const waiting: ((name: SignalName) => void)[] = []
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.on(name, () => {
      const wake = waiting.shift()
      if (wake) wake(name)
      else came.push(name)
    })
  }
  return {
    next: () => {
      const name = came.shift()
      return name ? Promise.resolve(name) : new Promise(resolve => waiting.push(resolve))
    },
  }
}

/**
 * Says to load balancers that it is over, gives them time to hear it, then waits for every exchange to end and for every
 * answer to be with its caller: an exchange is over when the last byte is handed to the runtime, the connection when a slow
 * reader has taken it. Realtime sessions may go on for hours: they are not awaited, but told to go elsewhere once load balancers
 * had their time, so that whoever dials again does not come back here.
 */
async function drain(
  { config, lifecycle, log }: Gateway,
  { endSessions }: ProxyApp,
  listeners: readonly Listener[],
  signal: SignalName,
): Promise<'drained'> {
  const isBusy = () => lifecycle.inFlight.size > 0 || listeners.some(({ server }) => server.pendingRequests > 0)
  lifecycle.isDraining = true
  // Ctrl-C at an idle gateway: somebody waits at a terminal.
  if (signal === 'SIGINT' && !isBusy()) return 'drained'
  const minimumMs = config.shutdown.min_drain_secs * 1_000
  log.info('draining', { signal, in_flight: lifecycle.inFlight.size, min_drain_secs: config.shutdown.min_drain_secs })
  const startedAt = performance.now()
  let saidAt = startedAt
  for (;;) {
    const now = performance.now()
    if (now - startedAt >= minimumMs) {
      endSessions()
      if (!isBusy()) return 'drained'
    }
    if (now - saidAt >= DRAIN_PROGRESS_MS) {
      saidAt = now
      log.info('draining', { in_flight: lifecycle.inFlight.size })
    }
    await Bun.sleep(20)
  }
}
