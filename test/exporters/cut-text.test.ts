import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { cutText } from '../../src/exporters/cut-text.ts'

test('of any text what is left is well-formed, no longer than allowed, a beginning, and as long as it can be', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', maxLength: 60 }), fc.integer({ min: 1, max: 100 }), (text, bytesMax) => {
      const whole = text.toWellFormed()
      const cut = cutText(whole, bytesMax)
      const bytes = Buffer.byteLength(cut)
      expect(cut.isWellFormed()).toBe(true)
      expect(bytes).toBeLessThanOrEqual(bytesMax)
      expect(whole.startsWith(cut)).toBe(true)
      const next = String.fromCodePoint(whole.codePointAt(cut.length) ?? 0)
      if (cut !== whole) expect(bytes + Buffer.byteLength(next)).toBeGreaterThan(bytesMax)
    }),
  )
})

test('a half character within is replaced, and one at the end left out', () => {
  expect(cutText('a\ud83db', 100)).toBe('a\ufffdb')
  expect(cutText('ab\ud83d', 100)).toBe('ab')
  expect(cutText('', 1)).toBe('')
  expect(cutText('😀', 3)).toBe('')
})
