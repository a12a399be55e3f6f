import { printable } from '../lib/log.ts'

/** The place in a document as a JSON Pointer (RFC 6901), empty for its root; names are cut and escaped for messages. */
export function jsonPointer(path: readonly PropertyKey[]): string {
  return path.map(part => `/${printable(String(part)).replace(/~/g, '~0').replace(/\//g, '~1')}`).join('')
}
