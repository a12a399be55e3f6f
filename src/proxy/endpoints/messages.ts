import { z } from 'zod'
import { messages as dialect } from '../../dialects/messages.ts'
import { translatedEndpoint } from './translated.ts'

/** Source: Anthropic API reference, "Create a message"; contract proxy-03 §4. */
export const messages = translatedEndpoint({
  name: 'messages',
  path: '/v1/messages',
  dialect,
  more: { messages: z.unknown() },
})
