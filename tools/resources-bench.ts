/**
 * How long a large resources file takes: from the start of ./aisix to its first answer, and how long answers wait while the
 * file is read again. `bun tools/resources-bench.ts [MODELS KEYS RELOADS]`, after `make build`.
 */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startExecutable } from '../test/executable.ts'

const [models = 10_000, keys = 100_000, reloads = 5] = process.argv.slice(2).map(Number)
const PROVIDER_KEYS = 100
/** What is measured before the signal and after the file is in force. */
const REST_MS = 500

function* lines(): Generator<string> {
  yield '_format_version: "1"\nprovider_keys:\n'
  for (let i = 0; i < PROVIDER_KEYS; i++) {
    yield `  - display_name: pk-${i}\n    adapter: openai\n    secret: not-used\n    api_base: http://127.0.0.1:${9000 + i}/v1\n`
  }
  yield 'models:\n'
  for (let i = 0; i < models; i++) {
    yield `  - display_name: model-${i}\n    provider: vllm\n    model_name: org/m-${i}\n    provider_key: pk-${i % PROVIDER_KEYS}\n    cost: {input_per_1k: 0.1, output_per_1k: 0.3}\n`
  }
  yield 'api_keys:\n'
  for (let i = 0; i < keys; i++) {
    const hash = new Bun.CryptoHasher('sha256').update(`sk-${i}`).digest('hex')
    yield `  - display_name: key-${i}\n    key_hash: ${hash}\n    allowed_models: ["model-${i % models}", "model-${(i + 7) % models}"]\n    team_id: team-${i % 50}\n`
  }
}

const folder = mkdtempSync(join(tmpdir(), 'aisix-bench-'))
const path = join(folder, 'resources.yaml')
writeFileSync(path, [...lines()].join(''))
console.log(`${models} models, ${keys} keys, ${(statSync(path).size / 1e6).toFixed(1)} MB`)
const startedAt = performance.now()
const gateway = await startExecutable({ folder, env: { AISIX_RESOURCES_FILE: path } })
try {
  console.log(`start to first answer: ${(performance.now() - startedAt).toFixed(0)} ms`)
  for (let i = 1; i <= reloads; i++) {
    const signalledAt = performance.now()
    const before = await loads()
    gateway.signal('SIGHUP')
    let isOver = false
    const watching = (async () => {
      const waits: number[] = []
      while (!isOver) {
        const at = performance.now()
        await (await fetch(`${gateway.proxyUrl}/livez`)).text()
        waits.push(performance.now() - at)
        // Asking without a pause would take a core from the gateway.
        await Bun.sleep(1)
      }
      return waits.sort((a, b) => b - a)
    })()
    while ((await loads()) === before) await Bun.sleep(100)
    const tookMs = performance.now() - signalledAt
    await Bun.sleep(REST_MS)
    isOver = true
    const waits = await watching
    const p50 = waits[Math.floor(waits.length / 2)] ?? 0
    console.log(
      `reload ${i}: ${tookMs.toFixed(0)} ms; answers: p50 ${p50.toFixed(1)} ms, longest ${waits
        .slice(0, 3)
        .map(ms => ms.toFixed(0))
        .join(', ')} ms`,
    )
  }
} finally {
  await gateway.dispose()
  rmSync(folder, { recursive: true, force: true })
}

async function loads(): Promise<string | undefined> {
  const page = await (await fetch(`${gateway.statusUrl}/metrics`)).text()
  return /^aisix_config_reloads_total \d+$/m.exec(page)?.[0]
}
