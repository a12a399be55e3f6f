import { renameSync, writeFileSync } from 'node:fs'
import { ConfigError, loadConfig } from '../config.ts'
import { printable } from '../lib/log.ts'
import { exportResources } from '../resources-file/export.ts'
import { readStore, StoreOpenError } from '../store/index.ts'
import type { Environment, Output } from './command.ts'
import type { StoreChoice } from './store-choice.ts'

export type ExportOptions = { source: StoreChoice; output: string | undefined; revealSecrets: boolean }

/** Writes the store as a resources file. Source: control-resources-file §8. */
export function runExport({ source, output, revealSecrets }: ExportOptions, env: Environment): Output {
  const fail = (problem: string): Output => ({ stdout: '', stderr: `export failed: ${problem}\n`, exit: 1 })
  try {
    const path = 'dbPath' in source ? source.dbPath : loadConfig({ path: source.configPath, env }).config.store.path
    const { entries, rejected } = readStore(path)
    const { text, count, placeholders, problems } = exportResources(entries, { revealSecrets })
    if (output !== undefined) {
      try {
        replaceFile(output, text)
      } catch (error) {
        return fail(`${printable(output)}: ${writeProblem(error)}`)
      }
    }
    const blocking = [
      ...rejected.map(each => `${each.resource_kind} ${each.resource_id} is not exported: ${each.last_error}`),
      ...problems,
    ]
    const lines = [
      ...(revealSecrets ? ['WARNING: THE FILE HOLDS CREDENTIALS IN CLEAR TEXT; keep it out of version control'] : []),
      ...placeholders.map(({ variable, collection, identity, field }) => {
        return `set ${variable}: ${field} of ${collection} "${printable(identity)}"`
      }),
      ...blocking.map(problem => `error: ${problem}`),
      ...(blocking.length > 0 ? ['the file does not give back all that is stored: look at the errors above'] : []),
      `Exported ${count} resource(s) to ${output === undefined ? 'standard output' : printable(output)}`,
    ]
    return {
      stdout: output === undefined ? text : '',
      stderr: lines.map(line => `${line}\n`).join(''),
      exit: blocking.length > 0 ? 1 : 0,
    }
  } catch (error) {
    if (error instanceof ConfigError || error instanceof StoreOpenError) return fail(error.message)
    throw error
  }
}

/** A whole file in the place of another, readable by its owner alone. */
function replaceFile(path: string, text: string): void {
  const fresh = `${path}.new`
  writeFileSync(fresh, text, { mode: 0o600, flag: 'wx' })
  renameSync(fresh, path)
}

function writeProblem(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error'
  if (code === 'ENOENT') return 'its folder does not exist; create it'
  if (code === 'EACCES' || code === 'EPERM') return 'permission denied: run this as the user that runs the gateway'
  if (code === 'EEXIST')
    return 'another one is being written, or its writer was killed: remove the file that ends with .new beside it'
  return `cannot be written (${code})`
}
