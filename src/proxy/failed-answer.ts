import { GatewayError, withoutWords } from '../errors.ts'
import type { AttemptInput } from './attempt-input.ts'
import { ERROR_BYTES_MAX, readSome } from './held.ts'
import { cutMessage, upstreamWords } from './rewrite-answer.ts'
import type { Target } from './route.ts'

/** What to tell of an answer that is no 2xx (proxy-01 §8, upstream-caused errors). */
export async function failedAnswer(
  input: Pick<AttemptInput, 'exchange' | 'log'>,
  target: Target,
  response: Response,
): Promise<GatewayError> {
  const { status } = response
  const text = await readSome(response, ERROR_BYTES_MAX)
  const retryAfterSecs = wholeSeconds(response.headers.get('retry-after'))
  if (status >= 300 && status < 400) {
    return new GatewayError('upstream_error', `upstream returned ${status}; redirects are not followed; check api_base`, {
      upstreamStatus: status,
      retryAfterSecs,
    })
  }
  if (status >= 400 && status < 500) {
    const told = upstreamWords(target.upstream.adapter, text)
    return new GatewayError('upstream_error', cutMessage(told?.message ?? (text.trim() || `upstream returned ${status}`)), {
      status,
      code: told?.code,
      param: told?.param,
      recorded: withoutWords(`upstream returned ${status}`, told?.code),
      upstreamStatus: status,
      retryAfterSecs,
    })
  }
  // The text of a 5xx may hold anything: the log has its beginning, the caller is told where to look.
  input.log.as('upstream').warn('upstream answered with an error', {
    request_id: input.exchange.requestId,
    model: target.model,
    provider_key: target.upstream.name,
    status,
    body: cutMessage(text),
  })
  return new GatewayError(
    'upstream_error',
    `upstream returned ${status}; the gateway's log has its answer under this request id`,
    {
      upstreamStatus: status,
      retryAfterSecs,
      retry: 'yes',
    },
  )
}

/** Longest time that a header may tell: what is longer means the same to anybody who waits. */
const SECONDS_MAX = 999_999_999

export function wholeSeconds(header: string | null): number | undefined {
  return header !== null && /^\d+$/.test(header.trim()) ? Math.min(Number(header.trim()), SECONDS_MAX) : undefined
}
