/** The admin listener: what operators write, and what they read about it. */
import { type Context, Hono } from 'hono'
import type { Backups } from '../backup/online.ts'
import type { Budgets } from '../budgets/budget.ts'
import type { Exporters } from '../exporters/exporter.ts'
import type { Clock, Lifecycle } from '../gateway.ts'
import type { Ledger } from '../ledger/ledger.ts'
import type { Log } from '../lib/log.ts'
import type { ModelHealth } from '../model-health.ts'
import type { Catalog } from '../pricing/catalog-file.ts'
import { hasConfig } from '../status/config.ts'
import { type AddressSource, frontDoor, peerAddress, withoutBody, withStandardHeaders } from '../status/front-door.ts'
import { HEALTH_PATHS, health } from '../status/health.ts'
import { modelStatus } from '../status/models.ts'
import type { Store } from '../store/store.ts'
import type { Registry } from '../telemetry/registry.ts'
import { isUsableRequestId } from '../wire/headers.ts'
import { auditRoutes } from './audit-routes.ts'
import { createAuthenticator, type NamedAdminKey, type RefusalReason, type Role } from './auth.ts'
import { createAuthFailureLog } from './auth-failure-log.ts'
import { backupRoutes } from './backup-routes.ts'
import { BODY_TIMEOUT_MS } from './body.ts'
import { budgetRoutes } from './budget-routes.ts'
import { catalogRoutes } from './catalog-routes.ts'
import { AdminError, json } from './error.ts'
import { healthReport } from './health.ts'
import { type OpenApiDocument, openApiDocument } from './openapi.ts'
import { type ReferencePage, referencePage } from './reference-page.ts'
import { resourceRoutes } from './resource-routes.ts'
import { type Call, type Description, isForAdmins, type Route } from './route.ts'
import { usageRoutes } from './usage-routes.ts'

export type AdminOptions = {
  store: Store
  /** Each grants everything. An empty one is refused with an Error. */
  adminKeys: readonly string[]
  /** Keys with a name and a role of their own. */
  namedKeys?: readonly NamedAdminKey[]
  registry: Pick<Registry, 'series'>
  log: Log
  clock: Clock
  lifecycle: Lifecycle
  modelHealth: ModelHealth
  ledger: Ledger
  budgets: Budgets
  exporters: Pick<Exporters, 'status'>
  catalog: Catalog
  /** `proxy.anonymous.api_key_id` of the configuration. */
  anonymousKeyId?: string | undefined
  /** Where there is something on a disk to make them of. */
  backups?: Backups
  /** The proxy's door in this process: is handed the request as it came, its path changed to `/v1/chat/completions`. */
  playground?: (request: Request, server: AddressSource) => Response | Promise<Response>
  /** Who connects, for the log and for the store's audit. */
  addressOf?: (request: Request, server: AddressSource | undefined) => string
  bodyTimeoutMs?: number
}

export type AdminApp = { fetch(request: Request, server?: AddressSource): Promise<Response> }

type Env = { Bindings: { server: AddressSource | undefined; requestId: string } }

/**
 * The admin API: resources, health, reference and playground.
 * An unknown path is 404 and a wrong method 405 before anybody is asked for a key, both with an empty body.
 * source: control-admin-api
 */
export function createAdminApp(options: AdminOptions): AdminApp {
  const { store, log, lifecycle, addressOf = peerAddress, bodyTimeoutMs = BODY_TIMEOUT_MS } = options
  const logAdmin = log.as('admin')
  const authenticate = createAuthenticator(options.adminKeys, options.namedKeys)
  const authFailures = createAuthFailureLog(logAdmin, options.clock)
  /** Answers of the proxy, which has already said what they carry: they are passed on as they are. */
  const fromProxy = new WeakSet<Response>()
  let document: OpenApiDocument | undefined
  let page: ReferencePage | undefined
  const openApi = () => {
    document ??= openApiDocument(routes)
    return document
  }

  const routes: Route[] = [
    ...HEALTH_PATHS.map(
      (path): Route => ({
        method: 'GET',
        path,
        auth: 'none',
        handle: ({ url }) => health(path, url, lifecycle, hasConfig(store.status)),
        describe: HEALTH_DESCRIPTIONS[path],
      }),
    ),
    {
      method: 'GET',
      path: '/admin/v1/health',
      auth: 'admin',
      handle: () => json(200, healthReport(options)),
      describe: HEALTH_REPORT,
    },
    { method: 'GET', path: '/admin/openapi.json', auth: 'none', handle: () => json(200, openApi()), describe: OPENAPI_JSON },
    {
      method: 'GET',
      path: '/admin/openapi-scalar',
      auth: 'none',
      handle: () => {
        page ??= referencePage(openApi())
        return new Response(page.html, {
          headers: {
            'content-type': 'text/html; charset=utf-8',
            'content-security-policy': page.contentSecurityPolicy,
            'referrer-policy': 'no-referrer',
            'cache-control': 'no-cache',
          },
        })
      },
      describe: OPENAPI_PAGE,
    },
    ...resourceRoutes({ store, log: logAdmin, bodyTimeoutMs }),
    ...auditRoutes(options),
    ...backupRoutes({ backups: options.backups, log: logAdmin }),
    ...usageRoutes({ ...options, inFlight: lifecycle.inFlight }),
    ...catalogRoutes(options),
    ...budgetRoutes(options),
    {
      method: 'GET',
      path: '/admin/v1/models/status',
      auth: 'admin',
      handle: () => json(200, modelStatus(store.snapshot, options.modelHealth, options.clock.now())),
      describe: MODEL_STATUS,
    },
    {
      method: 'POST',
      path: PLAYGROUND,
      auth: 'caller',
      handle: async ({ request, server }) => {
        const admission = authenticate(request.headers)
        if ('role' in admission && admission.role === 'viewer') throw viewerRefused()
        if (!options.playground) throw new AdminError(501, 'playground not wired: proxy router not configured')
        const url = new URL(request.url)
        url.pathname = '/v1/chat/completions'
        const { method, headers, body, signal } = request
        // The runtime knows the peer of the request that it made, not of this one.
        const source: AddressSource = { requestIP: () => server?.requestIP(request) ?? null }
        const response = await options.playground(new Request(url.href, { method, headers, body, signal }), source)
        fromProxy.add(response)
        return response
      },
      describe: PLAYGROUND_DESCRIPTION,
    },
  ]

  const admit = (request: Request, server: AddressSource | undefined): { adminKey: string; role: Role; address: string } => {
    const address = addressOf(request, server)
    const admission = authenticate(request.headers)
    if ('adminKey' in admission) return { ...admission, address }
    options.registry.series(AUTH_FAILURES, [admission.refused satisfies RefusalReason]).value += 1
    authFailures.tell(admission.refused, address, request.method)
    throw new AdminError(401, 'missing or malformed admin authorization')
  }

  /** Runs a change that may be refused, by its route or for the role of who asks: the audit log hears of it either way. */
  const change = async (route: Route, call: Call, role: Role): Promise<Response> => {
    try {
      if (role === 'viewer' && isForAdmins(route)) throw viewerRefused()
      return await route.handle(call)
    } catch (error) {
      const { adminKey, address, requestId = '' } = call.actor
      const [status, reason] = error instanceof AdminError ? [error.status, error.message] : [500, INTERNAL_ERROR]
      if (route.change) {
        const who = { actor: adminKey, address, request_id: requestId }
        store.audit?.refused({ ...who, ...route.change, id: call.id, status, reason })
      }
      throw error
    }
  }

  const app = new Hono<Env>()
  for (const [path, onPath] of byPath(routes)) {
    const pattern = path.replace('{id}', ':id')
    for (const route of onPath) {
      app.on(route.method, pattern, async (c: Context<Env>) => {
        const request = c.req.raw
        const { server, requestId } = c.env
        const { role, adminKey, address } =
          route.auth === 'admin' ? admit(request, server) : { role: 'admin' as const, adminKey: '', address: '' }
        const actor = { adminKey, address, requestId }
        const call: Call = { request, server, url: new URL(request.url), id: c.req.param('id') ?? '', actor }
        const response = await change(route, call, role)
        // Hono sends HEAD to the handlers of GET.
        return request.method === 'HEAD' ? withoutBody(response) : response
      })
    }
    const allow = allowed(onPath)
    app.all(pattern, () => new Response(null, { status: 405, headers: { allow } }))
  }
  app.notFound(() => new Response(null, { status: 404 }))
  app.onError(error => {
    if (error instanceof AdminError) return json(error.status, { error_msg: error.message })
    logAdmin.error('request failed', { error: error.stack ?? error.message })
    return json(500, { error_msg: INTERNAL_ERROR })
  })

  return {
    async fetch(request, server) {
      const entered = frontDoor(request)
      if (entered instanceof Response) return entered
      const given = entered.headers.get(REQUEST_ID)
      const requestId = given !== null && isUsableRequestId(given) ? given : crypto.randomUUID()
      const response = await app.fetch(entered, { server, requestId })
      if (fromProxy.has(response)) return response
      const answer = withStandardHeaders(response)
      answer.headers.set(REQUEST_ID, requestId)
      return answer
    },
  }
}

/** Names a request in the log and in the audit log; taken over from the caller where it can be. */
const REQUEST_ID = 'x-aisix-request-id'
const AUTH_FAILURES = 'aisix_admin_auth_failures_total'
const INTERNAL_ERROR = "internal error; see the gateway's log"

const viewerRefused = () => new AdminError(403, 'this admin key has the role viewer: it may read and change nothing')

const PLAYGROUND = '/playground/chat/completions'

/** Routes by path, fixed paths before those with a parameter, so that `/models/status` is no id. */
function byPath(routes: readonly Route[]): [string, Route[]][] {
  const paths = new Map<string, Route[]>()
  for (const route of routes) paths.set(route.path, [...(paths.get(route.path) ?? []), route])
  return [...paths].sort(([a], [b]) => Number(a.includes('{id}')) - Number(b.includes('{id}')))
}

function allowed(routes: readonly Route[]): string {
  return routes.flatMap(({ method }) => (method === 'GET' ? ['GET', 'HEAD'] : [method])).join(', ')
}

const VERBOSE = {
  name: 'verbose',
  in: 'query',
  required: false,
  description: 'lists the checks.',
  schema: { type: 'string' },
} as const

const HEALTH_DESCRIPTIONS: { [P in (typeof HEALTH_PATHS)[number]]: Description } = {
  '/livez': {
    operationId: 'livez',
    tag: 'Health',
    summary: 'Whether the process is alive',
    description: '503 from the signal to stop on.',
    parameters: [VERBOSE],
    success: { description: 'It is.', contentType: 'text/plain', example: 'ok' },
    errors: [503],
    errorsInPlainText: true,
  },
  '/readyz': {
    operationId: 'readyz',
    tag: 'Health',
    summary: 'Whether the gateway takes requests',
    description: '503 while it drains, and before the first configuration is loaded. An empty configuration is ready.',
    parameters: [VERBOSE],
    success: { description: 'It does.', contentType: 'text/plain', example: 'ok' },
    errors: [503],
    errorsInPlainText: true,
  },
}

const HEALTH_REPORT: Description = {
  operationId: 'getHealth',
  tag: 'Health',
  summary: 'What the gateway knows about itself and its upstreams',
  description: 'Information, not a probe: the status is always 200.',
  success: { description: 'The report.', schema: { $ref: '#/components/schemas/HealthResponse' } },
  errors: [],
}

const OPENAPI_JSON: Description = {
  operationId: 'getOpenApi',
  tag: 'OpenAPI',
  summary: 'This API as an OpenAPI 3.1 document',
  success: { description: 'The document.', schema: { type: 'object' } },
  errors: [],
}

const OPENAPI_PAGE: Description = {
  operationId: 'getReferencePage',
  tag: 'OpenAPI',
  summary: 'This API as a page to read',
  description: 'Self-contained: it loads nothing from any other place.',
  success: { description: 'The page.', contentType: 'text/html' },
  errors: [],
}

const MODEL_STATUS: Description = {
  operationId: 'getModelStatus',
  tag: 'Models',
  summary: 'Whether each model takes requests',
  success: {
    description: 'One row for each model in the store.',
    schema: { type: 'array', items: { $ref: '#/components/schemas/ModelStatus' } },
    example: [{ id: '91d2a1c4-2f3e-4f0b-8d53-0c9b1a7e4c11', display_name: 'llama-3-private', kind: 'direct', status: 'healthy' }],
  },
  errors: [],
}

const PLAYGROUND_DESCRIPTION: Description = {
  operationId: 'playgroundChat',
  tag: 'Playground',
  summary: 'A chat completion through the proxy',
  description:
    "Handed to the proxy's `/v1/chat/completions` in this process, and answered as it answers, streams included. Takes a caller's key; an admin key is refused.",
  body: {
    schema: { type: 'object', description: 'A chat completion request as OpenAI defines it.' },
    examples: [{ model: 'llama-3-private', messages: [{ role: 'user', content: 'Say hello from the private model.' }] }],
  },
  success: { description: "The proxy's answer.", schema: { type: 'object' } },
  errors: [],
}
