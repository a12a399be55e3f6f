import { countOf } from './count.ts'

/** Tokens of a prompt: all of them, and which of them a cache gave or took. */
export type PromptTokens = { all: number; cached: number; cacheRead: number; cacheCreation: number }

/**
 * What the `usage` of a chat answer says of its prompt. OpenAI's kind of server counts what came out of a cache in
 * `prompt_tokens`, Anthropic's beside it, and so does a chat answer that was made of one (proxy-04 §3). Servers between send
 * Anthropic's counters with either: the total tells which it is.
 */
export function promptTokensOf(usage: Record<string, unknown>): PromptTokens {
  const prompt = countOf(usage.prompt_tokens)
  const cacheRead = countOf(usage.cache_read_input_tokens)
  const cacheCreation = countOf(usage.cache_creation_input_tokens)
  const details = usage.prompt_tokens_details
  const told = typeof details === 'object' && details !== null && 'cached_tokens' in details ? countOf(details.cached_tokens) : 0
  const cached = told || countOf(usage.prompt_cache_hit_tokens) || cacheRead
  const beside = cacheRead + cacheCreation
  const isBeside = beside > 0 && countOf(usage.total_tokens) === prompt + countOf(usage.completion_tokens) + beside
  return { all: isBeside ? prompt + beside : prompt, cached, cacheRead, cacheCreation }
}
