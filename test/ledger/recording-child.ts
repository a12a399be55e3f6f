/**
 * A process with a ledger. argv: its file, and `record`: records as fast as they are taken, a line of stdout for every
 * batch that the file has, with how many rows that makes; `idle`: records one and does nothing more.
 */
import { writeSync } from 'node:fs'
import { createLedger } from '../../src/ledger/sqlite-ledger.ts'
import { silentLog } from '../../src/lib/log.ts'
import { metricFamilies } from '../../src/telemetry/families.ts'
import { Registry } from '../../src/telemetry/registry.ts'
import { NOON, record } from './records.ts'

const [path = '', what] = process.argv.slice(2)
const ledger = createLedger({
  path,
  retentionDays: 30,
  bytesMax: 1024 * 1024 * 1024,
  log: silentLog,
  registry: new Registry(1_000, metricFamilies({})),
  clock: { now: () => NOON, monotonic: () => performance.now() },
  flushMs: 5,
})
ledger.record(record())
let told = 0
while (what === 'record') {
  for (let row = 0; row < 500; row++) ledger.record(record({ promptTokens: 1, completionTokens: 0 }))
  await Bun.sleep(1)
  while (ledger.status.queued > 20_000) await Bun.sleep(1)
  if (ledger.status.written === told) continue
  told = ledger.status.written
  writeSync(1, `${told}\n`)
}
