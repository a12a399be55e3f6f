import type { Member } from '../wire/members.ts'

/** A caller's request, read: the members as they were sent, and the values that the gateway uses. */
export type Question = {
  /** The body's members in the caller's order and spelling, as binary text. */
  members: readonly Member[]
  /** The alias that the caller asked for; answers echo it. */
  model: string
  isStream: boolean
  /** True when the caller asked for the usage chunk of a stream. */
  includeUsage: boolean
  /** True when the caller said anything about `stream_options`: then it is left alone. */
  hasStreamOptions: boolean
  bytes: number
}
