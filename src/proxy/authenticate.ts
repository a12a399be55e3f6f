import { GatewayError } from '../errors.ts'
import type { CallerKey, Snapshot } from '../store/snapshot.ts'

/** Presented credentials whose hash is remembered, of each header; the oldest go first. Only keys that were found once come in. */
const REMEMBERED_MAX = 10_000
const remembered = { authorization: new Map<string, string>(), 'x-api-key': new Map<string, string>() }

function remember(hashes: Map<string, string>, presented: string, hash: string): void {
  if (hashes.size >= REMEMBERED_MAX)
    for (const oldest of hashes.keys()) {
      hashes.delete(oldest)
      break
    }
  hashes.set(presented, hash)
}

/** in: the value of the header that presents a credential. out: the key in it */
function keyIn(header: keyof typeof remembered, presented: string): string {
  const key = header === 'x-api-key' ? presented : presented.startsWith('Bearer ') ? presented.slice(7) : ''
  const trimmed = key.trim()
  // A credential beyond ASCII cannot have been sent on purpose.
  if (trimmed === '' || /[^\x21-\x7e]/.test(trimmed)) throw missing()
  return trimmed
}

/** What a caller is told who showed no credential that could be one. */
export const NO_CREDENTIAL = 'missing or malformed Authorization header'

function missing(): GatewayError {
  return new GatewayError('missing_api_key', NO_CREDENTIAL)
}

/**
 * The caller's key, by the credential that the request presents: `Authorization: Bearer <key>`, or `x-api-key` where there is
 * no Authorization at all. An Authorization in another form never falls through (proxy-01 §1).
 * throws: missing_api_key, invalid_api_key, api_key_disabled, api_key_expired
 */
export function authenticate(snapshot: Snapshot, headers: Headers, now: number): CallerKey {
  const authorization = headers.get('authorization')
  const header = authorization === null ? 'x-api-key' : 'authorization'
  const presented = authorization ?? headers.get('x-api-key')
  if (presented === null) throw missing()
  const hashes = remembered[header]
  const known = hashes.get(presented)
  const hash = known ?? hashOf(keyIn(header, presented))
  const caller = snapshot.apiKeys.get(hash)
  if (!caller) throw new GatewayError('invalid_api_key', 'invalid API key')
  if (known === undefined) remember(hashes, presented, hash)
  assertUsable(caller, now)
  return caller
}

function assertUsable(caller: CallerKey, now: number): void {
  const flaw = flawOf(caller, now)
  if (flaw === 'disabled') throw new GatewayError('api_key_disabled', 'API key has been disabled')
  if (flaw === 'expired') throw new GatewayError('api_key_expired', 'API key has expired')
}

/** Why a key opens nothing at a time; undefined where it does. */
export function flawOf({ entry, expiresAtMs }: CallerKey, now: number): 'disabled' | 'expired' | undefined {
  if (entry.value.disabled) return 'disabled'
  return expiresAtMs !== undefined && expiresAtMs < now ? 'expired' : undefined
}

/**
 * The same, by a header that a passthrough route names: the key alone, or behind `Bearer `.
 * throws: as `authenticate`; what is missing is told by the name of the header
 */
export function authenticateBy(snapshot: Snapshot, headers: Headers, header: string, now: number): CallerKey {
  const presented = headers.get(header)
  const key = presented === null ? '' : credentialIn(presented)
  if (key === '') throw new GatewayError('missing_api_key', `missing API key: this route expects it in the header ${header}`)
  const caller = snapshot.apiKeys.get(hashOf(key))
  if (!caller) throw new GatewayError('invalid_api_key', 'invalid API key')
  assertUsable(caller, now)
  return caller
}

/** in: the value of any header. out: what a key would be in it, usable or not */
export function credentialIn(presented: string): string {
  return presented.replace(/^Bearer(?: |$)/, '').trim()
}

/** Whether a caller key of this gateway, usable or not, stands in a header. */
export function holdsCallerKey(snapshot: Snapshot, presented: string): boolean {
  return snapshot.apiKeys.has(hashOf(credentialIn(presented)))
}

function hashOf(key: string): string {
  return new Bun.CryptoHasher('sha256').update(key).digest('hex')
}
