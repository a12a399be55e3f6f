import type { Config } from '../config.ts'
import { GatewayError } from '../errors.ts'
import type { Exchange, Extra } from '../exchange.ts'
import type { Gateway } from '../gateway.ts'
import { compileNetworks } from '../lib/cidr.ts'
import type { CallerKey, Snapshot } from '../store/snapshot.ts'
import { authenticate, flawOf, NO_CREDENTIAL } from './authenticate.ts'
import { labelsOfCaller } from './labels.ts'

/** Says who asks, and notes it. throws: as `authenticate`; source_not_allowed, principal_missing, principal_disabled, principal_expired */
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
    const principal = mayBeAnonymous?.(snapshot, headers, exchange, now)
    if (principal) exchange.extra = ANONYMOUS
    const caller = principal ?? authenticate(snapshot, headers, now)
    metrics.authenticated(principal ? 'anonymous' : 'api_key', 'none')
    exchange.labels = labelsOfCaller(caller)
    return caller
  }
}

/** What is told besides of every request of a caller without a key: one object for all of them. */
const ANONYMOUS: Extra = Object.freeze({ authType: 'anonymous' })

function anonymousRule(rule: Config['proxy']['anonymous']) {
  if (!rule) return undefined
  const isAllowed = compileNetworks(rule.source_cidrs)
  const isListed = compilePaths(rule.paths)
  return (snapshot: Snapshot, headers: Headers, { path, clientIp }: Exchange, now: number): CallerKey | undefined => {
    if (headers.has('authorization') || headers.has('x-api-key')) return undefined
    if (!isListed(path)) return undefined
    // Strangers are told what everybody is told who shows no key; the log and the metrics say why.
    if (!isAllowed(clientIp())) throw new GatewayError('source_not_allowed', NO_CREDENTIAL)
    const row = snapshot.entries.api_keys.get(rule.api_key_id)
    const key = row && snapshot.apiKeys.get(row.value.key_hash)
    if (!key) throw new GatewayError('principal_missing', 'proxy.anonymous.api_key_id names an API key that does not exist')
    const flaw = flawOf(key, now)
    if (flaw === 'disabled') throw new GatewayError('principal_disabled', 'the API key of proxy.anonymous has been disabled')
    if (flaw === 'expired') throw new GatewayError('principal_expired', 'the API key of proxy.anonymous has expired')
    return key
  }
}

/** `/api/chat` is that path alone, `/api/*` all below `/api/`. */
function compilePaths(patterns: readonly string[]): (path: string) => boolean {
  const exact = new Set(patterns)
  const prefixes = patterns.filter(each => each.endsWith('/*')).map(each => each.slice(0, -1))
  return path => exact.has(path) || prefixes.some(prefix => path.startsWith(prefix))
}
