import { adapterOf } from '../../adapters/index.ts'
import { GatewayError, invalidRequest } from '../../errors.ts'
import type { TlsOptions } from '../../lib/fetch.ts'
import { printable } from '../../lib/log.ts'
import type { ProviderKey } from '../../resources/provider-key.ts'
import type { Snapshot } from '../../store/snapshot.ts'
import type { Entry } from '../../store/store.ts'
import { secretOf, tlsOptions, type UpstreamTls } from '../upstream.ts'
import { hostNameOf, type Route } from './route-table.ts'

/** Where a route leads, and what goes there in place of the caller's credential. Made once for a route and its provider key. */
export type RouteTarget = {
  route: Route
  /** Undefined where the route injects no credential. */
  providerKey: Entry<'provider_keys'> | undefined
  providerKeyId: string | undefined
  providerKeyName: string | undefined
  /** Label of the provider key. */
  provider: string | undefined
  /** Headers that carry the credential; undefined where callers send their own. */
  credential: Readonly<Record<string, string>> | undefined
  /** Headers of the caller that the operator keeps back, in lower case. */
  stripped: readonly string[]
  /** Root of the server without a slash at the end; undefined where the request's own host is the server. */
  base: string | undefined
  tls: TlsOptions | undefined
}

export type Aim = (snapshot: Snapshot, route: Route) => RouteTarget

/** throws, when it is called: invalid_upstream_config, invalid_upstream_credentials */
export function createAim(tls: UpstreamTls): Aim {
  const known = new WeakMap<Route, RouteTarget>()
  return (snapshot, route) => {
    const id = route.value.provider_key_id
    const providerKey = id === undefined ? undefined : snapshot.providerKeys.get(id)
    if (id !== undefined && !providerKey) {
      throw new GatewayError(
        'invalid_upstream_config',
        `invalid upstream configuration: passthrough route "${printable(route.name)}" names a provider key that does not exist`,
      )
    }
    let target = known.get(route)
    if (!target || target.providerKey !== providerKey) {
      target = targetOf(route, providerKey, tls)
      known.set(route, target)
    }
    return target
  }
}

function targetOf(route: Route, providerKey: Entry<'provider_keys'> | undefined, tls: UpstreamTls): RouteTarget {
  const key = providerKey?.value
  const url = route.value.target_url === undefined ? undefined : new URL(route.value.target_url)
  return {
    route,
    providerKey,
    providerKeyId: providerKey?.id,
    providerKeyName: key?.display_name,
    provider: key?.provider,
    credential: key && credentialOf(key),
    stripped: key?.strip_headers ?? [],
    base: url && url.origin + url.pathname.replace(/\/+$/, ''),
    // Without a target of its own the route goes to the host of the request, over TLS always.
    tls: url === undefined || url.protocol === 'https:' ? tlsOptions(key, tls) : undefined,
  }
}

/** As the dialect of the provider key has it, a bearer token where none is known. */
function credentialOf(key: ProviderKey): Record<string, string> {
  const secret = secretOf(key)
  return adapterOf(key.provider, key.adapter)?.headers(secret) ?? { authorization: `Bearer ${secret}` }
}

/** Where one request goes. */
export type Address = { url: string; origin: string; hostname: string; port: number }

/**
 * in: the path and the query of the request as they came, the query with its `?`
 * throws: invalid_request where the path could lead out of the target's
 */
export function addressOf(target: RouteTarget, host: string | null, path: string, query: string): Address {
  const { base, route } = target
  if (leadsAway(path)) throw invalidRequest('invalid path parameter')
  let url: string
  if (base !== undefined) url = join(base, path.slice(route.prefix.length)) + query
  else {
    const name = hostNameOf(host)
    // No request comes here without the host that its route was found by.
    if (name === undefined) throw new Error('a route that preserves the host was found without one')
    url = `https://${name}${path}${query}`
  }
  const { origin, hostname, port, protocol } = new URL(url)
  return {
    url,
    origin,
    hostname: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port),
  }
}

/** A version that ends the target and begins the rest is one and the same: clients add `/v1` themselves (proxy-03 §12). */
function join(base: string, rest: string): string {
  const version = /\/v\d+$/.exec(base)?.[0]
  const isRepeated = version !== undefined && (rest === version || rest.startsWith(`${version}/`))
  return base + (isRepeated ? rest.slice(version.length) : rest)
}

/**
 * Whether a server may read a segment of the path as one that leads back. Plain ones never come here, the runtime has resolved
 * them before the route was looked for; what is left are those that only a server behind decodes: escaped, escaped twice, between
 * backslashes, or with the parameters that Java's servers cut off.
 */
function leadsAway(path: string): boolean {
  const decoded = path
    .replace(/%(?:25)*2e/gi, '.')
    .replace(/%(?:25)*(?:2f|5c)/gi, '/')
    .replace(/%(?:25)*3b/gi, ';')
    .replaceAll('\\', '/')
  return /(?:^|\/)\.{1,2}(?:;[^/]*)?(?:\/|$)/.test(decoded)
}
