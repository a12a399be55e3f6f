/**
 * The second start. Two things can only be had from the environment of a new process: the number of requests that `fetch`
 * runs at once (256 unless told otherwise; further ones wait in silence), and freedom from variables that would print
 * prompts and keys, switch off certificate checks, open a debugger or send traffic through somebody's proxy.
 */

/** More streams than one process of this kind can hold; the runtime takes up to 65,336. */
const HTTP_REQUESTS_MAX = '60000'

const DROPPED = [
  'BUN_CONFIG_VERBOSE_FETCH',
  'BUN_INSPECT',
  'BUN_INSPECT_CONNECT_TO',
  'BUN_INSPECT_NOTIFY',
  'BUN_INSPECT_PRELOAD',
  'BUN_OPTIONS',
  'BUN_BE_BUN',
  'NODE_OPTIONS',
  'NODE_DEBUG',
  'DEBUG',
  'NODE_TLS_REJECT_UNAUTHORIZED',
  'SSLKEYLOGFILE',
  'HTTP_PROXY',
  'HTTPS_PROXY',
  'ALL_PROXY',
  'http_proxy',
  'https_proxy',
  'all_proxy',
]

type Environment = Record<string, string | undefined>

/** The environment that this process should have had, or undefined when it has it. */
export function wantedEnvironment(env: Environment): Record<string, string> | undefined {
  if (env.BUN_CONFIG_MAX_HTTP_REQUESTS === HTTP_REQUESTS_MAX && DROPPED.every(name => env[name] === undefined)) return undefined
  const wanted: Record<string, string> = {}
  for (const [name, value] of Object.entries(env)) {
    if (value !== undefined && !DROPPED.includes(name)) wanted[name] = value
  }
  wanted.BUN_CONFIG_MAX_HTTP_REQUESTS = HTTP_REQUESTS_MAX
  return wanted
}

/**
 * Starts this process once more, under the same process id, with the environment it should have. Returns where that is not
 * needed; also where it cannot be done (`false`): the gateway then runs with the limits of the first start.
 */
export function restartWith(wanted: Record<string, string>, argv: readonly string[]): boolean {
  const [runtime = '', script = '', ...rest] = argv
  const isCompiled = runtime === 'bun' && script.startsWith('/$bunfs/')
  const args = isCompiled ? rest : [script, ...rest]
  try {
    process.execve?.(process.execPath, [process.execPath, ...args], wanted)
  } catch {
    // Falls through: the caller warns.
  }
  return false
}
