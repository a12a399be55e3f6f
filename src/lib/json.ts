/**
 * A strict reader of JSON for what operators write. `JSON.parse` takes the last of two equal members, nests without limit
 * and reports an offset at best; here each of these is an error that says where. Not for the request path of the proxy.
 */
import { printable } from './log.ts'

export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject
export type JsonObject = { [name: string]: JsonValue }

/** Deepest nesting of arrays and objects that is read. */
export const JSON_DEPTH_MAX = 128

/** What is wrong with a text and where. The message never holds a value of the text, member names only. */
export class JsonError extends Error {
  constructor(
    readonly problem: string,
    /** 1 for the first line. */
    readonly line: number,
    /** In characters, 1 for the first of the line. */
    readonly column: number,
  ) {
    super(`${problem} at line ${line}, column ${column}`)
  }
}

export type JsonRules = {
  depthMax?: number
  /** Also refuses whole numbers beyond 2^53 that a double would change: of 9007199254740993 it would make …992. */
  isExact?: boolean
}

/**
 * The value of a JSON text.
 * throws: JsonError for a syntax error, a member that occurs twice in one object, a member called `__proto__` (which object
 * libraries drop in silence), a number beyond the range of a double, or nesting deeper than `depthMax`
 * source: RFC 8259; duplicates and depth: README of the contract, rows 11 and 17
 */
export function parseJson(text: string, { depthMax = JSON_DEPTH_MAX, isExact = false }: JsonRules = {}): JsonValue {
  return new Reader(text, depthMax, isExact).document()
}

/** Digits and exponent of a number, without what can be written in several ways: `1.50e3`, `1500` and `1500.0` are `15e2`. */
function canonicalNumber(text: string): string {
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text) ?? []
  const digits = (whole + fraction).replace(/^0+/, '')
  let end = digits.length
  while (digits[end - 1] === '0') end--
  return `${sign}${digits.slice(0, end)}e${Number(exponent) - fraction.length + digits.length - end}`
}

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y
/** Text without anything that ends or escapes a string. */
const PLAIN = /[^"\\\u0000-\u001f]*/y
const ESCAPES: Record<string, string> = { '"': '"', '\\': '\\', '/': '/', b: '\b', f: '\f', n: '\n', r: '\r', t: '\t' }

class Reader {
  #at = 0
  #depth = 0
  /** Names of the members that are being read, the innermost last. */
  readonly #names: string[] = []

  constructor(
    readonly text: string,
    readonly depthMax: number,
    readonly isExact: boolean,
  ) {}

  document(): JsonValue {
    this.#space()
    const value = this.#value()
    this.#space()
    if (this.#at < this.text.length) this.#fail('expected the end of the document')
    return value
  }

  #fail(problem: string, at = this.#at): never {
    const before = this.text.slice(0, at)
    const lines = before.split('\n')
    // Characters, not UTF-16 units: an editor counts an emoji once.
    throw new JsonError(problem, lines.length, [...(lines.at(-1) ?? '')].length + 1)
  }

  #space() {
    for (; this.#at < this.text.length; this.#at++) {
      const code = this.text.charCodeAt(this.#at)
      if (code !== 32 && code !== 10 && code !== 13 && code !== 9) return
    }
  }

  #value(): JsonValue {
    switch (this.text[this.#at]) {
      case undefined:
        return this.#fail('expected a value, but the document ends')
      case '{':
        return this.#object()
      case '[':
        return this.#array()
      case '"':
        return this.#string()
      case 't':
        return this.#word('true', true)
      case 'f':
        return this.#word('false', false)
      case 'n':
        return this.#word('null', null)
      default:
        return this.#number()
    }
  }

  #word<T extends JsonValue>(word: string, value: T): T {
    if (!this.text.startsWith(word, this.#at)) this.#fail('expected a value')
    this.#at += word.length
    return value
  }

  #number(): number {
    NUMBER.lastIndex = this.#at
    const digits = NUMBER.exec(this.text)?.[0]
    if (digits === undefined) return this.#fail('expected a value')
    const value = Number(digits)
    if (!Number.isFinite(value)) this.#fail(`${this.#numberName()} is too large`)
    // A fraction that is rounded is what everybody expects of one; an id or a seed that is rounded is another one.
    const isRounded = this.isExact && !Number.isSafeInteger(value) && Number.isInteger(value)
    if (isRounded && canonicalNumber(digits) !== canonicalNumber(String(value))) {
      this.#fail(`${this.#numberName()} has more digits than can be kept: beyond 9007199254740992 write it as a string`)
    }
    this.#at += digits.length
    // `01` and `1.` stop short of their end; say so here rather than as a missing comma.
    if (/[0-9.eE+-]/.test(this.text[this.#at] ?? '')) this.#fail('expected a number as JSON writes it')
    return value
  }

  #numberName(): string {
    return this.#names.length === 0 ? 'this number' : `the number in \`${this.#names.map(printable).join('.')}\``
  }

  #string(): string {
    const start = this.#at
    this.#at += 1
    let value = ''
    for (;;) {
      PLAIN.lastIndex = this.#at
      const plain = PLAIN.exec(this.text)?.[0] ?? ''
      value += plain
      this.#at += plain.length
      const character = this.text[this.#at]
      if (character === '"') {
        this.#at += 1
        return value
      }
      if (character === undefined) return this.#fail('this string is not closed', start)
      if (character !== '\\') return this.#fail('a control character in a string must be escaped')
      value += this.#escape()
    }
  }

  #escape(): string {
    const letter = this.text[this.#at + 1] ?? ''
    if (letter === 'u') {
      const digits = this.text.slice(this.#at + 2, this.#at + 6)
      if (!/^[0-9a-fA-F]{4}$/.test(digits)) this.#fail('expected four hexadecimal digits after \\u')
      this.#at += 6
      return String.fromCharCode(Number.parseInt(digits, 16))
    }
    const character = Object.hasOwn(ESCAPES, letter) ? ESCAPES[letter] : undefined
    if (character === undefined) return this.#fail('expected an escape that JSON knows after \\')
    this.#at += 2
    return character
  }

  #enter() {
    this.#depth += 1
    if (this.#depth > this.depthMax) this.#fail(`nested deeper than ${this.depthMax} levels`)
    this.#at += 1
    this.#space()
  }

  /** Behind an element: true when another follows, false when `close` ended the container. */
  #next(close: ']' | '}'): boolean {
    this.#space()
    const character = this.text[this.#at]
    if (character !== ',' && character !== close) this.#fail(`expected "," or "${close}"`)
    this.#at += 1
    if (character === close) {
      this.#depth -= 1
      return false
    }
    this.#space()
    return true
  }

  #array(): JsonValue[] {
    this.#enter()
    const values: JsonValue[] = []
    if (this.text[this.#at] === ']') {
      this.#next(']')
      return values
    }
    do values.push(this.#value())
    while (this.#next(']'))
    return values
  }

  #object(): JsonObject {
    this.#enter()
    const members: JsonObject = {}
    if (this.text[this.#at] === '}') {
      this.#next('}')
      return members
    }
    do {
      const at = this.#at
      if (this.text[at] !== '"') this.#fail('expected a member name in double quotes')
      const name = this.#string()
      if (name === '__proto__') this.#fail('a member must not be called `__proto__`', at)
      if (Object.hasOwn(members, name)) this.#fail(`duplicate member \`${printable(name)}\``, at)
      this.#space()
      if (this.text[this.#at] !== ':') this.#fail('expected ":"')
      this.#at += 1
      this.#space()
      this.#names.push(name)
      members[name] = this.#value()
      this.#names.pop()
    } while (this.#next('}'))
    return members
  }
}
