/** Forms: audio to be transcribed or translated, images to be edited. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, spyOn, test } from 'bun:test'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Spool } from '../../src/proxy/spool.ts'
import { type FakeUpstream, fakeUpstream, type UpstreamRequest } from '../fake-upstream.ts'
import { ALIAS, answerOf, startGateway, type TestGateway, UPSTREAM_MODEL, UPSTREAM_SECRET, until } from '../gateway.ts'
import { waveOfOneSecond } from '../wave.ts'
import { rawCaller } from './raw-caller.ts'

let upstream: FakeUpstream
let gateway: TestGateway
let folder: string
beforeAll(async () => {
  upstream = await fakeUpstream()
})
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'aisix-uploads-'))
  gateway = await startGateway({ upstream: upstream.url, config: { proxy: { upload_dir: folder } } })
})
afterEach(async () => {
  await gateway.idle()
  // Nothing of an upload is left under a name, whatever became of it.
  expect(readdirSync(folder)).toEqual([])
  await gateway.stop()
  rmSync(folder, { recursive: true, force: true })
})
afterAll(() => upstream.stop())

const TRANSCRIPTIONS = '/v1/audio/transcriptions'
const transcript = { text: 'hello', usage: { type: 'tokens', input_tokens: 14, output_tokens: 45, total_tokens: 59 } }

type Part = [name: string, value: string | Uint8Array, filename?: string]

/** A form as it is on the wire. */
function formOf(...parts: Part[]): Buffer {
  return formAs('xyz', ...parts)
}

/** The form that the upstream was sent must be these parts and nothing else, but for the boundary. */
function expectForm({ bytes, header }: UpstreamRequest, ...parts: Part[]): void {
  const [, boundary = ''] = /^multipart\/form-data; boundary=(aisix-[\w-]+)$/.exec(header('content-type') ?? '') ?? []
  expect(Buffer.from(bytes).equals(formAs(boundary, ...parts))).toBe(true)
}

function formAs(boundary: string, ...parts: Part[]): Buffer {
  const pieces = parts.flatMap(([name, value, filename]) => [
    Buffer.from(
      `--${boundary}\r\nContent-Disposition: form-data; name="${name}"${filename === undefined ? '' : `; filename="${filename}"\r\nContent-Type: audio/wav`}\r\n\r\n`,
    ),
    Buffer.from(value),
    Buffer.from('\r\n'),
  ])
  return Buffer.concat([...pieces, Buffer.from(`--${boundary}--\r\n`)])
}

const FORM = { 'content-type': 'multipart/form-data; boundary=xyz' }
const send = (form: Uint8Array, path = TRANSCRIPTIONS, headers: Record<string, string> = FORM) =>
  gateway.post(path, new Uint8Array(form), headers)

/** Every byte there is, and a line break and a boundary that is none. */
const AUDIO = Buffer.concat([Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)), Buffer.from('\r\n--xy\r\n')])
/** Too long for the memory. */
const LONG = Buffer.alloc(3_000_000, AUDIO)

describe.each([
  ['/v1/audio/transcriptions', 'file', 'audio'],
  ['/v1/audio/translations', 'file', 'audio'],
  ['/v1/images/edits', 'image[]', 'images'],
] as const)('%s', (path, file, handler) => {
  test.each([
    ['before', AUDIO],
    ['behind', AUDIO],
    ['before', LONG],
    ['behind', LONG],
  ])('goes on byte for byte but for the name of the model, which stands %s the file', async (where, audio) => {
    upstream.answer((_request, connection) => connection.json(200, transcript))
    const parts = (model: string, filename = 'a \\"b\\" \\\\ ä.wav'): Part[] => {
      const named: Part = ['model', model]
      const upload: Part = [file, audio, filename]
      return [['language', 'de'], ...(where === 'before' ? [named, upload] : [upload, named]), ['x', '']]
    }
    const answer = await send(formOf(...parts(ALIAS)), path)
    expect(answer.status).toBe(200)
    expect(await answer.json()).toEqual(transcript)
    const seen = upstream.last()
    expect([seen.method, seen.path]).toEqual(['POST', path])
    expect(seen.header('authorization')).toBe(`Bearer ${UPSTREAM_SECRET}`)
    expect(seen.header('transfer-encoding')).toBeUndefined()
    expect(seen.header('content-length')).toBe(String(seen.bytes.byteLength))
    // Quotes and backslashes of file names are written as browsers write them, which all readers take for nothing else.
    expectForm(seen, ...parts(UPSTREAM_MODEL, 'a %22b%22 %5C ä.wav'))
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([
      { endpoint: path, handler, promptTokens: 14, completionTokens: 45, isEstimated: false, status: 200 },
    ])
  })

  const refused: [what: string, form: Buffer, message: string, type?: string][] = [
    ['JSON', Buffer.from('{}'), 'invalid multipart form data', 'application/json'],
    ['no boundary', formOf(), 'invalid multipart form data', 'multipart/form-data'],
    ['nothing', Buffer.alloc(0), 'invalid multipart form data: it ends before its last boundary'],
    ['a form cut short', formOf(['model', ALIAS], [file, LONG, 'a']).subarray(0, 2_000_000), 'ends before its last boundary'],
    ['no model', formOf([file, AUDIO, 'a']), '`model` field missing'],
    ['an empty model', formOf(['model', ''], [file, AUDIO, 'a']), '`model` field missing'],
    ['two models', formOf(['model', ALIAS], [file, AUDIO, 'a'], ['model', ALIAS]), '`model` occurs twice'],
    ['a model that is a file', formOf(['model', ALIAS, 'm'], [file, AUDIO, 'a']), '`model` must be a field of text'],
    ['no file', formOf(['model', ALIAS]), ' field missing'],
    ['a file that is none', formOf(['model', ALIAS], [file, 'text']), ' field missing'],
    [
      'a prompt that is no text',
      formOf(['model', ALIAS], ['prompt', Buffer.from([0xff])], [file, AUDIO, 'a']),
      '`prompt` field is not valid UTF-8',
    ],
  ]
  test.each(refused.map(each => ({ what: each[0], each })))('refuses $what without asking anybody', async ({ each }) => {
    const [, form, message, type = FORM['content-type']] = each
    const before = upstream.requests.length
    const { status, error } = await answerOf(await send(form, path, { 'content-type': type }))
    expect([status, error.type]).toEqual([400, 'invalid_request_error'])
    expect(error.message).toStartWith('request payload is invalid: ')
    expect(error.message).toContain(message)
    expect(upstream.requests.length).toBe(before)
  })

  test('wants a key before it reads, a model that there is, and one that the key may use', async () => {
    const form = formOf([file, AUDIO, 'a'], ['model', ALIAS])
    expect((await send(form, path, { ...FORM, authorization: 'Bearer wrong' })).status).toBe(401)
    expect((await send(formOf([file, AUDIO, 'a'], ['model', 'other']), path)).status).toBe(404)
    await gateway.addApiKey('sk-narrow', { allowed_models: ['other'] })
    expect((await send(form, path, { ...FORM, authorization: 'Bearer sk-narrow' })).status).toBe(403)
    expect((await gateway.get(path)).status).toBe(405)
    await gateway.addApiKey('sk-none', { allowed_models: [] })
    const { status, error } = await answerOf(await send(form, path, { ...FORM, authorization: 'Bearer sk-none' }))
    expect([status, error.message]).toEqual([403, 'API key is not allowed to use any model'])
  })
})

describe('no second name of a model passes beside the one that is judged', () => {
  const value = (head: string, text: string) => `--xyz\r\n${head}\r\n\r\n${text}\r\n`
  const field = (name: string, text: string) => value(`Content-Disposition: form-data; name="${name}"`, text)
  const file = value('Content-Disposition: form-data; name="file"; filename="a"', 'sound')
  const second = `--q\r\nContent-Disposition: form-data; name="model"\r\n\r\nsecret\r\n--q--\r\n`
  const odd = (head: string) => field('model', ALIAS) + value(head, 'secret') + file

  const variants: [what: string, form: string, behind?: string, type?: string][] = [
    ['an empty parameter', odd('Content-Disposition: form-data; name="x"; ; name="model"')],
    ['a bare line break', odd('Content-Disposition: form-data; name="x"\nContent-Disposition: form-data; name="model"')],
    ['pieces of a name', odd('Content-Disposition: form-data; name="x"; name*0="model"')],
    ['a folded header', odd('Content-Disposition: form-data; name="x";\r\n name="model"')],
    ['an escape', odd('Content-Disposition: form-data; name="mod\\el"')],
    ['a form before the form', `${second}\r\n${field('model', ALIAS)}${file}`],
    ['a form behind the form', `${field('model', ALIAS)}${file}`, `\r\n${second}`],
    [
      'a file name',
      field('model', ALIAS) + value('Content-Disposition: form-data; name="file"; filename="a\\"; name=\\"model"', 'x'),
    ],
    ['two boundaries', `${field('model', ALIAS)}${file}`, '', 'multipart/form-data; boundary=xyz; ; boundary=q'],
  ]
  test.each(variants.map(each => ({ what: each[0], each })))('$what', async ({ each }) => {
    const [, form, behind = '', type = FORM['content-type']] = each
    upstream.answer((_request, connection) => connection.json(200, transcript))
    const before = upstream.requests.length
    const answer = await send(Buffer.from(`${form}--xyz--${behind}`), TRANSCRIPTIONS, { 'content-type': type })
    if (answer.status === 400) return expect(upstream.requests.length).toBe(before)
    const { bytes, header } = upstream.last()
    const seen = await new Response(bytes, { headers: { 'content-type': header('content-type') ?? '' } }).formData()
    expect(seen.getAll('model')).toEqual([UPSTREAM_MODEL])
    expect(Buffer.from(bytes).toString()).not.toContain('secret')
  })
})

describe('an upload', () => {
  test('over the limit is 413, said beforehand or not, whatever the limit of other bodies', async () => {
    const small = await startGateway({
      upstream: upstream.url,
      config: { proxy: { request_body_limit_bytes: 1_000, upload_limit_bytes: 2_000_000, upload_dir: folder } },
    })
    upstream.answer((_request, connection) => connection.json(200, transcript))
    const post = (body: Buffer | ReadableStream, path = TRANSCRIPTIONS) =>
      fetch(small.url + path, { method: 'POST', body, headers: { ...FORM, authorization: `Bearer ${small.key}` } })
    const long = formOf(['model', ALIAS], ['file', LONG, 'a'])
    const fits = formOf(['model', ALIAS], ['file', LONG.subarray(0, 1_900_000), 'a'])
    expect((await post(fits)).status).toBe(200)
    for (const body of [long, new Blob([new Uint8Array(long)]).stream()]) {
      const { status, error } = await answerOf(await post(body))
      expect([status, error.message]).toEqual([413, 'request body exceeds 2000000-byte limit'])
    }
    expect((await small.post('/v1/rerank', { model: ALIAS, query: 'x'.repeat(2_000) })).status).toBe(413)
    await small.stop()
  })

  test('that the disk has no room for is 503, and the log says why', async () => {
    const nowhere = await startGateway({
      upstream: upstream.url,
      config: { proxy: { upload_dir: join(folder, 'gone') } },
    })
    const before = upstream.requests.length
    const { status, error } = await answerOf(
      await nowhere.post(TRANSCRIPTIONS, new Uint8Array(formOf(['model', ALIAS], ['file', LONG, 'a'])), FORM),
    )
    expect([status, error.type]).toEqual([503, 'upload_unavailable'])
    expect(upstream.requests.length).toBe(before)
    expect(nowhere.logs.join('\n')).toContain('ENOENT')
    await nowhere.idle()
    await nowhere.stop()
  })

  test('is sent again, whole, when an upstream fails', async () => {
    await gateway.addModel({ display_name: 'again', retries: 2 })
    const seen: UpstreamRequest[] = []
    upstream.answerInTurn(
      (request, connection) => {
        seen.push(request)
        return connection.json(503, {})
      },
      (request, connection) => {
        seen.push(request)
        connection.reset()
      },
      (request, connection) => {
        seen.push(request)
        return connection.json(200, transcript)
      },
    )
    const form = formOf(['file', LONG, 'a'], ['model', 'again'])
    expect((await send(form)).status).toBe(200)
    expect(seen.length).toBeGreaterThanOrEqual(3)
    for (const request of seen) expectForm(request, ['file', LONG, 'a'], ['model', UPSTREAM_MODEL])
  })

  test("goes to the next member of a group, under that member's name", async () => {
    await gateway.addModel({ display_name: 'one', model_name: 'name/one' })
    await gateway.addModel({ display_name: 'two', model_name: 'a much longer name/two' })
    await gateway.addGroup('both', { targets: ['one', 'two'] })
    upstream.answerInTurn(
      (_request, connection) => connection.json(500, {}),
      (_request, connection) => connection.json(200, transcript),
    )
    const answer = await send(formOf(['model', 'both'], ['file', AUDIO, 'a']))
    expect([answer.status, answer.headers.get('x-aisix-served-by')]).toEqual([200, 'two'])
    expectForm(upstream.last(), ['model', 'a much longer name/two'], ['file', AUDIO, 'a'])
  })

  test('gets what the operator wants changed of its fields, and files are left alone', async () => {
    const key = await gateway.addProviderKey({
      api_base: upstream.url,
      request: {
        param_renames: { prompt: 'hint', seed: 'random' },
        param_constraints: { temperature_max: 0.5 },
        default_body_fields: { response_format: 'text', beam: 5, words: ['a'], language: 'en', model: 'mine' },
      },
    })
    await gateway.addModel({ display_name: 'changed', provider_key_id: key.id })
    upstream.answer((_request, connection) => connection.json(200, transcript))
    const form = formOf(
      ['prompt', 'ä'],
      ['hint', 'gone'],
      ['temperature', '0.9'],
      ['language', 'de'],
      ['file', AUDIO, 'prompt'],
      ['model', 'changed'],
    )
    expect((await send(form)).status).toBe(200)
    const { bytes, header } = upstream.last()
    const seen = await new Response(bytes, { headers: { 'content-type': header('content-type') ?? '' } }).formData()
    const fields = [...seen].map(([name, value]) => [name, typeof value === 'string' ? value : value.name])
    expect(fields).toEqual([
      ['hint', 'ä'],
      ['temperature', '0.5'],
      ['language', 'de'],
      ['file', 'prompt'],
      ['model', UPSTREAM_MODEL],
      ['response_format', 'text'],
      ['beam', '5'],
      ['words', '["a"]'],
    ])
  })

  test.each([
    ['text/plain; charset=utf-8', 'just words\n'],
    ['application/x-subrip', '1\n00:00:00,000 --> 00:00:01,000\nwords\n'],
  ])('is answered with %s as it came', async (type, text) => {
    upstream.answer((_request, connection) => connection.send(200, text, { 'content-type': type }))
    const answer = await send(formOf(['model', ALIAS], ['file', AUDIO, 'a'], ['response_format', 'srt']))
    expect([answer.headers.get('content-type'), await answer.text()]).toEqual([type, text])
    await gateway.idle()
    // How long a recording is, its bytes do not tell in tokens.
    expect(gateway.telemetry.records).toMatchObject([{ promptTokens: 0, completionTokens: 0, isEstimated: false }])
  })

  test.each([
    [{ text: 'x', usage: { type: 'duration', seconds: 9 } }, 9],
    [{ text: 'x', duration: 8.47 }, 8.47],
    [{ text: 'x', duration: '8.47' }, 8.47],
  ])('tells how long it was: %j', async (document, seconds) => {
    upstream.answer((_request, connection) => connection.json(200, document))
    let told: unknown
    const { metrics } = gateway.gateway
    const finished = metrics.finished.bind(metrics)
    metrics.finished = (exchange, ...more) => {
      told = exchange.extra?.audioSeconds
      return finished(exchange, ...more)
    }
    await (await send(formOf(['model', ALIAS], ['file', AUDIO, 'a']))).text()
    await gateway.idle()
    expect(told).toBe(seconds)
  })

  test.each([
    ['a recording', waveOfOneSecond(), 1],
    ['as much as there is of one', waveOfOneSecond().subarray(0, 50), 6 / 16_000],
    ['nothing that is known', LONG, undefined],
    ['nothing', Buffer.alloc(0), undefined],
  ])('whose server does not tell how long it was is measured: %s', async (_what, audio, seconds) => {
    upstream.answer((_request, connection) => connection.send(200, 'words', { 'content-type': 'text/plain' }))
    const settled = Promise.withResolvers<unknown>()
    const { metrics } = gateway.gateway
    const finished = metrics.finished.bind(metrics)
    metrics.finished = (exchange, ...more) => {
      settled.resolve(exchange.extra?.audioSeconds)
      return finished(exchange, ...more)
    }
    expect((await send(formOf(['model', ALIAS], ['file', audio, 'a.wav']))).status).toBe(200)
    expect(await settled.promise).toBe(seconds)
  })

  test.each([
    [
      'of empty boxes',
      Buffer.concat([
        Buffer.from('\0\0\0\x14ftypM4A \0\0\0\0M4A ', 'latin1'),
        Buffer.from('\0\0\0\x08free'.repeat(200_000), 'latin1'),
      ]),
    ],
    ['of nested boxes', Buffer.from(Array.from({ length: 20_000 }, (_, i) => `\0\x02\x00\x00moov${i}`).join(''), 'latin1')],
    [
      'of empty chunks',
      Buffer.concat([Buffer.from('RIFF\xff\xff\xff\x7fWAVE', 'latin1'), Buffer.from('junk\0\0\0\0'.repeat(200_000), 'latin1')]),
    ],
  ])('that is a recording %s is looked at no longer than others', async (_what, audio) => {
    upstream.answer((_request, connection) => connection.json(200, {}))
    const reads = spyOn(Spool.prototype, 'read')
    expect((await send(formOf(['model', ALIAS], ['file', audio, 'a.m4a']))).status).toBe(200)
    // Its own pieces go to the upstream by as many reads as they are long.
    const sending = Math.ceil(audio.byteLength / 32_768) + 2
    expect(reads.mock.calls.length).toBeLessThan(sending + 500)
    reads.mockRestore()
  })

  test('is given up when its caller leaves, while it comes and while it is answered', async () => {
    const form = formOf(['model', ALIAS], ['file', LONG, 'a'])
    const caller = await rawCaller(gateway.port)
    caller.send(
      `POST ${TRANSCRIPTIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${gateway.key}\r\ncontent-type: ${FORM['content-type']}\r\ncontent-length: ${form.byteLength}\r\n\r\n`,
    )
    caller.send(form.subarray(0, 1_000_000))
    await until('the exchange has begun', () => gateway.gateway.lifecycle.inFlight.size === 1)
    const before = upstream.requests.length
    caller.leave()
    await gateway.idle()
    expect(upstream.requests.length).toBe(before)

    const cut = upstream.cut
    upstream.answer((_request, connection) => connection.stall())
    const controller = new AbortController()
    const answering = gateway.post(TRANSCRIPTIONS, new Uint8Array(form), FORM, controller.signal)
    await upstream.arrived(before + 1)
    controller.abort()
    expect(answering).rejects.toThrow()
    await upstream.whenCut(cut + 1)
  })
})

describe('a streamed transcription', () => {
  const form = formOf(['model', ALIAS], ['stream', 'true'], ['file', AUDIO, 'a'])
  const delta = (text: string) => ({ type: 'transcript.text.delta', delta: text })
  const done = {
    type: 'transcript.text.done',
    text: 'one two',
    usage: { type: 'tokens', input_tokens: 3, output_tokens: 2, total_tokens: 5 },
  }

  test('is passed on event by event, and counted by its last', async () => {
    const goOn = Promise.withResolvers<void>()
    upstream.answer(async (_request, connection) => {
      await connection.streamHead()
      await connection.chunk(`data: ${JSON.stringify(delta('one'))}\n\n`)
      await goOn.promise
      await connection.chunk(`data: ${JSON.stringify(done)}\n\n`)
      await connection.endChunks()
    })
    const answer = await send(form)
    expect(answer.headers.get('content-type')).toStartWith('text/event-stream')
    const reader = answer.body?.getReader()
    const first = await reader?.read()
    expect(Buffer.from(first?.value ?? []).toString()).toBe(`data: ${JSON.stringify(delta('one'))}\n\n`)
    goOn.resolve()
    let rest = ''
    for (let piece = await reader?.read(); piece && !piece.done; piece = await reader?.read())
      rest += Buffer.from(piece.value).toString()
    expect(rest).toBe(`data: ${JSON.stringify(done)}\n\n`)
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([
      { isStream: true, promptTokens: 3, completionTokens: 2, isEstimated: false },
    ])
  })

  test('of chunks that end with [DONE] is whole, too', async () => {
    const chunk = { object: 'transcription.chunk', choices: [{ delta: { content: 'one' } }] }
    const last = {
      object: 'transcription.chunk',
      choices: [],
      usage: { prompt_tokens: 4, completion_tokens: 6, total_tokens: 10 },
    }
    upstream.answer((_request, connection) => connection.sse([chunk, last]))
    expect(await (await send(form)).text()).toBe(
      `data: ${JSON.stringify(chunk)}\n\ndata: ${JSON.stringify(last)}\n\ndata: [DONE]\n\n`,
    )
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([{ promptTokens: 4, completionTokens: 6 }])
  })

  test('that is cut ends with an error', async () => {
    upstream.answer((_request, connection) => connection.sse([delta('one')], { done: null }))
    const text = await (await send(form)).text()
    expect(text).toContain('event: error\n')
    expect(text).toContain('stream_aborted')
  })

  test('is a whole answer where the server has no streams', async () => {
    upstream.answer((_request, connection) => connection.json(200, transcript))
    const answer = await send(form)
    expect([answer.headers.get('content-type'), await answer.json()]).toEqual(['application/json', transcript])
    await gateway.idle()
    expect(gateway.telemetry.records).toMatchObject([{ isStream: false, promptTokens: 14 }])
  })

  test('of images is refused', async () => {
    const { status, error } = await answerOf(
      await send(formOf(['model', ALIAS], ['stream', 'true'], ['image', AUDIO, 'a']), '/v1/images/edits'),
    )
    expect([status, error.message]).toEqual([400, 'request payload is invalid: `stream` is not supported here'])
  })
})

test.each(['anthropic', 'deepseek'])('images of a model labelled %s are refused', async provider => {
  await gateway.addModel({ display_name: 'other', provider })
  const { status, error } = await answerOf(await send(formOf(['model', 'other'], ['image', AUDIO, 'a']), '/v1/images/edits'))
  expect([status, error.message]).toEqual([400, expect.stringContaining('is not an OpenAI provider')])
})
