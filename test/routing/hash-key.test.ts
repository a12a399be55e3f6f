import { describe, expect, test } from 'bun:test'
import { compileHashKey, cookieValue, type HashSource } from '../../src/routing/hash-key.ts'

/** The key of a request with these headers. */
function keyOf(
  sources: readonly HashSource[] | undefined,
  headers: Record<string, string> = {},
  apiKeyId = 'key-1',
  ip = '10.0.0.9',
) {
  const known = new Headers(headers)
  return compileHashKey(sources)({ header: name => known.get(name), apiKeyId, clientIp: () => ip })
}

describe('where nothing is configured, the key is', () => {
  test('the header x-aisix-routing-key', () => expect(keyOf(undefined, { 'x-aisix-routing-key': 'session-7' })).toBe('session-7'))
  test('the id of the API key without that header', () => expect(keyOf(undefined)).toBe('key-1'))
  test('the id of the API key where the header is blank', () =>
    expect(keyOf(undefined, { 'x-aisix-routing-key': '  ' })).toBe('key-1'))
})

describe('a source', () => {
  test.each<[string, HashSource, Record<string, string>, string]>([
    ['header, by any case', { type: 'header', name: 'X-Session' }, { 'x-session': 's1' }, 's1'],
    ['header, trimmed', { type: 'header', name: 'x-session' }, { 'x-session': '  s1\t' }, 's1'],
    ['header, the first of several values', { type: 'header', name: 'x-session' }, { 'x-session': 's1, s2' }, 's1'],
    ['header that is missing', { type: 'header', name: 'x-session' }, {}, ''],
    ['header whose first value is empty', { type: 'header', name: 'x-session' }, { 'x-session': ', s2' }, ''],
    ['header that no request can have', { type: 'header', name: 'no header' }, {}, ''],
    ['header without a name', { type: 'header' }, {}, ''],
    ['cookie', { type: 'cookie', name: 'sid' }, { cookie: 'a=1; sid=s1; b=2' }, 's1'],
    ['cookie that is missing', { type: 'cookie', name: 'sid' }, { cookie: 'a=1' }, ''],
    ['cookie without any', { type: 'cookie', name: 'sid' }, {}, ''],
    ['api_key', { type: 'api_key' }, {}, 'key-1'],
    ['client_ip', { type: 'client_ip' }, {}, '10.0.0.9'],
  ])('%s', (_case, source, headers, expected) => {
    expect(keyOf([source], headers)).toBe(expected)
  })
})

describe('a chain', () => {
  const chain: HashSource[] = [
    { type: 'cookie', name: 'sid' },
    { type: 'header', name: 'x-session' },
    { type: 'client_ip' },
    { type: 'api_key' },
  ]

  test('gives its first value, in the order of the sources', () => {
    expect(keyOf(chain, { cookie: 'sid=c', 'x-session': 'h' })).toBe('c')
    expect(keyOf(chain, { cookie: 'other=c', 'x-session': 'h' })).toBe('h')
    expect(keyOf(chain)).toBe('10.0.0.9')
    expect(keyOf(chain, {}, 'key-1', '')).toBe('key-1')
  })

  test('passes over blank values', () => {
    expect(keyOf(chain, { cookie: 'sid=""', 'x-session': ' ' })).toBe('10.0.0.9')
  })

  test('without any value gives the empty key', () => {
    expect(keyOf(chain, {}, '', '')).toBe('')
  })

  test('looks no further than its first value', () => {
    let looks = 0
    const key = compileHashKey([{ type: 'api_key' }, { type: 'client_ip' }])
    const clientIp = () => {
      looks += 1
      return '10.0.0.9'
    }
    expect(key({ header: () => null, apiKeyId: 'key-1', clientIp })).toBe('key-1')
    expect(looks).toBe(0)
  })
})

describe('a cookie', () => {
  test.each([
    ['sid=s1', 's1'],
    ['sid="s1"', 's1'],
    ['sid="s1', '"s1'],
    ['sid="', '"'],
    ['sid=', ''],
    ['sid', ''],
    ['sid; sid=s1', 's1'],
    ['a=1;sid=s1', 's1'],
    [' sid = s1 ; b=2', 's1'],
    ['a=sid=s1', ''],
    ['xsid=no; sid=s1', 's1'],
    ['SID=no; sid=s1', 's1'],
    ['sid=s1; sid=s2', 's1'],
    ['sid=a=b==', 'a=b=='],
    ['sid=a,b', 'a,b'],
    ['sid=%20', '%20'],
    [';;; ;sid=s1;', 's1'],
    ['', ''],
  ])('out of %p is %p', (header, expected) => {
    expect(cookieValue(header, 'sid')).toBe(expected)
  })
})
