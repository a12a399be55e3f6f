import { eachCredential } from '../resources/credentials.ts'
import type { Kind, Resource } from '../resources/index.ts'
import { MASK } from '../resources/provider-key.ts'
import { AdminError } from './error.ts'
import { jsonPointer } from './pointer.ts'

export { mask } from '../resources/masking.ts'

/**
 * The document that is to be stored: a credential written as `***` keeps the one that is stored at the same place, header
 * values each by their name.
 * in: `now`, the stored document; undefined for a new one
 * throws: AdminError 400 where `***` has nothing to stand for
 */
export function unmask<K extends Kind>(kind: K, value: Resource[K], now: Resource[K] | undefined): Resource[K] {
  const stored = new Map<string, unknown>()
  if (now !== undefined) {
    eachCredential(kind, now, (pointer, holder, member) => stored.set(key(pointer), holder[member]))
  }
  const kept = structuredClone(value)
  const problems: string[] = []
  eachCredential(kind, kept, (pointer, holder, member) => {
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
