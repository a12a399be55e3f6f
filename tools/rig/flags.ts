/** Flags of the tools, read off the command line: `--secs 5`, `--only kill`. */

/** The number behind `--name`, else `fallback`. Ends the process with words when it is no number. */
export function numberFlag(name: string, fallback: number): number {
  const text = textFlag(name)
  if (text === undefined) return fallback
  const value = Number(text)
  if (Number.isFinite(value) && value >= 0) return value
  console.error(`--${name} needs a number of 0 or more`)
  process.exit(2)
}

export function textFlag(name: string): string | undefined {
  const at = process.argv.indexOf(`--${name}`)
  return at < 0 ? undefined : process.argv[at + 1]
}

/** Ends the process with `usage` when an argument is none of `names`, or when help is asked for. */
export function checkFlags(names: readonly string[], usage: string): void {
  const given = process.argv.slice(2).filter(argument => argument.startsWith('-'))
  if (given.includes('--help') || given.includes('-h')) {
    console.log(usage)
    process.exit(0)
  }
  const unknown = given.find(argument => !names.includes(argument.replace(/^--/, '')))
  if (unknown === undefined) return
  console.error(`unknown flag ${unknown}\n${usage}`)
  process.exit(2)
}
