/** docs/admin-api.md as a reader follows it: every command in order, in one shell, against a listener. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ADMIN_KEY, isRecord, openAdmin } from './harness.ts'

const TEXT = readFileSync(join(import.meta.dir, '../../docs/admin-api.md'), 'utf8')
const BLOCKS = [...TEXT.matchAll(/^```sh\n([\s\S]*?)^```\n(?:```json\n([\s\S]*?)^```\n)?/gm)].map(([, commands = '', shown]) => ({
  commands,
  shown,
}))
/** Stands between what two blocks print. */
const MARK = '=== next block ==='

let printed: string[] = []
let stop = () => {}

beforeAll(async () => {
  const admin = openAdmin()
  const server = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: admin.fetch })
  stop = () => server.stop(true)
  const script = BLOCKS.map(({ commands }) => `${commands}\nprintf '\\n%s\\n' '${MARK}'\n`)
    .join('')
    .replaceAll('http://127.0.0.1:3001', `http://127.0.0.1:${server.port}`)
    .replaceAll('admin-local-only-change-me', ADMIN_KEY)
  const child = Bun.spawn(['sh', '-euc', script], { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' })
  const [output, errors, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  if (code !== 0) throw new Error(`the commands of docs/admin-api.md ended with ${code}: ${errors}`)
  printed = output.split(`${MARK}\n`)
})
afterAll(() => stop())

/** A JSON answer without what differs from run to run: ids, hashes and plaintexts, each by what it is. */
function comparable(text: string): unknown {
  return JSON.parse(
    text
      .replace(/"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"/g, '"an id"')
      .replace(/"[0-9a-f]{64}"/g, '"a hash"')
      .replace(/"sk-[0-9a-f]{32}"/g, '"a plaintext"'),
  )
}

describe('docs/admin-api.md', () => {
  test('has commands, and answers to them', () => {
    expect(BLOCKS.length).toBeGreaterThan(10)
    expect(BLOCKS.filter(({ shown }) => shown !== undefined).length).toBeGreaterThan(5)
    expect(printed.length).toBe(BLOCKS.length + 1)
  })

  test.each(BLOCKS.map(({ commands }, index) => [index, commands.split('\n')[0]] as const))(
    'block %d, %s, is accepted as it is printed',
    index => {
      const answer = printed[index] ?? ''
      expect(answer.trim()).not.toBe('')
      expect(answer).not.toContain('error_msg')
      // Only the block that shows a header prints a status.
      expect(answer).toMatch(/^\s*(?:[{[]|HTTP\/1\.1 200 OK)/)
    },
  )

  test('the answers are those that it shows', () => {
    for (const [index, { commands, shown }] of BLOCKS.entries()) {
      if (shown === undefined) continue
      const [answer, expected] = [comparable(printed[index] ?? ''), comparable(shown)]
      if (!commands.includes('/admin/v1/health')) {
        expect(answer).toEqual(expected)
        continue
      }
      // What it counts depends on the gateway that is asked.
      if (!isRecord(answer) || !isRecord(expected)) throw new Error('expected two reports')
      expect(Object.keys(answer)).toEqual(Object.keys(expected))
    }
  })
})
