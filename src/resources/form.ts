import type { z } from 'zod'

/** One form of a kind whose schema is a union. */
export type Form = {
  schema: z.ZodType
  /** What is said of a member that other forms have and this one does not; undefined where none has it. */
  foreignMember(member: string): string | undefined
}

/** Whether a document says anything of a member: `null` means that it is absent. */
export function isGiven(document: Readonly<Record<string, unknown>>, member: string): boolean {
  return (document[member] ?? null) !== null
}
