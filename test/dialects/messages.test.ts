import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { toMessages } from '../../src/adapters/anthropic-chat.ts'
import type { Json } from '../../src/dialects/dialect.ts'
import { droppedBlocks, messages } from '../../src/dialects/messages.ts'
import { GatewayError } from '../../src/errors.ts'

const ASKED = { alias: 'alias', body: {}, requestId: '0d5f6c1e-6a0e-4b0c-9d53-51b0f3b7c2aa', nowMs: 0 }

const text = fc.string({ unit: 'grapheme', minLength: 1 }).filter(each => each.trim() !== '')
const json = fc
  .dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 3 })
  .map(each => JSON.parse(JSON.stringify(each)))

/** A conversation as chat has it: turns alternate, and each call is answered right behind its turn. */
const conversation = fc
  .array(
    fc.record({
      question: text,
      answer: text,
      calls: fc.array(fc.record({ name: fc.stringMatching(/^[a-z_]{1,20}$/), input: json, result: text }), { maxLength: 3 }),
    }),
    { minLength: 1, maxLength: 4 },
  )
  .map(turns =>
    turns.flatMap(({ question, answer, calls }, turn): Json[] => [
      { role: 'user', content: question },
      ...(calls.length === 0
        ? [{ role: 'assistant', content: answer }]
        : [
            {
              role: 'assistant',
              content: answer,
              tool_calls: calls.map(({ name, input }, at) => ({
                id: `call_${turn}_${at}`,
                type: 'function',
                function: { name, arguments: JSON.stringify(input) },
              })),
            },
            ...calls.map(({ result }, at) => ({ role: 'tool', tool_call_id: `call_${turn}_${at}`, content: result })),
            { role: 'assistant', content: 'so' },
          ]),
    ]),
  )

test('a chat that goes to Messages and back keeps roles, texts, tool calls and ids', () => {
  fc.assert(
    fc.property(conversation, fc.option(text, { nil: undefined }), (turns, system) => {
      const chat = [...(system === undefined ? [] : [{ role: 'system', content: system }]), ...turns]
      const there = toMessages({ model: 'm', messages: chat, max_tokens: 5, stream: true })
      expect(messages.question(JSON.parse(JSON.stringify(there)))).toMatchObject({
        model: 'm',
        messages: chat,
        max_tokens: 5,
        stream: true,
      })
    }),
  )
})

type Event = { name: string; data: Json }

function eventsOf(sent: string): Event[] {
  return sent
    .split('\n\n')
    .filter(each => each !== '')
    .map(each => {
      const [, name = '', data = ''] = /^event: (\S+)\ndata: ([^\n]*)$/.exec(each) ?? []
      return { name, data: JSON.parse(data) }
    })
}

const delta = fc.oneof(
  text.map(content => ({ content })),
  text.map(reasoning_content => ({ reasoning_content })),
  fc
    .record({ index: fc.integer({ min: 0, max: 2 }), args: fc.string() })
    .map(({ index, args }) => ({ tool_calls: [{ index, id: `call_${index}`, function: { name: 'f', arguments: args } }] })),
)

test('any stream is well ordered: every block is started, grown and stopped once, and its deltas are what was said', () => {
  fc.assert(
    fc.property(fc.array(delta), fc.boolean(), (deltas, hasUsage) => {
      const stream = messages.stream(ASKED)
      let sent = ''
      for (const each of deltas) sent += stream.chunk({ choices: [{ index: 0, delta: each }] })
      sent += stream.chunk({ choices: [{ index: 0, delta: {}, finish_reason: 'stop' }] })
      if (hasUsage) sent += stream.chunk({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 4 } })
      sent += stream.end()
      const events = eventsOf(sent)
      for (const { name, data } of events) expect(data.type).toBe(name)
      expect([events[0]?.name, events.at(-2)?.name, events.at(-1)?.name]).toEqual([
        'message_start',
        'message_delta',
        'message_stop',
      ])
      const open = new Set<unknown>()
      const begun: unknown[] = []
      const said = { text: '', thinking: '', args: new Map<unknown, string>() }
      for (const { name, data } of events) {
        const grown: Json = { ...Object(data.delta) }
        if (name === 'content_block_start') {
          open.add(data.index)
          begun.push(data.index)
        } else if (name === 'content_block_stop') expect(open.delete(data.index)).toBe(true)
        else if (name === 'content_block_delta') {
          expect(open.has(data.index)).toBe(true)
          if (grown.type === 'text_delta') said.text += String(grown.text)
          if (grown.type === 'thinking_delta') said.thinking += String(grown.thinking)
          if (grown.type === 'input_json_delta') {
            said.args.set(data.index, (said.args.get(data.index) ?? '') + String(grown.partial_json))
          }
        }
      }
      expect(open.size).toBe(0)
      expect(begun).toEqual(begun.map((_, at) => at))
      const joined = (pick: (each: Record<string, unknown>) => unknown) => deltas.map(each => pick({ ...each }) ?? '').join('')
      expect(said.text).toBe(joined(each => each.content))
      expect(said.thinking).toBe(joined(each => each.reasoning_content))
    }),
  )
})

test('any chunks are survived, and any body is translated or refused by name', () => {
  fc.assert(
    fc.property(fc.array(fc.jsonValue()), fc.jsonValue(), (chunks, member) => {
      const stream = messages.stream(ASKED)
      for (const each of chunks) {
        stream.chunk({ choices: [{ index: 0, delta: each }] })
        stream.chunk({ choices: each, usage: each })
      }
      stream.end()
      messages.answer({ choices: [{ message: member }], usage: member }, ASKED)
      try {
        messages.question({ model: 'm', messages: [{ role: 'user', content: member }], tools: member, system: member })
      } catch (error) {
        expect(error).toBeInstanceOf(GatewayError)
      }
    }),
  )
})

const DEEP = `{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}`

/** What a stream of tool call pieces comes to: name and arguments of each block. */
function callsOf(pieces: readonly Json[], finish = 'tool_calls'): { calls: unknown[]; stop: unknown } {
  const stream = messages.stream(ASKED)
  let sent = ''
  for (const each of pieces) sent += stream.chunk({ choices: [{ index: 0, delta: { tool_calls: [each] } }] })
  sent += stream.chunk({ choices: [{ index: 0, delta: {}, finish_reason: finish }] }) + stream.end()
  const blocks: { name: unknown; json: string }[] = []
  let stop: unknown
  for (const { name, data } of eventsOf(sent)) {
    const inner = Object(data.delta)
    if (name === 'content_block_start') blocks.push({ name: Object(data.content_block).name, json: '' })
    const block = blocks[Number(data.index)]
    if (inner.type === 'input_json_delta' && block) block.json += inner.partial_json
    if (name === 'message_delta') stop = inner.stop_reason
  }
  return { calls: blocks.map(({ name, json }) => [name, json]), stop }
}

describe('tool calls as servers really send them', () => {
  const call = (index: number, id: string, name: string, args: unknown) => ({ index, id, function: { name, arguments: args } })

  test('all with index 0, told apart by their ids', () => {
    expect(callsOf([call(0, 'a', 'f', '{"x":1}'), call(0, 'b', 'g', '{"y":2}')]).calls).toEqual([
      ['f', '{"x":1}'],
      ['g', '{"y":2}'],
    ])
  })

  test('with arguments as an object', () => {
    expect(callsOf([call(0, 'a', 'f', { x: 1 })]).calls).toEqual([['f', '{"x":1}']])
  })

  test('that end with `stop`, as where the caller chose the tool, are `tool_use`', () => {
    expect(callsOf([call(0, 'a', 'f', '{}')], 'stop').stop).toBe('tool_use')
  })

  test('with arguments nested too deeply are kept as text: no stack is exhausted', () => {
    const chat = { choices: [{ message: { tool_calls: [call(0, 'a', 'f', DEEP)] }, finish_reason: 'tool_calls' }] }
    expect(messages.answer(chat, ASKED).content).toEqual([
      { type: 'tool_use', id: 'a', name: 'f', input: { raw_arguments: DEEP } },
    ])
  })
})

test('another choice than the first says nothing here', () => {
  const stream = messages.stream(ASKED)
  const sent =
    stream.chunk({
      choices: [
        { index: 1, delta: { content: 'b' } },
        { index: 0, delta: { content: 'a' } },
      ],
    }) + stream.end()
  expect(sent).toContain('"text":"a"')
  expect(sent).not.toContain('"text":"b"')
})

describe('what the answer should be like', () => {
  const question = (more: Json) => messages.question({ model: 'm', messages: [{ role: 'user', content: 'x' }], ...more })
  const format = { type: 'json_schema', schema: { type: 'object', properties: { city: { type: 'string' } } } }

  test.each([
    ['`output_config`', { output_config: { format } }],
    ['`output_format` of older clients', { output_format: format }],
  ])('a schema in %s is a response_format', (_name, more) => {
    expect(question(more).response_format).toEqual({
      type: 'json_schema',
      json_schema: { name: 'output', schema: format.schema, strict: true },
    })
  })

  test.each([
    [{ output_config: { effort: 'low' } }, 'low'],
    [{ output_config: { effort: 'max' } }, 'high'],
    [{ output_config: { effort: null } }, undefined],
    [{ output_config: { effort: 'medium' }, thinking: { type: 'enabled', budget_tokens: 9_000 } }, 'medium'],
    [{ output_config: null, thinking: { type: 'enabled', budget_tokens: 9_000 } }, 'high'],
  ])('%j asks for the effort %s', (more, effort) => {
    expect(question(more).reasoning_effort).toBe(effort)
  })

  test.each([
    [{ output_config: 'json' }, 'output_config'],
    [{ output_config: { effort: 'some' } }, 'output_config.effort'],
    [{ output_config: { format: { type: 'grammar' } } }, 'output_config.format'],
    [{ output_config: { format: { type: 'json_schema' } } }, 'output_config.format.schema'],
  ])('%j is refused, and the member named', (more, param) => {
    expect(() => question(more)).toThrow(expect.objectContaining({ kind: 'invalid_request', param }))
  })
})

test('a conversation that the server should hold is refused, in the way that has clients send all of it', () => {
  for (const thread of [{ type: 'create' }, { type: 'continue', previous_message_id: 'msg_1' }]) {
    const body = { model: 'm', messages: [{ role: 'user', content: 'x' }], thread }
    let error: unknown
    try {
      messages.question(body)
    } catch (thrown) {
      error = thrown
    }
    if (!(error instanceof GatewayError)) throw new Error('it was not refused')
    expect(messages.error(error)).toMatchObject({
      type: 'error',
      error: { type: 'invalid_request_error', details: { error_code: 'thread_unsupported_request' } },
    })
  }
  expect(messages.question({ model: 'm', messages: [{ role: 'user', content: 'x' }], thread: null })).toMatchObject({
    model: 'm',
  })
})

describe('the statuses of errors', () => {
  test.each([
    ['invalid_request', 'invalid_request_error'],
    ['missing_api_key', 'authentication_error'],
    ['permission_denied', 'permission_error'],
    ['model_not_found', 'not_found_error'],
    ['request_too_large', 'request_too_large'],
    ['rate_limited', 'rate_limit_error'],
    ['all_candidates_unavailable', 'overloaded_error'],
    ['timeout', 'api_error'],
  ] as const)('%s is %s', (kind, type) => {
    expect(messages.error(new GatewayError(kind, 'm'))).toEqual({ type: 'error', error: { type, message: 'm' } })
  })
})

describe('names of tools that are too long for chat', () => {
  const LONG = `mcp__plugin_enterprise_server__${'x'.repeat(40)}`
  const tool = (name: string) => ({ name, input_schema: { type: 'object' } })
  const bodyOf = (names: readonly string[]): Json => ({
    model: 'm',
    messages: [
      { role: 'user', content: 'x' },
      { role: 'assistant', content: names.map((name, at) => ({ type: 'tool_use', id: `t${at}`, name, input: {} })) },
      { role: 'user', content: names.map((_name, at) => ({ type: 'tool_result', tool_use_id: `t${at}`, content: 'y' })) },
    ],
    tools: names.map(tool),
    tool_choice: { type: 'tool', name: names.at(-1) },
  })
  const sentBy = (names: readonly string[]) => {
    const chat = JSON.parse(JSON.stringify(messages.question(bodyOf(names))))
    const offered: string[] = chat.tools.map((each: { function: { name: string } }) => each.function.name)
    const history: string[] = chat.messages[1].tool_calls.map((each: { function: { name: string } }) => each.function.name)
    expect(history).toEqual(offered)
    expect(chat.tool_choice.function.name).toBe(offered.at(-1))
    return offered
  }

  test('are cut at 64 characters', () => {
    expect(sentBy(['f', LONG])).toEqual(['f', LONG.slice(0, 64)])
  })

  test.each([
    ['two that begin alike', [`${LONG}_create`, `${LONG}_delete`]],
    ['one that is the beginning of another', [LONG.slice(0, 64), `${LONG}_delete`]],
  ])('stay apart: %s', (_what, names) => {
    const sent = sentBy(names)
    expect(new Set(sent).size).toBe(2)
    for (const name of sent) expect(name).toMatch(/^[\w-]{1,64}$/)
    // A tool that joins later changes nothing for those that were there.
    expect(sentBy(['f', ...names]).slice(1)).toEqual(sent)
  })

  test('come back whole, in answers and streams', () => {
    const names = [`${LONG}_create`, `${LONG}_delete`, 'f']
    const asked = { ...ASKED, body: bodyOf(names) }
    const tool_calls = sentBy(names).map((name, index) => ({ index, id: `c${index}`, function: { name, arguments: '{}' } }))
    const { content } = messages.answer({ choices: [{ message: { tool_calls }, finish_reason: 'tool_calls' }] }, asked)
    expect(content).toMatchObject(names.map(name => ({ type: 'tool_use', name })))
    const stream = messages.stream(asked)
    const events = eventsOf(stream.chunk({ choices: [{ index: 0, delta: { tool_calls } }] }) + stream.end())
    const blocks = events.filter(({ name }) => name === 'content_block_start').map(({ data }) => data.content_block)
    expect(blocks).toMatchObject(names.map(name => ({ type: 'tool_use', name })))
  })
})

describe('an image', () => {
  const ask = (data: string) =>
    messages.question({
      model: 'm',
      messages: [{ role: 'user', content: [{ type: 'image', source: { type: 'base64', media_type: 'image/png', data } }] }],
    })

  test.each(['AAAA', 'AAA=', 'AA==', 'AAAA\r\nAAA=\n'])('of %j is one', data => {
    expect(ask(data)).toMatchObject({
      messages: [{ content: [{ type: 'image_url', image_url: { url: `data:image/png;base64,${data}` } }] }],
    })
  })

  test.each(['', 'AAA', 'AAAAA', 'A===', 'AA_-', '<svg>'])('of %j is refused by name', data => {
    expect(() => ask(data)).toThrow(expect.objectContaining({ param: 'messages.0.content.0.source.data' }))
  })
})

test.each(['tool_calls', 'function_call', 'stop', null])(
  'a message that ends with %p and calls nothing has not stopped for a tool',
  finish_reason => {
    const chat = { choices: [{ message: { content: 'x' }, finish_reason }] }
    expect(messages.answer(chat, ASKED).stop_reason).toBe('end_turn')
    const stream = messages.stream(ASKED)
    const sent = stream.chunk({ choices: [{ index: 0, delta: { content: 'x' }, finish_reason }] }) + stream.end()
    expect(sent).toContain('"stop_reason":"end_turn"')
  },
)

test('a call that the old `function_call` ends is `tool_use`', () => {
  const message = { function_call: { name: 'f', arguments: '{"x":1}' } }
  expect(messages.answer({ choices: [{ message, finish_reason: 'function_call' }] }, ASKED)).toMatchObject({
    content: [{ type: 'tool_use', name: 'f', input: { x: 1 } }],
    stop_reason: 'tool_use',
  })
})

test('a choice goes with the tool that it names', () => {
  const ask = (more: Json) => messages.question({ model: 'm', messages: [{ role: 'user', content: 'x' }], ...more })
  const tools = [
    { type: 'web_search_20250305', name: 'web_search' },
    { name: 'f', input_schema: { type: 'object' } },
  ]
  const dropped = ask({ tools, tool_choice: { type: 'tool', name: 'web_search', disable_parallel_tool_use: true } })
  expect(dropped).not.toHaveProperty('tool_choice')
  expect(dropped).toMatchObject({ tools: [{ function: { name: 'f' } }], parallel_tool_calls: false })
  expect(ask({ tools, tool_choice: { type: 'tool', name: 'f' } })).toMatchObject({ tool_choice: { function: { name: 'f' } } })
})

test('a document whose text is in blocks is that text', () => {
  const ask = (content: unknown) =>
    messages.question({
      model: 'm',
      messages: [
        {
          role: 'user',
          content: [
            { type: 'document', title: 't', source: { type: 'content', content } },
            { type: 'text', text: '?' },
          ],
        },
      ],
    }).messages
  const image = { type: 'image', source: { type: 'url', url: 'https://h/a.png' } }
  expect(ask('one ')).toEqual([{ role: 'user', content: 'one ?' }])
  expect(
    ask([
      { type: 'text', text: 'one' },
      { type: 'text', text: ' two' },
    ]),
  ).toEqual([{ role: 'user', content: 'one two?' }])
  expect(ask([{ type: 'text', text: 'one' }, image])).toEqual([
    {
      role: 'user',
      content: [
        { type: 'text', text: 'one' },
        { type: 'image_url', image_url: { url: 'https://h/a.png' } },
        { type: 'text', text: '?' },
      ],
    },
  ])
  expect(() => ask(7)).toThrow(expect.objectContaining({ param: 'messages.0.content.0.source.content' }))
})

describe('what is left out', () => {
  const text = { type: 'text', text: 'x' }
  const file = { type: 'image', source: { type: 'file', file_id: 'f' } }

  test('is named by its place', () => {
    const body = {
      messages: [
        { role: 'user', content: [text, file, { type: 'search_result' }, { type: 'container_upload' }] },
        { role: 'assistant', content: [{ type: 'server_tool_use' }, { type: 'tool_use' }, { type: 'redacted_thinking' }] },
        { role: 'user', content: [{ type: 'tool_result', content: [text, file] }] },
        {
          role: 'user',
          content: [{ type: 'document', source: { type: 'content', content: [text, { type: 'search_result' }] } }],
        },
      ],
      tools: [
        { type: 'custom', name: 'f' },
        { type: 'bash_20250124', name: 'bash' },
      ],
    }
    expect(droppedBlocks(body)).toEqual([
      'messages.0.content.1 (image)',
      'messages.0.content.2 (search_result)',
      'messages.0.content.3 (container_upload)',
      'messages.1.content.0 (server_tool_use)',
      'messages.2.content.0.content.1 (image)',
      'messages.3.content.0.source.content.1 (search_result)',
      'tools.1 (bash_20250124)',
    ])
  })

  test('is nothing of what is translated, and any body is survived', () => {
    const source = { type: 'base64', media_type: 'image/png', data: 'AAAA' }
    const content = [text, { type: 'image', source }, { type: 'document', source: { type: 'text', data: 'x' } }]
    expect(
      droppedBlocks({
        messages: [
          { role: 'user', content },
          { role: 'user', content: 'x' },
        ],
      }),
    ).toEqual([])
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (turns, tools) => Array.isArray(droppedBlocks({ messages: turns, tools }))),
    )
  })
})
