/** What a caller's opening handshake says. Source: RFC 6455 §4.2.1; proxy-01 §1 and §8; OpenAI API reference, "Realtime". */

import { GatewayError, invalidRequest } from '../../errors.ts'
import { isCredentialName } from '../../wire/headers.ts'

export const REALTIME_PATH = '/v1/realtime'

/** The one subprotocol that is spoken; the other items that OpenAI's clients offer carry a credential or a version. */
const SUBPROTOCOL = 'realtime'
const KEY_PREFIX = 'openai-insecure-api-key.'

/** A refusal, and what its head says besides the usual. */
export type NoHandshake = { error: GatewayError; headers: Record<string, string> }

/** Why a request is no opening handshake; undefined where it is one. */
export function refuseHandshake(method: string, headers: Headers): NoHandshake | undefined {
  if (method !== 'GET' && method !== 'HEAD') {
    return refusal(405, `${REALTIME_PATH} is a WebSocket: open it with GET`, { allow: 'GET, HEAD' })
  }
  if (method === 'HEAD' || !lists(headers, 'upgrade', 'websocket') || !lists(headers, 'connection', 'upgrade')) {
    return refusal(426, `${REALTIME_PATH} is a WebSocket: send \`Connection: Upgrade\` and \`Upgrade: websocket\``, {
      upgrade: 'websocket',
      connection: 'Upgrade',
    })
  }
  if (headers.get('sec-websocket-version')?.trim() !== '13') {
    return refusal(400, '`Sec-WebSocket-Version` must be 13', { 'sec-websocket-version': '13' })
  }
  // 16 bytes in base64.
  if (!/^[A-Za-z0-9+/]{22}==$/.test(headers.get('sec-websocket-key')?.trim() ?? '')) {
    return refusal(400, '`Sec-WebSocket-Key` must be 16 bytes in base64', {})
  }
  return undefined
}

/** The request was a handshake, and nobody can take it up: it did not come through a listener. */
export function notUpgradable(): NoHandshake {
  return refusal(426, `${REALTIME_PATH} needs a connection of its own`, { upgrade: 'websocket' })
}

function refusal(status: number, message: string, headers: Record<string, string>): NoHandshake {
  return { error: new GatewayError('websocket_upgrade_required', message, { status }), headers }
}

function lists(headers: Headers, name: string, wanted: string): boolean {
  return items(headers, name).some(each => each.toLowerCase() === wanted)
}

function items(headers: Headers, name: string): string[] {
  return (headers.get(name) ?? '').split(',').map(each => each.trim())
}

/**
 * What the caller says who it is with: browsers can set no header, and offer their key as a subprotocol. A header that is
 * there decides alone.
 */
export function credentialsOf(headers: Headers): Headers {
  if (headers.has('authorization') || headers.has('x-api-key')) return headers
  const offered = items(headers, 'sec-websocket-protocol').find(each => each.startsWith(KEY_PREFIX))
  if (offered === undefined) return headers
  const told = new Headers(headers)
  told.set('authorization', `Bearer ${offered.slice(KEY_PREFIX.length)}`)
  return told
}

/**
 * The subprotocol that is agreed on. It has to be said where there is none, too: the runtime would agree to the first that was
 * offered, which may be the caller's key.
 */
export function agreedProtocol(headers: Headers): string {
  return items(headers, 'sec-websocket-protocol').includes(SUBPROTOCOL) ? SUBPROTOCOL : ''
}

export type RealtimeQuestion = {
  /** The alias that the caller asked for. */
  model: string
  /** The caller's other parameters, in their order. */
  others: readonly [name: string, value: string][]
}

/** throws: invalid_request */
export function readQuery(url: string): RealtimeQuestion {
  // Of HTTP/1.0 the runtime gives the target alone.
  const { searchParams } = new URL(url, 'http://localhost')
  const [model = '', ...more] = searchParams.getAll('model')
  if (model === '') throw invalidRequest('query parameter `model` missing', { param: 'model' })
  if (more.length > 0) throw invalidRequest('query parameter `model` occurs twice', { param: 'model' })
  return { model, others: [...searchParams].filter(([name]) => name !== 'model' && !isCredentialName(name)) }
}

/** in: the upstream's URL over HTTP. out: where its WebSocket is, asked for a model by the upstream's own name */
export function upstreamUrl(http: string, model: string, others: RealtimeQuestion['others']): string {
  const query = new URLSearchParams([['model', model], ...others])
  return `${http.replace(/^http/i, 'ws')}?${query}`
}
