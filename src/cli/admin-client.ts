/** The admin API as the commands ask it: where it is, who asks, and what to do when it cannot be had. */
import { readFileSync } from 'node:fs'
import nodeTls from 'node:tls'
import type { FetchInit } from '../lib/fetch.ts'
import { errorCode, transportCause } from '../lib/transport-cause.ts'
import type { Given } from './arguments.ts'
import { CommandFailed, type Io, type Option, UsageError } from './command.ts'
import { clean } from './table.ts'

export const DEFAULT_URL = 'http://127.0.0.1:3001'
const DEFAULT_KEY_VARIABLE = 'AISIX_ADMIN_KEY'

/** The options of every command that asks the admin API. */
export const CONNECTION: readonly Option[] = [
  { name: 'url', value: 'URL', about: `Address of the admin API (else that of --config, else ${DEFAULT_URL}).` },
  {
    name: 'config',
    short: 'c',
    value: 'FILE',
    complete: 'file',
    about: 'Configuration of the gateway on this machine: its address, and its first admin key where the variable is unset.',
  },
  {
    name: 'admin-key-env',
    value: 'VARIABLE',
    about: `Environment variable that holds the admin key (else ${DEFAULT_KEY_VARIABLE}). The key itself never stands on a command line.`,
  },
  { name: 'ca-file', value: 'FILE', complete: 'file', about: 'PEM file of certificates to trust besides the usual ones.' },
]

export const JSON_OUTPUT: Option = { name: 'json', about: 'Print JSON, as the admin API has it, for scripts.' }

/** A whole answer, usage of a busy year included, takes less. */
const DEADLINE_MS = 60_000

export type AdminClient = {
  /** Origin of the API, without a slash at its end. */
  url: string
  /**
   * Asks and gives the JSON that comes. in: a path behind `/admin/v1/`, percent-encoded
   * throws: CommandFailed with what to do
   */
  ask(method: 'GET' | 'POST' | 'PUT' | 'DELETE', path: string, document?: unknown): Promise<Answer>
  /** The answer's text, as it came. */
  text(path: string): Promise<string>
}

/** `warnings`: what the API has to say about a write that it took. */
export type Answer = { body: unknown; warnings: string[] }

/** throws: UsageError, CommandFailed */
export async function connect(given: Given, io: Io): Promise<AdminClient> {
  const configPath = given.text('config')
  const configured = configPath === undefined ? undefined : await readConfig(configPath, io)
  const url = readUrl(given.text('url') ?? configured?.url ?? DEFAULT_URL)
  const key = readKey(given.text('admin-key-env'), configured?.key, io)
  const caFile = given.text('ca-file')
  if (caFile !== undefined && !url.startsWith('https:'))
    throw new UsageError('--ca-file needs an address that begins with https://')
  const tls: Pick<FetchInit, 'tls'> = url.startsWith('https:') ? { tls: { ...trusted(caFile), rejectUnauthorized: true } } : {}

  const send = async (method: string, path: string, document?: unknown): Promise<{ response: Response; text: string }> => {
    const deadline = AbortSignal.timeout(DEADLINE_MS)
    try {
      const response = await io.fetch(`${url}/admin/v1/${path}`, {
        method,
        headers: {
          authorization: `Bearer ${key}`,
          accept: 'application/json',
          ...(document === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(document === undefined ? {} : { body: JSON.stringify(document) }),
        signal: deadline,
        redirect: 'manual',
        decompress: true,
        keepalive: true,
        proxy: false,
        timeout: false,
        verbose: false,
        ...tls,
      })
      const text = await response.text()
      if (response.ok) return { response, text }
      throw new CommandFailed(refusal(url, response, text))
    } catch (error) {
      if (error instanceof CommandFailed) throw error
      throw new CommandFailed(unreachable(url, deadline.aborted, error, method !== 'GET'))
    }
  }
  return {
    url,
    async ask(method, path, document) {
      const { response, text } = await send(method, path, document)
      const warning = response.headers.get('x-aisix-warning')
      try {
        return { body: JSON.parse(text), warnings: warning === null ? [] : [decoded(warning)] }
      } catch {
        throw new CommandFailed(`${url} did not answer with JSON: is it the admin listener of a gateway? See --url`)
      }
    },
    text: async path => (await send('GET', path)).text,
  }
}

async function readConfig(path: string, io: Io): Promise<{ url: string; key: string | undefined }> {
  const { ConfigError, formatAddress, loadConfig, parseSocketAddress } = await import('../config.ts')
  try {
    const { admin } = loadConfig({ path, env: io.env }).config
    if (!admin.enabled) throw new CommandFailed(`${path} has admin.enabled: false: there is no admin API to ask`)
    const { hostname, port } = parseSocketAddress(admin.addr)
    // Every address of a machine is no address to connect to.
    const host = hostname === '0.0.0.0' ? '127.0.0.1' : hostname === '::' ? '::1' : hostname
    return {
      url: `${admin.tls ? 'https' : 'http'}://${formatAddress({ hostname: host, port })}`,
      key: admin.admin_keys[0],
    }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    throw new CommandFailed(`config load failed: ${error.message}`)
  }
}

function readUrl(text: string): string {
  const url = URL.parse(text.trim())
  if (!url || !/^https?:$/.test(url.protocol)) throw new UsageError(`--url needs an address such as ${DEFAULT_URL}`)
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    throw new UsageError('--url takes an address and nothing else: the key comes from a variable, see --admin-key-env')
  }
  return url.origin + url.pathname.replace(/\/+$/, '')
}

function readKey(variable: string | undefined, configured: string | undefined, { env }: Io): string {
  const name = variable ?? DEFAULT_KEY_VARIABLE
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
    throw new UsageError('--admin-key-env takes the name of a variable, never the key itself')
  }
  const key = env[name] || (variable === undefined ? configured : undefined)
  if (key === undefined) {
    throw new UsageError(`no admin key: set ${name}, name another variable with --admin-key-env, or give --config`)
  }
  if (!/^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(key)) {
    throw new UsageError(
      `the key in ${name} holds characters or blanks that no header can carry; is there a line break at its end?`,
    )
  }
  return key
}

function trusted(caFile: string | undefined): { ca?: string[] } {
  if (caFile === undefined) return {}
  let pem: string
  try {
    pem = readFileSync(caFile, 'utf8')
  } catch (error) {
    throw new CommandFailed(`${caFile}: cannot be read (${errorCode(error) || 'unknown error'})`)
  }
  if (!pem.includes('-----BEGIN CERTIFICATE-----')) throw new CommandFailed(`${caFile}: holds no PEM certificate`)
  // `ca` replaces what is trusted by default.
  return { ca: [...nodeTls.rootCertificates, pem] }
}

/** The header has everything but printable ASCII percent-encoded. */
function decoded(warning: string): string {
  try {
    return clean(decodeURIComponent(warning))
  } catch {
    return clean(warning)
  }
}

/** Why nothing came, in one line that says what to do. */
function unreachable(url: string, isLate: boolean, error: unknown, isWrite: boolean): string {
  const doubt = isWrite ? '; whether the change was made is not known: look before you try again' : ''
  if (isLate) return `${url} did not answer within ${DEADLINE_MS / 1000} s${doubt}`
  const cause = transportCause(error)
  if (cause === 'connection refused')
    return `connection to ${url} refused: is the gateway running, and is this its admin.addr? See --url`
  if (cause === 'certificate not trusted') return `the certificate of ${url} is not trusted: name its authority with --ca-file`
  if (cause === 'the answer is not HTTP' || cause === 'TLS handshake failed') {
    const other = url.startsWith('https:') ? url.replace('https:', 'http:') : url.replace('http:', 'https:')
    return `${url}: ${cause}; should it be ${other}?`
  }
  return `${url}: ${cause}${cause === 'connection reset' ? doubt : ''}`
}

/** What the API says, and what to do where that is not told. */
function refusal(url: string, { status, headers }: Response, text: string): string {
  const words = errorMessage(text)
  if (status === 401)
    return `${url} refuses the admin key (401): it must be one of admin.admin_keys in the gateway's configuration`
  if (status >= 300 && status < 400)
    return `${url} answers with a redirect (${status}): give the address of the admin listener itself with --url`
  if (words !== undefined) return clean(words.replaceAll('\n', ' '))
  const isOurs = headers.get('server')?.startsWith('AISIX/') === true
  return `${url} answered ${status}: ${isOurs ? 'is this the admin listener, of a gateway of this version?' : 'it is no gateway of ours'} See --url`
}

function errorMessage(text: string): string | undefined {
  try {
    const body: unknown = JSON.parse(text)
    if (typeof body !== 'object' || body === null || !('error_msg' in body)) return undefined
    return typeof body.error_msg === 'string' ? body.error_msg : undefined
  } catch {
    return undefined
  }
}

export function printJson(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`
}

export function warningLines(warnings: readonly string[]): string {
  return warnings.map(warning => `warning: ${warning}\n`).join('')
}
