/** A resources file as a JSON Schema, for editors. */
import type { Kind } from '../resources/index.ts'
import { documentSchema, isSchema, type JsonSchema, mapValues } from '../resources/json-schema.ts'
import { COLLECTIONS, FORMAT_VERSION, identityMember } from './names.ts'
import { sugarOf } from './sugar.ts'

export function resourcesSchema(): JsonSchema {
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Resources of aisix',
    type: 'object',
    properties: {
      _format_version: { type: 'string', const: FORMAT_VERSION, description: 'Version of the format, in quotes.' },
      ...Object.fromEntries(
        COLLECTIONS.map(kind => [kind, { type: ['array', 'null'], items: entrySchema(kind) } satisfies Record<string, unknown>]),
      ),
    },
    required: ['_format_version'],
    additionalProperties: false,
  }
}

function entrySchema(kind: Kind): JsonSchema {
  const { examples, ...schema } = documentSchema(kind)
  const forms = schema.anyOf?.filter(isSchema)
  return forms ? { ...schema, anyOf: forms.map(form => formSchema(kind, form)) } : formSchema(kind, schema)
}

/** What a document of a form may be in a file: names for ids, and any text out of a variable. */
function formSchema(kind: Kind, form: JsonSchema): JsonSchema {
  const { examples, required = [], ...schema } = form
  const properties = mapValues(schema.properties ?? {}, each => (isSchema(each) ? inFile(each) : each))
  const identity = identityMember(kind)
  const mandatory = new Set([...required, identity])
  const choices: JsonSchema[] = []
  for (const { named, id, of } of sugarOf(kind)) {
    if (!(id in properties)) continue
    properties[named] = { type: 'string', description: `Name of the entry of \`${of}\` that is meant.` }
    if (mandatory.delete(id)) choices.push({ oneOf: [{ required: [named] }, { required: [id] }] })
  }
  if (kind === 'api_keys') {
    properties.key_env = {
      type: 'string',
      description: 'Name of the variable that holds the plaintext key, in place of `key_hash`.',
    }
    if (isSchema(properties.key_hash)) {
      const { pattern, anyOf, ...hash } = properties.key_hash
      properties.key_hash = { ...hash, type: 'string' }
    }
    if (mandatory.delete('key_hash')) choices.push({ oneOf: [{ required: ['key_env'] }, { required: ['key_hash'] }] })
  }
  return {
    ...schema,
    properties,
    required: [...mandatory],
    ...(choices.length > 0 && { allOf: [...(schema.allOf ?? []), ...choices] }),
  }
}

const VARIABLE: JsonSchema = { type: 'string', pattern: '\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}' }

/** Text with rules may come from a variable, where only the gateway can judge it; an optional member may be `null`. */
function inFile(schema: JsonSchema): JsonSchema {
  const inner: JsonSchema = { ...schema }
  if (inner.properties) inner.properties = mapValues(inner.properties, each => (isSchema(each) ? inFile(each) : each))
  if (isSchema(inner.items)) inner.items = inFile(inner.items)
  if (isSchema(inner.additionalProperties)) inner.additionalProperties = inFile(inner.additionalProperties)
  if (inner.anyOf) inner.anyOf = inner.anyOf.filter(isSchema).map(inFile)
  const isText = inner.type === 'string' || (inner.enum ?? [inner.const]).every(each => typeof each === 'string')
  const hasRules = ['pattern', 'format', 'enum', 'const', 'maxLength'].some(rule => rule in inner)
  if (!isText || !hasRules) return inner
  const { description, default: fallback, ...rules } = inner
  return {
    anyOf: [rules, VARIABLE],
    ...(description !== undefined && { description }),
    ...(fallback !== undefined && { default: fallback }),
  }
}
