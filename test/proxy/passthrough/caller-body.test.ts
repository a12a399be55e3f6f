import { describe, expect, test } from 'bun:test'
import { Caller } from '../../../src/proxy/caller.ts'
import { OpenAttempt } from '../../../src/proxy/open-attempt.ts'
import { namedIn, openBody, passOn, WHOLE_BYTES_MAX } from '../../../src/proxy/passthrough/caller-body.ts'

const JSON_TYPE = new Headers({ 'content-type': 'application/json' })

/** What a body names. */
const namedBy = (text: string, headers = JSON_TYPE) => namedIn({ kind: 'whole', bytes: Buffer.from(text) }, headers)

/** A request whose body has no declared length. */
function chunked(body: ReadableStream<Uint8Array>, type = 'application/json'): Request {
  return new Request('http://h/x', { method: 'POST', headers: { 'content-type': type, 'transfer-encoding': 'chunked' }, body })
}

/** A body of these pieces, which then stays open. */
function pieces(...texts: string[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    pull(controller) {
      const text = texts.shift()
      if (text !== undefined) controller.enqueue(Buffer.from(text))
      return text === undefined ? new Promise(() => {}) : undefined
    },
  })
}

describe('a body names', () => {
  test.each<[string, string, string | undefined, boolean]>([
    ['its model', '{"model":"m"}', 'm', false],
    ['it anywhere', ' {"a":{"model":"x"},"b":["model"],"c":1.5e3,"stream":true,"model":"m"} ', 'm', true],
    ['the last of two, as parsers have it', '{"model":"a","model":"b","stream":true,"stream":false}', 'b', false],
    ['it with escapes', '{"mod\\u0065l":"caf\\u00e9 \\"x\\""}', 'café "x"', false],
    ['it beyond ASCII', '{"model":"modèle"}', 'modèle', false],
    ['it behind a byte order mark', '\ufeff{"model":"m"}', 'm', false],
    ['it behind what nests deeper than anybody parses', `{"a":${'['.repeat(9_000)}${']'.repeat(9_000)},"model":"m"}`, 'm', false],
    ['it before the body breaks off', '{"model":"m","stream":true,"messages":[{"content":"lo', 'm', true],
    ['none that breaks off', '{"stream":true,"model":"m', undefined, true],
    ['none that is no text', '{"model":5,"stream":"true"}', undefined, false],
    ['none in a list', '[{"model":"m"}]', undefined, false],
    ['none in nothing', '{}', undefined, false],
    ['none in what is no JSON', '{model:"m"}', undefined, false],
  ])('%s', (_what, text, model, isStream) => {
    expect(namedBy(text)).toEqual({ model, isStream })
  })

  test.each<[Record<string, string>, string | undefined]>([
    [{}, 'm'],
    [{ 'content-type': 'text/plain; charset=utf-8' }, 'm'],
    [{ 'content-type': 'application/x-www-form-urlencoded' }, 'm'],
    [{ 'content-type': 'application/vnd.api+json' }, 'm'],
    [{ 'content-type': 'application/json', 'content-encoding': 'identity' }, 'm'],
    [{ 'content-type': 'application/json', 'content-encoding': 'gzip' }, undefined],
    [{ 'content-type': 'application/x-ndjson' }, undefined],
    [{ 'content-type': 'multipart/form-data; boundary=x' }, undefined],
  ])('by %p the model %p', (headers, model) => {
    expect(namedBy('{"model":"m"}', new Headers(headers)).model).toBe(model)
  })
})

describe('what is read before a body is sent', () => {
  test('of JSON all of it, up to a MiB, and then its beginning', async () => {
    const half = 'x'.repeat(WHOLE_BYTES_MAX / 2)
    const body = await openBody(chunked(pieces('{"model":"m","a":"', half, half, 'never read')), Number.POSITIVE_INFINITY)
    expect(body.kind).toBe('rest')
    expect(namedIn(body, JSON_TYPE).model).toBe('m')
    if (body.kind === 'rest') expect(body.head).toHaveLength(3)
  })

  test.each(['audio/wav', 'application/x-ndjson'])('of %s its first piece', async type => {
    const body = await openBody(chunked(pieces('{"a":1}', 'never read'), type), Number.POSITIVE_INFINITY)
    expect(body).toMatchObject({ kind: 'rest', length: undefined })
    if (body.kind === 'rest') expect(body.head).toHaveLength(1)
  })

  test('of a body that is promised and does not come no more than its caller has time for', async () => {
    const body = openBody(chunked(pieces('{"a":')), Number.POSITIVE_INFINITY, 20)
    await expect(body).rejects.toMatchObject({ kind: 'request_read_timeout' })
  })

  test('of a body over the cap no more than shows that', async () => {
    await expect(openBody(chunked(pieces('{"a":"', 'xxxxxxxx')), 10)).rejects.toMatchObject({ kind: 'request_too_large' })
  })
})

test('a caller that stops sending ends the attempt, and the time of the server rests while it is waited for', async () => {
  const request = chunked(pieces('first'), 'audio/wav')
  const body = await openBody(request, Number.POSITIVE_INFINITY)
  if (body.kind !== 'rest') throw new Error('expected a body whose end has not come')
  const open = new OpenAttempt(new Caller(new AbortController().signal))
  // Shorter than what the caller may take: were it not to rest, it would end the attempt first.
  const serverMs = 300
  open.arm(serverMs)
  const reader = passOn(body, Number.POSITIVE_INFINITY, open, () => serverMs, 400).getReader()
  expect((await reader.read()).value).toEqual(Buffer.from('first'))
  await expect(reader.read()).rejects.toMatchObject({ kind: 'request_read_timeout' })
  expect(open.reason?.kind).toBe('request_read_timeout')
})
