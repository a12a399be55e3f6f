/** docs/configuration.md: what is written by hand, with the tables of all keys. */
import { type Key, listKeys, listSections } from '../../src/config/keys.ts'
import { COMPATIBILITY, isCovered, UNSUPPORTED } from '../../src/config/support.ts'

const COMPATIBILITY_KEYS = COMPATIBILITY.flatMap(({ keys }) => keys)

export async function configurationReference(): Promise<string> {
  const handWritten = await Bun.file(new URL('configuration.md', import.meta.url)).text()
  const keys = [...listKeys().values()]
  const isUnsupported = (key: Key) => isCovered(key.path, UNSUPPORTED)
  const isIgnored = (key: Key) => !isUnsupported(key) && isCovered(key.path, COMPATIBILITY_KEYS)
  const inserts: { readonly [name: string]: string } = {
    keys: sectionTables(keys.filter(key => !isUnsupported(key) && !isIgnored(key))),
    compatibility: COMPATIBILITY.map(({ keys: rows, why }) => `* ${rows.map(code).join(', ')}: ${why}.`).join('\n'),
    'compatibility-keys': table(keys.filter(isIgnored)),
    'unsupported-keys': table(keys.filter(isUnsupported)),
    'comma-lists': keys
      .filter(key => key.isSplitAtCommas)
      .map(key => code(key.path))
      .join(', '),
  }
  return handWritten.replace(/<!-- ([a-z-]+) -->/g, (_mark, name: string) => {
    const text = inserts[name]
    if (text === undefined) throw new Error(`configuration.md asks for "${name}", which nothing makes`)
    return text
  })
}

/** One heading and one table for each section at the top, with what the sections within it are for. */
function sectionTables(keys: readonly Key[]): string {
  const tops = new Set(keys.map(key => key.path.split('.', 1)[0] ?? ''))
  return [...tops]
    .map(top => {
      const own = keys.filter(key => key.path === top || key.path.startsWith(`${top}.`))
      const inner = [...listSections()].filter(
        ([path]) => path.startsWith(`${top}.`) && own.some(key => key.path.startsWith(`${path}.`)),
      )
      const notes = inner.map(([path, description]) => `* ${code(path)}: ${description}`).join('\n')
      return [`### ${code(top)}`, listSections().get(top) ?? '', notes, table(own)].filter(part => part !== '').join('\n\n')
    })
    .join('\n\n')
}

function table(keys: readonly Key[]): string {
  const rows = keys.map(key => {
    const cells = [code(key.path), typeAndBounds(key), preset(key), key.description, code(key.variable)]
    return `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |`
  })
  return ['| key | type | default | meaning | variable |', '| --- | --- | --- | --- | --- |', ...rows].join('\n')
}

function typeAndBounds({ type, choices, minimum, maximum }: Key): string {
  if (choices) return choices.map(code).join(' or ')
  if (minimum !== undefined && maximum !== undefined) return `${type}, ${minimum} to ${maximum}`
  return minimum === undefined ? type : `${type}, ${minimum} or more`
}

function preset(key: Key): string {
  if (key.required === 'always') return '**required**'
  if (key.required === 'in its section') return 'required in its section'
  return key.default === undefined ? 'none' : code(JSON.stringify(key.default))
}

function code(text: string): string {
  return `\`${text}\``
}
