/** Tokens of a message in front of servers that count them, and of those that do not. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway, testClock } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
/** Milliseconds by which the gateway's clock is ahead. */
let ahead = 0
beforeAll(async () => {
  upstream = await fakeUpstream()
})
beforeEach(async () => {
  ahead = 0
  const clock = { ...testClock(), monotonic: () => performance.now() + ahead }
  gateway = await startGateway({ upstream: upstream.url, clock })
})
afterEach(async () => {
  await gateway.idle()
  await gateway.stop()
})
afterAll(() => upstream.stop())

type Blocks = string | Record<string, unknown>[]
async function count(content: Blocks, model = ALIAS): Promise<{ tokens: number; isEstimated: boolean }> {
  const got = await gateway.post('/v1/messages/count_tokens', { model, messages: [{ role: 'user', content }] })
  expect(got.status).toBe(200)
  const body: unknown = await got.json()
  const tokens = Reflect.get(Object(body), 'input_tokens')
  return { tokens, isEstimated: got.headers.get('x-aisix-estimated') === 'true' }
}

describe('a server that says it does not count', () => {
  test.each([404, 405, 501])('with %d is not asked again for that model, and is for others', async status => {
    await gateway.addModel({ display_name: 'other', model_name: 'other-model' })
    upstream.answer((request, connection) =>
      String(Reflect.get(Object(request.json()), 'model')) === 'other-model'
        ? connection.json(200, { count: 3 })
        : connection.json(status, {}),
    )
    const before = upstream.requests.length
    expect((await count('Hi')).isEstimated).toBe(true)
    expect((await count('Hi')).isEstimated).toBe(true)
    expect(upstream.requests.length - before).toBe(1)
    expect(await count('Hi', 'other')).toEqual({ tokens: 3, isEstimated: false })
  })

  test('is asked again after ten minutes', async () => {
    upstream.answer((_request, connection) => connection.json(404, {}))
    await count('Hi')
    upstream.answer((_request, connection) => connection.json(200, { count: 3 }))
    ahead = 599_000
    expect((await count('Hi')).isEstimated).toBe(true)
    ahead = 601_000
    expect(await count('Hi')).toEqual({ tokens: 3, isEstimated: false })
  })

  test('is asked each time where it only cannot count this one', async () => {
    upstream.answer((_request, connection) => connection.json(400, {}))
    const before = upstream.requests.length
    await count('Hi')
    await count('Hi')
    expect(upstream.requests.length - before).toBe(2)
  })
})

describe('an estimate', () => {
  const base64 = (bytes: number) => Buffer.alloc(bytes, 7).toString('base64')
  const image = (data: string) => ({ type: 'image', source: { type: 'base64', media_type: 'image/png', data } })
  const pdf = (data: string) => ({ type: 'document', source: { type: 'base64', media_type: 'application/pdf', data } })
  const text = { type: 'text', text: 'What is this?' }
  beforeEach(() => upstream.answer((_request, connection) => connection.json(404, {})))

  test('of text is a quarter of its bytes', async () => {
    const [short, long] = [await count('x'), await count('x'.repeat(40_001))]
    expect(long.tokens - short.tokens).toBe(10_000)
  })

  test('of an image is the same whatever its size, and whether it is sent or named', async () => {
    const alone = (await count([text])).tokens
    const small = (await count([text, image(base64(30))])).tokens
    expect((await count([text, image(base64(3_000_000))])).tokens).toBe(small)
    expect((await count([text, { type: 'image', source: { type: 'url', url: 'https://example.com/a.png' } }])).tokens).toBe(small)
    // What is beside it in the request are a few bytes of JSON.
    expect(small - alone).toBeWithin(1_600, 1_620)
    expect((await count([text, image(base64(30)), image(base64(30))])).tokens - small).toBeWithin(1_600, 1_620)
  })

  test('of a document grows with its bytes, far slower than text, from one page on', async () => {
    const alone = (await count([text])).tokens
    expect((await count([text, pdf(base64(30))])).tokens - alone).toBeWithin(1_500, 1_520)
    expect((await count([text, pdf(base64(3_000_000))])).tokens - alone).toBeWithin(93_750, 93_770)
  })
})
