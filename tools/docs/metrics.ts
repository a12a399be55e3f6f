/** docs/metrics.md: what is written by hand, with the tables of all families, labels, buckets, clients and alerts. */
import { z } from 'zod'
import { allFamilies } from '../../src/status/families.ts'
import { KNOWN_CLIENTS } from '../../src/telemetry/client-type.ts'
import { ENDPOINT_LABELS } from '../../src/telemetry/endpoint-labels.ts'
import type { Family } from '../../src/telemetry/registry.ts'

/** Which families stand under a heading; every family belongs to exactly one. */
const SECTIONS: readonly { heading: string; has: RegExp }[] = [
  { heading: 'Requests', has: /^aisix_(proxy_|llm_requests|auth_)/ },
  { heading: 'Tokens and money', has: /^aisix_llm_.*_total$/ },
  { heading: 'Latency', has: /^aisix_(llm_.*_seconds|request_(e2e|ttft)_)/ },
  { heading: 'Model servers and groups', has: /^aisix_(deployment|routing)_/ },
  { heading: 'Rate limits', has: /^aisix_ratelimit_/ },
  { heading: 'Budgets', has: /^aisix_budgets?_/ },
  { heading: 'Records of usage and exporters', has: /^aisix_(usage|otlp)_/ },
  { heading: 'Configuration', has: /^aisix_config_/ },
  { heading: 'The admin API', has: /^aisix_(admin|audit)_/ },
  { heading: 'The gateway itself', has: /^aisix_(metric_|build_|process_)/ },
  { heading: 'Kept for dashboards of old', has: /^aisix_(requests_total|request_duration_seconds|tokens_consumed_total)$/ },
]

/** What the values of a label are. */
const LABELS: { readonly [label: string]: string } = {
  endpoint: `Route template: ${ENDPOINT_LABELS.slice(0, -1).map(code).join(', ')}; \`other\` for every other path.`,
  inbound_protocol: 'How the caller speaks: `openai`, `anthropic`, `realtime`.',
  provider: 'Label `provider` of the model.',
  model:
    'Configured name that was asked for: the group, the model, or the pattern of a wildcard. `unresolved`: there is none. In `aisix_deployment_*` the direct model that was tried.',
  upstream_model: 'Name that the model server was asked for, `model_name`.',
  provider_key_id: 'Id of the provider key.',
  provider_key_name: 'Its `display_name`.',
  api_key_id: 'Id of the caller key.',
  team_id: '`team_id` of the caller key.',
  user_id: '`user_id` of the caller key.',
  user_name: '`user_name` of the caller key.',
  stream: '`true` where the caller asked for a stream.',
  is_fallback: '`true` where the target that was tried last was not the first one.',
  status: 'Status code. 499: the caller left.',
  outcome: '`success` (2xx, 3xx), `rate_limited` (429), `client_error` (other 4xx), `upstream_error` (5xx).',
  env_id: 'Always `unknown`.',
  status_class: '`2xx`, `4xx` or `5xx`.',
  streaming: 'As `stream`.',
  client_type: 'Kind of program, see [below](#client_type).',
  token_type: '`input`, `output`, `total`.',
  fallback_model: 'Direct model that was tried in place of another one.',
  scope: 'Of limits `requests` or `tokens`, of budgets what they are for.',
  layer: 'Where a limit is written: `api_key`, `model`, `policy`.',
  policy_id: 'Id of the rate limit policy.',
  budget_id: 'Id of the budget.',
  budget: 'Its `name`.',
  percent: 'Warning mark, as in `warn_at`.',
  method: '`api_key`, or `none` without a credential.',
  result: '`allowed`, `denied`; in the audit log `applied`, `refused`.',
  reason: 'See the family.',
  handler: '`chat`, `completions`, `embeddings`.',
  status_code: 'Class, such as `2xx`.',
  exporter: '`name` of the exporter.',
  kind: 'Kind of resource, such as `models`.',
  hash: 'Hash of the configuration.',
  version: 'Version of the gateway.',
  commit: 'Commit that it was built from.',
}

const Alerts = z.object({
  groups: z.array(
    z.object({
      rules: z.array(
        z.object({
          alert: z.string(),
          labels: z.object({ severity: z.string() }),
          annotations: z.object({ summary: z.string() }),
        }),
      ),
    }),
  ),
})

export async function metricsReference(): Promise<string> {
  const handWritten = await Bun.file(new URL('metrics.md', import.meta.url)).text()
  const { groups } = Alerts.parse(
    Bun.YAML.parse(await Bun.file(new URL('../../docs/prometheus/alerts.yaml', import.meta.url)).text()),
  )
  const families = allFamilies({})
  const whoAndWhat = families.find(({ name }) => name === 'aisix_llm_total_tokens_total')?.labels ?? []
  const inserts: { readonly [name: string]: string } = {
    alerts: groups
      .flatMap(({ rules }) => rules)
      .map(rule => row(code(rule.alert), rule.labels.severity, rule.annotations.summary))
      .join('\n'),
    labels: labelsOf(families)
      .map(label => row(code(label), meaningOf(label)))
      .join('\n'),
    'who-and-what': whoAndWhat.map(code).join(', '),
    families: sections(families, whoAndWhat),
    buckets: families.flatMap(({ name, bounds }) => (bounds ? [row(code(name), bounds.join(', '))] : [])).join('\n'),
    clients: clientRows(),
  }
  return handWritten.replace(/<!-- ([a-z-]+) -->/g, (_mark, name: string) => {
    const text = inserts[name]
    if (text === undefined) throw new Error(`metrics.md asks for "${name}", which nothing makes`)
    return text
  })
}

/** In the order in which they first occur. */
function labelsOf(families: readonly Family[]): string[] {
  const inOrder = [...families].sort((a, b) => b.labels.length - a.labels.length)
  return [...new Set(inOrder.flatMap(({ labels }) => labels))]
}

function meaningOf(label: string): string {
  const meaning = LABELS[label]
  if (meaning === undefined) throw new Error(`tools/docs/metrics.ts does not say what the label "${label}" means`)
  return meaning
}

function sections(families: readonly Family[], whoAndWhat: readonly string[]): string {
  const placed = new Map<Family, string>()
  for (const family of families) {
    // The first heading that fits: requests before tokens, since both match `aisix_llm_requests_total`.
    const section = SECTIONS.find(({ has }) => has.test(family.name))
    if (!section) throw new Error(`tools/docs/metrics.ts has no heading for ${family.name}`)
    placed.set(family, section.heading)
  }
  return SECTIONS.map(({ heading }) => {
    const rows = families
      .filter(family => placed.get(family) === heading)
      .map(family => row(code(family.name), family.type, labelCell(family, whoAndWhat), meaningCell(family)))
    return [
      `### ${heading}`,
      '',
      '| family | type | labels | what it tells, and when |',
      '| --- | --- | --- | --- |',
      ...rows,
    ].join('\n')
  }).join('\n\n')
}

function labelCell({ labels }: Family, whoAndWhat: readonly string[]): string {
  if (labels.length === 0) return ''
  const hasAll = whoAndWhat.every((label, at) => labels[at] === label)
  if (!hasAll) return labels.map(code).join(', ')
  return ['*who and what*', ...labels.slice(whoAndWhat.length).map(code)].join(', ')
}

function meaningCell({ help, note }: Family): string {
  return note === undefined ? help : `${help} ${note}`
}

/** Neighbours of one name stand in one row. */
function clientRows(): string {
  const rows: { parts: string[]; client: string }[] = []
  for (const [part, client] of KNOWN_CLIENTS) {
    const last = rows.at(-1)
    if (last?.client === client) last.parts.push(part)
    else rows.push({ parts: [part], client })
  }
  return rows.map(({ parts, client }) => row(parts.map(code).join(', '), code(client))).join('\n')
}

function row(...cells: string[]): string {
  return `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`
}

function code(text: string): string {
  return `\`${text}\``
}
