/**
 * Ids in few bytes. A UUID becomes its 16 bytes; an id that ends with a UUID or with 32 hexadecimal digits, as
 * `chatcmpl-…` of many servers, becomes these 16 bytes, a byte that tells the form and what stood before them; any other
 * stays text. The same id always becomes the same value, so that packed ids can be compared.
 */
export type PackedId = string | Uint8Array

const PLAIN_UUID = 16
const FORM_UUID = 1
const FORM_HEX = 2
const UUID_LENGTH = 36
const HEX_LENGTH = 32
const PREFIX_MAX = 64
const DASH = 45

/** Values of the digits 0-9 and a-f by character; capitals are not written back as such, so they are no digits here. */
const DIGITS = new Uint8Array(256).fill(255)
for (const [value, digit] of [...'0123456789abcdef'].entries()) DIGITS[digit.charCodeAt(0)] = value

export function packId(id: string): PackedId {
  return isAscii(id) ? (packIdAt(Buffer.from(id, 'latin1'), 0, id.length) ?? id) : id
}

/** Whether every character is one byte. */
export function isAscii(text: string): boolean {
  return Buffer.byteLength(text) === text.length
}

/** Packs the id of `length` characters at `at` of an ASCII text; undefined where it has none of the forms. */
export function packIdAt(text: Uint8Array, at: number, length: number): Uint8Array | undefined {
  if (length === UUID_LENGTH) {
    const bytes = new Uint8Array(PLAIN_UUID)
    if (readUuid(text, at, bytes)) return bytes
  }
  const isUuid = length > UUID_LENGTH && text[at + length - 13] === DASH
  const prefix = length - (isUuid ? UUID_LENGTH : HEX_LENGTH)
  if (prefix < 0 || prefix > PREFIX_MAX) return undefined
  const bytes = new Uint8Array(PLAIN_UUID + 1 + prefix)
  const tail = at + prefix
  if (!(isUuid ? readUuid(text, tail, bytes) : readHex(text, tail, bytes, 0, HEX_LENGTH))) return undefined
  bytes[PLAIN_UUID] = isUuid ? FORM_UUID : FORM_HEX
  for (let index = 0; index < prefix; index++) bytes[PLAIN_UUID + 1 + index] = text[at + index] ?? 0
  return bytes
}

export function unpackId(packed: PackedId): string {
  if (typeof packed === 'string') return packed
  const hex = Buffer.from(packed.buffer, packed.byteOffset, PLAIN_UUID).toString('hex')
  if (packed.length > PLAIN_UUID && packed[PLAIN_UUID] === FORM_HEX) return prefixOf(packed) + hex
  const parts = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)]
  return prefixOf(packed) + parts.join('-')
}

function prefixOf(packed: Uint8Array): string {
  return Buffer.from(packed.subarray(PLAIN_UUID + 1)).toString('latin1')
}

function readUuid(text: Uint8Array, at: number, into: Uint8Array): boolean {
  return (
    text[at + 8] === DASH &&
    text[at + 13] === DASH &&
    text[at + 18] === DASH &&
    text[at + 23] === DASH &&
    readHex(text, at, into, 0, 8) &&
    readHex(text, at + 9, into, 4, 4) &&
    readHex(text, at + 14, into, 6, 4) &&
    readHex(text, at + 19, into, 8, 4) &&
    readHex(text, at + 24, into, 10, 12)
  )
}

function readHex(text: Uint8Array, at: number, into: Uint8Array, byte: number, digits: number): boolean {
  let seen = 0
  for (let read = 0; read < digits; read += 2) {
    const high = DIGITS[text[at + read] ?? 0] ?? 255
    const low = DIGITS[text[at + read + 1] ?? 0] ?? 255
    seen |= high | low
    into[byte + (read >> 1)] = (high << 4) | low
  }
  return seen < 16
}

/** Writes two numbers of 32 bits that follow from the id at `at`. They are kept in the file: never to be changed. */
export function hashId(id: PackedId, into: Uint32Array, at: number): void {
  let one = 0x811c9dc5
  let two = id.length
  if (typeof id === 'string') {
    for (let index = 0; index < id.length; index++) one = Math.imul(one ^ id.charCodeAt(index), 0x01000193)
    two = Math.imul(two ^ one, 0x9e3779b1)
  } else {
    for (let index = 0; index + 3 < id.length; index += 4) {
      const word = (id[index] ?? 0) | ((id[index + 1] ?? 0) << 8) | ((id[index + 2] ?? 0) << 16) | ((id[index + 3] ?? 0) << 24)
      one = mix(one ^ word)
      two = Math.imul(two ^ word, 0x9e3779b1)
    }
  }
  into[at] = mix(one)
  into[at + 1] = mix(two ^ one)
}

/** source: Appleby, MurmurHash3, finalizer of 32 bits */
function mix(value: number): number {
  let mixed = value
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return mixed ^ (mixed >>> 16)
}
