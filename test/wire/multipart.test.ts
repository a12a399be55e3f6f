import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { boundaryOf, type FormPart, formEnd, MultipartError, MultipartScanner, partHead } from '../../src/wire/multipart.ts'

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

const fail = (): never => {
  throw new Error('a part is missing')
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
    ['multipart/form-data; boundary=A; junk; boundary=Q', undefined],
    ['multipart/form-data; boundary=A; ; boundary=Q', undefined],
    ['multipart/form-data; boundary=A y; boundary=Q', undefined],
    ['multipart/form-data; boundary=A; boundary*=Q', undefined],
    ['multipart/form-data; boundary=A;', 'A'],
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
    filename: fc.option(fc.stringMatching(/^[a-z .";=]{0,12}$/), { nil: undefined }),
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
          // Written anew, it is the same form to another reader.
          const pieces = scanner.parts.flatMap((each, index) => [partHead('new', each, index === 0), text(body, each)])
          const written = new Response(Buffer.concat([...pieces, formEnd('new')].map(each => Buffer.from(each))), {
            headers: { 'content-type': 'multipart/form-data; boundary=new' },
          })
          const again = [...(await written.formData())]
          expect(again.map(([name]) => name)).toEqual(wanted.map(([name]) => name))
          for (const [index, [, value]] of again.entries()) {
            const bytes = typeof value === 'string' ? Buffer.from(value) : Buffer.from(await value.arrayBuffer())
            expect(bytes).toEqual(text(body, scanner.parts[index] ?? fail()))
          }
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
    ['an extended name', one(`Content-Disposition: form-data; name="a"; name*=utf-8''model`), 'readers differ'],
    ['a name in pieces', one('Content-Disposition: form-data; name="a"; name*0="model"'), 'readers differ'],
    ['an empty parameter', one('Content-Disposition: form-data; name="a"; ; name="model"'), 'malformed'],
    ['a word that is no parameter', one('Content-Disposition: form-data; name="a"; junk; name="model"'), 'malformed'],
    ['a word behind a quoted name', one('Content-Disposition: form-data; name="a"y; name="model"'), 'malformed'],
    ['a word behind a plain name', one('Content-Disposition: form-data; name=a y; name="model"'), 'malformed'],
    [
      'a bare line break',
      one('Content-Disposition: form-data; name="a"\nContent-Disposition: form-data; name="model"'),
      'malformed',
    ],
    ['a bare carriage return', one('Content-Disposition: form-data; name="a"\rX: y'), 'malformed'],
    ['a folded header', one('Content-Disposition: form-data; name="a"\r\n ; name="model"'), 'malformed'],
    [
      'a header behind a space',
      one(' Content-Disposition: form-data; name="model"\r\nContent-Disposition: form-data; name="a"'),
      'malformed',
    ],
    ['a name with a backslash', one('Content-Disposition: form-data; name="mod\\el"'), 'backslash'],
    ['a name with a NUL', one('Content-Disposition: form-data; name="model\0"'), 'malformed'],
    [
      'a transfer encoding',
      one('Content-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64'),
      'transfer encoding',
    ],
    ['no disposition', one('Content-Type: text/plain'), 'no content-disposition'],
    ['two dispositions', one('Content-Disposition: form-data; name="a"\r\ncontent-disposition: form-data; name="b"'), 'twice'],
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
