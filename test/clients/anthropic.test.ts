/** Anthropic's official client for JavaScript, in front of an upstream that speaks OpenAI's dialect alone. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import Anthropic from '@anthropic-ai/sdk'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway, UPSTREAM_MODEL, UPSTREAM_SECRET } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
let client: Anthropic

beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: upstream.url, config: { downstream: { sse_keepalive_interval_secs: 1 } } })
  client = clientOf(gateway.key)
})
afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})
beforeEach(() => upstream.answer((_request, connection) => connection.json(200, chatAnswer('Hello from the private model.'))))
afterEach(() => gateway.idle())

/** No retries: what a test asserts is the first answer. */
function clientOf(apiKey: string): Anthropic {
  return new Anthropic({ baseURL: gateway.url, apiKey, maxRetries: 0 })
}

const QUESTION = { model: ALIAS, max_tokens: 100, messages: [{ role: 'user' as const, content: 'Say hello.' }] }
/** Its newest types have no such member any more; servers of other models do. */
const SAMPLING = { temperature: 0.2 }
const WEATHER = {
  name: 'weather',
  description: 'Tells the weather.',
  input_schema: { type: 'object' as const, properties: { city: { type: 'string' } } },
}
const choice = (delta: Record<string, unknown>, finish_reason: string | null = null) =>
  chatChunk({}, { choices: [{ index: 0, delta, finish_reason }] })
const USAGE = { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 }
const usageChunk = chatChunk({}, { choices: [], usage: USAGE })

async function thrown(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => {
      throw new Error('the call went well')
    },
    (error: unknown) => error,
  )
}

test('messages.create gives text, stop reason and usage; the upstream is asked for a chat with its own model and credential', async () => {
  const { data, request_id } = await client.messages
    .create({ ...QUESTION, system: 'Be brief.', stop_sequences: ['END'], ...SAMPLING, metadata: { user_id: 'u-1' } })
    .withResponse()
  expect(data).toMatchObject({
    type: 'message',
    role: 'assistant',
    model: ALIAS,
    content: [{ type: 'text', text: 'Hello from the private model.' }],
    stop_reason: 'end_turn',
    usage: { input_tokens: 5, output_tokens: 7 },
  })
  expect(data.id).toMatch(/^msg_[0-9a-f]{32}$/)
  expect(request_id).toMatch(/^[0-9a-f-]{36}$/)
  const seen = upstream.last()
  expect(seen.path).toBe('/v1/chat/completions')
  expect(seen.header('authorization')).toBe(`Bearer ${UPSTREAM_SECRET}`)
  expect(seen.header('x-api-key')).toBeUndefined()
  expect(seen.json()).toEqual({
    model: UPSTREAM_MODEL,
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Say hello.' },
    ],
    max_tokens: 100,
    temperature: 0.2,
    stop: ['END'],
    user: 'u-1',
    stream: false,
  })
})

test('a stream tells its events in Anthropic’s order, and its usage last', async () => {
  upstream.answer((_request, connection) =>
    connection.sse([
      choice({ role: 'assistant', content: '' }),
      choice({ reasoning_content: 'Let me ' }),
      choice({ reasoning: 'think.' }),
      choice({ content: 'Grüße' }),
      choice({ content: ' 🦊' }, 'stop'),
      usageChunk,
    ]),
  )
  const names: string[] = []
  const stream = client.messages.stream(QUESTION)
  stream.on('streamEvent', event => names.push(event.type))
  const message = await stream.finalMessage()
  expect(names).toEqual([
    'message_start',
    'content_block_start',
    'content_block_delta',
    'content_block_delta',
    'content_block_delta',
    'content_block_stop',
    'content_block_start',
    'content_block_delta',
    'content_block_delta',
    'content_block_stop',
    'message_delta',
    'message_stop',
  ])
  expect(message.content).toMatchObject([
    { type: 'thinking', thinking: 'Let me think.' },
    { type: 'text', text: 'Grüße 🦊' },
  ])
  expect(message).toMatchObject({ model: ALIAS, stop_reason: 'end_turn', usage: { input_tokens: 5, output_tokens: 7 } })
  expect(upstream.last().json()).toMatchObject({ stream: true, stream_options: { include_usage: true } })
})

test('the first event is with the caller before the second is sent', async () => {
  let proceed = () => {}
  const isRead = new Promise<void>(resolve => {
    proceed = resolve
  })
  upstream.answer(async (_request, connection) => {
    await connection.streamHead()
    await connection.chunk(`data: ${JSON.stringify(choice({ content: 'one' }))}\n\n`)
    await isRead
    await connection.chunk(`data: ${JSON.stringify(choice({ content: 'two' }, 'stop'))}\n\ndata: [DONE]\n\n`)
    await connection.endChunks()
  })
  const texts: string[] = []
  for await (const event of await client.messages.create({ ...QUESTION, stream: true })) {
    if (event.type !== 'content_block_delta' || event.delta.type !== 'text_delta') continue
    texts.push(event.delta.text)
    proceed()
  }
  expect(texts).toEqual(['one', 'two'])
})

test('parallel tool calls are blocks of their own, whatever order their pieces come in', async () => {
  const piece = (index: number, more: Record<string, unknown>) => choice({ tool_calls: [{ index, ...more }] })
  upstream.answer((_request, connection) =>
    connection.sse([
      choice({ content: 'I look.' }),
      piece(0, { id: 'call_a', type: 'function', function: { name: 'weather', arguments: '' } }),
      piece(1, { id: 'call_b', type: 'function', function: { name: 'weather', arguments: '{"ci' } }),
      piece(0, { function: { arguments: '{"city":"Riga"}' } }),
      piece(1, { function: { arguments: 'ty":"Oslo"}' } }),
      choice({}, 'tool_calls'),
      usageChunk,
    ]),
  )
  const message = await client.messages.stream({ ...QUESTION, tools: [WEATHER] }).finalMessage()
  expect(message.stop_reason).toBe('tool_use')
  expect(message.content).toMatchObject([
    { type: 'text', text: 'I look.' },
    { type: 'tool_use', id: 'call_a', name: 'weather', input: { city: 'Riga' } },
    { type: 'tool_use', id: 'call_b', name: 'weather', input: { city: 'Oslo' } },
  ])
})

test('an agent of six turns with two calls each, streamed, gives the upstream every call with its result', async () => {
  const TURNS = 6
  upstream.answer((request, connection) => {
    const { messages } = Object(request.json())
    const turn = messages.filter(({ role }: { role: string }) => role === 'assistant').length
    if (turn === TURNS) return connection.sse([choice({ content: 'done' }, 'stop'), usageChunk])
    const call = (index: number) =>
      choice({
        tool_calls: [
          {
            index,
            id: `call_${turn}_${index}`,
            type: 'function',
            function: { name: 'weather', arguments: `{"city":"c${index}"}` },
          },
        ],
      })
    return connection.sse([call(0), call(1), choice({}, 'tool_calls'), usageChunk])
  })
  const history: Anthropic.MessageParam[] = [...QUESTION.messages]
  for (;;) {
    const message = await client.messages.stream({ ...QUESTION, messages: history, tools: [WEATHER] }).finalMessage()
    history.push({ role: 'assistant', content: message.content })
    if (message.stop_reason !== 'tool_use') break
    history.push({
      role: 'user',
      content: message.content.flatMap(block =>
        block.type === 'tool_use' ? [{ type: 'tool_result' as const, tool_use_id: block.id, content: `sunny ${block.id}` }] : [],
      ),
    })
  }
  const { messages } = Object(upstream.last().json())
  const expected = Array.from({ length: TURNS }, (_, turn) => [
    { role: 'assistant', tool_calls: [{ id: `call_${turn}_0` }, { id: `call_${turn}_1` }] },
    { role: 'tool', tool_call_id: `call_${turn}_0`, content: `sunny call_${turn}_0` },
    { role: 'tool', tool_call_id: `call_${turn}_1`, content: `sunny call_${turn}_1` },
  ]).flat()
  expect(messages.slice(1)).toMatchObject(expected)
})

test('a line that is silent gets pings, which the client skips', async () => {
  upstream.answer(async (_request, connection) => {
    await Bun.sleep(1_200)
    await connection.sse([choice({ content: 'late' }, 'stop'), usageChunk])
  })
  const answer = await gateway.post('/v1/messages', { ...QUESTION, stream: true })
  const text = await answer.text()
  expect(text.startsWith('event: ping\ndata: {"type":"ping"}\n\n')).toBe(true)
  expect(text).toEndWith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
  expect(text).not.toContain('[DONE]')
  const message = await client.messages.stream(QUESTION).finalMessage()
  expect(message.content).toMatchObject([{ type: 'text', text: 'late' }])
})

describe('errors are those of Anthropic’s client', () => {
  test('a wrong key', async () => {
    const error = await thrown(clientOf('sk-wrong').messages.create(QUESTION))
    expect(error).toBeInstanceOf(Anthropic.AuthenticationError)
    expect(error).toMatchObject({ status: 401, error: { type: 'error', error: { type: 'authentication_error' } } })
  })

  test('a model that there is not', async () => {
    const error = await thrown(client.messages.create({ ...QUESTION, model: 'nope' }))
    expect(error).toBeInstanceOf(Anthropic.NotFoundError)
    expect(error).toMatchObject({
      error: { type: 'error', error: { type: 'not_found_error', message: 'model "nope" not found' } },
    })
  })

  test('a refusal of the upstream, with its words', async () => {
    upstream.answer((_request, connection) => connection.json(400, { error: { message: 'too long', code: 'context' } }))
    const error = await thrown(client.messages.create(QUESTION))
    expect(error).toBeInstanceOf(Anthropic.BadRequestError)
    expect(error).toMatchObject({ error: { error: { type: 'invalid_request_error', message: 'too long' } } })
  })

  test('an upstream that dies in mid-stream is an event, and no message_stop follows', async () => {
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(`data: ${JSON.stringify(choice({ content: 'half' }))}\n\n`)
      await Bun.sleep(20)
      connection.reset()
    })
    const text = await (await gateway.post('/v1/messages', { ...QUESTION, stream: true })).text()
    expect(text).toContain('"text":"half"')
    expect(text).toMatch(
      /event: error\ndata: {"type":"error","error":{"type":"api_error","message":"transport error: [^"]+"}}\n\n$/,
    )
    expect(text).not.toContain('message_stop')
    expect(await thrown(client.messages.stream(QUESTION).finalMessage())).toBeInstanceOf(Anthropic.APIError)
  })

  test.each([
    ['no messages', { messages: undefined }, 'messages'],
    ['a turn of an unknown role', { messages: [{ role: 'tool', content: 'x' }] }, 'messages.0.role'],
    ['a block without a type', { messages: [{ role: 'user', content: [{}] }] }, 'messages.0.content.0'],
    [
      'a tool result without its call',
      { messages: [{ role: 'user', content: [{ type: 'tool_result', tool_use_id: 'x', content: 'y' }] }] },
      'messages.0.content.0.tool_use_id',
    ],
    [
      'an image that is not base64',
      {
        messages: [
          { role: 'user', content: [{ type: 'image', source: { type: 'base64', media_type: 'image/png', data: '§' } }] },
        ],
      },
      'messages.0.content.0.source.data',
    ],
    ['a system that is a number', { system: 7 }, 'system'],
    ['a tool choice of another kind', { tools: [WEATHER], tool_choice: { type: 'some' } }, 'tool_choice.type'],
  ])('%s is 400 and names the member', async (_name, more, member) => {
    const before = upstream.requests.length
    const answer = await gateway.post('/v1/messages', { ...QUESTION, ...more })
    const body: unknown = await answer.json()
    expect(answer.status).toBe(400)
    expect(body).toMatchObject({ type: 'error', error: { type: 'invalid_request_error' } })
    expect(JSON.stringify(body)).toContain(`request payload is invalid: invalid Anthropic body: \`${member}\``)
    expect(upstream.requests.length).toBe(before)
  })
})

test('a caller that leaves takes its upstream with it', async () => {
  const cut = upstream.cut
  upstream.answer(async (_request, connection) => {
    await connection.streamHead()
    await connection.chunk(`data: ${JSON.stringify(choice({ content: 'one' }))}\n\n`)
    await connection.stall()
  })
  const stream = client.messages.stream(QUESTION)
  stream.on('text', () => stream.abort())
  expect(await thrown(stream.done())).toBeInstanceOf(Anthropic.APIUserAbortError)
  await upstream.whenCut(cut + 1)
})

describe('countTokens', () => {
  const TURNS = { model: ALIAS, messages: QUESTION.messages }

  test('asks the engine’s own tokenizer where there is one', async () => {
    upstream.answer((_request, connection) => connection.json(200, { count: 23, max_model_len: 4096, tokens: [1] }))
    const { data, response } = await client.messages
      .countTokens({ ...TURNS, system: 'Be brief.', tools: [WEATHER] })
      .withResponse()
    expect(data).toEqual({ input_tokens: 23 })
    expect(response.headers.get('x-aisix-estimated')).toBeNull()
    expect(upstream.last().path).toBe('/tokenize')
    expect(upstream.last().json()).toMatchObject({
      model: UPSTREAM_MODEL,
      messages: [{ role: 'system' }, { role: 'user', content: 'Say hello.' }],
      tools: [{ type: 'function', function: { name: 'weather' } }],
      add_generation_prompt: true,
    })
  })

  test.each([
    ['says nothing of a count', 200, { tokens: [] }],
    ['cannot count a chat', 422, { error: { message: 'prompt missing' } }],
    ['has no such endpoint', 404, { detail: 'Not Found' }],
  ])('is an estimate that says so where the server %s', async (_name, status, body) => {
    upstream.answer((_request, connection) => connection.json(status, body))
    const { data, response } = await client.messages.countTokens(TURNS).withResponse()
    expect(data.input_tokens).toBeGreaterThan(0)
    expect(response.headers.get('x-aisix-estimated')).toBe('true')
  })

  test('does not ask again a server that said that it has no such endpoint, nor holds it against it', async () => {
    const before = upstream.requests.length
    expect((await client.messages.countTokens(TURNS)).input_tokens).toBeGreaterThan(0)
    expect(upstream.requests.length).toBe(before)
    expect((await client.messages.create(QUESTION)).content).toMatchObject([{ type: 'text' }])
  })

  test('uses up no tokens, and has errors of its own dialect', async () => {
    const error = await thrown(client.messages.countTokens({ ...TURNS, model: 'nope' }))
    expect(error).toBeInstanceOf(Anthropic.NotFoundError)
    await gateway.idle()
    const counts = gateway.telemetry.records.filter(({ handler }) => handler === 'count_tokens')
    expect(counts.length).toBeGreaterThan(3)
    for (const { promptTokens, completionTokens } of counts) expect([promptTokens, completionTokens]).toEqual([0, 0])
  })
})
