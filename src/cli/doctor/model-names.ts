/** What our models ask a server for, beside what it serves. */

/** A direct model: its alias, and what it is called at the server. */
export type Wanted = { alias: string; modelName: string }

export type Compared = {
  /** Models that the server does not serve. */
  missing: Wanted[]
  /** What it serves and no model asks for. */
  unused: string[]
}

/** in: `hasTags` where a name without a tag means `:latest`, as at Ollama */
export function compareNames(wanted: readonly Wanted[], served: readonly string[], { hasTags }: { hasTags: boolean }): Compared {
  const full = (name: string) => (hasTags && !name.includes(':') ? `${name}:latest` : name)
  const known = new Set(served.map(full))
  const exact = wanted.filter(({ modelName }) => !modelName.includes('*'))
  const patterns = wanted.filter(({ modelName }) => modelName.includes('*')).map(({ modelName }) => modelName.split('*'))
  const asked = new Set(exact.map(({ modelName }) => full(modelName)))
  const isMatched = (name: string) =>
    patterns.some(
      ([before = '', after = '']) =>
        name.length >= before.length + after.length && name.startsWith(before) && name.endsWith(after),
    )
  return {
    missing: exact.filter(({ modelName }) => !known.has(full(modelName))),
    unused: served.filter(name => !asked.has(full(name)) && !isMatched(name)),
  }
}
