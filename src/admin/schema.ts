/** The JSON Schemas of resources: what masking, messages and the reference are made of. All derive from the zod schemas. */
import { z } from 'zod'
import { type Kind, RESOURCES, type Resource, type ResourceKind } from '../resources/index.ts'
import { MASK } from '../resources/provider-key.ts'

export type JsonSchema = z.core.JSONSchema.BaseSchema

/** The registry with the type of each kind's documents: what code that works for any kind is written against. */
export const REGISTRY: { readonly [K in Kind]: ResourceKind & { schema: z.ZodType<Resource[K]> } } = RESOURCES

const cache = new Map<Kind, JsonSchema>()

/**
 * JSON Schema of the documents that operators write, self-contained and without `null`, which any optional member takes
 * and which means that it is absent.
 */
export function documentSchema(kind: Kind): JsonSchema {
  let schema = cache.get(kind)
  if (!schema) {
    schema = build(kind)
    cache.set(kind, schema)
  }
  return schema
}

function build(kind: Kind): JsonSchema {
  const { schema, name } = REGISTRY[kind]
  const document = z.toJSONSchema(schema, {
    io: 'input',
    override: ({ zodSchema, jsonSchema }) => {
      // zod leaves these out where a schema transforms, because they could describe either side. Here they always describe
      // what is written.
      const { default: fallback, examples } = z.globalRegistry.get(zodSchema) ?? {}
      if (fallback !== undefined) Object.assign(jsonSchema, { default: fallback })
      if (examples !== undefined) Object.assign(jsonSchema, { examples })
      plainBounds(jsonSchema)
    },
  })
  const root = document.$defs?.[name]
  if (!isSchema(root)) throw new Error(`the schema of ${kind} must carry the id ${name}`)
  return tidy(root)
}

/** Takes out what zod says by itself: that integers are safe ones, and formats once more as a pattern. */
export function plainBounds(schema: JsonSchema) {
  if (schema.maximum === Number.MAX_SAFE_INTEGER) delete schema.maximum
  if (schema.minimum === Number.MIN_SAFE_INTEGER) delete schema.minimum
  if (schema.format !== undefined) delete schema.pattern
}

/** The schema without `null` and without references, the only ones being those of a JSON value to itself. */
function tidy(schema: JsonSchema): JsonSchema {
  if (schema.$ref !== undefined) return { description: 'Any JSON value.' }
  let plain: JsonSchema = { ...schema }
  const others = plain.anyOf?.filter(isSchema).filter(each => each.type !== 'null')
  if (plain.anyOf && others?.length === 1) {
    const { anyOf, ...outer } = plain
    plain = { ...others[0], ...outer }
  } else if (others) plain.anyOf = others.map(tidy)
  // zod types `type` as one name, but writes a list of two where a plain type is nullable.
  const types: unknown = plain.type
  if (Array.isArray(types)) plain.type = types.find(type => type !== 'null')
  if (plain.properties) plain.properties = mapValues(plain.properties, each => (isSchema(each) ? tidy(each) : each))
  if (isSchema(plain.items)) plain.items = tidy(plain.items)
  if (isSchema(plain.additionalProperties)) plain.additionalProperties = tidy(plain.additionalProperties)
  // Member names are strings in any case.
  if (isSchema(plain.propertyNames) && Object.keys(plain.propertyNames).join() === 'type') delete plain.propertyNames
  return plain
}

/**
 * JSON Schema of the documents as they read: credentials masked, second spellings gone.
 * in: `always`, the members that every document of the kind shows
 */
export function viewSchema(kind: Kind, always: readonly string[]): JsonSchema {
  const { examples, ...view } = masked(documentSchema(kind))
  return { ...view, required: [...always] }
}

function masked(schema: JsonSchema): JsonSchema {
  const view = { ...schema }
  if (view.writeOnly === true) {
    delete view.writeOnly
    const description = `${view.description ?? ''} Reads as \`${MASK}\`.`.trim()
    if (view.type === 'string') return { type: 'string', const: MASK, description }
    return { ...view, description, additionalProperties: { type: 'string', const: MASK } }
  }
  if (view.properties) {
    const shown = Object.entries(view.properties).filter(([, each]) => !(isSchema(each) && each['x-alias-of'] !== undefined))
    view.properties = mapValues(Object.fromEntries(shown), each => (isSchema(each) ? masked(each) : each))
  }
  if (isSchema(view.items)) view.items = masked(view.items)
  if (isSchema(view.additionalProperties)) view.additionalProperties = masked(view.additionalProperties)
  return view
}

export function isSchema(value: unknown): value is JsonSchema {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function mapValues<T, U>(record: Record<string, T>, change: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, change(value)]))
}
