import { z } from 'zod'

/** Members that several endpoints read. */
export const model = z.string('must be a string').min(1, 'must not be empty')
export const stream = z.boolean('must be true or false').nullish()
export const streamOptions = z
  .looseObject({ include_usage: z.boolean('must be true or false').nullish() }, 'must be an object')
  .nullish()
/** Up to 32 bits, as the engines count (proxy-02 §1). */
export const tokenCount = z.int('must be an integer').min(0, 'must not be negative').max(4_294_967_295, 'is too large').nullish()

/** The members that every question has, as `isPlain` of an endpoint looks at them. */
export type PlainQuestion = { model: string; stream?: unknown; stream_options?: unknown } & Record<string, unknown>

export function isPlainQuestion(value: unknown): value is PlainQuestion & { stream?: boolean; stream_options?: undefined } {
  if (typeof value !== 'object' || value === null || !('model' in value)) return false
  if (typeof value.model !== 'string' || value.model === '') return false
  if ('stream' in value && typeof value.stream !== 'boolean') return false
  return !('stream_options' in value)
}

/** Absent, or a number. */
export function isPlainNumber(value: unknown): boolean {
  return value === undefined || typeof value === 'number'
}
