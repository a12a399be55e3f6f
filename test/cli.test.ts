import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runCheckConfig } from '../src/cli/check-config.ts'
import { runHashKey as hashKeyOf } from '../src/cli/hash-key.ts'
import { COMMANDS } from '../src/cli/index.ts'
import { readCommandLine } from '../src/cli.ts'
import { VERSION } from '../src/version.ts'
import { runCli } from './cli/io.ts'

const never = () => false
const always = () => true

describe('serve', () => {
  test.each([[['--config', 'a.yaml']], [['-c', 'a.yaml']], [['--config=a.yaml']], [['-c=a.yaml']]])(
    '%p names the configuration, over AISIX_CONFIG',
    argv => {
      expect(readCommandLine(argv, { AISIX_CONFIG: 'b.yaml' }, always)).toEqual({ kind: 'serve', configPath: 'a.yaml' })
    },
  )

  test('a path may hold an equals sign', () => {
    expect(readCommandLine(['--config=a=b.yaml'], {}, never)).toEqual({ kind: 'serve', configPath: 'a=b.yaml' })
  })

  test('without the option AISIX_CONFIG names the configuration, then ./config.yaml if it exists', () => {
    expect(readCommandLine([], { AISIX_CONFIG: 'b.yaml' }, always)).toEqual({ kind: 'serve', configPath: 'b.yaml' })
    expect(readCommandLine([], { AISIX_CONFIG: '' }, always)).toEqual({ kind: 'serve', configPath: './config.yaml' })
  })

  test.each([[['--version']], [['status']], [['-c', 'a.yaml', '--help']], [['-c', 'a.yaml', 'b.yaml']], [['-c', '']]])(
    '%p starts nothing',
    argv => {
      expect(readCommandLine(argv, { AISIX_CONFIG: 'b.yaml' }, always)).toEqual({ kind: 'command' })
    },
  )

  test('with no configuration at all it is a usage error that says how to give one', async () => {
    expect(readCommandLine([], {}, never)).toEqual({ kind: 'command' })
    expect(await runCli([])).toEqual({
      stdout: '',
      stderr: expect.stringContaining('give --config PATH, set AISIX_CONFIG, or start where ./config.yaml is'),
      exit: 2,
    })
  })
})

describe('a usage error ends with 2 and says what is wrong', () => {
  test.each([
    [['--config'], '--config needs the path of a file'],
    [['--config='], '--config needs the path of a file'],
    [['-c', '--version'], '--config needs the path of a file'],
    [['-c', 'a', '-c', 'b'], '--config is given twice'],
    [['--confg', 'a'], 'unknown option "--confg"; did you mean --config?'],
    [['-x'], 'unknown option "-x"'],
    [['-c', 'a.yaml', 'b.yaml'], 'unexpected argument "b.yaml"'],
    [['serve'], 'unknown command "serve"'],
    [['chek-config'], 'unknown command "chek-config"; did you mean check-config?'],
    [['keys'], 'keys needs to know what to do: aisix keys create'],
    [['keys', '--json'], 'keys needs to know what to do'],
    [['keys', 'lst'], 'unknown command "keys" "lst"; did you mean keys list?'],
    [['help', 'keys', 'rotat'], 'unknown command "keys" "rotat"; did you mean keys rotate?'],
    [['help', 'nothing'], 'unknown command "nothing"'],
    [['help', 'export', 'more'], 'help takes one command'],
    [['check-config', '--version'], 'unknown option "--version"'],
    [['hash-key', 'key'], 'unexpected argument "key"'],
    [['keys', 'show'], 'keys show needs one KEY'],
    [['keys', 'list', '--json=yes'], '--json takes no value'],
    [['completion', 'tcsh'], 'completion needs one of bash, zsh, fish'],
  ])('%p', async (argv, message) => {
    const { stdout, stderr, exit } = await runCli(argv)
    expect({ stdout, exit }).toEqual({ stdout: '', exit: 2 })
    expect(stderr).toContain(message)
    expect(stderr).toContain('Try `aisix --help`')
  })

  test('what may be a key in the wrong place is not repeated', async () => {
    for (const argv of [
      ['hash-key', 'sk-secret'],
      ['sk-secret with spaces'],
      [`sk-secret-${'x'.repeat(30)}`],
      ['keys', 'sk-secret'],
      ['status', '--admin-key-env', 'sk-secret'],
      ['status', '--sk-secret-key=sk-secret'],
      ['provider-keys', 'create', 'a', '--secret-env', 'sk-secret'],
      ['status', '--url', 'http://sk-secret@127.0.0.1:1'],
    ]) {
      const { stderr, exit } = await runCli(argv)
      expect(exit).toBe(2)
      expect(stderr).not.toMatch(/(?<!--)sk-secret(?!-key)/)
    }
  })
})

describe('help and version end with 0', () => {
  test.each([[['--version']], [['-V']]])('%p prints the name and the version', async argv => {
    expect(await runCli(argv)).toEqual({ stdout: `aisix ${VERSION}\n`, stderr: '', exit: 0 })
  })

  test.each([[['--help']], [['-h']], [['help']], [['-c', 'a.yaml', '--help']]])('%p prints the usage', async argv => {
    expect(await runCli(argv)).toEqual({ stdout: expect.stringContaining('Usage: aisix [--config PATH]'), stderr: '', exit: 0 })
  })

  test.each(COMMANDS.map(({ words }) => [...words]))('%s %s is explained by both ways to ask', async (...words) => {
    const given = words.filter(word => typeof word === 'string')
    const help = await runCli(['help', ...given])
    expect(help).toEqual({ stdout: expect.stringContaining(`aisix ${given.join(' ')}`), stderr: '', exit: 0 })
    expect(await runCli([...given, '--help'])).toEqual(help)
  })

  test('a noun alone is explained with its verbs', async () => {
    for (const argv of [
      ['help', 'keys'],
      ['keys', '--help'],
    ]) {
      const { stdout, exit } = await runCli(argv)
      expect(exit).toBe(0)
      for (const verb of ['create', 'list', 'rotate']) expect(stdout).toContain(`aisix keys ${verb}`)
    }
  })

  test('the usage names every command', async () => {
    const { stdout } = await runCli(['--help'])
    for (const { words } of COMMANDS) for (const word of words) expect(stdout).toContain(word)
  })
})

describe('commands about stores and files', () => {
  test.each([
    [['audit'], 'aisix audit verify'],
    [['audit', 'drop'], 'unknown command "audit" "drop"'],
    [['audit', 'verify', '--db', 'a', '--config', 'b'], 'exclude each other'],
    [['audit', 'verify', '--db=a', '--db=b'], '--db is given twice'],
    [['audit', 'verify', '--dbb', 'a'], 'did you mean --db?'],
    [['audit', 'verify'], 'no configuration'],
    [['audit', 'verify', '--db=a', 'b'], 'unexpected argument "b"'],
    [['audit', 'verify', '--db=a', '--known', '0:ab'], '--known needs the last entry'],
    [['backup', '--db=a'], 'needs'],
    [['restore', 'a', 'b', '--db=a'], 'unexpected argument "b"'],
    [['backup', 'a', '--db=a', '--include=all'], '--include knows nothing but usage'],
    [['restore', 'a', '--db=a', '--include=usage'], 'unknown option "--include"'],
    [['restore', 'a'], 'no configuration'],
    [['validate'], 'validate needs to know the file'],
    [['validate', '--resources', 'a', '--resources', 'b'], '--resources is given twice'],
    [['export', '--db', 'a', '-c', 'b'], 'exclude each other'],
    [['export', '--reveal-secrets=yes'], '--reveal-secrets'],
    [['export', 'file'], 'unexpected argument "file"'],
    [['export'], 'no configuration'],
    [['schema', 'models'], 'schema needs to know of what'],
  ])('%p is a usage error that says what to do', async (argv, words) => {
    expect(await runCli(argv)).toEqual({ stdout: '', stderr: expect.stringContaining(words), exit: 2 })
  })

  test.each([
    [['audit', 'verify', '-c', '/no/such.yaml']],
    [['backup', 'b.tar', '-c', '/no/such.yaml']],
    [['restore', 'b.tar', '-c', '/no/such.yaml']],
    [['export', '-c', '/no/such.yaml']],
    [['validate', '--resources', '/no/such.yaml']],
    [['audit', 'verify', '--db', '/no/such.db']],
    [['export', '--db', '/no/such.db']],
  ])('%p names the file that is not there', async argv => {
    expect(await runCli(argv)).toEqual({ stdout: '', stderr: expect.stringContaining('/no/such'), exit: 1 })
  })

  test('schema prints the schema that is asked for', async () => {
    for (const kind of ['config', 'resources']) {
      const { stdout, exit } = await runCli(['schema', kind])
      expect(exit).toBe(0)
      expect(JSON.parse(stdout)).toMatchObject({ type: 'object' })
    }
  })
})

test('check-config finds its configuration as serve does', async () => {
  const { stderr, exit } = await runCli(['check-config', '-c', '/nowhere/a.yaml'], { env: { AISIX_CONFIG: 'b.yaml' } })
  expect({ stderr, exit }).toEqual({ stderr: 'config load failed: /nowhere/a.yaml: no such file\n', exit: 1 })
  expect((await runCli(['check-config'], { env: { AISIX_CONFIG: '/nowhere/b.yaml' } })).stderr).toContain('/nowhere/b.yaml')
  expect((await runCli(['check-config'])).exit).toBe(2)
})

describe('hash-key', () => {
  test('takes the key from standard input', async () => {
    const output = await runCli(['hash-key'], { stdin: async () => new TextEncoder().encode('sk-byo-caller\n') })
    expect(output).toEqual({ stdout: `${hash}\n`, stderr: '', exit: 0 })
  })

  const runHashKey = (input: string | number[]) =>
    hashKeyOf(typeof input === 'string' ? new TextEncoder().encode(input) : Uint8Array.from(input))

  // printf '%s' sk-byo-caller | shasum -a 256
  const hash = 'f39485b1ed9b0ba68f2804cb94e29e632f256bd6f37aa4d071cf3f9967a65b1d'

  test.each(['sk-byo-caller', 'sk-byo-caller\n', 'sk-byo-caller\r\n'])('%j has the hash of the key without line break', input => {
    expect(runHashKey(input)).toEqual({ stdout: `${hash}\n`, stderr: '', exit: 0 })
  })

  test('one line break is stripped and no more: the rest is hashed, with a warning that does not hold it', () => {
    const two = runHashKey('sk-byo-caller\n\n')
    expect(two.exit).toBe(0)
    expect(two.stdout).toMatch(/^[0-9a-f]{64}\n$/)
    expect(two.stdout).not.toBe(`${hash}\n`)
    expect(two.stderr).toContain('no request could present it')
    expect(two.stderr).not.toContain('sk-byo')
  })

  test.each([
    // printf '\\xef\\xbb\\xbfkey' | sha256sum, and so on: the bytes as they come.
    [
      'a byte order mark',
      [0xef, 0xbb, 0xbf, 0x6b, 0x65, 0x79],
      '8138df45092679bfab6679dd56bd55d98d70c53df768824d517a7d8a48e46996',
    ],
    ['invalid UTF-8', [0x6b, 0xff, 0x0a], '1afd8b9ac52e1dc6ef517551a39b567de3d074e9a1e74d1272282f03d402ea36'],
    ['letters beyond ASCII', 'kü', '170b16880561d6f5f2d00b8e59a8b3cb5e67ea568180acb81a10ef6c55a77a14'],
  ])('%s is hashed as it is, with a warning', (_case, input, expected) => {
    expect(runHashKey(input)).toEqual({
      stdout: `${expected}\n`,
      stderr: expect.stringContaining('no request could present it'),
      exit: 0,
    })
  })

  test.each(['', '\n', '\r\n'])('%j is refused: there is no key', input => {
    expect(runHashKey(input)).toEqual({
      stdout: '',
      stderr: expect.stringContaining('expected a key on standard input'),
      exit: 1,
    })
  })
})

describe('check-config', () => {
  let folder: string
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'aisix-cli-'))
  })
  afterAll(() => rmSync(folder, { recursive: true }))
  const write = (text: string) => {
    const path = join(folder, 'config.yaml')
    writeFileSync(path, text)
    return path
  }

  test('a good file gets OK on stdout, its warnings on stderr', async () => {
    const path = write('proxy: {addr: "127.0.0.1:0", workers: 2}\nadmin: {enabled: false}\n')
    const { stdout, stderr, exit } = await runCheckConfig(path, {})
    expect({ stdout, exit }).toEqual({ stdout: `OK: ${path}\n`, exit: 0 })
    expect(stderr).toStartWith(`warning: ${path}:1:30: proxy.workers: accepted for compatibility`)
  })

  test('a bad file ends with 1 and the message of a failed start', async () => {
    const path = write('proxy: {addr: "localhost:1"}\nadmin: {enabled: false}\n')
    const { stdout, stderr, exit } = await runCheckConfig(path, {})
    expect({ stdout, exit }).toEqual({ stdout: '', exit: 1 })
    expect(stderr).toStartWith(`config load failed: ${path}:1:9: proxy.addr: expected an address`)
  })

  test('the resources file that it names is checked as well', async () => {
    writeFileSync(join(folder, 'resources.yaml'), '_format_version: "1"\nmodels: 5\n')
    const path = write('proxy: {addr: "127.0.0.1:0"}\nadmin: {enabled: false}\nresources_file: resources.yaml\n')
    expect(await runCheckConfig(path, {})).toEqual({
      stdout: '',
      stderr: expect.stringContaining(`resources file ${join(folder, 'resources.yaml')}: 1 error(s):`),
      exit: 1,
    })
    writeFileSync(join(folder, 'resources.yaml'), '_format_version: "1"\n')
    expect(await runCheckConfig(path, {})).toEqual({ stdout: `OK: ${path}\n`, stderr: '', exit: 0 })
  })
})
