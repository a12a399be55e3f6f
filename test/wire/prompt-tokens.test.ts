import { expect, test } from 'bun:test'
import { promptTokensOf } from '../../src/wire/prompt-tokens.ts'

const NOTHING = { all: 0, cached: 0, cacheRead: 0, cacheCreation: 0 }

test.each([
  [
    'OpenAI: cached tokens are part of the prompt',
    { prompt_tokens: 9, prompt_tokens_details: { cached_tokens: 4 } },
    { all: 9, cached: 4 },
  ],
  ['DeepSeek', { prompt_tokens: 9, prompt_cache_hit_tokens: 4, prompt_cache_miss_tokens: 5 }, { all: 9, cached: 4 }],
  [
    'a total with reasoning beside the completion says nothing of the prompt',
    { prompt_tokens: 9, completion_tokens: 1, total_tokens: 20, prompt_tokens_details: { cached_tokens: 4 } },
    { all: 9, cached: 4 },
  ],
  [
    "Anthropic's counters beside the prompt, as the total tells",
    {
      prompt_tokens: 5,
      completion_tokens: 2,
      total_tokens: 21_007,
      cache_read_input_tokens: 20_000,
      cache_creation_input_tokens: 1_000,
    },
    { all: 21_005, cached: 20_000, cacheRead: 20_000, cacheCreation: 1_000 },
  ],
  [
    "Anthropic's counters within the prompt, as the total tells",
    {
      prompt_tokens: 21_005,
      completion_tokens: 2,
      total_tokens: 21_007,
      cache_read_input_tokens: 20_000,
      cache_creation_input_tokens: 1_000,
    },
    { all: 21_005, cached: 20_000, cacheRead: 20_000, cacheCreation: 1_000 },
  ],
  ['nothing', {}, {}],
  ['odd members', { prompt_tokens: 'x', prompt_tokens_details: null, cache_read_input_tokens: -1 }, {}],
])('%s', (_claim, usage, expected) => {
  expect(promptTokensOf(usage)).toEqual({ ...NOTHING, ...expected })
})
