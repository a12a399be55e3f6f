import { z } from 'zod'
import { responses as dialect, droppedItems } from '../../dialects/responses.ts'
import { nativeResponses } from '../native.ts'
import { translatedEndpoint } from './translated.ts'

/** Source: OpenAI API reference, "Create a model response"; contract proxy-03 §6. */
export const responses = translatedEndpoint({
  name: 'responses',
  path: '/v1/responses',
  dialect,
  native: {
    operation: 'responses',
    speaks: (provider, { hasResponses }) => provider === 'openai' || hasResponses,
    shape: nativeResponses,
    renames: false,
  },
  promptMember: 'input',
  dropped: droppedItems,
  more: { input: z.unknown() },
})
