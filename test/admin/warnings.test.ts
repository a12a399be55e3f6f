import { describe, expect, test } from 'bun:test'
import { warningHeader } from '../../src/admin/warnings.ts'
import { type Answer, apiKey, entryOf, isRecord, model, openAdmin, providerKey, sha256 } from './harness.ts'

const HEADER = 'x-aisix-warning'

function warningOf(answer: Answer): string | null {
  expect(answer.status).toBe(200)
  return answer.headers.get(HEADER)
}

describe('references', () => {
  test('a model whose provider key does not exist is accepted, and the header names it', async () => {
    const answer = await openAdmin().call('POST', '/admin/v1/models', model('pk-missing'))
    expect(warningOf(answer)).toContain('provider_key_id "pk-missing" names no provider key')
  })

  test('allowed models that do not exist are named; patterns and names that a pattern serves are not', async () => {
    const admin = openAdmin()
    const key = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey()))
    await admin.call('POST', '/admin/v1/models', model(key.id))
    await admin.call('POST', '/admin/v1/models', model(key.id, { display_name: 'vllm/*', model_name: '*' }))
    const good = apiKey({ allowed_models: ['llama-3-private', 'vllm/any', '*', 'gpt-*'] })
    expect(warningOf(await admin.call('POST', '/admin/v1/apikeys', good))).toBeNull()
    const bad = apiKey({ key_hash: sha256('b'), allowed_models: ['llama-3-private', 'first', 'second'] })
    expect(warningOf(await admin.call('POST', '/admin/v1/apikeys', bad))).toBe(
      'allowed_models names "first", and there is no such model yet; allowed_models names "second", and there is no such model yet',
    )
  })

  test('a key that may use nothing, and an entry with two asterisks, are pointed out', async () => {
    const admin = openAdmin()
    expect(warningOf(await admin.call('POST', '/admin/v1/apikeys', apiKey({ allowed_models: [] })))).toContain('may use no model')
    const two = apiKey({ key_hash: sha256('two'), allowed_models: ['a*b*'] })
    expect(warningOf(await admin.call('POST', '/admin/v1/apikeys', two))).toContain('"a*b*" has more than one *')
  })

  test('deleting a provider key in use succeeds and names the models that need it', async () => {
    const admin = openAdmin()
    const { id } = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey()))
    await admin.call('POST', '/admin/v1/models', model(id))
    const answer = await admin.call('DELETE', `/admin/v1/provider_keys/${id}`)
    expect(warningOf(answer)).toBe(`models "llama-3-private" still names "${id}" in provider_key_id`)
    expect(answer.body).toEqual({ deleted: true, id })
  })

  test('renaming or deleting a model names the keys that still allow the old name', async () => {
    const admin = openAdmin()
    const key = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey()))
    const { id } = entryOf(await admin.call('POST', '/admin/v1/models', model(key.id)))
    await admin.call('POST', '/admin/v1/apikeys', apiKey({ display_name: 'ci', allowed_models: ['llama-3-private'] }))
    const same = await admin.call('PUT', `/admin/v1/models/${id}`, model(key.id, { retries: 1 }))
    expect(warningOf(same)).toBeNull()
    const renamed = await admin.call('PUT', `/admin/v1/models/${id}`, model(key.id, { display_name: 'llama' }))
    expect(warningOf(renamed)).toBe('api_keys "ci" still names "llama-3-private" in allowed_models')
    await admin.call('PUT', `/admin/v1/models/${id}`, model(key.id))
    expect(warningOf(await admin.call('DELETE', `/admin/v1/models/${id}`))).toContain('still names "llama-3-private"')
  })

  test('what dangles is listed by health, and no longer once it is there', async () => {
    const admin = openAdmin()
    const key = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey()))
    const bad = entryOf(await admin.call('POST', '/admin/v1/models', model('pk-missing')))
    const caller = entryOf(await admin.call('POST', '/admin/v1/apikeys', apiKey({ allowed_models: ['later'] })))
    const dangling = async () => {
      const { body } = await admin.call('GET', '/admin/v1/health')
      return isRecord(body) ? body.dangling : undefined
    }
    expect(await dangling()).toEqual([
      { kind: 'models', id: bad.id, name: 'llama-3-private', field: 'provider_key_id', missing: 'pk-missing' },
      { kind: 'api_keys', id: caller.id, field: 'allowed_models', missing: 'later' },
    ])
    await admin.call('PUT', `/admin/v1/models/${bad.id}`, model(key.id, { display_name: 'later' }))
    expect(await dangling()).toEqual([])
  })
})

const headers = (default_headers: Record<string, string>) => ({ request: { default_headers } })

describe('models', () => {
  test('an entry of allowed_cidrs that is no network is accepted, and named', async () => {
    const admin = openAdmin()
    const key = entryOf(await admin.call('POST', '/admin/v1/provider_keys', providerKey()))
    const answer = await admin.call(
      'POST',
      '/admin/v1/models',
      model(key.id, { allowed_cidrs: ['10.0.0.0/8', '10.0.0.0/33', '::1'] }),
    )
    expect(warningOf(answer)).toBe(
      'allowed_cidrs entry "10.0.0.0/33" is no network or address such as 10.0.0.0/8, so it lets nobody in',
    )
  })
})

describe('provider keys', () => {
  const cases: [string, Record<string, unknown>, string | null][] = [
    ['the guide', {}, null],
    ['a label that agrees with the adapter', { provider: 'openai', adapter: 'openai' }, null],
    ['OpenAI itself, without api_base', { provider: 'openai', adapter: undefined, api_base: undefined }, null],
    ['a label that decides against the adapter', { provider: 'openai', adapter: 'anthropic' }, 'adapter "anthropic" is not used'],
    ['the other such label', { provider: 'anthropic', adapter: 'openai' }, 'adapter "openai" is not used'],
    ['neither a known label nor an adapter', { adapter: undefined }, 'no dialect is known for this provider'],
    ['a dialect that is not spoken', { adapter: 'bedrock' }, 'does not speak the dialect "bedrock"'],
    ['a private label without api_base', { api_base: undefined }, 'there is no api_base'],
    ['a full endpoint', { api_base: 'http://10.0.0.5:8000/v1/chat/completions' }, '"/chat/completions" is cut off'],
    ['a full endpoint with a slash', { api_base: 'http://10.0.0.5:8000/v1/chat/completions/' }, '"/chat/completions" is cut off'],
    ['no path', { api_base: 'http://10.0.0.5:8000' }, 'api_base has no path'],
    ['a slash alone', { api_base: 'http://10.0.0.5:8000/' }, 'api_base has no path'],
    ['headers that are set', headers({ 'X-Team': 'a', 'user-agent': '${model.name}/${request.api_key.team_id}' }), null],
    [
      'a header that is never set',
      headers({ Authorization: 'Bearer x' }),
      'default_headers: Authorization belongs to the gateway',
    ],
    ['a header of the transport', headers({ 'content-length': '1' }), 'default_headers: content-length belongs to the gateway'],
    ['an unknown variable', headers({ 'x-a': '${nope}' }), 'default_headers: x-a names ${nope}, which does not exist'],
    [
      'what may be no variable',
      headers({ 'x-a': '${sk-HIDDEN}' }),
      'default_headers: x-a names a variable, which does not exist',
    ],
    ['a slash at the end', { api_base: 'http://10.0.0.5:8000/v1/' }, null],
  ]
  test.each(cases)('%s', async (_name, more, expected) => {
    const warning = warningOf(await openAdmin().call('POST', '/admin/v1/provider_keys', providerKey(more)))
    if (expected === null) expect(warning).toBeNull()
    else expect(warning).toContain(expected)
  })
})

describe('the header', () => {
  test('carries names beyond ASCII and control characters percent-encoded, so that no name can break it', async () => {
    const answer = await openAdmin().call('POST', '/admin/v1/models', model('pk\r\nx-evil: 1; ü 100% \u{1f600}'))
    const value = warningOf(answer) ?? ''
    expect(value).toMatch(/^[\x20-\x7e]+$/)
    expect(answer.headers.has('x-evil')).toBe(false)
    expect(decodeURIComponent(value)).toContain('"pk\r\nx-evil: 1; ü 100% \u{1f600}"')
  })

  test('is a header that a client reads over a real connection', async () => {
    const admin = openAdmin()
    const server = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: request => admin.fetch(request) })
    try {
      const response = await fetch(new URL('/admin/v1/models', server.url), {
        method: 'POST',
        headers: { 'x-api-key': 'admin-test-key-1', 'content-type': 'application/json' },
        body: JSON.stringify(model('fehlt-für-immer')),
      })
      expect(response.headers.get(HEADER)).toContain('f%C3%BCr')
    } finally {
      await server.stop(true)
    }
  })

  test('stays short however much there is to say', async () => {
    const allowed_models = Array.from({ length: 1000 }, (_, index) => `missing-${index}-${'é'.repeat(100)}`)
    const value = warningOf(await openAdmin().call('POST', '/admin/v1/apikeys', apiKey({ allowed_models }))) ?? ''
    expect(value.length).toBeLessThan(4096)
    expect(value).toMatch(/; and \d+ more, see \/admin\/v1\/health$/)
  })

  test('says where to look when the first thing to say is already too long', () => {
    expect(warningHeader(['\u{1f600}'.repeat(300), 'second'])).toBe('2 more, see /admin/v1/health')
  })

  test('is absent when there is nothing to say, and survives a lone surrogate', () => {
    expect(warningHeader([])).toBeUndefined()
    expect(warningHeader(['a\ud800b'])).toBe('a%EF%BF%BDb')
  })
})
