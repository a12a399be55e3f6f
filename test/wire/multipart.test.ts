import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { boundaryOf, type FormPart, MultipartError, MultipartScanner } from '../../src/wire/multipart.ts'

const scan = (body: Uint8Array, boundary: string, cuts: readonly number[] = []): MultipartScanner => {
  const scanner = new MultipartScanner(boundary)
  let from = 0
  for (const to of [...cuts, body.byteLength].sort((a, b) => a - b)) {
    // As a runtime may: the memory of a piece is another's as soon as it has been handed over.
    const piece = Uint8Array.from(body.subarray(from, to))
    scanner.push(piece)
    piece.fill(0xff)
    from = to
  }
  scanner.finish()
  return scanner
}

const text = (body: Uint8Array, { valueStart, valueEnd }: FormPart) => Buffer.from(body.subarray(valueStart, valueEnd))

describe('boundaryOf', () => {
  test.each([
    ['multipart/form-data; boundary=abc', 'abc'],
    ['multipart/form-data;boundary="a b:c"', 'a b:c'],
    ['Multipart/Form-Data; charset=utf-8; Boundary=----WebKitFormBoundary7MA4', '----WebKitFormBoundary7MA4'],
    ['multipart/form-data', undefined],
    ['multipart/form-data; boundary=', undefined],
    ['multipart/form-data; boundary=a; boundary=b', undefined],
    [`multipart/form-data; boundary=${'a'.repeat(71)}`, undefined],
    ['multipart/form-data; boundary="a\r\nb"', undefined],
    ['multipart/mixed; boundary=abc', undefined],
    ['application/json', undefined],
    [null, undefined],
  ])('of %p is %p', (contentType, boundary) => expect(boundaryOf(contentType)).toBe(boundary))
})

describe('MultipartScanner', () => {
  /** Bytes that look like the beginning of a boundary as often as not. */
  const bytes = fc
    .array(fc.constantFrom(0x0d, 0x0a, 0x2d, 0x61, 0x62, 0x00, 0xff), { maxLength: 64 })
    .map(each => Buffer.from(each))
  const part = fc.record({
    name: fc.stringMatching(/^[a-z[\]_ ä]{1,12}$/),
    filename: fc.option(fc.stringMatching(/^[a-z ."\\;=]{0,12}$/), { nil: undefined }),
    value: bytes,
  })

  test('finds what the runtime finds, wherever the body is cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(part, { minLength: 1, maxLength: 6 }),
        fc.array(fc.nat(), { maxLength: 12 }),
        async (parts, at) => {
          const form = new FormData()
          for (const { name, filename, value } of parts) {
            if (filename === undefined) form.append(name, value.toString('latin1').replaceAll(/[^ab-]/g, 'x'))
            else form.append(name, new Blob([value]), filename)
          }
          const response = new Response(form)
          const boundary = boundaryOf(response.headers.get('content-type')) ?? ''
          const body = new Uint8Array(await response.clone().arrayBuffer())
          const scanner = scan(
            body,
            boundary,
            at.map(each => each % (body.byteLength + 1)),
          )
          const wanted = [...(await response.formData())]
          expect(scanner.parts.map(({ name }) => name)).toEqual(wanted.map(([name]) => name))
          for (const [index, found] of scanner.parts.entries()) {
            const value = wanted[index]?.[1] ?? ''
            const expected = typeof value === 'string' ? Buffer.from(value) : Buffer.from(await value.arrayBuffer())
            expect(text(body, found)).toEqual(expected)
            expect(found.filename === undefined).toBe(typeof value === 'string')
            expect(found.value && Buffer.from(found.value)).toEqual(typeof value === 'string' ? expected : undefined)
          }
          // The parts and the last delimiter are all there is.
          expect(scanner.parts.map(({ start }) => start)).toEqual([0, ...scanner.parts.slice(0, -1).map(({ end }) => end)])
          expect(scanner.end).toBe(scanner.parts.at(-1)?.end)
        },
      ),
      { numRuns: 300 },
    )
  })

  test('never finds more in a body that is cut short', () => {
    const body = Buffer.from('--b\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n--b--\r\n')
    for (let length = 0; length < body.byteLength - 2; length += 1) {
      expect(() => scan(body.subarray(0, length), 'b')).toThrow(MultipartError)
    }
    expect(scan(body, 'b').parts).toHaveLength(1)
  })

  const one = (head: string, value = 'x') => Buffer.from(`--b\r\n${head}\r\n\r\n${value}\r\n--b--`)
  test.each([
    ['no name', one('Content-Disposition: form-data'), 'no name'],
    ['two names', one('Content-Disposition: form-data; name="a"; name="model"'), 'two names'],
    ['an extended name', one(`Content-Disposition: form-data; name="a"; name*=utf-8''model`), 'two names'],
    ['no disposition', one('Content-Type: text/plain'), 'no content-disposition'],
    ['two dispositions', one('Content-Disposition: form-data; name="a"\r\ncontent-disposition: form-data; name="b"'), 'or two'],
    ['another disposition', one('Content-Disposition: attachment; name="a"'), 'no form-data'],
    ['headers without end', one(`X: ${'y'.repeat(20_000)}`), 'too long'],
    [
      'a boundary inside a line',
      Buffer.from('--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n--bc\r\n--b--'),
      'middle',
    ],
    ['no boundary', Buffer.alloc(40_000, 0x61), 'does not begin'],
    ['nothing', Buffer.alloc(0), 'ends before'],
    [
      'too many parts',
      Buffer.from(`${'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'.repeat(1_002)}--b--`),
      'more than 1000',
    ],
  ])('refuses %s', (_what, body, message) => expect(() => scan(body, 'b')).toThrow(message))

  test('takes what stands before and behind the form for nothing', () => {
    const body = Buffer.from(
      'preamble\r\n--b \t\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n--b--\r\nepilogue --b\r\n',
    )
    const [only, ...more] = scan(body, 'b').parts
    expect([only?.name, only?.valueStart, more.length]).toEqual(['a', only?.valueEnd, 0])
  })

  test('keeps no long field, and looks at its end all the same', () => {
    const body = one('Content-Disposition: form-data; name="a"', 'y'.repeat(1_100_000))
    const [part] = scan(body, 'b', [500_000]).parts
    expect([part?.value, (part?.valueEnd ?? 0) - (part?.valueStart ?? 0)]).toEqual([undefined, 1_100_000])
  })
})
