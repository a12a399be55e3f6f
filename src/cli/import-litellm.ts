import type { Problem } from '../config/problems.ts'
import { printable } from '../lib/log.ts'
import { type Command, CommandFailed, done } from './command.ts'

export const importLitellm: Command = {
  words: ['import', 'litellm'],
  summary: "make a resources file of LiteLLM's config.yaml",
  about: `Makes a resources file of LiteLLM's config.yaml: provider keys, models, groups, fallbacks, limits, prices and the master key. What has no
counterpart is listed on standard error, each with its place and the reason; nothing is dropped in silence. \`os.environ/NAME\` becomes
\${NAME}; keys that stand in the file stand in the result, too.`,
  args: [{ name: 'FILE', complete: 'file', about: "LiteLLM's config.yaml." }],
  options: [
    {
      name: 'output',
      short: 'o',
      value: 'FILE',
      complete: 'file',
      about: 'Write the resources file there, readable by its owner alone, and not to standard output.',
    },
  ],
  examples: ['aisix import litellm config.yaml -o resources.yaml'],
  async run(given) {
    const [{ readBounded, readTree }, { joinPath, originOf, renderProblem, toConfigError, ConfigError }, { convertLitellm }] =
      await Promise.all([import('../config/file.ts'), import('../config/problems.ts'), import('./litellm/convert.ts')])
    const path = given.arg('FILE')
    try {
      const { tree, origins, problems } = readTree(path, readBounded, text => text)
      if (problems.length > 0) throw toConfigError(problems)
      const { text, counts, notes, hasSecrets } = convertLitellm(tree)
      const told: Problem[] = notes.map(({ at, text }) => ({
        origin: originOf(origins, at),
        path: printable(joinPath(at)),
        text,
      }))
      const output = given.text('output')
      if (output !== undefined) await writeNew(output, text)
      const summary = `${counts.provider_keys} provider keys, ${counts.models} models and ${counts.api_keys} keys imported${output === undefined ? '' : ` to ${output}`}; ${notes.length} notes\n`
      const secrets = hasSecrets
        ? 'secrets stand in the resources file as they are: keep it from others, or put them into variables, as in ${NAME}\n'
        : ''
      const stderr = told.map(note => `${renderProblem(note)}\n`).join('') + secrets + summary
      return done(output === undefined ? text : '', stderr)
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      throw new CommandFailed(`nothing was imported: ${error.message}`)
    }
  },
}

/** A file of its own: what is there already, a hand-made resources file perhaps, is not replaced. */
async function writeNew(path: string, text: string): Promise<void> {
  const { writeFileSync } = await import('node:fs')
  const { errorCode } = await import('../lib/transport-cause.ts')
  try {
    writeFileSync(path, text, { flag: 'wx', mode: 0o600 })
  } catch (error) {
    const code = errorCode(error)
    throw new CommandFailed(
      code === 'EEXIST'
        ? `${path} is there already: remove it, or name another`
        : `${path} cannot be written (${code || 'unknown error'})`,
    )
  }
}
