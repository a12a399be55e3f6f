import { z } from 'zod'
import { anthropic } from '../../adapters/anthropic.ts'
import { messages as dialect, droppedBlocks } from '../../dialects/messages.ts'
import { nativeMessages } from '../native.ts'
import type { NativeRelay } from './endpoint.ts'
import { translatedEndpoint } from './translated.ts'

/** Servers that speak Messages themselves. */
export const nativeRelay: NativeRelay = {
  operation: 'messages',
  // The label of the model counts as well, whatever its provider key says (spec/README, row 11).
  speaks: (provider, { adapter }) => provider === 'anthropic' || adapter === anthropic,
  shape: nativeMessages,
  renames: true,
}

/** Source: Anthropic API reference, "Create a message"; contract proxy-03 §4. */
export const messages = translatedEndpoint({
  name: 'messages',
  path: '/v1/messages',
  dialect,
  native: nativeRelay,
  dropped: droppedBlocks,
  more: { messages: z.unknown() },
})
