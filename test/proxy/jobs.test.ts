/** What servers keep: files, batches, fine-tuning jobs. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import OpenAI from 'openai'
import { GatewayError } from '../../src/errors.ts'
import { decodeId, encodeId, encodeIds } from '../../src/proxy/jobs/ids.ts'
import { type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, answerOf, startGateway, type TestGateway, UPSTREAM_SECRET, until } from '../gateway.ts'

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

const auth = () => ({ authorization: `Bearer ${gateway.key}` })
const call = (method: string, path: string, headers: Record<string, string> = auth()) =>
  fetch(gateway.url + path, { method, headers })
const file = (id: string, more = {}) => ({ id, object: 'file', bytes: 3, filename: 'a.jsonl', purpose: 'batch', ...more })

describe('ids', () => {
  test('come back as they were, whatever is in them', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, unit: 'grapheme' }), fc.string({ minLength: 1 }), (alias, raw) => {
        const id = encodeId(alias, raw)
        expect(id).toMatch(/^aisix-[\w-]+$/)
        expect(decodeId(id)).toEqual({ alias, raw })
      }),
    )
  })

  test.each(['aisix-', 'aisix-***', 'aisix-AAAA', `${encodeId('a', 'b')}x=`, encodeId('a', 'b').slice(0, -3)])(
    'that are malformed are refused: %s',
    id => expect(() => decodeId(id)).toThrow('malformed id'),
  )

  test('of a document are encoded, and nothing else of it changes', () => {
    const text =
      '{"big": 9007199254740993, "id":"x","data" : [{"id": "y", "n": 1.0, "result_files":["f1", null]}, 5], "error_file_id": null}'
    expect(encodeIds(text, 'a')).toBe(
      `{"big":9007199254740993,"id":"${encodeId('a', 'x')}","data":[{"id":"${encodeId('a', 'y')}","n":1.0,"result_files":["${encodeId('a', 'f1')}",null]},5],"error_file_id":null}`,
    )
    expect(encodeIds('no JSON', 'a')).toBe('no JSON')
  })
})

describe('with the official client', () => {
  const client = () => new OpenAI({ apiKey: gateway.key, baseURL: `${gateway.url}/v1`, maxRetries: 0 })

  test('a file is uploaded, read, listed and deleted', async () => {
    upstream.answer((_request, connection) => connection.json(200, file('file-1')))
    const upload = await client().files.create({ file: new File(['{}\n'], 'a.jsonl'), purpose: 'batch' })
    expect(upload.id).toBe(encodeId(ALIAS, 'file-1'))
    const sent = upstream.last()
    expect([sent.method, sent.path, sent.header('authorization')]).toEqual(['POST', '/v1/files', `Bearer ${UPSTREAM_SECRET}`])
    const form = await new Response(sent.bytes, { headers: { 'content-type': sent.header('content-type') ?? '' } }).formData()
    expect([...form.keys()].sort()).toEqual(['file', 'purpose'])

    await client().files.retrieve(upload.id)
    expect([upstream.last().method, upstream.last().path]).toEqual(['GET', '/v1/files/file-1'])

    upstream.answer((_request, connection) =>
      connection.send(200, Buffer.from([0, 255, 10]), { 'content-type': 'application/octet-stream' }),
    )
    const content = await client().files.content(upload.id)
    expect(upstream.last().path).toBe('/v1/files/file-1/content')
    expect(new Uint8Array(await content.arrayBuffer())).toEqual(Uint8Array.of(0, 255, 10))
    expect([content.headers.get('content-type'), content.headers.get('content-length')]).toEqual([
      'application/octet-stream',
      '3',
    ])

    upstream.answer((_request, connection) =>
      connection.json(200, {
        object: 'list',
        data: [file('file-1'), file('file-2')],
        first_id: 'file-1',
        last_id: 'file-2',
        has_more: false,
      }),
    )
    const page = await client().files.list({ purpose: 'batch', after: upload.id })
    expect(page.data.map(({ id }) => id)).toEqual([encodeId(ALIAS, 'file-1'), encodeId(ALIAS, 'file-2')])
    expect(upstream.last().path).toBe('/v1/files?purpose=batch&after=file-1')

    upstream.answer((_request, connection) => connection.json(200, { id: 'file-1', object: 'file', deleted: true }))
    expect(await client().files.delete(upload.id)).toMatchObject({ id: upload.id, deleted: true })
    expect([upstream.last().method, upstream.last().path]).toEqual(['DELETE', '/v1/files/file-1'])
  })

  test('a batch is made, read and cancelled under ids of ours', async () => {
    const batch = { id: 'batch_1', object: 'batch', input_file_id: 'file-1', output_file_id: null, status: 'in_progress' }
    upstream.answer((_request, connection) => connection.json(200, batch))
    const made = await client().batches.create({
      input_file_id: encodeId(ALIAS, 'file-1'),
      endpoint: '/v1/chat/completions',
      completion_window: '24h',
    })
    expect([made.id, made.input_file_id]).toEqual([encodeId(ALIAS, 'batch_1'), encodeId(ALIAS, 'file-1')])
    expect(upstream.last().json()).toEqual({
      input_file_id: 'file-1',
      endpoint: '/v1/chat/completions',
      completion_window: '24h',
    })
    await client().batches.retrieve(made.id)
    expect(upstream.last().path).toBe('/v1/batches/batch_1')
    await client().batches.cancel(made.id)
    expect([upstream.last().method, upstream.last().path, upstream.last().text]).toEqual([
      'POST',
      '/v1/batches/batch_1/cancel',
      '',
    ])
  })

  test('a fine-tuning job keeps the base model that it names', async () => {
    const job = {
      id: 'ftjob-1',
      object: 'fine_tuning.job',
      training_file: 'file-1',
      validation_file: 'file-2',
      result_files: ['file-3'],
    }
    upstream.answer((_request, connection) => connection.json(200, job))
    const made = await client().fineTuning.jobs.create({
      model: 'base-model-of-the-server',
      training_file: encodeId(ALIAS, 'file-1'),
      validation_file: encodeId(ALIAS, 'file-2'),
    })
    expect(made).toMatchObject({ id: encodeId(ALIAS, 'ftjob-1'), result_files: [encodeId(ALIAS, 'file-3')] })
    expect(upstream.last().json()).toEqual({
      model: 'base-model-of-the-server',
      training_file: 'file-1',
      validation_file: 'file-2',
    })
    await client().fineTuning.jobs.cancel(made.id)
    expect(upstream.last().path).toBe('/v1/fine_tuning/jobs/ftjob-1/cancel')
    upstream.answer((_request, connection) => connection.json(200, { object: 'list', data: [], has_more: false }))
    await client().fineTuning.jobs.listEvents(made.id, { limit: 5 })
    expect(upstream.last().path).toBe('/v1/fine_tuning/jobs/ftjob-1/events?limit=5')
  })
})

describe('the server that is meant', () => {
  beforeEach(async () => {
    const second = await gateway.addProviderKey({ api_base: `${upstream.origin}/second/v1` })
    await gateway.addModel({ display_name: 'second', provider_key_id: second.id })
    upstream.answer((_request, connection) => connection.json(200, file('file-1')))
  })

  test.each([
    ['an id of ours', `/v1/files/${encodeId('second', 'x')}?model=${ALIAS}`, {}],
    ['the query', '/v1/files/x?model=second', {}],
    ['a header', '/v1/files/x', { 'x-aisix-model': 'second' }],
  ])('is told by %s', async (_what, path, headers) => {
    const { body } = await answerOf(await call('GET', path, { ...auth(), ...headers }))
    expect(upstream.last().path).toBe('/second/v1/files/x')
    expect(body).toMatchObject({ id: encodeId('second', 'file-1') })
  })

  test('is told by the field `model` of an upload or a batch, which goes no further', async () => {
    const form = new FormData()
    form.append('model', 'second')
    form.append('purpose', 'batch')
    form.append('file', new File(['{}'], 'a'))
    expect((await fetch(`${gateway.url}/v1/files`, { method: 'POST', body: form, headers: auth() })).status).toBe(200)
    const sent = upstream.last()
    expect(sent.path).toBe('/second/v1/files')
    const seen = await new Response(sent.bytes, { headers: { 'content-type': sent.header('content-type') ?? '' } }).formData()
    expect([...seen.keys()]).toEqual(['purpose', 'file'])
    await gateway.post('/v1/batches', { model: 'second', input_file_id: 'file-9', n: 1 })
    expect([upstream.last().path, upstream.last().json()]).toEqual(['/second/v1/batches', { input_file_id: 'file-9', n: 1 }])
  })

  test('is else that of the first model which the caller may use', async () => {
    await gateway.addApiKey('sk-second', { allowed_models: ['second'] })
    expect((await call('GET', '/v1/files/x', { authorization: 'Bearer sk-second' })).status).toBe(200)
    expect(upstream.last().path).toBe('/second/v1/files/x')
    await gateway.addApiKey('sk-none', { allowed_models: [] })
    const { status, error } = await answerOf(await call('GET', '/v1/files', { authorization: 'Bearer sk-none' }))
    expect([status, error.message]).toEqual([400, expect.stringContaining('no model says which server is meant')])
  })

  test('is refused as elsewhere', async () => {
    await gateway.addGroup('group', { targets: [ALIAS] })
    await gateway.addApiKey('sk-narrow', { allowed_models: [ALIAS] })
    const claude = await gateway.addProviderKey({ api_base: upstream.url, provider: 'claude', adapter: 'anthropic' })
    await gateway.addModel({ display_name: 'claude', provider_key_id: claude.id })
    const before = upstream.requests.length
    const of = async (path: string, headers = auth()) => {
      const { status, error } = await answerOf(await call('GET', path, headers))
      return [status, error.message]
    }
    expect(await of('/v1/files?model=nobody')).toEqual([404, 'model "nobody" not found'])
    expect(await of(`/v1/files/${encodeId('gone', 'x')}`)).toEqual([404, 'model "gone" not found'])
    expect(await of(`/v1/files/${encodeId('second', 'x')}`, { authorization: 'Bearer sk-narrow' })).toEqual([
      403,
      'API key is not allowed to use model "second"',
    ])
    expect(await of('/v1/files?model=group')).toEqual([400, expect.stringContaining('is a group')])
    expect(await of('/v1/files?model=claude')).toEqual([501, 'this provider does not support files'])
    expect(await of('/v1/files/aisix-zzz')).toEqual([400, expect.stringContaining('malformed id')])
    expect(await of('/v1/files/x%ff')).toEqual([400, 'request payload is invalid: invalid path parameter'])
    expect(await of('/v1/files/x%ff', { authorization: 'Bearer wrong' })).toEqual([401, expect.any(String)])
    expect(upstream.requests.length).toBe(before)
  })

  test('is never reached elsewhere than where its files are', async () => {
    for (const raw of ['..', '../admin', 'a/b', 'a?b', 'a#b', '..%2f..']) {
      const before = upstream.requests.length
      const answer = await call('GET', `/v1/files/${encodeId(ALIAS, raw)}`)
      if (upstream.requests.length > before) {
        expect(upstream.last().path).toBe(`/v1/files/${encodeURIComponent(raw)}`)
        expect(raw).not.toMatch(/[/\\]/)
      } else expect(answer.status).toBe(400)
    }
    expect((await call('GET', '/v1/files/..%2F..%2Fx')).status).toBe(400)
    expect((await call('DELETE', '/v1/files/a%00b')).status).toBe(400)
  })
})

test('nothing of a body is said where there is none, and no credential of a query goes on', async () => {
  upstream.answer((_request, connection) => connection.json(200, file('file-1')))
  await call('GET', '/v1/files?limit=3&api_key=sk-secret&token=x')
  expect([upstream.last().path, upstream.last().header('content-type')]).toEqual(['/v1/files?limit=3', undefined])
  await call('POST', '/v1/batches/x/cancel')
  expect([upstream.last().header('content-type'), upstream.last().header('content-length')]).toEqual([undefined, '0'])
  expect((await call('GET', '/v1/files?model=a&model=b')).status).toBe(400)
  const packed = await gateway.post('/v1/batches', { input_file_id: 'x' }, { 'content-encoding': 'gzip' })
  expect(packed.status).toBe(415)
})

test('whoever has spent all can see and stop what costs, and begin nothing', async () => {
  const over = new GatewayError('budget_exceeded', 'all is spent')
  gateway.gateway.budgets.refusal = () => over
  upstream.answer((_request, connection) => connection.json(200, file('file-1')))
  expect((await call('GET', '/v1/batches/x')).status).toBe(200)
  expect((await call('POST', '/v1/batches/x/cancel')).status).toBe(200)
  expect((await call('DELETE', '/v1/files/x')).status).toBe(200)
  expect((await gateway.post('/v1/batches', { input_file_id: 'x' })).status).toBe(429)
})

describe('a body', () => {
  test.each([
    ['no file', '/v1/batches', '{"endpoint":"x"}', '`input_file_id` field missing'],
    ['no training file', '/v1/fine_tuning/jobs', '{"model":"x"}', '`training_file` field missing'],
    ['an id that is none', '/v1/batches', '{"input_file_id":"aisix-!"}', 'malformed id'],
    ['an id that is no text', '/v1/batches', '{"input_file_id":5}', '`input_file_id` must be a text'],
    ['two ids', '/v1/batches', '{"input_file_id":"a","input_file_id":"b"}', '`input_file_id` occurs twice'],
    ['no JSON', '/v1/batches', '{', 'invalid JSON request body'],
    [
      'files of two servers',
      '/v1/fine_tuning/jobs',
      `{"training_file":"${encodeId('a', 'x')}","validation_file":"${encodeId('b', 'x')}"}`,
      'different models',
    ],
  ])('with %s is refused', async (_what, path, body, message) => {
    const before = upstream.requests.length
    const { status, error } = await answerOf(await gateway.post(path, body))
    expect([status, error.type]).toEqual([400, 'invalid_request_error'])
    expect(error.message).toContain(message)
    expect(upstream.requests.length).toBe(before)
  })

  test('of an upload without a file is refused', async () => {
    const form = new FormData()
    form.append('purpose', 'batch')
    const { status, error } = await answerOf(
      await fetch(`${gateway.url}/v1/files`, { method: 'POST', body: form, headers: auth() }),
    )
    expect([status, error.message]).toEqual([400, 'request payload is invalid: `file` field missing'])
  })
})

test('what may have been done is not done again; what is only read is', async () => {
  await gateway.addModel({ display_name: 'again', retries: 2 })
  upstream.answer((_request, connection) => connection.json(503, {}))
  const before = upstream.requests.length
  expect((await gateway.post('/v1/batches?model=again', { input_file_id: 'x' })).status).toBe(502)
  expect((await call('DELETE', '/v1/files/x?model=again')).status).toBe(502)
  expect(upstream.requests.length).toBe(before + 2)
  expect((await call('GET', '/v1/files/x?model=again')).status).toBe(502)
  expect(upstream.requests.length).toBe(before + 5)
})

test("a server's own status and error are relayed", async () => {
  upstream.answer((_request, connection) =>
    connection.json(404, { error: { message: 'No such File object: x', code: 'missing' } }),
  )
  const { status, error } = await answerOf(await call('GET', '/v1/files/x'))
  expect([status, error]).toEqual([404, { message: 'No such File object: x', type: 'upstream_error', code: 'missing' }])
  upstream.answer((_request, connection) => connection.json(201, file('file-1')))
  expect((await call('GET', '/v1/files/x')).status).toBe(201)
  upstream.answer((_request, connection) => connection.send(204, ''))
  expect((await call('DELETE', '/v1/files/x')).status).toBe(204)
})

test('methods that there are not are 405, with those that there are', async () => {
  const allow = async (method: string, path: string) => {
    const answer = await call(method, path)
    return [answer.status, answer.headers.get('allow')]
  }
  expect(await allow('PUT', '/v1/files')).toEqual([405, 'POST, GET, HEAD'])
  expect(await allow('POST', '/v1/files/x')).toEqual([405, 'GET, HEAD, DELETE'])
  expect(await allow('GET', '/v1/batches/x/cancel')).toEqual([405, 'POST'])
})

test('requests count, tokens do not', async () => {
  upstream.answer((_request, connection) => connection.json(200, file('file-1', { usage: { prompt_tokens: 5 } })))
  await call('GET', '/v1/files/x')
  await gateway.idle()
  expect(gateway.telemetry.records).toMatchObject([
    { handler: 'jobs', endpoint: '/v1/files/:id', status: 200, promptTokens: 0, completionTokens: 0, isEstimated: false },
  ])
})

describe('a batch that is over', () => {
  const batch = { id: 'batch_1', object: 'batch', status: 'completed', output_file_id: 'file-out' }
  const line = (model: string, prompt_tokens: number, completion_tokens: number) =>
    JSON.stringify({
      response: {
        status_code: 200,
        body: { model, usage: { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens } },
      },
    })

  test('is charged once, by model, when a caller is first told', async () => {
    await gateway.addModel({ display_name: 'priced', model_name: 'up/priced', cost: { input_per_1k: 1, output_per_1k: 2 } })
    const output = [
      line('up/priced', 10, 20),
      line('up/priced', 1, 2),
      '',
      'broken',
      line('something-else', 5, 5),
      JSON.stringify({ error: {} }),
    ].join('\n')
    upstream.answer((request, connection) =>
      request.path.endsWith('/content') ? connection.send(200, output) : connection.json(200, batch),
    )
    const charged = () => gateway.telemetry.records.filter(({ requestId }) => requestId.startsWith('batch '))
    const get = () => call('GET', `/v1/batches/${encodeId('priced', 'batch_1')}`)
    const told = await answerOf(await get())
    expect(told.body).toMatchObject({ id: encodeId('priced', 'batch_1'), output_file_id: encodeId('priced', 'file-out') })
    await until('the batch is charged', () => charged().length === 2)
    expect(charged()).toMatchObject([
      {
        labels: { model: 'priced', apiKeyId: gateway.rows.apiKey.id },
        promptTokens: 11,
        completionTokens: 22,
        costPico: 55_000_000_000,
        isEstimated: false,
      },
      { labels: { model: 'priced' }, requestedModel: 'something-else', promptTokens: 5, completionTokens: 5 },
    ])
    const fetched = upstream.requests.filter(({ path }) => path === '/v1/files/file-out/content').length
    await (await get()).text()
    await gateway.idle()
    expect(upstream.requests.filter(({ path }) => path === '/v1/files/file-out/content').length).toBe(fetched)
  })

  test('whose output cannot be read is charged when it is asked for again', async () => {
    let isBroken = true
    upstream.answer((request, connection) => {
      if (!request.path.endsWith('/content')) return connection.json(200, { ...batch, id: 'batch_2' })
      return isBroken ? connection.json(500, {}) : connection.send(200, line('m', 1, 1))
    })
    const get = () => call('GET', '/v1/batches/batch_2')
    await (await get()).text()
    await until('the log says so', () => gateway.logs.some(text => text.includes('a batch could not be charged')))
    isBroken = false
    await (await get()).text()
    await until('the batch is charged', () => gateway.telemetry.records.some(({ requestId }) => requestId.startsWith('batch ')))
  })

  const charges = () => gateway.telemetry.records.filter(({ requestId }) => requestId.startsWith('batch '))

  test('is charged, too, when a list tells it, by the operator’s headers, and to the model that a dated name means', async () => {
    const key = await gateway.addProviderKey({
      api_base: upstream.url,
      request: { default_headers: { 'x-org': '${request.api_key.id}' } },
    })
    await gateway.addModel({ display_name: 'four', model_name: 'gpt-4', provider_key_id: key.id })
    await gateway.addModel({ display_name: 'four-o', model_name: 'gpt-4-o', provider_key_id: key.id })
    upstream.answer((request, connection) =>
      request.path.endsWith('/content')
        ? connection.send(200, line('gpt-4-o-2024-08-06', 3, 4))
        : connection.json(200, {
            object: 'list',
            data: [
              { ...batch, id: 'batch_3' },
              { ...batch, id: 'batch_4', status: 'failed' },
            ],
          }),
    )
    await (await call('GET', '/v1/batches?model=four')).text()
    await until('the batch is charged', () => charges().length === 1)
    expect(charges()).toMatchObject([{ labels: { model: 'four-o' }, promptTokens: 3, completionTokens: 4 }])
    expect(upstream.requests.findLast(({ path }) => path.endsWith('/content'))?.header('x-org')).toBe(gateway.rows.apiKey.id)
  })

  test('whose output hangs holds up no other, however often it is asked for', async () => {
    const hanging = Promise.withResolvers<void>()
    upstream.answer(async (request, connection) => {
      if (request.path.endsWith('/files/file-hang/content')) {
        hanging.resolve()
        return connection.stall()
      }
      if (request.path.endsWith('/content')) return connection.send(200, line('m', 1, 1))
      const id = request.path.split('/').at(-1) ?? ''
      return connection.json(200, { ...batch, id, output_file_id: id === 'hang' ? 'file-hang' : 'file-out' })
    })
    for (let count = 0; count < 3; count += 1) await (await call('GET', '/v1/batches/hang')).text()
    await hanging.promise
    await (await call('GET', '/v1/batches/quick')).text()
    await until('the other batch is charged', () => charges().length === 1)
    expect(upstream.requests.filter(({ path }) => path === '/v1/files/file-hang/content')).toHaveLength(1)
  })

  test('is charged whatever id a caller gave to a request of its own, and whatever lies in its output', async () => {
    const long = `{"x":"${'y'.repeat(17 * 1024 * 1024)}"}`
    upstream.answer((request, connection) =>
      request.path.endsWith('/content')
        ? connection.send(200, [line('m', 1, 1), long, line('m', 2, 2)].join('\n'))
        : connection.json(200, { ...batch, id: 'batch_5' }),
    )
    await (await call('GET', '/v1/batches/batch_5')).text()
    await until('the batch is charged', () => charges().length === 1)
    expect(charges()).toMatchObject([{ promptTokens: 3, completionTokens: 3 }])
    // No caller's id has a space, so none is this one.
    expect(charges()[0]?.requestId).toMatch(/^batch [0-9a-f]{32}$/)
  })
})
