/** The official client for JavaScript against a real gateway: what its users see, and what the upstream gets. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'bun:test'
import OpenAI from 'openai'
import { zodResponseFormat } from 'openai/helpers/zod'
import { z } from 'zod'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway, UPSTREAM_MODEL, UPSTREAM_SECRET } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
let client: OpenAI

beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: upstream.url })
  client = clientOf(gateway.key)
})

afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})

beforeEach(() => upstream.answer((_request, connection) => connection.json(200, chatAnswer('Hello from the private model.'))))
// A request that was left over would be charged to the next test.
afterEach(() => gateway.idle())

/** No retries: what a test asserts is the first answer. */
function clientOf(apiKey: string): OpenAI {
  return new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey, maxRetries: 0 })
}

const QUESTION = { model: ALIAS, messages: [{ role: 'user' as const, content: 'Say hello.' }] }

/** What the client threw; fails when it did not. */
async function thrown(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => {
      throw new Error('the call went well')
    },
    (error: unknown) => error,
  )
}

test('chat.completions.create gives text, usage and the alias; the upstream sees its own model and its own credential', async () => {
  const completion = await client.chat.completions.create({ ...QUESTION, temperature: 0.2, seed: 7 })
  expect(completion.model).toBe(ALIAS)
  expect(completion.choices[0]?.message.content).toBe('Hello from the private model.')
  expect(completion.usage).toMatchObject({ prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 })
  const seen = upstream.last()
  expect(seen.json()).toMatchObject({ model: UPSTREAM_MODEL, messages: QUESTION.messages, temperature: 0.2, seed: 7 })
  expect(seen.header('authorization')).toBe(`Bearer ${UPSTREAM_SECRET}`)
})

test('a stream arrives chunk by chunk, each before the next is sent', async () => {
  const words = ['Hello', ' from', ' here']
  let send = () => {}
  upstream.answer(async (_request, connection) => {
    await connection.streamHead()
    for (const content of words) {
      const isRead = new Promise<void>(resolve => {
        send = resolve
      })
      await connection.chunk(`data: ${JSON.stringify(chatChunk({ content }))}\n\n`)
      await isRead
    }
    await connection.chunk('data: [DONE]\n\n')
    await connection.endChunks()
  })
  const stream = await client.chat.completions.create({ ...QUESTION, stream: true })
  const came: string[] = []
  for await (const chunk of stream) {
    expect(chunk.model).toBe(ALIAS)
    came.push(chunk.choices[0]?.delta.content ?? '')
    // The next word leaves the upstream only now that this one is here.
    send()
  }
  expect(came).toEqual(words)
})

test('stream_options.include_usage gives a last chunk with usage and no choices', async () => {
  upstream.answer((_request, connection) =>
    connection.sse([
      chatChunk({ content: 'Hello' }),
      chatChunk({}, { choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }),
      chatChunk({}, { choices: [], usage: { prompt_tokens: 5, completion_tokens: 1, total_tokens: 6 } }),
    ]),
  )
  const stream = await client.chat.completions.create({ ...QUESTION, stream: true, stream_options: { include_usage: true } })
  const chunks = await Array.fromAsync(stream)
  expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { prompt_tokens: 5, completion_tokens: 1, total_tokens: 6 } })
})

const WEATHER = {
  type: 'function' as const,
  function: {
    name: 'get_weather',
    description: 'Weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
}

test('a tool call comes back as the upstream made it, and tools reach the upstream unchanged', async () => {
  const call = { id: 'call_1', type: 'function', function: { name: 'get_weather', arguments: '{"city":"Riga"}' } }
  upstream.answer((_request, connection) =>
    connection.json(
      200,
      chatAnswer('', {
        choices: [{ index: 0, message: { role: 'assistant', content: null, tool_calls: [call] }, finish_reason: 'tool_calls' }],
      }),
    ),
  )
  const completion = await client.chat.completions.create({ ...QUESTION, tools: [WEATHER], tool_choice: 'auto' })
  expect(completion.choices[0]?.finish_reason).toBe('tool_calls')
  expect(completion.choices[0]?.message.tool_calls).toEqual([expect.objectContaining(call)])
  expect(upstream.last().json()).toMatchObject({ tools: [WEATHER], tool_choice: 'auto' })
})

test('a streamed tool call is put together from its deltas', async () => {
  const part = (toolCall: Record<string, unknown>) => chatChunk({ tool_calls: [{ index: 0, ...toolCall }] })
  upstream.answer((_request, connection) =>
    connection.sse([
      chatChunk({ role: 'assistant', content: null }),
      part({ id: 'call_1', type: 'function', function: { name: 'get_weather', arguments: '' } }),
      part({ function: { arguments: '{"city":' } }),
      part({ function: { arguments: '"Rīga 🚀"}' } }),
      chatChunk({}, { choices: [{ index: 0, delta: {}, finish_reason: 'tool_calls' }] }),
    ]),
  )
  const runner = client.chat.completions.stream({ ...QUESTION, tools: [WEATHER] })
  const final = await runner.finalChatCompletion()
  expect(final.model).toBe(ALIAS)
  expect(final.choices[0]?.finish_reason).toBe('tool_calls')
  expect(final.choices[0]?.message.tool_calls).toEqual([
    expect.objectContaining({
      id: 'call_1',
      function: expect.objectContaining({ name: 'get_weather', arguments: '{"city":"Rīga 🚀"}' }),
    }),
  ])
})

test('chat.completions.parse: the JSON schema reaches the upstream, and the answer comes back parsed', async () => {
  const Event = z.object({ name: z.string(), day: z.int() })
  upstream.answer((_request, connection) => connection.json(200, chatAnswer('{"name":"Fair","day":7}')))
  const completion = await client.chat.completions.parse({ ...QUESTION, response_format: zodResponseFormat(Event, 'event') })
  expect(completion.choices[0]?.message.parsed).toEqual({ name: 'Fair', day: 7 })
  expect(upstream.last().json()).toMatchObject({
    response_format: { type: 'json_schema', json_schema: { name: 'event', strict: true, schema: { required: ['name', 'day'] } } },
  })
})

test('image parts reach the upstream unchanged', async () => {
  const content = [
    { type: 'text' as const, text: 'What is this?' },
    { type: 'image_url' as const, image_url: { url: 'data:image/png;base64,iVBORw0KGgo=', detail: 'low' as const } },
  ]
  await client.chat.completions.create({ model: ALIAS, messages: [{ role: 'user', content }] })
  expect(upstream.last().json()).toMatchObject({ messages: [{ role: 'user', content }] })
})

/** As an engine answers: numbers, or base64 of 32-bit floats where the client asks for it. */
function answerEmbeddings(): void {
  upstream.answer((request, connection) => {
    const asked = request.json()
    const isBase64 =
      typeof asked === 'object' && asked !== null && 'encoding_format' in asked && asked.encoding_format === 'base64'
    const embedding = isBase64 ? Buffer.from(new Float32Array([0.5, -0.25]).buffer).toString('base64') : [0.5, -0.25]
    return connection.json(200, {
      object: 'list',
      data: [{ object: 'embedding', index: 0, embedding }],
      model: UPSTREAM_MODEL,
      usage: { prompt_tokens: 2, total_tokens: 2 },
    })
  })
}

test("embeddings in the client's own default, base64, come out as numbers", async () => {
  answerEmbeddings()
  const { model, data, usage } = await client.embeddings.create({ model: ALIAS, input: 'hello' })
  expect(upstream.last().json()).toMatchObject({ model: UPSTREAM_MODEL, input: 'hello', encoding_format: 'base64' })
  expect(model).toBe(ALIAS)
  expect([...(data[0]?.embedding ?? [])]).toEqual([0.5, -0.25])
  expect(usage).toEqual({ prompt_tokens: 2, total_tokens: 2 })
})

test('embeddings as floats, of several inputs and of tokens', async () => {
  answerEmbeddings()
  const inputs: (string[] | number[])[] = [
    ['hello', 'goodbye'],
    [1, 2, 3],
  ]
  for (const input of inputs) {
    const { data } = await client.embeddings.create({ model: ALIAS, input, encoding_format: 'float' })
    expect(upstream.last().json()).toMatchObject({ input, encoding_format: 'float' })
    expect(data[0]?.embedding).toEqual([0.5, -0.25])
  }
})

test('models.list names the aliases that the key may use, and models.retrieve one of them', async () => {
  const page = await client.models.list()
  expect(page.data.map(({ id }) => id)).toEqual([ALIAS])
  const model = await client.models.retrieve(ALIAS)
  expect(model.id).toBe(ALIAS)
})

test('withResponse gives the request id that the log has', async () => {
  const { data, response, request_id } = await client.chat.completions.create(QUESTION).withResponse()
  expect(data.model).toBe(ALIAS)
  expect(request_id).toMatch(/^[0-9a-f-]{36}$/)
  expect(response.headers.get('x-aisix-request-id')).toBe(String(request_id))
  expect(await gateway.accessLine(String(request_id))).toContain('status=200')
})

test('a key that nobody made is an AuthenticationError, and no upstream call', async () => {
  const before = upstream.requests.length
  const error = await thrown(clientOf('sk-nobody-made-this').chat.completions.create(QUESTION))
  expect(error).toBeInstanceOf(OpenAI.AuthenticationError)
  expect(error).toMatchObject({ status: 401, type: 'invalid_api_key', message: expect.stringContaining('invalid API key') })
  expect(upstream.requests.length).toBe(before)
})

test('a model that the key may not use is a PermissionDeniedError', async () => {
  await gateway.addApiKey('sk-other-models-only', { allowed_models: ['something-else'] })
  const error = await thrown(clientOf('sk-other-models-only').chat.completions.create(QUESTION))
  expect(error).toBeInstanceOf(OpenAI.PermissionDeniedError)
  expect(error).toMatchObject({ status: 403, type: 'permission_denied' })
})

test('a model that is not there is a NotFoundError that names it', async () => {
  const error = await thrown(client.chat.completions.create({ ...QUESTION, model: 'no-such-model' }))
  expect(error).toBeInstanceOf(OpenAI.NotFoundError)
  expect(error).toMatchObject({ status: 404, type: 'model_not_found', message: expect.stringContaining('"no-such-model"') })
})

test('a request without messages is a BadRequestError that says what is missing', async () => {
  const error = await thrown(client.chat.completions.create({ model: ALIAS, messages: [] }))
  expect(error).toBeInstanceOf(OpenAI.BadRequestError)
  expect(error).toMatchObject({ status: 400, type: 'invalid_request_error', message: expect.stringContaining('messages') })
})

test("an upstream's 429 is a RateLimitError with its text and its retry-after", async () => {
  upstream.answer((_request, connection) =>
    connection.json(429, { error: { message: 'queue is full', type: 'rate_limit_error' } }, { 'retry-after': '3' }),
  )
  const error = await thrown(client.chat.completions.create(QUESTION))
  expect(error).toBeInstanceOf(OpenAI.RateLimitError)
  expect(error).toMatchObject({ status: 429, message: expect.stringContaining('queue is full') })
  expect(error instanceof OpenAI.APIError && error.headers?.get('retry-after')).toBe('3')
})

test("an upstream's 500 is an InternalServerError with status 502, without the upstream's text", async () => {
  upstream.answer((_request, connection) => connection.send(500, 'Traceback: /home/vllm/secret.py'))
  const error = await thrown(client.chat.completions.create(QUESTION))
  expect(error).toBeInstanceOf(OpenAI.InternalServerError)
  expect(error).toMatchObject({ status: 502, type: 'upstream_error', message: expect.not.stringContaining('Traceback') })
})

test('a stream that the upstream cuts is an error for the client, after what had come', async () => {
  upstream.answer(async (_request, connection) => {
    await connection.streamHead()
    await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'Hel' }))}\n\n`)
    // Cut only when the caller has its first chunk: a cut before it would be tried again.
    await cut.promise
    connection.reset()
  })
  const cut = Promise.withResolvers<void>()
  const stream = await client.chat.completions.create({ ...QUESTION, stream: true })
  const came: string[] = []
  const error = await thrown(
    (async () => {
      for await (const chunk of stream) {
        came.push(chunk.choices[0]?.delta.content ?? '')
        cut.resolve()
      }
    })(),
  )
  expect(came).toEqual(['Hel'])
  expect(error).toBeInstanceOf(OpenAI.APIError)
})

test('a client that aborts mid-stream closes the upstream connection', async () => {
  upstream.answer(async (_request, connection) => {
    await connection.streamHead()
    await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'Hello' }))}\n\n`)
    await connection.stall()
  })
  const before = upstream.cut
  const stream = await client.chat.completions.create({ ...QUESTION, stream: true })
  for await (const chunk of stream) {
    expect(chunk.choices[0]?.delta.content).toBe('Hello')
    stream.controller.abort()
  }
  await upstream.whenCut(before + 1)
  expect(upstream.cut).toBe(before + 1)
})

test('a client that aborts before the answer closes the upstream connection', async () => {
  const before = upstream.cut
  const controller = new AbortController()
  upstream.answer((_request, connection) => {
    controller.abort()
    return connection.stall()
  })
  const error = await thrown(client.chat.completions.create(QUESTION, { signal: controller.signal }))
  expect(error).toBeInstanceOf(OpenAI.APIUserAbortError)
  await upstream.whenCut(before + 1)
})

test('an agent of six turns with two calls each, streamed, gives the upstream every call with its result', async () => {
  const TURNS = 6
  const choice = (delta: Record<string, unknown>, finish_reason: string | null = null) =>
    chatChunk({}, { choices: [{ index: 0, delta, finish_reason }] })
  upstream.answer((request, connection) => {
    const { messages } = Object(request.json())
    const turn = messages.filter(({ role }: { role: string }) => role === 'assistant').length
    if (turn === TURNS) return connection.sse([choice({ role: 'assistant', content: 'done' }, 'stop')])
    const begun = (index: number) =>
      choice({
        role: 'assistant',
        tool_calls: [{ index, id: `call_${turn}_${index}`, type: 'function', function: { name: 'weather', arguments: '' } }],
      })
    const piece = (index: number, args: string) => choice({ tool_calls: [{ index, function: { arguments: args } }] })
    return connection.sse([begun(0), begun(1), piece(1, '{"city":"c1"}'), piece(0, '{"city":"c0"}'), choice({}, 'tool_calls')])
  })
  const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'How is the weather?' }]
  const tools = [{ type: 'function' as const, function: { name: 'weather', parameters: { type: 'object', properties: {} } } }]
  let text: string | null = null
  for (;;) {
    const completion = await client.chat.completions.stream({ model: ALIAS, messages, tools }).finalChatCompletion()
    const message = completion.choices[0]?.message
    const calls = (message?.tool_calls ?? []).filter(({ type }) => type === 'function')
    text = message?.content ?? null
    if (calls.length === 0) break
    messages.push({ role: 'assistant', content: null, tool_calls: calls })
    for (const { id } of calls) messages.push({ role: 'tool', tool_call_id: id, content: `sunny ${id}` })
  }
  expect(text).toBe('done')
  const expected = Array.from({ length: TURNS }, (_, turn) => [
    {
      role: 'assistant',
      tool_calls: [
        { id: `call_${turn}_0`, function: { name: 'weather', arguments: '{"city":"c0"}' } },
        { id: `call_${turn}_1`, function: { name: 'weather', arguments: '{"city":"c1"}' } },
      ],
    },
    { role: 'tool', tool_call_id: `call_${turn}_0`, content: `sunny call_${turn}_0` },
    { role: 'tool', tool_call_id: `call_${turn}_1`, content: `sunny call_${turn}_1` },
  ]).flat()
  expect(Object(upstream.last().json()).messages.slice(1)).toMatchObject(expected)
})
