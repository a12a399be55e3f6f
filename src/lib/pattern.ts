import { RE2JS } from 're2js'

/**
 * Instructions of a compiled pattern. Linear time is linear in the text and in these: a dozen characters such as `x{0,999}`
 * make two thousand of them, and a text of 256 characters then takes 8 ms.
 */
const INSTRUCTIONS_MAX = 1_000

/**
 * A regular expression of an operator's, unanchored. Syntax and matching are RE2's, whose time is linear in the text: no
 * pattern can stall the gateway.
 * throws: PatternError with the reason, when it does not compile
 */
export function compilePattern(source: string, { ignoreCase }: { ignoreCase: boolean }): (text: string) => boolean {
  try {
    const pattern = RE2JS.compile(source, ignoreCase ? RE2JS.CASE_INSENSITIVE : 0)
    if (pattern.programSize() > INSTRUCTIONS_MAX) throw tooLarge()
    return text => pattern.matcher(text).find()
  } catch (error) {
    if (error instanceof PatternError) throw error
    throw new PatternError(error instanceof Error ? error.message : String(error), { cause: error })
  }
}

export class PatternError extends Error {
  /** Whether it is a pattern, but one that would take too long. */
  isTooLarge = false
}

function tooLarge(): PatternError {
  const error = new PatternError('it is too large once its repetitions are written out')
  error.isTooLarge = true
  return error
}
