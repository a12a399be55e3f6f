/** One entry of `model_list`: what is asked of which server. */
import { isHeaderName } from '../../lib/headers.ts'
import { maySet } from '../../wire/headers.ts'
import { FOREIGN, PROVIDERS, type Provider } from './providers.ts'
import { Reference, type Section } from './section.ts'

/** Members of a provider key; texts may be references. */
export type Server = {
  label: string
  adapter: 'openai' | 'anthropic'
  base: string | Reference | undefined
  secret: string | Reference
  headers: Readonly<Record<string, string | Reference>>
  body: Readonly<Record<string, unknown>>
  verifiesTls: boolean
}

export type Deployment = {
  alias: string
  modelName: string
  server: Server
  /** Members of a direct model that it says by itself, in our spelling. */
  members: Record<string, unknown>
  hasRetries: boolean
  /** What LiteLLM shares requests by: the first of these that any deployment of the name has. */
  shares: { readonly weight: number | undefined; readonly rpm: number | undefined; readonly tpm: number | undefined }
  order: number
  tags: string[]
  /** Where it is said. */
  section: Section
}

/** What a private server is sent where the file names no key. */
const PLACEHOLDER = 'not-used'

/** Parameters of requests that LiteLLM adds where the caller gives none. */
const BODY_DEFAULTS = [
  'temperature',
  'max_tokens',
  'max_completion_tokens',
  'top_p',
  'top_k',
  'min_p',
  'n',
  'stop',
  'seed',
  'presence_penalty',
  'frequency_penalty',
  'repetition_penalty',
  'logit_bias',
  'reasoning_effort',
  'response_format',
  'tool_choice',
  'parallel_tool_calls',
  'user',
  'thinking',
  'chat_template_kwargs',
  'dimensions',
]

/** Modes that need nothing: which endpoint is asked decides. */
const MODES = [
  'chat',
  'completion',
  'embedding',
  'rerank',
  'image_generation',
  'audio_speech',
  'audio_transcription',
  'responses',
  'batch',
  'realtime',
  'moderation',
]

/** returns: undefined where it cannot be had here; why is told */
export function readDeployment(entry: Section, seconds: SecondsReader): Deployment | undefined {
  const alias = entry.word('model_name')
  const params = entry.section('litellm_params')
  const info = entry.section('model_info')
  if (alias === undefined || alias === '') return refuse(entry, 'has no model_name; left out')
  if (!params) return refuse(entry, 'has no litellm_params; left out')
  const model = params.word('model')
  if (model === undefined || model === '') return refuse(params, 'names no model; the entry is left out')
  const named = providerOf(model, params)
  if (!named) return undefined
  const { provider, modelName } = named
  const stars = alias.split('*').length - 1
  if (stars > 1) return refuse(entry, 'a pattern has one `*`; the entry is left out', 'model_name')
  if (stars === 0 && modelName.includes('*'))
    return refuse(params, 'a `*` here needs one in model_name; the entry is left out', 'model')
  const server = readServer(provider, params)
  if (!server) return undefined

  const members: Record<string, unknown> = {}
  const put = (name: string, value: unknown) => {
    if (value !== undefined) members[name] = value
  }
  put('timeout', seconds(params, 'timeout'))
  put('stream_timeout', seconds(params, 'stream_timeout'))
  const [maxRetries, numRetries] = [
    params.number('max_retries', { isWhole: true }),
    params.number('num_retries', { isWhole: true }),
  ]
  put('retries', numRetries ?? maxRetries)
  const [rpm, tpm] = [params.number('rpm', { isWhole: true }), params.number('tpm', { isWhole: true })]
  const concurrency = params.number('max_parallel_requests', { isWhole: true })
  const limits = Object.entries({ rpm, tpm, concurrency }).filter(([, most]) => most !== undefined)
  if (limits.length > 0) members.rate_limit = Object.fromEntries(limits)
  put('cost', costOf(params, info))
  const weight = params.number('weight')
  const deployment: Deployment = {
    alias,
    modelName,
    server,
    members,
    hasRetries: members.retries !== undefined,
    shares: { weight, rpm, tpm },
    order: params.number('order', { isWhole: true }) ?? 1,
    tags: params.words('tags'),
    section: entry,
  }
  params.rest(PARAM_REASONS)
  readInfo(info)
  entry.rest({})
  return deployment
}

/** Milliseconds out of the seconds of a key. */
export type SecondsReader = (section: Section, key: string) => number | undefined

function refuse(section: Section, text: string, ...keys: string[]): undefined {
  section.note(text, ...keys)
  return undefined
}

function providerOf(model: string, params: Section): { provider: Provider; modelName: string } | undefined {
  const custom = params.word('custom_llm_provider')
  const slash = model.indexOf('/')
  const prefix = slash < 0 ? '' : model.slice(0, slash)
  const isPrefix = Object.hasOwn(PROVIDERS, prefix) || FOREIGN.has(prefix)
  const name = custom ?? (isPrefix ? prefix : undefined)
  const modelName = isPrefix && (custom === undefined || custom === prefix) ? model.slice(slash + 1) : model
  if (name !== undefined) {
    const provider = Object.hasOwn(PROVIDERS, name) ? PROVIDERS[name] : undefined
    if (provider) return { provider, modelName }
    return refuse(params, `provider ${name} speaks no dialect that this gateway has; the entry is left out`, 'model')
  }
  // Without a prefix LiteLLM goes by the name of the model.
  const vendor = /^claude-/.test(model)
    ? 'anthropic'
    : /^(?:gpt-|o\d|chatgpt-|text-embedding-|dall-e|whisper-|tts-)/.test(model)
      ? 'openai'
      : undefined
  const provider =
    PROVIDERS[vendor ?? (params.take('api_base') === undefined && params.take('base_url') === undefined ? '' : 'openai_like')]
  if (provider) return { provider, modelName }
  return refuse(params, 'names no provider in front of the model, and no api_base; the entry is left out', 'model')
}

function readServer(provider: Provider, params: Section): Server | undefined {
  const { label, adapter, suffix = '', keyVariable } = provider
  const [apiBase, baseUrl] = [params.text('api_base'), params.text('base_url')]
  const given = apiBase ?? baseUrl
  const isVendor =
    given === undefined || (typeof given === 'string' && provider.base !== undefined && given.startsWith(provider.base))
  if (given === undefined && provider.base === undefined) {
    return refuse(params, `has no api_base, which a server of ${label} needs; the entry is left out`)
  }
  const secret = params.text('api_key')
  if (secret === undefined && keyVariable !== undefined && !isVendor) {
    params.note('names no api_key: a placeholder is sent, and not the key of the vendor')
  }
  const headers: Record<string, string | Reference> = {}
  for (const key of ['extra_headers', 'headers']) {
    const section = params.section(key)
    for (const name of section?.keys() ?? []) {
      const value = section?.text(name)
      if (!isHeaderName(name) || !maySet(name)) section?.note('is no header that can be set here; left out', name)
      else if (typeof value === 'string' && value.includes('${'))
        section?.note('holds `${`, which would be taken for a variable of ours; left out', name)
      else if (value !== undefined) headers[name.toLowerCase()] = value
    }
  }
  const organization = params.text('organization')
  if (organization !== undefined) headers['openai-organization'] = organization
  const body: Record<string, unknown> = {}
  for (const key of BODY_DEFAULTS) {
    const value = params.take(key)
    if (value !== undefined) body[key] = value
  }
  const extra = params.section('extra_body')
  for (const key of extra?.keys() ?? []) body[key] = extra?.take(key)
  return {
    // `openai` is the vendor's own; what merely speaks its dialect is labelled as that.
    label: label === 'openai' && !isVendor ? 'openai-compatible' : label,
    adapter,
    base: given === undefined ? provider.base + suffix : withSuffix(given, suffix),
    secret: secret ?? (keyVariable !== undefined && isVendor ? new Reference(keyVariable) : PLACEHOLDER),
    headers,
    body,
    verifiesTls: params.flag('ssl_verify') !== false,
  }
}

function withSuffix(base: string | Reference, suffix: string): string | Reference {
  if (base instanceof Reference) return new Reference(base.name, suffix)
  const trimmed = base.trim().replace(/\/+$/, '')
  return suffix !== '' && trimmed.endsWith(suffix) ? trimmed : trimmed + suffix
}

/** US dollars per 1,000 tokens. What the parameters say goes before `model_info`. */
function costOf(params: Section, info: Section | undefined): { input_per_1k: number; output_per_1k: number } | undefined {
  const price = (key: string) => {
    const [own, told] = [params.number(key), info?.number(key)]
    const perToken = own ?? told
    // The digits that were written, not those that a product of binary fractions has.
    return perToken === undefined ? undefined : Number((perToken * 1000).toPrecision(12))
  }
  const [input, output] = [price('input_cost_per_token'), price('output_cost_per_token')]
  if (input === undefined && output === undefined) return undefined
  if (input === undefined || output === undefined) {
    params.note(`says one of the two prices; the other counts as 0`)
  }
  return { input_per_1k: input ?? 0, output_per_1k: output ?? 0 }
}

function readInfo(info: Section | undefined): void {
  if (!info) return
  const mode = info.word('mode')
  if (mode !== undefined && !MODES.includes(mode)) info.note('is a mode without a counterpart; left out', 'mode')
  info.rest(INFO_REASONS)
}

const BY_PRICE = 'prices are per prompt and completion token here; left out'
const PARAM_REASONS: Readonly<Record<string, string>> = {
  drop_params: 'parameters that a server does not know are not dropped here; left out',
  additional_drop_params: 'parameters are not dropped here; left out',
  api_version: 'only Azure needs it; left out',
  input_cost_per_second: BY_PRICE,
  output_cost_per_second: BY_PRICE,
  cache_read_input_token_cost: BY_PRICE,
  cache_creation_input_token_cost: BY_PRICE,
  litellm_credential_name: 'credentials of that list are not read; set the secret of the provider key',
  model_info: 'belongs beside litellm_params; left out',
  max_budget: 'write a budget over the admin API; left out',
  budget_duration: 'write a budget over the admin API; left out',
  use_in_pass_through: 'write a passthrough route; left out',
  mock_response: 'nothing is mocked here; left out',
  cooldown_time: 'is taken from router_settings alone; set `cooldown.default_seconds` of the model',
}
/** Of metadata that LiteLLM tells its callers nothing is decided here. */
const TOLD = 'is not told to callers here; left out'
const INFO_REASONS: Readonly<Record<string, string>> = {
  id: 'ids are made of names here; left out',
  base_model: 'prices are those of `cost` alone; left out',
  max_tokens: TOLD,
  max_input_tokens: TOLD,
  max_output_tokens: TOLD,
  supports_function_calling: TOLD,
  supports_vision: TOLD,
  access_groups: 'list the models in `allowed_models` of the keys instead; left out',
  health_check_model: 'use `background_model_check`; left out',
  input_cost_per_second: BY_PRICE,
  cache_read_input_token_cost: BY_PRICE,
}
