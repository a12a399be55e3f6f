/** A resources file compared with a gateway, and how differences are told. What `diff` and `apply` have in common. */
import { printable } from '../../lib/log.ts'
import { kinds, REGISTRY } from '../../resources/index.ts'
import { type Change, type Comparison, compare, type Difference, type StoredResource } from '../../resources-file/difference.ts'
import { loadResources } from '../../resources-file/load.ts'
import { renderReport } from '../../resources-file/problem.ts'
import type { AdminClient } from '../admin-client.ts'
import { CommandFailed, type Environment, type Io } from '../command.ts'
import { list } from '../entries.ts'

export type Compared =
  | { isRefused: true; stderr: string }
  /** `stderr`: warnings about the file. */
  | { isRefused: false; comparison: Comparison; client: AdminClient; stderr: string }

/** The file is judged before anybody is asked. throws: UsageError, CommandFailed */
export async function compareFile(
  { file, writesSecrets }: { file: string; writesSecrets: boolean },
  open: () => Promise<AdminClient>,
  { env }: Pick<Io, 'env'>,
): Promise<Compared> {
  const { entries, problems, warnings, sources } = loadResources(file, env)
  const stderr = warnings.map(warning => `warning: ${warning}\n`).join('')
  if (problems.length > 0) return { isRefused: true, stderr: `${stderr}${renderReport(file, problems)}\n` }
  const client = await open()
  const stored: StoredResource[] = []
  for (const kind of kinds) {
    const noun = { path: REGISTRY[kind].paths[0], one: kind, many: kind }
    for (const entry of await list(client, noun)) stored.push({ kind, ...entry })
  }
  const comparison = compare(entries, stored, {
    writesSecrets,
    isHidden: hidden(sources, env),
    shownName: name => sources.get(name) ?? name,
  })
  if (comparison.problems.length > 0) throw new CommandFailed(comparison.problems.map(printable).join('; '))
  return { isRefused: false, comparison, client, stderr }
}

/** A value shorter than this is found in texts that have nothing to do with it. */
const VALUE_CHARACTERS_MIN = 4

/**
 * Tells texts that hold what a variable of the file holds. A document is normalised on the way, so that the text as it was
 * filled in may not be found any more: what the variables themselves hold is looked for, too.
 */
function hidden(sources: ReadonlyMap<string, string>, env: Environment): (text: string) => boolean {
  const values = new Set<string>()
  for (const written of sources.values()) {
    for (const [, variable = ''] of written.matchAll(/\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g)) {
      const value = env[variable]?.trim().toLowerCase() ?? ''
      if (value !== '') values.add(value)
    }
  }
  return text => {
    const folded = text.toLowerCase()
    return (
      sources.has(text) ||
      values.has(folded) ||
      [...values].some(value => value.length >= VALUE_CHARACTERS_MIN && folded.includes(value))
    )
  }
}

const SIGNS = { create: '+', update: '~', delete: '-' } as const

/** `~ models "x": timeout 5000 → 10000`, without a line break. */
export function lineOf(change: Change): string {
  const { action, kind, name } = change
  const head = `${SIGNS[action]} ${kind} "${printable(name)}"`
  return change.action === 'update' ? `${head}: ${change.differences.map(differenceText).join(', ')}` : head
}

function differenceText({ path, before, after }: Difference): string {
  return `${printable(path)} ${valueText(before)} → ${valueText(after)}`
}

/** Longest value that is told whole; JSON has all of it. */
const VALUE_CHARACTERS_MAX = 200

function valueText(value: unknown): string {
  if (value === undefined) return '(absent)'
  const text = printable(JSON.stringify(value))
  return text.length > VALUE_CHARACTERS_MAX ? `${text.slice(0, VALUE_CHARACTERS_MAX)}…` : text
}

/** A change for scripts. */
export function changeJson(change: Change): Record<string, unknown> {
  const { action, kind, name } = change
  return {
    action,
    kind,
    name,
    ...(change.action === 'create' ? {} : { id: change.stored.id }),
    ...(change.action === 'update' ? { differences: change.differences } : {}),
  }
}

/** What is told of credentials that are on both sides. */
export function uncomparedNote(count: number): string {
  if (count === 0) return ''
  return `credentials of ${count} resource(s) are there on both sides and cannot be compared; aisix apply --secrets writes them again\n`
}
