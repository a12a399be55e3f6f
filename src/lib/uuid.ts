/**
 * The UUID of a name within a namespace: the same for the same two, everywhere and for ever.
 * in: `namespace`, a UUID as text
 * source: RFC 9562 §5.5, version 5
 */
export function uuidV5(namespace: string, name: string): string {
  const bytes = Buffer.from(namespace.replaceAll('-', ''), 'hex')
  return asUuid(new Bun.CryptoHasher('sha1').update(bytes).update(name).digest('hex'))
}

/** The first 128 bits of a hash with version and variant in their places. */
function asUuid(hex: string): string {
  const variant = ((Number.parseInt(hex.charAt(16), 16) & 0x3) | 0x8).toString(16)
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-5${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}
