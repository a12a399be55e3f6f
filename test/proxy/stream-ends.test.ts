/** How streams end when all has come and the upstream's connection does not end, or ends badly. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { type Connection, chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway, UPSTREAM_MODEL } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
  // A stream that waits for an upstream that has nothing more to say fails by this deadline.
  const usual = { stream_timeout: 4_000 }
  gateway = await startGateway({ upstream: upstream.url, model: usual })
  await gateway.addModel({ ...usual, display_name: 'claude', provider: 'anthropic' })
  await gateway.addModel({ ...usual, display_name: 'gpt', provider: 'openai' })
  await gateway.addModel({ ...usual, display_name: 'llama', provider: 'ollama' })
})
afterEach(() => gateway.idle())
afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})

const MESSAGE = { id: 'msg_1', type: 'message', role: 'assistant', model: 'other', content: [], usage: { input_tokens: 5 } }
const RESPONSE = { id: 'resp_1', object: 'response', status: 'completed', usage: { input_tokens: 5, output_tokens: 7 } }
const frames = (events: readonly Record<string, unknown>[]) =>
  events.map(event => `event: ${String(event.type)}\ndata: ${JSON.stringify(event)}\n\n`).join('')
const lines = (values: readonly unknown[]) => values.map(each => `${JSON.stringify(each)}\n`).join('')
const messageEvents = (model: string) =>
  frames([
    { type: 'message_start', message: { ...MESSAGE, model } },
    { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
    { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'Grüße' } },
    { type: 'content_block_stop', index: 0 },
    { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 7 } },
    { type: 'message_stop' },
  ])
const RESPONSE_EVENTS = frames([
  { type: 'response.created', response: { ...RESPONSE, status: 'in_progress', usage: null }, sequence_number: 0 },
  { type: 'response.output_text.delta', delta: 'Grüße', item_id: 'm', output_index: 0, sequence_number: 1 },
  { type: 'response.completed', response: RESPONSE, sequence_number: 2 },
])
const LINES = lines([
  { model: ALIAS, message: { role: 'assistant', content: 'Grüße' }, done: false },
  { model: ALIAS, message: { role: 'assistant', content: '' }, done: true, prompt_eval_count: 5, eval_count: 7 },
])
const TURN = { messages: [{ role: 'user', content: 'Hi' }] }

type Native = { name: string; path: string; question: Record<string, unknown>; sent: string; type?: string }
const NATIVE: Native[] = [
  {
    name: 'Messages',
    path: '/v1/messages',
    question: { model: 'claude', max_tokens: 9, stream: true, ...TURN },
    sent: messageEvents('other'),
  },
  { name: 'Responses', path: '/v1/responses', question: { model: 'gpt', input: 'Hi', stream: true }, sent: RESPONSE_EVENTS },
  {
    name: 'Ollama',
    path: '/api/chat',
    question: { model: 'llama', ...TURN },
    sent: LINES.replaceAll(ALIAS, 'llama'),
    type: 'application/x-ndjson',
  },
]

/** The text of an answer whose upstream resets the connection once the caller has the beginning. */
async function textOfBroken(
  send: (connection: Connection) => Promise<void>,
  path: string,
  question: Record<string, unknown>,
): Promise<string> {
  const begun = Promise.withResolvers<void>()
  upstream.answer(async (_request, connection) => {
    await send(connection)
    await begun.promise
    connection.reset()
  })
  const reader = (await gateway.post(path, question)).body?.getReader()
  let text = ''
  for (let piece = await reader?.read(); piece && !piece.done; piece = await reader?.read()) {
    text += Buffer.from(piece.value).toString()
    begun.resolve()
  }
  return text
}

describe.each(NATIVE)('a native stream of $name that has come to its last event', ({ path, question, sent, type }) => {
  const opened = async (connection: Connection, text: string) => {
    await connection.streamHead(type === undefined ? {} : { headers: { 'content-type': type } })
    await connection.chunk(text)
  }
  const succeeded = async () => {
    await gateway.idle()
    expect(gateway.telemetry.records.at(-1)).toMatchObject({ status: 200, promptTokens: 5, completionTokens: 7 })
    expect(gateway.telemetry.records.at(-1)?.errorClass).toBeFalsy()
  }

  test('ends well when the connection breaks after it', async () => {
    expect(await textOfBroken(connection => opened(connection, sent), path, question)).toBe(sent)
    await succeeded()
  })

  test('ends at once when the connection stays open, which is then cut', async () => {
    const cut = upstream.cut
    upstream.answer(async (_request, connection) => {
      await opened(connection, sent)
      await connection.stall()
    })
    expect(await (await gateway.post(path, question)).text()).toBe(sent)
    await succeeded()
    await upstream.whenCut(cut + 1)
  })
})

test('what stands right behind the last event goes out with it, whatever it is', async () => {
  const sent = `${messageEvents('other')}data: [DONE]\n\n`
  upstream.answer(async (_request, connection) => {
    await connection.streamHead()
    await connection.chunk(sent)
    await connection.stall()
  })
  const got = await gateway.post('/v1/messages', { model: 'claude', max_tokens: 9, stream: true, ...TURN })
  expect(await got.text()).toBe(sent)
})

test('a transcript that has told its last event is over', async () => {
  const sent = frames([
    { type: 'transcript.text.delta', delta: 'Hi' },
    { type: 'transcript.text.done', text: 'Hi' },
  ])
  upstream.answer(async (_request, connection) => {
    await connection.streamHead()
    await connection.chunk(sent)
    await connection.stall()
  })
  const form = new FormData()
  form.set('model', ALIAS)
  form.set('stream', 'true')
  form.set('file', new File(['abc'], 'a.wav'))
  const got = await fetch(`${gateway.url}/v1/audio/transcriptions`, {
    method: 'POST',
    headers: { authorization: `Bearer ${gateway.key}` },
    body: form,
  })
  expect(await got.text()).toBe(sent)
})

describe('a chat stream that has told its end and its usage, without [DONE]', () => {
  const events = [
    chatChunk({ content: 'Hi' }),
    chatChunk({}, { choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] }),
    chatChunk({}, { choices: [], usage: { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 } }),
  ]
  const sent = events.map(each => `data: ${JSON.stringify(each)}\n\n`).join('')
  const bridged: [string, Record<string, unknown>, string][] = [
    ['/v1/messages', { model: ALIAS, max_tokens: 9, stream: true, ...TURN }, 'event: message_stop\n'],
    ['/v1/responses', { model: ALIAS, input: 'Hi', stream: true }, 'event: response.completed\n'],
    ['/api/chat', { model: ALIAS, ...TURN }, '"done":true'],
  ]
  const opened = (text: string) => async (connection: Connection) => {
    await connection.streamHead()
    await connection.chunk(text)
  }

  test.each(bridged)('is whole for callers of %s, though its connection stays open', async (path, question, end) => {
    const cut = upstream.cut
    upstream.answer(async (_request, connection) => {
      await opened(sent)(connection)
      await connection.stall()
    })
    const text = await (await gateway.post(path, question)).text()
    expect(text).toContain(end)
    expect(text).not.toMatch(/event: error|^\{"error"/m)
    await gateway.idle()
    expect(gateway.telemetry.records.at(-1)).toMatchObject({ status: 200, promptTokens: 5, completionTokens: 7 })
    await upstream.whenCut(cut + 1)
  })

  test.each(bridged)('is whole for callers of %s, though its connection breaks', async (path, question, end) => {
    expect(await textOfBroken(opened(sent), path, question)).toContain(end)
    await gateway.idle()
    expect(gateway.telemetry.records.at(-1)).toMatchObject({ status: 200 })
  })

  test('is cut for callers of chat, to whom [DONE] belongs', async () => {
    const text = await textOfBroken(opened(sent), '/v1/chat/completions', { model: ALIAS, stream: true, ...TURN })
    expect(text).toContain('event: error\n')
    expect(text).not.toContain('[DONE]')
  })

  test('was cut for everybody where no usage has come: more may be missing', async () => {
    const withoutUsage = sent.slice(0, sent.indexOf('data:', sent.indexOf('"stop"')))
    const text = await textOfBroken(opened(withoutUsage), '/api/chat', { model: ALIAS, ...TURN })
    expect(text).toContain('{"error":')
  })
})

describe('the name of the model in message_start', () => {
  const stream = async (sent: string, model = 'claude') => {
    upstream.answer((_request, connection) => connection.send(200, sent, { 'content-type': 'text/event-stream' }))
    return (await gateway.post('/v1/messages', { model, max_tokens: 9, stream: true, ...TURN })).text()
  }

  test('is the alias, and all else is as it was sent', async () => {
    const spaced = (model: string) =>
      messageEvents('x').replace(
        /data: .*/,
        `data: {"type": "message_start", "message": {"n": 1.0, "model": "${model}"}, "é": 1e400}`,
      )
    expect(await stream(spaced(UPSTREAM_MODEL))).toBe(spaced('claude'))
    await gateway.addModel({ display_name: 'clé "ü"', provider: 'anthropic' })
    expect(await stream(spaced(UPSTREAM_MODEL), 'clé "ü"')).toBe(spaced('clé \\"ü\\"'))
  })

  test('stays what it is where it is none that we sent', async () => {
    expect(await stream(messageEvents('other'))).toBe(messageEvents('other'))
  })

  test('is the alias also in an event of several lines', async () => {
    const [first = '', ...rest] = messageEvents(UPSTREAM_MODEL).split('\n\n')
    const sent = [first.replace('"message":', '\ndata: "message":'), ...rest].join('\n\n')
    const text = await stream(sent)
    expect(text).not.toContain(UPSTREAM_MODEL)
    const data = /^event: message_start\ndata: (.*)\n\n/.exec(text)?.[1]
    expect(JSON.parse(data ?? '')).toMatchObject({ type: 'message_start', message: { id: 'msg_1', model: 'claude' } })
  })
})

test('the error that ends a cut stream of Responses is numbered behind its last event', async () => {
  const events = RESPONSE_EVENTS.split('\n\n').slice(0, 2).join('\n\n').replace('"sequence_number":1', '"sequence_number":41')
  upstream.answer((_request, connection) => connection.send(200, `${events}\n\n`, { 'content-type': 'text/event-stream' }))
  const text = await (await gateway.post('/v1/responses', { model: 'gpt', input: 'Hi', stream: true })).text()
  const last = text.trimEnd().split('\n').at(-1) ?? ''
  expect(JSON.parse(last.slice('data: '.length))).toMatchObject({ type: 'error', sequence_number: 42 })
})

describe('an overloaded server', () => {
  const error = { type: 'error', error: { type: 'overloaded_error', message: 'busy' } }
  const ask = (sent: string) => {
    upstream.answer((_request, connection) => connection.send(200, sent, { 'content-type': 'text/event-stream' }))
    return gateway.post('/v1/messages', { model: 'claude', max_tokens: 9, stream: true, ...TURN })
  }

  test('that says so within a stream is overloaded for the caller', async () => {
    const begun = messageEvents('other').split('\n\n').slice(0, 3).join('\n\n')
    const text = await (await ask(`${begun}\n\n${frames([error])}`)).text()
    const last = text.trimEnd().split('\n').at(-1) ?? ''
    expect(JSON.parse(last.slice('data: '.length))).toMatchObject({ error: { type: 'overloaded_error' } })
    expect(last).toContain('busy')
  })

  test('that says so before all else is an answer with its status', async () => {
    const got = await ask(frames([error]))
    expect([got.status, await got.json()]).toMatchObject([503, { type: 'error', error: { type: 'overloaded_error' } }])
  })
})
