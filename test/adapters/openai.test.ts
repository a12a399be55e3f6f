import { describe, expect, test } from 'bun:test'
import { anthropic } from '../../src/adapters/anthropic.ts'
import { adapterOf } from '../../src/adapters/index.ts'
import { openai } from '../../src/adapters/openai.ts'

describe('the base', () => {
  test.each([
    ['http://10.0.0.5:8000/v1', 'http://10.0.0.5:8000/v1'],
    ['http://10.0.0.5:8000/v1/', 'http://10.0.0.5:8000/v1'],
    ['http://10.0.0.5:8000/v1///', 'http://10.0.0.5:8000/v1'],
    ['  http://h/v1 \n', 'http://h/v1'],
    ['http://h:8000', 'http://h:8000'],
    ['http://h/proxy/v2', 'http://h/proxy/v2'],
    ['http://[::1]:8000/v1', 'http://[::1]:8000/v1'],
    ['http://h/v1/chat/completions', 'http://h/v1'],
    ['http://h/v1/chat/completions/', 'http://h/v1'],
    ['http://h/v1/completions', 'http://h/v1'],
    ['http://h/v1/embeddings', 'http://h/v1'],
    ['http://h/v1/images/generations', 'http://h/v1'],
    ['http://h/v1/audio/transcriptions', 'http://h/v1'],
    ['http://h/v1/audio/translations', 'http://h/v1'],
    ['http://h/v1/audio/speech', 'http://h/v1'],
    ['http://h/v1/embeddings/embeddings', 'http://h/v1/embeddings'],
    ['https://api.openai.com', 'https://api.openai.com/v1'],
    ['http://api.openai.com/', 'http://api.openai.com/v1'],
    ['https://api.openai.com/v1', 'https://api.openai.com/v1'],
    ['https://api.openai.com.evil.example', 'https://api.openai.com.evil.example'],
  ])('of %p is %s', (given, expected) => {
    expect(openai.base(given, 'vllm')).toBe(expected)
  })

  test.each(['', 'openai', ' OpenAI '])('of nothing under the label %p is the public one', vendor => {
    expect(openai.base(undefined, vendor)).toBe('https://api.openai.com/v1')
    expect(openai.base('  ', vendor)).toBe('https://api.openai.com/v1')
  })

  test.each(['vllm', 'openai-compatible', 'ollama'])('of nothing under the label %p is none: nobody else is dialled', vendor => {
    expect(openai.base(undefined, vendor)).toBeUndefined()
    expect(openai.base('', vendor)).toBeUndefined()
  })

  test.each(['h:8000', 'ftp://h/v1', 'file:///etc/passwd', 'http://', '/v1', 'http://h:99999/v1'])(
    '%p is none and says so',
    given => {
      expect(() => openai.base(given, 'vllm')).toThrow('api_base is not an http:// or https:// URL')
    },
  )
})

describe('the words of an error', () => {
  test.each([
    [{ error: { message: 'm', code: 'c', param: 'p' } }, { message: 'm', code: 'c', param: 'p' }],
    [{ error: { message: 'm', code: 404, param: null } }, { message: 'm', code: '404', param: undefined }],
    [{ error: { detail: 'd' } }, { message: 'd', code: undefined, param: undefined }],
    [{ error: { type: 't' } }, { message: '{"type":"t"}', code: undefined, param: undefined }],
    [
      { error: 'm', code: 7 },
      { message: 'm', code: '7', param: undefined },
    ],
    [
      { object: 'error', message: 'm', code: 40 },
      { message: 'm', code: '40', param: undefined },
    ],
    [{ detail: 'd' }, { message: 'd', code: undefined, param: undefined }],
    [{ detail: [{ msg: 'x' }] }, { message: '[{"msg":"x"}]', code: undefined, param: undefined }],
  ])('%p are %p', (body, expected) => {
    expect(openai.error(body)).toEqual(expected)
  })

  test.each([
    [undefined],
    [null],
    ['text'],
    [7],
    [[]],
    [{}],
    [{ error: '' }],
    [{ error: null }],
    [{ message: 'm' }],
    [{ detail: {} }],
  ])('%p has none', body => {
    expect(openai.error(body)).toBeUndefined()
  })
})

describe('usage', () => {
  const usage = { promptTokens: 0, completionTokens: 0, totalTokens: 0, cachedTokens: 0, reasoningTokens: 0, isEstimated: false }
  test.each([
    [
      { prompt_tokens: 1, completion_tokens: 2, total_tokens: 3 },
      { promptTokens: 1, completionTokens: 2, totalTokens: 3 },
    ],
    [{ total_tokens: 9 }, { promptTokens: 9, totalTokens: 9 }],
    [
      { total_tokens: 9, completion_tokens: 4 },
      { promptTokens: 5, completionTokens: 4, totalTokens: 9 },
    ],
    [{ prompt_tokens: 0, total_tokens: 9 }, { totalTokens: 9 }],
    [{ prompt_tokens_details: { cached_tokens: 3 }, prompt_cache_hit_tokens: 5 }, { cachedTokens: 3 }],
    [{ prompt_tokens_details: { cached_tokens: 0 }, prompt_cache_hit_tokens: 5 }, { cachedTokens: 5 }],
    [{ prompt_tokens_details: null, prompt_cache_hit_tokens: 5 }, { cachedTokens: 5 }],
    [{ completion_tokens_details: { reasoning_tokens: 6 } }, { reasoningTokens: 6 }],
    [{ prompt_tokens: '5', completion_tokens: -1, total_tokens: null }, {}],
    // What no request can have counts as not told: the sums of months would not recover from it.
    [{ prompt_tokens: 9e15, completion_tokens: 2_000_000_000, total_tokens: 1e300 }, {}],
    [{ prompt_tokens: 1_000_000_000, total_tokens: Number.NaN }, { promptTokens: 1_000_000_000 }],
    [{}, {}],
  ])('%p is %p', (given, expected) => {
    expect(openai.usage(given)).toEqual({ ...usage, ...expected })
  })

  test.each([[undefined], [null], ['text'], [7], [[]]])('%p is none', given => {
    expect(openai.usage(given)).toBeUndefined()
  })
})

test('the credential is a bearer token', () => {
  expect(openai.headers('s3')).toEqual({ authorization: 'Bearer s3' })
})

describe('the adapter of a provider key', () => {
  test('goes by its name, but the labels `openai` and `anthropic` pin it', () => {
    expect(adapterOf('vllm', 'openai')).toBe(openai)
    expect(adapterOf('openai', undefined)).toBe(openai)
    expect(adapterOf('openai', 'bedrock')).toBe(openai)
    expect(adapterOf('anthropic', 'openai')).toBe(anthropic)
    expect(adapterOf('vllm', 'anthropic')).toBe(anthropic)
  })

  test('is none where nothing names it, or where this version does not speak it', () => {
    expect(adapterOf('vllm', undefined)).toBeUndefined()
    expect(adapterOf('OpenAI', undefined)).toBeUndefined()
    expect(adapterOf('x', 'vertex')).toBeUndefined()
  })
})
