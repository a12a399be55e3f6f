/** The world as the process has it. */
import { existsSync } from 'node:fs'
import { runtimeFetch } from '../lib/fetch.ts'
import { say } from '../lib/say.ts'
import type { Io } from './command.ts'

export function processIo(): Io {
  const { stdout, stdin, env } = process
  return {
    env,
    stdin: () => Bun.stdin.bytes(),
    print: text => say(stdout, text),
    stdinIsTerminal: stdin.isTTY === true,
    columns: stdout.isTTY ? stdout.columns : undefined,
    // source: no-color.org: any text but the empty one switches colour off
    hasColour: stdout.isTTY === true && !env.NO_COLOR && env.TERM !== 'dumb',
    now: () => new Date(),
    fetch: runtimeFetch,
    exists: existsSync,
  }
}
