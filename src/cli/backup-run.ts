/** `aisix backup` and `aisix restore`: what they do, and what they print. */
import { resolve } from 'node:path'
import { BackupError, makeBackup } from '../backup/backup.ts'
import { restore } from '../backup/restore.ts'
import { ConfigError } from '../config.ts'
import type { Output } from './command.ts'
import { databasesOf, type StoreChoice } from './store-choice.ts'

type Environment = Readonly<Record<string, string | undefined>>

/** Copies a store into a file that must not exist. in: `usage`, whether the records of usage are wanted, too */
export function runBackup(file: string, store: StoreChoice, { usage }: { usage: boolean }, env: Environment): Output {
  return told('backup', () => {
    const { bytes, sha256, manifest } = makeBackup(databasesOf(store, env), resolve(file), { usage })
    const parts = manifest.files.map(({ name }) => name).join(', ')
    return { stdout: `${file}: ${bytes} bytes, ${parts}\nsha256 ${sha256}\n`, stderr: '', exit: 0 }
  })
}

/** Puts a backup back. */
export function runRestore(file: string, store: StoreChoice, env: Environment): Output {
  return told('restore', () => {
    const who = { actor: 'aisix restore', address: `uid ${process.getuid?.() ?? 'unknown'}` }
    const { lines, warnings } = restore(resolve(file), databasesOf(store, env), who)
    const stderr = warnings.map(warning => `warning: ${warning}\n`).join('')
    return { stdout: lines.map(line => `${line}\n`).join(''), stderr, exit: 0 }
  })
}

function told(name: string, run: () => Output): Output {
  try {
    return run()
  } catch (error) {
    if (error instanceof ConfigError) return { stdout: '', stderr: `config load failed: ${error.message}\n`, exit: 1 }
    if (!(error instanceof BackupError)) throw error
    return { stdout: '', stderr: `${name} failed: ${error.message}\n`, exit: 1 }
  }
}
