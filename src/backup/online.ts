/** Backups of the running gateway, handed out as a stream and kept nowhere. */
import { closeSync, openSync, read, unlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { startWorker } from '../lib/worker.ts'
import { BackupError, type Databases, WORK_PREFIX } from './backup.ts'
import type { Answered, Asked } from './worker.ts'

export type OnlineBackup = { bytes: number; sha256: string; madeAt: string; body: ReadableStream<Uint8Array> }

export interface Backups {
  /** Whether one is being made: there is never more than one at a time. */
  readonly isBusy: boolean
  /** throws: BackupError */
  make(includes: { usage: boolean }): Promise<OnlineBackup>
}

const CHUNK_BYTES = 256 * 1024

export function createBackups(from: Databases): Backups {
  let isBusy = false
  return {
    get isBusy() {
      return isBusy
    },
    async make({ usage }) {
      if (isBusy) throw new BackupError('a backup is being made')
      isBusy = true
      try {
        const target = join(dirname(from.store), `${WORK_PREFIX}${crypto.randomUUID()}.tar`)
        const { bytes, sha256, manifest } = await inThread({ from, target, usage })
        const file = openSync(target, 'r')
        // The name goes at once: what is not read to the end is gone with this process, however it ends.
        unlinkSync(target)
        return { bytes, sha256, madeAt: manifest.made_at, body: streamOf(file) }
      } finally {
        isBusy = false
      }
    },
  }
}

function inThread(asked: Asked): Promise<Extract<Answered, { made: unknown }>['made']> {
  const { promise, resolve, reject } = Promise.withResolvers<Extract<Answered, { made: unknown }>['made']>()
  const worker = startWorker('backup/worker.ts')
  worker.onmessage = ({ data }: MessageEvent<Answered>) => {
    if ('made' in data) resolve(data.made)
    else reject(new BackupError(data.problem))
  }
  worker.onerror = event => {
    event.preventDefault()
    reject(new Error(`the thread that makes a backup has ended: ${event.message}`))
  }
  worker.addEventListener('close', () => reject(new Error('the thread that makes a backup has stopped')))
  worker.postMessage(asked)
  return promise.finally(() => worker.terminate())
}

/** An open file from its beginning to its end, at the reader's pace; closed when it is over or nobody reads on. */
function streamOf(file: number): ReadableStream<Uint8Array> {
  let offset = 0
  let isOpen = true
  const close = () => {
    if (isOpen) closeSync(file)
    isOpen = false
  }
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const chunk = await readAt(file, offset)
        offset += chunk.length
        if (chunk.length > 0) return controller.enqueue(chunk)
        close()
        controller.close()
      } catch (error) {
        close()
        controller.error(error)
      }
    },
    cancel: close,
  })
}

function readAt(file: number, offset: number): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>()
  const buffer = new Uint8Array(CHUNK_BYTES)
  read(file, buffer, 0, buffer.length, offset, (error, count) => (error ? reject(error) : resolve(buffer.subarray(0, count))))
  return promise
}
