/** What goes upstream: the caller's body with the few changes of the contract, and nobody's credential but the operator's. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import {
  ALIAS,
  answerOf,
  CALLER_KEY,
  type GatewayOptions,
  startGateway,
  type TestGateway,
  UPSTREAM_MODEL,
  UPSTREAM_SECRET,
} from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
})
beforeEach(async () => {
  upstream.requests.length = 0
  upstream.answer((request, connection) =>
    request.text.includes('"stream":true')
      ? connection.sse([chatChunk({ content: 'a' })])
      : connection.json(200, { id: 'x', model: 'm', choices: [], data: [] }),
  )
  gateway = await startGateway({ upstream: upstream.url })
})
afterEach(() => gateway.stop())
afterAll(() => upstream.stop())

/** Sends a body as it is and gives what went upstream. */
async function sent(body: string, path = '/v1/chat/completions', headers: Record<string, string> = {}): Promise<string> {
  const answer = await answerOf(await gateway.post(path, body, headers))
  expect(answer.status).toBe(200)
  return upstream.last().text
}

/** A gateway whose provider key has these overrides, in place of the usual one. */
async function restart(options: GatewayOptions): Promise<void> {
  await gateway.stop()
  gateway = await startGateway({ upstream: upstream.url, ...options })
}

const MESSAGES = '"messages":[{"role":"user","content":"Hi"}]'

describe('a chat body', () => {
  test('keeps every member, number, space and order; `model` changes and `stream` is said', async () => {
    const body = `{ "seed" : 9007199254740993, "model":"${ALIAS}", "top_p":1.0,"x":1e400,\n "neg":-0,${MESSAGES},"tools":[ {"type": "function"} ],"guided_json":{"a":[1,2 ,3]},"text":"\\u00e4\\/ä€😀"}`
    expect(await sent(body)).toBe(
      `{ "seed" : 9007199254740993, "model":"${UPSTREAM_MODEL}", "top_p":1.0,"x":1e400,\n "neg":-0,${MESSAGES},"tools":[ {"type": "function"} ],"guided_json":{"a":[1,2 ,3]},"text":"\\u00e4\\/ä€😀","stream":false}`,
    )
  })

  test('with `stream` and `model` in any place and spelling', async () => {
    const body = (model: string, stream: string) => `{"stream": ${stream},${MESSAGES},"mod\\u0065l" : "${model}" }`
    expect(await sent(body('alias\\u002dmodel', 'null'))).toBe(body(UPSTREAM_MODEL, 'false'))
  })

  test('keeps a member called model that lies deeper', async () => {
    const deeper = `"metadata":{"model":"mine","stream":1}`
    expect(await sent(`{${deeper},"model":"${ALIAS}",${MESSAGES}}`)).toStartWith(`{${deeper},"model":"${UPSTREAM_MODEL}"`)
  })

  test('keeps parts of content, vision and tools as they are', async () => {
    const messages = `"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA==","detail":"low"}},{"type":"text","text":"x"}]},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":"r"}]`
    expect(await sent(`{"model":"${ALIAS}",${messages}}`)).toContain(messages)
  })
})

describe('stream_options', () => {
  const stream = (members = '') => `{"model":"${ALIAS}","stream":true,${MESSAGES}${members}}`

  test('asks for usage where the caller said nothing', async () => {
    expect(JSON.parse(await sent(stream()))).toMatchObject({ stream: true, stream_options: { include_usage: true } })
    expect(JSON.parse(await sent(stream(',"stream_options":null')))).toMatchObject({ stream_options: { include_usage: true } })
  })

  test.each(['{"include_usage":false}', '{}', '{"continuous_usage_stats":true}'])(
    '%s of the caller is left alone',
    async given => {
      expect(await sent(stream(`,"stream_options":${given}`))).toContain(`"stream_options":${given}`)
    },
  )

  test('is not added to what is not streamed', async () => {
    expect(await sent(`{"model":"${ALIAS}",${MESSAGES}}`)).not.toContain('stream_options')
  })

  test('is not added where the provider key says so', async () => {
    await restart({ providerKey: { response: { stream_usage: 'off' } } })
    expect(await sent(stream())).not.toContain('stream_options')
  })

  test.each([
    ['400 that names it', 400, { error: { message: 'Unrecognized request argument supplied: stream_options' } }],
    ['422 of FastAPI', 422, { detail: [{ loc: ['body', 'stream_options'], msg: 'extra fields not permitted' }] }],
  ])('refused with a %s is left out at once, and from then on', async (_name, status, refusal) => {
    upstream.answer((request, connection) =>
      request.text.includes('stream_options') ? connection.json(status, refusal) : connection.sse([chatChunk({ content: 'a' })]),
    )
    for (const requests of [2, 3]) {
      const answer = await answerOf(await gateway.post('/v1/chat/completions', stream()))
      expect(answer.status).toBe(200)
      expect(answer.text).toContain('[DONE]')
      expect(upstream.requests).toHaveLength(requests)
    }
    expect(upstream.requests.map(({ text }) => text.includes('stream_options'))).toEqual([true, false, false])
  })

  test('of the caller that is refused is the caller’s to mend', async () => {
    upstream.answer((_request, connection) => connection.json(400, { error: { message: 'no stream_options here' } }))
    const { status } = await gateway.post('/v1/chat/completions', stream(',"stream_options":{"include_usage":true}'))
    expect(status).toBe(400)
    expect(upstream.requests).toHaveLength(1)
  })
})

describe('completions and embeddings', () => {
  test('completions pass every member, and `stream` only when it was said', async () => {
    const body = `{"prompt":[1, 2,3],"model":"${ALIAS}","echo":true,"logprobs":5}`
    expect(await sent(body, '/v1/completions')).toBe(body.replace(ALIAS, UPSTREAM_MODEL))
    expect(upstream.last().path).toBe('/v1/completions')
  })

  test.each(['"text"', '["a","b"]', '[1,2,3]', '[[1,2],[3]]', '[]', '""'])('embeddings pass input %s as it is', async input => {
    const body = `{"input":${input},"model":"${ALIAS}","encoding_format":"base64","dimensions":8}`
    expect(await sent(body, '/v1/embeddings')).toBe(body.replace(ALIAS, UPSTREAM_MODEL))
    expect(upstream.last().path).toBe('/v1/embeddings')
  })

  test('embeddings are never streamed, whatever the body says', async () => {
    upstream.answer((_request, connection) => connection.json(200, { data: [], usage: { prompt_tokens: 1, total_tokens: 1 } }))
    const answer = await answerOf(await gateway.post('/v1/embeddings', { model: ALIAS, input: 'x', stream: true }))
    expect(answer.status).toBe(200)
    expect(answer.headers.get('content-type')).toBe('application/json')
    expect(upstream.last().json()).toEqual({ model: UPSTREAM_MODEL, input: 'x', stream: true })
  })
})

describe('overrides of the body', () => {
  const restartWith = (request: Record<string, unknown>, response: Record<string, unknown> = {}) =>
    restart({ providerKey: { request, response } })
  const ask = async (members: string) => JSON.parse(await sent(`{"model":"${ALIAS}",${MESSAGES},${members}}`))

  test('rename members, replacing what has the new name', async () => {
    await restartWith({ param_renames: { max_tokens: 'max_completion_tokens', absent: 'x' } })
    const body = await ask('"max_tokens":5,"max_completion_tokens":9')
    expect(body).toMatchObject({ max_completion_tokens: 5 })
    expect(body).not.toHaveProperty('max_tokens')
    expect(body).not.toHaveProperty('x')
  })

  test.each([
    ['5', 1.5],
    ['0', 0.5],
    ['1.0', 1.0],
    ['null', null],
  ])('clamp temperature %s to %p', async (given, expected) => {
    await restartWith({ param_constraints: { temperature_min: 0.5, temperature_max: 1.5 } })
    expect(await ask(`"temperature":${given}`)).toMatchObject({ temperature: expected })
    expect(await ask('"top_p":1')).not.toHaveProperty('temperature')
  })

  test('keep the spelling of a number that needs no clamping', async () => {
    await restartWith({ param_constraints: { temperature_max: 1.5 } })
    await ask('"temperature":1.0,"seed":9007199254740993')
    expect(upstream.last().text).toContain('"temperature":1.0,"seed":9007199254740993')
  })

  test('add members that the caller did not send, and no others', async () => {
    await restartWith({ default_body_fields: { top_k: 20, chat_template_kwargs: { enable_thinking: false, note: 'ä€' } } })
    expect(await ask('"top_k":5')).toMatchObject({ top_k: 5, chat_template_kwargs: { enable_thinking: false, note: 'ä€' } })
  })

  test('apply in order: renamed, clamped, defaulted', async () => {
    await restartWith({
      param_renames: { heat: 'temperature' },
      param_constraints: { temperature_max: 1 },
      default_body_fields: { temperature: 0.2, heat: 3 },
    })
    expect(await ask('"heat":2')).toMatchObject({ temperature: 1, heat: 3 })
  })

  test('flatten text parts to one string, and leave content without text alone', async () => {
    await restartWith({}, { content_list_to_string: true })
    const messages =
      '"messages":[{"role":"user","name":"n","content":[{"type":"text","text":"a "},{"type":"image_url","image_url":{}},{"type":"text","text":"ä€"}]},{"role":"user","content":[{"type":"image_url"}]},{"role":"user","content":"plain"},{"role":"assistant","content":null}]'
    expect(JSON.parse(await sent(`{"model":"${ALIAS}",${messages}}`)).messages).toEqual([
      { role: 'user', name: 'n', content: 'a ä€' },
      { role: 'user', content: [{ type: 'image_url' }] },
      { role: 'user', content: 'plain' },
      { role: 'assistant', content: null },
    ])
  })

  test('apply to embeddings and completions too', async () => {
    await restartWith({ default_body_fields: { truncate: true } })
    expect(JSON.parse(await sent(`{"model":"${ALIAS}","input":"x"}`, '/v1/embeddings'))).toMatchObject({ truncate: true })
    expect(JSON.parse(await sent(`{"model":"${ALIAS}","prompt":"x"}`, '/v1/completions'))).toMatchObject({ truncate: true })
  })
})

describe('headers that go upstream', () => {
  /** Names and values of the last request, without what the connection itself needs. */
  const headers = () =>
    Object.fromEntries(
      upstream.last().headers.filter(([name]) => !['connection', 'host', 'content-length', 'x-aisix-request-id'].includes(name)),
    )
  const OWN = {
    accept: 'application/json',
    'accept-encoding': 'identity',
    authorization: `Bearer ${UPSTREAM_SECRET}`,
    'content-type': 'application/json',
    'user-agent': 'aisix/0.1',
  }
  const CALLERS = {
    'user-agent': 'caller/1',
    accept: 'text/plain',
    cookie: 'session=1',
    'x-custom': 'mine',
    'x-api-key': 'sk-other-credential',
    'x-stainless-lang': 'js',
    'openai-organization': 'org',
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    tracestate: 'a=1',
    'proxy-authorization': 'Basic eA==',
    'x-aisix-model': 'y',
    'content-type': 'application/json; charset=utf-8',
  }
  const ask = (given: Record<string, string> = {}, stream = false) =>
    sent(`{"model":"${ALIAS}","stream":${stream},${MESSAGES}}`, undefined, given)

  test('are the gateway’s own and nothing of the caller’s', async () => {
    await ask(CALLERS)
    expect(headers()).toEqual(OWN)
    await ask(CALLERS, true)
    expect(headers()).toEqual({ ...OWN, accept: 'text/event-stream' })
  })

  test('hold the caller’s credential nowhere, in headers or body', async () => {
    await restart({ providerKey: { request: { forward_client_headers: ['*'] } } })
    await ask(CALLERS)
    const all = JSON.stringify(upstream.last())
    expect(all).not.toContain(CALLER_KEY)
    expect(all).not.toContain('sk-other-credential')
  })

  test('let through what the operator lists, and with `*` everything but what is never forwarded', async () => {
    await restart({ providerKey: { request: { forward_client_headers: ['X-Custom', 'openai-*'] } } })
    await ask(CALLERS)
    expect(headers()).toEqual({ ...OWN, 'x-custom': 'mine', 'openai-organization': 'org' })
    await restart({ providerKey: { request: { forward_client_headers: ['*'] } } })
    await ask(CALLERS)
    expect(headers()).toEqual({ ...OWN, 'user-agent': 'caller/1', 'x-custom': 'mine', 'openai-organization': 'org' })
  })

  test('are filled from templates; one with an empty or unknown variable is left out alone', async () => {
    await restart({
      providerKey: {
        display_name: 'pk one',
        request: {
          default_headers: {
            'X-Who': '${request.api_key.name}/${request.api_key.team_id}',
            'x-ids': '${request.id} ${request.api_key.id} ${model.id} ${provider_key.id}',
            'x-names': '${model.name}@${provider_key.name}',
            'x-user': '${request.api_key.user_id}',
            'x-unknown': '${nothing.known}',
            'x-plain': 'plain',
          },
        },
      },
      apiKey: { team_id: 'team-7' },
    })
    await ask({ 'x-aisix-request-id': 'rid-1' })
    const { apiKey, model, providerKey } = gateway.rows
    expect(headers()).toEqual({
      ...OWN,
      'x-who': 'caller one/team-7',
      'x-ids': `rid-1 ${apiKey.id} ${model.id} ${providerKey.id}`,
      'x-names': `${ALIAS}@pk one`,
      'x-plain': 'plain',
    })
  })

  test('of the operator win over the caller’s, and neither replaces the gateway’s own', async () => {
    await restart({
      providerKey: {
        request: {
          default_headers: {
            'x-custom': 'operator',
            Authorization: 'Bearer stolen',
            'content-type': 'text/plain',
            'x-aisix-request-id': 'forged',
            host: 'elsewhere',
            'api-key': 'k',
            cookie: 'c',
          },
          forward_client_headers: ['x-custom', 'authorization', 'cookie', 'host', 'traceparent'],
        },
      },
    })
    await ask(CALLERS)
    expect(headers()).toEqual({ ...OWN, 'x-custom': 'operator' })
    expect(upstream.last().header('x-aisix-request-id')).not.toBe('forged')
    expect(upstream.last().header('host')).toBe(new URL(upstream.url).host)
  })

  test('with a line break in a template or in a name of a key are left out', async () => {
    await restart({
      providerKey: { request: { default_headers: { 'x-broken': 'a\r\nx-injected: 1', 'x-name': '${request.api_key.name}' } } },
      apiKey: { display_name: 'evil\r\nx-injected: 1' },
    })
    await ask()
    expect(headers()).toEqual(OWN)
  })

  test('with letters beyond ASCII from a name of a key are left out, and the request is sent', async () => {
    await restart({
      providerKey: { request: { default_headers: { 'x-name': '${request.api_key.name}', 'x-plain': 'p' } } },
      apiKey: { display_name: 'Jürgen 日本' },
    })
    await ask()
    expect(headers()).toMatchObject({ 'x-plain': 'p' })
    expect(headers()).not.toHaveProperty('x-name')
  })

  test('are the same for streams', async () => {
    await restart({ providerKey: { request: { default_headers: { 'x-a': '1' }, forward_client_headers: ['x-custom'] } } })
    await ask(CALLERS, true)
    expect(headers()).toEqual({ ...OWN, accept: 'text/event-stream', 'x-a': '1', 'x-custom': 'mine' })
  })
})
