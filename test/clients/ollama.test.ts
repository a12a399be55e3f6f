/** Ollama's official client for JavaScript, in front of an upstream that speaks OpenAI's dialect alone. */
import { beforeAll, describe, expect, test } from 'bun:test'
import { type Message, Ollama } from 'ollama'
import { ALIAS, UPSTREAM_MODEL } from '../gateway.ts'
import { AGENT_QUESTION, CHAT_TOOLS, runAgent } from './agent-scenario.ts'
import { choice, embedding, expectCut, oneTokenThen, oneTokenThenSilence, saying, usageChunk } from './engine.ts'
import { cutStream, gatewayForClients, thrown } from './harness.ts'

const gateway = gatewayForClients()
let client: Ollama
beforeAll(() => {
  client = clientOf(gateway.key)
})

const clientOf = (key: string) => new Ollama({ host: gateway.url, headers: { authorization: `Bearer ${key}` } })
const CHAT = { model: ALIAS, messages: [{ role: 'user', content: 'Hi' }] }
const PROMPT = { model: ALIAS, prompt: 'Hi' }
const PNG = 'iVBORw0KGgo='
const PNG_PART = { type: 'image_url', image_url: { url: `data:image/png;base64,${PNG}` } }
const ENDING = { done: true, done_reason: 'stop', prompt_eval_count: 5, eval_count: 7 }

test('list and show tell what the key may use, ps nothing, version a version', async () => {
  const { models } = await client.list()
  expect(models).toMatchObject([{ name: `${ALIAS}:latest`, model: `${ALIAS}:latest`, size: 0 }])
  for (const model of [ALIAS, `${ALIAS}:latest`]) expect((await client.show({ model })).capabilities).toContain('completion')
  expect((await client.ps()).models).toEqual([])
  expect((await client.version()).version).toMatch(/^\d+\.\d+\.\d+$/)
  const root = await fetch(gateway.url)
  expect([root.status, await root.text()]).toEqual([200, 'Ollama is running'])
  const head = await fetch(gateway.url, { method: 'HEAD' })
  expect([head.status, await head.text()]).toEqual([200, ''])
})

test('chat is a chat upstream, options under their names there', async () => {
  const answer = await client.chat({
    model: ALIAS,
    messages: [{ role: 'user', content: 'Hi', images: [PNG] }],
    format: 'json',
    options: { num_predict: 9, temperature: 0.5, top_k: 3 },
  })
  expect(answer).toMatchObject({
    model: ALIAS,
    message: { role: 'assistant', content: 'Hello from the private model.' },
    ...ENDING,
  })
  expect(gateway.upstream.last().json()).toMatchObject({
    model: UPSTREAM_MODEL,
    stream: false,
    max_tokens: 9,
    temperature: 0.5,
    top_k: 3,
    response_format: { type: 'json_object' },
    messages: [{ content: [{ type: 'text' }, PNG_PART] }],
  })
})

test('generate is a chat upstream of one message, with system, images as bytes and a schema', async () => {
  gateway.upstream.answer(saying('{"city":"Riga"}'))
  const schema = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
  const answer = await client.generate({
    ...{ ...PROMPT, system: 'Be brief.', format: schema },
    images: [new Uint8Array(Buffer.from(PNG, 'base64'))],
  })
  expect(answer).toMatchObject({ model: ALIAS, response: '{"city":"Riga"}', ...ENDING })
  expect(gateway.upstream.last().path).toBe('/v1/chat/completions')
  expect(gateway.upstream.last().json()).toMatchObject({
    response_format: { type: 'json_schema', json_schema: { schema, strict: true } },
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: [{ type: 'text', text: 'Hi' }, PNG_PART] },
    ],
  })
})

describe('thinking', () => {
  const said = { reasoning: 'Hm, well.', text: 'Hello.' }

  test.each([
    [true, { chat_template_kwargs: { enable_thinking: true } }],
    [false, { chat_template_kwargs: { enable_thinking: false } }],
    ['high' as const, { reasoning_effort: 'high' }],
  ])('think: %p reaches the upstream, and thoughts come apart from words', async (think, asked) => {
    gateway.upstream.answer(saying(said))
    expect(await client.chat({ ...CHAT, think })).toMatchObject({ message: { thinking: said.reasoning, content: said.text } })
    expect(gateway.upstream.last().json()).toMatchObject(asked)
    expect(await client.generate({ ...PROMPT, think })).toMatchObject({ thinking: said.reasoning, response: said.text })
    expect(gateway.upstream.last().json()).toMatchObject(asked)
  })

  test('is streamed in its pieces before the words', async () => {
    gateway.upstream.answer(saying(said))
    const chat = await Array.fromAsync(await client.chat({ ...CHAT, think: true, stream: true }))
    const parts = chat.map(({ message }) => [message.thinking, message.content])
    const words = await Array.fromAsync(await client.generate({ ...PROMPT, think: true, stream: true }))
    for (const pieces of [parts, words.map(({ thinking, response }) => [thinking, response])]) {
      expect(pieces).toEqual([
        ['Hm, w', ''],
        ['ell.', ''],
        [undefined, 'Hel'],
        [undefined, 'lo.'],
        [undefined, ''],
      ])
    }
  })
})

test('a stream is lines of JSON, each with the caller before the next is sent, the last with the counts', async () => {
  const { handler, proceed } = oneTokenThen([choice({ content: ' Grüße 🦊' }, 'stop'), usageChunk])
  gateway.upstream.answer(handler)
  const texts: string[] = []
  let last: unknown
  for await (const part of await client.chat({ ...CHAT, stream: true })) {
    texts.push(part.message.content)
    last = part
    proceed()
  }
  expect(texts).toEqual(['one', ' Grüße 🦊', ''])
  expect(last).toMatchObject(ENDING)
  expect(gateway.upstream.last().json()).toMatchObject({ stream: true, stream_options: { include_usage: true } })
})

test('streams are what is sent where nothing is said, as Ollama does', async () => {
  const got = await gateway.post('/api/generate', PROMPT)
  expect(got.headers.get('content-type')).toBe('application/x-ndjson')
  const lines = (await got.text()).trimEnd().split('\n')
  expect(lines.map(line => JSON.parse(line))).toMatchObject([
    { response: 'Hello from the ', done: false },
    { response: 'private model.', done: false },
    { response: '', done: true, eval_count: 7 },
  ])
})

test('a body is JSON whatever its content type, as curl sends it', async () => {
  const body = JSON.stringify({ ...PROMPT, stream: false })
  const got = await gateway.post('/api/generate', body, { 'content-type': 'application/x-www-form-urlencoded' })
  expect([got.status, await got.json()]).toMatchObject([200, { response: 'Hello from the private model.' }])
})

test('a tool call comes with its arguments as an object, whole or streamed', async () => {
  gateway.upstream.answer(saying({ calls: [{ id: 'call_1', name: 'weather', input: { city: 'Rīga' } }] }))
  const whole = await client.chat({ ...CHAT, tools: CHAT_TOOLS })
  const streamed = await Array.fromAsync(await client.chat({ ...CHAT, tools: CHAT_TOOLS, stream: true }))
  const expected = [{ function: { name: 'weather', arguments: { city: 'Rīga' } } }]
  expect(whole.message.tool_calls).toMatchObject(expected)
  expect(streamed.flatMap(({ message }) => message.tool_calls ?? [])).toMatchObject(expected)
  expect(gateway.upstream.last().json()).toMatchObject({ tools: CHAT_TOOLS })
})

test('an agent of six turns with parallel calls, streamed, makes the calls of the script and gives the upstream each with its result', async () => {
  const messages: Message[] = [{ role: 'user', content: AGENT_QUESTION }]
  await runAgent(gateway.upstream, async results => {
    for (const { name, content } of results) messages.push({ role: 'tool', tool_name: name, content })
    const turn = { role: 'assistant', content: '', thinking: '' }
    const toolCalls: NonNullable<Message['tool_calls']> = []
    for await (const { message } of await client.chat({ model: ALIAS, messages, tools: CHAT_TOOLS, stream: true })) {
      turn.content += message.content
      turn.thinking += message.thinking ?? ''
      toolCalls.push(...(message.tool_calls ?? []))
    }
    messages.push({ ...turn, tool_calls: toolCalls })
    // The client's types know nothing of ids; results are matched by name and order.
    return {
      text: turn.content,
      calls: toolCalls.map(({ function: { name, arguments: input } }) => ({ id: '', name, input })),
    }
  })
})

test('embed, and the embeddings that it replaced', async () => {
  gateway.upstream.answer(embedding)
  expect(await client.embed({ model: ALIAS, input: ['a', 'b'] })).toMatchObject({
    model: ALIAS,
    embeddings: [
      [0.5, 0],
      [0.5, -1],
    ],
    prompt_eval_count: 4,
  })
  expect([gateway.upstream.last().path, gateway.upstream.last().json()]).toMatchObject([
    '/v1/embeddings',
    { model: UPSTREAM_MODEL, input: ['a', 'b'] },
  ])
  expect((await client.embeddings({ model: ALIAS, prompt: 'a' })).embedding).toEqual([0.5, 0])
})

test('show refuses what every body is refused for', async () => {
  for (const body of [
    `{"model":"${ALIAS}","model":"x"}`,
    `{"model":"${ALIAS}","a":${'['.repeat(200)}${']'.repeat(200)}}`,
    '[]',
    '{',
  ]) {
    expect((await gateway.post('/api/show', body)).status).toBe(400)
  }
})

test('loading and unloading a model asks nobody', async () => {
  const before = gateway.upstream.requests.length
  expect(await client.generate({ model: ALIAS, prompt: '' })).toMatchObject({ done: true, done_reason: 'load' })
  expect(await client.chat({ model: ALIAS, messages: [], keep_alive: 0 })).toMatchObject({ done: true, done_reason: 'unload' })
  expect(await thrown(client.generate({ model: 'nope', prompt: '' }))).toMatchObject({ status_code: 404 })
  expect(gateway.upstream.requests.length).toBe(before)
})

test('what only an Ollama server understands is told', async () => {
  const got = await gateway.post('/api/generate', {
    ...{ ...PROMPT, stream: false, keep_alive: '5m', options: { num_ctx: 9 } },
  })
  expect(got.headers.get('x-aisix-warning')).toBe(
    'keep_alive, options.num_ctx: only an Ollama server understands this; it was left out',
  )
})

describe('abort', () => {
  test('of one stream ends it, and its request upstream', async () => {
    gateway.upstream.answer(oneTokenThenSilence)
    for (const begin of [() => client.generate({ ...PROMPT, stream: true }), () => client.chat({ ...CHAT, stream: true })]) {
      await expectCut(gateway.upstream, async () => {
        const stream = await begin()
        const reading = async () => {
          for await (const _part of stream) stream.abort()
        }
        expect(await thrown(reading())).toMatchObject({ name: 'AbortError' })
      })
    }
  })

  test('of the client ends every stream of it', async () => {
    gateway.upstream.answer(oneTokenThenSilence)
    const before = gateway.upstream.cut
    const leaving = clientOf(gateway.key)
    const streams = await Promise.all([1, 2].map(() => leaving.generate({ ...PROMPT, stream: true })))
    const readings = streams.map(stream => thrown(Array.fromAsync(stream)))
    leaving.abort()
    expect(await Promise.all(readings)).toMatchObject([{ name: 'AbortError' }, { name: 'AbortError' }])
    await gateway.upstream.whenCut(before + 2)
  })
})

describe('errors are texts', () => {
  test.each([
    ['a wrong key', () => clientOf('sk-wrong').list(), 401, 'invalid API key'],
    ['a model that there is not', () => client.chat({ ...CHAT, model: 'nope' }), 404, 'model "nope" not found'],
    [
      'an image that is not base64',
      () => client.chat({ model: ALIAS, messages: [{ role: 'user', content: 'x', images: ['§'] }] }),
      400,
      'images[0]',
    ],
    [
      'a tool result without its call',
      () => client.chat({ model: ALIAS, messages: [{ role: 'tool', content: 'x' }] }),
      400,
      'messages[0]',
    ],
    ['pulling', () => client.pull({ model: 'x' }), 501, 'managed by the operator'],
    ['deleting', () => client.delete({ model: 'x' }), 501, 'managed by the operator'],
    ['copying', () => client.copy({ source: 'x', destination: 'y' }), 501, 'managed by the operator'],
  ])('%s', async (_name, call, status, words) => {
    const before = gateway.upstream.requests.length
    const error = await thrown(call())
    expect(error).toMatchObject({ status_code: status })
    expect(String(error)).toContain(words)
    expect(gateway.upstream.requests.length).toBe(before)
  })

  test('an upstream that dies in mid-stream is a last line with the error, which the client throws', async () => {
    expect(await cutStream(gateway, '/api/generate', PROMPT)).toMatch(/"response":"one".*\n{"error":"transport error: [^"]+"}\n$/)

    const seen = oneTokenThen()
    gateway.upstream.answer(seen.handler)
    const reading = async () => {
      for await (const _part of await client.generate({ ...PROMPT, stream: true })) seen.proceed()
    }
    expect(String(await thrown(reading()))).toContain('transport error')
  })
})
