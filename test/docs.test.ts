/** What the documents promise about the code, and about each other. */
import { describe, expect, test } from 'bun:test'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { ERRORS, type ErrorRow } from '../src/errors.ts'
import { VERSION } from '../src/version.ts'

const ROOT = resolve(import.meta.dir, '..')
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')
const DOCUMENTS = [
  'README.md',
  'ARCHITECTURE.md',
  'CHANGELOG.md',
  ...readdirSync(join(ROOT, 'docs')).map(name => `docs/${name}`),
].filter(name => name.endsWith('.md'))

/** A heading as the fragment that leads to it. Source: GitHub's rule for anchors of headings. */
function anchor(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .trim()
    .replaceAll(' ', '-')
}

describe('docs/troubleshooting.md', () => {
  const text = read('docs/troubleshooting.md')

  for (const [name, { type, code }] of Object.entries<ErrorRow>(ERRORS)) {
    test(`explains ${name}: its type and its code`, () => {
      expect(text).toContain(`\`${type}\``)
      if (code !== undefined) expect(text).toContain(`\`${code}\``)
    })
  }

  test('explains every class of a transport error', () => {
    const source = read('src/lib/transport-cause.ts')
    const table = source.slice(source.indexOf('const CAUSES'), source.indexOf('\n]\n', source.indexOf('const CAUSES')))
    const classes = [...table.matchAll(/, '([^']+)'\]/g)].map(match => match[1] ?? '')
    expect(classes.length).toBeGreaterThan(5)
    for (const words of [...classes, 'connection failed']) expect(text).toContain(`\`${words}\``)
  })

  test('quotes no message that the code does not have', () => {
    const sources = new Bun.Glob('src/**/*.ts').scanSync(ROOT)
    const code = [...sources].map(read).join('\n')
    const quoted = [
      'missing or malformed Authorization header',
      'invalid API key',
      'API key has been disabled',
      'API key has expired',
      'Access denied: your client IP is not allowed to access this model',
      'no bridge registered for provider',
      'has no upstream base URL configured',
      'redirects are not followed; check api_base',
      'log lines were lost: nobody read them in time, or their disk was full',
      'the process could not start itself anew',
      'the store is locked by another process',
      'is a database of another program',
      'was written by a newer version',
      'is not supported by this version',
    ]
    for (const message of quoted) {
      expect(text).toContain(message)
      expect(code).toContain(message)
    }
  })
})

for (const file of DOCUMENTS) {
  test(`${file}: every link inside the repository leads somewhere`, () => {
    for (const [, target = ''] of read(file).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue
      const [path = '', fragment] = target.split('#')
      const place = path === '' ? file : join(dirname(file), path)
      expect(existsSync(join(ROOT, place)), `${file} → ${target}`).toBe(true)
      if (fragment === undefined) continue
      const headings = [...read(place).matchAll(/^#+ (.*)$/gm)].map(match => anchor(match[1] ?? ''))
      expect(headings, `${file} → ${target}`).toContain(fragment)
    }
  })
}

test('README.md shows the commands of the guide as its test runs them', () => {
  const readme = read('README.md')
  const commands = read('test/fixtures/guide.sh').match(/^curl [\s\S]*?\n\}'$/gm) ?? []
  expect(commands.length).toBe(4)
  for (const command of commands) expect(readme).toContain(command)
})

test('README.md names only targets that the Makefile has', () => {
  const makefile = read('Makefile')
  const targets = [...read('README.md').matchAll(/`make ([a-z-]+)/g)].map(match => match[1] ?? '')
  expect(targets.length).toBeGreaterThan(0)
  for (const target of targets) expect(makefile).toMatch(new RegExp(`^${target}:`, 'm'))
})

test('ARCHITECTURE.md has a row for every room and file at the top of src/', () => {
  const text = read('ARCHITECTURE.md')
  for (const entry of readdirSync(join(ROOT, 'src'), { withFileTypes: true })) {
    if (entry.isDirectory()) expect(text).toContain(`src/${entry.name}/\``)
  }
  for (const [path = ''] of text.matchAll(/src\/[a-z-]+(?:\.ts|\/)/g)) expect(existsSync(join(ROOT, path)), path).toBe(true)
})

test('CHANGELOG.md tells of this version', () => {
  expect(read('CHANGELOG.md')).toContain(`## ${VERSION}\n`)
})

test('LICENSE is the one that package.json names', () => {
  expect(read('LICENSE')).toContain('Apache License\n')
  expect(read('LICENSE')).toContain('Version 2.0, January 2004')
  expect(JSON.parse(read('package.json')).license).toBe('Apache-2.0')
})
