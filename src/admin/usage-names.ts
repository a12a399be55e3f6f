/** Names of what records tell by id. Records outlive resources: what is gone goes by its id, and by the name it last had. */
import type { UsageAnswer } from '../ledger/ledger.ts'
import type { Snapshot } from '../store/snapshot.ts'
import { type Query, splitList } from './query.ts'

/** Kinds whose ids stand in records, by the parameter that filters by them. */
const NAMED = { api_key: 'api_keys', model: 'models', provider_key: 'provider_keys' } as const
export type Named = keyof typeof NAMED

/**
 * Ids that a filter means: of what has this id, else of all that have this name, else the text itself, as the id of something
 * that is gone. An empty text means records without one.
 * out: undefined where there is no such filter
 */
export function idsOf(query: Query, snapshot: Snapshot, filter: Named): string[] | undefined {
  const texts = query.texts(filter)
  if (texts.length === 0) return undefined
  // A name may hold a comma: a text that means something as a whole is not taken apart.
  const ids = texts.flatMap(
    text => known(snapshot, filter, text) ?? splitList(text).flatMap(each => known(snapshot, filter, each) ?? each),
  )
  return [...new Set(ids)]
}

/**
 * Teams or users that a filter means. They are ids of the operator's own and may hold a comma: one that a caller key has is not
 * taken apart. out: undefined where there is no such filter
 */
export function ownersOf(query: Query, snapshot: Snapshot, filter: 'team' | 'user'): string[] | undefined {
  const texts = query.texts(filter)
  if (texts.length === 0) return undefined
  const keys = [...snapshot.entries.api_keys.values()]
  const isKnown = (text: string) => keys.some(({ value }) => (filter === 'team' ? value.team_id : value.user_id) === text)
  return [...new Set(texts.flatMap(text => (isKnown(text) ? [text] : splitList(text))))]
}

function known(snapshot: Snapshot, filter: Named, text: string): string[] | undefined {
  const entries: ReadonlyMap<string, { id: string; value: { display_name?: string | undefined } }> =
    snapshot.entries[NAMED[filter]]
  if (entries.has(text)) return [text]
  const ids = [...entries.values()].filter(({ value }) => value.display_name === text).map(({ id }) => id)
  return ids.length > 0 ? ids : undefined
}

/** Names by id as they are now, else as the ledger last saw them; null where neither knows one. */
export function createNames(snapshot: Snapshot, last: UsageAnswer['names'] | undefined) {
  const { api_keys, models, provider_keys } = snapshot.entries
  return {
    apiKey: (id: string): string | null => api_keys.get(id)?.value.display_name ?? seen(last?.apiKey, id),
    model: (id: string): string | null => models.get(id)?.value.display_name ?? seen(last?.model, id),
    providerKey: (id: string): string | null => provider_keys.get(id)?.value.display_name ?? seen(last?.providerKey, id),
    user: (id: string): string | null => seen(last?.user, id),
  }
}

/** Ids are texts of other people, `constructor` too. */
function seen(names: Record<string, string> | undefined, id: string): string | null {
  return (names !== undefined && Object.hasOwn(names, id) && names[id]) || null
}
