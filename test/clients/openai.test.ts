/** OpenAI's official client for JavaScript: chat, embeddings and models. What its users see, and what the upstream gets. */
import { beforeAll, describe, expect, test } from 'bun:test'
import OpenAI from 'openai'
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod'
import { z } from 'zod'
import { ALIAS, UPSTREAM_MODEL, UPSTREAM_SECRET } from '../gateway.ts'
import { AGENT_QUESTION, CHAT_TOOLS, runAgent, startAgent, TOOLS } from './agent-scenario.ts'
import { choice, embedding, expectCut, oneTokenThen, oneTokenThenSilence, saying, USAGE } from './engine.ts'
import { gatewayForClients, thrown } from './harness.ts'
import { openAiClient } from './openai-client.ts'

const gateway = gatewayForClients()
let client: OpenAI
beforeAll(() => {
  client = openAiClient(gateway)
})

const QUESTION = { model: ALIAS, messages: [{ role: 'user' as const, content: 'Say hello.' }] }

test('chat.completions.create gives text, usage and the alias; the upstream sees its own model and its own credential', async () => {
  const completion = await client.chat.completions.create({ ...QUESTION, temperature: 0.2, seed: 7 })
  expect(completion.model).toBe(ALIAS)
  expect(completion.choices[0]?.message.content).toBe('Hello from the private model.')
  expect(completion.usage).toMatchObject(USAGE)
  const seen = gateway.upstream.last()
  expect(seen.json()).toMatchObject({ model: UPSTREAM_MODEL, messages: QUESTION.messages, temperature: 0.2, seed: 7 })
  expect(seen.header('authorization')).toBe(`Bearer ${UPSTREAM_SECRET}`)
})

test('a stream arrives chunk by chunk, the first before the next is sent', async () => {
  const { handler, proceed } = oneTokenThen([choice({ content: ' two' }), choice({ content: ' three' }, 'stop')])
  gateway.upstream.answer(handler)
  const stream = await client.chat.completions.create({ ...QUESTION, stream: true })
  const came: (string | null | undefined)[] = []
  for await (const chunk of stream) {
    expect(chunk.model).toBe(ALIAS)
    came.push(chunk.choices[0]?.delta.content)
    proceed()
  }
  expect(came).toEqual(['one', ' two', ' three'])
})

test('stream_options.include_usage gives a last chunk with usage and no choices, and no usage without it', async () => {
  const asked = await client.chat.completions.create({ ...QUESTION, stream: true, stream_options: { include_usage: true } })
  expect((await Array.fromAsync(asked)).at(-1)).toMatchObject({ choices: [], usage: USAGE })
  const unasked = await Array.fromAsync(await client.chat.completions.create({ ...QUESTION, stream: true }))
  expect(unasked.every(({ usage, choices }) => !usage && choices.length === 1)).toBe(true)
})

test('the stream helper tells content and its end, and gives the whole completion', async () => {
  gateway.upstream.answer(saying('Grüße 🦊'))
  const deltas: string[] = []
  const stream = client.chat.completions.stream(QUESTION).on('content', delta => deltas.push(delta))
  expect(await stream.finalContent()).toBe('Grüße 🦊')
  expect(deltas).toEqual(['Grüß', 'e 🦊'])
  expect(await stream.finalChatCompletion()).toMatchObject({ model: ALIAS, choices: [{ finish_reason: 'stop' }] })
})

test('a tool call comes back as the upstream made it, and tools reach the upstream unchanged', async () => {
  gateway.upstream.answer(saying({ calls: [{ id: 'call_1', name: 'weather', input: { city: 'Rīga 🚀' } }] }))
  const question = { ...QUESTION, tools: CHAT_TOOLS, tool_choice: 'auto' as const }
  const whole = await client.chat.completions.create(question)
  const streamed = await client.chat.completions.stream(question).finalChatCompletion()
  for (const { choices } of [whole, streamed]) {
    expect(choices[0]?.finish_reason).toBe('tool_calls')
    expect(choices[0]?.message.tool_calls).toMatchObject([
      { id: 'call_1', type: 'function', function: { name: 'weather', arguments: '{"city":"Rīga 🚀"}' } },
    ])
    expect(gateway.upstream.last().json()).toMatchObject({ tools: CHAT_TOOLS, tool_choice: 'auto' })
  }
})

test('chat.completions.parse: the JSON schema reaches the upstream, and the answer comes back parsed', async () => {
  const Event = z.object({ name: z.string(), day: z.int() })
  gateway.upstream.answer(saying('{"name":"Fair","day":7}'))
  const completion = await client.chat.completions.parse({ ...QUESTION, response_format: zodResponseFormat(Event, 'event') })
  expect(completion.choices[0]?.message.parsed).toEqual({ name: 'Fair', day: 7 })
  expect(gateway.upstream.last().json()).toMatchObject({
    response_format: { type: 'json_schema', json_schema: { name: 'event', strict: true, schema: { required: ['name', 'day'] } } },
  })
})

test('image parts reach the upstream unchanged', async () => {
  const content = [
    { type: 'text' as const, text: 'What is this?' },
    { type: 'image_url' as const, image_url: { url: 'data:image/png;base64,iVBORw0KGgo=', detail: 'low' as const } },
  ]
  await client.chat.completions.create({ model: ALIAS, messages: [{ role: 'user', content }] })
  expect(gateway.upstream.last().json()).toMatchObject({ messages: [{ role: 'user', content }] })
})

test("embeddings in the client's own default, base64, come out as numbers", async () => {
  gateway.upstream.answer(embedding)
  const { model, data, usage } = await client.embeddings.create({ model: ALIAS, input: 'hello' })
  expect(gateway.upstream.last().json()).toMatchObject({ model: UPSTREAM_MODEL, input: 'hello', encoding_format: 'base64' })
  expect(model).toBe(ALIAS)
  expect([...(data[0]?.embedding ?? [])]).toEqual([0.5, -0])
  expect(usage).toEqual({ prompt_tokens: 2, total_tokens: 2 })
})

test('embeddings as floats, of several inputs and of tokens', async () => {
  gateway.upstream.answer(embedding)
  const several = await client.embeddings.create({ model: ALIAS, input: ['hello', 'goodbye'], encoding_format: 'float' })
  expect(several.data.map(each => each.embedding)).toEqual([
    [0.5, 0],
    [0.5, -1],
  ])
  await client.embeddings.create({ model: ALIAS, input: [1, 2, 3], encoding_format: 'float' })
  expect(gateway.upstream.last().json()).toMatchObject({ input: [1, 2, 3], encoding_format: 'float' })
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

describe('errors are those of the client', () => {
  test('a key that nobody made is an AuthenticationError, and no upstream call', async () => {
    const before = gateway.upstream.requests.length
    const error = await thrown(openAiClient(gateway, 'sk-nobody-made-this').chat.completions.create(QUESTION))
    expect(error).toBeInstanceOf(OpenAI.AuthenticationError)
    expect(error).toMatchObject({ status: 401, type: 'invalid_api_key', message: expect.stringContaining('invalid API key') })
    expect(gateway.upstream.requests.length).toBe(before)
  })

  test('a model that the key may not use is a PermissionDeniedError', async () => {
    await gateway.addApiKey('sk-other-models-only', { allowed_models: ['something-else'] })
    const error = await thrown(openAiClient(gateway, 'sk-other-models-only').chat.completions.create(QUESTION))
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
    gateway.upstream.answer((_request, connection) =>
      connection.json(429, { error: { message: 'queue is full', type: 'rate_limit_error' } }, { 'retry-after': '3' }),
    )
    const error = await thrown(client.chat.completions.create(QUESTION))
    expect(error).toBeInstanceOf(OpenAI.RateLimitError)
    expect(error).toMatchObject({ status: 429, message: expect.stringContaining('queue is full') })
    expect(error instanceof OpenAI.APIError && error.headers?.get('retry-after')).toBe('3')
  })

  test("an upstream's 500 is an InternalServerError with status 502, without the upstream's text", async () => {
    gateway.upstream.answer((_request, connection) => connection.send(500, 'Traceback: /home/vllm/secret.py'))
    const error = await thrown(client.chat.completions.create(QUESTION))
    expect(error).toBeInstanceOf(OpenAI.InternalServerError)
    expect(error).toMatchObject({ status: 502, type: 'upstream_error', message: expect.not.stringContaining('Traceback') })
  })

  test('a stream that the upstream cuts is an error, after what had come', async () => {
    const { handler, proceed: cut } = oneTokenThen()
    gateway.upstream.answer(handler)
    const stream = await client.chat.completions.create({ ...QUESTION, stream: true })
    const came: (string | null | undefined)[] = []
    const reading = async () => {
      for await (const chunk of stream) {
        came.push(chunk.choices[0]?.delta.content)
        cut()
      }
    }
    expect(await thrown(reading())).toBeInstanceOf(OpenAI.APIError)
    expect(came).toEqual(['one'])
  })
})

test('a client that aborts mid-stream closes the upstream connection', async () => {
  gateway.upstream.answer(oneTokenThenSilence)
  await expectCut(gateway.upstream, async () => {
    const stream = await client.chat.completions.create({ ...QUESTION, stream: true })
    for await (const chunk of stream) {
      expect(chunk.choices[0]?.delta.content).toBe('one')
      stream.controller.abort()
    }
  })
})

test('a client that aborts before the answer closes the upstream connection', async () => {
  const controller = new AbortController()
  gateway.upstream.answer((_request, connection) => {
    controller.abort()
    return connection.stall()
  })
  await expectCut(gateway.upstream, async () => {
    const error = await thrown(client.chat.completions.create(QUESTION, { signal: controller.signal }))
    expect(error).toBeInstanceOf(OpenAI.APIUserAbortError)
  })
})

describe('an agent of six turns with parallel calls', () => {
  test('that streams makes the calls of the script, and gives the upstream each with its result', async () => {
    const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: AGENT_QUESTION }]
    await runAgent(gateway.upstream, async results => {
      for (const { id, content } of results) messages.push({ role: 'tool', tool_call_id: id, content })
      const stream = client.chat.completions.stream({ model: ALIAS, messages, tools: CHAT_TOOLS })
      const message = await stream.finalMessage()
      messages.push(message)
      const calls = (message.tool_calls ?? []).flatMap(call => (call.type === 'function' ? [call] : []))
      return {
        text: message.content ?? '',
        calls: calls.map(({ id, function: { name, arguments: args } }) => ({ id, name, input: JSON.parse(args) })),
      }
    })
  })

  test.each([false, true])('that is left to runTools does the same, streamed: %p', async isStreamed => {
    // The client reads a zod tool's arguments when the next call begins: it cannot do with pieces that come in turns.
    const agent = startAgent(gateway.upstream, { isStreamed, isInOrder: true })
    const { weather, note } = TOOLS
    const question = {
      model: ALIAS,
      messages: [{ role: 'user' as const, content: AGENT_QUESTION }],
      tools: [
        zodFunction({
          name: 'weather',
          description: weather.description,
          parameters: weather.schema,
          function: input => agent.carryOut('weather', input),
        }),
        zodFunction({
          name: 'note',
          description: note.description,
          parameters: note.schema,
          function: input => agent.carryOut('note', input),
        }),
      ],
    }
    const runner = isStreamed
      ? client.chat.completions.runTools({ ...question, stream: true })
      : client.chat.completions.runTools(question)
    agent.expectDone(String(await runner.finalContent()))
  })
})
