import { writeSync } from 'node:fs'
import { silentLog } from '../../src/lib/log.ts'
import { openSqliteStore } from '../../src/store/sqlite.ts'
import { StoreUnavailable } from '../../src/store/store.ts'
import { actor, model, testClock } from './documents.ts'

/**
 * A gateway's store in a process of its own, for tests that end it, limit it or take its rights.
 * argv: database file, prefix of the aliases, number of writes, characters of padding in each document
 * stdout: one JSON line an outcome, written when the store has answered and not before
 */
const [path = '', prefix = '', writes = '1', padding = '0'] = process.argv.slice(2)
const say = (outcome: Record<string, string>) => writeSync(1, `${JSON.stringify(outcome)}\n`)
try {
  const store = openSqliteStore({ path, clock: testClock(), log: silentLog })
  for (let index = 0; index < Number(writes); index++) {
    const alias = `${prefix}${index}`
    try {
      const { id } = await store.create('models', model(alias, { model_name: 'x'.repeat(Number(padding) || 1) }), actor)
      say({ id, alias, visible: String(store.snapshot.models.has(alias)) })
    } catch (error) {
      if (!(error instanceof StoreUnavailable)) throw error
      say({ refused: error.message, alias, visible: String(store.snapshot.models.has(alias)) })
    }
  }
  await store.close()
} catch (error) {
  say({ error: error instanceof Error ? error.message : String(error) })
}
