/** Reads a configuration file: bytes to a tree of plain values, with the place of each. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { extname } from 'node:path'
import { isAlias, isMap, isScalar, isSeq, LineCounter, type ParsedNode, parseAllDocuments, type YAMLMap } from 'yaml'
import { interpolate } from '../lib/interpolate.ts'
import { JsonError, parseJson } from '../lib/json.ts'
import { printable } from '../lib/log.ts'
import { readProblem } from '../lib/read-problem.ts'
import { firstBadLine, isMergeKey, isStandardTag, YAML_FAULTS } from '../lib/yaml.ts'
import { ConfigError, joinPath, type Origins, type Problem } from './problems.ts'

/** A mapping without prototype, so that no key of a file means anything special. */
export type Tree = { [key: string]: unknown }
export type Environment = Readonly<Record<string, string | undefined>>
/** Bytes of a file. throws: an error of the system, with `code` */
export type ReadFile = (path: string) => Uint8Array

/** `broken` lists the paths whose text names a variable that is not there: what else may be wrong with them says nothing. */
export type ConfigFile = { tree: Tree; origins: Origins; problems: Problem[]; broken: Set<string> }

export const FILE_BYTES_MAX = 1024 * 1024

/** Values that aliases may add: far more than any real file has, far less than an alias bomb. */
const ALIAS_VALUES_MAX = 10_000
const DEPTH_MAX = 64

export function emptyTree(): Tree {
  return Object.create(null)
}

/** A file of at most FILE_BYTES_MAX bytes and one more: enough to see that it is too large, whatever its kind. */
export function readBounded(path: string): Uint8Array {
  const file = openSync(path, 'r')
  try {
    if (fstatSync(file).isDirectory()) throw Object.assign(new Error('is a directory'), { code: 'EISDIR' })
    const bytes = new Uint8Array(FILE_BYTES_MAX + 1)
    let length = 0
    while (length < bytes.length) {
      const got = readSync(file, bytes, length, bytes.length - length, null)
      if (got === 0) break
      length += got
    }
    return bytes.subarray(0, length)
  } finally {
    closeSync(file)
  }
}

/**
 * The values of a YAML or JSON file, by its extension. `null` counts as not given: the key is there, its value undefined.
 * throws: ConfigError when there is no tree to speak of: unreadable, too large, not text, not well-formed, not a mapping
 */
export function readConfigFile(path: string, env: Environment, readFile: ReadFile): ConfigFile {
  return readTree(path, readFile, text => interpolate(text, env))
}

/** The same of a file in which texts mean something else: `expand` gives the value of each, or throws what is wrong with it. */
export function readTree(path: string, readFile: ReadFile, expand: (text: string) => string): ConfigFile {
  const extension = extname(path).toLowerCase()
  if (extension === '.toml') throw new ConfigError([`${path}: TOML is not supported; write the same keys as YAML or JSON`])
  if (!['.yaml', '.yml', '.json', ''].includes(extension)) {
    throw new ConfigError([`${path}: expected a file named .yaml, .yml or .json`])
  }
  const text = readText(path, readFile)
  const lines = new LineCounter()
  const fail = (offset: number, problem: string): never => {
    const { line, col } = lines.linePos(offset)
    throw new ConfigError([`${path}:${line || 1}:${col || 1}: ${problem}`])
  }
  if (extension === '.json') checkJson(path, text)
  return readYaml(path, text, expand, lines, fail)
}

function readText(path: string, readFile: ReadFile): string {
  let bytes: Uint8Array
  try {
    bytes = readFile(path)
  } catch (error) {
    throw new ConfigError([`${path}: ${readProblem(error)}`])
  }
  if (bytes.length > FILE_BYTES_MAX) throw new ConfigError([`${path}: is larger than 1 MiB; a configuration is far smaller`])
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new ConfigError([`${path}:${firstBadLine(bytes)}:1: this line is not valid UTF-8; save the file as UTF-8`])
  }
}

type Fail = (offset: number, problem: string) => never

/** JSON is a subset of YAML, so that one reader gives the places of both once the text is known to be JSON. */
function checkJson(path: string, text: string): void {
  try {
    parseJson(text)
  } catch (error) {
    if (!(error instanceof JsonError)) throw error
    throw new ConfigError([`${path}:${error.line}:${error.column}: not valid JSON: ${error.problem}`])
  }
}

function readYaml(path: string, text: string, expand: (text: string) => string, lines: LineCounter, fail: Fail): ConfigFile {
  // `uniqueKeys` compares every key with every other one, and `prettyErrors` quotes the line, which may hold a secret.
  const documents = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: false, merge: true })
  const file: ConfigFile = { tree: emptyTree(), origins: new Map(), problems: [], broken: new Set() }
  file.origins.set('', { from: 'file', path, line: 1, column: 1 })
  for (const document of documents) {
    const fault = document.errors[0] ?? document.warnings[0]
    if (fault)
      fail(fault.pos[0], YAML_FAULTS[fault.code] ?? 'not valid YAML: expected keys with values, as in `addr: "0.0.0.0:3000"`')
  }
  const [document, second] = documents
  if (second) fail(second.range?.[0] ?? 0, 'expected one YAML document; remove the line `---` and what follows it')
  if (!document?.contents || (isScalar(document.contents) && document.contents.value === null)) return file
  const root = document.contents
  if (!isMap(root)) return fail(root.range[0], 'expected a mapping of keys to values, such as `proxy:`')
  file.tree = new Walk(path, expand, lines, fail, file).mapping(root, [])
  return file
}

/** One pass over the nodes of a document, in its order, so that an alias finds the anchor that stands before it. */
class Walk {
  private readonly anchors = new Map<string, ParsedNode>()
  private readonly open = new Set<ParsedNode>()
  private aliasValues = 0
  private aliasDepth = 0

  constructor(
    private readonly path: string,
    private readonly expand: (text: string) => string,
    private readonly lines: LineCounter,
    private readonly fail: Fail,
    private readonly file: ConfigFile,
  ) {}

  /** A mapping as a tree. A key given twice is a problem: one of the two values would be lost. */
  mapping(node: YAMLMap.Parsed, segments: readonly PropertyKey[]): Tree {
    const tree = emptyTree()
    const merged: Tree[] = []
    const seen = new Set<string>()
    for (const { key, value } of node.items) {
      const offset = key.range[0]
      this.tagged(key)
      if (isMergeKey(key)) {
        merged.push(...this.merge(value, segments))
        continue
      }
      if (!isScalar(key) || typeof key.value !== 'string') {
        this.report(segments, offset, 'expected a key in words; put a key that looks like a number in quotes')
        continue
      }
      const member = [...segments, key.value]
      if (seen.has(key.value)) {
        this.report(member, offset, 'the key occurs twice in this mapping; remove one of the two')
        continue
      }
      seen.add(key.value)
      // Within an alias the place of use says more than the place of the anchor, which may serve many.
      if (this.aliasDepth === 0) this.locate(member, offset)
      // A key without value counts as not given, and has to be there all the same: the schema refuses unknown ones.
      tree[key.value] = (value === null ? undefined : this.value(value, member)) ?? undefined
    }
    for (const other of merged) {
      for (const key of Object.keys(other)) tree[key] ??= other[key]
    }
    return tree
  }

  /** What `<<` brings in: the keys of one mapping, or of several, of which the first that has a key wins. */
  private merge(value: ParsedNode | null, segments: readonly PropertyKey[]): Tree[] {
    const target = isAlias(value) ? this.anchors.get(value.source) : value
    const parts = isSeq(target) ? target.items : [value]
    const trees: Tree[] = []
    for (const part of parts) {
      const node = isAlias(part) ? this.anchors.get(part.source) : part
      if (!part || !isMap(node)) this.fail(part?.range[0] ?? 0, 'expected a mapping, or the alias of one, after `<<:`')
      else {
        this.aliasDepth += 1
        const tree = this.value(part, segments)
        this.aliasDepth -= 1
        if (isTree(tree)) trees.push(tree)
      }
    }
    return trees
  }

  private value(node: ParsedNode, segments: readonly PropertyKey[]): unknown {
    if (segments.length > DEPTH_MAX) return this.fail(node.range[0], 'nested too deeply')
    if (this.aliasDepth > 0) this.aliasValues += 1
    if (this.aliasValues > ALIAS_VALUES_MAX) {
      return this.fail(node.range[0], `aliases stand for more than ${ALIAS_VALUES_MAX} values; write them out`)
    }
    if (isAlias(node)) return this.alias(node.source, node.range[0], segments)
    this.tagged(node)
    if (node.anchor !== undefined) this.anchors.set(node.anchor, node)
    this.open.add(node)
    const value = this.plain(node, segments)
    this.open.delete(node)
    return value
  }

  private plain(node: Exclude<ParsedNode, { source: string; range: never }>, segments: readonly PropertyKey[]): unknown {
    if (isMap(node)) return this.mapping(node, segments)
    if (isSeq(node)) {
      return node.items.map((item, i) => {
        const member = [...segments, i]
        if (this.aliasDepth === 0) this.locate(member, item.range[0])
        return this.value(item, member)
      })
    }
    if (!isScalar(node)) return undefined
    if (typeof node.value !== 'string') return node.value
    try {
      return this.expand(node.value)
    } catch (error) {
      this.report(segments, node.range[0], error instanceof Error ? error.message : String(error))
      this.file.broken.add(joinPath(segments))
      return ''
    }
  }

  private alias(name: string, offset: number, segments: readonly PropertyKey[]): unknown {
    const target = this.anchors.get(name)
    if (!target) return this.fail(offset, 'an alias (`*…`) whose anchor (`&…`) does not stand before it')
    if (this.open.has(target)) return this.fail(offset, 'an alias that stands inside what it stands for')
    this.aliasDepth += 1
    const value = this.value(target, segments)
    this.aliasDepth -= 1
    return value
  }

  private tagged(node: ParsedNode): void {
    if (!isStandardTag(node.tag)) this.fail(node.range[0], YAML_FAULTS.TAG_RESOLVE_FAILED ?? '')
  }

  private locate(segments: readonly PropertyKey[], offset: number): void {
    const { line, col } = this.lines.linePos(offset)
    this.file.origins.set(joinPath(segments), { from: 'file', path: this.path, line, column: col })
  }

  private report(segments: readonly PropertyKey[], offset: number, text: string): void {
    const { line, col } = this.lines.linePos(offset)
    const origin = { from: 'file' as const, path: this.path, line, column: col }
    this.file.problems.push({ origin, path: printable(joinPath(segments)), text })
  }
}

/** True for what a mapping was read into. */
export function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
