/**
 * Providers of LiteLLM that speak a dialect of ours, by the prefix of `model`. Source: LiteLLM's documentation, "Providers", and
 * its `litellm/constants.py` for addresses and variables that it uses where the file names none.
 */

export type Provider = {
  /** `provider` of ours. */
  label: string
  adapter: 'openai' | 'anthropic'
  /** Address where the file gives none; without one here the file has to. */
  base?: string
  /** Variable that LiteLLM takes the key from where the file gives none. A private server is sent a placeholder. */
  keyVariable?: string
  /** LiteLLM appends this to the address by itself; ours has it in `api_base`. */
  suffix?: string
}

const openai = (label: string, base?: string, keyVariable?: string): Provider => ({
  label,
  adapter: 'openai',
  ...(base === undefined ? {} : { base }),
  ...(keyVariable === undefined ? {} : { keyVariable }),
})

export const PROVIDERS: Readonly<Record<string, Provider>> = {
  openai: openai('openai', 'https://api.openai.com/v1', 'OPENAI_API_KEY'),
  'text-completion-openai': openai('openai', 'https://api.openai.com/v1', 'OPENAI_API_KEY'),
  anthropic: { label: 'anthropic', adapter: 'anthropic', base: 'https://api.anthropic.com', keyVariable: 'ANTHROPIC_API_KEY' },
  hosted_vllm: openai('vllm'),
  vllm: openai('vllm'),
  ollama: { ...openai('ollama', 'http://localhost:11434'), suffix: '/v1' },
  ollama_chat: { ...openai('ollama', 'http://localhost:11434'), suffix: '/v1' },
  lm_studio: openai('lm-studio'),
  llamafile: openai('llamafile', 'http://127.0.0.1:8080/v1'),
  xinference: openai('xinference', 'http://127.0.0.1:9997/v1'),
  docker_model_runner: openai('docker-model-runner', 'http://localhost:12434/engines/llama.cpp/v1'),
  litellm_proxy: openai('litellm'),
  openai_like: openai('openai-compatible'),
  custom_openai: openai('openai-compatible'),
  nvidia_nim: openai('nvidia-nim', 'https://integrate.api.nvidia.com/v1', 'NVIDIA_NIM_API_KEY'),
  groq: openai('groq', 'https://api.groq.com/openai/v1', 'GROQ_API_KEY'),
  mistral: openai('mistral', 'https://api.mistral.ai/v1', 'MISTRAL_API_KEY'),
  deepseek: openai('deepseek', 'https://api.deepseek.com/v1', 'DEEPSEEK_API_KEY'),
  together_ai: openai('together-ai', 'https://api.together.xyz/v1', 'TOGETHERAI_API_KEY'),
  openrouter: openai('openrouter', 'https://openrouter.ai/api/v1', 'OPENROUTER_API_KEY'),
  fireworks_ai: openai('fireworks-ai', 'https://api.fireworks.ai/inference/v1', 'FIREWORKS_AI_API_KEY'),
  perplexity: openai('perplexity', 'https://api.perplexity.ai', 'PERPLEXITYAI_API_KEY'),
  xai: openai('xai', 'https://api.x.ai/v1', 'XAI_API_KEY'),
  cerebras: openai('cerebras', 'https://api.cerebras.ai/v1', 'CEREBRAS_API_KEY'),
  sambanova: openai('sambanova', 'https://api.sambanova.ai/v1', 'SAMBANOVA_API_KEY'),
  deepinfra: openai('deepinfra', 'https://api.deepinfra.com/v1/openai', 'DEEPINFRA_API_KEY'),
}

/** Prefixes that LiteLLM knows and whose servers speak no dialect of ours; any other first segment is part of a model's name. */
export const FOREIGN: ReadonlySet<string> = new Set([
  'ai21',
  'aiohttp_openai',
  'aleph_alpha',
  'anyscale',
  'assemblyai',
  'azure',
  'azure_ai',
  'azure_text',
  'baseten',
  'bedrock',
  'bytez',
  'clarifai',
  'cloudflare',
  'codestral',
  'cohere',
  'cohere_chat',
  'custom',
  'dashscope',
  'databricks',
  'datarobot',
  'deepgram',
  'elevenlabs',
  'featherless_ai',
  'friendliai',
  'galadriel',
  'gemini',
  'gigachat',
  'github',
  'github_copilot',
  'google_ai_studio',
  'heroku',
  'huggingface',
  'hyperbolic',
  'infinity',
  'jina_ai',
  'langgraph',
  'lambda_ai',
  'maritalk',
  'meta_llama',
  'moonshot',
  'morph',
  'nebius',
  'nlp_cloud',
  'novita',
  'nscale',
  'oci',
  'ovhcloud',
  'palm',
  'petals',
  'predibase',
  'recraft',
  'replicate',
  'sagemaker',
  'sagemaker_chat',
  'snowflake',
  'text-completion-codestral',
  'topaz',
  'triton',
  'v0',
  'vercel_ai_gateway',
  'vertex_ai',
  'vertex_ai_beta',
  'volcengine',
  'voyage',
  'wandb',
  'watsonx',
  'watsonx_text',
  'zai',
])
