/** What the log says about a request, and what it never says. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, answerOf, CALLER_KEY, startGateway, type TestGateway, UPSTREAM_SECRET } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
})
beforeEach(async () => {
  upstream.answer((_request, connection) => connection.json(200, chatAnswer()))
  gateway = await startGateway({ upstream: upstream.url })
})
afterEach(async () => {
  await gateway.idle()
  await gateway.stop()
})
afterAll(() => upstream.stop())

/** The `key=value` fields of a line. */
function fieldsOf(line: string): Record<string, string> {
  return Object.fromEntries([...line.matchAll(/ (\w+)=("(?:[^"\\]|\\.)*"|\S+)/g)].map(([, key = '', value = '']) => [key, value]))
}

describe('the access line', () => {
  test('of a good answer tells who, what, how long and how many tokens', async () => {
    const { headers } = await answerOf(await gateway.chat())
    const line = await gateway.accessLine()
    expect(line).toMatch(/^\S+Z {2}INFO access: proxy request completed /)
    const { latency_ms, ...fields } = fieldsOf(line)
    expect(Number(latency_ms)).toBeGreaterThanOrEqual(0)
    expect(fields).toEqual({
      method: '"POST"',
      path: '"/v1/chat/completions"',
      status: '200',
      provider: '"vllm"',
      model: `"${ALIAS}"`,
      api_key_id: `"${gateway.rows.apiKey.id}"`,
      prompt_tokens: '5',
      completion_tokens: '7',
      total_tokens: '12',
      request_id: `"${headers.get('x-aisix-request-id')}"`,
      provider_request_id: '"chatcmpl-upstream-1"',
    })
  })

  test('of a stream comes once, when the stream is over', async () => {
    const goOn = Promise.withResolvers<void>()
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'A' }))}\n\n`)
      await goOn.promise
      await connection.chunk('data: [DONE]\n\n')
      await connection.endChunks()
    })
    const response = await gateway.chat({ stream: true })
    const access = () => gateway.logs.filter(line => line.includes('access: proxy request completed'))
    expect(access()).toEqual([])
    expect(gateway.logs.some(line => line.includes('DEBUG proxy: proxy stream opened'))).toBe(true)
    goOn.resolve()
    await response.text()
    await gateway.idle()
    expect(access()).toHaveLength(1)
    expect(fieldsOf(access()[0] ?? '')).toMatchObject({
      status: '200',
      stream: 'true',
      completion_tokens: '1',
      usage_estimated: 'true',
    })
  })

  test('of an error tells its kind and its words', async () => {
    await gateway.chat({ model: 'unknown' })
    expect(fieldsOf(await gateway.accessLine())).toMatchObject({
      status: '404',
      error_kind: '"model_not_found"',
      error: '"model \\"unknown\\" not found"',
    })
    expect(await gateway.accessLine()).not.toContain('tokens')
  })

  test('of a question without usage in its answer has estimates, marked', async () => {
    upstream.answer((_request, connection) => connection.json(200, { choices: [{ message: { content: 'x'.repeat(400) } }] }))
    await gateway.chat()
    const fields = fieldsOf(await gateway.accessLine())
    expect(fields.usage_estimated).toBe('true')
    expect(Number(fields.prompt_tokens)).toBeGreaterThan(0)
    expect(Number(fields.completion_tokens)).toBeGreaterThanOrEqual(100)
  })

  test('is there for paths that lead nowhere, and not for probes', async () => {
    await gateway.get('/livez')
    await gateway.get('/nowhere')
    await gateway.idle()
    const paths = gateway.logs.filter(line => line.includes('access: ')).map(line => fieldsOf(line).path)
    expect(paths).toEqual(['"/nowhere"'])
  })
})

describe('the health of a model', () => {
  test('counts failures of its upstream in a row, and a success forgets them', async () => {
    const failures = () => gateway.gateway.modelHealth.failures(gateway.rows.model.id)
    upstream.answer((_request, connection) => connection.send(500, ''))
    await gateway.chat()
    await gateway.chat()
    expect(failures()).toBe(2)
    upstream.answer((_request, connection) => connection.json(400, {}))
    await gateway.chat()
    expect(failures()).toBe(2)
    upstream.answer((_request, connection) => connection.json(200, chatAnswer()))
    await gateway.chat()
    expect(failures()).toBe(0)
  })
})

test('no line of the log, at level trace, holds a credential, a prompt or a completion, however requests end', async () => {
  const prompt = 'PROMPT-WORD'
  const completion = 'COMPLETION-WORD'
  const bad = 'sk-unknown-credential'
  const messages = [{ role: 'user', content: prompt }]
  const chunk = chatChunk({ content: completion })
  const handlers: Parameters<FakeUpstream['answer']>[0][] = [
    (_request, connection) => connection.json(200, chatAnswer(completion)),
    (_request, connection) => connection.sse([chunk]),
    (_request, connection) => connection.sse([chunk, `{"cut": "${completion}`]),
    (_request, connection) => connection.sse([chunk], { done: null, chunked: false }),
    (_request, connection) => connection.send(200, `<html>${completion}`),
    (_request, connection) => connection.send(200, `{"choices":[{"message":{"content":"${completion}`),
    (_request, connection) => connection.reset(),
    async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(`data: ${JSON.stringify(chunk)}\n\ndata: {"choices":[{"delta":{"content":"${completion}`)
      connection.reset()
    },
  ]
  for (const handler of handlers) {
    upstream.answer(handler)
    for (const stream of [false, true]) await (await gateway.chat({ stream, messages })).text()
  }
  await gateway.post('/v1/chat/completions', `{"model":"${ALIAS}","messages":[{"content":"${prompt}`)
  await gateway.chat({ messages: prompt })
  await gateway.chat({ model: 'unknown', messages })
  for (const authorization of [`Bearer ${bad}`, `Basic ${bad}`, bad]) await gateway.chat({ messages }, { authorization })
  await gateway.get('/v1/models', { 'x-api-key': bad })
  await gateway.idle()
  const all = gateway.logs.join('\n')
  expect(gateway.logs.length).toBeGreaterThan(20)
  for (const secret of [CALLER_KEY, UPSTREAM_SECRET, bad, prompt, completion, gateway.rows.apiKey.value.key_hash]) {
    expect(all).not.toContain(secret)
  }
  expect(all).not.toContain(`127.0.0.1:${upstream.port}/v1`)
})
