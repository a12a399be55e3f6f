import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { openai } from '../../src/adapters/openai.ts'
import { GatewayError } from '../../src/errors.ts'
import { Exchange } from '../../src/exchange.ts'
import { type ChunkOptions, ChunkRewriter } from '../../src/proxy/rewrite-chunks.ts'
import { endpointLabels } from '../../src/telemetry/endpoint-labels.ts'
import { binaryToUtf8, toBinary, utf8ToBinary } from '../../src/wire/members.ts'
import { SseReader } from '../../src/wire/sse.ts'
import { chatChunk } from '../fake-upstream.ts'

const ALIAS = 'älias-日本'

function open(options: Partial<ChunkOptions> = {}) {
  const exchange = new Exchange(
    'rid',
    'POST',
    '/v1/chat/completions',
    endpointLabels('/v1/chat/completions'),
    () => '127.0.0.1',
    0,
  )
  const rewriter = new ChunkRewriter(
    { adapter: openai, alias: ALIAS, includeUsage: false, reasoningPath: undefined, ...options },
    exchange,
  )
  /** The event as the caller reads it. */
  const rewrite = (data: unknown): unknown => {
    const text = rewriter.rewrite(utf8ToBinary(typeof data === 'string' ? data : JSON.stringify(data)))
    return text === undefined ? undefined : JSON.parse(binaryToUtf8(text))
  }
  return { exchange, rewriter, rewrite }
}

/** Events of a stream that begins in the usual way, which the quick path takes, and then goes on with `more`. */
function afterStart(more: unknown, options: Partial<ChunkOptions> = {}) {
  const opened = open(options)
  opened.rewrite(chatChunk({ role: 'assistant', content: '' }))
  opened.rewrite(chatChunk({ content: 'a' }))
  return { ...opened, result: () => opened.rewrite(more) }
}

/** A plain copy of the error that is thrown. */
function failure(rewrite: () => unknown): unknown {
  try {
    rewrite()
  } catch (error) {
    if (!(error instanceof GatewayError)) throw error
    const { kind, type, status, code, message } = error
    return { kind, type, status, code, message }
  }
  throw new Error('expected an error')
}

describe('a chunk', () => {
  test('keeps every member, and gets the alias', () => {
    const { rewriter } = open()
    const text =
      '{"id":"1","x":1.0,"model":"m","choices":[ {"delta":{"content":"a"}, "logprobs":null} ],"timings":{"t":9007199254740993}}'
    for (let i = 0; i < 3; i++) expect(rewriter.rewrite(text)).toBe(text.replace('"m"', utf8ToBinary(JSON.stringify(ALIAS))))
  })

  test.each([
    ['spaces as Python writes them', '{"id": "1", "model": "m", "choices": [{"index": 0, "delta": {"content": "x"}}]}'],
    ['`model` last', '{"id":"1","choices":[{"index":0,"delta":{"content":"x"}}],"model":"m"}'],
    ['`model` before everything', '{"model":"m","id":"1","choices":[{"index":0,"delta":{"content":"x"}}]}'],
    ['no `model`', '{"id":"1","choices":[{"index":0,"delta":{"content":"x"}}]}'],
    ['`model` null', '{"id":"1","model":null,"choices":[{"index":0,"delta":{"content":"x"}}]}'],
    ['`model` in its content', '{"choices":[{"index":0,"delta":{"content":"\\"model\\":\\"q\\""}}],"id":"1"}'],
    ['an object before `model`', '{"x":{"model":"deep"},"model":"m","choices":[{"index":0,"delta":{}}]}'],
    ['letters beyond ASCII', '{"model":"m","choices":[{"index":0,"delta":{"content":"ä€😀"}}]}'],
    ['space around it', ' {"model":"m","choices":[]} '],
  ])('with %s is the same chunk with the alias, each time', (_name, text) => {
    const { rewrite } = open()
    const expected = { ...JSON.parse(text), model: ALIAS }
    for (let i = 0; i < 3; i++) expect(rewrite(text)).toEqual(expected)
  })

  test('of another shape than those before it is read anew', () => {
    const { rewrite } = open()
    const shapes = [
      chatChunk({ role: 'assistant', content: null }),
      chatChunk({ content: 'a' }),
      chatChunk({ content: 'b' }, { id: 'other' }),
      chatChunk({ content: 'c' }, { created: 1 }),
      chatChunk({ content: 'd' }, { model: 'another' }),
      { choices: [], model: 'm' },
      chatChunk({ tool_calls: [{ index: 0, function: { arguments: '{"x":' } }] }),
      chatChunk({ content: 'e' }, { choices: [{ delta: { content: 'e' } }, { delta: { content: 'f' } }] }),
    ]
    for (const shape of [...shapes, ...shapes]) expect(rewrite(shape)).toEqual({ ...shape, model: ALIAS })
  })

  test('of any JSON keeps its values', () => {
    const extra = fc.dictionary(
      fc.string({ unit: 'grapheme' }).filter(key => !['choices', 'model', 'usage', 'error', '__proto__'].includes(key)),
      fc.jsonValue({ maxDepth: 3 }),
    )
    fc.assert(
      fc.property(fc.array(fc.tuple(extra, fc.string({ unit: 'grapheme' })), { minLength: 1, maxLength: 4 }), chunks => {
        const { rewrite } = open()
        for (const [more, content] of chunks) {
          const chunk = JSON.parse(JSON.stringify({ ...chatChunk({ content }), ...more }))
          expect(rewrite(chunk)).toEqual({ ...chunk, model: ALIAS })
        }
      }),
    )
  })
})

describe('usage', () => {
  const usage = { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 }

  test.each([
    ['empty choices', { choices: [], usage }],
    ['a choice with an empty delta', { choices: [{ index: 0, delta: {}, finish_reason: null }], usage }],
    ['a choice with empty content', { choices: [{ index: 0, delta: { content: '' } }], usage }],
  ])('alone, with %s, is counted and swallowed unless the caller asked', (_name, members) => {
    const chunk = { ...chatChunk({}), ...members }
    const silent = afterStart(chunk)
    expect(silent.result()).toBeUndefined()
    expect(silent.exchange.usage).toMatchObject({ promptTokens: 3, completionTokens: 4, totalTokens: 7, isEstimated: false })
    const asked = afterStart(chunk, { includeUsage: true })
    expect(asked.result()).toEqual({ ...chunk, choices: [], model: ALIAS })
  })

  test.each([
    ['a finish reason', [{ index: 0, delta: {}, finish_reason: 'stop' }]],
    ['content', [{ index: 0, delta: { content: 'x' } }]],
    ['a role', [{ index: 0, delta: { role: 'assistant' } }]],
    ['a tool call', [{ index: 0, delta: { tool_calls: [{ index: 0 }] } }]],
    ['text of a completion', [{ index: 0, text: 'x' }]],
  ])('beside %s stays on its chunk', (_name, choices) => {
    const chunk = { ...chatChunk({}), choices, usage }
    const { result, exchange } = afterStart(chunk)
    expect(result()).toEqual({ ...chunk, model: ALIAS })
    expect(exchange.usage).toMatchObject({ promptTokens: 3 })
  })

  test('on every chunk is counted by the maximum of each counter', () => {
    const { rewrite, exchange } = open()
    for (const [prompt_tokens, completion_tokens] of [
      [5, 1],
      [5, 3],
      [0, 2],
    ]) {
      rewrite(chatChunk({ content: 'a' }, { usage: { prompt_tokens, completion_tokens } }))
    }
    expect(exchange.usage).toMatchObject({ promptTokens: 5, completionTokens: 3 })
  })

  test('null is no usage', () => {
    const chunk = chatChunk({ content: 'x' }, { usage: null })
    const { result, exchange } = afterStart(chunk)
    expect(result()).toEqual({ ...chunk, model: ALIAS })
    expect(exchange.usage).toBeUndefined()
  })

  test('is not mistaken in the text of a completion', () => {
    const chunk = chatChunk({ content: '"usage":{"prompt_tokens":1},"error":{"message":"x"},"reasoning":"y"' })
    const { result, exchange } = afterStart(chunk)
    expect(result()).toEqual({ ...chunk, model: ALIAS })
    expect(exchange.usage).toBeUndefined()
  })
})

describe('reasoning', () => {
  test('gets its other name beside it, first chunk or later', () => {
    const chunk = chatChunk({ reasoning: 'hm ä€' })
    const expected = chatChunk({ reasoning: 'hm ä€', reasoning_content: 'hm ä€' }, { model: ALIAS })
    expect(open().rewrite(chunk)).toEqual(expected)
    expect(afterStart(chunk).result()).toEqual(expected)
  })

  test.each([{ reasoning: null, content: 'x' }, { reasoning: '' }, { reasoning: 'a', reasoning_content: 'b' }])(
    '%p stays as it is',
    delta => {
      expect(afterStart(chatChunk(delta)).result()).toEqual(chatChunk(delta, { model: ALIAS }))
    },
  )

  test('is lifted from the path that the operator named', () => {
    const options = { reasoningPath: ['meta', 'thoughts'] }
    const chunk = chatChunk({ meta: { thoughts: 'hm' }, content: 'x' })
    expect(afterStart(chunk, options).result()).toEqual(
      chatChunk({ meta: { thoughts: 'hm' }, content: 'x', reasoning_content: 'hm' }, { model: ALIAS }),
    )
    expect(afterStart(chatChunk({ content: 'x' }), options).result()).toEqual(chatChunk({ content: 'x' }, { model: ALIAS }))
  })
})

describe('what is counted for estimates', () => {
  test('events with content and their bytes', () => {
    const { rewrite, exchange } = open()
    for (const delta of [
      { role: 'assistant', content: '' },
      { content: 'four' },
      { reasoning_content: 'sixsix' },
      { tool_calls: [{ function: { arguments: '{}' } }] },
      {},
    ]) {
      rewrite(chatChunk(delta))
    }
    expect(exchange.contentEvents).toBe(3)
    expect(exchange.contentBytes).toBe(12)
  })

  test('the finish reason is noted, on the quick path too', () => {
    const { result, exchange } = afterStart(chatChunk({}, { choices: [{ index: 0, delta: {}, finish_reason: 'length' }] }))
    result()
    expect(exchange.finishReason).toBe('length')
  })
})

describe('an error inside a stream', () => {
  test.each([
    ['object', { error: { message: 'boom', type: 'x', code: 'c1' } }, 'boom'],
    ['text', { error: 'boom' }, 'boom'],
    ['object with a numeric code', { error: { message: 'boom', code: 500 } }, 'boom'],
    ['object beside choices', { ...chatChunk({}), error: { message: 'boom' } }, 'boom'],
  ])('as %s after the first chunk is upstream_in_band_error', (_name, event, text) => {
    expect(failure(afterStart(event).result)).toMatchObject({
      kind: 'upstream_in_band_error',
      message: `upstream reported an in-band stream error: ${text}`,
    })
  })

  test.each([
    [{ error: { message: 'too long', code: 400 } }, 400, undefined],
    [{ error: { message: 'slow down', code: '429' } }, 429, undefined],
    [{ error: { message: 'boom', code: 503 } }, 502, undefined],
    [{ error: { message: 'boom' } }, 502, undefined],
    [{ error: { message: 'boom', code: 'context_length_exceeded', param: 'messages' } }, 502, 'context_length_exceeded'],
    [{ error: 'boom' }, 502, undefined],
  ])('%p before the first chunk is an upstream_error of status %d', (event, status, code) => {
    expect(failure(() => open().rewrite(event))).toMatchObject({ type: 'upstream_error', status, code })
  })

  test.each(['null', 'false', '""', '{}'])('is not an `error` of %s', value => {
    const { rewriter } = open()
    const text = `{"model":"m","choices":[],"error":${value}}`
    if (value === '{}') expect(() => rewriter.rewrite(text)).toThrow()
    else expect(rewriter.rewrite(text)).toContain('"choices":[]')
  })
})

describe('what is no chunk', () => {
  test.each(['{', 'hello', '[]', '"x"', '{"id":"1"}', '{"choices":null}', '{"choices":{}}', '{"choices":[}', '<html>'])(
    '%s is upstream_decode_error, first or later',
    text => {
      const told = { kind: 'upstream_decode_error' }
      for (const { rewrite } of [open(), afterStart('')]) {
        expect(failure(() => rewrite(text))).toMatchObject(told)
      }
    },
  )

  test('a last event that is cut anywhere is never relayed as if it were whole', () => {
    const chunk = JSON.stringify(chatChunk({ content: 'hello world', meta: {} }))
    for (let length = 1; length < chunk.length; length++) {
      const { rewriter, result } = afterStart(chunk)
      expect(() => rewriter.rewrite(chunk.slice(0, length), false)).toThrow()
      expect(result()).toMatchObject({ model: ALIAS })
    }
  })

  test('an empty event gives nothing, `[DONE]` ends', () => {
    const { rewrite, rewriter } = open()
    expect(rewrite('')).toBeUndefined()
    expect(rewriter.isDone).toBe(false)
    expect(rewrite(' [DONE] ')).toBeUndefined()
    expect(rewriter.isDone).toBe(true)
  })
})

test('any cut of a stream into pieces gives the same events', () => {
  const events = [
    chatChunk({ role: 'assistant', content: null }),
    chatChunk({ reasoning: 'denke ä€😀' }),
    chatChunk({ content: 'Grüße 日本' }),
    chatChunk({ content: '😀' }),
    chatChunk({ tool_calls: [{ index: 0, id: 'c', function: { name: 'f', arguments: '{"a":"\\u00e4"}' } }] }),
    { ...chatChunk({}), choices: [{ index: 0, delta: {}, finish_reason: 'tool_calls' }] },
    { ...chatChunk({}), choices: [], usage: { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 } },
  ]
  const text = `${events.map((event, index) => `data: ${JSON.stringify(event)}${index % 2 === 0 ? '\r\n\r\n' : '\n\n'}`).join(': beat\n\n')}data: [DONE]\n\n`
  const bytes = new TextEncoder().encode(text)
  const run = (cuts: readonly number[]): string[] => {
    const { rewriter } = open({ includeUsage: true })
    const reader = new SseReader()
    const out: string[] = []
    const onData = (data: string) => {
      const rewritten = rewriter.rewrite(data)
      if (rewritten !== undefined) out.push(rewritten)
    }
    const at = [0, ...cuts, bytes.length]
    for (let i = 1; i < at.length; i++) reader.push(toBinary(bytes.subarray(at[i - 1], at[i])), onData)
    reader.end(onData)
    return out
  }
  const whole = run([])
  expect(whole).toHaveLength(events.length)
  for (let cut = 0; cut <= bytes.length; cut++) expect(run([cut])).toEqual(whole)
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat({ max: bytes.length }), { maxLength: 40 }), cuts => {
      expect(run(cuts.sort((a, b) => a - b))).toEqual(whole)
    }),
    { numRuns: 200 },
  )
})
