import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runAuditVerify } from '../src/cli/audit-verify-run.ts'
import { runBackup, runRestore } from '../src/cli/backup-run.ts'
import { runHashKey as hashKeyOf, parseCommand, runCheckConfig } from '../src/cli.ts'
import { VERSION } from '../src/version.ts'

const never = () => false
const always = () => true

/** What a command line prints; fails the test when it does something else. */
function printed(argv: string[]) {
  const command = parseCommand(argv, {}, never)
  if (command.kind !== 'print') throw new Error(`expected something to print, got ${command.kind}`)
  return command.output
}

describe('audit verify', () => {
  const HASH = 'a'.repeat(64)

  test('takes a store by its configuration or by its file', () => {
    expect(parseCommand(['audit', 'verify'], {}, always)).toMatchObject({
      store: { configPath: './config.yaml' },
      known: undefined,
    })
    expect(parseCommand(['audit', 'verify', '-c', 'a.yaml'], {}, never)).toMatchObject({ store: { configPath: 'a.yaml' } })
    expect(parseCommand(['audit', 'verify', '--db=/a.db', '--known', `7:${HASH}`], {}, never)).toEqual({
      kind: 'audit-verify',
      store: { dbPath: '/a.db' },
      known: { seq: 7, hash: HASH },
    })
  })

  test.each([
    [['audit'], 'aisix audit verify'],
    [['audit', 'drop'], 'aisix audit verify'],
    [['audit', 'verify', '--db', 'a', '--config', 'b'], 'exclude each other'],
    [['audit', 'verify', '--db'], '--db needs a value'],
    [['audit', 'verify', '--db=a', '--db=b'], '--db is given twice'],
    [['audit', 'verify', '--dbb', 'a'], 'did you mean --db?'],
    [['audit', 'verify', 'a.db'], 'no configuration'],
    [['audit', 'verify', '--db=a', 'b'], 'takes no arguments'],
    [['audit', 'verify', '--db=a', '--known', '0:ab'], '--known needs the last entry'],
  ])('%p is a usage error that says what to do', (argv, words) => {
    expect(printed(argv)).toEqual({ stdout: '', stderr: expect.stringContaining(words), exit: 2 })
  })

  test('says what is wrong with a configuration', () => {
    const output = runAuditVerify({ configPath: '/no/such.yaml' }, undefined, {})
    expect(output).toEqual({ stdout: '', stderr: expect.stringContaining('config load failed: '), exit: 1 })
  })
})

describe('backup and restore', () => {
  test('take one file and a store', () => {
    expect(parseCommand(['backup', 'b.tar', '--db', 'a.db'], {}, never)).toEqual({
      kind: 'backup',
      file: 'b.tar',
      store: { dbPath: 'a.db' },
      usage: false,
    })
    expect(parseCommand(['backup', '--include', 'usage', 'b.tar'], {}, always)).toMatchObject({ file: 'b.tar', usage: true })
    expect(parseCommand(['restore', 'b.tar'], {}, always)).toEqual({
      kind: 'restore',
      file: 'b.tar',
      store: { configPath: './config.yaml' },
    })
  })

  test.each([
    [['backup', '--db=a'], 'backup takes one file'],
    [['restore', 'a', 'b', '--db=a'], 'restore takes one file'],
    [['backup', 'a', '--db=a', '--include=all'], '--include knows nothing but usage'],
    [['restore', 'a', '--db=a', '--include=usage'], 'unknown option "--include"'],
    [['restore', 'a'], 'no configuration'],
  ])('%p is a usage error that says what to do', (argv, words) => {
    expect(printed(argv)).toEqual({ stdout: '', stderr: expect.stringContaining(words), exit: 2 })
  })

  test('say what is wrong with a configuration', () => {
    const store = { configPath: '/no/such.yaml' }
    for (const output of [runRestore('b.tar', store, {}), runBackup('b.tar', store, { usage: false }, {})]) {
      expect(output).toEqual({ stdout: '', stderr: expect.stringContaining('config load failed: '), exit: 1 })
    }
  })
})

describe('serve', () => {
  test.each([[['--config', 'a.yaml']], [['-c', 'a.yaml']], [['--config=a.yaml']], [['-c=a.yaml']]])(
    '%p names the configuration, over AISIX_CONFIG',
    argv => {
      expect(parseCommand(argv, { AISIX_CONFIG: 'b.yaml' }, always)).toEqual({ kind: 'serve', configPath: 'a.yaml' })
    },
  )

  test('a path may hold an equals sign', () => {
    expect(parseCommand(['--config=a=b.yaml'], {}, never)).toEqual({ kind: 'serve', configPath: 'a=b.yaml' })
  })

  test('without the option AISIX_CONFIG names the configuration, then ./config.yaml if it exists', () => {
    expect(parseCommand([], { AISIX_CONFIG: 'b.yaml' }, always)).toEqual({ kind: 'serve', configPath: 'b.yaml' })
    expect(parseCommand([], { AISIX_CONFIG: '' }, always)).toEqual({ kind: 'serve', configPath: './config.yaml' })
  })

  test('with no configuration at all it is a usage error that says how to give one', () => {
    expect(printed([])).toEqual({
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
    [['help', 'nothing'], 'unknown command "nothing"'],
    [['help', 'export', 'more'], 'help takes one command'],
    [['check-config', '--version'], 'unknown option "--version"'],
    [['hash-key', 'key'], 'the key comes on standard input'],
    [['validate'], 'validate needs to know the file'],
    [['validate', '--resources'], '--resources needs the path of a file'],
    [['validate', '--resource', 'x'], 'unknown option "--resource"; did you mean --resources?'],
    [['validate', '--resources', 'a', '--resources', 'b'], '--resources is given twice'],
    [['export', '--db', 'a', '-c', 'b'], '--db and --config exclude each other'],
    [['export', '--reveal-secrets=yes'], 'unknown option "--reveal-secrets"'],
    [['export', 'file'], 'unexpected argument "file"'],
    [['export'], 'give --config PATH'],
    [['schema'], 'schema needs to know of what'],
    [['schema', 'models'], 'schema needs to know of what'],
  ])('%p', (argv, message) => {
    const { stdout, stderr, exit } = printed(argv)
    expect({ stdout, exit }).toEqual({ stdout: '', exit: 2 })
    expect(stderr).toContain(message)
    expect(stderr).toContain('Try `aisix --help`')
  })

  test('what may be a key in the wrong place is not repeated', () => {
    for (const argv of [['hash-key', 'sk-secret'], ['sk-secret with spaces'], [`sk-secret-${'x'.repeat(30)}`]]) {
      expect(printed(argv).stderr).not.toContain('sk-secret')
    }
  })
})

describe('help and version end with 0', () => {
  test.each([[['--version']], [['-V']]])('%p prints the name and the version', argv => {
    expect(printed(argv)).toEqual({ stdout: `aisix ${VERSION}\n`, stderr: '', exit: 0 })
  })

  test.each([[['--help']], [['-h']], [['help']], [['-c', 'a.yaml', '--help']]])('%p prints the usage', argv => {
    expect(printed(argv)).toEqual({ stdout: expect.stringContaining('Usage: aisix [--config PATH]'), stderr: '', exit: 0 })
  })

  test.each(['check-config', 'hash-key', 'validate', 'export', 'schema', 'help'])('%s is explained by both ways to ask', name => {
    const { stdout, exit } = printed(['help', name])
    expect({ stdout, exit }).toEqual({ stdout: expect.stringContaining(`aisix ${name}`), exit: 0 })
    expect(printed([name, '--help']).exit).toBe(0)
  })
})

test('validate, export and schema know what they are asked for', () => {
  expect(parseCommand(['validate', '--resources', 'r.yaml'], {}, never)).toEqual({ kind: 'validate', file: 'r.yaml' })
  expect(parseCommand(['validate', '--resources=a=b.yaml'], {}, never)).toEqual({ kind: 'validate', file: 'a=b.yaml' })
  expect(parseCommand(['schema', 'config'], {}, never)).toEqual({ kind: 'schema', of: 'config' })
  const common = { kind: 'export', output: undefined, revealSecrets: false } as const
  expect(parseCommand(['export', '--db', 'a.db'], {}, never)).toEqual({ ...common, source: { dbPath: 'a.db' } })
  expect(parseCommand(['export'], { AISIX_CONFIG: 'b.yaml' }, never)).toEqual({ ...common, source: { configPath: 'b.yaml' } })
  expect(parseCommand(['export', '-c', 'a.yaml', '-o', 'r.yaml', '--reveal-secrets'], {}, never)).toEqual({
    kind: 'export',
    source: { configPath: 'a.yaml' },
    output: 'r.yaml',
    revealSecrets: true,
  })
})

test('check-config finds its configuration as serve does', () => {
  expect(parseCommand(['check-config', '-c', 'a.yaml'], {}, never)).toEqual({ kind: 'check-config', configPath: 'a.yaml' })
  expect(parseCommand(['check-config'], {}, always)).toEqual({ kind: 'check-config', configPath: './config.yaml' })
})

describe('hash-key', () => {
  test('is asked for by its name alone', () => {
    expect(parseCommand(['hash-key'], {}, never)).toEqual({ kind: 'hash-key' })
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

  test('a good file gets OK on stdout, its warnings on stderr', () => {
    const path = write('proxy: {addr: "127.0.0.1:0", workers: 2}\nadmin: {enabled: false}\n')
    const { stdout, stderr, exit } = runCheckConfig(path, {})
    expect({ stdout, exit }).toEqual({ stdout: `OK: ${path}\n`, exit: 0 })
    expect(stderr).toStartWith(`warning: ${path}:1:30: proxy.workers: accepted for compatibility`)
  })

  test('a bad file ends with 1 and the message of a failed start', () => {
    const path = write('proxy: {addr: "localhost:1"}\nadmin: {enabled: false}\n')
    const { stdout, stderr, exit } = runCheckConfig(path, {})
    expect({ stdout, exit }).toEqual({ stdout: '', exit: 1 })
    expect(stderr).toStartWith(`config load failed: ${path}:1:9: proxy.addr: expected an address`)
  })

  test('the resources file that it names is checked as well', () => {
    writeFileSync(join(folder, 'resources.yaml'), '_format_version: "1"\nmodels: 5\n')
    const path = write('proxy: {addr: "127.0.0.1:0"}\nadmin: {enabled: false}\nresources_file: resources.yaml\n')
    expect(runCheckConfig(path, {})).toEqual({
      stdout: '',
      stderr: `resources file ${join(folder, 'resources.yaml')}: 1 error(s):\n  - (file): \`models\` must be a list of entries, not a number\n`,
      exit: 1,
    })
    writeFileSync(join(folder, 'resources.yaml'), '_format_version: "1"\n')
    expect(runCheckConfig(path, {})).toEqual({ stdout: `OK: ${path}\n`, stderr: '', exit: 0 })
  })
})
