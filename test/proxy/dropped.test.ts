/** What a translation leaves out is told in the head of the answer. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: upstream.url })
})
afterEach(() => gateway.idle())
afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})

const warningOf = async (path: string, body: Record<string, unknown>) => {
  upstream.answer((_request, connection) =>
    body.stream === true ? connection.sse([chatChunk({ content: 'hi' })]) : connection.json(200, chatAnswer('hi')),
  )
  const got = await gateway.post(path, JSON.stringify({ model: ALIAS, ...body }))
  await got.text()
  expect(got.status).toBe(200)
  return got.headers.get('x-aisix-warning')
}

const TEXT = { type: 'text', text: 'x' }
const message = (...content: unknown[]) => ({ max_tokens: 5, messages: [{ role: 'user', content: [TEXT, ...content] }] })
const WHY = ': the model server has nothing for this; it was left out'

describe.each([false, true])('(stream: %p)', stream => {
  test('blocks and tools of Anthropic are named', async () => {
    const body = { ...message({ type: 'search_result' }), tools: [{ type: 'bash_20250124', name: 'bash' }] }
    expect(await warningOf('/v1/messages', { ...body, stream })).toBe(
      `messages.0.content.1 (search_result), tools.0 (bash_20250124)${WHY}`,
    )
    expect(await warningOf('/v1/messages', { ...message(), stream })).toBeNull()
  })

  test('items and tools of OpenAI are named', async () => {
    const body = { input: ['x', { type: 'web_search_call' }], tools: [{ type: 'mcp' }] }
    expect(await warningOf('/v1/responses', { ...body, stream })).toBe(`input[1] (web_search_call), tools[0] (mcp)${WHY}`)
    expect(await warningOf('/v1/responses', { input: 'x', stream })).toBeNull()
  })
})

test('a type is told as a header can hold it, and a long list is cut', async () => {
  expect(await warningOf('/v1/messages', message({ type: 'ä\r\nset-cookie: x' }))).toBe(
    `messages.0.content.1 (???set-cookie: x)${WHY}`,
  )
  const warning = (await warningOf('/v1/messages', message(...Array(20).fill({ type: 'x'.repeat(500) })))) ?? ''
  expect(warning).toEndWith(` and 12 more${WHY}`)
  expect(warning.length).toBeLessThan(1_000)
})

test('a server that speaks the dialect is sent all of it: nothing is left out', async () => {
  const key = await gateway.addProviderKey({ api_base: upstream.url, adapter: 'anthropic', provider: 'other' })
  await gateway.addModel({ display_name: 'native', provider: 'other', provider_key_id: key.id })
  upstream.answer((_request, connection) => connection.json(200, { type: 'message', content: [], usage: {} }))
  const got = await gateway.post('/v1/messages', JSON.stringify({ model: 'native', ...message({ type: 'search_result' }) }))
  await got.text()
  expect([got.status, got.headers.get('x-aisix-warning')]).toEqual([200, null])
})
