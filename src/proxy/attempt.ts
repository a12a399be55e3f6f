import type { ChunkTranslator } from '../adapters/adapter.ts'
import type { Asked, Dialect, StreamTranslator } from '../dialects/dialect.ts'
import { clientGone, GatewayError, invalidRequest, openAiEnvelope, toGatewayError, withoutWords } from '../errors.ts'
import { type Attempt, type Exchange, openAttempt } from '../exchange.ts'
import { type Deadline, type Expiring, startDeadline } from '../lib/deadlines.ts'
import type { Log } from '../lib/log.ts'
import type { CallerKey } from '../store/snapshot.ts'
import {
  binaryToUtf8,
  JsonDepthError,
  parseBounded,
  readMembers,
  setMember,
  stringifyBinary,
  toBinary,
  utf8ToBinary,
  writeMembers,
} from '../wire/members.ts'
import { SseReader } from '../wire/sse.ts'
import type { Caller, Waiting } from './caller.ts'
import { responseOf } from './capture.ts'
import { type Dial, errorCode, transportError } from './dial.ts'
import { encodeQuestion, fromUpstream, toUpstream } from './encode.ts'
import type { Endpoint, NativeRelay, TokenCount } from './endpoints/endpoint.ts'
import { encodeIds } from './jobs/ids.ts'
import { PulledStream } from './pulled-stream.ts'
import type { Question } from './question.ts'
import { isJson } from './read.ts'
import { noteOllama, RelayedLines } from './relayed-lines.ts'
import { RelayedStream } from './relayed-stream.ts'
import { noteSeconds, relayedUsage } from './relayed-usage.ts'
import { cutMessage, errorInside, rewriteAnswer, undecodable, upstreamWords } from './rewrite-answer.ts'
import { ChunkRewriter, DONE } from './rewrite-chunks.ts'
import type { Target } from './route.ts'
import { encodeUpload, type OutboundForm, type Upload } from './upload.ts'
import { addTemplated } from './upstream.ts'

/** A larger answer is not held: it is relayed as it is (spec/README, row 2). */
export const HELD_BYTES_MAX = 64 * 1024 * 1024
/** Bytes of a failed answer's body that are read for its message. */
const ERROR_BYTES_MAX = 64 * 1024
const AT_ONCE_BYTES_MAX = 1_048_576

export type Piece = { done: boolean; value?: Uint8Array | undefined }
export type Reader = { read(): Promise<Piece>; cancel(): Promise<void> }

/** What an upstream answered well. */
export type Answer =
  /** `head`: what its head says besides the usual, or in place of it. */
  | { kind: 'whole'; body: string | Uint8Array<ArrayBuffer>; head?: Record<string, string>; status?: number }
  /** Too large to hold: what was read, and the rest. */
  | { kind: 'large'; held: Uint8Array[]; reader: Reader; attempt: OpenAttempt; head?: Record<string, string> }
  | { kind: 'stream'; stream: AnswerStream }

/** A stream on its way to the caller. `read` gives binary text to send, until `isDone`. */
export type AnswerStream = {
  readonly isDone: boolean
  readonly framer: Framer
  read(): Promise<string>
  abort(reason: GatewayError): void
  release(): void
}

export type AttemptInput = {
  dial: Dial
  endpoint: Endpoint
  question: Question
  /** Headers of the caller, for the operator's allow-list. */
  callerHeaders: Headers
  exchange: Exchange
  callerKey: CallerKey
  caller: Caller
  log: Log
  monotonic: () => number
  /** Epoch milliseconds. */
  now: () => number
}

/** One fetch under one controller: the caller, the deadline and the connect watch all end it through here. */
export class OpenAttempt implements Expiring, Waiting {
  private readonly controller = new AbortController()
  private deadline: Deadline | undefined
  /** Why it was ended from our side. */
  reason: GatewayError | undefined

  constructor(private readonly caller: Caller) {
    caller.tell(this)
  }

  get signal(): AbortSignal {
    return this.controller.signal
  }

  abort(reason: GatewayError): void {
    this.reason ??= reason
    this.disarm()
    this.controller.abort()
  }

  onCallerGone(): void {
    this.abort(clientGone())
  }

  onDeadline(ms: number): void {
    this.deadline = undefined
    this.abort(timedOut(ms))
  }

  /** Sets the deadline anew; 0 is none. */
  arm(ms: number): void {
    this.disarm()
    if (ms > 0) this.deadline = startDeadline(ms, this)
  }

  disarm(): void {
    this.deadline?.cancel()
    this.deadline = undefined
  }

  /** The attempt is over: nothing may end it any more. */
  release(): void {
    this.disarm()
    this.caller.tell(undefined)
  }

  /** An error of reading or connecting in our words: ours where we ended it. */
  explain(error: unknown): GatewayError {
    if (this.reason) return this.reason
    // What the network did has a code; what has none is a mistake of ours, and must not pass for the upstream's. An error
    // in our words may have a code too: the one that the upstream told.
    return error instanceof GatewayError || errorCode(error) === '' ? toGatewayError(error) : transportError(error)
  }
}

export function timedOut(ms: number): GatewayError {
  return new GatewayError('timeout', `upstream request timed out after ${ms}ms`, { retry: 'if-configured' })
}

/**
 * One try at one target: one fetch, one deadline.
 * throws: GatewayError, whose `retry` says whether another try may help
 */
export async function attempt(input: AttemptInput, target: Target, kind: Attempt['kind']): Promise<Answer> {
  const { endpoint, question, exchange, caller } = input
  const { upstream } = target
  const native = endpoint.native?.speaks(target.provider, upstream) ? endpoint.native : undefined
  const base = upstream.urls[native?.operation ?? endpoint.operation]
  const url = base !== undefined && question.call ? base + question.call.suffix : base
  const refusal = endpoint.relay?.refusal?.(target.provider, question.model)
  if (refusal !== undefined) throw invalidRequest(refusal)
  const count = native ? undefined : endpoint.count
  if (count && !upstream.countsTokens) return estimatedCount(count, chatText(question))
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
      if (count && response.status < 500 && ![401, 403, 429].includes(response.status)) {
        // Servers without this endpoint, and those that cannot count a chat.
        if ([404, 405].includes(response.status)) upstream.countsTokens = false
        open.release()
        return estimatedCount(count, chatText(question))
      }
      throw error
    }
    if (native && question.isStream) return await openNative(native.shape, input, target, response, open, record)
    const { events } = endpoint.relay ?? {}
    if (events && mediaType(response) === 'text/event-stream') {
      return await openNative(events, input, target, response, open, record)
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
    const known = open.explain(error)
    record.errorKind = known.kind
    record.errorMessage = known.recorded
    record.status = known.upstreamStatus ?? known.status
    // The body of a failed answer may still be under way: nobody reads it.
    open.abort(known)
    caller.tell(undefined)
    throw known
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
  shape: NativeRelay['shape'],
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
  const stream =
    shape === 'lines'
      ? new RelayedLines(reader, open, silenceMs, framer, exchange, input.question.model)
      : new RelayedStream(reader, open, silenceMs, framer, shape.stream(exchange))
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
  if (endpoint.relay?.isStreamed) {
    const declared = response.headers.get('content-length')
    if (declared !== null && !response.headers.has('content-encoding')) head['content-length'] = declared
    const reader = response.body?.getReader()
    if (reader) {
      record.firstEventMs = monotonic() - record.startedAt
      exchange.member?.measured(record.firstEventMs)
      exchange.hasAnswered = true
      return { kind: 'large', held: [], reader, attempt: open, head }
    }
  }
  const body = isShort ? new Uint8Array(await response.arrayBuffer()) : await readHeldBytes(response, open)
  if ('held' in body) {
    exchange.hasAnswered = true
    return { ...body, head }
  }
  open.release()
  exchange.member?.measured(monotonic() - record.startedAt)
  if (endpoint.job) {
    const text = isJson(head['content-type'] ?? null) ? encodeIds(decoder.decode(body), question.model) : body
    return { kind: 'whole', body: text, head, status: response.status }
  }
  if (native) return { kind: 'whole', body: nativeAnswer(native, body, exchange, target.upstreamModel, question.model), head }
  const mayTell = endpoint.relay?.usage !== 'none' && body.byteLength <= AT_ONCE_BYTES_MAX && isJson(head['content-type'] ?? null)
  if (mayTell) noteTold(exchange, body)
  if (endpoint.form?.isRecording && question.upload && !exchange.usage && exchange.extra?.audioSeconds === undefined) {
    await noteRecording(exchange, question.upload)
  }
  return { kind: 'whole', body, head }
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

function askedOf({ question, exchange, now }: AttemptInput): Asked {
  return { alias: question.model, body: question.callerBody ?? {}, requestId: exchange.requestId, nowMs: now() }
}

/** How chunks of chat go out to a caller. */
export type Framer = {
  /** in, out: binary text; '' where there is nothing to send */
  chunk(data: string): string
  end(): string
  /** What ends a stream that broke. */
  error(error: GatewayError): string
}

const CHAT_FRAMER: Framer = {
  // A line break in JSON is white space, but would end the `data` line: an event that came in several lines goes out in one.
  chunk: data => `data: ${data.includes('\n') ? data.replaceAll('\n', ' ') : data}\n\n`,
  end: () => `data: ${DONE}\n\n`,
  error(error) {
    const { message, type, code } = openAiEnvelope(error).error
    const document = { error: { message, type, ...(code === undefined ? {} : { code }) } }
    return utf8ToBinary(`event: error\ndata: ${JSON.stringify(document)}\n\n`)
  },
}

function translatingFramer(translator: StreamTranslator): Framer {
  return {
    chunk: data => utf8ToBinary(translator.chunk({ ...Object(parseBounded(binaryToUtf8(data))) })),
    end: () => utf8ToBinary(translator.end()),
    error: error => utf8ToBinary(translator.error(error)),
  }
}

/** How the stream of a request goes out: also of one that broke before its upstream answered. */
export function framerOf(input: AttemptInput): Framer {
  const { dialect } = input.endpoint
  return dialect ? translatingFramer(dialect.stream(askedOf(input))) : CHAT_FRAMER
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

/** What is sent: the caller's own body to a target that speaks its dialect, else the chat request that it stands for. */
function bodyFor(
  { endpoint, question }: AttemptInput,
  target: Target,
  asksUsage: boolean,
  isNative: boolean,
): string | OutboundForm {
  const { upstream, upstreamModel } = target
  // What a server keeps has no model, and no members that operators change.
  if (question.call) return question.upload ? encodeUpload(question.upload, undefined, undefined) : question.text
  if (question.upload) return encodeUpload(question.upload, upstreamModel, upstream.overrides)
  if (isNative)
    return encodeQuestion({ ...endpoint, alwaysSendsStream: false }, question, upstreamModel, upstream.overrides, false)
  const chat = question.translate?.() ?? question
  const text = encodeQuestion(endpoint, chat, upstreamModel, upstream.overrides, asksUsage)
  return toUpstream(upstream.adapter, endpoint.operation, text)
}

/** The gateway's own headers, then the operator's, then those of the caller's that the operator lets through. */
function outboundHeaders(
  { exchange, question, callerHeaders, callerKey }: AttemptInput,
  target: Target,
  native: NativeRelay | undefined,
  form: OutboundForm | undefined,
): Record<string, string> | (() => Headers) {
  const { upstream } = target
  const isMessages = native?.operation === 'messages' || native?.operation === 'count_tokens'
  if (!isMessages && !form && upstream.templates.length === 0 && !upstream.forwarded) {
    const ready = question.isStream ? upstream.ready.stream : upstream.ready.whole
    return () => {
      ready.set('x-aisix-request-id', exchange.requestId)
      return ready
    }
  }
  const headers: Record<string, string> = { ...upstream.headers, 'x-aisix-request-id': exchange.requestId }
  if (isMessages) {
    delete headers.authorization
    Object.assign(headers, upstream.messagesHeaders)
  }
  if (form) {
    headers['content-type'] = question.upload?.contentType ?? ''
    headers['content-length'] = String(form.bytes)
  }
  if (question.isStream) headers.accept = 'text/event-stream'
  if (upstream.templates.length > 0) {
    const { entry } = callerKey
    addTemplated(headers, upstream, {
      'request.id': exchange.requestId,
      'request.api_key.id': entry.id,
      'request.api_key.name': entry.value.display_name,
      'request.api_key.team_id': entry.value.team_id,
      'request.api_key.user_id': entry.value.user_id,
      'model.id': target.modelId,
      'model.name': target.model,
      'provider_key.id': upstream.id,
      'provider_key.name': upstream.name,
    })
  }
  if (upstream.forwarded) {
    for (const [name, value] of upstream.forwarded(callerHeaders)) {
      if (headers[name] === undefined || (name === 'user-agent' && headers[name] === upstream.headers[name]))
        headers[name] = value
    }
  }
  headers.accept ??= 'application/json'
  return headers
}

/** What to tell of an answer that is no 2xx (proxy-01 §8, upstream-caused errors). */
async function failedAnswer(input: AttemptInput, target: Target, response: Response): Promise<GatewayError> {
  const { status } = response
  const text = await readSome(response, ERROR_BYTES_MAX)
  const retryAfterSecs = wholeSeconds(response.headers.get('retry-after'))
  if (status >= 300 && status < 400) {
    return new GatewayError('upstream_error', `upstream returned ${status}; redirects are not followed; check api_base`, {
      upstreamStatus: status,
      retryAfterSecs,
    })
  }
  if (status >= 400 && status < 500) {
    const told = upstreamWords(target.upstream.adapter, text)
    return new GatewayError('upstream_error', cutMessage(told?.message ?? (text.trim() || `upstream returned ${status}`)), {
      status,
      code: told?.code,
      param: told?.param,
      recorded: withoutWords(`upstream returned ${status}`, told?.code),
      upstreamStatus: status,
      retryAfterSecs,
    })
  }
  // The text of a 5xx may hold anything: the log has its beginning, the caller is told where to look.
  input.log.as('upstream').warn('upstream answered with an error', {
    request_id: input.exchange.requestId,
    model: target.model,
    provider_key: target.upstream.name,
    status,
    body: cutMessage(text),
  })
  return new GatewayError(
    'upstream_error',
    `upstream returned ${status}; the gateway's log has its answer under this request id`,
    {
      upstreamStatus: status,
      retryAfterSecs,
      retry: 'yes',
    },
  )
}

/** Longest time that a header may tell: what is longer means the same to anybody who waits. */
const SECONDS_MAX = 999_999_999

export function wholeSeconds(header: string | null): number | undefined {
  return header !== null && /^\d+$/.test(header.trim()) ? Math.min(Number(header.trim()), SECONDS_MAX) : undefined
}

/**
 * Milliseconds that the words of a failed answer may take. Of a 5xx only the log hears them, and another target may be there to
 * answer; of a 4xx the caller does.
 */
const WORDS_MS = { server: 1_000, caller: 10_000 }

/** The beginning of a body as text; what follows, or does not come in time, is left unread. */
async function readSome(response: Response, max: number): Promise<string> {
  const reader = response.body?.getReader()
  if (!reader) return ''
  const pieces: Uint8Array[] = []
  let length = 0
  const ms = response.status >= 500 ? WORDS_MS.server : WORDS_MS.caller
  const deadline = startDeadline(ms, { onDeadline: () => reader.cancel().catch(() => {}) })
  try {
    while (length < max) {
      const { done, value } = await reader.read()
      if (done) break
      pieces.push(value)
      length += value.byteLength
    }
    if (length >= max) reader.cancel().catch(() => {})
  } catch {
    // What has come is enough to tell.
  } finally {
    deadline.cancel()
  }
  return Buffer.concat(pieces).subarray(0, max).toString('utf8')
}

function mediaType(response: Response): string {
  return (response.headers.get('content-type') ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? ''
}

/** As `text()` of a response: a byte order mark is stripped, what is no UTF-8 replaced. */
const decoder = new TextDecoder()

/** A long body, or one of unknown length: its text, or what was read and the rest when it is too large to hold. */
async function readHeld(response: Response, open: OpenAttempt): Promise<string | Extract<Answer, { kind: 'large' }>> {
  const held = await readHeldBytes(response, open)
  return 'held' in held ? held : decoder.decode(held)
}

async function readHeldBytes(
  response: Response,
  open: OpenAttempt,
): Promise<Uint8Array<ArrayBuffer> | Extract<Answer, { kind: 'large' }>> {
  const reader = response.body?.getReader()
  if (!reader) return new Uint8Array()
  const pieces: Uint8Array[] = []
  let length = 0
  while (length <= HELD_BYTES_MAX) {
    const { done, value } = await reader.read()
    if (done) return Buffer.concat(pieces, length)
    pieces.push(value)
    length += value.byteLength
  }
  return { kind: 'large', held: pieces, reader, attempt: open }
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

/**
 * An upstream's stream, rewritten. `read` gives binary text to send, until `isDone`.
 * Ends: `[DONE]`, or a clean end of the body; anything else throws.
 */
class UpstreamStream extends PulledStream {
  private readonly events = new SseReader()
  /** Where the upstream speaks another dialect than chat. */
  private readonly chunks: ChunkTranslator | undefined
  private readonly onData = (data: string, isTerminated = true) => {
    if (this.rewriter.isDone) return
    if (this.chunks) return this.translate(this.chunks, data)
    const rewritten = this.rewriter.rewrite(data, isTerminated)
    if (rewritten !== undefined) this.ready += this.framer.chunk(rewritten)
  }

  constructor(
    reader: Reader,
    private readonly rewriter: ChunkRewriter,
    open: OpenAttempt,
    private readonly target: Target,
    private readonly input: AttemptInput,
    framer: Framer,
  ) {
    super(reader, open, target.streamTimeoutMs, framer)
    this.chunks = target.upstream.adapter.chat?.chunks(input.now())
  }

  /** An event of another dialect, as chunks of chat. */
  private translate(chunks: ChunkTranslator, data: string): void {
    let event: unknown
    try {
      event = parseBounded(binaryToUtf8(data))
    } catch {
      throw new GatewayError('upstream_decode_error', 'upstream sent an unparseable stream event: not whole JSON', {
        retry: 'yes',
      })
    }
    for (const chunk of chunks.event({ ...Object(event) })) {
      const rewritten = this.rewriter.rewrite(stringifyBinary(chunk))
      if (rewritten !== undefined) this.ready += this.framer.chunk(rewritten)
    }
    if (chunks.isDone) this.rewriter.rewrite(DONE)
  }

  override async readFirst(): Promise<void> {
    await super.readFirst()
    if (this.rewriter.events === 0 && !this.rewriter.isDone) {
      throw new GatewayError('stream_aborted', 'upstream closed the stream before anything arrived', { retry: 'yes' })
    }
  }

  protected accept(piece: Piece): void {
    if (piece.value && piece.value.byteLength > 0) this.events.push(toBinary(piece.value), this.onData)
    if (piece.done && !this.rewriter.isDone) this.events.end(data => this.onData(data, false))
    if (piece.done && this.chunks && !this.rewriter.isDone) {
      throw (
        this.open.reason ??
        new GatewayError('stream_aborted', 'upstream ended the stream before its last event', { retry: 'yes' })
      )
    }
    if (piece.done && !this.rewriter.isDone) {
      // A body that ends while we end it ourselves is no clean end.
      if (this.open.reason) throw this.open.reason
      if (this.rewriter.events > 0 && this.target.upstream.doneMarker === 'required') {
        this.input.log.as('upstream').warn('stream ended without [DONE]', {
          request_id: this.input.exchange.requestId,
          provider_key: this.target.upstream.name,
        })
      }
    }
    if (piece.done || this.rewriter.isDone) {
      if (this.rewriter.events > 0 || this.rewriter.isDone) this.ready += this.framer.end()
      this.isDone = true
      if (!piece.done) this.drain()
    }
  }

  /** After `[DONE]` the body ends by itself, as a rule at once: its connection can then serve again. If not, it is cut. */
  private drain(): void {
    const timer = setTimeout(() => this.open.abort(new GatewayError('stream_aborted', 'upstream went on after [DONE]')), 1_000)
    const next = (): Promise<void> => this.reader.read().then(({ done }) => (done ? undefined : next()))
    next()
      .catch(() => {})
      .finally(() => clearTimeout(timer))
  }
}
