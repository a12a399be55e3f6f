// Not `import { rootCertificates }`: that would read all roots at the start, 20 ms, for the few gateways that need them.
import nodeTls from 'node:tls'
import type { Adapter, Operation } from '../adapters/adapter.ts'
import { anthropic } from '../adapters/anthropic.ts'
import { adapterOf } from '../adapters/index.ts'
import { GatewayError } from '../errors.ts'
import type { TlsOptions } from '../lib/fetch.ts'
import type { ProviderKey } from '../resources/provider-key.ts'
import type { Entry } from '../store/store.ts'
import {
  compileForwarding,
  compileHeaderTemplate,
  type HeaderVariables,
  isHeaderName,
  isHeaderValue,
  maySet,
} from '../wire/headers.ts'
import type { BodyOverrides } from './encode.ts'
import { Uncounted } from './uncounted.ts'

/** A provider key made ready for requests: nothing of this is computed again while its document stays the same. */
export type Upstream = {
  id: string
  name: string
  adapter: Adapter
  /** Scheme, host and port: what connections are pooled by. */
  origin: string
  hostname: string
  port: number
  urls: Partial<Record<Operation, string>>
  headers: Record<string, string>
  /**
   * The same, and what else a request of each kind says, for those without headers of their operator or caller: the runtime
   * takes ready headers for half of what an object costs. All requests share them, and set their id before they are sent.
   */
  ready: { whole: Headers; stream: Headers }
  templates: readonly { name: string; render: (variables: HeaderVariables) => string | undefined }[]
  forwarded: ((headers: Headers) => [string, string][]) | undefined
  /** Built once: reading certificates costs far more than a request. */
  tls: TlsOptions | undefined
  overrides: BodyOverrides | undefined
  reasoningPath: readonly string[] | undefined
  doneMarker: 'required' | 'optional' | 'none' | undefined
  /** Whether streams are asked for usage; turned off for good once the server refused `stream_options`. */
  asksUsage: boolean
  /** The server speaks the Responses API itself, as its operator says. */
  hasResponses: boolean
  /** What carries the credential where Anthropic's dialect is spoken, whatever the provider key's own is. */
  messagesHeaders: Record<string, string>
  /** Whether servers of this dialect may have an endpoint that counts tokens. */
  countsTokens: boolean
  /** The models for which this one has none. */
  uncounted: Uncounted
}

/** `upstream.tls` of the configuration as texts, read once at the start. */
export type UpstreamTls = { ca: string[]; cert: string | undefined; key: string | undefined; verify: boolean }

/**
 * throws: provider_unavailable (no such adapter), invalid_upstream_config (no usable base), invalid_upstream_credentials
 */
export function compileUpstream(entry: Entry<'provider_keys'>, tls: UpstreamTls): Upstream {
  const { value } = entry
  const adapter = adapterOf(value.provider, value.adapter)
  if (!adapter) throw new GatewayError('provider_unavailable', 'no bridge registered for provider')
  let base: string | undefined
  try {
    base = adapter.base(value.api_base, value.provider)
  } catch (error) {
    throw new GatewayError('invalid_upstream_config', 'invalid upstream configuration: api_base is not a usable URL', {
      cause: error,
    })
  }
  if (base === undefined) {
    throw new GatewayError(
      'invalid_upstream_config',
      `invalid upstream configuration: provider_key for vendor "${value.provider}" has no upstream base URL configured`,
    )
  }
  const secret = secretOf(value)
  const url = new URL(base)
  const isTls = url.protocol === 'https:'
  const forward = value.request?.forward_client_headers ?? []
  const headers = {
    ...adapter.headers(secret),
    'content-type': 'application/json',
    'user-agent': USER_AGENT,
    'accept-encoding': 'identity',
  }
  return {
    id: entry.id,
    name: value.display_name,
    adapter,
    origin: url.origin,
    hostname: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? (isTls ? 443 : 80) : Number(url.port),
    urls: urlsOf(adapter, base),
    headers,
    ready: {
      whole: new Headers({ ...headers, accept: 'application/json' }),
      stream: new Headers({ ...headers, accept: 'text/event-stream' }),
    },
    templates: Object.entries(value.request?.default_headers ?? {})
      .filter(([name]) => isHeaderName(name) && maySet(name))
      .map(([name, template]) => ({ name: name.toLowerCase(), render: compileHeaderTemplate(template) })),
    forwarded: forward.length === 0 ? undefined : compileForwarding(forward),
    tls: isTls ? tlsOptions(value, tls) : undefined,
    overrides: bodyOverrides(value),
    reasoningPath: value.response?.reasoning_field?.split('.'),
    doneMarker: value.response?.stream_done_marker,
    asksUsage: value.response?.stream_usage !== 'off',
    hasResponses: value.response?.native_responses === true,
    messagesHeaders: anthropic.headers(secret),
    countsTokens: adapter.paths.tokenize !== undefined,
    uncounted: new Uncounted(),
  }
}

/** throws: invalid_upstream_credentials */
export function secretOf({ secret: given, display_name }: ProviderKey): string {
  const secret = given.trim()
  if (secret !== '' && isHeaderValue(secret)) return secret
  throw new GatewayError(
    'invalid_upstream_credentials',
    `invalid upstream credentials: the secret of provider key "${display_name}" is empty or not a legal header value`,
  )
}

function urlsOf(adapter: Adapter, base: string): Upstream['urls'] {
  const urls: Upstream['urls'] = {}
  let operation: Operation
  for (operation in adapter.paths)
    urls[operation] = (adapter.baseOf?.(operation, base) ?? base) + (adapter.paths[operation] ?? '')
  return urls
}

/** Fills in the operator's header templates: a header with an empty variable is left out, and none replaces one of ours but the user agent. */
export function addTemplated(headers: Record<string, string>, { templates }: Upstream, variables: HeaderVariables): void {
  for (const { name, render } of templates) {
    const value = render(variables)
    if (value !== undefined && (headers[name] === undefined || name === 'user-agent')) headers[name] = value
  }
}

export const USER_AGENT = 'aisix/0.1'

/** in: the provider key; undefined where none is used: then what the configuration says */
export function tlsOptions(value: ProviderKey | undefined, { ca, cert, key, verify }: UpstreamTls): TlsOptions {
  const own = [...ca, ...(value?.tls?.ca_cert === undefined ? [] : [value.tls.ca_cert])]
  return {
    // `ca` replaces the roots that are trusted by default: they are given again beside our own.
    ...(own.length === 0 ? {} : { ca: [...nodeTls.rootCertificates, ...own] }),
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
    rejectUnauthorized: verify && value?.tls?.verify !== false,
  }
}

function bodyOverrides({ request, response }: ProviderKey): BodyOverrides | undefined {
  const renames = Object.entries(request?.param_renames ?? {})
  const defaults = Object.entries(request?.default_body_fields ?? {})
  const temperatureMin = request?.param_constraints?.temperature_min
  const temperatureMax = request?.param_constraints?.temperature_max
  const flattensContent = response?.content_list_to_string === true
  if (
    renames.length + defaults.length === 0 &&
    temperatureMin === undefined &&
    temperatureMax === undefined &&
    !flattensContent
  ) {
    return undefined
  }
  return {
    renames,
    temperatureMin,
    temperatureMax,
    defaults: defaults.map(([key, given]) => [key, JSON.stringify(given)]),
    flattensContent,
  }
}
