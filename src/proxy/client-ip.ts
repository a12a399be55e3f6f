import type { Config } from '../config.ts'
import { compileNetworks, parseCidr } from '../lib/cidr.ts'
import { type AddressSource, peerAddress } from '../status/front-door.ts'

/** An entry of a forwarding header: `ip`, `ip:port`, `[v6]`, `[v6]:port`; undefined for junk. */
function entryAddress(entry: string): string | undefined {
  const text = entry.trim()
  const bracketed = /^\[([0-9a-fA-F:.]+)\](?::\d+)?$/.exec(text)?.[1]
  const address = bracketed ?? (/^[\d.]+:\d+$/.test(text) ? text.slice(0, text.lastIndexOf(':')) : text)
  return address.includes('/') || parseCidr(address) === undefined ? undefined : address
}

/**
 * The address of the caller: that of the connection, unless it comes from a trusted proxy; then what its header says
 * (proxy-01 §5). `''` when there is none.
 */
export function createClientIp(
  config: Config['proxy']['real_ip'],
): (request: Request, server: AddressSource | undefined) => string {
  if (config.trusted_proxies.length === 0) return peerAddress
  const isTrusted = compileNetworks(config.trusted_proxies)
  return (request, server) => {
    const peer = peerAddress(request, server)
    if (!isTrusted(peer)) return peer
    // Several headers of one name arrive joined by commas, in their order.
    const entries = (request.headers.get(config.header) ?? '').split(',').flatMap(entry => entryAddress(entry) ?? [])
    const last = entries.at(-1)
    if (last === undefined) return peer
    if (!config.recursive) return last
    return entries.findLast(entry => !isTrusted(entry)) ?? entries[0] ?? peer
  }
}
