import { RE2JS } from 're2js'

/**
 * A regular expression of an operator's, unanchored. Syntax and matching are RE2's, whose time is linear in the text: no
 * pattern can stall the gateway.
 * throws: PatternError with the reason, when it does not compile
 */
export function compilePattern(source: string, { ignoreCase }: { ignoreCase: boolean }): (text: string) => boolean {
  try {
    const pattern = RE2JS.compile(source, ignoreCase ? RE2JS.CASE_INSENSITIVE : 0)
    return text => pattern.matcher(text).find()
  } catch (error) {
    throw new PatternError(error instanceof Error ? error.message : String(error), { cause: error })
  }
}

export class PatternError extends Error {}
