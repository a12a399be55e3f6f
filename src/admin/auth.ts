import { createHash, timingSafeEqual } from 'node:crypto'

/** What may be done with an admin key: a viewer reads what has no secret in it. */
export type Role = 'admin' | 'viewer'

/** A key by its name; the key itself is not known, only the hexadecimal SHA-256 of it. */
export type NamedAdminKey = { name: string; key_hash: string; role: Role }

/** Who presented a credential (a name, or `admin_keys[0]`) and what he may do, or why nobody did. */
export type Admission = { adminKey: string; role: Role } | { refused: RefusalReason }
export const REFUSAL_REASONS = ['missing', 'malformed', 'unknown'] as const
export type RefusalReason = (typeof REFUSAL_REASONS)[number]

/**
 * Checks the credential of an operator: `Authorization: Bearer KEY`, or `x-api-key: KEY` where there is no `Authorization`.
 * Keys are compared by their digests, in constant time, and all of them are looked at: the time taken tells nothing.
 * throws: Error when a key is empty, which an empty credential would match
 * source: control-admin-api §1
 */
export function createAuthenticator(
  adminKeys: readonly string[],
  namedKeys: readonly NamedAdminKey[] = [],
): (headers: Headers) => Admission {
  const unnamed = adminKeys.map((key, index) => {
    if (key.trim() === '') throw new Error(`admin.admin_keys[${index}] must not be empty`)
    return { adminKey: `admin_keys[${index}]`, role: 'admin' as const, digest: sha256(Buffer.from(key)) }
  })
  const named = namedKeys.map(({ name, key_hash, role }) => {
    const digest = Buffer.from(key_hash, 'hex')
    if (digest.length !== 32) throw new Error(`admin.keys: the key_hash of ${name} must be a SHA-256 in hexadecimal`)
    return { adminKey: name, role, digest }
  })
  const known = [...unnamed, ...named]
  return headers => {
    const presented = credential(headers)
    if (typeof presented !== 'string') return presented
    // A header arrives as one character a byte: a key beyond ASCII is compared by the bytes that were sent.
    const bytes = Buffer.from(presented, /^[\u0000-\u00ff]*$/.test(presented) ? 'latin1' : 'utf8')
    const digest = sha256(bytes)
    let found: (typeof known)[number] | undefined
    for (const key of known) if (timingSafeEqual(key.digest, digest)) found = key
    return found === undefined ? { refused: 'unknown' } : { adminKey: found.adminKey, role: found.role }
  }
}

function credential(headers: Headers): string | { refused: Exclude<RefusalReason, 'unknown'> } {
  const authorization = headers.get('authorization')
  if (authorization === null) {
    const key = headers.get('x-api-key')?.trim() ?? ''
    return key === '' ? { refused: 'missing' } : key
  }
  // The scheme is matched as the contract spells it, and a header that is there in another form never falls back.
  const token = authorization.startsWith('Bearer ') ? authorization.slice('Bearer '.length).trim() : ''
  return token === '' ? { refused: 'malformed' } : token
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest()
}
