/** The world of a command in a test: nothing to read, no terminal, and no network but what the test gives. */
import type { Io, Output } from '../../src/cli/command.ts'
import { run } from '../../src/cli/run.ts'

export function testIo(members: Partial<Io> = {}): Io {
  return {
    env: {},
    stdin: async () => new Uint8Array(),
    print: async () => {},
    stdinIsTerminal: false,
    columns: undefined,
    hasColour: false,
    now: () => new Date('2026-11-22T22:00:00Z'),
    fetch: () => Promise.reject(new Error('this test has no network')),
    exists: () => false,
    ...members,
  }
}

export const runCli = (argv: string[], members: Partial<Io> = {}): Promise<Output> => run(argv, testIo(members))
