/** What metrics and records call the endpoint of a request: a template, never a path that a caller chose. */
export type EndpointLabels = {
  /** Its place among all of them, for tables. */
  index: number
  endpoint: string
  inboundProtocol: 'openai' | 'anthropic' | 'ollama' | 'mcp' | 'a2a' | 'realtime' | 'passthrough'
  /** Counted in the `aisix_llm_*` families. */
  isLlm: boolean
}

/** source: control-observability §1.2 */
const FIXED = [
  '/livez',
  '/readyz',
  '/v1/models',
  '/v1/chat/completions',
  '/v1/completions',
  '/v1/embeddings',
  '/v1/images/generations',
  '/v1/images/edits',
  '/v1/messages',
  '/v1/messages/count_tokens',
  '/v1/rerank',
  '/v1/score',
  '/v1/classify',
  '/v1/pooling',
  '/v1/tokenize',
  '/v1/detokenize',
  '/v1/responses',
  '/v1/audio/transcriptions',
  '/v1/audio/translations',
  '/v1/audio/speech',
  '/v1/videos',
  '/v1/realtime',
  '/api/chat',
  '/api/generate',
  '/api/embed',
  '/api/embeddings',
  '/api/tags',
  '/api/show',
  '/api/ps',
  '/api/version',
  '/v1/files',
  '/v1/batches',
  '/v1/fine_tuning/jobs',
] as const
const COLLAPSED = ['/v1/videos/:id', '/v1/files/:id', '/v1/batches/:id', '/v1/fine_tuning/jobs/:id'] as const
/** What a passthrough route takes, whatever its path. */
const PASSTHROUGH_ROUTE = '/passthrough_route'
/** Every value that the label `endpoint` can have. */
export const ENDPOINT_LABELS: readonly string[] = [...FIXED, ...COLLAPSED, PASSTHROUGH_ROUTE, 'other']
const ANTHROPIC: readonly string[] = ['/v1/messages', '/v1/messages/count_tokens']
/** Paths that reach no model. */
const NOT_LLM: readonly string[] = [
  ...['/api/tags', '/api/show', '/api/ps', '/api/version'],
  ...['/livez', '/readyz', '/v1/models', '/v1/files', '/v1/batches', '/v1/fine_tuning/jobs'],
  ...['/v1/files/:id', '/v1/batches/:id', '/v1/fine_tuning/jobs/:id', PASSTHROUGH_ROUTE, 'other'],
]

function protocolOf(endpoint: string): EndpointLabels['inboundProtocol'] {
  if (ANTHROPIC.includes(endpoint)) return 'anthropic'
  if (endpoint.startsWith('/api/')) return 'ollama'
  if (endpoint === PASSTHROUGH_ROUTE) return 'passthrough'
  return endpoint === '/v1/realtime' ? 'realtime' : 'openai'
}

function labelsOf(endpoint: string, index: number): EndpointLabels {
  return {
    index,
    endpoint,
    inboundProtocol: protocolOf(endpoint),
    isLlm: !NOT_LLM.includes(endpoint),
  }
}

const byPath = new Map(FIXED.map((endpoint, index): [string, EndpointLabels] => [endpoint, labelsOf(endpoint, index)]))
// What engines serve at their root is the same endpoint in another spelling.
for (const name of ['/score', '/classify', '/pooling', '/tokenize', '/detokenize']) {
  const labels = byPath.get(`/v1${name}`)
  if (labels) byPath.set(name, labels)
}
const collapsed = COLLAPSED.map((template, index) => ({
  prefix: template.slice(0, -':id'.length),
  labels: labelsOf(template, FIXED.length + index),
}))
/** Of requests that a passthrough route takes: which these are, no path tells. */
export const PASSTHROUGH_LABELS = labelsOf(PASSTHROUGH_ROUTE, FIXED.length + COLLAPSED.length)
const OTHER = labelsOf('other', FIXED.length + COLLAPSED.length + 1)

/** in: the path without its query */
export function endpointLabels(path: string): EndpointLabels {
  return byPath.get(path) ?? collapsed.find(({ prefix }) => path.startsWith(prefix) && path !== prefix)?.labels ?? OTHER
}
