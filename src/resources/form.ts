import type { z } from 'zod'

/** One form of a kind whose schema is a union. out: `T`, the documents of the kind */
export type Form<T = unknown> = {
  schema: z.ZodType<T>
  /** What is said of a member that other forms have and this one does not; undefined where none has it. */
  foreignMember(member: string): string | undefined
  /**
   * Members of other forms of which documents of this form have nothing but `null`: a document that gives one has another
   * form, so nothing is said of them here.
   */
  absentMembers?: readonly string[]
  /**
   * Those of them that say nothing about what the document is: a write that carries one is refused, but a stored document
   * is served without it. Any other makes a stored document of two forms, and which one was meant nobody knows.
   */
  deadMembers: readonly string[]
}

/** Whether a document says anything of a member: `null` means that it is absent. */
export function isGiven(document: Readonly<Record<string, unknown>>, member: string): boolean {
  return (document[member] ?? null) !== null
}
