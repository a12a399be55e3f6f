/** What Anthropic's cache gave and took is charged once, in whichever dialect the caller asks. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { usageJson } from '../../src/telemetry/usage-record.ts'
import { type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, startGateway, type TestGateway, UPSTREAM_MODEL } from '../gateway.ts'
import { samplesOf } from '../telemetry/page.ts'

const USAGE = { input_tokens: 5, output_tokens: 2, cache_read_input_tokens: 20_000, cache_creation_input_tokens: 1_000 }
const MESSAGE = {
  id: 'msg_1',
  type: 'message',
  role: 'assistant',
  model: UPSTREAM_MODEL,
  content: [{ type: 'text', text: 'hi' }],
  stop_reason: 'end_turn',
  usage: USAGE,
}
const EVENTS = [
  { type: 'message_start', message: { ...MESSAGE, content: [], usage: { ...USAGE, output_tokens: 1 } } },
  { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
  { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'hi' } },
  { type: 'content_block_stop', index: 0 },
  { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 2 } },
  { type: 'message_stop' },
]
const MESSAGES = [{ role: 'user', content: 'hi' }]
const ASKED: [path: string, body: Record<string, unknown>][] = [
  ['/v1/chat/completions', { messages: MESSAGES, stream_options: { include_usage: true } }],
  ['/v1/messages', { messages: MESSAGES, max_tokens: 5 }],
  ['/v1/responses', { input: 'hi' }],
  ['/api/chat', { messages: MESSAGES }],
]

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
})
afterAll(() => upstream.stop())
beforeEach(async () => {
  gateway = await startGateway({
    upstream: upstream.url,
    providerKey: { adapter: 'anthropic' },
    model: { cost: { input_per_1k: 1, output_per_1k: 2 } },
  })
  return () => gateway.stop()
})

async function ask(path: string, body: Record<string, unknown>, stream: boolean): Promise<string> {
  upstream.answer((_request, connection) => (stream ? connection.sse(EVENTS, { done: null }) : connection.json(200, MESSAGE)))
  const got = await gateway.post(path, JSON.stringify({ model: ALIAS, ...body, stream }))
  const text = await got.text()
  expect(got.status).toBe(200)
  await gateway.idle()
  return text
}

describe.each(ASKED)('asked on %s', (path, body) => {
  test.each([false, true])('(stream: %p) the record, its cost and the counters have all of the prompt', async stream => {
    await ask(path, body, stream)
    const [record] = gateway.telemetry.records
    if (!record) throw new Error('there is no record')
    expect(usageJson(record)).toMatchObject({
      prompt_tokens: 21_005,
      completion_tokens: 2,
      cached_prompt_tokens: 20_000,
      cache_read_tokens: 20_000,
      cache_creation_tokens: 1_000,
      cost_usd: 21.009,
    })
    const samples = samplesOf(gateway.telemetry.registry.render())
    const sum = (name: string) => samples.filter(sample => sample.name === name).map(({ value }) => value)
    expect(sum('aisix_llm_input_tokens_total')).toEqual([21_005])
    expect(sum('aisix_llm_total_tokens_total')).toEqual([21_007])
    expect(sum('aisix_tokens_consumed_total')).toEqual([21_007])
    expect(sum('aisix_llm_spend_micro_usd_total')).toEqual([21_009_000])
    expect(record.isEstimated).toBe(false)
  })
})

describe('callers are told', () => {
  test('of chat, the prompt as Anthropic counts it, the total and the cache', async () => {
    expect(JSON.parse(await ask('/v1/chat/completions', { messages: MESSAGES }, false)).usage).toEqual({
      prompt_tokens: 5,
      completion_tokens: 2,
      total_tokens: 21_007,
      prompt_tokens_details: { cached_tokens: 20_000 },
      cache_read_input_tokens: 20_000,
      cache_creation_input_tokens: 1_000,
    })
  })

  test('of Responses, all of the prompt, whole and streamed', async () => {
    const usage = {
      input_tokens: 21_005,
      input_tokens_details: { cached_tokens: 20_000 },
      output_tokens: 2,
      total_tokens: 21_007,
    }
    expect(JSON.parse(await ask('/v1/responses', { input: 'hi' }, false)).usage).toMatchObject(usage)
    const last = (await ask('/v1/responses', { input: 'hi' }, true)).trim().split('\ndata: ').at(-1) ?? ''
    expect(JSON.parse(last).response.usage).toMatchObject(usage)
  })

  test("of Ollama's, all of the prompt, whole and streamed", async () => {
    expect(JSON.parse(await ask('/api/chat', { messages: MESSAGES }, false))).toMatchObject({ prompt_eval_count: 21_005 })
    const last = (await ask('/api/chat', { messages: MESSAGES }, true)).trim().split('\n').at(-1) ?? ''
    expect(JSON.parse(last)).toMatchObject({ prompt_eval_count: 21_005, eval_count: 2 })
  })
})
