/**
 * The configuration of the process: defaults, then the file, then `AISIX_*` variables; read once, at the start.
 * Source: control-bootstrap §1 and §2.
 */
import { accessSync, constants, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { applyEnvironment } from './config/environment.ts'
import { explain, valueAt } from './config/explain.ts'
import { type Environment, isTree, type ReadFile, readBounded, readConfigFile, type Tree } from './config/file.ts'
import { listKeys, listSections } from './config/keys.ts'
import { type Origin, type Origins, originOf, type Problem, renderProblem, toConfigError } from './config/problems.ts'
import { Config, type ConfigOutput } from './config/schema.ts'
import { COMPATIBILITY, isCovered, UNSUPPORTED } from './config/support.ts'
import { loadTls, type TlsMaterial } from './config/tls.ts'
import { parseSocketAddress } from './lib/address.ts'
import { compileNetworks } from './lib/cidr.ts'
import { parseFilter, printable } from './lib/log.ts'

export { ConfigError, type Origin } from './config/problems.ts'
export type { ServerTls, TlsMaterial } from './config/tls.ts'
export { formatAddress, parseSocketAddress, type SocketAddress } from './lib/address.ts'
export { Config }

export type LoadedConfig = {
  /** All defaults filled in, file paths absolute, `observability.log_level` as `RUST_LOG` has it when that is set. */
  config: Config
  /** Where each value comes from, by path: `proxy.addr`, `admin.admin_keys[0]`. Sections of the file have one too. */
  origins: Map<string, Origin>
  /** The files of `proxy.tls`, `admin.tls` and `upstream.tls`, read and checked. */
  tls: TlsMaterial
  /** Lines to log at warn, and at debug, once there is a log. */
  warnings: string[]
  debug: string[]
}

/** The key of the sample configuration, which everybody knows. */
const SAMPLE_ADMIN_KEY = 'admin-local-only-change-me'
const SAMPLE_KEY_HASH = new Bun.CryptoHasher('sha256').update(SAMPLE_ADMIN_KEY).digest('hex')
const isLoopback = compileNetworks(['127.0.0.0/8', '::1'])

/**
 * Loads the file at `path` (its extension says YAML or JSON) with the variables of `env` over it.
 * Relative paths in the configuration count from the folder of the file.
 * throws: ConfigError with every problem that was found, each with file, line, column or variable, and key
 */
export function loadConfig({
  path,
  env,
  readFile = readBounded,
}: {
  path: string
  env: Environment
  readFile?: ReadFile
}): LoadedConfig {
  const { tree, origins, problems, broken } = readConfigFile(path, env, readFile)
  const environment = applyEnvironment(tree, origins, env)
  problems.push(...environment.problems)
  // Without the section the message would name it, and not the one key that has to be given.
  tree.proxy ??= {}
  const parsed = Config.safeParse(tree)
  if (!parsed.success) {
    problems.push(...explain(parsed.error.issues, tree, origins).filter(problem => !broken.has(problem.path)))
  }
  problems.push(...findUnsupported(tree, origins, problems))
  if (!parsed.success) throw toConfigError(problems)

  const config = withAbsolutePaths(parsed.data, dirname(resolve(path)))
  const tls = loadTls(config, readFile, Date.now())
  const locate = ({ path, text }: { path: string; text: string }) => ({ origin: originOf(origins, path.split('.')), path, text })
  problems.push(...tls.problems.map(locate), ...findClashes(config, resolve(path)).map(locate))
  if (problems.length > 0) throw toConfigError(problems)

  const warnings = [...findCompatibility(tree, origins), ...findRisks(config, origins), ...tls.warnings.map(locate)].map(
    renderProblem,
  )
  warnings.push(...applyRustLog(config, origins, env), ...environment.warnings)
  origins.delete('')
  addDefaults(config, '', origins)
  return { config, origins, tls: tls.material, warnings, debug: environment.debug }
}

/** Paths of keys that were given a value other than their default, and that lie under one of `rows`. */
function changedKeys(tree: Tree, rows: readonly string[]): string[] {
  if (!rows.some(row => valueAt(tree, row.split('.')) !== undefined)) return []
  const known = [...listKeys().values()].filter(key => {
    const value = isCovered(key.path, rows) ? valueAt(tree, key.path.split('.')) : undefined
    return value !== undefined && !Bun.deepEquals(value, key.default)
  })
  // A section may be open to keys that the schema does not name; they have no default.
  const open = rows.flatMap(row => {
    const section = valueAt(tree, row.split('.'))
    const given = isTree(section) ? Object.keys(section).filter(key => section[key] !== undefined) : []
    return given.map(key => `${row}.${key}`)
  })
  const isUnnamed = (path: string) => !listKeys().has(path) && !listSections().has(path)
  return [...known.map(key => key.path), ...open.filter(isUnnamed)]
}

/** Keys of features that this version lacks. One whose value is wrong anyway is told once, as that. */
function findUnsupported(tree: Tree, origins: Origins, told: readonly Problem[]): Problem[] {
  return changedKeys(tree, UNSUPPORTED)
    .filter(path => !told.some(problem => problem.path === path || problem.path.startsWith(`${path}[`)))
    .map(path => {
      const { choices, default: preset } = listKeys().get(path) ?? {}
      const origin = originOf(origins, path.split('.'))
      const remedy = origin?.from === 'environment' ? 'unset the variable' : 'remove the key'
      const alternative = choices ? `, or set it to ${JSON.stringify(preset)}` : ''
      return { origin, path, text: `is not supported by this version; ${remedy}${alternative}` }
    })
}

/** Keys that have no effect here, one warning a group, at the place of the first. */
function findCompatibility(tree: Tree, origins: Origins): Problem[] {
  return COMPATIBILITY.flatMap(({ keys, why }) => {
    const changed = changedKeys(tree, keys)
    const [first] = changed
    if (first === undefined) return []
    const text = `accepted for compatibility, without effect: ${why}`
    return [{ origin: originOf(origins, first.split('.')), path: changed.map(printable).join(', '), text }]
  })
}

/** What works and should not be left so. */
function findRisks({ admin, proxy, upstream }: Config, origins: Origins): Problem[] {
  const risks: Problem[] = []
  const warn = (path: string, text: string) => risks.push({ origin: originOf(origins, path.split('.')), path, text })
  const hasSampleKey = admin.admin_keys.includes(SAMPLE_ADMIN_KEY) || admin.keys.some(key => key.key_hash === SAMPLE_KEY_HASH)
  if (admin.enabled && hasSampleKey && !isLoopback(parseSocketAddress(admin.addr).hostname)) {
    warn(
      'admin.admin_keys',
      'the key of the sample configuration, which everybody knows, opens an admin API that other machines reach; replace it, or set admin.addr to 127.0.0.1',
    )
  }
  const uploads = proxy.upload_dir ?? tmpdir()
  if (!isWritableFolder(uploads)) {
    warn('proxy.upload_dir', `forms of more than 256 KiB will be answered 503: ${uploads} is no folder that may be written`)
  }
  if (!upstream.tls.verify) {
    warn('upstream.tls.verify', 'CERTIFICATES OF UPSTREAMS ARE NOT CHECKED: anybody on the way can read and change everything')
  }
  return risks
}

function isWritableFolder(path: string): boolean {
  try {
    accessSync(path, constants.W_OK | constants.X_OK)
    return statSync(path).isDirectory()
  } catch {
    return false
  }
}

/**
 * `RUST_LOG` wins over `observability.log_level`. It is often set for other programs and in a richer grammar, so what is
 * not understood is a warning and leaves the configured level.
 */
function applyRustLog(config: Config, origins: Origins, env: Environment): string[] {
  const filter = env.RUST_LOG?.trim()
  if (!filter) return []
  try {
    parseFilter(filter)
  } catch (error) {
    return [`RUST_LOG: ${error instanceof Error ? error.message : String(error)}; observability.log_level applies`]
  }
  config.observability.log_level = filter
  origins.set('observability.log_level', { from: 'environment', variable: 'RUST_LOG' })
  return []
}

/** Files that the gateway writes must be files of their own: one in another's place would keep it from being written at all. */
function findClashes(config: Config, configPath: string): { path: string; text: string }[] {
  const { proxy, admin, upstream } = config
  const taken = new Map([[configPath, 'this configuration']])
  for (const [key, pair] of Object.entries({ 'proxy.tls': proxy.tls, 'admin.tls': admin.tls })) {
    for (const file of pair ? [pair.cert_file, pair.key_file] : []) taken.set(file, `a file of ${key}`)
  }
  for (const file of [upstream.tls.ca_file, upstream.tls.client_cert_file, upstream.tls.client_key_file]) {
    if (file !== undefined) taken.set(file, 'a file of upstream.tls')
  }
  if (config.resources_file !== undefined) taken.set(config.resources_file, 'the resources_file')
  const clashes: { path: string; text: string }[] = []
  for (const key of ['store', 'usage', 'budgets'] as const) {
    const file = config[key].path
    const other = taken.get(file)
    if (other !== undefined) clashes.push({ path: `${key}.path`, text: `names ${other}, too: give it a file of its own` })
    taken.set(file, `${key}.path`)
  }
  return clashes
}

/** The configuration with the paths of files made absolute, and those that follow from others. */
function withAbsolutePaths(config: ConfigOutput, folder: string): Config {
  const absolute = (path: string) => resolve(folder, path)
  const besideStore = (name: string) => join(dirname(config.store.path), name)
  const pair = (tls: Config['proxy']['tls']) => tls && { cert_file: absolute(tls.cert_file), key_file: absolute(tls.key_file) }
  const { ca_file, client_cert_file, client_key_file, verify } = config.upstream.tls
  return {
    ...config,
    proxy: {
      ...config.proxy,
      tls: pair(config.proxy.tls),
      upload_dir: config.proxy.upload_dir && absolute(config.proxy.upload_dir),
    },
    admin: { ...config.admin, tls: pair(config.admin.tls) },
    store: { ...config.store, path: absolute(config.store.path) },
    resources_file: config.resources_file && absolute(config.resources_file),
    usage: { ...config.usage, path: absolute(config.usage.path ?? besideStore('usage.db')) },
    budgets: { ...config.budgets, path: absolute(config.budgets.path ?? besideStore('budgets.db')) },
    upstream: {
      ...config.upstream,
      tls: {
        ca_file: ca_file && absolute(ca_file),
        client_cert_file: client_cert_file && absolute(client_cert_file),
        client_key_file: client_key_file && absolute(client_key_file),
        verify,
      },
    },
  }
}

/** Gives every value that neither file nor variable set its origin. */
function addDefaults(value: Tree, prefix: string, origins: Origins): void {
  for (const [key, member] of Object.entries(value)) {
    const path = prefix === '' ? key : `${prefix}.${key}`
    if (isTree(member)) addDefaults(member, path, origins)
    else if (member !== undefined && !origins.has(path)) origins.set(path, { from: 'default' })
  }
}
