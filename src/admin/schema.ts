/** The JSON Schemas of resources: what masking, messages and the reference are made of. All derive from the zod schemas. */
import { z } from 'zod'
import { type Kind, REGISTRY } from '../resources/index.ts'
import { MASK } from '../resources/provider-key.ts'

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

/** The schema of an answer for the reference, without what only its generator needs. */
export function inlineSchema(schema: z.ZodType): JsonSchema {
  const { $schema, ...inline } = z.toJSONSchema(schema, { override: ({ jsonSchema }) => plainBounds(jsonSchema) })
  return inline
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

/** The forms of a kind that has several, each under its name as title, or its one schema. */
export function formsOf(kind: Kind): JsonSchema[] {
  const schema = documentSchema(kind)
  return schema.anyOf?.filter(isSchema) ?? [schema]
}

/** Documents that are accepted as they stand, at least one of each form. */
export function examplesOf(kind: Kind): Record<string, unknown>[] {
  return formsOf(kind).flatMap(({ title, examples = [] }) => {
    const documents = examples.filter(isRecord)
    if (documents.length === 0) throw new Error(`${title ?? kind} must carry an example`)
    return documents
  })
}

/** JSON Schema of the documents as they read: credentials masked, second spellings gone. */
export function viewSchema(kind: Kind): JsonSchema {
  const views = formsOf(kind).map((form): JsonSchema => {
    // Which of two spellings was written no longer shows.
    const { examples, oneOf, ...view } = masked(form)
    return { ...view, required: membersAlwaysShown(kind, form) }
  })
  const [view, ...others] = views
  return view !== undefined && others.length === 0 ? view : { anyOf: views }
}

/**
 * Members that every document of a form shows: those that it must have, its credentials, and those that normalising adds
 * where they are left out, which is tried out with the example.
 */
function membersAlwaysShown(kind: Kind, { required = [], properties = {}, examples = [] }: JsonSchema): string[] {
  const example = examples.find(isRecord) ?? {}
  return Object.entries(properties).flatMap(([member, schema]) => {
    if (required.includes(member)) return [member]
    if (isSchema(schema) && schema.writeOnly === true) return Object.hasOwn(example, member) ? [member] : []
    const { [member]: _, ...rest } = example
    const normalised = REGISTRY[kind].schema.safeParse(rest)
    return normalised.success && Object.entries(normalised.data).some(([name, value]) => name === member && value !== undefined)
      ? [member]
      : []
  })
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
  if (view.anyOf) view.anyOf = view.anyOf.filter(isSchema).map(masked)
  if (isSchema(view.items)) view.items = masked(view.items)
  if (isSchema(view.additionalProperties)) view.additionalProperties = masked(view.additionalProperties)
  return view
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export function isSchema(value: unknown): value is JsonSchema {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function mapValues<T, U>(record: Record<string, T>, change: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, change(value)]))
}
