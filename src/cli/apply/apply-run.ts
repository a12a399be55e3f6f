import { REGISTRY } from '../../resources/index.ts'
import { type Change, type Comparison, documentOf } from '../../resources-file/difference.ts'
import { type AdminClient, printJson, warningLines } from '../admin-client.ts'
import { CommandFailed, done, failed, type Io, type Output } from '../command.ts'
import { entryOf } from '../entries.ts'
import { changeJson, compareFile, lineOf, uncomparedNote } from './compared.ts'

export type ApplyOptions = {
  file: string
  isPruning: boolean
  isDryRun: boolean
  writesSecrets: boolean
  isJson: boolean
}

type Outcome = 'done' | 'planned' | 'refused' | 'not made'

/** throws: UsageError, CommandFailed while nothing has been written yet */
export async function runApply(options: ApplyOptions, open: () => Promise<AdminClient>, io: Io): Promise<Output> {
  const { isPruning, isDryRun, writesSecrets, isJson } = options
  const compared = await compareFile(options, open, io)
  if (compared.isRefused) return failed(compared.stderr)
  const { comparison, client } = compared
  const wanted = comparison.changes.filter(({ action }) => isPruning || action !== 'delete')
  const keptCount = comparison.changes.length - wanted.length
  const warnings: string[] = []
  let madeCount = 0
  let refusal: string | undefined
  for (const change of isDryRun ? [] : wanted) {
    try {
      warnings.push(...(await make(change, comparison, client, writesSecrets)))
    } catch (error) {
      if (!(error instanceof CommandFailed)) throw error
      refusal = error.message
      break
    }
    madeCount += 1
    if (!isJson) await io.print(`${lineOf(change)}\n`)
  }

  const rest = wanted.slice(madeCount)
  const outcomeOf = (index: number): Outcome => {
    if (isDryRun) return 'planned'
    if (index < madeCount) return 'done'
    return index === madeCount && refusal !== undefined ? 'refused' : 'not made'
  }
  const notes = [
    compared.stderr,
    warningLines(warnings),
    keptCount === 0 ? '' : `${keptCount} resource(s) of the gateway are not in the file and stay; --prune deletes them\n`,
    writesSecrets ? '' : uncomparedNote(comparison.uncomparedCount),
    refusal === undefined ? '' : refusalText(refusal, madeCount, rest),
  ]
  const text = isJson
    ? printJson({
        changes: wanted.map((change, index) => ({ ...changeJson(change), outcome: outcomeOf(index) })),
        same: comparison.sameCount,
        kept: keptCount,
        ...(refusal === undefined ? {} : { error: refusal }),
      })
    : refusal !== undefined
      ? ''
      : `${isDryRun ? rest.map(change => `${lineOf(change)}\n`).join('') : ''}${summary(wanted, comparison, isDryRun)}\n`
  return refusal === undefined ? done(text, notes.join('')) : failed(notes.join(''), text)
}

/**
 * Makes one change. The admin API has no condition on writes: what is replaced or deleted is read again just before, so that what
 * another operator has written since the comparison is not lost.
 * out: warnings of the gateway. throws: CommandFailed
 */
async function make(change: Change, { ids }: Comparison, client: AdminClient, writesSecrets: boolean): Promise<string[]> {
  const { kind } = change
  const [path] = REGISTRY[kind].paths
  if (change.action === 'create') {
    const { body, warnings } = await client.ask('POST', path, documentOf(change, ids, { writesSecrets }))
    ids.set(kind, change.entry.id, entryOf(body, client).id)
    return warnings
  }
  const { id, revision } = change.stored
  const place = `${path}/${encodeURIComponent(id)}`
  const now = entryOf((await client.ask('GET', place)).body, client)
  if (now.revision !== revision) throw new CommandFailed('someone has written it since it was compared: run this again')
  const { warnings } =
    change.action === 'update'
      ? await client.ask('PUT', place, documentOf(change, ids, { writesSecrets }))
      : await client.ask('DELETE', place)
  return warnings
}

/** More lines than these have one cause, and are counted. */
const LINES_MAX = 20

function refusalText(refusal: string, madeCount: number, rest: readonly Change[]): string {
  const [first, ...others] = rest
  const lines = others.slice(0, LINES_MAX).map(change => `  ${lineOf(change)}`)
  if (others.length > lines.length) lines.push(`  and ${others.length - lines.length} more`)
  return [
    `aisix: ${first === undefined ? '' : `${lineOf(first)}: `}${refusal}`,
    `${madeCount} of ${madeCount + rest.length} change(s) made${others.length > 0 ? '; not tried:' : ''}`,
    ...lines,
  ]
    .map(line => `${line}\n`)
    .join('')
}

function summary(changes: readonly Change[], { sameCount }: Comparison, isDryRun: boolean): string {
  const count = (action: Change['action']) => changes.filter(each => each.action === action).length
  const told = `${count('create')} created, ${count('update')} updated, ${count('delete')} deleted, ${sameCount} as they were`
  return isDryRun ? `Nothing was done; would be ${told}` : told
}
