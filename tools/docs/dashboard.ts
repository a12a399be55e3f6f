/**
 * docs/grafana/aisix.json, the dashboard: rows of panels, each a title, a unit and its questions in PromQL.
 * source: Grafana, "Dashboard JSON model", schema version 38 (Grafana 10.2)
 */

type Target = { expr: string; legend?: string; isInstant?: boolean; format?: 'table' | 'heatmap' }
type Panel = {
  title: string
  type: 'timeseries' | 'stat' | 'bargauge' | 'table' | 'heatmap' | 'state-timeline'
  /** Of 24 columns. */
  width: number
  unit: string
  targets: readonly Target[]
  description?: string
  isStacked?: boolean
  min?: number
  max?: number
  /** Value from which something is amiss, shown in red, or in green where more is better. */
  red?: number
  isGoodAbove?: number
  mappings?: readonly { value: number; text: string; color: string }[]
  /** Of tables: labels that are not shown. */
  hides?: readonly string[]
}
type Row = { title: string; panels: readonly Panel[]; isFolded?: boolean }

const HEIGHT = { stat: 4, other: 8 }

/** Of families that know the caller and the target. */
const WHO = 'job=~"$job", instance=~"$instance", model=~"$model", api_key_id=~"$api_key", provider_key_name=~"$provider_key"'
/** Of families that know the model alone. */
const MODEL = 'job=~"$job", instance=~"$instance", model=~"$model"'
const HERE = 'job=~"$job", instance=~"$instance"'

const rate = (family: string, filter = WHO) => `rate(${family}{${filter}}[$__rate_interval])`
const over = (family: string, filter = WHO) => `increase(${family}{${filter}}[$__range])`
const by = (labels: string, expr: string) => `sum by (${labels}) (${expr})`
const quantile = (q: number, family: string, labels = '') => {
  const kept = labels === '' ? 'le' : `${labels}, le`
  return `histogram_quantile(${q}, sum by (${kept}) (${rate(`${family}_bucket`, MODEL)}))`
}
const quantiles = (family: string): Target[] => [0.5, 0.9, 0.99].map(q => ({ expr: quantile(q, family), legend: `${q * 100} %` }))
const top = (labels: string, expr: string, legend = `{{${labels}}}`): Target => ({
  expr: `topk(10, ${by(labels, expr)})`,
  legend,
})

const lines = (title: string, unit: string, targets: readonly Target[], more: Partial<Panel> = {}): Panel => ({
  title,
  type: 'timeseries',
  width: 12,
  unit,
  targets,
  ...more,
})
const stat = (title: string, unit: string, expr: string, more: Partial<Panel> = {}): Panel => ({
  title,
  type: 'stat',
  width: 4,
  unit,
  targets: [{ expr, isInstant: true }],
  ...more,
})
const bars = (title: string, unit: string, target: Target, more: Partial<Panel> = {}): Panel => ({
  title,
  type: 'bargauge',
  width: 8,
  unit,
  targets: [{ ...target, isInstant: true }],
  ...more,
})

const YES_NO = [
  { value: 1, text: 'yes', color: 'green' },
  { value: 0, text: 'no', color: 'red' },
]

const ROWS: readonly Row[] = [
  {
    title: 'Now',
    panels: [
      stat('Requests', 'reqps', `sum(${rate('aisix_llm_requests_total')})`),
      stat(
        'Answered well',
        'percentunit',
        `sum(${rate('aisix_llm_requests_total', `${WHO}, outcome="success"`)}) / sum(${rate('aisix_llm_requests_total')})`,
        { description: 'Of all requests for models. What the callers did wrong counts as not answered well.', isGoodAbove: 0.95 },
      ),
      stat('Under way', 'short', `sum(aisix_proxy_in_flight_requests{${HERE}})`),
      stat('First token, 95 % within', 's', quantile(0.95, 'aisix_request_ttft_seconds')),
      stat('Tokens', 'short', `sum(${rate('aisix_llm_total_tokens_total')})`, { description: 'A second.' }),
      stat('Spent', 'currencyUSD', `sum(${over('aisix_llm_spend_micro_usd_total')}) / 1e6`, {
        description: 'In the range of time that is shown, at models with a price.',
      }),
    ],
  },
  {
    title: 'Traffic and outcomes',
    panels: [
      lines('Requests by outcome', 'reqps', [{ expr: by('outcome', rate('aisix_llm_requests_total')), legend: '{{outcome}}' }], {
        isStacked: true,
      }),
      lines('Failures by status', 'reqps', [
        {
          expr: by('status', rate('aisix_llm_requests_total', `${WHO}, outcome!="success"`)),
          legend: '{{status}}',
        },
      ]),
      lines('Requests by model', 'reqps', [top('model', rate('aisix_llm_requests_total'))]),
      lines(
        'Failures by model',
        'percentunit',
        [
          {
            expr: `${by('model', rate('aisix_llm_requests_total', `${WHO}, outcome="upstream_error"`))} / ${by('model', rate('aisix_llm_requests_total'))}`,
            legend: '{{model}}',
          },
        ],
        { description: 'Requests that ended with 5xx, of all for the model.', min: 0 },
      ),
      lines('Requests by endpoint', 'reqps', [top('endpoint', rate('aisix_proxy_requests_total'))], {
        description: 'Everything on the proxy listener, health probes and unknown paths included.',
      }),
      lines(
        'Callers that left',
        'reqps',
        [
          top(
            'model, endpoint',
            rate('aisix_proxy_client_cancelled_requests_total', `${MODEL}, provider_key_name=~"$provider_key"`),
            '{{model}} {{endpoint}}',
          ),
        ],
        { description: 'Before an answer began.' },
      ),
      bars('Requests by caller key', 'short', top('api_key_id', over('aisix_llm_requests_total'))),
      bars('Requests by team', 'short', top('team_id', over('aisix_llm_requests_total'))),
      bars('Requests by user', 'short', top('user_name', over('aisix_llm_requests_total'))),
      lines(
        'Credentials that were refused',
        'reqps',
        [{ expr: by('reason', rate('aisix_auth_decisions_total', `${HERE}, result="denied"`)), legend: '{{reason}}' }],
        { description: 'Requests without a valid key. They count nowhere else.' },
      ),
      lines('Bodies over the limit', 'reqps', [
        {
          expr: by('endpoint, outcome', rate('aisix_proxy_request_body_limit_rejections_total', HERE)),
          legend: '{{endpoint}} {{outcome}}',
        },
      ]),
    ],
  },
  {
    title: 'Latency and time to first token',
    panels: [
      lines('Whole requests', 's', quantiles('aisix_request_e2e_latency_seconds'), {
        description: 'Until the last byte. The share of requests in the legend was over within this time.',
      }),
      lines('First token of streams', 's', quantiles('aisix_request_ttft_seconds')),
      lines('Whole requests by model, 95 %', 's', [
        { expr: quantile(0.95, 'aisix_request_e2e_latency_seconds', 'model'), legend: '{{model}}' },
      ]),
      lines('First token by model, 95 %', 's', [
        { expr: quantile(0.95, 'aisix_request_ttft_seconds', 'model'), legend: '{{model}}' },
      ]),
      lines('Until the head of the answer by provider key, mean', 's', [
        {
          expr: `${by('provider_key_name', rate('aisix_llm_request_duration_seconds_sum'))} / ${by('provider_key_name', rate('aisix_llm_request_duration_seconds_count'))}`,
          legend: '{{provider_key_name}}',
        },
      ]),
      lines('First token by caller key, mean', 's', [
        {
          expr: `topk(10, ${by('api_key_id', rate('aisix_llm_time_to_first_token_seconds_sum'))} / ${by('api_key_id', rate('aisix_llm_time_to_first_token_seconds_count'))})`,
          legend: '{{api_key_id}}',
        },
      ]),
      {
        title: 'How long whole requests take',
        type: 'heatmap',
        width: 24,
        unit: 's',
        targets: [
          {
            expr: `sum by (le) (increase(aisix_request_e2e_latency_seconds_bucket{${MODEL}}[$__rate_interval]))`,
            legend: '{{le}}',
            format: 'heatmap',
          },
        ],
      },
    ],
  },
  {
    title: 'Tokens and spending',
    panels: [
      lines(
        'Tokens a second',
        'short',
        [
          { expr: `sum(${rate('aisix_llm_input_tokens_total')})`, legend: 'prompts' },
          { expr: `sum(${rate('aisix_llm_output_tokens_total')})`, legend: 'completions' },
        ],
        { isStacked: true },
      ),
      lines('Tokens a second by model', 'short', [top('model', rate('aisix_llm_total_tokens_total'))], { isStacked: true }),
      bars('Tokens by caller key', 'short', top('api_key_id', over('aisix_llm_total_tokens_total'))),
      bars('Tokens by team', 'short', top('team_id', over('aisix_llm_total_tokens_total'))),
      bars(
        'Tokens by kind of program',
        'short',
        top('client_type', over('aisix_llm_tokens_by_client_total', `${MODEL}, token_type="total"`)),
      ),
      lines(
        'Dollars an hour by model',
        'currencyUSD',
        [{ expr: `topk(10, ${by('model', rate('aisix_llm_spend_micro_usd_total'))}) * 3600 / 1e6`, legend: '{{model}}' }],
        { isStacked: true, description: 'At models with a price.' },
      ),
      lines(
        'Dollars an hour by provider key',
        'currencyUSD',
        [
          {
            expr: `topk(10, ${by('provider_key_name', rate('aisix_llm_spend_micro_usd_total'))}) * 3600 / 1e6`,
            legend: '{{provider_key_name}}',
          },
        ],
        { isStacked: true },
      ),
      bars('Spent by caller key', 'currencyUSD', {
        expr: `topk(10, ${by('api_key_id', over('aisix_llm_spend_micro_usd_total'))}) / 1e6`,
        legend: '{{api_key_id}}',
      }),
      bars('Spent by team', 'currencyUSD', {
        expr: `topk(10, ${by('team_id', over('aisix_llm_spend_micro_usd_total'))}) / 1e6`,
        legend: '{{team_id}}',
      }),
      bars('Spent by user', 'currencyUSD', {
        expr: `topk(10, ${by('user_name', over('aisix_llm_spend_micro_usd_total'))}) / 1e6`,
        legend: '{{user_name}}',
      }),
    ],
  },
  {
    title: 'Model servers and groups',
    panels: [
      {
        title: 'In rotation',
        type: 'state-timeline',
        width: 24,
        unit: 'short',
        description: 'Of each direct model that was used or checked. GET /status/models has the reasons.',
        targets: [
          { expr: `max by (model, upstream_model) (aisix_deployment_state{${MODEL}})`, legend: '{{model}} ({{upstream_model}})' },
        ],
        mappings: [
          { value: 0, text: 'in rotation', color: 'green' },
          { value: 2, text: 'out of rotation', color: 'red' },
        ],
      },
      lines('Attempts by model', 'reqps', [top('model', rate('aisix_deployment_requests_total', MODEL))], {
        description: 'Direct models: of a group each member that was tried.',
      }),
      lines(
        'Attempts that failed',
        'percentunit',
        [
          {
            expr: `${by('model', rate('aisix_deployment_failure_responses_total', MODEL))} / ${by('model', rate('aisix_deployment_requests_total', MODEL))}`,
            legend: '{{model}}',
          },
        ],
        { min: 0, max: 1 },
      ),
      lines('Entries into cooldown', 'short', [
        { expr: by('model', `increase(aisix_deployment_cooled_down_total{${MODEL}}[$__rate_interval])`), legend: '{{model}}' },
      ]),
      lines('Fallbacks', 'reqps', [
        {
          expr: by('model, fallback_model', rate('aisix_routing_successful_fallbacks_total', MODEL)),
          legend: '{{model}} → {{fallback_model}}, answered',
        },
        {
          expr: by('model, fallback_model', rate('aisix_routing_failed_fallbacks_total', MODEL)),
          legend: '{{model}} → {{fallback_model}}, failed',
        },
      ]),
    ],
  },
  {
    title: 'Limits and budgets',
    panels: [
      lines('Refused by rate limits', 'reqps', [
        {
          expr: by('scope, layer, policy_id', rate('aisix_ratelimit_rejections_total', HERE)),
          legend: '{{scope}} of {{layer}} {{policy_id}}',
        },
      ]),
      lines(
        'Requests left, the ten keys with fewest',
        'short',
        [
          {
            expr: `bottomk(10, min by (api_key_id, model) (aisix_ratelimit_remaining_requests{${MODEL}, api_key_id=~"$api_key"}))`,
            legend: '{{api_key_id}} {{model}}',
          },
        ],
        { width: 6, description: 'As of the last answered request of each.', min: 0 },
      ),
      lines(
        'Tokens left, the ten keys with fewest',
        'short',
        [
          {
            expr: `bottomk(10, min by (api_key_id, model) (aisix_ratelimit_remaining_tokens{${MODEL}, api_key_id=~"$api_key"}))`,
            legend: '{{api_key_id}} {{model}}',
          },
        ],
        { width: 6, min: 0 },
      ),
      bars(
        'Spent of budgets',
        'percentunit',
        {
          expr: `max by (budget, scope) (aisix_budget_spent_usd{${HERE}} / aisix_budget_limit_usd{${HERE}})`,
          legend: '{{budget}} ({{scope}})',
        },
        { min: 0, max: 1, red: 0.9 },
      ),
      bars('Left of budgets', 'currencyUSD', {
        expr: `min by (budget, scope) (aisix_budget_remaining_usd{${HERE}})`,
        legend: '{{budget}} ({{scope}})',
      }),
      bars('Until the next period', 's', {
        expr: `max by (budget, scope) (aisix_budget_reset_seconds{${HERE}})`,
        legend: '{{budget}} ({{scope}})',
      }),
      lines('Refused by budgets', 'reqps', [
        { expr: by('budget, scope', rate('aisix_budget_rejections_total', HERE)), legend: '{{budget}} ({{scope}})' },
      ]),
      lines(
        'Warning marks of budgets',
        'short',
        [
          {
            expr: `max by (budget, percent) (aisix_budget_warnings_total{${HERE}})`,
            legend: '{{budget}}: {{percent}} %',
          },
        ],
        { description: 'How often each was reached since the start of the gateway.' },
      ),
    ],
  },
  {
    title: 'Ledger and exporters',
    isFolded: true,
    panels: [
      stat('Usage reaches the disk', 'short', `min(aisix_usage_ledger_up{${HERE}})`, { width: 6, mappings: YES_NO }),
      stat('Spending reaches the disk', 'short', `min(aisix_budgets_up{${HERE}})`, { width: 6, mappings: YES_NO }),
      stat('Size of the ledger', 'bytes', `sum(aisix_usage_ledger_bytes{${HERE}})`, { width: 6 }),
      stat('Records lost', 'short', `sum(${over('aisix_usage_event_drops_total', `${HERE}, reason!="sink_disabled"`)})`, {
        width: 6,
        description: 'In the range of time that is shown.',
        red: 1,
      }),
      lines('Records of usage', 'cps', [
        { expr: `sum(${rate('aisix_usage_events_emitted_total', HERE)})`, legend: 'made' },
        { expr: `sum(${rate('aisix_usage_ledger_written_total', HERE)})`, legend: 'written' },
        { expr: by('reason', rate('aisix_usage_event_drops_total', HERE)), legend: 'lost: {{reason}}' },
      ]),
      lines('Records that wait to be written', 'short', [
        { expr: `sum by (instance) (aisix_usage_ledger_queued_records{${HERE}})`, legend: '{{instance}}' },
      ]),
      lines('Deliveries of exporters that failed', 'cps', [
        { expr: by('exporter', rate('aisix_otlp_fanout_failures_total', HERE)), legend: '{{exporter}}' },
      ]),
      lines('Records that exporters lost', 'cps', [
        { expr: by('exporter, reason', rate('aisix_otlp_fanout_drops_total', HERE)), legend: '{{exporter}}: {{reason}}' },
      ]),
    ],
  },
  {
    title: 'Process',
    isFolded: true,
    panels: [
      lines(
        'Processor',
        'percentunit',
        [{ expr: `sum by (instance) (${rate('aisix_process_cpu_seconds_total', HERE)})`, legend: '{{instance}}' }],
        { width: 8, min: 0, description: '100 % are one core.' },
      ),
      lines(
        'Memory',
        'bytes',
        [{ expr: `sum by (instance) (aisix_process_resident_memory_bytes{${HERE}})`, legend: '{{instance}}' }],
        { width: 8, min: 0 },
      ),
      lines(
        'Under way by endpoint',
        'short',
        [{ expr: `sum by (endpoint) (aisix_proxy_in_flight_requests{${HERE}})`, legend: '{{endpoint}}' }],
        { width: 8, isStacked: true },
      ),
      lines('Metric series', 'short', [{ expr: `sum by (instance) (aisix_metric_series{${HERE}})`, legend: '{{instance}}' }], {
        width: 8,
        min: 0,
      }),
      stat('Series that found no room', 'short', `sum(${over('aisix_metric_series_overflows_total', HERE)})`, {
        width: 4,
        red: 1,
      }),
      stat('Running for', 's', `time() - max(aisix_process_start_time_seconds{${HERE}})`, { width: 4 }),
      {
        title: 'Versions',
        type: 'table',
        width: 8,
        unit: 'short',
        targets: [{ expr: `sum by (instance, version, commit) (aisix_build_info{${HERE}})`, isInstant: true, format: 'table' }],
        hides: ['Time', 'Value'],
      },
    ],
  },
  {
    title: 'Configuration',
    isFolded: true,
    panels: [
      stat('Store can be read', 'short', `min(aisix_config_source_connected{${HERE}})`, { width: 4, mappings: YES_NO }),
      stat('Store takes writes', 'short', `min(aisix_config_source_writable{${HERE}})`, { width: 4, mappings: YES_NO }),
      stat('Last load succeeded', 'short', `min(aisix_config_last_reload_successful{${HERE}})`, { width: 4, mappings: YES_NO }),
      stat('Since the last good load', 's', `time() - min(aisix_config_last_reload_success_timestamp_seconds{${HERE}})`, {
        width: 6,
      }),
      stat('Rejected resources', 'short', `sum(aisix_config_rejected_resources{${HERE}})`, { width: 6, red: 1 }),
      lines('Resources that are not served as they stand', 'short', [
        { expr: `sum by (kind) (aisix_config_rejected_resources{${HERE}}) > 0`, legend: '{{kind}}: rejected' },
        { expr: `sum by (kind) (aisix_config_stale_served_resources{${HERE}}) > 0`, legend: '{{kind}}: an older version serves' },
        { expr: `sum by (kind) (aisix_config_partially_compatible_resources{${HERE}}) > 0`, legend: '{{kind}}: members unknown' },
      ]),
      lines('Changes over the admin API', 'short', [
        {
          expr: `sum by (result) (increase(aisix_audit_entries_total{${HERE}}[$__rate_interval]))`,
          legend: '{{result}}',
        },
        { expr: `sum(increase(aisix_audit_omitted_total{${HERE}}[$__rate_interval]))`, legend: 'refused, not taken down' },
        {
          expr: `sum by (reason) (increase(aisix_admin_auth_failures_total{${HERE}}[$__rate_interval]))`,
          legend: 'admin key {{reason}}',
        },
      ]),
      lines('Revisions', 'short', [
        { expr: `max by (instance) (aisix_config_observed_revision{${HERE}})`, legend: '{{instance}}: seen' },
        { expr: `max by (instance) (aisix_config_applied_revision{${HERE}})`, legend: '{{instance}}: in force' },
      ]),
      lines('Loads', 'short', [
        { expr: `sum(increase(aisix_config_reloads_total{${HERE}}[$__rate_interval]))`, legend: 'all' },
        {
          expr: `sum by (reason) (increase(aisix_config_reload_failures_total{${HERE}}[$__rate_interval]))`,
          legend: 'failed: {{reason}}',
        },
      ]),
      {
        title: 'Configuration in force',
        type: 'table',
        width: 12,
        unit: 'short',
        description: 'Gateways with one configuration have one hash.',
        targets: [{ expr: `sum by (instance, hash) (aisix_config_hash_info{${HERE}}) == 1`, isInstant: true, format: 'table' }],
        hides: ['Time', 'Value'],
      },
    ],
  },
]

const DATASOURCE = { type: 'prometheus', uid: '${datasource}' }

export async function dashboard(): Promise<string> {
  return `${JSON.stringify(dashboardModel(), null, 2)}\n`
}

function dashboardModel() {
  return {
    uid: 'aisix',
    title: 'aisix',
    description:
      'What the gateway serves, to whom, how fast and for how much. Made by `make docs`; docs/metrics.md explains the metrics.',
    tags: ['aisix', 'llm'],
    schemaVersion: 38,
    version: 1,
    editable: true,
    graphTooltip: 1,
    refresh: '30s',
    time: { from: 'now-6h', to: 'now' },
    timezone: '',
    annotations: { list: [] },
    links: [],
    templating: {
      list: [
        { name: 'datasource', label: 'Data source', type: 'datasource', query: 'prometheus', current: {}, hide: 0 },
        variable('job', 'Job', 'label_values(aisix_config_applied_revision, job)'),
        variable('instance', 'Gateway', 'label_values(aisix_config_applied_revision{job=~"$job"}, instance)'),
        variable('model', 'Model', `label_values(aisix_llm_requests_total{${HERE}}, model)`),
        variable('api_key', 'Caller key', `label_values(aisix_llm_requests_total{${HERE}}, api_key_id)`),
        variable('provider_key', 'Provider key', `label_values(aisix_llm_requests_total{${HERE}}, provider_key_name)`),
      ],
    },
    panels: placed(),
  }
}

function variable(name: string, label: string, query: string) {
  return {
    name,
    label,
    type: 'query',
    datasource: DATASOURCE,
    definition: query,
    query: { query, refId: 'StandardVariableQuery' },
    refresh: 2,
    sort: 1,
    multi: true,
    includeAll: true,
    allValue: '.*',
    current: { selected: true, text: ['All'], value: ['$__all'] },
    hide: 0,
  }
}

/** Panels in their places: rows below each other, panels from left to right as far as 24 columns go. */
function placed() {
  let id = 0
  let y = 0
  return ROWS.flatMap(({ title, panels, isFolded = false }): object[] => {
    const row = { id: ++id, type: 'row', title, collapsed: isFolded, gridPos: { x: 0, y: y++, w: 24, h: 1 } }
    const bodies: ReturnType<typeof panelOf>[] = []
    let x = 0
    let h = 0
    for (const panel of panels) {
      if (x + panel.width > 24) {
        x = 0
        y += h
        h = 0
      }
      const height = panel.type === 'stat' ? HEIGHT.stat : HEIGHT.other
      bodies.push(panelOf(panel, ++id, { x, y, w: panel.width, h: height }))
      x += panel.width
      h = Math.max(h, height)
    }
    y += h
    // Panels of a folded row lie within it.
    return isFolded ? [{ ...row, panels: bodies }] : [{ ...row, panels: [] }, ...bodies]
  })
}

function panelOf(panel: Panel, id: number, gridPos: { x: number; y: number; w: number; h: number }) {
  const { title, type, unit, targets, description, min, max } = panel
  return {
    id,
    title,
    type,
    ...(description === undefined ? {} : { description }),
    datasource: DATASOURCE,
    gridPos,
    targets: targets.map(({ expr, legend, isInstant = false, format = 'time_series' }, at) => ({
      refId: String.fromCharCode(65 + at),
      datasource: DATASOURCE,
      editorMode: 'code',
      expr,
      format,
      instant: isInstant,
      range: !isInstant,
      legendFormat: legend ?? '__auto',
    })),
    fieldConfig: {
      defaults: {
        unit,
        ...(min === undefined ? {} : { min }),
        ...(max === undefined ? {} : { max }),
        color: { mode: type === 'stat' || type === 'bargauge' ? 'thresholds' : 'palette-classic' },
        thresholds: { mode: 'absolute', steps: stepsOf(panel) },
        mappings: mappingsOf(panel),
        custom: customOf(panel),
      },
      overrides: [],
    },
    options: optionsOf(panel),
    ...(panel.hides === undefined ? {} : { transformations: [hide(panel.hides)] }),
  }
}

function stepsOf({ red, isGoodAbove }: Panel) {
  if (isGoodAbove !== undefined) {
    return [
      { color: 'red', value: null },
      { color: 'green', value: isGoodAbove },
    ]
  }
  const steps: { color: string; value: number | null }[] = [{ color: 'green', value: null }]
  if (red !== undefined) steps.push({ color: 'red', value: red })
  return steps
}

function mappingsOf({ mappings = [] }: Panel) {
  if (mappings.length === 0) return []
  const options = mappings.map(({ value, text, color }, index) => [value, { text, color, index }])
  return [{ type: 'value', options: Object.fromEntries(options) }]
}

function customOf({ type, isStacked = false }: Panel) {
  if (type !== 'timeseries') return {}
  return {
    drawStyle: 'line',
    lineWidth: 1,
    fillOpacity: isStacked ? 30 : 5,
    showPoints: 'never',
    spanNulls: false,
    stacking: { mode: isStacked ? 'normal' : 'none', group: 'A' },
  }
}

const LAST = { calcs: ['lastNotNull'], fields: '', values: false }

function optionsOf({ type }: Panel) {
  switch (type) {
    case 'timeseries':
      return {
        legend: { displayMode: 'table', placement: 'bottom', calcs: ['mean', 'max'], showLegend: true },
        tooltip: { mode: 'multi', sort: 'desc' },
      }
    case 'stat':
      return { reduceOptions: LAST, colorMode: 'value', graphMode: 'none', textMode: 'value' }
    case 'bargauge':
      return { reduceOptions: LAST, orientation: 'horizontal', displayMode: 'gradient', showUnfilled: true }
    case 'state-timeline':
      return { mergeValues: true, showValue: 'never', rowHeight: 0.8, legend: { displayMode: 'list', placement: 'bottom' } }
    case 'heatmap':
      return { calculate: false, yAxis: { unit: 's' }, color: { mode: 'scheme', scheme: 'Oranges', steps: 64 }, cellGap: 1 }
    case 'table':
      return { showHeader: true }
  }
}

function hide(names: readonly string[]) {
  return { id: 'organize', options: { excludeByName: Object.fromEntries(names.map(name => [name, true])) } }
}
