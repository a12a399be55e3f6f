import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, answerOf, startGateway, type TestGateway } from '../gateway.ts'

let upstream: FakeUpstream
let gateway: TestGateway

beforeAll(async () => {
  upstream = await fakeUpstream()
})
beforeEach(async () => {
  upstream.requests.length = 0
  gateway = await startGateway({ upstream: upstream.url })
})
afterEach(() => gateway.stop())
afterAll(() => upstream.stop())

async function ask(model: string, key = gateway.key) {
  return await answerOf(await gateway.chat({ model }, { authorization: `Bearer ${key}` }))
}

describe('an alias', () => {
  test('that nobody has is 404, names the model and stays here', async () => {
    const { status, error } = await ask('no-such-model')
    expect(status).toBe(404)
    expect(error).toEqual({ message: 'model "no-such-model" not found', type: 'model_not_found' })
    expect(upstream.requests).toHaveLength(0)
  })

  test('that nobody has is 404 also for a key that could never use it', async () => {
    await gateway.addApiKey('sk-none', { allowed_models: [] })
    expect((await ask('no-such-model', 'sk-none')).status).toBe(404)
  })

  test('that the key may not use is 403 and stays here', async () => {
    await gateway.addApiKey('sk-other-only', { allowed_models: ['other', 'a*b*', ALIAS.toUpperCase()] })
    const { status, error } = await ask(ALIAS, 'sk-other-only')
    expect(status).toBe(403)
    expect(error).toEqual({ message: `API key is not allowed to use model "${ALIAS}"`, type: 'permission_denied' })
    expect(upstream.requests).toHaveLength(0)
  })

  test.each([
    ['equality', [ALIAS]],
    ['a prefix', ['alias-*']],
    ['a suffix', ['*-model']],
    ['both', ['alias*model']],
    ['a star for nothing', [`${ALIAS}*`]],
    ['anything', ['*']],
  ])('is allowed by %s', async (_name, allowed_models) => {
    await gateway.addApiKey('sk-allowed', { allowed_models })
    expect((await ask(ALIAS, 'sk-allowed')).status).toBe(200)
  })

  test('with line breaks and control characters is escaped in the answer and makes no line in the log', async () => {
    const { status, error } = await ask('evil\n2030-01-01T00:00:00.000Z  INFO access: forged\u001b[31m\u2028')
    expect(status).toBe(404)
    expect(error.message).toBe('model "evil\\u000a2030-01-01T00:00:00.000Z  INFO access: forged\\u001b[31m\\u2028" not found')
    expect(gateway.logs.filter(line => line.includes('forged')).every(line => line.startsWith('20'))).toBe(true)
    expect(gateway.logs.some(line => line.startsWith('2030-01-01'))).toBe(false)
    expect(gateway.logs.join('')).not.toContain('\u001b')
  })

  test('of great length is cut where it is echoed', async () => {
    const { error } = await ask('x'.repeat(5_000))
    expect(String(error.message).length).toBeLessThan(300)
    expect(error.message).toContain('xxx…" not found')
  })

  test.each(['__proto__', 'constructor', 'toString'])('called %s is as unknown as any other', async name => {
    expect((await ask(name)).status).toBe(404)
  })
})

describe('a pattern', () => {
  test('fills the `*` of its model name and echoes what the caller spelt', async () => {
    await gateway.addModel({ display_name: 'vllm/*', model_name: 'org/*' })
    const { status, body } = await ask('vllm/llama-3')
    expect(status).toBe(200)
    expect(upstream.last().json()).toMatchObject({ model: 'org/llama-3' })
    expect(body).toMatchObject({ model: 'vllm/llama-3' })
  })

  test('without a `*` in its model name sends that name as it is', async () => {
    await gateway.addModel({ display_name: 'any-*', model_name: 'fixed' })
    await ask('any-thing')
    expect(upstream.last().json()).toMatchObject({ model: 'fixed' })
  })

  test('matches a star that stands for nothing, and never overlaps itself', async () => {
    await gateway.addModel({ display_name: 'ab*ba', model_name: 'up-*' })
    expect((await ask('abba')).status).toBe(200)
    expect(upstream.last().json()).toMatchObject({ model: 'up-' })
    expect((await ask('aba')).status).toBe(404)
  })

  test('takes `$&` and other signs of replacement as they are', async () => {
    await gateway.addModel({ display_name: 'p/*', model_name: 'up/*' })
    await ask("p/$&$1$'$$")
    expect(upstream.last().json()).toMatchObject({ model: "up/$&$1$'$$" })
  })

  test('that is longest wins, and an exact name wins over every pattern', async () => {
    await gateway.addModel({ display_name: '*', model_name: 'any' })
    await gateway.addModel({ display_name: 'gpt-*', model_name: 'short' })
    await gateway.addModel({ display_name: 'gpt-4*', model_name: 'long' })
    await gateway.addModel({ display_name: 'gpt-4-exact', model_name: 'exact' })
    for (const [alias, expected] of [
      ['gpt-4-turbo', 'long'],
      ['gpt-3', 'short'],
      ['other', 'any'],
      ['gpt-4-exact', 'exact'],
    ] as const) {
      await ask(alias)
      expect(upstream.last().json()).toMatchObject({ model: expected })
    }
  })

  test('with two stars matches nothing, itself neither', async () => {
    await gateway.addModel({ display_name: 'a*b*', model_name: 'x' })
    expect((await ask('axbx')).status).toBe(404)
    expect((await ask('a*b*')).status).toBe(404)
  })

  test('is what the log names as the model, never the spelling of the caller', async () => {
    await gateway.addModel({ display_name: 'team/*', model_name: 'x' })
    await ask('team/one')
    expect(await gateway.accessLine()).toContain('model="team/*"')
  })

  test('is checked against the key by the name that was asked for', async () => {
    await gateway.addModel({ display_name: 'team/*', model_name: 'x' })
    await gateway.addApiKey('sk-team', { allowed_models: ['team/a*'] })
    expect((await ask('team/abc', 'sk-team')).status).toBe(200)
    expect((await ask('team/xyz', 'sk-team')).status).toBe(403)
  })
})
