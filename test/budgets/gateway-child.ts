import { writeSync } from 'node:fs'
import { createBudgets } from '../../src/budgets/budgets.ts'
import { silentLog } from '../../src/lib/log.ts'
import { openMemoryStore } from '../../src/store/memory.ts'
import { testRegistry } from '../telemetry.ts'
import { budget, record } from './bench.ts'

/**
 * Budgets in a process of their own, for tests that end it or limit its disk: one budget, id `b`, charged a token and a
 * picodollar every millisecond. argv: file; milliseconds after which it stops charging and answers what the health is.
 * stdout: `charged N` after every hundred charges, and `health …` at the end
 */
const [path = '', stopAfterMs = ''] = process.argv.slice(2)
const clock = { now: Date.now, monotonic: () => performance.now() }
const { snapshot } = openMemoryStore({ clock })
const value = budget({ limit_tokens: 1_000_000_000, period: 'total' })
const store = {
  snapshot: { ...snapshot, entries: { ...snapshot.entries, budgets: new Map([['b', { id: 'b', value, revision: 1 }]]) } },
}
const budgets = await createBudgets({ path, store, log: silentLog, registry: testRegistry(), clock })
const startedAt = performance.now()
let charged = 0
const timer = setInterval(() => {
  charged += 1
  budgets.charge(record({}, { pico: 1, tokens: 1 }, clock.now()), undefined)
  if (charged % 100 === 0) writeSync(1, `charged ${charged} at ${Math.round(performance.now())}\n`)
  if (stopAfterMs === '' || performance.now() - startedAt < Number(stopAfterMs)) return
  clearInterval(timer)
  void budgets.close().then(() => writeSync(1, `health ${budgets.health.problem}\n`))
}, 1)
