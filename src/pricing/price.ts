/** Money is whole picodollars (10⁻¹² USD): sums are exact, and a million requests cost a million times one. */
export const PICO_PER_USD = 1_000_000_000_000n

/**
 * The exact picodollars of a decimal number, read from its text and not from its binary approximation: 0.1 is
 * 100,000,000,000. A number's text is the shortest that means it, which is how its author wrote it.
 * in: zero or more; digits beyond the twelfth decimal are rounded half up
 */
export function picoOf(usd: number): bigint {
  const { digits, scale } = decimalOf(usd)
  const shift = 12 - scale
  if (shift >= 0) return digits * 10n ** BigInt(shift)
  const divisor = 10n ** BigInt(-shift)
  return (digits + divisor / 2n) / divisor
}

/** digits × 10^-scale, from a number's text. */
function decimalOf(value: number): { digits: bigint; scale: number } {
  const [mantissa = '0', exponent = '0'] = String(value).split('e')
  const [whole = '0', fraction = ''] = mantissa.split('.')
  return { digits: BigInt(whole + fraction), scale: fraction.length - Number(exponent) }
}

/** What tokens of a model cost: exact for every price of up to fifteen decimals per 1,000 tokens. */
export type Price = {
  /** Femtodollars a token of the prompt, and of the completion: 10⁻¹⁵ USD, so that a thousandth of a price is whole. */
  inputFemto: bigint
  outputFemto: bigint
  /** The same as numbers, where products of any usual request are exact in them. */
  input: number
  output: number
}

/** in: USD per 1,000 tokens */
export function priceOf(inputPer1k: number, outputPer1k: number): Price {
  // A thousandth of a picodollar is a femtodollar: pico per 1,000 tokens is femto per token, digit for digit.
  const inputFemto = picoOf(inputPer1k)
  const outputFemto = picoOf(outputPer1k)
  return { inputFemto, outputFemto, input: Number(inputFemto), output: Number(outputFemto) }
}

/**
 * What a request costs, in picodollars, rounded half up from the exact sum of both parts.
 * returns: at most Number.MAX_SAFE_INTEGER, nine thousand dollars: no request comes near
 */
export function costPico(price: Price, promptTokens: number, completionTokens: number): number {
  const femto = price.input * promptTokens + price.output * completionTokens
  // The quick way is exact as long as everything in it is: below 2^53 a sum of products of whole numbers is.
  if (femto <= Number.MAX_SAFE_INTEGER - 500) return Math.floor((femto + 500) / 1000)
  const exact = (price.inputFemto * BigInt(promptTokens) + price.outputFemto * BigInt(completionTokens) + 500n) / 1000n
  return exact > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(exact)
}

/** Dollars as decimal text, all digits: `0.000123`. */
export function usdText(pico: bigint): string {
  const sign = pico < 0n ? '-' : ''
  const magnitude = pico < 0n ? -pico : pico
  const whole = magnitude / PICO_PER_USD
  const fraction = (magnitude % PICO_PER_USD).toString().padStart(12, '0').replace(/0+$/, '')
  return `${sign}${whole}${fraction === '' ? '' : `.${fraction}`}`
}
