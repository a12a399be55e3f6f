import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { formatAddress, parseSocketAddress } from '../../src/lib/address.ts'

const good: [string, string, number][] = [
  ['0.0.0.0:3000', '0.0.0.0', 3000],
  ['127.0.0.1:0', '127.0.0.1', 0],
  ['127.0.0.1:65535', '127.0.0.1', 65535],
  ['[::1]:3000', '::1', 3000],
  ['[::]:3000', '::', 3000],
  ['[::ffff:127.0.0.1]:80', '::ffff:127.0.0.1', 80],
]

const refused: [string, string][] = [
  [':3000', 'for all addresses write "0.0.0.0:3000", for this machine alone "127.0.0.1:3000"'],
  ['*:3001', 'for all addresses write "0.0.0.0:3001", for this machine alone "127.0.0.1:3001"'],
  ['3000', 'for all addresses write "0.0.0.0:3000", for this machine alone "127.0.0.1:3000"'],
  ['localhost:3000', 'write "127.0.0.1:3000", or "[::1]:3000"'],
  ['LocalHost:3000', 'write "127.0.0.1:3000", or "[::1]:3000"'],
  ['gateway.internal:3000', 'host names are not resolved here: write the IP address'],
  ['127.0.0.1', 'add a port'],
  ['127.0.0.1:', 'add a port'],
  ['[::1]', 'add a port'],
  ['127.0.0.1:65536', 'the port is a number from 0 to 65535'],
  ['127.0.0.1:http', 'the port is a number from 0 to 65535'],
  ['127.0.0.1:-1', 'the port is a number from 0 to 65535'],
  ['127.0.0.1: 80', 'the port is a number from 0 to 65535'],
  ['::1', 'put the IPv6 address in brackets and add a port: "[::1]:3000"'],
  ['fd00:0:0:0:0:0:0:1:3000', 'put the IPv6 address in brackets: "[::1]:3000"'],
  ['http://127.0.0.1:3000', 'leave out the scheme and the path'],
  ['256.0.0.1:3000', 'host names are not resolved here'],
  ['01.2.3.4:3000', 'host names are not resolved here'],
  ['[fe80::1%eth0]:3000', 'host names are not resolved here'],
  ['', 'write "0.0.0.0:3000"'],
]

describe('parseSocketAddress', () => {
  test.each(good)('%s is an address, and formats back', (text, hostname, port) => {
    expect(parseSocketAddress(text)).toEqual({ hostname, port })
    expect(formatAddress({ hostname, port })).toBe(text)
  })

  test.each(refused)('"%s" is refused with the spelling that works', (text, advice) => {
    expect(() => parseSocketAddress(text)).toThrow(advice)
  })

  test('what was submitted is not repeated, but for a valid port', () => {
    for (const text of ['sk-secret:99999', 'sk-secret', 'http://user:sk-secret@host']) {
      expect(() => parseSocketAddress(text)).toThrow(expect.not.stringContaining('secret'))
    }
  })

  test('every IPv4 and IPv6 address with every port reads back as it was formatted', () => {
    const address = fc.record({ hostname: fc.oneof(fc.ipV4(), fc.ipV6()), port: fc.integer({ min: 0, max: 65535 }) })
    fc.assert(fc.property(address, value => expect(parseSocketAddress(formatAddress(value))).toEqual(value)))
  })
})
