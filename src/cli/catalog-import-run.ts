import { basename } from 'node:path'
import { ConfigError, loadConfig } from '../config.ts'
import { JsonError } from '../lib/json.ts'
import { printable } from '../lib/log.ts'
import { readProblem } from '../lib/read-problem.ts'
import { CatalogError } from '../pricing/catalog.ts'
import { catalogPath, readCatalogFile, replaceCatalog } from '../pricing/catalog-file.ts'
import type { Environment, Output } from './command.ts'

/** Characters of a file's name that the catalog keeps. */
const FILE_NAME_MAX = 128
/** Problems of a catalog that are listed; more are counted. */
const PROBLEMS_MAX = 20

/** Puts the catalog of a file in the place of the one beside the store, or says all that is wrong with it. */
export function runCatalogImport(file: string, configPath: string, env: Environment, now = new Date()): Output {
  const fail = (...problems: string[]): Output => ({
    stdout: '',
    stderr: problems.map(problem => `catalog import failed: ${problem}\n`).join(''),
    exit: 1,
  })
  const name = printable(file)
  try {
    const { config } = loadConfig({ path: configPath, env })
    const catalog = readCatalogFile(file, {
      source: `models.dev, imported from ${printable(basename(file).slice(0, FILE_NAME_MAX))}`,
      now,
    })
    const target = catalogPath(config.store.path)
    try {
      replaceCatalog(target, catalog)
    } catch (error) {
      return fail(`${target}: ${writeProblem(error)}`)
    }
    const { models, as_of } = catalog
    return {
      stdout: `${models.length === 1 ? '1 model' : `${models.length} models`}, none newer than ${as_of}, are now in ${target}\n`,
      stderr: '',
      exit: 0,
    }
  } catch (error) {
    if (error instanceof ConfigError) return fail(error.message)
    if (error instanceof JsonError) return fail(`${name}:${error.line}:${error.column}: ${error.problem}`)
    if (error instanceof Error && 'code' in error) return fail(`${name}: ${readProblem(error)}`)
    if (!(error instanceof CatalogError)) throw error
    const { problems } = error
    const more = problems.length - PROBLEMS_MAX
    const shown = problems.slice(0, PROBLEMS_MAX).map(problem => `${name}: ${problem}`)
    return fail(...shown, ...(more > 0 ? [`${name}: and ${more} more`] : []))
  }
}

function writeProblem(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error'
  if (code === 'ENOENT') return 'its folder does not exist; start the gateway once, or create it'
  if (code === 'EACCES' || code === 'EPERM') return 'permission denied: run this as the user that runs the gateway'
  if (code === 'EEXIST') return 'another import is under way, or one was killed: remove the file that ends with .new beside it'
  return `cannot be written (${code})`
}
