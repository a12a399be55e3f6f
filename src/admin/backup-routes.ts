/** A copy of what the gateway keeps, made while it runs. */
import { BackupError } from '../backup/backup.ts'
import type { Backups } from '../backup/online.ts'
import type { Log } from '../lib/log.ts'
import { AdminError } from './error.ts'
import { Query, type QueryParameters } from './query.ts'
import type { Route } from './route.ts'

const PARAMETERS: QueryParameters = [
  {
    name: 'include',
    in: 'query',
    required: false,
    description: '`usage`: with the records of usage, which may be many.',
    schema: { type: 'string', enum: ['usage'] },
  },
]

export function backupRoutes({ backups, log }: { backups: Backups | undefined; log: Log }): Route[] {
  return [
    {
      method: 'GET',
      path: '/admin/v1/backup',
      auth: 'admin',
      isSecret: true,
      handle: async ({ url, request, actor }) => {
        const query = new Query(url, PARAMETERS)
        const include = query.text('include')
        if (include !== undefined && include !== 'usage') query.refuse('include', 'expected usage, or nothing')
        query.check()
        if (!backups) throw new AdminError(404, 'this gateway keeps nothing on a disk that could be backed up')
        // The head alone is not worth the copying.
        if (request.method === 'HEAD') return new Response(null, { headers: { 'content-type': CONTENT_TYPE } })
        if (backups.isBusy) throw new AdminError(409, 'a backup is being made; come back when it is done')
        const { bytes, sha256, madeAt, body } = await make(backups, include === 'usage')
        const { adminKey, address, requestId } = actor
        log.info('backup made', { actor: adminKey, address, request_id: requestId, bytes, sha256 })
        const name = `aisix-backup-${madeAt.replace(/[-:]|\.\d+/g, '')}.tar`
        return new Response(body, {
          headers: {
            'content-type': CONTENT_TYPE,
            'content-length': String(bytes),
            'content-disposition': `attachment; filename="${name}"`,
            'x-aisix-sha256': sha256,
            'cache-control': 'no-store',
          },
        })
      },
      describe: {
        operationId: 'getBackup',
        tag: 'Backup',
        summary: 'Everything that `aisix restore` needs, as one file',
        description:
          'A tar archive with the store and what was spent on budgets, each of one moment. It holds credentials. The header `x-aisix-sha256` is the checksum of the body.',
        parameters: PARAMETERS,
        success: { description: 'The archive.', contentType: CONTENT_TYPE, schema: { type: 'string', format: 'binary' } },
        errors: [400, 404, 409, 503],
        errorDescriptions: {
          400: 'A parameter is unknown or out of its range; the message names each one.',
          404: 'There is nothing on a disk to back up.',
          409: 'A backup is being made.',
          503: 'The backup could not be made; the message says why and what to do.',
        },
      },
    },
  ]
}

const CONTENT_TYPE = 'application/x-tar'

async function make(backups: Backups, usage: boolean) {
  try {
    return await backups.make({ usage })
  } catch (error) {
    if (error instanceof BackupError) throw new AdminError(503, `backup failed: ${error.message}`)
    throw error
  }
}
