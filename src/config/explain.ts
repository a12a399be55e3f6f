/** What the schema found, in words for an operator. No message repeats a value that was submitted. */
import type { z } from 'zod'
import { printable } from '../lib/log.ts'
import { nearest } from '../lib/nearest.ts'
import { isTree, type Tree } from './file.ts'
import { listKeys, listSections } from './keys.ts'
import { joinPath, type Origin, type Origins, originOf, type Problem } from './problems.ts'

/** Unknown keys of one mapping that are told apart; a file with more of them is no configuration. */
const UNKNOWN_KEYS_SHOWN_MAX = 50

export function explain(issues: readonly z.core.$ZodIssue[], tree: Tree, origins: Origins): Problem[] {
  return issues.flatMap(issue => {
    if (issue.code === 'unrecognized_keys') return unknownKeys(issue, origins)
    const path = joinPath(issue.path)
    const origin = originOf(origins, issue.path)
    return [{ origin, path: printable(path), text: sentence(issue, valueAt(tree, issue.path), origin) }]
  })
}

/** The value under a path, as it was submitted. */
export function valueAt(tree: Tree, segments: readonly PropertyKey[]): unknown {
  let value: unknown = tree
  for (const segment of segments) {
    if (Array.isArray(value) && typeof segment === 'number') value = value[segment]
    else if (isTree(value)) value = value[String(segment)]
    else return undefined
  }
  return value
}

function unknownKeys(issue: z.core.$ZodIssueUnrecognizedKeys, origins: Origins): Problem[] {
  const section = joinPath(issue.path)
  const problems: Problem[] = issue.keys.slice(0, UNKNOWN_KEYS_SHOWN_MAX).map(key => {
    const segments = [...issue.path, key]
    const text = `unknown key${suggestion(section, key)}`
    return { origin: originOf(origins, segments), path: printable(joinPath(segments)), text }
  })
  const more = issue.keys.length - problems.length
  if (more > 0) problems.push({ origin: originOf(origins, issue.path), path: section, text: `${more} more unknown keys` })
  return problems
}

/** The key of the same section that is nearest, else the place where a key of this name belongs. */
function suggestion(section: string, key: string): string {
  const prefix = section === '' ? '' : `${section}.`
  const paths = [...listSections().keys(), ...listKeys().keys()]
  const siblings = paths.filter(path => path.startsWith(prefix) && !path.slice(prefix.length).includes('.'))
  const near = nearest(
    key,
    siblings.map(path => path.slice(prefix.length)),
  )
  if (near !== undefined) return `; did you mean ${prefix}${near}?`
  const elsewhere = paths.filter(path => path.endsWith(`.${key.toLowerCase()}`))
  if (elsewhere.length > 0 && elsewhere.length <= 3) return `; did you mean ${elsewhere.join(' or ')}?`
  return siblings.length > 0 ? `; known here: ${siblings.map(path => path.slice(prefix.length)).join(', ')}` : ''
}

function sentence(issue: z.core.$ZodIssue, value: unknown, origin: Origin | undefined): string {
  if (issue.code === 'invalid_type') {
    const key = listKeys().get(joinPath(issue.path))
    if (value === undefined) return key ? `is required. ${key.description}` : 'is required'
    // The schema asks whole numbers first whether they are numbers at all.
    const expected = key?.type === 'whole number' ? 'int' : issue.expected
    const remedy = origin?.from === 'file' ? spelling(expected, value) : ''
    return `expected ${TYPES[expected] ?? expected}, and got ${typeInWords(value)}${remedy}`
  }
  if (issue.code === 'invalid_value') {
    return `expected ${issue.values.map(each => JSON.stringify(each)).join(' or ')}`
  }
  if (issue.code === 'too_small' && issue.origin !== 'string') {
    const unit = issue.origin === 'array' ? ' entries' : ''
    return `expected ${issue.inclusive === false ? 'more than ' : ''}${issue.minimum}${issue.inclusive === false ? '' : ' or more'}${unit}`
  }
  if (issue.code === 'too_big') return `expected ${issue.maximum}${issue.origin === 'array' ? ' entries' : ''} or less`
  return issue.message
}

const TYPES: { readonly [type: string]: string } = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list, such as ["one", "two"]',
  object: 'a mapping of keys to values',
}

function typeInWords(value: unknown): string {
  if (value === null) return 'nothing'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object') return 'a mapping'
  if (typeof value === 'number') return Number.isInteger(value) ? 'a number' : 'a number with a fraction'
  return typeof value === 'boolean' ? 'true or false' : 'text'
}

/** How the expected type is written in a file, where the two are often mixed up. */
function spelling(expected: string, value: unknown): string {
  if (expected === 'string' && (typeof value === 'number' || typeof value === 'boolean')) return ': put the value in quotes'
  if (typeof value === 'string' && ['number', 'int', 'boolean'].includes(expected)) {
    return ': write it without quotes. A value out of ${NAME} is always text: use the AISIX_* variable of the key instead'
  }
  return ''
}
