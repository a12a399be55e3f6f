/** What drills have in common. */

/** A drill that did not end as it should; the message is the line of result. */
export class DrillError extends Error {}

export function demand(holds: boolean, otherwise: string): asserts holds {
  if (!holds) throw new DrillError(otherwise)
}

/** Waits until `holds`, at most `ms`. */
export async function within(ms: number, holds: () => boolean | Promise<boolean>): Promise<boolean> {
  const deadline = performance.now() + ms
  for (;;) {
    if (await holds()) return true
    if (performance.now() > deadline) return false
    await Bun.sleep(20)
  }
}

export function seconds(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`
}
