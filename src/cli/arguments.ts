/** Arguments as values, by what a command declares. The tokens are those of `node:util`; the words are ours. */
import { parseArgs } from 'node:util'
import { printable } from '../lib/log.ts'
import { nearest } from '../lib/nearest.ts'
import { type Command, type Option, UsageError } from './command.ts'

/** What was given, by the names that the command declares. Asking for another name is a mistake of ours. */
export type Given = {
  flag(name: string): boolean
  text(name: string): string | undefined
  /** All values of an option that may be given more than once; those separated by commas are apart. */
  list(name: string): string[]
  /** All values as they were given, for names that may hold commas. */
  values(name: string): string[]
  /** throws: UsageError unless it is a whole number of 0 or more */
  count(name: string): number | undefined
  /** throws: UsageError unless it is a decimal number of 0 or more */
  amount(name: string): number | undefined
  /** An argument; the empty text where one that is optional was left out. */
  arg(name: string): string
}

export const HELP: Option = { name: 'help', short: 'h', about: 'Print this help.' }

/**
 * Reads what stands behind the words of a command.
 * returns: `help` where that is asked for, whatever else is there
 * throws: UsageError; it repeats no argument that could be a key in the wrong place
 */
export function parseArguments(command: Command, argv: readonly string[]): Given | 'help' {
  const { args = [] } = command
  const options = [...(command.options ?? []), HELP]
  const known = new Map(options.map(option => [option.name, option]))
  const byShort = new Map(options.flatMap(option => (option.short === undefined ? [] : [[option.short, option] as const])))
  const { tokens } = parseArgs({
    args: [...argv],
    options: Object.fromEntries(
      options.map(({ name, short, value, isList }) => [
        name,
        {
          type: value === undefined ? 'boolean' : 'string',
          multiple: isList === true,
          ...(short === undefined ? {} : { short }),
        },
      ]),
    ),
    // Refusing by itself it would quote what was given, which may be a key.
    strict: false,
    allowPositionals: true,
    tokens: true,
  })
  const values = new Map<string, string[]>()
  const positionals: string[] = []
  for (const token of tokens) {
    if (token.kind === 'positional') positionals.push(token.value)
    if (token.kind !== 'option') continue
    const option = known.get(token.name) ?? byShort.get(token.name)
    if (!option) throw unknownOption(token.rawName, [...known.keys()])
    if (option === HELP) return 'help'
    values.set(option.name, [...(values.get(option.name) ?? []), readValue(option, token)])
    if (!option.isList && (values.get(option.name) ?? []).length > 1) throw new UsageError(`--${option.name} is given twice`)
  }
  checkPositionals(command, positionals)

  const declared = (name: string, isFlag: boolean): string[] => {
    const option = known.get(name)
    if (!option || (option.value === undefined) !== isFlag) throw new Error(`${command.words.join(' ')} has no option ${name}`)
    return values.get(name) ?? []
  }
  const number = (name: string, pattern: RegExp, what: string): number | undefined => {
    const [text] = declared(name, false)
    if (text === undefined) return undefined
    if (!pattern.test(text)) throw new UsageError(`--${name} needs ${what}`)
    return Number(text)
  }
  return {
    flag: name => declared(name, true).length > 0,
    text: name => declared(name, false)[0],
    list: name =>
      declared(name, false)
        .flatMap(value => value.split(','))
        .map(value => value.trim())
        .filter(value => value !== ''),
    values: name => declared(name, false),
    count: name => number(name, /^\d{1,15}$/, 'a whole number'),
    amount: name => number(name, /^\d{1,9}(?:\.\d{1,15})?$/, 'a number such as 0.25'),
    arg(name) {
      const index = args.findIndex(each => each.name === name)
      if (index < 0) throw new Error(`${command.words.join(' ')} has no argument ${name}`)
      return positionals[index] ?? ''
    },
  }
}

type OptionToken = { name: string; value?: string | undefined; inlineValue?: boolean | undefined }

function readValue({ name, value: placeholder, short }: Option, { value, inlineValue }: OptionToken): string {
  if (placeholder === undefined) {
    if (inlineValue) throw new UsageError(`--${name} takes no value`)
    return ''
  }
  // `-c=FILE` is the value `=FILE` to the parser; nobody means it so.
  const text = short !== undefined && inlineValue && value?.startsWith('=') ? value.slice(1) : value
  // A single dash is standard input.
  const isOption = !inlineValue && text !== undefined && text.length > 1 && text.startsWith('-')
  if (text === undefined || text === '' || isOption) throw new UsageError(`--${name} needs ${described(placeholder)}`)
  return text
}

function described(placeholder: string): string {
  if (placeholder === 'FILE' || placeholder === 'PATH') return 'the path of a file'
  return `a value: --… ${placeholder}`
}

function checkPositionals({ words, args = [] }: Command, given: readonly string[]): void {
  const missing = args.find(({ isOptional }, index) => !isOptional && (given[index] ?? '') === '')
  if (missing) {
    throw new UsageError(`${words.join(' ')} needs ${args.length > 1 ? missing.name : `one ${missing.name}`}`)
  }
  const extra = given[args.length]
  if (extra !== undefined) throw new UsageError(`unexpected argument ${quoted(extra)}`)
}

function unknownOption(rawName: string, names: readonly string[]): UsageError {
  const near = nearest(rawName.replace(/^-+/, ''), names)
  return new UsageError(`unknown option ${quoted(rawName)}${near === undefined ? '' : `; did you mean --${near}?`}`)
}

/** Arguments may hold anything, a key that was pasted in the wrong place too: names are short and without spaces. */
export function quoted(name: string): string {
  return /^[A-Za-z0-9_.-]{1,24}$/.test(name) && !/^sk-/i.test(name) ? `"${printable(name)}"` : '(not shown)'
}
