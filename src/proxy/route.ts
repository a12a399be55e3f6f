import type { Config } from '../config.ts'
import { GatewayError } from '../errors.ts'
import type { CallerKey, Snapshot } from '../store/snapshot.ts'
import type { Entry } from '../store/store.ts'
import type { ResolvedModel } from './resolve.ts'
import { compileUpstream, type Upstream, type UpstreamTls } from './upstream.ts'

/** Where one attempt goes: plain values, no resource. */
export type Target = {
  modelId: string
  /** The row's own name: the pattern of a wildcard, not what the caller spelt. */
  model: string
  provider: string
  upstreamModel: string
  upstream: Upstream
  /** Milliseconds for a whole answer; 0: none. */
  timeoutMs: number
  /** Milliseconds of silence in a stream; 0: none. */
  streamTimeoutMs: number
  retries: number
  /** Timeouts are tried again only where somebody asked for retries (proxy-02 §7). */
  retriesTimeouts: boolean
  caller: CallerKey
}

type Compiled = { upstream: Upstream } | { problem: GatewayError }

export type Router = {
  /**
   * The target of a model.
   * throws: invalid_upstream_config, provider_unavailable, invalid_upstream_credentials
   */
  route(snapshot: Snapshot, model: ResolvedModel, caller: CallerKey): Target
}

export function createRouter(config: Config['upstream'], tls: UpstreamTls): Router {
  // Keyed by the immutable row: a changed document is another row, and is compiled at its next use.
  const compiled = new WeakMap<Entry<'provider_keys'>, Compiled>()
  const upstreamOf = (entry: Entry<'provider_keys'>): Upstream => {
    let known = compiled.get(entry)
    if (!known) {
      try {
        known = { upstream: compileUpstream(entry, tls) }
      } catch (error) {
        if (!(error instanceof GatewayError)) throw error
        known = { problem: error }
      }
      compiled.set(entry, known)
    }
    if ('problem' in known) {
      const { kind, message, cause } = known.problem
      throw new GatewayError(kind, message, { cause })
    }
    return known.upstream
  }
  return {
    route(snapshot, { entry, upstreamModel }, caller) {
      const { id, value } = entry
      const providerKey = snapshot.providerKeys.get(value.provider_key_id)
      if (!providerKey) {
        throw new GatewayError(
          'invalid_upstream_config',
          `invalid upstream configuration: model "${value.display_name}" names a provider key that does not exist`,
        )
      }
      return {
        modelId: id,
        model: value.display_name,
        provider: value.provider,
        upstreamModel,
        upstream: upstreamOf(providerKey),
        timeoutMs: value.timeout ?? config.timeout_ms,
        streamTimeoutMs: streamTimeoutMs(value, config),
        retries: value.retries ?? config.retries,
        retriesTimeouts: value.retries !== undefined,
        caller,
      }
    },
  }
}

/** Target's `stream_timeout`, else its `timeout`, else the deployment's, in the order of proxy-02 §6. */
function streamTimeoutMs(
  value: { timeout?: number | undefined; stream_timeout?: number | undefined },
  config: Config['upstream'],
): number {
  if (value.stream_timeout) return value.stream_timeout
  if (value.timeout !== undefined) return value.timeout
  return config.stream_timeout_ms > 0 ? config.stream_timeout_ms : config.timeout_ms
}
