/** A real gateway in this process, listening on a free port, with one provider key, one model and one API key in it. */
import { loadConfig } from '../src/config.ts'
import { type Clock, type Gateway, systemClock } from '../src/gateway.ts'
import { InFlight } from '../src/in-flight.ts'
import { type Fetch, runtimeFetch } from '../src/lib/fetch.ts'
import { createLog } from '../src/lib/log.ts'
import { createLimiter } from '../src/limits/limiter.ts'
import { RemainingLimits } from '../src/limits/remaining.ts'
import { createModelHealth } from '../src/model-health.ts'
import { createProxyApp } from '../src/proxy/app.ts'
import type { SessionTimings } from '../src/proxy/realtime.ts'
import type { UpstreamTls } from '../src/proxy/upstream.ts'
import { ApiKey } from '../src/resources/api-key.ts'
import { DirectModel, ModelGroup } from '../src/resources/model.ts'
import { PassthroughRoute } from '../src/resources/passthrough-route.ts'
import { ProviderKey } from '../src/resources/provider-key.ts'
import { RateLimitPolicy } from '../src/resources/rate-limit-policy.ts'
import { openMemoryStore } from '../src/store/memory.ts'
import type { Entry, Store } from '../src/store/store.ts'
import { testTelemetry } from './telemetry.ts'

export const CALLER_KEY = 'sk-caller-test-key-0001'
export const UPSTREAM_SECRET = 'upstream-secret-0001'
/** The alias of the model that is there from the start, and the name under which the upstream knows it. */
export const ALIAS = 'alias-model'
export const UPSTREAM_MODEL = 'org/upstream-model'
export const ACTOR = { adminKey: 'test', address: '127.0.0.1' }

type Section = Record<string, unknown>

export type GatewayOptions = {
  /** `url` of the fake upstream, or any base. */
  upstream?: string
  /** Members of the documents that differ from the usual ones. */
  providerKey?: Section
  model?: Section
  apiKey?: Section
  /** Sections of config.yaml. */
  config?: Record<string, Section>
  tls?: UpstreamTls
  /** How often realtime sessions ping. */
  timings?: SessionTimings
  clock?: Clock
  logFilter?: string
  telemetry?: ReturnType<typeof testTelemetry>
  /** How requests go out; the runtime's own where it is left out. */
  fetch?: Fetch
}

export type TestGateway = {
  /** `http://127.0.0.1:PORT`, without a slash at the end. */
  url: string
  port: number
  /** The plaintext key of the caller. */
  key: string
  store: Store
  gateway: Gateway
  /** What was counted and recorded. */
  telemetry: ReturnType<typeof testTelemetry>
  /** Lines of the log so far. */
  logs: string[]
  /** Rows that are there from the start. */
  rows: { providerKey: Entry<'provider_keys'>; model: Entry<'models'>; apiKey: Entry<'api_keys'> }
  addModel(members: Section): Promise<Entry<'models'>>
  /** A model group of this alias; `routing.targets` may be aliases alone. */
  addGroup(
    display_name: string,
    routing: Section & { targets: readonly (string | Section)[] },
    members?: Section,
  ): Promise<Entry<'models'>>
  addPolicy(members: Section): Promise<Entry<'rate_limit_policies'>>
  addProviderKey(members: Section): Promise<Entry<'provider_keys'>>
  addApiKey(key: string, members?: Section): Promise<Entry<'api_keys'>>
  /** A passthrough route that injects the credential of the first provider key, unless told otherwise. */
  addRoute(members: Section): Promise<Entry<'passthrough_routes'>>
  /** Posts under the caller's key; a body that is no string or bytes is written as JSON. */
  post(path: string, body: unknown, headers?: Record<string, string>, signal?: AbortSignal): Promise<Response>
  /** A chat request with one message and whatever else is given. */
  chat(members?: Section, headers?: Record<string, string>, signal?: AbortSignal): Promise<Response>
  get(path: string, headers?: Record<string, string>): Promise<Response>
  /** The first access line of the log, present or to come; fails after some seconds. */
  accessLine(requestId?: string): Promise<string>
  /** Resolves when no exchange is open; fails after some seconds. */
  idle(): Promise<void>
  /** Tells realtime sessions to go elsewhere, as the end of a drain does. */
  endSessions(): void
  stop(): Promise<void>
}

/** A clock that stands still until a test moves it; durations stay real, since waiting for sockets takes real time. */
export function testClock(startMs = Date.parse('2026-03-02T12:00:00.000Z')): Clock & { advance(ms: number): void } {
  let ms = startMs
  return {
    now: () => ms,
    monotonic: () => performance.now(),
    advance(by) {
      ms += by
    },
  }
}

export function sha256(text: string): string {
  return new Bun.CryptoHasher('sha256').update(text).digest('hex')
}

/** Waits for a condition that an event of another socket brings about; the limit only ends tests that fail anyway. */
export async function until(what: string, isTrue: () => boolean): Promise<void> {
  const giveUpAt = Date.now() + 10_000
  while (!isTrue()) {
    if (Date.now() > giveUpAt) throw new Error(`waited 10 s in vain for: ${what}`)
    await Bun.sleep(2)
  }
}

export async function startGateway(options: GatewayOptions = {}): Promise<TestGateway> {
  const { config: sections = {}, clock = systemClock, logFilter = 'trace' } = options
  const document = {
    ...sections,
    proxy: { addr: '127.0.0.1:0', ...sections.proxy },
    admin: { enabled: false },
  }
  const { config } = loadConfig({
    path: 'config.yaml',
    env: {},
    readFile: () => new TextEncoder().encode(JSON.stringify(document)),
  })
  const logs: string[] = []
  const log = createLog({
    filter: logFilter,
    sink: {
      isTerminal: false,
      write(text, done) {
        logs.push(...text.trimEnd().split('\n'))
        done()
      },
    },
  })
  const store = openMemoryStore({ clock })
  const telemetry = options.telemetry ?? testTelemetry()
  const gateway: Gateway = {
    config,
    store,
    fetch: options.fetch ?? runtimeFetch,
    clock,
    random: () => 0,
    log,
    modelHealth: createModelHealth(),
    limiter: createLimiter(),
    remainingLimits: new RemainingLimits(),
    ...telemetry,
    lifecycle: { isDraining: false, inFlight: new InFlight(), startedAtMs: clock.now() },
  }
  const noTls = { ca: [], cert: undefined, key: undefined, verify: true }
  const app = createProxyApp(gateway, options.tls ?? noTls, options.timings)
  // As src/listen.ts has it.
  const server = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    fetch: app.fetch,
    websocket: app.websocket,
    idleTimeout: 0,
    maxRequestBodySize: Number.POSITIVE_INFINITY,
    development: false,
    error: () => new Response(null, { status: 500 }),
  })
  const { port } = server
  if (port === undefined) throw new Error('the gateway has no port')
  const url = `http://127.0.0.1:${port}`

  const addProviderKey = (members: Section) =>
    store.create(
      'provider_keys',
      ProviderKey.parse({
        display_name: `provider-key-${store.list('provider_keys').length + 1}`,
        provider: 'vllm',
        adapter: 'openai',
        secret: UPSTREAM_SECRET,
        ...members,
      }),
      ACTOR,
    )
  const providerKey = await addProviderKey({
    // Nothing listens on port 1.
    api_base: options.upstream ?? 'http://127.0.0.1:1/v1',
    ...options.providerKey,
  })
  const addModel = (members: Section) =>
    store.create(
      'models',
      DirectModel.parse({
        provider: 'vllm',
        model_name: UPSTREAM_MODEL,
        provider_key_id: providerKey.id,
        retries: 0,
        ...members,
      }),
      ACTOR,
    )
  const addGroup: TestGateway['addGroup'] = (display_name, routing, members = {}) => {
    const targets = routing.targets.map(target => (typeof target === 'string' ? { model: target } : target))
    return store.create('models', ModelGroup.parse({ display_name, routing: { ...routing, targets }, ...members }), ACTOR)
  }
  const addPolicy = (members: Section) => store.create('rate_limit_policies', RateLimitPolicy.parse(members), ACTOR)
  const addApiKey = (key: string, members: Section = {}) =>
    store.create('api_keys', ApiKey.parse({ key_hash: sha256(key), allowed_models: ['*'], ...members }), ACTOR)
  const addRoute = (members: Section) => {
    const mode = members.credential_mode === 'forward_client' ? {} : { provider_key_id: providerKey.id }
    return store.create('passthrough_routes', PassthroughRoute.parse({ ...mode, ...members }), ACTOR)
  }
  const model = await addModel({ display_name: ALIAS, ...options.model })
  const apiKey = await addApiKey(CALLER_KEY, { display_name: 'caller one', ...options.apiKey })

  const post: TestGateway['post'] = (path, body, headers = {}, signal) =>
    fetch(url + path, {
      method: 'POST',
      headers: { authorization: `Bearer ${CALLER_KEY}`, 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body),
      ...(signal ? { signal } : {}),
    })
  const idle = () => until('no exchange in flight', () => gateway.lifecycle.inFlight.size === 0)
  return {
    url,
    port,
    key: CALLER_KEY,
    store,
    gateway,
    telemetry,
    logs,
    rows: { providerKey, model, apiKey },
    addModel,
    addGroup,
    addPolicy,
    addProviderKey,
    addApiKey,
    addRoute,
    post,
    chat: (members = {}, headers = {}, signal) =>
      post('/v1/chat/completions', { model: ALIAS, messages: [{ role: 'user', content: 'Hi' }], ...members }, headers, signal),
    get: (path, headers = { authorization: `Bearer ${CALLER_KEY}` }) => fetch(url + path, { headers, redirect: 'manual' }),
    async accessLine(requestId = '') {
      const find = () => logs.find(line => line.includes(' access: proxy request completed') && line.includes(requestId))
      await until('an access line', () => find() !== undefined)
      return find() ?? ''
    },
    idle,
    endSessions: app.endSessions,
    async stop() {
      await server.stop(true)
      await store.close()
    },
  }
}

/** Of an answer: status, headers, and its body as text and, where it is JSON, as a value. */
export async function answerOf(
  response: Response,
): Promise<{ status: number; headers: Headers; text: string; body: unknown; error: Section }> {
  const text = await response.text()
  const isJson = response.headers.get('content-type') === 'application/json' && text !== ''
  const body: unknown = isJson ? JSON.parse(text) : undefined
  const error: unknown = typeof body === 'object' && body !== null && 'error' in body ? body.error : undefined
  return { status: response.status, headers: response.headers, text, body, error: { ...Object(error) } }
}

/** The `data` of each event of a stream's text, and `:` for each heartbeat. */
export function eventsOf(text: string): string[] {
  return text
    .split('\n\n')
    .filter(event => event !== '')
    .map(event => event.replace(/^data: /, ''))
}
