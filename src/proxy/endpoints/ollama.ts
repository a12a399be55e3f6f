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
import { aliasOfOllama } from '../resolve.ts'
import type { Endpoint, NativeRelay } from './endpoint.ts'
import { model } from './fields.ts'
import { translatedEndpoint } from './translated.ts'

/** The label of models that an Ollama server serves: it is asked in its own dialect. */
const OLLAMA_LABEL = 'ollama'

/** Says what only an Ollama server would have understood. in: which members of a body these are */
const warningOf = (droppedOf: (body: Json) => readonly string[]) => (body: Json, provider: string) => {
  // It is one: nothing was left out.
  if (provider === OLLAMA_LABEL) return undefined
  const dropped = droppedOf(body)
  return dropped.length === 0 ? undefined : `${dropped.join(', ')}: only an Ollama server understands this; it was left out`
}

/** The members of a request for embeddings that have no counterpart in OpenAI's. */
const droppedOfEmbedding = (body: Json) =>
  ['keep_alive', 'options', 'truncate'].filter(name => body[name] !== undefined && body[name] !== null)

function nativeRelay(operation: NativeRelay['operation']): NativeRelay {
  return { operation, speaks: provider => provider === OLLAMA_LABEL, shape: 'lines', renames: true }
}

/** A dialect whose requests to load a model are answered without asking it: nothing here loads or unloads. */
function loading(kind: OllamaKind, dialect: Dialect): Endpoint {
  return {
    ...translatedEndpoint({
      name: `ollama_${kind}`,
      path: `/api/${kind}`,
      dialect,
      native: nativeRelay(`ollama_${kind}`),
      promptMember: kind === 'chat' ? 'messages' : 'prompt',
      more: { messages: z.unknown(), prompt: z.unknown() },
    }),
    takesAnyType: true,
    aliasOf: aliasOfOllama,
    warning: warningOf(droppedMembers),
    atOnce: (body, asked) => (isLoadRequest(body) ? loadAnswer(body, asked, kind) : undefined),
  }
}

function embedding(
  operation: 'ollama_embed' | 'ollama_embeddings',
  path: string,
  promptMember: 'input' | 'prompt',
  dialect: Pick<Dialect, 'question' | 'answer'>,
): Endpoint {
  // Without `stream`: there is none of embeddings.
  const schema = z.looseObject({ model, input: z.unknown(), prompt: z.unknown() })
  return {
    ...translatedEndpoint({
      name: 'ollama_embed',
      path,
      dialect: { ...ollamaChat, ...dialect },
      native: nativeRelay(operation),
      promptMember,
    }),
    operation: 'embeddings',
    schema,
    keys: Object.keys(schema.shape),
    answerMember: 'data',
    alwaysSendsStream: false,
    noun: 'embeddings',
    takesAnyType: true,
    aliasOf: aliasOfOllama,
    warning: warningOf(droppedOfEmbedding),
  }
}

export const OLLAMA: readonly Endpoint[] = [
  loading('chat', ollamaChat),
  loading('generate', ollamaGenerate),
  embedding('ollama_embed', '/api/embed', 'input', { question: embedQuestion, answer: embedAnswer }),
  embedding('ollama_embeddings', '/api/embeddings', 'prompt', { question: oldEmbedQuestion, answer: oldEmbedAnswer }),
]
