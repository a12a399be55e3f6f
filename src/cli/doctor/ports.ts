/** Whether the listeners can be had, or who has them. */
import { type Config, formatAddress, parseSocketAddress } from '../../config.ts'
import type { Fetch } from '../../lib/fetch.ts'
import { errorCode } from '../../lib/transport-cause.ts'
import { type Finding, Findings, type Verdict } from './finding.ts'

const ANSWER_MS = 2_000

export async function checkPorts({ proxy, admin, observability }: Config, fetch: Fetch): Promise<Finding[]> {
  const { prometheus } = observability.metrics
  const listeners = [
    { key: 'proxy.addr', addr: proxy.addr, isTls: proxy.tls !== undefined, path: '/livez' },
    ...(admin.enabled ? [{ key: 'admin.addr', addr: admin.addr, isTls: admin.tls !== undefined, path: '/livez' }] : []),
    ...(prometheus.enabled
      ? [{ key: 'observability.metrics.prometheus.addr', addr: prometheus.addr, isTls: false, path: '/status/ready' }]
      : []),
  ]
  const all = await Promise.all(
    listeners.map(async ({ key, addr, isTls, path }) => {
      const findings = new Findings('port', `${key} ${addr}`)
      const { hostname, port } = parseSocketAddress(addr)
      if (port === 0) findings.add('note', 'is chosen anew at each start, and cannot be looked at')
      else findings.add(...(await checkPort(hostname, port, isTls, path, fetch)))
      return findings.all
    }),
  )
  return all.flat()
}

async function checkPort(hostname: string, port: number, isTls: boolean, path: string, fetch: Fetch): Promise<Verdict> {
  const problem = bindProblem(hostname, port)
  if (problem === undefined) return ['ok', 'is free: no gateway runs here']
  if (problem === 'EACCES')
    return ['error', 'may not be taken by this user', 'use a port from 1024 on, or let the service have CAP_NET_BIND_SERVICE']
  if (problem === 'EADDRNOTAVAIL')
    return ['error', 'is no address of this machine', 'use 0.0.0.0, or an address that `ip address` lists']
  if (problem !== 'EADDRINUSE') return ['error', `cannot be taken (${problem})`, 'choose another address']
  const host = hostname === '0.0.0.0' ? '127.0.0.1' : hostname === '::' ? '::1' : hostname
  const server = await serverOf(`${isTls ? 'https' : 'http'}://${formatAddress({ hostname: host, port })}${path}`, isTls, fetch)
  if (server?.startsWith('AISIX/')) return ['ok', `a gateway runs here (${server})`]
  return ['error', 'is taken by another program', `find it with: ss -ltnp 'sport = :${port}'`]
}

/** Why the address cannot be listened on; it is let go of at once. */
function bindProblem(hostname: string, port: number): string | undefined {
  try {
    Bun.listen({ hostname, port, socket: { data() {} } }).stop(true)
    return undefined
  } catch (error) {
    return errorCode(error) || 'unknown error'
  }
}

/** `Server` of whatever answers at a listener of this machine; its certificate is for others' names. */
async function serverOf(url: string, isTls: boolean, fetch: Fetch): Promise<string | undefined> {
  try {
    const response = await fetch(url, {
      method: 'GET',
      headers: {},
      signal: AbortSignal.timeout(ANSWER_MS),
      redirect: 'manual',
      decompress: true,
      keepalive: false,
      proxy: false,
      timeout: false,
      verbose: false,
      ...(isTls ? { tls: { rejectUnauthorized: false } } : {}),
    })
    await response.body?.cancel()
    return response.headers.get('server') ?? undefined
  } catch {
    return undefined
  }
}
