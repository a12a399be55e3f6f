import type { Command } from './command.ts'
import { STORE, storeOf } from './store-option.ts'

export const exportStore: Command = {
  words: ['export'],
  summary: 'write what is in the store as a resources file',
  about: `Writes the resources of the store as a resources file, to standard output or to a file that only its owner can read. The
gateway may be running. Credentials are replaced by \${AISIXSECRET_…}, and the variables listed on stderr.
Ends with 1 when the file would not give back what is stored: it is written all the same, to be looked at.`,
  options: [
    ...STORE,
    { name: 'output', short: 'o', value: 'FILE', complete: 'file', about: 'Where to write; standard output otherwise.' },
    { name: 'reveal-secrets', about: 'Write credentials in clear text.' },
  ],
  examples: ['aisix export --config config.yaml -o resources.yaml'],
  async run(given, io) {
    const { runExport } = await import('./export-run.ts')
    const options = { source: storeOf(given, io), output: given.text('output'), revealSecrets: given.flag('reveal-secrets') }
    return runExport(options, io.env)
  },
}
