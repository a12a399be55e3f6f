/** docs/command-line.md: what is written by hand, with the reference of all commands. */
import { CONNECTION, JSON_OUTPUT } from '../../src/cli/admin-client.ts'
import type { Command, Option } from '../../src/cli/command.ts'
import { spelling, synopsis } from '../../src/cli/help.ts'
import { COMMANDS } from '../../src/cli/index.ts'

export async function commandLineReference(): Promise<string> {
  const handWritten = await Bun.file(new URL('command-line.md', import.meta.url)).text()
  const inserts: { readonly [name: string]: string } = {
    connection: optionTable([...CONNECTION]),
    commands: COMMANDS.map(section).join('\n\n'),
  }
  return handWritten.replace(/<!-- ([a-z-]+) -->/g, (_mark, name: string) => {
    const text = inserts[name]
    if (text === undefined) throw new Error(`command-line.md asks for "${name}", which nothing makes`)
    return text
  })
}

function section(command: Command): string {
  const { words, about, args = [], options = [], examples = [] } = command
  // They are told once, at the top.
  const own = options.filter(option => !CONNECTION.includes(option))
  const asks = own.length < options.length
  const rows = [
    ...args.map(({ name, about }) => [code(name), about] as const),
    ...own.map(
      option =>
        [code(spelling(option)), option === JSON_OUTPUT ? 'Print JSON, see [For scripts](#for-scripts).' : option.about] as const,
    ),
  ]
  return [
    `### aisix ${words.join(' ')}`,
    `\`\`\`\n${synopsis(command)}\n\`\`\``,
    `${about}${asks ? '\nAsks the admin API: see [Which gateway, and who asks](#which-gateway-and-who-asks).' : ''}`,
    ...(rows.length > 0 ? [table(rows)] : []),
    ...(examples.length > 0 ? [`\`\`\`\n${examples.join('\n')}\n\`\`\``] : []),
  ].join('\n\n')
}

function optionTable(options: readonly Option[]): string {
  return table(options.map(option => [code(spelling(option)), option.about]))
}

function table(rows: readonly (readonly [string, string])[]): string {
  const lines = rows.map(cells => `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`)
  return ['| option | meaning |', '| --- | --- |', ...lines].join('\n')
}

function code(text: string): string {
  return `\`${text}\``
}
