/** The scripts themselves. Sources: bash(1), "Programmable Completion"; zshcompsys(1); fish's `complete`. */
import { HELP } from './arguments.ts'
import type { Command, Completion, Option } from './command.ts'
import { summaryOf } from './help.ts'
import { COMMANDS } from './index.ts'
import { START_OPTIONS } from './start-options.ts'

export function completionScript(shell: 'bash' | 'zsh' | 'fish'): string {
  return { bash, zsh, fish }[shell]()
}

/** `--config -c --help -h` */
function spellings(options: readonly Option[]): string[] {
  return options.flatMap(({ name, short }) => (short === undefined ? [`--${name}`] : [`--${name}`, `-${short}`]))
}

const optionsOf = ({ options = [] }: Command) => [...options, HELP]
const firstWords = () => [...new Set(COMMANDS.map(({ words }) => words[0])), 'help']
const groups = () => [...Map.groupBy(COMMANDS, ({ words }) => words[0])]

/** in: words of lists that the registry holds: letters, digits and `-_.|` */
function bash(): string {
  const verbs = groups()
    .filter(([, commands]) => (commands[0]?.words.length ?? 1) > 1)
    .map(([name, commands]) => `    ${name}) verbs='${commands.map(({ words }) => words[1]).join(' ')}' ;;`)
  const commands = COMMANDS.map(command => {
    const values = optionsOf(command).flatMap(option => {
      if (option.value === undefined) return []
      const names = spellings([option]).map(name => `${command.words.join(' ')} ${name}`)
      return [`    ${names.map(name => `'${name}'`).join('|')}) ${bashReply(option.complete)}; return ;;`]
    })
    return {
      key: command.words.join(' '),
      words: spellings(optionsOf(command)).join(' '),
      values,
      args: command.args?.[0]?.complete,
    }
  })
  const start = START_OPTIONS.filter(({ value }) => value !== undefined).map(
    option =>
      `    ${spellings([option])
        .map(name => `' ${name}'`)
        .join('|')}) ${bashReply(option.complete)}; return ;;`,
  )
  return `# bash completion for aisix; made by: aisix completion bash
_aisix() {
  local cur prev key file verbs='' COMPREPLY_WORDS=''
  COMPREPLY=()
  cur=\${COMP_WORDS[COMP_CWORD]}
  prev=\${COMP_WORDS[COMP_CWORD-1]}
  # \`--config=FILE\` comes as three words.
  if [[ $cur == = ]]; then cur=''; elif [[ $prev == = ]]; then prev=\${COMP_WORDS[COMP_CWORD-2]}; fi
  if (( COMP_CWORD == 1 )) && [[ $cur != -* ]]; then
    COMPREPLY=($(compgen -W '${firstWords().join(' ')}' -- "$cur"))
    return
  fi
  key=\${COMP_WORDS[1]}
  [[ $key == -* ]] && key=''
  if [[ $key == help ]]; then
    (( COMP_CWORD == 2 )) && COMPREPLY=($(compgen -W '${firstWords().join(' ')}' -- "$cur"))
    key=\${COMP_WORDS[2]}
    (( COMP_CWORD == 3 )) || return
  fi
  case $key in
${verbs.join('\n')}
  esac
  if [[ -n $verbs ]]; then
    if (( COMP_CWORD == 2 )) || [[ \${COMP_WORDS[1]} == help ]]; then
      COMPREPLY=($(compgen -W "$verbs" -- "$cur"))
      return
    fi
    key="$key \${COMP_WORDS[2]}"
  fi
  case "$key $prev" in
${[...start, ...commands.flatMap(({ values }) => values)].join('\n')}
  esac
  case $key in
    '') COMPREPLY_WORDS='${spellings([...START_OPTIONS, HELP]).join(' ')}' ;;
${commands
  .map(({ key, words, args }) => {
    const free = args === undefined ? '' : `if [[ $cur != -* ]]; then ${bashReply(args)}; return; fi; `
    return `    '${key}') ${free}COMPREPLY_WORDS='${words}' ;;`
  })
  .join('\n')}
  esac
  [[ $cur == -* ]] && COMPREPLY=($(compgen -W "$COMPREPLY_WORDS" -- "$cur"))
}
complete -F _aisix aisix
`
}

/** Without `mapfile`, which the bash of macOS does not have. */
function bashReply(complete: Completion | undefined): string {
  if (complete === undefined) return ':'
  if (complete === 'file')
    return 'compopt -o filenames 2>/dev/null; while IFS= read -r file; do COMPREPLY+=("$file"); done < <(compgen -f -- "$cur")'
  return `COMPREPLY=($(compgen -W '${complete.join(' ')}' -- "$cur"))`
}

/** Text within single quotes; `_arguments` and `_describe` take `:` and brackets as their own. */
const zshText = (text: string) => text.replace(/[[\]:\\]/g, '\\$&').replaceAll("'", "'\\''")

function zsh(): string {
  const option = (each: Option) => {
    const action = each.complete === 'file' ? '_files' : each.complete === undefined ? ' ' : `(${each.complete.join(' ')})`
    const value = each.value === undefined ? '' : `:${zshText(each.value)}:${action}`
    const repeat = each.isList ? '*' : ''
    return spellings([each]).map(
      name =>
        `      '${repeat}${name}${each.value === undefined || !name.startsWith('--') ? '' : '='}[${zshText(each.about)}]${value}'`,
    )
  }
  const body = (command: Command) => {
    const args = (command.args ?? []).map(({ name, complete, isOptional }) => {
      const action = complete === 'file' ? '_files' : complete === undefined ? ' ' : `(${complete.join(' ')})`
      return `      '${isOptional ? '::' : ':'}${zshText(name)}:${action}'`
    })
    return `    _arguments \\\n${[...optionsOf(command).flatMap(option), ...args].join(' \\\n')}`
  }
  const describe = (rows: readonly (readonly [string, string])[]) =>
    rows.map(([name, about]) => `      '${zshText(name)}:${zshText(about)}'`).join('\n')
  const firsts = groups().map(([name, commands]) => [name, summaryOf(name, commands)] as const)
  return `#compdef aisix
# zsh completion for aisix; made by: aisix completion zsh
_aisix() {
  local -a entries
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    entries=(
${describe([...firsts, ['help', 'tell more about a command']])}
    )
    _describe command entries
    return
  fi
  case $words[2] in
  -*)
    _arguments \\
${[...START_OPTIONS, HELP].flatMap(option).join(' \\\n')}
    ;;
  help)
    (( CURRENT == 3 )) && compadd -- ${firstWords().join(' ')}
    ;;
${groups()
  .map(([name, commands]) => {
    const [first] = commands
    if (first?.words.length === 1) return `  ${name})\n    shift words; (( CURRENT-- ))\n${body(first)}\n    ;;`
    const rows = commands.map(({ words, summary }) => [words[1] ?? '', summary] as const)
    const cases = commands.map(
      command => `    ${command.words[1]})\n    shift 2 words; (( CURRENT -= 2 ))\n${body(command)}\n    ;;`,
    )
    return `  ${name})
    if (( CURRENT == 3 )); then
      entries=(
${describe(rows)}
      )
      _describe command entries
      return
    fi
    case $words[3] in
${cases.join('\n')}
    esac
    ;;`
  })
  .join('\n')}
  esac
}
if [[ $funcstack[1] == _aisix ]]; then _aisix "$@"; else compdef _aisix aisix; fi
`
}

const fishText = (text: string) => `'${text.replace(/[\\']/g, '\\$&')}'`

function fish(): string {
  const names = firstWords()
  const lines = [
    '# fish completion for aisix; made by: aisix completion fish',
    'complete -c aisix -f',
    ...groups().map(
      ([name, commands]) => `complete -c aisix -n __fish_use_subcommand -a ${name} -d ${fishText(summaryOf(name, commands))}`,
    ),
    `complete -c aisix -n __fish_use_subcommand -a help -d ${fishText('tell more about a command')}`,
    `complete -c aisix -n '__fish_seen_subcommand_from help' -a '${names.join(' ')}'`,
  ]
  const option = (condition: string, { name, short, value, complete, about }: Option) =>
    [
      `complete -c aisix -n ${condition} -l ${name}`,
      short === undefined ? '' : ` -s ${short}`,
      value === undefined
        ? ''
        : complete === 'file'
          ? ' -r -F'
          : complete === undefined
            ? ' -x'
            : ` -x -a '${complete.join(' ')}'`,
      ` -d ${fishText(about)}`,
    ].join('')
  for (const each of START_OPTIONS) lines.push(option('__fish_use_subcommand', each))
  for (const [name, commands] of groups()) {
    const verbs = commands.map(({ words }) => words[1]).filter(verb => verb !== undefined)
    if (verbs.length > 0) {
      const condition = `'__fish_seen_subcommand_from ${name}; and not __fish_seen_subcommand_from ${verbs.join(' ')}'`
      for (const { words, summary } of commands)
        lines.push(`complete -c aisix -n ${condition} -a ${words[1]} -d ${fishText(summary)}`)
    }
    for (const command of commands) {
      const seen = command.words.map(word => `__fish_seen_subcommand_from ${word}`).join('; and ')
      const condition = `'${seen}'`
      for (const each of optionsOf(command)) lines.push(option(condition, each))
      const complete = command.args?.[0]?.complete
      if (complete === 'file') lines.push(`complete -c aisix -n ${condition} -F`)
      else if (complete !== undefined) lines.push(`complete -c aisix -n ${condition} -a '${complete.join(' ')}'`)
    }
  }
  return `${lines.join('\n')}\n`
}
