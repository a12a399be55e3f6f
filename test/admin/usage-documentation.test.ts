/** docs/usage.md as a reader follows it: every command in order, in one shell, against a listener. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Exchange } from '../../src/exchange.ts'
import { endpointLabels } from '../../src/telemetry/endpoint-labels.ts'
import { ADMIN_KEY, isRecord, openAdmin } from './harness.ts'
import { memoryLedger, usageRecord } from './memory-ledger.ts'

const TEXT = readFileSync(join(import.meta.dir, '../../docs/usage.md'), 'utf8')
const BLOCKS = [...TEXT.matchAll(/^```sh\n([\s\S]*?)^```\n(?:```json\n([\s\S]*?)^```\n)?/gm)].map(([, commands = '', shown]) => ({
  commands,
  shown,
}))
/** Stands between what two blocks print. */
const MARK = '=== next block ==='

let folder: string
let printed: string[] = []
let stop = () => {}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'aisix-usage-docs-'))
  const ledger = memoryLedger()
  const admin = openAdmin({ ledger })
  // The commands ask the shell what day it is.
  admin.clock.nowMs = Date.now()
  const occurredAtMs = admin.clock.nowMs - 60_000
  const labels = {
    modelId: 'm',
    model: 'llama-3-private',
    providerKeyId: 'pk',
    providerKeyName: 'vllm-private',
    teamId: 'search',
  }
  ledger.record(usageRecord({ labels, occurredAtMs }))
  const error = { status: 502, errorClass: 'upstream_error', errorMessage: 'm', attemptIndex: 2, attemptKind: 'retry' } as const
  ledger.record(usageRecord({ labels, occurredAtMs, requestId: 'failed', ...error }))
  const path = '/v1/chat/completions'
  admin.lifecycle.inFlight.add(new Exchange('running', 'POST', path, endpointLabels(path), () => '10.0.3.17', occurredAtMs))
  const server = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: admin.fetch })
  stop = () => server.stop(true)
  const script = BLOCKS.map(({ commands }) => `${commands}\nprintf '\\n%s\\n' '${MARK}'\n`)
    .join('')
    .replaceAll('http://127.0.0.1:3001', `http://127.0.0.1:${server.port}`)
    .replaceAll('admin-local-only-change-me', ADMIN_KEY)
    .replace('while sleep 1; do', 'for _ in 1 2; do')
  const child = Bun.spawn(['sh', '-euc', script], { cwd: folder, stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' })
  const [output, errors, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  if (code !== 0) throw new Error(`the commands of docs/usage.md ended with ${code}: ${errors}`)
  printed = output.split(`${MARK}\n`)
})
afterAll(() => {
  stop()
  rmSync(folder, { recursive: true, force: true })
})

const record = (value: unknown): Record<string, unknown> => {
  if (!isRecord(value)) throw new Error('expected an object')
  return value
}
const first = (value: unknown): unknown => (Array.isArray(value) ? value[0] : undefined)

describe('docs/usage.md', () => {
  test('has commands, and a loop that is run here twice', () => {
    expect(BLOCKS.length).toBeGreaterThan(6)
    expect(BLOCKS.filter(({ commands }) => commands.includes('while sleep 1; do'))).toHaveLength(1)
    expect(printed.length).toBe(BLOCKS.length + 1)
  })

  test('every command is accepted as it is printed', () => {
    for (const [index, { commands }] of BLOCKS.entries()) {
      const answers = (printed[index] ?? '').trim()
      if (commands.includes('format=csv')) continue
      expect(answers).not.toBe('')
      expect(answers).not.toContain('error_msg')
      for (const line of answers.split('\n')) expect(isRecord(JSON.parse(line))).toBe(true)
    }
  })

  test('the loop goes on where it began, and tells nothing that it need not', () => {
    const index = BLOCKS.findIndex(({ commands }) => commands.includes('while sleep 1'))
    const nothingNew = { attempts: [], next_cursor: null, cursor: 'r2' }
    const lines = (printed[index] ?? '').trim().split('\n')
    expect(lines.map(line => JSON.parse(line))).toEqual([nothingNew, nothingNew])
  })

  test('answers have the members that it shows', () => {
    let compared = 0
    for (const [index, { shown }] of BLOCKS.entries()) {
      if (shown === undefined) continue
      const [answer, expected] = [record(JSON.parse(printed[index] ?? '')), record(JSON.parse(shown))]
      expect(Object.keys(answer)).toEqual(Object.keys(expected))
      for (const list of ['rows', 'attempts', 'in_flight', 'models']) {
        if (expected[list] === undefined) continue
        const { '…': rest, ...entry } = record(first(expected[list]))
        const members = Object.keys(record(first(answer[list])))
        // A dots member stands for all that is not shown.
        if (rest === undefined) expect(members.toSorted()).toEqual(Object.keys(entry).toSorted())
        else expect(members).toEqual(expect.arrayContaining(Object.keys(entry)))
        compared += 1
      }
    }
    expect(compared).toBe(4)
  })

  test('the table lies in a file that is named for its time', () => {
    const [name = '', ...others] = readdirSync(folder)
    expect(others).toEqual([])
    expect(name).toMatch(/^aisix-usage-\d{8}T\d{4}Z-\d{8}T\d{4}Z\.csv$/)
    expect(readFileSync(join(folder, name), 'utf8')).toStartWith('day,api_key_id,api_key_name,model_id,model,requests,')
  })
})
