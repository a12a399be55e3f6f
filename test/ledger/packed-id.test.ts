import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { hashId, packId, unpackId } from '../../src/ledger/packed-id.ts'

const hex = (length: number) =>
  fc.array(fc.constantFrom(...'0123456789abcdef'), { minLength: length, maxLength: length }).map(digits => digits.join(''))
const anyId = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 80 }),
  fc.uuid(),
  fc.tuple(fc.string({ maxLength: 70 }), fc.uuid()).map(parts => parts.join('')),
  fc.tuple(fc.string({ maxLength: 70 }), hex(32)).map(parts => parts.join('')),
  fc.tuple(fc.string({ maxLength: 4 }), hex(31)).map(parts => parts.join('')),
)

describe('packed ids', () => {
  test('every id comes back as it was', () => {
    fc.assert(
      fc.property(anyId, id => {
        expect(unpackId(packId(id))).toBe(id)
      }),
      { numRuns: 2_000 },
    )
  })

  test('the same id is always the same value, and other ids are others', () => {
    fc.assert(
      fc.property(anyId, anyId, (one, two) => {
        const same = (id: string) => Bun.deepEquals(packId(id), packId(one))
        expect(same(one)).toBe(true)
        expect(same(two)).toBe(one === two)
      }),
      { numRuns: 2_000 },
    )
  })

  test.each([
    ['a UUID takes 16 bytes', '0b8f6a2e-6c1d-4d5e-9f3a-27c4b1d0e9f8', 16],
    ['an id with a prefix takes 17 and the prefix', 'chatcmpl-0b8f6a2e6c1d4d5e9f3a27c4b1d0e9f8', 26],
    ['a UUID with a prefix as well', 'cmpl-0b8f6a2e-6c1d-4d5e-9f3a-27c4b1d0e9f8', 22],
    ['a trace id takes 17', '0b8f6a2e6c1d4d5e9f3a27c4b1d0e9f8', 17],
  ])('%s', (_, id, bytes) => {
    expect(packId(id)).toBeInstanceOf(Uint8Array)
    expect(packId(id)).toHaveLength(bytes)
  })

  test.each([
    ['capitals, which would come back small', '0B8F6A2E-6C1D-4D5E-9F3A-27C4B1D0E9F8'],
    ['digits that are none', '0b8f6a2e-6c1d-4d5e-9f3a-27c4b1d0e9fg'],
    ['dashes elsewhere', '0b8f6a2e6-c1d-4d5e-9f3a-27c4b1d0e9f8'],
    ['letters beyond ASCII', 'š0b8f6a2e6c1d4d5e9f3a27c4b1d0e9f8'],
    ['nothing', ''],
  ])('%s stay text', (_, id) => {
    expect(packId(id)).toBe(id)
  })

  test('the hash of an id is what it was when files with it were written', () => {
    const hashes = new Uint32Array(4)
    hashId(packId('0b8f6a2e-6c1d-4d5e-9f3a-27c4b1d0e9f8'), hashes, 0)
    hashId('my-request-7', hashes, 2)
    expect([...hashes]).toEqual([3_378_018_430, 1_558_964_674, 1_387_282_287, 1_720_195_176])
  })
})
