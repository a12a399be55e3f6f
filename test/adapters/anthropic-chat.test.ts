import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import type { Json } from '../../src/adapters/adapter.ts'
import {
  createChunks,
  fromMessage,
  messagesBase,
  readMessagesError,
  readMessagesUsage,
  toMessages,
} from '../../src/adapters/anthropic-chat.ts'
import { openai } from '../../src/adapters/openai.ts'
import { GatewayError } from '../../src/errors.ts'

const NOW = 1_700_000_000_999

function isRecord(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function records(value: unknown): Json[] {
  return Array.isArray(value) ? value.filter(isRecord) : []
}

function record(value: unknown): Json {
  if (!isRecord(value)) throw new Error(`${JSON.stringify(value)} is no object`)
  return value
}

const text = (said: string, more: Json = {}) => ({ type: 'text', text: said, ...more })
const user = (content: unknown) => ({ role: 'user', content })

/** The body without what stands in every one of them. */
function translate(chat: Json): Json {
  const { model, max_tokens, ...rest } = toMessages({ model: 'm', messages: [user('hi')], ...chat })
  expect(model).toBe('m')
  expect(typeof max_tokens).toBe('number')
  return rest
}

function turnsOf(...messages: unknown[]): unknown {
  return translate({ messages }).messages
}

function refusal(chat: Json): GatewayError {
  try {
    toMessages({ model: 'm', messages: [user('hi')], ...chat })
  } catch (error) {
    if (error instanceof GatewayError) return error
    throw error
  }
  throw new Error('it was taken')
}

const call = (id: unknown, name: unknown, args: unknown) => ({ id, type: 'function', function: { name, arguments: args } })
const tool = (name: string, more: Json = {}) => ({ type: 'function', function: { name, ...more } })

describe('system messages', () => {
  const system = (...contents: unknown[]) =>
    translate({ messages: [...contents.map(content => ({ role: 'system', content })), user('hi')] }).system

  test('that lead are one string, joined by a blank line', () => {
    expect(translate({ messages: [{ role: 'system', content: 'a' }, { role: 'developer', content: 'b' }, user('hi')] })).toEqual({
      system: 'a\n\nb',
      messages: [{ role: 'user', content: [text('hi')] }],
    })
  })

  test('are blocks as soon as one has parts, with their markers and nothing else', () => {
    const cached = { cache_control: { type: 'ephemeral' }, citations: { enabled: true } }
    expect(system('a', [text('b', { ...cached, other: 1 }), text(' '), { type: 'image_url' }])).toEqual([
      text('a'),
      text('b', cached),
    ])
  })

  test.each([[''], [' \n'], [null], [undefined], [7], [[]], [[text('')]]])('of %p are none', content => {
    expect(system(content)).toBeUndefined()
  })

  test('behind another role are user turns', () => {
    const turns = turnsOf(
      user('a'),
      { role: 'assistant', content: 'b' },
      { role: 'system', content: 'c' },
      { role: 'developer', content: [text('d')] },
    )
    expect(turns).toEqual([
      { role: 'user', content: [text('a')] },
      { role: 'assistant', content: [text('b')] },
      { role: 'user', content: [text('c'), text('d')] },
    ])
  })

  test('alone are what is asked, since Messages wants a turn', () => {
    const messages = [
      { role: 'system', content: 'a' },
      { role: 'developer', content: 'b' },
    ]
    expect(translate({ messages })).toEqual({ messages: [{ role: 'user', content: [text('a'), text('b')] }] })
  })
})

describe('a user turn', () => {
  const blocks = (...content: unknown[]) => record(records(turnsOf(user(content)))[0]).content

  test('has its texts, without blank ones', () => {
    expect(blocks(text('a', { cache_control: { type: 'ephemeral' } }), text(' '), text('b'), { type: 'text' })).toEqual([
      text('a', { cache_control: { type: 'ephemeral' } }),
      text('b'),
    ])
  })

  test.each([
    [
      { url: 'data:image/png;base64,AAAA', detail: 'low' },
      { type: 'base64', media_type: 'image/png', data: 'AAAA' },
    ],
    [{ url: 'DATA:IMAGE/WEBP;name=x;BASE64,AA+/' }, { type: 'base64', media_type: 'image/webp', data: 'AA+/' }],
    [{ url: 'data:image/jpg;base64,AAAA' }, { type: 'base64', media_type: 'image/jpeg', data: 'AAAA' }],
    [{ url: 'https://h/cat.png' }, { type: 'url', url: 'https://h/cat.png' }],
    ['http://h/cat.png', { type: 'url', url: 'http://h/cat.png' }],
  ])('keeps the image %p', (image_url, source) => {
    expect(blocks(text('a'), { type: 'image_url', image_url }, text('b'))).toEqual([
      text('a'),
      { type: 'image', source },
      text('b'),
    ])
  })

  test('keeps a marker on an image', () => {
    const cache_control = { type: 'ephemeral' }
    expect(blocks({ type: 'image_url', image_url: { url: 'http://h/a' }, cache_control })).toEqual([
      { type: 'image', source: { type: 'url', url: 'http://h/a' }, cache_control },
    ])
  })

  test('keeps a picture of megabytes whole', () => {
    const data = 'A'.repeat(4_000_000)
    expect(blocks({ type: 'image_url', image_url: { url: `data:image/png;base64,${data}` } })).toEqual([
      { type: 'image', source: { type: 'base64', media_type: 'image/png', data } },
    ])
  })

  test('keeps a PDF as a document', () => {
    const url = 'data:application/pdf;base64,JVBE'
    const source = { type: 'base64', media_type: 'application/pdf', data: 'JVBE' }
    expect(
      blocks({ type: 'image_url', image_url: { url } }, { type: 'file', file: { filename: 'a.pdf', file_data: url } }),
    ).toEqual([
      { type: 'document', source },
      { type: 'document', source, title: 'a.pdf' },
    ])
  })

  test.each([
    [undefined],
    [{}],
    [{ url: 7 }],
    [{ url: '' }],
    [{ url: 'cat.png' }],
    [{ url: 'file:///etc/passwd' }],
    [{ url: 'data:image/png,AAAA' }],
    [{ url: 'data:;base64,AAAA' }],
    [{ url: 'data:image/png;base64,AAA' }],
    [{ url: 'data:image/png;base64,not base64' }],
    [{ url: `data:${'x'.repeat(300)};base64,AAAA` }],
  ])('refuses the image %p by name, rather than losing it', image_url => {
    const error = refusal({ messages: [user('a'), user([text('b'), { type: 'image_url', image_url }])] })
    expect(error.status).toBe(400)
    expect(error.param).toBe('messages.1.content.1.image_url.url')
    expect(error.message).toStartWith('request payload is invalid: `messages.1.content.1.image_url.url` must be ')
  })

  test('drops parts that Messages has no block for', () => {
    expect(
      blocks(text('a'), { type: 'input_audio', input_audio: {} }, null, 'x', { type: 'file', file: { file_id: 'f' } }),
    ).toEqual([text('a')])
  })

  test.each([[''], ['  '], [null], [undefined], [7], [{}], [[]], [[text(' ')]]])('of %p has one empty text', content => {
    expect(turnsOf(user(content))).toEqual([{ role: 'user', content: [text('')] }])
  })

  test('that is empty leaves nothing in the turn it is merged into', () => {
    expect(turnsOf(user(''), user('a'), user(null))).toEqual([{ role: 'user', content: [text('a')] }])
  })
})

describe('tools', () => {
  test('of an assistant turn stand behind its text, with parsed arguments', () => {
    const calls = [call('c1', 'f', '{"a":[1]}'), call('c2', 'g', { b: 2 })]
    expect(
      turnsOf(user('q'), { role: 'assistant', content: [text('t'), { type: 'refusal', refusal: 'r' }], tool_calls: calls }),
    ).toEqual([
      { role: 'user', content: [text('q')] },
      {
        role: 'assistant',
        content: [
          text('t'),
          { type: 'tool_use', id: 'c1', name: 'f', input: { a: [1] } },
          { type: 'tool_use', id: 'c2', name: 'g', input: { b: 2 } },
        ],
      },
    ])
  })

  test.each([[''], ['{'], ['[1]'], ['"a"'], ['null'], [undefined], [null], [7], [`{"a":${'['.repeat(1_000_000)}`]])(
    'called with arguments that are no object get an empty one',
    args => {
      expect(turnsOf({ role: 'assistant', content: null, tool_calls: [call('c', 'f', args)] })).toEqual([
        { role: 'assistant', content: [{ type: 'tool_use', id: 'c', name: 'f', input: {} }] },
      ])
    },
  )

  test('calls without id or name are dropped, and leave an empty turn', () => {
    const tool_calls = [call('', 'f', '{}'), call(undefined, 'f', '{}'), call('c', '', '{}'), { id: 'c' }, null, 'x']
    expect(turnsOf({ role: 'assistant', content: '', tool_calls })).toEqual([{ role: 'assistant', content: [text('')] }])
    expect(turnsOf({ role: 'assistant', tool_calls: 'x' })).toEqual([{ role: 'assistant', content: [text('')] }])
  })

  test('results are one user turn, together with what the user says next', () => {
    const tool_calls = ['c1', 'c2', 'c3'].map(id => call(id, 'f', '{}'))
    const [, answered] = records(
      turnsOf(
        { role: 'assistant', tool_calls },
        { role: 'tool', tool_call_id: 'c1', content: 'r1' },
        {
          role: 'tool',
          tool_call_id: 'c2',
          content: [text('r2'), { type: 'image_url', image_url: { url: 'data:image/png;base64,AA==' } }],
        },
        { role: 'tool', tool_call_id: 'c3', content: null },
        user('next'),
      ),
    )
    expect([answered]).toEqual([
      {
        role: 'user',
        content: [
          { type: 'tool_result', tool_use_id: 'c1', content: 'r1' },
          {
            type: 'tool_result',
            tool_use_id: 'c2',
            content: [text('r2'), { type: 'image', source: { type: 'base64', media_type: 'image/png', data: 'AA==' } }],
          },
          { type: 'tool_result', tool_use_id: 'c3', content: '' },
          text('next'),
        ],
      },
    ])
  })

  test.each([[undefined], [null], [''], [7]])('a result for the call %p is refused by name', tool_call_id => {
    const error = refusal({ messages: [user('a'), { role: 'tool', tool_call_id, content: 'r' }] })
    expect(error.status).toBe(400)
    expect(error.param).toBe('messages.1.tool_call_id')
    expect(error.message).toContain('`messages.1.tool_call_id`')
  })

  test.each([
    ['without any call', [user('a')]],
    [
      'of a call that comes later',
      [user('a'), { role: 'tool', tool_call_id: 'c1' }, { role: 'assistant', tool_calls: [call('c1', 'f', '')] }],
    ],
    ['of a call without a name, which is dropped', [{ role: 'assistant', tool_calls: [call('c1', '', '')] }]],
  ])('a result %s is refused by name', (_what, messages) => {
    const error = refusal({ messages: [...messages, { role: 'tool', tool_call_id: 'c1', content: 'r' }] })
    expect([error.status, error.param]).toEqual([400, expect.stringMatching(/^messages\.[12]\.tool_call_id$/)])
  })

  test('are functions with what Messages knows of them', () => {
    const parameters = { type: 'object', properties: { a: { type: 'string' } } }
    const cache_control = { type: 'ephemeral' }
    const tools = [
      tool('f', { description: 'd', parameters, strict: true }),
      tool('g'),
      { ...tool('h', { description: null }), cache_control },
      tool('i', { cache_control }),
      { type: 'custom', custom: { name: 'x' } },
      { type: 'function' },
      tool(''),
      null,
    ]
    expect(translate({ tools }).tools).toEqual([
      { name: 'f', description: 'd', input_schema: parameters, strict: true },
      { name: 'g', input_schema: { type: 'object' } },
      { name: 'h', input_schema: { type: 'object' }, cache_control },
      { name: 'i', input_schema: { type: 'object' }, cache_control },
    ])
  })

  test('a schema is that of an object, said or not', () => {
    const parameters = { properties: { a: {} } }
    expect(translate({ tools: [tool('f', { parameters })] }).tools).toMatchObject([
      { input_schema: { type: 'object', ...parameters } },
    ])
  })

  test('of allowed ones alone Messages is told', () => {
    const tool_choice = (mode: string) => ({ type: 'allowed_tools', allowed_tools: { mode, tools: [tool('g')] } })
    const tools = [tool('f'), tool('g')]
    expect(translate({ tools, tool_choice: tool_choice('required') })).toMatchObject({
      tools: [{ name: 'g' }],
      tool_choice: { type: 'any' },
    })
    expect(translate({ tools, tool_choice: tool_choice('auto') })).toMatchObject({
      tools: [{ name: 'g' }],
      tool_choice: { type: 'auto' },
    })
  })

  test('a choice goes with the tools that it is of', () => {
    expect(translate({ tool_choice: 'required' })).not.toHaveProperty('tool_choice')
    const custom = { type: 'custom', custom: { name: 'x' } }
    expect(translate({ tools: [custom], tool_choice: custom })).not.toContainAnyKeys(['tools', 'tool_choice'])
    expect(translate({ tools: [custom, tool('f')], tool_choice: custom })).not.toHaveProperty('tool_choice')
  })

  test.each([[[]], [[{ type: 'custom' }]], [null], ['x']])('%p are none', tools => {
    expect(translate({ tools })).not.toHaveProperty('tools')
  })

  test.each([
    ['auto', { type: 'auto' }],
    ['none', { type: 'none' }],
    ['required', { type: 'any' }],
    [tool('f'), { type: 'tool', name: 'f' }],
    [null, undefined],
    [undefined, undefined],
  ])('the choice %p is %p', (tool_choice, expected) => {
    expect(translate({ tools: [tool('f')], tool_choice }).tool_choice).toEqual(expected)
  })

  test.each([['any'], [7], [{ type: 'function' }], [{ type: 'function', function: { name: '' } }]])(
    'the choice %p is refused by name',
    tool_choice => {
      expect(refusal({ tool_choice }).param).toBe('tool_choice')
    },
  )

  test.each([
    [undefined, { type: 'auto', disable_parallel_tool_use: true }],
    ['auto', { type: 'auto', disable_parallel_tool_use: true }],
    ['required', { type: 'any', disable_parallel_tool_use: true }],
    [tool('f'), { type: 'tool', name: 'f', disable_parallel_tool_use: true }],
    ['none', { type: 'none' }],
  ])('one at a time and the choice %p are %p', (tool_choice, expected) => {
    expect(translate({ tools: [tool('f')], tool_choice, parallel_tool_calls: false }).tool_choice).toEqual(expected)
  })

  test('one at a time says nothing where there are none, parallel ones need no word', () => {
    expect(translate({ parallel_tool_calls: false })).not.toHaveProperty('tool_choice')
    expect(translate({ parallel_tool_calls: true, tools: [tool('f')] })).not.toHaveProperty('tool_choice')
  })
})

describe('the other members', () => {
  test.each([
    [{ max_tokens: 7 }, 7],
    [{ max_completion_tokens: 8 }, 8],
    [{ max_tokens: null, max_completion_tokens: 8 }, 8],
    [{ max_tokens: 7, max_completion_tokens: 8 }, 7],
    [{ max_tokens: null }, 4096],
    [{}, 4096],
  ])('%p allows %p tokens', (chat, expected) => {
    const body = toMessages({ model: 'm', messages: [user('hi')], ...chat })
    expect(body.max_tokens).toBe(expected)
    expect(body).not.toHaveProperty('max_completion_tokens')
  })

  test('that Messages has as well are the same, null is not told', () => {
    const same = { temperature: 0.7, top_p: 0.5, stream: true }
    expect(translate(same)).toEqual({ messages: [{ role: 'user', content: [text('hi')] }], ...same })
    expect(translate({ temperature: null, top_p: null, stream: null, stop: null, tools: null, metadata: null })).toEqual({
      messages: [{ role: 'user', content: [text('hi')] }],
    })
  })

  test.each([
    ['END', ['END']],
    [
      ['a', '', '\n'],
      ['a', '\n'],
    ],
    ['', undefined],
    [[], undefined],
  ])('stop %p is %p', (stop, expected) => {
    expect(translate({ stop }).stop_sequences).toEqual(expected)
    expect(translate({ stop })).not.toHaveProperty('stop')
  })

  test.each([[7], [{}], [['a', 7]]])('stop %p is refused by name', stop => {
    expect(refusal({ stop }).param).toBe('stop')
  })

  test.each([
    [{ user: 'u' }, { user_id: 'u' }],
    [{ user: 'u', metadata: { user_id: 'v' } }, { user_id: 'v' }],
    [{ metadata: { a: 1 } }, undefined],
    [{ metadata: { user_id: 7 }, user: 'u' }, { user_id: 'u' }],
    [{ user: 'u', metadata: { a: 1 } }, { user_id: 'u' }],
    [{ user: '' }, undefined],
    [{ user: 7 }, undefined],
  ])('%p is the metadata %p', (chat, expected) => {
    expect(translate(chat).metadata).toEqual(expected)
    expect(translate(chat)).not.toHaveProperty('user')
  })

  test('that Messages refuses are dropped, strangers and its own go through', () => {
    const dropped = {
      n: 2,
      logprobs: true,
      top_logprobs: 3,
      seed: 1,
      frequency_penalty: 1,
      presence_penalty: 1,
      logit_bias: {},
      stream_options: { include_usage: true },
      response_format: { type: 'json_object' },
      service_tier: 'flex',
      store: false,
      audio: { voice: 'a', format: 'wav' },
      modalities: ['text'],
      web_search_options: {},
      prediction: { type: 'content', content: 'x' },
      prompt_cache_key: 'k',
      prompt_cache_options: {},
      safety_identifier: 's',
      verbosity: 'low',
      moderation: {},
      functions: [],
      function_call: 'auto',
      reasoning_effort: 'none',
    }
    const kept = { top_k: 5, thinking: { type: 'disabled' }, service_tier: 'standard_only', vendor_member: { a: [null] } }
    expect(translate(dropped)).toEqual({ messages: [{ role: 'user', content: [text('hi')] }] })
    expect(translate(kept)).toEqual({ messages: [{ role: 'user', content: [text('hi')] }], ...kept })
  })

  test.each([
    [{ messages: undefined }, 'messages'],
    [{ messages: 'x' }, 'messages'],
    [{ messages: [user('a'), null] }, 'messages.1'],
    [{ messages: ['x'] }, 'messages.0'],
    [{ messages: [{ content: 'a' }] }, 'messages.0.role'],
    [{ messages: [{ role: 'function', name: 'f', content: 'a' }] }, 'messages.0.role'],
  ])('%p is refused by name', (chat, param) => {
    expect(refusal(chat).param).toBe(param)
  })
})

describe('the answer that is asked for', () => {
  const schema = { type: 'object', properties: { a: { type: 'string' } }, additionalProperties: false }
  const response_format = { type: 'json_schema', json_schema: { name: 'n', schema, strict: true } }

  test('is of the schema of `response_format`', () => {
    expect(translate({ response_format }).output_config).toEqual({ format: { type: 'json_schema', schema } })
    expect(translate({ response_format, output_config: { effort: 'low' } }).output_config).toEqual({
      format: { type: 'json_schema', schema },
      effort: 'low',
    })
  })

  test.each([[{ type: 'text' }], [{ type: 'json_object' }], [null], ['x']])(
    'has no form where `response_format` is %p',
    format => {
      expect(translate({ response_format: format })).not.toContainAnyKeys(['output_config', 'response_format'])
    },
  )

  test('is refused where there is no schema', () => {
    expect(refusal({ response_format: { type: 'json_schema' } }).param).toBe('response_format.json_schema.schema')
  })

  test.each([
    [0.3, 0.3],
    [1, 1],
    [1.7, 1],
  ])('at a temperature of %p has %p', (temperature, expected) => {
    expect(translate({ temperature }).temperature).toBe(expected)
  })
})

describe('reasoning_effort', () => {
  const asked = (chat: Json) => toMessages({ model: 'm', messages: [user('hi')], temperature: 0.2, ...chat })

  test.each([
    ['minimal', 1024],
    ['low', 1024],
    ['medium', 2048],
    ['high', 4096],
    ['xhigh', 8192],
  ])('%s thinks %p tokens beyond the answer, at the temperature that thinking has', (reasoning_effort, budget_tokens) => {
    for (const [chat, limit] of [
      [{ max_tokens: 10_000 }, 10_000],
      [{}, 4096],
    ] as const) {
      const body = asked({ ...chat, reasoning_effort })
      expect(body.thinking).toEqual({ type: 'enabled', budget_tokens })
      expect(body.max_tokens).toBe(limit + budget_tokens)
      expect(body).not.toHaveProperty('temperature')
      expect(body).not.toHaveProperty('reasoning_effort')
    }
  })

  test('drops samplers that do not go with thinking', () => {
    const body = asked({ reasoning_effort: 'low', top_p: 0.5, top_k: 3 })
    expect(body).not.toHaveProperty('top_p')
    expect(body).not.toHaveProperty('top_k')
    expect(asked({ reasoning_effort: 'low', top_p: 0.97 }).top_p).toBe(0.97)
  })

  const results = [
    user('q'),
    { role: 'assistant', content: null, tool_calls: [call('c', 'f', '{}')] },
    { role: 'tool', tool_call_id: 'c', content: 'r' },
  ]
  test.each([
    ['a word that we do not know', { reasoning_effort: 'utmost' }],
    ['no word', { reasoning_effort: 7 }],
    ['a limit of the budget', { reasoning_effort: 'low', max_tokens: 1024 }],
    ['a forced tool', { reasoning_effort: 'low', tools: [tool('f')], tool_choice: 'required' }],
    ['results of calls, whose thinking is not there', { reasoning_effort: 'low', messages: results }],
    ['an answer begun', { reasoning_effort: 'low', messages: [user('q'), { role: 'assistant', content: 'a' }] }],
  ])('does not think with %s', (_what, chat: Json) => {
    const body = asked(chat)
    expect(body).not.toHaveProperty('thinking')
    expect(body).not.toHaveProperty('reasoning_effort')
    expect(body.max_tokens).toBe(chat.max_tokens ?? 4096)
    expect(body.temperature).toBe(0.2)
  })

  test('gives way to the thinking that the caller wrote', () => {
    const thinking = { type: 'enabled', budget_tokens: 9000 }
    const body = asked({ reasoning_effort: 'low', thinking, max_tokens: 10_000 })
    expect(body).toMatchObject({ thinking, max_tokens: 10_000, temperature: 0.2 })
  })
})

test('the question is left as it was', () => {
  const chat = {
    model: 'm',
    messages: [{ role: 'system', content: [text('s')] }, user([text('a')]), user('b')],
    metadata: { a: 1 },
    user: 'u',
    reasoning_effort: 'low',
  }
  const before = structuredClone(chat)
  toMessages(chat)
  expect(chat).toEqual(before)
})

describe('an answer', () => {
  const answer = (message: Json) => fromMessage({ id: 'msg_1', model: 'claude', ...message }, NOW)
  const choice = (message: Json) => record(records(answer(message).choices)[0])

  test('is a chat completion', () => {
    const message = {
      type: 'message',
      role: 'assistant',
      content: [
        { type: 'thinking', thinking: 'hm', signature: 's' },
        { type: 'redacted_thinking', data: 'x' },
        { type: 'thinking', thinking: '!' },
        text('a'),
        { type: 'tool_use', id: 't1', name: 'f', input: { a: 1 } },
        text('b'),
        { type: 'tool_use', id: 't2', name: 'g' },
        { type: 'server_tool_use', id: 's', name: 'web_search', input: {} },
      ],
      stop_reason: 'tool_use',
      usage: { input_tokens: 1, output_tokens: 2, cache_creation_input_tokens: 3, cache_read_input_tokens: 4 },
    }
    expect(answer(message)).toEqual({
      id: 'msg_1',
      object: 'chat.completion',
      created: 1_700_000_000,
      model: 'claude',
      choices: [
        {
          index: 0,
          message: {
            role: 'assistant',
            content: 'ab',
            reasoning_content: 'hm!',
            tool_calls: [call('t1', 'f', '{"a":1}'), call('t2', 'g', '{}')],
          },
          finish_reason: 'tool_calls',
        },
      ],
      usage: {
        prompt_tokens: 1,
        completion_tokens: 2,
        total_tokens: 10,
        prompt_tokens_details: { cached_tokens: 4 },
        cache_read_input_tokens: 4,
        cache_creation_input_tokens: 3,
      },
    })
  })

  test.each([[[]], [undefined], ['x'], [[null, 7, {}]], [[{ type: 'tool_use', id: 't', name: 'f', input: {} }]]])(
    'of %p has no content',
    content => {
      expect(record(choice({ content }).message).content).toBeNull()
    },
  )

  test('of an empty text has an empty one', () => {
    expect(choice({ content: [text('')] }).message).toEqual({ role: 'assistant', content: '' })
  })

  test.each([
    ['end_turn', 'stop'],
    ['stop_sequence', 'stop'],
    ['pause_turn', 'stop'],
    [null, 'stop'],
    [undefined, 'stop'],
    ['max_tokens', 'length'],
    ['tool_use', 'tool_calls'],
    ['refusal', 'content_filter'],
    ['model_context_window_exceeded', 'model_context_window_exceeded'],
  ])('that ended with %p ended with %p', (stop_reason, expected) => {
    expect(choice({ content: [], stop_reason }).finish_reason).toBe(expected)
  })

  test('tells no cache that was not read, and zeros where nothing was counted', () => {
    const nothing = { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 }
    expect(answer({ content: [] }).usage).toEqual(nothing)
    expect(answer({ content: [], usage: { input_tokens: 'x', cache_read_input_tokens: 0 } }).usage).toEqual(nothing)
  })
})

describe('usage', () => {
  const nothing = {
    promptTokens: 0,
    completionTokens: 0,
    totalTokens: 0,
    cachedTokens: 0,
    reasoningTokens: 0,
    isEstimated: false,
  }

  test.each([
    [
      { input_tokens: 1, output_tokens: 2, cache_creation_input_tokens: 3, cache_read_input_tokens: 4 },
      { promptTokens: 8, completionTokens: 2, totalTokens: 10, cachedTokens: 4, cacheReadTokens: 4, cacheCreationTokens: 3 },
    ],
    [
      { input_tokens: 1, output_tokens: 2 },
      { promptTokens: 1, completionTokens: 2, totalTokens: 3 },
    ],
    [{ input_tokens: 1e9 }, { promptTokens: 1e9, totalTokens: 1e9 }],
    [{ input_tokens: 1e9 + 1, output_tokens: -1, cache_read_input_tokens: '5', cache_creation_input_tokens: Number.NaN }, {}],
    [{ input_tokens: null, output_tokens: Number.POSITIVE_INFINITY }, {}],
    [{}, {}],
  ])('%p is %p', (given, expected) => {
    expect(readMessagesUsage(given)).toEqual({ ...nothing, ...expected })
  })

  test.each([[undefined], [null], ['text'], [7], [[]]])('%p is none', given => {
    expect(readMessagesUsage(given)).toBeUndefined()
  })

  test('of a translated answer reads as the upstream told it', () => {
    const count = fc.oneof(fc.nat(), fc.constant(undefined), fc.constant('x'), fc.double())
    const usages = fc.record({
      input_tokens: count,
      output_tokens: count,
      cache_creation_input_tokens: count,
      cache_read_input_tokens: count,
    })
    fc.assert(
      fc.property(usages, usage => {
        const told = readMessagesUsage(usage)
        // A sum of counters may be more than one counter can be.
        fc.pre(told !== undefined && told.totalTokens <= 1e9)
        expect(openai.usage(fromMessage({ usage }, NOW).usage)).toEqual(told)
      }),
    )
  })
})

function translateStream(events: readonly Json[]): { chunks: Json[]; isDone: boolean } {
  const translator = createChunks(NOW)
  const chunks = events.flatMap(event => translator.event(event))
  return { chunks, isDone: translator.isDone }
}

const start = (usage: Json = {}) => ({
  type: 'message_start',
  message: { id: 'msg_1', type: 'message', role: 'assistant', model: 'claude', content: [], usage },
})
const blockStart = (index: number, content_block: Json) => ({ type: 'content_block_start', index, content_block })
const blockDelta = (index: number, delta: Json) => ({ type: 'content_block_delta', index, delta })
const blockStop = (index: number) => ({ type: 'content_block_stop', index })
const ending = (stop_reason: unknown, usage?: Json) => ({ type: 'message_delta', delta: { stop_reason }, usage })
const stop = { type: 'message_stop' }
const ping = { type: 'ping' }

describe('a stream', () => {
  const head = { id: 'msg_1', object: 'chat.completion.chunk', created: 1_700_000_000, model: 'claude' }
  const chunk = (delta: Json, more: Json = {}) => ({ ...head, choices: [{ index: 0, delta, ...more }] })

  test('of text, thinking and two tools is chunks, each out with its event', () => {
    const translator = createChunks(NOW)
    const steps: [Json, Json[]][] = [
      [
        start({ input_tokens: 9, output_tokens: 1, cache_creation_input_tokens: 3, cache_read_input_tokens: 4 }),
        [chunk({ role: 'assistant', content: '' })],
      ],
      [ping, []],
      [blockStart(0, { type: 'thinking', thinking: '', signature: '' }), []],
      [blockDelta(0, { type: 'thinking_delta', thinking: 'hm' }), [chunk({ reasoning_content: 'hm' })]],
      [blockDelta(0, { type: 'signature_delta', signature: 's' }), []],
      [blockStop(0), []],
      [blockStart(1, text('')), []],
      [blockDelta(1, { type: 'text_delta', text: 'a' }), [chunk({ content: 'a' })]],
      [blockDelta(1, { type: 'text_delta', text: '' }), []],
      [blockDelta(1, { type: 'citations_delta', citation: {} }), []],
      [blockStop(1), []],
      [
        blockStart(2, { type: 'tool_use', id: 't1', name: 'f', input: {} }),
        [chunk({ tool_calls: [{ index: 0, ...call('t1', 'f', '') }] })],
      ],
      [blockDelta(2, { type: 'input_json_delta', partial_json: '' }), []],
      [
        blockDelta(2, { type: 'input_json_delta', partial_json: '{"a"' }),
        [chunk({ tool_calls: [{ index: 0, function: { arguments: '{"a"' } }] })],
      ],
      [
        blockDelta(2, { type: 'input_json_delta', partial_json: ':1}' }),
        [chunk({ tool_calls: [{ index: 0, function: { arguments: ':1}' } }] })],
      ],
      [blockStop(2), []],
      [blockStart(3, { type: 'server_tool_use', id: 's', name: 'web_search', input: {} }), []],
      [blockDelta(3, { type: 'input_json_delta', partial_json: '{"q":1}' }), []],
      [blockStop(3), []],
      [
        blockStart(4, { type: 'tool_use', id: 't2', name: 'g', input: {} }),
        [chunk({ tool_calls: [{ index: 1, ...call('t2', 'g', '') }] })],
      ],
      [blockStop(4), [chunk({ tool_calls: [{ index: 1, function: { arguments: '{}' } }] })]],
      [
        ending('tool_use', { output_tokens: 20, input_tokens: 5, cache_read_input_tokens: 6 }),
        [
          chunk({}, { finish_reason: 'tool_calls' }),
          {
            ...head,
            choices: [],
            usage: {
              prompt_tokens: 9,
              completion_tokens: 20,
              total_tokens: 38,
              prompt_tokens_details: { cached_tokens: 6 },
              cache_read_input_tokens: 6,
              cache_creation_input_tokens: 3,
            },
          },
        ],
      ],
      [{ type: 'an_event_of_tomorrow' }, []],
      [stop, []],
    ]
    for (const [event, expected] of steps) {
      expect(translator.isDone).toBe(false)
      expect(translator.event(event)).toEqual(expected)
    }
    expect(translator.isDone).toBe(true)
  })

  test('begins each chunk alike, as the relay expects it', () => {
    const { chunks } = translateStream([start(), blockDelta(0, { type: 'text_delta', text: 'a' }), ending('end_turn'), stop])
    for (const one of chunks) {
      expect(JSON.stringify(one)).toStartWith(
        '{"id":"msg_1","object":"chat.completion.chunk","created":1700000000,"model":"claude","choices":[',
      )
    }
  })

  test('with arguments sent whole has them once', () => {
    const whole = { type: 'tool_use', id: 't', name: 'f', input: { a: 1 } }
    expect(joined([start(), blockStart(0, whole), blockStop(0), ending('tool_use'), stop]).calls).toEqual([
      call('t', 'f', '{"a":1}'),
    ])
    // Neither a block that is not closed nor an index taken twice loses them.
    expect(joined([start(), blockStart(0, whole), ending('tool_use'), stop]).calls).toEqual([call('t', 'f', '{"a":1}')])
    expect(
      joined([start(), blockStart(0, whole), blockStart(0, { ...whole, id: 'u' }), blockStop(0), ending('tool_use')]).calls,
    ).toEqual([call('t', 'f', '{"a":1}'), call('u', 'f', '{"a":1}')])
  })

  test('with text in the start of a block keeps it', () => {
    const said = joined([
      start(),
      blockStart(0, text('a')),
      blockStart(1, { type: 'thinking', thinking: 'b' }),
      ending('end_turn'),
    ])
    expect(said).toMatchObject({ content: 'a', reasoning: 'b' })
  })

  test('that ends without a reason stopped, and tells its usage once', () => {
    const { chunks, isDone } = translateStream([start({ input_tokens: 2 }), ending(null, { output_tokens: 3 }), stop])
    expect(isDone).toBe(true)
    expect(chunks.slice(1)).toEqual([
      chunk({}, { finish_reason: 'stop' }),
      { ...head, choices: [], usage: { prompt_tokens: 2, completion_tokens: 3, total_tokens: 5 } },
    ])
  })

  test('that counts on after its reason tells the usage again, the reason not', () => {
    const { chunks } = translateStream([
      start(),
      ending('max_tokens', { output_tokens: 3 }),
      ending('max_tokens', { output_tokens: 4 }),
      stop,
    ])
    expect(JSON.stringify(chunks).match(/finish_reason/g)).toHaveLength(1)
    expect(record(chunks.at(-1)).usage).toMatchObject({ completion_tokens: 4 })
  })

  test('that is cut is not done', () => {
    expect(translateStream([start(), blockDelta(0, { type: 'text_delta', text: 'a' }), ending('end_turn')]).isDone).toBe(false)
    expect(translateStream([]).isDone).toBe(false)
  })

  test('without a start still begins with the role', () => {
    const { chunks } = translateStream([blockDelta(0, { type: 'text_delta', text: 'a' }), stop])
    expect(chunks.map(one => records(one.choices)[0]?.delta)).toEqual([
      { role: 'assistant', content: '' },
      { content: 'a' },
      {},
      undefined,
    ])
  })

  test.each([
    ['invalid_request_error', '400'],
    ['authentication_error', '401'],
    ['permission_error', '403'],
    ['not_found_error', '404'],
    ['request_too_large', '413'],
    ['rate_limit_error', '429'],
    ['api_error', '500'],
    ['overloaded_error', '529'],
  ])('with a %s has an error with its status, which reads alike in both dialects', (type, code) => {
    const [error, ...rest] = createChunks(NOW).event({ type: 'error', error: { type, message: 'm' } })
    expect(rest).toEqual([])
    expect(error).toEqual({ error: { message: 'm', type, code } })
    expect(openai.error(error)).toEqual({ message: 'm', code, param: undefined })
    expect(readMessagesError(error)).toEqual({ message: 'm', code, param: undefined })
  })

  test.each([
    [
      { type: 'error', error: { type: 'new_error', message: 'm' } },
      { message: 'm', type: 'new_error' },
    ],
    [
      { type: 'error', error: 'm' },
      { message: 'm', type: 'api_error', code: '500' },
    ],
    [
      { type: 'error', error: { type: 'api_error' } },
      { message: '{"type":"api_error"}', type: 'api_error', code: '500' },
    ],
    [{ type: 'error' }, { message: 'the upstream sent an error event without a message', type: 'api_error', code: '500' }],
    [{ error: { message: 'm', type: 'BadRequestError', code: 400 } }, { message: 'm', type: 'BadRequestError', code: '400' }],
  ])('with the error %p tells it', (event, error) => {
    expect(createChunks(NOW).event(event)).toEqual([{ error }])
  })

  test.each([
    [{}],
    [{ type: 7 }],
    [{ type: null, error: null }],
    [{ type: 'content_block_start' }],
    [{ type: 'content_block_start', index: 0, content_block: 7 }],
    [{ type: 'content_block_delta', index: 0 }],
    [{ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 7 } }],
    [{ type: 'content_block_delta', index: 9, delta: { type: 'input_json_delta', partial_json: '{' } }],
    [{ type: 'content_block_stop' }],
    [{ type: 'message_delta' }],
    [{ error: null }],
  ])('passes over %p', event => {
    expect(createChunks(NOW).event(event)).toEqual([])
  })

  test('of any JSON neither throws nor says anything but chunks and errors', () => {
    const types = fc.constantFrom(
      'message_start',
      'content_block_start',
      'content_block_delta',
      'content_block_stop',
      'message_delta',
      'message_stop',
      'error',
      'ping',
    )
    const events = fc.array(
      fc.record(
        {
          type: fc.oneof(types, fc.jsonValue()),
          index: fc.oneof(fc.nat(2), fc.jsonValue()),
          message: fc.jsonValue(),
          content_block: fc.oneof(
            fc.jsonValue(),
            fc.record({ type: fc.constantFrom('text', 'tool_use'), input: fc.jsonValue() }),
          ),
          delta: fc.oneof(
            fc.jsonValue(),
            fc.record({ type: fc.constantFrom('text_delta', 'input_json_delta'), text: fc.jsonValue() }),
          ),
          usage: fc.jsonValue(),
          error: fc.jsonValue(),
        },
        { requiredKeys: ['type'] },
      ),
    )
    fc.assert(
      fc.property(events, given => {
        for (const one of translateStream(given).chunks) expect(Array.isArray(one.choices) || isRecord(one.error)).toBe(true)
      }),
      { numRuns: 300 },
    )
  })
})

/** What a client puts together of a stream. */
function joined(events: readonly Json[]) {
  const finishReasons: unknown[] = []
  const said = { roles: 0, content: '', reasoning: '' }
  let usage: unknown
  const parts: { id: unknown; name: unknown; args: string }[] = []
  for (const one of translateStream(events).chunks) {
    if (one.usage !== undefined) usage = one.usage
    for (const choice of records(one.choices)) {
      const delta = record(choice.delta)
      if (delta.role === 'assistant') said.roles += 1
      if (typeof delta.content === 'string') said.content += delta.content
      if (typeof delta.reasoning_content === 'string') said.reasoning += delta.reasoning_content
      if (choice.finish_reason !== undefined) finishReasons.push(choice.finish_reason)
      for (const piece of records(delta.tool_calls)) {
        const { name, arguments: args } = record(piece.function)
        const at = Number(piece.index)
        const known = parts[at]
        if (known) known.args += String(args)
        else parts[at] = { id: piece.id, name, args: String(args) }
      }
    }
  }
  const calls = parts.map(({ id, name, args }) => call(id, name, args))
  return { ...said, calls, finishReasons, usage }
}

/** The text in pieces, cut at any of its places. */
function pieces(whole: string, cuts: readonly number[]): string[] {
  const places = [...new Set(cuts.map(cut => cut % (whole.length + 1)))].sort((a, b) => a - b)
  return [0, ...places].map((from, at) => whole.slice(from, places[at] ?? whole.length))
}

/** Arguments as they come out of JSON, which has no -0. */
const input = fc
  .dictionary(fc.string(), fc.jsonValue(), { noNullPrototype: true })
  .map(value => record(JSON.parse(JSON.stringify(value))))

test('a stream cut anywhere says what the whole message says', () => {
  const cuts = fc.array(fc.nat(1000), { maxLength: 6 })
  const block = fc.oneof(
    fc.record({ type: fc.constant('text'), text: fc.string({ unit: 'binary' }) }),
    fc.record({ type: fc.constant('thinking'), thinking: fc.string({ unit: 'binary' }) }),
    fc.record({ type: fc.constant('tool_use'), id: fc.uuid(), name: fc.string({ minLength: 1 }), input }),
    fc.record({ type: fc.constant('redacted_thinking'), data: fc.string() }),
  )
  const stream = fc.record({
    blocks: fc.array(fc.record({ block, cuts, isQuiet: fc.boolean() }), { maxLength: 6 }),
    stopReason: fc.constantFrom('end_turn', 'tool_use', 'max_tokens', 'refusal', 'pause_turn', 'stop_sequence'),
    usage: fc.record({ input_tokens: fc.nat(1000), output_tokens: fc.nat(1000), cache_read_input_tokens: fc.nat(1000) }),
  })
  fc.assert(
    fc.property(stream, ({ blocks, stopReason, usage }) => {
      const events: Json[] = [start({ ...usage, output_tokens: 0 })]
      for (const [index, { block, cuts, isQuiet }] of blocks.entries()) {
        if (isQuiet) events.push(ping)
        if (block.type === 'text' && 'text' in block) {
          events.push(blockStart(index, text('')))
          for (const piece of pieces(block.text, cuts)) events.push(blockDelta(index, { type: 'text_delta', text: piece }))
        } else if (block.type === 'thinking' && 'thinking' in block) {
          events.push(blockStart(index, { type: 'thinking', thinking: '' }))
          for (const piece of pieces(block.thinking, cuts))
            events.push(blockDelta(index, { type: 'thinking_delta', thinking: piece }))
          events.push(blockDelta(index, { type: 'signature_delta', signature: 's' }))
        } else if (block.type === 'tool_use' && 'input' in block) {
          events.push(blockStart(index, { ...block, input: {} }))
          // Anthropic sends one empty fragment for a call without arguments.
          const whole = Object.keys(block.input).length === 0 ? '' : JSON.stringify(block.input)
          for (const piece of pieces(whole, cuts))
            events.push(blockDelta(index, { type: 'input_json_delta', partial_json: piece }))
        } else {
          events.push(blockStart(index, block))
        }
        events.push(blockStop(index))
      }
      events.push(ending(stopReason, { output_tokens: usage.output_tokens }), stop)

      const said = joined(events)
      const whole = { id: 'msg_1', model: 'claude', content: blocks.map(({ block }) => block), stop_reason: stopReason, usage }
      const answer = fromMessage(whole, NOW)
      const choice = record(records(answer.choices)[0])
      const message = record(choice.message)
      expect(said.roles).toBe(1)
      expect(said.content).toBe(String(message.content ?? ''))
      expect(said.reasoning).toBe(String(message.reasoning_content ?? ''))
      expect(said.calls).toEqual(
        records(message.tool_calls).map(({ id, function: named }) => call(id, record(named).name, record(named).arguments)),
      )
      expect(said.calls.map(({ function: { arguments: args } }) => JSON.parse(String(args)))).toEqual(
        blocks.flatMap(({ block }) => ('input' in block ? [block.input] : [])),
      )
      expect(said.finishReasons).toEqual([choice.finish_reason])
      expect(said.usage).toEqual(answer.usage)
      expect(translateStream(events).isDone).toBe(true)
    }),
    { numRuns: 300 },
  )
})

test('a conversation keeps what was said and called, in order, in turns that alternate', () => {
  const words = fc.string({ minLength: 1 }).filter(said => said.trim() !== '')
  const content = fc.oneof(
    words,
    fc.array(words, { minLength: 1, maxLength: 3 }).map(parts => parts.map(part => text(part))),
  )
  const plain = fc
    .record({ role: fc.constantFrom('system', 'developer', 'user', 'assistant'), content })
    .map(message => [message])
  const round = fc
    .record({
      content: fc.option(content),
      calls: fc.array(fc.record({ id: fc.uuid(), name: words, input, result: content }), { minLength: 1, maxLength: 4 }),
    })
    .map(({ content, calls }) => [
      { role: 'assistant', content, tool_calls: calls.map(({ id, name, input }) => call(id, name, JSON.stringify(input))) },
      ...calls.map(({ id, result }) => ({ role: 'tool', content: result, tool_call_id: id })),
    ])
  const conversations = fc.array(fc.oneof(plain, round), { maxLength: 12 }).map(rounds => rounds.flat())

  const textsOf = (content: unknown): unknown[] =>
    typeof content === 'string' ? [content] : records(content).map(part => part.text)
  fc.assert(
    fc.property(conversations, said => {
      const before = said.flatMap((message: Json) => [
        ...textsOf(message.content).map(one => ({ text: one, of: message.tool_call_id })),
        ...records(message.tool_calls).map(({ id, function: named }) => ({
          id,
          name: record(named).name,
          input: JSON.parse(String(record(named).arguments)),
        })),
      ])
      const leading = said.findIndex(({ role }) => role !== 'system' && role !== 'developer')
      const systems = said.slice(0, leading < 0 ? said.length : leading)

      const body = toMessages({ model: 'm', messages: said })
      const turns = records(body.messages)
      const after = turns.flatMap(turn =>
        records(turn.content).flatMap((block): Json[] => {
          if (block.type === 'tool_use') return [{ id: block.id, name: block.name, input: block.input }]
          if (block.type === 'tool_result') return textsOf(block.content).map(one => ({ text: one, of: block.tool_use_id }))
          return [{ text: block.text, of: undefined }]
        }),
      )
      const system = textsOf(body.system).map(one => ({ text: one, of: undefined }))
      if (systems.length > 0 && typeof body.system === 'string') {
        expect(body.system).toBe(systems.map(message => String(message.content)).join('\n\n'))
        expect(after).toEqual(before.slice(systems.length))
      } else {
        expect([...system, ...after]).toEqual(before)
      }
      for (const [at, turn] of turns.entries()) {
        expect(['user', 'assistant']).toContain(String(turn.role))
        expect(turn.role).not.toBe(turns[at - 1]?.role)
        expect(records(turn.content).length).toBeGreaterThan(0)
      }
    }),
    { numRuns: 300 },
  )
})

describe('the words of an error', () => {
  test.each([
    ['authentication_error', 'invalid_api_key'],
    ['permission_error', 'permission_denied'],
    ['not_found_error', 'model_not_found'],
    ['request_too_large', 'request_too_large'],
    ['rate_limit_error', 'rate_limit_exceeded'],
    ['overloaded_error', 'overloaded'],
    ['invalid_request_error', undefined],
    ['api_error', undefined],
    ['new_error', undefined],
    [7, undefined],
  ])('of the kind %p have the code %p', (type, code) => {
    const body = { type: 'error', error: { type, message: 'm' }, request_id: 'r' }
    expect(readMessagesError(body)).toEqual({ message: 'm', code, param: undefined })
  })

  test.each([
    [
      { type: 'error', error: { type: 'api_error' } },
      { message: '{"type":"api_error"}', code: undefined, param: undefined },
    ],
    [{ error: 'm' }, { message: 'm', code: undefined, param: undefined }],
    [{ error: { message: 'm', code: 404 } }, { message: 'm', code: '404', param: undefined }],
  ])('%p are %p', (body, expected) => {
    expect(readMessagesError(body)).toEqual(expected)
  })

  test.each([
    [undefined],
    [null],
    ['text'],
    [7],
    [[]],
    [{}],
    [{ type: 'error' }],
    [{ error: '' }],
    [{ error: null }],
    [{ message: 'm' }],
  ])('%p has none', body => {
    expect(readMessagesError(body)).toBeUndefined()
  })
})

describe('the base', () => {
  test.each([
    ['https://api.anthropic.com', 'https://api.anthropic.com'],
    ['https://api.anthropic.com/', 'https://api.anthropic.com'],
    ['https://api.anthropic.com/v1', 'https://api.anthropic.com'],
    ['https://api.anthropic.com/v1//', 'https://api.anthropic.com'],
    [' https://api.anthropic.com/v1/messages/ \n', 'https://api.anthropic.com'],
    ['http://h:8000/proxy/v1/messages', 'http://h:8000/proxy'],
    ['http://h//v1', 'http://h'],
    ['http://h/v1/v1', 'http://h/v1'],
    ['http://h/anthropic', 'http://h/anthropic'],
    ['http://h/messages', 'http://h/messages'],
    ['http://h/v2', 'http://h/v2'],
    ['http://v1', 'http://v1'],
    ['http://v1/v1', 'http://v1'],
    ['http://[::1]:8000/v1', 'http://[::1]:8000'],
  ])('of %p is %s', (given, expected) => {
    expect(messagesBase(given, 'vllm')).toBe(expected)
  })

  test.each(['', 'anthropic', ' Anthropic '])('of nothing under the label %p is the public one', vendor => {
    expect(messagesBase(undefined, vendor)).toBe('https://api.anthropic.com')
    expect(messagesBase('  ', vendor)).toBe('https://api.anthropic.com')
  })

  test.each(['vllm', 'openai', 'claude'])('of nothing under the label %p is none: nobody else is dialled', vendor => {
    expect(messagesBase(undefined, vendor)).toBeUndefined()
    expect(messagesBase('', vendor)).toBeUndefined()
  })

  test.each(['h:8000', 'ftp://h/v1', 'file:///etc/passwd', 'http://', '/v1', '/', 'http://h:99999/v1'])(
    '%p is none and says so',
    given => {
      expect(() => messagesBase(given, 'vllm')).toThrow('api_base is not an http:// or https:// URL')
    },
  )
})
