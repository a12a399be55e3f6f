import type { Given } from './arguments.ts'
import { type Io, type Option, UsageError } from './command.ts'
import { CONFIG, findConfig, NO_CONFIG } from './config-path.ts'
import type { StoreChoice } from './store-choice.ts'

/** Which store a command is about: the one of a configuration, or a file. */
export const STORE: readonly Option[] = [
  CONFIG,
  { name: 'db', value: 'FILE', complete: 'file', about: 'The store itself, in place of the configuration that names it.' },
]

/** throws: UsageError */
export function storeOf(given: Given, io: Io): StoreChoice {
  const dbPath = given.text('db')
  const config = given.text('config')
  if (dbPath !== undefined && config !== undefined) throw new UsageError('--config and --db exclude each other: give one of them')
  if (dbPath !== undefined) return { dbPath }
  const configPath = findConfig(config, io.env, io.exists)
  if (configPath === undefined) throw new UsageError(NO_CONFIG)
  return { configPath }
}
