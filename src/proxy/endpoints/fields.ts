import { z } from 'zod'

/** Members that several endpoints read. */
export const model = z.string('must be a string').min(1, 'must not be empty')
export const stream = z.boolean('must be true or false').nullish()
export const streamOptions = z
  .looseObject({ include_usage: z.boolean('must be true or false').nullish() }, 'must be an object')
  .nullish()
/** Up to 32 bits, as the engines count (proxy-02 §1). */
export const tokenCount = z.int('must be an integer').min(0, 'must not be negative').max(4_294_967_295, 'is too large').nullish()
