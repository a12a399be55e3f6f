/** A command line that is not a start, from its words to what it prints. */
import { nearest } from '../lib/nearest.ts'
import { VERSION } from '../version.ts'
import { parseArguments, quoted } from './arguments.ts'
import { type Command, CommandFailed, done, type Io, type Output, UsageError } from './command.ts'
import { NO_CONFIG } from './config-path.ts'
import { helpOf, helpOfGroup, usage } from './help.ts'
import { COMMANDS } from './index.ts'
import { START_OPTIONS } from './start-options.ts'

/** What may stand in a command's place where none is named. */
const START: Command = {
  words: ['aisix'],
  summary: 'serve',
  about: '',
  options: START_OPTIONS,
  run: async given => {
    if (given.flag('version')) return done(`aisix ${VERSION}\n`)
    throw new UsageError(NO_CONFIG)
  },
}

/** in: the arguments after the name of the executable */
export async function run(argv: readonly string[], io: Io): Promise<Output> {
  try {
    const { command, rest } = find(argv)
    if (typeof command === 'string') return done(command)
    const given = parseArguments(command, rest)
    if (given === 'help') return done(command === START ? usage() : helpOf(command))
    return await command.run(given, io)
  } catch (error) {
    if (error instanceof CommandFailed) return { stdout: '', stderr: `aisix: ${error.message}\n`, exit: 1 }
    if (!(error instanceof UsageError)) throw error
    return { stdout: '', stderr: `aisix: ${error.message}\nTry \`aisix --help\`.\n`, exit: 2 }
  }
}

/** The command that is meant and its arguments, or a text to print in place of one. throws: UsageError */
export function find(argv: readonly string[]): { command: Command | string; rest: readonly string[] } {
  const [first, second, third] = argv
  if (first === undefined || first.startsWith('-')) return { command: START, rest: argv }
  if (first === 'help') return { command: explain(second, third, argv.length), rest: [] }
  const group = COMMANDS.filter(({ words }) => words[0] === first)
  const [single] = group
  if (!single) throw new UsageError(`unknown command ${quoted(first)}${meant(first, firstWords())}`)
  if (single.words.length === 1) return { command: single, rest: argv.slice(1) }
  if (second === '--help' || second === '-h') return { command: helpOfGroup(first, group), rest: [] }
  const command = group.find(({ words }) => words[1] === second)
  if (command) return { command, rest: argv.slice(2) }
  const verbs = group.map(({ words }) => words[1] ?? '')
  if (second === undefined || second.startsWith('-')) {
    throw new UsageError(`${first} needs to know what to do: ${verbs.map(verb => `aisix ${first} ${verb}`).join(', ')}`)
  }
  throw new UsageError(`unknown command ${quoted(first)} ${quoted(second)}${meant(second, verbs, `${first} `)}`)
}

function explain(topic: string | undefined, verb: string | undefined, count: number): string {
  if (topic === undefined || topic === '--help' || topic === '-h') return usage()
  const group = COMMANDS.filter(({ words }) => words[0] === topic)
  if (topic === 'help') return 'aisix help [COMMAND]\n\nTells how a command is used.\n'
  const [single] = group
  if (!single) throw new UsageError(`unknown command ${quoted(topic)}${meant(topic, firstWords())}`)
  if (count > single.words.length + 1) throw new UsageError('help takes one command')
  if (single.words.length === 1) return helpOf(single)
  if (verb === undefined) return helpOfGroup(topic, group)
  const command = group.find(({ words }) => words[1] === verb)
  if (command) return helpOf(command)
  throw new UsageError(
    `unknown command ${quoted(topic)} ${quoted(verb)}${meant(
      verb,
      group.map(({ words }) => words[1] ?? ''),
      `${topic} `,
    )}`,
  )
}

function firstWords(): string[] {
  return [...new Set(COMMANDS.map(({ words }) => words[0])), 'help']
}

function meant(word: string, known: readonly string[], before = ''): string {
  const near = nearest(word, known)
  return near === undefined ? '' : `; did you mean ${before}${near}?`
}
