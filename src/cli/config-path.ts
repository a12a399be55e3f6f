/** Which configuration is meant, for the start and for every command that reads one. Source: control-bootstrap §4. */
import type { Environment, Option } from './command.ts'

export const DEFAULT_CONFIG = './config.yaml'

export const CONFIG: Option = {
  name: 'config',
  short: 'c',
  value: 'FILE',
  complete: 'file',
  about: `Configuration, YAML or JSON (else AISIX_CONFIG, else ${DEFAULT_CONFIG} if it exists).`,
}

export const NO_CONFIG = `no configuration: give --config PATH, set AISIX_CONFIG, or start where ${DEFAULT_CONFIG} is`

/** in: what `--config` says. `exists` is asked about ./config.yaml alone. */
export function findConfig(given: string | undefined, env: Environment, exists: (path: string) => boolean): string | undefined {
  return given ?? (env.AISIX_CONFIG || (exists(DEFAULT_CONFIG) ? DEFAULT_CONFIG : undefined))
}
