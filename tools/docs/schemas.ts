/** docs/schema: what `aisix schema` prints, for editors that have no executable at hand. */
import { runSchema } from '../../src/cli.ts'

export const configJsonSchema = async () => runSchema('config').stdout
export const resourcesJsonSchema = async () => runSchema('resources').stdout
