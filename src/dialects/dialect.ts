import type { GatewayError } from '../errors.ts'

/** A JSON object whose members nobody has looked at yet. */
export type Json = Record<string, unknown>

/** What a translator may know of the request that it answers. */
export type Asked = {
  /** The model as the caller spelt it: answers echo it. */
  alias: string
  /** The caller's body. */
  body: Json
  requestId: string
  /** Epoch milliseconds at which the request came. */
  nowMs: number
}

/** One stream in the caller's dialect. Text is sent as it is returned, framing included; '' where there is nothing to send. */
export type StreamTranslator = {
  /** in: one `chat.completion.chunk`, usage-only ones included. Its members are the upstream's: any may be missing or odd. */
  chunk(chunk: Json): string
  /** The upstream's stream ended well. */
  end(): string
  /**
   * It did not: what tells the caller so. Nothing is sent after it.
   * in: `data` of the last event that was relayed, where the stream is the upstream's own and none of its chunks came here
   */
  error(error: GatewayError, last?: string): string
}

/**
 * A dialect that callers speak, over the chat shape of OpenAI in the middle. Pure functions: they never fetch, wait or log.
 * Unknown members of bodies are dropped, wrong ones refused by name.
 */
export type Dialect = {
  /**
   * The body of a chat request. in: the caller's, an object with a `model` that is a text
   * throws: invalid_request, which names the member
   */
  question(body: Json): Json
  /** in: a `chat.completion` whose `model` is the caller's alias. out: the document of the answer */
  answer(chat: Json, asked: Asked): Json
  stream(asked: Asked): StreamTranslator
  /** The document of an error. */
  error(error: GatewayError): Json
  /** What is sent when the line is silent for too long: a comment or an event that clients skip. */
  heartbeat: string
  streamType: 'text/event-stream' | 'application/x-ndjson'
}
