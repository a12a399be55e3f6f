/**
 * The command line: whether the gateway is to serve, or a command is to run. A start loads nothing of the commands, and a
 * command nothing of the gateway that it does not need. Source: control-bootstrap §4.
 */
import { existsSync } from 'node:fs'
import type { Environment } from './cli/command.ts'
import { findConfig } from './cli/config-path.ts'

export type CommandLine =
  | { kind: 'serve'; configPath: string }
  /** Everything else, mistakes included: what they are about is known to the commands' own room. */
  | { kind: 'command' }

/**
 * What the arguments ask for; nothing is done yet.
 * in: the arguments after the name of the executable; `exists` is asked about ./config.yaml alone
 */
export function readCommandLine(
  argv: readonly string[],
  env: Environment,
  exists: (path: string) => boolean = existsSync,
): CommandLine {
  const given = configOption(argv)
  const configPath = given === undefined ? undefined : findConfig(given.path, env, exists)
  return configPath === undefined ? { kind: 'command' } : { kind: 'serve', configPath }
}

/** `path` of the option where the arguments are that or nothing; undefined where they are anything else. */
function configOption([first, second, ...rest]: readonly string[]): { path: string | undefined } | undefined {
  if (first === undefined) return { path: undefined }
  const [, attached] = /^(?:--config|-c)=(.+)$/s.exec(first) ?? []
  if (attached !== undefined) return second === undefined ? { path: attached } : undefined
  const isOption = first === '--config' || first === '-c'
  const isPath = second !== undefined && second !== '' && !second.startsWith('-')
  return isOption && isPath && rest.length === 0 ? { path: second } : undefined
}
