/**
 * What a server seems to be, by what it says of itself. Sources: the servers' own documentation: vLLM `/version`, SGLang
 * `/get_server_info`, Ollama `/api/version`, llama.cpp `/props`, text-generation-inference `/info`, LiteLLM `/health/liveliness`.
 */

/** Paths at the root of a server that cost nothing to ask; `/models` is asked anyway. */
export const WELL_KNOWN = ['/version', '/api/version', '/props', '/get_server_info', '/info', '/health/liveliness'] as const
export type WellKnown = (typeof WELL_KNOWN)[number]

export type Evidence = {
  /** Headers of any answer, names in lower case. */
  headers: Readonly<Record<string, string>>
  /** What was answered 200: JSON where it is that, else its text. */
  answers: Partial<Record<WellKnown, unknown>>
  /** Body of the list of models. */
  models: unknown
}

export type Server = { name: string; version: string | undefined }

/** undefined where nothing is known of it: any server may speak the API of OpenAI. */
export function identify({ headers, answers, models }: Evidence): Server | undefined {
  const owners = new Set(dataOf(models).map(({ owned_by }) => textOf(owned_by)))
  const { server = '' } = headers
  const version = (path: WellKnown, member = 'version') => textOf(recordOf(answers[path])[member])
  if (headers['x-litellm-version'] !== undefined || /i'm alive/i.test(textOf(answers['/health/liveliness']) ?? '')) {
    return { name: 'LiteLLM', version: headers['x-litellm-version'] }
  }
  if (server.startsWith('AISIX/')) return { name: 'aisix', version: server.slice('AISIX/'.length) }
  // Before the others: it answers for Ollama and vLLM, too.
  if (Object.hasOwn(recordOf(answers['/get_server_info']), 'model_path') || owners.has('sglang')) {
    return { name: 'SGLang', version: version('/get_server_info') }
  }
  const props = recordOf(answers['/props'])
  if (/llama\.cpp/i.test(server) || owners.has('llamacpp') || 'default_generation_settings' in props) {
    return { name: 'llama.cpp', version: textOf(props.build_info) }
  }
  if (version('/api/version') !== undefined || owners.has('library')) return { name: 'Ollama', version: version('/api/version') }
  const info = recordOf(answers['/info'])
  if ('model_id' in info && ('max_concurrent_requests' in info || 'router' in info))
    return { name: 'TGI', version: textOf(info.version) }
  if (owners.has('vllm') || (version('/version') !== undefined && owners.size > 0))
    return { name: 'vLLM', version: version('/version') }
  return undefined
}

/** Names of models that a list of OpenAI's shape holds; undefined where it is none. */
export function servedNames(models: unknown): string[] | undefined {
  const { data } = recordOf(models)
  return Array.isArray(data) ? dataOf(models).flatMap(({ id }) => textOf(id) ?? []) : undefined
}

function dataOf(models: unknown): Record<string, unknown>[] {
  const { data } = recordOf(models)
  return Array.isArray(data) ? data.map(recordOf) : []
}

function recordOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : {}
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}
