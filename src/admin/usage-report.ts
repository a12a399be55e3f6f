/** Sums over the records of a time: `GET /admin/v1/usage`. source: control-observability §4 */
import type { Clock } from '../gateway.ts'
import {
  GROUPINGS,
  type Grouping,
  LATENCY_BOUNDS_MS,
  type Ledger,
  type UsageRow as LedgerRow,
  TTFT_BOUNDS_MS,
  type UsageAnswer,
  type UsageQuestion,
} from '../ledger/ledger.ts'
import { DAYS_KEPT_DAYS, HOURS_KEPT_DAYS } from '../ledger/pruning.ts'
import { usdText } from '../pricing/price.ts'
import type { Snapshot } from '../store/snapshot.ts'
import type { Store } from '../store/store.ts'
import { wholeSeconds } from '../telemetry/usage-record.ts'
import { type CsvValue, csv } from './csv.ts'
import { json } from './error.ts'
import { Query, type QueryParameters } from './query.ts'
import type { Route } from './route.ts'
import { inlineSchema } from './schema.ts'
import { ask, LEDGER_ERRORS } from './usage-ledger.ts'
import { createNames, idsOf, ownersOf } from './usage-names.ts'
import { quantilesOf } from './usage-quantiles.ts'
import { UsageResponse, type UsageRow, type UsageSums } from './usage-schema.ts'

export type UsageReportOptions = { ledger: Ledger; store: Store; clock: Clock }

const FORMATS = ['json', 'csv'] as const
const STATUS_CLASSES: readonly string[] = ['2xx', '3xx', '4xx', '5xx']
const HOUR_MS = 3_600_000
const DAY_MS = 86_400_000

const SEVERAL = 'Repeat it, or separate several by commas: any of them.'
const filter = (name: string, description: string) => ({
  name,
  in: 'query' as const,
  required: false,
  description: `${description} ${SEVERAL}`,
  schema: { type: 'string' as const },
})

const PARAMETERS: QueryParameters = [
  {
    name: 'from',
    in: 'query',
    required: false,
    description: `First moment that counts: RFC 3339, a date in UTC, or whole seconds since 1970; rounded down to a whole hour, or where it is more than ${HOURS_KEPT_DAYS} days ago, to a whole day. Default: 24 hours before \`to\`.`,
    schema: { type: 'string' },
  },
  {
    name: 'to',
    in: 'query',
    required: false,
    description: 'First moment that counts no more, in the same forms; rounded up in the same way. Default: now.',
    schema: { type: 'string' },
  },
  {
    name: 'group_by',
    in: 'query',
    required: false,
    description: `What rows are told apart by: any of ${GROUPINGS.join(', ')}; \`day\` or \`hour\`, not both. Repeat it, or separate several by commas. Default: one row.`,
    schema: { type: 'string' },
  },
  {
    name: 'format',
    in: 'query',
    required: false,
    description: '`csv`: the rows as a table with one line of names, for spreadsheets.',
    schema: { type: 'string', enum: [...FORMATS], default: 'json' },
  },
  filter('api_key', 'Id or name of caller keys; empty for requests without one.'),
  filter('model', 'Id or alias of models; a group is counted under the members that it tried. Empty for requests without one.'),
  filter('provider_key', 'Id or name of provider keys; empty for requests that asked no server.'),
  filter('team', 'Team of the caller key; empty for requests without one.'),
  filter('user', 'User of the caller key; empty for requests without one.'),
  filter('status', 'Class of the status: `2xx`, `3xx`, `4xx` or `5xx`.'),
]

type Asked = { question: UsageQuestion; format: (typeof FORMATS)[number] }

/** throws: AdminError 400 */
function readQuestion(url: URL, snapshot: Snapshot, nowMs: number): Asked {
  const query = new Query(url, PARAMETERS)
  const to = query.instant('to') ?? nowMs
  const from = query.instant('from') ?? to - DAY_MS
  const groupBy = readGroupings(query)
  const range = rangeOf(query, { from, to, isByHour: groupBy.includes('hour'), nowMs })
  const format = query.choice('format', FORMATS, 'json')
  const statusClasses = query.has('status') ? query.list('status') : undefined
  if (statusClasses?.some(each => !STATUS_CLASSES.includes(each))) {
    query.refuse('status', `expected classes: ${STATUS_CLASSES.join(', ')}; /admin/v1/requests takes single statuses`)
  }
  const apiKeyIds = idsOf(query, snapshot, 'api_key')
  const modelIds = idsOf(query, snapshot, 'model')
  const providerKeyIds = idsOf(query, snapshot, 'provider_key')
  const teamIds = ownersOf(query, snapshot, 'team')
  const userIds = ownersOf(query, snapshot, 'user')
  query.check()
  const filter = {
    ...(apiKeyIds && { apiKeyIds }),
    ...(modelIds && { modelIds }),
    ...(providerKeyIds && { providerKeyIds }),
    ...(teamIds && { teamIds }),
    ...(userIds && { userIds }),
    ...(statusClasses && { statusClasses }),
  }
  return { question: { ...range, groupBy, filter }, format }
}

/**
 * The whole hours that hold the time that is asked for; whole days where single hours are no longer kept. Time before all that
 * is kept is left out: the answer tells where it begins.
 */
function rangeOf(query: Query, { from, to, isByHour, nowMs }: { from: number; to: number; isByHour: boolean; nowMs: number }) {
  // One unit less than is kept, so that what is told to be covered is still there when the question comes to it.
  const hoursFrom = ceilTo(HOUR_MS, nowMs - HOURS_KEPT_DAYS * DAY_MS)
  const daysFrom = ceilTo(DAY_MS, nowMs - DAYS_KEPT_DAYS * DAY_MS)
  const isFromOld = from < hoursFrom
  const fromMs = isFromOld ? Math.max(daysFrom, floorTo(DAY_MS, from)) : floorTo(HOUR_MS, from)
  // The day of the end is there in hours only as far as it is young enough.
  const isToOld = isFromOld && floorTo(DAY_MS, to) < hoursFrom
  const toMs = isToOld ? ceilTo(DAY_MS, to) : ceilTo(HOUR_MS, to)
  if (from >= to) query.refuse('from', 'must be before `to`, which is now where it is left out')
  else if (toMs <= daysFrom) query.refuse('to', `sums are kept for ${DAYS_KEPT_DAYS} days, and this is before`)
  else if (isByHour && fromMs < hoursFrom) {
    query.refuse('from', `sums of single hours are kept for ${HOURS_KEPT_DAYS} days: begin later, or group by \`day\``)
  }
  return { fromMs, toMs }
}

const floorTo = (unit: number, ms: number): number => Math.floor(ms / unit) * unit
const ceilTo = (unit: number, ms: number): number => Math.ceil(ms / unit) * unit

function readGroupings(query: Query): Grouping[] {
  const asked = query.list('group_by')
  const groupings = GROUPINGS.filter(each => asked.includes(each))
  if (asked.some(each => !GROUPINGS.some(grouping => grouping === each))) {
    query.refuse('group_by', `expected any of ${GROUPINGS.join(', ')}`)
  }
  if (groupings.includes('day') && groupings.includes('hour')) query.refuse('group_by', 'expected `day` or `hour`, not both')
  return groupings.sort((a, b) => asked.indexOf(a) - asked.indexOf(b))
}

/** What a row shows of the groups it stands for, in the order in which a reader finds it. */
function groupsOf(row: LedgerRow, groupBy: readonly Grouping[], names: ReturnType<typeof createNames>): Partial<UsageRow> {
  const shown: Partial<UsageRow> = {}
  const { startMs = 0, apiKeyId = '', modelId = '', providerKeyId = '', teamId = '', userId = '' } = row
  for (const grouping of groupBy) {
    switch (grouping) {
      case 'day':
        shown.day = wholeSeconds(startMs).slice(0, 10)
        break
      case 'hour':
        shown.hour = wholeSeconds(startMs)
        break
      case 'api_key':
        shown.api_key_id = apiKeyId
        shown.api_key_name = names.apiKey(apiKeyId)
        break
      case 'model':
        shown.model_id = modelId
        shown.model = names.model(modelId)
        break
      case 'provider_key':
        shown.provider_key_id = providerKeyId
        shown.provider_key_name = names.providerKey(providerKeyId)
        break
      case 'team':
        shown.team_id = teamId
        break
      case 'user':
        shown.user_id = userId
        shown.user_name = names.user(userId)
    }
  }
  return shown
}

function sumsOf(row: LedgerRow): UsageSums {
  return {
    requests: row.requests,
    attempts: row.attempts,
    failed_requests: row.failedRequests,
    prompt_tokens: row.promptTokens,
    completion_tokens: row.completionTokens,
    total_tokens: row.promptTokens + row.completionTokens,
    cached_prompt_tokens: row.cachedTokens,
    reasoning_tokens: row.reasoningTokens,
    estimated_requests: row.estimatedRequests,
    estimated_tokens: row.estimatedTokens,
    cost_usd: usdText(row.costPico),
    unpriced_requests: row.unpricedRequests,
    latency_ms: quantilesOf(row.latencyCounts, LATENCY_BOUNDS_MS),
    ttft_ms: quantilesOf(row.ttftCounts, TTFT_BOUNDS_MS),
  }
}

function totalOf(rows: readonly LedgerRow[]): LedgerRow {
  const total: LedgerRow = {
    requests: 0,
    attempts: 0,
    failedRequests: 0,
    promptTokens: 0,
    completionTokens: 0,
    cachedTokens: 0,
    reasoningTokens: 0,
    estimatedRequests: 0,
    estimatedTokens: 0,
    costPico: 0n,
    unpricedRequests: 0,
    latencyCounts: new Array<number>(LATENCY_BOUNDS_MS.length + 1).fill(0),
    ttftCounts: new Array<number>(TTFT_BOUNDS_MS.length + 1).fill(0),
  }
  for (const row of rows) {
    total.requests += row.requests
    total.attempts += row.attempts
    total.failedRequests += row.failedRequests
    total.promptTokens += row.promptTokens
    total.completionTokens += row.completionTokens
    total.cachedTokens += row.cachedTokens
    total.reasoningTokens += row.reasoningTokens
    total.estimatedRequests += row.estimatedRequests
    total.estimatedTokens += row.estimatedTokens
    total.costPico += row.costPico
    total.unpricedRequests += row.unpricedRequests
    total.latencyCounts = total.latencyCounts.map((count, index) => count + (row.latencyCounts[index] ?? 0))
    total.ttftCounts = total.ttftCounts.map((count, index) => count + (row.ttftCounts[index] ?? 0))
  }
  return total
}

type Shown = { row: LedgerRow; groups: Partial<UsageRow> }

/** Time, then names, then ids: in this order, whatever order the file has. By code units: the same everywhere. */
function inOrder({ rows, names }: UsageAnswer, groupBy: readonly Grouping[], snapshot: Snapshot): Shown[] {
  const current = createNames(snapshot, names)
  const sorted = rows.map(row => {
    const groups = groupsOf(row, groupBy, current)
    const { day, hour, api_key_name, model, provider_key_name, user_name, ...ids } = groups
    const key = [day ?? hour, api_key_name, model, provider_key_name, ids.team_id, user_name]
    return { row, groups, key: [...key, ids.api_key_id, ids.model_id, ids.provider_key_id, ids.user_id].map(each => each ?? '') }
  })
  return sorted.sort((a, b) => {
    const at = a.key.findIndex((each, index) => each !== b.key[index])
    if (at < 0) return 0
    return (a.key[at] ?? '') < (b.key[at] ?? '') ? -1 : 1
  })
}

/** Columns of a group in a table, in the order of its members. */
const COLUMNS: { readonly [G in Grouping]: readonly (keyof UsageRow)[] } = {
  day: ['day'],
  hour: ['hour'],
  api_key: ['api_key_id', 'api_key_name'],
  model: ['model_id', 'model'],
  provider_key: ['provider_key_id', 'provider_key_name'],
  team: ['team_id'],
  user: ['user_id', 'user_name'],
}

function table(rows: readonly Shown[], groupBy: readonly Grouping[]): string {
  const groupColumns = groupBy.flatMap(grouping => COLUMNS[grouping])
  const flat = (row: LedgerRow): [string, CsvValue][] =>
    Object.entries(sumsOf(row)).flatMap(([name, value]): [string, CsvValue][] => {
      if (typeof value !== 'object') return [[name, value]]
      return Object.entries(value).map(([share, ms]): [string, CsvValue] => [name.replace(/_ms$/, `_${share}_ms`), ms])
    })
  const sumColumns = flat(totalOf([])).map(([name]) => name)
  const text = (value: unknown): CsvValue => (typeof value === 'string' ? value : null)
  return csv(
    [...groupColumns, ...sumColumns],
    rows.map(({ row, groups }) => [...groupColumns.map(name => text(groups[name])), ...flat(row).map(([, value]) => value)]),
  )
}

export function usageReportRoute({ ledger, store, clock }: UsageReportOptions): Route {
  return {
    method: 'GET',
    path: '/admin/v1/usage',
    auth: 'admin',
    handle: async ({ url }) => {
      const { snapshot } = store
      const { question, format } = readQuestion(url, snapshot, clock.now())
      const { groupBy, fromMs, toMs } = question
      const answer = await ask(ledger, each => each.usage(question))
      const rows = inOrder(answer, groupBy, snapshot)
      const [from, to] = [wholeSeconds(fromMs), wholeSeconds(toMs)]
      if (format === 'csv') {
        const name = `aisix-usage-${fileTime(from)}-${fileTime(to)}.csv`
        return new Response(table(rows, groupBy), {
          headers: {
            'content-type': 'text/csv; charset=utf-8',
            'content-disposition': `attachment; filename="${name}"`,
            'cache-control': 'no-store',
          },
        })
      }
      return json(200, {
        from,
        to,
        group_by: groupBy,
        rows: rows.map(({ row, groups }) => ({ ...groups, ...sumsOf(row) })),
        totals: sumsOf(totalOf(answer.rows)),
      })
    },
    describe: {
      operationId: 'getUsage',
      tag: 'Usage',
      summary: 'Requests, tokens, cost and latencies of a time',
      description: `Sums over the records of requests, kept by the hour for ${HOURS_KEPT_DAYS} days and by the day for ${DAYS_KEPT_DAYS}. They outlive the models and keys that they are about.`,
      parameters: PARAMETERS,
      success: {
        description: 'The sums; with `format=csv` the rows as `text/csv`.',
        get schema() {
          return inlineSchema(UsageResponse)
        },
        get example() {
          return EXAMPLE
        },
      },
      errors: [400, 503],
      errorDescriptions: LEDGER_ERRORS,
    },
  }
}

/** `2026-11-01T08:00:00Z` as part of a file name on any system: `20261101T0800Z`. */
function fileTime(time: string): string {
  return time.replace(/[-:]/g, '').replace(/00Z$/, 'Z')
}

const EXAMPLE_SUMS: UsageSums = {
  requests: 1204,
  attempts: 1219,
  failed_requests: 7,
  prompt_tokens: 412_330,
  completion_tokens: 98_412,
  total_tokens: 510_742,
  cached_prompt_tokens: 120_064,
  reasoning_tokens: 0,
  estimated_requests: 3,
  estimated_tokens: 511,
  cost_usd: '1.206489',
  unpriced_requests: 0,
  latency_ms: { p50: 812, p90: 2350, p99: 7410 },
  ttft_ms: { p50: 96, p90: 180, p99: 640 },
}

const EXAMPLE = {
  from: '2026-11-01T00:00:00Z',
  to: '2026-11-02T00:00:00Z',
  group_by: ['day', 'model'],
  rows: [{ day: '2026-11-01', model_id: '91d2a1c4-2f3e-4f0b-8d53-0c9b1a7e4c11', model: 'llama-3-private', ...EXAMPLE_SUMS }],
  totals: EXAMPLE_SUMS,
}
