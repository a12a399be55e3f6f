import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { createClientIp } from '../../src/proxy/client-ip.ts'
import { type FakeUpstream, fakeUpstream } from '../fake-upstream.ts'
import { ALIAS, answerOf, startGateway } from '../gateway.ts'

let upstream: FakeUpstream
beforeAll(async () => {
  upstream = await fakeUpstream()
})
afterAll(() => upstream.stop())

/** A chat request to a gateway with these settings and this `allowed_cidrs` on its model; the status. */
async function ask(realIp: Record<string, unknown>, allowed: string[], headers: Record<string, string> = {}) {
  const gateway = await startGateway({
    upstream: upstream.url,
    config: { proxy: { real_ip: realIp } },
    model: { allowed_cidrs: allowed },
  })
  try {
    upstream.requests.length = 0
    const answer = await answerOf(await gateway.chat({ model: ALIAS }, headers))
    return { ...answer, upstreamCalls: upstream.requests.length }
  } finally {
    await gateway.stop()
  }
}

describe('allowed_cidrs', () => {
  test('lets in an address of its networks', async () => {
    expect((await ask({}, ['127.0.0.0/8'])).status).toBe(200)
    expect((await ask({}, ['10.0.0.1', '127.0.0.1'])).status).toBe(200)
  })

  test('refuses any other with 403, without naming the networks, and without an upstream call', async () => {
    const { status, error, text, upstreamCalls } = await ask({}, ['10.1.2.0/24'])
    expect(status).toBe(403)
    expect(error).toEqual({
      message: 'Access denied: your client IP is not allowed to access this model',
      type: 'permission_denied',
      code: 'ip_restricted',
    })
    expect(text).not.toContain('10.1.2')
    expect(upstreamCalls).toBe(0)
  })

  test('that is empty lets everybody in', async () => {
    expect((await ask({}, [])).status).toBe(200)
  })

  test('with nothing but entries that are no networks lets nobody in', async () => {
    expect((await ask({}, ['not-a-network'])).status).toBe(403)
  })
})

describe('x-forwarded-for', () => {
  const forwarded = { 'x-forwarded-for': '10.1.2.3' }

  test('means nothing from an address that is not trusted', async () => {
    expect((await ask({}, ['10.1.2.0/24'], forwarded)).status).toBe(403)
    expect((await ask({ trusted_proxies: ['192.0.2.0/24'] }, ['10.1.2.0/24'], forwarded)).status).toBe(403)
  })

  test('from a trusted proxy is the address of the caller', async () => {
    expect((await ask({ trusted_proxies: ['127.0.0.1'] }, ['10.1.2.0/24'], forwarded)).status).toBe(200)
    expect((await ask({ trusted_proxies: ['127.0.0.1'] }, ['127.0.0.1'], forwarded)).status).toBe(403)
  })

  test('can be another header', async () => {
    const realIp = { trusted_proxies: ['127.0.0.1'], header: 'X-Real-IP' }
    expect((await ask(realIp, ['10.1.2.0/24'], { 'x-real-ip': '10.1.2.3' })).status).toBe(200)
    expect((await ask(realIp, ['10.1.2.0/24'], forwarded)).status).toBe(403)
  })
})

describe('the address', () => {
  const address = (realIp: { trusted_proxies: string[]; recursive?: boolean }, header: string | undefined, peer = '10.0.0.1') => {
    const request = new Request('http://gateway.test/', header === undefined ? {} : { headers: { 'x-forwarded-for': header } })
    return createClientIp({ header: 'x-forwarded-for', recursive: false, ...realIp })(request, {
      requestIP: () => ({ address: peer }),
    })
  }
  const trusted = { trusted_proxies: ['10.0.0.0/8', '::1'] }

  test.each([
    ['last entry without recursion', false, '1.1.1.1, 10.0.0.9', '10.0.0.9'],
    ['last untrusted entry with recursion', true, '1.1.1.1, 2.2.2.2, 10.0.0.9', '2.2.2.2'],
    ['leftmost entry when all are trusted', true, '10.0.0.7, 10.0.0.9', '10.0.0.7'],
    ['entry without its port', false, '1.1.1.1:8080', '1.1.1.1'],
    ['IPv6 entry in brackets', false, '[2001:db8::1]', '2001:db8::1'],
    ['IPv6 entry with a port', false, '[2001:db8::1]:443', '2001:db8::1'],
    ['bare IPv6 entry', false, '2001:db8::1', '2001:db8::1'],
    ['entry that is no junk', false, '1.1.1.1, unknown, _hidden, ""', '1.1.1.1'],
    ['entry that is an address at all', true, '1.1.1.1, 999.999.999.999, :::::', '1.1.1.1'],
    ['peer when the list is empty', false, ' , ', '10.0.0.1'],
    ['peer when there is junk alone', true, 'unknown', '10.0.0.1'],
    ['peer when there is no header', true, undefined, '10.0.0.1'],
  ])('is the %s', (_name, recursive, header, expected) => {
    expect(address({ ...trusted, recursive }, header)).toBe(expected)
  })

  test('of IPv4 in IPv6 is plain IPv4', () => {
    expect(address({ trusted_proxies: [] }, undefined, '::ffff:192.0.2.7')).toBe('192.0.2.7')
    expect(address(trusted, '1.1.1.1', '::ffff:10.0.0.1')).toBe('1.1.1.1')
  })
})
