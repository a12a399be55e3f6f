/**
 * Where the parts of a `multipart/form-data` body stand, found while its bytes pass: nothing but short fields is kept. Positions,
 * and not values alone, because what a caller sent goes on byte for byte except for what the gateway changes in it.
 * source: RFC 7578; RFC 2046 §5.1.1 for boundaries
 */

/** One part. Positions count bytes from the beginning of the body. */
export type FormPart = {
  name: string
  /** Undefined for a field that is no file. */
  filename: string | undefined
  /** Where its delimiter begins, the line break before it included, and where the next one's does. */
  start: number
  end: number
  /** Where the value stands. */
  valueStart: number
  valueEnd: number
  /** What stands there, of a field that is no file and no longer than VALUE_BYTES_MAX. */
  value: Uint8Array | undefined
}

/** The body is no such form; the message says why, without a word of it. */
export class MultipartError extends Error {}

/** A part's headers. */
const HEAD_BYTES_MAX = 16 * 1024
/** A longer field passes, and is not looked into. */
export const VALUE_BYTES_MAX = 1024 * 1024
/** Bytes of all fields that are looked into. */
const VALUES_BYTES_MAX = 8 * 1024 * 1024
const PARTS_MAX = 1_000
/** Bytes that are looked at together. */
const WINDOW_BYTES = 64 * 1024
/** RFC 2046 §5.1.1. */
const BOUNDARY_LENGTH_MAX = 70

const CRLF = Buffer.from('\r\n')
const BLANK_LINE = Buffer.from('\r\n\r\n')
const DASH = 0x2d

/** in: a content type. out: the boundary, undefined where it is no form. */
export function boundaryOf(contentType: string | null): string | undefined {
  if (contentType === null || !/^multipart\/form-data\s*;/i.test(contentType.trim())) return undefined
  let boundary: string | undefined
  for (const [name, value] of parameters(contentType.slice(contentType.indexOf(';')))) {
    if (name !== 'boundary') continue
    // Readers differ in which of two they take.
    if (boundary !== undefined) return undefined
    boundary = value
  }
  if (boundary === undefined || boundary === '' || boundary.length > BOUNDARY_LENGTH_MAX) return undefined
  // The characters of RFC 2046, and no other: a boundary stands in the body as it stands in the header.
  return /^[\w'()+,./:=? -]*[\w'()+,./:=?-]$/.test(boundary) ? boundary : undefined
}

/** `; name=value; name="quoted"`; names in lower case, in the order in which they come. */
function* parameters(text: string): Generator<[name: string, value: string]> {
  const pattern = /;\s*([\w!#$%&'*+.^`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s"]*))\s*/gy
  for (let match = pattern.exec(text); match; match = pattern.exec(text)) {
    const [, name = '', quoted, plain = ''] = match
    yield [name.toLowerCase(), quoted === undefined ? plain : quoted.replace(/\\(["\\])/g, '$1')]
  }
}

type State = 'preamble' | 'delimiter' | 'head' | 'value' | 'epilogue'

export class MultipartScanner {
  readonly parts: FormPart[] = []
  private readonly delimiter: Buffer
  private state: State = 'preamble'
  private readonly window = Buffer.allocUnsafeSlow(WINDOW_BYTES + 2 * HEAD_BYTES_MAX)
  /** Bytes that are not decided yet, in the window, and the position of the first of them. */
  private rest: Buffer = Buffer.alloc(0)
  private at = 0
  /** The part that is being read, and the pieces of its value where that is kept. */
  private part: FormPart | undefined
  private kept: Buffer[] | undefined
  private keptBytes = 0
  private allKeptBytes = 0
  /** Where the delimiter that is being read begins. */
  private delimiterAt = 0

  constructor(boundary: string) {
    this.delimiter = Buffer.from(`\r\n--${boundary}`, 'latin1')
  }

  /** Where the delimiter that ends the form begins; undefined until it has come. */
  get end(): number | undefined {
    return this.state === 'epilogue' ? this.delimiterAt : undefined
  }

  /** throws: MultipartError */
  push(bytes: Uint8Array): void {
    if (this.state === 'epilogue') return
    for (let from = 0; from < bytes.byteLength; from += WINDOW_BYTES) {
      this.append(bytes.subarray(from, from + WINDOW_BYTES))
      while (this.step()) {
        // Each step takes what it can decide.
      }
    }
  }

  /** Moves what is not decided to the front and puts the next bytes behind it: one buffer for the whole body. */
  private append(bytes: Uint8Array): void {
    const { window, rest } = this
    // No state leaves more undecided than the headers of a part.
    if (rest.byteLength + bytes.byteLength > window.byteLength) throw new MultipartError('it cannot be read')
    window.set(rest)
    window.set(bytes, rest.byteLength)
    this.rest = window.subarray(0, rest.byteLength + bytes.byteLength)
  }

  /** The body is over. throws: MultipartError where the form is not */
  finish(): void {
    if (this.state !== 'epilogue') throw new MultipartError('it ends before its last boundary')
  }

  private step(): boolean {
    switch (this.state) {
      case 'preamble':
        return this.preamble()
      case 'delimiter':
        return this.afterDelimiter()
      case 'head':
        return this.head()
      case 'value':
        return this.value()
      case 'epilogue':
        return false
    }
  }

  private take(length: number): void {
    this.rest = this.rest.subarray(length)
    this.at += length
  }

  /** The first delimiter has no line break before it where nothing stands before it. */
  private preamble(): boolean {
    const first = this.delimiter.subarray(CRLF.byteLength)
    if (this.at === 0) {
      if (this.rest.byteLength < first.byteLength) return false
      if (this.rest.subarray(0, first.byteLength).equals(first)) {
        this.delimiterAt = 0
        this.take(first.byteLength)
        this.state = 'delimiter'
        return true
      }
    }
    const found = this.rest.indexOf(this.delimiter)
    if (found < 0) {
      const passed = Math.max(0, this.rest.byteLength - this.delimiter.byteLength + 1)
      this.take(passed)
      if (this.at > HEAD_BYTES_MAX) throw new MultipartError('it does not begin with its boundary')
      return false
    }
    this.delimiterAt = this.at + found
    this.take(found + this.delimiter.byteLength)
    this.state = 'delimiter'
    return true
  }

  /** `--` ends the form; white space and a line break begin a part. */
  private afterDelimiter(): boolean {
    if (this.rest.byteLength < 2) return false
    if (this.rest[0] === DASH && this.rest[1] === DASH) {
      this.state = 'epilogue'
      this.rest = Buffer.alloc(0)
      return false
    }
    const end = this.rest.indexOf(CRLF)
    const padding = this.rest.subarray(0, end < 0 ? this.rest.byteLength : end)
    if (padding.byteLength > HEAD_BYTES_MAX || !padding.every(byte => byte === 0x20 || byte === 0x09 || byte === 0x0d)) {
      throw new MultipartError('its boundary stands in the middle of a line')
    }
    if (end < 0) return false
    // The line break may be the first half of the blank line behind no headers at all.
    this.take(end)
    this.state = 'head'
    return true
  }

  private head(): boolean {
    const end = this.rest.indexOf(BLANK_LINE)
    if ((end < 0 ? this.rest.byteLength : end) > HEAD_BYTES_MAX) throw new MultipartError('the headers of a part are too long')
    if (end < 0) return false
    if (this.parts.length >= PARTS_MAX) throw new MultipartError(`it has more than ${PARTS_MAX} parts`)
    const { name, filename } = dispositionOf(this.rest.subarray(0, end).toString('utf8'))
    // The blank line's first half may be the line break that ends the value's delimiter: an empty value begins right behind it.
    this.take(end + BLANK_LINE.byteLength)
    this.part = { name, filename, start: this.delimiterAt, end: 0, valueStart: this.at, valueEnd: 0, value: undefined }
    this.kept = filename === undefined ? [] : undefined
    this.keptBytes = 0
    this.state = 'value'
    return true
  }

  private value(): boolean {
    const { part } = this
    if (!part) return false
    const found = this.rest.indexOf(this.delimiter)
    const passed = found < 0 ? Math.max(0, this.rest.byteLength - this.delimiter.byteLength + 1) : found
    this.keep(passed)
    this.take(passed)
    if (found < 0) return false
    part.valueEnd = this.at
    part.end = this.at
    if (this.kept) part.value = Buffer.concat(this.kept, this.keptBytes)
    this.parts.push(part)
    this.part = undefined
    this.kept = undefined
    this.delimiterAt = this.at
    this.take(this.delimiter.byteLength)
    this.state = 'delimiter'
    return true
  }

  private keep(length: number): void {
    if (!this.kept || length === 0) return
    this.keptBytes += length
    this.allKeptBytes += length
    if (this.allKeptBytes > VALUES_BYTES_MAX) throw new MultipartError('its fields are too long')
    if (this.keptBytes > VALUE_BYTES_MAX) this.kept = undefined
    else this.kept.push(Buffer.from(this.rest.subarray(0, length)))
  }
}

/** in: the headers of a part, each behind a line break. throws: MultipartError where they do not name it in one way only */
function dispositionOf(head: string): { name: string; filename: string | undefined } {
  const lines = head.split('\r\n').filter(line => /^content-disposition\s*:/i.test(line))
  const [line] = lines
  if (line === undefined || lines.length > 1) throw new MultipartError('a part has no content-disposition, or two')
  const [, rest] = /^content-disposition\s*:\s*form-data\s*(|;.*)$/is.exec(line) ?? []
  if (rest === undefined) throw new MultipartError('a part is no form-data')
  let name: string | undefined
  let filename: string | undefined
  for (const [key, value] of parameters(rest)) {
    // Readers differ in what they make of the extended form, which RFC 7578 §4.2 forbids, and of a second name.
    if (key === 'name*' || (key === 'name' && name !== undefined)) throw new MultipartError('a part has two names')
    if (key === 'name') name = value
    if (key === 'filename' || key === 'filename*') filename ??= value
  }
  if (name === undefined) throw new MultipartError('a part has no name')
  return { name, filename }
}
