/** Anthropic's official client for JavaScript, in front of an upstream that speaks OpenAI's dialect alone. */
import { beforeAll, describe, expect, test } from 'bun:test'
import Anthropic from '@anthropic-ai/sdk'
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod'
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod'
import { z } from 'zod'
import { ALIAS, UPSTREAM_MODEL, UPSTREAM_SECRET } from '../gateway.ts'
import { AGENT_QUESTION, runAgent, startAgent, TOOL_NAMES, TOOLS } from './agent-scenario.ts'
import { choice, expectCut, oneTokenThen, oneTokenThenSilence, saying, usageChunk } from './engine.ts'
import { cutStream, gatewayForClients, thrown } from './harness.ts'

const gateway = gatewayForClients({ config: { downstream: { sse_keepalive_interval_secs: 1 } } })
let client: Anthropic
beforeAll(() => {
  client = clientOf(gateway.key)
})

/** No retries: what a test asserts is the first answer. */
function clientOf(apiKey: string): Anthropic {
  return new Anthropic({ baseURL: gateway.url, apiKey, maxRetries: 0 })
}

const QUESTION = { model: ALIAS, max_tokens: 100, messages: [{ role: 'user' as const, content: 'Say hello.' }] }
/** Its newest types have no such member any more; servers of other models do. */
const SAMPLING = { temperature: 0.2 }
const MESSAGES_TOOLS = TOOL_NAMES.map(name => ({
  name,
  description: TOOLS[name].description,
  input_schema: { ...TOOLS[name].parameters },
}))

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
  const seen = gateway.upstream.last()
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

test('a stream with thinking and parallel tools tells its events in Anthropic’s order, and its usage last', async () => {
  gateway.upstream.answer(
    saying({
      reasoning: 'Let me think.',
      text: 'Grüße 🦊',
      calls: ['Riga', 'Oslo'].map((city, index) => ({ id: `call_${index}`, name: 'weather', input: { city } })),
    }),
  )
  const names: string[] = []
  const question = { ...QUESTION, tools: MESSAGES_TOOLS, thinking: { type: 'enabled' as const, budget_tokens: 2_048 } }
  const stream = client.messages.stream(question).on('streamEvent', event => names.push(event.type))
  const message = await stream.finalMessage()
  const block = ['content_block_start', 'content_block_delta', 'content_block_delta']
  expect(names).toEqual([
    'message_start',
    ...[...block, 'content_block_delta', 'content_block_stop'],
    ...[...block, 'content_block_stop'],
    ...['content_block_start', 'content_block_start', ...Array(4).fill('content_block_delta')],
    ...['content_block_stop', 'content_block_stop'],
    'message_delta',
    'message_stop',
  ])
  expect(message.content).toMatchObject([
    { type: 'thinking', thinking: 'Let me think.', signature: '' },
    { type: 'text', text: 'Grüße 🦊' },
    { type: 'tool_use', id: 'call_0', name: 'weather', input: { city: 'Riga' } },
    { type: 'tool_use', id: 'call_1', name: 'weather', input: { city: 'Oslo' } },
  ])
  expect(message).toMatchObject({ model: ALIAS, stop_reason: 'tool_use', usage: { input_tokens: 5, output_tokens: 7 } })
  expect(gateway.upstream.last().json()).toMatchObject({
    stream: true,
    stream_options: { include_usage: true },
    reasoning_effort: 'medium',
    tools: [{ type: 'function', function: { name: 'weather' } }, { function: { name: 'note' } }],
  })

  // What was thought goes back with the calls that came of it.
  const result = (id: string) => ({ type: 'tool_result' as const, tool_use_id: id, content: 'sunny' })
  await client.messages.create({
    ...question,
    messages: [
      ...QUESTION.messages,
      { role: 'assistant', content: message.content },
      { role: 'user', content: [result('call_0'), result('call_1')] },
    ],
  })
  expect(gateway.upstream.last().json()).toMatchObject({
    messages: [{}, { reasoning_content: 'Let me think.', content: 'Grüße 🦊', tool_calls: [{}, {}] }, {}, {}],
  })
})

test('models.list and models.retrieve know the aliases that the key may use', async () => {
  const models = await Array.fromAsync(client.models.list())
  expect(models).toContainEqual(expect.objectContaining({ type: 'model', id: ALIAS, display_name: ALIAS }))
  const { data, request_id } = await client.models.retrieve(ALIAS).withResponse()
  expect([data.id, new Date(data.created_at).getTime() > 0]).toEqual([ALIAS, true])
  expect(request_id).toMatch(/^[0-9a-f-]{36}$/)
  const error = await thrown(client.models.retrieve('nope'))
  expect(error).toBeInstanceOf(Anthropic.NotFoundError)
  expect(error).toMatchObject({ requestID: expect.any(String), error: { error: { type: 'not_found_error' } } })
})

test('batches are not there, which the client reads as such', async () => {
  const error = await thrown(client.messages.batches.list())
  expect(error).toBeInstanceOf(Anthropic.NotFoundError)
  expect(error).toMatchObject({ error: { error: { message: expect.stringContaining('Message Batches') } } })
})

test('the first event is with the caller before the second is sent', async () => {
  const { handler, proceed } = oneTokenThen([choice({ content: 'two' }, 'stop')])
  gateway.upstream.answer(handler)
  const texts: string[] = []
  for await (const event of await client.messages.create({ ...QUESTION, stream: true })) {
    if (event.type !== 'content_block_delta' || event.delta.type !== 'text_delta') continue
    texts.push(event.delta.text)
    proceed()
  }
  expect(texts).toEqual(['one', 'two'])
})

test('messages.parse: the JSON schema reaches the upstream, and the answer comes back parsed', async () => {
  const Place = z.object({ city: z.string(), people: z.int() })
  gateway.upstream.answer(saying('{"city":"Riga","people":605273}'))
  const output_config = { format: zodOutputFormat(Place), effort: 'high' as const }
  const { parsed_output } = await client.messages.parse({ ...QUESTION, output_config })
  expect(parsed_output).toEqual({ city: 'Riga', people: 605_273 })
  expect(gateway.upstream.last().json()).toMatchObject({
    response_format: { type: 'json_schema', json_schema: { strict: true, schema: { required: ['city', 'people'] } } },
    reasoning_effort: 'high',
  })
})

describe('an agent of six turns with parallel calls', () => {
  test('that streams makes the calls of the script, and gives the upstream each with its result', async () => {
    const messages: Anthropic.MessageParam[] = [{ role: 'user', content: AGENT_QUESTION }]
    await runAgent(gateway.upstream, async results => {
      if (results.length > 0) {
        const blocks = results.map(({ id, content }) => ({ type: 'tool_result' as const, tool_use_id: id, content }))
        messages.push({ role: 'user', content: blocks })
      }
      const message = await client.messages.stream({ ...QUESTION, messages, tools: MESSAGES_TOOLS }).finalMessage()
      messages.push({ role: 'assistant', content: message.content })
      const calls = message.content.filter(block => block.type === 'tool_use')
      expect(message.stop_reason).toBe(calls.length > 0 ? 'tool_use' : 'end_turn')
      return { text: message.content.map(block => (block.type === 'text' ? block.text : '')).join(''), calls }
    })
  })

  test.each([false, true])('that is left to the tool runner does the same, streamed: %p', async isStreamed => {
    const agent = startAgent(gateway.upstream, { isStreamed })
    const { weather, note } = TOOLS
    const runner = client.beta.messages.toolRunner({
      ...QUESTION,
      messages: [{ role: 'user', content: AGENT_QUESTION }],
      tools: [
        betaZodTool({
          name: 'weather',
          description: weather.description,
          inputSchema: weather.schema,
          run: input => agent.carryOut('weather', input),
        }),
        betaZodTool({
          name: 'note',
          description: note.description,
          inputSchema: note.schema,
          run: input => agent.carryOut('note', input),
        }),
      ],
      stream: isStreamed,
    })
    const { content } = await runner.runUntilDone()
    agent.expectDone(content.map(block => (block.type === 'text' ? block.text : '')).join(''))
  })
})

test('a thread, which the server would have to hold, is refused by name before any upstream call', async () => {
  const before = gateway.upstream.requests.length
  const thread = client.beta.messages.thread({ model: ALIAS, max_tokens: 100 })
  const error = await thrown(thread.send({ role: 'user', content: 'Say hello.' }))
  expect(error).toBeInstanceOf(Anthropic.BadRequestError)
  expect(error).toMatchObject({ errorCode: 'thread_unsupported_request', message: expect.stringContaining('without `thread`') })
  expect(gateway.upstream.requests.length).toBe(before)
})

test('a line that is silent gets pings, which the client skips', async () => {
  // The head of an answer waits for its first event: where the upstream is silent, that is the first ping.
  const afterPing = Promise.withResolvers<void>()
  gateway.upstream.answer(async (_request, connection) => {
    await afterPing.promise
    await connection.sse([choice({ content: 'late' }, 'stop'), usageChunk])
  })
  const [answer, stream] = await Promise.all([
    gateway.post('/v1/messages', { ...QUESTION, stream: true }),
    client.messages.create({ ...QUESTION, stream: true }),
  ])
  afterPing.resolve()
  const text = await answer.text()
  expect(text.startsWith('event: ping\ndata: {"type":"ping"}\n\n')).toBe(true)
  expect(text).toEndWith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
  expect(text).not.toContain('[DONE]')
  const events = await Array.fromAsync(stream)
  expect(events.map(({ type }) => type)).toEqual([
    'message_start',
    'content_block_start',
    'content_block_delta',
    'content_block_stop',
    'message_delta',
    'message_stop',
  ])
})

describe('errors are those of Anthropic’s client', () => {
  test('a wrong key', async () => {
    const error = await thrown(clientOf('sk-wrong').messages.create(QUESTION))
    expect(error).toBeInstanceOf(Anthropic.AuthenticationError)
    expect(error).toMatchObject({ status: 401, error: { type: 'error', error: { type: 'authentication_error' } } })
  })

  test('a model that the key may not use', async () => {
    await gateway.addApiKey('sk-other-models-only', { allowed_models: ['something-else'] })
    const error = await thrown(clientOf('sk-other-models-only').messages.create(QUESTION))
    expect(error).toBeInstanceOf(Anthropic.PermissionDeniedError)
    expect(error).toMatchObject({ status: 403, error: { error: { type: 'permission_error' } } })
  })

  test('a model that there is not', async () => {
    const error = await thrown(client.messages.create({ ...QUESTION, model: 'nope' }))
    expect(error).toBeInstanceOf(Anthropic.NotFoundError)
    expect(error).toMatchObject({
      error: { type: 'error', error: { type: 'not_found_error', message: 'model "nope" not found' } },
    })
  })

  test('a limit of the key', async () => {
    await gateway.addApiKey('sk-once-a-minute', { rate_limit: { rpm: 1 } })
    const limited = clientOf('sk-once-a-minute')
    expect((await limited.messages.create(QUESTION)).stop_reason).toBe('end_turn')
    const error = await thrown(limited.messages.create(QUESTION))
    expect(error).toBeInstanceOf(Anthropic.RateLimitError)
    expect(error).toMatchObject({ status: 429, error: { error: { type: 'rate_limit_error' } } })
    expect(error instanceof Anthropic.APIError && Number(error.headers?.get('retry-after'))).toBeGreaterThan(0)
  })

  test('a refusal of the upstream, with its words', async () => {
    gateway.upstream.answer((_request, connection) => connection.json(400, { error: { message: 'too long', code: 'context' } }))
    const error = await thrown(client.messages.create(QUESTION))
    expect(error).toBeInstanceOf(Anthropic.BadRequestError)
    expect(error).toMatchObject({ error: { error: { type: 'invalid_request_error', message: 'too long' } } })
  })

  test('a failure of the upstream, without its words', async () => {
    gateway.upstream.answer((_request, connection) => connection.send(500, 'Traceback: /home/vllm/secret.py'))
    const error = await thrown(client.messages.create(QUESTION))
    expect(error).toBeInstanceOf(Anthropic.InternalServerError)
    expect(error).toMatchObject({ status: 502, error: { error: { type: 'api_error' } } })
    expect(String(error)).not.toContain('Traceback')
  })

  test('an upstream that dies in mid-stream is an event, and no message_stop follows', async () => {
    const text = await cutStream(gateway, '/v1/messages', { ...QUESTION, stream: true })
    expect(text).toContain('"text":"one"')
    expect(text).toMatch(
      /event: error\ndata: {"type":"error","error":{"type":"api_error","message":"transport error: [^"]+"}}\n\n$/,
    )
    expect(text).not.toContain('message_stop')

    const seen = oneTokenThen()
    gateway.upstream.answer(seen.handler)
    const stream = client.messages.stream(QUESTION).on('text', seen.proceed)
    const error = await thrown(stream.finalMessage())
    expect(error).toBeInstanceOf(Anthropic.APIError)
    expect(error).toMatchObject({ error: { error: { type: 'api_error' } } })
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
    ['a tool choice of another kind', { tools: MESSAGES_TOOLS, tool_choice: { type: 'some' } }, 'tool_choice.type'],
  ])('%s is 400 and names the member', async (_name, more, member) => {
    const before = gateway.upstream.requests.length
    const answer = await gateway.post('/v1/messages', { ...QUESTION, ...more })
    const body: unknown = await answer.json()
    expect(answer.status).toBe(400)
    expect(body).toMatchObject({ type: 'error', error: { type: 'invalid_request_error' } })
    expect(JSON.stringify(body)).toContain(`request payload is invalid: invalid Anthropic body: \`${member}\``)
    expect(gateway.upstream.requests.length).toBe(before)
  })
})

test('a caller that leaves takes its upstream with it', async () => {
  gateway.upstream.answer(oneTokenThenSilence)
  await expectCut(gateway.upstream, async () => {
    const stream = client.messages.stream(QUESTION)
    stream.on('text', () => stream.abort())
    expect(await thrown(stream.done())).toBeInstanceOf(Anthropic.APIUserAbortError)
  })
})

describe('countTokens', () => {
  const TURNS = { model: ALIAS, messages: QUESTION.messages }

  test('asks the engine’s own tokenizer where there is one', async () => {
    gateway.upstream.answer((_request, connection) => connection.json(200, { count: 23, max_model_len: 4096, tokens: [1] }))
    const { data, response } = await client.messages
      .countTokens({ ...TURNS, system: 'Be brief.', tools: MESSAGES_TOOLS })
      .withResponse()
    expect(data).toEqual({ input_tokens: 23 })
    expect(response.headers.get('x-aisix-estimated')).toBeNull()
    expect(gateway.upstream.last().path).toBe('/tokenize')
    expect(gateway.upstream.last().json()).toMatchObject({
      model: UPSTREAM_MODEL,
      messages: [{ role: 'system' }, { role: 'user', content: 'Say hello.' }],
      tools: [
        { type: 'function', function: { name: 'weather' } },
        { type: 'function', function: { name: 'note' } },
      ],
      add_generation_prompt: true,
    })
  })

  test.each([
    ['says nothing of a count', 200, { tokens: [] }],
    ['cannot count a chat', 422, { error: { message: 'prompt missing' } }],
    ['has no such endpoint', 404, { detail: 'Not Found' }],
  ])('is an estimate that says so where the server %s', async (_name, status, body) => {
    gateway.upstream.answer((_request, connection) => connection.json(status, body))
    const { data, response } = await client.messages.countTokens(TURNS).withResponse()
    expect(data.input_tokens).toBeGreaterThan(0)
    expect(response.headers.get('x-aisix-estimated')).toBe('true')
  })

  test('does not ask again a server that said that it has no such endpoint, nor holds it against it', async () => {
    const before = gateway.upstream.requests.length
    expect((await client.messages.countTokens(TURNS)).input_tokens).toBeGreaterThan(0)
    expect(gateway.upstream.requests.length).toBe(before)
    expect((await client.messages.create(QUESTION)).content).toMatchObject([{ type: 'text' }])
  })

  test('uses up no tokens, and has errors of its own dialect', async () => {
    const error = await thrown(client.messages.countTokens({ ...TURNS, model: 'nope' }))
    expect(error).toBeInstanceOf(Anthropic.NotFoundError)
    const { request_id } = await client.messages.countTokens(TURNS).withResponse()
    expect(await gateway.attemptOf(String(request_id))).toMatchObject({
      handler: 'count_tokens',
      status_code: 200,
      prompt_tokens: 0,
      completion_tokens: 0,
    })
  })
})
