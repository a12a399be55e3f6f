/** The snippets of docs/clients.md, as they stand there but for address, key and alias, each in a process of its own. */
import { expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { ALIAS } from '../gateway.ts'
import { gatewayForClients } from './harness.ts'

const ROOT = resolve(import.meta.dir, '../..')
const CLIENTS = readFileSync(join(ROOT, 'docs/clients.md'), 'utf8')

const gateway = gatewayForClients()

const snippets = [...CLIENTS.matchAll(/^```typescript\n(.*?)^```$/gms)].map(([, code = '']) => {
  const [, name = code] = /^import .* from '([^']+)'$/m.exec(code) ?? []
  return { name, code }
})

test('every client of the table has a snippet', () => {
  const table = CLIENTS.slice(0, CLIENTS.indexOf('\n## '))
  const named = [...table.matchAll(/^\| (`[^|]+`) \|/gm)].flatMap(([, cell = '']) => [...cell.matchAll(/`([^`]+)`/g)])
  expect(named.map(([, name]) => name).sort()).toEqual([...new Set(snippets.map(({ name }) => name))].sort())
})

test.each(snippets)('the snippet for $name prints what the model says', async ({ code }) => {
  const ours = code
    .replaceAll('http://127.0.0.1:3000', gateway.url)
    .replaceAll('sk-byo-caller', gateway.key)
    .replaceAll('llama-3-private', ALIAS)
  const before = gateway.upstream.requests.length
  const child = Bun.spawn([process.execPath, '-e', ours], {
    cwd: ROOT,
    env: { PATH: process.env.PATH ?? '' },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const [stdout, stderr, exit] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  expect({ exit, said: stdout.trim(), stderr: exit === 0 ? '' : stderr }).toEqual({
    exit: 0,
    said: 'Hello from the private model.',
    stderr: '',
  })
  expect(gateway.upstream.requests.length).toBe(before + 1)
})
