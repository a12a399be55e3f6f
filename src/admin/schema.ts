/** The JSON Schemas of resources: what masking, messages and the reference are made of. All derive from the zod schemas. */
import { z } from 'zod'
import { type Kind, REGISTRY } from '../resources/index.ts'
import { documentSchema, isSchema, type JsonSchema, mapValues, plainBounds } from '../resources/json-schema.ts'
import { MASK } from '../resources/provider-key.ts'

export type { JsonSchema }
export { documentSchema, isSchema, plainBounds }

/** The schema of an answer for the reference, without what only its generator needs. */
export function inlineSchema(schema: z.ZodType): JsonSchema {
  const { $schema, ...inline } = z.toJSONSchema(schema, { override: ({ jsonSchema }) => plainBounds(jsonSchema) })
  return inline
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
