import { dirname, join, resolve } from 'node:path'
import type { Databases } from '../backup/backup.ts'
import { loadConfig } from '../config.ts'

/** Which store a command is about: the one of a configuration, or a file. */
export type StoreChoice = { configPath: string } | { dbPath: string }

/** The store and what lies beside it. throws: ConfigError */
export function databasesOf(store: StoreChoice, env: Readonly<Record<string, string | undefined>>): Databases {
  if ('dbPath' in store) {
    const path = resolve(store.dbPath)
    return { store: path, budgets: join(dirname(path), 'budgets.db'), usage: join(dirname(path), 'usage.db') }
  }
  const { config } = loadConfig({ path: store.configPath, env })
  return { store: config.store.path, budgets: config.budgets.path, usage: config.usage.path }
}
