/** Single attempts, as the ledger took them down: recent ones, what arrives, and those of one request. */
import type { Ledger, RequestsAnswer, RequestsQuestion, StoredRecord } from '../ledger/ledger.ts'
import { usageJson } from '../telemetry/usage-record.ts'
import { AdminError, json } from './error.ts'
import { LIMIT_DEFAULT, LIMIT_MAX, limitParameter, parameter, Query, type QueryParameters } from './query.ts'
import type { Route } from './route.ts'
import { inlineSchema } from './schema.ts'
import { type InFlightOptions, RUNNING_EXAMPLE, running, runningJson } from './usage-in-flight.ts'
import { ask, LEDGER_ERRORS } from './usage-ledger.ts'
import { idsOf } from './usage-names.ts'
import { RequestResponse, RequestsResponse } from './usage-schema.ts'

export type RequestsOptions = InFlightOptions & { ledger: Ledger }

const PARAMETERS: QueryParameters = [
  limitParameter,
  parameter('cursor', '`next_cursor` of the answer before: goes on with older ones.'),
  parameter('after', 'A `cursor` that an answer gave: what has arrived after it, oldest first. Not together with `cursor`.'),
  parameter('status', 'A status such as `429`, or a class such as `5xx`.'),
  {
    name: 'failed',
    in: 'query',
    required: false,
    description: '`true`: only attempts with a status of 400 or above.',
    schema: { type: 'string', enum: ['true', 'false'], default: 'false' },
  },
  parameter('model', 'Id or alias of models; empty for requests without one. Repeat it, or separate several by commas.'),
  parameter('api_key', 'Id or name of caller keys; empty for requests without one. Repeat it, or separate several by commas.'),
  parameter('request_id', 'Attempts of this request.'),
  parameter('from', 'First moment that counts: RFC 3339, a date in UTC, or whole seconds since 1970.'),
  parameter('to', 'First moment that counts no more, in the same forms.'),
]

type Asked = { question: RequestsQuestion; requestId: string | undefined }

/** Places are opaque to callers, so that the ledger may count in another way one day. */
const cursorOf = (seq: number) => `r${seq.toString(36)}`

function readCursor(query: Query, name: 'cursor' | 'after'): number | undefined {
  const text = query.text(name)
  if (text === undefined) return undefined
  const seq = /^r[0-9a-z]{1,11}$/.test(text) ? Number.parseInt(text.slice(1), 36) : Number.NaN
  if (Number.isSafeInteger(seq) && cursorOf(seq) === text) return seq
  query.refuse(name, 'expected a cursor as an answer of /admin/v1/requests gives it')
  return undefined
}

/** throws: AdminError 400 */
function readQuestion(url: URL, { store }: RequestsOptions): Asked {
  const query = new Query(url, PARAMETERS)
  const limit = query.integer('limit', { min: 1, max: LIMIT_MAX, fallback: LIMIT_DEFAULT })
  const before = readCursor(query, 'cursor')
  const after = readCursor(query, 'after')
  if (query.has('cursor') && query.has('after')) query.refuse('after', 'cannot go together with `cursor`: give one of them')
  const status = query.text('status')
  if (status !== undefined && !/^[1-5](?:\d\d|xx)$/.test(status)) {
    query.refuse('status', 'expected a status such as 429, or a class such as 5xx')
  }
  const failedOnly = query.choice('failed', ['true', 'false'], 'false') === 'true'
  const modelIds = idsOf(query, store.snapshot, 'model')
  const apiKeyIds = idsOf(query, store.snapshot, 'api_key')
  const requestId = query.text('request_id')
  if (requestId === '') query.refuse('request_id', 'must not be empty')
  const fromMs = query.instant('from')
  const toMs = query.instant('to')
  if (fromMs !== undefined && toMs !== undefined && fromMs >= toMs) query.refuse('from', 'must be before `to`')
  query.check()
  const question: RequestsQuestion = {
    limit,
    ...(before !== undefined && { before }),
    ...(after !== undefined && { after }),
    ...(status !== undefined && { status: status.endsWith('xx') ? status : Number(status) }),
    ...(failedOnly && { failedOnly }),
    ...(modelIds && { modelIds }),
    ...(apiKeyIds && { apiKeyIds }),
    ...(fromMs !== undefined && { fromMs }),
    ...(toMs !== undefined && { toMs }),
  }
  return { question, requestId }
}

/** The page of one request's attempts: few enough to be chosen here. */
function pageOf(stored: readonly StoredRecord[], question: RequestsQuestion): RequestsAnswer {
  const { before, after, limit } = question
  const meant = stored
    .filter(({ seq, record }) => seq > (after ?? 0) && seq < (before ?? Number.POSITIVE_INFINITY) && isMeant(record, question))
    .sort((a, b) => (after === undefined ? b.seq - a.seq : a.seq - b.seq))
  const records = meant.slice(0, limit)
  const newest = stored.reduce((most, { seq }) => Math.max(most, seq), after ?? 0)
  return { records, next: meant.length > limit ? records.at(-1)?.seq : undefined, newest }
}

function isMeant({ status, labels, occurredAtMs }: StoredRecord['record'], question: RequestsQuestion): boolean {
  const { status: asked = status, failedOnly, modelIds, apiKeyIds, fromMs, toMs } = question
  const isOfStatus = typeof asked === 'string' ? `${Math.floor(status / 100)}xx` === asked : status === asked
  if (!isOfStatus || (failedOnly === true && status < 400)) return false
  if (modelIds?.includes(labels.modelId) === false || apiKeyIds?.includes(labels.apiKeyId) === false) return false
  return occurredAtMs >= (fromMs ?? occurredAtMs) && occurredAtMs < (toMs ?? Number.POSITIVE_INFINITY)
}

const attemptJson = ({ seq, record }: StoredRecord) => ({ cursor: cursorOf(seq), ...usageJson(record) })

export function requestsRoutes(options: RequestsOptions): Route[] {
  const { ledger } = options
  return [
    {
      method: 'GET',
      path: '/admin/v1/requests',
      auth: 'admin',
      handle: async ({ url }) => {
        const { question, requestId } = readQuestion(url, options)
        const { records, next, newest } = await ask(ledger, async each =>
          requestId === undefined ? each.requests(question) : pageOf(await each.request(requestId), question),
        )
        const isTail = question.after !== undefined
        return json(200, {
          attempts: records.map(attemptJson),
          next_cursor: next === undefined ? null : cursorOf(next),
          cursor: cursorOf(isTail ? (next ?? newest) : newest),
        })
      },
      describe: {
        operationId: 'listRequests',
        tag: 'Usage',
        summary: 'Recent attempts',
        description:
          'Newest first, page by page with `cursor`. With `after` what has arrived since, oldest first: ask again with the `cursor` of each answer, and nothing is missed or told twice. Kept for `usage.retention_days`.',
        parameters: PARAMETERS,
        success: {
          description: 'A page of attempts.',
          get schema() {
            return inlineSchema(RequestsResponse)
          },
          example: { attempts: [ATTEMPT_EXAMPLE], next_cursor: null, cursor: ATTEMPT_EXAMPLE.cursor },
        },
        errors: [400, 503],
        errorDescriptions: LEDGER_ERRORS,
      },
    },
    {
      method: 'GET',
      path: '/admin/v1/requests/{id}',
      auth: 'admin',
      handle: async ({ url, id }) => {
        new Query(url, []).check()
        // Asked first: what ends in between is then told by the ledger at least.
        const inFlight = running(options, ({ requestId }) => requestId === id).map(runningJson(options))
        const stored = await ask(ledger, each => each.request(id))
        if (stored.length + inFlight.length === 0) {
          throw new AdminError(
            404,
            'no request of this id is in flight or in the ledger; it may be older than `usage.retention_days`',
          )
        }
        return json(200, { request_id: id, attempts: stored.map(attemptJson), in_flight: inFlight })
      },
      describe: {
        operationId: 'getRequest',
        tag: 'Usage',
        summary: 'All attempts of a request',
        description:
          'By the id that its answer carries in `x-aisix-request-id`. A request that is not over has no attempts here yet, and stands under `in_flight`.',
        idDescription: 'Id of the request, percent-encoded.',
        success: {
          description: 'What is known of it.',
          get schema() {
            return inlineSchema(RequestResponse)
          },
          example: { request_id: ATTEMPT_EXAMPLE.request_id, attempts: [ATTEMPT_EXAMPLE], in_flight: [RUNNING_EXAMPLE] },
        },
        errors: [400, 404, 503],
        errorDescriptions: {
          ...LEDGER_ERRORS,
          404: 'No such request: the id is wrong, or it is older than `usage.retention_days`.',
        },
      },
    },
  ]
}

const ATTEMPT_EXAMPLE = {
  cursor: 'r3f',
  request_id: '4d0c3c0e-1b7a-4c7e-8f3e-0f8f6c1f8a55',
  occurred_at: '2026-11-01T08:13:59Z',
  model_id: '91d2a1c4-2f3e-4f0b-8d53-0c9b1a7e4c11',
  api_key_id: 'b569cd19-498b-43dc-8ea6-510628b28d6f',
  prompt_tokens: 25,
  completion_tokens: 60,
  upstream_latency_ms: 812,
  status_code: 200,
  cost_usd: 0.000145,
  guardrail_blocked: false,
  attempt_index: 0,
  requested_model: 'llama-3-private',
  finish_reason: 'stop',
  inbound_protocol: 'openai',
  downstream_latency_ms: 813,
  attempt_kind: 'initial',
  client_source_ip: '10.0.3.17',
  model: 'llama-3-private',
  handler: 'chat',
  provider: 'vllm',
  upstream_model: 'meta-llama/Llama-3.1-8B-Instruct',
  provider_key_id: '0b9f6a52-6f0e-4f0b-9d53-0c9b1a7e4c11',
  provider_key_name: 'vllm-private',
}
