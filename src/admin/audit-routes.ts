/** What was changed, by whom, and what was refused. */
import { z } from 'zod'
import { AUDIT_ACTIONS, AUDIT_OUTCOMES, type AuditEntry, type AuditPage, type AuditQuestion } from '../store/audit.ts'
import { type Store, StoreUnavailable } from '../store/store.ts'
import { AdminError, json } from './error.ts'
import { LIMIT_DEFAULT, LIMIT_MAX, limitParameter, parameter, Query, type QueryParameters } from './query.ts'
import type { Route } from './route.ts'
import { inlineSchema } from './schema.ts'

const PARAMETERS: QueryParameters = [
  limitParameter,
  parameter('cursor', '`next_cursor` of the answer before: goes on with older ones.'),
  parameter('from', 'First moment that counts: RFC 3339, a date in UTC, or whole seconds since 1970.'),
  parameter('to', 'First moment that counts no more, in the same forms.'),
  parameter('actor', 'Name of an admin key, `admin_keys[0]` for those without. Repeat it, or separate several by commas.'),
  parameter('kind', 'Kind of resources, such as `models`. Repeat it, or separate several by commas.'),
  parameter('id', 'Id of a resource. Repeat it, or separate several by commas.'),
  parameter('action', `One of ${AUDIT_ACTIONS.map(each => `\`${each}\``).join(', ')}. Repeat it, or separate several by commas.`),
  {
    ...parameter('outcome', 'Only changes that were applied, or only refused ones.'),
    schema: { type: 'string', enum: [...AUDIT_OUTCOMES] },
  },
]

const members = () => z.record(z.string(), z.unknown())

const Entry = z.strictObject({
  seq: z.int().min(1).describe('Number of the entry; without gaps, from the oldest one that is kept.'),
  at: z.iso.datetime().describe('When it happened.'),
  actor: z.string().describe('Name of the admin key; `admin_keys[0]` for one without, `gateway` for what happens by itself.'),
  address: z.string().describe('Where the request came from.'),
  request_id: z.string().describe('`x-aisix-request-id` of its answer.'),
  action: z.enum(AUDIT_ACTIONS).describe('What was done, or was to be done.'),
  kind: z.string().describe('Kind of the resource; `store` for a restored backup, `audit` for entries that went by age.'),
  id: z.string().describe('Its id; empty for a creation that was refused.'),
  name: z.string().optional().describe('Its name, where it has one.'),
  outcome: z.enum(AUDIT_OUTCOMES).describe('Whether it was done.'),
  status: z.int().optional().describe('Of a refusal: its HTTP status.'),
  reason: z.string().optional().describe('Of a refusal: its message.'),
  before: members()
    .optional()
    .describe('The document before, credentials masked; of a replacement only the members that differ or went.'),
  after: members()
    .optional()
    .describe('The document after, credentials masked; of a replacement only the members that differ or came.'),
  omitted: z
    .int()
    .min(1)
    .optional()
    .describe('Refused changes of this actor before this entry that were too many to be taken down.'),
  hash: z.string().describe('SHA-256 over the entry and the hash of the one before.'),
})

export const AuditResponse = z.strictObject({
  entries: z.array(Entry).describe('Newest first.'),
  next_cursor: z.string().optional().describe('For older ones; absent at the end.'),
})
export type AuditResponse = z.infer<typeof AuditResponse>

const EXAMPLE: AuditResponse = {
  entries: [
    {
      seq: 42,
      at: '2030-03-01T12:00:00.750Z',
      actor: 'alice',
      address: '10.0.0.7',
      request_id: 'b2c31f0e-6c6e-4ee1-8a2a-5d1f3c0f9d11',
      action: 'replace',
      kind: 'api_keys',
      id: '0b9f6a52-6f0e-4f0b-9d53-0c9b1a7e4c11',
      name: 'search team',
      outcome: 'applied',
      before: { allowed_models: ['llama-3-private'] },
      after: { allowed_models: ['llama-3-private', 'qwen'], disabled: true },
      hash: '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08',
    },
  ],
  next_cursor: 'a42',
}

export function auditRoutes({ store }: { store: Store }): Route[] {
  return [
    {
      method: 'GET',
      path: '/admin/v1/audit',
      auth: 'admin',
      handle: async ({ url }) => {
        const question = readQuestion(url)
        return json(200, answerOf(await ask(store, question)))
      },
      describe: {
        operationId: 'listAudit',
        tag: 'Audit',
        summary: 'Changes and refused changes, newest first',
        description: '`aisix audit verify` says whether the log is as it was written.',
        parameters: PARAMETERS,
        success: {
          description: 'The entries that are meant.',
          get schema() {
            return inlineSchema(AuditResponse)
          },
          example: EXAMPLE,
        },
        errors: [400, 404, 503],
        errorDescriptions: {
          400: 'A parameter is unknown or out of its range; the message names each one.',
          404: 'This gateway keeps no audit log.',
          503: 'The store cannot be read; the message says why and what to do.',
        },
      },
    },
  ]
}

/** throws: AdminError 400 */
function readQuestion(url: URL): AuditQuestion {
  const query = new Query(url, PARAMETERS)
  const limit = query.integer('limit', { min: 1, max: LIMIT_MAX, fallback: LIMIT_DEFAULT })
  const before = readCursor(query)
  const fromMs = query.instant('from')
  const toMs = query.instant('to')
  if (fromMs !== undefined && toMs !== undefined && fromMs >= toMs) query.refuse('from', 'must be before `to`')
  const actions = query.list('action')
  if (!actions.every(action => AUDIT_ACTIONS.some(each => each === action))) {
    query.refuse('action', `expected ${AUDIT_ACTIONS.slice(0, -1).join(', ')} or ${AUDIT_ACTIONS.at(-1)}`)
  }
  const outcome = query.has('outcome') ? query.choice('outcome', AUDIT_OUTCOMES, 'applied') : undefined
  const given = (name: string) => (query.has(name) ? query.list(name) : undefined)
  const [actors, kinds, ids] = [given('actor'), given('kind'), given('id')]
  query.check()
  return {
    limit,
    ...(before !== undefined && { before }),
    ...(fromMs !== undefined && { from: new Date(fromMs).toISOString() }),
    ...(toMs !== undefined && { to: new Date(toMs).toISOString() }),
    ...(actors && { actors }),
    // Caller keys are called by either segment of their paths.
    ...(kinds && { kinds: kinds.map(kind => (kind === 'apikeys' ? 'api_keys' : kind)) }),
    ...(ids && { ids }),
    ...(query.has('action') && { actions }),
    ...(outcome && { outcome }),
  }
}

function readCursor(query: Query): number | undefined {
  const text = query.text('cursor')
  if (text === undefined) return undefined
  const seq = /^a[1-9]\d{0,14}$/.test(text) ? Number(text.slice(1)) : undefined
  if (seq === undefined) query.refuse('cursor', 'expected a cursor as an answer of /admin/v1/audit gives it')
  return seq
}

/** throws: AdminError 404, 503 */
async function ask({ audit }: Store, question: AuditQuestion): Promise<AuditPage> {
  if (!audit) throw new AdminError(404, 'this gateway keeps no audit log: its resources are not in a store')
  try {
    return await audit.read(question)
  } catch (error) {
    if (error instanceof StoreUnavailable) throw new AdminError(503, `store error: ${error.message}`)
    throw error
  }
}

function answerOf({ entries, next }: AuditPage): AuditResponse {
  return { entries: entries.map(shown), ...(next !== undefined && { next_cursor: `a${next}` }) }
}

function shown({ name, status, reason, before, after, omitted, ...entry }: AuditEntry): AuditResponse['entries'][number] {
  return {
    ...entry,
    ...(name !== null && { name }),
    ...(status !== null && { status }),
    ...(reason !== null && { reason }),
    ...(before !== null && { before: membersOf(before) }),
    ...(after !== null && { after: membersOf(after) }),
    ...(omitted > 0 && { omitted }),
  }
}

/** A text that somebody wrote over is shown as it is: that it is not what was written is for `aisix audit verify` to say. */
function membersOf(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return { ...value }
  } catch {
    // Said below.
  }
  return { unreadable: text }
}
