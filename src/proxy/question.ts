import type { Json } from '../dialects/dialect.ts'
import type { Span } from '../wire/members.ts'
import type { Upload } from './upload.ts'

export type Call = {
  method: 'GET' | 'POST' | 'DELETE'
  /** What follows the URL of the endpoint: segments of the path and the query. */
  suffix: string
  hasBody: boolean
}

/** A caller's request, read: its text as it was sent, and the values that the gateway uses. */
export type Question = {
  /** The body as JSON text, and where its members stand in it. */
  text: string
  spans: readonly Span[]
  /** The alias that the caller asked for; answers echo it. */
  model: string
  isStream: boolean
  /** True when the caller asked for the usage chunk of a stream. */
  includeUsage: boolean
  /** True when the caller said anything about `stream_options`: then it is left alone. */
  hasStreamOptions: boolean
  bytes: number
  /** The caller's own body, of a dialect other than chat. */
  callerBody: Json | undefined
  /**
   * The same as a chat request, where `text` is still as the caller sent it: made for the first target that does not speak the
   * caller's dialect, since what is fine for one that does may have no translation. throws: invalid_request
   */
  translate: (() => Question) | undefined
  /** How it is sent, where that is no POST to the endpoint itself. */
  call?: Call
  /** The form that came in place of a JSON body. */
  upload: Upload | undefined
}
