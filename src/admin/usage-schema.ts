/** The answers of the usage API: what the reference says of them, and what tests hold them to. */
import { z } from 'zod'
import { GROUPINGS } from '../ledger/ledger.ts'

const count = () => z.int().min(0)
const time = () => z.iso.datetime()

const quantiles = (what: string) =>
  z
    .strictObject({
      p50: z.number().nullable().describe('Half of them took no longer.'),
      p90: z.number().nullable().describe('Nine of ten took no longer.'),
      p99: z.number().nullable().describe('99 of 100 took no longer.'),
    })
    .describe(`${what}: estimates, interpolated within fixed buckets. null where there is none.`)

const sums = {
  requests: count().describe('Requests, however many attempts each took.'),
  attempts: count().describe('Records: one an attempt at a server, and one for each request that ended without any.'),
  failed_requests: count().describe('Requests that ended with a status of 400 or above.'),
  prompt_tokens: count().describe('Tokens of prompts, of all attempts.'),
  completion_tokens: count().describe('Tokens of completions, of all attempts.'),
  total_tokens: count().describe('Both together.'),
  cached_prompt_tokens: count().describe('Prompt tokens that the servers had in their caches; part of `prompt_tokens`.'),
  reasoning_tokens: count().describe('Reasoning tokens, where servers tell them; part of `completion_tokens`.'),
  estimated_requests: count().describe("Requests whose counts are the gateway's estimate, because the server told none."),
  estimated_tokens: count().describe('Prompt and completion tokens of those.'),
  cost_usd: z
    .string()
    .regex(/^\d+(\.\d+)?$/)
    .describe('US dollars, all digits. A text, because numbers of JSON lose digits of large sums.'),
  unpriced_requests: count().describe('Requests at models without `cost`: nobody knows what they cost, and they count as 0.'),
  latency_ms: quantiles('Milliseconds of whole requests'),
  ttft_ms: quantiles('Milliseconds from the request to the first thing its caller could use, of streams'),
}

const UsageRow = z.strictObject({
  day: z.iso.date().optional().describe('Grouped by `day`: the day in UTC.'),
  hour: time().optional().describe('Grouped by `hour`: its first moment.'),
  api_key_id: z
    .string()
    .optional()
    .describe('Grouped by `api_key`: id of the caller key; empty where none was presented that is known.'),
  api_key_name: z.string().nullable().optional().describe('Its name, where it has one.'),
  model_id: z.string().optional().describe('Grouped by `model`: id of the model that was tried; empty where no model was found.'),
  model: z.string().nullable().optional().describe('Its alias as it is now, or last was.'),
  provider_key_id: z
    .string()
    .optional()
    .describe('Grouped by `provider_key`: id of the provider key; empty where no server was asked.'),
  provider_key_name: z.string().nullable().optional().describe('Its name as it is now, or last was.'),
  team_id: z.string().optional().describe("Grouped by `team`: the caller key's `team_id`; empty without one."),
  user_id: z.string().optional().describe("Grouped by `user`: the caller key's `user_id`; empty without one."),
  user_name: z.string().nullable().optional().describe('The name that last came with it.'),
  ...sums,
})
export type UsageRow = z.infer<typeof UsageRow>
export type UsageSums = Pick<UsageRow, keyof typeof sums>

export const UsageResponse = z.strictObject({
  from: time().describe(
    'Where the sums begin: `from`, rounded down to a whole hour or day, or the first day of which sums are kept.',
  ),
  to: time().describe('Where they end: `to`, rounded up in the same way. This moment is not part of it.'),
  group_by: z.array(z.enum(GROUPINGS)).describe('What rows are told apart by.'),
  rows: z.array(UsageRow).describe('One a group that has records, in the order of time, then of names.'),
  totals: z.strictObject(sums).describe('All rows together.'),
})

/** A usage record and its place. source: control-observability §4 */
const Attempt = z.looseObject({
  cursor: z.string().describe('Its place, for `cursor` and `after`.'),
  request_id: z.string().describe('Id of the request; its attempts share it.'),
  occurred_at: time().describe('When the attempt ended.'),
  handler: z.string().optional().describe('Endpoint, such as `chat`.'),
  inbound_protocol: z.string().optional().describe('Protocol of the caller, such as `openai`.'),
  model_id: z.string().describe('Id of the model that was tried; empty where none was found.'),
  model: z.string().optional().describe('Its alias at that time.'),
  requested_model: z.string().optional().describe('What the caller asked for.'),
  attempt_model: z.string().optional().describe('Of a group: the member that was tried.'),
  upstream_model: z.string().optional().describe("The server's name of the model."),
  provider: z.string().optional().describe('Label of the vendor or server.'),
  provider_key_id: z.string().optional().describe('Id of the provider key.'),
  provider_key_name: z.string().optional().describe('Its name at that time.'),
  api_key_id: z.string().describe('Id of the caller key; empty where none was presented that is known.'),
  team_id: z.string().optional().describe('Team of the caller key.'),
  user_id: z.string().optional().describe('User of the caller key.'),
  user_name: z.string().optional().describe('Name of the user.'),
  status_code: count().describe('Status of the attempt; 499 where the caller left.'),
  error_class: z.string().optional().describe('Stable class of the error, such as `timeout`.'),
  error_message: z.string().optional().describe('Its text, at most 1,024 characters.'),
  attempt_index: count().describe('0 for the first attempt of a request.'),
  attempt_kind: z.enum(['initial', 'retry', 'fallback']).optional().describe('Absent where no server was asked.'),
  stream: z.boolean().optional().describe('true for streams.'),
  prompt_tokens: count().describe('Tokens of the prompt, those that a cache gave or took included.'),
  completion_tokens: count().describe('Tokens of the completion.'),
  cached_prompt_tokens: count().optional().describe('Prompt tokens that the server had in its cache.'),
  reasoning_tokens: count().optional().describe('Reasoning tokens.'),
  usage_estimated: z.boolean().optional().describe("true where the counts are the gateway's estimate."),
  cost_usd: z.number().describe('US dollars; 0 where the model has no price.'),
  unpriced: z.boolean().optional().describe('true where tokens were used at a model without `cost`.'),
  upstream_latency_ms: count().describe('Milliseconds of the attempt, to the end of its stream.'),
  upstream_ttft_ms: count().optional().describe('Milliseconds of the attempt to the first event of a stream.'),
  downstream_latency_ms: count()
    .optional()
    .describe('On the last attempt: milliseconds from the request to the first thing that its caller could use.'),
  finish_reason: z.string().optional().describe('Why the completion ended, as the server told it.'),
  provider_request_id: z.string().optional().describe("The server's own id of its answer."),
  provider_model_version: z.string().optional().describe('Version of the model that the server told.'),
  trace_id: z.string().optional().describe('Of the `traceparent` that the caller sent.'),
  client_source_ip: z.string().optional().describe('Address of the caller.'),
  client_user_agent: z.string().optional().describe('Its user agent.'),
  client_identity: z
    .string()
    .optional()
    .describe('The end user, as the program before the gateway names it; at most 256 characters.'),
  auth_type: z.literal('anonymous').optional().describe('`anonymous`: the caller showed no key, `proxy.anonymous` let it in.'),
  passthrough_route_name: z.string().optional().describe('Name of the passthrough route that it came by.'),
  cache_read_tokens: count()
    .optional()
    .describe("Prompt tokens that the server's cache gave, where it counts as Anthropic does; part of `prompt_tokens`."),
  cache_creation_tokens: count()
    .optional()
    .describe("Prompt tokens that the server's cache took, where it counts as Anthropic does; part of `prompt_tokens`."),
  audio_duration_seconds: z.number().optional().describe('On the last attempt: seconds of the audio that was transcribed.'),
  guardrail_blocked: z.boolean().describe('Whether a guardrail refused it.'),
})

export const RequestsResponse = z.strictObject({
  attempts: z.array(Attempt).describe('Newest first; with `after`, oldest first.'),
  next_cursor: z
    .string()
    .nullable()
    .describe(
      '`cursor` of the next older page, or with `after`, `after` of the next newer one; null where there is no more now.',
    ),
  cursor: z
    .string()
    .describe('`after` of a question for all that arrives from now on. With `after`: from where this answer ends.'),
})

const Running = z.strictObject({
  request_id: z.string().describe('Id of the request.'),
  started_at: time().describe('When it arrived.'),
  age_ms: count().describe('Milliseconds since then.'),
  method: z.string().describe('Method of the request.'),
  path: z.string().describe('Its path, at most 256 characters, without the query.'),
  handler: z.string().nullable().describe('Endpoint, such as `chat`; null before it is known.'),
  api_key_id: z.string().nullable().describe('Id of the caller key; null before it is known.'),
  api_key_name: z.string().nullable().describe('Its name, where it has one.'),
  requested_model: z.string().nullable().describe('What the caller asked for, at most 256 characters; null before it is known.'),
  model_id: z.string().nullable().describe('Id of the model that is tried now, or was asked for.'),
  model: z.string().nullable().describe('Its alias.'),
  provider_key_id: z.string().nullable().describe('Id of the provider key that is used now.'),
  provider_key_name: z.string().nullable().describe('Its name.'),
  attempts: count().describe('Attempts that have begun.'),
  stream: z.boolean().describe('Whether the caller wants a stream.'),
  first_byte_at: time().nullable().describe('When the first thing that the caller could use went out; null before that.'),
  client_source_ip: z.string().describe('Address of the caller.'),
})
export type Running = z.infer<typeof Running>

export const RequestResponse = z.strictObject({
  request_id: z.string().describe('The id that was asked for.'),
  attempts: z.array(Attempt).describe('What the ledger has of it, first attempt first.'),
  in_flight: z.array(Running).describe('What is under way with this id now: empty once it is over.'),
})

export const InFlightResponse = z.strictObject({
  total: count().describe('Requests that are under way.'),
  in_flight: z.array(Running).describe('The oldest of them, oldest first.'),
})
