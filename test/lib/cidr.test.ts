import { describe, expect, test } from 'bun:test'
import { BlockList, isIPv4, isIPv6 } from 'node:net'
import fc from 'fast-check'
import { compileNetworks, contains, parseCidr } from '../../src/lib/cidr.ts'

/** True when the network is one and holds the address. */
function holds(network: string, ip: string): boolean {
  const cidr = parseCidr(network)
  if (!cidr) throw new Error(`${network} is not a network`)
  return contains(cidr, ip)
}

describe('a network', () => {
  test.each([
    ['10.0.0.0/8', '10.255.1.2', true],
    ['10.0.0.0/8', '11.0.0.0', false],
    ['10.1.2.3/8', '10.9.9.9', true],
    ['10.0.0.1', '10.0.0.1', true],
    ['10.0.0.1', '10.0.0.2', false],
    ['0.0.0.0/0', '255.255.255.255', true],
    ['0.0.0.0/0', '::1', false],
    ['128.0.0.0/1', '200.1.1.1', true],
    ['128.0.0.0/1', '127.255.255.255', false],
    ['255.255.255.255/32', '255.255.255.255', true],
    ['::/0', 'fd00::1', true],
    ['::/0', '10.0.0.1', false],
    ['fd00::/8', 'fdff::1', true],
    ['fd00::/8', 'fe00::1', false],
    ['2001:db8::/33', '2001:db8:7fff::1', true],
    ['2001:db8::/33', '2001:db8:8000::1', false],
    ['::1', '0:0:0:0:0:0:0:1', true],
    ['2001:DB8::a', '2001:db8::A', true],
    ['fe80::/10', 'fe80::1%eth0', true],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0', true],
    ['64:ff9b::10.0.0.1', '64:ff9b::a00:1', true],
  ])('%s and the address %s: %p', (network, ip, expected) => {
    expect(holds(network, ip)).toBe(expected)
  })

  test.each([
    ['10.0.0.0/8', '::ffff:10.1.2.3', true],
    ['10.0.0.0/8', '::ffff:a01:203', true],
    ['10.0.0.0/8', '::FFFF:11.1.2.3', false],
    ['::ffff:10.0.0.0/104', '10.1.2.3', true],
    ['::ffff:10.0.0.1', '10.0.0.1', true],
    ['::ffff:0:0/96', '1.2.3.4', true],
    ['::10.0.0.1', '10.0.0.1', false],
  ])('%s treats the mapped form as IPv4: %s: %p', (network, ip, expected) => {
    expect(holds(network, ip)).toBe(expected)
  })
})

const NOT_NETWORKS = [
  '',
  '/',
  '10.0.0.0/',
  '10.0.0.0/33',
  '10.0.0.0/08',
  '10.0.0.0/-1',
  '10.0.0.0/8/8',
  '10.0.0.0/8 ',
  ' 10.0.0.0/8',
  '10.0.0',
  '10.0.0.0.0',
  '10.0.0.256',
  '010.0.0.1',
  '10..0.1',
  '0x0a.0.0.1',
  'localhost',
  ':',
  ':::',
  '1:2',
  ':1::2',
  '1::2::3',
  '::1/129',
  '1:2:3:4:5:6:7:8:9',
  '1:2:3:4:5:6:7:8::',
  '1:2:3:4:5:6:7:',
  '12345::',
  '::g',
  '::1.2.3',
  '::1.2.3.4:5',
  '1:2:3:4:5:6:7:1.2.3.4',
  'fe80::1%eth0',
  '::ffff:10.0.0.0/95',
]

test.each(NOT_NETWORKS)('"%s" is not a network', text => {
  expect(parseCidr(text)).toBeUndefined()
})

describe('many networks', () => {
  test('an address in any of them matches; entries that are no network match nothing', () => {
    const matches = compileNetworks(['10.0.0.0/8', 'nonsense', '192.168.1.5', 'fd00::/8'])
    expect(['10.1.1.1', '192.168.1.5', 'fd12::1', '::ffff:10.0.0.1'].map(matches)).toEqual([true, true, true, true])
    expect(['11.1.1.1', '192.168.1.6', 'fe80::1', 'nonsense', '', '10.0.0.1/8'].map(matches)).toEqual(Array(6).fill(false))
  })

  test('no network, or none that can be read, matches nothing', () => {
    expect(compileNetworks([])('10.0.0.1')).toBe(false)
    expect(compileNetworks(['', '10.0.0.0/99'])('10.0.0.1')).toBe(false)
  })
})

test('networks of IPv4 agree with the system on every address', () => {
  const property = fc.property(fc.ipV4(), fc.integer({ min: 1, max: 32 }), fc.ipV4(), (network, prefix, ip) => {
    const list = new BlockList()
    list.addSubnet(network, prefix, 'ipv4')
    expect(holds(`${network}/${prefix}`, ip)).toBe(list.check(ip, 'ipv4'))
    expect(holds(`${network}/${prefix}`, network)).toBe(true)
  })
  fc.assert(property, { numRuns: 500 })
})

test('an IPv6 network holds an address exactly when their first bits are equal', () => {
  const groups = fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: 8, maxLength: 8 })
  const bits = (all: number[]) => all.map(group => group.toString(2).padStart(16, '0')).join('')
  const write = (all: number[]) => all.map(group => group.toString(16)).join(':')
  const property = fc.property(
    groups,
    fc.integer({ min: 0, max: 127 }),
    fc.integer({ min: 0, max: 128 }),
    (base, flip, prefix) => {
      fc.pre(!bits(base).startsWith('0'.repeat(80)))
      const other = base.map((group, i) => (i === flip >> 4 ? group ^ (0x8000 >> (flip & 15)) : group))
      fc.pre(!bits(other).startsWith('0'.repeat(80)))
      expect(holds(`${write(base)}/${prefix}`, write(other))).toBe(bits(base).slice(0, prefix) === bits(other).slice(0, prefix))
    },
  )
  fc.assert(property, { numRuns: 500 })
})

test('a text is an address here exactly when it is one for the system', () => {
  const part = fc.constantFrom('0', '1', '25', '255', '256', '.', '.', ':', ':', '::', 'ff', 'ffff', '1.2.3.4')
  const text = fc.oneof(
    fc.ipV4(),
    fc.ipV6(),
    fc.array(part, { maxLength: 12 }).map(parts => parts.join('')),
  )
  fc.assert(
    fc.property(text, value => expect(parseCidr(value) !== undefined).toBe(isIPv4(value) || isIPv6(value))),
    { numRuns: 2000 },
  )
})
