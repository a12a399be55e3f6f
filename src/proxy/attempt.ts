import type { Dialect } from '../dialects/dialect.ts'
import { clientGone, GatewayError, invalidRequest } from '../errors.ts'
import { type Attempt, type Exchange, openAttempt } from '../exchange.ts'
import { JsonDepthError, parseBounded, readMembers, setMember, writeMembers } from '../wire/members.ts'
import type { Answer } from './answer.ts'
import { type AttemptInput, askedOf } from './attempt-input.ts'
import { responseOf } from './capture.ts'
import { fromUpstream } from './encode.ts'
import type { NativeRelay, TokenCount } from './endpoints/endpoint.ts'
import { failedAnswer } from './failed-answer.ts'
import { framerOf } from './framer.ts'
import { decoder, ERROR_BYTES_MAX, HELD_BYTES_MAX, mediaType, readHeld, readHeldBytes, readSome } from './held.ts'
import { encodeIds } from './jobs/ids.ts'
import { OpenAttempt } from './open-attempt.ts'
import { bodyFor, outboundHeaders } from './outbound.ts'
import type { Question } from './question.ts'
import { isJson } from './read.ts'
import { noteOllama, RelayedLines } from './relayed-lines.ts'
import { RelayedStream } from './relayed-stream.ts'
import { noteSeconds, relayedUsage } from './relayed-usage.ts'
import { errorInside, rewriteAnswer, undecodable } from './rewrite-answer.ts'
import { ChunkRewriter } from './rewrite-chunks.ts'
import type { Target } from './route.ts'
import type { Upload } from './upload.ts'
import { UpstreamStream } from './upstream-stream.ts'

/** A body up to this length that says how long it is, is read in one go. */
const AT_ONCE_BYTES_MAX = 1_048_576

/**
 * One try at one target: one fetch, one deadline.
 * throws: GatewayError, whose `retry` says whether another try may help
 */
export async function attempt(input: AttemptInput, target: Target, kind: Attempt['kind']): Promise<Answer> {
  const { endpoint, question, exchange, caller } = input
  const { upstream } = target
  const native = endpoint.native?.speaks(target.provider, upstream) ? endpoint.native : undefined
  exchange.isTranslated = endpoint.dialect !== undefined && native === undefined
  const base = upstream.urls[native?.operation ?? endpoint.operation]
  const url = base !== undefined && question.call ? base + question.call.suffix : base
  const refusal = endpoint.relay?.refusal?.(target.provider, question.model)
  if (refusal !== undefined) throw invalidRequest(refusal)
  const count = native ? undefined : endpoint.count
  if (count && (!upstream.countsTokens || upstream.uncounted.has(target.upstreamModel, input.monotonic()))) {
    return estimatedCount(count, chatText(question))
  }
  if (url === undefined) throw new GatewayError('not_implemented', `this provider does not support ${endpoint.noun}`)
  // Before the record of the attempt, which would count as one that reached out to the upstream.
  if (!native) question.translate?.()
  if (caller.isGone) throw clientGone()
  const record = openAttempt(exchange, kind, target.price, input.monotonic())
  const open = new OpenAttempt(caller)
  try {
    open.arm(question.isStream ? target.streamTimeoutMs : target.timeoutMs)
    const asksUsage = !native && question.isStream && !question.hasStreamOptions && upstream.asksUsage
    const response = await send(input, target, url, open, asksUsage, native)
    record.status = response.status
    if (!response.ok) {
      const error = await failedAnswer(input, target, response)
      if (
        asksUsage &&
        (response.status === 400 || response.status === 422) &&
        /stream_options|include_usage/.test(error.message)
      ) {
        // An older server: it is asked once more without, and from then on never.
        upstream.asksUsage = false
        open.release()
        exchange.attempts.pop()
        return await attempt(input, target, kind)
      }
      const { status } = response
      const hasNoCount = [404, 405, 501].includes(status)
      if (count && (hasNoCount || (status < 500 && ![401, 403, 429].includes(status)))) {
        // Servers without this endpoint, and those that cannot count a chat.
        if (hasNoCount) upstream.uncounted.add(target.upstreamModel, input.monotonic())
        open.release()
        return estimatedCount(count, chatText(question))
      }
      throw error
    }
    if (native && question.isStream) return await openNative(native, input, target, response, open, record)
    const { events } = endpoint.relay ?? {}
    if (events && mediaType(response) === 'text/event-stream') {
      return await openNative({ shape: events, renames: false }, input, target, response, open, record)
    }
    // It was asked for a stream, and has none.
    if (endpoint.relay) exchange.isStream = false
    if (question.isStream && !endpoint.relay) return await openStream(input, target, response, open, record)
    const declared = response.headers.get('content-length')
    // The usual answer is short and says so: it is read in one go. The length of a compressed one says nothing.
    const isShort = declared !== null && Number(declared) <= AT_ONCE_BYTES_MAX && !response.headers.has('content-encoding')
    if (count) return await counted(count, chatText(question), await response.text(), open)
    if (native || endpoint.relay) return await relayed(input, target, response, open, isShort, record, native)
    const held = isShort ? await response.text() : await readHeld(response, open)
    if (typeof held !== 'string') {
      if (endpoint.dialect) {
        held.reader.cancel().catch(() => {})
        throw undecodable(`it is larger than the ${HELD_BYTES_MAX} bytes that can be translated`)
      }
      exchange.hasAnswered = true
      return held
    }
    const chat = fromUpstream(upstream.adapter, endpoint.operation, held, input.now())
    const answer = rewriteAnswer(endpoint, upstream.adapter, question.model, chat)
    open.release()
    exchange.member?.measured(input.monotonic() - record.startedAt)
    record.providerRequestId = answer.id
    record.providerModelVersion = answer.model
    exchange.usage = answer.usage
    exchange.finishReason = answer.finishReason
    if (endpoint.operation !== 'embeddings') exchange.contentBytes = answer.contentBytes
    exchange.capture?.answer(responseOf(endpoint, answer.text))
    return { kind: 'whole', body: endpoint.dialect ? translateAnswer(endpoint.dialect, answer.text, input) : answer.text }
  } catch (error) {
    throw open.fail(record, error)
  } finally {
    record.endedAt = input.monotonic()
  }
}

/**
 * A whole answer in the dialect that both sides speak, noted; `model` is the caller's alias where it was the upstream's name.
 * throws: upstream_decode_error where it is no JSON
 */
function nativeAnswer(
  { shape, renames }: NativeRelay,
  body: Uint8Array<ArrayBuffer>,
  exchange: Exchange,
  upstreamModel: string,
  alias: string,
): string | Uint8Array<ArrayBuffer> {
  const text = decoder.decode(body)
  let document: unknown
  try {
    document = JSON.parse(text)
  } catch {
    throw undecodable('it is not whole JSON')
  }
  if (typeof document !== 'object' || document === null || Array.isArray(document)) throw undecodable('it is no object')
  if (shape === 'lines') noteOllama(document, exchange)
  else shape.whole(document, exchange)
  if (!renames || Reflect.get(document, 'model') !== upstreamModel) return body
  const members = readMembers(text)
  setMember(members, 'model', JSON.stringify(alias))
  return writeMembers(members)
}

/** A stream in the dialect that both sides speak. */
async function openNative(
  { shape, renames }: Pick<NativeRelay, 'shape' | 'renames'>,
  input: AttemptInput,
  target: Target,
  response: Response,
  open: OpenAttempt,
  record: Attempt,
): Promise<Answer> {
  const { exchange } = input
  const wanted = shape === 'lines' ? 'application/x-ndjson' : 'text/event-stream'
  if (mediaType(response) !== wanted) {
    throw undecodable(`a stream of ${wanted} was asked for, ${mediaType(response) || 'something else'} came`)
  }
  const reader = response.body?.getReader()
  if (!reader) throw new GatewayError('stream_aborted', 'upstream closed the stream before anything arrived', { retry: 'yes' })
  const silenceMs = target.streamTimeoutMs
  const framer = framerOf(input)
  const names = { upstream: target.upstreamModel, alias: input.question.model }
  const stream =
    shape === 'lines'
      ? new RelayedLines(reader, open, silenceMs, framer, exchange, input.question.model)
      : new RelayedStream(reader, open, silenceMs, framer, shape.stream(exchange, renames ? names : undefined))
  await stream.readFirst()
  record.firstEventMs = input.monotonic() - record.startedAt
  exchange.member?.measured(record.firstEventMs)
  exchange.hasAnswered = true
  return { kind: 'stream', stream }
}

/** The question as a chat request. */
function chatText(question: Question): string {
  return (question.translate?.() ?? question).text
}

/** The engine's own count; an estimate where its answer tells none. */
async function counted(count: TokenCount, question: string, answer: string, open: OpenAttempt): Promise<Answer> {
  open.release()
  let document: unknown
  try {
    document = count.answer(JSON.parse(answer))
  } catch {
    // It counts in another form: as if it did not.
  }
  return document === undefined ? estimatedCount(count, question) : { kind: 'whole', body: JSON.stringify(document) }
}

function estimatedCount(count: TokenCount, question: string): Answer {
  return { kind: 'whole', body: JSON.stringify(count.estimate(question)), head: { 'x-aisix-estimated': 'true' } }
}

/** An answer that goes out as it came. What it says of its usage is read where it is JSON of a usual length. */
async function relayed(
  { endpoint, exchange, question, monotonic }: AttemptInput,
  target: Target,
  response: Response,
  open: OpenAttempt,
  isShort: boolean,
  record: Attempt,
  native: NativeRelay | undefined,
): Promise<Answer> {
  const head: Record<string, string> = { 'content-type': response.headers.get('content-type') ?? 'application/octet-stream' }
  // The caller is told the status that its server told: of a relay the gateway has none of its own.
  const status = endpoint.relay ? response.status : 200
  const reader = endpoint.relay?.isStreamed && !isShort ? response.body?.getReader() : undefined
  if (reader) {
    // Until its first bytes are there the answer can still become an error, or another one.
    const { done, value } = await reader.read()
    record.firstEventMs = monotonic() - record.startedAt
    exchange.member?.measured(record.firstEventMs)
    exchange.hasAnswered = true
    return { kind: 'large', held: done || !value ? [] : [value], reader, attempt: open, head, status }
  }
  const body = isShort ? new Uint8Array(await response.arrayBuffer()) : await readHeldBytes(response, open)
  if ('held' in body) {
    exchange.hasAnswered = true
    return { ...body, head, status }
  }
  open.release()
  exchange.member?.measured(monotonic() - record.startedAt)
  if (endpoint.job) {
    const text = isJson(head['content-type'] ?? null) ? encodeIds(decoder.decode(body), question.model) : body
    return { kind: 'whole', body: text, head, status }
  }
  if (native) return { kind: 'whole', body: nativeAnswer(native, body, exchange, target.upstreamModel, question.model), head }
  const mayTell = endpoint.relay?.usage !== 'none' && body.byteLength <= AT_ONCE_BYTES_MAX && isJson(head['content-type'] ?? null)
  if (mayTell) noteTold(exchange, body)
  if (endpoint.form?.isRecording && question.upload && !exchange.usage && exchange.extra?.audioSeconds === undefined) {
    await noteRecording(exchange, question.upload)
  }
  return { kind: 'whole', body, head, status }
}

/** What an answer that is relayed says of its usage. */
function noteTold(exchange: Exchange, body: Uint8Array): void {
  let document: unknown
  try {
    document = JSON.parse(decoder.decode(body))
  } catch {
    // It is relayed as it is: what it may say, its caller is told.
    return
  }
  exchange.usage = relayedUsage(document)
  noteSeconds(exchange, document)
}

/** How long a recording is, where its server tells neither that nor tokens. */
async function noteRecording(exchange: Exchange, upload: Upload): Promise<void> {
  // Loaded when the first server leaves it to us, since most do not.
  const { recordedSeconds } = await import('./recording.ts')
  const audioSeconds = await recordedSeconds(upload)
  if (audioSeconds !== undefined) exchange.extra = { ...exchange.extra, audioSeconds }
}

/** The answer in the caller's dialect. in: the text of a chat answer */
function translateAnswer(dialect: Dialect, text: string, input: AttemptInput): string {
  let chat: unknown
  try {
    chat = parseBounded(text)
  } catch (error) {
    throw undecodable(error instanceof JsonDepthError ? error.message : 'it is not whole JSON')
  }
  return JSON.stringify(dialect.answer({ ...Object(chat) }, askedOf(input)))
}

function send(
  input: AttemptInput,
  target: Target,
  url: string,
  open: OpenAttempt,
  asksUsage: boolean,
  native: NativeRelay | undefined,
): Promise<Response> {
  const { question, dial } = input
  const { upstream } = target
  const body = bodyFor(input, target, asksUsage, native !== undefined)
  return dial({
    url,
    origin: upstream.origin,
    hostname: upstream.hostname,
    port: upstream.port,
    tls: upstream.tls,
    ...(question.call && { method: question.call.method, isOneShot: question.call.method !== 'GET' }),
    headers: outboundHeaders(input, target, native, typeof body === 'string' ? undefined : body),
    ...(question.call?.hasBody === false ? {} : { body: typeof body === 'string' ? body : () => body.stream() }),
    isStream: question.isStream,
    signal: open.signal,
    onUnreachable: error => open.abort(error),
  })
}

async function openStream(
  input: AttemptInput,
  target: Target,
  response: Response,
  open: OpenAttempt,
  record: Attempt,
): Promise<Answer> {
  const { endpoint, question, exchange } = input
  const { adapter } = target.upstream
  if (mediaType(response) !== 'text/event-stream') {
    const text = await readSome(response, ERROR_BYTES_MAX)
    throw (
      errorInside(adapter, text) ?? undecodable(`an event stream was asked for, ${mediaType(response) || 'something else'} came`)
    )
  }
  const reader = response.body?.getReader()
  if (!reader) throw new GatewayError('stream_aborted', 'upstream closed the stream before anything arrived', { retry: 'yes' })
  const options = {
    adapter,
    alias: question.model,
    includeUsage: question.includeUsage,
    reasoningPath:
      endpoint.operation === 'chat' ? target.upstream.reasoningPath?.filter((name, at) => at > 0 || name !== 'delta') : undefined,
  }
  const stream = new UpstreamStream(reader, new ChunkRewriter(options, exchange), open, target, input, framerOf(input))
  // The head of the answer is held until the first event: until then another try can still be made.
  await stream.readFirst()
  record.firstEventMs = input.monotonic() - record.startedAt
  exchange.member?.measured(record.firstEventMs)
  exchange.hasAnswered = true
  return { kind: 'stream', stream }
}
