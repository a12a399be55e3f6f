/** How a record lies in the table `attempts`, and on its way there. */
import type { Extra, Labels } from '../exchange.ts'
import { member } from '../lib/member.ts'

/** Places of a row's numbers in a batch, one after another. Absent strings and times are -1. */
export const FIELD = {
  at: 0,
  /** Index in the batch's `labels`. */
  labels: 1,
  /** Index in the batch's `strings`, as all texts that repeat. */
  route: 2,
  flags: 3,
  status: 4,
  promptTokens: 5,
  completionTokens: 6,
  cachedTokens: 7,
  reasoningTokens: 8,
  upstreamMs: 9,
  upstreamTtftMs: 10,
  downstreamMs: 11,
  totalMs: 12,
  costPico: 13,
  requestedModel: 14,
  finishReason: 15,
  modelVersion: 16,
  clientIp: 17,
  userAgent: 18,
  errorClass: 19,
  /** Lengths of the texts of the row in the batch's `text`; -1 for none. */
  requestId: 20,
  traceId: 21,
  providerRequestId: 22,
  errorMessage: 23,
} as const
export const FIELDS = 24

/** Bits of `flags`; the attempt's index lies above them. */
export const FLAG = { stream: 1, estimated: 2, priced: 4, terminal: 8 } as const
const KIND_SHIFT = 4
const INDEX_SHIFT = 6
export const KINDS = [undefined, 'initial', 'retry', 'fallback'] as const

export function packFlags(bits: number, kind: (typeof KINDS)[number], index: number): number {
  const kindNumber = kind === undefined ? 0 : kind === 'initial' ? 1 : kind === 'retry' ? 2 : 3
  return bits | (kindNumber << KIND_SHIFT) | (Math.min(index, 0xffff) << INDEX_SHIFT)
}
export const kindOf = (flags: number) => KINDS[(flags >> KIND_SHIFT) & 3]
export const indexOf = (flags: number) => flags >> INDEX_SHIFT

/** Columns of `attempts`, in the order in which rows are inserted and read. */
export const COLUMNS = [
  'seq',
  'at',
  'request',
  'labels',
  'route',
  'flags',
  'status',
  'prompt_tokens',
  'completion_tokens',
  'cached_tokens',
  'reasoning_tokens',
  'upstream_ms',
  'upstream_ttft_ms',
  'downstream_ms',
  'total_ms',
  'cost_pico',
  'requested_model',
  'finish_reason',
  'model_version',
  'client_ip',
  'user_agent',
  'trace',
  'provider_request',
  'error_class',
  'error_message',
  'extra',
] as const

/** An endpoint's route, handler and protocol always go together: one string for the three. */
export const routeText = (endpoint: string, handler: string, protocol: string) => `${endpoint}\n${handler}\n${protocol}`

/** Labels as the file keeps them: the same labels are always the same text. */
export function labelsText(labels: Labels): string {
  const { apiKeyId, teamId, userId, userName, name, modelId, model, isMember } = labels
  const { provider, upstreamModel, providerKeyId, providerKeyName } = labels
  return JSON.stringify({
    ...{ apiKeyId, teamId, userId, userName, name, modelId, model, isMember },
    ...{ provider, upstreamModel, providerKeyId, providerKeyName },
  })
}

/** What few rows have, as the file keeps it. Members of later versions may stand beside those that are known here. */
export function extraText(extra: Extra): string {
  const { authType, passthroughRoute, clientIdentity, audioSeconds, cacheReadTokens, cacheCreationTokens } = extra
  return JSON.stringify({ authType, passthroughRoute, clientIdentity, audioSeconds, cacheReadTokens, cacheCreationTokens })
}

/** The text of an extra that tells nothing. */
export const NO_EXTRA = '{}'

/** in: what `extraText` wrote, of this version or another one */
export function readExtra(text: string): Extra | undefined {
  const stored: unknown = JSON.parse(text)
  const string = (name: keyof Extra): string | undefined => {
    const value = member(stored, name)
    return typeof value === 'string' ? value : undefined
  }
  const passthroughRoute = string('passthroughRoute')
  const clientIdentity = string('clientIdentity')
  const number = (name: keyof Extra): number | undefined => {
    const value = member(stored, name)
    return typeof value === 'number' ? value : undefined
  }
  const audioSeconds = number('audioSeconds')
  const cacheReadTokens = number('cacheReadTokens')
  const cacheCreationTokens = number('cacheCreationTokens')
  const extra: Extra = {
    ...(string('authType') === 'anonymous' && { authType: 'anonymous' }),
    ...(passthroughRoute !== undefined && { passthroughRoute }),
    ...(clientIdentity !== undefined && { clientIdentity }),
    ...(audioSeconds !== undefined && { audioSeconds }),
    ...(cacheReadTokens !== undefined && { cacheReadTokens }),
    ...(cacheCreationTokens !== undefined && { cacheCreationTokens }),
  }
  for (const _name in extra) return extra
  return undefined
}
