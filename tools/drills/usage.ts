/**
 * The drills of accounting, which `tools/soak.ts` runs.
 *
 *   sums    50,000 requests that end in several ways, over orderly restarts: what the upstream told, the ledger's rows, its
 *           roll-ups, the budgets and the counters agree to the token; then kill -9, and only the last second is missing
 *   memory  1,000,000 requests: the process ends within a tenth of the memory that it had after 100,000
 */
import { Database } from 'bun:sqlite'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { FLAG } from '../../src/ledger/row.ts'
import { DrillError, demand, seconds, within } from '../rig/drill.ts'
import {
  addModel,
  CALLER_KEY,
  isRecord,
  memoryMib,
  type RunningGateway,
  setUp,
  startGateway,
  startUpstream,
} from '../rig/gateway.ts'
import { runLoad } from '../rig/load.ts'

const ALIAS = 'soak'
/** A model whose streams are long enough to be broken off by every caller that means to. */
const LONG = 'soak-long'
const TOKENS = 20

type Sums = { prompt: number; completion: number }

const same = (one: Sums, other: Sums) => one.prompt === other.prompt && one.completion === other.completion
const told = ({ prompt, completion }: Sums) => `${prompt}+${completion}`

/** Sum of the raw rows. in: whether those with estimates are to be counted, too */
function rowsOf(folder: string, withEstimates: boolean): Sums & { rows: number } {
  const db = new Database(join(folder, 'usage.db'), { readonly: true })
  try {
    const where = withEstimates ? '' : `WHERE flags & ${FLAG.estimated} = 0`
    const row = db
      .query<{ prompt: number | null; completion: number | null; rows: number }, []>(
        `SELECT sum(prompt_tokens) AS prompt, sum(completion_tokens) AS completion, count(*) AS rows FROM attempts ${where}`,
      )
      .get()
    return { prompt: row?.prompt ?? 0, completion: row?.completion ?? 0, rows: row?.rows ?? 0 }
  } finally {
    db.close()
  }
}

async function totals(gateway: RunningGateway): Promise<Record<string, number>> {
  const { status, body } = await gateway.admin('GET', '/usage?group_by=model')
  demand(status === 200 && isRecord(body.totals), `the usage was answered ${status}: ${JSON.stringify(body)}`)
  return Object.fromEntries(Object.entries(body.totals).map(([name, value]) => [name, Number(value)]))
}

function counters(page: string): Sums {
  const sum = (name: string) =>
    [...page.matchAll(new RegExp(`^${name}\\{[^\\n]*\\} (\\S+)$`, 'gm'))].reduce((total, [, value]) => total + Number(value), 0)
  return { prompt: sum('aisix_llm_input_tokens_total'), completion: sum('aisix_llm_output_tokens_total') }
}

async function spentTokens(gateway: RunningGateway): Promise<number> {
  const [budget]: unknown[] = await gateway.list('/budgets/status')
  return isRecord(budget) ? Number(budget.spent_tokens) : Number.NaN
}

/** Every record of the requests so far has reached the disk. */
async function settled(gateway: RunningGateway): Promise<void> {
  const isWritten = async () => {
    const { body } = await gateway.admin('GET', '/health')
    return isRecord(body.usage) && body.usage.queued === 0 && body.usage.dropped === 0
  }
  demand(await within(10_000, isWritten), 'records of usage wait for ever, or were dropped')
}

async function open(folder: string, upstreamUrl: string | undefined): Promise<RunningGateway> {
  mkdirSync(folder, { recursive: true })
  const gateway = await startGateway({ folder, hasMetrics: true })
  if (upstreamUrl !== undefined) {
    await setUp(gateway, { alias: ALIAS, upstreamModel: 'rig-upstream-model', apiBase: `${upstreamUrl}/v1` })
    const [model] = await gateway.list('/models')
    const priced = await gateway.admin('PUT', `/models/${model?.id}`, {
      ...model?.value,
      retries: 1,
      cooldown: { enabled: false },
      cost: { input_per_1k: 0.15, output_per_1k: 0.6 },
    })
    demand(priced.status === 200, `the model was answered ${priced.status}`)
    const budget = await gateway.admin('POST', '/budgets', {
      name: 'all',
      scope: 'all',
      period: 'total',
      limit_usd: 1e9,
      limit_tokens: 1e15,
    })
    demand(budget.status === 200, `the budget was answered ${budget.status}: ${JSON.stringify(budget.body)}`)
  }
  return gateway
}

export async function sums(scratch: string, requests: number): Promise<string> {
  const startedAt = performance.now()
  const folder = join(scratch, 'sums')
  const upstream = await startUpstream(['--tokens', String(TOKENS), '--gap-ms', '1', '--fail-every', '37'])
  const long = await startUpstream(['--tokens', '2000', '--gap-ms', '5'])
  let gateway = await open(folder, upstream.url)
  await addModel(gateway, { alias: LONG, upstreamModel: 'rig-upstream-model', apiBase: `${long.url}/v1` })
  const counted: Sums = { prompt: 0, completion: 0 }
  const rounds = 5
  let cut = 0
  try {
    for (let round = 0; round < rounds; round += 1) {
      const share = Math.floor(requests / rounds / 10)
      const load = { port: gateway.port, key: CALLER_KEY, model: ALIAS }
      // Whole answers, streams, streams that are broken off, callers that nobody knows, all at once.
      const [, , cuts] = await Promise.all([
        runLoad({ ...load, conns: 16, count: share * 6, isStream: false }),
        runLoad({ ...load, conns: 32, count: share * 2, isStream: true }),
        runLoad({ ...load, conns: 16, count: share, isStream: true, cutAfter: 3, model: LONG }),
        runLoad({ ...load, conns: 4, count: share, isStream: false, model: 'no-such-model' }),
      ])
      cut += cuts.ok
      await settled(gateway)
      const page = counters(await gateway.metrics())
      counted.prompt += page.prompt
      counted.completion += page.completion
      const ended = await gateway.stop()
      demand(ended === 0, `an orderly end gave ${ended}`)
      gateway = await open(folder, undefined)
    }
    const source = await upstream.stats()
    const all = rowsOf(folder, true)
    const exact = rowsOf(folder, false)
    const rolled = await totals(gateway)
    const rolledUp = { prompt: rolled.prompt_tokens ?? 0, completion: rolled.completion_tokens ?? 0 }
    const budgetTokens = await spentTokens(gateway)
    const said = `upstream ${told(source)}, exact rows ${told(exact)}, all rows ${told(all)}, roll-ups ${told(rolledUp)}, counters ${told(counted)}, budget ${budgetTokens}`
    demand((await long.stats()).finished === 0, 'a stream that was to be broken off came to its end')
    demand(same(source, exact), `the ledger's rows are not what the upstream told: ${said}`)
    demand(same(all, rolledUp), `rows and roll-ups differ: ${said}`)
    demand(same(all, counted), `rows and counters differ: ${said}`)
    demand(all.prompt + all.completion === budgetTokens, `rows and budget differ: ${said}`)
    demand(rolled.requests === requests, `${rolled.requests} requests in the roll-ups, ${requests} were made`)
    const lost = await killed(gateway, folder)
    return `${requests} requests, ${all.rows} attempts, ${cut} streams cut, ${rounds} restarts: ${said}; ${lost} (${seconds(startedAt)})`
  } finally {
    await gateway.stop('SIGKILL')
    await upstream.stop('SIGKILL')
    await long.stop('SIGKILL')
  }
}

/** kill -9 under load: what was answered more than a second before it is in the ledger and in the budget. */
async function killed(gateway: RunningGateway, folder: string): Promise<string> {
  const before = rowsOf(folder, true)
  const answered: number[] = []
  let isOver = false
  const caller = async () => {
    while (!isOver) {
      const response = await fetch(`${gateway.proxyUrl}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: `Bearer ${CALLER_KEY}`, 'content-type': 'application/json' },
        body: JSON.stringify({ model: ALIAS, messages: [{ role: 'user', content: 'hello' }] }),
      }).catch(() => undefined)
      if (response?.ok && (await response.text().catch(() => '')) !== '') answered.push(performance.now())
    }
  }
  const callers = Array.from({ length: 8 }, caller)
  await Bun.sleep(4_000)
  const killedAt = performance.now()
  process.kill(gateway.pid, 'SIGKILL')
  isOver = true
  await Promise.all(callers)
  const again = await open(folder, undefined)
  try {
    const after = rowsOf(folder, true)
    const rolled = await totals(again)
    const rows = (after.completion - before.completion) / 13
    const due = answered.filter(at => at < killedAt - 1_000).length
    demand(rows >= due, `${due} answers were older than a second at kill -9, and ${rows} are in the ledger`)
    demand(rolled.completion_tokens === after.completion, 'rows and roll-ups differ after kill -9')
    demand(rows <= answered.length + 8, `${rows} answers in the ledger after kill -9, and ${answered.length} were given`)
    const spent = await spentTokens(again)
    const least = before.prompt + before.completion + due * 55
    demand(spent >= least, `the budget has ${spent} tokens after kill -9, at least ${least} are due`)
    return `kill -9: of ${answered.length} answers ${rows} are in the ledger, ${due} were older than a second`
  } finally {
    await again.stop('SIGKILL')
  }
}

export async function memory(scratch: string, requests: number): Promise<string> {
  const startedAt = performance.now()
  const upstream = await startUpstream(['--tokens', String(TOKENS), '--gap-ms', '1'])
  const gateway = await open(join(scratch, 'memory'), upstream.url)
  const run = async (count: number) => {
    const { errors, messages } = await runLoad({
      port: gateway.port,
      key: CALLER_KEY,
      model: ALIAS,
      conns: 32,
      count,
      isStream: false,
    })
    if (errors > 0) throw new DrillError(`${errors} requests failed: ${messages.join(' | ')}`)
  }
  try {
    await run(requests / 10)
    const early = memoryMib(gateway.pid)
    const marks: string[] = []
    for (let part = 0; part < 9; part += 1) {
      await run(requests / 10)
      marks.push(memoryMib(gateway.pid).now.toFixed(0))
    }
    const late = memoryMib(gateway.pid)
    await settled(gateway)
    const said = `${early.now.toFixed(0)} MiB after ${requests / 10} requests, then ${marks.join(', ')}; at most ${late.peak.toFixed(0)}`
    demand(late.now <= early.now * 1.1, `memory grew by more than a tenth: ${said}`)
    return `${requests} requests: ${said} (${seconds(startedAt)})`
  } finally {
    await gateway.stop('SIGKILL')
    await upstream.stop('SIGKILL')
  }
}
