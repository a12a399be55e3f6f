import { startWorker } from '../lib/worker.ts'
import type { Environment, FileEntry } from './check.ts'
import type { FromLoader, ToLoader } from './messages.ts'
import type { Problem } from './problem.ts'

/** How loading a file came out. `next` gives the entries in slices, undefined behind the last; `end` gives up the thread. */
export type Loading =
  | { isRefused: true; problems: Problem[]; count: number; hash: string | undefined }
  | { isRefused: false; hash: string; warnings: string[]; next(): Promise<FileEntry[] | undefined>; end(): void }

/** Loads a resources file, so that a large one keeps nobody waiting. */
export type Loader = (path: string, env: Environment) => Promise<Loading>

/** In a thread of its own, which lasts as long as the loading does: a parsed file leaves much behind. */
export const loadInThread: Loader = async (path, env) => {
  const worker = startWorker('resources-file/worker.ts')
  let waiting: PromiseWithResolvers<FromLoader> | undefined
  let failure: Error | undefined
  const fail = (reason: string) => {
    failure ??= new Error(`the thread that reads the resources file has ended: ${reason}`)
    waiting?.reject(failure)
  }
  worker.onmessage = ({ data }: MessageEvent<FromLoader>) => waiting?.resolve(data)
  worker.onerror = event => {
    event.preventDefault()
    fail(event.message)
  }
  worker.addEventListener('close', () => fail('it stopped'))
  const end = () => {
    failure ??= new Error('the loading is over')
    worker.terminate()
  }
  const ask = (question: ToLoader): Promise<FromLoader> => {
    if (failure) return Promise.reject(failure)
    waiting = Promise.withResolvers()
    worker.postMessage(question)
    return waiting.promise
  }

  try {
    const outcome = await ask({ ask: 'load', path, env: { ...env } })
    if (outcome.tell === 'refused') {
      end()
      return { isRefused: true, problems: outcome.problems, count: outcome.count, hash: outcome.hash }
    }
    if (outcome.tell !== 'loaded') throw new Error('the thread that reads the resources file gave another answer')
    // The thread makes a slice while the one before is taken over.
    const askNext = () => {
      const answer = ask({ ask: 'next' })
      // A failure is for whoever takes the slice, and for nobody where none is taken any more.
      answer.catch(() => undefined)
      return answer
    }
    let coming = askNext()
    return {
      isRefused: false,
      hash: outcome.hash,
      warnings: outcome.warnings,
      async next() {
        const slice = await coming
        if (slice.tell !== 'slice' || slice.entries === undefined) return undefined
        coming = askNext()
        const entries: FileEntry[] = JSON.parse(slice.entries)
        return entries
      },
      end,
    }
  } catch (error) {
    end()
    throw error
  }
}
