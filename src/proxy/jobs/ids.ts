import { invalidRequest } from '../../errors.ts'
import { parseBounded, readElements, readMembers, writeMembers } from '../../wire/members.ts'

/** What an id stands for: the server's own id, and the alias of the model that leads to that server; undefined of a raw id. */
export type JobId = { alias: string | undefined; raw: string }

const PREFIX = 'aisix-'
const decoder = new TextDecoder('utf-8', { fatal: true })

/**
 * An id that tells by itself which server knows it, so that nothing has to be remembered.
 * source: proxy-03 §11
 */
export function encodeId(alias: string, raw: string): string {
  return PREFIX + Buffer.from(JSON.stringify([alias, raw])).toString('base64url')
}

/** throws: invalid_request where it looks like one of ours and is none */
export function decodeId(id: string, param?: string): JobId {
  if (!id.startsWith(PREFIX)) return { alias: undefined, raw: id }
  try {
    const text = id.slice(PREFIX.length)
    if (!/^[\w-]+$/.test(text)) throw new SyntaxError('no base64url')
    const pair: unknown = JSON.parse(decoder.decode(Buffer.from(text, 'base64url')))
    const [alias, raw, ...more]: unknown[] = Array.isArray(pair) ? pair : []
    if (typeof alias === 'string' && alias !== '' && typeof raw === 'string' && raw !== '' && more.length === 0) {
      return { alias, raw }
    }
  } catch {
    // Cut or made up: said below.
  }
  throw invalidRequest('malformed id: it begins as an id of this gateway and is none', param === undefined ? {} : { param })
}

/** Members of files, batches and fine-tuning jobs that hold ids of the server's. */
const ID_MEMBERS: ReadonlySet<string> = new Set([
  ...['id', 'input_file_id', 'output_file_id', 'error_file_id', 'training_file', 'validation_file', 'first_id', 'last_id'],
  'fine_tuning_job_id',
])

/** A document of the server's with ids that callers can use, all else as it was sent. in: JSON; what is none stays as it is */
export function encodeIds(text: string, alias: string): string {
  try {
    return encodeObject(text, alias, 0)
  } catch {
    return text
  }
}

function encodeObject(text: string, alias: string, depth: number): string {
  const members = readMembers(text, depth)
  for (const member of members) {
    const { key, rawValue } = member
    if (ID_MEMBERS.has(key)) member.rawValue = encodeValue(rawValue, alias)
    else if (key === 'result_files') member.rawValue = eachElement(rawValue, depth, each => encodeValue(each, alias))
    else if (key === 'data' && depth === 0) {
      member.rawValue = eachElement(rawValue, depth, each => (each.startsWith('{') ? encodeObject(each, alias, 1) : each))
    }
  }
  return writeMembers(members)
}

function eachElement(rawValue: string, depth: number, change: (element: string) => string): string {
  return rawValue.startsWith('[')
    ? `[${readElements(rawValue, depth + 1)
        .map(change)
        .join(',')}]`
    : rawValue
}

function encodeValue(rawValue: string, alias: string): string {
  if (!rawValue.startsWith('"')) return rawValue
  const id: unknown = parseBounded(rawValue)
  return typeof id === 'string' && id !== '' ? JSON.stringify(encodeId(alias, id)) : rawValue
}
