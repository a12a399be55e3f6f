import { describe, expect, test } from 'bun:test'
import { compileRoutes } from '../../../src/proxy/passthrough/route-table.ts'
import { addressOf, createAim } from '../../../src/proxy/passthrough/target.ts'
import { PassthroughRoute } from '../../../src/resources/passthrough-route.ts'
import { openMemoryStore } from '../../../src/store/memory.ts'

const HOST = 'a.example.com:3000'
const TLS = { ca: [], cert: undefined, key: undefined, verify: true }
const { snapshot } = openMemoryStore({ clock: Date })

/** Where a request goes on a route that needs no provider key. */
function urlOf(members: Record<string, unknown>, path: string, query = ''): string {
  const value = PassthroughRoute.parse({ name: 'r', credential_mode: 'forward_client', hosts: ['*.example.com'], ...members })
  const route = compileRoutes([{ id: 'r', value }]).ofHost(HOST, path)
  if (!route) throw new Error(`no route for ${path}`)
  return addressOf(createAim(TLS)(snapshot, route), HOST, path, query).url
}

describe('the URL', () => {
  test.each([
    ['http://h', '/up', '/up', 'http://h'],
    ['http://h/', '/up', '/up/', 'http://h/'],
    ['http://h:8000/base/', '/up', '/up/a/b', 'http://h:8000/base/a/b'],
    ['https://H/base', '/up', '/up//a//b/', 'https://h/base//a//b/'],
    ['http://h/base', undefined, '/a', 'http://h/base/a'],
    ['http://h/base', '/', '/a', 'http://h/base/a'],
    ['http://h', '/', '//evil.example.org/x', 'http://h//evil.example.org/x'],
    ['http://h', '/', '/@evil.example.org', 'http://h/@evil.example.org'],
    ['http://[::1]:80/x', '/up', '/up/y', 'http://[::1]/x/y'],
    ['http://h/base', '/up', '/up/a%2Fb%20c%5Cd', 'http://h/base/a%2Fb%20c%5Cd'],
    ['http://h/base', '/up', '/up/...', 'http://h/base/...'],
    ['http://h/base', '/up', '/up/a..b/.well-known', 'http://h/base/a..b/.well-known'],
  ])('of %s behind %p for %s is %s', (target_url, path_prefix, path, url) => {
    expect(urlOf({ target_url, path_prefix }, path)).toBe(url)
  })

  test.each([
    ['http://h/v1', '/up/v1', 'http://h/v1'],
    ['http://h/v1', '/up/v1/models', 'http://h/v1/models'],
    ['http://h/v1', '/up/v1/v1/models', 'http://h/v1/v1/models'],
    ['http://h/v1', '/up/models', 'http://h/v1/models'],
    ['http://h/v1', '/up/v2/models', 'http://h/v1/v2/models'],
    ['http://h/v1', '/up/v1beta/models', 'http://h/v1/v1beta/models'],
    ['http://h/api/v12/', '/up/v12/models', 'http://h/api/v12/models'],
    ['http://h/api/v1x', '/up/v1x/models', 'http://h/api/v1x/v1x/models'],
    ['http://h/xv1', '/up/xv1/models', 'http://h/xv1/xv1/models'],
  ])('of %s does not double the version in %s', (target_url, path, url) => {
    expect(urlOf({ target_url, path_prefix: '/up' }, path)).toBe(url)
  })

  test('has the query as it came', () => {
    expect(urlOf({ target_url: 'http://h/v1' }, '/x', '?a=%2F&a=..&b=c+d')).toBe('http://h/v1/x?a=%2F&a=..&b=c+d')
  })

  test('of a preserved host is https, that name without its port, and the whole path', () => {
    expect(urlOf({ preserve_host: true, path_prefix: '/v1' }, '/v1/models', '?x')).toBe('https://a.example.com/v1/models?x')
  })

  test.each([
    ['/up/%2e%2e%2fadmin'],
    ['/up/..%2fadmin'],
    ['/up/..%5cadmin'],
    ['/up/x%5C..%5Cadmin'],
    ['/up/%252e%252e/admin'],
    ['/up/%25252e%2525252E/admin'],
    ['/up/..%252fadmin'],
    ['/up/..;/admin'],
    ['/up/..;a=b/admin'],
    ['/up/..%3b/admin'],
    ['/up/x\\..\\admin'],
    ['/up/../admin'],
    ['/up/%2e%2E/admin'],
    ['/up/x/..'],
    ['/up/./x'],
    ['/up/%2e'],
  ])('of a path that could lead back, %s, is none', path => {
    for (const target of [{ target_url: 'http://h/base' }, { preserve_host: true }]) {
      expect(() => urlOf({ ...target, path_prefix: '/up' }, path)).toThrow('request payload is invalid: invalid path parameter')
    }
  })
})
