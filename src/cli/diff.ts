import { CONNECTION, connect, JSON_OUTPUT } from './admin-client.ts'
import { type Command, CommandFailed, type Option, UsageError } from './command.ts'

export const RESOURCES: Option = { name: 'resources', value: 'FILE', complete: 'file', about: 'The resources file.' }

export const diff: Command = {
  words: ['diff'],
  summary: 'show what a resources file would change in a gateway on the store',
  about: `Compares a resources file with what the gateway has, and changes nothing. A line each: \`+\` is in the file alone, \`~\` differs,
\`-\` is in the gateway alone. Credentials cannot be read back: only whether they are there is compared, and none is shown.
Ends as diff(1) does: 0 where both are the same, 1 where they differ, 2 where it cannot be told, a file with errors included.`,
  options: [RESOURCES, JSON_OUTPUT, ...CONNECTION],
  examples: ['aisix diff --resources resources.yaml'],
  async run(given, io) {
    const file = given.text('resources')
    if (file === undefined) throw new UsageError('diff needs to know the file: aisix diff --resources FILE')
    const { runDiff } = await import('./apply/diff-run.ts')
    try {
      return await runDiff({ file, isJson: given.flag('json') }, () => connect(given, io), io)
    } catch (error) {
      if (!(error instanceof CommandFailed)) throw error
      return { stdout: '', stderr: `aisix: ${error.message}\n`, exit: 2 }
    }
  },
}
