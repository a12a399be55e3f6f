import { createHash, timingSafeEqual } from 'node:crypto'

/** Who presented a credential (`admin_keys[0]`), or why nobody did. */
export type Admission = { adminKey: string } | { refused: 'missing' | 'malformed' | 'unknown' }

/**
 * Checks the credential of an operator: `Authorization: Bearer KEY`, or `x-api-key: KEY` where there is no `Authorization`.
 * Keys are compared by their digests and all of them are looked at, so that the time taken tells nothing.
 * throws: Error when a key is empty, which an empty credential would match
 * source: control-admin-api §1
 */
export function createAuthenticator(adminKeys: readonly string[]): (headers: Headers) => Admission {
  const known = adminKeys.map((key, index) => {
    if (key.trim() === '') throw new Error(`admin.admin_keys[${index}] must not be empty`)
    return { label: `admin_keys[${index}]`, digest: sha256(Buffer.from(key)) }
  })
  return headers => {
    const presented = credential(headers)
    if (typeof presented !== 'string') return presented
    // A header arrives as one character a byte: a key beyond ASCII is compared by the bytes that were sent.
    const bytes = Buffer.from(presented, /^[\u0000-\u00ff]*$/.test(presented) ? 'latin1' : 'utf8')
    const digest = sha256(bytes)
    let adminKey: string | undefined
    for (const key of known) if (timingSafeEqual(key.digest, digest)) adminKey = key.label
    return adminKey === undefined ? { refused: 'unknown' } : { adminKey }
  }
}

function credential(headers: Headers): string | { refused: 'missing' | 'malformed' } {
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
