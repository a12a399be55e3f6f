/** What a command is: what the registry, the parser, the help, the completion and docs/command-line.md are made of. */
import type { Fetch } from '../lib/fetch.ts'
import type { Given } from './arguments.ts'

/** What a command says and how it ends. 0: done. 1: refused or failed. 2: used wrongly; `doctor` and `diff` say otherwise. */
export type Output = { stdout: string; stderr: string; exit: 0 | 1 | 2 }

export type Environment = Readonly<Record<string, string | undefined>>

/** What the world is to a command; tests give their own. */
export type Io = {
  env: Environment
  /** All of standard input. */
  stdin(): Promise<Uint8Array>
  /** Standard output at once, for a command that tells what it does while it does it. */
  print(text: string): Promise<void>
  /** Whether a person types on standard input. */
  stdinIsTerminal: boolean
  /** Width of the terminal that standard output is; undefined where it is none. */
  columns: number | undefined
  hasColour: boolean
  now(): Date
  fetch: Fetch
  exists(path: string): boolean
}

/** What stands in an option's or argument's place, for completion. */
export type Completion = 'file' | readonly string[]

export type Option = {
  /** Long name without the dashes. */
  name: string
  short?: string
  /** What its value is called in help, such as `FILE`; an option without one is a switch. */
  value?: string
  /** Whether it may be given more than once, or hold several values separated by commas. */
  isList?: boolean
  complete?: Completion
  about: string
}

export type Argument = { name: string; isOptional?: boolean; complete?: Completion; about: string }

export type Command = {
  /** `['keys', 'create']`: one word, or a noun and a verb. */
  words: readonly [string, ...string[]]
  /** One line for lists of commands, without a full stop. */
  summary: string
  /** Paragraphs for its own help. Lines are wrapped as they stand. */
  about: string
  args?: readonly Argument[]
  options?: readonly Option[]
  /** Whole lines, as they would be typed. */
  examples?: readonly string[]
  /** What it needs beyond what every command loads is imported in here: one command does not wait for another's modules. */
  run(given: Given, io: Io): Promise<Output>
}

/** It cannot be done as it was asked for, and what to ask instead. The message is shown behind `aisix: `. Exit 2. */
export class UsageError extends Error {}

/** It was refused or failed. The message is one line that says what to do. Exit 1. */
export class CommandFailed extends Error {}

export function done(stdout: string, stderr = ''): Output {
  return { stdout, stderr, exit: 0 }
}

export function failed(stderr: string, stdout = ''): Output {
  return { stdout, stderr, exit: 1 }
}
