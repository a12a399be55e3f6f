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
const DEPLOYMENT = ['provider', 'model', 'upstream_model', 'provider_key_id'] as const
const KEYED = ['model', 'provider_key_id', 'provider_key_name'] as const
const BUDGET = ['budget_id', 'budget', 'scope', 'api_key_id', 'team_id', 'user_id'] as const

/** Seconds. source: control-observability §2.1 */
const E2E_BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 420, 600]
const TTFT_BOUNDS = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300]

const counter = (name: string, labels: readonly string[], help: string): Family => ({ name, type: 'counter', help, labels })
const gauge = (name: string, labels: readonly string[], help: string): Family => ({ name, type: 'gauge', help, labels })
const summary = (name: string, labels: readonly string[], help: string): Family => ({ name, type: 'summary', help, labels })
const histogram = (name: string, labels: readonly string[], help: string, bounds: readonly number[]): Family => ({
  name,
  type: 'histogram',
  help,
  labels,
  bounds,
})

/** in: the operator's bounds of histograms, where they differ */
export function metricFamilies(buckets: Config['observability']['metrics']['buckets']): Family[] {
  return [
    counter('aisix_requests_total', ['provider', 'model', 'status', 'outcome'], 'Requests for a model that are over.'),
    summary('aisix_request_duration_seconds', ['provider', 'model', 'status'], 'Time until the head of the answer.'),
    counter('aisix_tokens_consumed_total', ['provider', 'model'], 'Tokens of prompts and completions.'),
    counter('aisix_proxy_requests_total', REQUEST, 'Requests on the proxy listener that are over.'),
    counter('aisix_proxy_failed_requests_total', REQUEST, 'Of these, those that did not succeed.'),
    summary('aisix_proxy_request_duration_seconds', DURATION, 'Time until the head of the answer.'),
    counter('aisix_llm_requests_total', REQUEST, 'Requests on endpoints that reach a model.'),
    summary(
      'aisix_llm_request_duration_seconds',
      DURATION,
      'Time until the head of the answer, on endpoints that reach a model.',
    ),
    counter('aisix_llm_input_tokens_total', USAGE, 'Tokens of prompts.'),
    counter('aisix_llm_output_tokens_total', USAGE, 'Tokens of completions.'),
    counter('aisix_llm_total_tokens_total', USAGE, 'Tokens of prompts and completions.'),
    counter('aisix_llm_spend_micro_usd_total', USAGE, 'Cost in millionths of a dollar, from the prices of models.'),
    summary('aisix_llm_time_to_first_token_seconds', USAGE, 'Time from the request to the first event of its stream.'),
    counter(
      'aisix_llm_tokens_by_client_total',
      ['client_type', 'model', 'token_type'],
      'Tokens by the kind of program that asked.',
    ),
    histogram(
      'aisix_request_e2e_latency_seconds',
      LATENCY,
      'Time from the request to the end of its answer.',
      buckets.request_e2e_latency ?? E2E_BOUNDS,
    ),
    histogram(
      'aisix_request_ttft_seconds',
      LATENCY,
      'Time from the request to the first event of its stream.',
      buckets.request_ttft ?? TTFT_BOUNDS,
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
    ),
    counter('aisix_deployment_requests_total', DEPLOYMENT, 'Attempts at an upstream.'),
    counter('aisix_deployment_success_responses_total', DEPLOYMENT, 'Attempts that were answered well.'),
    counter('aisix_deployment_failure_responses_total', DEPLOYMENT, 'Attempts that failed.'),
    counter(
      'aisix_routing_successful_fallbacks_total',
      ['model', 'fallback_model'],
      'Attempts at a further target of a group that were answered well.',
    ),
    counter('aisix_routing_failed_fallbacks_total', ['model', 'fallback_model'], 'Attempts at a further target that failed.'),
    gauge('aisix_budget_limit_usd', BUDGET, 'What a budget allows in its period.'),
    gauge('aisix_budget_spent_usd', BUDGET, 'What has been spent of it.'),
    gauge('aisix_budget_remaining_usd', BUDGET, 'What is left of it.'),
    gauge('aisix_budget_reset_seconds', BUDGET, 'Seconds until its next period.'),
    gauge('aisix_budget_details_present', BUDGET, '1: the other gauges tell of this budget; 0: it has no limit in dollars.'),
    counter('aisix_budget_warnings_total', ['budget_id', 'budget', 'percent'], 'Warning marks that budgets reached.'),
    counter('aisix_budget_rejections_total', ['budget_id', 'budget', 'scope'], 'Requests that a budget refused.'),
    counter('aisix_auth_decisions_total', ['method', 'result', 'reason'], 'Credentials that were judged.'),
    counter(
      'aisix_usage_events_emitted_total',
      ['handler', 'status_code', 'inbound_protocol', ...KEYED],
      'Records of usage that were made.',
    ),
    counter('aisix_usage_event_drops_total', ['reason', ...KEYED], 'Records of usage that the ledger could not take.'),
    counter('aisix_otlp_fanout_drops_total', ['exporter', 'reason'], 'Records that an exporter could not take.'),
    counter('aisix_otlp_fanout_failures_total', ['exporter'], 'Deliveries of an exporter that failed.'),
  ]
}

/** Labels whose values are resources of the store: series of what was deleted are dropped. */
export const RESOURCE_LABELS = { api_key_id: 'api_keys', provider_key_id: 'provider_keys' } as const
