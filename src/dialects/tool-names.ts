/** Servers of chat take no longer names of functions. */
const NAME_MAX = 64
const DIGEST_LENGTH = 8

/**
 * Names of tools as servers of chat take them, and back. A name that is too long is cut (proxy-04 §4); where the cut would be that
 * of another tool, too, its end is a digest of the whole. The same names always come to the same, turn after turn.
 */
export class ToolNames {
  readonly #sent = new Map<string, string>()
  readonly #given = new Map<string, string>()

  /** in: every name that the request has */
  constructor(names: ReadonlySet<string>) {
    const claims = new Map<string, number>()
    for (const name of names) claims.set(cut(name), (claims.get(cut(name)) ?? 0) + 1)
    for (const name of names) {
      if (name.length <= NAME_MAX) continue
      const sent = claims.get(cut(name)) === 1 ? cut(name) : digested(name)
      this.#sent.set(name, sent)
      this.#given.set(sent, name)
    }
  }

  /** The name that the server is told. */
  sent(name: string): string {
    return this.#sent.get(name) ?? name
  }

  /** The caller's name for one that the server called. */
  given(name: string): string {
    return this.#given.get(name) ?? name
  }
}

function cut(name: string): string {
  return name.slice(0, NAME_MAX)
}

function digested(name: string): string {
  const digest = Bun.SHA256.hash(name, 'hex').slice(0, DIGEST_LENGTH)
  return `${name.slice(0, NAME_MAX - DIGEST_LENGTH - 1)}_${digest}`
}
