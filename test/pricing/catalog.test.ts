import { describe, expect, test } from 'bun:test'
import { type CatalogDocument, CatalogError, type CatalogModel, readCatalog, searchCatalog } from '../../src/pricing/catalog.ts'
import { renderCatalog } from '../../src/pricing/catalog-file.ts'
import { costPico, priceOf, usdText } from '../../src/pricing/price.ts'

const TODAY = { source: 'a file', today: '2026-11-22' }

const published = (models: Record<string, unknown>) => ({ acme: { id: 'acme', name: 'Acme', env: ['KEY'], models } })

function problemsOf(document: unknown): readonly string[] {
  try {
    readCatalog(document, TODAY)
  } catch (error) {
    if (error instanceof CatalogError) return error.problems
    throw error
  }
  throw new Error('expected a CatalogError')
}

describe('api.json of models.dev', () => {
  test('becomes entries with a cost that can be pasted, and all else that is not used is left out', () => {
    const document = published({
      'acme-1': {
        id: 'acme-1',
        name: 'Acme One',
        attachment: true,
        modalities: { input: ['text'] },
        cost: { input: 3, output: 15, cache_read: 0.3, cache_write: 3.75, context_over_200k: { input: 6, output: 22.5 } },
        limit: { context: 200_000, output: 64_000 },
        last_updated: '2026-10-01',
      },
      bare: {},
      month: { cost: { input: 0, output: 0 }, last_updated: '2026-11' },
      half: { cost: { input: 1 } },
    })
    expect(readCatalog(document, TODAY)).toEqual({
      as_of: '2026-10-01',
      source: 'a file',
      models: [
        {
          provider: 'acme',
          provider_name: 'Acme',
          id: 'acme-1',
          name: 'Acme One',
          cost: { input_per_1k: 0.003, output_per_1k: 0.015 },
          cached_input_per_1k: 0.0003,
          context_tokens: 200_000,
          output_tokens: 64_000,
          updated: '2026-10-01',
        },
        { provider: 'acme', provider_name: 'Acme', id: 'bare', name: 'bare' },
        { provider: 'acme', provider_name: 'Acme', id: 'month', name: 'month', cost: { input_per_1k: 0, output_per_1k: 0 } },
        { provider: 'acme', provider_name: 'Acme', id: 'half', name: 'half' },
      ],
    })
  })

  test('without any date is as of the day of its import', () => {
    expect(readCatalog(published({ m: {} }), TODAY).as_of).toBe('2026-11-22')
  })

  test.each([
    [0.07, 0.00007],
    [0.1, 0.0001],
    [1.1, 0.0011],
    [0.0000001, 1e-10],
    [1e-7, 1e-10],
    [123.456789, 0.123456789],
    [1e9, 1e6],
  ])('%p per million is exactly %p per thousand', (input, expected) => {
    const [model] = readCatalog(published({ m: { cost: { input, output: 0 } } }), TODAY).models
    expect(model?.cost?.input_per_1k).toBe(expected)
  })

  test('a million tokens at an offered price cost what is published per million', () => {
    const prices = [0.07, 0.15, 0.6, 1.25, 3, 15, 75, 0.0375, 0.018]
    for (const price of prices) {
      const [model] = readCatalog(published({ m: { cost: { input: price, output: price } } }), TODAY).models
      const { input_per_1k, output_per_1k } = model?.cost ?? { input_per_1k: -1, output_per_1k: -1 }
      expect(usdText(BigInt(costPico(priceOf(input_per_1k, output_per_1k), 1_000_000, 0)))).toBe(String(price))
    }
  })
})

describe('a document that is no catalog', () => {
  test('is refused with every place that is wrong, and no value', () => {
    const problems = problemsOf(
      published({ a: { cost: { input: -1, output: 'secret' } }, b: { name: 7, limit: { context: 0.5 } } }),
    )
    expect(problems).toHaveLength(4)
    for (const place of ['a › cost › input', 'a › cost › output', 'b › name', 'b › limit › context']) {
      expect(problems.filter(problem => problem.startsWith(`acme › models › ${place}: `))).toHaveLength(1)
    }
    expect(problems.join()).not.toContain('secret')
  })

  test.each([
    ['a list', [], 'the document: '],
    ['a text', 'x', 'the document: '],
    ['nothing', null, 'the document: '],
    ['no provider', {}, 'holds no model'],
    ['a provider without models', { acme: { models: {} } }, 'holds no model'],
    ['a provider that lists none', { acme: {} }, 'acme › models: '],
    ['an own catalog without a date', { source: 's', models: [] }, 'as_of: '],
    [
      'an own catalog with an entry of another form',
      { as_of: '2026-01-01', source: 's', models: [{ id: 'x' }] },
      'models › 0 › ',
    ],
  ])('%s', (_what, document, problem) => {
    expect(problemsOf(document)[0]).toStartWith(problem)
  })

  test('an entry that is there twice is named', () => {
    const model: CatalogModel = { provider: 'acme', provider_name: 'Acme', id: 'm', name: 'M' }
    expect(problemsOf({ as_of: '2026-01-01', source: 's', models: [model, model] })).toEqual(['acme/m: is there twice'])
  })
})

test('a catalog as the gateway writes it, or answers it with its totals, is read as it was', () => {
  const catalog = readCatalog(published({ a: { cost: { input: 1, output: 2 } }, b: { last_updated: '2026-01-02' } }), TODAY)
  expect(readCatalog(JSON.parse(renderCatalog(catalog)), { source: 'other', today: '2030-01-01' })).toEqual(catalog)
  expect(readCatalog({ ...catalog, total: 2 }, { source: 'other', today: '2030-01-01' })).toEqual(catalog)
})

test('the catalog that the executable carries is what its package publishes', async () => {
  const { catalogSnapshot } = await import('../../tools/docs/catalog.ts')
  const file = new URL('../../src/pricing/catalog-snapshot.json', import.meta.url)
  expect((await Bun.file(file).text()) === (await catalogSnapshot())).toBe(true)
})

describe('searchCatalog', () => {
  const entry = (provider: string, id: string, name = id): CatalogModel => ({
    provider,
    provider_name: provider.toUpperCase(),
    id,
    name,
  })
  const models: CatalogDocument['models'] = [
    entry('openrouter', 'acme/large-2', 'Acme: Large 2'),
    entry('acme', 'large-2-mini', 'Large 2 Mini'),
    entry('zeta', 'large-2', 'Large 2'),
    entry('acme', 'large-2', 'Large 2'),
    entry('acme', 'embed', 'Embed'),
  ]
  const found = (text: string, providers: string[] = []) =>
    searchCatalog(models, { text, providers }).map(({ provider, id }) => `${provider}/${id}`)

  test.each([
    ['large-2', ['acme/large-2', 'zeta/large-2', 'acme/large-2-mini', 'openrouter/acme/large-2']],
    ['LARGE-2', ['acme/large-2', 'zeta/large-2', 'acme/large-2-mini', 'openrouter/acme/large-2']],
    ['acme/large-2', ['openrouter/acme/large-2', 'acme/large-2', 'acme/large-2-mini']],
    ['  mini   acme ', ['acme/large-2-mini']],
    ['zeta', ['zeta/large-2']],
    ['embed mini', []],
    ['.*', []],
  ])('%j finds %p, exactly this id first, then what begins with it', (text, expected) => {
    expect(found(text)).toEqual(expected)
  })

  test('an empty text finds all, by id and provider', () => {
    expect(found('  ')).toEqual(['openrouter/acme/large-2', 'acme/embed', 'acme/large-2', 'zeta/large-2', 'acme/large-2-mini'])
  })

  test('of those that match alike, entries with a price come first', () => {
    const priced = { ...entry('zulu', 'large-2'), cost: { input_per_1k: 1, output_per_1k: 2 } }
    const [first, second] = searchCatalog([...models, priced], { text: 'large-2', providers: [] })
    expect([first, second?.provider]).toEqual([priced, 'acme'])
  })

  test('providers leave out all others', () => {
    expect(found('large', ['ZETA'])).toEqual(['zeta/large-2'])
    expect(found('large', ['zeta', 'openrouter'])).toEqual(['zeta/large-2', 'openrouter/acme/large-2'])
    expect(found('', ['nobody'])).toEqual([])
  })
})
