/** Where the catalog comes from: the file that an operator imported, beside the store, else what the executable carries. */
import { closeSync, fstatSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { parseJson } from '../lib/json.ts'
import { type CatalogDocument, CatalogError, readCatalog, CatalogDocument as Schema } from './catalog.ts'
import snapshot from './catalog-snapshot.json' with { type: 'file' }

export interface Catalog {
  /** The catalog as it is now. throws: CatalogUnreadable */
  load(): Promise<CatalogDocument>
}

/** The imported file cannot be used. The message says why and what to do, and holds no path but its name. */
export class CatalogUnreadable extends Error {}

const CATALOG_BYTES_MAX = 32 * 1024 * 1024

export function catalogPath(storePath: string): string {
  return join(dirname(storePath), 'catalog.json')
}

/**
 * Nothing is read before somebody asks; then the file is looked at each time, and read anew when it is another one.
 * in: `path`, that of `catalogPath`
 */
export function createCatalog(path: string): Catalog {
  let held: { version: string; document: CatalogDocument } | undefined
  return {
    async load() {
      const version = await versionOf(path)
      if (held?.version === version) return held.document
      const document = version === EMBEDDED ? await embedded() : await readFile(path)
      held = { version, document }
      return document
    },
  }
}

const EMBEDDED = 'embedded'
/**
 * The executable carries the snapshot as a file of its own, outside its code: it costs nothing where nobody asks. The compiler
 * takes the import for the document; what the runtime hands over is a path.
 */
const EMBEDDED_PATH = String(snapshot)

/** Tells one file at the path from the next. */
async function versionOf(path: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeNs } = await stat(path, { bigint: true })
    return `${dev}:${ino}:${size}:${mtimeNs}`
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return EMBEDDED
    throw unreadable(`cannot be looked at (${codeOf(error)})`)
  }
}

async function embedded(): Promise<CatalogDocument> {
  return Schema.parse(await Bun.file(EMBEDDED_PATH).json())
}

async function readFile(path: string): Promise<CatalogDocument> {
  let text: string
  try {
    const file = Bun.file(path)
    if (file.size > CATALOG_BYTES_MAX) throw unreadable(`is larger than ${CATALOG_BYTES_MAX} bytes`)
    text = await file.text()
  } catch (error) {
    if (error instanceof CatalogUnreadable) throw error
    const reason = codeOf(error) === 'EACCES' ? 'permission denied to the user that runs the gateway' : codeOf(error)
    throw unreadable(`cannot be read (${reason})`)
  }
  try {
    return Schema.parse(JSON.parse(text))
  } catch {
    throw unreadable('is no catalog')
  }
}

/**
 * The catalog in a file that an operator names.
 * in: `source`, what to call it where it does not tell
 * throws: CatalogError, JsonError, or an error of the system with `code`
 */
export function readCatalogFile(path: string, { source, now }: { source: string; now: Date }): CatalogDocument {
  const time = now.toISOString()
  const document = parseJson(readText(path))
  const catalog = readCatalog(document, { source, today: time.slice(0, 10) })
  return { ...catalog, imported_at: `${time.slice(0, 19)}Z` }
}

function readText(path: string): string {
  const file = openSync(path, 'r')
  try {
    const status = fstatSync(file)
    if (status.isDirectory()) throw Object.assign(new Error('is a directory'), { code: 'EISDIR' })
    if (status.size > CATALOG_BYTES_MAX) throw new CatalogError([`is larger than ${CATALOG_BYTES_MAX} bytes`])
    const bytes = readFileSync(file)
    if (bytes.length > CATALOG_BYTES_MAX) throw new CatalogError([`is larger than ${CATALOG_BYTES_MAX} bytes`])
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (error) {
    if (error instanceof TypeError) throw new CatalogError(['is not UTF-8 text'])
    throw error
  } finally {
    closeSync(file)
  }
}

function unreadable(problem: string): CatalogUnreadable {
  return new CatalogUnreadable(
    `catalog.json beside the store ${problem}; import it again with \`aisix catalog import\`, or remove it`,
  )
}

function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : 'unknown error'
}

/**
 * Puts a catalog in the place of the one at the path, whole or not at all: a reader sees the old file or the new one.
 * throws: an error of the system, with `code`; the old file is then as it was
 */
export function replaceCatalog(path: string, document: CatalogDocument): void {
  const staged = join(dirname(path), `.${basename(path)}.${process.pid}.new`)
  try {
    const file = openSync(staged, 'wx', 0o600)
    try {
      writeFileSync(file, renderCatalog(document))
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(staged, path)
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') rmSync(staged, { force: true })
    throw error
  }
  const folder = openSync(dirname(path), 'r')
  fsyncSync(folder)
  closeSync(folder)
}

/** JSON with one model a line, so that two of them can be compared line by line. */
export function renderCatalog({ models, ...head }: CatalogDocument): string {
  const lines = models.map(model => JSON.stringify(model)).join(',\n')
  return `${JSON.stringify(head).slice(0, -1)},"models":[\n${lines}\n]}\n`
}
