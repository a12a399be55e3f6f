import { afterEach, beforeEach, expect, test } from 'bun:test'
import { appendFileSync, mkdirSync, mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FILE_BYTES_MAX, loadResources } from '../../src/resources-file/load.ts'

let folder: string
let path: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'aisix-load-'))
  path = join(folder, 'resources.yaml')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const entry = (name: string) => `  - {display_name: ${name}, adapter: openai, secret: "\${SECRET}"}\n`
const text = (...names: string[]) => `_format_version: "1"\nprovider_keys:\n${names.map(entry).join('')}`

/** Variables of which SECRET, when it is read during the checks, does something first. */
function meddling(times: number, meddle: (time: number) => void) {
  let time = 0
  return {
    get SECRET() {
      if (time < times) meddle(++time)
      return 'not-used'
    },
  }
}

const names = (loaded: ReturnType<typeof loadResources>) =>
  loaded.entries.map(({ value }) => ('display_name' in value ? value.display_name : undefined))
const problems = (loaded: ReturnType<typeof loadResources>) =>
  loaded.problems.map(({ reason, message }) => `${reason}: ${message}`)

test('a file that stands still is loaded, with the hash of its bytes', () => {
  writeFileSync(path, text('a', 'b'))
  const loaded = loadResources(path, { SECRET: 'not-used' })
  expect(names(loaded)).toEqual(['a', 'b'])
  expect(loaded.hash).toBe(new Bun.CryptoHasher('sha256').update(text('a', 'b')).digest('hex'))
})

test('a file that grows while it is read is read again, and taken as it is in the end', () => {
  writeFileSync(path, text('a'))
  const loaded = loadResources(
    path,
    meddling(3, time => appendFileSync(path, entry(`b${time}`))),
  )
  expect(names(loaded)).toEqual(['a', 'b1', 'b2', 'b3'])
})

test('a file that another is moved into the place of is read again', () => {
  writeFileSync(path, text('a'))
  const loaded = loadResources(
    path,
    meddling(1, () => {
      writeFileSync(`${path}.new`, text('b'))
      renameSync(`${path}.new`, path)
    }),
  )
  expect(names(loaded)).toEqual(['b'])
})

test('a file that never stands still is refused, with what to do', () => {
  writeFileSync(path, text('a'))
  const loaded = loadResources(
    path,
    meddling(Number.POSITIVE_INFINITY, () => appendFileSync(path, '# more\n')),
  )
  expect(problems(loaded)).toEqual(['fetch: the file changes while it is read; write it elsewhere and move it into place'])
  expect(loaded.entries).toEqual([])
})

test('what cannot be read is told in words', () => {
  expect(problems(loadResources(path, {}))).toEqual(['fetch: no such file'])
  mkdirSync(join(folder, 'folder'))
  expect(problems(loadResources(join(folder, 'folder'), {}))).toEqual(['fetch: is a directory, expected a file'])
  writeFileSync(path, '')
  truncateSync(path, FILE_BYTES_MAX + 1)
  expect(problems(loadResources(path, {}))).toEqual(['fetch: is larger than 64 MiB'])
})

test('an empty file is none', () => {
  writeFileSync(path, '')
  expect(problems(loadResources(path, {}))).toEqual([expect.stringContaining('decode: the file is empty')])
})
