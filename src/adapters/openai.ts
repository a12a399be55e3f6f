import type { Usage } from '../exchange.ts'
import { countOf } from '../wire/count.ts'
import { promptTokensOf } from '../wire/prompt-tokens.ts'
import type { Adapter, Operation, UpstreamError } from './adapter.ts'

/** Endpoints that people paste into `api_base`; one is cut back to its root (proxy-04 §1). */
const PASTED = [
  '/chat/completions',
  '/completions',
  '/embeddings',
  '/images/generations',
  '/audio/transcriptions',
  '/audio/translations',
  '/audio/speech',
]

/**
 * The API of OpenAI as vLLM, SGLang, Ollama, llama.cpp and others serve it.
 * Source: OpenAI API reference, "Chat", "Completions", "Embeddings"; the servers' own documentation for `reasoning`,
 * numeric `error.code` and cache counters.
 */
export const openai: Adapter = {
  headers: secret => ({ authorization: `Bearer ${secret}` }),
  base(apiBase, vendor) {
    const given = (apiBase ?? '').trim()
    if (given === '') return ['', 'openai'].includes(vendor.trim().toLowerCase()) ? 'https://api.openai.com/v1' : undefined
    let base = given.replace(/\/+$/, '')
    const pasted = PASTED.find(suffix => base.endsWith(suffix))
    if (pasted) base = base.slice(0, -pasted.length).replace(/\/+$/, '')
    const url = URL.parse(base)
    if (!url || (url.protocol !== 'http:' && url.protocol !== 'https:') || url.hostname === '') {
      throw new Error('api_base is not an http:// or https:// URL')
    }
    return /^https?:\/\/api\.openai\.com$/i.test(base) ? `${base}/v1` : base
  },
  paths: {
    chat: '/chat/completions',
    completions: '/completions',
    embeddings: '/embeddings',
    messages: '/v1/messages',
    count_tokens: '/v1/messages/count_tokens',
    responses: '/responses',
    ollama_chat: '/api/chat',
    ollama_generate: '/api/generate',
    ollama_embed: '/api/embed',
    ollama_embeddings: '/api/embeddings',
    rerank: '/rerank',
    score: '/score',
    classify: '/classify',
    pooling: '/pooling',
    tokenize: '/tokenize',
    detokenize: '/detokenize',
    images: '/images/generations',
    image_edits: '/images/edits',
    speech: '/audio/speech',
    transcriptions: '/audio/transcriptions',
    translations: '/audio/translations',
    files: '/files',
    batches: '/batches',
    fine_tuning: '/fine_tuning/jobs',
    realtime: '/realtime',
  },
  baseOf,
  error: readError,
  usage: readUsage,
}

/** What vLLM, SGLang and Ollama serve beside `/v1`, not below it (spec/README, row 21). */
const AT_THE_ROOT: ReadonlySet<Operation> = new Set([
  ...(['score', 'classify', 'pooling', 'tokenize', 'detokenize'] as const),
  ...(['ollama_chat', 'ollama_generate', 'ollama_embed', 'ollama_embeddings'] as const),
])

/** What is relayed raw, where a base without any path means `/v1`. */
const BELOW_V1: ReadonlySet<Operation> = new Set([
  ...(['rerank', 'responses', 'image_edits', 'realtime'] as const),
  ...(['speech', 'transcriptions', 'translations', 'files', 'batches', 'fine_tuning'] as const),
])

/** The second rule of proxy-04 §1: without any path `/v1` is meant; what engines serve at their root is looked for there. */
function baseOf(operation: Operation, base: string): string {
  if (AT_THE_ROOT.has(operation)) return base.replace(/\/v1$/, '')
  if (operation === 'messages' || operation === 'count_tokens') return base.replace(/\/messages$/, '').replace(/\/v1$/, '')
  if (!BELOW_V1.has(operation)) return base
  const cut = base.replace(/\/(?:responses|messages|rerank)$/, '')
  return /^https?:\/\/[^/]+$/i.test(cut) ? `${cut}/v1` : cut
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function textOf(value: unknown): string | undefined {
  if (typeof value === 'string' && value !== '') return value
  // vLLM and SGLang send the status as a number.
  return typeof value === 'number' ? String(value) : undefined
}

/**
 * `{"error":{"message",…}}`, and what servers send besides: `{"error":"text"}` (Ollama's own API), the bare
 * `{"object":"error","message",…}` of older vLLM and SGLang, and `{"detail":…}` of FastAPI.
 */
function readError(body: unknown): UpstreamError | undefined {
  if (!isRecord(body)) return undefined
  const { error } = body
  if (typeof error === 'string' && error !== '') return { message: error, code: textOf(body.code), param: textOf(body.param) }
  const told = isRecord(error) ? error : body.object === 'error' ? body : undefined
  if (told) {
    const message = textOf(told.message) ?? textOf(told.detail)
    return { message: message ?? JSON.stringify(told), code: textOf(told.code), param: textOf(told.param) }
  }
  const { detail } = body
  if (typeof detail === 'string' && detail !== '') return { message: detail, code: undefined, param: undefined }
  if (Array.isArray(detail)) return { message: JSON.stringify(detail), code: undefined, param: undefined }
  return undefined
}

function readUsage(usage: unknown): Usage | undefined {
  if (!isRecord(usage)) return undefined
  const prompt = promptTokensOf(usage)
  const completionDetails = isRecord(usage.completion_tokens_details) ? usage.completion_tokens_details : {}
  const totalTokens = countOf(usage.total_tokens)
  const completionTokens = countOf(usage.completion_tokens)
  return {
    // Embedding servers tell the total alone: then it is the prompt's.
    promptTokens: prompt.all || (usage.prompt_tokens === undefined ? Math.max(totalTokens - completionTokens, 0) : 0),
    completionTokens,
    totalTokens,
    cachedTokens: prompt.cached,
    ...(prompt.cacheRead > 0 ? { cacheReadTokens: prompt.cacheRead } : {}),
    ...(prompt.cacheCreation > 0 ? { cacheCreationTokens: prompt.cacheCreation } : {}),
    reasoningTokens: countOf(completionDetails.reasoning_tokens),
    isEstimated: false,
  }
}
