/** Socket addresses as operators write them: an IP address and a port, never a host name. */
import { isIPv4, isIPv6 } from 'node:net'

/** Where a listener is bound. `hostname` is an IP address, IPv6 without brackets; port 0 lets the system choose. */
export type SocketAddress = { hostname: string; port: number }

/**
 * An address out of its text: `0.0.0.0:3000`, `[::1]:3000`.
 * Host names are refused: which of its addresses a name means would be decided by the resolver, at each start anew.
 * throws: Error whose message says what was expected and which spelling works. Of the text it repeats a valid port at most.
 */
export function parseSocketAddress(text: string): SocketAddress {
  const { host, port } = split(text)
  const number = /^[0-9]{1,5}$/.test(port) ? Number(port) : -1
  const isPort = number >= 0 && number <= 65_535
  const isBracketed = host.startsWith('[') && host.endsWith(']')
  const hostname = isBracketed ? host.slice(1, -1) : host
  const isAddress = isBracketed ? isIPv6(hostname) && !hostname.includes('%') : isIPv4(hostname)
  if (isAddress && isPort) return { hostname, port: number }
  throw new Error(`expected an address and a port, such as "127.0.0.1:3000"; ${advice(text, host, port, isAddress, isPort)}`)
}

/** What a person most likely meant, and how that is spelled. */
function advice(text: string, host: string, port: string, isAddress: boolean, isPort: boolean): string {
  const shown = isPort ? port : '3000'
  if (text.includes('//')) return 'leave out the scheme and the path'
  if (isIPv6(text)) return 'put the IPv6 address in brackets and add a port: "[::1]:3000"'
  if (isAddress && port === '') return 'add a port, or port 0 for any free one'
  if (isAddress) return 'the port is a number from 0 to 65535'
  if (/^[0-9]{1,5}$/.test(text) && Number(text) <= 65_535) {
    return `for all addresses write "0.0.0.0:${text}", for this machine alone "127.0.0.1:${text}"`
  }
  if (host === '' || host === '*')
    return `for all addresses write "0.0.0.0:${shown}", for this machine alone "127.0.0.1:${shown}"`
  if (host.toLowerCase() === 'localhost')
    return `host names are not resolved here: write "127.0.0.1:${shown}", or "[::1]:${shown}"`
  if (isIPv6(host)) return `put the IPv6 address in brackets: "[::1]:${shown}"`
  return 'host names are not resolved here: write the IP address, or "0.0.0.0" for all of them'
}

/** The text before and after the colon of the port. */
function split(text: string): { host: string; port: string } {
  const colon = text.lastIndexOf(':')
  if (colon < 0 || text.endsWith(']')) return { host: text, port: '' }
  return { host: text.slice(0, colon), port: text.slice(colon + 1) }
}

/** The text of an address, IPv6 in brackets: what `parseSocketAddress` reads, and what stands in a URL. */
export function formatAddress({ hostname, port }: SocketAddress): string {
  return hostname.includes(':') ? `[${hostname}]:${port}` : `${hostname}:${port}`
}
