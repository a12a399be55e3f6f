import { type AdminClient, printJson } from '../admin-client.ts'
import type { Io, Output } from '../command.ts'
import { changeJson, compareFile, lineOf, uncomparedNote } from './compared.ts'

/** out: exit 0 same, 1 different, 2 the file cannot be used. throws: UsageError, CommandFailed */
export async function runDiff(
  { file, isJson }: { file: string; isJson: boolean },
  open: () => Promise<AdminClient>,
  io: Io,
): Promise<Output> {
  const compared = await compareFile({ file, writesSecrets: false }, open, io)
  if (compared.isRefused) return { stdout: '', stderr: compared.stderr, exit: 2 }
  const { changes, sameCount, uncomparedCount } = compared.comparison
  const exit = changes.length === 0 ? 0 : 1
  if (isJson) {
    const stdout = printJson({ changes: changes.map(changeJson), same: sameCount, credentials_not_compared: uncomparedCount })
    return { stdout, stderr: compared.stderr, exit }
  }
  const lines = changes.map(change => `${lineOf(change)}${change.action === 'delete' ? ' (only with --prune)' : ''}\n`)
  return { stdout: lines.join(''), stderr: `${compared.stderr}${uncomparedNote(uncomparedCount)}`, exit }
}
