import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ACTOR, ALIAS, answerOf, CALLER_KEY, sha256, startGateway, type TestGateway } from '../gateway.ts'
import { rawAnswer, rawPost } from './raw-caller.ts'

let upstream: FakeUpstream
let gateway: TestGateway
const time = { nowMs: Date.parse('2030-01-01T00:00:00Z') }

beforeAll(async () => {
  upstream = await fakeUpstream()
  gateway = await startGateway({
    upstream: upstream.url,
    clock: { now: () => time.nowMs, monotonic: () => performance.now() },
  })
})
beforeEach(() => {
  upstream.requests.length = 0
})
afterAll(async () => {
  await gateway.stop()
  upstream.stop()
})

const QUESTION = JSON.stringify({ model: ALIAS, messages: [{ role: 'user', content: 'Hi' }] })

/** A chat request with exactly these headers beside the media type. */
async function ask(headers: Record<string, string>, body = QUESTION) {
  const response = await fetch(`${gateway.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body,
  })
  return await answerOf(response)
}

const MISSING = { message: 'missing or malformed Authorization header', type: 'invalid_api_key' }

describe('a credential', () => {
  test.each([
    ['none', {}],
    ['another scheme', { authorization: `Basic ${btoa(`user:${CALLER_KEY}`)}` }],
    ['bearer in lower case', { authorization: `bearer ${CALLER_KEY}` }],
    ['BEARER in upper case', { authorization: `BEARER ${CALLER_KEY}` }],
    ['a bare key', { authorization: CALLER_KEY }],
    ['a bearer without a key', { authorization: 'Bearer ' }],
    ['a tab after the scheme', { authorization: `Bearer\t${CALLER_KEY}` }],
    ['an empty x-api-key', { 'x-api-key': '' }],
    ['another scheme beside a good x-api-key', { authorization: 'Basic abc', 'x-api-key': CALLER_KEY }],
    ['an empty Authorization beside a good x-api-key', { authorization: '', 'x-api-key': CALLER_KEY }],
    ['letters beyond ASCII', { authorization: 'Bearer sk-caller-t\u00e9st' }],
  ])('of the form "%s" is 401 as missing or malformed, and nothing goes upstream', async (_name, headers) => {
    const { status, error, headers: answered } = await ask(headers)
    expect(status).toBe(401)
    expect(error).toEqual(MISSING)
    expect(answered.get('x-aisix-request-id')).not.toBeNull()
    expect(upstream.requests).toHaveLength(0)
  })

  test('that nobody knows is 401, and is not told back or logged', async () => {
    const { status, error, text } = await ask({ authorization: 'Bearer sk-nobody-knows-this' })
    expect(status).toBe(401)
    expect(error).toEqual({ message: 'invalid API key', type: 'invalid_api_key' })
    expect(text).not.toContain('nobody')
    expect(gateway.logs.join('\n')).not.toContain('nobody-knows')
    expect(upstream.requests).toHaveLength(0)
  })

  test('that looks like a JWT is an unknown key', async () => {
    const token = `${btoa('{"alg":"RS256"}')}.${btoa('{}')}.c2ln`
    expect((await ask({ authorization: `Bearer ${token}` })).error).toEqual({
      message: 'invalid API key',
      type: 'invalid_api_key',
    })
  })

  test.each([
    ['as a bearer', { authorization: `Bearer ${CALLER_KEY}` }],
    ['as a bearer with spaces around', { authorization: `Bearer  ${CALLER_KEY}  ` }],
    ['in x-api-key', { 'x-api-key': CALLER_KEY }],
    ['as a bearer beside another x-api-key', { authorization: `Bearer ${CALLER_KEY}`, 'x-api-key': 'sk-other' }],
  ])('that is good is let in %s', async (_name, headers) => {
    expect((await ask(headers)).status).toBe(200)
    expect(upstream.requests).toHaveLength(1)
  })

  test('twice is 401', async () => {
    const answer = await rawAnswer(
      gateway.port,
      rawPost('/v1/chat/completions', QUESTION, [`Authorization: Bearer ${CALLER_KEY}`, 'Authorization: Bearer other']),
    )
    expect(answer).toStartWith('HTTP/1.1 401 ')
    expect(upstream.requests).toHaveLength(0)
  })

  test('counts before the body is looked at', async () => {
    expect((await ask({}, '{not json')).status).toBe(401)
    expect((await ask({ authorization: 'Bearer sk-unknown' }, '')).status).toBe(401)
  })
})

describe('a key', () => {
  test('that is disabled is 401 without an upstream call, and works again once it is enabled', async () => {
    const { id } = await gateway.addApiKey('sk-switch')
    const headers = { authorization: 'Bearer sk-switch' }
    expect((await ask(headers)).status).toBe(200)
    await gateway.store.replace('api_keys', id, now => ({ ...now, disabled: true }), ACTOR)
    upstream.requests.length = 0
    expect(await ask(headers)).toMatchObject({
      status: 401,
      error: { message: 'API key has been disabled', type: 'invalid_api_key', code: 'api_key_disabled' },
    })
    expect(upstream.requests).toHaveLength(0)
    await gateway.store.replace('api_keys', id, now => ({ ...now, disabled: undefined }), ACTOR)
    expect((await ask(headers)).status).toBe(200)
  })

  test('expires strictly after its time, without a change of configuration', async () => {
    await gateway.addApiKey('sk-expiring', { expires_at: '2030-01-01T12:00:00Z' })
    const headers = { authorization: 'Bearer sk-expiring' }
    const before = time.nowMs
    try {
      time.nowMs = Date.parse('2030-01-01T12:00:00Z')
      expect((await ask(headers)).status).toBe(200)
      time.nowMs += 1
      upstream.requests.length = 0
      expect(await ask(headers)).toMatchObject({
        status: 401,
        error: { message: 'API key has expired', type: 'invalid_api_key', code: 'api_key_expired' },
      })
      expect(upstream.requests).toHaveLength(0)
    } finally {
      time.nowMs = before
    }
  })

  test('that is disabled and expired is told to be disabled', async () => {
    await gateway.addApiKey('sk-both', { expires_at: '2020-01-01T00:00:00Z', disabled: true })
    expect((await ask({ authorization: 'Bearer sk-both' })).error).toMatchObject({ code: 'api_key_disabled' })
  })

  test('whose hash is replaced dies, and the new one works at once', async () => {
    const { id } = await gateway.addApiKey('sk-old')
    expect((await ask({ authorization: 'Bearer sk-old' })).status).toBe(200)
    await gateway.store.replace('api_keys', id, now => ({ ...now, key_hash: sha256('sk-new') }), ACTOR)
    expect((await ask({ authorization: 'Bearer sk-old' })).status).toBe(401)
    expect((await ask({ authorization: 'Bearer sk-new' })).status).toBe(200)
  })

  test('that is deleted dies, and the others live', async () => {
    const { id } = await gateway.addApiKey('sk-gone')
    expect((await ask({ authorization: 'Bearer sk-gone' })).status).toBe(200)
    await gateway.store.remove('api_keys', id, ACTOR)
    expect((await ask({ authorization: 'Bearer sk-gone' })).status).toBe(401)
    expect((await ask({ authorization: `Bearer ${CALLER_KEY}` })).status).toBe(200)
  })
})

test('a rejected credential gives one info line with a class, an address and the id, and no access line', async () => {
  gateway.logs.length = 0
  const { headers } = await ask({ authorization: 'Bearer sk-refused-and-logged' })
  const id = headers.get('x-aisix-request-id') ?? 'absent'
  const lines = gateway.logs.filter(line => line.includes(id))
  expect(lines).toHaveLength(1)
  expect(lines[0]).toMatch(/INFO auth: auth rejected reason="invalid_api_key" client_ip="127\.0\.0\.1" request_id="/)
})
