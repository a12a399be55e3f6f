import { describe, expect, test } from 'bun:test'
import {
  compileForwarding,
  compileHeaderTemplate,
  isHeaderName,
  isHeaderValue,
  isUsableRequestId,
  mayForward,
  maySet,
} from '../../src/wire/headers.ts'

describe('a request id', () => {
  test.each(['a', '!', '~', 'x'.repeat(256), '0b9f6a52-6f0e', '"quoted"'])('%p is usable', id => {
    expect(isUsableRequestId(id)).toBe(true)
  })
  test.each(['', ' ', 'a b', 'a\tb', 'x'.repeat(257), 'é', '\u007f', 'a\n'])('%p is not', id => {
    expect(isUsableRequestId(id)).toBe(false)
  })
})

const CREDENTIALS = [
  'authorization',
  'x-api-key',
  'x-goog-api-key',
  'api-key',
  'x-amz-security-token',
  'x-amz-date',
  'x-amz-content-sha256',
  'proxy-authorization',
  'cookie',
  'host',
]
const TRANSPORT = [
  'accept',
  'accept-encoding',
  'connection',
  'content-encoding',
  'content-length',
  'content-type',
  'expect',
  'keep-alive',
  'proxy-authenticate',
  'set-cookie',
  'te',
  'trailer',
  'transfer-encoding',
  'traceparent',
  'tracestate',
  'upgrade',
  'x-aisix-anything',
  'x-stainless-lang',
  'sec-websocket-key',
  'sec-websocket-version',
  'sec-websocket-protocol',
  'sec-websocket-extensions',
]

test.each(CREDENTIALS)('%s is neither set nor forwarded, in any case', name => {
  expect(maySet(name)).toBe(false)
  expect(maySet(name.toUpperCase())).toBe(false)
  expect(mayForward(name)).toBe(false)
  expect(mayForward(name.toUpperCase())).toBe(false)
})

test.each(TRANSPORT)('%s is not forwarded', name => {
  expect(mayForward(name)).toBe(false)
})

test('others may be set and forwarded', () => {
  for (const name of ['x-custom', 'openai-organization', 'user-agent']) {
    expect(maySet(name)).toBe(true)
    expect(mayForward(name)).toBe(true)
  }
})

describe('names and values', () => {
  test.each(['x-a', 'X_A', "!#$%&'*+.^_`|~"])('%p is a name', name => expect(isHeaderName(name)).toBe(true))
  test.each(['', 'a b', 'a:', 'ä', 'a\n'])('%p is no name', name => expect(isHeaderName(name)).toBe(false))
  test.each(['', 'a b\tc', '~', 'caf\u00e9'])('%p is a value', value => expect(isHeaderValue(value)).toBe(true))
  test.each(['a\r\nb', 'a\n', 'a\u0000', '\u007f', '日本'])('%p is no value', value => expect(isHeaderValue(value)).toBe(false))
})

describe('a template', () => {
  const variables = { 'request.id': 'r1', 'request.api_key.name': 'n', empty: '', missing: undefined, evil: 'a\r\nb: c' }
  test.each([
    ['plain', 'plain'],
    ['${request.id}', 'r1'],
    ['a-${request.id}-${request.api_key.name}', 'a-r1-n'],
    ['$request.id', '$request.id'],
    ['${request.id', '${request.id'],
    ['a${empty}', undefined],
    ['a${missing}', undefined],
    ['a${unknown}', undefined],
    ['${toString}', undefined],
    ['${}', undefined],
    ['${evil}', undefined],
    ['a\r\nb', undefined],
  ])('%p gives %p', (template, expected) => {
    expect(compileHeaderTemplate(template)(variables)).toBe(expected)
  })

  test('does not fill in again what a variable brought', () => {
    expect(compileHeaderTemplate('${a}')({ a: '${b}', b: 'secret' })).toBe('${b}')
  })
})

describe('forwarding', () => {
  const headers = new Headers({ 'X-One': '1', 'x-two': '2', 'y-one': '3', authorization: 'secret', 'x-aisix-x': '4' })
  test.each([
    [['x-one'], { 'x-one': '1' }],
    [['X-ONE'], { 'x-one': '1' }],
    [['x-*'], { 'x-one': '1', 'x-two': '2' }],
    [['*-one'], { 'x-one': '1', 'y-one': '3' }],
    [['x*one'], { 'x-one': '1' }],
    [['*'], { 'x-one': '1', 'x-two': '2', 'y-one': '3' }],
    [['x-one', 'x-*'], { 'x-one': '1', 'x-two': '2' }],
    [['x*-*'], {}],
    [['authorization', 'x-aisix-x', 'absent', 'not a name'], {}],
    [[], {}],
  ] as [string[], Record<string, string>][])('%p lets through %p', (patterns, expected) => {
    expect(Object.fromEntries(compileForwarding(patterns)(headers))).toEqual(expected)
  })
})
