/** A resources file off the disk: read whole, parsed and checked. Source: control-resources-file §5, §6. */
import { closeSync, fstatSync, openSync, readSync, statSync } from 'node:fs'
import { readProblem } from '../lib/read-problem.ts'
import { type Checked, checkResources, type Environment } from './check.ts'
import type { Problem } from './problem.ts'
import { readYaml } from './yaml.ts'

/** Four hundred thousand caller keys; what a thread can parse without taking the memory of the machine. */
export const FILE_BYTES_MAX = 64 * 1024 * 1024

/** How often a file that changes under the reader is read again, and how long it is left alone in between. */
const ATTEMPTS = 20
const PAUSE_MS = 25

/** `hash`: hexadecimal SHA-256 of the bytes; undefined where they could not be had. */
export type Loaded = Checked & { hash: string | undefined }

/**
 * Reads and checks a resources file. It is taken only as it stood still from the first byte read to the end of the checks:
 * one that is being written is read again.
 */
export function loadResources(path: string, env: Environment): Loaded {
  for (let attempt = 1; ; attempt++) {
    let source: Source
    try {
      source = read(path)
    } catch (error) {
      return refused(error instanceof TooLarge ? error.message : readProblem(error))
    }
    const { bytes, state } = source
    if (state !== undefined) {
      const read = readYaml(bytes)
      const checked = 'problems' in read ? { ...NOTHING, problems: read.problems } : checkResources(read.value, env)
      if (isStill(path, state)) return { ...checked, hash: new Bun.CryptoHasher('sha256').update(bytes).digest('hex') }
    }
    if (attempt >= ATTEMPTS) return refused('the file changes while it is read; write it elsewhere and move it into place')
    Bun.sleepSync(PAUSE_MS)
  }
}

const NOTHING = { entries: [], warnings: [], sources: new Map<string, string>() }

function refused(message: string): Loaded {
  const problem: Problem = { scope: undefined, message, reason: 'fetch' }
  return { ...NOTHING, problems: [problem], hash: undefined }
}

class TooLarge extends Error {}

/** `state`: what the file was like before and after; undefined where that differs. */
type Source = { bytes: Uint8Array; state: string | undefined }

/** throws: TooLarge; an error of the system, with `code` */
function read(path: string): Source {
  const file = openSync(path, 'r')
  try {
    const before = fstatSync(file, { bigint: true })
    if (before.isDirectory()) throw Object.assign(new Error('is a directory'), { code: 'EISDIR' })
    if (before.size > FILE_BYTES_MAX) throw new TooLarge(`is larger than ${FILE_BYTES_MAX / 1024 / 1024} MiB`)
    const chunks: Uint8Array[] = []
    let length = 0
    for (;;) {
      const chunk = new Uint8Array(Math.max(65_536, Number(before.size) - length + 1))
      const got = readSync(file, chunk, 0, chunk.length, null)
      if (got === 0) break
      chunks.push(chunk.subarray(0, got))
      length += got
      if (length > FILE_BYTES_MAX) throw new TooLarge(`is larger than ${FILE_BYTES_MAX / 1024 / 1024} MiB`)
    }
    const state = stateOf(before)
    // A pipe has no state to compare, and its bytes come once.
    const isStillSame = !before.isFile() || state === stateOf(fstatSync(file, { bigint: true }))
    return { bytes: Buffer.concat(chunks), state: isStillSame ? (before.isFile() ? state : '') : undefined }
  } finally {
    closeSync(file)
  }
}

type State = { dev: bigint; ino: bigint; size: bigint; mtimeNs: bigint; ctimeNs: bigint }

function stateOf({ dev, ino, size, mtimeNs, ctimeNs }: State): string {
  return `${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`
}

/** Whether the path leads to the same file in the same state. */
function isStill(path: string, state: string): boolean {
  if (state === '') return true
  try {
    return stateOf(statSync(path, { bigint: true })) === state
  } catch {
    return false
  }
}
