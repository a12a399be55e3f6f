import { expect, test } from 'bun:test'
import { CatalogDocument, type CatalogModel } from '../../src/pricing/catalog.ts'
import { type Catalog, CatalogUnreadable } from '../../src/pricing/catalog-file.ts'
import { isRecord, messageOf, model, openAdmin } from './harness.ts'

const entry = (provider: string, id: string): CatalogModel => ({
  provider,
  provider_name: provider,
  id,
  name: id,
  cost: { input_per_1k: 0.003, output_per_1k: 0.015 },
})

const catalog: Catalog = {
  load: async () => ({
    as_of: '2026-11-01',
    source: 'a test',
    models: [entry('acme', 'large'), entry('zeta', 'large'), entry('acme', 'mini')],
  }),
}

const ask = (query: string, options: { catalog?: Catalog } = { catalog }) =>
  openAdmin(options).call('GET', `/admin/v1/catalog/models${query}`)

test('the catalog is searched, and tells its date and how many entries there are', async () => {
  expect((await ask('?search=large&limit=1')).body).toEqual({
    as_of: '2026-11-01',
    source: 'a test',
    total: 2,
    models: [entry('acme', 'large')],
  })
  expect((await ask('?search=large&provider=zeta,other')).body).toMatchObject({ total: 1, models: [entry('zeta', 'large')] })
  expect((await ask('')).body).toMatchObject({ total: 3 })
})

test('an answer is a catalog that can be imported', async () => {
  const { body } = await ask('?limit=100000', {})
  const { models } = CatalogDocument.parse(body)
  expect(models.length).toBeGreaterThan(500)
})

test('a price is accepted as it is offered', async () => {
  const { body } = await ask('?limit=1', { catalog })
  const cost = CatalogDocument.parse(body).models[0]?.cost
  const answer = await openAdmin().call('POST', '/admin/v1/models', model('pk', { cost }))
  expect(isRecord(answer.body) && answer.body.value).toMatchObject({ cost: { input_per_1k: 0.003, output_per_1k: 0.015 } })
})

test('every price that came with the gateway is one that a model may have', async () => {
  const admin = openAdmin()
  const { models } = CatalogDocument.parse((await ask('?limit=100000', {})).body)
  const prices = new Set(models.flatMap(({ cost }) => (cost ? [JSON.stringify(cost)] : [])))
  expect(prices.size).toBeGreaterThan(50)
  for (const price of prices) {
    const { status } = await admin.call('POST', '/admin/v1/models', model('pk', { display_name: price, cost: JSON.parse(price) }))
    expect(status).toBe(200)
  }
})

test.each([
  ['limit=0', 'limit: expected a whole number from 1'],
  ['limit=all', 'limit: expected a whole number from 1'],
  [`search=${'x'.repeat(257)}`, 'search: expected at most 256 characters'],
  ['search=a&search=b', 'search: is given twice'],
  ['q=gpt', 'q: is no parameter'],
])('%s is refused with the name of what is wrong', async (query, message) => {
  const answer = await ask(`?${query}`)
  expect(answer.status).toBe(400)
  expect(messageOf(answer)).toStartWith(message)
})

test('a catalog that cannot be read is 503 with its words', async () => {
  const broken: Catalog = { load: () => Promise.reject(new CatalogUnreadable('catalog.json is broken: import it again')) }
  const answer = await ask('', { catalog: broken })
  expect([answer.status, messageOf(answer)]).toEqual([503, 'catalog.json is broken: import it again'])
})

test('the catalog asks for an admin key', async () => {
  expect((await openAdmin().call('GET', '/admin/v1/catalog/models', undefined, {})).status).toBe(401)
})
