import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { stringify } from 'yaml'
import { isSimpleYaml } from '../../src/resources-file/simple-yaml.ts'
import { readCarefully, readYaml } from '../../src/resources-file/yaml.ts'

const bytes = (text: string) => new TextEncoder().encode(text)

function parsed(text: string): unknown {
  const read = readYaml(bytes(text))
  if ('problems' in read) throw new Error(read.problems.map(({ message }) => message).join('\n'))
  return read.value
}

function problemsOf(text: string | Uint8Array): string[] {
  const read = readYaml(typeof text === 'string' ? bytes(text) : text)
  return 'problems' in read ? read.problems.map(({ message }) => message) : []
}

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value))

describe('a text of the plainest kind is read fast', () => {
  test.each([
    ['a: 1\nb: two words\n'],
    ['---\na: x\n'],
    ['# comment\na: x # comment\n\n'],
    ['a:\n  - b: 1\n    c: "x: y # z"\n  - b: 2\n'],
    ["a:\n- b: 1\n  c: 'it''s'\n- b: 2\nd: x\n"],
    ['a:\n  b: [x, "*", 5]\n  c: {d: 1.5, e: true}\n  f: []\n  g: {}\n'],
    ['a: |\n  one\n   two\n\n  three\nb: |-\n  x\n'],
    ['a: ${NAME}\nb: http://10.0.0.5:8000/v1\nc: 10.0.0.5\nd: 2030-01-31\ne: 2030-01-31T00:00:00Z\n'],
    [`a: ${'9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'}\n`],
    ['a: 1\r\nb:\r\n  - c\r\n'],
    ['a:\nb: x\n'],
    ['a:\n  - - x\n    - y\n  - - z\n'],
    ['\ufeffa: 1\n'],
  ])('%j', text => {
    expect(isSimpleYaml(text.replace('\ufeff', ''))).toBe(true)
    const careful = readCarefully(text)
    expect(plain(parsed(text))).toEqual(plain('value' in careful ? careful.value : careful))
  })
})

describe('what is in doubt is left to the careful reader', () => {
  test.each([
    ['', 'an empty text'],
    ['a: 1\na: 2\n', 'a key twice'],
    ['a: {b: 1, b: 2}\n', 'a key twice in braces'],
    ['- a: 1\n  b: 2\n  a: 3\n', 'a key twice in an item'],
    ['a: &x 1\nb: *x\n', 'an anchor'],
    ['a:\n  <<: {b: 1}\n', 'a merge key'],
    ['a: !!str 1\n', 'a tag'],
    ['a:\tb\n', 'a tab'],
    ['a: 0x1f\n', 'a number in another base'],
    ['a: 9007199254740993\n', 'more digits than a double keeps'],
    ['a: 1e3\n', 'an exponent'],
    ['a: .inf\n', 'infinity'],
    ['a: x\n  y\n', 'a value of two lines'],
    ['a: "x\n  y"\n', 'a quoted value of two lines'],
    ['a: >\n  x\n', 'a folded block'],
    ['a:\n    b: 1\n  c: 2\n', 'a column that nothing began in'],
    ['a:\n  b:\n c: 1\n', 'another such column'],
    ['a: 1\n---\nb: 2\n', 'a second document'],
    ['true: 1\n', 'a key that is no string'],
    ['1: a\n', 'a number as key'],
    ['__proto__: {a: 1}\n', 'a key that objects treat in their own way'],
    ['a: [b, [c]]\n', 'a list in a list'],
    ['a: - b\n', 'a dash behind a key'],
    ['-\n  a: 1\n', 'a dash alone'],
    ['a: |\n   x\n  y\n', 'a block that comes out'],
    ['a: "\\x41"\n', 'an escape of a kind'],
    ['a: b: c\n', 'two colons'],
    ['a\n', 'a word'],
    ['a: \u0085\n', 'a line break of another kind'],
  ])('%j: %s', text => {
    expect(isSimpleYaml(text)).toBe(false)
  })
})

/** Values as files have them, with texts that look like something else. */
const odd = fc.constantFrom(
  '1',
  '1.0',
  '0777',
  '1e3',
  '0x1F',
  '~',
  'null',
  'true',
  'yes',
  '.inf',
  '12:30',
  '-',
  '- a',
  'a: b',
  '#x',
  'x #y',
  '${A}',
  '$$',
  '*',
  '&a',
  '!a',
  '|',
  '>',
  '%a',
  '@a',
  '`a`',
  "it's",
  '"q"',
  ' lead',
  'trail ',
  'a\nb',
  'a\tb',
  '{a}',
  '[a]',
  'a,b',
  '?',
  ': a',
  'ä€𝄞',
  '\u0085',
  '\u2028',
  '<<',
  '=',
  '2030-01-01',
  '1_000',
  '+1',
  '-0',
  '0o17',
  '',
)
const scalar = fc.oneof(
  odd,
  fc.string(),
  fc.stringMatching(/^[a-z0-9 .:/_-]{1,12}$/),
  fc.integer({ min: -1_000_000, max: 1_000_000 }),
  fc.boolean(),
  fc.constant(null),
)
const key = fc.oneof(fc.stringMatching(/^[a-z_][a-z0-9_.-]{0,6}$/), odd)
const tree = fc.letrec(tie => ({
  value: fc.oneof(
    { maxDepth: 4 },
    scalar,
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(key, tie('value'), { maxKeys: 4 }),
  ),
})).value
const styles = fc.record({
  indentSeq: fc.boolean(),
  lineWidth: fc.constantFrom(0, 20),
  defaultStringType: fc.constantFrom('PLAIN' as const, 'QUOTE_DOUBLE' as const, 'QUOTE_SINGLE' as const),
  collectionStyle: fc.constantFrom('any' as const, 'flow' as const),
})

/** Trees as files have them for the most part, with something odd here and there. */
const tameScalar = fc.oneof(
  { arbitrary: fc.stringMatching(/^[a-z][a-z0-9 .:/_@-]{0,11}$/), weight: 12 },
  { arbitrary: scalar, weight: 1 },
)
const tameKey = fc.stringMatching(/^[a-z_][a-z0-9_.-]{0,6}$/)
const tameTree = fc.letrec(tie => ({
  value: fc.oneof(
    { maxDepth: 3 },
    tameScalar,
    fc.array(tie('value'), { minLength: 1, maxLength: 3 }),
    fc.dictionary(tameKey, tie('value'), { minKeys: 1, maxKeys: 3 }),
  ),
})).value

test.each([
  ['tame', fc.dictionary(tameKey, tameTree, { minKeys: 1, maxKeys: 4 })],
  ['odd', fc.dictionary(key, tree, { minKeys: 1, maxKeys: 5 })],
])('both readers read %s values alike where the text is simple', (name, values) => {
  let simple = 0
  fc.assert(
    fc.property(values, styles, (value, style) => {
      const text = stringify(value, style)
      if (!isSimpleYaml(text)) return
      simple += 1
      const careful = readCarefully(text)
      expect(plain(Bun.YAML.parse(text))).toEqual(plain('value' in careful ? careful.value : careful))
    }),
    { numRuns: Number(process.env.FUZZ_RUNS ?? 2000) },
  )
  expect(simple).toBeGreaterThan(name === 'tame' ? 100 : 0)
})

test('lines put together at random never mean different things to the two', () => {
  const line = fc
    .tuple(
      fc.constantFrom('', ' ', '  ', '    '),
      fc.constantFrom('', '- ', '- - ', '-  '),
      fc.constantFrom('', 'a: ', 'b: ', 'c:', 'a:', '"a": '),
      odd,
    )
    .map(parts => parts.join(''))
  fc.assert(
    fc.property(fc.array(line, { minLength: 1, maxLength: 6 }), lines => {
      const text = lines.join('\n')
      if (!isSimpleYaml(text)) return
      const careful = readCarefully(text)
      expect(plain(Bun.YAML.parse(text))).toEqual(plain('value' in careful ? careful.value : careful))
    }),
    { numRuns: 20_000 },
  )
})

describe('what is wrong is told with line and column, and without the text', () => {
  test.each([
    ['a: 1\n---\nb: 2\n', 'line 2, column 1: expected one YAML document'],
    ['a: 1\nb: 2\na: 3\n', 'line 3, column 1: the key `a` occurs twice'],
    ['a:\n\t- b\n', 'line 2, column 1: a tab in the indentation'],
    ['a: [1, 2\n', 'line 2, column 1: a closing quote, bracket or comma is missing'],
    ['a: b: c\n', 'line 1, column 4: a second colon'],
    ['1: a\n', 'line 1, column 1: expected a key in words'],
    ['[a]: b\n', 'line 1, column 1: expected a key in words'],
    ['a: !secret x\n', 'line 1, column 4: unknown tag'],
    ['a: *x\n', 'line 1, column 4: an alias (`*…`) whose anchor'],
    ['a: &x [*x]\n', 'line 1, column 8: an alias that stands inside'],
    ['a: &x\n  <<: *x\n', 'line 2, column 7: an alias that stands inside'],
    ['a:\n  <<: 5\n', 'line 2, column 7: expected a mapping'],
    ['a:\n  b: 9007199254740993\n', 'line 2, column 6: `a.b` has more digits'],
    ['a: -18446744073709551617\n', 'line 1, column 4: `a` has more digits'],
    ['a: .inf\n', 'line 1, column 4: `a` is no number'],
    ['a: 1e400\n', 'line 1, column 4: `a` is no number'],
  ])('%j', (text, message) => {
    expect(problemsOf(text)).toContainEqual(expect.stringContaining(message))
  })

  test('several mistakes are told at once', () => {
    expect(problemsOf('a: 1\na: 2\n5: x\nb: 9007199254740993\n')).toEqual([
      expect.stringContaining('line 2'),
      expect.stringContaining('line 3'),
      expect.stringContaining('line 4'),
    ])
  })

  test('invalid UTF-8', () => {
    expect(problemsOf(new Uint8Array([97, 58, 32, 49, 10, 98, 58, 32, 0xff, 10]))).toEqual([
      'line 2: this line is not valid UTF-8; save the file as UTF-8',
    ])
  })

  test('no message repeats what stands on the line', () => {
    for (const text of [
      'a: [sk-secret\n',
      'sk-secret: b: sk-secret\n',
      'a: !sk-secret x\n',
      'a: *sk-secret\n',
      'a: "\\q sk-secret"\n',
    ]) {
      const problems = problemsOf(text)
      expect(problems).not.toEqual([])
      expect(problems.join()).not.toContain('sk-secret')
    }
  })
})

describe('anchors, aliases and merge keys', () => {
  test('work, the nearest key winning', () => {
    expect(plain(parsed('x: &x {a: 1, b: 2}\ny:\n  <<: *x\n  b: 3\nz: [*x, *x]\n'))).toEqual({
      x: { a: 1, b: 2 },
      y: { a: 1, b: 3 },
      z: [
        { a: 1, b: 2 },
        { a: 1, b: 2 },
      ],
    })
  })

  test('each use of an alias is a value of its own', () => {
    const value = parsed('x: &x {a: 1}\ny: *x\n')
    if (typeof value !== 'object' || value === null) throw new Error('no mapping')
    expect(Reflect.get(value, 'x')).not.toBe(Reflect.get(value, 'y'))
  })

  test('an alias bomb is refused before it goes off', () => {
    const levels = Array.from(
      { length: 20 },
      (_, i) => `l${i}: &l${i} [${i === 0 ? 'x' : Array.from({ length: 10 }, () => `*l${i - 1}`).join(', ')}]`,
    )
    expect(problemsOf(levels.join('\n'))).toEqual([expect.stringContaining('aliases stand for more than 10000 values')])
  })

  test('nesting is bounded', () => {
    expect(problemsOf(`a: ${'['.repeat(100)}${']'.repeat(100)}\n`)).toEqual([expect.stringContaining('nested too deeply')])
    expect(problemsOf(`a: ${'['.repeat(100_000)}\n`).length).toBeGreaterThan(0)
  })
})
