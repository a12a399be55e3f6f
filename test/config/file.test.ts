import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FILE_BYTES_MAX } from '../../src/config/file.ts'
import { loadConfig } from '../../src/config.ts'
import { readProblem } from '../../src/lib/read-problem.ts'
import { load, MINIMAL, problems } from './load.ts'

const TAG = 'unknown tag (`!…`): remove it; quote the value if it begins with an exclamation mark'
const SECOND = 'expected one YAML document; remove the line `---` and what follows it'
const TWICE = 'the key occurs twice in this mapping; remove one of the two'
const MAPPING = 'expected a mapping of keys to values, such as `proxy:`'

describe('what is not well-formed YAML is told with its place', () => {
  test.each([
    ['a scalar', 'hello', `1:1: ${MAPPING}`],
    ['a sequence', '- a\n- b\n', `1:1: ${MAPPING}`],
    ['two documents', `${MINIMAL}---\na: 1\n`, `4:1: ${SECOND}`],
    ['a tab as indentation', 'proxy:\n\taddr: x\n', '2:1: a tab in the indentation: YAML allows only spaces there'],
    ['a tab further down', 'proxy:\n  addr: x\n\tworkers: 1\n', '3:1: a tab in the indentation: YAML allows only spaces there'],
    ['crooked indentation', 'a:\n  b: 1\n c: 2\n', '3:1: wrong indentation: keys of one mapping start in the same column'],
    ['two colons', 'proxy: a: b\n', '1:8: a second colon where a value was expected: put the value in quotes'],
    ['a reserved character', 'a: @b\n', '1:4: a value cannot begin with this character: put the value in quotes'],
    ['a bad escape', 'a: "\\q"\n', '1:5: invalid escape sequence: write \\\\ for a backslash, or use single quotes'],
    ['no colon', 'hello\nworld: 1\n', '1:1: expected `key: value`: is the colon missing?'],
    ['a directive', '%FOO bar\n---\na: 1\n', '1:1: unknown directive: remove the line that begins with %'],
    ['an unknown tag', 'proxy: !foo {addr: x}\n', `1:8: ${TAG}`],
    ['a tag on a scalar', 'proxy:\n  addr: !!binary aGk=\n', `2:18: ${TAG}`],
    ['a tag on a key', '!foo proxy: 1\n', `1:1: ${TAG}`],
    ['an alias without anchor', 'a: *x\n', '1:4: an alias (`*…`) whose anchor (`&…`) does not stand before it'],
    ['an alias in itself', 'a: &x\n  b: *x\n', '2:6: an alias that stands inside what it stands for'],
    ['a merge of a number', 'a:\n  <<: 3\n', '2:7: expected a mapping, or the alias of one, after `<<:`'],
    ['a merge of nothing', 'a:\n  <<:\n', '2:6: expected a mapping, or the alias of one, after `<<:`'],
    ['nesting in braces', `a: ${'{a: '.repeat(200)}${'}'.repeat(200)}`, '1:260: nested too deeply'],
  ])('%s', (_case, text, problem) => {
    expect(problems(text)).toEqual([`config.yaml:${problem}`])
  })

  test('a quote that is not closed', () => {
    expect(problems('a: "x\nb: 1\n')).toEqual(['config.yaml:3:1: a closing quote, bracket or comma is missing before this place'])
  })

  test('text behind a value is not repeated: it may be a secret', () => {
    expect(problems('a: 1\n}sk-secret\n').join()).not.toContain('sk-secret')
    expect(problems('admin: {admin_keys: [sk-secret, "sk-secret]}').join()).not.toContain('sk-secret')
  })

  test('100,000 open brackets are refused, not a crash', () => {
    expect(problems('['.repeat(100_000))[0]).toEndWith('nested too deeply')
  })
})

describe('keys', () => {
  test('a key that occurs twice is told at its second place, each of them', () => {
    expect(problems(`${MINIMAL}  addr: "127.0.0.1:1"\nproxy: {}\n`)).toEqual([
      `config.yaml:4:3: proxy.addr: ${TWICE}`,
      `config.yaml:5:1: proxy: ${TWICE}`,
    ])
  })

  test.each(['1: 2', 'true: 2', '[a]: 2', '? {a: 1}\n: 2', '~: 2'])('the key of `%s` is no word', line => {
    expect(problems(`${MINIMAL}${line}\n`)[0]).toMatch(/^config.yaml:4:[13]: expected a key in words/)
  })

  test('__proto__ is an unknown key like any other', () => {
    expect(problems(`${MINIMAL}__proto__: {store: {path: x}}\n`)).toEqual([
      expect.stringContaining('config.yaml:4:1: __proto__: unknown key'),
    ])
  })

  test('a key without value counts as not given', () => {
    const { config } = load(`${MINIMAL}  tls:\n  request_body_limit_bytes: ~\nstore:\n`)
    expect(config.proxy.tls).toBeUndefined()
    expect(config.proxy.request_body_limit_bytes).toBe(0)
    expect(config.store.path).toEndWith('aisix.db')
  })

  test.each([
    ['a section', 'observabillity:\n', '4:1: observabillity: unknown key; did you mean observability?'],
    ['a key of a section', 'store: {pathh: }\n', '4:9: store.pathh: unknown key; did you mean store.path?'],
    ['a key with a null', 'store:\n  pathh: ~\n', '5:3: store.pathh: unknown key; did you mean store.path?'],
    [
      'a key deep inside',
      'upstream: {tls: {verfy: null}}\n',
      '4:18: upstream.tls.verfy: unknown key; did you mean upstream.tls.verify?',
    ],
    ['a key of an open section', 'managed: {enabld: }\n', '4:11: managed.enabld: unknown key; did you mean managed.enabled?'],
    ['a key behind an alias', 'etcd: {tls: &t {caa: }}\n', '4:17: etcd.tls.caa: unknown key'],
  ])('%s without value that is unknown stops the start like any other', (_case, text, problem) => {
    expect(problems(MINIMAL + text)).toEqual([expect.stringContaining(`config.yaml:${problem}`)])
  })

  test('a null beside a merge key leaves the merged value, and an open section is not told of keys without value', () => {
    const text = 'upstream:\n  <<: {retries: 7}\n  retries: ~\nmanaged: {cp_url: }\n'
    const { config, warnings } = load(MINIMAL + text)
    expect(config.upstream.retries).toBe(7)
    expect(warnings.join()).not.toContain('managed')
  })
})

describe('what is well-formed works', () => {
  test.each([
    ['CRLF', MINIMAL.replaceAll('\n', '\r\n')],
    ['a byte order mark', `\ufeff${MINIMAL}`],
    ['a document start and end', `---\n${MINIMAL}...\n`],
    ['tags that say what is there anyway', 'proxy: !!map {addr: !!str "127.0.0.1:0"}\nadmin: {enabled: !!bool false}\n'],
    ['no newline at the end', MINIMAL.trimEnd()],
    ['comments up to the limit', MINIMAL + '#'.repeat(FILE_BYTES_MAX - MINIMAL.length)],
  ])('%s', (_case, text) => {
    expect(load(text).config.proxy.addr).toBe('127.0.0.1:0')
  })

  test('places are right behind CRLF', () => {
    expect(problems('proxy:\r\n  addr: x\r\nadmin: {enabled: false}\r\n')[0]).toStartWith('config.yaml:2:3: proxy.addr: ')
  })

  test('anchors, aliases and merge keys', () => {
    const { config, origins } = load(
      'admin: &a\n  enabled: false\n  addr: &addr "127.0.0.1:4000"\nproxy:\n  addr: *addr\n' +
        'upstream: &u {retries: 7, timeout_ms: 1}\ndownstream: {idle_timeout_secs: 1}\n',
    )
    expect(config.proxy.addr).toBe('127.0.0.1:4000')
    expect(origins.get('proxy.addr')).toMatchObject({ line: 5, column: 3 })
    const merged = load(
      `${MINIMAL}observability:\n  metrics:\n    otlp: &off {enabled: false}\n  tracing:\n    otlp:\n      <<: *off\n      sample_ratio: 0.5\n`,
    )
    expect(merged.config.observability.tracing.otlp).toEqual({ enabled: false, sample_ratio: 0.5 })
  })

  test('what stands beside a merge key wins over it, and of several mappings the first', () => {
    const text = `${MINIMAL}etcd: &e {dial_timeout_ms: 1, request_timeout_ms: 1}\nupstream:\n  <<: [{retries: 3, timeout_ms: 3}, {retries: 4, stream_timeout_ms: 4}]\n  timeout_ms: 5\n`
    expect(load(text).config.upstream).toMatchObject({ retries: 3, timeout_ms: 5, stream_timeout_ms: 4 })
  })

  test('a quoted << is a key, and unknown', () => {
    expect(problems(`${MINIMAL}"<<": {store: {path: x}}\n`)[0]).toStartWith('config.yaml:4:1: <<: unknown key')
  })

  test('a wrong value behind an alias is told where it is used', () => {
    const [first, second, ...rest] = problems(
      'proxy: {addr: &a "nope"}\nobservability: {metrics: {prometheus: {addr: *a}}}\nadmin: {enabled: false}\n',
    )
    expect(first).toStartWith('config.yaml:1:9: proxy.addr: ')
    expect(second).toStartWith('config.yaml:2:40: observability.metrics.prometheus.addr: ')
    expect(rest).toEqual([])
  })
})

describe('aliases that multiply are refused', () => {
  const level = (i: number, body: (name: string) => string) => `a${i + 1}: &a${i + 1} ${body(`*a${i}`)}\n`
  const bomb = (body: (name: string) => string) =>
    `a0: &a0 {x: 1}\n${Array.from({ length: 30 }, (_, i) => level(i, body)).join('')}`

  test.each([
    ['lists', bomb(name => `[${Array(9).fill(name).join(', ')}]`)],
    ['mappings', bomb(name => `{p: ${name}, q: ${name}}`)],
    ['merge keys', bomb(name => `{<<: [${name}, ${name}]}`)],
  ])('in %s', (_case, text) => {
    expect(problems(text)).toEqual([
      expect.stringMatching(/^config.yaml:\d+:\d+: aliases stand for more than 10000 values; write them out$/),
    ])
  })
})

test('60,000 keys are read once each, and the unknown ones are not all told', () => {
  const told = problems(Array.from({ length: 60_000 }, (_, i) => `k${i}: 1\n`).join(''))
  expect(told.length).toBeLessThan(100)
  expect(told).toContain('config.yaml:1:1: 59950 more unknown keys')
})

describe('bytes', () => {
  test('invalid UTF-8 is told with its line', () => {
    expect(problems(Buffer.concat([Buffer.from(MINIMAL), Buffer.from([0x61, 0xff, 0x0a])]))).toEqual([
      'config.yaml:4:1: this line is not valid UTF-8; save the file as UTF-8',
    ])
    expect(problems(Uint8Array.from([0xff, 0xfe, 0x61, 0]))[0]).toStartWith('config.yaml:1:1: ')
  })

  test('an empty file and one of comments say what has to be given', () => {
    for (const text of ['', '\n\n', '# nothing\n', '~', '---\n']) {
      expect(problems(text)).toEqual([
        expect.stringMatching(/^config.yaml:1:1: proxy.addr: is required. IP address and port/),
        expect.stringContaining('admin.admin_keys must contain at least one key'),
      ])
    }
  })
})

describe('JSON', () => {
  const json = (text: string) => problems(text, {}, 'config.json')

  test('is read with tabs, byte order mark and escapes', () => {
    const text =
      '\ufeff{\n\t"proxy": {"addr": "127.0.0.1:0"},\n\t"admin": {"enabled": false},\n\t"store": {"path": "\\u0061\\/b"}\n}\n'
    const { config, origins } = load(text, {}, 'config.json')
    expect(config.store.path).toEndWith('a/b')
    expect(origins.get('store.path')).toEqual({ from: 'file', path: 'config.json', line: 4, column: 12 })
  })

  test.each([
    ['YAML', 'a: 1', '1:1'],
    ['a comment', '{"a": 1 // x\n}', '1:9'],
    ['a trailing comma', '{\n  "a": 1,\n}', '3:1'],
    ['single quotes', "{'a': 1}", '1:2'],
    ['an end too early', '{"a": [', '1:8'],
    ['two values', '{} {}', '1:4'],
    ['nothing', '', '1:1'],
  ])('%s is not valid JSON, told with its place', (_case, text, place) => {
    expect(json(text)).toEqual([expect.stringContaining(`config.json:${place}: not valid JSON: `)])
  })

  test('a key that occurs twice is an error, and << is a key', () => {
    expect(json('{"proxy": {},\n"proxy": {}}')).toEqual([expect.stringMatching(/^config.json:2:1: .*proxy/)])
    expect(json('{"<<": {}}').join('\n')).toContain('config.json:1:2: <<: unknown key')
  })

  test('an unknown key with null stops the start, a known one counts as not given', () => {
    const text = '{"proxy": {"addr": "127.0.0.1:0"}, "admin": {"enabled": false},\n"fooo": null, "store": null}'
    expect(json(text)).toEqual([expect.stringContaining('config.json:2:1: fooo: unknown key')])
  })

  test('another kind of value is no configuration', () => {
    expect(json('[]')).toEqual([`config.json:1:1: ${MAPPING}`])
  })
})

describe('the name of the file', () => {
  test.each(['a.yaml', 'a.YML', 'a.json', '/dev/fd/63'])('%s is read', path => {
    const text = '{"proxy": {"addr": "127.0.0.1:0"}, "admin": {"enabled": false}}'
    expect(load(text, {}, path).config.proxy.addr).toBe('127.0.0.1:0')
  })

  test('TOML and other extensions are refused with what works', () => {
    expect(problems('', {}, 'a.toml')).toEqual(['a.toml: TOML is not supported; write the same keys as YAML or JSON'])
    expect(problems('', {}, 'a.conf')).toEqual(['a.conf: expected a file named .yaml, .yml or .json'])
  })
})

describe('on disk', () => {
  let folder: string
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'aisix-config-'))
  })
  afterAll(() => rmSync(folder, { recursive: true }))
  const messageFor = (path: string) => {
    try {
      loadConfig({ path, env: {} })
      return 'loaded'
    } catch (error) {
      return error instanceof Error ? error.message : String(error)
    }
  }

  test('a file that is not there, a directory, a folder that is a file', () => {
    const file = join(folder, 'file.yaml')
    writeFileSync(file, MINIMAL)
    mkdirSync(join(folder, 'dir.yaml'))
    expect(messageFor(file)).toBe('loaded')
    expect(messageFor(join(folder, 'none.yaml'))).toBe(`${folder}/none.yaml: no such file`)
    expect(messageFor(join(folder, 'dir.yaml'))).toBe(`${folder}/dir.yaml: is a directory, expected a file`)
    expect(messageFor(join(file, 'x.yaml'))).toBe(`${file}/x.yaml: a part of its path is not a folder`)
  })

  test('the refusal of the system is put in words', () => {
    expect(readProblem(Object.assign(new Error(), { code: 'EACCES' }))).toContain('permission denied')
    expect(readProblem(Object.assign(new Error(), { code: 'EIO' }))).toBe('cannot be read (EIO)')
    expect(readProblem('something else')).toBe('cannot be read')
  })

  test('a file over 1 MiB is refused, one without end too', () => {
    const file = join(folder, 'large.yaml')
    writeFileSync(file, '#'.repeat(FILE_BYTES_MAX + 1))
    expect(messageFor(file)).toBe(`${file}: is larger than 1 MiB; a configuration is far smaller`)
    const endless = join(folder, 'endless.yaml')
    symlinkSync('/dev/zero', endless)
    expect(messageFor(endless)).toBe(`${endless}: is larger than 1 MiB; a configuration is far smaller`)
  })
})

describe('${NAME} in the file', () => {
  test('is replaced in values, within lists too', () => {
    const { config } = load('proxy: {addr: "127.0.0.1:${PORT}"}\nadmin:\n  admin_keys: ["${ADMIN_KEY}", a$$b, $PORT]\n', {
      PORT: '4000',
      ADMIN_KEY: 'sk-admin',
    })
    expect(config.proxy.addr).toBe('127.0.0.1:4000')
    expect(config.admin.admin_keys).toEqual(['sk-admin', 'a$b', '$PORT'])
  })

  test('a variable cannot bring in structure or another variable', () => {
    const { config } = load(`${MINIMAL}store: {path: "/x/\${P}"}\n`, { P: 'a: [1]\nb: ${Q}' })
    expect(config.store.path).toBe('/x/a: [1]\nb: ${Q}')
  })

  test('keys are never touched', () => {
    expect(problems(`${MINIMAL}"\${P}": 1\n`, { P: 'store' })[0]).toStartWith('config.yaml:4:1: ${P}: unknown key')
  })

  test('every fault is told, at its place, and once', () => {
    expect(
      problems('proxy: {addr: "${NONE}"}\nadmin:\n  admin_keys:\n    - "${EMPTY}"\n    - "${"\n    - "${}"\n', { EMPTY: '' }),
    ).toEqual([
      'config.yaml:1:15: proxy.addr: environment variable `NONE` is unset or empty',
      'config.yaml:4:7: admin.admin_keys[0]: environment variable `EMPTY` is unset or empty',
      expect.stringContaining('config.yaml:5:7: admin.admin_keys[1]: `${` without `}`'),
      expect.stringContaining('config.yaml:6:7: admin.admin_keys[2]: `${}` names no variable'),
    ])
  })

  test('a number cannot come from a variable, and the message says what can', () => {
    expect(problems(`${MINIMAL}upstream: {retries: "\${N}"}\n`, { N: '3' })).toEqual([
      'config.yaml:4:12: upstream.retries: expected a whole number, and got text: write it without quotes. A value out of ${NAME} is always text: use the AISIX_* variable of the key instead',
    ])
  })
})
