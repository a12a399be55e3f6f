/** A folder of this machine. */
import { mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { errorCode } from '../lib/transport-cause.ts'
import type { FolderExporter } from '../resources/observability-exporter.ts'
import { folderPath } from '../resources/observability-exporter.ts'
import type { Outcome } from './destination.ts'
import type { StoredObject, Target } from './object-store.ts'

/**
 * Files appear under their names whole: written beside their place, made durable, then renamed. in: the key of an object,
 * whose parts are ours and those of a prefix that holds no `..`
 */
export function openFolder({ endpoint, bucket = '' }: FolderExporter): Target {
  const root = join(folderPath(endpoint), bucket)
  return {
    address: root,
    async put({ key, body }: StoredObject, signal: AbortSignal): Promise<Outcome> {
      const place = join(root, key)
      const folder = dirname(place)
      // Of this process, so that two gateways on one folder do not write into each other's; left by a crash, it is written anew.
      const temporary = join(folder, `.${process.pid}-${key.slice(key.lastIndexOf('/') + 1)}.part`)
      try {
        await mkdir(folder, { recursive: true, mode: 0o700 })
        const file = await open(temporary, 'w', 0o600)
        try {
          await file.writeFile(body)
          await file.sync()
        } finally {
          await file.close()
        }
        if (signal.aborted) throw Object.assign(new Error('too late'), { code: 'the disk took too long' })
        await rename(temporary, place)
        return { isDelivered: true, rejected: 0 }
      } catch (error) {
        await rm(temporary, { force: true }).catch(() => {})
        const code = errorCode(error)
        return { isDelivered: false, problem: `cannot write to the folder: ${REASONS[code] ?? code}`, mayRetry: true }
      }
    },
  }
}

/** source: errno(3) */
const REASONS: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  ENOSPC: 'no space left on the disk',
  EDQUOT: 'no space left on the disk',
  EROFS: 'the file system is read-only',
  ENOTDIR: 'a part of its path is no folder',
  EEXIST: 'a part of its path is no folder',
}
