/** TLS as the runtime's `fetch` takes it. */
export type TlsOptions = {
  ca?: string[]
  cert?: string
  key?: string
  rejectUnauthorized: boolean
}

/** What `fetch` is told: every option said, so that no default of the runtime and no environment variable decides. */
export type FetchInit = {
  method: string
  headers: Record<string, string> | Headers
  body?: string | Uint8Array | ReadableStream<Uint8Array>
  signal: AbortSignal
  /** A redirect is an answer: the credential never follows one. */
  redirect: 'manual'
  decompress: boolean
  keepalive: boolean
  /** `false` switches off `HTTP_PROXY` and its kin; undefined would not. */
  proxy: string | false
  /** The runtime gives up after some minutes by itself unless told not to: the gateway owns its deadlines. */
  timeout: false
  verbose: false
  tls?: TlsOptions
}

export type Fetch = (url: string, init: FetchInit) => Promise<Response>

/**
 * The runtime's `fetch`. Its published types lack `proxy: false` and `verbose: false`, which it takes; `Reflect.apply`
 * passes them on without a claim about types that would hide a real mistake elsewhere.
 */
export const runtimeFetch: Fetch = (url, init) => Reflect.apply(fetch, undefined, [url, init])
