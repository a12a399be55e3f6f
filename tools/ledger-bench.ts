/**
 * Measures the usage ledger: builds one through the gateway's own writer, asks it what operators ask, and prints what rows
 * cost and how long answers take. `bun tools/ledger-bench.ts [rows]`, 1,000,000 unless told; ten million take some minutes
 * and about 2 GB in the folder for temporary files (`TMPDIR`).
 *
 * The rows lie evenly over 30 days: 200 keys of which few ask most, 5 models with 3 provider keys each, 2 % failures. One
 * key has asked 40 times in all.
 */
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Labels, NO_LABELS } from '../src/exchange.ts'
import { BatchBuilder } from '../src/ledger/batch.ts'
import type { Ledger, UsageQuestion } from '../src/ledger/ledger.ts'
import { createLedger } from '../src/ledger/sqlite-ledger.ts'
import { createWriter } from '../src/ledger/writer.ts'
import { silentLog } from '../src/lib/log.ts'
import { metricFamilies } from '../src/telemetry/families.ts'
import { Registry } from '../src/telemetry/registry.ts'
import type { UsageRecord } from '../src/telemetry/usage-record.ts'

const [rowsText = '1000000', ...others] = process.argv.slice(2)
const ROWS = Number(rowsText)
if (!Number.isSafeInteger(ROWS) || ROWS < 10_000 || others.length > 0) {
  console.error('bun tools/ledger-bench.ts [rows], of which there must be 10,000 or more')
  process.exit(2)
}

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const DAYS = 30
const KEYS = 200
const MODELS = 5
const PROVIDER_KEYS = 3
const RARE_ROWS = 40
const BATCH_ROWS = 2_048
const ROUNDS = 15
const GIB = 1024 ** 3

const END_MS = Math.floor(Date.now() / HOUR_MS) * HOUR_MS
const START_MS = END_MS - DAYS * DAY_MS
const timeOf = (row: number) => START_MS + Math.floor((row / ROWS) * DAYS * DAY_MS)

/** Repeatable, so that two runs measure the same ledger. source: Steele, Lea, Flood, "SplitMix", 32 bits */
function randomNumbers(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x9e3779b9) | 0
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad)
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97)
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32
  }
}
const random = randomNumbers(1)
const below = (bound: number) => Math.floor(random() * bound)

const uuid = (kind: number, number: number) => `00000000-0000-4000-800${kind}-${String(number).padStart(12, '0')}`
const keyId = (key: number) => uuid(1, key)
const modelId = (model: number) => uuid(2, model)
const RARE_KEY = keyId(KEYS)

function labelsOf(key: number, model: number, providerKey: number): Labels {
  return {
    ...NO_LABELS,
    apiKeyId: keyId(key),
    teamId: `team-${key % 20}`,
    userId: `user-${key}`,
    userName: `User ${key}`,
    name: `model-${model}`,
    modelId: modelId(model),
    model: `model-${model}`,
    provider: 'vllm',
    upstreamModel: `org/model-${model}`,
    providerKeyId: uuid(3, model * PROVIDER_KEYS + providerKey),
    providerKeyName: `rack-${model}-${providerKey}`,
  }
}

const LABELS = Array.from({ length: (KEYS + 1) * MODELS * PROVIDER_KEYS }, (_, index) =>
  labelsOf(Math.floor(index / (MODELS * PROVIDER_KEYS)), Math.floor(index / PROVIDER_KEYS) % MODELS, index % PROVIDER_KEYS),
)

function recordOf(row: number): UsageRecord {
  const isRare = row % Math.floor(ROWS / RARE_ROWS) === 7
  // Few keys ask most: half of all requests are of the first eighth.
  const key = isRare ? KEYS : Math.floor(KEYS * random() ** 3)
  const labels = LABELS[(key * MODELS + below(MODELS)) * PROVIDER_KEYS + below(PROVIDER_KEYS)] ?? NO_LABELS
  const isFailed = random() < 0.02
  const isStream = random() < 0.6
  const promptTokens = 50 + below(4_000)
  const completionTokens = isFailed ? 0 : 10 + below(900)
  const upstreamMs = 50 + below(20_000)
  return {
    labels,
    handler: 'chat',
    endpoint: '/v1/chat/completions',
    inboundProtocol: 'openai',
    requestId: crypto.randomUUID(),
    traceId: undefined,
    occurredAtMs: timeOf(row),
    requestedModel: labels.name,
    isStream,
    promptTokens,
    completionTokens,
    cachedTokens: 0,
    reasoningTokens: 0,
    isEstimated: false,
    upstreamMs,
    upstreamTtftMs: isStream ? 20 + below(2_000) : undefined,
    downstreamMs: isStream ? 21 + below(2_000) : upstreamMs,
    totalMs: upstreamMs + 2,
    status: isFailed ? ([429, 500, 502, 504][below(4)] ?? 502) : 200,
    costPico: promptTokens * 150_000 + completionTokens * 600_000,
    isPriced: true,
    attemptIndex: 0,
    attemptKind: 'initial',
    isTerminal: true,
    errorClass: isFailed ? 'upstream_error' : undefined,
    errorMessage: isFailed ? 'the upstream answered with an error' : undefined,
    finishReason: isFailed ? undefined : 'stop',
    providerRequestId: isFailed ? undefined : `chatcmpl-${crypto.randomUUID().replaceAll('-', '')}`,
    providerModelVersion: labels.upstreamModel,
    clientIp: `10.0.${key % 8}.${key}`,
    userAgent: `OpenAI/Python 1.${key % 30}.0`,
    extra: undefined,
  }
}

type Built = { seconds: number; cpuUs: number; ids: string[] }

/** Writes all rows; some ids are kept to be asked for. CPU is of encoding and writing alone. */
function build(path: string): Built {
  const writer = createWriter({ path, writerId: 'bench', retentionDays: 400, bytesMax: 64 * GIB, retryMs: 1_000 }, message => {
    if (message.kind === 'done' && !message.isWritten) throw new Error(`a batch was lost: ${message.report.problem}`)
  })
  writer.start(START_MS)
  const builder = new BatchBuilder()
  const ids: string[] = []
  let cpuUs = 0
  const begun = performance.now()
  for (let from = 0, number = 1; from < ROWS; from += BATCH_ROWS, number++) {
    const rows = Math.min(BATCH_ROWS, ROWS - from)
    const records = Array.from({ length: rows }, (_, at) => recordOf(from + at))
    if (random() < 0.05) ids.push(records[below(rows)]?.requestId ?? '')
    const before = process.cpuUsage()
    for (const each of records) builder.add(each)
    writer.push(builder.take(number).batch, timeOf(from + rows))
    const { user, system } = process.cpuUsage(before)
    cpuUs += user + system
  }
  writer.close(END_MS)
  return { seconds: (performance.now() - begun) / 1_000, cpuUs, ids }
}

type Line = { what: string; found: number; p50: number; max: number; loop: number }

/** Asks a question again and again, of other keys and ids each time, and looks how long the event loop stood still. */
async function measure(what: string, ask: (round: number) => Promise<readonly unknown[]>): Promise<Line> {
  const times: number[] = []
  let found = 0
  let loop = 0
  let last = performance.now()
  const ticker = setInterval(() => {
    const now = performance.now()
    loop = Math.max(loop, now - last - 1)
    last = now
  }, 1)
  for (let round = 0; round < ROUNDS; round++) {
    const begun = performance.now()
    found = (await ask(round)).length
    times.push(performance.now() - begun)
  }
  clearInterval(ticker)
  times.sort((a, b) => a - b)
  return { what, found, p50: times[Math.floor(times.length / 2)] ?? 0, max: times.at(-1) ?? 0, loop }
}

async function questions(ledger: Ledger, ids: readonly string[]): Promise<Line[]> {
  const span = { fromMs: START_MS, toMs: END_MS + HOUR_MS }
  const usage = (question: Partial<UsageQuestion>) => async () =>
    (await ledger.usage({ ...span, groupBy: [], filter: {}, ...question })).rows
  const requests = async (question: Partial<Parameters<Ledger['requests']>[0]>) =>
    (await ledger.requests({ limit: 100, ...question })).records
  const middle = START_MS + 15 * DAY_MS
  const { newest } = await ledger.requests({ limit: 1 })
  return [
    await measure('usage by day', usage({ groupBy: ['day'] })),
    await measure('usage by hour', usage({ groupBy: ['hour'] })),
    await measure('usage by api_key', usage({ groupBy: ['api_key'] })),
    await measure('usage by model, day', usage({ groupBy: ['model', 'day'] })),
    await measure('usage by team, user, day', usage({ groupBy: ['team', 'user', 'day'] })),
    await measure('usage by hour, model of one key', round =>
      usage({ groupBy: ['hour', 'model'], filter: { apiKeyIds: [keyId(round)] } })(),
    ),
    await measure('usage by api_key, model', usage({ groupBy: ['api_key', 'model'] })),
    await measure('usage by user of one model', usage({ groupBy: ['user'], filter: { modelIds: [modelId(2)] } })),
    await measure(
      'usage by hour of one model, failures',
      usage({ groupBy: ['hour'], filter: { modelIds: [modelId(2)], statusClasses: ['5xx'] } }),
    ),
    await measure('newest page', () => requests({})),
    await measure('after a cursor', () => requests({ after: Math.floor(newest / 2) })),
    await measure('page of some hours', () => requests({ fromMs: middle, toMs: middle + HOUR_MS })),
    await measure('page of a common key', round => requests({ apiKeyIds: [keyId(round)] })),
    await measure('page of a rare key', () => requests({ apiKeyIds: [RARE_KEY] })),
    await measure('page of a rare key at one model', () => requests({ apiKeyIds: [RARE_KEY], modelIds: [modelId(1)] })),
    await measure('page of a model', () => requests({ modelIds: [modelId(3)] })),
    await measure('failures', () => requests({ failedOnly: true })),
    await measure('failures of a common key', round => requests({ failedOnly: true, apiKeyIds: [keyId(round)] })),
    await measure('failures of a rare key', () => requests({ failedOnly: true, apiKeyIds: [RARE_KEY] })),
    await measure('with a status that none has', () => requests({ status: 418 })),
    await measure('a request by its id', round => ledger.request(ids[Math.floor((round / ROUNDS) * ids.length)] ?? '')),
    await measure('a request that is not there', () => ledger.request(crypto.randomUUID())),
  ]
}

const folder = mkdtempSync(join(tmpdir(), 'aisix-ledger-bench-'))
try {
  const path = join(folder, 'usage.db')
  const built = build(path)
  const bytes = statSync(path).size
  console.log(`rows              ${ROWS.toLocaleString('en')} over ${DAYS} days`)
  console.log(
    `bytes a row       ${(bytes / ROWS).toFixed(1)}, with roll-ups, blocks and filters; ${(bytes / 2 ** 20).toFixed(0)} MiB in all`,
  )
  console.log(`CPU a row         ${(built.cpuUs / ROWS).toFixed(2)} us to encode, insert, describe and roll up`)
  console.log(`rows a second     ${Math.round(ROWS / built.seconds).toLocaleString('en')}, making them up included`)
  const ledger = createLedger({
    path,
    retentionDays: 400,
    bytesMax: 64 * GIB,
    log: silentLog,
    registry: new Registry(1_000, metricFamilies({})),
    clock: { now: () => END_MS, monotonic: () => performance.now() },
  })
  await ledger.opened
  const lines = await questions(ledger, built.ids)
  const width = Math.max(...lines.map(({ what }) => what.length))
  console.log(`\n${'question'.padEnd(width)}  found   p50 ms   max ms  event loop held, ms`)
  for (const { what, found, p50, max, loop } of lines) {
    const cells = [String(found).padStart(6), p50.toFixed(1).padStart(8), max.toFixed(1).padStart(8), loop.toFixed(1).padStart(8)]
    console.log(`${what.padEnd(width)} ${cells.join(' ')}`)
  }
  await ledger.close()
} finally {
  rmSync(folder, { recursive: true, force: true })
}
