import { type Command, done, UsageError } from './command.ts'

export const schema: Command = {
  words: ['schema'],
  summary: 'print the JSON Schema of a configuration or a resources file',
  about: 'Prints the JSON Schema of config.yaml or of a resources file, for editors and for checks elsewhere.',
  args: [{ name: 'KIND', complete: ['config', 'resources'], about: '`config` or `resources`.' }],
  examples: ['aisix schema resources > resources.schema.json'],
  async run(given) {
    const of = given.arg('KIND')
    if (of !== 'config' && of !== 'resources') {
      throw new UsageError('schema needs to know of what: aisix schema config, or aisix schema resources')
    }
    const document =
      of === 'config'
        ? (await import('../config/json-schema.ts')).configSchema()
        : (await import('../resources-file/json-schema.ts')).resourcesSchema()
    return done(`${JSON.stringify(document, null, 2)}\n`)
  },
}
