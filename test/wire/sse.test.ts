import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { toBinary, utf8ToBinary } from '../../src/wire/members.ts'
import { EVENT_BYTES_MAX, SseReader } from '../../src/wire/sse.ts'

/** The events of a stream that arrives in these pieces and then ends. */
function read(...pieces: string[]): string[] {
  const reader = new SseReader()
  const events: string[] = []
  for (const piece of pieces) reader.push(piece, data => events.push(data))
  reader.end(data => events.push(data))
  return events
}

/** The events that a piece completes, before anything else comes. */
function readAtOnce(...pieces: string[]): string[] {
  const reader = new SseReader()
  const events: string[] = []
  for (const piece of pieces) reader.push(piece, data => events.push(data))
  return events
}

describe('lines', () => {
  test.each([
    ['LF', 'data: a\n\ndata: b\n\n'],
    ['CRLF', 'data: a\r\n\r\ndata: b\r\n\r\n'],
    ['CR', 'data: a\r\rdata: b\r\r'],
    ['LF after CRLF', 'data: a\r\n\ndata: b\n\r\n'],
    ['CR after LF', 'data: a\n\rdata: b\n\r'],
    ['CRLF after CR', 'data: a\r\r\ndata: b\r\r\n'],
  ])('events that end in %s are told apart', (_name, text) => {
    expect(read(text)).toEqual(['a', 'b'])
  })

  test.each([
    ['LF', 'data: a\n\n'],
    ['CRLF', 'data: a\r\n\r\n'],
    ['CR', 'data: a\r\r'],
  ])('an event that ends in %s is handed over at once, not when the next one comes', (_name, text) => {
    expect(readAtOnce(text)).toEqual(['a'])
  })

  test('several data lines are joined by a line feed', () => {
    expect(read('data: a\ndata:b\ndata:\ndata:  c\n\n')).toEqual(['a\nb\n\n c'])
  })

  test('one space after the colon is taken off, no more', () => {
    expect(read('data:a\n\ndata: a\n\ndata:  a\n\n')).toEqual(['a', 'a', ' a'])
  })

  test('comments, other fields and events without data give nothing', () => {
    expect(read(': hi\n\nevent: ping\nid: 7\nretry: 5\n\n:\ndata: a\nevent: x\n\ndatax: b\n\n\n\n')).toEqual(['a'])
  })

  test('a byte order mark before the first event is not part of it, and one later is', () => {
    const mark = '\u00ef\u00bb\u00bf'
    expect(read(`${mark}data: a\n\n`)).toEqual(['a'])
    expect(read(`data: ${mark}a\n\n`)).toEqual([`${mark}a`])
  })
})

describe('the end', () => {
  test('an event without its blank line still counts', () => {
    expect(read('data: a\n\ndata: b')).toEqual(['a', 'b'])
    expect(read('data: b\n')).toEqual(['b'])
    expect(read('data: b\r')).toEqual(['b'])
    expect(read('data: b\r\n')).toEqual(['b'])
  })

  test('nothing gives nothing', () => {
    expect(read()).toEqual([])
    expect(read('', '\n', '\r\n')).toEqual([])
  })
})

describe('any cut gives the same events', () => {
  const sample = utf8ToBinary(
    '\uFEFFdata: {"a":"ä€😀"}\r\n\r\nevent: x\rdata: b\rdata: c\r\rdata: d\n\ndata:e\ndata\n\n:\n\ndata: [DONE]\n\n',
  )
  const whole = read(sample)

  test('at every single byte position', () => {
    expect(whole).toHaveLength(5)
    for (let at = 0; at <= sample.length; at++) expect(read(sample.slice(0, at), sample.slice(at))).toEqual(whole)
  })

  test('byte by byte', () => {
    expect(read(...sample)).toEqual(whole)
  })

  test('for streams of any lines, cut into any pieces', () => {
    const line = fc.oneof(
      fc.constantFrom('data:', 'data', ':', '', 'event: x', 'data: [DONE]', '\u00ef\u00bb\u00bfdata: a'),
      fc.string({ unit: 'binary', maxLength: 6 }).map(text => `data: ${utf8ToBinary(text).replace(/[\r\n]/g, '')}`),
    )
    const stream = fc
      .array(fc.tuple(line, fc.constantFrom('\n', '\r', '\r\n', '\n\n', '\r\r', '\r\n\r\n')), { maxLength: 12 })
      .map(lines => lines.flat().join(''))
    fc.assert(
      fc.property(stream, fc.array(fc.nat({ max: 80 }), { maxLength: 8 }), (text, cuts) => {
        const at = [0, ...cuts.filter(cut => cut < text.length).sort((a, b) => a - b), text.length]
        const pieces = at.slice(1).map((end, index) => text.slice(at[index], end))
        expect(read(...pieces)).toEqual(read(text))
      }),
      { numRuns: 500 },
    )
  })
})

describe('size', () => {
  test('an event of 2 MiB in small pieces is one event', () => {
    const data = 'x'.repeat(2 * 1024 * 1024)
    const text = `data: ${data}\n\n`
    const pieces = text.match(/[\s\S]{1,65536}/g) ?? []
    expect(read(...pieces)[0]?.length).toBe(data.length)
  })

  test.each([
    ['in one line', (size: number) => `data: ${'x'.repeat(size)}`],
    ['in many lines', (size: number) => `data: ${'x'.repeat(998)}\n`.repeat(size / 1000)],
  ])('an event of more than 8 MiB %s is an error and not a heap of memory', (_name, make) => {
    const reader = new SseReader()
    const piece = make(1_048_000)
    let error: unknown
    let taken = 0
    try {
      for (; taken < 64 * 1024 * 1024; taken += piece.length) reader.push(piece, () => {})
    } catch (thrown) {
      error = thrown
    }
    expect(error).toMatchObject({ kind: 'upstream_decode_error' })
    expect(taken).toBeLessThan(EVENT_BYTES_MAX + piece.length)
  })

  test('many events of some size are not too large together', () => {
    const text = `data: ${'x'.repeat(1_000_000)}\n\n`
    const reader = new SseReader()
    let count = 0
    for (let i = 0; i < 20; i++) reader.push(text, () => (count += 1))
    expect(count).toBe(20)
  })
})

test('bytes of characters pass as they are', () => {
  const bytes = new TextEncoder().encode('data: grüße 😀\n\n')
  expect(read(toBinary(bytes.subarray(0, 9)), toBinary(bytes.subarray(9)))).toEqual([utf8ToBinary('grüße 😀')])
})
