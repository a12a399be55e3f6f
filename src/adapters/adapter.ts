import type { Usage } from '../exchange.ts'

/** What an endpoint asks of an upstream. */
export type Operation = 'chat' | 'completions' | 'embeddings' | RelayedOperation

/** What is asked and answered byte for byte, but for the name of the model. */
export type RelayedOperation = 'rerank' | 'score' | 'classify' | 'pooling' | 'tokenize' | 'detokenize'

/** What an upstream said is wrong, in the envelope's terms; members it did not send are undefined. */
export type UpstreamError = { message: string; code: string | undefined; param: string | undefined }

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
  error(body: unknown): UpstreamError | undefined
  /** Token counts out of a `usage` member; undefined when it is no such thing. */
  usage(usage: unknown): Usage | undefined
}
