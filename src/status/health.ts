import type { Lifecycle } from '../gateway.ts'

/** Paths that `health` answers, for the routers of the listeners. */
export const HEALTH_PATHS = ['/livez', '/readyz'] as const
export type HealthPath = (typeof HEALTH_PATHS)[number]

type Check = { name: string; failure: string | undefined }

/**
 * The answer of `/livez` and `/readyz`, for every listener that has them. Never depends on the age of the configuration, on
 * a store that is gone or on an upstream: restarting the gateway would heal none of these.
 * in: `hasConfig`, whether a configuration was ever applied, an empty one included
 * out: 200 `ok`, the list of checks with `?verbose`, 503 and the list when one fails
 * source: control-bootstrap §5.1
 */
export function health(path: HealthPath, url: URL, lifecycle: Pick<Lifecycle, 'isDraining'>, hasConfig: boolean): Response {
  const checks: Check[] =
    path === '/livez'
      ? [
          { name: 'ping', failure: undefined },
          { name: 'shutdown', failure: lifecycle.isDraining ? 'reason withheld' : undefined },
        ]
      : [
          { name: 'shutdown', failure: lifecycle.isDraining ? 'draining' : undefined },
          { name: 'config', failure: hasConfig ? undefined : 'not ready' },
        ]
  const isHealthy = checks.every(check => check.failure === undefined)
  const lines = checks.map(({ name, failure }) => (failure === undefined ? `[+]${name} ok` : `[-]${name} failed: ${failure}`))
  lines.push(`${path.slice(1)} check ${isHealthy ? 'passed' : 'failed'}`)
  const isShort = isHealthy && !url.searchParams.has('verbose')
  return new Response(isShort ? 'ok' : `${lines.join('\n')}\n`, {
    status: isHealthy ? 200 : 503,
    headers: {
      'content-type': 'text/plain; charset=utf-8',
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
    },
  })
}
