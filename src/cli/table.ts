/** Tables for people: columns fitted to the terminal, no frame, so that they can be copied and piped. */
import type { Io } from './command.ts'

export type Column<Row> = {
  title: string
  value(row: Row): string
  isRight?: boolean
  /** Characters below which it is made narrower last of all; left out: it keeps its width. */
  min?: number
}

const GAP = 2

/** in: rows in the order to show. out: lines, the first of them titles; as wide as they need where there is no terminal */
export function table<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  { columns: width, hasColour }: Pick<Io, 'columns' | 'hasColour'>,
): string {
  const cells = rows.map(row => columns.map(({ value }) => clean(value(row))))
  // Not by spreading into `Math.max`: a list may be longer than a call can have arguments.
  const natural = columns.map(({ title }, i) =>
    cells.reduce((most, line) => Math.max(most, widthOf(line[i] ?? '')), widthOf(title)),
  )
  const fitted = width === undefined ? natural : fit(columns, natural, width)
  const line = (texts: readonly string[]) =>
    texts
      .map((text, i) => {
        const { isRight } = columns[i] ?? {}
        const shown = cut(text, fitted[i] ?? 0)
        const blanks = ' '.repeat(Math.max(0, (fitted[i] ?? 0) - widthOf(shown)))
        return isRight ? blanks + shown : shown + blanks
      })
      .join(' '.repeat(GAP))
      .trimEnd()
  const head = line(columns.map(({ title }) => title))
  return [hasColour ? `\x1b[1m${head}\x1b[0m` : head, ...cells.map(line)].map(text => `${text}\n`).join('')
}

/** Characters that a column keeps where even the narrowest of all would not fit. */
const LEAST = 5

/** Takes from the widest column that may be narrower, until all of them fit or none may. */
function fit<Row>(columns: readonly Column<Row>[], natural: readonly number[], width: number): number[] {
  const widths = [...natural]
  let over = widths.reduce((sum, each) => sum + each, 0) + GAP * (widths.length - 1) - width
  const widest = (least: (column: Column<Row>) => number) => {
    let found: number | undefined
    for (const [i, column] of columns.entries()) {
      const now = widths[i] ?? 0
      if (now > least(column) && (found === undefined || now > (widths[found] ?? 0))) found = i
    }
    return found
  }
  while (over > 0) {
    const i =
      widest(({ min }) => min ?? Number.POSITIVE_INFINITY) ??
      widest(({ min }) => (min === undefined ? Number.POSITIVE_INFINITY : LEAST))
    if (i === undefined) break
    widths[i] = (widths[i] ?? 0) - 1
    over -= 1
  }
  return widths
}

function cut(text: string, width: number): string {
  if (widthOf(text) <= width) return text
  let shown = ''
  for (const character of text) {
    if (widthOf(shown + character) > width - 1) break
    shown += character
  }
  return `${shown}…`
}

const widthOf = (text: string) => Bun.stringWidth(text)

/** Lines of `name: value`, the values in one column; those without a value are left out. */
export function properties(rows: readonly (readonly [string, string | undefined])[]): string {
  const given = rows.filter(([, value]) => value !== undefined && value !== '')
  const width = Math.max(0, ...given.map(([name]) => name.length))
  return given.map(([name, value]) => `${`${name}:`.padEnd(width + 2)}${clean(value ?? '')}\n`).join('')
}

export function paint(text: string, colour: 'red' | 'yellow' | 'green' | 'dim', { hasColour }: Pick<Io, 'hasColour'>): string {
  const codes = { red: 31, yellow: 33, green: 32, dim: 2 }
  return hasColour ? `\x1b[${codes[colour]}m${text}\x1b[0m` : text
}

/** Text of any length with what would move the cursor, or turn the direction of writing, spelled out. */
export function clean(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    character => `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, '0')}`,
  )
}
