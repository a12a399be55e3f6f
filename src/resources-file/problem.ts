/** What is wrong with a resources file, and the report that says so. Source: control-resources-file §5, control-bootstrap §5.3. */
import { printable } from '../lib/log.ts'

/** Which entry is meant. The identity is there once it is known, as it may be shown: what came from a variable is not. */
export type Scope = { collection: string; index: number; identity: string | undefined }

export type Problem = {
  /** undefined: the file as a whole. */
  scope: Scope | undefined
  /** Names places and rules, never a value that may be secret. */
  message: string
  /** `fetch`: the file cannot be read; `yaml`: it is no YAML; `decode`: an entry cannot be told what it is; `validate`: the rest. */
  reason: 'fetch' | 'yaml' | 'decode' | 'validate'
}

/** Problems that are listed; more have few causes, and are counted. */
export const PROBLEMS_SHOWN_MAX = 1000

/**
 * The report, without a line break at its end.
 * in: `count`, how many problems there are, where not all are given
 */
export function renderReport(path: string, problems: readonly Problem[], count = problems.length): string {
  const lines = problems.slice(0, PROBLEMS_SHOWN_MAX).map(({ scope, message }) => `  - ${renderScope(scope)}: ${message}`)
  if (count > lines.length) lines.push(`  - and ${count - lines.length} more`)
  return [`resources file ${printable(path)}: ${count} error(s):`, ...lines].join('\n')
}

/** `(file)`, `models[2]`, `models[2] ("gpt-local")` */
export function renderScope(scope: Scope | undefined): string {
  if (scope === undefined) return '(file)'
  const { collection, index, identity } = scope
  return `${collection}[${index}]${identity === undefined ? '' : ` ("${identity}")`}`
}
