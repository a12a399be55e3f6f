/** A resources file as plain values. */
import { isAlias, isMap, isScalar, isSeq, LineCounter, type ParsedNode, parseAllDocuments, type YAMLMap } from 'yaml'
import { printable } from '../lib/log.ts'
import { firstBadLine, isMergeKey, isStandardTag, YAML_FAULTS } from '../lib/yaml.ts'
import type { Problem } from './problem.ts'
import { isSimpleYaml } from './simple-yaml.ts'

/** Values that aliases may add: far more than a file needs, far less than an alias bomb makes. */
const ALIAS_VALUES_MAX = 10_000
const DEPTH_MAX = 64

type Read = { value: unknown } | { problems: Problem[] }

/**
 * The values of a YAML text. A text of the plainest kind is read by the runtime's reader, which takes a tenth of the time;
 * any other, and any mistake, by one that knows places.
 */
export function readYaml(bytes: Uint8Array): Read {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return { problems: [fault(`line ${firstBadLine(bytes)}: this line is not valid UTF-8; save the file as UTF-8`)] }
  }
  return isSimpleYaml(text) ? { value: Bun.YAML.parse(text) } : readCarefully(text)
}

/** The same by the careful reader alone. */
export function readCarefully(text: string): Read {
  const lines = new LineCounter()
  const place = (offset: number, message: string) => {
    const { line, col } = lines.linePos(offset)
    return fault(`line ${line || 1}, column ${col || 1}: ${message}`)
  }
  // `uniqueKeys` compares every key with every other one, and `prettyErrors` quotes the line, which may hold a secret.
  const documents = parseAllDocuments(text, {
    lineCounter: lines,
    prettyErrors: false,
    uniqueKeys: false,
    merge: true,
    intAsBigInt: true,
  })
  const faults = documents.flatMap(({ errors, warnings }) => [...errors, ...warnings])
  if (faults.length > 0) {
    // What follows on the same line follows from the first.
    const byLine = new Map<number, (typeof faults)[number]>()
    for (const each of faults) {
      const { line } = lines.linePos(each.pos[0])
      if (!byLine.has(line)) byLine.set(line, each)
    }
    const problems = Array.from(byLine.values(), ({ pos, code, message }) => {
      // A bracket that is not closed shows as the indentation of what comes next.
      const isUnclosed = code === 'BAD_INDENT' && message.includes('and end with a')
      return place(pos[0], wordsFor(isUnclosed ? 'MISSING_CHAR' : code))
    })
    return { problems }
  }
  const [document, second] = documents
  if (second) return { problems: [place(second.range?.[0] ?? 0, YAML_FAULTS.MULTIPLE_DOCS ?? '')] }
  if (!document?.contents || (isScalar(document.contents) && document.contents.value === null)) return { value: null }
  const walk = new Walk(place)
  try {
    const value = walk.value(document.contents, [])
    return walk.problems.length > 0 ? { problems: walk.problems } : { value }
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error
    return { problems: [...walk.problems, error.problem] }
  }
}

function fault(message: string): Problem {
  return { scope: undefined, message, reason: 'yaml' }
}

function wordsFor(code: string): string {
  return YAML_FAULTS[code] ?? 'not valid YAML: expected keys with values, as in `display_name: llama-3`'
}

/** Reading cannot go on behind this. */
class Unreadable extends Error {
  constructor(readonly problem: Problem) {
    super(problem.message)
  }
}

/** One pass over the nodes of a document, in its order, so that an alias finds the anchor that stands before it. */
class Walk {
  readonly problems: Problem[] = []
  private readonly anchors = new Map<string, ParsedNode>()
  private readonly open = new Set<ParsedNode>()
  private aliasValues = 0
  private aliasDepth = 0

  constructor(private readonly place: (offset: number, message: string) => Problem) {}

  value(node: ParsedNode, path: readonly (string | number)[]): unknown {
    if (path.length > DEPTH_MAX) throw this.unreadable(node, 'nested too deeply')
    if (this.aliasDepth > 0) this.aliasValues += 1
    if (this.aliasValues > ALIAS_VALUES_MAX) {
      throw this.unreadable(node, `aliases stand for more than ${ALIAS_VALUES_MAX} values; write them out`)
    }
    if (isAlias(node)) return this.alias(node, path)
    this.tagged(node)
    if (node.anchor !== undefined) this.anchors.set(node.anchor, node)
    this.open.add(node)
    try {
      if (isMap(node)) return this.mapping(node, path)
      if (isSeq(node)) return node.items.map((item, i) => this.value(item, [...path, i]))
      return this.scalar(node, path)
    } finally {
      this.open.delete(node)
    }
  }

  private scalar(node: ParsedNode, path: readonly (string | number)[]): unknown {
    if (!isScalar(node)) return null
    const { value } = node
    if (typeof value === 'bigint') {
      const number = Number(value)
      // Digits that a number is written with stand for it, though they may not be all that it has.
      if (Number.isFinite(number) && (BigInt(number) === value || String(number) === String(value))) return number
      this.report(node, `${told(path)}has more digits than a number can keep; put it in quotes if it is text`)
      return 0
    }
    if (typeof value === 'number' && !Number.isFinite(value)) {
      this.report(node, `${told(path)}is no number that there can be here; put it in quotes if it is text`)
      return 0
    }
    return value
  }

  /** A key given twice is a problem: one of the two values would be lost. */
  private mapping(node: YAMLMap.Parsed, path: readonly (string | number)[]): Record<string, unknown> {
    // Without prototype, so that no key of a file means anything special.
    const own: Record<string, unknown> = Object.create(null)
    const merged: Record<string, unknown>[] = []
    for (const { key, value } of node.items) {
      this.tagged(key)
      if (isMergeKey(key)) {
        merged.push(...this.merge(value, path))
      } else if (!isScalar(key) || typeof key.value !== 'string') {
        this.report(key, 'expected a key in words; put a key that looks like a number in quotes')
      } else if (Object.hasOwn(own, key.value)) {
        this.report(key, `the key \`${printable(key.value)}\` occurs twice in this mapping; remove one of the two`)
      } else {
        own[key.value] = value === null ? null : this.value(value, [...path, key.value])
      }
    }
    for (const other of merged) for (const name of Object.keys(other)) own[name] ??= other[name]
    return own
  }

  /** What `<<` brings in: the keys of one mapping, or of several, of which the first that has a key wins. */
  private merge(value: ParsedNode | null, path: readonly (string | number)[]): Record<string, unknown>[] {
    const target = isAlias(value) ? this.anchors.get(value.source) : value
    const parts = isSeq(target) ? target.items : [value]
    return parts.map(part => {
      const node = isAlias(part) ? this.anchors.get(part.source) : part
      if (!part || !isMap(node)) throw this.unreadable(part ?? value, 'expected a mapping, or the alias of one, after `<<:`')
      if (this.open.has(node)) throw this.unreadable(part, INSIDE)
      this.aliasDepth += 1
      const members = this.mapping(node, path)
      this.aliasDepth -= 1
      return members
    })
  }

  private alias(node: ParsedNode & { source: string }, path: readonly (string | number)[]): unknown {
    const target = this.anchors.get(node.source)
    if (!target) throw this.unreadable(node, 'an alias (`*…`) whose anchor (`&…`) does not stand before it')
    if (this.open.has(target)) throw this.unreadable(node, INSIDE)
    this.aliasDepth += 1
    const value = this.value(target, path)
    this.aliasDepth -= 1
    return value
  }

  private tagged(node: ParsedNode): void {
    if (!isStandardTag(node.tag)) throw this.unreadable(node, wordsFor('TAG_RESOLVE_FAILED'))
  }

  private report(node: ParsedNode, message: string): void {
    this.problems.push(this.place(node.range[0], message))
  }

  private unreadable(node: ParsedNode | null, message: string): Unreadable {
    return new Unreadable(this.place(node?.range[0] ?? 0, message))
  }
}

const INSIDE = 'an alias that stands inside what it stands for'

/** The place of a value for a message, with a blank behind it. */
function told(path: readonly (string | number)[]): string {
  return path.length === 0 ? 'this ' : `\`${path.map(part => printable(String(part))).join('.')}\` `
}
