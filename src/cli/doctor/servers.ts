/** Every server that a provider key names: can it be reached, whom does it take, what is it, what does it serve. */
import { lookup } from 'node:dns/promises'
import { connect as connectTcp, isIP } from 'node:net'
import nodeTls, { connect as connectTls } from 'node:tls'
import { toGatewayError } from '../../errors.ts'
import type { Fetch, FetchInit } from '../../lib/fetch.ts'
import { transportCause } from '../../lib/transport-cause.ts'
import { createDialer } from '../../proxy/dial.ts'
import { probe } from '../../proxy/probe.ts'
import { addTemplated, compileUpstream, type Upstream, type UpstreamTls } from '../../proxy/upstream.ts'
import type { BackgroundModelCheck } from '../../resources/model.ts'
import { type DirectEntry, isDirectEntry, type Snapshot } from '../../store/snapshot.ts'
import type { Entry } from '../../store/store.ts'
import { judgeDates } from './certificates.ts'
import { type Finding, Findings, type Verdict } from './finding.ts'
import { type Evidence, identify, type Server, servedNames, WELL_KNOWN } from './fingerprint.ts'
import { compareNames } from './model-names.ts'

/** For all that is asked of one host, a probing request excepted. */
export const HOST_MS = 5_000
const PROBE_SECONDS = 30
/** Hosts at a time: many sockets at once would look like an attack to some, and run into limits of this process. */
const HOSTS_AT_ONCE = 32
/** Of a list of models, and of any other answer. */
const ANSWER_BYTES_MAX = 4 * 1024 * 1024
const NAMES_SHOWN = 10

export type ServerOptions = {
  snapshot: Snapshot
  tls: UpstreamTls
  /** `upstream.proxy`. */
  proxy: string | undefined
  fetch: Fetch
  nowMs: number
  /** Whether each provider key may be sent one request that a model has to work for. */
  mayProbe: boolean
  hostMs?: number
}

type Key = { entry: Entry<'provider_keys'>; upstream: Upstream; base: string; models: DirectEntry[] }

export async function checkServers(options: ServerOptions): Promise<Finding[]> {
  const { snapshot } = options
  const findings: Finding[] = []
  const models = Map.groupBy([...snapshot.entries.models.values()].filter(isDirectEntry), ({ value }) => value.provider_key_id)
  const keys: Key[] = []
  for (const entry of snapshot.providerKeys.values()) {
    const key = ready(entry, models.get(entry.id) ?? [], options.tls)
    if ('upstream' in key) keys.push(key)
    else findings.push(key)
  }
  const hosts = [...Map.groupBy(keys, ({ upstream }) => upstream.origin).values()]
  const results: Finding[][] = []
  const next = hosts.entries()
  const work = async () => {
    for (const [i, host] of next) results[i] = await checkHost(host, options)
  }
  await Promise.all(Array.from({ length: Math.min(HOSTS_AT_ONCE, hosts.length) }, work))
  return [...findings, ...results.flat()]
}

function ready(entry: Entry<'provider_keys'>, models: DirectEntry[], tls: UpstreamTls): Key | Finding {
  const { value } = entry
  try {
    const upstream = compileUpstream(entry, tls)
    const base = upstream.adapter.base(value.api_base, value.provider)
    if (base !== undefined) return { entry, upstream, base, models }
  } catch (error) {
    const { message } = toGatewayError(error)
    return {
      check: 'server',
      subject: value.display_name,
      severity: 'error',
      message,
      advice: 'set adapter, api_base and secret of the provider key',
    }
  }
  return {
    check: 'server',
    subject: value.display_name,
    severity: 'error',
    message: 'has no address',
    advice: 'set api_base of the provider key',
  }
}

async function checkHost(keys: readonly Key[], options: ServerOptions): Promise<Finding[]> {
  const [first] = keys
  if (!first) return []
  const { hostMs = HOST_MS } = options
  const findings = new Findings('server', keys.map(({ entry }) => entry.value.display_name).join(', '))
  const deadline = new AbortController()
  const timer = setTimeout(() => deadline.abort(), hostMs)
  const { origin } = first.upstream
  try {
    const how =
      options.proxy === undefined
        ? await reach(first.upstream, options.nowMs, deadline.signal, findings)
        : 'asked through upstream.proxy'
    // A secret goes to no server that is not who it should be.
    if (findings.all.some(({ severity }) => severity === 'error')) return findings.all
    const answers = await Promise.all(keys.map(key => listModels(key, options, deadline.signal)))
    const server = await recognise(first, answers, options, deadline.signal)
    findings.add(
      'ok',
      `${origin} ${how}${server === undefined ? '' : `; it seems to be ${server.name}${server.version === undefined ? '' : ` ${server.version}`}`}`,
    )
    keys.forEach((key, i) => {
      judgeKey(key, answers[i], server, findings)
    })
    compareHost(keys, answers, server, findings)
  } catch (error) {
    if (error instanceof Unreachable) findings.add('error', `${origin} ${error.message}`, error.advice)
    else if (deadline.signal.aborted)
      findings.add(
        'error',
        `${origin} did not answer within ${hostMs / 1000} s`,
        'see whether the server is up, and whether a firewall drops the connection',
      )
    else
      findings.add(
        'error',
        `${origin} ${transportCause(error)}`,
        'see whether the server runs, and whether api_base names its host, port and scheme',
      )
  } finally {
    clearTimeout(timer)
  }
  if (options.mayProbe && findings.all.every(({ severity }) => severity !== 'error')) {
    for (const key of keys) {
      const [severity, message, advice] = await sendProbe(key, options)
      findings.add(severity, message, advice, key.entry.value.display_name)
    }
  }
  return findings.all
}

class Unreachable extends Error {
  constructor(
    message: string,
    readonly advice: string,
  ) {
    super(message)
  }
}

/** Name, connection, TLS. returns: how it went, for the finding. throws: Unreachable, what the system says, or at the deadline */
async function reach({ hostname, port, tls }: Upstream, nowMs: number, signal: AbortSignal, findings: Findings): Promise<string> {
  const addresses = isIP(hostname) ? [hostname] : await resolveName(hostname, signal)
  const address = await connectedTo(addresses, port, signal)
  const way = isIP(hostname)
    ? 'can be reached'
    : `can be reached at ${address}${addresses.length > 1 ? ` and ${addresses.length - 1} more` : ''}`
  if (tls === undefined) return way
  return `${way}, ${await checkTls(address, hostname, port, tls, nowMs, signal, findings)}`
}

async function resolveName(hostname: string, signal: AbortSignal): Promise<string[]> {
  try {
    return (await bounded(lookup(hostname, { all: true }), signal)).map(({ address }) => address)
  } catch (error) {
    if (signal.aborted) throw error
    throw new Unreachable(
      `cannot be found: the name ${hostname} does not resolve here`,
      'correct api_base, or the name server of this machine',
    )
  }
}

/** The first of the addresses that takes a connection. throws: what the system says of the last, or at the deadline */
async function connectedTo(addresses: readonly string[], port: number, signal: AbortSignal): Promise<string> {
  const sockets = addresses.map(host => connectTcp({ host, port }))
  const attempts = sockets.map((socket, i) => {
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    socket.once('connect', () => resolve(addresses[i] ?? ''))
    socket.once('error', reject)
    return promise
  })
  try {
    return await bounded(Promise.any(attempts), signal)
  } catch (error) {
    throw error instanceof AggregateError ? error.errors.at(-1) : error
  } finally {
    for (const socket of sockets) socket.destroy()
  }
}

/** The handshake without a check, so that whatever is wrong can be told; then the checks. */
async function checkTls(
  address: string,
  hostname: string,
  port: number,
  tls: NonNullable<Upstream['tls']>,
  nowMs: number,
  signal: AbortSignal,
  findings: Findings,
): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const socket = connectTls({
    host: address,
    port,
    ...(isIP(hostname) ? {} : { servername: hostname }),
    ca: tls.ca ?? [...nodeTls.rootCertificates],
    ...(tls.cert === undefined ? {} : { cert: tls.cert, key: tls.key }),
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
  })
  socket.once('secureConnect', resolve)
  socket.once('error', reject)
  try {
    await bounded(promise, signal)
    const certificate = socket.getPeerCertificate()
    const wrongName = nodeTls.checkServerIdentity(hostname, certificate)
    const dates = judgeDates(Date.parse(certificate.valid_from), Date.parse(certificate.valid_to), nowMs)
    // The chain as it was judged: `authorizationError` is text here, whatever the types say.
    const chain = socket.authorized ? undefined : String(socket.authorizationError ?? 'not trusted')
    const severity = tls.rejectUnauthorized ? 'error' : 'warning'
    if (dates.severity !== 'ok')
      findings.add(
        dates.severity === 'error' ? severity : 'warning',
        `its certificate ${dates.message}`,
        'renew the certificate of the server',
      )
    else if (chain !== undefined) {
      findings.add(
        severity,
        `its certificate is not trusted (${chain})`,
        'put its authority into tls.ca_cert of the provider key, or into upstream.tls.ca_file',
      )
    }
    if (wrongName !== undefined) {
      findings.add(
        severity,
        `its certificate is not for ${hostname}`,
        `call it by a name that its certificate has (${certificate.subjectaltname ?? 'none'}), or renew it`,
      )
    }
    return `its certificate ${dates.message}${tls.rejectUnauthorized ? '' : ' (certificates are not checked here)'}`
  } finally {
    socket.destroy()
  }
}

/** Whatever comes first. throws: what `promise` does, or an Error at the deadline */
function bounded<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const onAbort = () => reject(new Error('deadline'))
  if (signal.aborted) onAbort()
  signal.addEventListener('abort', onAbort, { once: true })
  promise.catch(() => undefined)
  late.catch(() => undefined)
  return Promise.race([promise, late]).finally(() => signal.removeEventListener('abort', onAbort))
}

type Listed = {
  status: number
  headers: Record<string, string>
  body: unknown
  /** The list is there at this base, which is not that of the provider key. */
  betterBase?: string
}

async function listModels({ entry, upstream, base }: Key, options: ServerOptions, signal: AbortSignal): Promise<Listed> {
  const { 'content-type': _, ...headers } = upstream.headers
  addTemplated(headers, upstream, { 'provider_key.id': entry.id, 'provider_key.name': entry.value.display_name })
  const path = upstream.adapter.paths.messages === upstream.adapter.paths.chat ? '/v1/models' : '/models'
  const listed = await get(base + path, headers, upstream, options, signal)
  if (listed.status !== 404 || base.endsWith('/v1') || path !== '/models') return listed
  // The most common mistake of all is a base without `/v1`.
  const other = await get(`${base}/v1/models`, headers, upstream, options, signal)
  return other.status === 200 && servedNames(other.body) !== undefined ? { ...other, betterBase: `${base}/v1` } : listed
}

async function get(
  url: string,
  headers: Record<string, string>,
  { tls }: Upstream,
  { fetch, proxy }: ServerOptions,
  signal: AbortSignal,
): Promise<Listed> {
  const init: FetchInit = {
    method: 'GET',
    headers: { ...headers, accept: 'application/json' },
    signal,
    redirect: 'manual',
    decompress: true,
    keepalive: false,
    proxy: proxy ?? false,
    timeout: false,
    verbose: false,
    ...(tls === undefined ? {} : { tls }),
  }
  const response = await fetch(url, init)
  const text = await readStart(response)
  return { status: response.status, headers: Object.fromEntries(response.headers), body: parsed(text) }
}

async function readStart(response: Response): Promise<string> {
  const pieces: Uint8Array[] = []
  let length = 0
  for await (const piece of response.body ?? []) {
    pieces.push(piece)
    length += piece.byteLength
    if (length > ANSWER_BYTES_MAX) break
  }
  return Buffer.concat(pieces).toString('utf8')
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

/** Asks what costs nothing, without a credential: behind one host the root may belong to another service. */
async function recognise(
  key: Key,
  answers: readonly Listed[],
  options: ServerOptions,
  signal: AbortSignal,
): Promise<Server | undefined> {
  const { upstream, base } = key
  const root = base.replace(/\/v1$/, '')
  const found: Evidence['answers'] = {}
  await Promise.all(
    WELL_KNOWN.map(async path => {
      // A server that has none of these is no worse for it, and one that hangs on them has answered what counts.
      const listed = await get(
        root + path,
        { 'user-agent': upstream.headers['user-agent'] ?? '' },
        upstream,
        options,
        signal,
      ).catch(() => undefined)
      if (listed?.status === 200) found[path] = listed.body
    }),
  )
  return identify({
    headers: Object.assign({}, ...answers.map(({ headers }) => headers)),
    answers: found,
    models: answers.find(({ body }) => servedNames(body) !== undefined)?.body,
  })
}

function judgeKey({ entry, models }: Key, listed: Listed | undefined, server: Server | undefined, findings: Findings): void {
  if (!listed) return
  const name = entry.value.display_name
  const { status, body, betterBase } = listed
  const add = (...[severity, message, advice]: Verdict) => findings.add(severity, message, advice, name)
  if (betterBase !== undefined) add('error', 'its api_base lacks /v1', `set api_base to ${betterBase}`)
  else if (status === 401 || status === 403)
    add('error', `refuses the secret (${status} for GET /models)`, 'set the secret of the provider key')
  else if (status >= 300 && status < 400)
    add('error', `answers with a redirect (${status}), which is not followed`, 'set api_base to where it leads')
  else if (status >= 500 && status !== 501) add('error', `GET /models was answered ${status}`, "see the server's own log")
  else if (servedNames(body) === undefined) add('note', `has no list of models (${status} for GET /models)`)
  if (models.length === 0) add('note', 'no model uses this provider key')
  if (entry.value.adapter === 'openai' && server?.name === 'Ollama' && listed.status === 404) {
    add('error', 'its api_base leads past the API', 'end api_base with /v1')
  }
}

/** Names on either side: of one host, because several keys may share what it serves. */
function compareHost(keys: readonly Key[], answers: readonly Listed[], server: Server | undefined, findings: Findings): void {
  const unused = new Map<string, string[]>()
  for (const [base, group] of Map.groupBy(keys.entries(), ([, key]) => key.base)) {
    const lists = group.flatMap(([i]) => {
      const { status, body } = answers[i] ?? { status: 0, body: undefined }
      return status === 200 ? (servedNames(body) ?? []) : []
    })
    const served = [...new Set(lists)]
    if (served.length === 0) continue
    const wanted = group.flatMap(([, { models }]) =>
      models.map(({ value }) => ({ alias: value.display_name, modelName: value.model_name })),
    )
    const compared = compareNames(wanted, served, { hasTags: server?.name === 'Ollama' })
    // llama.cpp serves the one model that it has under any name.
    const severity = server?.name === 'llama.cpp' && served.length === 1 ? 'note' : 'warning'
    for (const { alias, modelName } of compared.missing) {
      findings.add(
        severity,
        `model "${alias}" asks for "${modelName}", which it does not serve`,
        `set model_name to one of: ${shown(served)}`,
      )
    }
    unused.set(base, compared.unused)
  }
  const names = [...new Set([...unused.values()].flat())]
  if (names.length > 0) findings.add('note', `serves what no model uses: ${shown(names)}`)
}

function shown(names: readonly string[]): string {
  const more = names.length - NAMES_SHOWN
  return `${names.slice(0, NAMES_SHOWN).join(', ')}${more > 0 ? ` and ${more} more` : ''}`
}

/** The one request that a model works for, at the most one token long. */
async function sendProbe({ entry, upstream, models }: Key, { fetch, proxy }: ServerOptions): Promise<Verdict> {
  const target = models.find(({ value }) => !value.display_name.includes('*') && !value.model_name.includes('*'))
  if (!target) return ['note', 'was sent no probing request: no model of its own uses it']
  const check: BackgroundModelCheck = {
    enabled: true,
    mode: 'completion',
    interval_seconds: 60,
    timeout_seconds: PROBE_SECONDS,
    stale_after_seconds: 60,
    prompt: 'Say hello.',
    max_tokens: 1,
    ignore_statuses: undefined,
  }
  const dial = createDialer({ fetch, proxy, connectTimeoutMs: HOST_MS, monotonic: () => performance.now() })
  const { result, error } = await probe(
    dial,
    { entry: target, check, providerKey: entry, upstream },
    new AbortController().signal,
  )
  const alias = target.value.display_name
  if (result.outcome === 'passed') return ['ok', `model "${alias}" answered a probing request`]
  const why = error?.message ?? 'no reason told'
  const advice = 'a model that does not chat fails it always; otherwise see the log of the server'
  return ['warning', `model "${alias}" failed a probing request: ${why}`, advice]
}
