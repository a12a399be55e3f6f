import { z } from 'zod'

/** An optional member: `null` counts as absent, and what is absent is never emitted (control.md, conventions). */
export function optional<T extends z.ZodType>(schema: T) {
  return schema.nullish().transform((value): z.output<T> | undefined => value ?? undefined)
}

/** An optional member that has a value all the same when it is left out: what `schema` makes of `fallback`. */
export function defaulted<T extends z.ZodType>(schema: T, fallback: z.input<T>) {
  const value = schema.parse(fallback)
  return schema
    .nullish()
    .transform((given): z.output<T> => given ?? value)
    .meta({ default: fallback })
}

/** A string that says something. */
export const text = () => z.string().min(1, 'must not be empty')

/** An integer of zero or more that fits 32 bits: retries, milliseconds, counts. */
export const count = () => z.int().min(0).max(2_147_483_647)
