/** Ollama's official client for JavaScript, in front of an upstream that speaks OpenAI's dialect alone. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { type Message, Ollama } from 'ollama'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway, UPSTREAM_MODEL } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
let client: Ollama
beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: upstream.url })
  client = clientOf(gateway.key)
})
afterEach(() => gateway.idle())
afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})

const clientOf = (key: string) => new Ollama({ host: gateway.url, headers: { authorization: `Bearer ${key}` } })
const choice = (delta: Record<string, unknown>, finish_reason: string | null = null) =>
  chatChunk({}, { choices: [{ index: 0, delta, finish_reason }] })
const usageChunk = chatChunk({}, { choices: [], usage: { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 } })
const WEATHER = {
  type: 'function',
  function: { name: 'weather', description: 'w', parameters: { type: 'object', properties: { city: { type: 'string' } } } },
}
const thrown = (call: Promise<unknown>) =>
  call.then(
    () => {
      throw new Error('the call went well')
    },
    (error: unknown) => error,
  )

test('list and show tell what the key may use, ps nothing, version a version', async () => {
  expect((await client.list()).models).toMatchObject([{ name: ALIAS, model: ALIAS, size: 0 }])
  expect((await client.show({ model: ALIAS })).capabilities).toContain('completion')
  expect((await client.ps()).models).toEqual([])
  expect((await client.version()).version).toMatch(/^\d+\.\d+\.\d+$/)
  const root = await fetch(gateway.url)
  expect([root.status, await root.text()]).toEqual([200, 'Ollama is running'])
  const head = await fetch(gateway.url, { method: 'HEAD' })
  expect([head.status, await head.text()]).toEqual([200, ''])
})

test('chat is a chat upstream, options under their names there', async () => {
  upstream.answer((_request, connection) => connection.json(200, chatAnswer('Hello.')))
  const answer = await client.chat({
    model: ALIAS,
    messages: [{ role: 'user', content: 'Hi', images: ['iVBORw0KGgo='] }],
    format: 'json',
    options: { num_predict: 9, temperature: 0.5, top_k: 3 },
  })
  expect(answer).toMatchObject({
    model: ALIAS,
    message: { role: 'assistant', content: 'Hello.' },
    done: true,
    done_reason: 'stop',
    prompt_eval_count: 5,
    eval_count: 7,
  })
  expect(upstream.last().json()).toMatchObject({
    model: UPSTREAM_MODEL,
    stream: false,
    max_tokens: 9,
    temperature: 0.5,
    top_k: 3,
    response_format: { type: 'json_object' },
    messages: [{ content: [{ type: 'text' }, { type: 'image_url', image_url: { url: 'data:image/png;base64,iVBORw0KGgo=' } }] }],
  })
})

test('a stream is lines of JSON, each with the caller before the next is sent, the last with the counts', async () => {
  let proceed = () => {}
  const isRead = new Promise<void>(resolve => {
    proceed = resolve
  })
  upstream.answer(async (_request, connection) => {
    await connection.streamHead()
    await connection.chunk(`data: ${JSON.stringify(choice({ content: 'Grüße' }))}\n\n`)
    await isRead
    const rest = [choice({ reasoning: 'hm' }), choice({ content: ' 🦊' }, 'stop'), usageChunk]
    await connection.chunk(`${rest.map(each => `data: ${JSON.stringify(each)}\n\n`).join('')}data: [DONE]\n\n`)
    await connection.endChunks()
  })
  const parts: Record<string, unknown>[] = []
  let text = ''
  for await (const part of await client.chat({ model: ALIAS, messages: [{ role: 'user', content: 'Hi' }], stream: true })) {
    text += part.message.content
    parts.push({ ...part })
    proceed()
  }
  expect(text).toBe('Grüße 🦊')
  expect(parts.at(-1)).toMatchObject({ done: true, done_reason: 'stop', prompt_eval_count: 5, eval_count: 7 })
  expect(upstream.last().json()).toMatchObject({ stream: true, stream_options: { include_usage: true } })
})

test('streams are what is sent where nothing is said, as Ollama does', async () => {
  upstream.answer((_request, connection) => connection.sse([choice({ content: 'a' }, 'stop'), usageChunk]))
  const got = await gateway.post('/api/generate', { model: ALIAS, prompt: 'x' })
  expect(got.headers.get('content-type')).toBe('application/x-ndjson')
  const lines = (await got.text()).trimEnd().split('\n')
  expect(lines.map(line => JSON.parse(line))).toMatchObject([
    { response: 'a', done: false },
    { response: '', done: true, eval_count: 7 },
  ])
})

test('a body is JSON whatever its content type, as curl sends it', async () => {
  upstream.answer((_request, connection) => connection.json(200, chatAnswer('x')))
  const body = JSON.stringify({ model: ALIAS, prompt: 'x', stream: false })
  const got = await gateway.post('/api/generate', body, { 'content-type': 'application/x-www-form-urlencoded' })
  expect([got.status, await got.json()]).toMatchObject([200, { response: 'x' }])
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
  const messages: Message[] = [{ role: 'user', content: 'How is the weather?' }]
  let text = ''
  for (;;) {
    const turn: Message = { role: 'assistant', content: '', tool_calls: [] }
    for await (const { message } of await client.chat({ model: ALIAS, messages, tools: [WEATHER], stream: true })) {
      turn.content += message.content
      turn.tool_calls?.push(...(message.tool_calls ?? []))
    }
    messages.push(turn)
    text = turn.content
    if (!turn.tool_calls?.length) break
    for (const { function: called } of turn.tool_calls) {
      messages.push({ role: 'tool', tool_name: called.name, content: `sunny ${String(called.arguments.city)}` })
    }
  }
  expect(text).toBe('done')
  const seen = Object(upstream.last().json()).messages.slice(1)
  expect(seen).toHaveLength(TURNS * 3)
  for (let turn = 0; turn < TURNS; turn += 1) {
    const [asked, ...results] = seen.slice(turn * 3, turn * 3 + 3)
    expect(asked.tool_calls).toMatchObject([
      { function: { name: 'weather', arguments: '{"city":"c0"}' } },
      { function: { name: 'weather', arguments: '{"city":"c1"}' } },
    ])
    expect(results).toMatchObject([
      { role: 'tool', tool_call_id: asked.tool_calls[0].id, content: 'sunny c0' },
      { role: 'tool', tool_call_id: asked.tool_calls[1].id, content: 'sunny c1' },
    ])
  }
})

test('embed, and the embeddings that it replaced', async () => {
  upstream.answer((_request, connection) =>
    connection.json(200, {
      data: [
        { index: 0, embedding: [0.5, 1] },
        { index: 1, embedding: [2, 3] },
      ],
      usage: { prompt_tokens: 4, total_tokens: 4 },
    }),
  )
  expect(await client.embed({ model: ALIAS, input: ['a', 'b'] })).toMatchObject({
    model: ALIAS,
    embeddings: [
      [0.5, 1],
      [2, 3],
    ],
    prompt_eval_count: 4,
  })
  expect([upstream.last().path, upstream.last().json()]).toMatchObject([
    '/v1/embeddings',
    { model: UPSTREAM_MODEL, input: ['a', 'b'] },
  ])
  expect((await client.embeddings({ model: ALIAS, prompt: 'a' })).embedding).toEqual([0.5, 1])
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
  const before = upstream.requests.length
  expect(await client.generate({ model: ALIAS, prompt: '' })).toMatchObject({ done: true, done_reason: 'load' })
  expect(await client.chat({ model: ALIAS, messages: [], keep_alive: 0 })).toMatchObject({ done: true, done_reason: 'unload' })
  expect(await thrown(client.generate({ model: 'nope', prompt: '' }))).toMatchObject({ status_code: 404 })
  expect(upstream.requests.length).toBe(before)
})

test('what only an Ollama server understands is told', async () => {
  upstream.answer((_request, connection) => connection.json(200, chatAnswer('x')))
  const got = await gateway.post('/api/generate', {
    ...{ model: ALIAS, prompt: 'x', stream: false, keep_alive: '5m', options: { num_ctx: 9 } },
  })
  expect(got.headers.get('x-aisix-warning')).toBe(
    'keep_alive, options.num_ctx: only an Ollama server understands this; it was left out',
  )
})

test('abort ends the stream, and its request upstream', async () => {
  const cut = upstream.cut
  upstream.answer(async (_request, connection) => {
    await connection.streamHead()
    await connection.chunk(`data: ${JSON.stringify(choice({ content: 'one' }))}\n\n`)
    await connection.stall()
  })
  const stream = await client.generate({ model: ALIAS, prompt: 'x', stream: true })
  const reading = (async () => {
    for await (const _part of stream) stream.abort()
  })()
  expect(await thrown(reading)).toMatchObject({ name: 'AbortError' })
  await upstream.whenCut(cut + 1)
})

describe('errors are texts', () => {
  test.each([
    ['a wrong key', () => clientOf('sk-wrong').list(), 401, 'invalid API key'],
    [
      'a model that there is not',
      () => client.chat({ model: 'nope', messages: [{ role: 'user', content: 'x' }] }),
      404,
      'model "nope" not found',
    ],
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
    const before = upstream.requests.length
    const error = await thrown(call())
    expect(error).toMatchObject({ status_code: status })
    expect(String(error)).toContain(words)
    expect(upstream.requests.length).toBe(before)
  })

  test('an upstream that dies in mid-stream is a last line with the error', async () => {
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(`data: ${JSON.stringify(choice({ content: 'half' }))}\n\n`)
      await Bun.sleep(20)
      connection.reset()
    })
    const text = await (await gateway.post('/api/generate', { model: ALIAS, prompt: 'x' })).text()
    expect(text).toMatch(/"response":"half".*\n{"error":"transport error: [^"]+"}\n$/)
  })
})
