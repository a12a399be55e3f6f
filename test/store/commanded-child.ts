import { writeSync } from 'node:fs'
import { silentLog } from '../../src/lib/log.ts'
import { openSqliteStore } from '../../src/store/sqlite.ts'
import { StoreUnavailable } from '../../src/store/store.ts'
import { actor, model, testClock } from './documents.ts'
import { NEVER_MS } from './scratch.ts'

/**
 * A gateway's store in a process of its own that does what it is told, a line of stdin at a time: `create ALIAS`, `status`
 * (after a look at the file), `close`. argv: database file. stdout: one JSON line an answer, the first once it is open.
 */
const [path = ''] = process.argv.slice(2)
const say = (outcome: Record<string, string>) => writeSync(1, `${JSON.stringify(outcome)}\n`)
const store = openSqliteStore({ path, clock: testClock(), log: silentLog, pollMs: NEVER_MS })
say({ open: path })
for await (const line of console) {
  const [verb, alias = ''] = line.split(' ')
  if (verb === 'create') {
    try {
      say({ id: (await store.create('models', model(alias), actor)).id })
    } catch (error) {
      if (!(error instanceof StoreUnavailable)) throw error
      say({ refused: error.message })
    }
  } else if (verb === 'status') {
    store.refresh()
    const { connected, problem = '' } = store.status
    say({ connected: String(connected), problem, aliases: [...store.snapshot.models.keys()].join() })
  } else {
    await store.close()
    say({ closed: path })
  }
}
