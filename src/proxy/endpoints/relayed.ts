import { z } from 'zod'
import type { RelayedOperation } from '../../adapters/adapter.ts'
import type { Endpoint, EndpointQuestion, Relay } from './endpoint.ts'
import { isPlainQuestion, model } from './fields.ts'

/** What a 501 calls them. */
const NOUNS: Partial<Record<RelayedOperation, string>> = { rerank: 'reranking', images: 'image generation', speech: 'speech' }

const schema = z.looseObject({ model })

/**
 * Endpoints of private model servers whose bodies nobody looks into: `model` becomes the upstream's name, the rest goes through
 * byte for byte, and so does the answer. source: proxy-03 §7, spec/README §2 and row 21
 */
function relayedEndpoint(operation: RelayedOperation, path: string, relay: Relay = { isCounted: true }): Endpoint {
  return {
    name: operation,
    path,
    operation,
    relay,
    schema,
    keys: ['model'],
    isPlain: (value): value is EndpointQuestion => isPlainQuestion(value),
    promptMember: undefined,
    answerMember: 'data',
    alwaysSendsStream: false,
    hasCallId: false,
    fillsUsage: false,
    noun: NOUNS[operation] ?? `/${operation}`,
  }
}

/** Vendors that are known to have neither reranking nor images; any other label may be a private server. source: spec/README, row 11 */
const WITHOUT = ['anthropic', 'deepseek']

/** Counting tokens uses up none. */
const UNCOUNTED: Relay = { isCounted: false }

/** What engines serve at their root has both spellings here. */
export const RELAYED: readonly Endpoint[] = [
  relayedEndpoint('rerank', '/v1/rerank', {
    isCounted: true,
    refusal: (provider, alias) =>
      WITHOUT.includes(provider)
        ? `model \`${alias}\` is not an OpenAI, Cohere, or Jina provider; /v1/rerank requires a model of a server that reranks`
        : undefined,
  }),
  relayedEndpoint('images', '/v1/images/generations', {
    isCounted: true,
    refusal: (provider, alias) =>
      WITHOUT.includes(provider)
        ? `model \`${alias}\` is not an OpenAI provider; /v1/images/generations requires a model of a server that makes images`
        : undefined,
  }),
  relayedEndpoint('speech', '/v1/audio/speech', { isCounted: true, isStreamed: true }),
  ...(['score', 'classify', 'pooling'] as const).flatMap(each => [
    relayedEndpoint(each, `/v1/${each}`),
    relayedEndpoint(each, `/${each}`),
  ]),
  ...(['tokenize', 'detokenize'] as const).flatMap(each => [
    relayedEndpoint(each, `/v1/${each}`, UNCOUNTED),
    relayedEndpoint(each, `/${each}`, UNCOUNTED),
  ]),
]
