import type { Kind, Resource } from '../resources/index.ts'
import { MASK } from '../resources/provider-key.ts'
import { AdminError } from './error.ts'
import { jsonPointer } from './pointer.ts'
import { documentSchema, isSchema, type JsonSchema } from './schema.ts'

/** Called with each credential of a document: where it stands, and the object and member that hold it. */
type Visit = (pointer: string[], holder: Record<string, unknown>, member: string) => void

/** The document as it may be shown: every credential reads `***`. Credentials are the members marked `writeOnly`. */
export function mask<K extends Kind>(kind: K, value: Resource[K]): Resource[K] {
  const shown = structuredClone(value)
  eachCredential(documentSchema(kind), shown, [], (_pointer, holder, member) => {
    holder[member] = MASK
  })
  return shown
}

/**
 * The document that is to be stored: a credential written as `***` keeps the one that is stored at the same place, header
 * values each by their name.
 * in: `now`, the stored document; undefined for a new one
 * throws: AdminError 400 where `***` has nothing to stand for
 */
export function unmask<K extends Kind>(kind: K, value: Resource[K], now: Resource[K] | undefined): Resource[K] {
  const stored = new Map<string, unknown>()
  if (now !== undefined) {
    eachCredential(documentSchema(kind), now, [], (pointer, holder, member) => stored.set(key(pointer), holder[member]))
  }
  const kept = structuredClone(value)
  const problems: string[] = []
  eachCredential(documentSchema(kind), kept, [], (pointer, holder, member) => {
    if (holder[member] !== MASK) return
    if (stored.has(key(pointer))) holder[member] = stored.get(key(pointer))
    else
      problems.push(
        `schema validation failed at ${jsonPointer(pointer)}: ${MASK} keeps a stored value, and here is none; send the value itself`,
      )
  })
  if (problems.length > 0) throw new AdminError(400, problems.join('; '))
  return kept
}

const key = (pointer: readonly string[]): string => JSON.stringify(pointer)

function eachCredential(schema: JsonSchema, value: unknown, pointer: string[], visit: Visit) {
  if (Array.isArray(value)) {
    const { items } = schema
    if (isSchema(items))
      for (const [index, each] of value.entries()) eachCredential(items, each, [...pointer, String(index)], visit)
    return
  }
  if (!isRecord(value)) return
  // Whatever form a document has: a member that is a credential in one of them is masked.
  for (const form of schema.anyOf ?? []) if (isSchema(form)) eachCredential(form, value, pointer, visit)
  for (const member of Object.keys(value)) {
    const inner = schema.properties?.[member] ?? schema.additionalProperties
    if (!isSchema(inner)) continue
    const place = [...pointer, member]
    // A map of credentials (`default_headers`) is marked as a whole; its values are the credentials.
    const isCredential = inner.writeOnly === true || schema.writeOnly === true
    if (isCredential && !isRecord(value[member])) {
      if (value[member] !== undefined) visit(place, value, member)
    } else eachCredential(inner, value[member], place, visit)
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
