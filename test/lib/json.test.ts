import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { JsonError, parseJson } from '../../src/lib/json.ts'

function failure(text: string): string {
  try {
    parseJson(text)
  } catch (error) {
    if (error instanceof JsonError) return error.message
    throw error
  }
  throw new Error(`${text} was read without an error`)
}

describe('parseJson', () => {
  test('reads whatever JSON.stringify writes, indented or not', () => {
    const json = fc.jsonValue().filter(value => !JSON.stringify(value).includes('__proto__'))
    fc.assert(
      fc.property(json, fc.constantFrom(0, 2), (value, indent) => {
        const text = JSON.stringify(value, null, indent)
        expect(parseJson(text)).toEqual(JSON.parse(text))
      }),
      { numRuns: 300 },
    )
  })

  test('refuses exactly what JSON.parse refuses, for texts of JSON letters', () => {
    const letters = fc.array(
      fc.constantFrom('{', '}', '[', ']', ',', ':', '"', 'a', '1', '0', '-', '.', 'e', ' ', 'true', 'null', '\\'),
    )
    fc.assert(
      fc.property(letters, parts => {
        const text = parts.join('')
        let accepted = true
        try {
          JSON.parse(text)
        } catch {
          accepted = false
        }
        // Duplicate members and numbers that become infinite are what JSON.parse takes and this reader does not.
        if (accepted) {
          try {
            expect(parseJson(text)).toEqual(JSON.parse(text))
          } catch (error) {
            expect(error instanceof JsonError && error.problem).toMatch(/^duplicate member|too large/)
          }
        } else expect(() => parseJson(text)).toThrow(JsonError)
      }),
      { numRuns: 1000 },
    )
  })

  test.each([
    ['', 'expected a value, but the document ends at line 1, column 1'],
    ['{"a":1,}', 'expected a member name in double quotes at line 1, column 8'],
    ['{"a" 1}', 'expected ":" at line 1, column 6'],
    ['[1 2]', 'expected "," or "]" at line 1, column 4'],
    ['{"a":1]', 'expected "," or "}" at line 1, column 7'],
    ['{\n  "a": tru\n}', 'expected a value at line 2, column 8'],
    ['{"a":1} x', 'expected the end of the document at line 1, column 9'],
    ['{"a":"b', 'this string is not closed at line 1, column 6'],
    ['"a\nb"', 'a control character in a string must be escaped at line 1, column 3'],
    ['"\\x"', 'expected an escape that JSON knows after \\ at line 1, column 2'],
    ['"\\u12g4"', 'expected four hexadecimal digits after \\u at line 1, column 2'],
    ['[01]', 'expected a number as JSON writes it at line 1, column 3'],
    ['[1e400]', 'this number is too large at line 1, column 2'],
    ['["😀",]', 'expected a value at line 1, column 6'],
    ["{'a':1}", 'expected a member name in double quotes at line 1, column 2'],
    ['[NaN]', 'expected a value at line 1, column 2'],
  ])('%j fails with its place: %s', (text, message) => {
    expect(failure(text)).toBe(message)
  })

  test('a member that occurs twice is named, also when one spelling is escaped and the object lies deep', () => {
    expect(failure('{"a":{"b":1,"c":2,\n"\\u0062":3}}')).toBe('duplicate member `b` at line 2, column 1')
  })

  test('the same member in two objects is no duplicate', () => {
    expect(parseJson('[{"a":1},{"a":{"a":2}}]')).toEqual([{ a: 1 }, { a: { a: 2 } }])
  })

  test('names of inherited members are members like any other, `__proto__` is refused', () => {
    expect(parseJson('{"toString":1,"constructor":2}')).toEqual(JSON.parse('{"toString":1,"constructor":2}'))
    expect(failure('{"__proto__":{"x":1}}')).toContain('`__proto__`')
  })

  test('nesting of 128 levels is read, 129 are refused', () => {
    expect(() => parseJson('['.repeat(128) + ']'.repeat(128))).not.toThrow()
    expect(failure('['.repeat(129) + ']'.repeat(129))).toBe('nested deeper than 128 levels at line 1, column 129')
    expect(failure('{"a":'.repeat(100_000))).toStartWith('nested deeper than 128 levels')
    expect(() => parseJson('[[],[],[[]]]', { depthMax: 3 })).not.toThrow()
  })

  test.each([
    '9007199254740993',
    '-9007199254740993',
    '9007199254740993.0',
    '90071992547409930e-1',
    '9223372036854775808',
    '9007199254740992.5',
  ])('%s would be another number, and is refused by name where numbers have to be exact', text => {
    const exact = () => parseJson(`{"a":{"b c":[1,${text}]}}`, { isExact: true })
    expect(exact).toThrow('the number in `a.b c` has more digits than can be kept: beyond 9007199254740992 write it as a string')
    expect(() => parseJson(text, { isExact: true })).toThrow('this number has more digits')
    expect(parseJson(text)).toBe(Number(text))
  })

  test.each([
    '9007199254740992',
    '-9007199254740991',
    '1.0',
    '1.50e3',
    '0',
    '-0.0',
    '0.1',
    '0.10000000000000000555',
    '1e30',
    '1000000000000000000000',
    '1E+300',
  ])('%s is kept where numbers have to be exact', text => {
    expect(parseJson(text, { isExact: true })).toBe(Number(text))
  })

  test('a number that is too large is named by the members around it', () => {
    expect(failure('{"a":1,"b":{"c":-1e400}}')).toBe('the number in `b.c` is too large at line 1, column 17')
  })

  test('no message holds a value of the text', () => {
    for (const text of ['{"secret":"sk-hidden" "x"}', '{"secret":"sk-hidden', '["sk-hidden",sk-hidden]']) {
      expect(failure(text)).not.toContain('hidden')
    }
  })
})
