/**
 * A backup as one file: a tar archive of databases, whose last member says what is in it. `tar xf` takes it apart where there is
 * no gateway to do so.
 * source: POSIX.1-2017, pax, "ustar Interchange Format"
 */
import { closeSync, fstatSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs'
import { z } from 'zod'

/** Databases of a backup, in their order in the archive. */
export const PARTS = ['aisix.db', 'budgets.db', 'usage.db'] as const
export type Part = (typeof PARTS)[number]

export const Manifest = z.strictObject({
  format: z.literal('aisix-backup'),
  /** Of this description; grows when older versions could not read it. */
  version: z.int().min(1),
  made_at: z.string(),
  gateway_version: z.string(),
  files: z.array(z.strictObject({ name: z.enum(PARTS), bytes: z.int().min(0), sha256: z.string().regex(/^[0-9a-f]{64}$/) })),
})
export type Manifest = z.infer<typeof Manifest>
export const MANIFEST_VERSION = 1

/** What is given is no backup, or not a whole one. The message says what is wrong with it, and does not name it. */
export class ArchiveError extends Error {}

const MANIFEST_NAME = 'manifest.json'
const MANIFEST_BYTES_MAX = 64 * 1024
const BLOCK = 512
const CHUNK_BYTES = 1024 * 1024
/** Largest size that twelve octal digits can tell. */
const MEMBER_BYTES_MAX = 8 ** 11 - 1

type Member = { name: string; offset: number; bytes: number }

/**
 * Writes an archive into an open file.
 * in: `parts`, files that nobody changes meanwhile, one at a time: each may be removed before the next is made
 * out: SHA-256 of the archive, and its size
 */
export function writeArchive(
  file: number,
  parts: Iterable<{ name: Part; path: string }>,
  about: Pick<Manifest, 'made_at' | 'gateway_version'>,
): { bytes: number; sha256: string; manifest: Manifest } {
  const whole = new Bun.CryptoHasher('sha256')
  let bytes = 0
  const put = (chunk: Uint8Array) => {
    whole.update(chunk)
    for (let done = 0; done < chunk.length; ) done += writeSync(file, chunk, done)
    bytes += chunk.length
  }
  const pad = (size: number) => put(Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK))
  const files: Manifest['files'] = []
  const madeAtSeconds = Math.floor(Date.parse(about.made_at) / 1000)
  for (const { name, path } of parts) {
    const from = openSync(path, 'r')
    try {
      const { size } = fstatSync(from)
      if (size > MEMBER_BYTES_MAX) throw new ArchiveError(`${name} is larger than 8 GiB, which the format cannot hold`)
      put(headerOf(name, size, madeAtSeconds))
      const digest = new Bun.CryptoHasher('sha256')
      for (const chunk of chunksOf(from, 0, size)) {
        digest.update(chunk)
        put(chunk)
      }
      pad(size)
      files.push({ name, bytes: size, sha256: digest.digest('hex') })
    } finally {
      closeSync(from)
    }
  }
  const manifest: Manifest = { format: 'aisix-backup', version: MANIFEST_VERSION, ...about, files }
  const text = Buffer.from(`${JSON.stringify(manifest, null, 2)}\n`)
  put(headerOf(MANIFEST_NAME, text.length, madeAtSeconds))
  put(text)
  pad(text.length)
  put(Buffer.alloc(2 * BLOCK))
  fsyncSync(file)
  return { bytes, sha256: whole.digest('hex'), manifest }
}

/** An archive that is whole: all that its manifest names is there, and is what was written. */
export type Archive = { manifest: Manifest; extract(name: Part, target: string): void }

/**
 * Reads an archive through to its end.
 * throws: ArchiveError
 */
export function readArchive(file: number): Archive {
  const { size } = fstatSync(file)
  const members = membersOf(file, size)
  const listed = members.get(MANIFEST_NAME)
  if (!listed) throw new ArchiveError('it is cut short: the list of its content, which comes last, is not there')
  const manifest = readManifest(file, listed)
  for (const { name, bytes, sha256 } of manifest.files) {
    const member = members.get(name)
    if (!member || member.bytes !== bytes) throw new ArchiveError(`its ${name} is missing or has another size than was written`)
    const digest = new Bun.CryptoHasher('sha256')
    for (const chunk of chunksOf(file, member.offset, bytes)) digest.update(chunk)
    if (digest.digest('hex') !== sha256) throw new ArchiveError(`its ${name} is not what was written: its checksum differs`)
  }
  return {
    manifest,
    extract(name, target) {
      const member = members.get(name)
      if (!member) throw new ArchiveError(`it has no ${name}`)
      const to = openSync(target, 'wx', 0o600)
      try {
        for (const chunk of chunksOf(file, member.offset, member.bytes)) {
          for (let done = 0; done < chunk.length; ) done += writeSync(to, chunk, done)
        }
        fsyncSync(to)
      } finally {
        closeSync(to)
      }
    },
  }
}

function membersOf(file: number, size: number): Map<string, Member> {
  const members = new Map<string, Member>()
  const header = Buffer.alloc(BLOCK)
  for (let at = 0; at < size; ) {
    if (size - at < BLOCK) throw new ArchiveError('it is cut short: it ends within a header')
    readWhole(file, header, at)
    if (header.every(byte => byte === 0)) break
    const name = header.toString('latin1', 0, 100).replace(/\0.*$/s, '')
    const checksum = Number.parseInt(header.toString('latin1', 148, 156), 8)
    if (header.toString('latin1', 257, 262) !== 'ustar' || checksum !== checksumOf(header)) {
      throw new ArchiveError(members.size === 0 ? 'it is no backup of a gateway' : 'it is damaged: a header cannot be read')
    }
    const bytes = Number.parseInt(header.toString('latin1', 124, 136), 8)
    const offset = at + BLOCK
    if (offset + bytes > size) {
      throw new ArchiveError(`it is cut short: ${offset + bytes} bytes or more were written, and ${size} are there`)
    }
    members.set(name, { name, offset, bytes })
    at = offset + Math.ceil(bytes / BLOCK) * BLOCK
  }
  return members
}

function readManifest(file: number, { offset, bytes }: Member): Manifest {
  if (bytes > MANIFEST_BYTES_MAX) throw new ArchiveError('it is no backup of a gateway')
  const text = Buffer.alloc(bytes)
  readWhole(file, text, offset)
  let value: unknown
  try {
    value = JSON.parse(text.toString('utf8'))
  } catch {
    throw new ArchiveError('it is damaged: the list of its content cannot be read')
  }
  const head = z.looseObject({ format: z.literal('aisix-backup'), version: z.int() }).safeParse(value)
  if (!head.success) throw new ArchiveError('it is no backup of a gateway')
  if (head.data.version > MANIFEST_VERSION) {
    throw new ArchiveError(`it was made by a newer version (format ${head.data.version}, this version knows ${MANIFEST_VERSION})`)
  }
  const manifest = Manifest.safeParse(value)
  if (!manifest.success) throw new ArchiveError('it is damaged: the list of its content cannot be read')
  return manifest.data
}

function headerOf(name: string, size: number, seconds: number): Buffer {
  const header = Buffer.alloc(BLOCK)
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, '0')}\0`
  header.write(name, 0, 'latin1')
  header.write(octal(0o600, 7), 100, 'latin1')
  header.write(octal(0, 7), 108, 'latin1')
  header.write(octal(0, 7), 116, 'latin1')
  header.write(octal(size, 11), 124, 'latin1')
  header.write(octal(seconds, 11), 136, 'latin1')
  header.write('0', 156, 'latin1')
  header.write('ustar\u000000', 257, 'latin1')
  header.write(`${checksumOf(header).toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return header
}

/** The sum of all bytes of a header, those of the checksum taken for blanks. */
function checksumOf(header: Buffer): number {
  let sum = 0
  for (const [at, byte] of header.entries()) sum += at >= 148 && at < 156 ? 0x20 : byte
  return sum
}

function* chunksOf(file: number, offset: number, bytes: number): Generator<Uint8Array> {
  const buffer = Buffer.alloc(Math.min(CHUNK_BYTES, bytes))
  for (let done = 0; done < bytes; ) {
    const chunk = buffer.subarray(0, Math.min(buffer.length, bytes - done))
    readWhole(file, chunk, offset + done)
    yield chunk
    done += chunk.length
  }
}

/** throws: ArchiveError where the file ends before */
function readWhole(file: number, into: Uint8Array, offset: number): void {
  for (let done = 0; done < into.length; ) {
    const read = readSync(file, into, done, into.length - done, offset + done)
    if (read === 0) throw new ArchiveError('it became shorter while it was read')
    done += read
  }
}
