import { GatewayError } from '../errors.ts'
import type { CallerKey, Snapshot } from '../store/snapshot.ts'

/** Plaintext keys whose hash is remembered; the oldest go first. Only keys that were found once come in. */
const REMEMBERED_MAX = 10_000
const hashes = new Map<string, string>()

function hashOf(key: string): string {
  return hashes.get(key) ?? new Bun.CryptoHasher('sha256').update(key).digest('hex')
}

function remember(key: string, hash: string): void {
  if (hashes.has(key)) return
  if (hashes.size >= REMEMBERED_MAX)
    for (const oldest of hashes.keys()) {
      hashes.delete(oldest)
      break
    }
  hashes.set(key, hash)
}

/**
 * The credential that a request presents: `Authorization: Bearer <key>`, or `x-api-key` where there is no Authorization at
 * all. An Authorization in another form never falls through (proxy-01 §1).
 */
export function presentedKey(headers: Headers): string | undefined {
  const authorization = headers.get('authorization')
  const key =
    authorization === null ? headers.get('x-api-key') : authorization.startsWith('Bearer ') ? authorization.slice(7) : ''
  const trimmed = key?.trim() ?? ''
  // A credential beyond ASCII cannot have been sent on purpose.
  return trimmed === '' || /[^\x21-\x7e]/.test(trimmed) ? undefined : trimmed
}

/**
 * The caller's key.
 * throws: missing_api_key, invalid_api_key, api_key_disabled, api_key_expired
 */
export function authenticate(snapshot: Snapshot, headers: Headers, now: number): CallerKey {
  const key = presentedKey(headers)
  if (key === undefined) throw new GatewayError('missing_api_key', 'missing or malformed Authorization header')
  const hash = hashOf(key)
  const caller = snapshot.apiKeys.get(hash)
  if (!caller) throw new GatewayError('invalid_api_key', 'invalid API key')
  remember(key, hash)
  if (caller.entry.value.disabled) throw new GatewayError('api_key_disabled', 'API key has been disabled')
  if (caller.expiresAtMs !== undefined && caller.expiresAtMs < now)
    throw new GatewayError('api_key_expired', 'API key has expired')
  return caller
}
