import { compilePattern } from '../lib/pattern.ts'

/** Parts of a user agent, lower case, and what such clients are called; the first that is found wins. source: control-observability §2.2 */
export const KNOWN_CLIENTS: readonly (readonly [part: string, client: string])[] = [
  ['claude-cli', 'claude-code'],
  ['claude-code', 'claude-code'],
  ['codex', 'codex'],
  ['cline', 'cline'],
  ['roo-code', 'roo-code'],
  ['roocode', 'roo-code'],
  ['kilo-code', 'kilocode'],
  ['kilocode', 'kilocode'],
  ['zoo-code', 'zoo-code'],
  ['zoocode', 'zoo-code'],
  ['githubcopilot', 'github-copilot'],
  ['cursor', 'cursor'],
  ['opencode', 'opencode'],
  ['qwencode', 'qwen-code'],
  ['geminicli', 'gemini-cli'],
  ['charm-crush', 'crush'],
  ['zed/', 'zed'],
  ['aider', 'aider'],
  ['openai-python', 'openai-python'],
  ['openai/python', 'openai-python'],
  ['openai-node', 'openai-node'],
  ['openai/js', 'openai-node'],
  ['anthropic-sdk-python', 'anthropic-python'],
  ['anthropic/python', 'anthropic-python'],
  ['anthropic-sdk-typescript', 'anthropic-typescript'],
  ['anthropic/js', 'anthropic-typescript'],
  ['langchain', 'langchain'],
  ['llama-index', 'llamaindex'],
  ['llama_index', 'llamaindex'],
  ['llamaindex', 'llamaindex'],
  ['litellm', 'litellm'],
  ['ai-sdk/provider-utils', 'vercel-ai-sdk'],
  ['curl', 'curl'],
  ['python-requests', 'python-requests'],
  ['python-httpx', 'httpx'],
  ['httpx', 'httpx'],
  ['aiohttp', 'aiohttp'],
  ['okhttp', 'okhttp'],
  ['go-http-client', 'go-http-client'],
  ['node-fetch', 'node'],
  ['undici', 'node'],
  ['axios', 'node'],
  ['postmanruntime', 'postman'],
  ['mozilla', 'browser'],
]

/** Characters of a user agent that are looked at: operators' patterns run over it. */
const LOOKED_AT = 512
/** User agents whose client is remembered. */
const REMEMBERED_MAX = 1_000

/**
 * What kind of program asks, by its user agent: the operator's rules, then the built-in table; `unknown` without a user
 * agent, `other` where nothing fits.
 */
export function createClientType(
  rules: readonly { pattern: string; client: string }[],
): (userAgent: string | null | undefined) => string {
  const own = rules.map(({ pattern, client }) => ({ matches: compilePattern(pattern, { ignoreCase: true }), client }))
  const known = new Map<string, string>()
  return userAgent => {
    if (userAgent === null || userAgent === undefined || userAgent === '') return 'unknown'
    const remembered = known.get(userAgent)
    if (remembered !== undefined) return remembered
    const text = userAgent.slice(0, LOOKED_AT).trim().toLowerCase()
    const client =
      text === ''
        ? 'unknown'
        : (own.find(({ matches }) => matches(text))?.client ??
          KNOWN_CLIENTS.find(([part]) => text.includes(part))?.[1] ??
          'other')
    // Callers say what they like here, and as much of it as a head may have.
    if (userAgent.length > LOOKED_AT) return client
    if (known.size >= REMEMBERED_MAX) known.clear()
    known.set(userAgent, client)
    return client
  }
}
