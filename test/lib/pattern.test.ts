import { describe, expect, test } from 'bun:test'
import { compilePattern, PatternError } from '../../src/lib/pattern.ts'

const matches = (source: string, text: string, ignoreCase = false) => compilePattern(source, { ignoreCase })(text)

describe('compilePattern', () => {
  test.each([
    ['llama', 'meta-llama/Llama-3.1-8B', true],
    ['^llama', 'meta-llama/Llama-3.1-8B', false],
    ['-(7|8|13)b$', 'llama-3-8b', true],
    ['-(7|8|13)b$', 'llama-3-8b-instruct', false],
    ['LLAMA', 'llama', false],
    ['', 'anything', true],
    ['^$', '', true],
    ['^\\pL+$', 'größe', true],
    ['.', '\u{1f600}', true],
  ])('%p is looked for anywhere in %p: %p', (source, text, expected) => {
    expect(matches(source, text)).toBe(expected)
  })

  test('letter case is ignored where that is asked for, beyond ASCII too', () => {
    expect(matches('^LLAMA-ÄÖ$', 'llama-äö', true)).toBe(true)
  })

  test('a matcher may be used again, and keeps nothing between texts', () => {
    const isMatch = compilePattern('a+$', { ignoreCase: false })
    expect(['aa', 'ab', 'aa', '', 'a'].map(isMatch)).toEqual([true, false, true, false, true])
  })

  test.each(['(', '[a', '*a', 'a{2,1}', '(?=a)', '(?!a)', '(?<=a)b', '(a)\\1', 'a{1001}', '((a{100}){100}){100}', '\\8'])(
    '%p does not compile',
    source => {
      expect(() => compilePattern(source, { ignoreCase: false })).toThrow(PatternError)
    },
  )

  test.each(['x{0,999}[yz]', '(?:x{0,99}){0,10}[yz]', '[xw]{0,700}'])('%p is too large once it is written out', source => {
    expect(() => compilePattern(source, { ignoreCase: false })).toThrow(PatternError)
  })

  test('time grows with the text and no faster, for patterns that make engines that backtrack explode', () => {
    // An engine that backtracks needs about 2^n steps: for 40 characters already longer than any test may run.
    for (const source of ['^(a+)+$', '^(a|aa)+$', '^(a|a)*$', '(x+x+)+y', '^(.*)*$\\n']) {
      expect(matches(source, `${'a'.repeat(5_000)}!`)).toBe(false)
    }
  })
})
