import type { Kind } from './index.ts'
import { documentSchema, isSchema, type JsonSchema } from './json-schema.ts'

/** Called with each credential of a document: where it stands, and the object and member that hold it. */
export type Visit = (pointer: string[], holder: Record<string, unknown>, member: string) => void

/** Finds the credentials of a document, which are the members that its schema marks `writeOnly`. */
export function eachCredential(kind: Kind, document: unknown, visit: Visit): void {
  visitCredentials(documentSchema(kind), document, [], visit)
}

function visitCredentials(schema: JsonSchema, value: unknown, pointer: string[], visit: Visit) {
  if (Array.isArray(value)) {
    const { items } = schema
    if (isSchema(items))
      for (const [index, each] of value.entries()) visitCredentials(items, each, [...pointer, String(index)], visit)
    return
  }
  if (!isRecord(value)) return
  // Whatever form a document has: a member that is a credential in one of them is masked.
  for (const form of schema.anyOf ?? []) if (isSchema(form)) visitCredentials(form, value, pointer, visit)
  for (const member of Object.keys(value)) {
    const inner = schema.properties?.[member] ?? schema.additionalProperties
    if (!isSchema(inner)) continue
    const place = [...pointer, member]
    // A map of credentials (`default_headers`) is marked as a whole; its values are the credentials.
    const isCredential = inner.writeOnly === true || schema.writeOnly === true
    if (isCredential && !isRecord(value[member])) {
      if (value[member] !== undefined) visit(place, value, member)
    } else visitCredentials(inner, value[member], place, visit)
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
