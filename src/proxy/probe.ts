import { GatewayError } from '../errors.ts'
import type { CheckResult } from '../model-health.ts'
import { type BackgroundModelCheck, checkMode } from '../resources/model.ts'
import type { DirectEntry } from '../store/snapshot.ts'
import type { Entry } from '../store/store.ts'
import { scanMembers } from '../wire/members.ts'
import { Caller } from './caller.ts'
import type { Dial } from './dial.ts'
import { encodeQuestion, fromUpstream, toUpstream } from './encode.ts'
import { chatCompletions } from './endpoints/chat-completions.ts'
import { OpenAttempt } from './open-attempt.ts'
import { cutMessage, rewriteAnswer, upstreamWords } from './rewrite-answer.ts'
import { addTemplated, type Upstream } from './upstream.ts'

/** The model that a check asks for, and where. */
export type ProbeTarget = {
  entry: DirectEntry
  check: BackgroundModelCheck
  providerKey: Entry<'provider_keys'>
  upstream: Upstream
}

/** What came of a check; `error` tells the log why it did not pass. */
export type Probed = { result: CheckResult; error: GatewayError | undefined }

/** Of an answer to a completion; what a check asks for is short. */
const ANSWER_BYTES_MAX = 8 * 1024 * 1024
/** Of any other answer: enough for an upstream's words. What follows is cut off with its connection. */
const WORDS_BYTES_MAX = 64 * 1024
/** Longest time that the runtime's timers can be set to. */
const DEADLINE_MS_MAX = 2_147_483_647

/**
 * One check of one model: asks its upstream, within one deadline, and judges the answers. Nothing is retried and no
 * redirect followed; when it is over, nothing of it is open.
 * throws: client_disconnected when `signal` ended it, internal_error for a mistake of ours: neither says anything of the upstream
 * source: proxy-05 §5; `endpoint`: spec/README, row 19
 */
export async function probe(dial: Dial, target: ProbeTarget, signal: AbortSignal): Promise<Probed> {
  const { check } = target
  const open = new OpenAttempt(new Caller(signal))
  const asking = new Asking(dial, target, open)
  open.arm(Math.min(check.timeout_seconds * 1_000, DEADLINE_MS_MAX))
  try {
    if (signal.aborted) throw open.explain(undefined)
    return checkMode(check) === 'completion' ? await askCompletion(asking, target) : await askEndpoints(asking, target)
  } catch (thrown) {
    const error = open.explain(thrown)
    if (error.kind === 'client_disconnected' || error.kind === 'internal_error') throw error
    const status = error.kind === 'timeout' ? 408 : (error.upstreamStatus ?? asking.heard)
    return judged(check, status, error)
  } finally {
    // Whatever is still under way, the rest of a long answer for one, ends here.
    open.abort(new GatewayError('stream_aborted', 'the check is over'))
    open.release()
  }
}

/** The requests of one check. */
class Asking {
  /** Status of the last request's answer, undefined while there is none. */
  heard: number | undefined

  constructor(
    private readonly dial: Dial,
    private readonly target: ProbeTarget,
    private readonly open: OpenAttempt,
  ) {}

  async send(url: string, headers: Record<string, string>, body?: string): Promise<Response> {
    const { origin, hostname, port, tls } = this.target.upstream
    this.heard = undefined
    const response = await this.dial({
      url,
      origin,
      hostname,
      port,
      tls,
      headers: { accept: 'application/json', ...headers },
      ...(body === undefined ? { method: 'GET' } : { body }),
      isStream: false,
      signal: this.open.signal,
      onUnreachable: error => this.open.abort(error),
    })
    this.heard = response.status
    return response
  }
}

/** A chat request as a caller would send it, `stream` off, with everything that the provider key changes in requests. */
async function askCompletion(asking: Asking, { entry, check, upstream, providerKey }: ProbeTarget): Promise<Probed> {
  const url = upstream.urls.chat
  if (url === undefined) throw new GatewayError('not_implemented', 'this provider does not support chat completions')
  const { display_name: alias, model_name } = entry.value
  const messages = [{ role: 'user', content: check.prompt }]
  const text = JSON.stringify({ model: alias, messages, max_tokens: check.max_tokens })
  const question = {
    text,
    callerBody: undefined,
    translate: undefined,
    upload: undefined,
    spans: scanMembers(text),
    model: alias,
    isStream: false,
    includeUsage: false,
    hasStreamOptions: false,
    bytes: Buffer.byteLength(text),
  }
  const { adapter } = upstream
  const body = toUpstream(adapter, 'chat', encodeQuestion(chatCompletions, question, model_name, upstream.overrides, false))
  const response = await asking.send(url, ownHeaders(entry, providerKey, upstream), body)
  const { ok, status } = response
  const answer = await readStart(response, ok ? ANSWER_BYTES_MAX : WORDS_BYTES_MAX)
  if (!ok) return judged(check, status, answeredBadly(upstream, status, answer))
  // What a caller would be told is no answer is none here.
  rewriteAnswer(chatCompletions, adapter, alias, fromUpstream(adapter, 'chat', answer, 0))
  return { result: { outcome: 'passed', status, reason: undefined }, error: undefined }
}

/** Statuses of a server that has no such route: they say nothing about the model. */
const NO_ROUTE: ReadonlySet<number> = new Set([404, 405, 501])

/** Asks for `/models`, then for the server's own `/health`: no request that a model would have to work for. */
async function askEndpoints(asking: Asking, target: ProbeTarget): Promise<Probed> {
  const { entry, check, providerKey, upstream } = target
  const base = upstream.adapter.base(providerKey.value.api_base, providerKey.value.provider)
  if (base === undefined) throw new Error('a compiled upstream without a base')
  const { 'content-type': _, ...headers } = ownHeaders(entry, providerKey, upstream)
  const questions = [
    { url: `${base}/models`, headers, isHealth: false },
    // The credential is for the API alone: behind one host, the root may belong to another service.
    ...healthUrls(base).map(url => ({ url, headers: plainHeaders(headers), isHealth: true })),
  ]
  let told: number | undefined
  let excused: Probed | undefined
  for (const { url, headers, isHealth } of questions) {
    const response = await asking.send(url, headers)
    const { ok, status } = response
    const words = await readStart(response, WORDS_BYTES_MAX)
    const isBad = isHealth ? status >= 500 && !NO_ROUTE.has(status) : !ok && !NO_ROUTE.has(status)
    if (isBad) {
      const path = url.slice(upstream.origin.length)
      const probed = judged(check, status, answeredBadly(upstream, status, words, path), !isHealth && status === 401)
      if (probed.result.outcome === 'failed') return probed
      excused ??= probed
    } else if (told === undefined || (ok && !isSuccess(told))) told = status
  }
  // A server that has none of these routes has answered all the same.
  return excused ?? { result: { outcome: 'passed', status: told, reason: undefined }, error: undefined }
}

function isSuccess(status: number): boolean {
  return status >= 200 && status < 300
}

/** `/health` at the root of the host and beside the last part of the base's path, which are often one. */
function healthUrls(base: string): string[] {
  const { origin, pathname } = new URL(base)
  const parent = pathname.replace(/\/+$/, '').split('/').slice(0, -1).join('/')
  return [...new Set([`${origin}/health`, `${origin}${parent}/health`])]
}

/** As a caller's request has them: the credential, and what the operator adds. Templates that name a caller are left out. */
function ownHeaders({ id, value }: DirectEntry, providerKey: Entry<'provider_keys'>, upstream: Upstream): Record<string, string> {
  const requestId = crypto.randomUUID()
  const headers: Record<string, string> = { ...upstream.headers, 'x-aisix-request-id': requestId }
  addTemplated(headers, upstream, {
    'request.id': requestId,
    'model.id': id,
    'model.name': value.display_name,
    'provider_key.id': providerKey.id,
    'provider_key.name': providerKey.value.display_name,
  })
  return headers
}

const PLAIN_HEADERS = ['user-agent', 'accept-encoding', 'x-aisix-request-id']

function plainHeaders(headers: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => PLAIN_HEADERS.includes(name)))
}

/** in: `status` of the answer, 408 for a deadline, undefined where there was none */
function judged(check: BackgroundModelCheck, status: number | undefined, error: GatewayError, isAuth = false): Probed {
  const isExcused = status !== undefined && check.ignore_statuses?.includes(status) === true
  if (isExcused) return { result: { outcome: 'ignored', status, reason: 'ignored_transient_error' }, error }
  return { result: { outcome: 'failed', status, reason: isAuth ? 'upstream_auth_failure' : 'background_check_failed' }, error }
}

function answeredBadly({ adapter }: Upstream, status: number, text: string, path?: string): GatewayError {
  const asked = path === undefined ? `upstream returned ${status}` : `GET ${path} returned ${status}`
  const advice = status >= 300 && status < 400 ? '; redirects are not followed; check api_base' : ''
  const words = upstreamWords(adapter, text)?.message
  return new GatewayError('upstream_error', cutMessage(asked + advice + (words === undefined ? '' : `: ${words}`)), {
    upstreamStatus: status,
  })
}

/**
 * The beginning of a body as text, all of it where it is no longer than `max` bytes: its connection can then serve again.
 * throws: what the runtime throws when the body breaks off
 */
async function readStart(response: Response, max: number): Promise<string> {
  const reader = response.body?.getReader()
  if (!reader) return ''
  const pieces: Uint8Array[] = []
  let length = 0
  while (length <= max) {
    const { done, value } = await reader.read()
    if (done) return Buffer.concat(pieces, length).toString('utf8')
    pieces.push(value)
    length += value.byteLength
  }
  reader.cancel().catch(() => {})
  return Buffer.concat(pieces, length).subarray(0, max).toString('utf8')
}
