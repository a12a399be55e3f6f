import type { Json } from '../dialects/dialect.ts'
import { GatewayError, invalidRequest } from '../errors.ts'
import { Capture, type Exchange } from '../exchange.ts'
import type { Gateway } from '../gateway.ts'
import { isHeaderValue } from '../wire/headers.ts'
import type { Admission } from './admit.ts'
import type { Answer, AnswerStream, Framer } from './answer.ts'
import { Caller } from './caller.ts'
import { promptOf } from './capture.ts'
import { choose } from './choose.ts'
import type { Dial } from './dial.ts'
import { type DispatchInput, dispatch } from './dispatch.ts'
import type { Endpoint } from './endpoints/endpoint.ts'
import { framerOf } from './framer.ts'
import type { Identify } from './identify.ts'
import type { BatchUsage } from './jobs/batch-usage.ts'
import { readJob } from './jobs/read.ts'
import { readBody, readQuestion } from './read.ts'
import { heartbeatMsOf, type Mark, reply, replyJson, replyStream } from './reply.ts'
import type { Route, Router } from './route.ts'
import { readUpload } from './upload.ts'

/** The gateway, and what the proxy made ready of its configuration at the start. */
export type ProxyState = {
  gateway: Gateway
  router: Router
  admission: Admission
  identify: Identify
  dial: Dial
  bodyBytesMax: number
  /** The same for forms, which are kept on the disk, in this folder. */
  uploadBytesMax: number
  uploadFolder: string
  batches: BatchUsage
  /** `clock.monotonic()` of the latest warning that a refused body could not be read away, by how that ended. */
  drainWarnings: Map<string, number>
}

/** One request, caller to upstream and back. Each step returns what the next one needs, or throws a GatewayError. */
export async function serve(proxy: ProxyState, endpoint: Endpoint, request: Request, exchange: Exchange): Promise<Response> {
  const { gateway, admission, dial } = proxy
  const { clock, config } = gateway
  exchange.handler = endpoint.name
  exchange.isCounted = endpoint.relay ? endpoint.relay.usage === 'estimated' : endpoint.count === undefined
  const { snapshot } = gateway.store // one view of the configuration for the whole request
  gateway.exporters.sync(snapshot)
  const callerKey = proxy.identify(snapshot, request.headers, exchange)
  const { form, job } = endpoint
  if (form && callerKey.entry.value.allowed_models.length === 0) {
    // Which model is meant stands in the form; where none can be, nobody has to send it, and no disk to keep it.
    throw new GatewayError('permission_denied', 'API key is not allowed to use any model')
  }
  const question = job
    ? await readJob(job, endpoint, request, exchange, snapshot, callerKey, proxy)
    : form
      ? await readUpload(form, request, exchange, proxy)
      : readQuestion(endpoint, request.headers, await readBody(request, proxy.bodyBytesMax))
  if (question.isStream && endpoint.relay?.refusesStreams) {
    throw invalidRequest('`stream` is not supported here', { param: 'stream' })
  }
  exchange.requestBytes = question.bytes
  exchange.isStream = question.isStream
  const { clientIp } = exchange
  const asker = { headers: request.headers, callerKey, clientIp }
  const alias = endpoint.aliasOf?.(snapshot, question.model) ?? question.model
  const { model, route, now } = choose(proxy, snapshot, asker, alias, exchange, endpoint)
  const body = question.callerBody
  let atOnce: Json | undefined
  try {
    if (body && endpoint.atOnce && !speaksNative(endpoint, route)) {
      atOnce = endpoint.atOnce(body, { alias: question.model, body, requestId: exchange.requestId, nowMs: now })
      // What is wrong in it is refused before anything is reserved for it.
      if (!atOnce) question.translate?.()
    }
    exchange.lease = admission.admit(snapshot, callerKey, model, alias, now)
  } catch (error) {
    // Whoever is refused takes no turn from those who are served.
    route.takeBack()
    throw error
  }
  if (atOnce) {
    route.takeBack()
    return replyJson(gateway, exchange, atOnce)
  }
  const unitsMax = gateway.exporters.isActive ? gateway.exporters.contentBytesMax(exchange.requestId) : 0
  if (unitsMax > 0) {
    exchange.capture = new Capture(unitsMax)
    exchange.capture.ask(promptOf(endpoint, question))
  }
  const caller = new Caller(request.signal)
  let isCommitted = false
  const input: DispatchInput = {
    dial,
    endpoint,
    question,
    route,
    admission,
    budgets: gateway.budgets,
    snapshot,
    callerKey,
    callerHeaders: request.headers,
    exchange,
    caller,
    log: gateway.log,
    now: clock.now,
    random: gateway.random,
    monotonic: clock.monotonic,
    retriesDefault: config.upstream.retries,
    isCommitted: () => isCommitted,
  }
  const answering = dispatch(input)
  const framer = () => framerOf(input)
  /** What the answer's head says besides the usual: who served a group, and how far the key's limits are used up. */
  const mark: Mark = (headers, isAnswered) => {
    if (exchange.group !== undefined && isAnswered && isHeaderValue(exchange.labels.model)) {
      headers['x-aisix-served-by'] = exchange.labels.model
    }
    const warning = body && exchange.isTranslated && endpoint.warning?.(body, exchange.labels.provider)
    if (warning) headers['x-aisix-warning'] = warning
    if (endpoint.hasCallId) admission.describe(callerKey, model, headers, clock.now())
  }
  if (!question.isStream) {
    const answer = await answering
    if (job?.tellsBatch && answer.kind === 'whole' && typeof answer.body === 'string') {
      proxy.batches.note({ text: answer.body, alias: question.model, snapshot, requestId: exchange.requestId, asker })
    }
    return toResponse(proxy, exchange, endpoint, caller, mark, framer, answer)
  }

  // Whether a relayed answer is a stream, its upstream decides: nothing goes out before its head is there.
  const first = await firstOf(answering, endpoint.relay ? 0 : heartbeatMsOf(gateway, endpoint))
  if (first) return toResponse(proxy, exchange, endpoint, caller, mark, framer, first)
  // Nothing came before the first heartbeat is due: the 200 goes out with it, and what follows is part of the stream.
  isCommitted = true
  return replyStream(gateway, exchange, endpoint, caller, mark, answering.then(streamOf), framer)
}

/** Whether the target that is tried first speaks the caller's own dialect. */
function speaksNative({ native }: Endpoint, { candidates, aim }: Route): boolean {
  const [first] = candidates
  if (!native || !first) return false
  try {
    return native.speaks(first.entry.value.provider, aim(first).upstream)
  } catch {
    // What is wrong with it, `dispatch` meets and tells.
    return false
  }
}

function toResponse(
  { gateway }: ProxyState,
  exchange: Exchange,
  endpoint: Endpoint,
  caller: Caller,
  mark: Mark,
  framer: () => Framer,
  answer: Answer,
): Response {
  return answer.kind === 'stream'
    ? replyStream(gateway, exchange, endpoint, caller, mark, answer.stream, framer)
    : reply(gateway, exchange, endpoint, mark, answer)
}

function streamOf(answer: Answer): AnswerStream {
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
