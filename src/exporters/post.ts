/** The way out over HTTP: one request, one deadline, an answer of which little is read. */
// Not `import { rootCertificates }`: that would read all roots at the start, 20 ms, for the few gateways that need them.
import nodeTls from 'node:tls'
import type { Fetch, TlsOptions } from '../lib/fetch.ts'
import { transportCause } from '../lib/transport-cause.ts'
import type { Outcome } from './destination.ts'

/** `upstream.tls` of the configuration as texts. */
export type Tls = { ca: readonly string[]; cert: string | undefined; key: string | undefined; verify: boolean }

/** How exporters dial, of the whole process. */
export type Network = { fetch: Fetch; proxy: string | undefined; tls: Tls | undefined }

export type Message = {
  method: 'POST' | 'PUT'
  url: string
  headers: Record<string, string>
  body: string | Uint8Array<ArrayBuffer>
}

/** What is read of an answer: it says what was wrong in its first words, and one that never ends must not be followed. */
const ANSWER_BYTES_MAX = 64 * 1024

export type Post = (message: Message, signal: AbortSignal, read: Reader) => Promise<Outcome>

/** Looks into an answer. in: its text, cut at 64 KiB; not always what the destination's protocol says */
export type Reader = {
  /** Of a 2xx: how much of the delivery was not taken. */
  rejected(text: string): number
  /** Of any other: what is to be added to its status; '' for nothing. Only words of ours or of a fixed form. */
  reason(status: number, text: string): string
}

export function createPost({ fetch, proxy, tls }: Network): Post {
  let tlsOptions: TlsOptions | undefined
  return async ({ method, url, headers, body }, signal, { rejected, reason }) => {
    if (url.startsWith('https:')) tlsOptions ??= readTls(tls)
    let response: Response
    try {
      response = await fetch(url, {
        method,
        headers: { ...headers, 'accept-encoding': 'identity' },
        body,
        signal,
        redirect: 'manual',
        decompress: false,
        keepalive: true,
        proxy: proxy ?? false,
        timeout: false,
        verbose: false,
        ...(tlsOptions && url.startsWith('https:') ? { tls: tlsOptions } : {}),
      })
    } catch (error) {
      return { isDelivered: false, problem: signal.aborted ? 'no answer in time' : transportCause(error), mayRetry: true }
    }
    const { status } = response
    const text = await readAnswer(response)
    if (status >= 200 && status < 300) return { isDelivered: true, rejected: rejected(text) }
    const isRedirect = status >= 300 && status < 400
    const more = isRedirect ? 'redirects are not followed; check endpoint' : reason(status, text)
    return {
      isDelivered: false,
      problem: `the answer was ${status}${more === '' ? '' : `: ${more}`}`,
      mayRetry: status >= 500 || status === 408 || status === 429,
      ...retryAfter(response.headers.get('retry-after')),
    }
  }
}

/** source: RFC 9110 §10.2.3, in seconds; a date is not followed */
function retryAfter(value: string | null): { retryAfterMs?: number } {
  return value !== null && /^\d{1,6}$/.test(value.trim()) ? { retryAfterMs: Number(value) * 1000 } : {}
}

/** The beginning of an answer. What fails or ends early is what there is of it: its status has been heard. */
async function readAnswer({ body }: Response): Promise<string> {
  if (!body) return ''
  const reader = body.getReader()
  const decoder = new TextDecoder()
  let text = ''
  let bytes = 0
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return text
      bytes += value.byteLength
      text += decoder.decode(value, { stream: true })
      if (bytes >= ANSWER_BYTES_MAX) break
    }
  } catch {
    // The deadline, or a connection that broke.
  }
  await reader.cancel().catch(() => {})
  return text
}

function readTls(tls: Tls | undefined): TlsOptions {
  if (!tls) return { rejectUnauthorized: true }
  const { ca, cert, key, verify } = tls
  return {
    // `ca` replaces the roots that are trusted by default: they are given again beside our own.
    ...(ca.length === 0 ? {} : { ca: [...nodeTls.rootCertificates, ...ca] }),
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
    rejectUnauthorized: verify,
  }
}
