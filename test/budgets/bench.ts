/** Budgets over a real file, with a clock that tests move and callers made of rows as the store has them. */

import { Database } from 'bun:sqlite'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Budgets } from '../../src/budgets/budget.ts'
import { type BudgetsOptions, createBudgets } from '../../src/budgets/budgets.ts'
import { type Labels, NO_LABELS } from '../../src/exchange.ts'
import { createLog } from '../../src/lib/log.ts'
import { ApiKey } from '../../src/resources/api-key.ts'
import { Budget } from '../../src/resources/budget.ts'
import { openMemoryStore } from '../../src/store/memory.ts'
import type { CallerKey } from '../../src/store/snapshot.ts'
import type { Entry } from '../../src/store/store.ts'
import type { UsageRecord } from '../../src/telemetry/usage-record.ts'
import { ACTOR, sha256, testClock } from '../gateway.ts'
import { plainRecord } from '../plain-record.ts'
import { testRegistry } from '../telemetry.ts'

/** An hour: nothing looks at the file by itself, tests call `flush`; what is in a hurry goes all the same. */
const NEVER_MS = 3_600_000
export const NOON = Date.parse('2026-03-11T12:00:00Z') // a Wednesday

export type Gateway = Awaited<ReturnType<ReturnType<typeof workbench>['gateway']>>

export function workbench(startMs = NOON) {
  const folder = mkdtempSync(join(tmpdir(), 'aisix-budgets-'))
  const path = join(folder, 'budgets.db')
  const clock = testClock(startMs)
  const store = openMemoryStore({ clock })
  const opened: Budgets[] = []
  const connections: Database[] = []

  const add = (members: Record<string, unknown>): Promise<Entry<'budgets'>> => store.create('budgets', budget(members), ACTOR)
  const edit = (id: string, members: Record<string, unknown>) => store.replace('budgets', id, () => budget(members), ACTOR)
  /** A caller key, as the proxy finds it. */
  const caller = async (plaintext: string, members: Record<string, unknown> = {}): Promise<CallerKey> => {
    const key_hash = sha256(plaintext)
    await store.create('api_keys', ApiKey.parse({ key_hash, allowed_models: ['*'], ...members }), ACTOR)
    const key = store.snapshot.apiKeys.get(key_hash)
    if (!key) throw new Error('the store lost a key')
    return key
  }
  /** One process with these budgets: several may share the file. */
  const gateway = async (options: Partial<BudgetsOptions> = {}) => {
    const lines: string[] = []
    const registry = testRegistry()
    const log = createLog({
      filter: 'trace',
      sink: {
        isTerminal: false,
        write: (text, done) => {
          lines.push(...text.trimEnd().split('\n'))
          done()
        },
      },
    })
    const budgets = await createBudgets({ path, store, log, registry, clock, everyMs: NEVER_MS, ...options })
    opened.push(budgets)
    return {
      budgets,
      registry,
      lines,
      /** Charges what a request used at this moment. in: dollars are told in picodollars */
      charge: (labels: Partial<Labels>, used: Used, groupId?: string) =>
        budgets.charge(record(labels, used, clock.now()), groupId),
      refusal: (key: CallerKey, modelId = 'model-1') => budgets.refusal(store.snapshot, key, modelId, clock.now()),
      status: (id: string) => {
        const status = budgets.status(store.snapshot, id, clock.now())
        if (!status) throw new Error(`no status of ${id}`)
        return status
      },
      warnings: () => lines.filter(line => line.includes('budget warning')),
    }
  }
  return {
    folder,
    path,
    clock,
    store,
    add,
    edit,
    caller,
    gateway,
    /** Another program's connection to the file. It waits its turn: a flush that a test did not wait for may hold the lock. */
    connect() {
      const db = new Database(path, { readwrite: true, strict: true })
      db.run('PRAGMA busy_timeout = 5000')
      connections.push(db)
      return db
    },
    async clean() {
      for (const db of connections) db.close()
      for (const budgets of opened) await budgets.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export type Used = { pico?: number; tokens?: number; atMs?: number }

export function budget(members: Record<string, unknown>): Budget {
  return Budget.parse({ name: 'b', scope: 'all', period: 'month', ...members })
}

export function record(labels: Partial<Labels>, { pico = 0, tokens = 1, atMs }: Used, nowMs: number): UsageRecord {
  return plainRecord({
    labels: { ...NO_LABELS, ...labels },
    occurredAtMs: atMs ?? nowMs,
    requestedModel: 'alias',
    promptTokens: tokens,
    costPico: pico,
    isPriced: pico > 0,
  })
}

/** The labels of a caller's requests to a model. */
export function labelsOf({ entry: { id, value } }: CallerKey, modelId = 'model-1'): Partial<Labels> {
  return { apiKeyId: id, teamId: value.team_id ?? '', userId: value.user_id ?? '', modelId }
}
