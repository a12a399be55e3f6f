/** What of a path tells the dialect of whoever asks, where no endpoint that reaches a model has it. */
import { messages } from '../dialects/messages.ts'
import { ollamaError } from '../dialects/ollama.ts'
import type { GatewayError } from '../errors.ts'

const below = (path: string, parent: string) => path.startsWith(`${parent}/`)

/**
 * Whether its caller is a client of Anthropic's: the list of models has one path in both dialects, and only theirs send this header.
 * source: Anthropic API reference, "Versions"
 */
export function isAnthropic(path: string, headers: Headers): boolean {
  if (below(path, '/v1/messages')) return true
  return (path === '/v1/models' || below(path, '/v1/models')) && headers.has('anthropic-version')
}

/** The document of an error, where it is not OpenAI's. */
export function envelopeOf(path: string, headers: Headers): ((error: GatewayError) => unknown) | undefined {
  if (below(path, '/api')) return ollamaError
  return isAnthropic(path, headers) ? messages.error : undefined
}

/** Parts of the dialects that are not here, each with what to do instead. The first that matches a path counts. */
export const NOT_HERE = [
  ['/v1/messages/batches', 'there is no Message Batches API here: send each message to /v1/messages'],
  ['/v1/messages/batches/*', 'there is no Message Batches API here: send each message to /v1/messages'],
  ['/v1/messages/*', 'there is no such endpoint here: below /v1/messages there is count_tokens alone'],
  [
    '/v1/responses/*',
    'there is nothing below /v1/responses here, since nothing stores responses: send the whole conversation to /v1/responses',
  ],
  [
    '/api/*',
    'there is no such endpoint here: of the API of Ollama, it has chat, generate, embed, embeddings, tags, show, ps and version',
  ],
] as const
