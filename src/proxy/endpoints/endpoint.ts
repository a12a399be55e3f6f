import type { z } from 'zod'
import type { NativeOperation, Operation } from '../../adapters/adapter.ts'
import type { Asked, Dialect, Json } from '../../dialects/dialect.ts'
import type { Snapshot } from '../../store/snapshot.ts'
import type { Job } from '../jobs/job.ts'
import type { Native } from '../native.ts'
import type { Upstream } from '../upstream.ts'

/** What differs between the endpoints that reach an upstream: everything else they share (`serve.ts`). */
export type Endpoint = {
  /** Name in logs and records. */
  name: string
  path: string
  operation: Operation
  /** Where callers do not speak OpenAI's dialect: how what they ask becomes a chat request, and its answer theirs. */
  dialect?: Dialect
  /** The members that the gateway uses; all others pass untouched. Its keys may not occur twice in a body. */
  /** The body is JSON whatever its content type says: clients of Ollama need not say any, and curl says another. */
  takesAnyType?: boolean
  /** What of the caller's body has no effect, as a warning. in: the body of a dialect that was translated, the label of the model that answers */
  warning?(body: Json, provider: string): string | undefined
  /** An answer for which nobody has to be asked; undefined where somebody has. in: the body of a dialect */
  atOnce?(body: Json, asked: Asked): Json | undefined
  /** The alias that a caller means, where its dialect has another spelling for one. */
  aliasOf?(snapshot: Snapshot, name: string): string
  /** Upstreams that speak the callers' own dialect: nothing is translated on the way there. */
  native?: NativeRelay
  /** Where the answer goes out byte for byte, whatever it is. */
  relay?: Relay
  /** Where the body is a form, not JSON. */
  form?: Form
  /** Where callers ask for what servers keep: files, batches, fine-tuning jobs. */
  job?: Job
  /** Groups are refused: what is asked for lies at one server. */
  isDirectOnly?: boolean
  /** What it asks for costs nothing: a budget that is used up does not refuse it. */
  isFree?: boolean
  /** Where the answer is a count of tokens, which the gateway estimates for servers that have no tokenizer. */
  count?: TokenCount
  schema: z.ZodType<EndpointQuestion>
  keys: readonly string[]
  /**
   * True only for values that `schema` accepts: the usual request is known to be good by a few comparisons, which cost
   * 4 us less than the schema. Whatever this is not sure of, the schema decides and explains.
   */
  isPlain(value: unknown): value is EndpointQuestion
  /** The member that holds what is asked: kept for exporters where an operator wants content. */
  promptMember: 'messages' | 'prompt' | 'input' | undefined
  /** The member without which a 2xx answer is no answer. */
  answerMember: 'choices' | 'data'
  /** True where `stream` always goes upstream, said or not (proxy-02 §2). */
  alwaysSendsStream: boolean
  /** True where answers carry `x-aisix-call-id` (proxy-01 §10). */
  hasCallId: boolean
  /** True where missing counters of `usage` are shown as 0 (embeddings). */
  fillsUsage: boolean
  /** What a 501 calls it when the upstream's dialect lacks it. */
  noun: string
}

export type NativeRelay = {
  operation: NativeOperation
  /** Whether a target speaks it. in: the label of the model, and its upstream */
  speaks(provider: string, upstream: Upstream): boolean
  /** What is read of the answers; `lines` are those of Ollama, which come as lines and not as events. */
  shape: Native | 'lines'
  /** Whether answers tell the caller's alias where they tell the upstream's name. */
  renames: boolean
}

export type Form = {
  /** `alias`: names the model, is required, and becomes the upstream's name. `route`: may name one, and is taken out. */
  model: 'alias' | 'route'
  /** One of these fields must be a file. */
  files: readonly string[]
  /** The file is a recording, which is told by its length where no tokens are. */
  isRecording?: boolean
  /** What `stream` does: `relayed` passes on an event stream, `refused` answers 400. */
  stream: 'relayed' | 'refused'
}

export type Relay = {
  /**
   * What the tokens are that it uses up: `none`, what the upstream has `told`, or where it told nothing an estimate, which
   * files that are sent or made have none of.
   */
  usage: 'none' | 'told' | 'estimated'
  /** `stream` is answered 400: the answer is held until it is whole. */
  refusesStreams?: boolean
  /** What is read of answers that come as events. */
  events?: Native
  /** The answer is passed on piece by piece: it is long, and useful from its first bytes. */
  isStreamed?: boolean
  /** Why a model with this label does not serve it. */
  refusal?(provider: string, alias: string): string | undefined
}

export type TokenCount = {
  /** in: what the engine answered, and the chat request that it was asked about. out: a document; undefined where it tells no count */
  answer(document: unknown): unknown
  /** in: the chat request as JSON text */
  estimate(text: string): unknown
}

export type EndpointQuestion = {
  model: string
  stream?: boolean | null | undefined
  stream_options?: { include_usage?: boolean | null | undefined } | null | undefined
}
