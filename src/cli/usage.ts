/** `aisix usage`: who used what, and what it cost. */
import { CONNECTION, connect, JSON_OUTPUT, printJson } from './admin-client.ts'
import type { Given } from './arguments.ts'
import { type Command, done, type Io, UsageError } from './command.ts'
import { isRecord, textOf, unexpected } from './entries.ts'
import { type Column, table } from './table.ts'
import { parseLength, parseTime } from './time.ts'

const GROUPINGS = ['day', 'hour', 'api_key', 'model', 'provider_key', 'team', 'user'] as const
/** Options that are parameters of the API under the same name but for the dash. */
const FILTERS = [
  { name: 'api-key', value: 'KEY', about: 'Only this key, by name or id.' },
  { name: 'model', value: 'MODEL', about: 'Only this model, by alias or id.' },
  { name: 'provider-key', value: 'NAME', about: 'Only this provider key, by name or id.' },
  { name: 'team', value: 'ID', about: 'Only this team.' },
  { name: 'user', value: 'ID', about: 'Only this user.' },
  {
    name: 'status',
    value: 'CLASS',
    complete: ['2xx', '4xx', '5xx'],
    about: 'Only requests that ended with this class of status: 2xx, 4xx, 5xx.',
  },
] as const

export const usage: Command = {
  words: ['usage'],
  summary: 'what was used, by whom, and what it cost',
  about: `Sums of requests, tokens, cost and times over a period. Sums are kept by the hour: the period is rounded to whole hours, and what
it covers is told on standard error. Filters may be given more than once; --json and --csv have every column.`,
  options: [
    {
      name: 'by',
      value: 'WHAT',
      isList: true,
      complete: GROUPINGS,
      about: `What rows are told apart by: any of ${GROUPINGS.join(', ')}.`,
    },
    {
      name: 'last',
      value: 'LENGTH',
      about: 'The time up to now, such as `24h`, which is meant where nothing is given, `7d` or `4w`.',
    },
    { name: 'from', value: 'TIME', about: 'From this moment: a day, or a time such as `2030-01-31T08:00:00Z`.' },
    { name: 'to', value: 'TIME', about: 'Up to this moment, which is not part of it; needs --from.' },
    ...FILTERS.map(filter => ({ ...filter, isList: true })),
    { name: 'csv', about: 'Print a table for a spreadsheet.' },
    JSON_OUTPUT,
    ...CONNECTION,
  ],
  examples: ['aisix usage --last 7d --by model', 'aisix usage --by day,team --last 4w --csv > usage.csv'],
  async run(given, io) {
    const { isCsv, query } = readQuestion(given, io)
    const client = await connect(given, io)
    const path = `usage?${query}`
    if (isCsv) return done(await client.text(path))
    const { body } = await client.ask('GET', path)
    if (given.flag('json')) return done(printJson(body))
    const { rows, totals, from, to } = isRecord(body) ? body : {}
    if (!Array.isArray(rows) || !isRecord(totals)) throw unexpected(client)
    const known = rows.filter(isRecord)
    const by = given.list('by')
    const all = by.length === 0 ? [totals] : [...known, { ...totals, ...totalName(by) }]
    const columns = [...by.map(groupColumn), ...SUMS]
    const unpriced =
      Number(totals.unpriced_requests) > 0
        ? `${totals.unpriced_requests} requests went to models without a price and count as 0\n`
        : ''
    return done(table(columns, all, io), `${textOf(from)} to ${textOf(to)}\n${unpriced}`)
  },
}

function readQuestion(given: Given, io: Pick<Io, 'now'>): { isCsv: boolean; query: URLSearchParams } {
  const [last, from, to] = [given.text('last'), given.text('from'), given.text('to')]
  const query = new URLSearchParams()
  const by = given.list('by')
  if (by.length > 0) query.set('group_by', by.join(','))
  if (last !== undefined && (from ?? to) !== undefined)
    throw new UsageError('--last is a period of its own: leave out --from and --to')
  if (to !== undefined && from === undefined) throw new UsageError('--to needs --from')
  if (last !== undefined) {
    const length = parseLength(last)
    if (length === undefined) throw new UsageError('--last needs a length such as 24h, 7d or 4w')
    query.set('from', new Date(io.now().getTime() - length).toISOString())
  }
  for (const [name, value] of [
    ['from', from],
    ['to', to],
  ] as const) {
    if (value === undefined) continue
    const time = parseTime(value)
    if (time === undefined) throw new UsageError(`--${name} needs a day such as 2030-01-31, or a time with its offset`)
    query.set(name, new Date(time).toISOString())
  }
  for (const { name } of FILTERS) for (const value of given.values(name)) query.append(name.replace('-', '_'), value)
  const isCsv = given.flag('csv')
  if (isCsv && given.flag('json')) throw new UsageError('--csv and --json exclude each other')
  if (isCsv) query.set('format', 'csv')
  return { isCsv, query }
}

type Row = Readonly<Record<string, unknown>>

/** Where the name of a group is, and what stands in its place where it has none. */
const NAMES: Readonly<Record<string, readonly string[]>> = {
  day: ['day'],
  hour: ['hour'],
  api_key: ['api_key_name', 'api_key_id'],
  model: ['model', 'model_id'],
  provider_key: ['provider_key_name', 'provider_key_id'],
  team: ['team_id'],
  user: ['user_name', 'user_id'],
}

function groupColumn(grouping: string): Column<Row> {
  return {
    title: grouping.replace('_', ' ').toUpperCase(),
    value: row => (NAMES[grouping] ?? []).map(member => textOf(row[member])).find(text => text !== '') ?? '(none)',
    min: 10,
  }
}

/** The line of totals carries its name in the first column, and nothing in the others. */
function totalName(by: readonly string[]): Row {
  return Object.fromEntries(by.map((grouping, i) => [NAMES[grouping]?.[0] ?? '', i === 0 ? 'total' : ' ']))
}

const number = (member: string): Column<Row> => ({
  title: member.replaceAll('_', ' ').toUpperCase(),
  value: row => textOf(row[member]),
  isRight: true,
})
const quantile = (title: string, member: string, which: string): Column<Row> => ({
  title,
  value: row => {
    const times = row[member]
    const ms = isRecord(times) ? times[which] : undefined
    return typeof ms === 'number' ? `${ms}` : '-'
  },
  isRight: true,
})

const SUMS: readonly Column<Row>[] = [
  number('requests'),
  { ...number('failed_requests'), title: 'FAILED' },
  { ...number('prompt_tokens'), title: 'PROMPT' },
  { ...number('completion_tokens'), title: 'COMPLETION' },
  { ...number('cost_usd'), title: 'USD' },
  quantile('P50 MS', 'latency_ms', 'p50'),
  quantile('P99 MS', 'latency_ms', 'p99'),
  quantile('TTFT P50', 'ttft_ms', 'p50'),
]
