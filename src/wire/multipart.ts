/**
 * Where the parts of a `multipart/form-data` body stand, found while its bytes pass: nothing but short fields is kept. Positions,
 * and not values alone, because values go on byte for byte, however long they are.
 *
 * Readers differ in what they make of a form that is not quite one. Whoever judges by one reading and passes the bytes on to
 * another reader can be told one thing and let another through; so what is written here is written anew around the values
 * (`partHead`), and whatever the grammar does not cover is refused.
 * source: RFC 7578; RFC 2046 §5.1.1 for boundaries; WHATWG HTML, "Multipart form data", for what is escaped in names
 */

/** One part. Positions count bytes from the beginning of the body. */
export type FormPart = {
  name: string
  /** Undefined for a field that is no file. */
  filename: string | undefined
  contentType: string | undefined
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
const CRLF = Buffer.from('\r\n')
const BLANK_LINE = Buffer.from('\r\n\r\n')
const DASH = 0x2d

/** in: a content type. out: the boundary, undefined where it is no form, or may be read as one in two ways. */
export function boundaryOf(contentType: string | null): string | undefined {
  const [, rest] = /^multipart\/form-data\s*(;.*)$/is.exec(contentType?.trim() ?? '') ?? []
  const given = rest === undefined ? undefined : parameters(rest)
  const boundaries = given?.filter(([name]) => name.startsWith('boundary')) ?? []
  const [boundary] = boundaries
  if (boundary?.[0] !== 'boundary' || boundaries.length > 1) return undefined
  // The characters of RFC 2046, and no other: a boundary stands in the body as it stands in the header.
  return /^[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-]$/.test(boundary[1]) ? boundary[1] : undefined
}

const PARAMETER = /\s*;\s*([\w!#$%&'*+.^`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s"\\]+))/gy

/**
 * `; name=value; name="quoted"`, and nothing besides; names in lower case, in the order in which they come.
 * returns: undefined where a word of it is something else
 */
function parameters(text: string): [name: string, value: string][] | undefined {
  const found: [string, string][] = []
  PARAMETER.lastIndex = 0
  let end = 0
  for (let match = PARAMETER.exec(text); match; match = PARAMETER.exec(text)) {
    const [, name = '', quoted, plain = ''] = match
    found.push([name.toLowerCase(), quoted === undefined ? plain : quoted.replace(/\\(["\\])/g, '$1')])
    end = PARAMETER.lastIndex
  }
  return /^\s*;?\s*$/.test(text.slice(end)) ? found : undefined
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

  constructor(boundary: string) {
    this.delimiter = Buffer.from(`\r\n--${boundary}`, 'latin1')
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
    const named = readHead(this.rest.subarray(0, end))
    // The blank line's first half may be the line break that ends the value's delimiter: an empty value begins right behind it.
    this.take(end + BLANK_LINE.byteLength)
    this.part = { ...named, valueStart: this.at, valueEnd: 0, value: undefined }
    this.kept = named.filename === undefined ? [] : undefined
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
    if (this.kept) part.value = Buffer.concat(this.kept, this.keptBytes)
    this.parts.push(part)
    this.part = undefined
    this.kept = undefined
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

/** What is no UTF-8, as in file names of old clients, is replaced: it goes out as it was read here. */
const decoder = new TextDecoder('utf-8', { ignoreBOM: true })

/** in: the headers of a part, each behind a line break. throws: MultipartError where they do not name it in one way only */
function readHead(bytes: Uint8Array): Pick<FormPart, 'name' | 'filename' | 'contentType'> {
  const lines = decoder
    .decode(bytes)
    .split('\r\n')
    .filter(line => line !== '')
  const headers = new Map<string, string>()
  for (const line of lines) {
    const [, name, value = ''] = /^([\w!#$%&'*+.^`|~-]+):[\t ]*(.*)$/s.exec(line) ?? []
    // Folded lines, bare line breaks and other controls: readers differ in where a header ends.
    if (name === undefined || /[\u0000-\u0008\u000a-\u001f\u007f]/.test(line))
      throw new MultipartError('a header of a part is malformed')
    if (headers.has(name.toLowerCase())) throw new MultipartError('a part has a header twice')
    headers.set(name.toLowerCase(), value.trim())
  }
  const encoding = headers.get('content-transfer-encoding')
  if (encoding !== undefined && !/^(?:7bit|8bit|binary)$/i.test(encoding)) {
    throw new MultipartError('a part has a transfer encoding, which forms have none of')
  }
  return { ...readDisposition(headers.get('content-disposition')), contentType: headers.get('content-type') }
}

function readDisposition(disposition: string | undefined): Pick<FormPart, 'name' | 'filename'> {
  if (disposition === undefined) throw new MultipartError('a part has no content-disposition')
  const [, rest] = /^form-data\s*(|;.*)$/is.exec(disposition) ?? []
  if (rest === undefined) throw new MultipartError('a part is no form-data')
  const given = parameters(rest)
  if (!given) throw new MultipartError('a content-disposition is malformed')
  let name: string | undefined
  let filename: string | undefined
  let extended: string | undefined
  for (const [key, value] of given) {
    const isKnown = key === 'name' || key === 'filename' || key === 'filename*'
    // Names in the extended form, which RFC 7578 §4.2 forbids, and in pieces: some readers put them together.
    if (!isKnown && /^(?:file)?name/.test(key)) throw new MultipartError('a part is named in a form that readers differ in')
    if ((key === 'name' && name !== undefined) || (key === 'filename' && filename !== undefined)) {
      throw new MultipartError('a part has two names')
    }
    if (key === 'name') name = value
    else if (key === 'filename') filename = value
    else if (key === 'filename*') extended = value
  }
  if (name === undefined) throw new MultipartError('a part has no name')
  // Some readers take a backslash for an escape of whatever follows.
  if (name.includes('\\')) throw new MultipartError('the name of a part has a backslash')
  return { name, filename: filename ?? (extended === undefined ? undefined : extendedText(extended)) }
}

/** source: RFC 8187 §3.2 */
function extendedText(value: string): string {
  const [, encoded = value] = /^utf-8'[^']*'(.*)$/is.exec(value) ?? []
  try {
    return decodeURIComponent(encoded)
  } catch {
    return encoded
  }
}

/** What stands before a value: the delimiter and the headers of its part, in the one way that all readers agree on. */
export function partHead(
  boundary: string,
  { name, filename, contentType }: Pick<FormPart, 'name' | 'filename' | 'contentType'>,
  isFirst: boolean,
): string {
  const file = filename === undefined ? '' : `; filename="${escaped(filename)}"`
  const type = contentType === undefined ? '' : `\r\nContent-Type: ${contentType}`
  return `${isFirst ? '' : '\r\n'}--${boundary}\r\nContent-Disposition: form-data; name="${escaped(name)}"${file}${type}\r\n\r\n`
}

/** What stands behind the last value. */
export function formEnd(boundary: string): string {
  return `\r\n--${boundary}--\r\n`
}

function escaped(text: string): string {
  return text
    .replaceAll('\n', '%0A')
    .replaceAll('\r', '%0D')
    .replaceAll('"', '%22')
    .replaceAll('\\', '%5C')
    .replaceAll('\0', '%00')
}
