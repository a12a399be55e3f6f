/** docs/command-line.md: what stands in its blocks is run, and every example of the registry is a command line that is understood. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArguments } from '../../src/cli/arguments.ts'
import { COMMANDS } from '../../src/cli/index.ts'
import { find } from '../../src/cli/run.ts'
import { commandLineReference } from '../../tools/docs/command-line.ts'
import { ADMIN_KEY, EXECUTABLE, type Executable, startExecutable } from '../executable.ts'
import { operatorOf } from '../operator.ts'

const text = readFileSync(join(import.meta.dir, '../../docs/command-line.md'), 'utf8')

let gateway: Executable
let home: string
beforeAll(async () => {
  gateway = await startExecutable()
  home = mkdtempSync(join(tmpdir(), 'aisix-tour-'))
})
afterAll(async () => {
  await gateway.dispose()
  rmSync(home, { recursive: true })
})

async function bash(script: string) {
  const child = Bun.spawn(['bash', '--norc', '-eu', '-c', script], {
    cwd: home,
    env: { PATH: process.env.PATH ?? '', HOME: home },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const [stdout, stderr, exit] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  return { stdout, stderr, exit }
}

test('is what the registry says now (`make docs` writes it)', async () => {
  expect(text).toBe(await commandLineReference())
})

test('has a section for every command', () => {
  for (const { words } of COMMANDS) expect(text).toContain(`### aisix ${words.join(' ')}\n`)
})

test('its tour can be taken, block by block', async () => {
  const blocks = [...text.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block = '']) => block)
  expect(blocks.length).toBe(4)
  // The gateway of a test is elsewhere, and has another key.
  const there = `aisix() { case $1 in completion) '${EXECUTABLE}' "$@" ;; *) '${EXECUTABLE}' "$@" --url '${gateway.adminUrl}' ;; esac; }\n`
  const script = there + blocks.join('\n').replaceAll('admin-local-only-change-me', ADMIN_KEY)
  const { stdout, stderr, exit } = await bash(script)
  expect({ exit, stderr: exit === 0 ? '' : stderr }).toEqual({ exit: 0, stderr: '' })
  expect(stdout).toMatch(/^search frontend +active +llama-3-private +rpm 600 +20\d\d-\d\d-\d\d +[0-9a-f-]{36}$/m)
  expect(stdout).toMatch(/^key "search frontend" \(.*\) deleted$/m)
  expect(readFileSync(join(home, '.local/share/bash-completion/completions/aisix'), 'utf8')).toContain('complete -F _aisix aisix')
  const models: unknown = await operatorOf(gateway)
    .ask('GET', 'models')
    .then(response => response.json())
  expect(models).toMatchObject([{ value: { display_name: 'llama-3-private', provider: 'vllm' } }])
})

test('every example of the registry is understood, by the shell and by its command', async () => {
  const examples = COMMANDS.flatMap(({ words, examples = [] }) => examples.map(line => ({ words, line })))
  expect(examples.length).toBeGreaterThan(15)
  for (const { words, line } of examples) {
    const { stdout, stderr } = await bash(
      `mkdir -p ~/.config/fish/completions ~/.local/share/bash-completion/completions; KEY=k; fpath=("$HOME" "$HOME"); jq() { cat >/dev/null; }; aisix() { printf '%s\\0' "$@" >&3; }; exec 3>&1; { ${line}\n} >/dev/null`,
    )
    expect({ line, stderr }).toEqual({ line, stderr: '' })
    const { command, rest } = find(stdout.split('\0').slice(0, -1))
    if (typeof command === 'string') throw new Error(`${line} prints help`)
    expect(command.words.join(' ')).toBe(words.join(' '))
    expect(parseArguments(command, rest)).not.toBe('help')
  }
})
