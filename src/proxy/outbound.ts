import type { CallerKey } from '../store/snapshot.ts'
import type { AttemptInput } from './attempt-input.ts'
import { encodeQuestion, toUpstream } from './encode.ts'
import type { NativeRelay } from './endpoints/endpoint.ts'
import type { Target } from './route.ts'
import { encodeUpload, type OutboundForm } from './upload.ts'
import { addTemplated } from './upstream.ts'

/** What is sent: the caller's own body to a target that speaks its dialect, else the chat request that it stands for. */
export function bodyFor(
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
export function outboundHeaders(
  { endpoint, exchange, question, callerHeaders, callerKey }: AttemptInput,
  target: Target,
  native: NativeRelay | undefined,
  form: OutboundForm | undefined,
): Record<string, string> | (() => Headers) {
  const { upstream } = target
  const isMessages = native?.operation === 'messages' || native?.operation === 'count_tokens'
  const { call } = question
  const isUsual = !call && !endpoint.relay?.isStreamed && !isMessages && !form
  if (isUsual && upstream.templates.length === 0 && !upstream.forwarded) {
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
    headers['content-type'] = form.contentType
    headers['content-length'] = String(form.bytes)
  }
  // Servers refuse a body of JSON that is empty.
  if (call?.hasBody === false) delete headers['content-type']
  if (question.isStream) headers.accept = 'text/event-stream'
  else if (endpoint.relay?.isStreamed) headers.accept = '*/*'
  addOperatorHeaders(headers, exchange.requestId, callerKey, callerHeaders, target)
  headers.accept ??= 'application/json'
  return headers
}

/** Adds what the operator wants sent besides: templates, and headers of the caller's. None replaces one of ours but the user agent. */
export function addOperatorHeaders(
  headers: Record<string, string>,
  requestId: string,
  { entry }: CallerKey,
  callerHeaders: Headers,
  target: Target,
): void {
  const { upstream } = target
  if (upstream.templates.length > 0) {
    addTemplated(headers, upstream, {
      'request.id': requestId,
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
}
