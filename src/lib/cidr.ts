/**
 * Networks and addresses. IPv4-mapped IPv6 addresses (`::ffff:10.0.0.1`, as dual-stack sockets report them) count as the
 * IPv4 address that they hold, in networks and in addresses alike.
 */

/** A network: `words` holds one 32-bit word for IPv4 and four for IPv6, host bits cleared; `prefix` counts bits. */
export type Cidr = { readonly family: 4 | 6; readonly words: Uint32Array; readonly prefix: number }

/** Where an address lands while it is read and compared; nothing here yields in between, so one is enough. */
const scratch = new Uint32Array(4)
const groups = new Uint16Array(8)

/** `10.0.0.0/8`, `fd00::/8`, or a bare address (that address alone). Host bits are ignored. undefined: not a network. */
export function parseCidr(text: string): Cidr | undefined {
  const slash = text.indexOf('/')
  const end = slash < 0 ? text.length : slash
  const family = readAddress(text, end, scratch)
  if (family === 0) return undefined
  const isMapped = family === 4 && text.lastIndexOf(':', end) >= 0
  const bits = family === 4 && !isMapped ? 32 : 128
  let prefix = bits
  if (slash >= 0) {
    const written = text.slice(slash + 1)
    if (!/^(0|[1-9][0-9]{0,2})$/.test(written)) return undefined
    prefix = Number(written)
    if (prefix > bits) return undefined
  }
  if (isMapped) {
    // Fewer than 96 bits would reach beyond the mapped range, to addresses that are no IPv4 at all.
    if (prefix < 96) return undefined
    prefix -= 96
  }
  const words = new Uint32Array(family === 4 ? 1 : 4)
  for (let i = 0; i < words.length; i++) words[i] = (scratch[i] ?? 0) & mask(prefix - 32 * i)
  return { family, words, prefix }
}

/** True when the address lies in the network. Anything that is no address lies in none. */
export function contains(cidr: Cidr, ip: string): boolean {
  const family = readAddress(ip, addressEnd(ip), scratch)
  return family === cidr.family && matches(cidr)
}

/**
 * One test for many networks. Entries that are no network are left out: they match nothing.
 * The test allocates nothing, so it may run for each request.
 */
export function compileNetworks(texts: readonly string[]): (ip: string) => boolean {
  const networks = texts.map(parseCidr).filter(network => network !== undefined)
  const v4 = networks.filter(network => network.family === 4)
  const v6 = networks.filter(network => network.family === 6)
  return ip => {
    const family = readAddress(ip, addressEnd(ip), scratch)
    if (family === 0) return false
    for (const network of family === 4 ? v4 : v6) if (matches(network)) return true
    return false
  }
}

/** Compares the address in `scratch` with a network of its family. */
function matches({ words, prefix }: Cidr): boolean {
  for (let i = 0; i < words.length; i++) {
    if ((((scratch[i] ?? 0) ^ (words[i] ?? 0)) & mask(prefix - 32 * i)) !== 0) return false
  }
  return true
}

/** The first `bits` bits of a word, which may be none or all of them. */
function mask(bits: number): number {
  if (bits <= 0) return 0
  return bits >= 32 ? -1 : -1 << (32 - bits)
}

/** Addresses of peers may carry a zone (`fe80::1%eth0`), which says the interface, not the address. */
function addressEnd(ip: string): number {
  const zone = ip.indexOf('%')
  return zone < 0 ? ip.length : zone
}

/** Reads `text[0, end)` into `words`. Returns the family after mapped addresses are unwrapped; 0: not an address. */
function readAddress(text: string, end: number, words: Uint32Array): 0 | 4 | 6 {
  if (text.indexOf(':') < 0) {
    const value = readV4(text, 0, end)
    if (value < 0) return 0
    words[0] = value
    return 4
  }
  return readV6(text, end, words)
}

/** Four decimal numbers without leading zeros (which some read as octal). -1: not an IPv4 address. */
function readV4(text: string, start: number, end: number): number {
  let value = 0
  let part = -1
  let parts = 0
  for (let i = start; i <= end; i++) {
    const code = i === end ? DOT : text.charCodeAt(i)
    if (code === DOT) {
      if (part < 0 || parts === 4) return -1
      value = value * 256 + part
      parts += 1
      part = -1
    } else {
      const digit = code - ZERO
      if (digit < 0 || digit > 9 || part === 0) return -1
      part = part < 0 ? digit : part * 10 + digit
      if (part > 255) return -1
    }
  }
  return parts === 4 ? value : -1
}

/** Source: RFC 4291 §2.2, all three text forms. */
function readV6(text: string, end: number, words: Uint32Array): 0 | 4 | 6 {
  let count = 0
  let gap = -1
  let i = 0
  if (text.charCodeAt(0) === COLON) {
    if (text.charCodeAt(1) !== COLON) return 0
    gap = 0
    i = 2
  }
  while (i < end) {
    if (count === 8) return 0
    const start = i
    let value = 0
    for (; i < end; i++) {
      const digit = hexDigit(text.charCodeAt(i))
      if (digit < 0) break
      value = value * 16 + digit
    }
    if (i < end && text.charCodeAt(i) === DOT) {
      const tail = readV4(text, start, end)
      if (tail < 0 || count > 6) return 0
      groups[count++] = tail >>> 16
      groups[count++] = tail & 0xffff
      i = end
      break
    }
    if (i === start || i - start > 4) return 0
    groups[count++] = value
    if (i === end) break
    if (text.charCodeAt(i) !== COLON) return 0
    i += 1
    if (i === end) return 0
    if (text.charCodeAt(i) === COLON) {
      if (gap >= 0) return 0
      gap = count
      i += 1
    }
  }
  if (gap < 0 ? count !== 8 : count > 7) return 0
  if (gap >= 0) {
    const moved = count - gap
    for (let k = 1; k <= moved; k++) groups[8 - k] = groups[count - k] ?? 0
    for (let k = gap; k < 8 - moved; k++) groups[k] = 0
  }
  for (let k = 0; k < 4; k++) words[k] = (((groups[2 * k] ?? 0) << 16) | (groups[2 * k + 1] ?? 0)) >>> 0
  if (words[0] !== 0 || words[1] !== 0 || words[2] !== 0xffff) return 6
  words[0] = words[3] ?? 0
  return 4
}

const DOT = 46
const COLON = 58
const ZERO = 48

/** The value of a hexadecimal digit, -1 for any other character. */
function hexDigit(code: number): number {
  if (code >= 48 && code <= 57) return code - 48
  const lower = code | 32
  return lower >= 97 && lower <= 102 ? lower - 87 : -1
}
