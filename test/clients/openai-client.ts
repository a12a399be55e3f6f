import OpenAI from 'openai'
import type { ClientGateway } from './harness.ts'

/** No retries: what a test asserts is the first answer. */
export function openAiClient({ openAiUrl, key }: ClientGateway, apiKey = key): OpenAI {
  return new OpenAI({ baseURL: openAiUrl, apiKey, maxRetries: 0 })
}
