/** docs/schema: what `aisix schema` prints, for editors that have no executable at hand. */
import { configSchema } from '../../src/config/json-schema.ts'
import { resourcesSchema } from '../../src/resources-file/json-schema.ts'

const textOf = (schema: unknown) => `${JSON.stringify(schema, null, 2)}\n`

export const configJsonSchema = async () => textOf(configSchema())
export const resourcesJsonSchema = async () => textOf(resourcesSchema())
