/**
 * Measures ./aisix on this machine: an upstream, the gateway and a load client, each a process of its own.
 * `make bench`, or `bun tools/bench.ts [--secs N] [--conns N] [--streams N] [--tokens N] [--gap-ms N]`.
 * How to read the figures: docs/performance.md. Ends with 1 when any request failed.
 */
import { join } from 'node:path'
import { checkFlags, numberFlag } from './rig/flags.ts'
import {
  CALLER_KEY,
  collect,
  cpuMicroseconds,
  memoryMib,
  type RunningGateway,
  scratchFolder,
  setUp,
  startGateway,
  startUpstream,
} from './rig/gateway.ts'
import type { Outcome, Percentiles } from './rig/load.ts'

checkFlags(
  ['secs', 'conns', 'streams', 'tokens', 'gap-ms'],
  'bun tools/bench.ts [--secs 5] [--conns 64] [--streams 400] [--tokens 100] [--gap-ms 20]',
)
const SECS = numberFlag('secs', 5)
const CONNS = numberFlag('conns', 64)
const STREAMS = numberFlag('streams', 400)
const TOKENS = numberFlag('tokens', 100)
const GAP_MS = numberFlag('gap-ms', 20)
const WARM_UP_SECS = 2

const ALIAS = 'bench'

type Measured = Outcome & { cpuUs: number }

/** Runs the load in its own process, and tells what the gateway used meanwhile. */
async function measure(gateway: RunningGateway, flags: readonly string[], secs: number): Promise<Measured> {
  const before = cpuMicroseconds(gateway.pid)
  const child = Bun.spawn(
    [
      process.execPath,
      join(import.meta.dir, 'rig/load.ts'),
      ...['--port', String(gateway.port), '--key', CALLER_KEY, '--model', ALIAS, '--secs', String(secs), ...flags],
    ],
    { stdin: 'ignore', stdout: 'pipe', stderr: 'inherit' },
  )
  const output = collect(child.stdout)
  if ((await child.exited) !== 0) throw new Error('the load client failed')
  await output.waitFor(/\n$/, 1000, child.exited)
  const outcome: Outcome = JSON.parse(output.text())
  return { ...outcome, cpuUs: cpuMicroseconds(gateway.pid) - before }
}

function ms({ p50, p90, p99, max }: Percentiles): string {
  return `p50 ${p50.toFixed(1)}  p90 ${p90.toFixed(1)}  p99 ${p99.toFixed(1)}  max ${max.toFixed(1)} ms`
}

function tell({ ok, errors, messages }: Measured): void {
  console.log(`  finished ${ok}, errors ${errors}${messages.length > 0 ? `: ${messages.join(' | ')}` : ''}`)
}

const upstream = await startUpstream(['--tokens', String(TOKENS), '--gap-ms', String(GAP_MS)])
const gateway = await startGateway({ folder: scratchFolder('bench') })
let errors = 0
try {
  await setUp(gateway, { alias: ALIAS, upstreamModel: 'rig-upstream-model', apiBase: `${upstream.url}/v1` })
  const idle = memoryMib(gateway.pid).now
  await measure(gateway, ['--conns', String(CONNS)], WARM_UP_SECS)

  console.log(`whole answers, ${CONNS} callers at once, ${SECS} s`)
  const whole = await measure(gateway, ['--conns', String(CONNS)], SECS)
  console.log(`  ${(whole.ok / whole.seconds).toFixed(0)} requests/s, latency ${ms(whole.latency)}`)
  console.log(`  gateway CPU ${(whole.cpuUs / whole.ok).toFixed(1)} us a request`)
  tell(whole)

  // Streams that are not over when the time is up are not counted: the time must hold several of them.
  const streamSecs = Math.max(SECS, Math.ceil((TOKENS * GAP_MS * 2.5) / 1000))
  console.log(`streams, ${STREAMS} at once, ${TOKENS} tokens each, one every ${GAP_MS} ms, ${streamSecs} s`)
  const before = await upstream.stats()
  const streamed = await measure(gateway, ['--conns', String(STREAMS), '--stream'], streamSecs)
  const after = await upstream.stats()
  // All tokens that passed, those of unfinished streams too, are what the CPU went to.
  const passed = (after.finished - before.finished) * TOKENS
  console.log(`  ${(passed / streamed.seconds).toFixed(0)} tokens/s, first token ${ms(streamed.firstToken)}`)
  console.log(`  gateway CPU ${(streamed.cpuUs / passed).toFixed(1)} us a token`)
  tell(streamed)

  const { now, peak } = memoryMib(gateway.pid)
  console.log(`memory of the gateway: ${idle.toFixed(0)} MiB before, ${now.toFixed(0)} MiB now, ${peak.toFixed(0)} MiB at most`)
  errors = whole.errors + streamed.errors
  if (whole.ok === 0 || streamed.ok === 0) errors += 1
} finally {
  await gateway.stop()
  await upstream.stop()
}
if (errors > 0) {
  console.log('FAILED: requests failed, or none was finished; see above')
  process.exit(1)
}
