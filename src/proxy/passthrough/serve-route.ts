import { clientGone, GatewayError } from '../../errors.ts'
import { type Exchange, openAttempt } from '../../exchange.ts'
import { printable } from '../../lib/log.ts'
import { queryOf } from '../../lib/query-of.ts'
import type { Lease } from '../../limits/limit.ts'
import type { CallerKey, Snapshot } from '../../store/snapshot.ts'
import { authenticateBy, flawOf } from '../authenticate.ts'
import { Caller } from '../caller.ts'
import { labelsOfCaller, labelsOfRoute } from '../labels.ts'
import { OpenAttempt } from '../open-attempt.ts'
import type { ProxyState } from '../serve.ts'
import { type CallerBody, namedIn, openBody, passOn } from './caller-body.ts'
import { requestHeaders } from './headers.ts'
import { relay } from './relay.ts'
import { modelOfKey, type RouteModel } from './route-model.ts'
import type { Route } from './route-table.ts'
import { type Aim, addressOf, type RouteTarget } from './target.ts'

/** A request that a route takes, and the snapshot in which the route was found: it keeps both to its end. */
export type RouteRequest = {
  proxy: ProxyState
  aim: Aim
  snapshot: Snapshot
  route: Route
  request: Request
  exchange: Exchange
}

/** Notes whose request it is, before anything can end it. */
export function enterRoute(exchange: Exchange, { name }: Route): void {
  exchange.handler = 'passthrough_route'
  // Tokens are told or unknown, never guessed: what goes through here may be any API.
  exchange.isCounted = false
  exchange.extra = { passthroughRoute: name }
}

/**
 * One request on a passthrough route, caller to server and back: the caller is known and let in as everywhere, and what it asks
 * goes on as it came. Nothing is tried twice.
 * throws: GatewayError
 * source: proxy-03 §12
 */
export async function serveRoute(routed: RouteRequest): Promise<Response> {
  const { proxy, aim, snapshot, route, request, exchange } = routed
  proxy.gateway.exporters.sync(snapshot)
  const caller = identify(routed)
  if (!caller.allowsRoute(route.name)) {
    throw new GatewayError('permission_denied', `API key is not allowed to use passthrough route "${printable(route.name)}"`)
  }
  if (request.headers.get('upgrade')?.toLowerCase().includes('websocket')) {
    throw new GatewayError('not_implemented', 'passthrough routes do not relay WebSockets')
  }
  // Its answer repeats the request, and with it the credential that was put in.
  if (request.method === 'TRACE') throw new GatewayError('not_implemented', 'passthrough routes do not pass on TRACE')
  const target = aim(snapshot, route)
  exchange.labels = labelsOfRoute(caller, target, undefined)
  const body = await openBody(request, proxy.bodyBytesMax)
  try {
    const named = namedIn(body, request.headers)
    exchange.requestedModel = named.model
    const model = named.model === undefined ? undefined : modelOfKey(snapshot, target.providerKey, named.model)
    if (model) exchange.labels = labelsOfRoute(caller, target, model.resolved.entry)
    exchange.lease = admit(routed, caller, target, model)
    return await send(routed, target, body, model, named.isStream)
  } catch (error) {
    // What has not been read of it, nobody will read.
    if (body.kind === 'rest') body.reader.cancel().catch(() => {})
    throw error
  }
}

/**
 * The caller, by the way in which this route has keys shown.
 * throws: ip_restricted; as `authenticate`; for callers without a key principal_missing, principal_disabled, principal_expired
 */
function identify({ proxy, snapshot, route, request: { headers }, exchange }: RouteRequest): CallerKey {
  const { metrics, clock } = proxy.gateway
  const { auth_mode, auth_header_name, identity_header } = route.value
  if (route.allows && !route.allows(exchange.clientIp())) {
    if (auth_mode === 'anonymous') metrics.authenticated('anonymous', 'source_not_allowed')
    throw new GatewayError('ip_restricted', 'Access denied: your client IP is not allowed to use this route')
  }
  let caller: CallerKey
  if (auth_mode === 'anonymous') {
    exchange.extra = { ...exchange.extra, authType: 'anonymous' }
    caller = principalOf(route, snapshot, clock.now())
    metrics.authenticated('anonymous', 'none')
    exchange.labels = labelsOfCaller(caller)
  } else if (auth_header_name !== undefined) {
    caller = authenticateBy(snapshot, headers, auth_header_name, clock.now())
    metrics.authenticated('api_key', 'none')
    exchange.labels = labelsOfCaller(caller)
  } else caller = proxy.identify(snapshot, headers, exchange)
  const identity = identity_header === undefined ? '' : plainText(headers.get(identity_header) ?? '')
  exchange.extra = {
    ...exchange.extra,
    passthroughRoute: route.name,
    ...(identity === '' ? {} : { clientIdentity: identity }),
  }
  return caller
}

function principalOf({ value }: Route, snapshot: Snapshot, now: number): CallerKey {
  const row = snapshot.entries.api_keys.get(value.anonymous_key_id ?? '')
  const caller = row && snapshot.apiKeys.get(row.value.key_hash)
  if (!caller) throw new GatewayError('principal_missing', 'anonymous_key_id of this route names an API key that does not exist')
  const flaw = flawOf(caller, now)
  if (flaw === 'disabled') throw new GatewayError('principal_disabled', 'the API key of this route has been disabled')
  if (flaw === 'expired') throw new GatewayError('principal_expired', 'the API key of this route has expired')
  return caller
}

/** Characters of an end user's name that are kept. */
const IDENTITY_MAX = 256

function plainText(value: string): string {
  return value
    .replace(/[\u0000-\u001f\u007f-\u009f]/g, '')
    .trim()
    .slice(0, IDENTITY_MAX)
}

/** The limits of the caller, and of the model that the request names. throws: budget_exceeded, rate_limited */
function admit(
  { proxy, snapshot }: RouteRequest,
  caller: CallerKey,
  target: RouteTarget,
  model: RouteModel | undefined,
): Lease | undefined {
  const { gateway, admission } = proxy
  const now = gateway.clock.now()
  const overspent = gateway.budgets.refusal(snapshot, caller, model?.resolved.entry.id ?? '', now)
  if (overspent) throw overspent
  return model
    ? admission.admit(snapshot, caller, model.resolved, model.alias, now)
    : admission.admitRoute(snapshot, caller, target, now)
}

/** One fetch, one deadline. throws: GatewayError */
async function send(
  { proxy, snapshot, route, request, exchange }: RouteRequest,
  target: RouteTarget,
  body: CallerBody,
  model: RouteModel | undefined,
  isStream: boolean,
): Promise<Response> {
  const { gateway, dial, bodyBytesMax } = proxy
  const { clock, config } = gateway
  const { url, origin, hostname, port } = addressOf(target, request.headers.get('host'), exchange.path, queryOf(request.url))
  const timeoutMs = route.value.timeout_ms ?? config.upstream.timeout_ms
  const caller = new Caller(request.signal)
  if (caller.isGone) throw clientGone()
  exchange.upstreamOrigin = origin
  const record = openAttempt(exchange, 'initial', model?.price, clock.monotonic())
  const open = new OpenAttempt(caller)
  let isAnswered = false
  try {
    open.arm(timeoutMs)
    const length = body.kind === 'rest' ? body.length : undefined
    const response = await dial({
      ...{ url, origin, hostname, port },
      tls: target.tls,
      method: request.method,
      headers: requestHeaders(snapshot, target, request.headers, exchange.requestId, length),
      ...(body.kind === 'whole' ? { body: body.bytes } : {}),
      ...(body.kind === 'rest'
        ? { body: () => passOn(body, bodyBytesMax, open, () => (isAnswered ? 0 : timeoutMs)), isOneShot: true }
        : {}),
      isRaw: true,
      isStream,
      signal: open.signal,
      onUnreachable: error => open.abort(error),
    })
    isAnswered = true
    open.disarm()
    return relay({ gateway, exchange, caller, open, record, silenceMs: timeoutMs }, response)
  } catch (error) {
    throw open.fail(record, error)
  } finally {
    record.endedAt = clock.monotonic()
  }
}
