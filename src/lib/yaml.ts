/** What readers of YAML for operators share: words for its faults, and what they do alike with odd nodes. */
import { isScalar, type ParsedNode } from 'yaml'

/** Tags that say what the value is anyway. */
const TAGS_KNOWN = new Set(['str', 'int', 'float', 'bool', 'null', 'map', 'seq'].map(name => `tag:yaml.org,2002:${name}`))

/** Whether a node has no tag, or one that changes nothing. */
export function isStandardTag(tag: string | undefined): boolean {
  return tag === undefined || TAGS_KNOWN.has(tag)
}

/** Whether a key is `<<`, which brings in the keys of other mappings. */
export function isMergeKey(key: ParsedNode): boolean {
  return isScalar(key) && key.type === 'PLAIN' && key.source === '<<'
}

/** What an operator should look for, by the code of the parser's error. */
export const YAML_FAULTS: { readonly [code: string]: string } = {
  TAB_AS_INDENT: 'a tab in the indentation: YAML allows only spaces there',
  BAD_INDENT: 'wrong indentation: keys of one mapping start in the same column',
  TAG_RESOLVE_FAILED: 'unknown tag (`!…`): remove it; quote the value if it begins with an exclamation mark',
  BAD_DIRECTIVE: 'unknown directive: remove the line that begins with %',
  BAD_DQ_ESCAPE: 'invalid escape sequence: write \\\\ for a backslash, or use single quotes',
  BAD_SCALAR_START: 'a value cannot begin with this character: put the value in quotes',
  BLOCK_AS_IMPLICIT_KEY: 'a second colon where a value was expected: put the value in quotes',
  MISSING_CHAR: 'a closing quote, bracket or comma is missing before this place',
  MULTILINE_IMPLICIT_KEY: 'expected `key: value`: is the colon missing?',
  MULTIPLE_DOCS: 'expected one YAML document; remove the line `---` and what follows it',
  RESOURCE_EXHAUSTION: 'nested too deeply',
  UNEXPECTED_TOKEN: 'unexpected text: put a value that holds special characters, such as ${NAME} within braces, in quotes',
}

/** The first line that is no UTF-8: lines can be told apart in any case, a newline is no part of a longer character. */
export function firstBadLine(bytes: Uint8Array): number {
  let line = 1
  for (let start = 0; start < bytes.length; line++) {
    const newline = bytes.indexOf(10, start)
    const end = newline < 0 ? bytes.length : newline
    try {
      new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(start, end))
    } catch {
      return line
    }
    start = end + 1
  }
  return line
}
