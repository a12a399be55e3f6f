import { eachCredential } from './credentials.ts'
import type { Kind, Resource } from './index.ts'
import { MASK } from './provider-key.ts'

/** The document as it may be shown: every credential reads `***`. Credentials are the members marked `writeOnly`. */
export function mask<K extends Kind>(kind: K, value: Resource[K]): Resource[K] {
  const shown = structuredClone(value)
  eachCredential(kind, shown, (_pointer, holder, member) => {
    holder[member] = MASK
  })
  return shown
}
