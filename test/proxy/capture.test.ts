/** What is kept of answers where an exporter wants content, and that wanting it costs no caller its answer. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'bun:test'
import { chatAnswer, chatChunk, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { startGateway, type TestGateway, until } from '../gateway.ts'
import { testTelemetry } from '../telemetry.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
})
beforeEach(async () => {
  gateway = await startGateway({ upstream: upstream.url, telemetry: testTelemetry({ wantsReports: true }) })
})
afterEach(async () => {
  await gateway.idle()
  await gateway.stop()
})
afterAll(() => upstream.stop())

const USAGE = { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12, prompt_tokens_details: { cached_tokens: 2 } }
/** JSON but for an escape that there is not, as servers write it that put Windows paths together by hand. */
const withBadEscape = (document: object) => JSON.stringify(document).replace('C:/', 'C:\\data')

async function response() {
  await until('the report is there', () => gateway.telemetry.reports.length === 1)
  return gateway.telemetry.reports[0]?.content?.response
}

test('an answer that is relayed with a bad escape is so with an exporter of content, too, which gets nothing of it', async () => {
  const body = withBadEscape({ ...chatAnswer('C:/'), usage: USAGE })
  upstream.answer((_request, connection) => connection.send(200, body, { 'content-type': 'application/json' }))
  const answer = await gateway.chat()
  expect(answer.status).toBe(200)
  expect(await answer.text()).toContain('C:\\data')
  expect(await response()).toBe('')
  expect(gateway.telemetry.records[0]).toMatchObject({ status: 200, promptTokens: 5, completionTokens: 7 })
})

test('a stream goes on behind an event with a bad escape, of which an exporter gets nothing', async () => {
  const events = [chatChunk({ content: 'one ' }), withBadEscape(chatChunk({ content: 'C:/' })), chatChunk({ content: 'two' })]
  upstream.answer((_request, connection) => connection.sse([...events, chatChunk({}, { usage: USAGE })]))
  const text = await (await gateway.chat({ stream: true })).text()
  expect(text).toContain('C:\\data')
  expect(text).toEndWith('data: [DONE]\n\n')
  expect(await response()).toBe('one two')
  expect(gateway.telemetry.records[0]).toMatchObject({ status: 200, promptTokens: 5, completionTokens: 7 })
})
