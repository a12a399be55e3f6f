import { describe, expect, test } from 'bun:test'
import { createClientType } from '../../src/telemetry/client-type.ts'

const clientType = createClientType([])

describe('the built-in table', () => {
  test.each([
    ['claude-cli/1.0.3 (external, cli)', 'claude-code'],
    ['codex_cli_rs/0.1', 'codex'],
    ['GitHubCopilotChat/0.20', 'github-copilot'],
    ['Zed/0.150', 'zed'],
    ['OpenAI/Python 1.55.0', 'openai-python'],
    ['OpenAI/JS 4.70', 'openai-node'],
    ['Anthropic/Python 0.40', 'anthropic-python'],
    ['ai-sdk/provider-utils/2.1 runtime/bun', 'vercel-ai-sdk'],
    ['llama_index.core', 'llamaindex'],
    ['curl/8.5.0', 'curl'],
    ['python-httpx/0.27', 'httpx'],
    ['Go-http-client/1.1', 'go-http-client'],
    ['undici', 'node'],
    ['Mozilla/5.0 (X11; Linux)', 'browser'],
    ['something of our own', 'other'],
    ['', 'unknown'],
    ['   ', 'unknown'],
    [undefined, 'unknown'],
    [null, 'unknown'],
  ])('%p is %s', (userAgent, client) => {
    expect(clientType(userAgent)).toBe(client)
  })

  test('the first that is found wins: a tool that says on which library it is built is the tool', () => {
    expect(clientType('aider/0.5 litellm/1.2 python-httpx')).toBe('aider')
  })
})

describe('rules of operators', () => {
  const own = createClientType([
    { pattern: '^batch-\\d+', client: 'nightly' },
    { pattern: 'CURL', client: 'scripts' },
  ])

  test('come first, ignore case and need not match the whole', () => {
    expect(own('Batch-17 on curl/8')).toBe('nightly')
    expect(own('my curl/8.5')).toBe('scripts')
    expect(own('OpenAI/Python 1.0')).toBe('openai-python')
  })
})

test('user agents that nobody has seen before do not pile up', () => {
  for (let at = 0; at < 5_000; at += 1) expect(clientType(`thing ${at}`)).toBe('other')
})
