/** Tool calls as servers really send them, told by every dialect alike. */
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import type { Asked, Json } from '../../src/dialects/dialect.ts'
import { messages } from '../../src/dialects/messages.ts'
import { ollamaChat } from '../../src/dialects/ollama.ts'
import { responses } from '../../src/dialects/responses.ts'

const ASKED: Asked = { alias: 'a', body: {}, requestId: '0d5f6c1e-6a0e-4b0c-9d53-51b0f3b7c2aa', nowMs: 0 }

type Call = { name: unknown; args: unknown; id: unknown }

const list = (value: unknown): Json[] => (Array.isArray(value) ? value : [])
const member = (value: unknown, name: string): unknown => Object(value)[name]

/** Arguments as an object, whatever they were: what is cut or no object is none in Ollama, so it is none here. */
function argumentsOf(text: unknown): unknown {
  try {
    const value: unknown = JSON.parse(String(text))
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : {}
  } catch {
    return {}
  }
}

function eventsOf(sent: string): Json[] {
  return sent.split('\n\n').flatMap(frame => {
    const data = frame.split('\n').find(line => line.startsWith('data: '))
    return data === undefined ? [] : [JSON.parse(data.slice(6))]
  })
}

/** For each dialect the calls that a stream of `deltas` tells. */
const STREAMS: Record<string, (deltas: readonly Json[]) => Call[]> = {
  messages(deltas) {
    const blocks = new Map<unknown, { name: unknown; id: unknown; json: string }>()
    for (const { type, index, content_block: block, delta } of eventsOf(sentBy(messages, deltas))) {
      if (type === 'content_block_start' && member(block, 'type') === 'tool_use') {
        blocks.set(index, { name: member(block, 'name'), id: member(block, 'id'), json: '' })
      }
      const open = blocks.get(index)
      if (open && member(delta, 'type') === 'input_json_delta') open.json += String(member(delta, 'partial_json'))
    }
    return Array.from(blocks.values(), ({ name, id, json }) => ({ name, id, args: argumentsOf(json) }))
  },
  responses(deltas) {
    const items = new Map<unknown, Json>()
    const args = new Map<unknown, string>()
    for (const { type, item_id: id, item, delta } of eventsOf(sentBy(responses, deltas))) {
      if (type === 'response.output_item.added' && member(item, 'type') === 'function_call') {
        items.set(member(item, 'id'), Object(item))
      }
      if (type === 'response.function_call_arguments.delta') args.set(id, (args.get(id) ?? '') + String(delta))
    }
    return Array.from(items, ([id, item]) => ({ name: item.name, id: item.call_id, args: argumentsOf(args.get(id)) }))
  },
  ollama(deltas) {
    return sentBy(ollamaChat, deltas)
      .split('\n')
      .filter(line => line !== '')
      .flatMap(line => list(member(member(JSON.parse(line), 'message'), 'tool_calls')))
      .map(call => ({ name: member(call.function, 'name'), id: call.id, args: member(call.function, 'arguments') }))
  },
}

function sentBy(dialect: typeof messages, deltas: readonly Json[]): string {
  const stream = dialect.stream(ASKED)
  const chunks = deltas.map(delta => stream.chunk({ choices: [{ index: 0, delta }] }))
  return [...chunks, stream.chunk({ choices: [{ index: 0, delta: {}, finish_reason: 'tool_calls' }] }), stream.end()].join('')
}

/** The same of a whole answer. */
const ANSWERS: Record<string, (message: Json) => Call[]> = {
  messages: message =>
    list(messages.answer(answered(message), ASKED).content)
      .filter(({ type }) => type === 'tool_use')
      .map(({ name, id, input }) => ({ name, id, args: input })),
  responses: message =>
    list(responses.answer(answered(message), ASKED).output)
      .filter(({ type }) => type === 'function_call')
      .map(({ name, call_id, arguments: args }) => ({ name, id: call_id, args: argumentsOf(args) })),
  ollama: message =>
    list(member(ollamaChat.answer(answered(message), ASKED).message, 'tool_calls')).map(call => ({
      name: member(call.function, 'name'),
      id: call.id,
      args: member(call.function, 'arguments'),
    })),
}

function answered(message: Json): Json {
  return { choices: [{ index: 0, message, finish_reason: 'tool_calls' }] }
}

type Piece = { index?: number; id?: string; name?: string; args?: unknown }

const piece = ({ index, id, name, args }: Piece): Json => ({
  tool_calls: [
    {
      ...(index === undefined ? {} : { index }),
      ...(id === undefined ? {} : { id, type: 'function' }),
      function: { ...(name === undefined ? {} : { name }), ...(args === undefined ? {} : { arguments: args }) },
    },
  ],
})

const named = (calls: readonly Call[]) => calls.map(({ name, args }) => [name, args])

const SEQUENCES: [claim: string, pieces: Piece[], calls: [name: string, args: Json][]][] = [
  [
    'the OpenAI way',
    [
      { index: 0, id: 'a', name: 'f', args: '' },
      { index: 0, args: '{"x"' },
      { index: 0, args: ':1}' },
      { index: 1, id: 'b', name: 'g', args: '{"y":2}' },
    ],
    [
      ['f', { x: 1 }],
      ['g', { y: 2 }],
    ],
  ],
  [
    'continuations without an index go to the call that got the latest piece',
    [{ index: 0, id: 'a', name: 'f', args: '' }, { args: '{"city":' }, { args: '"Oslo"}' }],
    [['f', { city: 'Oslo' }]],
  ],
  [
    'no index anywhere',
    [{ id: 'a', name: 'f', args: '{"x"' }, { args: ':1}' }, { id: 'b', name: 'g', args: '{' }, { args: '"y":2' }, { args: '}' }],
    [
      ['f', { x: 1 }],
      ['g', { y: 2 }],
    ],
  ],
  [
    'a name that is said in each piece is said once, without an id too',
    [
      { index: 0, name: 'f', args: '{"x"' },
      { index: 0, name: 'f', args: ':1}' },
      { name: 'f', args: ' ' },
    ],
    [['f', { x: 1 }]],
  ],
  [
    'name and id that are said in each piece',
    [
      { index: 0, id: 'a', name: 'f', args: '' },
      { index: 0, id: 'a', name: 'f', args: '{"x"' },
      { index: 0, id: 'a', name: 'f', args: ':1}' },
    ],
    [['f', { x: 1 }]],
  ],
  [
    'another name at the same index, without ids, is another call',
    [
      { index: 0, name: 'f', args: '{"x":1}' },
      { index: 0, name: 'g', args: '{"y":2}' },
    ],
    [
      ['f', { x: 1 }],
      ['g', { y: 2 }],
    ],
  ],
  [
    'the same name at the same index, without ids, is another call once the arguments are complete',
    [
      { index: 0, name: 'f', args: '{"x":"}"' },
      { index: 0, name: 'f', args: '}' },
      { index: 0, name: 'f', args: '{"x":2}' },
    ],
    [
      ['f', { x: '}' }],
      ['f', { x: 2 }],
    ],
  ],
  [
    'index 0 for all, told apart by ids',
    [
      { index: 0, id: 'a', name: 'f', args: '{"x":1}' },
      { index: 0, id: 'b', name: 'f', args: '{"x":2}' },
    ],
    [
      ['f', { x: 1 }],
      ['f', { x: 2 }],
    ],
  ],
  [
    'index 0 for all, interleaved by ids',
    [
      { index: 0, id: 'a', name: 'f', args: '{"x"' },
      { index: 0, id: 'b', name: 'g', args: '{"y"' },
      { index: 0, id: 'a', args: ':1}' },
      { index: 0, id: 'b', args: ':2}' },
    ],
    [
      ['f', { x: 1 }],
      ['g', { y: 2 }],
    ],
  ],
  [
    'interleaved by index, with the same id for both',
    [
      { index: 0, id: 'same', name: 'f', args: '{"x"' },
      { index: 1, id: 'same', name: 'f', args: '{"x"' },
      { index: 0, args: ':1}' },
      { index: 1, args: ':2}' },
    ],
    [
      ['f', { x: 1 }],
      ['f', { x: 2 }],
    ],
  ],
  [
    'another id in each piece of one index is of the same call where no name comes with it',
    [
      { index: 0, id: 'a', name: 'f', args: '{"x"' },
      { index: 0, id: 'b', args: ':1}' },
      { id: 'c', args: ' ' },
    ],
    [['f', { x: 1 }]],
  ],
  [
    'arguments as an object, and an empty one that text follows',
    [
      { index: 0, id: 'a', name: 'f', args: { x: 1 } },
      { index: 1, id: 'b', name: 'g', args: {} },
      { index: 1, args: '{"y":2}' },
    ],
    [
      ['f', { x: 1 }],
      ['g', { y: 2 }],
    ],
  ],
  [
    'empty names say nothing',
    [
      { index: 0, id: 'a', name: 'f', args: '' },
      { index: 0, id: '', name: '', args: '{"x":1}' },
      { index: 1, id: 'b', name: '', args: '{}' },
    ],
    [['f', { x: 1 }]],
  ],
  [
    'the name after the arguments',
    [
      { index: 0, args: '{"x":1}' },
      { index: 0, name: 'f' },
    ],
    [['f', { x: 1 }]],
  ],
  ['no arguments at all', [{ index: 0, id: 'a', name: 'f' }], [['f', {}]]],
]

describe.each(Object.entries(STREAMS))('a stream told by %s', (dialect, callsOf) => {
  test.each(SEQUENCES)('%s', (_claim, pieces, calls) => {
    const told = callsOf(pieces.map(piece))
    expect(named(told)).toEqual(calls)
    // Ollama's clients tell calls apart by name and order, OpenAI's and Anthropic's by id.
    if (dialect !== 'ollama') expect(new Set(told.map(({ id }) => id)).size).toBe(told.length)
  })

  test('`function_call`, the way of before tools, is a call', () => {
    const deltas = [{ function_call: { name: 'f', arguments: '' } }, { function_call: { arguments: '{"x":1}' } }]
    expect(named(callsOf(deltas))).toEqual([['f', { x: 1 }]])
  })
})

describe.each(Object.entries(ANSWERS))('a whole answer told by %s', (dialect, callsOf) => {
  const call = (id: string | undefined, name: string, args: unknown): Json => ({ id, function: { name, arguments: args } })

  test.each([
    ['the same id', call('same', 'f', '{"x":1}'), call('same', 'g', '{"y":2}')],
    ['no id', call(undefined, 'f', '{"x":1}'), call('', 'g', '{"y":2}')],
    ['index 0', { index: 0, ...call('a', 'f', '{"x":1}') }, { index: 0, ...call('b', 'g', { y: 2 }) }],
  ])('two calls with %s are two', (_what, ...tool_calls) => {
    const told = callsOf({ tool_calls })
    expect(named(told)).toEqual([
      ['f', { x: 1 }],
      ['g', { y: 2 }],
    ])
    if (dialect !== 'ollama') expect(new Set(told.map(({ id }) => id)).size).toBe(2)
  })

  test('calls without a name are left out, and `function_call` is one', () => {
    expect(callsOf({ tool_calls: [call('a', '', '{}'), {}, null, 'odd'] })).toEqual([])
    expect(named(callsOf({ function_call: { name: 'f', arguments: '{"x":1}' } }))).toEqual([['f', { x: 1 }]])
  })
})

test('an id that the upstream took in our own form is not given twice', () => {
  const [, made] = ANSWERS.messages?.({ tool_calls: [{ function: { name: 'f' } }, { function: { name: 'g' } }] }) ?? []
  const tool_calls = [{ function: { name: 'f' } }, { id: made?.id, function: { name: 'g' } }, { function: { name: 'h' } }]
  const told = ANSWERS.messages?.({ tool_calls }) ?? []
  expect(new Set(told.map(({ id }) => id)).size).toBe(3)
})

describe('content as an array of parts is text', () => {
  const content = [{ type: 'text', text: 'Hel' }, { type: 'image_url' }, null, { type: 'text', text: 'lo' }]

  test('of a whole answer', () => {
    const chat = { choices: [{ index: 0, message: { content }, finish_reason: 'stop' }] }
    expect(messages.answer(chat, ASKED).content).toEqual([{ type: 'text', text: 'Hello' }])
    expect(responses.answer(chat, ASKED).output).toMatchObject([{ content: [{ text: 'Hello' }] }])
    expect(ollamaChat.answer(chat, ASKED).message).toMatchObject({ content: 'Hello' })
  })

  test.each([
    [messages, '"text":"Hello"'],
    [responses, '"delta":"Hello"'],
    [ollamaChat, '"content":"Hello"'],
  ])('of a stream', (dialect, told) => {
    expect(sentBy(dialect, [{ content }])).toContain(told)
  })
})

const anyPiece = fc.record(
  {
    index: fc.nat(2),
    id: fc.constantFrom('', 'a', 'b', 'c'),
    name: fc.constantFrom('', 'f', 'g'),
    args: fc.oneof(
      fc.constantFrom('', '{"x":', '1}', '{"x":1}', '{}', ' ', '"', '\\"', '{"s":"}'),
      fc.constantFrom({}, { x: 1 }),
      fc.string({ maxLength: 4 }),
    ),
  },
  { requiredKeys: [] },
)
const anyDelta = fc.oneof(
  { weight: 8, arbitrary: anyPiece.map(piece) },
  { weight: 1, arbitrary: fc.record({ content: fc.string() }) },
  { weight: 1, arbitrary: fc.record({ reasoning_content: fc.string() }) },
  { weight: 1, arbitrary: anyPiece.map(({ name, args }) => ({ function_call: { name, arguments: args } })) },
  { weight: 1, arbitrary: fc.record({ tool_calls: fc.jsonValue() }) },
)

/** Blocks and items begin when a call is known, Ollama's calls are told at the end: the order is not the same. */
const sorted = (calls: readonly Call[]) =>
  named(calls)
    .map(each => JSON.stringify(each))
    .sort()

test('whatever comes, Messages, Responses and Ollama tell the same calls', () => {
  fc.assert(
    fc.property(fc.array(anyDelta, { maxLength: 12 }), deltas => {
      const told = Object.values(STREAMS).map(callsOf => sorted(callsOf(deltas)))
      for (const each of told) expect(each).toEqual(told[0] ?? [])
    }),
    { numRuns: 500 },
  )
})
