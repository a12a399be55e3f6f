/**
 * Whether a text is YAML of the plainest kind: block mappings and sequences, values on their line, literal blocks; no key
 * twice in a mapping, no anchors, tags, tabs or odd numbers. Of such a text every reader of YAML makes the same, so that the
 * runtime's, which is fast and tells neither places nor equal keys, can be trusted with it.
 * in: a whole document; out: false where anything is in doubt, a mistake too, which is then for the careful reader to tell
 */
export function isSimpleYaml(text: string): boolean {
  return new Scan(text).isSimple()
}

/** A mapping or a sequence whose entries begin in this column. `keys` is undefined for a sequence. */
type Frame = { column: number; keys: Set<string> | undefined; lastKeyIsEmpty: boolean }

const KEY = /([A-Za-z_][A-Za-z0-9_.-]*):(?: +|$)/y
/** Words that are no strings as keys either, and the name that objects treat in their own way. */
const ODD_KEY = /^(?:null|true|false|__proto__)$/i
const DASH = /- +/y

const DOUBLE_QUOTED = /"(?:[^"\\\u0000-\u001f\u007f-\u00a0\u2028\u2029\ufeff\ufffe\uffff]|\\["\\nt])*"/y
const SINGLE_QUOTED = /'(?:[^'\u0000-\u001f\u007f-\u00a0\u2028\u2029\ufeff\ufffe\uffff]|'')*'/y
/** Words of a value without quotes: no colon at the end of one, no `#` at its beginning. */
const PLAIN =
  /[A-Za-z0-9_/.$+](?:[^\s:\u0000-\u001f\u007f-\u00a0\ufeff\ufffe\uffff]|:(?=[^\s]))*(?: +[^\s:#\u0000-\u001f\u007f-\u00a0\ufeff\ufffe\uffff](?:[^\s:\u0000-\u001f\u007f-\u00a0\ufeff\ufffe\uffff]|:(?=[^\s]))*)*/y
const FLOW_PLAIN = /[A-Za-z0-9_/.$+][A-Za-z0-9_/.$+@*=-]*/y
const FLOW_SPACE = / */y
const REST = /(?: +#.*| *)$/y

/** Numbers that every reader takes for the same double. */
const SHORT_NUMBER = /^-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,14})?$/
/** What some reader may take for a number, infinities and the like included. */
const NUMBER_LIKE = /^(?:[-+]?\.?[0-9][0-9a-fxo_.+-]*|[-+]?\.(?:inf|nan))$/i
/** What looks like one and is text to every reader: an address, a date, a hash that has a digit of no decimal number. */
const NO_NUMBER = /^(?:[0-9]+\.[0-9]+\.[0-9]+(?:\.[0-9]+)?|[0-9]{4}-[0-9]{2}-[0-9]{2}|(?=[0-9e]*[a-df])[0-9a-f]{32,})$/

class Scan {
  private at = 0
  private frames: Frame[] = []
  /** Whether what comes next may be the value of a key that has none yet. */
  private canOpen = true

  constructor(private readonly text: string) {}

  isSimple(): boolean {
    let isFirst = true
    while (this.at < this.text.length) {
      const line = this.nextLine()
      if (isBlank(line)) continue
      if (isFirst && line === '---') {
        isFirst = false
        continue
      }
      isFirst = false
      if (!this.line(line)) return false
    }
    return this.frames.length > 0
  }

  private nextLine(): string {
    const newline = this.text.indexOf('\n', this.at)
    const end = newline < 0 ? this.text.length : newline
    const line = this.text.slice(this.at, this.text.charCodeAt(end - 1) === 13 && end > this.at ? end - 1 : end)
    this.at = end + 1
    return line
  }

  private line(line: string): boolean {
    let column = 0
    while (line.charCodeAt(column) === 32) column++
    let hasDash = false
    while (line.charCodeAt(column) === 45) {
      const dash = match(DASH, line, column)
      if (dash === undefined) return false
      if (!this.item(column, hasDash)) return false
      hasDash = true
      column += dash.length
    }
    KEY.lastIndex = column
    const key = KEY.exec(line)
    if (key === null) {
      if (!hasDash) return false
      this.canOpen = false
      return this.value(line, column, undefined)
    }
    const [matched, name = ''] = key
    return this.key(name, column, hasDash) && this.value(line, column + matched.length, column)
  }

  /** A dash in this column: another item of a sequence, or the first of a new one. */
  private item(column: number, isNested: boolean): boolean {
    const isInside = this.leave(column)
    const top = this.frames.at(-1)
    if (top?.column === column && top.keys === undefined) {
      this.canOpen = true
      return !isNested
    }
    const isValueOf = top === undefined || top.column < column || (top.column === column && top.lastKeyIsEmpty)
    if (!isInside || !this.canOpen || !isValueOf) return false
    this.frames.push({ column, keys: undefined, lastKeyIsEmpty: false })
    return true
  }

  private key(name: string, column: number, isNested: boolean): boolean {
    if (ODD_KEY.test(name)) return false
    const isInside = this.leave(column)
    // A sequence may stand in the column of the key that it belongs to.
    const isBesideItems = this.frames.at(-1)?.column === column && this.frames.at(-1)?.keys === undefined
    if (isBesideItems) this.frames.pop()
    const top = this.frames.at(-1)
    if (top?.column === column && !isNested) {
      if (top.keys === undefined || top.keys.has(name)) return false
      top.keys.add(name)
      return true
    }
    if (isBesideItems || !isInside || !this.canOpen || (top !== undefined && top.column >= column)) return false
    this.frames.push({ column, keys: new Set([name]), lastKeyIsEmpty: false })
    return true
  }

  /** Leaves what is further in. out: false when there was any */
  private leave(column: number): boolean {
    let isInside = true
    for (let top = this.frames.at(-1); top !== undefined && top.column > column; top = this.frames.at(-1)) {
      this.frames.pop()
      isInside = false
    }
    return isInside
  }

  /** in: `keyColumn`, where the key of the value stands; undefined for an item that is a plain value */
  private value(line: string, start: number, keyColumn: number | undefined): boolean {
    const isEmpty = start >= line.length || (isRest(line, start) && match(REST, line, start) !== undefined)
    const top = this.frames.at(-1)
    if (top) top.lastKeyIsEmpty = isEmpty
    this.canOpen = isEmpty
    // A dash with nothing behind it is rare enough for the careful reader.
    if (isEmpty) return keyColumn !== undefined
    if (line.charCodeAt(start) === 124) return keyColumn !== undefined && this.block(line.slice(start), keyColumn)
    const end = scalarEnd(line, start) ?? flowEnd(line, start)
    return end !== undefined && (end === line.length || match(REST, line, end) !== undefined)
  }

  /** A literal block, `|` or `|-`. Its lines are whatever is further in than its key. */
  private block(head: string, keyColumn: number): boolean {
    if (head !== '|' && head !== '|-') return false
    let blockColumn: number | undefined
    while (this.at < this.text.length) {
      const before = this.at
      const line = this.nextLine()
      if (line === '') continue
      let column = 0
      while (line.charCodeAt(column) === 32) column++
      if (column === line.length) return false
      if (column <= keyColumn) {
        this.at = before
        break
      }
      blockColumn ??= column
      if (column < blockColumn || /[\u0000-\u001f\u007f-\u00a0\u2028\u2029\ufeff\ufffe\uffff]/.test(line)) return false
    }
    return blockColumn !== undefined
  }
}

/** Whether a value can have ended here: what follows is a blank. */
function isRest(line: string, at: number): boolean {
  const code = line.charCodeAt(at)
  return code === 32 || code === 35
}

function match(pattern: RegExp, line: string, at: number): string | undefined {
  pattern.lastIndex = at
  return pattern.exec(line)?.[0]
}

function isBlank(line: string): boolean {
  for (let i = 0; i < line.length; i++) {
    const code = line.charCodeAt(i)
    if (code === 35) return !/[\u0000-\u001f\u007f-\u00a0\u2028\u2029\ufeff\ufffe\uffff]/.test(line)
    if (code !== 32) return false
  }
  return true
}

/** Where a value ends that is quoted, or plain up to the end of the line or a comment; undefined where it is neither. */
function scalarEnd(line: string, start: number): number | undefined {
  const first = line.charCodeAt(start)
  if (first === 91 || first === 123) return undefined
  if (first === 34 || first === 39) {
    const quoted = match(first === 34 ? DOUBLE_QUOTED : SINGLE_QUOTED, line, start)
    return quoted === undefined ? undefined : start + quoted.length
  }
  const plain = match(PLAIN, line, start)
  return plain !== undefined && isCertain(plain) ? start + plain.length : undefined
}

function isCertain(plain: string): boolean {
  const first = plain.charCodeAt(0)
  if (first > 57) return true
  return !NUMBER_LIKE.test(plain) || SHORT_NUMBER.test(plain) || NO_NUMBER.test(plain)
}

/** Where a `[…]` or `{…}` of plain and quoted values ends, with nothing nested in it and no key twice. */
function flowEnd(line: string, start: number): number | undefined {
  const open = line[start]
  if (open !== '[' && open !== '{') return undefined
  const close = open === '[' ? ']' : '}'
  const keys = open === '{' ? new Set<string>() : undefined
  let at = start + 1
  const skip = () => {
    at += match(FLOW_SPACE, line, at)?.length ?? 0
  }
  skip()
  if (line[at] === close) return at + 1
  for (;;) {
    if (keys) {
      KEY.lastIndex = at
      const [matched = '', name = ''] = KEY.exec(line) ?? []
      if (name === '' || !matched.endsWith(' ') || ODD_KEY.test(name) || keys.has(name)) return undefined
      keys.add(name)
      at += matched.length
    }
    const quoted = match(DOUBLE_QUOTED, line, at) ?? match(SINGLE_QUOTED, line, at)
    const item = quoted ?? match(FLOW_PLAIN, line, at)
    if (item === undefined || (quoted === undefined && !isCertain(item))) return undefined
    at += item.length
    skip()
    if (line[at] === close) return at + 1
    if (line[at] !== ',') return undefined
    at += 1
    skip()
  }
}
