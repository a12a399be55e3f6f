/** docs/passthrough.md as a reader follows it: every command in order, in one shell, against both listeners. */
import { expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ADMIN_KEY, openAdmin } from '../../admin/harness.ts'
import { fakeUpstream } from '../../fake-upstream.ts'
import { startGateway } from '../../gateway.ts'

const ROOT = join(import.meta.dir, '../../..')
const TEXT = readFileSync(join(ROOT, 'docs/passthrough.md'), 'utf8')
const BLOCKS = [...TEXT.matchAll(/^```sh\n([\s\S]*?)^```\n/gm)].map(([, commands = '']) => commands)

test('the commands of docs/passthrough.md do what it says', async () => {
  const upstream = await fakeUpstream()
  upstream.answer((_request, connection) => connection.json(200, { from: 'the server' }))
  const gateway = await startGateway()
  const admin = openAdmin({ store: gateway.store })
  const listener = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: admin.fetch })
  const script = BLOCKS.join('\n')
    .replaceAll('http://127.0.0.1:3001', `http://127.0.0.1:${listener.port}`)
    .replaceAll('http://127.0.0.1:3000', gateway.url)
    .replaceAll('http://10.0.0.5:8000', upstream.origin)
    .replaceAll('admin-local-only-change-me', ADMIN_KEY)
  const child = Bun.spawn(['sh', '-euc', script], { cwd: ROOT, stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' })
  const [output, errors, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  expect([code, errors]).toEqual([0, ''])
  expect(output).not.toContain('error')
  expect(output.match(/the server/g)).toHaveLength(3)
  expect(upstream.requests.map(({ method, path, header }) => [method, path, header('authorization')])).toEqual([
    ['GET', '/v1/files?limit=5', 'Bearer vendor-secret'],
    ['POST', '/v1/files', 'Bearer vendor-secret'],
    ['POST', '/v1/messages', 'Bearer a-login-of-mia'],
  ])
  expect(upstream.requests[1]?.text).toContain(readFileSync(join(ROOT, 'README.md'), 'utf8'))
  expect(JSON.stringify(upstream.requests)).not.toContain('sk-passthrough-caller')
  expect(upstream.requests[2]?.header('x-user')).toBeUndefined()
  await gateway.idle()
  await gateway.stop()
  await listener.stop(true)
  upstream.stop()
})
