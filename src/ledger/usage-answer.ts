import { entityIds } from './dictionary.ts'
import { ENTITY, type EntityName, LEVEL, META, type OpenLedger } from './file.ts'
import { type Grouping, QuestionTooWide, type UsageAnswer, type UsageQuestion, type UsageRow } from './ledger.ts'
import { DAY_MS, HOUR_MS, Sums } from './sums.ts'
import { addendsAfter } from './tail.ts'

/** Groups that an answer may have. */
const GROUPS_MAX = 10_000
/** Rows of roll-ups that an answer may be summed from: seconds of a thread. */
const ROLLUPS_MAX = 4_000_000
/** Look-ups of single hours and keys; with more of them it is quicker to read the hours whole. */
const LOOKUPS_MAX = 20_000

type Dimension = { name: EntityName; column: string; grouping: Grouping; filter: keyof UsageQuestion['filter'] }

const DIMENSIONS: readonly Dimension[] = [
  { name: 'apiKey', column: 'api_key', grouping: 'api_key', filter: 'apiKeyIds' },
  { name: 'model', column: 'model', grouping: 'model', filter: 'modelIds' },
  { name: 'providerKey', column: 'provider_key', grouping: 'provider_key', filter: 'providerKeyIds' },
  { name: 'team', column: 'team', grouping: 'team', filter: 'teamIds' },
  { name: 'user', column: 'user', grouping: 'user', filter: 'userIds' },
]

type Group = { start: number | undefined; ids: readonly number[]; sums: Sums }

/**
 * Sums by group: whole days from the roll-up of days, the rest from that of hours, and the newest rows, which no roll-up has
 * yet, one by one. Of a roll-up, the level with the fewest rows that tells apart what is asked for.
 * throws: QuestionTooWide
 */
export function answerUsage(file: OpenLedger, question: UsageQuestion): UsageAnswer {
  const { fromMs, toMs, groupBy, filter } = question
  const unitMs = groupBy.includes('hour') ? HOUR_MS : groupBy.includes('day') ? DAY_MS : undefined
  const grouped = DIMENSIONS.filter(({ grouping }) => groupBy.includes(grouping))
  const filtered = DIMENSIONS.flatMap(dimension => {
    const refs = filter[dimension.filter]
    return refs ? [{ dimension, ids: entityIds(file, ENTITY[dimension.name], refs) }] : []
  })
  const classes = filter.statusClasses?.map(each => Number(each[0]))
  const groups = new Map<string, Group>()

  /** The sums of the group whose ids lie in `from`, `at` being the place of the first one. */
  const groupOf = (start: number | undefined, from: readonly unknown[], at: number): Sums => {
    let key = start === undefined ? '' : String(start)
    for (let index = 0; index < grouped.length; index++) key += ` ${from[at + index]}`
    let group = groups.get(key)
    if (!group) {
      if (groups.size >= GROUPS_MAX) throw new QuestionTooWide(tooManyGroups(groupBy))
      group = { start, ids: from.slice(at, at + grouped.length).map(Number), sums: new Sums() }
      groups.set(key, group)
    }
    return group.sums
  }

  let rollups = 0
  const addRows = (tableMs: number, sql: string, params: readonly (number | string)[]) => {
    const sums = 1 + grouped.length
    for (const row of file.values(sql, ...params)) {
      if (++rollups > ROLLUPS_MAX) throw new QuestionTooWide(tooMuchToRead())
      const startMs = Number(row[0]) * tableMs
      const start = unitMs === undefined ? undefined : startMs - (startMs % unitMs)
      groupOf(start, row, 1).addPacked(row[sums])
    }
  }

  const addRollups = (table: 'hours' | 'days', from: number, to: number) => {
    if (from >= to) return
    const tableMs = table === 'hours' ? HOUR_MS : DAY_MS
    const level = levelFor([...grouped, ...filtered.map(({ dimension }) => dimension)])
    const columns = ['start', ...grouped.map(({ column }) => column), 'sums'].join(', ')
    let conditions = ''
    const wanted: string[] = []
    for (const { dimension, ids } of filtered) {
      conditions += ` AND ${dimension.column} IN (SELECT value FROM json_each(?))`
      wanted.push(JSON.stringify(ids))
    }
    if (classes) {
      conditions += ' AND status_class IN (SELECT value FROM json_each(?))'
      wanted.push(JSON.stringify(classes))
    }
    const select = (starts: string) => `SELECT ${columns} FROM ${table} WHERE level = ? AND ${starts}${conditions}`
    const keys = filtered.find(({ dimension }) => dimension.name === 'apiKey')
    if (keys && (to - from) * keys.ids.length <= LOOKUPS_MAX) {
      const starts = JSON.stringify(Array.from({ length: to - from }, (_, at) => from + at))
      addRows(tableMs, select('start IN (SELECT value FROM json_each(?))'), [level, starts, ...wanted])
      return
    }
    // Rows come a day at a time: quicker than one by one, and of a wide question not all are in memory.
    const step = DAY_MS / tableMs
    for (let low = from; low < to; low += step) {
      addRows(tableMs, select('start >= ? AND start < ?'), [level, low, Math.min(to, low + step), ...wanted])
    }
  }

  const fromHour = Math.ceil(fromMs / HOUR_MS)
  const toHour = Math.ceil(toMs / HOUR_MS)
  const fromDay = Math.ceil(fromHour / 24)
  const toDay = Math.floor(toHour / 24)
  if (unitMs === HOUR_MS || fromDay >= toDay) addRollups('hours', fromHour, toHour)
  else {
    addRollups('hours', fromHour, fromDay * 24)
    addRollups('days', fromDay, toDay)
    addRollups('hours', toDay * 24, toHour)
  }

  const known = new Map<number, number[]>()
  const columnsOf = (labels: number): number[] => {
    let columns = known.get(labels)
    if (!columns) {
      const [row = []] = file.values(
        `SELECT ${DIMENSIONS.map(({ column }) => column).join(', ')} FROM labels WHERE id = ?`,
        labels,
      )
      columns = DIMENSIONS.map((_, at) => Number(row[at] ?? 0))
      known.set(labels, columns)
    }
    return columns
  }
  const idOf = (columns: readonly number[], dimension: Dimension) => columns[DIMENSIONS.indexOf(dimension)] ?? 0
  const groupedIds = new Map<number, number[]>()
  const idsOf = (labels: number, columns: readonly number[]): number[] => {
    let ids = groupedIds.get(labels)
    if (!ids) {
      ids = grouped.map(dimension => idOf(columns, dimension))
      groupedIds.set(labels, ids)
    }
    return ids
  }
  for (const row of addendsAfter(file, file.meta(META.rolled))) {
    if (row.at < fromHour * HOUR_MS || row.at >= toHour * HOUR_MS) continue
    if (classes && !classes.includes(Math.floor(row.status / 100))) continue
    const columns = columnsOf(row.labels)
    if (!filtered.every(({ dimension, ids }) => ids.includes(idOf(columns, dimension)))) continue
    const start = unitMs === undefined ? undefined : row.at - (row.at % unitMs)
    groupOf(start, idsOf(row.labels, columns), 0).add(row)
  }
  return told(file, [...groups.values()], grouped)
}

function levelFor(dimensions: readonly Dimension[]): number {
  const has = (names: readonly EntityName[]) => dimensions.some(({ name }) => names.includes(name))
  const byCaller = has(['apiKey', 'team', 'user'])
  const byModel = has(['model', 'providerKey'])
  if (byCaller) return byModel ? LEVEL.full : LEVEL.byCaller
  return byModel ? LEVEL.byModel : LEVEL.total
}

function tooManyGroups(groupBy: readonly Grouping[]): string {
  return `the answer would have more than ${GROUPS_MAX} groups; narrow it with \`from\` and \`to\`, with a filter, or group by less than \`group_by=${groupBy.join(',')}\``
}

function tooMuchToRead(): string {
  return 'the answer would take too long to add up; narrow it with `from` and `to`, or name fewer dimensions in `group_by` and filters'
}

/** Rows with the ids that the rest of the gateway knows, in the order of their time, then of their ids. */
function told(file: OpenLedger, groups: readonly Group[], grouped: readonly Dimension[]): UsageAnswer {
  const names: UsageAnswer['names'] = { apiKey: {}, model: {}, providerKey: {}, team: {}, user: {} }
  const refs = new Map<number, string>([[0, '']])
  for (const [at, { name }] of grouped.entries()) {
    const ids = [...new Set(groups.map(({ ids }) => ids[at] ?? 0))]
    const sql = 'SELECT id, ref, name FROM entities WHERE id IN (SELECT value FROM json_each(?))'
    for (const [id, ref, text] of file.values(sql, JSON.stringify(ids))) {
      refs.set(Number(id), String(ref))
      if (typeof text === 'string' && text !== '') names[name][String(ref)] = text
    }
  }
  const rows = groups.map(({ start, ids, sums }) => {
    const row: UsageRow = {
      requests: sums.requests,
      attempts: sums.attempts,
      failedRequests: sums.failedRequests,
      promptTokens: sums.promptTokens,
      completionTokens: sums.completionTokens,
      cachedTokens: sums.cachedTokens,
      reasoningTokens: sums.reasoningTokens,
      estimatedRequests: sums.estimatedRequests,
      estimatedTokens: sums.estimatedTokens,
      costPico: sums.costPico,
      unpricedRequests: sums.unpricedRequests,
      latencyCounts: sums.latencyCounts,
      ttftCounts: sums.ttftCounts,
    }
    if (start !== undefined) row.startMs = start
    for (const [at, { name }] of grouped.entries()) row[`${name}Id`] = refs.get(ids[at] ?? 0) ?? ''
    return row
  })
  rows.sort((one, two) => (one.startMs ?? 0) - (two.startMs ?? 0) || compareIds(one, two, grouped))
  return { rows, names }
}

function compareIds(one: UsageRow, two: UsageRow, grouped: readonly Dimension[]): number {
  for (const { name } of grouped) {
    const [left = '', right = ''] = [one[`${name}Id`], two[`${name}Id`]]
    if (left !== right) return left < right ? -1 : 1
  }
  return 0
}
