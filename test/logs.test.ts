/**
 * The log of the executable at its lowest level, over requests of every kind: no credential, no prompt and no answer is in
 * it, and both forms say the same.
 */
import { beforeAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { z } from 'zod'
import { ADMIN_KEY, type Executable, startExecutable } from './executable.ts'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream, type UpstreamRequest } from './fake-upstream.ts'
import { sha256, until } from './gateway.ts'
import { operatorOf } from './operator.ts'

type Line = { level: string; target: string; message: string; fields: Record<string, string | number | boolean> }
type Run = { text: string; lines: Line[]; forbidden: string[] }

/** One word of letters and digits: what is quoted of a text in an error is often its first word. */
function word(kind: string): string {
  return kind + crypto.randomUUID().replaceAll('-', '')
}

type Scene = {
  gateway: Executable
  upstream: FakeUpstream
  collector: FakeUpstream
  /** A text that must not be in the log. */
  secret: (kind: string) => string
  forbid: (text: string) => void
  callerKey: string
  apiKeyId: string
}

/** A run from the start to the end of a gateway, in which everything happens that is likely to be logged. */
async function run(format: 'text' | 'json'): Promise<Run> {
  const forbidden: string[] = [ADMIN_KEY]
  const forbid = (text: string) => void forbidden.push(text)
  const secret = (kind: string) => {
    const made = word(kind)
    forbid(made)
    return made
  }
  const upstream = await fakeUpstream()
  upstream.answer(upstreamThatMisbehaves(() => secret('answer')))
  const collector = await fakeUpstream()
  collector.answerInTurn(
    (_request, connection) => connection.json(200, {}),
    (request, connection) => connection.json(400, { message: `refused: ${request.header('x-collector-key')}` }),
  )
  const callerKey = secret('callerkey')
  const folder = mkdtempSync(join(tmpdir(), 'aisix-logs-'))
  const observability = { log_level: 'trace', log_format: format, metrics: { prometheus: { enabled: false } } }
  // Callers without a key act as one that is there already.
  const before = await startExecutable({ ready: 'log', folder, config: { observability } })
  const principal = operatorOf(before).write('apikeys', { key_hash: sha256(callerKey), allowed_models: ['*'] })
  const api_key_id = await principal.finally(() => before.stop())
  const anonymous = { api_key_id, source_cidrs: ['127.0.0.0/8'], paths: ['/api/*'] }
  const gateway = await startExecutable({
    ready: 'log',
    folder,
    config: { proxy: { request_body_limit_bytes: BODY_BYTES_MAX, anonymous }, observability },
  })
  const scene = { gateway, upstream, collector, secret, forbid, callerKey, apiKeyId: api_key_id }
  try {
    await operate(scene)
    await call(scene)
    await collector.arrived(1)
    await call(scene)
    await until('the log tells of the delivery that failed', () => gateway.stderr().includes('an exporter fails'))
    expect(collector.requests.map(({ text }) => text).join()).toContain('prompt')
    expect(await gateway.stop()).toBe(0)
  } finally {
    await gateway.dispose()
    upstream.stop()
    collector.stop()
    rmSync(folder, { recursive: true, force: true })
  }
  const text = before.stderr() + gateway.stderr()
  const lines = text.split('\n').filter(line => line !== '')
  return { text, lines: lines.map(format === 'json' ? readJson : readText), forbidden }
}

function upstreamThatMisbehaves(answer: () => string): Parameters<FakeUpstream['answer']>[0] {
  return async (request, connection) => {
    const model = /"model":"([^"]*)"/.exec(request.text)?.[1] ?? ''
    const isStream = isStreamed(request)
    switch (model) {
      case 'fails':
        return connection.json(500, { error: { message: 'out of memory' } })
      case 'refuses':
        return connection.json(422, { error: { message: 'this model takes no images' } })
      case 'echoes':
        // Some servers repeat what they were asked in the words of their errors.
        if (!isStreamed(request)) return connection.json(422, { error: { message: `wrong: ${request.text}` } })
        return connection.send(200, brokenStream(request, answer()), { 'content-type': typeOf(request) })
      case 'babbles':
        if (request.path.startsWith('/api/')) {
          return connection.send(200, `${answer()} is no JSON\n`, { 'content-type': 'application/x-ndjson' })
        }
        if (!isStream) return connection.send(200, `${answer()} is no JSON`, { 'content-type': 'application/json' })
        return connection.sse([`{"choices": ${answer()}}`, `${answer()} is no JSON`])
      case 'lies':
        return connection.json(200, { text: answer() })
      case 'cuts':
        if (!isStream) return connection.reset()
        await connection.streamHead()
        await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: answer() }))}\n\n`)
        return connection.reset()
      case 'stalls':
        return connection.stall()
    }
    const native = nativeAnswer(request, answer)
    if (native) return connection.send(200, native.body, { 'content-type': native.type })
    if (request.path.endsWith('/embeddings')) {
      return connection.json(200, {
        object: 'list',
        model: 'm',
        data: [{ index: 0, embedding: [1] }],
        usage: { prompt_tokens: 1, total_tokens: 1 },
      })
    }
    if (isStream) return connection.sse([chatChunk({ content: answer() }), chatChunk({ reasoning: answer() }), chatChunk({})])
    return connection.json(200, chatAnswer(answer()))
  }
}

const isStreamed = ({ path, text }: UpstreamRequest) =>
  /"stream":true/.test(text) || (isOllama(path) && !/"stream":false/.test(text))
const isOllama = (path: string) => path.startsWith('/api/')
const typeOf = (request: UpstreamRequest) =>
  !isStreamed(request) ? 'application/json' : isOllama(request.path) ? 'application/x-ndjson' : 'text/event-stream'

const framed = (request: UpstreamRequest, events: readonly object[]) =>
  events.map(event => (isOllama(request.path) ? `${JSON.stringify(event)}\n` : `data: ${JSON.stringify(event)}\n\n`)).join('')

/** A stream that says something, and then has an error that repeats the question. */
function brokenStream(request: UpstreamRequest, said: string): string {
  const { path, text } = request
  const message = `wrong: ${text}`
  if (path === '/v1/messages') {
    const delta = { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: said } }
    return framed(request, [delta, { type: 'error', error: { type: 'api_error', message } }])
  }
  if (path === '/v1/responses') {
    return framed(request, [
      { type: 'response.output_text.delta', delta: said },
      { type: 'error', message },
    ])
  }
  if (isOllama(path)) return framed(request, [{ response: said }, { error: message }])
  return framed(request, [chatChunk({ content: said }), { error: { message } }])
}

/** What servers answer that speak the dialect of the caller, and those whose answers nobody looks into. */
function nativeAnswer(request: UpstreamRequest, answer: () => string): { body: string; type: string } | undefined {
  const { path } = request
  const type = typeOf(request)
  const sent = (whole: object, events: readonly object[] = []) =>
    isStreamed(request) ? { body: framed(request, events), type } : { body: JSON.stringify(whole), type }
  const message = { type: 'message', role: 'assistant', content: [{ type: 'text', text: answer() }], stop_reason: 'end_turn' }
  const response = { object: 'response', status: 'completed', output: [{ content: [{ type: 'output_text', text: answer() }] }] }
  switch (path) {
    case '/v1/messages':
      return sent(message, [
        { type: 'message_start', message: { ...message, content: [] } },
        { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: answer() } },
        { type: 'message_stop' },
      ])
    case '/v1/responses':
      return sent(response, [
        { type: 'response.output_text.delta', delta: answer() },
        { type: 'response.completed', response },
      ])
    case '/api/chat':
    case '/api/generate': {
      const said = { response: answer(), message: { role: 'assistant', content: answer() }, done: true, done_reason: 'stop' }
      return sent(said, [{ ...said, done: false }, said])
    }
    case '/v1/audio/speech':
      return { body: answer(), type: 'audio/mpeg' }
    case '/tokenize':
    case '/v1/messages/count_tokens':
      return { body: JSON.stringify({ count: 3, tokens: [1, 2, 3], input_tokens: 3, token_strs: [answer()] }), type }
  }
  const isRelayed = /\/(rerank|score|classify|pooling|detokenize|images\/generations)$/.test(path)
  return isRelayed ? { body: JSON.stringify({ results: [answer()], data: [{ label: answer() }] }), type } : undefined
}

const BODY_BYTES_MAX = 20_000
const MODELS = ['good', 'fails', 'refuses', 'echoes', 'babbles', 'lies', 'cuts', 'stalls', 'absent'] as const

async function operate({ gateway, upstream, collector, secret, forbid, apiKeyId }: Scene): Promise<void> {
  const { ask, write } = operatorOf(gateway)
  const key = { provider: 'vllm', adapter: 'openai', secret: secret('providersecret') }
  const provider_key_id = await write('provider_keys', { ...key, display_name: 'server', api_base: upstream.url })
  const gone = await write('provider_keys', { ...key, display_name: 'gone', api_base: 'http://127.0.0.1:9/v1' })
  const messages = { ...key, secret: secret('providersecret'), adapter: 'anthropic', api_base: upstream.url }
  const responses = { ...key, secret: secret('providersecret'), response: { native_responses: true }, api_base: upstream.url }
  const roads = [
    { prefix: '', provider: 'vllm', provider_key_id },
    { prefix: 'messages/', provider: 'vllm', provider_key_id: await write('provider_keys', { ...messages, display_name: 'm' }) },
    {
      prefix: 'responses/',
      provider: 'vllm',
      provider_key_id: await write('provider_keys', { ...responses, display_name: 'r' }),
    },
    { prefix: 'ollama/', provider: 'ollama', provider_key_id },
  ]
  for (const [{ prefix, provider, provider_key_id }, name] of roads.flatMap(road =>
    MODELS.map((each): [typeof road, (typeof MODELS)[number]] => [road, each]),
  )) {
    await write('models', {
      display_name: prefix + name,
      provider,
      model_name: name,
      provider_key_id: name === 'absent' ? gone : provider_key_id,
      retries: name === 'fails' ? 1 : 0,
      cooldown: { enabled: false },
      cost: { input_per_1k: 1, output_per_1k: 1 },
    })
  }
  await write('models', { display_name: 'group', routing: { targets: [{ model: 'fails' }, { model: 'good' }] } })
  await write('budgets', { name: 'small', scope: 'all', limit_usd: 0.01, period: 'total', warn_at: [1], action: 'warn' })
  await write('observability_exporters', {
    name: 'collector',
    kind: 'otlp_http',
    endpoint: `${collector.origin}/v1/traces?token=${secret('token')}`,
    headers: { 'x-collector-key': secret('collectorsecret') },
    content_mode: 'full',
  })
  // Writes that are refused, with a credential in the wrong place, of the wrong form, or beside something wrong.
  const bad: [path: string, document: unknown][] = [
    ['provider_keys', { ...key, display_name: 'x', api_base: `http://user:${secret('password')}@127.0.0.1/v1` }],
    ['provider_keys', { ...key, display_name: 'x', api_base: 'nonsense', secret: secret('newsecret') }],
    ['provider_keys', { display_name: 'x', secret: [secret('listed')] }],
    ['apikeys', { key: secret('plainkey'), allowed_models: ['*'] }],
    ['observability_exporters', { name: 'y', kind: 'otlp_http', endpoint: 'http://c/', headers: { 'a b': secret('header') } }],
  ]
  for (const [path, document] of bad) {
    const answer = await ask('POST', path, document)
    await answer.text()
    expect(`${path} ${answer.status}`).toBe(`${path} 400`)
  }
  const otherKey = await write('apikeys', { key_hash: sha256('x'), allowed_models: [] })
  const rotated = await (await ask('POST', `apikeys/${otherKey}/rotate`)).text()
  const plaintext = /"plaintext":"([^"]+)"/.exec(rotated)?.[1] ?? ''
  expect(plaintext).toStartWith('sk-')
  forbid(plaintext)
  expect((await ask('GET', `apikeys/${apiKeyId}`)).status).toBe(200)
  for (const presented of [`Bearer ${secret('adminkey')}`, `Basic ${secret('basic')}`]) {
    const answer = await fetch(`${gateway.adminUrl}/admin/v1/models?key=${secret('query')}`, {
      headers: { authorization: presented },
    })
    expect(answer.status).toBe(401)
  }
}

async function call(scene: Scene): Promise<void> {
  const { gateway, upstream, secret, callerKey } = scene
  const post = (path: string, body: unknown, headers: Record<string, string> = {}, signal?: AbortSignal) =>
    fetch(`${gateway.proxyUrl}${path}?api_key=${secret('query')}`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        cookie: `session=${secret('cookie')}`,
        ...(Object.keys(headers).some(name => name === 'authorization' || name === 'x-api-key')
          ? {}
          : { authorization: `Bearer ${callerKey}` }),
        ...headers,
      },
      body: typeof body === 'string' ? body : JSON.stringify(body),
      ...(signal ? { signal } : {}),
    })
  const status = async (answering: Promise<Response>): Promise<number> => {
    const answer = await answering
    // A stream that was cut ends with an error here.
    await answer.text().catch(() => {})
    return answer.status
  }
  const messages = () => [
    { role: 'system', content: secret('prompt') },
    { role: 'user', content: secret('prompt') },
  ]
  const chat = (model: string, more: object = {}, headers = {}) =>
    status(post('/v1/chat/completions', { model, messages: messages(), ...more }, headers))

  for (const model of [...MODELS.filter(name => name !== 'stalls'), 'group']) {
    for (const stream of [false, true]) {
      const answered = await chat(model, {
        stream,
        user: secret('person'),
        tools: [{ type: 'function', function: { name: secret('tool') } }],
      })
      if (model === 'good' || model === 'group') expect(answered).toBe(200)
    }
  }
  expect(await status(post('/v1/completions', { model: 'good', prompt: secret('prompt') }))).toBe(200)
  expect(await status(post('/v1/embeddings', { model: 'good', input: [secret('prompt')] }))).toBe(200)
  await callInOtherDialects(scene)
  expect(await chat('no-such-model')).toBe(404)
  // Questions that are none, with a prompt where the reader stumbles.
  const stumbling = [
    `{"model": "good", "messages": ${secret('prompt')}}`,
    `{"model": "good", "messages": [{"role": "user", "content": "${secret('prompt')}`,
    secret('prompt'),
    `"${secret('prompt')}"`,
    JSON.stringify({ model: 'good', messages: secret('prompt') }),
    JSON.stringify({ model: { name: secret('prompt') }, messages: [] }),
    JSON.stringify({ model: 'good', messages: messages(), stream: secret('prompt') }),
    `{"model": "good", "model": "good", "messages": [{"role": "user", "content": "${secret('prompt')}"}]}`,
  ]
  for (const body of stumbling) expect(await status(post('/v1/chat/completions', body))).toBe(400)
  // Credentials that open nothing.
  const presented: Record<string, string>[] = [
    { authorization: `Bearer ${secret('wrongkey')}` },
    { authorization: `Basic ${secret('basic')}` },
    { authorization: secret('bare') },
    { 'x-api-key': secret('wrongkey') },
  ]
  for (const headers of presented) expect(await chat('good', {}, headers)).toBe(401)
  expect(await chat('good', { padding: secret('prompt').padEnd(BODY_BYTES_MAX + 1) })).toBe(413)
  const leaving = new AbortController()
  const before = disconnects(gateway)
  const arriving = upstream.arrived(upstream.requests.length + 1)
  const left = post('/v1/chat/completions', { model: 'stalls', messages: messages() }, {}, leaving.signal).catch(() => undefined)
  await arriving
  leaving.abort()
  await left
  await until('the log tells that a caller left', () => disconnects(gateway) > before)
}

/** The doors of other dialects, in front of servers that are asked in chat and of such that speak them; and callers without a key. */
async function callInOtherDialects({ gateway, secret, callerKey }: Scene): Promise<void> {
  const ask = async (path: string, body: object, headers: Record<string, string>): Promise<number> => {
    const answer = await fetch(`${gateway.proxyUrl}${path}?key=${secret('query')}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', cookie: `session=${secret('cookie')}`, ...headers },
      body: JSON.stringify(body),
    })
    await answer.arrayBuffer().catch(() => {})
    return answer.status
  }
  const turns = () => [{ role: 'user', content: secret('prompt') }]
  const doors: [path: string, native: string | undefined, body: () => object][] = [
    ['/v1/chat/completions', 'messages/', () => ({ messages: turns() })],
    [
      '/v1/messages',
      'messages/',
      () => ({ messages: turns(), system: secret('prompt'), metadata: { user_id: secret('person') } }),
    ],
    ['/v1/messages/count_tokens', 'messages/', () => ({ messages: turns() })],
    ['/v1/responses', 'responses/', () => ({ input: secret('prompt'), instructions: secret('prompt'), user: secret('person') })],
    ['/api/chat', 'ollama/', () => ({ messages: turns(), keep_alive: secret('prompt') })],
    ['/api/generate', 'ollama/', () => ({ prompt: secret('prompt'), system: secret('prompt'), keep_alive: secret('prompt') })],
    ['/api/embed', undefined, () => ({ input: [secret('prompt')] })],
    ['/api/embeddings', undefined, () => ({ prompt: secret('prompt') })],
    ['/v1/rerank', undefined, () => ({ query: secret('prompt'), documents: [secret('prompt')] })],
    ['/v1/score', undefined, () => ({ text_1: secret('prompt'), text_2: secret('prompt') })],
    ['/classify', undefined, () => ({ input: secret('prompt') })],
    ['/pooling', undefined, () => ({ input: secret('prompt') })],
    ['/tokenize', undefined, () => ({ prompt: secret('prompt') })],
    ['/v1/detokenize', undefined, () => ({ tokens: [1], prompt: secret('prompt') })],
    ['/v1/images/generations', undefined, () => ({ prompt: secret('prompt') })],
    ['/v1/audio/speech', undefined, () => ({ input: secret('prompt'), voice: secret('prompt') })],
  ]
  const asking: Promise<void>[] = []
  const expectGood = async (model: string, path: string, answering: Promise<number>) => {
    const status = await answering
    if (model.endsWith('good')) expect(`${path} ${model} ${status}`).toBe(`${path} ${model} 200`)
  }
  const owner: Record<string, string>[] = [{ authorization: `Bearer ${callerKey}` }, { 'x-api-key': callerKey }]
  for (const [path, native, body] of doors) {
    const streams = native === undefined ? [false] : [false, true]
    for (const prefix of native === undefined ? [''] : ['', native]) {
      for (const name of MODELS.filter(each => each !== 'stalls')) {
        for (const stream of streams) {
          const model = prefix + name
          // Without a credential in the last case: such callers are let in on some paths.
          const callers = isOllama(path) ? [...owner, {}] : owner
          const headers = callers[asking.length % callers.length] ?? {}
          asking.push(expectGood(model, path, ask(path, { model, stream, ...body() }, headers)))
        }
      }
    }
    for (const wrong of [{ messages: secret('prompt'), input: 5 }, { [secret('prompt')]: 1 }]) {
      asking.push(expectGood('', path, ask(path, { ...wrong, model: { name: secret('prompt') } }, owner[0] ?? {})))
    }
    if (isOllama(path)) asking.push(expectGood('good', path, ask(path, { model: 'good', ...body() }, {})))
    asking.push(
      ask(path, { model: 'good', ...body() }, { 'x-api-key': secret('wrongkey') }).then(status => expect(status).toBe(401)),
    )
  }
  await Promise.all(asking)
}

const disconnects = (gateway: Executable) => gateway.stderr().match(/\bstatus(=|":)499\b/g)?.length ?? 0

function readText(line: string): Line {
  const [, level = '', target = '', rest = ''] = /^\d{4}-\d\d-\d\dT[\d:.]+Z +([A-Z]+) ([\w:]+): (.*)$/.exec(line) ?? []
  expect(level, line).not.toBe('')
  const fields: Line['fields'] = {}
  let message = rest
  for (;;) {
    const last = / (\w+)=("(?:[^"\\]|\\.)*"|[\w.+-]+)$/.exec(message)
    if (!last?.[1] || !last[2]) break
    fields[last[1]] = JSON.parse(last[2])
    message = message.slice(0, last.index)
  }
  return { level: level.toLowerCase(), target, message, fields }
}

function readJson(line: string): Line {
  const document: unknown = JSON.parse(line)
  const { timestamp, level, target, message, ...fields } = JsonLine.parse(document)
  expect(Object.keys(Object(document)).slice(0, 4)).toEqual(['timestamp', 'level', 'target', 'message'])
  expect(new Date(timestamp).toISOString()).toBe(timestamp)
  return { level, target, message, fields }
}

const JsonLine = z
  .object({
    timestamp: z.string(),
    level: z.enum(['trace', 'debug', 'info', 'warn', 'error']),
    target: z.string(),
    message: z.string(),
  })
  .catchall(z.union([z.string(), z.number(), z.boolean()]))

const runs: Partial<Record<'text' | 'json', Run>> = {}
beforeAll(async () => {
  ;[runs.text, runs.json] = await Promise.all([run('text'), run('json')])
}, 60_000)

function runOf(format: 'text' | 'json'): Run {
  const found = runs[format]
  if (!found) throw new Error('the run did not come to its end')
  return found
}

/** Lines without which the run would not show much. */
const EXPECTED = [
  ['aisix', 'gateway started'],
  ['admin', 'admin write'],
  ['admin', 'auth rejected'],
  ['auth', 'auth rejected'],
  ['access', 'proxy request completed'],
  ['access', 'provider call completed'],
  ['proxy', 'proxy stream opened'],
  ['proxy', 'request body over the limit'],
  ['upstream', 'upstream call failed'],
  ['upstream', 'upstream answered with an error'],
  ['upstream', 'attempt failed, another follows'],
  ['budgets', 'budget warning'],
  ['aisix', 'draining'],
  ['aisix', 'drain complete'],
] as const

describe.each(['text', 'json'] as const)('the log as %s, at level trace,', format => {
  test('has the lines of a run with every kind of request', () => {
    const seen = new Set(runOf(format).lines.map(({ target, message }) => `${target}: ${message}`))
    for (const [target, message] of EXPECTED) expect([...seen]).toContain(`${target}: ${message}`)
    expect([...seen].some(line => line.startsWith('exporters: an exporter fails'))).toBe(true)
  })

  test('has no credential, no prompt and no answer in it, nor the beginning of one', () => {
    const { text, forbidden } = runOf(format)
    expect(forbidden.length).toBeGreaterThan(1_000)
    for (const each of forbidden) expect(text).not.toContain(each.slice(0, 20))
  })

  test('has one access line a finished request, and none of those without a valid key', () => {
    const access = runOf(format).lines.filter(({ message }) => message === 'proxy request completed')
    const statuses = access.map(({ fields }) => fields.status)
    expect(new Set(statuses)).toEqual(new Set([200, 400, 404, 413, 422, 499, 502]))
    const ids = access.map(({ fields }) => fields.request_id)
    expect(new Set(ids).size).toBe(ids.length)
    for (const { fields } of access) {
      for (const name of ['method', 'path', 'status', 'latency_ms', 'request_id']) expect(fields[name]).toBeDefined()
      expect(String(fields.path)).not.toContain('?')
    }
  })
})

test('both forms tell the same lines with the same fields', () => {
  const shape = ({ lines }: Run) => {
    const byLine = new Map<string, Set<string>>()
    for (const { level, target, message, fields } of lines) {
      const key = `${level} ${target}: ${message}`
      const names = byLine.get(key) ?? new Set()
      for (const [name, value] of Object.entries(fields)) names.add(`${name} (${typeof value})`)
      byLine.set(key, names)
    }
    return Object.fromEntries([...byLine].sort().map(([key, names]) => [key, [...names].sort()]))
  }
  expect(shape(runOf('json'))).toEqual(shape(runOf('text')))
})

test('docs/logs.md has every line of the run and every field of it', () => {
  const reference = readFileSync(join(resolve(import.meta.dir, '..'), 'docs/logs.md'), 'utf8')
  for (const { target, message, fields } of runOf('text').lines) {
    expect(reference).toContain(`\`${message}\``)
    expect(reference).toContain(`\`${target}\``)
    for (const name of Object.keys(fields)) expect(reference, message).toContain(`\`${name}\``)
  }
})
