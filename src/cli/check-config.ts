import { type Command, done, type Environment, failed, type Output, UsageError } from './command.ts'
import { CONFIG, findConfig, NO_CONFIG } from './config-path.ts'

export const checkConfig: Command = {
  words: ['check-config'],
  summary: 'check the configuration and start nothing',
  about: `Loads and checks the configuration, the files that it names included, and starts nothing.
Prints "OK: FILE", and warnings on stderr. Ends with 1 when the configuration cannot be used.`,
  options: [CONFIG],
  examples: ['aisix check-config --config config.yaml'],
  async run(given, io) {
    const path = findConfig(given.text('config'), io.env, io.exists)
    if (path === undefined) throw new UsageError(NO_CONFIG)
    return await runCheckConfig(path, io.env)
  },
}

/** Loads the configuration as a start would, and says what came of it. */
export async function runCheckConfig(configPath: string, env: Environment): Promise<Output> {
  const { ConfigError, loadConfig } = await import('../config.ts')
  try {
    const { config, warnings } = loadConfig({ path: configPath, env })
    if (config.resources_file !== undefined) {
      const { runValidate } = await import('./validate-run.ts')
      const { stderr, exit } = runValidate(config.resources_file, env)
      if (exit !== 0) return failed(stderr)
      const lines = stderr.split('\n').filter(line => line !== '')
      warnings.push(...lines.map(line => line.replace(/^warning: /, '')))
    }
    return done(`OK: ${configPath}\n`, warnings.map(warning => `warning: ${warning}\n`).join(''))
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return failed(`config load failed: ${error.message}\n`)
  }
}
