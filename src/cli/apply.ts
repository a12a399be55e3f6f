import { CONNECTION, connect, JSON_OUTPUT } from './admin-client.ts'
import { type Command, UsageError } from './command.ts'
import { RESOURCES } from './diff.ts'

export const apply: Command = {
  words: ['apply'],
  summary: 'make a gateway on the store have what a resources file says',
  about: `Makes what \`aisix diff\` shows, over the admin API: what others name comes first, and each line is printed once it is done.
What the file does not have stays, unless --prune is given. Stops at the first refusal, tells what was not made, and ends with 1; what was
made stays, and the next run goes on from there.`,
  options: [
    RESOURCES,
    { name: 'prune', about: 'Delete, behind everything else, what the gateway has and the file has not.' },
    { name: 'dry-run', about: 'Print what would be done and do nothing.' },
    {
      name: 'secrets',
      about:
        'Write all credentials of the file again. Without it they are written where the gateway has none, since nobody can compare them.',
    },
    JSON_OUTPUT,
    ...CONNECTION,
  ],
  examples: ['aisix apply --resources resources.yaml', 'aisix apply --resources resources.yaml --prune --dry-run'],
  async run(given, io) {
    const file = given.text('resources')
    if (file === undefined) throw new UsageError('apply needs to know the file: aisix apply --resources FILE')
    const { runApply } = await import('./apply/apply-run.ts')
    const options = {
      file,
      isPruning: given.flag('prune'),
      isDryRun: given.flag('dry-run'),
      writesSecrets: given.flag('secrets'),
      isJson: given.flag('json'),
    }
    return runApply(options, () => connect(given, io), io)
  },
}
