import { type Command, UsageError } from './command.ts'

export const validate: Command = {
  words: ['validate'],
  summary: 'check a resources file and start nothing',
  about: `Checks a resources file as a start would, with the variables of this environment, and starts nothing.
Prints "OK: FILE loaded N resource(s)", and warnings on stderr. Ends with 1, and every error on stderr, when the file cannot be used.`,
  options: [{ name: 'resources', value: 'FILE', complete: 'file', about: 'The resources file.' }],
  examples: ['aisix validate --resources resources.yaml'],
  async run(given, io) {
    const file = given.text('resources')
    if (file === undefined) throw new UsageError('validate needs to know the file: aisix validate --resources FILE')
    const { runValidate } = await import('./validate-run.ts')
    return runValidate(file, io.env)
  },
}
