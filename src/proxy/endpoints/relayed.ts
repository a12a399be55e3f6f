import { z } from 'zod'
import type { RelayedOperation } from '../../adapters/adapter.ts'
import { nativeTranscripts } from '../native.ts'
import type { Endpoint, EndpointQuestion, Form, Relay } from './endpoint.ts'
import { isPlainQuestion, model } from './fields.ts'

/** What a 501 calls them. */
const NOUNS: Partial<Record<RelayedOperation, string>> = {
  rerank: 'reranking',
  images: 'image generation',
  image_edits: 'image edits',
  speech: 'speech',
  transcriptions: 'transcription',
  translations: 'translation',
}

/** What records call those that are not called by their operation. source: proxy-09 §3 */
const HANDLERS: Partial<Record<RelayedOperation, string>> = {
  image_edits: 'images',
  speech: 'audio',
  transcriptions: 'audio',
  translations: 'audio',
}

const schema = z.looseObject({ model })

/**
 * Endpoints of private model servers whose bodies nobody looks into: `model` becomes the upstream's name, the rest goes through
 * byte for byte, and so does the answer. source: proxy-03 §7, spec/README §2 and row 21
 */
function relayedEndpoint(
  operation: RelayedOperation,
  path: string,
  relay: Relay = { usage: 'estimated' },
  form?: Form,
): Endpoint {
  return {
    name: HANDLERS[operation] ?? operation,
    path,
    operation,
    relay,
    ...(form && { form }),
    schema,
    keys: relay.refusesStreams ? ['model', 'stream'] : ['model'],
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

const withoutImages = (path: string) => (provider: string, alias: string) =>
  WITHOUT.includes(provider)
    ? `model \`${alias}\` is not an OpenAI provider; ${path} requires a model of a server that makes images`
    : undefined

/** A recording: how long it is says nothing of tokens. */
const RECORDING: Relay = { usage: 'told', events: nativeTranscripts }
const RECORDING_FORM: Form = { model: 'alias', files: ['file'], isRecording: true, stream: 'relayed' }

/** Counting tokens uses up none. */
const UNCOUNTED: Relay = { usage: 'none' }

/** What engines serve at their root has both spellings here. */
export const RELAYED: readonly Endpoint[] = [
  relayedEndpoint('rerank', '/v1/rerank', {
    usage: 'estimated',
    refusal: (provider, alias) =>
      WITHOUT.includes(provider)
        ? `model \`${alias}\` is not an OpenAI, Cohere, or Jina provider; /v1/rerank requires a model of a server that reranks`
        : undefined,
  }),
  relayedEndpoint('images', '/v1/images/generations', {
    usage: 'estimated',
    refusesStreams: true,
    refusal: withoutImages('/v1/images/generations'),
  }),
  relayedEndpoint(
    'image_edits',
    '/v1/images/edits',
    { usage: 'told', refusal: withoutImages('/v1/images/edits') },
    { model: 'alias', files: ['image', 'image[]'], stream: 'refused' },
  ),
  relayedEndpoint('transcriptions', '/v1/audio/transcriptions', RECORDING, RECORDING_FORM),
  relayedEndpoint('translations', '/v1/audio/translations', RECORDING, RECORDING_FORM),
  relayedEndpoint('speech', '/v1/audio/speech', { usage: 'estimated', isStreamed: true }),
  ...(['score', 'classify', 'pooling'] as const).flatMap(each => [
    relayedEndpoint(each, `/v1/${each}`),
    relayedEndpoint(each, `/${each}`),
  ]),
  ...(['tokenize', 'detokenize'] as const).flatMap(each => [
    relayedEndpoint(each, `/v1/${each}`, UNCOUNTED),
    relayedEndpoint(each, `/${each}`, UNCOUNTED),
  ]),
]
