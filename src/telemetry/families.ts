/**
 * The metric families that are counted as things happen; what follows from a state is told by `status/`.
 * source: control-observability §1.1, §2 and §2.1; families of features to come are theirs to add
 */
import type { Config } from '../config.ts'
import type { Family } from './registry.ts'

const USAGE = [
  'endpoint',
  'inbound_protocol',
  'provider',
  'model',
  'upstream_model',
  'provider_key_id',
  'provider_key_name',
  'api_key_id',
  'team_id',
  'user_id',
  'user_name',
] as const
const DURATION = [...USAGE, 'stream', 'status', 'outcome'] as const
const REQUEST = [...USAGE, 'stream', 'is_fallback', 'status', 'outcome'] as const
const LATENCY = ['env_id', 'endpoint', 'model', 'provider', 'status_class', 'streaming'] as const
/** Of families that are told an attempt at an upstream. */
export const DEPLOYMENT = ['provider', 'model', 'upstream_model', 'provider_key_id'] as const
const KEYED = ['model', 'provider_key_id', 'provider_key_name'] as const
const BUDGET = ['budget_id', 'budget', 'scope', 'api_key_id', 'team_id', 'user_id'] as const

/** Seconds. source: control-observability §2.1 */
const E2E_BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 420, 600]
const TTFT_BOUNDS = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300]

type Labels = readonly string[]
const plain =
  (type: 'counter' | 'gauge' | 'summary') =>
  (name: string, labels: Labels, help: string, note?: string): Family => ({ name, type, help, labels, ...noted(note) })
const noted = (note: string | undefined) => (note === undefined ? {} : { note })

export const counter = plain('counter')
export const gauge = plain('gauge')
const summary = plain('summary')
const histogram = (name: string, labels: Labels, help: string, bounds: readonly number[], note?: string): Family => ({
  name,
  type: 'histogram',
  help,
  labels,
  bounds,
  ...noted(note),
})

/** in: the operator's bounds of histograms, where they differ */
export function metricFamilies(buckets: Config['observability']['metrics']['buckets']): Family[] {
  return [
    counter(
      'aisix_requests_total',
      ['provider', 'model', 'status', 'outcome'],
      'Requests for a model that are over.',
      'Kept for dashboards of old; `aisix_llm_requests_total` tells more.',
    ),
    summary(
      'aisix_request_duration_seconds',
      ['provider', 'model', 'status'],
      'Time until the head of the answer.',
      'Kept for dashboards of old; `aisix_llm_request_duration_seconds` tells more.',
    ),
    counter(
      'aisix_tokens_consumed_total',
      ['provider', 'model'],
      'Tokens of prompts and completions.',
      'Kept for dashboards of old; `aisix_llm_total_tokens_total` tells more.',
    ),
    counter(
      'aisix_admin_auth_failures_total',
      ['reason'],
      'Requests on the admin listener without an admin key that is known.',
      '`missing`, `malformed` or `unknown`. Each has a line in the log, up to 20 at once and one a second.',
    ),
    counter(
      'aisix_proxy_requests_total',
      REQUEST,
      'Requests on the proxy listener that are over.',
      'Once a request, however it ended, streams at their end. Health probes count; requests that are answered 401 do not.',
    ),
    counter(
      'aisix_proxy_failed_requests_total',
      REQUEST,
      'Of these, those that did not succeed.',
      'Where `outcome` is not `success`.',
    ),
    summary(
      'aisix_proxy_request_duration_seconds',
      DURATION,
      'Time until the head of the answer.',
      'Health probes are not timed.',
    ),
    counter(
      'aisix_llm_requests_total',
      REQUEST,
      'Requests on endpoints that reach a model.',
      'Of `aisix_proxy_requests_total` the part that is about models: chat, completions, embeddings.',
    ),
    summary(
      'aisix_llm_request_duration_seconds',
      DURATION,
      'Time until the head of the answer, on endpoints that reach a model.',
      'A stream counts until its first event is there, not until its end: that is `aisix_request_e2e_latency_seconds`.',
    ),
    counter(
      'aisix_llm_input_tokens_total',
      USAGE,
      'Tokens of prompts.',
      'When the request is over, from the usage that the upstream told, or the estimate where it told none. Failed requests have no tokens.',
    ),
    counter('aisix_llm_output_tokens_total', USAGE, 'Tokens of completions.', 'As above; reasoning tokens are part of them.'),
    counter(
      'aisix_llm_total_tokens_total',
      USAGE,
      'Tokens of prompts and completions.',
      'The total that the upstream told, where it is larger than the sum.',
    ),
    counter(
      'aisix_llm_spend_micro_usd_total',
      USAGE,
      'Cost in millionths of a dollar, from the prices of models.',
      'Only of models with `cost`, and only when it is above 0.',
    ),
    summary(
      'aisix_llm_time_to_first_token_seconds',
      USAGE,
      'Time from the request to the first event of its stream.',
      'Streams with a first event.',
    ),
    counter(
      'aisix_llm_tokens_by_client_total',
      ['client_type', 'model', 'token_type'],
      'Tokens by the kind of program that asked.',
      '`token_type` is `input`, `output` or `total`.',
    ),
    histogram(
      'aisix_request_e2e_latency_seconds',
      LATENCY,
      'Time from the request to the end of its answer.',
      buckets.request_e2e_latency ?? E2E_BOUNDS,
      'Once a request; of a stream to its last byte, or until its caller left.',
    ),
    histogram(
      'aisix_request_ttft_seconds',
      LATENCY,
      'Time from the request to the first event of its stream.',
      buckets.request_ttft ?? TTFT_BOUNDS,
      'Streams with a first event; `streaming` is `true`.',
    ),
    counter(
      'aisix_proxy_client_cancelled_requests_total',
      ['endpoint', ...KEYED],
      'Requests whose caller left before the head of the answer.',
    ),
    counter(
      'aisix_proxy_request_body_limit_rejections_total',
      ['endpoint', 'inbound_protocol', 'outcome'],
      'Bodies over the limit, by how reading the rest of them ended.',
      '`outcome` is `completed`, `cap_reached`, `timeout` or `client_read_error`. Bodies that declare their length.',
    ),
    counter(
      'aisix_deployment_requests_total',
      DEPLOYMENT,
      'Attempts at an upstream.',
      'Once an attempt that reached out to it; candidates that were passed over do not count. `model` is the direct model, the member where a group was asked for.',
    ),
    counter('aisix_deployment_success_responses_total', DEPLOYMENT, 'Attempts that were answered well.'),
    counter(
      'aisix_deployment_failure_responses_total',
      DEPLOYMENT,
      'Attempts that failed.',
      'An attempt whose caller left is neither a success nor a failure.',
    ),
    counter(
      'aisix_routing_successful_fallbacks_total',
      ['model', 'fallback_model'],
      'Attempts at a further target of a group that were answered well.',
      '`model` is the group, `fallback_model` its member.',
    ),
    counter('aisix_routing_failed_fallbacks_total', ['model', 'fallback_model'], 'Attempts at a further target that failed.'),
    gauge(
      'aisix_budget_limit_usd',
      BUDGET,
      'What a budget allows in its period.',
      '`scope` is `api_key`, `team`, `user`, `model` or `all`; of the ids the one that the scope names is there, the others are `unknown`.',
    ),
    gauge('aisix_budget_spent_usd', BUDGET, 'What has been spent of it.'),
    gauge('aisix_budget_remaining_usd', BUDGET, 'What is left of it.', '0 when it is overspent.'),
    gauge('aisix_budget_reset_seconds', BUDGET, 'Seconds until its next period.', 'Not of budgets with `period: total`.'),
    gauge('aisix_budget_details_present', BUDGET, '1: the other gauges tell of this budget; 0: it has no limit in dollars.'),
    counter(
      'aisix_budget_warnings_total',
      ['budget_id', 'budget', 'percent'],
      'Warning marks that budgets reached.',
      'Once a mark of `warn_at` and period.',
    ),
    counter('aisix_budget_rejections_total', ['budget_id', 'budget', 'scope'], 'Requests that a budget refused.'),
    counter(
      'aisix_auth_decisions_total',
      ['method', 'result', 'reason'],
      'Credentials that were judged.',
      '`result` is `allowed` (`reason` is `none` then) or `denied`; `method` is `api_key`, `anonymous` where `proxy.anonymous` was asked, or `none` where no credential came. Reasons: `missing_credentials`, `unknown_key`, `key_disabled`, `key_expired`; of `anonymous` `source_not_allowed`, `principal_missing`, `principal_disabled`, `principal_expired`. The only metric in which requests that were answered 401 count.',
    ),
    counter(
      'aisix_usage_events_emitted_total',
      ['handler', 'status_code', 'inbound_protocol', ...KEYED],
      'Records of usage that were made.',
      'Once an attempt, and once for a request that reached no upstream. `handler` names the endpoint, such as `chat`, `status_code` a class such as `2xx`; `0xx`: the attempt ended without a status.',
    ),
    counter(
      'aisix_usage_event_drops_total',
      ['reason', ...KEYED],
      'Records of usage that the ledger could not take.',
      '`reason` is `sink_full` (more than it can write), `sink_closed` (it was ended, or its file cannot be used) or `sink_disabled`.',
    ),
    counter(
      'aisix_otlp_fanout_drops_total',
      ['exporter', 'reason'],
      'Records that an exporter could not take.',
      'Of exporters of every kind, by their `name`. `reason` is `queue_full`, `rejected` (the receiver refused them), `delivery_failed` (it was tried until it was given up) or `stopped`.',
    ),
    counter('aisix_otlp_fanout_failures_total', ['exporter'], 'Deliveries of an exporter that failed.'),
  ]
}

/** Labels whose values are resources of the store: series of what was deleted are dropped. */
export const RESOURCE_LABELS = { api_key_id: 'api_keys', provider_key_id: 'provider_keys' } as const
