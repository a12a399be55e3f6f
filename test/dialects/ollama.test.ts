import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import type { Asked, Json } from '../../src/dialects/dialect.ts'
import {
  droppedMembers,
  embedAnswer,
  embedQuestion,
  isLoadRequest,
  loadAnswer,
  oldEmbedAnswer,
  oldEmbedQuestion,
  ollamaChat,
  ollamaGenerate,
  psDocument,
  showDocument,
  tagsDocument,
  versionDocument,
} from '../../src/dialects/ollama.ts'
import { GatewayError } from '../../src/errors.ts'

const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB'
const JPEG = '/9j/4AAQSkZJRgABAQAAAQABAAD/2wBD'
const WEBP = 'UklGRiQAAABXRUJQVlA4IBgAAAAwAQCd'
const GIF = 'R0lGODlhAQABAIAAAAAAAP///yH5BAEA'
const UNKNOWN = 'AAAA'
const CREATED_AT = '2026-01-02T03:04:05.678Z'
const HELLO = [{ role: 'user', content: 'hello' }]
const NO_COUNTS = {
  total_duration: 0,
  load_duration: 0,
  prompt_eval_count: 0,
  prompt_eval_duration: 0,
  eval_count: 0,
  eval_duration: 0,
}
const COUNTED = { ...NO_COUNTS, prompt_eval_count: 7, eval_count: 3 }
const USAGE = { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 }

function asked(body: Json = {}): Asked {
  return { alias: 'llama3', body, requestId: 'req-1', nowMs: Date.parse(CREATED_AT) }
}

function chatOf(members: Json): Json {
  return ollamaChat.question({ model: 'llama3', messages: HELLO, ...members })
}

function generateOf(members: Json): Json {
  return ollamaGenerate.question({ model: 'llama3', prompt: 'hello', ...members })
}

function completion(message: Json, more: Json = {}): Json {
  return { model: 'llama3', choices: [{ index: 0, message, finish_reason: 'stop', ...more }], usage: USAGE }
}

function delta(members: Json, finish_reason: string | null = null): Json {
  return { object: 'chat.completion.chunk', choices: [{ index: 0, delta: members, finish_reason }] }
}

const USAGE_ONLY = { object: 'chat.completion.chunk', choices: [], usage: USAGE }

function linesOf(text: string): Json[] {
  if (text !== '') expect(text.endsWith('\n')).toBe(true)
  return text
    .split('\n')
    .slice(0, -1)
    .map(line => JSON.parse(line))
}

function streamed(chunks: readonly Json[], dialect = ollamaChat): Json[] {
  const stream = dialect.stream(asked())
  return linesOf(chunks.map(chunk => stream.chunk(chunk)).join('') + stream.end())
}

function refusal(run: () => unknown): GatewayError {
  try {
    run()
  } catch (error) {
    if (error instanceof GatewayError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

describe('the question of /api/chat', () => {
  test('says `stream` always: true unless the caller says false', () => {
    expect(chatOf({})).toEqual({ model: 'llama3', messages: HELLO, stream: true })
    expect(chatOf({ stream: null }).stream).toBe(true)
    expect(chatOf({ stream: true }).stream).toBe(true)
    expect(chatOf({ stream: false }).stream).toBe(false)
  })

  test('has the options under the names that model servers know, and no others', () => {
    const options = {
      temperature: 0,
      top_p: 0.9,
      top_k: 40,
      min_p: 0.05,
      seed: 42,
      stop: ['\n', 'END'],
      num_predict: 100,
      repeat_penalty: 1.1,
      presence_penalty: 0.5,
      frequency_penalty: -0.5,
      num_ctx: 8192,
      mirostat: 1,
    }
    expect(chatOf({ options, keep_alive: '5m', surprise: 1 })).toEqual({
      model: 'llama3',
      messages: HELLO,
      stream: true,
      temperature: 0,
      top_p: 0.9,
      top_k: 40,
      min_p: 0.05,
      seed: 42,
      stop: ['\n', 'END'],
      max_tokens: 100,
      repetition_penalty: 1.1,
      presence_penalty: 0.5,
      frequency_penalty: -0.5,
    })
  })

  test('leaves out what stands for no limit, no stop and a random seed in Ollama', () => {
    for (const num_predict of [-1, -2, 0, null]) expect(chatOf({ options: { num_predict } })).not.toHaveProperty('max_tokens')
    for (const stop of [[], '', null]) expect(chatOf({ options: { stop } })).not.toHaveProperty('stop')
    expect(chatOf({ options: { seed: -1 } })).not.toHaveProperty('seed')
    expect(chatOf({ options: { stop: 'END', seed: 0 } })).toMatchObject({ stop: ['END'], seed: 0 })
  })

  test('turns `format` into `response_format`', () => {
    const schema = { type: 'object', properties: { age: { type: 'integer' } } }
    expect(chatOf({ format: 'json' }).response_format).toEqual({ type: 'json_object' })
    expect(chatOf({ format: schema }).response_format).toEqual({
      type: 'json_schema',
      json_schema: { name: 'response', schema, strict: true },
    })
    for (const format of ['', null]) expect(chatOf({ format })).not.toHaveProperty('response_format')
  })

  test('turns `think` into a switch of the chat template or a level of effort', () => {
    expect(chatOf({ think: true }).chat_template_kwargs).toEqual({ enable_thinking: true })
    expect(chatOf({ think: false }).chat_template_kwargs).toEqual({ enable_thinking: false })
    for (const think of ['low', 'medium', 'high']) expect(chatOf({ think })).toMatchObject({ reasoning_effort: think })
    expect(chatOf({ think: 'max' })).toMatchObject({ reasoning_effort: 'high' })
    for (const think of [true, false, null]) expect(chatOf({ think })).not.toHaveProperty('reasoning_effort')
    for (const think of ['low', null]) expect(chatOf({ think })).not.toHaveProperty('chat_template_kwargs')
  })

  test('asks for log probabilities where the caller does', () => {
    expect(chatOf({ logprobs: true, top_logprobs: 2 })).toMatchObject({ logprobs: true, top_logprobs: 2 })
    expect(chatOf({ logprobs: true, top_logprobs: 0 })).not.toHaveProperty('top_logprobs')
    expect(chatOf({ logprobs: false, top_logprobs: 2 })).toEqual({ model: 'llama3', messages: HELLO, stream: true })
  })

  test('has the tools, and no member for none', () => {
    const parameters = { type: 'object', properties: { city: { type: 'string' } } }
    const tools = [
      { type: 'function', function: { name: 'weather', description: 'Weather of a city', parameters, surprise: 1 } },
      { function: { name: 'time' } },
    ]
    expect(chatOf({ tools }).tools).toEqual([
      { type: 'function', function: { name: 'weather', description: 'Weather of a city', parameters } },
      { type: 'function', function: { name: 'time' } },
    ])
    for (const none of [[], null]) expect(chatOf({ tools: none })).not.toHaveProperty('tools')
  })

  test('turns images into parts behind the text, each with the type that its first bytes tell', () => {
    const images = [PNG, JPEG, WEBP, GIF, UNKNOWN, `data:image/bmp;base64,${UNKNOWN}`, `data:image/png;base64,${GIF}`]
    const urls = [
      `data:image/png;base64,${PNG}`,
      `data:image/jpeg;base64,${JPEG}`,
      `data:image/webp;base64,${WEBP}`,
      `data:image/gif;base64,${GIF}`,
      `data:image/png;base64,${UNKNOWN}`,
      `data:image/bmp;base64,${UNKNOWN}`,
      `data:image/gif;base64,${GIF}`,
    ]
    const parts = urls.map(url => ({ type: 'image_url', image_url: { url } }))
    const messages = [{ role: 'user', content: 'what is this?', images }]
    expect(chatOf({ messages }).messages).toEqual([
      { role: 'user', content: [{ type: 'text', text: 'what is this?' }, ...parts] },
    ])
    expect(chatOf({ messages: [{ role: 'user', content: '', images }] }).messages).toEqual([{ role: 'user', content: parts }])
    expect(chatOf({ messages: [{ role: 'user', content: 'none', images: [] }] }).messages).toEqual([
      { role: 'user', content: 'none' },
    ])
  })

  test('reads base64 that is broken into lines, as Go does', () => {
    const image = `${PNG.slice(0, 16)}\r\n${PNG.slice(16)}\n`
    expect(chatOf({ messages: [{ role: 'user', images: [image] }] }).messages).toEqual([
      { role: 'user', content: [{ type: 'image_url', image_url: { url: `data:image/png;base64,${PNG}` } }] },
    ])
  })

  test('keeps what an assistant thought, and reads roles as Ollama does', () => {
    const messages = [
      { role: 'SYSTEM', content: 'be brief' },
      { role: 'User', content: 'hi' },
      { role: 'assistant', content: 'hello', thinking: 'a greeting' },
      { role: 'user' },
    ]
    expect(chatOf({ messages }).messages).toEqual([
      { role: 'system', content: 'be brief' },
      { role: 'user', content: 'hi' },
      { role: 'assistant', content: 'hello', reasoning_content: 'a greeting' },
      { role: 'user', content: '' },
    ])
  })
})

describe('tool calls in a conversation', () => {
  const call = (name: string, more: Json = {}): Json => ({ ...more, function: { name, arguments: { of: name } } })

  /** The ids of the calls and those of the answers, in their order. */
  function idsOf(messages: Json[]): { calls: unknown[]; answers: unknown[] } {
    const calls: unknown[] = []
    const answers: unknown[] = []
    const { messages: turns } = chatOf({ messages })
    for (const turn of Array.isArray(turns) ? turns : []) {
      for (const each of turn.tool_calls ?? []) calls.push(each.id)
      if (turn.role === 'tool') answers.push(turn.tool_call_id)
    }
    return { calls, answers }
  }

  test('get ids, which the messages of tools repeat', () => {
    const messages = [
      ...HELLO,
      { role: 'assistant', content: '', tool_calls: [call('weather')] },
      { role: 'tool', content: '11 degrees', tool_name: 'weather' },
      { role: 'assistant', content: 'and then', tool_calls: [call('time'), { function: { name: 'now' } }] },
      { role: 'tool', content: 'noon' },
      { role: 'tool', content: 'today' },
    ]
    expect(chatOf({ messages }).messages).toEqual([
      ...HELLO,
      {
        role: 'assistant',
        content: null,
        tool_calls: [{ id: 'call_1_0', type: 'function', function: { name: 'weather', arguments: '{"of":"weather"}' } }],
      },
      { role: 'tool', tool_call_id: 'call_1_0', content: '11 degrees' },
      {
        role: 'assistant',
        content: 'and then',
        tool_calls: [
          { id: 'call_2_0', type: 'function', function: { name: 'time', arguments: '{"of":"time"}' } },
          { id: 'call_2_1', type: 'function', function: { name: 'now', arguments: '{}' } },
        ],
      },
      { role: 'tool', tool_call_id: 'call_2_0', content: 'noon' },
      { role: 'tool', tool_call_id: 'call_2_1', content: 'today' },
    ])
  })

  test('are answered by id before name, by name before order, and each once', () => {
    const tool_calls = [call('a', { id: 'x' }), call('b'), call('b'), call('c')]
    const messages = [
      { role: 'assistant', tool_calls },
      { role: 'tool', tool_name: 'c' },
      { role: 'tool', tool_name: 'b' },
      { role: 'tool', tool_name: 'b', tool_call_id: 'x' },
      { role: 'tool', tool_name: 'nobody' },
    ]
    expect(idsOf(messages)).toEqual({
      calls: ['x', 'call_1_1', 'call_1_2', 'call_1_3'],
      answers: ['call_1_3', 'call_1_1', 'x', 'call_1_2'],
    })
  })

  test('are found by name under an id that the caller left out of the calls, never under another call that has one', () => {
    const messages = [
      { role: 'assistant', tool_calls: [call('a', { id: 'x' }), call('a')] },
      { role: 'tool', tool_name: 'a', tool_call_id: 'lost' },
    ]
    expect(idsOf(messages).answers).toEqual(['call_1_1'])
    const again = [...messages, { role: 'tool', tool_name: 'a', tool_call_id: 'lost' }]
    expect(refusal(() => idsOf(again)).param).toBe('messages[2].tool_call_id')
  })

  test('of several assistant messages in a row are one turn', () => {
    const messages = [
      { role: 'assistant', tool_calls: [call('a')] },
      { role: 'assistant', tool_calls: [call('b')] },
      { role: 'tool', tool_name: 'b' },
      { role: 'tool', tool_name: 'a' },
    ]
    expect(idsOf(messages)).toEqual({ calls: ['call_1_0', 'call_1_1'], answers: ['call_1_1', 'call_1_0'] })
  })

  test('that nobody answered do not take the answers of the next turn', () => {
    const messages = [
      { role: 'assistant', tool_calls: [call('a'), call('a')] },
      { role: 'tool', tool_name: 'a' },
      { role: 'assistant', tool_calls: [call('a')] },
      { role: 'tool', tool_name: 'a' },
    ]
    expect(idsOf(messages).answers).toEqual(['call_1_0', 'call_2_0'])
  })

  test('any conversation keeps roles, texts and calls, and each answer gets the id of its call', () => {
    const name = fc.constantFrom('a', 'b', 'c')
    const plain = fc.record({ role: fc.constantFrom('system', 'user', 'assistant'), content: fc.string() })
    /** A turn with calls, and a permutation of answers of which each has the name of its call as its only mark. */
    const turn = fc
      .array(fc.record({ name, args: fc.dictionary(fc.string(), fc.jsonValue()) }), { minLength: 1, maxLength: 5 })
      .chain(calls => fc.record({ calls: fc.constant(calls), order: fc.shuffledSubarray([...calls.keys()], { minLength: 1 }) }))
      .map(({ calls, order }) => ({ calls, answers: order.map(at => calls[at]?.name ?? '') }))
    fc.assert(
      fc.property(fc.array(fc.oneof(plain, turn), { minLength: 1, maxLength: 8 }), parts => {
        const messages = parts.flatMap((part): Json[] => {
          if ('role' in part) return [part]
          const tool_calls = part.calls.map(each => ({ function: { name: each.name, arguments: each.args } }))
          const answers = part.answers.map((tool_name, at) => ({ role: 'tool', content: `${tool_name} ${at}`, tool_name }))
          return [{ role: 'assistant', content: '', tool_calls }, ...answers]
        })
        const { messages: turns } = chatOf({ messages })
        if (!Array.isArray(turns)) throw new Error('no messages')
        expect(turns).toHaveLength(messages.length)
        const nameOf = new Map<unknown, unknown>()
        const answered = new Set<unknown>()
        for (const [at, message] of messages.entries()) {
          const turn = turns[at]
          expect(turn.role).toBe(message.role)
          expect(turn.content ?? '').toBe(message.content)
          if (Array.isArray(message.tool_calls)) {
            const calls: Json[] = turn.tool_calls
            expect(
              calls.map((each: Json & { function?: { name: string; arguments: string } }) => ({
                function: { name: each.function?.name, arguments: JSON.parse(each.function?.arguments ?? '') },
              })),
              // Through JSON, since -0 is 0 there.
            ).toEqual(JSON.parse(JSON.stringify(message.tool_calls)))
            for (const [n, each] of calls.entries()) {
              expect(nameOf.has(each.id)).toBe(false)
              nameOf.set(each.id, message.tool_calls[n].function.name)
            }
          }
          if (message.role !== 'tool') continue
          expect(nameOf.get(turn.tool_call_id)).toBe(message.tool_name)
          expect(answered.has(turn.tool_call_id)).toBe(false)
          answered.add(turn.tool_call_id)
        }
        // The same conversation gets the same ids, or prompt caches would miss.
        expect(chatOf({ messages }).messages).toEqual(turns)
      }),
    )
  })
})

describe('the question of /api/generate', () => {
  test('is a chat of a system prompt, if any, and the prompt', () => {
    expect(generateOf({ system: 'be brief', context: null, suffix: '', template: '', raw: false })).toEqual({
      model: 'llama3',
      messages: [{ role: 'system', content: 'be brief' }, ...HELLO],
      stream: true,
    })
    expect(generateOf({ system: '' }).messages).toEqual(HELLO)
  })

  test('has images, options, format, think and stream as chats have them', () => {
    const members = { images: [JPEG], options: { num_predict: 5 }, format: 'json', think: 'low', stream: false }
    expect(generateOf(members)).toEqual({
      model: 'llama3',
      messages: [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'hello' },
            { type: 'image_url', image_url: { url: `data:image/jpeg;base64,${JPEG}` } },
          ],
        },
      ],
      stream: false,
      max_tokens: 5,
      response_format: { type: 'json_object' },
      reasoning_effort: 'low',
    })
  })
})

describe('a wrong member is refused by name', () => {
  const ofMessage = (message: unknown): Json => ({ messages: [...HELLO, message] })
  const ofCall = (call: unknown): Json => ofMessage({ role: 'assistant', tool_calls: [call] })

  const CHATS: [param: string, members: Json][] = [
    ['messages', { messages: [] }],
    ['messages', { messages: null }],
    ['messages', { messages: 'hello' }],
    ['messages[1]', ofMessage('hello')],
    ['messages[1]', ofMessage(null)],
    ['messages[1].role', ofMessage({ content: 'hello' })],
    ['messages[1].role', ofMessage({ role: 'developer', content: 'hello' })],
    ['messages[1].role', ofMessage({ role: 1 })],
    ['messages[1].content', ofMessage({ role: 'user', content: [{ type: 'text', text: 'hello' }] })],
    ['messages[1].images', ofMessage({ role: 'user', images: PNG })],
    ['messages[1].images[1]', ofMessage({ role: 'user', images: [PNG, '/home/me/cat.png'] })],
    ['messages[1].images[0]', ofMessage({ role: 'user', images: ['https://example.com/cat.png'] })],
    ['messages[1].images[0]', ofMessage({ role: 'user', images: ['data:image/png,abcd'] })],
    ['messages[1].images[0]', ofMessage({ role: 'user', images: [''] })],
    ['messages[1].images[0]', ofMessage({ role: 'user', images: ['abcde'] })],
    ['messages[1].images[0]', ofMessage({ role: 'user', images: [7] })],
    ['messages[1].thinking', ofMessage({ role: 'assistant', thinking: true })],
    ['messages[1].tool_calls', ofMessage({ role: 'assistant', tool_calls: {} })],
    ['messages[1].tool_calls[0]', ofCall('weather')],
    ['messages[1].tool_calls[0].id', ofCall({ id: 1, function: { name: 'a' } })],
    ['messages[1].tool_calls[0].function', ofCall({ function: 'a' })],
    ['messages[1].tool_calls[0].function.name', ofCall({})],
    ['messages[1].tool_calls[0].function.name', ofCall({ function: { name: '' } })],
    ['messages[1].tool_calls[0].function.arguments', ofCall({ function: { name: 'a', arguments: '{}' } })],
    ['messages[1]', ofMessage({ role: 'tool', content: '11 degrees', tool_name: 'weather' })],
    ['messages[1].tool_name', ofMessage({ role: 'tool', tool_name: 1 })],
    ['messages[1].tool_call_id', ofMessage({ role: 'tool', tool_call_id: 1 })],
    ['tools', { tools: {} }],
    ['tools[0]', { tools: ['weather'] }],
    ['tools[0].function', { tools: [{ type: 'function', function: 'weather' }] }],
    ['tools[0].function.name', { tools: [{ type: 'function' }] }],
    ['tools[0].function.description', { tools: [{ function: { name: 'a', description: 1 } }] }],
    ['tools[0].function.parameters', { tools: [{ function: { name: 'a', parameters: 'none' } }] }],
    ['stream', { stream: 'yes' }],
    ['format', { format: 'xml' }],
    ['format', { format: ['json'] }],
    ['think', { think: 'a lot' }],
    ['think', { think: 1 }],
    ['logprobs', { logprobs: 1 }],
    ['top_logprobs', { top_logprobs: 1.5 }],
    ['options', { options: [] }],
    ['options.temperature', { options: { temperature: '0.5' } }],
    ['options.repeat_penalty', { options: { repeat_penalty: true } }],
    ['options.top_k', { options: { top_k: 1.5 } }],
    ['options.seed', { options: { seed: '42' } }],
    ['options.num_predict', { options: { num_predict: 1.5 } }],
    ['options.stop', { options: { stop: 1 } }],
    ['options.stop', { options: { stop: ['a', 1] } }],
  ]
  test.each(CHATS)('/api/chat: %s', (param, members) => {
    const error = refusal(() => chatOf(members))
    expect({ status: error.status, type: error.type, param: error.param }).toEqual({
      status: 400,
      type: 'invalid_request_error',
      param,
    })
    expect(error.message).toContain(`\`${param}\``)
  })

  const GENERATES: [param: string, members: Json][] = [
    ['prompt', { prompt: ['hello'] }],
    ['system', { system: 1 }],
    ['suffix', { suffix: 'the end' }],
    ['suffix', { suffix: 1 }],
    ['template', { template: '{{ .Prompt }}' }],
    ['context', { context: [1, 2, 3] }],
    ['context', { context: 'tokens' }],
    ['raw', { raw: true }],
    ['raw', { raw: 'no' }],
    ['images[0]', { images: ['cat.png'] }],
    ['options.top_p', { options: { top_p: '1' } }],
  ]
  test.each(GENERATES)('/api/generate: %s', (param, members) => {
    const error = refusal(() => generateOf(members))
    expect({ status: error.status, param: error.param }).toEqual({ status: 400, param })
  })

  const EMBEDS: [param: string, members: Json][] = [
    ['input', {}],
    ['input', { input: 1 }],
    ['input', { input: [] }],
    ['input[1]', { input: ['a', 1] }],
    ['dimensions', { input: 'a', dimensions: '3' }],
    ['truncate', { input: 'a', truncate: 1 }],
    ['options', { input: 'a', options: 1 }],
  ]
  test.each(EMBEDS)('/api/embed: %s', (param, members) => {
    expect(refusal(() => embedQuestion({ model: 'e', ...members })).param).toBe(param)
  })

  test('/api/embeddings: prompt', () => {
    for (const body of [{}, { prompt: ['a'] }]) expect(refusal(() => oldEmbedQuestion(body)).param).toBe('prompt')
  })
})

describe('the answer', () => {
  test('of a chat has the text, the thinking, why it ended and the counts', () => {
    const message = { role: 'assistant', content: 'Hi!', reasoning_content: 'a greeting' }
    expect(ollamaChat.answer(completion(message), asked())).toEqual({
      model: 'llama3',
      created_at: CREATED_AT,
      message: { role: 'assistant', content: 'Hi!', thinking: 'a greeting' },
      done: true,
      done_reason: 'stop',
      ...COUNTED,
    })
  })

  test('of a chat has the arguments of tool calls as objects, and ends with "stop"', () => {
    const tool_calls = [
      { id: 'call_x', type: 'function', function: { name: 'weather', arguments: '{"city":"Oslo"}' } },
      { type: 'function', function: { name: 'time', arguments: '[1]' } },
      { type: 'function', function: { name: 'now', arguments: '{"cut' } },
      { type: 'function', function: { name: 'here', arguments: { x: 1 } } },
    ]
    const answer = ollamaChat.answer(completion({ content: null, tool_calls }, { finish_reason: 'tool_calls' }), asked())
    expect(answer).toMatchObject({ done: true, done_reason: 'stop' })
    expect(answer.message).toEqual({
      role: 'assistant',
      content: '',
      tool_calls: [
        { id: 'call_x', function: { name: 'weather', arguments: { city: 'Oslo' } } },
        { function: { name: 'time', arguments: {} } },
        { function: { name: 'now', arguments: {} } },
        { function: { name: 'here', arguments: { x: 1 } } },
      ],
    })
  })

  test('of a generation has the text as `response`', () => {
    const chat = completion({ content: 'Hi', reasoning: 'a greeting' }, { finish_reason: 'length' })
    expect(ollamaGenerate.answer(chat, asked())).toEqual({
      model: 'llama3',
      created_at: CREATED_AT,
      response: 'Hi',
      thinking: 'a greeting',
      done: true,
      done_reason: 'length',
      ...COUNTED,
    })
  })

  test('has log probabilities and, in place of a text, the words of a refusal', () => {
    const content = [{ token: 'No', logprob: -0.5, bytes: [78, 111], top_logprobs: [] }]
    const answer = ollamaChat.answer(completion({ content: null, refusal: 'No' }, { logprobs: { content } }), asked())
    expect(answer).toMatchObject({ message: { content: 'No' }, logprobs: content })
  })

  test('is whole even where the upstream left out nearly all', () => {
    const empty = { model: 'llama3', created_at: CREATED_AT, done: true, done_reason: 'stop', ...NO_COUNTS }
    for (const chat of [{}, { choices: null, usage: null }, { choices: [null, { message: 'odd', logprobs: 1 }] }]) {
      expect(ollamaChat.answer(chat, asked())).toEqual({ ...empty, message: { role: 'assistant', content: '' } })
      expect(ollamaGenerate.answer(chat, asked())).toEqual({ ...empty, response: '' })
    }
  })

  test('that is an error has the message alone, and the line is kept open with nothing', () => {
    const error = new GatewayError('model_not_found', 'no such model')
    for (const dialect of [ollamaChat, ollamaGenerate]) {
      expect(dialect.error(error)).toEqual({ error: 'no such model' })
      expect(dialect.heartbeat).toBe('')
      expect(dialect.streamType).toBe('application/x-ndjson')
    }
  })
})

describe('the stream', () => {
  const head = { model: 'llama3', created_at: CREATED_AT }
  const line = (members: Json): Json => ({ ...head, message: { role: 'assistant', ...members }, done: false })
  const last = (members: Json): Json => ({ ...head, message: { role: 'assistant', content: '' }, done: true, ...members })

  test('sends a line a delta at once, and the last with the counts when all is over', () => {
    const stream = ollamaChat.stream(asked())
    expect(stream.chunk(delta({ role: 'assistant', content: '' }))).toBe('')
    expect(linesOf(stream.chunk(delta({ reasoning_content: 'hm' })))).toEqual([line({ content: '', thinking: 'hm' })])
    expect(linesOf(stream.chunk(delta({ content: 'Hel' })))).toEqual([line({ content: 'Hel' })])
    expect(linesOf(stream.chunk(delta({ content: 'lo\n', reasoning: 'x' })))).toEqual([line({ content: 'lo\n', thinking: 'x' })])
    expect(stream.chunk(delta({}, 'length'))).toBe('')
    expect(stream.chunk(USAGE_ONLY)).toBe('')
    expect(linesOf(stream.end())).toEqual([last({ done_reason: 'length', ...COUNTED })])
  })

  test('sends generated text as `response`', () => {
    expect(streamed([delta({ content: 'a', reasoning: 'b' }), delta({}, 'stop'), USAGE_ONLY], ollamaGenerate)).toEqual([
      { ...head, response: 'a', thinking: 'b', done: false },
      { ...head, response: '', done: true, done_reason: 'stop', ...COUNTED },
    ])
  })

  test('collects tool calls by index and sends them whole, in one line before the last', () => {
    const piece = (index: number, members: Json): Json => delta({ tool_calls: [{ index, ...members }] })
    const lines = streamed([
      delta({ content: 'let me see' }),
      piece(0, { id: 'call_x', type: 'function', function: { name: 'weather', arguments: '' } }),
      piece(0, { function: { arguments: '{"city":' } }),
      piece(1, { id: 'call_y', function: { name: 'time', arguments: '{' } }),
      piece(0, { id: 'call_x', function: { name: 'weather', arguments: '"Oslo"}' } }),
      delta({}, 'tool_calls'),
      USAGE_ONLY,
    ])
    expect(lines).toEqual([
      line({ content: 'let me see' }),
      line({
        content: '',
        tool_calls: [
          { id: 'call_x', function: { name: 'weather', arguments: { city: 'Oslo' } } },
          { id: 'call_y', function: { name: 'time', arguments: {} } },
        ],
      }),
      last({ done_reason: 'stop', ...COUNTED }),
    ])
  })

  test('tells calls without an index apart by id and name', () => {
    const piece = (members: Json): Json => delta({ tool_calls: [members] })
    const [calls] = streamed([
      piece({ id: 'x', function: { name: 'a', arguments: '{"n":' } }),
      piece({ id: 'x', function: { arguments: '1' } }),
      piece({ function: { arguments: '}' } }),
      piece({ id: 'y', function: { name: 'a', arguments: '{"n":2}' } }),
      piece({ function: { name: 'b', arguments: '{"n":3}' } }),
    ])
    expect(calls).toEqual(
      line({
        content: '',
        tool_calls: [
          { id: 'x', function: { name: 'a', arguments: { n: 1 } } },
          { id: 'y', function: { name: 'a', arguments: { n: 2 } } },
          { function: { name: 'b', arguments: { n: 3 } } },
        ],
      }),
    )
  })

  test('counts what the last usage says, which may come with a delta', () => {
    const lines = streamed([
      { ...delta({ content: 'a' }), usage: { prompt_tokens: 7, completion_tokens: 1 } },
      { ...delta({ content: 'b' }, 'stop'), usage: USAGE },
    ])
    expect(lines.at(-1)).toMatchObject({ done: true, prompt_eval_count: 7, eval_count: 3 })
  })

  test('has log probabilities with the text that they are of', () => {
    const content = [{ token: 'a', logprob: -1, top_logprobs: [] }]
    const chunk = { choices: [{ index: 0, delta: { content: 'a' }, logprobs: { content } }] }
    expect(streamed([chunk])[0]).toEqual({ ...line({ content: 'a' }), logprobs: content })
  })

  test('that broke ends with a line that has the error, and no line says done', () => {
    for (const dialect of [ollamaChat, ollamaGenerate]) {
      const stream = dialect.stream(asked())
      const text = stream.chunk(delta({ content: 'a' })) + stream.error(new GatewayError('stream_aborted', 'it broke'))
      expect(linesOf(text).at(-1)).toEqual({ error: 'it broke' })
      expect(linesOf(text).some(each => each.done)).toBe(false)
    }
  })

  test('of odd chunks is one last line', () => {
    const odd = [
      {},
      { choices: null, usage: 7 },
      { choices: [null] },
      { choices: [{ index: 1, delta: { content: 'another choice' } }] },
      { choices: [{ delta: null, finish_reason: 7 }] },
      delta({ content: 7, reasoning_content: {}, tool_calls: [null, {}, { index: 0, function: 'odd' }] }),
      delta({ tool_calls: 'odd' }),
    ]
    expect(streamed(odd)).toEqual([last({ done_reason: 'stop', ...NO_COUNTS })])
  })

  test('of any chunks is lines of JSON of which only the last is done, with the texts and the calls of the deltas', () => {
    const text = fc.string({ unit: 'binary' })
    const said = fc.record({ content: fc.option(text), reasoning_content: fc.option(text) }, { requiredKeys: [] })
    const args = fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 3 })
    const pieces = fc.array(args, { maxLength: 3 }).chain(calls =>
      fc.array(fc.nat({ max: 40 }), { minLength: 1, maxLength: 3 }).map(cuts =>
        calls.flatMap((each, index) => {
          const whole = JSON.stringify(each)
          const ends = [...cuts.map(cut => cut % whole.length).sort((a, b) => a - b), whole.length]
          return ends.map((end, at) => {
            const named = at === 0 ? { id: `call_${index}`, type: 'function' } : {}
            const name = at === 0 ? { name: `tool ${index}` } : {}
            return { ...named, index, function: { ...name, arguments: whole.slice(ends[at - 1] ?? 0, end) } }
          })
        }),
      ),
    )
    fc.assert(
      fc.property(fc.array(said), pieces, fc.constantFrom('stop', 'length', 'tool_calls', null), (deltas, calls, reason) => {
        const chunks = [
          ...deltas.map(each => delta(each)),
          ...calls.map(each => delta({ tool_calls: [each] })),
          delta({}, reason),
        ]
        const lines = streamed([...chunks, USAGE_ONLY])
        expect(lines.map(each => each.done)).toEqual([...lines.slice(1).map(() => false), true])
        const messages: Json[] = JSON.parse(JSON.stringify(lines.map(each => each.message)))
        const joined = (parts: unknown[]) => parts.map(part => part ?? '').join('')
        expect(joined(messages.map(each => each.content))).toBe(joined(deltas.map(each => each.content)))
        expect(joined(messages.map(each => each.thinking))).toBe(joined(deltas.map(each => each.reasoning_content)))
        const whole = Map.groupBy(calls, each => each.index)
        expect(messages.flatMap(each => each.tool_calls ?? [])).toEqual(
          [...whole].map(([index, parts]) => ({
            id: `call_${index}`,
            function: { name: `tool ${index}`, arguments: JSON.parse(parts.map(part => part.function.arguments).join('')) },
          })),
        )
      }),
    )
  })
})

describe('a request to load or unload a model', () => {
  test('is one that has nothing to say', () => {
    for (const nothing of [{}, { prompt: '' }, { prompt: null }, { messages: [] }, { messages: null }]) {
      expect(isLoadRequest({ model: 'llama3', ...nothing })).toBe(true)
    }
    for (const something of [{ prompt: 'a' }, { messages: HELLO }, { messages: 'wrong' }, { prompt: 7 }]) {
      expect(isLoadRequest({ model: 'llama3', ...something })).toBe(false)
    }
  })

  test('is answered in the shape of its endpoint', () => {
    const loaded = { model: 'llama3', created_at: CREATED_AT, done: true, done_reason: 'load' }
    expect(loadAnswer({}, asked(), 'generate')).toEqual({ ...loaded, response: '' })
    expect(loadAnswer({}, asked(), 'chat')).toEqual({ ...loaded, message: { role: 'assistant', content: '' } })
  })

  test('unloads where the model is kept for no time', () => {
    for (const keep_alive of [0, '0', '0s', '0m0s', '0.0h']) {
      expect(loadAnswer({ keep_alive }, asked(), 'chat').done_reason).toBe('unload')
    }
    for (const keep_alive of [undefined, null, 1, -1, '5m', '10s', '0.5s', '', 's', false]) {
      expect(loadAnswer({ keep_alive }, asked(), 'chat').done_reason).toBe('load')
    }
  })
})

test('the members that only Ollama follows are named where they are sent', () => {
  expect(droppedMembers({ keep_alive: 0, options: { num_ctx: 8192, seed: 1 } })).toEqual(['keep_alive', 'options.num_ctx'])
  expect(droppedMembers({ options: { num_ctx: 1 } })).toEqual(['options.num_ctx'])
  for (const body of [{}, { keep_alive: null, options: { num_ctx: null } }, { options: 'odd' }]) {
    expect(droppedMembers(body)).toEqual([])
  }
})

describe('embeddings', () => {
  test('are asked for as floats, of one text or many', () => {
    const body = { model: 'e', input: ['a', 'b'], dimensions: 3, truncate: true, options: { num_ctx: 1 }, keep_alive: '5m' }
    expect(embedQuestion(body)).toEqual({ model: 'e', input: ['a', 'b'], dimensions: 3, encoding_format: 'float' })
    expect(embedQuestion({ model: 'e', input: 'a' })).toEqual({ model: 'e', input: 'a', encoding_format: 'float' })
    expect(oldEmbedQuestion({ model: 'e', prompt: 'a' })).toEqual({ model: 'e', input: 'a', encoding_format: 'float' })
  })

  const openai = {
    data: [
      { index: 1, embedding: [3, 4] },
      { index: 0, embedding: [1, 2] },
    ],
    usage: { prompt_tokens: 5, total_tokens: 5 },
  }

  test('are answered in the order of the texts', () => {
    expect(embedAnswer(openai, asked())).toEqual({
      model: 'llama3',
      embeddings: [
        [1, 2],
        [3, 4],
      ],
      total_duration: 0,
      load_duration: 0,
      prompt_eval_count: 5,
    })
    expect(oldEmbedAnswer(openai)).toEqual({ embedding: [1, 2] })
    expect(embedAnswer({}, asked())).toMatchObject({ embeddings: [], prompt_eval_count: 0 })
  })

  test('that are no arrays, or are missing, are the upstream’s error', () => {
    const odd = { data: [{ embedding: 'AACAPw==' }] }
    for (const run of [() => embedAnswer(odd, asked()), () => oldEmbedAnswer(odd), () => oldEmbedAnswer({ data: [] })]) {
      expect(refusal(run).kind).toBe('upstream_decode_error')
    }
  })
})

describe('the documents that clients look models up in', () => {
  const details = { parent_model: '', format: '', family: '', families: [], parameter_size: '', quantization_level: '' }

  test('list each alias with a digest of its own', () => {
    expect(tagsDocument([{ alias: 'abc', createdMs: Date.parse(CREATED_AT) }])).toEqual({
      models: [
        {
          name: 'abc',
          model: 'abc',
          modified_at: CREATED_AT,
          size: 0,
          // source: FIPS 180-2, B.1
          digest: 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
          details,
        },
      ],
    })
    expect(tagsDocument([])).toEqual({ models: [] })
    expect(psDocument()).toEqual({ models: [] })
  })

  test('show what a model can do, and the version', () => {
    expect(showDocument('llama3', ['completion', 'tools'])).toEqual({
      modelfile: '',
      parameters: '',
      template: '',
      details,
      model_info: { 'general.basename': 'llama3' },
      capabilities: ['completion', 'tools'],
    })
    expect(versionDocument('0.1.0')).toEqual({ version: '0.1.0' })
  })
})
