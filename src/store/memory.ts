import { type Store, StoreUnavailable } from './store.ts'
import { createTable, type WallClock } from './table.ts'

/** A store that keeps nothing: the same contract as SQLite's, for tests and for gateways that need not remember. */
export function openMemoryStore({ clock = Date }: { clock?: WallClock } = {}): Store {
  const table = createTable(clock)
  table.load(0, [])
  let revision = 0
  let isClosed = false

  const beginWrite = () => {
    if (isClosed) throw new StoreUnavailable('the store is closed because the gateway is stopping')
    return ++revision
  }

  return {
    get snapshot() {
      return table.snapshot
    },
    get status() {
      return table.status({ connected: !isClosed, problem: undefined, confirmedAt: clock.now() })
    },
    writesRefused: undefined,
    list: table.list,
    get: table.get,
    async create(kind, value) {
      const draft = table.draft(kind, crypto.randomUUID(), value, 1)
      return table.put(draft, beginWrite())
    },
    holds: (kind, id) => table.revisionOf(kind, id) !== undefined,
    async replace(kind, id, change) {
      // Nobody else writes here: what is stored can be read, and there is nothing to repair.
      const now = table.get(kind, id)
      if (!now) return undefined
      const draft = table.draft(kind, id, change(structuredClone(now.value)), now.revision + 1)
      return table.put(draft, beginWrite())
    },
    async remove(kind, id) {
      if (table.revisionOf(kind, id) === undefined) return false
      table.remove(kind, id, beginWrite())
      return true
    },
    refresh: () => undefined,
    async close() {
      isClosed = true
    },
  }
}
