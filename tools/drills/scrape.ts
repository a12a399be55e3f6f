/** The drill of the scrape page, which `tools/soak.ts` runs as `scrape`. */
import { demand, seconds } from '../rig/drill.ts'
import { endInEveryWay, endingUpstream, WAYS } from '../rig/endings.ts'
import { addCallerKey, addModel, CALLER_KEY, type RunningGateway, startGateway, startUpstream } from '../rig/gateway.ts'
import { type LoadOptions, runLoad } from '../rig/load.ts'

/** Requests of each kind, 100,000 in all. */
const COUNTS = {
  whole: 40_000,
  streams: 20_000,
  fallbacks: 15_000,
  cut: 5_000,
  unresolved: 5_000,
  wrongKeys: 5_000,
  endings: 10_000,
} as const
const CONNECTIONS = 64

/**
 * 100,000 mixed requests, names of models and keys that callers make up among them: afterwards the page is as long as the
 * configuration makes it, its sums are what was sent, and promtool has nothing to complain of.
 */
export async function scrape(folder: string): Promise<string> {
  const startedAt = performance.now()
  const upstream = await startUpstream(['--tokens', '5', '--gap-ms', '0'])
  const failing = await startUpstream(['--fail-every', '1'])
  const long = await startUpstream(['--tokens', '1000000', '--gap-ms', '1'])
  const ending = endingUpstream()
  const gateway = await startGateway({ folder, hasMetrics: true })
  try {
    await addCallerKey(gateway)
    const model = (alias: string, apiBase: string, more: object = {}) =>
      addModel(gateway, { alias, upstreamModel: alias, apiBase }, { retries: 0, cooldown: { enabled: false }, ...more })
    await model('whole', `${upstream.url}/v1`)
    await model('failing', `${failing.url}/v1`)
    await model('long', `${long.url}/v1`)
    for (const way of WAYS) await model(`ends-${way}`, ending.url, { model_name: way })
    const group = { display_name: 'group', routing: { targets: [{ model: 'failing' }, { model: 'whole' }] } }
    const { status } = await gateway.admin('POST', '/models', group)
    demand(status === 200, `the group was answered ${status}`)

    const load = async (more: Partial<LoadOptions>) => {
      const usual = { port: gateway.port, key: CALLER_KEY, model: 'whole', conns: CONNECTIONS, isStream: false }
      const { errors, messages } = await runLoad({ ...usual, ...more })
      demand(errors === 0, `${errors} requests failed: ${messages.join(' | ')}`)
    }
    await load({ count: COUNTS.whole })
    await load({ count: COUNTS.streams, isStream: true })
    await load({ count: COUNTS.fallbacks, model: 'group' })
    await load({ count: COUNTS.cut, model: 'long', isStream: true, cutAfter: 1 })
    await refused(gateway, COUNTS.unresolved, 404, name => ({ model: name, key: CALLER_KEY }))
    const before = series(await gateway.metrics())
    await refused(gateway, COUNTS.wrongKeys, 401, name => ({ model: 'whole', key: name }))

    const page = await gateway.metrics()
    // A decision on a credential is one family more, with three series at most.
    const grown = series(page) - before
    demand(grown <= 3, `${COUNTS.wrongKeys} wrong keys made ${grown} series`)
    const sent = COUNTS.whole + COUNTS.streams + COUNTS.fallbacks + COUNTS.cut + COUNTS.unresolved
    const counted = sum(page, 'aisix_llm_requests_total')
    demand(counted === sent, `${sent} requests were sent with a valid key, and ${counted} are counted`)
    const denied = sum(page, 'aisix_auth_decisions_total', 'result="denied"')
    demand(denied === COUNTS.wrongKeys, `${COUNTS.wrongKeys} wrong keys were presented, and ${denied} are counted`)
    const fallbacks = sum(page, 'aisix_routing_successful_fallbacks_total')
    demand(fallbacks === COUNTS.fallbacks, `${COUNTS.fallbacks} fallbacks were due, and ${fallbacks} are counted`)

    await endInEveryWay({
      url: gateway.proxyUrl,
      keys: [CALLER_KEY],
      models: WAYS.filter(way => !way.startsWith('silent')).map(way => `ends-${way}`),
      count: COUNTS.endings,
      abreast: CONNECTIONS,
    })
    const askedAt = performance.now()
    const last = await gateway.metrics()
    const tookMs = performance.now() - askedAt
    demand(!/made-up-/.test(last), 'a name that a caller made up is on the page')
    const verdict = await promtool(last)
    const total = Object.values(COUNTS).reduce((all, count) => all + count, 0)
    return `${total} requests: ${series(last)} series, ${(last.length / 1024).toFixed(0)} KiB in ${tookMs.toFixed(0)} ms, sums right, ${verdict} (${seconds(startedAt)})`
  } finally {
    await gateway.stop()
    ending.stop()
    for (const each of [upstream, failing, long]) await each.stop('SIGKILL')
  }
}

/** Requests that are refused, each with a name that nobody has heard before. */
async function refused(
  gateway: RunningGateway,
  count: number,
  expected: number,
  made: (name: string) => { model: string; key: string },
): Promise<void> {
  let next = 0
  const caller = async () => {
    for (let n = next++; n < count; n = next++) {
      const { model, key } = made(`made-up-${expected}-${n}`)
      const response = await fetch(`${gateway.proxyUrl}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
        body: JSON.stringify({ model, messages: [{ role: 'user', content: 'hello' }] }),
      })
      await response.arrayBuffer()
      demand(response.status === expected, `a request that deserves ${expected} was answered ${response.status}`)
    }
  }
  await Promise.all(Array.from({ length: CONNECTIONS }, caller))
}

function series(page: string): number {
  return page.split('\n').filter(line => line !== '' && !line.startsWith('#')).length
}

function sum(page: string, name: string, label = ''): number {
  return page
    .split('\n')
    .filter(line => line.startsWith(`${name}{`) && line.includes(label))
    .reduce((all, line) => all + Number(line.slice(line.lastIndexOf(' '))), 0)
}

async function promtool(page: string): Promise<string> {
  const found = Bun.which('promtool')
  if (!found) return 'promtool is not here: not asked'
  const child = Bun.spawn([found, 'check', 'metrics'], { stdin: Buffer.from(page), stdout: 'pipe', stderr: 'pipe' })
  const said = (await child.stdout.text()) + (await child.stderr.text())
  const status = await child.exited
  demand(status === 0 && said === '', `promtool ended with ${status} and said: ${said.slice(0, 1_000)}`)
  return 'promtool has nothing to complain of'
}
