/**
 * The long drills against ./aisix. `make soak`, or `bun tools/soak.ts [--only kill|disk|cut|hangup|leases|failover|scrape|sums|memory] [--rounds N] [--streams N]`.
 *
 *   kill    writes that were answered 200 outlive kill -9, round after round
 *   disk    a store that cannot be written: writes get 500 with the reason, callers are served all the same
 *   cut     streams that their callers break off: no upstream stream stays open, nothing is in flight, memory comes back
 *   hangup  an upstream that closes its connection after every stream without saying so: no caller sees it
 *   leases  20,000 requests that end in every way: afterwards exactly as many streams fit as the limits say
 *   failover  three upstreams behind a group, 200 callers; one is killed, another stalls, both come back
 *   scrape  100,000 mixed requests: the scrape page is as long as the configuration makes it, and promtool accepts it
 *   sums, memory  see drills/usage.ts
 *
 * One line of result a drill; ends with 1 when one failed. All of them take about six minutes.
 */
import { Database } from 'bun:sqlite'
import { mkdirSync, statfsSync, writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { scrape } from './drills/scrape.ts'
import { memory, sums } from './drills/usage.ts'
import { DrillError, demand, seconds, within } from './rig/drill.ts'
import { endInEveryWay, endingUpstream, WAYS } from './rig/endings.ts'
import { checkFlags, numberFlag, textFlag } from './rig/flags.ts'
import {
  addCallerKey,
  addModel,
  CALLER_KEY,
  memoryMib,
  type RunningGateway,
  scratchFolder,
  setUp,
  startGateway,
  startUpstream,
  type Upstream,
} from './rig/gateway.ts'
import { runLoad } from './rig/load.ts'

checkFlags(
  ['only', 'rounds', 'streams', 'requests'],
  'bun tools/soak.ts [--only kill|disk|cut|hangup|leases|failover|scrape|sums|memory] [--rounds 100] [--streams 50000] [--requests 1000000]',
)
const ROUNDS = numberFlag('rounds', 100)
const CUT_STREAMS = numberFlag('streams', 50_000)
const MEMORY_REQUESTS = numberFlag('requests', 1_000_000)
const HANGUP_STREAMS = 4_000

const ALIAS = 'soak'
const TARGET = { alias: ALIAS, upstreamModel: 'rig-upstream-model' }

function ask(gateway: RunningGateway, members: object, signal?: AbortSignal): Promise<Response> {
  return fetch(`${gateway.proxyUrl}/v1/chat/completions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${CALLER_KEY}`, 'content-type': 'application/json' },
    body: JSON.stringify({ messages: [{ role: 'user', content: 'hello' }], ...members }),
    ...(signal ? { signal } : {}),
  })
}

/** Status of one chat request. */
async function chat(gateway: RunningGateway, model = ALIAS): Promise<number> {
  const response = await ask(gateway, { model })
  await response.arrayBuffer()
  return response.status
}

function providerKey(name: string) {
  return { display_name: name, provider: 'vllm', adapter: 'openai', secret: 'x', api_base: 'http://127.0.0.1:9/v1' }
}

async function kill(): Promise<string> {
  const folder = scratchFolder('soak-kill')
  const startedAt = performance.now()
  /** Ids whose write was answered 200, with the name and the revision that were answered. */
  const answered = new Map<string, { name: string; revision: number }>()
  for (let round = 0; ; round += 1) {
    const gateway = await startGateway({ folder })
    for (const [id, { name, revision }] of answered) {
      // All of them at the end; between, those of the last rounds, which are the ones at risk.
      if (round < ROUNDS && answered.size > 40 && !name.startsWith(`r${round - 1}-`)) continue
      const { status, body } = await gateway.admin('GET', `/provider_keys/${id}`)
      demand(status === 200, `round ${round}: the write of ${name} was answered 200 and is gone (${status})`)
      demand(Number(body.revision) >= revision, `round ${round}: ${name} fell back from revision ${revision}`)
    }
    if (round >= ROUNDS) {
      const status = await gateway.stop()
      demand(status === 0, `the last gateway ended with ${status}`)
      return `${ROUNDS} times kill -9, ${answered.size} writes answered 200, all there (${seconds(startedAt)})`
    }
    // Writers that never stop by themselves, so that the end meets writes under way.
    let isOver = false
    const writer = async (index: number) => {
      for (let i = 0; !isOver; i += 1) {
        const name = `r${round}-${index}-${i}`
        const { status, body } = await gateway.admin('POST', '/provider_keys', providerKey(name))
        if (status === 200) answered.set(String(body.id), { name, revision: Number(body.revision) })
      }
    }
    const writers = [0, 1].map(index => writer(index).catch(() => {}))
    const before = answered.size
    demand(await within(5_000, () => answered.size >= before + 2 + (round % 5)), `round ${round}: writes are not answered`)
    isOver = true
    await gateway.stop('SIGKILL')
    await Promise.all(writers)
  }
}

async function disk(): Promise<string> {
  const upstream = await startUpstream(['--tokens', '5', '--gap-ms', '0'])
  try {
    const locked = await lockedStore(upstream)
    const full = await fullDisk(upstream)
    const readOnly = await readOnlyWhileRunning(upstream)
    return `${locked}; ${full}; ${readOnly}`
  } finally {
    await upstream.stop()
  }
}

/** A write that must be refused with a reason while callers are served. returns: the reason */
async function refusedWrite(gateway: RunningGateway, name: string): Promise<string> {
  const { status, body } = await gateway.admin('POST', '/provider_keys', providerKey(name))
  demand(status === 500, `a write that cannot be kept was answered ${status}, not 500`)
  const reason = String(body.error_msg ?? '')
  demand(reason.length > 10, `a write that cannot be kept was refused without a reason: ${JSON.stringify(body)}`)
  demand((await chat(gateway)) === 200, 'callers are not served while the store cannot be written')
  return reason
}

async function lockedStore(upstream: Upstream): Promise<string> {
  const folder = scratchFolder('soak-locked')
  const gateway = await startGateway({ folder })
  try {
    await setUp(gateway, { ...TARGET, apiBase: `${upstream.url}/v1` })
    const other = new Database(join(folder, 'aisix.db'))
    other.run('BEGIN IMMEDIATE')
    const reason = await refusedWrite(gateway, 'while-locked')
    other.run('ROLLBACK')
    other.close()
    const { status } = await gateway.admin('POST', '/provider_keys', providerKey('after-the-lock'))
    demand(status === 200, `after the lock was gone a write was answered ${status}`)
    return `locked store: 500 "${reason}", callers served, writes again afterwards`
  } finally {
    await gateway.stop()
  }
}

/**
 * A disk that turns read-only under a running gateway, as ext4 does by itself when it meets an error: it is told to meet one.
 * A remount would not do: the kernel refuses it while files are open for writing.
 */
async function readOnlyWhileRunning(upstream: Upstream): Promise<string> {
  const folder = scratchFolder('soak-readonly')
  const place = join(folder, 'disk')
  const image = join(folder, 'disk.img')
  mkdirSync(place)
  writeFileSync(image, Buffer.alloc(32 * 1024 * 1024))
  const run = (...command: string[]) => Bun.spawnSync(command, { stdout: 'pipe', stderr: 'ignore' })
  const mounted = run('mkfs.ext4', '-q', image).success && run('mount', '-o', 'loop,errors=remount-ro', image, place).success
  if (!mounted) return 'read-only while running: skipped, no ext4 image can be mounted here (it takes root and a loop device)'
  try {
    const device = run('findmnt', '-no', 'SOURCE', place).stdout.toString().trim().replace('/dev/', '')
    const gateway = await startGateway({ folder, storePath: 'disk/aisix.db' })
    try {
      await setUp(gateway, { ...TARGET, apiBase: `${upstream.url}/v1` })
      writeFileSync(`/sys/fs/ext4/${device}/trigger_fs_error`, '1')
      const reason = await refusedWrite(gateway, 'on-a-read-only-disk')
      return `read-only while running: 500 "${reason.replaceAll(place, 'DISK')}", callers served`
    } finally {
      await gateway.stop()
    }
  } finally {
    run('umount', '-l', place)
  }
}

async function fullDisk(upstream: Upstream): Promise<string> {
  const folder = scratchFolder('soak-disk')
  const place = join(folder, 'disk')
  mkdirSync(place)
  const mount = (options: string) => Bun.spawnSync(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', place])
  const mounted = mount('size=2m')
  if (!mounted.success) return 'full disk: skipped, no tmpfs can be mounted here (it takes root)'
  try {
    const gateway = await startGateway({ folder, storePath: 'disk/aisix.db' })
    let told: string
    try {
      await setUp(gateway, { ...TARGET, apiBase: `${upstream.url}/v1` })
      const { bavail, bsize } = statfsSync(place)
      writeFileSync(join(place, 'filler'), Buffer.alloc(bavail * bsize))
      const reason = await refusedWrite(gateway, 'on-a-full-disk')
      await rm(join(place, 'filler'))
      const { status } = await gateway.admin('POST', '/provider_keys', providerKey('after-the-full-disk'))
      demand(status === 200, `after there was room again a write was answered ${status}`)
      told = `full disk: 500 "${reason}", callers served, writes again afterwards`
    } finally {
      await gateway.stop()
    }
    return `${told}; ${await readOnlyDisk(folder, place)}`
  } finally {
    Bun.spawnSync(['umount', '-l', place])
  }
}

/** A store on a disk that is read-only from the start: nothing could be kept, so nothing is started. */
async function readOnlyDisk(folder: string, place: string): Promise<string> {
  const remounted = Bun.spawnSync(['mount', '-o', 'remount,ro', place])
  if (!remounted.success) return 'read-only disk: skipped, it cannot be remounted here'
  try {
    const gateway = await startGateway({ folder, storePath: 'disk/aisix.db' })
    await gateway.stop()
    throw new DrillError('the gateway started on a read-only disk, where it can keep no write')
  } catch (error) {
    if (error instanceof DrillError) throw error
    const said = error instanceof Error ? error.message : String(error)
    const line = /store open failed: .*/.exec(said)?.[0]
    demand(line !== undefined, `on a read-only disk the gateway said: ${said}`)
    return `read-only disk: the start is refused, "${line.replaceAll(place, 'DISK')}"`
  }
}

async function cut(): Promise<string> {
  const upstream = await startUpstream(['--tokens', '1000000', '--gap-ms', '1'])
  const gateway = await startGateway({ folder: scratchFolder('soak-cut') })
  const startedAt = performance.now()
  try {
    await setUp(gateway, { ...TARGET, apiBase: `${upstream.url}/v1` })
    const load = (count: number) =>
      runLoad({ port: gateway.port, key: CALLER_KEY, model: ALIAS, conns: 100, count, isStream: true, cutAfter: 2 })
    const warm = await load(Math.min(5_000, CUT_STREAMS / 5))
    const before = memoryMib(gateway.pid).now
    const { ok, errors, messages } = await load(CUT_STREAMS)
    demand(errors + warm.errors === 0, `${errors} streams failed: ${messages.join(' | ')}`)
    const isFree = await within(2_000, async () => (await upstream.stats()).open === 0)
    const stats = await upstream.stats()
    demand(isFree, `${stats.open} streams of the upstream are still open 2 s after their callers left`)
    demand(stats.finished === 0, 'a stream of a million tokens came to its end: the drill measures nothing')
    const settled = await within(10_000, () => memoryMib(gateway.pid).now < before + 64)
    const after = memoryMib(gateway.pid).now
    demand(settled || Number.isNaN(after), `memory went from ${before.toFixed(0)} to ${after.toFixed(0)} MiB`)
    const stoppedAt = performance.now()
    const status = await gateway.stop()
    const inFlight = /draining .*in_flight=(\d+)/.exec(gateway.log())?.[1]
    demand(status === 0 && inFlight === '0', `the drain began with ${inFlight} in flight and ended with ${status}`)
    demand(performance.now() - stoppedAt < 2_000, 'the drain of an idle gateway took over 2 s')
    return `${ok} streams cut by callers, ${stats.open} open upstream, 0 in flight, ${before.toFixed(0)} → ${after.toFixed(0)} MiB (${seconds(startedAt)})`
  } finally {
    await gateway.stop()
    await upstream.stop()
  }
}

async function hangup(): Promise<string> {
  const startedAt = performance.now()
  const upstream = await startUpstream(['--tokens', '5', '--gap-ms', '0', '--hangup'])
  const gateway = await startGateway({ folder: scratchFolder('soak-hangup') })
  try {
    await setUp(gateway, { ...TARGET, apiBase: `${upstream.url}/v1` })
    const counts: string[] = []
    for (const conns of [4, 64]) {
      const load = { port: gateway.port, key: CALLER_KEY, model: ALIAS, conns, count: HANGUP_STREAMS, isStream: true }
      const { ok, errors, messages } = await runLoad(load)
      demand(errors === 0, `${conns} callers: ${errors} of ${HANGUP_STREAMS} streams failed: ${messages.join(' | ')}`)
      counts.push(`${ok} with ${conns} callers`)
    }
    const { requests, finished } = await upstream.stats()
    demand(requests === finished, `the upstream was asked ${requests} times and finished ${finished} streams`)
    demand(finished === HANGUP_STREAMS * 2, `${HANGUP_STREAMS * 2} streams reached the upstream ${finished} times`)
    return `streams of an upstream that hangs up: ${counts.join(', ')}, 0 errors, none ran twice (${seconds(startedAt)})`
  } finally {
    await gateway.stop()
    await upstream.stop()
  }
}

const LEASE_REQUESTS = 20_000
const PLACES = 200

async function leases(): Promise<string> {
  const startedAt = performance.now()
  const upstream = endingUpstream()
  const gateway = await startGateway({ folder: scratchFolder('soak-leases') })
  try {
    const places = { rate_limit: { concurrency: PLACES } }
    const providerKeyId = await addModel(gateway, { ...TARGET, apiBase: upstream.url })
    await addCallerKey(gateway, places)
    const write = async (path: string, document: unknown) => {
      const { status, body } = await gateway.admin('POST', path, document)
      demand(status === 200, `POST ${path} was answered ${status}: ${JSON.stringify(body)}`)
    }
    const model = (display_name: string, model_name: string, more: object) =>
      write('/models', { display_name, provider: 'vllm', model_name, provider_key_id: providerKeyId, retries: 0, ...more })
    for (const way of WAYS) await model(way, way, { ...places, timeout: 30, stream_timeout: 30 })
    await model('held', 'silent-stream', places)
    const routing = { strategy: 'round_robin', when_all_unavailable: 'try_anyway', targets: WAYS.map(way => ({ model: way })) }
    await write('/models', { display_name: 'group', routing, ...places })
    await write('/models', { display_name: 'held-group', routing: { targets: [{ model: 'held' }] }, ...places })
    await write('/rate_limit_policies', { name: 'all', limits: { concurrency: PLACES } })
    const endings = await endInEveryWay({
      url: gateway.proxyUrl,
      keys: [CALLER_KEY],
      models: [...WAYS, 'group'],
      count: LEASE_REQUESTS,
      abreast: 64,
    })
    demand(await within(5_000, async () => (await chat(gateway, 'whole')) === 200), 'nothing passes after the drill')
    // All places are free: so many streams fit, and not one more.
    const leaving = new AbortController()
    const hold = () => ask(gateway, { model: 'held-group', stream: true }, leaving.signal)
    const held = await Promise.all(Array.from({ length: PLACES }, hold))
    const passed = held.filter(({ status }) => status === 200).length
    demand(passed === PLACES, `of ${PLACES} places only ${passed} were free after the drill`)
    const { status } = await hold()
    demand(status === 429, `the stream beyond the limit was answered ${status}`)
    leaving.abort()
    await Promise.allSettled(held.map(response => response.text()))
    const told = [...endings].sort(([a], [b]) => (a < b ? -1 : 1)).map(([outcome, count]) => `${outcome} ${count}`)
    return `${LEASE_REQUESTS} requests (${told.join(', ')}), then ${PLACES} of ${PLACES} places free (${seconds(startedAt)})`
  } finally {
    await gateway.stop()
    upstream.stop()
  }
}

const CALLERS = 200
const MEMBERS = ['one', 'two', 'three'] as const

/**
 * Callers, half of them streaming, ask a group of three without a pause while one upstream process is killed and another one
 * is stopped, and while both come back. What a healthy member could have prevented is any error before the first byte; a
 * stream that is cut after it is told apart, since nobody could have prevented that.
 */
async function failover(): Promise<string> {
  const startedAt = performance.now()
  const flags = ['--tokens', '10', '--gap-ms', '5']
  const upstreams = new Map<string, Upstream>()
  for (const name of MEMBERS) upstreams.set(name, await startUpstream(flags))
  const at = (name: string): Upstream => {
    const upstream = upstreams.get(name)
    if (!upstream) throw new Error(`no upstream ${name}`)
    return upstream
  }
  const gateway = await startGateway({ folder: scratchFolder('soak-failover') })
  const counts = { whole: 0, streams: 0, cutStreams: 0, byMember: new Map<string, number>() }
  const errors: string[] = []
  let isOver = false
  const caller = async (index: number) => {
    for (let n = index; !isOver; n += 1) {
      const isStream = n % 2 === 0
      const response = await ask(gateway, { model: 'group', stream: isStream })
      const text = await response.text().catch(error => `cut: ${error}`)
      if (response.status !== 200) errors.push(`${response.status} ${text.slice(0, 200)}`)
      else {
        const served = response.headers.get('x-aisix-served-by') ?? 'nobody'
        counts.byMember.set(served, (counts.byMember.get(served) ?? 0) + 1)
        if (!isStream && !text.includes('"choices"')) errors.push(`an answer that is none: ${text.slice(0, 200)}`)
        else if (isStream && !text.includes('[DONE]')) {
          if (text.includes('"content"')) counts.cutStreams += 1
          else errors.push(`a stream that was cut before it began: ${text.slice(0, 200)}`)
        } else if (isStream) counts.streams += 1
        else counts.whole += 1
      }
    }
  }
  try {
    await addCallerKey(gateway)
    for (const name of MEMBERS) {
      const target = { alias: name, upstreamModel: name, apiBase: `${at(name).url}/v1` }
      await addModel(gateway, target, { cooldown: { default_seconds: 2 } })
    }
    const group = await gateway.admin('POST', '/models', {
      display_name: 'group',
      routing: { strategy: 'round_robin', targets: MEMBERS.map(model => ({ model })) },
      timeout: 1_000,
      stream_timeout: 1_000,
    })
    demand(group.status === 200, `the group was answered ${group.status}: ${JSON.stringify(group.body)}`)
    const callers = Array.from({ length: CALLERS }, (_, index) => caller(index))
    const said: string[] = []
    const phase = async (name: string, ms: number) => {
      const before = new Map(counts.byMember)
      await Bun.sleep(ms)
      const grown = MEMBERS.map(member => (counts.byMember.get(member) ?? 0) - (before.get(member) ?? 0))
      said.push(`${name} ${grown.join('/')}`)
      return grown
    }
    await phase('all up', 3_000)
    await at('one').stop('SIGKILL')
    await phase('one killed', 4_000)
    process.kill(at('two').pid, 'SIGSTOP')
    await phase('one killed, two stalled', 6_000)
    process.kill(at('two').pid, 'SIGCONT')
    upstreams.set('one', await startUpstream([...flags, '--port', new URL(at('one').url).port]))
    await phase('both back', 5_000)
    const last = await phase('all up again', 3_000)
    isOver = true
    await Promise.all(callers)
    demand(errors.length === 0, `${errors.length} callers saw errors: ${[...new Set(errors)].slice(0, 3).join(' | ')}`)
    demand(
      last.every(count => count > 0),
      `a member that came back serves nobody: ${last.join('/')}`,
    )
    const { whole, streams, cutStreams } = counts
    return `${CALLERS} callers, ${whole} answers and ${streams} streams whole, ${cutStreams} streams cut after their first byte, 0 errors; served by one/two/three: ${said.join(', ')} (${seconds(startedAt)})`
  } finally {
    isOver = true
    await gateway.stop()
    for (const upstream of upstreams.values()) await upstream.stop('SIGKILL')
  }
}

const DRILLS: Record<string, () => Promise<string>> = {
  kill,
  disk,
  cut,
  hangup,
  leases,
  failover,
  scrape: () => scrape(scratchFolder('soak-scrape')),
  sums: () => sums(scratchFolder('soak-sums'), 50_000),
  memory: () => memory(scratchFolder('soak-memory'), MEMORY_REQUESTS),
}

const only = textFlag('only')
if (only !== undefined && !Object.hasOwn(DRILLS, only)) {
  console.error(`--only takes one of ${Object.keys(DRILLS).join(', ')}`)
  process.exit(2)
}
let failed = 0
for (const [name, drill] of Object.entries(DRILLS)) {
  if (only !== undefined && only !== name) continue
  try {
    console.log(`${name.padEnd(7)} ok      ${await drill()}`)
  } catch (error) {
    failed += 1
    console.log(`${name.padEnd(7)} FAILED  ${error instanceof Error ? error.message : String(error)}`)
  }
}
process.exit(failed > 0 ? 1 : 0)
