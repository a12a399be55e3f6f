const TOKEN =
  /[\t\n\r ]*(?:([{}[\],:])|("(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")|(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)(?![\w.+-]))/y

/**
 * Where a text stops being JSON, which `JSON.parse` does not tell: an offset, and what was expected there.
 * Only for text that `JSON.parse` has refused. Source: RFC 8259.
 */
export function findJsonFault(text: string): { offset: number; expected: string } {
  const open: ('{' | '[')[] = []
  let expected = 'a value'
  let end = 0
  for (;;) {
    TOKEN.lastIndex = end
    const found = TOKEN.exec(text)
    const blank = /[\t\n\r ]*/y
    blank.lastIndex = end
    const offset = end + (blank.exec(text)?.[0].length ?? 0)
    if (!found) return { offset, expected }
    const [, mark, string, literal] = found
    const inside = open.at(-1)
    const fits = (what: string) => expected === what || expected.split(' or ').includes(what)
    if (mark === '{' || mark === '[') {
      if (!fits('a value')) return { offset, expected }
      open.push(mark)
      expected = mark === '{' ? 'a key in double quotes or }' : 'a value or ]'
    } else if (mark === '}' || mark === ']') {
      if (!fits(mark)) return { offset, expected }
      open.pop()
      expected = after(open.at(-1))
    } else if (mark === ':' || mark === ',') {
      if (!fits(mark)) return { offset, expected }
      expected = mark === ',' && inside === '{' ? 'a key in double quotes' : 'a value'
    } else if (string !== undefined && fits('a key in double quotes')) {
      expected = ':'
    } else if (string !== undefined || literal !== undefined) {
      if (!fits('a value')) return { offset, expected }
      expected = after(inside)
    }
    end = TOKEN.lastIndex
  }
}

function after(inside: '{' | '[' | undefined): string {
  if (inside === undefined) return 'the end of the file'
  return inside === '{' ? ', or }' : ', or ]'
}
