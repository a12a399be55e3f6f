/** `AISIX_*` variables over the file. Source: control-bootstrap §1.1. */

import { printable } from '../lib/log.ts'
import { nearest } from '../lib/nearest.ts'
import { type Environment, emptyTree, isTree, type Tree } from './file.ts'
import { ENVIRONMENT_PREFIX, type Key, listKeys } from './keys.ts'
import type { Origins, Problem } from './problems.ts'

/** Variables of the command line and of the guide: they share the prefix, and are no overrides. */
const OTHER_VARIABLES = new Set(['AISIX_CONFIG', 'AISIX_ADMIN_KEY', 'AISIX_API_KEY'])

/**
 * Sets the values of all variables that name a key, in the tree and in its origins.
 * A variable that names none is told by its name alone: at warn when it was clearly meant as an override, else at debug.
 */
export function applyEnvironment(
  tree: Tree,
  origins: Origins,
  env: Environment,
): { problems: Problem[]; warnings: string[]; debug: string[] } {
  const problems: Problem[] = []
  const warnings: string[] = []
  const unknown: string[] = []
  const names = Object.keys(env).filter(name => name.toUpperCase().startsWith(ENVIRONMENT_PREFIX))
  const candidates = names.filter(name => !OTHER_VARIABLES.has(name.toUpperCase())).sort()
  if (candidates.length === 0) return { problems, warnings, debug: [] }

  const keys = new Map([...listKeys().values()].map(key => [key.variable, key]))
  const taken = new Map<string, string>()
  for (const variable of candidates) {
    const text = env[variable]
    if (text === undefined) continue
    const name = variable.toUpperCase()
    const key = keys.get(name)
    const shown = printable(variable)
    if (!key) {
      if (name.includes('__')) {
        const near = nearest(name, keys.keys())
        warnings.push(`${shown}: no key has this name${near ? `, did you mean ${near}?` : ''}; the variable is ignored`)
      } else unknown.push(shown)
      continue
    }
    const origin = { from: 'environment' as const, variable: shown }
    const other = taken.get(name)
    if (other !== undefined) {
      problems.push({ origin, path: key.path, text: `${other} sets the same key; unset one of the two` })
      continue
    }
    taken.set(name, shown)
    const read = readValue(key, text)
    if ('problem' in read) problems.push({ origin, path: key.path, text: read.problem })
    else place(tree, origins, key.path, read.value, origin)
  }
  const debug = unknown.length === 0 ? [] : [`environment variables that name no key are ignored: ${unknown.join(', ')}`]
  return { problems, warnings, debug }
}

/** The value of a variable by the type of its key. What does not fit stays text, and the schema says what was expected. */
function readValue(key: Key, text: string): { value: unknown } | { problem: string } {
  if (!key.type.startsWith('list')) return { value: readScalar(key.type, text) }
  if (key.isSplitAtCommas) {
    const parts = text.trim() === '' ? [] : text.split(',').map(part => part.trim())
    return { value: key.type === 'list of numbers' ? parts.map(part => readScalar('number', part)) : parts }
  }
  const expected = key.type === 'list of mappings' ? '[{"name": "value"}]' : '["one", "two"]'
  try {
    const value: unknown = JSON.parse(text)
    if (Array.isArray(value)) return { value }
  } catch {
    // Said below, for values that are JSON and no list too.
  }
  return { problem: `expected a JSON array, such as ${expected}` }
}

function readScalar(type: Key['type'], text: string): unknown {
  const trimmed = text.trim()
  if (type === 'true or false' && /^(true|false)$/i.test(trimmed)) return trimmed.toLowerCase() === 'true'
  if (type === 'whole number' && /^[+-]?[0-9]+$/.test(trimmed)) return Number(trimmed)
  if (type === 'number' && /^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?$/i.test(trimmed)) return Number(trimmed)
  return text
}

/** Puts a value under a path. Where the file has something else than a section, that is left for the schema to refuse. */
function place(tree: Tree, origins: Origins, path: string, value: unknown, origin: { from: 'environment'; variable: string }) {
  const segments = path.split('.')
  const last = segments.pop() ?? path
  let section = tree
  let at = ''
  for (const segment of segments) {
    at = at === '' ? segment : `${at}.${segment}`
    if (section[segment] === undefined) {
      section[segment] = emptyTree()
      origins.set(at, origin)
    }
    const next = section[segment]
    if (!isTree(next)) return
    section = next
  }
  section[last] = value
  for (const known of origins.keys()) if (known.startsWith(`${path}[`)) origins.delete(known)
  origins.set(path, origin)
}
