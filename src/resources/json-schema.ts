/** The documents of each kind as JSON Schemas, derived from the zod schemas. */
import { z } from 'zod'
import { type Kind, REGISTRY } from './index.ts'

export type JsonSchema = z.core.JSONSchema.BaseSchema

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
  const { $defs = {} } = document
  const root = $defs[name]
  if (!isSchema(root)) throw new Error(`the schema of ${kind} must carry the id ${name}`)
  return tidy(root, $defs)
}

/** Takes out what zod says by itself: that integers are safe ones, and formats once more as a pattern. */
export function plainBounds(schema: JsonSchema) {
  if (schema.maximum === Number.MAX_SAFE_INTEGER) delete schema.maximum
  if (schema.minimum === Number.MIN_SAFE_INTEGER) delete schema.minimum
  if (schema.format !== undefined) delete schema.pattern
}

/**
 * The schema without `null` and without references: forms of a union stand in it under their name as title. What zod names
 * by itself, `__schema0`, is the reference of a JSON value to itself.
 */
function tidy(schema: JsonSchema, definitions: Readonly<Record<string, unknown>>): JsonSchema {
  const inside = (each: JsonSchema) => tidy(each, definitions)
  if (schema.$ref !== undefined) {
    const name = schema.$ref.slice(schema.$ref.lastIndexOf('/') + 1)
    const form = definitions[name]
    if (name.startsWith('__') || !isSchema(form)) return { description: 'Any JSON value.' }
    return { title: name, ...inside(form) }
  }
  let plain: JsonSchema = { ...schema }
  const others = plain.anyOf?.filter(isSchema).filter(each => each.type !== 'null')
  if (plain.anyOf && others?.length === 1) {
    const { anyOf, ...outer } = plain
    plain = { ...others[0], ...outer }
  }
  if (plain.anyOf) plain.anyOf = plain.anyOf.filter(isSchema).map(inside)
  // zod types `type` as one name, but writes a list of two where a plain type is nullable.
  const types: unknown = plain.type
  if (Array.isArray(types)) plain.type = types.find(type => type !== 'null')
  if (plain.properties) plain.properties = mapValues(plain.properties, each => (isSchema(each) ? inside(each) : each))
  if (isSchema(plain.items)) plain.items = inside(plain.items)
  if (isSchema(plain.additionalProperties)) plain.additionalProperties = inside(plain.additionalProperties)
  // Member names are strings in any case.
  if (isSchema(plain.propertyNames) && Object.keys(plain.propertyNames).join() === 'type') delete plain.propertyNames
  return plain
}

export function isSchema(value: unknown): value is JsonSchema {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The same members with other values. */
export function mapValues<T, U>(record: Record<string, T>, change: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, change(value)]))
}
