import { type Command, UsageError } from './command.ts'
import { CONFIG, findConfig, NO_CONFIG } from './config-path.ts'

export const catalogImport: Command = {
  words: ['catalog', 'import'],
  summary: 'replace the catalog of published prices',
  about: `Replaces the catalog of published prices that GET /admin/v1/catalog/models searches. FILE is the api.json of models.dev, or an
answer of that route at another gateway. It becomes catalog.json beside the store; a running gateway takes it up by itself.
Remove that file to have the catalog back that came with the gateway. No price is ever applied by itself.
Ends with 1, and the old catalog in place, when FILE cannot be used.`,
  args: [{ name: 'FILE', complete: 'file', about: 'The catalog to take.' }],
  options: [CONFIG],
  examples: ['aisix catalog import api.json --config config.yaml'],
  async run(given, io) {
    const path = findConfig(given.text('config'), io.env, io.exists)
    if (path === undefined) throw new UsageError(NO_CONFIG)
    const { runCatalogImport } = await import('./catalog-import-run.ts')
    return runCatalogImport(given.arg('FILE'), path, io.env, io.now())
  },
}
