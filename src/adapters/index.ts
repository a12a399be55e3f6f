/** The registry of dialects. A name without an adapter is known to the contract and not spoken by this version. */
import type { Adapter } from './adapter.ts'
import { anthropic } from './anthropic.ts'
import type { AdapterName } from './names.ts'
import { openai } from './openai.ts'

export const ADAPTERS: Partial<Record<AdapterName, Adapter>> = { openai, anthropic }

/**
 * The adapter of a provider key: the labels `openai` and `anthropic` are pinned to the dialect of that name, every other
 * label goes by `adapter` (proxy-04, adapter choice).
 */
export function adapterOf(provider: string, adapter: AdapterName | undefined): Adapter | undefined {
  const name = provider === 'openai' || provider === 'anthropic' ? provider : adapter
  return name === undefined ? undefined : ADAPTERS[name]
}
