import { type Command, done, failed, type Output } from './command.ts'

export const hashKey: Command = {
  words: ['hash-key'],
  summary: 'print the hash of the key on standard input',
  about: `Reads a plaintext key on standard input and prints its SHA-256, the \`key_hash\` of a caller's key.
One line break at the end is not part of the key.`,
  examples: ['printf \'%s\' "$KEY" | aisix hash-key'],
  async run(_given, io) {
    return runHashKey(await io.stdin())
  },
}

/**
 * Prints the `key_hash` of a key: the lowercase hexadecimal SHA-256 of its bytes, whatever they are.
 * in: standard input as a whole; one line break at its end (LF or CRLF) is not part of the key
 */
export function runHashKey(input: Uint8Array): Output {
  const key = withoutLineBreak(input)
  if (key.length === 0) {
    return failed('aisix hash-key: expected a key on standard input, as in: printf \'%s\' "$KEY" | aisix hash-key\n')
  }
  const isBlank = (byte: number | undefined) => byte === 0x20
  const isUsable = !isBlank(key[0]) && !isBlank(key.at(-1)) && key.every(byte => byte >= 0x20 && byte <= 0x7e)
  const warning =
    'aisix hash-key: warning: the key begins or ends with white space, or holds a control character or one that is not ASCII; no request could present it\n'
  return done(`${new Bun.CryptoHasher('sha256').update(key).digest('hex')}\n`, isUsable ? '' : warning)
}

/** Standard input without the one line break that tools put at the end. */
export function withoutLineBreak(input: Uint8Array): Uint8Array {
  if (input.at(-1) !== 0x0a) return input
  return input.subarray(0, input.at(-2) === 0x0d ? -2 : -1)
}
