/**
 * A JSON object as its members in the order and the spelling they were sent in, so that one member can be changed and
 * everything else goes on character for character: `JSON.parse` and `JSON.stringify` would change numbers
 * (9007199254740993, 1.0) and cost more.
 *
 * Whole bodies are text. Streams are cut anywhere, inside a character too, so their events are "binary" text: each
 * character is one byte (latin1) of UTF-8, and slicing and joining is lossless. The functions here serve both; only what
 * is compared with a name, and names are ASCII, is ever looked into. `utf8ToBinary` and `binaryToUtf8` convert.
 */
export type Member = {
  /** The name, unescaped. */
  key: string
  /** The name as it was sent, quotes included. */
  rawKey: string
  rawValue: string
}

export const DEPTH_MAX = 128

export class JsonSyntaxError extends Error {}
export class JsonDepthError extends Error {}

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y

const NOT_ASCII = /[^\u0000-\u007f]/

const QUOTE = 0x22
const BACKSLASH = 0x5c
const OPEN_BRACE = 0x7b
const CLOSE_BRACE = 0x7d
const OPEN_BRACKET = 0x5b
const CLOSE_BRACKET = 0x5d
const COMMA = 0x2c
const COLON = 0x3a

export function skipSpace(text: string, from: number): number {
  let at = from
  for (;;) {
    const code = text.charCodeAt(at)
    if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return at
    at += 1
  }
}

/** Position behind the string that opens at `from`. Most bytes of a body lie in strings: the engine's search skips them. */
export function skipString(text: string, from: number): number {
  let at = from + 1
  for (;;) {
    const quote = text.indexOf('"', at)
    if (quote < 0) throw new JsonSyntaxError('a string is not closed')
    let backslashes = 0
    while (text.charCodeAt(quote - 1 - backslashes) === BACKSLASH && quote - 1 - backslashes > from) backslashes += 1
    if (backslashes % 2 === 0) return quote + 1
    at = quote + 1
  }
}

/**
 * Position behind the JSON value that starts at `from`. Structure, numbers and literals are checked, escapes in strings
 * are not.
 * throws: JsonSyntaxError, JsonDepthError when arrays and objects nest deeper than DEPTH_MAX
 */
export function skipValue(text: string, from: number, depth = 0): number {
  // Iterative, with a bit a level (1: object) in an array: hostile nesting must not exhaust the stack.
  const stack: boolean[] = []
  let at = skipSpace(text, from)
  for (;;) {
    const code = text.charCodeAt(at)
    if (code === QUOTE) at = skipString(text, at)
    else if (code === OPEN_BRACE || code === OPEN_BRACKET) {
      const isObject = code === OPEN_BRACE
      if (stack.length + depth >= DEPTH_MAX) throw new JsonDepthError(`nested deeper than ${DEPTH_MAX} levels`)
      const next = skipSpace(text, at + 1)
      if (text.charCodeAt(next) === (isObject ? CLOSE_BRACE : CLOSE_BRACKET)) at = next + 1
      else {
        stack.push(isObject)
        at = isObject ? skipKey(text, next) : next
        continue
      }
    } else at = skipScalar(text, at, code)
    // A value has ended: go on in what holds it.
    for (;;) {
      const isObject = stack[stack.length - 1]
      if (isObject === undefined) return at
      at = skipSpace(text, at)
      const code = text.charCodeAt(at)
      if (code === COMMA) {
        at = skipSpace(text, at + 1)
        if (isObject) at = skipKey(text, at)
        break
      }
      if (code !== (isObject ? CLOSE_BRACE : CLOSE_BRACKET)) throw new JsonSyntaxError('an object or array is not closed')
      stack.pop()
      at += 1
    }
  }
}

function skipScalar(text: string, at: number, code: number): number {
  if (code === 0x74 && text.startsWith('true', at)) return at + 4
  if (code === 0x66 && text.startsWith('false', at)) return at + 5
  if (code === 0x6e && text.startsWith('null', at)) return at + 4
  NUMBER.lastIndex = at
  if (NUMBER.test(text)) return NUMBER.lastIndex
  throw new JsonSyntaxError('a value is missing or misspelt')
}

/** Position of the value behind the member name that starts at `at`. */
function skipKey(text: string, at: number): number {
  if (text.charCodeAt(at) !== QUOTE) throw new JsonSyntaxError('a member name is missing')
  const behind = skipSpace(text, skipString(text, at))
  if (text.charCodeAt(behind) !== COLON) throw new JsonSyntaxError('a colon is missing')
  return skipSpace(text, behind + 1)
}

/** Where a member stands in the text of its object. */
export type Span = { key: string; keyStart: number; valueStart: number; valueEnd: number }

/**
 * Where the members of the object that `text` is stand, at the outermost level only.
 * throws: JsonSyntaxError (also when it is no object, or when something follows it), JsonDepthError
 */
export function scanMembers(text: string, depth = 0): Span[] {
  const spans: Span[] = []
  let at = skipSpace(text, 0)
  if (text.charCodeAt(at) !== OPEN_BRACE) throw new JsonSyntaxError('not an object')
  at = skipSpace(text, at + 1)
  if (text.charCodeAt(at) === CLOSE_BRACE) at += 1
  else {
    for (;;) {
      const keyStart = at
      if (text.charCodeAt(at) !== QUOTE) throw new JsonSyntaxError('a member name is missing')
      const keyEnd = skipString(text, at)
      const colon = skipSpace(text, keyEnd)
      if (text.charCodeAt(colon) !== COLON) throw new JsonSyntaxError('a colon is missing')
      const valueStart = skipSpace(text, colon + 1)
      const valueEnd = skipValue(text, valueStart, depth + 1)
      spans.push({ key: readKey(text, keyStart, keyEnd), keyStart, valueStart, valueEnd })
      at = skipSpace(text, valueEnd)
      const code = text.charCodeAt(at)
      at += 1
      if (code === CLOSE_BRACE) break
      if (code !== COMMA) throw new JsonSyntaxError('an object is not closed')
      at = skipSpace(text, at)
    }
  }
  if (skipSpace(text, at) !== text.length) throw new JsonSyntaxError('something follows the object')
  return spans
}

/** The members of the object that `text` is, to be changed and written again. Throws as `scanMembers` does. */
export function readMembers(text: string, depth = 0): Member[] {
  return scanMembers(text, depth).map(({ key, keyStart, valueStart, valueEnd }) => ({
    key,
    rawKey: text.slice(keyStart, skipString(text, keyStart)),
    rawValue: text.slice(valueStart, valueEnd),
  }))
}

function readKey(text: string, start: number, end: number): string {
  const inner = text.slice(start + 1, end - 1)
  return inner.includes('\\') ? parseKey(text.slice(start, end)) : inner
}

/** The elements of the array that `text` is, as they were sent. */
export function readElements(text: string, depth = 0): string[] {
  const elements: string[] = []
  let at = skipSpace(text, 0)
  if (text.charCodeAt(at) !== OPEN_BRACKET) throw new JsonSyntaxError('not an array')
  at = skipSpace(text, at + 1)
  if (text.charCodeAt(at) === CLOSE_BRACKET) return elements
  for (;;) {
    const end = skipValue(text, at, depth + 1)
    elements.push(text.slice(at, end))
    at = skipSpace(text, end)
    const code = text.charCodeAt(at)
    if (code === CLOSE_BRACKET) return elements
    if (code !== COMMA) throw new JsonSyntaxError('an array is not closed')
    at = skipSpace(text, at + 1)
  }
}

function parseKey(rawKey: string): string {
  try {
    const key: unknown = JSON.parse(rawKey)
    return typeof key === 'string' ? key : rawKey
  } catch {
    throw new JsonSyntaxError('a member name has a bad escape')
  }
}

export function findMember(members: readonly Member[], key: string): Member | undefined {
  for (const member of members) if (member.key === key) return member
  return undefined
}

/** Gives `key` a new value in its place, or adds it at the end. */
export function setMember(members: Member[], key: string, rawValue: string): void {
  const member = findMember(members, key)
  if (member) member.rawValue = rawValue
  else members.push({ key, rawKey: JSON.stringify(key), rawValue })
}

export function removeMember(members: Member[], key: string): void {
  const at = members.findIndex(member => member.key === key)
  if (at >= 0) members.splice(at, 1)
}

export function writeMembers(members: readonly Member[]): string {
  let text = '{'
  for (const { rawKey, rawValue } of members) text += (text.length > 1 ? ',' : '') + rawKey + ':' + rawValue
  return `${text}}`
}

/**
 * As `JSON.parse`, for texts that are built into something else: what nests deeper than DEPTH_MAX would exhaust the stack of
 * whoever walks through it, and a number with more digits than a number of JavaScript has becomes a `JSON.rawJSON`, which is
 * written as it was read. throws: SyntaxError, JsonSyntaxError, JsonDepthError
 */
export function parseBounded(text: string): unknown {
  if (isPerhapsTooDeep(text)) skipValue(text, 0)
  return PERHAPS_LONG_NUMBER.test(text) ? JSON.parse(text, keepDigits) : JSON.parse(text)
}

/** Reviving costs several times what parsing does, and next to no text needs it. */
const PERHAPS_LONG_NUMBER = /[:,[]\s*-?(?:\d*\.?\d{16}|[\d.]+[eE]\+?\d{3})/

/** What the runtime has and its published types lack. Source: ECMAScript proposal "JSON.parse source text access" */
declare global {
  interface JSON {
    parse(text: string, reviver: (key: string, value: unknown, context: { source?: string }) => unknown): unknown
    rawJSON(text: string): unknown
  }
}

/** As many digits as any number keeps. */
const EXACT_LENGTH_MAX = 15

function keepDigits(_key: string, value: unknown, { source }: { source?: string }): unknown {
  if (typeof value !== 'number' || source === undefined) return value
  const isExact = Number.isFinite(value) && (source.length <= EXACT_LENGTH_MAX || String(value) === source)
  return isExact ? value : JSON.rawJSON(source)
}

/** Whether there are more opening brackets than may nest, wherever they stand. */
function isPerhapsTooDeep(text: string): boolean {
  let count = 0
  for (const bracket of ['{', '[']) {
    for (let at = text.indexOf(bracket); at >= 0; at = text.indexOf(bracket, at + 1)) {
      count += 1
      if (count > DEPTH_MAX) return true
    }
  }
  return false
}

/** Puts texts into JSON, for whoever mostly has the one that it had before: names of models, for instance. */
export function createQuoter(): (text: string) => string {
  let last = ''
  let quoted = '""'
  return text => {
    if (text !== last) {
      quoted = JSON.stringify(text)
      last = text
    }
    return quoted
  }
}

/** What a piece of binary JSON text means. */
export function parseBinary(text: string): unknown {
  return JSON.parse(binaryToUtf8(text))
}

export function binaryToUtf8(text: string): string {
  return NOT_ASCII.test(text) ? Buffer.from(text, 'latin1').toString('utf8') : text
}

export function utf8ToBinary(text: string): string {
  return NOT_ASCII.test(text) ? Buffer.from(text, 'utf8').toString('latin1') : text
}

/** JSON text of a value, as binary text. */
export function stringifyBinary(value: unknown): string {
  return utf8ToBinary(JSON.stringify(value))
}

export function toBytes(text: string): Uint8Array<ArrayBuffer> {
  return Buffer.from(text, 'latin1')
}

/** A view of the same bytes as binary text. */
export function toBinary(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
}
