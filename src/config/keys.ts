/** The keys of config.yaml as a list, read off the schema: for variables, warnings, suggestions and the reference text. */
import { z } from 'zod'
import { Config } from './schema.ts'

/** How a value is written; lists are told apart by what they hold. */
export type KeyType =
  | 'text'
  | 'whole number'
  | 'number'
  | 'true or false'
  | 'list of texts'
  | 'list of numbers'
  | 'list of mappings'

/** One key that holds a value. Sections, which only hold keys, are not in the list. */
export type Key = {
  /** Segments joined by dots: `proxy.addr`. */
  path: string
  type: KeyType
  /** undefined: the key has none, and is off or required. */
  default: unknown
  /** `in its section`: only when the section is given, which it need not be. */
  required: 'always' | 'in its section' | 'never'
  description: string
  choices: readonly string[] | undefined
  minimum: number | undefined
  maximum: number | undefined
  /** `AISIX_PROXY__ADDR`. */
  variable: string
  /** The variable's value is a comma-separated list; other lists are given as one JSON array. */
  isSplitAtCommas: boolean
}

/** Source: control-bootstrap §1.1. A comma in any other text stays, since passwords hold commas. */
const SPLIT_AT_COMMAS = new Set([
  'etcd.endpoints',
  'admin.admin_keys',
  'proxy.real_ip.trusted_proxies',
  'proxy.request_id.accept_headers',
  'observability.metrics.buckets.request_e2e_latency',
  'observability.metrics.buckets.request_ttft',
  'observability.metrics.buckets.guardrail_latency',
  'observability.metrics.buckets.a2a_ttfb',
])

export const ENVIRONMENT_PREFIX = 'AISIX_'

/** The variable that overrides a key. */
export function variableOf(path: string): string {
  return ENVIRONMENT_PREFIX + path.replaceAll('.', '__').toUpperCase()
}

let keys: ReadonlyMap<string, Key> | undefined
let sections: ReadonlyMap<string, string> | undefined

/** All keys by path, in the order of the schema. Computed when first asked for: most starts need none of it. */
export function listKeys(): ReadonlyMap<string, Key> {
  if (keys === undefined) collect()
  return keys ?? new Map()
}

/** Descriptions of all sections by path. */
export function listSections(): ReadonlyMap<string, string> {
  if (sections === undefined) collect()
  return sections ?? new Map()
}

function collect(): void {
  const foundKeys = new Map<string, Key>()
  const foundSections = new Map<string, string>()
  const visit = (schema: z.core.JSONSchema.BaseSchema, path: string, isRequired: boolean, isSectionRequired: boolean) => {
    if (schema.properties) {
      if (path !== '') foundSections.set(path, schema.description ?? '')
      for (const [name, member] of Object.entries(schema.properties)) {
        if (typeof member === 'boolean') continue
        const inside = path === '' ? name : `${path}.${name}`
        visit(member, inside, schema.required?.includes(name) ?? false, isRequired && isSectionRequired)
      }
      return
    }
    foundKeys.set(path, {
      path,
      type: typeOf(schema, path),
      default: schema.default,
      required: isRequired ? (isSectionRequired ? 'always' : 'in its section') : 'never',
      description: schema.description ?? '',
      choices: schema.enum?.map(String),
      minimum: schema.minimum,
      maximum: schema.maximum === Number.MAX_SAFE_INTEGER ? undefined : schema.maximum,
      variable: variableOf(path),
      isSplitAtCommas: SPLIT_AT_COMMAS.has(path),
    })
  }
  visit(z.toJSONSchema(Config, { io: 'input' }), '', true, true)
  keys = foundKeys
  sections = foundSections
}

function typeOf(schema: z.core.JSONSchema.BaseSchema, path: string): KeyType {
  if (schema.type === 'string') return 'text'
  if (schema.type === 'integer') return 'whole number'
  if (schema.type === 'number') return 'number'
  if (schema.type === 'boolean') return 'true or false'
  const items = schema.items
  if (schema.type === 'array' && typeof items === 'object' && !Array.isArray(items)) {
    if (items.type === 'string') return 'list of texts'
    if (items.type === 'number') return 'list of numbers'
    if (items.type === 'object') return 'list of mappings'
  }
  throw new Error(`the key ${path} has a type that neither variables nor the reference text know`)
}
