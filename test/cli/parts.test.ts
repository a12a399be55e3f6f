/** The parts of the commands that compute: arguments, names, times, tables, what is shown. */
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { parseArguments } from '../../src/cli/arguments.ts'
import type { Command } from '../../src/cli/command.ts'
import { type Entry, KEYS, resolve } from '../../src/cli/entries.ts'
import { COMMANDS } from '../../src/cli/index.ts'
import { expiryOf, hashOf, newKey } from '../../src/cli/keys.ts'
import { targetOf } from '../../src/cli/models.ts'
import { statusText } from '../../src/cli/status.ts'
import { clean, properties, table } from '../../src/cli/table.ts'
import { parseLength, parseTime, shownLength } from '../../src/cli/time.ts'
import { testIo } from './io.ts'

describe('arguments', () => {
  const command: Command = {
    words: ['try'],
    summary: '',
    about: '',
    args: [
      { name: 'ONE', about: '' },
      { name: 'TWO', isOptional: true, about: '' },
    ],
    options: [
      { name: 'list', value: 'X', isList: true, about: '' },
      { name: 'file', short: 'f', value: 'FILE', about: '' },
      { name: 'count', value: 'N', about: '' },
      { name: 'quiet', short: 'q', about: '' },
    ],
    run: () => Promise.reject(new Error('is not run')),
  }
  const given = (...argv: string[]) => {
    const read = parseArguments(command, argv)
    if (read === 'help') throw new Error('expected values')
    return read
  }

  test('stand in any order, attached or apart', () => {
    const read = given('--list=a, b', 'one', '-q', '--list', 'c', '-f=x=y', '--count', '7')
    expect([read.list('list'), read.values('list'), read.arg('ONE'), read.arg('TWO')]).toEqual([
      ['a', 'b', 'c'],
      ['a, b', 'c'],
      'one',
      '',
    ])
    expect([read.flag('quiet'), read.text('file'), read.count('count')]).toEqual([true, 'x=y', 7])
  })

  test('behind two dashes everything is an argument, and a dash alone is a value', () => {
    expect(given('--', '--quiet').arg('ONE')).toBe('--quiet')
    expect(given('one', '--file', '-').text('file')).toBe('-')
    expect(given('one', '-f-').text('file')).toBe('-')
  })

  test.each([
    [['one', '--count', '-1'], '--count needs a value'],
    [['one', '--count', '1.5'], '--count needs a whole number'],
    [['one', '--count', '1e3'], '--count needs a whole number'],
    [['one', '--quiet', '--quiet'], '--quiet is given twice'],
    [['one', '--file', '--quiet'], '--file needs the path of a file'],
    [[], 'try needs ONE'],
    [['one', 'two', 'three'], 'unexpected argument "three"'],
    [['one', '--lst', 'x'], 'did you mean --list?'],
  ])('%j is refused', (argv, message) => {
    expect(() => given(...argv).count('count')).toThrow(message)
  })

  test('whatever is given is read, refused in words that do not hold it, or asks for help', () => {
    const word = fc.oneof(
      fc.string(),
      fc.constantFrom('--', '-', '--list', '--file=', '-q', '-fx', '--no-quiet', '--count=9', 'sk-abcdefghijklmnop-secret'),
    )
    fc.assert(
      fc.property(fc.array(word, { maxLength: 6 }), argv => {
        try {
          parseArguments(command, argv)
        } catch (error) {
          if (!(error instanceof Error)) throw error
          expect(error.constructor.name).toBe('UsageError')
          expect(error.message).not.toContain('abcdefghijklmnop-secret')
        }
      }),
    )
  })
})

test('every option and argument of the registry has a name that no other has, and says what it is for', () => {
  expect(new Set(COMMANDS.map(({ words }) => words.join(' '))).size).toBe(COMMANDS.length)
  for (const { words, args = [], options = [], summary, about } of COMMANDS) {
    const names = options.flatMap(({ name, short }) => (short === undefined ? [name] : [name, short]))
    expect(new Set([...names, 'help', 'h']).size, words.join(' ')).toBe(names.length + 2)
    for (const text of [summary, about, ...options.map(option => option.about), ...args.map(arg => arg.about)])
      expect(text).not.toBe('')
    for (const name of names) expect(name).toMatch(/^[a-z][a-z0-9-]*$/)
  }
})

describe('the entry that is meant', () => {
  const entry = (id: string, display_name?: string): Entry => ({ id, value: { display_name }, revision: 1 })
  const entries = [
    entry('aaaaaaaa-1', 'search'),
    entry('bbbbbbbb-1', 'twin'),
    entry('bbbbbbbb-2', 'twin'),
    entry('cccccccc-1'),
    entry('dddddddd-1', 'aaaaaaaa'),
  ]

  test.each([
    ['search', 'aaaaaaaa-1'],
    ['bbbbbbbb-2', 'bbbbbbbb-2'],
    ['cccccccc', 'cccccccc-1'],
    ['CCCCCCCC', 'cccccccc-1'],
    // A name goes before the beginning of another's id.
    ['aaaaaaaa', 'dddddddd-1'],
  ])('%s', (wanted, id) => {
    expect(resolve(entries, wanted, KEYS).id).toBe(id)
  })

  test.each([
    ['twin', '2 keys are called "twin": say which one by its id: bbbbbbbb-1, bbbbbbbb-2'],
    ['bbbbbbbb', '2 keys are called "bbbbbbbb"'],
    ['serch', 'there is no key "serch": did you mean "search"?'],
    ['ccccccc', 'there is no key "ccccccc"'],
    ['', 'there is no key ""'],
  ])('%j is refused', (wanted, message) => {
    expect(() => resolve(entries, wanted, KEYS)).toThrow(message)
  })
})

describe('times', () => {
  test.each([
    ['90m', 5_400_000],
    ['24h', 86_400_000],
    ['7d', 604_800_000],
    ['4w', 2_419_200_000],
  ])('%s is a length', (text, ms) => {
    expect(parseLength(text)).toBe(ms)
  })
  test.each(['', '7', 'd', '0d', '-1d', '1.5h', '7 d', '7y', '999999w', '1d2h'])('%j is none', text => {
    expect(parseLength(text)).toBeUndefined()
  })
  test.each([
    ['2030-01-31', '2030-01-31T00:00:00.000Z'],
    ['2030-01-31T08:00:00+02:00', '2030-01-31T06:00:00.000Z'],
    ['2030-01-31T08:00Z', '2030-01-31T08:00:00.000Z'],
  ])('%s is a time', (text, iso) => {
    expect(new Date(parseTime(text) ?? 0).toISOString()).toBe(iso)
  })
  test.each(['2030-13-01', '2030-01-31T08:00:00', '31.01.2030', 'tomorrow', '2030'])('%j is none', text => {
    expect(parseTime(text)).toBeUndefined()
  })
  test.each([
    [0, '0 s'],
    [59, '59 s'],
    [3_600, '1 h'],
    [90_061, '1 d 1 h'],
    [86_460, '1 d'],
  ])('%d seconds are %s', (seconds, text) => {
    expect(shownLength(seconds)).toBe(text)
  })
  test('a key expires after a length, or at a time that lies ahead', () => {
    const io = testIo()
    expect(expiryOf('1d', io)).toBe('2026-11-23T22:00:00.000Z')
    expect(expiryOf('2030-01-31', io)).toBe('2030-01-31T00:00:00.000Z')
    for (const text of ['2026-11-22T22:00:00Z', '2001-01-01', 'soon']) expect(() => expiryOf(text, io)).toThrow('--expires needs')
  })
})

test('a key has 256 random bits that a header can carry; no two are alike', () => {
  const keys = new Set(Array.from({ length: 1_000 }, newKey))
  expect(keys.size).toBe(1_000)
  for (const key of keys) expect(key).toMatch(/^sk-[A-Za-z0-9_-]{43}$/)
  // printf '%s' sk-byo-caller | shasum -a 256
  expect(hashOf('sk-byo-caller')).toBe('f39485b1ed9b0ba68f2804cb94e29e632f256bd6f37aa4d071cf3f9967a65b1d')
})

test.each([
  ['a', { model: 'a' }],
  ['a=70', { model: 'a', weight: 70 }],
  ['a=b', { model: 'a=b' }],
  ['a=b=7', { model: 'a=b', weight: 7 }],
  ['=7', { model: '=7' }],
])('the target %s', (text, target) => {
  expect(targetOf(text)).toEqual(target)
})

describe('a table', () => {
  type Row = { name: string; count: number }
  const columns = [
    { title: 'NAME', value: ({ name }: Row) => name, min: 4 },
    { title: 'N', value: ({ count }: Row) => String(count), isRight: true },
  ]
  const rows = [
    { name: 'a long name', count: 7 },
    { name: 'b', count: 1234 },
  ]
  const wide = { columns: undefined, hasColour: false }

  test('is as wide as it needs, numbers to the right, no blanks at the ends of lines', () => {
    expect(table(columns, rows, wide)).toBe('NAME            N\na long name     7\nb            1234\n')
  })

  test('is cut where the terminal is narrower, and never in a number', () => {
    expect(table(columns, rows, { ...wide, columns: 12 })).toBe('NAME       N\na lon…     7\nb       1234\n')
    expect(table(columns, rows, { ...wide, columns: 3 })).toContain('1234')
  })

  test('counts the columns that characters take, and spells out what would move the cursor', () => {
    const lines = table(
      columns,
      [
        { name: '日本', count: 1 },
        { name: 'x\x1b[2J\n', count: 2 },
      ],
      wide,
    ).split('\n')
    expect(lines[1]).toBe('日本              1')
    expect(lines[2]).toBe('x\\u001b[2J\\u000a  2')
  })

  test('of more rows than a call can have arguments', () => {
    const many = Array.from({ length: 200_000 }, (_, count) => ({ name: 'x', count }))
    expect(table(columns, many, wide).length).toBeGreaterThan(200_000)
  })

  test('properties leave out what is not there', () => {
    expect(
      properties([
        ['a', '1'],
        ['long name', undefined],
        ['b c', 'x\u202ey'],
      ]),
    ).toBe('a:   1\nb c: x\\u202ey\n')
    expect(clean('plain ü 日本')).toBe('plain ü 日本')
  })
})

test('status tells what is unwell, under way and dangling, and says little where all is well', () => {
  const io = { columns: undefined, hasColour: false }
  const health = {
    status: 'ok',
    version: '9.9.9',
    commit: 'abc',
    uptime_seconds: 90_061,
    models: [{ name: 'fine', health: 0, status: 'healthy' }],
    store: { connected: true },
    config: { snapshot_revision: 5 },
    rejected: 0,
    dangling: [],
    usage: { state: 'ok' },
    budgets: { state: 'ok' },
    exporters: [],
  }
  const calm = statusText('http://x', health, { total: 0, in_flight: [] }, io)
  expect(calm).toMatch(/^health: +ok$/m)
  expect(calm).toMatch(/^version: +9\.9\.9 \(abc\), this command is /m)
  expect(calm).toMatch(/^up: +1 d 1 h$/m)
  expect(calm).toMatch(/^models: +1, of which none is unwell$/m)
  expect(calm).not.toContain('DANGLES')
  const troubled = statusText(
    'http://x',
    {
      ...health,
      status: 'unhealthy',
      store: { connected: false, problem: 'locked' },
      models: [
        ...health.models,
        { name: 'down', health: 2, status: 'unhealthy', status_reason: 'transport_error' },
        { name: 'hot', health: 0, status: 'cooldown' },
      ],
      dangling: [{ kind: 'models', id: 'i', name: 'm', field: 'provider_key_id', missing: 'k' }],
      exporters: [
        { name: 'otel', dropped: 3, problem: 'connection refused' },
        { name: 'good', dropped: 0 },
      ],
    },
    {
      total: 1,
      in_flight: [{ request_id: 'r', age_ms: 1_500, requested_model: 'down', api_key_name: 'k', provider_key_name: 's' }],
    },
    io,
  )
  expect(troubled).toMatch(/^store: +NOT CONNECTED: locked$/m)
  expect(troubled).toMatch(/^down +unhealthy +transport_error +2$/m)
  expect(troubled).toMatch(/^hot +cooldown +0$/m)
  expect(troubled).toMatch(/^r +1\.5 +down +k +s$/m)
  expect(troubled).toMatch(/^models m +provider_key_id +k$/m)
  expect(troubled).toMatch(/^otel +3 +connection refused$/m)
  expect(troubled).not.toContain('good')
})
