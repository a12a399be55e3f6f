import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import {
  binaryToUtf8,
  DEPTH_MAX,
  findMember,
  JsonDepthError,
  JsonSyntaxError,
  parseBinary,
  parseBounded,
  readElements,
  readMembers,
  removeMember,
  scanMembers,
  setMember,
  skipValue,
  stringifyBinary,
  toBinary,
  toBytes,
  utf8ToBinary,
  writeMembers,
} from '../../src/wire/members.ts'

const record = fc.dictionary(fc.string({ unit: 'grapheme' }), fc.jsonValue({ maxDepth: 4 }))
/** JSON with white space between its tokens. */
const spaced = fc.tuple(record, fc.constantFrom(undefined, 1, 2, '\t', ' \r\n')).map(([value, space]) => ({
  value: JSON.parse(JSON.stringify(value)),
  text: JSON.stringify(value, null, space),
}))

describe('readMembers and writeMembers', () => {
  test('what is read and written again means the same, for any object', () => {
    fc.assert(
      fc.property(spaced, ({ value, text }) => {
        expect(JSON.parse(writeMembers(readMembers(text)))).toEqual(value)
      }),
      { numRuns: 300 },
    )
  })

  test('the same for binary text, as streams have it', () => {
    fc.assert(
      fc.property(spaced, ({ value, text }) => {
        expect(parseBinary(writeMembers(readMembers(utf8ToBinary(text))))).toEqual(value)
      }),
      { numRuns: 300 },
    )
  })

  test('each member keeps its bytes, for any object', () => {
    fc.assert(
      fc.property(spaced, ({ value, text }) => {
        const members = readMembers(text)
        expect(members.map(({ key }) => key).sort()).toEqual(Object.keys(value).sort())
        for (const { rawKey, rawValue } of members) {
          expect(text).toContain(rawKey)
          expect(text).toContain(rawValue)
        }
      }),
      { numRuns: 300 },
    )
  })

  test('spans stand where the values are, for any object', () => {
    fc.assert(
      fc.property(spaced, ({ value, text }) => {
        for (const { key, valueStart, valueEnd } of scanMembers(text)) {
          expect(JSON.parse(text.slice(valueStart, valueEnd))).toEqual(value[key])
        }
      }),
      { numRuns: 300 },
    )
  })

  test('numbers, escapes and the order of members stay as they were sent', () => {
    const text = '{ "z" : 9007199254740993 , "a":1.0,"b":1e400, "c":-0, "\\u0064":"\\u00e4\\/" ,"e":[ 1 , 2 ] }'
    expect(writeMembers(readMembers(text))).toBe(
      '{"z":9007199254740993,"a":1.0,"b":1e400,"c":-0,"\\u0064":"\\u00e4\\/","e":[ 1 , 2 ]}',
    )
  })

  test('names are compared as what they mean', () => {
    const members = readMembers('{"mod\\u0065l":1,"grüße":2,"__proto__":3}')
    expect(members.map(({ key }) => key)).toEqual(['model', 'grüße', '__proto__'])
  })

  test('both of two equal names are there', () => {
    expect(readMembers('{"a":1,"a":2}').map(({ rawValue }) => rawValue)).toEqual(['1', '2'])
  })
})

describe('what is no JSON object is refused', () => {
  test.each([
    '',
    ' ',
    '{',
    '{"a"',
    '{"a":',
    '{"a":1',
    '{"a":1,',
    '{"a":1,}',
    '{"a" 1}',
    '{a:1}',
    "{'a':1}",
    '{,}',
    '{"a":}',
    '{"a":1}}',
    '{"a":1} x',
    '{"a":[1,]}',
    '{"a":[1 2]}',
    '{"a":[1}',
    '{"a":{"b":1]}',
    '{"a":"x}',
    '{"a":"\\"}',
    '{"a":01}',
    '{"a":+1}',
    '{"a":.5}',
    '{"a":1.}',
    '{"a":1e}',
    '{"a":-}',
    '{"a":0x10}',
    '{"a":NaN}',
    '{"a":Infinity}',
    '{"a":tru}',
    '{"a":True}',
    '{"a":undefined}',
    '{"a":1/**/}',
    '[]',
    '"x"',
    '1',
    'null',
    '\ufeff{"a":1}',
    '{"\\x":1}',
  ])('%p', text => {
    expect(() => readMembers(text)).toThrow(JsonSyntaxError)
  })

  test('whatever JSON.parse refuses for its structure, for any damage to a text', () => {
    const damaged = fc.tuple(spaced, fc.nat(), fc.constantFrom('', '{', '}', '[', ']', ',', ':', '"', '1', 'x', '-', '.'))
    fc.assert(
      fc.property(damaged, ([{ text }, position, character]) => {
        const at = position % text.length
        const broken = text.slice(0, at) + character + text.slice(at + 1)
        let isObject = false
        try {
          const value: unknown = JSON.parse(broken)
          isObject = typeof value === 'object' && value !== null && !Array.isArray(value)
        } catch {
          // Escapes and control characters inside strings are the parser's business, which reads every request.
          if (hasBadString(broken)) return
        }
        if (isObject) expect(JSON.parse(writeMembers(readMembers(broken)))).toEqual(JSON.parse(broken))
        else expect(() => readMembers(broken)).toThrow(JsonSyntaxError)
      }),
      { numRuns: 1_000 },
    )
  })
})

/** True when a text is no JSON for what stands inside its strings alone: with these emptied it parses. */
function hasBadString(text: string): boolean {
  try {
    JSON.parse(text.replace(/"(?:[^"\\]|\\[\s\S])*"/g, '""'))
    return true
  } catch {
    return false
  }
}

describe('depth', () => {
  const nested = (levels: number) => `{"a":${'['.repeat(levels - 1)}${']'.repeat(levels - 1)}}`

  test(`${DEPTH_MAX} levels are read, one more is refused`, () => {
    expect(readMembers(nested(DEPTH_MAX))).toHaveLength(1)
    expect(() => readMembers(nested(DEPTH_MAX + 1))).toThrow(JsonDepthError)
  })

  test('a million levels do not exhaust the stack', () => {
    expect(() => readMembers('{"a":' + '['.repeat(1_000_000))).toThrow(JsonDepthError)
    expect(() => skipValue('{"a":'.repeat(1_000_000), 0)).toThrow(JsonDepthError)
  })

  test('siblings do not add up', () => {
    expect(readMembers(`{"a":[${'[],'.repeat(1_000)}[]]}`)).toHaveLength(1)
  })
})

describe('strings', () => {
  test('many backslashes are read once, not once for each', () => {
    const text = `{"a":"${'\\\\'.repeat(500_000)}"}`
    expect(readMembers(text)[0]?.rawValue.length).toBe(1_000_002)
  })

  test('many escaped quotes behind long runs of backslashes are read in time', () => {
    const text = `{"a":"${`${'\\\\'.repeat(50)}\\"`.repeat(10_000)}"}`
    expect(parseBinary(text)).toHaveProperty('a')
    expect(readMembers(text)).toHaveLength(1)
  })
})

describe('changing members', () => {
  test('a value is replaced in its place, an absent one is added at the end', () => {
    const members = readMembers('{"a":1,"b":2}')
    setMember(members, 'a', '"x"')
    setMember(members, 'c', '3')
    expect(writeMembers(members)).toBe('{"a":"x","b":2,"c":3}')
  })

  test('a member is removed, and removing what is absent changes nothing', () => {
    const members = readMembers('{"a":1,"b":2}')
    removeMember(members, 'a')
    removeMember(members, 'x')
    expect(writeMembers(members)).toBe('{"b":2}')
    expect(findMember(members, 'a')).toBeUndefined()
  })

  test('an object can become empty', () => {
    const members = readMembers(' { "a" : 1 } ')
    removeMember(members, 'a')
    expect(writeMembers(members)).toBe('{}')
  })
})

describe('readElements', () => {
  test('elements keep their bytes', () => {
    expect(readElements('[ 1.0 ,{"a": [ ]},"]" , null]')).toEqual(['1.0', '{"a": [ ]}', '"]"', 'null'])
    expect(readElements('[ ]')).toEqual([])
  })

  test.each(['', '{}', '[', '[1', '[1,', '[1,]', '[1 2]', '1'])('%p is no array', text => {
    expect(() => readElements(text)).toThrow(JsonSyntaxError)
  })

  test('elements mean the same, for any array', () => {
    fc.assert(
      fc.property(fc.array(fc.jsonValue({ maxDepth: 3 })), value => {
        const text = utf8ToBinary(JSON.stringify(value, null, 1))
        expect(readElements(text).map(parseBinary)).toEqual(JSON.parse(JSON.stringify(value)))
      }),
    )
  })
})

describe('binary text', () => {
  test('any text survives the way there and back', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), text => {
        const wellFormed = text.toWellFormed()
        expect(binaryToUtf8(utf8ToBinary(wellFormed))).toBe(wellFormed)
        expect(parseBinary(stringifyBinary(wellFormed))).toBe(wellFormed)
      }),
    )
  })

  test('any bytes survive the way there and back', () => {
    fc.assert(
      fc.property(fc.uint8Array(), bytes => {
        expect(new Uint8Array(toBytes(toBinary(bytes)))).toEqual(new Uint8Array(bytes))
      }),
    )
  })
})

describe('parseBounded', () => {
  test.each([
    '{"a":12345678901234567890,"b":[-9007199254740993,0.12345678901234567890,1e400]}',
    '[1e-7, 5]',
    '{"id":"1234567890123456","n":9007199254740991}',
  ])('keeps the digits of %s', text => expect(JSON.stringify(parseBounded(text)).replaceAll(',5', ', 5')).toBe(text))

  test('makes numbers of what numbers can hold', () => {
    expect(parseBounded('{"a":1.0,"b":1.50,"c":9007199254740991,"d":1e3}')).toEqual({
      a: 1,
      b: 1.5,
      c: 9007199254740991,
      d: 1000,
    })
  })
})
