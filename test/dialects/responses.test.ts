import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { ResponseStream } from 'openai/lib/responses/ResponseStream'
import type { Asked, Json } from '../../src/dialects/dialect.ts'
import { droppedItems, responses } from '../../src/dialects/responses.ts'
import { GatewayError } from '../../src/errors.ts'

const asked = (body: Json = {}): Asked => ({
  alias: 'my-model',
  body: { model: 'my-model', input: 'Hi', ...body },
  requestId: 'request-1',
  nowMs: 1_893_456_000_999,
})

const question = (body: Json) => responses.question({ model: 'my-model', input: 'Hi', ...body })
const messages = (input: unknown, more: Json = {}) => question({ input, ...more }).messages

const call = (call_id: string, name = 'weather', args = '{}') => ({ type: 'function_call', call_id, name, arguments: args })
const output = (call_id: string, text: unknown = 'sunny') => ({ type: 'function_call_output', call_id, output: text })
const chatCall = (id: string, name = 'weather', args = '{}') => ({ id, type: 'function', function: { name, arguments: args } })

function refusal(body: Json): GatewayError {
  try {
    question(body)
  } catch (error) {
    if (error instanceof GatewayError) return error
    throw error
  }
  throw new Error('was translated')
}

describe('the conversation of a question', () => {
  const examples: [claim: string, input: unknown, expected: unknown][] = [
    ['a text is a user message', 'Hello', [{ role: 'user', content: 'Hello' }]],
    ['bare strings are user messages', ['a', 'b'], ['a', 'b'].map(content => ({ role: 'user', content }))],
    [
      'messages need no type, and developers speak as system',
      [
        { role: 'developer', content: 'Be kind.' },
        { role: 'system', content: 'Be brief.' },
        { type: 'message', role: 'user', content: 'Hi' },
        { type: 'message', role: 'assistant', content: 'Yes?' },
      ],
      [
        { role: 'system', content: 'Be kind.\n\nBe brief.' },
        { role: 'user', content: 'Hi' },
        { role: 'assistant', content: 'Yes?' },
      ],
    ],
    [
      'the text parts of a question are paragraphs of one text, and empty ones are left out',
      [{ role: 'user', content: [part('one'), part(''), { type: 'text', text: 'two' }] }],
      [{ role: 'user', content: 'one\ntwo' }],
    ],
    [
      'the parts of an answer continue each other, a refusal too',
      [
        {
          type: 'message',
          id: 'msg_1',
          status: 'completed',
          role: 'assistant',
          content: [
            { type: 'output_text', text: 'Well, ', annotations: [] },
            { type: 'refusal', refusal: 'no.' },
          ],
        },
      ],
      [{ role: 'assistant', content: 'Well, no.' }],
    ],
    [
      'messages without any text are left out',
      [
        { role: 'user', content: [] },
        { role: 'assistant', content: '' },
        { role: 'user', content: 'Hi' },
      ],
      [{ role: 'user', content: 'Hi' }],
    ],
    [
      'a message with an image keeps its parts in their order',
      [
        {
          role: 'user',
          content: [
            part('What is this?'),
            { type: 'input_image', image_url: 'data:image/png;base64,AAAA', detail: 'low' },
            { type: 'input_image', image_url: 'https://example.com/cat.png' },
          ],
        },
      ],
      [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'What is this?' },
            { type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA', detail: 'low' } },
            { type: 'image_url', image_url: { url: 'https://example.com/cat.png' } },
          ],
        },
      ],
    ],
    [
      'calls in a row are one turn with the text before them, whatever reasoning lies between',
      [
        'Hi',
        { role: 'assistant', content: 'Let me see.' },
        { type: 'reasoning', id: 'rs_1', summary: [] },
        call('c1'),
        { type: 'reasoning', id: 'rs_2', summary: [] },
        call('c2', 'clock', '{"zone":"UTC"}'),
        output('c1'),
        output('c2', [part('12:00'), part('UTC')]),
      ],
      [
        { role: 'user', content: 'Hi' },
        { role: 'assistant', content: 'Let me see.', tool_calls: [chatCall('c1'), chatCall('c2', 'clock', '{"zone":"UTC"}')] },
        { role: 'tool', tool_call_id: 'c1', content: 'sunny' },
        { role: 'tool', tool_call_id: 'c2', content: '12:00\nUTC' },
      ],
    ],
    [
      'calls with an output between them are two turns',
      [call('c1'), output('c1'), call('c2'), output('c2')],
      [
        { role: 'assistant', content: null, tool_calls: [chatCall('c1')] },
        { role: 'tool', tool_call_id: 'c1', content: 'sunny' },
        { role: 'assistant', content: null, tool_calls: [chatCall('c2')] },
        { role: 'tool', tool_call_id: 'c2', content: 'sunny' },
      ],
    ],
    [
      'text between a call and its output belongs to the turn of the call',
      [
        { role: 'assistant', content: 'One ' },
        call('c1'),
        { role: 'assistant', content: 'moment.' },
        call('c2'),
        output('c1', ''),
        output('c2', []),
        { role: 'assistant', content: 'Done.' },
      ],
      [
        { role: 'assistant', content: 'One moment.', tool_calls: [chatCall('c1'), chatCall('c2')] },
        { role: 'tool', tool_call_id: 'c1', content: '' },
        { role: 'tool', tool_call_id: 'c2', content: '' },
        { role: 'assistant', content: 'Done.' },
      ],
    ],
    [
      'items of tools that run elsewhere are dropped, and those of newer clients',
      [
        'Hi',
        { type: 'web_search_call', id: 'ws_1', status: 'completed' },
        { type: 'tool_search_output', tools: [] },
        { type: 'new' },
      ],
      [{ role: 'user', content: 'Hi' }],
    ],
    [
      'a system message that comes later stays where it is',
      ['Hi', { role: 'developer', content: 'Be brief.' }],
      [
        { role: 'user', content: 'Hi' },
        { role: 'system', content: 'Be brief.' },
      ],
    ],
    [
      'custom calls are calls of functions with one text, and their outputs are answers',
      [
        { type: 'custom_tool_call', id: 'ctc_1', call_id: 'c1', name: 'patch', input: '*** Begin "x"' },
        { type: 'custom_tool_call_output', call_id: 'c1', output: 'Done' },
      ],
      [
        { role: 'assistant', content: null, tool_calls: [chatCall('c1', 'patch', '{"input":"*** Begin \\"x\\""}')] },
        { role: 'tool', tool_call_id: 'c1', content: 'Done' },
      ],
    ],
    [
      'what tools came to that OpenAI defines and clients run is kept',
      [
        { type: 'local_shell_call', id: 'lsh_1', call_id: 'c1', action: { type: 'exec', command: ['ls'] }, status: 'completed' },
        { type: 'local_shell_call_output', id: 'lsh_1', output: 'a.txt' },
        { type: 'shell_call', call_id: 'c2', action: { commands: ['ls'] } },
        { type: 'shell_call_output', call_id: 'c2', output: [{ stdout: 'a.txt' }] },
        { type: 'apply_patch_call', call_id: 'c3', operation: { type: 'delete_file', path: 'a.txt' } },
        { type: 'apply_patch_call_output', call_id: 'c3', status: 'completed' },
      ],
      [
        { role: 'assistant', content: null, tool_calls: [chatCall('c1', 'local_shell', '{"type":"exec","command":["ls"]}')] },
        { role: 'tool', tool_call_id: 'c1', content: 'a.txt' },
        { role: 'assistant', content: null, tool_calls: [chatCall('c2', 'shell', '{"commands":["ls"]}')] },
        { role: 'tool', tool_call_id: 'c2', content: '[{"stdout":"a.txt"}]' },
        {
          role: 'assistant',
          content: null,
          tool_calls: [chatCall('c3', 'apply_patch', '{"type":"delete_file","path":"a.txt"}')],
        },
        { role: 'tool', tool_call_id: 'c3', content: '""' },
      ],
    ],
    [
      'reasoning goes back with the calls that it led to, and with nothing else',
      [
        { type: 'reasoning', id: 'rs_0', summary: [], content: [{ type: 'reasoning_text', text: 'for nothing' }] },
        'Hi',
        { type: 'reasoning', id: 'rs_1', summary: [{ type: 'summary_text', text: 'no' }], content: [{ text: 'I look.' }] },
        { role: 'assistant', content: 'Let me see.' },
        call('c1'),
        { type: 'reasoning', id: 'rs_2', summary: [{ text: 'And' }, { text: 'again.' }], encrypted_content: 'gAAA' },
        call('c2'),
        output('c1'),
        output('c2'),
        { type: 'reasoning', id: 'rs_3', summary: [], content: [{ text: 'Done.' }] },
        { role: 'assistant', content: 'Sunny.' },
      ],
      [
        { role: 'user', content: 'Hi' },
        {
          role: 'assistant',
          content: 'Let me see.',
          reasoning_content: 'I look.\nAnd\n\nagain.',
          tool_calls: [chatCall('c1'), chatCall('c2')],
        },
        { role: 'tool', tool_call_id: 'c1', content: 'sunny' },
        { role: 'tool', tool_call_id: 'c2', content: 'sunny' },
        { role: 'assistant', content: 'Sunny.' },
      ],
    ],
    [
      'images and files that a tool shows are parts',
      [
        call('c1'),
        output('c1', [part('see'), { type: 'input_image', image_url: 'data:image/png;base64,AAAA', detail: 'high' }]),
        { role: 'user', content: [{ type: 'input_file', filename: 'a.pdf', file_data: 'data:application/pdf;base64,AAAA' }] },
        { role: 'user', content: [{ type: 'input_file', file_url: 'https://h/a.pdf' }] },
        { role: 'user', content: [{ type: 'input_file', file_data: `data:text/plain;base64,${btoa('notes')}` }, part('?')] },
      ],
      [
        { role: 'assistant', content: null, tool_calls: [chatCall('c1')] },
        {
          role: 'tool',
          tool_call_id: 'c1',
          content: [
            { type: 'text', text: 'see' },
            { type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA', detail: 'high' } },
          ],
        },
        { role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:application/pdf;base64,AAAA' } }] },
        { role: 'user', content: [{ type: 'image_url', image_url: { url: 'https://h/a.pdf' } }] },
        { role: 'user', content: 'notes\n?' },
      ],
    ],
  ]
  for (const [claim, input, expected] of examples) test(claim, () => expect<unknown>(messages(input)).toEqual(expected))

  test('instructions lead it, as a system message', () => {
    expect<unknown>(messages('Hi', { instructions: 'Be brief.' })).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'Hi' },
    ])
    expect<unknown>(messages([{ role: 'developer', content: 'Be kind.' }, 'Hi'], { instructions: 'Be brief.' })).toEqual([
      { role: 'system', content: 'Be brief.\n\nBe kind.' },
      { role: 'user', content: 'Hi' },
    ])
    expect<unknown>(messages('Hi', { instructions: null })).toEqual([{ role: 'user', content: 'Hi' }])
  })

  test('an image that an assistant showed before its call stays beside the text after it', () => {
    const image = { type: 'input_image', image_url: 'https://example.com/cat.png' }
    const input = [{ role: 'assistant', content: [image] }, call('c1'), { role: 'assistant', content: 'See?' }, output('c1')]
    expect<unknown>(messages(input)).toEqual([
      {
        role: 'assistant',
        content: [
          { type: 'image_url', image_url: { url: 'https://example.com/cat.png' } },
          { type: 'text', text: 'See?' },
        ],
        tool_calls: [chatCall('c1')],
      },
      { role: 'tool', tool_call_id: 'c1', content: 'sunny' },
    ])
  })

  const words = fc.string({ minLength: 1, unit: 'binary' })
  const turn = fc.oneof(
    fc.record({ role: fc.constantFrom('system', 'user'), content: words }),
    fc.record({
      role: fc.constant('assistant'),
      content: fc.option(words),
      calls: fc.array(fc.record({ name: words, args: fc.string(), result: fc.string() }), { maxLength: 3 }),
    }),
  )

  test('a conversation comes back with its roles, texts, calls and ids', () => {
    fc.assert(
      fc.property(fc.array(turn, { minLength: 1 }), turns => {
        const conversation: Json[] = []
        const input: Json[] = []
        let calls = 0
        for (const turn of turns) {
          if (!('calls' in turn)) {
            conversation.push({ ...turn })
            input.push({ role: turn.role, content: [part(turn.content)] })
            continue
          }
          if (turn.content === null && turn.calls.length === 0) continue
          if (turn.content !== null) input.push({ role: 'assistant', content: [{ type: 'output_text', text: turn.content }] })
          const called = turn.calls.map(made => ({ ...made, id: `call-${calls++}` }))
          const tool_calls = called.map(({ id, name, args }) => chatCall(id, name, args))
          conversation.push({ role: 'assistant', content: turn.content, ...(tool_calls.length > 0 ? { tool_calls } : {}) })
          for (const { id, name, args } of called) input.push(call(id, name, args))
          for (const { id, result } of called) {
            conversation.push({ role: 'tool', tool_call_id: id, content: result })
            input.push(output(id, result))
          }
        }
        fc.pre(merged(conversation).length > 0)
        expect<unknown>(messages(input)).toEqual(merged(conversation))
      }),
    )
  })

  /** Text and the calls of the next message are one turn in Responses: the input does not tell them apart. */
  function merged(conversation: Json[]): Json[] {
    const turns: Json[] = []
    for (const message of conversation) {
      const last = turns.at(-1)
      const joins = message.role === 'assistant' && message.content === null && last?.role === 'assistant' && !last.tool_calls
      if (last && joins) last.tool_calls = message.tool_calls
      else if (turns.length === 1 && last?.role === 'system' && message.role === 'system') {
        last.content = `${last.content}\n\n${message.content}`
      } else turns.push({ ...message })
    }
    return turns
  }
})

function part(text: string) {
  return { type: 'input_text', text }
}

const ONE_TEXT = {
  type: 'object',
  properties: { input: { type: 'string' } },
  required: ['input'],
  additionalProperties: false,
}

describe('the other members of a question', () => {
  test('what chat knows is passed, what it does not know is dropped, and null is not given', () => {
    const passed = { temperature: 0.5, top_p: 0.9, stream: true, user: 'u1', seed: 7, presence_penalty: 1, frequency_penalty: 0 }
    const dropped = {
      store: true,
      metadata: { a: 'b' },
      include: ['x'],
      top_logprobs: 3,
      truncation: 'auto',
      service_tier: 'flex',
    }
    const expected: Json = { model: 'my-model', messages: [{ role: 'user', content: 'Hi' }], ...passed }
    expect(question({ ...passed, ...dropped, previous_response_id: null, conversation: null, background: false })).toEqual(
      expected,
    )
    const nulls = Object.fromEntries(
      [...Object.keys(passed), 'tools', 'tool_choice', 'text', 'reasoning'].map(key => [key, null]),
    )
    expect(question(nulls)).toEqual({ model: 'my-model', messages: [{ role: 'user', content: 'Hi' }] })
  })

  const examples: [claim: string, body: Json, expected: Json][] = [
    ['max_output_tokens is max_tokens', { max_output_tokens: 9 }, { max_tokens: 9 }],
    ['max_tokens is taken as well, and yields to max_output_tokens', { max_tokens: 8, max_output_tokens: 9 }, { max_tokens: 9 }],
    ['the effort of reasoning', { reasoning: { effort: 'low', summary: 'auto' } }, { reasoning_effort: 'low' }],
    ['a JSON object', { text: { format: { type: 'json_object' } } }, { response_format: { type: 'json_object' } }],
    ['text is what chat gives anyway', { text: { format: { type: 'text' }, verbosity: 'low' } }, {}],
    [
      'a JSON schema',
      { text: { format: { type: 'json_schema', name: 'n', schema: { type: 'object' }, strict: true, description: 'd' } } },
      {
        response_format: {
          type: 'json_schema',
          json_schema: { name: 'n', schema: { type: 'object' }, strict: true, description: 'd' },
        },
      },
    ],
    [
      'function tools are nested, and all others dropped',
      {
        tools: [
          { type: 'function', name: 'f', description: 'd', parameters: { type: 'object' }, strict: false },
          { type: 'function', name: 'g', parameters: null, strict: null },
          { type: 'web_search' },
          { type: 'mcp', server_label: 's' },
          { type: 'computer_use_preview' },
        ],
        tool_choice: { type: 'function', name: 'f' },
        parallel_tool_calls: false,
      },
      {
        tools: [
          { type: 'function', function: { name: 'f', description: 'd', parameters: { type: 'object' }, strict: false } },
          { type: 'function', function: { name: 'g' } },
        ],
        tool_choice: { type: 'function', function: { name: 'f' } },
        parallel_tool_calls: false,
      },
    ],
    [
      'a custom tool is a function with one text; a grammar is told in words',
      {
        tools: [
          { type: 'custom', name: 'say' },
          {
            type: 'custom',
            name: 'patch',
            description: 'Changes files.',
            format: { type: 'grammar', syntax: 'lark', definition: 'start: "x"' },
          },
        ],
        tool_choice: { type: 'custom', name: 'say' },
      },
      {
        tools: [
          { type: 'function', function: { name: 'say', parameters: ONE_TEXT } },
          {
            type: 'function',
            function: {
              name: 'patch',
              description: 'Changes files.\n\n`input` must match this lark grammar:\nstart: "x"',
              parameters: ONE_TEXT,
            },
          },
        ],
        tool_choice: { type: 'function', function: { name: 'say' } },
      },
    ],
    [
      'of allowed tools alone the model is told, and the mode is kept',
      {
        tools: ['f', 'g'].map(name => ({ type: 'function', name })),
        tool_choice: { type: 'allowed_tools', mode: 'required', tools: [{ type: 'function', name: 'g' }] },
      },
      { tools: [{ type: 'function', function: { name: 'g' } }], tool_choice: 'required' },
    ],
    [
      'where no tool is left, nothing is said about tools',
      { tools: [{ type: 'web_search' }], tool_choice: 'required', parallel_tool_calls: true },
      {},
    ],
    [
      'the choice of a tool that is not a function is dropped',
      { tools: [{ type: 'function', name: 'f' }], tool_choice: { type: 'web_search' } },
      { tools: [{ type: 'function', function: { name: 'f' } }] },
    ],
  ]
  for (const [claim, body, expected] of examples) {
    test(claim, () => {
      expect(question(body)).toEqual({ model: 'my-model', messages: [{ role: 'user', content: 'Hi' }], ...expected })
    })
  }
  for (const tool_choice of ['auto', 'none', 'required']) {
    test(`tool_choice ${tool_choice} is the same in chat`, () => {
      expect(question({ tools: [{ type: 'function', name: 'f' }], tool_choice }).tool_choice).toBe(tool_choice)
    })
  }
})

describe('what cannot be bridged is refused', () => {
  test('a response of before is not there, and the message says what to do', () => {
    for (const body of [{ previous_response_id: 'resp_1' }, { conversation: { id: 'conv_1' } }, { prompt: { id: 'pmpt_1' } }]) {
      const error = refusal(body)
      expect(error.status).toBe(400)
      expect(error.type).toBe('invalid_request_error')
      expect(error.param).toBe(Object.keys(body)[0])
      expect(error.message).toContain('stores no responses for bridged models: send the whole conversation in `input`')
    }
  })

  test('an output without its call is named', () => {
    for (const input of [
      [output('call_9')],
      [output('call_9'), call('call_9')],
      [
        'Hi',
        { ...call('call_8'), input: '', type: 'custom_tool_call' },
        { ...output('call_9'), type: 'custom_tool_call_output' },
      ],
      [{ ...output('call_9'), type: 'shell_call_output' }],
    ]) {
      const error = refusal({ input })
      expect(error.message).toContain('"call_9"')
      expect(error.param).toEndWith('].call_id')
    }
  })

  const bad: [param: string, body: Json][] = [
    ['background', { background: true }],
    ['background', { background: 'yes' }],
    ['instructions', { instructions: 1 }],
    ['input', { input: undefined }],
    ['input', { input: null }],
    ['input', { input: {} }],
    ['input', { input: [] }],
    ['input', { input: [{ type: 'reasoning' }] }],
    ['input[0]', { input: [7] }],
    ['input[1]', { input: ['Hi', { type: 'item_reference', id: 'msg_1' }] }],
    ['input[0].type', { input: [{ type: 'mesage', role: 'user', content: 'Hi' }] }],
    ['input[0].type', { input: [{ type: 5 }] }],
    ['input[0].role', { input: [{ content: 'Hi' }] }],
    ['input[0].role', { input: [{ role: 'tool', content: 'Hi' }] }],
    ['input[0].role', { input: [{ role: 'toString', content: 'Hi' }] }],
    ['input[0].content', { input: [{ role: 'user' }] }],
    ['input[0].content', { input: [{ role: 'user', content: 1 }] }],
    ['input[0].content[0]', { input: [{ role: 'user', content: ['Hi'] }] }],
    ['input[0].content[0]', { input: [{ role: 'user', content: [{ type: 'input_file', file_id: 'f' }] }] }],
    ['input[0].content[0].type', { input: [{ role: 'user', content: [{ type: 'input_audio' }] }] }],
    ['input[0].content[1].text', { input: [{ role: 'user', content: [part('a'), { type: 'input_text' }] }] }],
    ['input[0].content[0].refusal', { input: [{ role: 'assistant', content: [{ type: 'refusal', refusal: 1 }] }] }],
    ['input[0].content[0].image_url', { input: [{ role: 'user', content: [{ type: 'input_image' }] }] }],
    ['input[0].content[0].image_url', { input: [{ role: 'user', content: [{ type: 'input_image', image_url: { url: 'x' } }] }] }],
    ['input[0].content[0].file_id', { input: [{ role: 'user', content: [{ type: 'input_image', file_id: 'f' }] }] }],
    ['input[0].content[0].detail', { input: [{ role: 'user', content: [{ type: 'input_image', image_url: 'x', detail: 1 }] }] }],
    ['input[0].call_id', { input: [{ ...call('c'), call_id: 1 }] }],
    ['input[0].name', { input: [{ ...call('c'), name: undefined }] }],
    ['input[0].arguments', { input: [{ ...call('c'), arguments: {} }] }],
    ['input[1].output', { input: [call('c'), output('c', { sun: 1 })] }],
    ['input[1].output', { input: [call('c'), output('c', null)] }],
    [
      'input[1].output[0].image_url',
      { input: [call('c'), output('c', [{ type: 'input_image', image_url: 'data:image/png;base64,A' }])] },
    ],
    [
      'input[0].content[0].image_url',
      { input: [{ role: 'user', content: [{ type: 'input_image', image_url: 'data:image/png,A' }] }] },
    ],
    ['input[0].content[0].file_data', { input: [{ role: 'user', content: [{ type: 'input_file', file_data: 'AAAA' }] }] }],
    ['input[0]', { input: [{ type: 'compaction', encrypted_content: 'gAAA' }] }],
    ['input[0].id', { input: [{ type: 'local_shell_call_output', id: 'lsh_1', output: '' }] }],
    ['input[0].input', { input: [{ type: 'custom_tool_call', call_id: 'c', name: 'f' }] }],
    ['tool_choice.mode', { tool_choice: { type: 'allowed_tools', mode: 'none', tools: [] } }],
    ['tool_choice.tools', { tool_choice: { type: 'allowed_tools', mode: 'auto' } }],
    ['tools[0].name', { tools: [{ type: 'custom' }] }],
    ['max_output_tokens', { max_output_tokens: '9' }],
    ['max_output_tokens', { max_output_tokens: 1.5 }],
    ['max_output_tokens', { max_output_tokens: -1 }],
    ['max_output_tokens', { max_output_tokens: 2 ** 32 }],
    ['temperature', { temperature: 'hot' }],
    ['top_p', { top_p: true }],
    ['stream', { stream: 'true' }],
    ['user', { user: 1 }],
    ['parallel_tool_calls', { parallel_tool_calls: 1 }],
    ['tools', { tools: {} }],
    ['tools[0]', { tools: ['f'] }],
    ['tools[0].type', { tools: [{ name: 'f' }] }],
    ['tools[0].name', { tools: [{ type: 'function', function: { name: 'f' } }] }],
    ['tools[0].description', { tools: [{ type: 'function', name: 'f', description: 1 }] }],
    ['tools[0].parameters', { tools: [{ type: 'function', name: 'f', parameters: [] }] }],
    ['tools[0].strict', { tools: [{ type: 'function', name: 'f', strict: 'yes' }] }],
    ['tool_choice', { tool_choice: 'any' }],
    ['tool_choice', { tool_choice: 1 }],
    ['tool_choice.type', { tool_choice: {} }],
    ['tool_choice.name', { tool_choice: { type: 'function', function: { name: 'f' } } }],
    ['text', { text: 'json' }],
    ['text.format', { text: { format: 'json' } }],
    ['text.format.type', { text: { format: { type: 'grammar' } } }],
    ['text.format.name', { text: { format: { type: 'json_schema', schema: {} } } }],
    ['text.format.schema', { text: { format: { type: 'json_schema', name: 'n' } } }],
    ['text.format.schema', { text: { format: { type: 'json_schema', name: 'n', schema: 's' } } }],
    ['reasoning', { reasoning: 'high' }],
    ['reasoning.effort', { reasoning: { effort: 3 } }],
  ]
  for (const [param, body] of bad) {
    test(`${JSON.stringify(body)} names ${param}`, () => {
      const error = refusal(body)
      expect(error.kind).toBe('invalid_request')
      expect(error.param).toBe(param)
      expect(error.message).toContain(`\`${param}\``)
    })
  }

  test('any body is translated or refused by name', () => {
    const members = ['input', 'instructions', 'tools', 'tool_choice', 'text', 'reasoning', 'stream', 'max_output_tokens']
    const body = fc.dictionary(fc.constantFrom(...members), fc.jsonValue())
    const items = fc.array(
      fc.dictionary(fc.constantFrom('type', 'role', 'content', 'call_id', 'output', 'name', 'arguments'), fc.jsonValue()),
    )
    fc.assert(
      fc.property(fc.oneof(body, fc.record({ input: items })), body => {
        try {
          expect(Array.isArray(question(body).messages)).toBe(true)
        } catch (error) {
          if (!(error instanceof GatewayError)) throw error
          expect(error.param).toBeString()
        }
      }),
    )
  })
})

const completion = (message: Json, finish_reason: string | null = 'stop', more: Json = {}): Json => ({
  id: 'chatcmpl-1',
  object: 'chat.completion',
  model: 'my-model',
  choices: [{ index: 0, message: { role: 'assistant', ...message }, finish_reason }],
  ...more,
})

const USAGE = {
  prompt_tokens: 10,
  completion_tokens: 5,
  total_tokens: 15,
  prompt_tokens_details: { cached_tokens: 4 },
  completion_tokens_details: { reasoning_tokens: 2 },
}
const RESPONSE_USAGE = {
  input_tokens: 10,
  input_tokens_details: { cached_tokens: 4 },
  output_tokens: 5,
  output_tokens_details: { reasoning_tokens: 2 },
  total_tokens: 15,
}

describe('an answer', () => {
  test('is a Response with its items in order: reasoning, message, calls', () => {
    const message = {
      reasoning_content: 'Hm.',
      content: 'Let me see.',
      tool_calls: [chatCall('c1'), chatCall('c2', 'clock', '{"zone":1}')],
    }
    const answer = responses.answer(completion(message, 'tool_calls', { usage: USAGE }), asked())
    expect(answer).toEqual({
      id: expect.stringMatching(/^resp_[0-9a-f]{32}$/),
      object: 'response',
      created_at: 1_893_456_000,
      status: 'completed',
      error: null,
      incomplete_details: null,
      instructions: null,
      max_output_tokens: null,
      model: 'my-model',
      output: [
        {
          id: expect.stringMatching(/^rs_[0-9a-f]{32}$/),
          type: 'reasoning',
          summary: [],
          content: [{ type: 'reasoning_text', text: 'Hm.' }],
        },
        {
          id: expect.stringMatching(/^msg_[0-9a-f]{32}$/),
          type: 'message',
          status: 'completed',
          role: 'assistant',
          content: [{ type: 'output_text', text: 'Let me see.', annotations: [], logprobs: [] }],
        },
        {
          id: expect.stringMatching(/^fc_[0-9a-f]{32}$/),
          type: 'function_call',
          status: 'completed',
          call_id: 'c1',
          name: 'weather',
          arguments: '{}',
        },
        {
          id: expect.stringMatching(/^fc_/),
          type: 'function_call',
          status: 'completed',
          call_id: 'c2',
          name: 'clock',
          arguments: '{"zone":1}',
        },
      ],
      parallel_tool_calls: true,
      previous_response_id: null,
      reasoning: { effort: null, summary: null },
      store: false,
      temperature: null,
      text: { format: { type: 'text' } },
      tool_choice: 'auto',
      tools: [],
      top_p: null,
      truncation: 'disabled',
      usage: RESPONSE_USAGE,
      user: null,
      metadata: {},
    })
  })

  test('tells the caller its own members again', () => {
    const members = {
      instructions: 'Be brief.',
      max_output_tokens: 9,
      parallel_tool_calls: false,
      temperature: 0,
      text: { format: { type: 'json_object' } },
      tool_choice: 'none',
      tools: [{ type: 'function', name: 'f' }],
      top_p: 0.5,
      user: 'u1',
      metadata: { a: 'b' },
    }
    const answer = responses.answer(
      completion({ content: 'Hi' }),
      asked({ ...members, reasoning: { effort: 'low' }, store: true }),
    )
    expect(answer).toMatchObject({ ...members, reasoning: { effort: 'low', summary: null }, store: false })
  })

  const endings: [finishReason: string | null, status: string, reason: string | undefined][] = [
    ['stop', 'completed', undefined],
    ['tool_calls', 'completed', undefined],
    [null, 'completed', undefined],
    ['length', 'incomplete', 'max_output_tokens'],
    ['content_filter', 'incomplete', 'content_filter'],
  ]
  for (const [finishReason, status, reason] of endings) {
    test(`that ended by ${finishReason} is ${status}, streamed or not`, async () => {
      const details = reason === undefined ? null : { reason }
      const answer = responses.answer(completion({ content: 'Hi' }, finishReason), asked())
      expect(answer).toMatchObject({ status, incomplete_details: details })
      const { events } = streamed([delta({ content: 'Hi' }), delta({}, finishReason)])
      const last = events.at(-1)
      expect(last?.type).toBe(`response.${status}`)
      expect(last?.response).toMatchObject({ status, incomplete_details: details })
    })
  }

  test('shows a refusal as what it is, beside the text', () => {
    expect(responses.answer(completion({ content: null, refusal: 'No.' }), asked()).output).toMatchObject([
      { type: 'message', content: [{ type: 'refusal', refusal: 'No.' }] },
    ])
  })

  test('takes `reasoning` for reasoning_content, an object for arguments, and makes an id where there is none', () => {
    const tool_calls = [{ function: { name: 'f', arguments: { a: 1 } } }]
    expect(responses.answer(completion({ reasoning: 'Hm.', tool_calls }), asked()).output).toMatchObject([
      { type: 'reasoning', content: [{ type: 'reasoning_text', text: 'Hm.' }] },
      { type: 'function_call', name: 'f', arguments: '{"a":1}', call_id: expect.stringMatching(/^call_[0-9a-f]{32}$/) },
    ])
  })

  test('counts what the upstream left out as 0, and has no usage where it has none', () => {
    const usage = { prompt_tokens: 3, completion_tokens: 4, prompt_tokens_details: null }
    expect(responses.answer(completion({ content: 'Hi' }, 'stop', { usage }), asked()).usage).toEqual({
      input_tokens: 3,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens: 4,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: 7,
    })
    expect(responses.answer(completion({ content: 'Hi' }), asked()).usage).toBeNull()
  })

  test('of any shape is a Response', () => {
    const odd = fc.record({
      choices: fc.oneof(fc.jsonValue(), fc.array(fc.record({ message: fc.jsonValue() }))),
      usage: fc.jsonValue(),
    })
    fc.assert(
      fc.property(odd, chat => {
        expect(Array.isArray(responses.answer(chat, asked()).output)).toBe(true)
      }),
    )
  })
})

const delta = (delta: Json, finish_reason: string | null = null, more: Json = {}): Json => ({
  id: 'chatcmpl-1',
  object: 'chat.completion.chunk',
  choices: [{ index: 0, delta, finish_reason }],
  ...more,
})
const usageOnly: Json = { id: 'chatcmpl-1', object: 'chat.completion.chunk', choices: [], usage: USAGE }
const callDelta = (index: number, id: string | undefined, name: string | undefined, args: string) =>
  delta({
    tool_calls: [{ index, ...(id ? { id, type: 'function' } : {}), function: { ...(name ? { name } : {}), arguments: args } }],
  })

type Event = { type: string; sequence_number: number } & Json

function isEvent(value: unknown): value is Event {
  return typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string'
}

/** Every event of a text, each checked for its framing. */
function eventsOf(text: string): Event[] {
  return text
    .split('\n\n')
    .slice(0, -1)
    .map(frame => {
      const [, name, data = ''] = /^event: ([^\n]+)\ndata: ([^\n]+)$/.exec(frame) ?? []
      const event: unknown = JSON.parse(data)
      if (!isEvent(event)) throw new Error(`not an event: ${frame}`)
      expect<unknown>(name).toBe(event.type)
      return event
    })
}

function streamed(chunks: Json[], body?: Json): { events: Event[]; sent: string[] } {
  const stream = responses.stream(asked(body))
  const sent = [...chunks.map(chunk => stream.chunk(chunk)), stream.end()]
  return { events: eventsOf(sent.join('')), sent }
}

const types = (events: Event[]) => events.map(({ type }) => type.replace('response.', ''))

describe('a stream', () => {
  test('of text sends the events of one message in the order of OpenAI', () => {
    const { events, sent } = streamed([
      delta({ role: 'assistant', content: '' }),
      delta({ content: 'Hel' }),
      delta({ content: 'lo' }),
      delta({}, 'stop'),
      usageOnly,
    ])
    expect(types(events)).toEqual([
      'created',
      'in_progress',
      'output_item.added',
      'content_part.added',
      'output_text.delta',
      'output_text.delta',
      'output_text.done',
      'content_part.done',
      'output_item.done',
      'completed',
    ])
    expect(events.map(event => event.sequence_number)).toEqual(events.map((_, position) => position))
    const [created, , added, partAdded, first, , done, partDone, itemDone, completed] = events
    expect(created?.response).toMatchObject({ status: 'in_progress', output: [], usage: null, model: 'my-model' })
    const id = expect.stringMatching(/^msg_[0-9a-f]{32}$/)
    expect(added).toMatchObject({ output_index: 0, item: { id, status: 'in_progress', role: 'assistant', content: [] } })
    expect(partAdded).toMatchObject({ item_id: id, output_index: 0, content_index: 0, part: { type: 'output_text', text: '' } })
    expect(first).toEqual({
      type: 'response.output_text.delta',
      item_id: id,
      output_index: 0,
      content_index: 0,
      logprobs: [],
      delta: 'Hel',
      sequence_number: 4,
    })
    expect(done).toMatchObject({ text: 'Hello', logprobs: [] })
    expect(partDone).toMatchObject({ part: { type: 'output_text', text: 'Hello', annotations: [], logprobs: [] } })
    expect(itemDone).toMatchObject({ item: { status: 'completed', content: [{ text: 'Hello' }] } })
    expect(completed?.response).toMatchObject({ status: 'completed', output: [itemDone?.item], usage: RESPONSE_USAGE })
    expect(sent.map(text => eventsOf(text).length)).toEqual([2, 3, 1, 0, 4, 0])
  })

  test('of reasoning, text and parallel calls closes each item before the next but calls, which may interleave', () => {
    const { events } = streamed([
      delta({ reasoning_content: 'Hm' }),
      delta({ reasoning: '.' }),
      delta({ content: 'See:' }),
      callDelta(0, 'c1', 'weather', ''),
      callDelta(1, 'c2', 'clock', '{"zone'),
      callDelta(0, undefined, undefined, '{}'),
      callDelta(1, undefined, undefined, '":1}'),
      delta({}, 'tool_calls', { usage: USAGE }),
    ])
    expect(types(events)).toEqual([
      'created',
      'in_progress',
      'output_item.added',
      'reasoning_text.delta',
      'reasoning_text.delta',
      'reasoning_text.done',
      'output_item.done',
      'output_item.added',
      'content_part.added',
      'output_text.delta',
      'output_text.done',
      'content_part.done',
      'output_item.done',
      'output_item.added',
      'output_item.added',
      'function_call_arguments.delta',
      'function_call_arguments.delta',
      'function_call_arguments.delta',
      'function_call_arguments.done',
      'output_item.done',
      'function_call_arguments.done',
      'output_item.done',
      'completed',
    ])
    expect(events.flatMap(event => ('output_index' in event ? [event.output_index] : []))).toEqual([
      0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 3, 3, 2, 3, 2, 2, 3, 3,
    ])
    expect(events.at(-1)?.response).toMatchObject({
      usage: RESPONSE_USAGE,
      output: [
        { type: 'reasoning', content: [{ type: 'reasoning_text', text: 'Hm.' }] },
        { type: 'message', content: [{ text: 'See:' }] },
        { type: 'function_call', call_id: 'c1', name: 'weather', arguments: '{}', status: 'completed' },
        { type: 'function_call', call_id: 'c2', name: 'clock', arguments: '{"zone":1}', status: 'completed' },
      ],
    })
  })

  test('opens a call once its id and its name are known, with the arguments so far', () => {
    const { sent, events } = streamed([callDelta(0, undefined, 'f', '{"a"'), callDelta(0, 'c1', undefined, ':1}')])
    expect(types(eventsOf(sent[0] ?? ''))).toEqual(['created', 'in_progress'])
    expect(types(eventsOf(sent[1] ?? ''))).toEqual(['output_item.added', 'function_call_arguments.delta'])
    expect(events.at(-1)?.response).toMatchObject({ output: [{ call_id: 'c1', name: 'f', arguments: '{"a":1}' }] })
  })

  test('makes an id for a call that never got one, and leaves out one without a name', () => {
    const { events } = streamed([callDelta(0, undefined, 'f', '{}'), callDelta(1, 'c2', undefined, '{}')])
    const call_id = expect.stringMatching(/^call_[0-9a-f]{32}$/)
    expect(events.at(-1)?.response).toMatchObject({ output: [{ call_id, name: 'f', arguments: '{}' }] })
  })

  test('gives a call whose id another one has an id of its own, and so does an answer', () => {
    const call_id = expect.stringMatching(/^call_[0-9a-f]{32}$/)
    const { events } = streamed([callDelta(0, 'c1', 'f', ''), callDelta(1, 'c1', 'f', '')])
    expect(events.at(-1)?.response).toMatchObject({ output: [{ call_id: 'c1' }, { call_id }] })
    const answer = responses.answer(completion({ tool_calls: [chatCall('c1'), chatCall('c1')] }), asked())
    expect(answer.output).toMatchObject([{ call_id: 'c1' }, { call_id }])
  })

  test('tells calls apart by their ids where all have the same index or none', () => {
    for (const index of [0, undefined]) {
      const whole = (id: string) => ({ index, id, function: { name: 'f', arguments: `{"id":"${id}"}` } })
      const { events } = streamed([delta({ tool_calls: [whole('c1'), whole('c2')] }), delta({ tool_calls: [whole('c3')] })])
      expect(events.at(-1)?.response).toMatchObject({
        output: ['c1', 'c2', 'c3'].map(id => ({ call_id: id, arguments: `{"id":"${id}"}` })),
      })
    }
  })

  test('shows a refusal as a part of its own', () => {
    const { events } = streamed([delta({ content: 'Well, ' }), delta({ refusal: 'no' }), delta({ refusal: '.' }, 'stop')])
    expect(types(events).slice(2, -1)).toEqual([
      'output_item.added',
      'content_part.added',
      'output_text.delta',
      'output_text.done',
      'content_part.done',
      'content_part.added',
      'refusal.delta',
      'refusal.delta',
      'refusal.done',
      'content_part.done',
      'output_item.done',
    ])
    expect(events.at(-1)?.response).toMatchObject({
      output: [
        {
          content: [
            { type: 'output_text', text: 'Well, ' },
            { type: 'refusal', refusal: 'no.' },
          ],
        },
      ],
    })
  })

  test('that ends early, or without a chunk, is closed as completed', () => {
    expect(types(streamed([delta({ content: 'Hi' })]).events).slice(-2)).toEqual(['output_item.done', 'completed'])
    expect(types(streamed([]).events)).toEqual(['created', 'in_progress', 'completed'])
  })

  test('waits for the usage after the finish, and for the end where none comes', () => {
    const { sent } = streamed([delta({ content: 'Hi' }), delta({}, 'length')])
    expect(sent[1]).toBe('')
    expect(types(eventsOf(sent[2] ?? '')).at(-1)).toBe('incomplete')
  })

  test('ignores further choices and chunks of a foreign shape', () => {
    const second = { choices: [{ index: 1, delta: { content: 'other' } }] }
    const odd: Json[] = [{}, { choices: null }, { choices: [null] }, { choices: [{ delta: 3 }] }, second, { usage: 'none' }]
    odd.push(delta({ content: 5, tool_calls: [null, {}, { function: 'f' }], reasoning_content: {} }))
    expect(types(streamed(odd).events)).toEqual(['created', 'in_progress', 'completed'])
  })

  test('that breaks ends with an error event in sequence, and nothing follows', () => {
    const stream = responses.stream(asked())
    const before = eventsOf(stream.chunk(delta({ content: 'Hi' }))).length
    const error = new GatewayError('timeout', 'upstream request timed out after 5ms')
    expect(stream.error(error)).toBe(
      `event: error\ndata: {"type":"error","code":"timeout","message":"${error.message}","param":null,"sequence_number":${before}}\n\n`,
    )
    expect([stream.chunk(delta({ content: 'more' })), stream.end(), stream.error(error)]).toEqual(['', '', ''])
  })

  test('that is over sends nothing more', () => {
    const stream = responses.stream(asked())
    for (const chunk of [delta({ content: 'Hi' }, 'stop'), usageOnly]) stream.chunk(chunk)
    expect([stream.chunk(delta({ content: 'more' })), stream.end(), stream.error(new GatewayError('timeout', ''))]).toEqual([
      '',
      '',
      '',
    ])
  })

  const text = fc.oneof(fc.constant(''), fc.string({ unit: 'binary', maxLength: 6 }))
  const toolCall = fc.record(
    {
      index: fc.nat(2),
      id: fc.constantFrom('c0', 'c1', 'c2'),
      function: fc.record({ name: fc.constantFrom('f', 'g'), arguments: text }, { requiredKeys: [] }),
    },
    { requiredKeys: [] },
  )
  const anyDelta = fc.record(
    { content: text, reasoning_content: text, reasoning: text, refusal: text, tool_calls: fc.array(toolCall, { maxLength: 3 }) },
    { requiredKeys: [] },
  )
  const chunks = fc.array(
    fc.oneof(
      {
        weight: 9,
        arbitrary: fc.tuple(anyDelta, fc.constantFrom(null, null, null, 'stop', 'length')).map(made => delta(...made)),
      },
      { weight: 1, arbitrary: fc.constant(usageOnly) },
    ),
    { maxLength: 20 },
  )

  test('of any chunks is well ordered: items are added, grow and are done, and all that was said is in the last event', () => {
    fc.assert(
      fc.property(chunks, chunks => {
        const { events } = streamed(chunks)
        expect(events.map(event => event.sequence_number)).toEqual(events.map((_, position) => position))
        expect(types(events).slice(0, 2)).toEqual(['created', 'in_progress'])
        const open = new Map<unknown, string[]>()
        const done: unknown[] = []
        let added = 0
        for (const event of events.slice(2, -1)) {
          const { type, output_index: index } = event
          if (type === 'response.output_item.added') {
            expect(index).toBe(added++)
            open.set(index, [])
            continue
          }
          const pieces = open.get(index)
          if (!pieces) throw new Error(`${type} of an item that is not open`)
          if (typeof event.delta === 'string') pieces.push(event.delta)
          else if (type === 'response.output_item.done') {
            open.delete(index)
            if (typeof index === 'number') done[index] = event.item
          } else if (type.endsWith('.done') && type !== 'response.content_part.done') {
            expect<unknown>(event.text ?? event.refusal ?? event.arguments).toBe(pieces.splice(0).join(''))
          }
        }
        expect(open.size).toBe(0)
        expect(events.at(-1)?.response).toMatchObject({ output: done })
        expect(done.length).toBe(added)
      }),
    )
  })

  test("of any chunks is read by OpenAI's SDK, which puts the same Response together from the deltas", async () => {
    await fc.assert(
      fc.asyncProperty(chunks, async chunks => {
        const { events } = streamed(chunks)
        const lines = new Blob(events.map(event => `${JSON.stringify(event)}\n`)).stream()
        const final = await ResponseStream.fromReadableStream(lines).finalResponse()
        expect<unknown>(JSON.parse(JSON.stringify(final))).toMatchObject(Object(events.at(-1)?.response))
      }),
      { numRuns: 50 },
    )
  })

  const said = fc.string({ minLength: 1 })

  test('of a whole answer has the items that the answer has, apart from their ids', () => {
    fc.assert(
      fc.property(said, said, said, (thought, content, args) => {
        const message = { reasoning_content: thought, content, tool_calls: [{ index: 0, ...chatCall('c1', 'f', args) }] }
        const answer = responses.answer(completion(message, 'length', { usage: USAGE }), asked())
        const { events } = streamed([delta(message), delta({}, 'length'), usageOnly])
        const withoutIds = (value: unknown): unknown =>
          JSON.parse(JSON.stringify(value, (key, member) => (key === 'id' ? undefined : member)))
        expect(withoutIds(events.at(-1)?.response)).toEqual(withoutIds(answer))
      }),
    )
  })
})

test('an error is the document of OpenAI, and silence is broken by a comment', () => {
  const error = new GatewayError('invalid_request', 'no', { param: 'input' })
  expect(responses.error(error)).toEqual({ error: { message: 'no', type: 'invalid_request_error', param: 'input' } })
  expect(responses.heartbeat).toBe(':\n\n')
  expect(responses.streamType).toBe('text/event-stream')
})

describe('custom tools, which take any text', () => {
  const tools = [
    { type: 'custom', name: 'patch' },
    { type: 'function', name: 'weather' },
  ]
  const calls = [
    chatCall('c1', 'patch', '{"input":"*** Begin"}'),
    chatCall('c2'),
    chatCall('c3', 'patch', 'no object'),
    chatCall('c4', 'patch', '""'),
  ]
  const items = [
    { type: 'custom_tool_call', status: 'completed', call_id: 'c1', name: 'patch', input: '*** Begin' },
    { type: 'function_call', call_id: 'c2', name: 'weather', arguments: '{}' },
    { type: 'custom_tool_call', call_id: 'c3', name: 'patch', input: 'no object' },
    { type: 'custom_tool_call', call_id: 'c4', name: 'patch', input: '' },
  ]

  test('are called with the text that the model wrote for it', () => {
    const { output } = responses.answer(completion({ tool_calls: calls }), asked({ tools }))
    expect(output).toMatchObject(items)
  })

  test('are told in a stream when their text is whole', async () => {
    const { events } = streamed(
      [
        callDelta(0, 'c1', 'patch', '{"inp'),
        callDelta(0, undefined, undefined, 'ut":"*** Begin"}'),
        ...calls.slice(1).map(({ id, function: { name, arguments: args } }, at) => callDelta(at + 1, id, name, args)),
        delta({}, 'tool_calls', { usage: USAGE }),
      ],
      { tools },
    )
    const ofFirst = events.filter(({ output_index }) => output_index === 0)
    expect(types(ofFirst)).toEqual([
      'output_item.added',
      'custom_tool_call_input.delta',
      'custom_tool_call_input.done',
      'output_item.done',
    ])
    const [added, grown, done] = ofFirst
    expect(added?.item).toMatchObject({ type: 'custom_tool_call', input: '', status: 'in_progress' })
    expect([grown?.delta, done?.input]).toEqual(['*** Begin', '*** Begin'])
    expect(events.at(-1)?.response).toMatchObject({ output: items })
    const lines = new Blob(events.map(event => `${JSON.stringify(event)}\n`)).stream()
    const final = await ResponseStream.fromReadableStream(lines).finalResponse()
    expect(final.output).toMatchObject(items)
  })
})

describe('reasoning, where the caller asked for a summary of it,', () => {
  const body = { reasoning: { effort: 'low', summary: 'auto' } }
  const item = {
    type: 'reasoning',
    summary: [{ type: 'summary_text', text: 'Hm.' }],
    content: [{ type: 'reasoning_text', text: 'Hm.' }],
  }

  test('is its own summary', () => {
    const answer = responses.answer(completion({ reasoning_content: 'Hm.', content: 'Hi' }), asked(body))
    expect(answer).toMatchObject({ reasoning: { effort: 'low', summary: 'auto' }, output: [item, { type: 'message' }] })
  })

  test('is its own summary in a stream, piece by piece', async () => {
    const { events } = streamed(
      [delta({ reasoning_content: 'H' }), delta({ reasoning_content: 'm.' }), delta({ content: 'Hi' })],
      body,
    )
    expect(types(events).slice(2, 12)).toEqual([
      'output_item.added',
      'reasoning_summary_part.added',
      'reasoning_text.delta',
      'reasoning_summary_text.delta',
      'reasoning_text.delta',
      'reasoning_summary_text.delta',
      'reasoning_text.done',
      'reasoning_summary_text.done',
      'reasoning_summary_part.done',
      'output_item.done',
    ])
    const parts = events.filter(({ type }) => type.startsWith('response.reasoning_summary_'))
    for (const each of parts) expect(each).toMatchObject({ output_index: 0, summary_index: 0 })
    expect(events.at(-1)?.response).toMatchObject({ output: [item, { type: 'message' }] })
    const lines = new Blob(events.map(event => `${JSON.stringify(event)}\n`)).stream()
    const final = await ResponseStream.fromReadableStream(lines).finalResponse()
    expect<unknown>(final.output).toMatchObject([item, { type: 'message' }])
  })
})

test('what is left out is named by its place', () => {
  const body = {
    input: ['Hi', { role: 'user', content: 'x' }, call('c1'), output('c1'), { type: 'reasoning' }, { type: 'web_search_call' }],
    tools: [{ type: 'function', name: 'f' }, { type: 'custom', name: 'c' }, { type: 'mcp' }],
  }
  expect(droppedItems(body)).toEqual(['input[5] (web_search_call)', 'tools[2] (mcp)'])
  expect(droppedItems({ input: 'Hi' })).toEqual([])
})

test('a stream that is longer than its last event can repeat ends with an error, before it fills the memory', () => {
  const stream = responses.stream({ alias: 'a', body: {}, requestId: 'r', nowMs: 0 })
  const chunk = { choices: [{ index: 0, delta: { content: 'x'.repeat(1_000_000) } }] }
  expect(() => {
    for (let count = 0; count < 20; count += 1) stream.chunk(chunk)
  }).toThrow('longer than')
})
