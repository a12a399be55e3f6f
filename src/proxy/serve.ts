import type { Exchange } from '../exchange.ts'
import type { Gateway } from '../gateway.ts'
import type { Answer, UpstreamStream } from './attempt.ts'
import { authenticate } from './authenticate.ts'
import { Caller } from './caller.ts'
import type { Dial } from './dial.ts'
import { dispatch } from './dispatch.ts'
import type { Endpoint } from './endpoints/endpoint.ts'
import { readBody, readQuestion } from './read.ts'
import { reply, replyStream } from './reply.ts'
import { resolve } from './resolve.ts'
import type { Router } from './route.ts'

/** The gateway, and what the proxy made ready of its configuration at the start. */
export type ProxyState = { gateway: Gateway; router: Router; dial: Dial; bodyBytesMax: number }

/** One request, caller to upstream and back. Each step returns what the next one needs, or throws a GatewayError. */
export async function serve(proxy: ProxyState, endpoint: Endpoint, request: Request, exchange: Exchange): Promise<Response> {
  const { gateway, router, dial } = proxy
  exchange.handler = endpoint.name
  const { snapshot } = gateway.store // one view of the configuration for the whole request
  const callerKey = authenticate(snapshot, request.headers, gateway.clock.now())
  exchange.apiKeyId = callerKey.entry.id
  const question = readQuestion(endpoint, request.headers, await readBody(request, proxy.bodyBytesMax))
  exchange.requestedModel = question.model
  exchange.requestBytes = question.bytes
  exchange.isStream = question.isStream
  const model = resolve(snapshot, callerKey, question.model, exchange.clientIp)
  exchange.model = model.entry.value.display_name
  exchange.modelId = model.entry.id
  exchange.provider = model.entry.value.provider
  const target = router.route(snapshot, model, callerKey)
  const caller = new Caller(request.signal)
  let isCommitted = false
  const answering = dispatch({
    dial,
    endpoint,
    question,
    target,
    callerHeaders: request.headers,
    exchange,
    caller,
    log: gateway.log,
    random: gateway.random,
    monotonic: gateway.clock.monotonic,
    isCommitted: () => isCommitted,
  })
  if (!question.isStream) return toResponse(proxy, exchange, endpoint, caller, await answering)

  const heartbeatMs = gateway.config.downstream.sse_keepalive_interval_secs * 1_000
  const first = await firstOf(answering, heartbeatMs)
  if (first) return toResponse(proxy, exchange, endpoint, caller, first)
  // Nothing came before the first heartbeat is due: the 200 goes out with it, and what follows is part of the stream.
  isCommitted = true
  return replyStream(gateway, exchange, endpoint, caller, answering.then(streamOf))
}

function toResponse({ gateway }: ProxyState, exchange: Exchange, endpoint: Endpoint, caller: Caller, answer: Answer): Response {
  return answer.kind === 'stream'
    ? replyStream(gateway, exchange, endpoint, caller, answer.stream)
    : reply(gateway, exchange, endpoint, answer)
}

function streamOf(answer: Answer): UpstreamStream {
  if (answer.kind !== 'stream') throw new Error('a streamed question got a whole answer')
  return answer.stream
}

/** The answer, or undefined when `ms` pass first; 0 waits for the answer. */
async function firstOf(answering: Promise<Answer>, ms: number): Promise<Answer | undefined> {
  if (ms <= 0) return await answering
  const { promise, resolve } = Promise.withResolvers<undefined>()
  const timer = setTimeout(resolve, ms)
  try {
    return await Promise.race([answering, promise])
  } finally {
    clearTimeout(timer)
  }
}
