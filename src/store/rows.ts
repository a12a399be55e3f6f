import type { z } from 'zod'
import { printable } from '../lib/log.ts'
import { type Kind, RESOURCES, type Resource } from '../resources/index.ts'
import { isVirtualModel, MISSING, unsupportedMember, wording } from '../resources/wording.ts'
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

const schemas: { [K in Kind]: { schema: z.ZodType<Resource[K]>; unique: string } } = RESOURCES

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
 * Reads a stored document back. Members that the schema does not know, at any depth, are left out and named; everything
 * else must hold.
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
  if (parsed === null || typeof parsed !== 'object' || Array.isArray(parsed)) {
    return { ok: false, kind: 'parse_failed', error: 'the document is not a JSON object' }
  }
  try {
    return readObject(kind, id, parsed, revision)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    return { ok: false, kind: 'parse_failed', error: 'the document is nested too deeply' }
  }
}

function readObject<K extends Kind>(kind: K, id: string, document: object, revision: number): Reading<K> {
  const { schema, unique } = schemas[kind]
  const unknownFields: string[] = []
  const unsupported = RESOURCES[kind].unsupported.filter(each => isGiven(document, each))
  for (;;) {
    const result = schema.safeParse(document, { error: wording })
    if (result.success) {
      const value = result.data
      const name = member(value, unique)
      if (typeof name !== 'string') throw new Error(`the schema of ${kind} has no text member "${unique}"`)
      const digest = BigInt(`0x${sha256(`${kind}/${id}\0${canonical(value)}\n`)}`)
      return { ok: true, entry: { id, value, revision }, name, digest, unknownFields }
    }
    const removed = removeUnknown(document, result.error.issues)
    if (removed.length === 0) {
      return { ok: false, kind: 'schema_failed', error: describe(kind, unsupported, result.error.issues) }
    }
    unknownFields.push(...removed)
  }
}

/** Takes the members that the schema refused as unknown out of the document. Gives their paths. */
function removeUnknown(document: object, issues: z.core.$ZodIssue[]): string[] {
  const removed: string[] = []
  for (const issue of issues) {
    if (issue.code !== 'unrecognized_keys') continue
    let holder: unknown = document
    for (const step of issue.path) holder = member(holder, step)
    if (holder === null || typeof holder !== 'object') continue
    for (const key of issue.keys) {
      if (Object.hasOwn(holder, key) && Reflect.deleteProperty(holder, key)) removed.push(fieldName([...issue.path, key]))
    }
  }
  return removed
}

function member(holder: unknown, key: PropertyKey): unknown {
  return holder !== null && typeof holder === 'object' ? Reflect.get(holder, key) : undefined
}

/** `request.foo`, `targets[].bar`: places in arrays count as one field. */
function fieldName(path: readonly PropertyKey[]): string {
  let name = ''
  for (const step of path) name += typeof step === 'number' ? '[]' : `${name === '' ? '' : '.'}${printable(String(step))}`
  return name
}

/**
 * What is wrong, in at most 1,024 characters.
 * in: the members of the document whose feature this version does not have: they are likely why the rest does not hold
 */
function describe(kind: Kind, unsupported: readonly string[], issues: z.core.$ZodIssue[]): string {
  const isVirtual = unsupported.some(each => isVirtualModel(kind, each))
  const problems = unsupported.map(each => unsupportedMember(kind, each))
  for (const { path, message } of issues) {
    // Judged as a direct model, it lacks what its author had no reason to write.
    if (!(isVirtual && message === MISSING)) problems.push(`${fieldName(path) || 'document'}: ${message}`)
  }
  const shown = problems.slice(0, ISSUES_SHOWN)
  const rest = problems.length - shown.length
  const text = shown.join('; ') + (rest > 0 ? `; and ${rest} more` : '')
  return text.length > ERROR_CHARACTERS_MAX ? `${text.slice(0, ERROR_CHARACTERS_MAX - 1)}…` : text
}

/** `null` means that a member is absent, here as anywhere. */
function isGiven(document: object, key: string): boolean {
  return (member(document, key) ?? null) !== null
}

function textOf(document: unknown): string {
  if (typeof document === 'string') return document
  if (document instanceof Uint8Array) return new TextDecoder('utf-8', { fatal: true }).decode(document)
  throw new TypeError('not text')
}

/** JSON with the members of each object in the order of their names: equal for equal content. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (value === null || typeof value !== 'object') return JSON.stringify(value)
  const members: string[] = []
  for (const key of Object.keys(value).sort()) {
    const each = member(value, key)
    if (each !== undefined) members.push(`${JSON.stringify(key)}:${canonical(each)}`)
  }
  return `{${members.join(',')}}`
}

export function sha256(text: string): string {
  return new Bun.CryptoHasher('sha256').update(text).digest('hex')
}
