/**
 * An agent's conversation of six turns with tools, told once: what the model calls, what the tools answer, and what the
 * model must have been given in the end. Every dialect's test runs it, so "the same calls" is one definition.
 */
import { expect } from 'bun:test'
import { z } from 'zod'
import type { FakeUpstream } from '../fake-upstream.ts'
import { type Call, type Said, say } from './engine.ts'

export const AGENT_QUESTION = 'What should I pack?'

const Weather = z.object({ city: z.string() })
const Note = z.object({ title: z.string(), tags: z.array(z.string()), place: z.object({ lat: z.number(), lon: z.number() }) })

/** `parameters` is for clients that take JSON schemas, `schema` for those that take zod's; `run` is what the tool does. */
export const TOOLS = {
  weather: {
    description: 'Tells the weather of a city.',
    schema: Weather,
    parameters: objectSchema(Weather),
    run: (input: unknown) => `sunny in ${Weather.parse(input).city}`,
  },
  note: {
    description: 'Writes a note down.',
    schema: Note,
    parameters: objectSchema(Note),
    run: (input: unknown) => {
      const { title, tags } = Note.parse(input)
      return `noted "${title}" under ${tags.join(', ')}`
    },
  },
} as const

export type ToolName = keyof typeof TOOLS
export const TOOL_NAMES: readonly ToolName[] = ['weather', 'note']

/** The tools as chat and Ollama have them. */
export const CHAT_TOOLS = TOOL_NAMES.map(name => {
  const { description, parameters } = TOOLS[name]
  return { type: 'function' as const, function: { name: String(name), description, parameters } }
})

/** A JSON schema in the terms of the clients' types: of an object, and of none of the booleans that JSON Schema allows as well. */
function objectSchema(schema: z.ZodObject) {
  const { properties = {}, required = [] } = z.toJSONSchema(schema)
  const members = Object.entries(properties).flatMap(([name, member]) => (typeof member === 'boolean' ? [] : [{ name, member }]))
  return {
    type: 'object' as const,
    properties: Object.fromEntries(members.map(({ name, member }) => [name, member])),
    required,
  }
}

const place = { lat: 56.95, lon: -0.5 }
/** What the model says, turn by turn; two turns have words, one of them thoughts as well. Ids are given below. */
const SCRIPT: { reasoning?: string; text?: string; calls: [name: ToolName, input: Record<string, unknown>][] }[] = [
  {
    calls: [
      ['weather', { city: 'Rīga' }],
      ['weather', { city: 'Oslo' }],
    ],
  },
  { text: 'I look further. ', calls: [['weather', { city: 'São Paulo 🌧' }]] },
  {
    reasoning: 'Three cities are known; I write them down.',
    text: 'Noting.',
    calls: [
      ['note', { title: 'quotes " and \\ and\nlines', tags: ['north', 'Süd'], place }],
      ['weather', { city: '' }],
      ['note', { title: 'second', tags: [], place }],
    ],
  },
  { calls: [['note', { title: 'third', tags: ['x'], place: { lat: 0, lon: 1e-7 } }]] },
  {
    calls: [
      ['weather', { city: 'Rīga' }],
      ['note', { title: 'again', tags: ['y', 'z'], place }],
    ],
  },
  {
    calls: [
      ['weather', { city: 'Quito' }],
      ['weather', { city: 'Quito' }],
    ],
  },
]
const TURNS: readonly Said[] = SCRIPT.map(({ calls, ...words }, turn) => ({
  ...words,
  calls: calls.map(([name, input], index) => ({ id: `call_${turn}_${index}`, name, input })),
}))
export const AGENT_ANSWER = 'Pack for sun.'

const ALL_CALLS: readonly Call[] = TURNS.flatMap(({ calls = [] }) => calls)

/** What the model is told of the conversation, in the terms of this file. */
type Entry = { role: 'assistant'; text: string; calls: Call[] } | { role: 'tool'; id: string; content: string }

const HISTORY: readonly Entry[] = TURNS.flatMap(({ text = '', calls = [] }) => [
  { role: 'assistant' as const, text, calls: [...calls] },
  ...calls.map(({ id, name, input }) => ({ role: 'tool' as const, id, content: resultOf(name, input) })),
])

function resultOf(name: string, input: unknown): string {
  const tool = TOOL_NAMES.find(each => each === name)
  if (tool === undefined) throw new Error(`the model called ${name}, which is no tool of the agent's`)
  return TOOLS[tool].run(input)
}

const Question = z.object({
  stream: z.boolean().optional(),
  tools: z.array(z.object({ function: z.object({ name: z.string(), parameters: z.unknown() }) })),
  messages: z.array(
    z.object({
      role: z.string(),
      content: z.union([z.string(), z.array(z.object({ text: z.string() }))]).nullish(),
      tool_call_id: z.string().optional(),
      tool_calls: z
        .array(
          z.object({
            id: z.string(),
            type: z.literal('function'),
            function: z.object({ name: z.string(), arguments: z.string() }),
          }),
        )
        .optional(),
    }),
  ),
})
type Question = z.infer<typeof Question>

function historyOf({ messages }: Question): Entry[] {
  return messages.flatMap(({ role, content, tool_call_id = '', tool_calls = [] }): Entry[] => {
    const text = typeof content === 'string' ? content : (content ?? []).map(part => part.text).join('')
    if (role === 'tool') return [{ role, id: tool_call_id, content: text }]
    if (role !== 'assistant') return []
    const calls = tool_calls.map(call => ({ id: call.id, name: call.function.name, input: JSON.parse(call.function.arguments) }))
    return [{ role, text, calls }]
  })
}

export type AgentRun = {
  /** What the agent's tools do. Called in the order of the calls. */
  carryOut(name: string, input: unknown): string
  /** Asserts that the calls that came are the script's, and that the model was given each with its result, in its place. */
  expectDone(answer: string): void
}

/**
 * Sets the upstream up as the model of this conversation.
 * in: `isStreamed`: how the agent must ask for each turn; `isInOrder`: see Said
 */
export function startAgent(upstream: FakeUpstream, { isStreamed = true, isInOrder = false } = {}): AgentRun {
  const carriedOut: { name: string; input: unknown }[] = []
  const questions: Question[] = []
  upstream.answer((request, connection) => {
    const question = Question.parse(request.json())
    questions.push(question)
    const turn = TURNS[question.messages.filter(({ role }) => role === 'assistant').length]
    return say(request, connection, { isInOrder, ...(turn ?? { text: AGENT_ANSWER }) })
  })
  return {
    carryOut(name, input) {
      carriedOut.push({ name, input })
      return resultOf(name, input)
    },
    expectDone(answer) {
      expect(answer).toBe(AGENT_ANSWER)
      expect(carriedOut).toEqual(ALL_CALLS.map(({ name, input }) => ({ name, input })))
      expect(questions.map(({ stream = false }) => stream)).toEqual(Array(TURNS.length + 1).fill(isStreamed))
      for (const [turn, question] of questions.entries()) {
        const known = TURNS.slice(0, turn).reduce((entries, { calls = [] }) => entries + 1 + calls.length, 0)
        expect(historyOf(question)).toEqual(HISTORY.slice(0, known))
        expect(question.tools).toMatchObject(
          TOOL_NAMES.map(name => ({ function: { name, parameters: { properties: { ...TOOLS[name].parameters.properties } } } })),
        )
      }
    },
  }
}

/** An answer of the model, as its client read it. */
export type Turn = { text: string; calls: { id: string; name: string; input: unknown }[] }
export type Result = { id: string; name: string; content: string }

/**
 * The loop of an agent that is written by hand.
 * in: `ask` adds the results of the last turn's calls to the conversation (none at first), asks, and adds the answer
 */
export async function runAgent(upstream: FakeUpstream, ask: (results: readonly Result[]) => Promise<Turn>): Promise<void> {
  const agent = startAgent(upstream)
  let results: Result[] = []
  for (let turn = 0; turn <= TURNS.length; turn += 1) {
    const { text, calls } = await ask(results)
    if (calls.length === 0) return agent.expectDone(text)
    results = calls.map(({ id, name, input }) => ({ id, name, content: agent.carryOut(name, input) }))
  }
  throw new Error(`the conversation was not over after ${TURNS.length + 1} turns`)
}
