import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { costPico, picoOf, priceOf, usdText } from '../../src/pricing/price.ts'

describe('picoOf', () => {
  test.each([
    [0, 0n],
    [0.1, 100_000_000_000n],
    [0.3, 300_000_000_000n],
    [1e-7, 100_000n],
    [1.5e-12, 2n],
    [1e-13, 0n],
    [123456.789, 123_456_789_000_000_000n],
    [1e21, 10n ** 33n],
  ])('%p dollars are %p', (usd, pico) => {
    expect(picoOf(usd)).toBe(pico)
  })

  test('reads the digits as they were written', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 999_999 }), fc.integer({ min: 0, max: 999_999_999 }), (whole, fraction) => {
        const text = `${whole}.${String(fraction).padStart(9, '0')}`
        expect(picoOf(Number(text))).toBe(BigInt(whole) * 10n ** 12n + BigInt(fraction) * 1_000n)
      }),
    )
  })
})

describe('costPico', () => {
  test('is exact where floating point is not', () => {
    // 0.1 + 0.2 of a dollar a thousand: a million tokens cost exactly three hundred dollars.
    expect(costPico(priceOf(0.1, 0.2), 1_000_000, 1_000_000)).toBe(300 * 1e12)
  })

  test('rounds half a picodollar up, once', () => {
    // 1e-10 a thousand is a tenth of a picodollar a token.
    const price = priceOf(1e-10, 0)
    expect([4, 5, 14, 15].map(tokens => costPico(price, tokens, 0))).toEqual([0, 1, 1, 2])
  })

  test('the quick way and the exact way agree, and sums are sums', () => {
    const tokens = fc.integer({ min: 0, max: 10_000_000 })
    const price = fc.integer({ min: 0, max: 10_000_000 }).map(micro => Number(`${micro}e-6`))
    fc.assert(
      fc.property(price, price, tokens, tokens, (input, output, prompt, completion) => {
        const exact = (picoOf(input) * BigInt(prompt) + picoOf(output) * BigInt(completion) + 500n) / 1000n
        const most = BigInt(Number.MAX_SAFE_INTEGER)
        expect(BigInt(costPico(priceOf(input, output), prompt, completion))).toBe(exact > most ? most : exact)
      }),
    )
  })
})

describe('usdText', () => {
  test.each([
    [0n, '0'],
    [1n, '0.000000000001'],
    [4_950_000_000n, '0.00495'],
    [10n ** 12n, '1'],
    [123_456_789_012_345n, '123.456789012345'],
    [-1_500_000_000_000n, '-1.5'],
  ])('%p', (pico, text) => {
    expect(usdText(pico)).toBe(text)
  })
})
