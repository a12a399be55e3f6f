import { printable } from '../lib/log.ts'
import { type Kind, REGISTRY, RESOURCES } from '../resources/index.ts'
import { memberOf, type Problem, parseSorted, removeUnknown, type Sorted, sortOut } from '../resources/judgement.ts'
import type { Entry, Rejection } from './store.ts'

/** A row as it comes out of a database that others may have written to: nothing about it is certain. */
export type Row = { kind: unknown; id: unknown; document: unknown; revision: unknown }

/** A document that may be served. */
export type GoodReading<K extends Kind> = {
  ok: true
  entry: Entry<K>
  /** Value of the member that is unique within the kind. */
  name: string
  /** SHA-256 of the identity and the canonical document, as a number, so that many of them add up to one. */
  digest: bigint
  /** Members that this version does not know, as dotted paths; they are left out of `entry`. */
  unknownFields: string[]
}
export type BadReading = { ok: false; kind: Rejection['last_error_kind']; error: string }
export type Reading<K extends Kind> = GoodReading<K> | BadReading

const ISSUES_SHOWN = 3
const ERROR_CHARACTERS_MAX = 1024

/** The kind of a row, when this version knows it. */
export function isKind(kind: string): kind is Kind {
  return Object.hasOwn(RESOURCES, kind)
}

/** A revision as another writer may have left it: anything that is not a count starts anew at 1. */
export function readRevision(revision: unknown): number {
  return typeof revision === 'number' && Number.isSafeInteger(revision) && revision >= 1 ? revision : 1
}

/**
 * Reads a stored document back. Members that the schema does not know, at any depth, are left out and named, and so are
 * members of a later version and knobs that the document's form has not; everything else must hold.
 * in: the column as it was stored; text is expected, a blob is taken as UTF-8
 * out: the entry, or the reason why there is none; reasons name places and rules and never a value, which may be a secret
 * source: control-resources, head; control-resources-file §6, last paragraph
 */
export function readDocument<K extends Kind>(kind: K, id: string, document: unknown, revision: number): Reading<K> {
  let parsed: unknown
  try {
    parsed = JSON.parse(textOf(document))
  } catch {
    // The runtime's message quotes the text it stumbled over.
    return { ok: false, kind: 'non_json', error: 'the document is not JSON text in UTF-8' }
  }
  if (!isRecord(parsed)) return { ok: false, kind: 'parse_failed', error: 'the document is not a JSON object' }
  try {
    return readObject(kind, id, parsed, revision)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    return { ok: false, kind: 'parse_failed', error: 'the document is nested too deeply' }
  }
}

function readObject<K extends Kind>(kind: K, id: string, document: Record<string, unknown>, revision: number): Reading<K> {
  const sorted = sortOut(kind, document)
  const isMixed = sorted.refused.some(({ isDead }) => !isDead)
  const unknownFields = sorted.refused.map(({ member }) => fieldName([member]))
  for (;;) {
    const result = parseSorted(sorted)
    if ('value' in result && !isMixed) {
      const { value } = result
      const name = memberOf(value, REGISTRY[kind].unique)
      if (typeof name !== 'string') throw new Error(`the schema of ${kind} has no text member "${REGISTRY[kind].unique}"`)
      const digest = BigInt(`0x${sha256(`${kind}/${id}\0${canonical(value)}\n`)}`)
      return { ok: true, entry: { id, value, revision }, name, digest, unknownFields }
    }
    const problems = 'problems' in result ? result.problems : []
    const removed = removeUnknown(sorted.document, problems)
    if (removed.length === 0) return { ok: false, kind: 'schema_failed', error: describe(sorted.refused, problems) }
    unknownFields.push(...removed.map(fieldName))
  }
}

/** `request.foo`, `targets[].bar`: places in arrays count as one field. */
function fieldName(path: readonly PropertyKey[]): string {
  let name = ''
  for (const step of path) name += typeof step === 'number' ? '[]' : `${name === '' ? '' : '.'}${printable(String(step))}`
  return name
}

/**
 * What is wrong, in at most 1,024 characters.
 * in: first the members that this form or this version does not have: they are likely why the rest does not hold
 */
function describe(refused: Sorted<Kind>['refused'], problems: readonly Problem[]): string {
  const all = [
    ...refused.map(({ message }) => message),
    ...problems.map(({ path, message }) => `${fieldName(path) || 'document'}: ${message}`),
  ]
  const shown = all.slice(0, ISSUES_SHOWN)
  const rest = all.length - shown.length
  const text = shown.join('; ') + (rest > 0 ? `; and ${rest} more` : '')
  return text.length > ERROR_CHARACTERS_MAX ? `${text.slice(0, ERROR_CHARACTERS_MAX - 1)}…` : text
}

function textOf(document: unknown): string {
  if (typeof document === 'string') return document
  if (document instanceof Uint8Array) return new TextDecoder('utf-8', { fatal: true }).decode(document)
  throw new TypeError('not text')
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** JSON with the members of each object in the order of their names: equal for equal content. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  const members: string[] = []
  for (const key of Object.keys(value).sort()) {
    const each = memberOf(value, key)
    if (each !== undefined) members.push(`${JSON.stringify(key)}:${canonical(each)}`)
  }
  return `{${members.join(',')}}`
}

export function sha256(text: string): string {
  return new Bun.CryptoHasher('sha256').update(text).digest('hex')
}
