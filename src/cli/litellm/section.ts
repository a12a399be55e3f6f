/** A mapping of the file that is read key by key: what nobody has asked for in the end is told, and so nothing gets lost. */
import { isTree, type Tree } from '../../config/file.ts'

/** What is told of the file, and of which place in it. The text never holds a value. */
export type Note = { at: readonly PropertyKey[]; text: string }

/** `${NAME}` of a resources file, with what follows it. Everything else that is text is meant as it stands. */
export class Reference {
  constructor(
    readonly name: string,
    readonly suffix = '',
  ) {}
}

export class Section {
  private readonly taken = new Set<string>()

  constructor(
    private readonly tree: Tree,
    readonly path: readonly PropertyKey[],
    private readonly notes: Note[],
  ) {}

  /** Says something of the mapping, or of one of its keys. */
  note(text: string, ...keys: PropertyKey[]): void {
    this.notes.push({ at: [...this.path, ...keys], text })
  }

  /** The value, whatever it is. */
  take(key: string): unknown {
    this.taken.add(key)
    return this.tree[key]
  }

  /** Texts, and numbers as their text; a reference to a variable stays one, and an empty text counts as not given. */
  text(key: string): string | Reference | undefined {
    const value = this.take(key)
    if (value === undefined || value === '') return undefined
    if (typeof value === 'number') return String(value)
    if (typeof value === 'string') return this.expand(value, key)
    this.note('expected a text; left out', key)
    return undefined
  }

  /** A text that cannot come from a variable, because it is a name that others go by. */
  word(key: string): string | undefined {
    const value = this.text(key)
    if (!(value instanceof Reference)) return value
    this.note('a name cannot come from a variable here; left out', key)
    return undefined
  }

  /** A number of at least `min`; texts of digits count. */
  number(key: string, { min = 0, isWhole = false } = {}): number | undefined {
    const value = this.take(key)
    if (value === undefined) return undefined
    const text = typeof value === 'string' ? value.replaceAll('_', '') : value
    const number = typeof text === 'string' && text.trim() !== '' ? Number(text) : text
    if (typeof number === 'number' && Number.isFinite(number) && number >= min && (!isWhole || Number.isSafeInteger(number)))
      return number
    const isVariable = typeof value === 'string' && value.startsWith(ENVIRONMENT)
    this.note(
      isVariable
        ? 'a number cannot come from a variable here; left out'
        : `expected a ${isWhole ? 'whole ' : ''}number of ${min} or more; left out`,
      key,
    )
    return undefined
  }

  flag(key: string): boolean | undefined {
    const value = this.take(key)
    if (value === undefined || typeof value === 'boolean') return value
    // What YAML 1.1, which LiteLLM reads, takes for a truth value, and YAML 1.2 for a text.
    if (typeof value === 'string' && /^(?:yes|on|y|true)$/i.test(value)) return true
    if (typeof value === 'string' && /^(?:no|off|n|false)$/i.test(value)) return false
    this.note('expected true or false; left out', key)
    return undefined
  }

  /** Texts of a list, or the one text in its place. */
  words(key: string): string[] {
    const value = this.take(key)
    if (value === undefined) return []
    const all = Array.isArray(value) ? value : [value]
    const words = all.filter(each => typeof each === 'string')
    if (words.length < all.length) this.note('expected a list of texts; the rest is left out', key)
    return words
  }

  section(key: string): Section | undefined {
    const value = this.take(key)
    if (value === undefined) return undefined
    if (isTree(value)) return new Section(value, [...this.path, key], this.notes)
    this.note('expected a mapping; left out', key)
    return undefined
  }

  sections(key: string): Section[] {
    const value = this.take(key)
    if (value === undefined) return []
    if (!Array.isArray(value)) {
      this.note('expected a list; left out', key)
      return []
    }
    return value.flatMap((each, i) => {
      if (isTree(each)) return [new Section(each, [...this.path, key, i], this.notes)]
      this.note('expected a mapping; left out', key, i)
      return []
    })
  }

  /** Keys that are there, taken or not. */
  keys(): string[] {
    return Object.keys(this.tree).filter(key => this.tree[key] !== undefined)
  }

  /** Text as it stands, or the variable that LiteLLM would put in its place. */
  expand(value: string, ...keys: PropertyKey[]): string | Reference | undefined {
    if (!value.startsWith(ENVIRONMENT)) return value
    const name = value.slice(ENVIRONMENT.length)
    if (/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) return new Reference(name)
    this.note('names no variable that could exist; left out', ...keys)
    return undefined
  }

  /** Tells of every key that nobody took. in: reasons by key, `undefined` for one that needs no counterpart */
  rest(reasons: Readonly<Record<string, string | undefined>>): void {
    for (const key of this.keys()) {
      if (this.taken.has(key)) continue
      if (!Object.hasOwn(reasons, key)) this.note('has no counterpart; left out', key)
      else if (reasons[key] !== undefined) this.note(reasons[key], key)
    }
  }
}

const ENVIRONMENT = 'os.environ/'
