/** Numbers with more digits than a number of JavaScript has, on every road where a body is made anew. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway } from '../gateway.ts'

const LONG = '12345678901234567890'
const ARGUMENTS = `{"id":${LONG}}`

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: upstream.url })
  const claude = await gateway.addProviderKey({ api_base: upstream.url, provider: 'claude', adapter: 'anthropic' })
  await gateway.addModel({ display_name: 'claude', provider_key_id: claude.id })
})
afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})

const call = { index: 0, id: 'call_1', type: 'function', function: { name: 'f', arguments: ARGUMENTS } }
const asked = { role: 'user', content: 'Hi' }
const tool = { name: 'f', input_schema: { type: 'object' } }

describe('arguments of a tool call', () => {
  test.each([
    ['/v1/messages', { model: ALIAS, max_tokens: 9, messages: [asked], tools: [tool] }, false],
    ['/v1/messages', { model: ALIAS, max_tokens: 9, messages: [asked], tools: [tool], stream: true }, true],
    ['/api/chat', { model: ALIAS, messages: [asked], stream: false }, false],
    ['/api/chat', { model: ALIAS, messages: [asked], stream: true }, true],
    ['/v1/responses', { model: ALIAS, input: 'Hi' }, false],
  ] as const)('come to the callers of %s as the model wrote them: %j', async (path, body, isStream) => {
    upstream.answer((_request, connection) =>
      isStream
        ? connection.sse([
            chatChunk({ role: 'assistant', tool_calls: [call] }),
            chatChunk({}, { choices: [{ index: 0, delta: {}, finish_reason: 'tool_calls' }] }),
          ])
        : connection.json(
            200,
            chatAnswer('', {
              choices: [
                { index: 0, message: { role: 'assistant', content: null, tool_calls: [call] }, finish_reason: 'tool_calls' },
              ],
            }),
          ),
    )
    expect(await (await gateway.post(path, body)).text()).toContain(LONG)
  })

  test('go from callers of Messages to servers of chat as they were', async () => {
    upstream.answer((_request, connection) => connection.json(200, chatAnswer()))
    await gateway.post(
      '/v1/messages',
      `{"model":"${ALIAS}","max_tokens":9,"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"f","input":${ARGUMENTS}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"x"}]}]}`,
    )
    expect(upstream.last().text).toContain(JSON.stringify(ARGUMENTS))
  })

  test('go from callers of chat to servers of Messages and back as they were', async () => {
    upstream.answer((_request, connection) =>
      connection.send(
        200,
        `{"id":"m","type":"message","role":"assistant","model":"x","content":[{"type":"tool_use","id":"t2","name":"f","input":${ARGUMENTS}}],"stop_reason":"tool_use","usage":{"input_tokens":1,"output_tokens":1}}`,
        { 'content-type': 'application/json' },
      ),
    )
    const answer = await gateway.chat({
      model: 'claude',
      messages: [
        asked,
        { role: 'assistant', content: null, tool_calls: [call] },
        { role: 'tool', tool_call_id: 'call_1', content: 'x' },
      ],
    })
    expect(upstream.last().text).toContain(`"input":${ARGUMENTS}`)
    expect(await answer.text()).toContain(JSON.stringify(ARGUMENTS))
  })
})
