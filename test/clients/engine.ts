/** What the fake upstream says, in the way of an engine that speaks OpenAI's chat: whole or in pieces, as it is asked. */
import { z } from 'zod'
import {
  type Connection,
  chatAnswer,
  chatChunk,
  type FakeUpstream,
  type Handler,
  type UpstreamRequest,
} from '../fake-upstream.ts'

export type Call = { id: string; name: string; input: Record<string, unknown> }
/** One turn of the model. `isInOrder`: pieces of parallel calls come call by call, and not in turns. */
export type Said = { reasoning?: string; text?: string; calls?: readonly Call[]; isInOrder?: boolean }

export const USAGE = { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 }

/** A chunk of a stream with one choice. */
export function choice(delta: Record<string, unknown>, finish_reason: string | null = null): Record<string, unknown> {
  return chatChunk({}, { choices: [{ index: 0, delta, finish_reason }] })
}

export const usageChunk = chatChunk({}, { choices: [], usage: USAGE })

/** Answers every request with this turn. */
export function saying(said: string | Said): Handler {
  return (request, connection) => say(request, connection, typeof said === 'string' ? { text: said } : said)
}

/** Answers one request with this turn: as a stream where it asks for one, with usage where it asks for that. */
export function say(request: UpstreamRequest, connection: Connection, said: Said): Promise<void> {
  const { stream, stream_options } = Object(request.json())
  if (stream !== true) return connection.json(200, wholeAnswer(said))
  return connection.sse([...chunksOf(said), ...(stream_options?.include_usage === true ? [usageChunk] : [])])
}

function wholeAnswer({ reasoning, text, calls = [] }: Said): Record<string, unknown> {
  const message = {
    role: 'assistant',
    content: text ?? null,
    ...(reasoning === undefined ? {} : { reasoning_content: reasoning }),
    ...(calls.length === 0 ? {} : { tool_calls: calls.map(({ id, name, input }) => toolCall(id, name, JSON.stringify(input))) }),
  }
  return chatAnswer('', { choices: [{ index: 0, message, finish_reason: finishOf(calls) }], usage: USAGE })
}

function toolCall(id: string, name: string, args: string): Record<string, unknown> {
  return { id, type: 'function', function: { name, arguments: args } }
}

function finishOf(calls: readonly Call[]): string {
  return calls.length === 0 ? 'stop' : 'tool_calls'
}

/** Every text in two pieces. Parallel calls begin one after the other; then their arguments come, in turns, the last first. */
function chunksOf({ reasoning = '', text = '', calls = [], isInOrder = false }: Said): Record<string, unknown>[] {
  const begun = calls.map(({ id, name }, index) => choice({ tool_calls: [{ index, ...toolCall(id, name, '') }] }))
  const halves = calls.map(({ input }, index) =>
    halvesOf(JSON.stringify(input)).map(piece => choice({ tool_calls: [{ index, function: { arguments: piece } }] })),
  )
  const inOrder = begun.flatMap((chunk, index) => [chunk, ...(halves[index] ?? [])])
  const inTurns = [...begun, ...[0, 1].flatMap(half => halves.flatMap(pieces => pieces.slice(half, half + 1)).reverse())]
  return [
    choice({ role: 'assistant', content: '' }),
    ...halvesOf(reasoning).map(piece => choice({ reasoning_content: piece })),
    ...halvesOf(text).map(piece => choice({ content: piece })),
    ...(isInOrder ? inOrder : inTurns),
    choice({}, finishOf(calls)),
  ]
}

/** By characters, since no engine cuts one in two within a chunk. */
function halvesOf(text: string): string[] {
  const characters = [...text]
  const middle = Math.ceil(characters.length / 2)
  return [characters.slice(0, middle), characters.slice(middle)].filter(half => half.length > 0).map(half => half.join(''))
}

/** Streams one token, then says nothing more until its caller leaves. */
export const oneTokenThenSilence: Handler = async (_request, connection) => {
  await sendChunks(connection, choice({ content: 'one' }))
  await connection.stall()
}

/**
 * Streams one token, and goes on when it is told that the token has arrived: so it is seen that tokens are not held back.
 * Without `rest` the connection is then reset, as by an engine that dies.
 */
export function oneTokenThen(rest?: readonly Record<string, unknown>[]): { handler: Handler; proceed: () => void } {
  const arrived = Promise.withResolvers<void>()
  return {
    proceed: arrived.resolve,
    async handler(_request, connection) {
      await sendChunks(connection, choice({ content: 'one' }))
      await arrived.promise
      if (!rest) return connection.reset()
      await connection.chunk(`${rest.map(event => `data: ${JSON.stringify(event)}\n\n`).join('')}data: [DONE]\n\n`)
      await connection.endChunks()
    },
  }
}

async function sendChunks(connection: Connection, event: Record<string, unknown>): Promise<void> {
  await connection.streamHead()
  await connection.chunk(`data: ${JSON.stringify(event)}\n\n`)
}

const EmbeddingsQuestion = z.object({
  input: z.union([z.string(), z.array(z.unknown())]),
  encoding_format: z.string().optional(),
})

/** One vector an input, its second number the position; as numbers, or in base64 of 32-bit floats where that is asked for. */
export const embedding: Handler = (request, connection) => {
  const { input, encoding_format } = EmbeddingsQuestion.parse(request.json())
  const texts = typeof input === 'string' || typeof input[0] === 'number' ? [input] : input
  const data = texts.map((_text, index) => {
    const vector = [0.5, -index]
    const isBase64 = encoding_format === 'base64'
    return {
      object: 'embedding',
      index,
      embedding: isBase64 ? Buffer.from(new Float32Array(vector).buffer).toString('base64') : vector,
    }
  })
  const usage = { prompt_tokens: 2 * data.length, total_tokens: 2 * data.length }
  return connection.json(200, { object: 'list', data, model: 'upstream-model', usage })
}

/** Waits until a call that is cut off has also ended at the upstream. */
export async function expectCut(upstream: FakeUpstream, call: () => Promise<unknown>): Promise<void> {
  const before = upstream.cut
  await call()
  await upstream.whenCut(before + 1)
}
