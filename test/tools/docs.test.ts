import { expect, test } from 'bun:test'
import { resolve } from 'node:path'
import { listKeys } from '../../src/config/keys.ts'
import { configurationReference } from '../../tools/docs/configuration.ts'

test('docs/configuration.md is what the schema says now (`make docs` writes it)', async () => {
  const text = await Bun.file(resolve(import.meta.dir, '../../docs/configuration.md')).text()
  expect(text).toBe(await configurationReference())
})

test('the reference has one row for every key, with its variable', async () => {
  const text = await configurationReference()
  for (const { path, variable } of listKeys().values()) {
    const rows = text.split('\n').filter(line => line.startsWith(`| \`${path}\` | `))
    expect(rows).toEqual([expect.stringContaining(` | \`${variable}\` |`)])
  }
})

test('a key of an optional section is required there alone', async () => {
  const text = await configurationReference()
  expect(text).toContain('| `proxy.addr` | text | **required** |')
  expect(text).toContain('| `proxy.tls.cert_file` | text | required in its section |')
})

test('--check ends with 0 while the documents are up to date', async () => {
  const check = Bun.spawn([process.execPath, resolve(import.meta.dir, '../../tools/docs.ts'), '--check'], { stdout: 'pipe' })
  expect(await check.exited).toBe(0)
})
