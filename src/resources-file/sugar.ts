/**
 * What stands in a resources file in place of ids: the names of other resources. A row tells where a kind names others, for
 * both directions: names become ids when a file is loaded, and ids names when one is written.
 * source: control-resources-file §3
 */
import type { Kind } from '../resources/index.ts'
import { memberOf } from '../resources/judgement.ts'

type Document = Readonly<Record<string, unknown>>

/** A place where a document names another resource, or several in a list. */
export type Place = {
  /** The object that holds the member: the document or something in it. */
  holder: object
  /** Of the holder, from the document: `conditions[0].`, empty for the document itself. */
  prefix: string
  /** The member with the name, in files. */
  named: string
  /** The member with the id, in documents; the same one where a file has no member of its own for names. */
  id: string
  of: Kind
}

type Places = (document: Document) => Place[]

const none: Places = () => []

/** `provider_key: NAME` for `provider_key_id: ID`, a member each. */
const members =
  (kinds: { readonly [named: string]: Kind }): Places =>
  holder =>
    Object.entries(kinds).map(([named, of]) => ({ holder, prefix: '', named, id: `${named}_id`, of }))

/** What `scope` says that `scope_ref` names; teams and users are no resources. */
const SCOPES: { readonly [scope: string]: Kind } = { api_key: 'api_keys', model: 'models' }

const scopeRef: Places = document => {
  const of = kindOf(document.scope)
  return of === undefined ? [] : [{ holder: document, prefix: '', named: 'scope_ref', id: 'scope_ref', of }]
}

function kindOf(scope: unknown): Kind | undefined {
  return typeof scope === 'string' && Object.hasOwn(SCOPES, scope) ? SCOPES[scope] : undefined
}

/** Conditions are three levels deep at the most; a document that has not been judged yet may be anything. */
const LEVELS_MAX = 8

function conditionPlaces(conditions: unknown, prefix: string, level = 0): Place[] {
  if (!Array.isArray(conditions) || level > LEVELS_MAX) return []
  return conditions.flatMap((condition: unknown, index): Place[] => {
    if (typeof condition !== 'object' || condition === null) return []
    const here = `${prefix}[${index}].`
    const of = kindOf(memberOf(condition, 'dimension'))
    const own: Place[] = of === undefined ? [] : [{ holder: condition, prefix: here, named: 'value', id: 'value', of }]
    return [...own, ...conditionPlaces(memberOf(condition, 'children'), `${here}children`, level + 1)]
  })
}

/** A kind that names nothing else has `none`. */
export const SUGAR: { readonly [K in Kind]: Places } = {
  provider_keys: none,
  models: members({ provider_key: 'provider_keys' }),
  api_keys: none,
  rate_limit_policies: document => [...scopeRef(document), ...conditionPlaces(document.conditions, 'conditions')],
  budgets: scopeRef,
  observability_exporters: none,
  passthrough_routes: members({ provider_key: 'provider_keys', anonymous_key: 'api_keys' }),
}

/** Members of its own that a file has in place of ids, such as `provider_key` for `provider_key_id`. */
export function sugarOf(kind: Kind): Pick<Place, 'named' | 'id' | 'of'>[] {
  return SUGAR[kind]({}).filter(({ named, id }) => named !== id)
}
