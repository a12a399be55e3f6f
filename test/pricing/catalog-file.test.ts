import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runCatalogImport } from '../../src/cli/catalog-import-run.ts'
import type { CatalogDocument } from '../../src/pricing/catalog.ts'
import { CatalogUnreadable, catalogPath, createCatalog, replaceCatalog } from '../../src/pricing/catalog-file.ts'
import { runCli } from '../cli/io.ts'

const NOW = new Date('2026-11-22T10:00:00.123Z')

let folder: string
let config: string
let path: string

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'aisix-catalog-'))
  config = join(folder, 'config.yaml')
  writeFileSync(config, 'proxy: {addr: 127.0.0.1:0}\nadmin: {admin_keys: [test-admin-key]}\nstore: {path: data/aisix.db}\n')
  mkdirSync(join(folder, 'data'))
  path = catalogPath(join(folder, 'data', 'aisix.db'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const catalogOf = (id: string): CatalogDocument => ({
  as_of: '2026-11-01',
  source: 'a test',
  models: [{ provider: 'acme', provider_name: 'Acme', id, name: id }],
})
const apiJson = (id: string) => ({ acme: { models: { [id]: { cost: { input: 3, output: 15 } } } } })

function write(name: string, content: unknown): string {
  const file = join(folder, name)
  writeFileSync(file, typeof content === 'string' || content instanceof Uint8Array ? content : JSON.stringify(content))
  return file
}
const importFile = (file: string) => runCatalogImport(file, config, {}, NOW)

describe('createCatalog', () => {
  test('without a file gives what came with the gateway, with its date', async () => {
    const { as_of, source, imported_at, models } = await createCatalog(path).load()
    expect(as_of).toMatch(/^\d{4}-\d{2}-\d{2}$/)
    expect(source).toContain('models.dev')
    expect(imported_at).toBeUndefined()
    expect(models.length).toBeGreaterThan(500)
    expect(models.reduce((latest, { updated = '' }) => (updated > latest ? updated : latest), '')).toBe(as_of)
  })

  test('takes up a file that is imported, replaced and removed while it runs', async () => {
    const catalog = createCatalog(path)
    const first = async () => (await catalog.load()).models[0]?.id
    const embedded = await first()
    for (const id of ['one', 'two']) {
      replaceCatalog(path, catalogOf(id))
      expect(await first()).toBe(id)
      expect(await first()).toBe(id)
    }
    rmSync(path)
    expect(await first()).toBe(embedded)
  })

  test.each([
    ['no JSON', '{', 'is no catalog'],
    ['another document', '{"models":[{}]}', 'is no catalog'],
    ['an empty file', '', 'is no catalog'],
  ])('says of %s what is wrong and what to do, and recovers', async (_what, text, problem) => {
    const catalog = createCatalog(path)
    writeFileSync(path, text)
    const message = await catalog.load().then(
      () => 'loaded',
      error => (error instanceof CatalogUnreadable ? error.message : 'another error'),
    )
    expect(message).toContain(problem)
    expect(message).toContain('aisix catalog import')
    expect(message).not.toContain(folder)
    replaceCatalog(path, catalogOf('well'))
    expect((await catalog.load()).models[0]?.id).toBe('well')
  })
})

describe('replaceCatalog', () => {
  test('leaves one file that only its owner can read, and nothing beside it', () => {
    replaceCatalog(path, catalogOf('a'))
    chmodSync(path, 0o644)
    replaceCatalog(path, catalogOf('b'))
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(readdirSync(join(folder, 'data'))).toEqual(['catalog.json'])
  })

  test('keeps the old file where the new one cannot be put in its place', () => {
    mkdirSync(path)
    expect(() => replaceCatalog(path, catalogOf('a'))).toThrow()
    expect(readdirSync(join(folder, 'data'))).toEqual(['catalog.json'])
    expect(() => replaceCatalog(join(folder, 'none', 'catalog.json'), catalogOf('a'))).toThrow('ENOENT')
  })
})

describe('aisix catalog import', () => {
  test('puts the models of an api.json beside the store, and says how many and where', async () => {
    expect(importFile(write('api.json', apiJson('acme-1')))).toEqual({
      stdout: `1 model, none newer than 2026-11-22, are now in ${path}\n`,
      stderr: '',
      exit: 0,
    })
    expect(await createCatalog(path).load()).toEqual({
      as_of: '2026-11-22',
      source: 'models.dev, imported from api.json',
      imported_at: '2026-11-22T10:00:00Z',
      models: [
        {
          provider: 'acme',
          provider_name: 'acme',
          id: 'acme-1',
          name: 'acme-1',
          cost: { input_per_1k: 0.003, output_per_1k: 0.015 },
        },
      ],
    })
  })

  test('takes what another gateway answers, and keeps its date and source', async () => {
    importFile(write('other.json', { ...catalogOf('x'), total: 1 }))
    expect(await createCatalog(path).load()).toEqual({ ...catalogOf('x'), imported_at: '2026-11-22T10:00:00Z' })
  })

  test('a name of a file that is as long as can be is no hindrance', async () => {
    importFile(write(`${'n'.repeat(250)}.json`, apiJson('x')))
    expect((await createCatalog(path).load()).models).toHaveLength(1)
  })

  test.each([
    ['a file that breaks off', '{"a": {', /^catalog import failed: .*bad\.json:1:\d+: /],
    ['an empty file', '', /bad\.json:1:1: /],
    ['a member twice', '{"a":{"models":{}},"a":{}}', /bad\.json:1:\d+: .*a/],
    ['bytes that are no text', Uint8Array.of(0xff, 0xfe), /bad\.json: is not UTF-8 text/],
    ['a document without models', {}, /bad\.json: holds no model/],
    ['prices below zero', { a: { models: { m: { cost: { input: -1, output: 1 } } } } }, /a › models › m › cost › input: /],
  ])('refuses %s with 1, and the old catalog stays', (_what, content, message) => {
    replaceCatalog(path, catalogOf('old'))
    const before = readFileSync(path)
    const { stdout, stderr, exit } = importFile(write('bad.json', content))
    expect({ stdout, exit }).toEqual({ stdout: '', exit: 1 })
    expect(stderr).toMatch(message)
    expect(readFileSync(path)).toEqual(before)
    expect(readdirSync(join(folder, 'data'))).toEqual(['catalog.json'])
  })

  test('names each problem, and counts those beyond 20', () => {
    const models = Object.fromEntries(Array.from({ length: 25 }, (_, index) => [`m${index}`, { name: 7 }]))
    const lines = importFile(write('bad.json', { a: { models } }))
      .stderr.trimEnd()
      .split('\n')
    expect(lines).toHaveLength(21)
    expect(lines.at(-1)).toEndWith('bad.json: and 5 more')
  })

  test('tells what is wrong with a path, a folder that is not there, and a configuration', () => {
    expect(importFile(join(folder, 'none.json')).stderr).toBe(
      `catalog import failed: ${join(folder, 'none.json')}: no such file\n`,
    )
    expect(importFile(folder).stderr).toContain('is a directory, expected a file')
    const file = write('api.json', apiJson('x'))
    rmSync(join(folder, 'data'), { recursive: true })
    expect(importFile(file)).toMatchObject({ exit: 1, stderr: expect.stringContaining('its folder does not exist') })
    writeFileSync(config, 'proxi: {}\n')
    expect(importFile(file)).toMatchObject({ exit: 1, stderr: expect.stringContaining('config.yaml:1:1') })
    expect(existsSync(path)).toBe(false)
  })
})

describe('the command line of catalog', () => {
  const api = (at: string) => write('api.json', apiJson(at))

  test('names a file, and the configuration on either side of it', async () => {
    for (const option of [['--config', config], [`--config=${config}`], ['-c', config]]) {
      for (const argv of [
        [api('a'), ...option],
        [...option, api('b')],
      ]) {
        rmSync(path, { force: true })
        expect(await runCli(['catalog', 'import', ...argv])).toMatchObject({ exit: 0, stderr: '' })
        expect(existsSync(path)).toBe(true)
      }
    }
  })

  test.each([
    [[], 'catalog needs to know what to do'],
    [['export'], 'unknown command "catalog" "export"'],
    [['import'], 'catalog import needs one FILE'],
    [['import', ''], 'catalog import needs one FILE'],
    [['import', 'a.json', 'b.json'], 'unexpected argument "b.json"'],
    [['import', 'a.json', '--force'], 'unknown option "--force"'],
    [['import', 'a.json', '--config'], '--config needs the path of a file'],
  ])('%p is a usage error', async (argv, message) => {
    expect(await runCli(['catalog', ...argv])).toEqual({ stdout: '', stderr: expect.stringContaining(message), exit: 2 })
  })

  test('is explained', async () => {
    for (const argv of [
      ['catalog', '--help'],
      ['catalog', 'import', '-h'],
      ['help', 'catalog'],
    ]) {
      expect(await runCli(argv)).toEqual({ stdout: expect.stringContaining('aisix catalog import FILE'), stderr: '', exit: 0 })
    }
  })
})
