import type { Config } from '../config.ts'
import { GatewayError } from '../errors.ts'
import type { Exchange } from '../exchange.ts'
import type { Gateway } from '../gateway.ts'
import { compileNetworks } from '../lib/cidr.ts'
import type { CallerKey, Snapshot } from '../store/snapshot.ts'
import { assertUsable, authenticate } from './authenticate.ts'
import { labelsOfCaller } from './labels.ts'

/** Says who asks, and notes it. throws: as `authenticate` */
export type Identify = (snapshot: Snapshot, headers: Headers, exchange: Exchange) => CallerKey

/**
 * A caller shows its key; where the operator allows it (`proxy.anonymous`), one that shows none acts as the key that is named there.
 * A wrong key never does: whoever shows one is told that it is wrong.
 * source: spec/README, row 22; control-observability §2.3 for the reasons
 */
export function createIdentify({ config, metrics, clock }: Gateway): Identify {
  const mayBeAnonymous = anonymousRule(config.proxy.anonymous)
  return (snapshot, headers, exchange) => {
    const now = clock.now()
    const principal = mayBeAnonymous?.(snapshot, headers, exchange)
    if (principal) assertUsable(principal, now)
    const caller = principal ?? authenticate(snapshot, headers, now)
    metrics.authenticated(principal ? 'anonymous' : 'api_key', 'none')
    exchange.labels = labelsOfCaller(caller)
    return caller
  }
}

function anonymousRule(rule: Config['proxy']['anonymous']) {
  if (!rule) return undefined
  const isAllowed = compileNetworks(rule.source_cidrs)
  const isListed = compilePaths(rule.paths)
  return (snapshot: Snapshot, headers: Headers, { path, clientIp }: Exchange): CallerKey | undefined => {
    if (headers.has('authorization') || headers.has('x-api-key')) return undefined
    if (!isListed(path) || !isAllowed(clientIp())) return undefined
    const row = snapshot.entries.api_keys.get(rule.api_key_id)
    const key = row && snapshot.apiKeys.get(row.value.key_hash)
    if (!key) throw new GatewayError('missing_api_key', 'proxy.anonymous.api_key_id names an API key that does not exist')
    return key
  }
}

/** `/api/chat` is that path alone, `/api/*` all below `/api/`. */
function compilePaths(patterns: readonly string[]): (path: string) => boolean {
  const exact = new Set(patterns)
  const prefixes = patterns.filter(each => each.endsWith('/*')).map(each => each.slice(0, -1))
  return path => exact.has(path) || prefixes.some(prefix => path.startsWith(prefix))
}
