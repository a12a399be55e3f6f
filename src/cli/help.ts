/** What `--help` prints, made of the registry. */
import { VERSION } from '../version.ts'
import { HELP } from './arguments.ts'
import type { Argument, Command, Option } from './command.ts'
import { CONFIG } from './config-path.ts'
import { COMMANDS } from './index.ts'

export function usage(): string {
  const groups = Map.groupBy(COMMANDS, ({ words }) => words[0])
  const rows = [...groups].map(([name, commands]): [string, string] => {
    const [first] = commands
    if (!first) return [name, '']
    if (first.words.length === 1) return [name, first.summary]
    return [`${name} ${commands.map(({ words }) => words[1]).join('|')}`, summaryOf(name, commands)]
  })
  rows.push(['help COMMAND', 'tell more about a command'])
  return `aisix ${VERSION}, an AI gateway

Usage: aisix [--config PATH]     serve
       aisix COMMAND

Commands:
${columns(rows)}

Options:
${columns([
  ['-c, --config PATH', withoutStop(CONFIG.about)],
  ['-V, --version', 'print the version'],
  ['-h, --help', 'print this'],
])}
`
}

/** What commands of one noun are for together. */
const GROUP_SUMMARIES: Readonly<Record<string, string>> = {
  keys: "callers' keys",
  models: 'models and groups of them',
  'provider-keys': 'addresses and credentials of model servers',
}

/** What a first word is for: of a noun with several verbs, what they are for together. */
export function summaryOf(name: string, commands: readonly Command[]): string {
  return GROUP_SUMMARIES[name] ?? commands[0]?.summary ?? ''
}

/** `aisix keys create NAME [OPTIONS]` */
export function synopsis({ words, args = [], options = [] }: Command): string {
  const parts = args.map(({ name, isOptional }) => (isOptional ? `[${name}]` : name))
  return ['aisix', ...words, ...parts, ...(options.length > 0 ? ['[OPTIONS]'] : [])].join(' ')
}

export function helpOf(command: Command): string {
  const { about, args = [], options = [], examples = [] } = command
  const sections = [
    synopsis(command),
    about,
    ...(args.length > 0 ? [`Arguments:\n${columns(args.map(({ name, about }: Argument) => [name, about]))}`] : []),
    `Options:\n${columns([...options, HELP].map(option => [spelling(option), option.about]))}`,
    ...(examples.length > 0 ? [`Examples:\n${examples.map(line => `  ${line}`).join('\n')}`] : []),
  ]
  return `${sections.join('\n\n')}\n`
}

export function helpOfGroup(name: string, commands: readonly Command[]): string {
  const rows = commands.map((command): [string, string] => [synopsis(command), command.summary])
  return `aisix ${name}: ${summaryOf(name, commands)}\n\n${columns(rows)}\n\nMore about one: aisix help ${name} ${commands[0]?.words[1] ?? ''}\n`
}

/** `-c, --config FILE` */
export function spelling({ name, short, value }: Option): string {
  return `${short === undefined ? '' : `-${short}, `}--${name}${value === undefined ? '' : ` ${value}`}`
}

/** Longer names have their meaning on a line of its own. */
const NAME_CHARACTERS_MAX = 34

function columns(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([name]) => name.length).filter(length => length <= NAME_CHARACTERS_MAX), 0)
  return rows
    .map(([name, about]) =>
      name.length > width ? `  ${name}\n  ${' '.repeat(width)}   ${about}` : `  ${name.padEnd(width)}   ${about}`,
    )
    .join('\n')
}

function withoutStop(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1).replace(/\.$/, '')
}
