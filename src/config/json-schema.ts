/** config.yaml as a JSON Schema, for editors. */
import { z } from 'zod'
import { Config } from './schema.ts'
import { isCovered, UNSUPPORTED } from './support.ts'

type JsonSchema = z.core.JSONSchema.BaseSchema

/** Keys that this version refuses are not in it. */
export function configSchema(): JsonSchema {
  const schema = z.toJSONSchema(Config, { io: 'input', override: ({ jsonSchema }) => tidy(jsonSchema) })
  return { ...withoutUnsupported(schema, ''), title: 'Configuration of aisix' }
}

/** zod says of whole numbers that they are exact ones. A key without value counts as not given. */
function tidy(schema: JsonSchema): void {
  if (schema.maximum === Number.MAX_SAFE_INTEGER) delete schema.maximum
  if (schema.minimum === Number.MIN_SAFE_INTEGER) delete schema.minimum
}

function withoutUnsupported(schema: JsonSchema, path: string): JsonSchema {
  if (!schema.properties) return schema
  const members = Object.entries(schema.properties).flatMap(([name, member]): [string, JsonSchema | boolean][] => {
    const here = path === '' ? name : `${path}.${name}`
    if (isCovered(here, UNSUPPORTED)) return []
    return [[name, typeof member === 'boolean' ? member : withoutUnsupported(member, here)]]
  })
  return { ...schema, properties: Object.fromEntries(members) }
}
