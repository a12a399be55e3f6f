/**
 * Published prices of models, to copy from: they are offered and never applied. One shape for what is embedded, what an
 * operator imports, and what the admin API answers, so that the answer of one gateway can be imported into another.
 */
import { z } from 'zod'

/** More is no catalog of models. */
const MODELS_MAX = 100_000
/** Same bounds as a model's `cost` has, so that what is offered is accepted. */
const per1k = () => z.number().min(0).max(1_000_000)
const text = () => z.string().min(1).max(256)
const tokens = () => z.int().min(0)

export const CatalogModel = z.object({
  provider: text().describe('Id of the vendor or host that publishes the price, such as `anthropic`.'),
  provider_name: text().describe('Its name.'),
  id: text().describe("The vendor's id of the model."),
  name: text().describe('Its name.'),
  cost: z
    .object({
      input_per_1k: per1k().describe('USD per 1,000 prompt tokens.'),
      output_per_1k: per1k().describe('USD per 1,000 completion tokens.'),
    })
    .optional()
    .describe('Ready to be pasted into a model. Absent where no price is published. Of prices in tiers, the lowest tier.'),
  cached_input_per_1k: per1k()
    .optional()
    .describe(
      'USD per 1,000 prompt tokens that the vendor has in its cache. For information: the gateway does not charge by it.',
    ),
  context_tokens: tokens().optional().describe('Most tokens of a prompt and its completion.'),
  output_tokens: tokens().optional().describe('Most tokens of a completion.'),
  updated: z.iso.date().optional().describe('When the entry was last changed where it was published.'),
})
export type CatalogModel = z.output<typeof CatalogModel>

export const CatalogDocument = z.object({
  as_of: z.iso.date().describe('Date of the newest entry: no price is newer than this.'),
  source: text().describe('Where the entries come from.'),
  imported_at: z.iso
    .datetime()
    .optional()
    .describe('When an operator imported them; absent for those that came with the gateway.'),
  models: z.array(CatalogModel).max(MODELS_MAX).describe('The entries.'),
})
export type CatalogDocument = z.output<typeof CatalogDocument>

/** A document that is no catalog. Each problem is a line that names its place, and no value. */
export class CatalogError extends Error {
  constructor(readonly problems: readonly string[]) {
    super(problems.join('; '))
  }
}

/** Only what is used: the rest of an entry may be anything. source: models.dev, `api.json` */
const PublishedModel = z.object({
  name: text().optional(),
  cost: z.object({ input: per1m().optional(), output: per1m().optional(), cache_read: per1m().optional() }).optional(),
  limit: z.object({ context: tokens().optional(), output: tokens().optional() }).optional(),
  last_updated: z.string().optional(),
})
const Published = z.record(text(), z.object({ name: text().optional(), models: z.record(text(), PublishedModel) }))

function per1m() {
  return z.number().min(0).max(1_000_000_000)
}

/**
 * A catalog out of a parsed document: models.dev's `api.json`, or a catalog as the admin API answers it.
 * in: `source` and `today`, for documents that do not tell their own
 * throws: CatalogError with every problem
 */
export function readCatalog(document: unknown, { source, today }: { source: string; today: string }): CatalogDocument {
  const isOwn = typeof document === 'object' && document !== null && 'models' in document && Array.isArray(document.models)
  const catalog = isOwn ? parsed(CatalogDocument, document) : fromPublished(parsed(Published, document), source, today)
  const problems: string[] = []
  if (catalog.models.length === 0) problems.push('holds no model')
  if (catalog.models.length > MODELS_MAX) problems.push(`holds more than ${MODELS_MAX} models`)
  const seen = new Set<string>()
  for (const { provider, id } of catalog.models) {
    const key = `${provider}/${id}`
    if (seen.has(key)) problems.push(`${key}: is there twice`)
    seen.add(key)
  }
  if (problems.length > 0) throw new CatalogError(problems)
  return catalog
}

function parsed<T>(schema: z.ZodType<T>, document: unknown): T {
  const result = schema.safeParse(document)
  if (result.success) return result.data
  throw new CatalogError(
    result.error.issues.map(({ path, message }) => `${path.map(String).join(' › ') || 'the document'}: ${message}`),
  )
}

function fromPublished(published: z.output<typeof Published>, source: string, today: string): CatalogDocument {
  const models = Object.entries(published).flatMap(([provider, { name: provider_name = provider, models }]) =>
    Object.entries(models).map(([id, { name = id, cost, limit, last_updated }]): CatalogModel => {
      const model: CatalogModel = { provider, provider_name, id, name }
      if (cost?.input !== undefined && cost.output !== undefined) {
        model.cost = { input_per_1k: thousandth(cost.input), output_per_1k: thousandth(cost.output) }
      }
      if (cost?.cache_read !== undefined) model.cached_input_per_1k = thousandth(cost.cache_read)
      if (limit?.context !== undefined) model.context_tokens = limit.context
      if (limit?.output !== undefined) model.output_tokens = limit.output
      // Some entries tell a month alone.
      if (z.iso.date().safeParse(last_updated).success) model.updated = last_updated
      return model
    }),
  )
  const newest = models.reduce((latest, { updated = '' }) => (updated > latest ? updated : latest), '')
  return { as_of: newest || today, source, models }
}

/** Exact in decimals: 0.07 per million is 0.00007 per thousand, where 0.07 / 1000 is 0.00007000000000000001. */
function thousandth(price: number): number {
  const [mantissa = '0', exponent = '0'] = String(price).split('e')
  return Number(`${mantissa}e${Number(exponent) - 3}`)
}

export type CatalogSearch = {
  /** Words that all have to be in the id, the name or the provider of an entry; case does not count. */
  text: string
  /** Ids of providers, any of them; none: all. */
  providers: readonly string[]
}

/**
 * The entries that match: those of exactly that id first, then what begins with the text, then the rest; of each, those with a
 * price first, then by id and provider.
 */
export function searchCatalog(models: readonly CatalogModel[], { text, providers }: CatalogSearch): CatalogModel[] {
  const wanted = text.trim().toLowerCase()
  const words = wanted.split(/\s+/)
  const from = providers.map(each => each.toLowerCase())
  const found = models
    .filter(model => {
      if (from.length > 0 && !from.includes(model.provider.toLowerCase())) return false
      const where = `${model.provider}/${model.id} ${model.name} ${model.provider_name}`.toLowerCase()
      return words.every(word => where.includes(word))
    })
    .map(model => ({ model, rank: rankOf(model, wanted) }))
  const order = (a: CatalogModel, b: CatalogModel) =>
    Number(b.cost !== undefined) - Number(a.cost !== undefined) || compare(a.id, b.id) || compare(a.provider, b.provider)
  return found.sort((a, b) => a.rank - b.rank || order(a.model, b.model)).map(({ model }) => model)
}

function rankOf({ provider, id, name }: CatalogModel, wanted: string): number {
  const ids = [id.toLowerCase(), `${provider}/${id}`.toLowerCase()]
  if (ids.includes(wanted)) return 0
  return [...ids, name.toLowerCase()].some(each => each.startsWith(wanted)) ? 1 : 2
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
