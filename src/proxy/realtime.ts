/** `GET /v1/realtime`: a caller's WebSocket joined to an upstream's. Source: proxy-03 §13. */
import { clientGone, GatewayError, toGatewayError } from '../errors.ts'
import { type Exchange, openAttempt } from '../exchange.ts'
import type { Gateway } from '../gateway.ts'
import { InFlight } from '../in-flight.ts'
import { withoutBody } from '../status/front-door.ts'
import type { CallerKey } from '../store/snapshot.ts'
import { flawOf } from './authenticate.ts'
import { Caller } from './caller.ts'
import { choose } from './choose.ts'
import { failedAnswer } from './failed-answer.ts'
import { labelsOfMember } from './labels.ts'
import { addOperatorHeaders } from './outbound.ts'
import {
  agreedProtocol,
  credentialsOf,
  type NoHandshake,
  notUpgradable,
  readQuery,
  refuseHandshake,
  upstreamUrl,
} from './realtime/handshake.ts'
import { SESSION_TIMINGS, Session, type SessionTimings } from './realtime/session.ts'
import { MESSAGE_BYTES_MAX, openLink, type Unexpected, type UpstreamLink } from './realtime/upstream-link.ts'
import { commonHeaders, replyError } from './reply.ts'
import type { Target } from './route.ts'
import type { ProxyState } from './serve.ts'

export type { Session, SessionTimings }

/** The runtime's server, as far as it takes up WebSockets; there is none behind the playground. */
export type Upgrader = {
  upgrade?(request: Request, options: { data: Session; headers: Record<string, string> }): boolean
}

export type Realtime = {
  /** returns: a refusal, or undefined once the connection is a WebSocket */
  open(request: Request, exchange: Exchange, server: Upgrader | undefined): Promise<Response | undefined>
  /** What the listener does with the WebSockets that it has taken up. */
  websocket: Bun.WebSocketHandler<Session>
  /** Tells all sessions to go elsewhere. */
  endSessions(): void
}

type Connected = { link: UpstreamLink; refusal: () => string | undefined }

/** Seconds of silence after which the runtime has pinged a caller, and takes one that has not answered for gone. */
const CALLER_IDLE_SECS = 120

export function createRealtime(proxy: ProxyState, timings: SessionTimings = SESSION_TIMINGS): Realtime {
  const { gateway } = proxy
  const sessions = new InFlight<Session>()
  const onOver = (session: Session) => sessions.delete(session)

  const upgrade = (request: Request, exchange: Exchange, { link, refusal }: Connected, server: Upgrader): void => {
    const session = new Session(gateway, exchange, link, timings, refusal, onOver)
    const headers = commonHeaders(gateway, exchange.requestId)
    // It says what becomes of this connection.
    delete headers.connection
    headers['sec-websocket-protocol'] = agreedProtocol(request.headers)
    // The runtime knows the peer only while its request is at the door.
    exchange.clientIp()
    exchange.status = 200
    exchange.headAt = gateway.clock.monotonic()
    sessions.add(session)
    if (server.upgrade?.(request, { data: session, headers })) return
    sessions.delete(session)
    link.terminate()
    throw clientGone()
  }

  const refuse = (request: Request, exchange: Exchange, { error, headers }: NoHandshake): Response | Promise<Response> => {
    const answer = replyError(gateway, exchange, error)
    for (const [name, value] of Object.entries(headers)) answer.headers.set(name, value)
    return request.method === 'HEAD' ? withoutBody(answer) : answer
  }

  return {
    async open(request, exchange, server) {
      try {
        const unusable = refuseHandshake(request.method, request.headers)
        if (unusable || !server?.upgrade) return refuse(request, exchange, unusable ?? notUpgradable())
        upgrade(request, exchange, await connect(proxy, request, exchange), server)
        return undefined
      } catch (error) {
        return replyError(gateway, exchange, error)
      }
    },
    websocket: {
      open: socket => socket.data.opened(socket),
      message: (socket, frame) => socket.data.fromCaller(frame),
      drain: socket => socket.data.drained(),
      close: (socket, code, reason) => socket.data.callerClosed(code, reason),
      maxPayloadLength: MESSAGE_BYTES_MAX,
      // Sessions hold back by themselves, before this would drop a message.
      backpressureLimit: 0,
      closeOnBackpressureLimit: false,
      perMessageDeflate: false,
      idleTimeout: CALLER_IDLE_SECS,
      sendPings: true,
    },
    endSessions() {
      for (const session of sessions) session.goAway()
    },
  }
}

/** The line of `serve.ts`, with a connection at its end in place of an answer. One target is tried once: clients dial again by themselves. */
async function connect(proxy: ProxyState, request: Request, exchange: Exchange): Promise<Connected> {
  const { gateway, admission } = proxy
  exchange.handler = 'realtime'
  exchange.isStream = true
  // Nothing is estimated: what a session used up, only its upstream knows.
  exchange.isCounted = false
  const { snapshot } = gateway.store
  gateway.exporters.sync(snapshot)
  const credentials = credentialsOf(request.headers)
  const callerKey = proxy.identify(snapshot, credentials, exchange)
  if (!credentials.has('authorization') && !credentials.has('x-api-key')) refuseForeignPage(proxy, request.headers)
  const question = readQuery(request.url)
  const { clientIp } = exchange
  const asker = { headers: request.headers, callerKey, clientIp }
  const { model, route, now } = choose(proxy, snapshot, asker, question.model, exchange, { isDirectOnly: true })
  const { candidates, aim } = route
  const [candidate] = candidates
  if (!candidate) throw new Error('a route without candidates')
  const target = aim(candidate)
  const url = target.upstream.urls.realtime
  if (url === undefined) throw new GatewayError('not_implemented', 'this provider does not support realtime sessions')
  exchange.lease = admission.admit(snapshot, callerKey, model, question.model, now)
  exchange.labels = labelsOfMember(callerKey, candidate, undefined)
  exchange.upstreamOrigin = target.upstream.origin
  exchange.enter(candidate.state, candidate.rules, undefined)
  const headers = outboundHeaders(target, exchange.requestId)
  addOperatorHeaders(headers, exchange.requestId, callerKey, request.headers, target)
  const link = await dial(proxy, request, exchange, target, upstreamUrl(url, target.upstreamModel, question.others), headers)
  return { link, refusal: () => refusalOf(gateway, callerKey, question.model, model.entry.id) }
}

/** A session may last for hours: a key that is taken back, and a budget that others have used up, end it. */
function refusalOf({ store, budgets, clock }: Gateway, { entry }: CallerKey, alias: string, modelId: string): string | undefined {
  const { snapshot } = store
  const now = clock.now()
  const key = snapshot.apiKeys.get(entry.value.key_hash)
  if (!key || flawOf(key, now) || !key.allows(alias)) return 'the API key may no longer use this model'
  return budgets.refusal(snapshot, key, modelId, now) ? 'a budget is used up' : undefined
}

/** One try at the upstream, with its record. throws: GatewayError */
async function dial(
  { gateway }: ProxyState,
  request: Request,
  exchange: Exchange,
  target: Target,
  url: string,
  headers: Record<string, string>,
): Promise<UpstreamLink> {
  const { clock, config, log } = gateway
  const { upstream } = target
  const record = openAttempt(exchange, 'initial', target.price, clock.monotonic())
  try {
    const link = await openLink({
      url,
      hostname: upstream.hostname,
      port: upstream.port,
      headers,
      tls: upstream.tls,
      proxy: config.upstream.proxy,
      timeoutMs: target.timeoutMs,
      connectTimeoutMs: config.upstream.connect_timeout_ms,
      caller: new Caller(request.signal),
      refused: answer => refusedBy({ exchange, log }, target, answer),
    })
    record.status = 101
    // From here on what is told of usage is charged, however the session ends.
    exchange.hasAnswered = true
    return link
  } catch (error) {
    const known = toGatewayError(error)
    record.errorKind = known.kind
    record.errorMessage = known.recorded
    record.status = known.upstreamStatus ?? known.status
    record.endedAt = clock.monotonic()
    throw known
  }
}

/** The gateway's own headers: those of any request to this upstream but for what speaks of a body. */
function outboundHeaders({ upstream }: Target, requestId: string): Record<string, string> {
  const { 'content-type': _type, 'accept-encoding': _encoding, ...headers } = upstream.headers
  return { ...headers, 'openai-beta': 'realtime=v1', 'x-aisix-request-id': requestId }
}

/** What to tell of an upstream that answers a handshake, and does not switch protocols. */
function refusedBy(
  input: Parameters<typeof failedAnswer>[0],
  target: Target,
  { status, headers, text }: Unexpected,
): Promise<GatewayError> | GatewayError {
  if (status < 300) {
    return new GatewayError('upstream_error', `upstream answered a WebSocket handshake with ${status}; check api_base`, {
      upstreamStatus: status,
    })
  }
  return failedAnswer(input, target, new Response(status < 400 ? null : text, { status, headers }))
}

/**
 * A browser asks no server before it opens a WebSocket elsewhere. Without keys, pages of any origin could talk to the models of
 * whoever looks at them; those that the operator named may.
 */
function refuseForeignPage({ gateway }: ProxyState, headers: Headers): void {
  const origin = headers.get('origin')
  const allowed = gateway.config.proxy.cors.allowed_origins
  if (origin === null || allowed.includes('*') || allowed.includes(origin)) return
  throw new GatewayError('permission_denied', 'pages of this origin need an API key, or a place in proxy.cors.allowed_origins')
}
