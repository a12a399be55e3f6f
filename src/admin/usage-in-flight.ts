/** What is being served at the moment. No prompt: an exchange has none to tell. */
import type { Exchange } from '../exchange.ts'
import type { Clock } from '../gateway.ts'
import type { Store } from '../store/store.ts'
import { json } from './error.ts'
import { Query, type QueryParameters } from './query.ts'
import type { Route } from './route.ts'
import { inlineSchema } from './schema.ts'
import { createNames } from './usage-names.ts'
import { InFlightResponse, type Running } from './usage-schema.ts'

export type InFlightOptions = { store: Store; clock: Clock; inFlight: Iterable<Exchange> }

/** Paths and names of models are the callers' own text. */
const CHARACTERS_MAX = 256

/** in: whether an exchange is meant. out: oldest first */
export function running(options: InFlightOptions, isMeant: (exchange: Exchange) => boolean): Exchange[] {
  return [...options.inFlight].filter(isMeant).sort((a, b) => a.startedAt - b.startedAt)
}

export function runningJson({ store, clock }: InFlightOptions): (exchange: Exchange) => Running {
  const names = createNames(store.snapshot, undefined)
  const [now, monotonic] = [clock.now(), clock.monotonic()]
  const wallTime = (at: number) => new Date(now - Math.max(0, monotonic - at)).toISOString()
  return exchange => {
    const { labels } = exchange
    return {
      request_id: exchange.requestId,
      started_at: wallTime(exchange.startedAt),
      age_ms: Math.max(0, Math.round(monotonic - exchange.startedAt)),
      method: exchange.method,
      path: exchange.path.slice(0, CHARACTERS_MAX),
      handler: exchange.handler ?? null,
      api_key_id: labels.apiKeyId || null,
      api_key_name: names.apiKey(labels.apiKeyId),
      requested_model: exchange.requestedModel?.slice(0, CHARACTERS_MAX) ?? null,
      model_id: labels.modelId || null,
      model: labels.model || null,
      provider_key_id: labels.providerKeyId || null,
      provider_key_name: labels.providerKeyName || null,
      attempts: exchange.attempts.length,
      stream: exchange.isStream,
      first_byte_at: exchange.firstByteAt === undefined ? null : wallTime(exchange.firstByteAt),
      client_source_ip: exchange.clientIp(),
    }
  }
}

const PARAMETERS: QueryParameters = [
  {
    name: 'limit',
    in: 'query',
    required: false,
    description: 'Most entries of the answer.',
    schema: { type: 'integer', minimum: 1, maximum: 1000, default: 100 },
  },
]

export function inFlightRoute(options: InFlightOptions): Route {
  return {
    method: 'GET',
    path: '/admin/v1/in_flight',
    auth: 'admin',
    handle: ({ url }) => {
      const query = new Query(url, PARAMETERS)
      const limit = query.integer('limit', { min: 1, max: 1000, fallback: 100 })
      query.check()
      const all = running(options, () => true)
      return json(200, { total: all.length, in_flight: all.slice(0, limit).map(runningJson(options)) })
    },
    describe: {
      operationId: 'listInFlight',
      tag: 'Usage',
      summary: 'Requests that are under way',
      description: 'Oldest first, as this gateway sees them now. A stream is under way until its last byte is out.',
      parameters: PARAMETERS,
      success: {
        description: 'The requests.',
        get schema() {
          return inlineSchema(InFlightResponse)
        },
        example: { total: 1, in_flight: [RUNNING_EXAMPLE] },
      },
      errors: [400],
      errorDescriptions: { 400: 'A parameter is unknown or out of its range; the message names each one.' },
    },
  }
}

export const RUNNING_EXAMPLE: Running = {
  request_id: '0d5f6c1e-6a0e-4b0c-9d53-51b0f3b7c2aa',
  started_at: '2026-11-01T08:14:03.120Z',
  age_ms: 4180,
  method: 'POST',
  path: '/v1/chat/completions',
  handler: 'chat',
  api_key_id: 'b569cd19-498b-43dc-8ea6-510628b28d6f',
  api_key_name: 'search frontend',
  requested_model: 'llama-3-private',
  model_id: '91d2a1c4-2f3e-4f0b-8d53-0c9b1a7e4c11',
  model: 'llama-3-private',
  provider_key_id: '0b9f6a52-6f0e-4f0b-9d53-0c9b1a7e4c11',
  provider_key_name: 'vllm-private',
  attempts: 1,
  stream: true,
  first_byte_at: '2026-11-01T08:14:03.402Z',
  client_source_ip: '10.0.3.17',
}
