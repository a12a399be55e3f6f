import { describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { completionScript } from '../../src/cli/completion-scripts.ts'
import { COMMANDS } from '../../src/cli/index.ts'
import { runCli } from './io.ts'

const has = (shell: string) => Bun.which(shell) !== null

/** What bash would offer for the last word of a line. */
async function offered(line: string, cwd?: string): Promise<string[]> {
  const words = line.split(' ').flatMap(word => {
    const [, name, value] = /^(--[a-z-]+)=(.*)$/.exec(word) ?? []
    return name === undefined ? [word] : ['', name, '=', ...(value === '' ? [] : [value ?? ''])].slice(1)
  })
  const script = `${completionScript('bash')}
COMP_WORDS=(${words.map(word => `'${word}'`).join(' ')})
COMP_CWORD=$(( \${#COMP_WORDS[@]} - 1 ))
_aisix
printf '%s\\n' "\${COMPREPLY[@]}"`
  const child = Bun.spawn(['bash', '--norc', '-c', script], {
    stdout: 'pipe',
    stderr: 'pipe',
    ...(cwd === undefined ? {} : { cwd }),
  })
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  expect(stderr).toBe('')
  return stdout.split('\n').filter(each => each !== '')
}

describe.if(has('bash'))('bash', () => {
  test.each([
    ['aisix ', ['status', 'usage', 'keys', 'models', 'provider-keys', 'completion', 'help']],
    ['aisix ke', ['keys']],
    ['aisix keys ', ['create', 'list', 'show', 'rotate', 'disable', 'enable', 'delete']],
    ['aisix keys ro', ['rotate']],
    ['aisix help keys di', ['disable']],
    ['aisix help ch', ['check-config']],
    ['aisix --ver', ['--version']],
    ['aisix keys create x --user', ['--user', '--user-name']],
    ['aisix models create x --strategy least_', ['least_cost', 'least_latency', 'least_busy']],
    ['aisix models create x --strategy=fail', ['failover']],
    ['aisix completion ', ['bash', 'zsh', 'fish']],
    ['aisix usage --by d', ['day']],
  ])('%j', async (line, wanted) => {
    expect(await offered(line)).toEqual(expect.arrayContaining(wanted))
  })

  test('every command offers each of its options, and nothing that it has not', async () => {
    for (const command of COMMANDS) {
      const names = [...(command.options ?? []).map(({ name }) => `--${name}`), '--help']
      const found = await offered(`aisix ${command.words.join(' ')} --`)
      expect(found.sort()).toEqual(names.sort())
    }
  })

  test('files where an option or an argument takes one, blanks in their names included', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'aisix-completion-'))
    try {
      writeFileSync(join(folder, 'prices of may.json'), '')
      expect(await offered('aisix catalog import pri', folder)).toEqual(['prices of may.json'])
      expect(await offered('aisix --config pri', folder)).toEqual(['prices of may.json'])
      expect(await offered('aisix status --config=pri', folder)).toEqual(['prices of may.json'])
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

describe.if(has('fish'))('fish', () => {
  test.each([
    ['aisix keys ro', ['rotate']],
    ['aisix keys create x --us', ['--user', '--user-name']],
    ['aisix models create x --strategy least', ['least_busy', 'least_cost', 'least_latency']],
    ['aisix completion ', ['bash', 'fish', 'zsh']],
  ])('%j', async (line, wanted) => {
    const script = `${completionScript('fish')}\ncomplete -C'${line}'`
    const child = Bun.spawn(['fish', '--no-config', '-c', script], { stdout: 'pipe', stderr: 'pipe' })
    const words = (await child.stdout.text()).split('\n').flatMap(each => (each === '' ? [] : [each.split('\t')[0]]))
    expect(words).toEqual(wanted)
  })
})

test("a quote in what an option is for ends no quote of the scripts' own", () => {
  const about = COMMANDS.flatMap(({ options = [] }) => options).filter(option => option.about.includes("'"))
  expect(COMMANDS.some(({ summary }) => summary.includes("'")) || about.length > 0).toBe(true)
  for (const line of completionScript('zsh').split('\n')) {
    // Within single quotes a quote is written as the end of one string, an escaped quote and the beginning of another.
    expect(line.replaceAll("'\\''", '').split("'").length % 2, line).toBe(1)
  }
})

for (const shell of ['bash', 'zsh', 'fish'] as const) {
  test(`the script for ${shell} names every command and option`, async () => {
    const { stdout, exit } = await runCli(['completion', shell])
    expect(exit).toBe(0)
    for (const { words, options = [] } of COMMANDS) {
      for (const word of words) expect(stdout).toContain(word)
      for (const { name } of options) expect(stdout).toMatch(new RegExp(`(?:--|-l )${name}\\b`))
    }
  })

  test.if(has(shell))(`${shell} takes its script without a word`, async () => {
    const child = Bun.spawn([shell, '-n', '/dev/stdin'], {
      stdin: new TextEncoder().encode(completionScript(shell)),
      stdout: 'pipe',
      stderr: 'pipe',
    })
    expect({ words: await child.stderr.text(), exit: await child.exited }).toEqual({ words: '', exit: 0 })
  })
}
