import { loadResources } from '../resources-file/load.ts'
import { renderReport } from '../resources-file/problem.ts'
import type { Environment, Output } from './command.ts'

/** Checks a resources file as a start would. Source: control-resources-file §7. */
export function runValidate(file: string, env: Environment): Output {
  const { entries, problems, warnings } = loadResources(file, env)
  const stderr = warnings.map(warning => `warning: ${warning}\n`).join('')
  if (problems.length > 0) return { stdout: '', stderr: `${stderr}${renderReport(file, problems)}\n`, exit: 1 }
  return { stdout: `OK: ${file} loaded ${entries.length} resource(s)\n`, stderr, exit: 0 }
}
