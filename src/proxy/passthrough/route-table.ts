import type { PassthroughRoute } from '../../resources/passthrough-route.ts'
import type { Snapshot } from '../../store/snapshot.ts'
import { compileAccess } from '../resolve.ts'

/** A passthrough route made ready for requests. */
export type Route = {
  id: string
  name: string
  value: PassthroughRoute
  /** What the path of a request begins with, without a slash at the end: '' for every path. */
  prefix: string
  /** Whether a caller's address may use it; undefined: all may. */
  allows: ((ip: string) => boolean) | undefined
}

/** The routes that are enabled. What a look-up costs depends on how many lengths of prefixes there are, not on the routes. */
export type RouteTable = {
  /** Whether any route asks for hosts: if none does, nobody need look at `Host`. */
  hasHosts: boolean
  /** in: the value of `Host`, and the path as it came */
  ofHost(host: string | null, path: string): Route | undefined
  /** A route without hosts. */
  ofPath(path: string): Route | undefined
}

const NO_ROUTES: RouteTable = { hasHosts: false, ofHost: () => undefined, ofPath: () => undefined }

/** By the rows, whose map stays the same until one of them is written. */
const tables = new WeakMap<object, RouteTable>()

export function routeTable({ entries: { passthrough_routes: rows } }: Snapshot): RouteTable {
  if (rows.size === 0) return NO_ROUTES
  let table = tables.get(rows)
  if (!table) {
    table = compileRoutes(rows.values())
    tables.set(rows, table)
  }
  return table
}

/**
 * Routes of hosts go before those of prefixes alone; then the longest prefix, of whole segments; of two with the same one, that
 * which names the host and not a pattern of it, then the one with the smallest id.
 * source: proxy-03 §12
 */
export function compileRoutes(entries: Iterable<{ id: string; value: PassthroughRoute }>): RouteTable {
  const alone = new Prefixes()
  const exact = new Map<string, Prefixes>()
  /** By what stands behind the first label, its dot included. */
  const patterns = new Map<string, Prefixes>()
  for (const { id, value } of entries) {
    if (!value.enabled) continue
    const prefix = (value.path_prefix ?? '').replace(/\/+$/, '')
    const route: Route = { id, name: value.name, value, prefix, allows: compileAccess(value.source_cidrs) }
    if (!value.hosts) alone.add(route)
    for (const host of value.hosts ?? []) {
      const [routes, name] = host.startsWith('*.') ? [patterns, host.slice(1)] : [exact, host]
      let prefixes = routes.get(name)
      if (!prefixes) {
        prefixes = new Prefixes()
        routes.set(name, prefixes)
      }
      prefixes.add(route)
    }
  }
  return {
    hasHosts: exact.size + patterns.size > 0,
    ofHost(header, path) {
      const host = hostNameOf(header)
      if (host === undefined) return undefined
      const named = exact.get(host)?.longest(path)
      const dot = host.indexOf('.')
      const matched = dot < 0 ? undefined : patterns.get(host.slice(dot))?.longest(path)
      if (!named || !matched) return named ?? matched
      return matched.prefix.length > named.prefix.length ? matched : named
    },
    ofPath: path => alone.longest(path),
  }
}

/**
 * The host name of a `Host` header in lower case, without its port; undefined for what is none. Where `preserve_host` is set a
 * request goes to this very name, so nothing that has a meaning in a URL may be a part of it.
 */
export function hostNameOf(header: string | null): string | undefined {
  return header === null ? undefined : /^([a-z0-9_-]+(?:\.[a-z0-9_-]+)*)\.?(?::\d*)?$/i.exec(header)?.[1]?.toLowerCase()
}

/** Routes by their prefix. */
class Prefixes {
  private readonly routes = new Map<string, Route>()
  /** Lengths that prefixes have, the longest first. */
  private lengths: number[] = []

  add(route: Route): void {
    const { prefix, id } = route
    const known = this.routes.get(prefix)
    if (known && known.id < id) return
    this.routes.set(prefix, route)
    this.lengths = [...new Set([...this.lengths, prefix.length])].sort((a, b) => b - a)
  }

  longest(path: string): Route | undefined {
    for (const length of this.lengths) {
      // A prefix ends where a segment does.
      if (path.length !== length && path[length] !== '/') continue
      const route = this.routes.get(path.slice(0, length))
      if (route) return route
    }
    return undefined
  }
}
