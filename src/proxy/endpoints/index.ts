/** The registry of endpoints that reach an upstream. Each is one file and one line here. */
import { chatCompletions } from './chat-completions.ts'
import { completions } from './completions.ts'
import { countTokens } from './count-tokens.ts'
import { embeddings } from './embeddings.ts'
import type { Endpoint } from './endpoint.ts'
import { JOBS } from './jobs.ts'
import { messages } from './messages.ts'
import { OLLAMA } from './ollama.ts'
import { RELAYED } from './relayed.ts'
import { responses } from './responses.ts'

export const ENDPOINTS: readonly Endpoint[] = [
  chatCompletions,
  completions,
  embeddings,
  messages,
  countTokens,
  responses,
  ...OLLAMA,
  ...RELAYED,
  ...JOBS,
]
