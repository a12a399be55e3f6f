/** What private model servers serve besides chat, relayed byte for byte. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway, UPSTREAM_MODEL, UPSTREAM_SECRET } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
})
beforeEach(async () => {
  gateway = await startGateway({ upstream: upstream.url })
})
afterEach(async () => {
  await gateway.idle()
  await gateway.stop()
})
afterAll(() => upstream.stop())

/** Every path of ours, and where it leads below a base that ends in /v1. */
const PATHS = [
  ['/v1/rerank', '/v1/rerank'],
  ['/v1/score', '/score'],
  ['/score', '/score'],
  ['/v1/classify', '/classify'],
  ['/classify', '/classify'],
  ['/v1/pooling', '/pooling'],
  ['/pooling', '/pooling'],
  ['/v1/tokenize', '/tokenize'],
  ['/tokenize', '/tokenize'],
  ['/v1/detokenize', '/detokenize'],
  ['/detokenize', '/detokenize'],
] as const

describe.each(PATHS)('%s', (path, below) => {
  test(`goes to ${below} with another model, and comes back as it was sent`, async () => {
    const answer = '{ "model":"raw-name",\n "n": 9007199254740993, "x": 1.0, "usage": {"prompt_tokens": 11} }'
    upstream.answer((_request, connection) => connection.send(200, answer, { 'content-type': 'application/json; charset=utf-8' }))
    const got = await gateway.post(path, `{"n": 1.50, "model" : "${ALIAS}", "documents": ["ä"]}`)
    expect(await got.text()).toBe(answer)
    expect(got.status).toBe(200)
    expect(got.headers.get('content-type')).toBe('application/json; charset=utf-8')
    expect(got.headers.get('x-aisix-request-id')).not.toBeNull()
    const seen = upstream.last()
    expect([seen.method, seen.path]).toEqual(['POST', below])
    expect(seen.text).toBe(`{"n": 1.50, "model" : "${UPSTREAM_MODEL}", "documents": ["ä"]}`)
    expect(seen.header('authorization')).toBe(`Bearer ${UPSTREAM_SECRET}`)
    await gateway.idle()
    const isCounted = !path.endsWith('tokenize')
    expect(gateway.telemetry.records).toMatchObject([
      {
        endpoint: path.startsWith('/v1') ? path : `/v1${path}`,
        status: 200,
        promptTokens: isCounted ? 11 : 0,
        isEstimated: false,
      },
    ])
  })

  test('wants a key, a model that there is, and a body', async () => {
    const before = upstream.requests.length
    const statuses = [
      (await gateway.post(path, { model: ALIAS }, { authorization: 'Bearer sk-wrong' })).status,
      (await gateway.post(path, { model: 'nope' })).status,
      (await gateway.post(path, {})).status,
      (await gateway.post(path, '{"model":"a","model":"b"}')).status,
      (await gateway.get(path)).status,
    ]
    expect(statuses).toEqual([401, 404, 400, 400, 405])
    expect(upstream.requests.length).toBe(before)
  })
})

test('an answer that is no JSON is relayed as well', async () => {
  const bytes = Uint8Array.from({ length: 300 }, (_, at) => at % 256)
  upstream.answer((_request, connection) => connection.send(200, bytes, { 'content-type': 'application/octet-stream' }))
  const got = await gateway.post('/pooling', { model: ALIAS, input: 'x' })
  expect(new Uint8Array(await got.arrayBuffer())).toEqual(bytes)
  expect(got.headers.get('content-type')).toBe('application/octet-stream')
})

test('what Cohere bills is what counts where no usage is told; where nothing is, the prompt is estimated', async () => {
  upstream.answerInTurn(
    (_request, connection) => connection.json(200, { results: [], meta: { billed_units: { input_tokens: 4 } } }),
    (_request, connection) => connection.json(200, { results: [] }),
  )
  for (let count = 0; count < 2; count += 1) await (await gateway.post('/v1/rerank', { model: ALIAS, query: 'q' })).text()
  await gateway.idle()
  const [told, estimated] = gateway.telemetry.records
  expect(told).toMatchObject({ promptTokens: 4, isEstimated: false })
  expect(estimated?.isEstimated).toBe(true)
  expect(estimated?.promptTokens).toBeGreaterThan(0)
})

test.each(['anthropic', 'deepseek'])(
  'a model with the label %s does not rerank, and its upstream is not asked',
  async provider => {
    await gateway.addModel({ display_name: 'other', provider })
    const before = upstream.requests.length
    const got = await gateway.post('/v1/rerank', { model: 'other', query: 'q', documents: [] })
    expect(got.status).toBe(400)
    expect(await got.text()).toContain('model `other` is not an OpenAI, Cohere, or Jina provider; /v1/rerank requires')
    expect(upstream.requests.length).toBe(before)
  },
)

test('a base without a path reranks below /v1, a base with another path below that', async () => {
  upstream.answer((_request, connection) => connection.json(200, {}))
  for (const [base, path] of [
    ['', '/v1/rerank'],
    ['/v2', '/v2/rerank'],
    ['/v1/rerank', '/v1/rerank'],
  ]) {
    const key = await gateway.addProviderKey({ api_base: `${upstream.origin}${base}` })
    await gateway.addModel({ display_name: `at${base}`, provider_key_id: key.id })
    await (await gateway.post('/v1/rerank', { model: `at${base}` })).text()
    expect(upstream.last().path).toBe(path ?? '')
  }
})

test('the refusal of a server is told with its words, and a group goes on to the next', async () => {
  upstream.answer((_request, connection) => connection.json(422, { error: { message: 'no documents', code: 'empty' } }))
  const got = await gateway.post('/v1/rerank', { model: ALIAS })
  expect([got.status, await got.json()]).toMatchObject([422, { error: { message: 'no documents', type: 'upstream_error' } }])

  await gateway.addModel({ display_name: 'second' })
  await gateway.addGroup('both', { targets: [ALIAS, 'second'] })
  upstream.answerInTurn(
    (_request, connection) => connection.json(500, {}),
    (_request, connection) => connection.json(200, { results: [] }),
  )
  expect((await gateway.post('/v1/rerank', { model: 'both' })).status).toBe(200)
})

describe('images', () => {
  test('are asked for as they are, and their tokens counted', async () => {
    const answer = '{"created":1,"data":[{"b64_json":"aGk="}],"usage":{"input_tokens":3,"output_tokens":5}}'
    upstream.answer((_request, connection) => connection.send(200, answer, { 'content-type': 'application/json' }))
    const got = await gateway.post('/v1/images/generations', { model: ALIAS, prompt: 'a fox', size: '1x1' })
    expect(await got.text()).toBe(answer)
    expect([upstream.last().path, upstream.last().json()]).toEqual([
      '/v1/images/generations',
      { model: UPSTREAM_MODEL, prompt: 'a fox', size: '1x1' },
    ])
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([{ promptTokens: 3, completionTokens: 5, isEstimated: false }])
  })

  test('are refused under the label of a vendor that has none', async () => {
    await gateway.addModel({ display_name: 'other', provider: 'anthropic' })
    const got = await gateway.post('/v1/images/generations', { model: 'other', prompt: 'x' })
    expect([got.status, await got.text()]).toEqual([400, expect.stringContaining('model `other` is not an OpenAI provider')])
  })
})

describe('speech', () => {
  const QUESTION = { model: ALIAS, input: 'Hello', voice: 'alloy' }

  test('arrives piece by piece, each before the next is sent, with its type', async () => {
    let proceed = () => {}
    const isRead = new Promise<void>(resolve => {
      proceed = resolve
    })
    upstream.answer(async (_request, connection) => {
      await connection.streamHead({ headers: { 'content-type': 'audio/mpeg' } })
      await connection.chunk(Uint8Array.of(1, 2, 255))
      await isRead
      await connection.chunk(Uint8Array.of(0, 128))
      await connection.endChunks()
    })
    const got = await gateway.post('/v1/audio/speech', QUESTION)
    expect(got.headers.get('content-type')).toContain('audio/mpeg')
    const bytes: number[] = []
    for await (const piece of got.body ?? []) {
      bytes.push(...piece)
      proceed()
    }
    expect(bytes).toEqual([1, 2, 255, 0, 128])
    expect(upstream.last().json()).toEqual({ ...QUESTION, model: UPSTREAM_MODEL })
  })

  test('that is cut is no clean end, and a caller that leaves takes its upstream with it', async () => {
    upstream.answer(async (_request, connection) => {
      await connection.streamHead({ headers: { 'content-type': 'audio/mpeg' } })
      await connection.chunk(Uint8Array.of(1))
      await Bun.sleep(20)
      connection.reset()
    })
    const cut = await gateway.post('/v1/audio/speech', QUESTION)
    await expect(cut.arrayBuffer()).rejects.toThrow()
    const before = upstream.cut
    upstream.answer(async (_request, connection) => {
      await connection.streamHead({ headers: { 'content-type': 'audio/mpeg' } })
      await connection.chunk(Uint8Array.of(1))
      await connection.stall()
    })
    const leaving = new AbortController()
    const left = await gateway.post('/v1/audio/speech', QUESTION, {}, leaving.signal)
    await left.body?.getReader().read()
    leaving.abort()
    await upstream.whenCut(before + 1)
    await gateway.idle()
    expect(gateway.telemetry.records.map(({ status }) => status)).toEqual([502, 499])
  })
})

describe('what a server says of its answer', () => {
  test.each([
    [201, '{"n":1}'],
    [202, ''],
    [204, ''],
  ])('its status %d is told', async (status, body) => {
    upstream.answer((_request, connection) =>
      connection.send(status, body, body === '' ? {} : { 'content-type': 'application/json' }),
    )
    for (const path of ['/v1/rerank', '/tokenize', '/v1/audio/speech']) {
      const got = await gateway.post(path, { model: ALIAS })
      expect([got.status, await got.text()]).toEqual([status, body])
    }
  })

  test('sound of a length that is told keeps it', async () => {
    const sound = new Uint8Array(300_000).fill(7)
    upstream.answer((_request, connection) => connection.send(200, sound, { 'content-type': 'audio/mpeg' }))
    const got = await gateway.post('/v1/audio/speech', { model: ALIAS, input: 'x' })
    expect([got.headers.get('content-length'), got.headers.get('content-type')]).toEqual(['300000', 'audio/mpeg'])
    expect(new Uint8Array(await got.arrayBuffer())).toEqual(sound)
    expect(upstream.last().header('accept')).toBe('*/*')
  })

  test('an answer that breaks before its first bytes is an error, not a head and nothing', async () => {
    upstream.answer((_request, connection) =>
      connection.send(200, 'no gzip at all', { 'content-type': 'audio/mpeg', 'content-encoding': 'gzip' }),
    )
    const got = await gateway.post('/v1/audio/speech', { model: ALIAS, input: 'x' })
    expect([got.status, got.headers.get('content-type')]).toEqual([502, 'application/json'])
    upstream.answer(async (_request, connection) => {
      await connection.streamHead({ headers: { 'content-type': 'audio/mpeg' } })
      connection.reset()
    })
    expect((await gateway.post('/v1/audio/speech', { model: ALIAS, input: 'x' })).status).toBe(502)
  })

  test('a stream of images is refused', async () => {
    const before = upstream.requests.length
    const got = await gateway.post('/v1/images/generations', { model: ALIAS, prompt: 'x', stream: true })
    expect([got.status, await got.json()]).toMatchObject([400, { error: { param: 'stream' } }])
    expect(upstream.requests.length).toBe(before)
  })
})
