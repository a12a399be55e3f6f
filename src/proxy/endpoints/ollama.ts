/** What Ollama's own clients ask. Source: Ollama, docs/api.md. */
import { z } from 'zod'
import type { Dialect, Json } from '../../dialects/dialect.ts'
import {
  droppedMembers,
  embedAnswer,
  embedQuestion,
  isLoadRequest,
  loadAnswer,
  type OllamaKind,
  oldEmbedAnswer,
  oldEmbedQuestion,
  ollamaChat,
  ollamaGenerate,
} from '../../dialects/ollama.ts'
import type { Endpoint } from './endpoint.ts'
import { translatedEndpoint } from './translated.ts'

/** The label of models that an Ollama server serves: it is asked in its own dialect. */
const OLLAMA_LABEL = 'ollama'

/** Says what only an Ollama server would have understood. */
const warning = (body: Json, provider: string): string | undefined => {
  // It is one: nothing was left out.
  if (provider === OLLAMA_LABEL) return undefined
  const dropped = droppedMembers(body)
  return dropped.length === 0 ? undefined : `${dropped.join(', ')}: only an Ollama server understands this; it was left out`
}

/** A dialect whose requests to load a model are answered without asking it: nothing here loads or unloads. */
function loading(kind: OllamaKind, dialect: Dialect): Endpoint {
  return {
    ...translatedEndpoint({
      name: `ollama_${kind}`,
      path: `/api/${kind}`,
      dialect,
      native: {
        operation: `ollama_${kind}`,
        speaks: provider => provider === OLLAMA_LABEL,
        shape: 'lines',
        renames: true,
      },
      promptMember: kind === 'chat' ? 'messages' : 'prompt',
      more: { messages: z.unknown(), prompt: z.unknown() },
    }),
    takesAnyType: true,
    warning,
    atOnce: (body, asked) => (isLoadRequest(body) ? loadAnswer(body, asked, kind) : undefined),
  }
}

function embedding(path: string, dialect: Pick<Dialect, 'question' | 'answer'>): Endpoint {
  return {
    ...translatedEndpoint({ name: 'ollama_embed', path, dialect: { ...ollamaChat, ...dialect } }),
    operation: 'embeddings',
    promptMember: 'input',
    answerMember: 'data',
    alwaysSendsStream: false,
    noun: 'embeddings',
    takesAnyType: true,
    warning,
  }
}

export const OLLAMA: readonly Endpoint[] = [
  loading('chat', ollamaChat),
  loading('generate', ollamaGenerate),
  embedding('/api/embed', { question: embedQuestion, answer: embedAnswer }),
  embedding('/api/embeddings', { question: oldEmbedQuestion, answer: oldEmbedAnswer }),
]
