import type { Usage } from '../exchange.ts'

export type Json = Record<string, unknown>

/** What an endpoint asks of an upstream. */
export type Operation = 'chat' | 'completions' | 'embeddings' | 'realtime' | NativeOperation | RelayedOperation | JobOperation

/** What callers and upstreams of one dialect other than chat share: asked and answered without a translation. */
export type NativeOperation =
  | 'messages'
  | 'count_tokens'
  | 'responses'
  | 'ollama_chat'
  | 'ollama_generate'
  | 'ollama_embed'
  | 'ollama_embeddings'

/** What is asked and answered byte for byte, but for the name of the model. */
export type RelayedOperation =
  | 'rerank'
  | 'score'
  | 'classify'
  | 'pooling'
  | 'tokenize'
  | 'detokenize'
  | 'images'
  | 'image_edits'
  | 'speech'
  | 'transcriptions'
  | 'translations'

/** What a server keeps. */
export type JobOperation = 'files' | 'batches' | 'fine_tuning'

/** What an upstream said is wrong, in the envelope's terms; members it did not send are undefined. */
export type UpstreamError = { message: string; code: string | undefined; param: string | undefined }

export type ChatTranslation = {
  /** in: the body of a chat request, its `model` the upstream's name. throws: invalid_request */
  question(chat: Json): Json
  /** in: what the upstream answered, epoch milliseconds. out: a `chat.completion` */
  answer(answer: Json, nowMs: number): Json
  chunks(nowMs: number): ChunkTranslator
}

/** One stream. */
export type ChunkTranslator = {
  /** in: the JSON of one event. out: `chat.completion.chunk` objects, or one `{error}`, in the order to send them */
  event(data: Json): Json[]
  /** The event that ends the stream was seen: one that ends without it was cut. */
  readonly isDone: boolean
}

/**
 * A dialect that upstreams speak. Plain values in, plain values out: an adapter never fetches, waits, retries or logs,
 * and never sees a resource.
 */
export type Adapter = {
  /** Headers that carry the credential; the gateway owns them, no override replaces them. */
  headers(secret: string): Record<string, string>
  /**
   * The root that paths are appended to.
   * returns: undefined when there is none, `vendor` has no public default and so nothing may be dialled
   * throws: Error in words for an operator when `apiBase` is no usable URL
   */
  base(apiBase: string | undefined, vendor: string): string | undefined
  /** Path behind the base; an operation that is missing is one the dialect does not have. */
  paths: Partial<Record<Operation, string>>
  /** The base of an operation where it is another one: in and out a base as `base` gives it. */
  baseOf?(operation: Operation, base: string): string
  /** Where chat is asked in another shape than OpenAI's: what becomes of the request, and of its answer. */
  chat?: ChatTranslation
  error(body: unknown): UpstreamError | undefined
  /** Token counts out of a `usage` member; undefined when it is no such thing. */
  usage(usage: unknown): Usage | undefined
}
