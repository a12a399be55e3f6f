import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Archive, ArchiveError, type Part, readArchive, writeArchive } from '../../src/backup/archive.ts'

const ABOUT = { made_at: '2026-03-01T12:00:00.750Z', gateway_version: '1.2.3' }

describe('an archive', () => {
  let folder = ''
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'aisix-archive-'))
  })
  afterEach(() => rmSync(folder, { recursive: true, force: true }))

  const write = (parts: Partial<Record<Part, Uint8Array>>) => {
    const named = (['aisix.db', 'budgets.db', 'usage.db'] as const).flatMap(name => {
      const content = parts[name]
      if (!content) return []
      writeFileSync(join(folder, name), content)
      return [{ name, path: join(folder, name) }]
    })
    const path = join(folder, 'a.tar')
    const file = openSync(path, 'w')
    const made = writeArchive(file, named, ABOUT)
    closeSync(file)
    return { ...made, content: readFileSync(path) }
  }
  const read = <T>(content: Uint8Array, use: (archive: Archive) => T): T => {
    const path = join(folder, 'b.tar')
    writeFileSync(path, content)
    const file = openSync(path, 'r')
    try {
      return use(readArchive(file))
    } finally {
      closeSync(file)
    }
  }
  const extracted = (archive: Archive, name: Part) => {
    const target = join(folder, 'out')
    rmSync(target, { force: true })
    archive.extract(name, target)
    return readFileSync(target)
  }
  const bytes = (length: number) => Buffer.from(Array.from({ length }, (_, at) => (at * 31 + (at >> 8)) & 0xff))

  test.each([0, 1, 511, 512, 513, 4096, 3 * 1024 * 1024 + 7])('gives back %d bytes as they were', length => {
    const { content, sha256, bytes: size } = write({ 'aisix.db': bytes(length), 'usage.db': bytes(100) })
    expect(size).toBe(content.length)
    expect(size % 512).toBe(0)
    expect(new Bun.CryptoHasher('sha256').update(content).digest('hex')).toBe(sha256)
    read(content, archive => {
      expect(archive.manifest).toMatchObject({ ...ABOUT, format: 'aisix-backup', version: 1 })
      expect(archive.manifest.files.map(({ name, bytes }) => [name, bytes])).toEqual([
        ['aisix.db', length],
        ['usage.db', 100],
      ])
      expect(extracted(archive, 'aisix.db').equals(bytes(length))).toBe(true)
      expect(() => extracted(archive, 'budgets.db')).toThrow('it has no budgets.db')
    })
  })

  test.skipIf(Bun.which('tar') === null)('is one that tar takes apart', () => {
    write({ 'aisix.db': bytes(5_000), 'budgets.db': bytes(700) })
    const listed = Bun.spawnSync(['tar', 'tf', 'a.tar'], { cwd: folder })
    expect([listed.stdout.toString(), listed.stderr.toString()]).toEqual(['aisix.db\nbudgets.db\nmanifest.json\n', ''])
    const part = Bun.spawnSync(['tar', 'xOf', 'a.tar', 'budgets.db'], { cwd: folder })
    expect(part.stdout.equals(bytes(700))).toBe(true)
  })

  test('cut short anywhere is refused, until nothing but the empty blocks at its end is missing', () => {
    const { content, manifest } = write({ 'aisix.db': bytes(2_000), 'budgets.db': bytes(100) })
    const manifestBytes = Buffer.byteLength(`${JSON.stringify(manifest, null, 2)}\n`)
    const end = 512 + 2_048 + 512 + 512 + 512 + manifestBytes
    for (let length = 0; length < end; length += 97) {
      expect(() => read(content.subarray(0, length), () => undefined), String(length)).toThrow(ArchiveError)
    }
    expect(() => read(content.subarray(0, end - 1), () => undefined)).toThrow(ArchiveError)
    expect(read(content.subarray(0, end), ({ manifest }) => manifest.files.length)).toBe(2)
  })

  test('with one bit changed is refused, or gives back what was written all the same', () => {
    const { content } = write({ 'aisix.db': bytes(1_500) })
    let refused = 0
    for (let at = 0; at < content.length; at += 13) {
      const changed = Buffer.from(content)
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8))
      try {
        expect(
          read(changed, archive => extracted(archive, 'aisix.db').equals(bytes(1_500))),
          String(at),
        ).toBe(true)
      } catch (error) {
        if (!(error instanceof ArchiveError)) throw error
        refused += 1
      }
    }
    // All but padding, and members of the manifest that nothing is checked against.
    expect(refused).toBeGreaterThan(content.length / 13 / 2)
  })

  test.each([
    ['nothing', '', 'cut short'],
    ['text', 'no archive at all '.repeat(100), 'no backup of a gateway'],
  ])('of %s is refused in words', (_what, text, words) => {
    expect(() => read(Buffer.from(text), () => undefined)).toThrow(words)
  })
})
