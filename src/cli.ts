/** The command line: what the arguments ask for, and the commands that need no gateway. Source: control-bootstrap §4. */
import { existsSync, renameSync, writeFileSync } from 'node:fs'
import { basename } from 'node:path'
import { type KnownEntry, readKnownEntry } from './cli/audit-verify-run.ts'
import type { StoreChoice } from './cli/store-choice.ts'
import { configSchema } from './config/json-schema.ts'
import { ConfigError, loadConfig } from './config.ts'
import { JsonError } from './lib/json.ts'
import { printable } from './lib/log.ts'
import { nearest } from './lib/nearest.ts'
import { readProblem } from './lib/read-problem.ts'
import { CatalogError } from './pricing/catalog.ts'
import { catalogPath, readCatalogFile, replaceCatalog } from './pricing/catalog-file.ts'
import { exportResources } from './resources-file/export.ts'
import { resourcesSchema } from './resources-file/json-schema.ts'
import { loadResources } from './resources-file/load.ts'
import { renderReport } from './resources-file/problem.ts'
import { readStore, StoreOpenError } from './store/index.ts'
import { VERSION } from './version.ts'

/** What a command says and how it ends. */
export type Output = { stdout: string; stderr: string; exit: 0 | 1 | 2 }

export type Command =
  | { kind: 'serve'; configPath: string }
  | { kind: 'check-config'; configPath: string }
  /** Reads standard input to its end and hands it to `runHashKey`. */
  | { kind: 'hash-key' }
  | { kind: 'catalog-import'; file: string; configPath: string }
  | { kind: 'validate'; file: string }
  | { kind: 'export'; source: ExportSource; output: string | undefined; revealSecrets: boolean }
  | { kind: 'schema'; of: 'config' | 'resources' }
  | { kind: 'audit-verify'; store: StoreChoice; known: KnownEntry | undefined }
  | { kind: 'backup'; file: string; store: StoreChoice; usage: boolean }
  | { kind: 'restore'; file: string; store: StoreChoice }
  | { kind: 'print'; output: Output }

export type ExportSource = { configPath: string } | { dbPath: string }

type Environment = Readonly<Record<string, string | undefined>>

const DEFAULT_CONFIG = './config.yaml'

const SUBCOMMANDS = {
  'check-config': `aisix check-config [--config PATH]

Loads and checks the configuration, the files that it names included, and starts nothing.
Prints "OK: FILE", and warnings on stderr. Ends with 1 when the configuration cannot be used.
`,
  'hash-key': `aisix hash-key

Reads a plaintext key on standard input and prints its SHA-256, the \`key_hash\` of an API key.
One line break at the end is not part of the key:  printf '%s' "$KEY" | aisix hash-key
`,
  catalog: `aisix catalog import FILE [--config PATH]

Replaces the catalog of published prices that GET /admin/v1/catalog/models searches. FILE is the api.json of models.dev, or an
answer of that route at another gateway. It becomes catalog.json beside the store; a running gateway takes it up by itself.
Remove that file to have the catalog back that came with the gateway. No price is ever applied by itself.
Ends with 1, and the old catalog in place, when FILE cannot be used.
`,
  audit: `aisix audit verify [--config PATH | --db FILE] [--known SEQ:HASH]

Follows the chain of hashes through the audit log of a store, also while a gateway runs on it, and prints its last entry.
Keep that line elsewhere and give it as --known another day: a log that was written anew as a whole shows as well then.
Ends with 1 and names the first entry that is missing, or is not what was written.
`,
  backup: `aisix backup FILE [--config PATH | --db FILE] [--include usage]

Copies the store and what was spent on budgets, each as it is at one moment, into one file; also while a gateway runs on them. With
--include usage the records of usage, too. FILE must not exist. It holds the credentials of your model servers: keep it as safe as the store.
`,
  restore: `aisix restore FILE [--config PATH | --db FILE]

Puts a backup back, or a copy of a store such as aisix.db.before-restore. The resources are written into the live store in one
step; a gateway that runs on it serves them within half a second. What was there before is kept in aisix.db.before-restore. The
audit log goes on, and spending on budgets is never lowered.
Ends with 1, and nothing done, when FILE is no backup, is cut short or damaged, or was made by a newer version.
`,
  validate: `aisix validate --resources FILE

Checks a resources file as a start would, with the variables of this environment, and starts nothing.
Prints "OK: FILE loaded N resource(s)", and warnings on stderr. Ends with 1, and every error on stderr, when the file cannot be used.
`,
  export: `aisix export [--config PATH | --db PATH] [-o FILE] [--reveal-secrets]

Writes the resources of the store as a resources file, to standard output or to FILE, which only its owner can read. The
gateway may be running. Credentials are replaced by \${AISIXSECRET_…}, and the variables listed on stderr.
  --db PATH          the database itself, in place of the configuration that names it
  -o, --output FILE  where to write
  --reveal-secrets   writes credentials in clear text
Ends with 1 when the file would not give back what is stored: it is written all the same, to be looked at.
`,
  schema: `aisix schema config|resources

Prints the JSON Schema of config.yaml or of a resources file, for editors and for checks elsewhere.
`,
  help: `aisix help [COMMAND]

Tells how a command is used.
`,
} as const
type Subcommand = keyof typeof SUBCOMMANDS

const USAGE = `aisix ${VERSION}, an AI gateway

Usage: aisix [--config PATH]     serve
       aisix COMMAND

Commands:
  check-config   check the configuration and start nothing
  hash-key       print the hash of the key on standard input
  validate       check a resources file and start nothing
  export         write what is in the store as a resources file
  schema         print the JSON Schema of a configuration or a resources file
  catalog        replace the catalog of published prices
  audit          say whether the audit log is as it was written
  backup         copy the store into one file
  restore        put a backup back
  help COMMAND   tell more about a command

Options:
  -c, --config PATH   configuration, YAML or JSON (else AISIX_CONFIG, else ${DEFAULT_CONFIG} if it exists)
  -V, --version       print the version
  -h, --help          print this
`

/**
 * What the arguments ask for. Nothing is done yet; `exists` is asked about ./config.yaml alone.
 * in: the arguments after the name of the executable
 */
export function parseCommand(argv: readonly string[], env: Environment, exists: (path: string) => boolean = existsSync): Command {
  const [first] = argv
  if (first === undefined || first.startsWith('-')) return parseOptions('serve', argv, env, exists)
  if (!isSubcommand(first)) return usageError(`unknown command ${quote(first)}`, nearest(first, Object.keys(SUBCOMMANDS)))
  const rest = argv.slice(1)
  if (first === 'check-config') return parseOptions('check-config', rest, env, exists)
  if (rest.includes('--help') || rest.includes('-h')) return help(first)
  if (first === 'validate') return parseValidate(rest)
  if (first === 'export') return parseExport(rest, env, exists)
  if (first === 'schema') return parseSchema(rest)
  if (first === 'help') return parseHelp(rest)
  if (first === 'catalog') return parseCatalog(rest, env, exists)
  if (first === 'audit') return parseAudit(rest, env, exists)
  if (first === 'backup' || first === 'restore') return parseBackup(first, rest, env, exists)
  return rest[0] === undefined ? { kind: 'hash-key' } : usageError('hash-key takes no arguments: the key comes on standard input')
}

function parseHelp([topic, extra]: readonly string[]): Command {
  if (topic === undefined) return print({ stdout: USAGE, exit: 0 })
  if (extra !== undefined) return usageError('help takes one command')
  if (isSubcommand(topic)) return help(topic)
  return usageError(`unknown command ${quote(topic)}`, nearest(topic, Object.keys(SUBCOMMANDS)))
}

function parseCatalog([action, ...args]: readonly string[], env: Environment, exists: (path: string) => boolean): Command {
  if (action !== 'import') return usageError('catalog needs to know what to do: aisix catalog import FILE')
  const options: string[] = []
  const files: string[] = []
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? ''
    const hasValue = arg === '--config' || arg === '-c'
    if (hasValue) options.push(...args.slice(i, ++i + 1))
    else (arg.startsWith('-') ? options : files).push(arg)
  }
  const [file = '', ...others] = files
  if (file === '' || others.length > 0) return usageError('catalog import takes one file: aisix catalog import FILE')
  const command = parseOptions('check-config', options, env, exists)
  return command.kind === 'check-config' ? { kind: 'catalog-import', file, configPath: command.configPath } : command
}

function parseValidate(args: readonly string[]): Command {
  const options = takeOptions(args, { '--resources': 'value' })
  if ('kind' in options) return options
  const file = options.values.get('--resources')
  return file === undefined
    ? usageError('validate needs to know the file: aisix validate --resources FILE')
    : { kind: 'validate', file }
}

function parseExport(args: readonly string[], env: Environment, exists: (path: string) => boolean): Command {
  const options = takeOptions(
    args.map(arg => ALIASES[arg] ?? arg),
    { '--config': 'value', '--db': 'value', '--output': 'value', '--reveal-secrets': 'flag' },
  )
  if ('kind' in options) return options
  const { values, flags } = options
  const [dbPath, given] = [values.get('--db'), values.get('--config')]
  if (dbPath !== undefined && given !== undefined) return usageError('--db and --config exclude each other')
  const rest = { kind: 'export', output: values.get('--output'), revealSecrets: flags.has('--reveal-secrets') } as const
  if (dbPath !== undefined) return { ...rest, source: { dbPath } }
  const command = parseOptions('check-config', given === undefined ? [] : ['--config', given], env, exists)
  return command.kind === 'check-config' ? { ...rest, source: { configPath: command.configPath } } : command
}

function parseSchema([of, extra]: readonly string[]): Command {
  if ((of === 'config' || of === 'resources') && extra === undefined) return { kind: 'schema', of }
  return usageError('schema needs to know of what: aisix schema config, or aisix schema resources')
}

const ALIASES: { readonly [short: string]: string } = { '-c': '--config', '-o': '--output' }

/** Options by name; `--name VALUE` and `--name=VALUE` are alike. out: a usage error for what is unknown, missing or given twice */
function takeOptions(args: readonly string[], known: { readonly [name: string]: 'value' | 'flag' }) {
  const values = new Map<string, string>()
  const flags = new Set<string>()
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? ''
    const [name = '', ...attached] = arg.split('=')
    const takes = Object.hasOwn(known, name) ? known[name] : undefined
    if (takes === undefined || (takes === 'flag' && attached.length > 0)) {
      const problem = `${arg.startsWith('-') ? 'unknown option' : 'unexpected argument'} ${quote(name)}`
      return usageError(problem, nearest(name, Object.keys(known)))
    }
    if (values.has(name) || flags.has(name)) return usageError(`${name} is given twice`)
    if (takes === 'flag') {
      flags.add(name)
      continue
    }
    const value = attached.length > 0 ? attached.join('=') : args[++i]
    if (value === undefined || value === '' || (attached.length === 0 && value.startsWith('-'))) {
      return usageError(`${name} needs the path of a file`)
    }
    values.set(name, value)
  }
  return { values, flags }
}

function parseAudit([action, ...args]: readonly string[], env: Environment, exists: (path: string) => boolean): Command {
  if (action !== 'verify') return usageError('audit needs to know what to do: aisix audit verify')
  const { store, options, rest } = parseStoreChoice(args, ['--known'], env, exists)
  if (!('kind' in store) && rest.length > 0) return usageError('audit verify takes no arguments')
  if ('kind' in store) return store
  const text = options.get('--known')
  const known = text === undefined ? undefined : readKnownEntry(text)
  if (text !== undefined && known === undefined) {
    return usageError('--known needs the last entry that an earlier `aisix audit verify` printed: SEQ:HASH')
  }
  return { kind: 'audit-verify', store, known }
}

function parseBackup(
  kind: 'backup' | 'restore',
  args: readonly string[],
  env: Environment,
  exists: (path: string) => boolean,
): Command {
  const { store, options, rest } = parseStoreChoice(args, kind === 'backup' ? ['--include'] : [], env, exists)
  if ('kind' in store) return store
  const [file = '', ...others] = rest
  if (file === '' || others.length > 0) return usageError(`${kind} takes one file: aisix ${kind} FILE`)
  if (kind === 'restore') return { kind, file, store }
  const include = options.get('--include')
  if (include !== undefined && include !== 'usage') return usageError('--include knows nothing but usage')
  return { kind, file, store, usage: include === 'usage' }
}

/** `--config` and `--db`, of which one may be given, the options that a command has besides, and what is no option. */
function parseStoreChoice(
  args: readonly string[],
  others: readonly string[],
  env: Environment,
  exists: (path: string) => boolean,
): { store: StoreChoice | Extract<Command, { kind: 'print' }>; options: Map<string, string>; rest: string[] } {
  const names = ['--config', '--db', ...others]
  const options = new Map<string, string>()
  const rest: string[] = []
  const refuse = (problem: string, near?: string) => ({ store: usageError(problem, near), options, rest })
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? ''
    if (!arg.startsWith('-')) {
      rest.push(arg)
      continue
    }
    const [given = '', ...attached] = arg.split('=')
    const name = given === '-c' ? '--config' : given
    if (!names.includes(name)) return refuse(`unknown option ${quote(given)}`, nearest(given, names))
    const value = attached.length > 0 ? attached.join('=') : args[++i]
    if (value === undefined || value === '') return refuse(`${name} needs a value`)
    if (options.has(name)) return refuse(`${name} is given twice`)
    options.set(name, value)
  }
  const dbPath = options.get('--db')
  if (dbPath !== undefined && options.has('--config')) return refuse('--config and --db exclude each other: give one of them')
  if (dbPath !== undefined) return { store: { dbPath }, options, rest }
  const given = options.get('--config')
  const found = parseOptions('check-config', given === undefined ? [] : ['--config', given], env, exists)
  if (found.kind === 'check-config') return { store: { configPath: found.configPath }, options, rest }
  return { store: found.kind === 'print' ? found : usageError('no configuration'), options, rest }
}

/** The options of the commands that take a configuration. */
function parseOptions(
  kind: 'serve' | 'check-config',
  args: readonly string[],
  env: Environment,
  exists: (path: string) => boolean,
): Command {
  let configPath: string | undefined
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? ''
    if (arg === '--help' || arg === '-h') return kind === 'serve' ? print({ stdout: USAGE, exit: 0 }) : help(kind)
    if (kind === 'serve' && (arg === '--version' || arg === '-V')) return print({ stdout: `aisix ${VERSION}\n`, exit: 0 })
    const [name = '', ...attached] = arg.split('=')
    if (name !== '--config' && name !== '-c') {
      const problem = `${arg.startsWith('-') ? 'unknown option' : 'unexpected argument'} ${quote(name)}`
      return usageError(problem, nearest(name, ['--config', '--version', '--help']))
    }
    const value = attached.length > 0 ? attached.join('=') : args[++i]
    if (value === undefined || value === '' || (attached.length === 0 && value.startsWith('-'))) {
      return usageError('--config needs the path of a file')
    }
    if (configPath !== undefined) return usageError('--config is given twice')
    configPath = value
  }
  configPath ??= env.AISIX_CONFIG || (exists(DEFAULT_CONFIG) ? DEFAULT_CONFIG : undefined)
  if (configPath === undefined) {
    return usageError(`no configuration: give --config PATH, set AISIX_CONFIG, or start where ${DEFAULT_CONFIG} is`)
  }
  return { kind, configPath }
}

function isSubcommand(name: string): name is Subcommand {
  return Object.hasOwn(SUBCOMMANDS, name)
}

function print(output: Partial<Output> & Pick<Output, 'exit'>): Extract<Command, { kind: 'print' }> {
  return { kind: 'print', output: { stdout: '', stderr: '', ...output } }
}

function help(name: Subcommand): Command {
  return print({ stdout: SUBCOMMANDS[name], exit: 0 })
}

/** Arguments may hold anything, a key that was pasted in the wrong place too: names are short and without spaces. */
function quote(name: string): string {
  return /^[A-Za-z0-9_.-]{1,24}$/.test(name) ? `"${printable(name)}"` : '(not shown)'
}

function usageError(problem: string, near?: string): Extract<Command, { kind: 'print' }> {
  const hint = near === undefined ? '' : `; did you mean ${near}?`
  return print({ stderr: `aisix: ${problem}${hint}\nTry \`aisix --help\`.\n`, exit: 2 })
}

/**
 * Prints the `key_hash` of a key: the lowercase hexadecimal SHA-256 of its bytes, whatever they are.
 * in: standard input as a whole; one line break at its end (LF or CRLF) is not part of the key
 */
export function runHashKey(input: Uint8Array): Output {
  const key = withoutLineBreak(input)
  if (key.length === 0)
    return {
      stdout: '',
      stderr: 'aisix hash-key: expected a key on standard input, as in: printf \'%s\' "$KEY" | aisix hash-key\n',
      exit: 1,
    }
  const isBlank = (byte: number | undefined) => byte === 0x20
  const isUsable = !isBlank(key[0]) && !isBlank(key.at(-1)) && key.every(byte => byte >= 0x20 && byte <= 0x7e)
  const warning =
    'aisix hash-key: warning: the key begins or ends with white space, or holds a control character or one that is not ASCII; no request could present it\n'
  return { stdout: `${new Bun.CryptoHasher('sha256').update(key).digest('hex')}\n`, stderr: isUsable ? '' : warning, exit: 0 }
}

function withoutLineBreak(input: Uint8Array): Uint8Array {
  if (input.at(-1) !== 0x0a) return input
  return input.subarray(0, input.at(-2) === 0x0d ? -2 : -1)
}

/** Loads the configuration as a start would, and says what came of it. */
export function runCheckConfig(configPath: string, env: Environment): Output {
  try {
    const { config, warnings } = loadConfig({ path: configPath, env })
    if (config.resources_file !== undefined) {
      const { stderr, exit } = runValidate(config.resources_file, env)
      if (exit !== 0) return { stdout: '', stderr, exit }
      warnings.push(
        ...stderr
          .split('\n')
          .filter(line => line !== '')
          .map(line => line.replace(/^warning: /, '')),
      )
    }
    return { stdout: `OK: ${configPath}\n`, stderr: warnings.map(warning => `warning: ${warning}\n`).join(''), exit: 0 }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return { stdout: '', stderr: `config load failed: ${error.message}\n`, exit: 1 }
  }
}

/** Characters of a file's name that the catalog keeps. */
const FILE_NAME_MAX = 128
/** Problems of a catalog that are listed; more are counted. */
const PROBLEMS_MAX = 20

/** Puts the catalog of a file in the place of the one beside the store, or says all that is wrong with it. */
export function runCatalogImport(file: string, configPath: string, env: Environment, now = new Date()): Output {
  const fail = (...problems: string[]): Output => ({
    stdout: '',
    stderr: problems.map(problem => `catalog import failed: ${problem}\n`).join(''),
    exit: 1,
  })
  const name = printable(file)
  try {
    const { config } = loadConfig({ path: configPath, env })
    const catalog = readCatalogFile(file, {
      source: `models.dev, imported from ${printable(basename(file).slice(0, FILE_NAME_MAX))}`,
      now,
    })
    const target = catalogPath(config.store.path)
    try {
      replaceCatalog(target, catalog)
    } catch (error) {
      return fail(`${target}: ${writeProblem(error)}`)
    }
    const { models, as_of } = catalog
    return {
      stdout: `${models.length === 1 ? '1 model' : `${models.length} models`}, none newer than ${as_of}, are now in ${target}\n`,
      stderr: '',
      exit: 0,
    }
  } catch (error) {
    if (error instanceof ConfigError) return fail(error.message)
    if (error instanceof JsonError) return fail(`${name}:${error.line}:${error.column}: ${error.problem}`)
    if (error instanceof Error && 'code' in error) return fail(`${name}: ${readProblem(error)}`)
    if (!(error instanceof CatalogError)) throw error
    const { problems } = error
    const more = problems.length - PROBLEMS_MAX
    const shown = problems.slice(0, PROBLEMS_MAX).map(problem => `${name}: ${problem}`)
    return fail(...shown, ...(more > 0 ? [`${name}: and ${more} more`] : []))
  }
}

/** Checks a resources file as a start would. Source: control-resources-file §7. */
export function runValidate(file: string, env: Environment): Output {
  const { entries, problems, warnings } = loadResources(file, env)
  const stderr = warnings.map(warning => `warning: ${warning}\n`).join('')
  if (problems.length > 0) return { stdout: '', stderr: `${stderr}${renderReport(file, problems)}\n`, exit: 1 }
  return { stdout: `OK: ${file} loaded ${entries.length} resource(s)\n`, stderr, exit: 0 }
}

/** Writes the store as a resources file. Source: control-resources-file §8. */
export function runExport({ source, output, revealSecrets }: Extract<Command, { kind: 'export' }>, env: Environment): Output {
  const fail = (problem: string): Output => ({ stdout: '', stderr: `export failed: ${problem}\n`, exit: 1 })
  try {
    const path = 'dbPath' in source ? source.dbPath : loadConfig({ path: source.configPath, env }).config.store.path
    const { entries, rejected } = readStore(path)
    const { text, count, placeholders, problems } = exportResources(entries, { revealSecrets })
    if (output !== undefined) {
      try {
        replaceFile(output, text)
      } catch (error) {
        return fail(`${printable(output)}: ${writeProblem(error)}`)
      }
    }
    const blocking = [
      ...rejected.map(each => `${each.resource_kind} ${each.resource_id} is not exported: ${each.last_error}`),
      ...problems,
    ]
    const lines = [
      ...(revealSecrets ? ['WARNING: THE FILE HOLDS CREDENTIALS IN CLEAR TEXT; keep it out of version control'] : []),
      ...placeholders.map(({ variable, collection, identity, field }) => {
        return `set ${variable}: ${field} of ${collection} "${printable(identity)}"`
      }),
      ...blocking.map(problem => `error: ${problem}`),
      ...(blocking.length > 0 ? ['the file does not give back all that is stored: look at the errors above'] : []),
      `Exported ${count} resource(s) to ${output === undefined ? 'standard output' : printable(output)}`,
    ]
    return {
      stdout: output === undefined ? text : '',
      stderr: lines.map(line => `${line}\n`).join(''),
      exit: blocking.length > 0 ? 1 : 0,
    }
  } catch (error) {
    if (error instanceof ConfigError || error instanceof StoreOpenError) return fail(error.message)
    throw error
  }
}

/** A whole file in the place of another, readable by its owner alone. */
function replaceFile(path: string, text: string): void {
  const fresh = `${path}.new`
  writeFileSync(fresh, text, { mode: 0o600, flag: 'wx' })
  renameSync(fresh, path)
}

/** Prints a JSON Schema. */
export function runSchema(of: 'config' | 'resources'): Output {
  const schema = of === 'config' ? configSchema() : resourcesSchema()
  return { stdout: `${JSON.stringify(schema, null, 2)}\n`, stderr: '', exit: 0 }
}

function writeProblem(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown error'
  if (code === 'ENOENT') return 'its folder does not exist; create it'
  if (code === 'EACCES' || code === 'EPERM') return 'permission denied: run this as the user that runs the gateway'
  if (code === 'EEXIST')
    return 'another one is being written, or its writer was killed: remove the file that ends with .new beside it'
  return `cannot be written (${code})`
}
