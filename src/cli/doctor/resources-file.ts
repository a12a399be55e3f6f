/** The resources file, where the gateway serves one in place of a store. */
import { loadResources } from '../../resources-file/load.ts'
import { PROBLEMS_SHOWN_MAX, renderScope } from '../../resources-file/problem.ts'
import type { Row } from '../../store/rows.ts'
import type { Environment } from '../command.ts'
import { type Finding, Findings } from './finding.ts'

/** `rows`: what a start would serve; undefined where it would refuse the file. */
export function checkResourcesFile(path: string, env: Environment): { rows: Row[] | undefined; findings: Finding[] } {
  const findings = new Findings('resources file', path)
  const { entries, problems, warnings } = loadResources(path, env)
  for (const { scope, message } of problems.slice(0, PROBLEMS_SHOWN_MAX)) {
    const advice = 'the gateway does not start with it, and SIGHUP does not take it: correct it'
    findings.add('error', `${renderScope(scope)}: ${message}`, advice)
  }
  for (const warning of warnings) findings.add('warning', warning)
  if (problems.length > 0) return { rows: undefined, findings: findings.all }
  if (warnings.length === 0) findings.add('ok', `can be used: ${entries.length} entries`)
  const rows = entries.map(({ kind, id, value }) => ({ kind, id, document: JSON.stringify(value), revision: 1 }))
  return { rows, findings: findings.all }
}
