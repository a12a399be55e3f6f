import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { isBase64, readDataUrl } from '../../src/wire/base64.ts'

test.each(['', ' ', 'A', 'AA', 'AAA', 'AAAAA', 'AA==AAAA', '=', '====', 'A===', 'AA=A', 'AAA=A', 'not base64', 'AA_-', 'ä'])(
  '%j is none',
  text => {
    expect(isBase64(text)).toBe(false)
  },
)

test('whatever was encoded is, on one line or on many', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1 }), bytes => {
      const text = Buffer.from(bytes).toString('base64')
      expect(isBase64(text)).toBe(true)
      expect(isBase64(`${text.replace(/(.{4})/g, '$1\r\n')} `)).toBe(true)
      if (text.endsWith('=')) expect(isBase64(text.replace(/=+$/, ''))).toBe(false)
    }),
  )
})

test.each([
  ['data:image/PNG;base64,AAAA', { mediaType: 'image/png', data: 'AAAA' }],
  ['DATA:text/plain;charset=utf-8;base64,AAAA', { mediaType: 'text/plain', data: 'AAAA' }],
  ['data:image/png;base64,', undefined],
  ['data:image/png;base64,AAA', undefined],
  ['data:;base64,AAAA', undefined],
  ['data:image/svg+xml,%3Csvg', undefined],
  ['https://example.com/a.png', undefined],
])('%s is read as %p', (url, expected) => {
  expect(readDataUrl(url)).toEqual(expected)
})
