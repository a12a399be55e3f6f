import type { Labels } from '../exchange.ts'
import { ENTITY, type EntityName, type OpenLedger } from './file.ts'

/** Labels as rows of the file speak of them: ids of entities, 0 for none. */
export type StoredLabels = {
  id: number
  apiKey: number
  model: number
  providerKey: number
  team: number
  user: number
}

type Known<T> = { value: T; day: number }

/** Entries that are remembered in memory; past it, all are looked up anew. */
const KNOWN_MAX = 50_000

/**
 * Ids of strings and labels in the file, for its writer; called within a transaction. Every entry bears the day on which it
 * was last used, so that those that no row is left of can be told without looking at the rows.
 * in: `newStringsMax`: how many strings a day may become new; further ones stand in their rows, so that a flood of
 * different user agents grows the rows, which are pruned by age, and not the dictionary
 */
export function createDictionary(file: OpenLedger, newStringsMax: number) {
  const strings = new Map<string, Known<number>>()
  const labels = new Map<string, Known<{ stored: StoredLabels; names: readonly (readonly [number, string])[] }>>()
  const names = new Map<number, string>()
  let newStrings = 0
  let newStringsDay = 0

  const findString = (text: string, day: number): number | undefined => {
    const [[id, usedDay] = []] = file.values('SELECT id, used_day FROM strings WHERE text = ?', text)
    if (typeof id !== 'number') return undefined
    if (typeof usedDay !== 'number' || usedDay < day) file.run('UPDATE strings SET used_day = ? WHERE id = ?', day, id)
    return id
  }

  const addString = (text: string, day: number): number | undefined => {
    if (newStringsDay !== day) {
      newStringsDay = day
      newStrings = 0
    }
    if (newStrings >= newStringsMax) return undefined
    newStrings += 1
    return Number(file.run('INSERT INTO strings (text, used_day) VALUES (?, ?)', text, day).lastInsertRowid)
  }

  /** The newest name of an entity is the one that was used last. */
  const nameEntity = (id: number, name: string, day: number) => {
    if (names.get(id) === name) return
    if (names.size >= KNOWN_MAX) names.clear()
    names.set(id, name)
    file.run('UPDATE entities SET name = ?, used_day = max(used_day, ?) WHERE id = ?', name, day, id)
  }

  const entity = (kind: EntityName, ref: string, name: string, day: number): number => {
    if (ref === '') return 0
    const [[id] = []] = file.values(
      `INSERT INTO entities (kind, ref, name, used_day) VALUES (?, ?, ?, ?)
       ON CONFLICT (kind, ref) DO UPDATE SET used_day = max(used_day, excluded.used_day) RETURNING id`,
      ENTITY[kind],
      ref,
      name,
      day,
    )
    if (typeof id !== 'number') throw new Error('an entity of the ledger has no id')
    return id
  }

  const store = (content: string, day: number) => {
    const document: Labels = JSON.parse(content)
    const { apiKeyId, modelId, model, providerKeyId, providerKeyName, teamId, userId, userName } = document
    const ids = {
      apiKey: entity('apiKey', apiKeyId, '', day),
      model: entity('model', modelId, model, day),
      providerKey: entity('providerKey', providerKeyId, providerKeyName, day),
      team: entity('team', teamId, '', day),
      user: entity('user', userId, userName, day),
    }
    const [[id] = []] = file.values(
      `INSERT INTO labels (content, api_key, model, provider_key, team, user, used_day) VALUES (?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (content) DO UPDATE SET used_day = max(used_day, excluded.used_day) RETURNING id`,
      content,
      ids.apiKey,
      ids.model,
      ids.providerKey,
      ids.team,
      ids.user,
      day,
    )
    if (typeof id !== 'number') throw new Error('labels of the ledger have no id')
    const named = [
      [ids.model, model],
      [ids.providerKey, providerKeyName],
      [ids.user, userName],
    ] as const
    return { stored: { id, ...ids }, names: named.filter(([entityId, name]) => entityId !== 0 && name !== '') }
  }

  return {
    /** Its id, or the string itself where it is not to become an entry. */
    string(text: string, day: number): number | string {
      const known = strings.get(text)
      if (known?.day === day) return known.value
      // Another gateway on the same file may have removed an entry that has not been used for long.
      const id = findString(text, day) ?? addString(text, day)
      if (id === undefined) return text
      if (strings.size >= KNOWN_MAX) strings.clear()
      strings.set(text, { value: id, day })
      return id
    },

    labels(content: string, day: number): StoredLabels {
      let known = labels.get(content)
      if (known?.day !== day) {
        if (labels.size >= KNOWN_MAX) labels.clear()
        known = { value: store(content, day), day }
        labels.set(content, known)
      }
      for (const [id, name] of known.value.names) nameEntity(id, name, day)
      return known.value.stored
    },

    /** After a transaction that was undone: its entries are not there. */
    forget(): void {
      strings.clear()
      labels.clear()
      names.clear()
    },
  }
}
export type Dictionary = ReturnType<typeof createDictionary>

/** Ids of entities in the file; '' is 0, unknown ones are left out. */
export function entityIds(file: OpenLedger, kind: number, refs: readonly string[]): number[] {
  const ids = file
    .values('SELECT id FROM entities WHERE kind = ? AND ref IN (SELECT value FROM json_each(?))', kind, JSON.stringify(refs))
    .map(([id]) => Number(id))
  return refs.includes('') ? [0, ...ids] : ids
}
