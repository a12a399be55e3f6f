import { z } from 'zod'
import type { JobOperation } from '../../adapters/adapter.ts'
import type { Job } from '../jobs/job.ts'
import type { Endpoint, EndpointQuestion, Form } from './endpoint.ts'

const schema = z.looseObject({ model: z.string() })

const NOUNS: Record<JobOperation, string> = { files: 'files', batches: 'batches', fine_tuning: 'fine-tuning' }

/**
 * Files, batches and fine-tuning jobs: what servers keep. Which server is meant, a model says; callers get ids that tell it.
 * Nothing of this is tried twice where it may have been done: a server that fails to answer may have made the batch all the same.
 */
function jobEndpoint(operation: JobOperation, path: string, job: Job, form?: Form, isStreamed = false): Endpoint {
  return {
    name: 'jobs',
    path,
    operation,
    job,
    ...(form && { form }),
    relay: { usage: 'none', isStreamed },
    isDirectOnly: true,
    // Whoever has spent all must still be able to see and to stop what costs.
    isFree: job.method !== 'POST' || job.action === 'cancel',
    schema,
    keys: [],
    isPlain: (_value): _value is EndpointQuestion => false,
    promptMember: undefined,
    answerMember: 'data',
    alwaysSendsStream: false,
    hasCallId: false,
    fillsUsage: false,
    noun: NOUNS[operation],
  }
}

const LIST = { method: 'GET', hasId: false } as const satisfies Job
const ONE = { method: 'GET', hasId: true } as const satisfies Job
const CANCEL = { method: 'POST', hasId: true, action: 'cancel' } as const satisfies Job

export const JOBS: readonly Endpoint[] = [
  jobEndpoint('files', '/v1/files', { method: 'POST', hasId: false }, { model: 'route', files: ['file'], stream: 'refused' }),
  jobEndpoint('files', '/v1/files', LIST),
  jobEndpoint('files', '/v1/files/:id', ONE),
  jobEndpoint('files', '/v1/files/:id', { method: 'DELETE', hasId: true }),
  jobEndpoint('files', '/v1/files/:id/content', { ...ONE, action: 'content' }, undefined, true),
  jobEndpoint('batches', '/v1/batches', {
    method: 'POST',
    hasId: false,
    body: { required: 'input_file_id', ids: ['input_file_id'], isModelForwarded: false },
  }),
  jobEndpoint('batches', '/v1/batches', { ...LIST, tellsBatch: true }),
  jobEndpoint('batches', '/v1/batches/:id', { ...ONE, tellsBatch: true }),
  jobEndpoint('batches', '/v1/batches/:id/cancel', CANCEL),
  jobEndpoint('fine_tuning', '/v1/fine_tuning/jobs', {
    method: 'POST',
    hasId: false,
    body: { required: 'training_file', ids: ['training_file', 'validation_file'], isModelForwarded: true },
  }),
  jobEndpoint('fine_tuning', '/v1/fine_tuning/jobs', LIST),
  jobEndpoint('fine_tuning', '/v1/fine_tuning/jobs/:id', ONE),
  jobEndpoint('fine_tuning', '/v1/fine_tuning/jobs/:id/cancel', CANCEL),
  ...(['events', 'checkpoints'] as const).map(action =>
    jobEndpoint('fine_tuning', `/v1/fine_tuning/jobs/:id/${action}`, { ...ONE, action }),
  ),
]
