/**
 * `${NAME}` in configuration text becomes the value of the environment variable, `$$` becomes `$`. A `$` before anything
 * else stays as it is. The result is never read again, so a value cannot bring in another variable.
 * throws: Error naming the variable or the fault; never a value
 * source: control-resources-file §4
 */
export function interpolate(text: string, env: Readonly<Record<string, string | undefined>>): string {
  if (!text.includes('$')) return text
  let result = ''
  for (let i = 0; i < text.length; i++) {
    const character = text.charAt(i)
    const next = text.charAt(i + 1)
    if (character !== '$' || (next !== '$' && next !== '{')) {
      result += character
    } else if (next === '$') {
      result += '$'
      i += 1
    } else {
      const end = text.indexOf('}', i)
      if (end < 0) throw new Error('`${` without `}`: write `${NAME}` for a variable, or `$${` for the characters themselves')
      const name = text.slice(i + 2, end)
      if (name === '') throw new Error('`${}` names no variable: write `${NAME}`')
      if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
        throw new Error('`${…}` holds something that is not the name of a variable; there is no syntax for defaults')
      }
      const value = env[name]
      if (value === undefined || value === '') throw new Error(`environment variable \`${name}\` is unset or empty`)
      result += value
      i = end
    }
  }
  return result
}
