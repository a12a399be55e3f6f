import { LEVEL, type OpenLedger } from './file.ts'
import { Sums, type SumsByHour } from './sums.ts'

type Line = { table: 'hours' | 'days'; key: readonly number[]; sums: Sums }

const KEY_COLUMNS = 'level, start, api_key, model, provider_key, team, user, status_class'
const KEY_MATCHES = KEY_COLUMNS.split(', ')
  .map(column => `${column} = ?`)
  .join(' AND ')
const STATEMENTS = { hours: statementsOf('hours'), days: statementsOf('days') }

function statementsOf(table: Line['table']) {
  return {
    read: `SELECT sums FROM ${table} WHERE ${KEY_MATCHES}`,
    write: `REPLACE INTO ${table} (${KEY_COLUMNS}, sums) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
  }
}

/**
 * Adds sums to the roll-ups, on every level; called within a transaction. What is there, of this gateway or of another one
 * on the same file, is added to.
 */
export function addToRollups(file: OpenLedger, groups: SumsByHour): void {
  for (const { table, key, sums } of linesOf(file, groups)) {
    const [[before] = []] = file.values(STATEMENTS[table].read, ...key)
    sums.addPacked(before)
    file.run(STATEMENTS[table].write, ...key, sums.pack())
  }
}

function linesOf(file: OpenLedger, groups: SumsByHour): Iterable<Line> {
  const lines = new Map<string, Line>()
  const add = (table: Line['table'], key: readonly number[], sums: Sums) => {
    const name = `${table} ${key.join(' ')}`
    let line = lines.get(name)
    if (!line) {
      line = { table, key, sums: new Sums() }
      lines.set(name, line)
    }
    line.sums.merge(sums)
  }
  const known = new Map<number, number[]>()
  const idsOf = (labels: number): number[] => {
    let ids = known.get(labels)
    if (!ids) {
      const [row = []] = file.values('SELECT api_key, model, provider_key, team, user FROM labels WHERE id = ?', labels)
      // Labels that another program has deleted: their rows count, under nobody's name.
      ids = [0, 1, 2, 3, 4].map(at => Number(row[at] ?? 0))
      known.set(labels, ids)
    }
    return ids
  }
  for (const { hour, labels, statusClass, sums } of groups) {
    const [apiKey = 0, model = 0, providerKey = 0, team = 0, user = 0] = idsOf(labels)
    for (const [table, start] of [
      ['hours', hour],
      ['days', Math.floor(hour / 24)],
    ] as const) {
      add(table, [LEVEL.total, start, 0, 0, 0, 0, 0, statusClass], sums)
      add(table, [LEVEL.byModel, start, 0, model, providerKey, 0, 0, statusClass], sums)
      add(table, [LEVEL.byCaller, start, apiKey, 0, 0, team, user, statusClass], sums)
      add(table, [LEVEL.full, start, apiKey, model, providerKey, team, user, statusClass], sums)
    }
  }
  return lines.values()
}

/** Removes the oldest hour or day of a table. out: whether there was one that began before `before` */
export function removeOldest(file: OpenLedger, table: 'hours' | 'days', before: number): boolean {
  const [[oldest] = []] = file.values(`SELECT min(start) FROM ${table} WHERE level = ?`, LEVEL.total)
  if (typeof oldest !== 'number' || oldest >= before) return false
  file.transaction(() => {
    for (const level of Object.values(LEVEL)) file.run(`DELETE FROM ${table} WHERE level = ? AND start <= ?`, level, oldest)
  })
  return true
}
