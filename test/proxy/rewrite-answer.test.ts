import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { chatAnswer, type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, answerOf, startGateway, type TestGateway } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway
beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({ upstream: upstream.url })
})
beforeEach(() => {
  upstream.requests.length = 0
})
afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})

/** What a caller gets when the upstream answers with this text. */
async function relayed(text: string | Uint8Array, path = '/v1/chat/completions') {
  upstream.answer((_request, connection) => connection.send(200, text, { 'content-type': 'application/json' }))
  return await answerOf(
    await gateway.post(path, { model: ALIAS, messages: [{ role: 'user', content: 'Hi' }], input: 'x', prompt: 'x' }),
  )
}

describe('an answer keeps everything but `model`', () => {
  test('members, order, numbers and spaces inside values', async () => {
    const members = [
      '"system_fingerprint":"fp_1"',
      '"big":9007199254740993',
      '"one":1.0',
      '"far":1e400',
      '"choices":[ {"index":0, "message":{"role":"assistant","content":"\\u00e4 ä€😀 \\"model\\":\\"x\\""},"logprobs":{"content":[]},"finish_reason":"stop","stop_reason":null},{"index":1,"message":{"content":"two"}} ]',
      '"model":"MODEL"',
      '"prompt_logprobs":null',
      '"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"x":1.0}',
      '"timings":{"predicted_ms":1.50}',
    ]
    const text = `{${members.join(',')}}`
    expect((await relayed(text.replace('MODEL', 'upstream'))).text).toBe(text.replace('MODEL', ALIAS))
  })

  test('in whatever place and spelling `model` stands', async () => {
    expect((await relayed('{"choices":[],"mod\\u0065l":"x"}')).text).toBe(`{"choices":[],"mod\\u0065l":"${ALIAS}"}`)
    expect((await relayed('{"model":null,"choices":[]}')).body).toEqual({ model: ALIAS, choices: [] })
    expect((await relayed('{"choices":[{"message":{"model":"deep"}}]}')).body).toEqual({
      choices: [{ message: { model: 'deep' } }],
      model: ALIAS,
    })
    expect((await relayed('{"x":{"model":"deep"},"choices":[],"model":"top"}')).body).toEqual({
      x: { model: 'deep' },
      choices: [],
      model: ALIAS,
    })
  })

  test('when it is large', async () => {
    const content = 'ä€😀"\\'.repeat(100_000)
    const { body } = await relayed(JSON.stringify(chatAnswer(content)))
    expect(body).toEqual({ ...chatAnswer(content), model: ALIAS })
  })

  test('and an alias beyond ASCII is echoed as it is', async () => {
    await gateway.addModel({ display_name: 'modèle-日本' })
    upstream.answer((_request, connection) => connection.json(200, chatAnswer('grüße')))
    const { body } = await answerOf(await gateway.chat({ model: 'modèle-日本' }))
    expect(body).toEqual({ ...chatAnswer('grüße'), model: 'modèle-日本' })
  })

  test('usage that is missing stays missing', async () => {
    const { body } = await relayed('{"model":"m","choices":[]}')
    expect(body).toEqual({ model: ALIAS, choices: [] })
  })

  test('a chunked answer is read whole', async () => {
    upstream.answer(async (_request, connection) => {
      await connection.raw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n')
      for (const byte of Buffer.from(JSON.stringify(chatAnswer('ä€😀')))) await connection.chunk(new Uint8Array([byte]))
      await connection.endChunks()
    })
    expect((await answerOf(await gateway.chat())).body).toEqual({ ...chatAnswer('ä€😀'), model: ALIAS })
  })
})

describe('reasoning', () => {
  const message = (members: Record<string, unknown>) => JSON.stringify({ model: 'm', choices: [{ index: 0, message: members }] })
  const messageOf = (body: unknown) => Object(body).choices[0].message

  test('gets its other name beside it', async () => {
    const { body } = await relayed(message({ role: 'assistant', reasoning: 'think ä€', content: 'x' }))
    expect(messageOf(body)).toEqual({ role: 'assistant', reasoning: 'think ä€', content: 'x', reasoning_content: 'think ä€' })
  })

  test.each([
    [
      { reasoning: 'a', reasoning_content: 'b' },
      { reasoning: 'a', reasoning_content: 'b' },
    ],
    [
      { reasoning: 'a', reasoning_content: null },
      { reasoning: 'a', reasoning_content: 'a' },
    ],
    [
      { reasoning: 'a', reasoning_content: '' },
      { reasoning: 'a', reasoning_content: 'a' },
    ],
    [{ reasoning: '' }, { reasoning: '' }],
    [{ reasoning: null }, { reasoning: null }],
    [{ reasoning: { effort: 1 } }, { reasoning: { effort: 1 } }],
  ])('%p becomes %p', async (given, expected) => {
    expect(messageOf((await relayed(message(given))).body)).toEqual(expected)
  })

  test('in every choice', async () => {
    const choices = [{ message: { reasoning: 'a' } }, { message: { reasoning: 'b' } }, { text: 'no message' }]
    expect((await relayed(JSON.stringify({ model: 'm', choices }))).body).toMatchObject({
      choices: [{ message: { reasoning_content: 'a' } }, { message: { reasoning_content: 'b' } }, { text: 'no message' }],
    })
  })
})

describe('usage', () => {
  const usageOf = async (usage: unknown) => Object((await relayed(JSON.stringify({ model: 'm', choices: [], usage }))).body).usage

  test.each([
    [
      { prompt_tokens: 9, prompt_cache_hit_tokens: 4, prompt_cache_miss_tokens: 5 },
      { prompt_tokens: 9, prompt_cache_hit_tokens: 4, prompt_cache_miss_tokens: 5, prompt_tokens_details: { cached_tokens: 4 } },
    ],
    [
      { prompt_cache_hit_tokens: 4, prompt_tokens_details: { cached_tokens: 3, x: 1 } },
      { prompt_cache_hit_tokens: 4, prompt_tokens_details: { cached_tokens: 3, x: 1 } },
    ],
    [
      { prompt_cache_hit_tokens: 4, prompt_tokens_details: { cached_tokens: 0 } },
      { prompt_cache_hit_tokens: 4, prompt_tokens_details: { cached_tokens: 4 } },
    ],
    [
      { prompt_cache_hit_tokens: 4, prompt_tokens_details: null },
      { prompt_cache_hit_tokens: 4, prompt_tokens_details: { cached_tokens: 4 } },
    ],
    [{ prompt_cache_hit_tokens: 0 }, { prompt_cache_hit_tokens: 0 }],
    [{ prompt_tokens: 1 }, { prompt_tokens: 1 }],
    [null, null],
  ])('%p is told as %p', async (given, expected) => {
    expect(await usageOf(given)).toEqual(expected)
  })
})

describe('embeddings', () => {
  const embeddings = (more: string) =>
    `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,1.0,-0]}],"model":"m"${more}}`

  test('keep their numbers as they are', async () => {
    const text = embeddings(',"usage":{"prompt_tokens":3,"total_tokens":3}')
    expect((await relayed(text, '/v1/embeddings')).text).toBe(text.replace('"m"', `"${ALIAS}"`))
  })

  test('in base64 stay as they are', async () => {
    const text =
      '{"data":[{"embedding":"AACAPw==","index":1},{"embedding":"AAAAQA==","index":0}],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}'
    expect((await relayed(text, '/v1/embeddings')).text).toBe(text.replace('"m"', `"${ALIAS}"`))
  })

  test.each([
    ['', { prompt_tokens: 0, total_tokens: 0 }],
    [',"usage":null', { prompt_tokens: 0, total_tokens: 0 }],
    [',"usage":{}', { prompt_tokens: 0, total_tokens: 0 }],
    [',"usage":{"total_tokens":7}', { total_tokens: 7, prompt_tokens: 0 }],
    [',"usage":{"prompt_tokens":7}', { prompt_tokens: 7, total_tokens: 0 }],
  ])('with %p have zeros for the counters that are missing', async (more, expected) => {
    expect(Object((await relayed(embeddings(more), '/v1/embeddings')).body).usage).toEqual(expected)
  })

  test('count the total as the prompt’s where that is all there is', async () => {
    gateway.logs.length = 0
    await relayed(embeddings(',"usage":{"total_tokens":7}'), '/v1/embeddings')
    expect(await gateway.accessLine()).toContain('prompt_tokens=7 completion_tokens=0 total_tokens=7')
  })
})

test('completions keep their choices and get the alias', async () => {
  const text =
    '{"id":"cmpl-1","object":"text_completion","choices":[{"text":" a","index":0,"logprobs":null},{"text":"b","index":1}],"model":"m"}'
  expect((await relayed(text, '/v1/completions')).text).toBe(text.replace('"m"', `"${ALIAS}"`))
})

describe('a 2xx that is no answer is 502 upstream_decode_error', () => {
  test.each([
    ['nothing', ''],
    ['HTML', '<!doctype html><title>Welcome</title>'],
    ['JSON cut short', '{"choices":[{"message":{"content":"secret-completion'],
    ['no choices', '{"id":"x","model":"m"}'],
    ['choices that are no array', '{"choices":{}}'],
    ['an array', '[]'],
    ['an event stream', 'data: {"choices":[]}\n\n'],
    ['nesting without end', `{"choices":${'['.repeat(1_000)}`],
  ])('%s', async (_name, text) => {
    const { status, error, text: told } = await relayed(text)
    expect(status).toBe(502)
    expect(error.type).toBe('upstream_decode_error')
    expect(String(error.message)).toStartWith('upstream returned an unparseable body: ')
    expect(told).not.toContain('secret-completion')
  })

  test('but a byte that is not UTF-8 loses itself alone, not the answer', async () => {
    const text = Buffer.concat([
      Buffer.from('{"choices":[{"message":{"content":"a'),
      Buffer.from([0xff]),
      Buffer.from('b"}}],"model":"m"}'),
    ])
    expect((await relayed(text)).body).toEqual({ choices: [{ message: { content: 'a\ufffdb' } }], model: ALIAS })
  })

  test('embeddings without data', async () => {
    expect(await relayed('{"choices":[]}', '/v1/embeddings')).toMatchObject({
      status: 502,
      error: { type: 'upstream_decode_error' },
    })
  })

  test('HTML points at api_base', async () => {
    expect((await relayed('<html>')).error.message).toContain('check api_base')
  })
})

test('an answer over 64 MiB is relayed whole and as it is', async () => {
  const piece = Buffer.alloc(1024 * 1024, 'x')
  const head = '{"model":"upstream-model","choices":[{"message":{"content":"'
  const tail = '"}}]}'
  const mebibytes = 66
  upstream.answer(async (_request, connection) => {
    const length = mebibytes * piece.byteLength + head.length + tail.length
    await connection.raw(`HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n${head}`)
    for (let i = 0; i < mebibytes; i++) await connection.raw(piece)
    await connection.raw(tail)
  })
  const response = await gateway.chat()
  expect(response.status).toBe(200)
  let bytes = 0
  let first = ''
  let last = ''
  for await (const each of response.body ?? []) {
    if (first === '') first = Buffer.from(each.subarray(0, head.length)).toString()
    last = (last + Buffer.from(each.subarray(-tail.length)).toString()).slice(-tail.length)
    bytes += each.byteLength
  }
  expect(first).toBe(head)
  expect(last).toBe(tail)
  expect(bytes).toBe(mebibytes * piece.byteLength + head.length + tail.length)
  await gateway.idle()
  // Nobody has read it: what it is charged with is an estimate of its bytes.
  expect(gateway.telemetry.records.at(-1)).toMatchObject({ isEstimated: true, completionTokens: Math.ceil(bytes / 4) })
})

test('an error object in a 2xx is 502 upstream_decode_error that tells its words', async () => {
  expect(await relayed('{"error":{"message":"model is loading","code":400}}')).toMatchObject({
    status: 502,
    error: {
      type: 'upstream_decode_error',
      message: 'upstream returned an unparseable body: upstream reported an error: model is loading',
    },
  })
})

test('without usage the estimate is of what was generated, not of the envelope around it', async () => {
  const { headers } = await relayed(
    '{"id":"x","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}',
  )
  const line = await gateway.accessLine(headers.get('x-aisix-request-id') ?? '')
  expect(line).toContain('completion_tokens=1 ')
  expect(line).toContain('usage_estimated=true')
})

test('a byte order mark is no part of an answer, however the answer is framed', async () => {
  const text = '\ufeff{"id":"x","model":"m","choices":[]}'
  expect((await relayed(text)).status).toBe(200)
  upstream.answer(async (_request, connection) => {
    await connection.raw('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n')
    await connection.chunk(text)
    await connection.endChunks()
  })
  expect((await answerOf(await gateway.chat())).status).toBe(200)
})
