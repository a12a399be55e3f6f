/** Dialects that a provider key may name. The registry in `index.ts` says which of them this version speaks. */
export const adapterNames = ['openai', 'anthropic', 'bedrock', 'vertex', 'azure-openai'] as const
export type AdapterName = (typeof adapterNames)[number]
